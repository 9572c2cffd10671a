//! A peer that says anything, to the core of the real server: its document, its decoder, its store.
//!
//! Two honest peers have the document open beside it; they take in all that they are sent, and edit on
//! top of it. What must hold whatever is said: nothing panics, neither here nor in Automerge at the
//! honest peers; the peer is answered, if at all, with sync messages that Automerge can read; nobody is
//! shown a change that the store has not committed; no more is sent than inputs and commits account for;
//! the honest peers are never rejected; and what is stored in the end loads, strictly, as the document
//! that the honest peers have.

use std::collections::{HashSet, VecDeque};

use automerge::sync::{ChunkList, Message, MessageFlags, MessageVersion, State, SyncDoc as _};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, ChangeHash, ROOT};
use bytes::Bytes;
use concord_server::connection::decode::{Decoded, decode_any};
use concord_server::document::actor::{Document, Effects, Frame, Input, PeerMessage, Policy};
use concord_server::document::admission::ParkingLimits;
use concord_server::document::append::Append;
use concord_server::document::assemble::Fetch;
use concord_server::document::history::History;
use concord_server::document::{ConnectionId, Now, opening};
use concord_server::materialise;
use concord_server::store::{Durability, MemoryStore, Store as _};
use concord_shared::change::Change;
use concord_shared::ids::{DocumentId, PrincipalId, StorageId};

use super::limits;
use crate::forge::dump::dump;

const HOSTILE: ConnectionId = ConnectionId(1);
const HONEST: [ConnectionId; 2] = [ConnectionId(2), ConnectionId(3)];

/// Actors of the honest peers.
const HONEST_ACTORS: [[u8; 4]; 2] = [[2; 4], [3; 4]];

/// Messages of one input that are looked at.
const MOST_MESSAGES: usize = 64;

/// Changes that the document has at the start.
const SEEDED: i64 = 6;

/// Cuts an input into messages. Each is followed by what happens after it, four bits: 1 the store
/// commits, 2 fetches finish, 4 an honest peer edits, 8 the message was a `request`; if the first is, the
/// document is empty.
pub(crate) fn split(input: &[u8]) -> Vec<(Vec<u8>, u8)> {
    // What no framing is needed for: a message of Automerge's by itself.
    if matches!(input.first(), Some(0x42 | 0x43)) {
        return vec![(input.to_vec(), 7)];
    }
    let mut messages = Vec::new();
    let mut rest = input;
    while let [high, low, behind @ ..] = rest
        && messages.len() < MOST_MESSAGES
    {
        let length = usize::from(high & 0x0f) << 8 | usize::from(*low);
        let (message, behind) = behind.split_at(length.min(behind.len()));
        messages.push((message.to_vec(), high >> 4));
        rest = behind;
    }
    messages
}

/// The opposite of [`split`], for messages of less than 4096 bytes.
#[allow(dead_code, reason = "for whoever writes seeds")]
pub(crate) fn join(messages: &[(Vec<u8>, u8)]) -> Vec<u8> {
    let mut input = Vec::new();
    for (message, after) in messages {
        let length = u8::try_from(message.len() >> 8).unwrap();
        assert!(length < 16, "too long: {}", message.len());
        input.push(after << 4 | length);
        input.push((message.len() & 0xff) as u8);
        input.extend_from_slice(message);
    }
    input
}

/// The document that the server starts with.
pub(crate) fn seeded() -> AutoCommit {
    let mut document = AutoCommit::new().with_actor(ActorId::from([1; 4]));
    for n in 0..SEEDED {
        document.put(ROOT, "seed", n).unwrap();
        document.commit();
    }
    document
}

pub(crate) fn converse(messages: &[(Vec<u8>, u8)]) {
    let mut server = Server::new(messages.first().is_none_or(|(_, after)| after & 8 == 0));
    for (data, after) in messages {
        let Ok(decoded) = decode_any(&Bytes::copy_from_slice(data), &limits()) else {
            // The connection would end here.
            break;
        };
        if decoded.changes.iter().any(is_of_an_honest_actor) {
            // Actors are not authenticated: who writes as another, before that one does, wins.
            break;
        }
        server.input(message(decoded, after & 8 != 0, HOSTILE));
        if after & 1 != 0 {
            server.commit();
        }
        if after & 2 != 0 {
            server.fetch();
        }
        if after & 4 != 0 {
            server.honest_edit();
        }
        if server.rejected {
            break;
        }
    }
    server.finish();
}

