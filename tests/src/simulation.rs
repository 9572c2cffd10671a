//! Many replicas, one server core, a bad network and a bad machine, from one seed.
//!
//! The server's side is the real thing: [`Document`], [`opening`], [`assemble`] and compaction, over
//! the memory store. The other side is `automerge`'s own `SyncDoc`, as stock clients run it. Nothing
//! sleeps and nothing is threaded: [`World::step`] picks one thing that could happen next.
//!
//! What can happen: a replica edits, sends, receives; two replicas meet without the server; a
//! connection is cut (what was on its way is lost) and made again; so much waits for a replica that it is
//! sent no more until it has taken that; the store commits; a read for a joiner finishes; the document is
//! compacted; the server crashes, which drops all that the store has not committed, starts again from the
//! store, and serves a joiner, who had lost all, before it has read it all. Some replicas only read, until
//! the end.
//!
//! [`assemble`]: concord_server::document::assemble

use std::collections::{BTreeMap, HashSet, VecDeque};

use automerge::sync::Message;
use automerge::{AutoCommit, ChangeHash, ROOT, ReadDoc as _};
use bytes::Bytes;
use concord_server::connection::decode::decode_any;
use concord_server::document::actor::{Document, Effects, Frame, Input, PeerMessage, Policy};
use concord_server::document::admission::ParkingLimits;
use concord_server::document::append::Append;
use concord_server::document::assemble::{Fetch, MOST_BYTES_PER_MESSAGE};
use concord_server::document::history::History;
use concord_server::document::{ConnectionId, Now, compaction, early, opening};
use concord_server::store::{Durability, MemoryStore, Store as _, Write};
use concord_shared::ids::{DocumentId, PrincipalId, StorageId};
use concord_shared::limits::Limits;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub mod replica;

use replica::Replica;

/// Shape of a run. All of it is drawn from the seed by [`World::new`], so that each seed is another
/// kind of world.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Replicas.
    pub replicas: usize,
    /// Steps before all is made to settle.
    pub steps: usize,
    /// Weight of cutting a connection.
    pub cuts: u32,
    /// Weight of crashing the server.
    pub crashes: u32,
    /// Weight of compacting.
    pub compactions: u32,
    /// Bytes of single changes in one message.
    pub message_bytes: usize,
    /// Messages that may wait for a replica.
    pub outbox: usize,
}

/// How often what is rare happened: a run of many worlds should have had all of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rare {
    /// A joiner was served before the document was open.
    pub served_early: usize,
    /// A message was too long and came in pieces.
    pub pieces: usize,
    /// A replica was sent no more for a while.
    pub congested: usize,
    /// The server crashed after the store committed, and before anybody was told.
    pub crashed_untold: usize,
    /// A replica that only read was told of changes.
    pub read_only: usize,
}

/// One world. See the module's docs.
pub struct World {
    random: StdRng,
    shape: Shape,
    id: DocumentId,
    store: MemoryStore,
    document: Document,
    /// Appends that the core wants written, oldest first: lost in a crash.
    appends: VecDeque<Append>,
    fetches: VecDeque<Fetch>,
    replicas: Vec<Replica>,
    connections: BTreeMap<ConnectionId, usize>,
    congested: HashSet<ConnectionId>,
    /// The server has just started: nobody has spoken to it yet.
    fresh: bool,
    next_connection: u64,
    clock_ms: u64,
    seen_in_store: HashSet<ChangeHash>,
    /// What happened, for the report of a failure.
    pub events: Vec<String>,
    /// What of it was rare.
    pub rare: Rare,
}

