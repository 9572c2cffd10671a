use automerge::sync::{BloomFilter, Have, Message};
use automerge::{ActorId, ChangeHash};

use super::{admit_node, greeting};
use crate::document::graph::{Graph, NewNode};
use crate::document::sync::{Haves, MAX_COMPARED_PER_SESSION, Session};

/// A history of one actor, each change on the one before, all of it visible.
fn chain(changes: u32) -> Graph {
    let mut history = Graph::new();
    let actor = ActorId::from([1; 16]);
    let mut deps = Vec::new();
    for n in 1..=changes {
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
        admit_node(&mut history, &node).expect("fits");
        deps = vec![hash];
    }
    history.make_visible(history.len());
    history
}

#[test]
fn a_peer_that_never_says_what_it_holds_is_cut_off() {
    let history = chain(20_000);
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
fn a_peer_in_doubt_costs_one_filter_for_each_message_of_its_own() {
    let mut history = chain(50);
    let unknown = [ChangeHash([7; 32])];
    let withholding = Message {
        have: vec![],
        ..greeting(&unknown)
    };
    let mut session = Session::new();
    let mut typed = 0;
    let mut next_after_news = |session: &mut Session| {
        typed += 1;
        let actor = ActorId::from([2, typed]);
        let node = NewNode {
            hash: ChangeHash([100 + typed; 32]),
            deps: &[],
            actor: &actor,
            seq: 1,
            start_op: 1000,
            ops: 1,
        };
        admit_node(&mut history, &node).expect("fits");
        history.make_visible(history.len());
        session.next(&history).expect("news")
    };
    let greeted = chain(50);
    for _ in 0..3 {
        session
            .received(&greeted, &withholding, unknown.to_vec(), false)
            .expect("in bounds");
        let first = next_after_news(&mut session);
        assert!(matches!(first.have, Haves::Filter(_)), "{first:?}");
        // Others go on typing, and the peer says nothing.
        for _ in 0..3 {
            assert_eq!(next_after_news(&mut session).have, Haves::Withheld);
        }
    }
}
