//! Tests of the pure parts with changes that `automerge` made.

use std::sync::Arc;

use automerge::sync::{BloomFilter, ChunkList, Have, Message, MessageFlags, MessageVersion};
use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{ActorId, AutoCommit, ChangeHash, ROOT};
use bytes::Bytes;
use concord_shared::change::{Change, Chunk, parse_chunks};
use concord_shared::code::ErrorCode;
use concord_shared::ids::{PeerId, PrincipalId, SessionId, StorageId};
use concord_shared::limits::Limits;

use super::actor::{Append, Document, Effects, Ephemeral, Frame, Input, PeerMessage, Policy};
use super::admission::{Admission, ParkingLimits, Sender};
use super::graph::{DecodeGraphError, Graph, GraphError, NewNode};
use super::sync::{MAX_COMPARED_PER_SESSION, Session};
use super::{ConnectionId, Now};

const ALICE: ConnectionId = ConnectionId(1);
const BOB: ConnectionId = ConnectionId(2);

fn parse(document: &mut AutoCommit) -> Vec<Change> {
    let changes = document.get_changes(&[]);
    changes
        .iter()
        .map(|change| parse_one(change.raw_bytes()))
        .collect()
}

fn parse_one(bytes: &[u8]) -> Change {
    let chunks = parse_chunks(&Bytes::copy_from_slice(bytes), &Limits::default());
    match chunks.expect("a good chunk").pop() {
        Some(Chunk::Change(change)) => change,
        other => panic!("not a change: {other:?}"),
    }
}

/// A document of one actor with `changes` changes.
fn document(actor: u8, changes: usize) -> AutoCommit {
    let mut document = AutoCommit::new().with_actor(ActorId::from([actor; 16]));
    for n in 0..changes {
        document
            .put(ROOT, "n", i64::try_from(n).expect("small"))
            .expect("put");
        document.commit();
    }
    document
}

fn admit_all(graph: &mut Graph, changes: &[Change]) {
    for change in changes {
        graph
            .admit(&NewNode::of(change).expect("in range"))
            .expect("fits");
    }
}

/// What `change` is refused for after `history`.
fn verdict(history: &[Change], change: &Change) -> Result<u32, GraphError> {
    let mut graph = Graph::new();
    admit_all(&mut graph, history);
    graph.admit(&NewNode::of(change)?)
}

#[test]
fn graph_refuses_what_does_not_fit() {
    let mut honest = document(1, 3);
    let changes = parse(&mut honest);
    let last = &changes[2];

    assert_eq!(verdict(&changes[..2], last), Ok(2));
    assert_eq!(
        verdict(&changes[..1], last),
        Err(GraphError::MissingDeps { missing: 1 })
    );

    let skipped = Change {
        seq: 4,
        ..last.clone()
    };
    let expected = GraphError::SeqNotNext {
        seq: 4,
        expected: 3,
    };
    assert_eq!(verdict(&changes[..2], &skipped), Err(expected));

    let again = Change {
        seq: 2,
        ..last.clone()
    };
    let expected = GraphError::DuplicateSeq { seq: 2, last: 2 };
    assert_eq!(verdict(&changes[..2], &again), Err(expected));

    let low = Change {
        start_op: 2,
        ..last.clone()
    };
    let expected = GraphError::StartOpTooLow {
        start_op: 2,
        highest: 2,
    };
    assert_eq!(verdict(&changes[..2], &low), Err(expected));

    let empty = Change {
        start_op: 9,
        ops: 0,
        ..last.clone()
    };
    let expected = GraphError::EmptyAfterGap {
        start_op: 9,
        expected: 3,
    };
    assert_eq!(verdict(&changes[..2], &empty), Err(expected));

    let huge = Change {
        ops: u64::from(u32::MAX),
        ..last.clone()
    };
    let refused = verdict(&changes[..2], &huge);
    assert!(
        matches!(refused, Err(GraphError::OpCounterOverflow { .. })),
        "{refused:?}"
    );

    // Knows its actor's first change but not the second.
    let forked = Change {
        deps: changes[0].deps.clone(),
        ..last.clone()
    };
    assert_eq!(
        verdict(&changes[..2], &forked),
        Err(GraphError::ForkedActor { previous: 2 })
    );
}

