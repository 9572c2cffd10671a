use automerge::transaction::Transactable as _;
use automerge::{ActorId, ChangeHash, ROOT};
use bytes::Bytes;
use concord_shared::change::{Change, Ops};
use concord_shared::code::ErrorCode;
use concord_shared::limits::Limits;

use super::{ALICE, BOB, document, parse, sender};
use crate::document::admission::{
    Admission, MAX_ACTORS, MAX_HEADS, MAX_STEPS_PER_MESSAGE, ParkingLimits,
};
use crate::document::history::History;

#[test]
fn parked_changes_enter_when_their_deps_come_in_any_order() {
    let changes = parse(&mut document(1, 6));
    let mut history = History::new();
    let mut admission = Admission::new(ParkingLimits::default());
    for change in changes[1..].iter().rev() {
        let outcome = admission.admit(&mut history, &sender(ALICE), vec![change.clone()]);
        assert!(outcome.admitted.is_empty() && outcome.refused.is_empty());
    }
    assert_eq!(
        admission.missing_for(history.graph(), &[changes[5].hash]),
        [changes[0].hash]
    );
    let outcome = admission.admit(&mut history, &sender(BOB), vec![changes[0].clone()]);
    assert_eq!(outcome.admitted.len(), 6);
    assert_eq!((admission.parked(), history.graph().len()), (0, 6));
}

#[test]
fn parking_is_bounded_and_goes_with_its_connection() {
    let changes = parse(&mut document(1, 6));
    let mut history = History::new();
    let mut admission = Admission::new(ParkingLimits {
        changes: 3,
        bytes: 1 << 20,
    });
    let outcome = admission.admit(&mut history, &sender(ALICE), changes[1..].to_vec());
    assert_eq!(admission.parked(), 3);
    let codes: Vec<ErrorCode> = outcome.refused.iter().map(|(_, r)| r.code()).collect();
    assert_eq!(
        codes,
        [ErrorCode::PendingLimit],
        "the rest is not looked at"
    );
    admission.forget(ALICE);
    assert_eq!(admission.parked(), 0);
    let outcome = admission.admit(&mut history, &sender(BOB), changes[..3].to_vec());
    assert_eq!(
        (outcome.admitted.len(), history.graph().len()),
        (3, 3),
        "nothing of what was forgotten"
    );
}

#[test]
fn a_refused_change_takes_its_dependents_with_it() {
    let mut honest = document(1, 2);
    let good = parse(&mut honest);
    // Two other changes with this actor's seq 2, the second of them on top of the first.
    let mut forger = document(1, 1);
    forger.put(ROOT, "forged", true).expect("put");
    forger.commit();
    forger.put(ROOT, "forged", false).expect("put");
    forger.commit();
    let forged = parse(&mut forger);
    let mut history = History::new();
    let mut admission = Admission::new(ParkingLimits::default());
    admission.admit(&mut history, &sender(ALICE), good);
    let outcome = admission.admit(
        &mut history,
        &sender(BOB),
        vec![forged[2].clone(), forged[1].clone()],
    );
    let codes: Vec<ErrorCode> = outcome.refused.iter().map(|(_, r)| r.code()).collect();
    assert_eq!(codes, [ErrorCode::DuplicateSeq, ErrorCode::BuildsOnRefused]);
    assert_eq!((admission.parked(), history.graph().len()), (0, 2));
}

#[test]
fn who_parks_most_makes_room_for_the_others() {
    let (hoard, honest) = (parse(&mut document(1, 6)), parse(&mut document(2, 2)));
    let mut history = History::new();
    let mut admission = Admission::new(ParkingLimits {
        changes: 5,
        bytes: 1 << 20,
    });
    let outcome = admission.admit(&mut history, &sender(ALICE), hoard[1..].to_vec());
    assert!(outcome.refused.is_empty());
    let outcome = admission.admit(&mut history, &sender(BOB), honest[1..].to_vec());
    let refused: Vec<_> = outcome
        .refused
        .iter()
        .map(|(who, r)| (*who, r.code()))
        .collect();
    assert_eq!(refused, [(ALICE, ErrorCode::PendingLimit)]);
    assert_eq!(admission.parked(), 1);
    let outcome = admission.admit(&mut history, &sender(BOB), honest[..1].to_vec());
    assert_eq!((outcome.admitted.len(), admission.parked_bytes()), (2, 0));
}

/// A change of a new actor, without ops.
pub(super) fn change(number: u32, deps: Vec<ChangeHash>, start_op: u64) -> Change {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&number.to_le_bytes());
    Change {
        bytes: Bytes::from_static(b"of no interest here"),
        hash: ChangeHash(hash),
        deps,
        actor: ActorId::from(number.to_le_bytes()),
        seq: 1,
        start_op,
        ops: 0,
        refs: Ops::default(),
    }
}

