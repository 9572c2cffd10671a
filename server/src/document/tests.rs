//! Tests of the pure parts with changes that `automerge` made.

use automerge::sync::{ChunkList, Have, Message, MessageFlags, MessageVersion};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, ChangeHash, ROOT};
use bytes::Bytes;
use concord_shared::change::{Change, Chunk, parse_chunks};
use concord_shared::ids::{PrincipalId, StorageId};
use concord_shared::limits::Limits;

use super::actor::{Document, Effects, Frame, Input, PeerMessage, Policy};
use super::admission::{ParkingLimits, Sender};
use super::graph::{Graph, GraphError, Index, NewNode};
use super::history::History;
use super::past::{Pasts, Steps};
use super::{ConnectionId, Now};

mod actor;
mod admission;
mod bounds;
mod graph;
mod roles;
mod sync;
mod upload;

/// Bytes of single changes in one message here.
const MESSAGE_BYTES: usize = 4096;

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

/// Into the graph alone, whatever the ops refer to.
fn admit_node(graph: &mut Graph, node: &NewNode<'_>) -> Result<Index, GraphError> {
    let (mut pasts, mut steps) = (Pasts::default(), Steps::new(u64::MAX));
    graph.admit(node, &mut pasts, &mut steps, |_, _, _| Ok(()))
}

fn admit_all(graph: &mut Graph, changes: &[Change]) {
    for change in changes {
        admit_node(graph, &NewNode::of(change).expect("in range")).expect("fits");
    }
}

fn sender(connection: ConnectionId) -> Sender {
    Sender {
        connection,
        principal: PrincipalId::anonymous(),
    }
}

/// A document and what it did, driven by hand.
struct Bench {
    document: Document,
    effects: Effects,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        Self::with(History::new())
    }

    fn with(history: History) -> Self {
        Self {
            document: Document::new(
                history,
                Policy {
                    request_grace_ms: 500,
                    parking: ParkingLimits::default(),
                    storage: StorageId::new("server-storage").expect("an id"),
                    message_bytes: MESSAGE_BYTES,
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
            is_document: false,
            may_write: true,
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
