//! A stock client: an Automerge document and its sync state with the server.

use std::collections::VecDeque;

use automerge::sync::{BloomFilter, Message, State, SyncDoc as _};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, ObjType, ROOT, ReadDoc as _, ScalarValue};
use bytes::Bytes;
use rand::RngExt as _;
use rand::rngs::StdRng;

/// See the module's docs.
#[expect(clippy::struct_excessive_bools, reason = "independent habits")]
pub struct Replica {
    /// Its document.
    pub document: AutoCommit,
    /// Its state with the server; `None` while offline.
    state: Option<State>,
    /// What it keeps of the state while offline.
    kept: State,
    /// Sent and not yet delivered; true for a `request`.
    pub to_server: VecDeque<(bool, Vec<u8>)>,
    /// Sent to it and not yet delivered.
    pub to_client: VecDeque<Bytes>,
    /// An old client, which sends no flags and so is spoken to in V1.
    v1: bool,
    /// Its filters claim more than it has, as any filter may.
    false_positives: bool,
    /// It forgets its sync state when it goes offline.
    forgetful: bool,
    /// It sends what it has and takes nothing.
    read_only: bool,
    spoke: bool,
}

impl Replica {
    /// Replica number `index`.
    pub fn new(index: usize, random: &mut StdRng) -> Self {
        let mut actor = vec![u8::try_from(index).unwrap_or(u8::MAX); 4];
        actor.extend(random.random::<[u8; 4]>());
        let v1 = random.random_ratio(1, 6);
        Self {
            document: AutoCommit::new().with_actor(ActorId::from(actor)),
            state: None,
            kept: State::new(),
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            v1,
            false_positives: random.random_ratio(1, 4),
            forgetful: random.random_ratio(1, 5),
            // That is said by a flag.
            read_only: !v1 && random.random_ratio(1, 8),
            spoke: false,
        }
    }

    /// Whether it takes nothing of what it is sent.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// It takes what it is sent from now on; whether it did not.
    pub fn start_taking(&mut self) -> bool {
        if let Some(state) = &mut self.state {
            state.set_read_only(false);
        }
        std::mem::take(&mut self.read_only)
    }

    /// Makes one change of a random kind.
    pub fn edit(&mut self, random: &mut StdRng) {
        let document = &mut self.document;
        let key = format!("key{}", random.random_range(0..5));
        let done = match random.random_range(0..7) {
            0 => document.put(ROOT, key, random.random_range(0..1000_i64)),
            1 => document.put_object(ROOT, key, ObjType::Map).map(|_| ()),
            2 => document.put(ROOT, "counter", ScalarValue::counter(1)),
            3 => document.delete(ROOT, key),
            4 => {
                // A change without ops.
                document.empty_change(automerge::transaction::CommitOptions::default());
                return;
            }
            _ => {
                let text = match document.get(ROOT, "text") {
                    Ok(Some((_, text))) => text,
                    _ => document
                        .put_object(ROOT, "text", ObjType::Text)
                        .expect("a text"),
                };
                let length = document.length(&text);
                let at = random.random_range(0..=length);
                let delete = isize::from(at < length && random.random());
                let words: usize = random.random_range(0..40);
                document.splice_text(&text, at, delete, &"abcde ".repeat(words))
            }
        };
        done.expect("a random edit is possible");
        document.commit();
    }

    /// A new connection.
    pub fn connect(&mut self) {
        let mut state = std::mem::take(&mut self.kept);
        state.set_read_only(self.read_only);
        self.state = Some(state);
        self.spoke = false;
    }

    /// The connection is gone, with what was on its way.
    pub fn disconnect(&mut self) {
        self.to_server.clear();
        self.to_client.clear();
        if let Some(state) = self.state.take() {
            // As automerge-repo does: only what both surely had outlives a connection.
            self.kept = if self.forgetful {
                State::new()
            } else {
                State::decode(&state.encode()).expect("a state survives encoding")
            };
        }
    }

    /// Queues the next message to the server, if there is one.
    pub fn send(&mut self, random: &mut StdRng) {
        let Some(state) = &mut self.state else { return };
        let Some(mut message) = self.document.sync().generate_sync_message(state) else {
            return;
        };
        if self.v1 {
            message.flags = None;
        }
        if self.false_positives {
            for have in &mut message.have {
                have.bloom = with_more_bits(&have.bloom, random);
            }
        }
        let is_request = !self.spoke && message.heads.is_empty();
        self.spoke = true;
        self.to_server.push_back((is_request, message.encode()));
    }

    /// Takes in a message.
    pub fn receive(&mut self, message: Message) {
        if let Some(state) = &mut self.state {
            self.document
                .sync()
                .receive_sync_message(state, message)
                .expect("what the server sends applies");
        }
    }
}

/// The filter with some bits set that it does not have.
fn with_more_bits(bloom: &BloomFilter, random: &mut StdRng) -> BloomFilter {
    let mut bytes = bloom.to_bytes();
    // Past the three one-byte numbers at the start of a small filter.
    for byte in bytes.iter_mut().skip(4) {
        *byte |= random.random::<u8>() | random.random::<u8>();
    }
    BloomFilter::try_from(&bytes[..]).expect("still a filter")
}