#[test]
fn graph_takes_concurrent_actors_and_their_merge() {
    let mut one = document(1, 2);
    let mut two = document(2, 2);
    one.merge(&mut two).expect("merge");
    one.put(ROOT, "merged", true).expect("put");
    one.commit();
    let changes = parse(&mut one);
    let mut graph = Graph::new();
    admit_all(&mut graph, &changes);
    graph.make_visible(4);
    assert_eq!(graph.visible_heads().len(), 2);
    graph.make_visible(graph.len());
    assert_eq!(graph.visible_heads(), one.get_heads());
    let first = graph.find(&changes[0].hash).expect("known");
    let merged = graph.find(&changes[4].hash).expect("known");
    assert!(graph.is_ancestor_of_any(first, &[merged]));
    let below_one: Vec<u32> = graph.visible_not_below(&[first]);
    assert_eq!(below_one.len(), 4);
    assert_eq!(graph.visible_not_below(&[merged]), Vec::<u32>::new());
    assert_eq!(graph.visible_not_below(&[]).len(), 5);
}

#[test]
fn graph_survives_encoding_and_refuses_damage() {
    let mut one = document(1, 20);
    one.merge(&mut document(2, 20)).expect("merge");
    let mut graph = Graph::new();
    admit_all(&mut graph, &parse(&mut one));
    graph.make_visible(graph.len());
    let bytes = graph.encode(graph.len());
    let decoded = Graph::decode(&bytes).expect("decodes");
    assert_eq!(decoded.visible_heads(), graph.visible_heads());
    assert_eq!(decoded.encode(decoded.len()), bytes);
    assert!(matches!(Graph::decode(&[]), Err(DecodeGraphError::Read(_))));
    let newer = Graph::decode(&[2]).err();
    assert_eq!(newer, Some(DecodeGraphError::Format { found: 2 }));
    for end in 1..bytes.len() {
        assert!(Graph::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
    let trailing = [&bytes[..], &[0]].concat();
    assert!(Graph::decode(&trailing).is_err());
}

#[test]
fn stored_graph_format_does_not_change() {
    // Version 1, byte for byte: a change here needs a new version byte and a reader for this one.
    let mut graph = Graph::new();
    let actor = ActorId::from([0xaa, 0xbb]);
    let root = NewNode {
        hash: ChangeHash([1; 32]),
        deps: &[],
        actor: &actor,
        seq: 1,
        start_op: 1,
        ops: 300,
    };
    graph.admit(&root).expect("fits");
    let next = NewNode {
        hash: ChangeHash([2; 32]),
        deps: &[ChangeHash([1; 32])],
        seq: 2,
        start_op: 301,
        ops: 0,
        ..root
    };
    graph.admit(&next).expect("fits");
    let expected = [
        "01",
        "01",
        "02aabb",
        "02",
        &"01".repeat(32),
        &"02".repeat(32),
        "0001ac0200",
        "00ad02000101",
    ]
    .concat();
    assert_eq!(hex::encode(graph.encode(2)), expected);
}

fn sender(connection: ConnectionId) -> Sender {
    Sender {
        connection,
        principal: PrincipalId::anonymous(),
    }
}

#[test]
fn parked_changes_enter_when_their_deps_come_in_any_order() {
    let changes = parse(&mut document(1, 6));
    let mut graph = Graph::new();
    let mut admission = Admission::new(ParkingLimits::default());
    for change in changes[1..].iter().rev() {
        let outcome = admission.admit(&mut graph, &sender(ALICE), vec![change.clone()]);
        assert!(outcome.admitted.is_empty() && outcome.refused.is_empty());
    }
    assert_eq!(
        admission.missing_for(&graph, &[changes[5].hash]),
        [changes[0].hash]
    );
    let outcome = admission.admit(&mut graph, &sender(BOB), vec![changes[0].clone()]);
    assert_eq!(outcome.admitted.len(), 6);
    assert_eq!((admission.parked(), graph.len()), (0, 6));
}

#[test]
fn parking_is_bounded_and_goes_with_its_connection() {
    let changes = parse(&mut document(1, 6));
    let mut graph = Graph::new();
    let mut admission = Admission::new(ParkingLimits {
        changes: 3,
        bytes: 1 << 20,
    });
    let outcome = admission.admit(&mut graph, &sender(ALICE), changes[1..].to_vec());
    assert_eq!(admission.parked(), 3);
    let codes: Vec<ErrorCode> = outcome.refused.iter().map(|(_, r)| r.code()).collect();
    assert_eq!(codes, [ErrorCode::PendingLimit; 2]);
    admission.forget(ALICE);
    assert_eq!(admission.parked(), 0);
    let outcome = admission.admit(&mut graph, &sender(BOB), changes[..3].to_vec());
    assert_eq!(
        (outcome.admitted.len(), graph.len()),
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
    let mut graph = Graph::new();
    let mut admission = Admission::new(ParkingLimits::default());
    admission.admit(&mut graph, &sender(ALICE), good);
    let outcome = admission.admit(
        &mut graph,
        &sender(BOB),
        vec![forged[2].clone(), forged[1].clone()],
    );
    let codes: Vec<ErrorCode> = outcome.refused.iter().map(|(_, r)| r.code()).collect();
    assert_eq!(codes, [ErrorCode::DuplicateSeq, ErrorCode::BuildsOnRefused]);
    assert_eq!((admission.parked(), graph.len()), (0, 2));
}

/// A document and what it did, driven by hand.
struct Bench {
    document: Document,
    effects: Effects,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        Self {
            document: Document::new(
                Graph::new(),
                Policy {
                    request_grace_ms: 500,
                    parking: ParkingLimits::default(),
                    storage: StorageId::new("server-storage").expect("an id"),
                },
            ),
            effects: Effects::default(),
            now: Now::default(),
        }
    }

    fn input(&mut self, input: Input) -> Effects {
        self.document.handle(self.now, input, &mut self.effects);
        self.document.flush(self.now, &mut self.effects);
        std::mem::take(&mut self.effects)
    }

    fn message(
        &mut self,
        from: ConnectionId,
        is_request: bool,
        sync: Message,
        changes: Vec<Change>,
    ) -> Effects {
        let message = PeerMessage {
            principal: PrincipalId::anonymous(),
            storage: None,
            is_request,
            sync,
            changes,
            snapshot: None,
        };
        self.input(Input::Message(from, Box::new(message)))
    }
}

/// A sync message that says "these are my heads, and all I have".
fn greeting(heads: &[ChangeHash]) -> Message {
    Message {
        heads: heads.to_vec(),
        need: vec![],
        have: vec![Have {
            last_sync: heads.to_vec(),
            ..Have::default()
        }],
        changes: ChunkList::empty(),
        flags: Some(MessageFlags::new()),
        version: MessageVersion::V1,
    }
}

fn sync_frames(effects: &Effects) -> Vec<(ConnectionId, Message)> {
    let decode = |(connection, frame): &(ConnectionId, Frame)| match frame {
        Frame::Sync(data) => Some((*connection, Message::decode(data).expect("decodes"))),
        _ => None,
    };
    effects.frames.iter().filter_map(decode).collect()
}

#[test]
fn a_change_is_shown_to_nobody_before_it_is_committed() {
    let changes = parse(&mut document(1, 1));
    let mut bench = Bench::new();
    bench.message(BOB, false, greeting(&[]), vec![]);
    let heads = [changes[0].hash];
    let effects = bench.message(ALICE, false, greeting(&heads), changes.clone());
    assert_eq!(effects.appends.len(), 1);
    for (_, message) in sync_frames(&effects) {
        assert_eq!((message.heads, message.changes.len()), (vec![], 0));
    }
    let effects = bench.input(Input::Committed(1));
    let frames = sync_frames(&effects);
    assert_eq!(frames.len(), 2);
    for (connection, message) in frames {
        assert_eq!(message.heads, heads);
        // The author is told that it is kept; the other gets it.
        assert_eq!(message.changes.is_empty(), connection == ALICE);
    }
    assert!(
        bench.input(Input::Committed(1)).frames.is_empty(),
        "said once"
    );
}

#[test]
fn peers_at_the_same_place_share_one_message() {
    let mut author = document(1, 2);
    let changes = parse(&mut author);
    let mut bench = Bench::new();
    bench.message(ALICE, false, greeting(&[]), changes[..1].to_vec());
    bench.input(Input::Committed(1));
    for peer in 10..20 {
        bench.message(
            ConnectionId(peer),
            false,
            greeting(&[changes[0].hash]),
            vec![],
        );
    }
    bench.message(
        ALICE,
        false,
        greeting(&author.get_heads()),
        changes[1..].to_vec(),
    );
    let effects = bench.input(Input::Committed(2));
    let pointers: std::collections::HashSet<*const u8> = effects
        .frames
        .iter()
        .filter(|(connection, _)| *connection != ALICE)
        .map(|(_, frame)| match frame {
            Frame::Sync(data) => data.as_ptr(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((effects.frames.len(), pointers.len()), (11, 1));
}

#[test]
fn a_request_waits_then_is_unavailable_then_gets_the_document() {
    let changes = parse(&mut document(1, 1));
    let mut bench = Bench::new();
    let effects = bench.message(BOB, true, greeting(&[]), vec![]);
    assert!(effects.frames.is_empty());
    assert_eq!(effects.wake_at_ms, Some(500));
    bench.now.monotonic_ms = 500;
    let effects = bench.input(Input::Tick);
    assert!(
        matches!(effects.frames[..], [(BOB, Frame::Unavailable)]),
        "{effects:?}"
    );
    assert!(bench.input(Input::Tick).frames.is_empty(), "told once");
    bench.message(ALICE, false, greeting(&[]), changes.clone());
    let effects = bench.input(Input::Committed(1));
    let frames = sync_frames(&effects);
    let to_bob = frames.iter().find(|(connection, _)| *connection == BOB);
    assert_eq!(to_bob.map(|(_, message)| message.changes.len()), Some(1));
}

#[test]
fn a_congested_peer_gets_one_message_for_all_it_missed() {
    let mut author = document(1, 6);
    let changes = parse(&mut author);
    let mut bench = Bench::new();
    bench.message(ALICE, false, greeting(&[]), vec![]);
    bench.message(BOB, false, greeting(&[]), vec![]);
    bench.input(Input::Congested(BOB));
    for (n, change) in (1..).zip(&changes) {
        bench.message(ALICE, false, greeting(&[change.hash]), vec![change.clone()]);
        let effects = bench.input(Input::Committed(n));
        assert!(
            effects
                .frames
                .iter()
                .all(|(connection, _)| *connection == ALICE)
        );
    }
    let frames = sync_frames(&bench.input(Input::Drained(BOB)));
    assert_eq!(frames.len(), 1);
    let bytes: usize = frames[0].1.changes.iter().map(<[u8]>::len).sum();
    assert_eq!(
        bytes,
        changes
            .iter()
            .map(|change| change.bytes.len())
            .sum::<usize>()
    );
}

#[test]
fn a_refused_change_cuts_off_its_sender_and_nobody_else() {
    let changes = parse(&mut document(1, 2));
    let mut bench = Bench::new();
    bench.message(BOB, false, greeting(&[]), vec![]);
    bench.message(ALICE, false, greeting(&[]), changes.clone());
    bench.input(Input::Committed(2));
    let forged = parse(&mut {
        let mut forger = document(1, 1);
        forger.put(ROOT, "forged", true).expect("put");
        forger.commit();
        forger
    });
    let effects = bench.message(ALICE, false, greeting(&[]), forged[1..].to_vec());
    assert_eq!(effects.rejected.len(), 1);
    assert_eq!(effects.rejected[0].0, ALICE);
    assert_eq!(effects.rejected[0].1.code(), ErrorCode::DuplicateSeq);
    assert!(effects.appends.is_empty() && effects.frames.is_empty());
    assert_eq!(
        (bench.document.peers(), bench.document.graph().len()),
        (1, 2)
    );
}

#[test]
fn endless_resets_are_cut_off() {
    let changes = parse(&mut document(1, 1));
    let mut bench = Bench::new();
    bench.message(ALICE, false, greeting(&[]), changes.clone());
    bench.input(Input::Committed(1));
    let mut reset = greeting(&[changes[0].hash]);
    reset.have = vec![Have::default()];
    let mut answered = 0;
    for _ in 0..1000 {
        let effects = bench.message(ALICE, false, reset.clone(), vec![]);
        if let [(ALICE, rejection)] = &effects.rejected[..] {
            assert_eq!(rejection.code(), ErrorCode::Overloaded);
            return;
        }
        answered += effects.frames.len();
    }
    panic!("{answered} resets were answered");
}

#[test]
fn ephemeral_messages_go_to_the_others() {
    let mut bench = Bench::new();
    for peer in [ALICE, BOB, ConnectionId(3)] {
        bench.message(peer, false, greeting(&[]), vec![]);
    }
    bench.input(Input::Congested(ConnectionId(3)));
    let ephemeral = Arc::new(Ephemeral {
        sender: PeerId::new("a tab behind a worker").expect("an id"),
        session: SessionId::new("s").expect("an id"),
        count: 1,
        data: Bytes::from_static(b"\x01"),
    });
    let effects = bench.input(Input::Ephemeral(ALICE, Arc::clone(&ephemeral)));
    assert!(
        matches!(effects.frames[..], [(BOB, Frame::Ephemeral(_))]),
        "{effects:?}"
    );
}

#[test]
fn subscribers_hear_of_the_servers_heads_when_they_move() {
    let mut author = document(1, 1);
    let changes = parse(&mut author);
    let mut bench = Bench::new();
    bench.message(BOB, false, greeting(&[]), vec![]);
    let storages = [StorageId::new("server-storage").expect("an id")];
    bench.input(Input::Subscribe(
        BOB,
        Arc::new(storages.into_iter().collect()),
    ));
    bench.message(ALICE, false, greeting(&[]), changes);
    let effects = bench.input(Input::Committed(1));
    let told: Vec<&[ChangeHash]> = effects
        .frames
        .iter()
        .filter_map(|(connection, frame)| match frame {
            Frame::RemoteHeads { heads, .. } if *connection == BOB => Some(&heads[..]),
            _ => None,
        })
        .collect();
    assert_eq!(told, [&author.get_heads()[..]]);
    assert!(bench.input(Input::Tick).frames.is_empty(), "said once");
    bench.input(Input::Congested(BOB));
    let more = parse(&mut document(2, 1));
    bench.message(ALICE, false, greeting(&[]), more);
    let effects = bench.input(Input::Committed(2));
    let to_bob = |effects: &Effects| effects.frames.iter().filter(|(c, _)| *c == BOB).count();
    assert_eq!(
        to_bob(&effects),
        0,
        "nothing is queued for who does not keep up"
    );
    assert!(to_bob(&bench.input(Input::Drained(BOB))) > 0);
}

#[test]
fn a_peer_that_never_says_what_it_holds_is_cut_off() {
    let mut history = Graph::new();
    let actor = ActorId::from([1; 16]);
    let mut deps = Vec::new();
    for n in 1..=20_000_u32 {
        let mut hash = [1; 32];
        hash[..4].copy_from_slice(&n.to_le_bytes());
        let hash = ChangeHash(hash);
        let node = NewNode {
            hash,
            deps: &deps,
            actor: &actor,
            seq: u64::from(n),
            start_op: n,
            ops: 1,
        };
        history.admit(&node).expect("fits");
        deps = vec![hash];
    }
    history.make_visible(history.len());
    let unknown = [ChangeHash([7; 32])];
    // A filter that claims everything and says nothing.
    let bloom = BloomFilter::try_from(&[1, 8, 7, 0xff][..]).expect("a filter");
    let doubtful = Message {
        have: vec![Have {
            last_sync: Vec::new(),
            bloom,
        }],
        ..greeting(&unknown)
    };
    let mut session = Session::new();
    let refused = (0..1000).find(|_| {
        session
            .received(&history, &doubtful, unknown.to_vec(), false)
            .is_err()
    });
    assert_eq!(refused, Some(MAX_COMPARED_PER_SESSION / 20_000 + 1));
}

#[test]
fn an_upload_is_kept_as_it_came_unless_something_else_came_with_it() {
    let mut author = document(1, 30);
    let snapshot = Bytes::from(author.save());
    let changes = parse(&mut author);
    let upload = |bench: &mut Bench, changes: Vec<Change>| {
        let message = PeerMessage {
            principal: PrincipalId::anonymous(),
            storage: None,
            is_request: false,
            sync: greeting(&[]),
            changes,
            snapshot: Some(snapshot.clone()),
        };
        bench
            .input(Input::Message(ALICE, Box::new(message)))
            .appends
    };
    let appends = upload(&mut Bench::new(), changes.clone());
    assert!(
        matches!(appends[..], [Append::Upload { base: 30, .. }]),
        "{appends:?}"
    );
    // A change that waited for this upload enters with it, and is not in the uploaded bytes.
    let mut bench = Bench::new();
    author.empty_change(CommitOptions::default());
    let waiting = parse(&mut author).pop().expect("a change");
    bench.message(BOB, false, greeting(&[]), vec![waiting]);
    let appends = upload(&mut bench, changes);
    assert!(
        matches!(appends[..], [Append::Changes { first: 0, .. }]),
        "{appends:?}"
    );
    assert_eq!(appends[0].end(), 31);
}