impl World {
    /// A world from a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let shape = Shape {
            replicas: random.random_range(2..7),
            steps: random.random_range(20..250),
            cuts: random.random_range(0..4),
            crashes: random.random_range(0..3),
            compactions: random.random_range(0..3),
            message_bytes: [2000, 8000, MOST_BYTES_PER_MESSAGE][random.random_range(0..3)],
            outbox: random.random_range(1..8),
        };
        let replicas = (0..shape.replicas)
            .map(|i| Replica::new(i, &mut random))
            .collect();
        Self {
            random,
            shape,
            id: DocumentId::from_uuid([7; 16]),
            store: MemoryStore::new(),
            document: Document::new(History::new(), policy(shape)),
            appends: VecDeque::new(),
            fetches: VecDeque::new(),
            replicas,
            connections: BTreeMap::new(),
            congested: HashSet::new(),
            fresh: false,
            next_connection: 0,
            clock_ms: 0,
            seen_in_store: HashSet::new(),
            events: vec![format!("{shape:?}")],
            rare: Rare::default(),
        }
    }

    /// Runs to the end and compares everybody.
    pub fn run(&mut self) {
        for _ in 0..self.shape.steps {
            self.step();
        }
        self.settle();
        let read_only = self.replicas.iter_mut().map(Replica::start_taking);
        if read_only.filter(|was| *was).count() > 0 {
            self.events.push("all take what they are sent".to_owned());
            self.settle();
        }
        self.compare();
    }

    fn step(&mut self) {
        self.clock_ms += self.random.random_range(0..200);
        let replica = self.random.random_range(0..self.replicas.len());
        let shape = self.shape;
        let weights = [
            30,
            25,
            25,
            15,
            8,
            6,
            2,
            shape.cuts,
            shape.crashes,
            shape.compactions,
        ];
        let mut pick = self.random.random_range(0..weights.iter().sum());
        let choice = weights.iter().position(|weight| {
            let here = pick < *weight;
            pick = pick.saturating_sub(*weight);
            here
        });
        match choice {
            Some(0) => {
                let changes = self.random.random_range(1..4);
                for _ in 0..changes {
                    self.replicas[replica].edit(&mut self.random);
                }
            }
            Some(1) => self.client_sends(replica),
            Some(2) => self.deliver_to_server(replica),
            Some(3) => self.deliver_to_client(replica),
            Some(4) => self.commit(),
            Some(5) => self.finish_fetch(),
            Some(6) => self.meet(replica),
            Some(7) => self.cut(replica),
            Some(8) => self.crash(),
            _ => self.compact(),
        }
    }

    fn now(&self) -> Now {
        Now {
            monotonic_ms: self.clock_ms,
            unix_ms: self.clock_ms,
        }
    }

    fn connection_of(&self, replica: usize) -> Option<ConnectionId> {
        let mut of = self.connections.iter();
        of.find(|(_, r)| **r == replica)
            .map(|(connection, _)| *connection)
    }

    fn client_sends(&mut self, replica: usize) {
        if self.connection_of(replica).is_none() {
            let connection = ConnectionId(self.next_connection);
            self.next_connection += 1;
            self.connections.insert(connection, replica);
            self.replicas[replica].connect();
            self.events
                .push(format!("replica {replica} connects as {connection:?}"));
        }
        self.replicas[replica].send(&mut self.random);
    }

    fn deliver_to_server(&mut self, replica: usize) {
        let Some(connection) = self.connection_of(replica) else {
            return;
        };
        let Some((is_request, data)) = self.replicas[replica].to_server.pop_front() else {
            return;
        };
        let message = decode(&data, is_request);
        let event = format!(
            "{connection:?} → server: heads {:?}, {} changes, need {}",
            short(&message.sync.heads),
            message.changes.len(),
            message.sync.need.len()
        );
        self.events.push(event);
        let fresh = std::mem::take(&mut self.fresh);
        let early = (fresh && early::is_joiner(&message) && self.random.random())
            .then(|| self.serve_early(replica))
            .flatten();
        let input = Input::Message(connection, Box::new(message));
        match early {
            None => self.input(input),
            // In one go, as the task does it: no message goes out between.
            Some(to) => self.inputs([input, Input::Served(connection, to)]),
        }
    }

    /// What the task does for a joiner while it opens the document.
    fn serve_early(&mut self, replica: usize) -> Option<u32> {
        let whole = early::whole(&self.store, &self.id, self.shape.message_bytes);
        let whole = whole.expect("the store reads")?;
        let (to, message) = (whole.to, whole.message(false));
        self.rare.served_early += 1;
        self.events
            .push(format!("served {to} changes before opening"));
        self.replicas[replica].to_client.push_back(message);
        Some(to)
    }

    fn deliver_to_client(&mut self, replica: usize) {
        if let Some(data) = self.replicas[replica].to_client.pop_front() {
            let message = Message::decode(&data).expect("the server writes what Automerge reads");
            self.events.push(format!(
                "server → replica {replica}: heads {:?}, {} chunks, need {}",
                short(&message.heads),
                message.changes.len(),
                message.need.len()
            ));
            self.check_shown(&message.heads);
            self.rare.read_only += usize::from(self.replicas[replica].is_read_only());
            self.replicas[replica].receive(message);
        }
        if self.replicas[replica].to_client.is_empty()
            && let Some(connection) = self.connection_of(replica)
            && self.congested.remove(&connection)
        {
            self.input(Input::Drained(connection));
        }
    }

    /// "Nothing is shown before it is kept": all heads that a peer is told of are in the store.
    fn check_shown(&mut self, heads: &[ChangeHash]) {
        for head in heads {
            // What the store has it keeps, so it is only asked about what is new.
            if !self.seen_in_store.contains(head) {
                let stored = opening::open(&self.store, &self.id).expect("the store opens");
                assert!(
                    stored.history.graph().contains(head),
                    "a peer was told of {head}, which is not in the store"
                );
                self.seen_in_store.insert(*head);
            }
        }
    }

    fn input(&mut self, input: Input) {
        self.inputs([input]);
    }

    fn inputs<const N: usize>(&mut self, inputs: [Input; N]) {
        let now = self.now();
        let mut effects = Effects::default();
        for input in inputs {
            self.document.handle(now, input, &mut effects);
        }
        self.document.flush(now, &mut effects);
        let Effects {
            appends,
            frames,
            fetches,
            rejected,
            wake_at_ms: _,
        } = effects;
        assert!(
            rejected.is_empty(),
            "an honest change was refused: {rejected:?}"
        );
        self.appends.extend(appends);
        self.fetches.extend(fetches);
        for (connection, frame) in frames {
            if let (Frame::Sync(data), Some(replica)) = (frame, self.connections.get(&connection)) {
                let waiting = &mut self.replicas[*replica].to_client;
                waiting.push_back(data);
                if waiting.len() >= self.shape.outbox && self.congested.insert(connection) {
                    self.rare.congested += 1;
                    self.events.push(format!("{connection:?} is congested"));
                    // As the task does: no message is made before the next input.
                    let told = Input::Congested(connection);
                    self.document.handle(now, told, &mut Effects::default());
                }
            }
        }
    }

    fn commit(&mut self) {
        let count = self.random.random_range(0..=self.appends.len());
        if count == 0 {
            return;
        }
        let batch: Vec<Append> = self.appends.drain(..count).collect();
        let end = batch.last().map_or(0, Append::end);
        let id = &self.id;
        let write = |append: Append| append.into_write(id.clone());
        let writes: Vec<Write> = batch.into_iter().map(write).collect();
        self.store
            .commit(&writes, Durability::Strict)
            .expect("the core appends in order");
        self.events.push(format!("committed up to {end}"));
        if self.shape.crashes > 0 && self.random.random_ratio(1, 40) {
            self.rare.crashed_untold += 1;
            self.crash();
        } else {
            self.input(Input::Committed(end));
        }
    }

    fn finish_fetch(&mut self) {
        if let Some(fetch) = self.fetches.pop_front() {
            let number = fetch.id;
            let connection = number.connection;
            let fetched = fetch
                .run(&self.store, &self.id)
                .expect("the store has what the graph has");
            self.events.push(format!(
                "fetched for {connection:?}, {} changes left for later",
                fetched.unsent.len()
            ));
            self.rare.pieces += usize::from(!fetched.unsent.is_empty());
            self.input(Input::Fetched(number, Some(Box::new(fetched))));
        }
    }

    /// Two replicas sync with each other and not with the server.
    fn meet(&mut self, one: usize) {
        let other = self.random.random_range(0..self.replicas.len());
        if one != other {
            self.events.push(format!("replicas {one} and {other} meet"));
            let changes = self.replicas[one].document.get_changes(&[]);
            self.replicas[other]
                .document
                .apply_changes(changes)
                .expect("honest changes apply");
            if self.random.random() {
                let changes = self.replicas[other].document.get_changes(&[]);
                self.replicas[one]
                    .document
                    .apply_changes(changes)
                    .expect("honest changes apply");
            }
        }
    }

    fn cut(&mut self, replica: usize) {
        if let Some(connection) = self.connection_of(replica) {
            self.events.push(format!("{connection:?} is cut"));
            self.connections.remove(&connection);
            self.congested.remove(&connection);
            self.replicas[replica].disconnect();
            self.input(Input::Leave(connection));
        }
    }

    fn crash(&mut self) {
        self.events
            .push(format!("crash: {} appends lost", self.appends.len()));
        self.appends.clear();
        self.fetches.clear();
        self.congested.clear();
        self.fresh = true;
        for (_, replica) in std::mem::take(&mut self.connections) {
            self.replicas[replica].disconnect();
        }
        self.store = self.store.crash(0);
        let opened = opening::open(&self.store, &self.id).expect("the store opens after a crash");
        for shown in &self.seen_in_store {
            assert!(
                opened.history.graph().contains(shown),
                "{shown} was shown and is lost"
            );
        }
        assert!(opened.repair.is_none(), "the stored graph is good");
        self.document = Document::new(opened.history, policy(self.shape));
        if self.random.random() {
            self.join_anew();
        }
    }

    /// A replica loses all it had, and is the first to speak.
    fn join_anew(&mut self) {
        let replica = self.random.random_range(0..self.replicas.len());
        self.events.push(format!("replica {replica} begins anew"));
        self.replicas[replica] = Replica::new(replica, &mut self.random);
        self.client_sends(replica);
        self.deliver_to_server(replica);
    }

    fn compact(&mut self) {
        // Also drop what memory holds of the newest changes, so that fetches happen.
        self.document.rest();
        let write = compaction::build(&self.store, &self.id, self.clock_ms)
            .expect("an honest document compacts");
        if let Some(write) = write.write {
            let write = self.with_random_retention(write);
            self.events.push("compacted".to_owned());
            self.store
                .commit(&[write], Durability::Strict)
                .expect("a snapshot fits");
        }
    }

    /// Real compactions keep at least 128 KiB of raw changes, more than these documents have.
    fn with_random_retention(&mut self, write: Write) -> Write {
        match write {
            Write::Snapshot {
                document,
                base,
                keep_from: _,
                received_at_ms,
                snapshot,
                graph,
                arrivals,
            } => Write::Snapshot {
                document,
                base,
                keep_from: self.random.random_range(0..=base),
                received_at_ms,
                snapshot,
                graph,
                arrivals,
            },
            other => other,
        }
    }

    /// Everybody connects and everything on its way arrives, until nobody has anything to say.
    fn settle(&mut self) {
        self.events.push("settling".to_owned());
        for round in 0..2000 {
            let mut quiet = true;
            for replica in 0..self.replicas.len() {
                self.client_sends(replica);
                while !self.replicas[replica].to_server.is_empty() {
                    quiet = false;
                    self.deliver_to_server(replica);
                }
            }
            while !self.appends.is_empty() {
                quiet = false;
                self.commit();
            }
            while !self.fetches.is_empty() {
                quiet = false;
                self.finish_fetch();
            }
            for replica in 0..self.replicas.len() {
                while !self.replicas[replica].to_client.is_empty() {
                    quiet = false;
                    self.deliver_to_client(replica);
                }
            }
            if quiet {
                self.events.push(format!("quiet after {round} rounds"));
                return;
            }
        }
        panic!("the peers go on talking without end");
    }

    /// All replicas, the server's graph, what the store loads to, and a reference are equal.
    fn compare(&mut self) {
        let mut reference = AutoCommit::new();
        for replica in &mut self.replicas {
            let changes = replica.document.get_changes(&[]);
            reference
                .apply_changes(changes)
                .expect("honest changes apply");
        }
        let mut heads = reference.get_heads();
        heads.sort_unstable();
        let value = reference.hydrate(ROOT, None).expect("the root is there");
        for (index, replica) in self.replicas.iter_mut().enumerate() {
            let mut theirs = replica.document.get_heads();
            theirs.sort_unstable();
            assert_eq!(short(&theirs), short(&heads), "replica {index} differs");
            assert_eq!(
                replica
                    .document
                    .hydrate(ROOT, None)
                    .expect("the root is there"),
                value,
                "replica {index} differs"
            );
        }
        assert_eq!(
            short(self.document.graph().visible_heads()),
            short(&heads),
            "the graph differs"
        );
        let stored = concord_server::materialise::document(&self.store, &self.id)
            .expect("the stored document loads");
        if let Some(stored) = stored {
            assert_eq!(stored.hydrate(None), value, "the stored document differs");
        } else {
            assert!(heads.is_empty(), "the store lost the document");
        }
        let problems = self.store.verify(&self.id);
        assert!(
            problems.map_or(true, |p| p.is_empty()),
            "the store verifies"
        );
    }
}

fn policy(shape: Shape) -> Policy {
    Policy {
        request_grace_ms: 100,
        parking: ParkingLimits::default(),
        storage: StorageId::new("server").expect("an id"),
        message_bytes: shape.message_bytes,
    }
}

fn decode(data: &[u8], is_request: bool) -> PeerMessage {
    let data = Bytes::copy_from_slice(data);
    let decoded = decode_any(&data, &Limits::default()).expect("Automerge writes good messages");
    PeerMessage {
        principal: PrincipalId::anonymous(),
        storage: None,
        is_request,
        sync: decoded.sync,
        changes: decoded.changes,
        is_document: decoded.is_document,
        may_write: true,
    }
}

/// Hashes short enough to read.
fn short(hashes: &[ChangeHash]) -> Vec<String> {
    hashes
        .iter()
        .map(|hash| hash.to_string()[..8].to_owned())
        .collect()
}
