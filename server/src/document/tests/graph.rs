use automerge::transaction::Transactable as _;
use automerge::{ActorId, ChangeHash, ROOT};
use concord_shared::change::Change;

use super::{admit_all, admit_node, document, parse};
use crate::document::graph::{DecodeGraphError, Graph, GraphError, NewNode};

/// What `change` is refused for after `history`.
fn verdict(history: &[Change], change: &Change) -> Result<u32, GraphError> {
    let mut graph = Graph::new();
    admit_all(&mut graph, history);
    admit_node(&mut graph, &NewNode::of(change)?)
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
    admit_node(&mut graph, &root).expect("fits");
    let next = NewNode {
        hash: ChangeHash([2; 32]),
        deps: &[ChangeHash([1; 32])],
        seq: 2,
        start_op: 301,
        ops: 0,
        ..root
    };
    admit_node(&mut graph, &next).expect("fits");
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

#[test]
fn heads_of_what_was_sent_so_far() {
    let mut one = document(1, 4);
    one.merge(&mut document(2, 4)).expect("merge");
    one.put(ROOT, "merged", true).expect("put");
    one.commit();
    let changes = parse(&mut one);
    let mut graph = Graph::new();
    admit_all(&mut graph, &changes);
    for sent in 0..=changes.len() {
        let mut known = Graph::new();
        admit_all(&mut known, &changes[..sent]);
        known.make_visible(known.len());
        let (to, sent) = (graph.len(), u32::try_from(sent).expect("small"));
        let unsent: Vec<u32> = (sent..to).collect();
        assert_eq!(graph.heads_without(to, &unsent), known.visible_heads());
        assert_eq!(graph.heads_without(sent, &[]), known.visible_heads());
    }
}