fn is_of_an_honest_actor(change: &Change) -> bool {
    let actor = change.actor.to_bytes();
    HONEST_ACTORS.iter().any(|honest| honest == actor)
}

struct Honest {
    document: AutoCommit,
    /// The heads it was last told of.
    told: Vec<ChangeHash>,
}

impl Honest {
    /// Takes a message as a client does.
    fn receive(&mut self, message: Message) {
        self.told.clone_from(&message.heads);
        // What it knows of the server is of no use to it: what it says is made here.
        let mut state = State::new();
        let taken = self
            .document
            .sync()
            .receive_sync_message(&mut state, message);
        taken.expect("an honest peer takes what the server sends");
    }

    fn heads(&mut self) -> Vec<ChangeHash> {
        let mut heads = self.document.get_heads();
        heads.sort_unstable();
        heads
    }
}

fn message(decoded: Decoded, is_request: bool, from: ConnectionId) -> Input {
    let message = PeerMessage {
        principal: PrincipalId::anonymous(),
        storage: None,
        is_request,
        sync: decoded.sync,
        changes: decoded.changes,
        is_document: decoded.is_document,
        may_write: true,
    };
    Input::Message(from, Box::new(message))
}

struct Server {
    id: DocumentId,
    store: MemoryStore,
    document: Document,
    appends: VecDeque<Append>,
    fetches: VecDeque<Fetch>,
    committed: HashSet<ChangeHash>,
    honest: [Honest; 2],
    clock_ms: u64,
    /// What may still be sent: one frame to each peer for each input.
    allowance: usize,
    rejected: bool,
}

impl Server {
    fn new(seed: bool) -> Self {
        let policy = Policy {
            request_grace_ms: 100,
            parking: ParkingLimits {
                changes: 16,
                bytes: 1 << 16,
            },
            storage: StorageId::new("server").unwrap(),
            message_bytes: 300,
        };
        let honest = HONEST_ACTORS.map(|actor| {
            let seeded = if seed { seeded() } else { AutoCommit::new() };
            Honest {
                document: seeded.with_actor(ActorId::from(actor)),
                told: Vec::new(),
            }
        });
        let mut server = Self {
            id: DocumentId::from_uuid([7; 16]),
            store: MemoryStore::new(),
            document: Document::new(History::new(), policy),
            appends: VecDeque::new(),
            fetches: VecDeque::new(),
            committed: HashSet::new(),
            honest,
            clock_ms: 0,
            allowance: 0,
            rejected: false,
        };
        let changes = server.honest[0].document.get_changes(&[]);
        let changes: Vec<u8> = changes
            .iter()
            .flat_map(|c| c.raw_bytes().to_vec())
            .collect();
        let changes = if seed {
            ChunkList::from(changes)
        } else {
            ChunkList::empty()
        };
        server.honest_message(0, changes);
        server.honest_message(1, ChunkList::empty());
        // Nothing is left of this in memory: what the peer lacks has to be fetched.
        server.document.rest();
        server
    }

    /// An honest peer says what it has, and what it made since.
    fn honest_message(&mut self, honest: usize, changes: ChunkList) {
        let heads = self.honest[honest].heads();
        let mut flags = MessageFlags::new();
        flags.set(MessageFlags::SUPPORTS_SYNC_RESET);
        let sync = Message {
            heads: heads.clone(),
            need: Vec::new(),
            have: Vec::new(),
            changes,
            flags: Some(flags),
            version: MessageVersion::V2,
        };
        let data = Bytes::from(sync.encode());
        let decoded = decode_any(&data, &limits()).unwrap();
        self.input(message(decoded, false, HONEST[honest]));
        self.commit();
        self.fetch();
        let graph = self.document.graph();
        assert!(heads.iter().all(|head| graph.contains(head)));
    }