#[test]
fn nobody_can_give_a_document_more_heads_than_a_change_may_have_deps() {
    let mut history = History::new();
    let mut admission = Admission::new(ParkingLimits::default());
    let most = u32::try_from(MAX_HEADS).expect("small");
    let roots: Vec<Change> = (0..=most).map(|n| change(n, vec![], 1)).collect();
    let outcome = admission.admit(&mut history, &sender(ALICE), roots);
    let codes: Vec<ErrorCode> = outcome.refused.iter().map(|(_, r)| r.code()).collect();
    assert_eq!(codes, [ErrorCode::TooManyHeads]);
    assert_eq!(
        (
            history.graph().admitted_heads().len(),
            outcome.admitted.len()
        ),
        (MAX_HEADS, MAX_HEADS)
    );
    assert!(MAX_HEADS < Limits::default().deps);
    // Whoever saw all of that goes on.
    history.make_visible(history.graph().len());
    let merge = change(most + 1, history.graph().visible_heads().to_vec(), 1);
    let outcome = admission.admit(&mut history, &sender(BOB), vec![merge]);
    assert_eq!(
        (
            outcome.admitted.len(),
            history.graph().admitted_heads().len()
        ),
        (1, 1)
    );
}

#[test]
fn nobody_can_give_a_document_more_actors_than_loads() {
    let mut history = History::new();
    let mut admission = Admission::new(ParkingLimits::default());
    let most = u32::try_from(MAX_ACTORS).expect("small");
    let mut deps = Vec::new();
    for n in 0..most {
        let next = change(n, std::mem::take(&mut deps), 1);
        deps.push(next.hash);
        let outcome = admission.admit(&mut history, &sender(ALICE), vec![next]);
        assert_eq!(outcome.admitted.len(), 1);
    }
    let stranger = change(most, deps.clone(), 1);
    let outcome = admission.admit(&mut history, &sender(BOB), vec![stranger.clone()]);
    let codes: Vec<ErrorCode> = outcome.refused.iter().map(|(_, r)| r.code()).collect();
    assert_eq!(codes, [ErrorCode::TooManyActors]);
    // Those who are known go on.
    let known = Change {
        actor: ActorId::from(0_u32.to_le_bytes()),
        seq: 2,
        ..stranger
    };
    let outcome = admission.admit(&mut history, &sender(BOB), vec![known]);
    assert_eq!(outcome.admitted.len(), 1);
}

#[test]
fn a_message_of_changes_that_go_on_from_long_ago_is_stopped() {
    // Many actors make a change each, one merges them, and goes on for long. Then they go on from the merge:
    // what each of them lacks is all of the chain, and has to be found anew.
    let (actors, chain) = (2000, 40_000);
    let mut history = History::new();
    let mut admission = Admission::new(ParkingLimits::default());
    let firsts: Vec<Change> = (0..actors).map(|n| change(n, vec![], 1)).collect();
    admission.admit(&mut history, &sender(ALICE), firsts.clone());
    let mut tip: Vec<ChangeHash> = firsts.iter().map(|first| first.hash).collect();
    tip.sort_unstable();
    let mut merge = Vec::new();
    for n in 0..chain {
        let link = Change {
            actor: ActorId::from([1; 16]),
            seq: u64::from(n) + 1,
            ..change(actors + n, tip, 1)
        };
        tip = vec![link.hash];
        if n == 0 {
            merge.clone_from(&tip);
        }
        let outcome = admission.admit(&mut history, &sender(ALICE), vec![link]);
        assert_eq!(outcome.admitted.len(), 1);
    }
    let old = firsts.iter().zip(0..).map(|(first, n)| Change {
        actor: first.actor.clone(),
        seq: 2,
        ..change(actors + chain + n, merge.clone(), 1)
    });
    let old: Vec<Change> = old.collect();
    let before = history.clone();
    let outcome = admission.admit(&mut history, &sender(BOB), old.clone());
    let codes: Vec<ErrorCode> = outcome.refused.iter().map(|(_, r)| r.code()).collect();
    assert_eq!(codes, [ErrorCode::Overloaded]);
    let judged = u64::try_from(outcome.admitted.len()).expect("small");
    assert!(
        judged * u64::from(chain) <= MAX_STEPS_PER_MESSAGE,
        "{judged}"
    );
    assert!(judged > 20, "{judged} is far from the bound");

    // What another has waiting for one of the message's is not counted with that.
    let mut history = before;
    let last = change(u32::MAX, vec![], 1);
    let (message, waiting) = old.split_at(outcome.admitted.len());
    let mut waiting = waiting[0].clone();
    waiting.deps.push(last.hash);
    admission.admit(&mut history, &sender(ALICE), vec![waiting]);
    assert_eq!(admission.parked(), 1);
    let mut message = message.to_vec();
    message.push(last);
    let sent = message.len();
    let outcome = admission.admit(&mut history, &sender(BOB), message);
    assert_eq!(outcome.refused.len(), 0);
    assert_eq!(outcome.admitted.len(), sent + 1);
}
