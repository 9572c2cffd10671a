//! Those who may not write, by Automerge's own sync on their side: they get all, give nothing and fall silent, and what
//! they may changes in the middle.

use automerge::sync::{ChunkList, State, SyncDoc as _};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ROOT};
use concord_shared::change::{Chunk, decode_document, parse_chunks};
use concord_shared::ids::PrincipalId;
use concord_shared::limits::Limits;

use super::{ALICE, BOB, Bench, document, greeting, parse, sync_frames};
use crate::document::ConnectionId;
use crate::document::actor::{Effects, Input, PeerMessage};

/// More messages than anything here takes: beyond it is a loop.
const MOST_MESSAGES: usize = 20;

/// A peer by the book.
struct Stock {
    id: ConnectionId,
    document: AutoCommit,
    session: State,
    may_write: bool,
}

impl Stock {
    fn new(id: ConnectionId, may_write: bool) -> Self {
        Self {
            id,
            document: AutoCommit::new(),
            session: State::new(),
            may_write,
        }
    }

    fn put(&mut self, key: &str) {
        self.document.put(ROOT, key, true).expect("puts");
        self.document.commit();
    }

    fn take(&mut self, effects: &Effects) {
        for (connection, message) in sync_frames(effects) {
            if connection == self.id {
                let mut sync = self.document.sync();
                let taken = sync.receive_sync_message(&mut self.session, message);
                taken.expect("takes");
            }
        }
    }

    /// Talks with the server until neither has anything to say; how many messages that took.
    fn talk(&mut self, bench: &mut Bench) -> usize {
        for said in 0..MOST_MESSAGES {
            let sync = self
                .document
                .sync()
                .generate_sync_message(&mut self.session);
            let Some(mut sync) = sync else {
                return said;
            };
            let blobs = std::mem::replace(&mut sync.changes, ChunkList::empty());
            let mut changes = Vec::new();
            for blob in blobs.iter() {
                let blob = bytes::Bytes::copy_from_slice(blob);
                let chunks = parse_chunks(&blob, &Limits::default()).expect("parses");
                changes.extend(chunks.into_iter().flat_map(|chunk| match chunk {
                    Chunk::Change(change) => vec![change],
                    Chunk::Document(whole) => {
                        decode_document(&whole, &Limits::default()).expect("decodes")
                    }
                }));
            }
            let message = PeerMessage {
                principal: PrincipalId::anonymous(),
                storage: None,
                is_request: false,
                sync,
                changes,
                is_document: false,
                may_write: self.may_write,
            };
            let effects = bench.input(Input::Message(self.id, Box::new(message)));
            assert!(effects.rejected.is_empty(), "{effects:?}");
            self.take(&effects);
            if !effects.appends.is_empty() {
                let end = bench.document.graph().len();
                let effects = bench.input(Input::Committed(end));
                self.take(&effects);
            }
        }
        panic!("they go on for ever");
    }

    fn permit(&mut self, bench: &mut Bench, may_write: bool) {
        self.may_write = may_write;
        let effects = bench.input(Input::Permit(self.id, may_write));
        self.take(&effects);
    }
}

/// With three changes in it.
fn stored() -> Bench {
    let mut author = document(1, 3);
    let changes = parse(&mut author);
    let mut bench = Bench::new();
    bench.message(ALICE, false, greeting(&[]), changes);
    bench.input(Input::Committed(3));
    bench
}

#[test]
fn who_may_not_write_gets_all_and_gives_nothing() {
    let mut bench = stored();
    let mut bob = Stock::new(BOB, false);
    bob.talk(&mut bench);
    assert_eq!(bob.document.get_changes(&[]).len(), 3);
    // What they write says that it is there, once, and no more.
    for key in ["a", "b", "c"] {
        bob.put(key);
        assert!(bob.talk(&mut bench) <= 1, "{key}");
    }
    assert_eq!(bench.document.graph().len(), 3);
    assert!(bob.session.is_peer_read_only());
}

#[test]
fn what_was_written_before_it_might_be_comes_when_it_may() {
    let mut bench = stored();
    let mut bob = Stock::new(BOB, false);
    bob.talk(&mut bench);
    bob.put("early");
    bob.talk(&mut bench);
    bob.permit(&mut bench, true);
    bob.talk(&mut bench);
    assert_eq!(bench.document.graph().len(), 4);
    // And is not taken back: they are told to stop, and what they go on with waits.
    bob.permit(&mut bench, false);
    bob.put("late");
    bob.talk(&mut bench);
    assert_eq!(bench.document.graph().len(), 4);
    bob.permit(&mut bench, true);
    bob.talk(&mut bench);
    assert_eq!(bench.document.graph().len(), 5);
    assert_eq!(
        bench.document.graph().visible_heads(),
        bob.document.get_heads()
    );
}

#[test]
fn what_was_on_its_way_when_it_was_forbidden_comes_later() {
    let mut bench = stored();
    let mut bob = Stock::new(BOB, true);
    bob.talk(&mut bench);
    bob.put("on its way");
    // It is sent by who does not know yet, and judged by what holds when it comes.
    bob.may_write = false;
    bob.talk(&mut bench);
    assert_eq!(bench.document.graph().len(), 3);
    bob.permit(&mut bench, true);
    bob.talk(&mut bench);
    assert_eq!(bench.document.graph().len(), 4);
}

#[test]
fn who_comes_back_in_is_told_without_asking() {
    let mut bench = stored();
    let mut bob = Stock::new(BOB, true);
    bob.talk(&mut bench);
    bob.put("kept");
    bob.talk(&mut bench);
    bench.input(Input::Leave(BOB));
    // Outside they write, and nobody listens.
    bob.put("outside");
    let _lost = bob.document.sync().generate_sync_message(&mut bob.session);
    let effects = bench.input(Input::Begin(BOB));
    assert_eq!(sync_frames(&effects).len(), 1);
    bob.take(&effects);
    bob.talk(&mut bench);
    assert_eq!(bench.document.graph().len(), 5);
    assert!(bench.input(Input::Tick).frames.is_empty());
}

#[test]
fn who_comes_in_to_read_is_told_so_at_once() {
    let mut bench = stored();
    let mut bob = Stock::new(BOB, false);
    bob.put("of their own");
    bench
        .document
        .handle(bench.now, Input::Begin(BOB), &mut bench.effects);
    let effects = bench.input(Input::Permit(BOB, false));
    bob.take(&effects);
    assert!(bob.session.is_peer_read_only());
    bob.talk(&mut bench);
    assert_eq!(bench.document.graph().len(), 3);
    assert_eq!(bob.document.get_changes(&[]).len(), 4);
}

#[test]
fn nothing_is_said_of_a_document_that_is_not_there() {
    let mut bench = Bench::new();
    assert!(bench.input(Input::Begin(BOB)).frames.is_empty());
    let changes = parse(&mut document(1, 1));
    bench.message(ALICE, false, greeting(&[]), changes);
    let effects = bench.input(Input::Committed(1));
    let mut told: Vec<_> = sync_frames(&effects)
        .into_iter()
        .map(|(of, _)| of)
        .collect();
    told.sort_unstable();
    assert_eq!(told, [ALICE, BOB]);
}