    fn honest_edit(&mut self) {
        let document = &mut self.honest[0].document;
        let n = i64::try_from(self.clock_ms).unwrap();
        document.put(ROOT, "honest", n).unwrap();
        document.commit();
        let change = document.get_last_local_change().unwrap();
        let changes = ChunkList::from(change.raw_bytes().to_vec());
        self.honest_message(0, changes);
    }

    fn input(&mut self, input: Input) {
        self.clock_ms += 10;
        let now = Now {
            monotonic_ms: self.clock_ms,
            unix_ms: self.clock_ms,
        };
        let mut effects = Effects::default();
        self.allowance += 1 + HONEST.len();
        self.document.handle(now, input, &mut effects);
        self.document.flush(now, &mut effects);
        let Effects {
            appends,
            frames,
            fetches,
            rejected,
            wake_at_ms: _,
        } = effects;
        self.appends.extend(appends);
        self.fetches.extend(fetches);
        for (connection, _) in rejected {
            assert_eq!(connection, HOSTILE, "an honest peer was rejected");
            self.rejected = true;
        }
        for (connection, frame) in frames {
            let left = self.allowance.checked_sub(1);
            self.allowance = left.expect("no more frames than one to each peer for each input");
            match frame {
                Frame::Sync(data) => self.deliver(connection, &data),
                Frame::Unavailable => {}
                Frame::Ephemeral(_) | Frame::RemoteHeads { .. } => {
                    panic!("nobody asked for {frame:?}")
                }
            }
        }
    }

    fn deliver(&mut self, connection: ConnectionId, data: &[u8]) {
        let message = Message::decode(data).expect("the server writes what Automerge reads");
        let shown = message.have.iter().flat_map(|have| &have.last_sync);
        for hash in message.heads.iter().chain(shown) {
            assert!(self.committed.contains(hash), "{hash} is not committed");
        }
        if let Some(honest) = HONEST.iter().position(|honest| *honest == connection) {
            self.honest[honest].receive(message);
        }
    }

    fn commit(&mut self) {
        while let Some(append) = self.appends.pop_front() {
            let end = append.end();
            let from = match &append {
                Append::Changes { first, .. } => *first,
                Append::Upload { .. } => 0,
            };
            let write = append.into_write(self.id.clone());
            self.store.commit(&[write], Durability::Strict).unwrap();
            let graph = self.document.graph();
            self.committed
                .extend((from..end).filter_map(|index| graph.hash(index)));
            self.input(Input::Committed(end));
        }
    }

    fn fetch(&mut self) {
        while let Some(fetch) = self.fetches.pop_front() {
            let number = fetch.id;
            let fetched = fetch.run(&self.store, &self.id).ok();
            assert!(fetched.is_some(), "the store has what the graph has");
            self.input(Input::Fetched(number, fetched.map(Box::new)));
        }
    }

    /// All is committed and sent, the peer leaves, and what is stored is what was shown.
    fn finish(&mut self) {
        self.commit();
        self.fetch();
        self.input(Input::Leave(HOSTILE));
        assert!(self.document.is_settled());
        let visible = self.document.graph().visible_heads();
        let stored = materialise::document(&self.store, &self.id).expect("what is stored loads");
        let stored = stored.unwrap_or_default();
        let mut heads = stored.get_heads();
        heads.sort_unstable();
        assert_eq!(heads, visible, "not all is stored, or more");
        let value = dump(&stored).unwrap();
        for honest in &mut self.honest {
            assert_eq!(honest.told, visible, "an honest peer was forgotten");
            assert_eq!(honest.heads(), visible, "an honest peer lacks something");
            assert_eq!(dump(&honest.document).unwrap(), value);
        }
        let graph = self.document.graph();
        let opened = opening::open(&self.store, &self.id).unwrap();
        assert!(opened.repair.is_none());
        assert_eq!(
            opened.history.graph().visible_heads(),
            graph.visible_heads()
        );
        assert_eq!(self.document.peers(), HONEST.len());
    }
}
