//! What strangers may make of a document.

use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, ObjType, ROOT};
use concord_shared::change::{Change, Made, Ops, Place, What};
use concord_shared::code::ErrorCode;

use super::admission::change;
use super::{ALICE, BOB, parse, sender};
use crate::document::admission::{
    Admission, FREE_OPS, MAX_DEPTH, OPS_PER_BYTE, Outcome, ParkingLimits,
};
use crate::document::history::History;
use crate::document::past::Steps;

fn codes(outcome: &Outcome) -> Vec<ErrorCode> {
    outcome.refused.iter().map(|(_, r)| r.code()).collect()
}

/// A client runs out of memory at some thousand levels.
#[test]
fn objects_lie_only_so_deep_in_each_other() {
    let mut author = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    let mut object = ROOT;
    // One change makes many levels, the next go on from there.
    for depth in 1..=MAX_DEPTH {
        object = author.put_object(&object, "deeper", ObjType::Map).unwrap();
        if depth == 200 || depth > MAX_DEPTH - 2 {
            author.commit();
        }
    }
    author.put(&object, "value", 1).unwrap();
    author.commit();
    let mut history = History::new();
    let mut admission = Admission::new(ParkingLimits::default());
    let outcome = admission.admit(&mut history, &sender(ALICE), parse(&mut author));
    assert_eq!((codes(&outcome), outcome.admitted.len()), (vec![], 4));

    let mut sibling = author.fork().with_actor(ActorId::from([2; 16]));
    author.put_object(&object, "deeper", ObjType::Map).unwrap();
    let deeper = parse(&mut author).pop().unwrap();
    let few_steps = &mut Steps::new(100);
    let stopped = history.is_too_deep(&deeper, MAX_DEPTH, few_steps);
    assert_eq!(stopped.unwrap_err().code(), ErrorCode::Overloaded);
    let outcome = admission.admit(&mut history, &sender(ALICE), vec![deeper]);
    assert_eq!(codes(&outcome), [ErrorCode::TooDeep]);
    // And by another's hand, behind objects of its own.
    let mut object = sibling.put_object(ROOT, "other", ObjType::List).unwrap();
    for _ in 0..MAX_DEPTH {
        object = sibling.insert_object(&object, 0, ObjType::List).unwrap();
    }
    let deeper = parse(&mut sibling).pop().unwrap();
    let outcome = admission.admit(&mut history, &sender(BOB), vec![deeper]);
    assert_eq!(codes(&outcome), [ErrorCode::TooDeep]);
}

/// A change of so many ops that each make such a thing; of `None`, that make nothing.
fn of_ops(number: u32, count: u64, what: Option<What>) -> Change {
    let made = what.map(|what| Made {
        first: 1,
        count: u32::try_from(count).unwrap(),
        object: None,
        place: Place::Behind(None),
        what,
    });
    let refs = Ops {
        made: made.into_iter().collect(),
        ..Ops::default()
    };
    Change {
        ops: count,
        refs,
        ..change(number, vec![], 1)
    }
}

/// A run of a million ops is a hundred bytes to send.
#[test]
fn ops_are_in_proportion_to_bytes() {
    let bytes = change(0, vec![], 1).bytes.len() as u64;
    let most = FREE_OPS + OPS_PER_BYTE * bytes;
    for (what, weight, times) in [
        (Some(What::Scalar), 1, 1),
        (Some(What::Mark), 16, 1),
        (None, 1, 16),
    ] {
        let mut admission = Admission::new(ParkingLimits::default());
        let mut codes_of = |history: &mut History, change: Change| {
            codes(&admission.admit(history, &sender(ALICE), vec![change]))
        };
        let all = most / weight * times;
        let one_too_many = of_ops(1, all + times, what);
        let mut history = History::new();
        assert_eq!(
            codes_of(&mut history, one_too_many),
            [ErrorCode::TooManyOps]
        );
        assert_eq!(codes_of(&mut history, of_ops(2, all, what)), []);
        // Also after it was stored.
        let mut history = History::decode(&history.encode()).unwrap();
        let fair = OPS_PER_BYTE * bytes / weight * times;
        let unfair = of_ops(3, fair + times, what);
        assert_eq!(codes_of(&mut history, unfair), [ErrorCode::TooManyOps]);
        assert_eq!(codes_of(&mut history, of_ops(4, fair, what)), []);

        // One that is beyond that already, by import, can still be edited.
        let mut history = History::new();
        let import = of_ops(5, 10 * all, what);
        history.admit(&import, &mut Steps::new(u64::MAX)).unwrap();
        assert_eq!(codes_of(&mut history, of_ops(6, fair, what)), []);
        let unfair = of_ops(7, fair + times, what);
        assert_eq!(codes_of(&mut history, unfair), [ErrorCode::TooManyOps]);

        // And what is only early is not refused.
        let early = Change {
            deps: vec![automerge::ChangeHash([9; 32])],
            ..of_ops(8, 10 * all, what)
        };
        assert_eq!(codes_of(&mut history, early), []);
    }
}

/// Twenty people wrote in turns while they were offline; meanwhile the document went on for long.
#[test]
fn an_old_branch_of_many_people_comes_in_one_message() {
    let (chain, branch) = (100_000, 2_000);
    let mut history = History::new();
    let mut admission = Admission::new(ParkingLimits::default());
    let root = change(0, vec![], 1);
    let mut tip = root.hash;
    admission.admit(&mut history, &sender(ALICE), vec![root.clone()]);
    for n in 1..chain {
        let link = Change {
            actor: root.actor.clone(),
            seq: u64::from(n) + 1,
            ..change(n, vec![tip], 1)
        };
        tip = link.hash;
        let outcome = admission.admit(&mut history, &sender(ALICE), vec![link]);
        assert_eq!(outcome.admitted.len(), 1);
    }
    let mut tip = root.hash;
    let turns = (0..branch).map(|n| {
        let turn = Change {
            actor: ActorId::from([100 + u8::try_from(n % 20).unwrap(); 16]),
            seq: u64::from(n) / 20 + 1,
            ..change(chain + n, vec![tip], 1)
        };
        tip = turn.hash;
        turn
    });
    let outcome = admission.admit(&mut history, &sender(BOB), turns.collect());
    assert_eq!(codes(&outcome), []);
    assert_eq!(outcome.admitted.len(), branch as usize);
}
