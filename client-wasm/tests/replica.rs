//! Same changes, same document: replicas that edit offline and online, through one server, with
//! connections that break at any moment, end equal to each other and to the server.
//!
//! The server is an `Automerge` with the library's own `SyncDoc` for every client, so a fault of the replica
//! can't hide behind the same fault on the other side. A frame of a broken connection is lost; on a living
//! one frames arrive in order, as on a WebSocket. The test can't pass by not editing: every case ends with
//! a count of the keys that were put, over a reference that merged nothing.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::VecDeque;

use automerge::{
    ActorId, Automerge, ChangeHash, ROOT, ReadDoc, sync, sync::SyncDoc, transaction::Transactable,
};
use concord_client_wasm::Replica;
use concord_shared::{ids::DocumentId, limits::Limits};
use proptest::prelude::*;

const CLIENTS: usize = 3;

fn document() -> DocumentId {
    DocumentId::from_uuid([9; 16])
}

fn replica(seed: u8) -> Replica {
    Replica::new(document(), ActorId::from([seed; 16]))
}

/// One client with the two directions of its connection, and the server's side of the session.
struct Client {
    replica: Replica,
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
    server_state: sync::State,
    edits: usize,
}

impl Client {
    fn new(seed: u8) -> Self {
        Self {
            replica: replica(seed),
            up: VecDeque::new(),
            down: VecDeque::new(),
            server_state: sync::State::new(),
            edits: 0,
        }
    }

    fn edit(&mut self, name: usize) {
        let key = format!("{name}-{}", self.edits);
        self.edits += 1;
        self.replica
            .change(|doc| {
                doc.put(ROOT, key, "kept")
                    .and_then(|()| doc.put(ROOT, "last", name as u64))
            })
            .unwrap();
    }

    fn connect(&mut self) {
        self.replica.connect();
        self.up.clear();
        self.down.clear();
        // A server that was not told of the drop keeps its shared heads too.
        self.server_state = sync::State::decode(&self.server_state.encode()).unwrap();
    }

    fn send(&mut self) {
        self.up.extend(self.replica.next_message());
    }

    fn receive(&mut self) {
        if self.replica.is_connected()
            && let Some(data) = self.down.pop_front()
        {
            self.replica.receive(&data, &Limits::default()).unwrap();
        }
    }

    /// As a page does that has a worker take the changes out of a snapshot.
    fn receive_unpacked(&mut self) {
        let Some(data) = self.down.front() else {
            return;
        };
        let rest = Replica::without_snapshot(data, &Limits::default());
        let Some(rest) = rest.filter(|_| self.replica.is_connected()) else {
            return self.receive();
        };
        let mut elsewhere = replica(99);
        elsewhere.connect();
        elsewhere.receive(data, &Limits::default()).unwrap();
        elsewhere.apply_pending().unwrap();
        let ours = self.replica.unacknowledged();
        for change in elsewhere.doc().get_changes(&self.replica.heads()) {
            self.replica.receive_part(change.raw_bytes()).unwrap();
            assert!(self.replica.next_message().is_none());
            assert!(self.replica.unacknowledged() <= ours);
        }
        self.down[0] = rest;
        self.receive();
    }

    fn server_receives(&mut self, server: &mut Automerge) {
        if let Some(data) = self.up.pop_front() {
            server
                .receive_sync_message(
                    &mut self.server_state,
                    sync::Message::decode(&data).unwrap(),
                )
                .unwrap();
        }
    }

    fn server_sends(&mut self, server: &Automerge) {
        let message = server.generate_sync_message(&mut self.server_state);
        self.down.extend(message.map(sync::Message::encode));
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Edit,
    Connect,
    Disconnect,
    Send,
    Receive,
    /// Where a snapshot comes, its changes one by one.
    ReceiveUnpacked,
    Apply,
    /// The first change or two of what waits.
    ApplySome,
    ServerReceives,
    ServerSends,
    /// The server falls back to an empty document: everything must come back from the clients.
    ServerLosesAll,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let what = prop_oneof![
        6 => Just(Step::Edit),
        2 => Just(Step::Connect),
        1 => Just(Step::Disconnect),
        6 => Just(Step::Send),
        4 => Just(Step::Receive),
        4 => Just(Step::ReceiveUnpacked),
        4 => Just(Step::Apply),
        4 => Just(Step::ApplySome),
        6 => Just(Step::ServerReceives),
        6 => Just(Step::ServerSends),
    ];
    (
        0..CLIENTS,
        prop_oneof![200 => what, 1 => Just(Step::ServerLosesAll)],
    )
}

fn run(clients: &mut [Client], server: &mut Automerge, steps: &[(usize, Step)]) {
    for &(at, step) in steps {
        let client = &mut clients[at];
        match step {
            Step::Edit => client.edit(at),
            Step::Connect => client.connect(),
            Step::Disconnect => {
                client.replica.disconnect();
                client.up.clear();
                client.down.clear();
            }
            Step::Send => client.send(),
            Step::Receive => client.receive(),
            Step::ReceiveUnpacked => client.receive_unpacked(),
            Step::Apply => drop(client.replica.apply_pending().unwrap()),
            Step::ApplySome => client.replica.apply_some_pending(150).unwrap(),
            Step::ServerReceives if client.replica.is_connected() => client.server_receives(server),
            Step::ServerSends if client.replica.is_connected() => client.server_sends(server),
            Step::ServerReceives | Step::ServerSends => {}
            Step::ServerLosesAll => {
                *server = Automerge::new();
                for client in clients.iter_mut() {
                    client.replica.disconnect();
                    client.server_state = sync::State::new();
                    client.up.clear();
                    client.down.clear();
                }
            }
        }
        claims_hold(&mut clients[at], server);
    }
}

/// What a replica claims of the server is true of the server, at every step.
fn claims_hold(client: &mut Client, server: &Automerge) {
    for head in client.replica.shared_heads() {
        let known = server.get_change_by_hash(&head).is_some();
        // After a loss the claim is of the session before it, until the server is heard again.
        assert!(known || !client.replica.is_connected() || client.replica.server_heads().is_none());
    }
    assert_eq!(
        client.replica.synced(),
        client.replica.unacknowledged() == 0
    );
}

/// What one client has to say goes to the server, and what that has for another on its way there.
fn pass(from: &mut Client, to: &mut Client, server: &mut Automerge) {
    from.send();
    from.server_receives(server);
    to.server_sends(server);
}

/// The same, and it arrives.
fn bring(from: &mut Client, to: &mut Client, server: &mut Automerge) {
    pass(from, to, server);
    to.receive();
}

fn settle(clients: &mut [Client], server: &mut Automerge) {
    for client in clients
        .iter_mut()
        .filter(|client| !client.replica.is_connected())
    {
        client.connect();
    }
    for round in 0.. {
        assert!(round < 100, "no quiescence after {round} rounds");
        let mut quiet = true;
        for client in clients.iter_mut() {
            client.send();
            quiet &= client.up.is_empty();
            while !client.up.is_empty() {
                client.server_receives(server);
            }
        }
        for client in clients.iter_mut() {
            client.server_sends(server);
            quiet &= client.down.is_empty();
            while !client.down.is_empty() {
                client.receive();
            }
            quiet &= !client.replica.apply_pending().unwrap();
        }
        if quiet {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 300 } else { 3000 }))]

    #[test]
    fn replicas_converge_in_every_order(steps in prop::collection::vec(step(), 1..160)) {
        let mut server = Automerge::new();
        let mut clients: Vec<_> = (0..CLIENTS).map(|at| Client::new(u8::try_from(at).unwrap() + 1)).collect();
        run(&mut clients, &mut server, &steps);
        settle(&mut clients, &mut server);

        let edits: usize = clients.iter().map(|client| client.edits).sum();
        let keys = server.keys(ROOT).filter(|key| key != "last").count();
        prop_assert_eq!(keys, edits);
        let expected = server.hydrate(None);
        for client in &mut clients {
            prop_assert!(client.replica.synced());
            prop_assert_eq!(client.replica.unacknowledged(), 0);
            prop_assert_eq!(client.replica.heads(), { let mut heads = server.get_heads(); heads.sort(); heads });
            prop_assert_eq!(&client.replica.doc().document().hydrate(None), &expected);
        }
    }
}

#[test]
fn a_change_is_unsynced_until_the_server_names_it() {
    let mut server = Automerge::new();
    let mut client = Client::new(1);
    assert!(
        client.replica.synced(),
        "an empty replica has nothing to lose"
    );
    client.edit(0);
    client.edit(0);
    assert_eq!(
        (client.replica.synced(), client.replica.unacknowledged()),
        (false, 2)
    );
    client.connect();
    settle(std::slice::from_mut(&mut client), &mut server);
    assert!(client.replica.synced());

    client.edit(0);
    client.send();
    client.server_receives(&mut server);
    assert!(!client.replica.synced(), "sent is not kept");
    client.server_sends(&server);
    client.receive();
    assert!(client.replica.synced());
    client.replica.disconnect();
    assert!(client.replica.synced(), "what was kept stays kept offline");
    client.edit(0);
    assert_eq!(client.replica.unacknowledged(), 1);
}

#[test]
fn a_hundred_messages_are_applied_as_one() {
    let mut server = Automerge::new();
    let (mut writer, mut reader) = (Client::new(1), Client::new(2));
    writer.edit(0);
    writer.connect();
    reader.connect();
    let mut both = [writer, reader];
    settle(&mut both, &mut server);
    let [mut writer, mut reader] = both;
    for _ in 0..100 {
        writer.edit(0);
        bring(&mut writer, &mut reader, &mut server);
    }
    assert!(reader.replica.has_pending());
    let before = reader.replica.heads();
    assert!(reader.replica.apply_pending().unwrap());
    assert_ne!(reader.replica.heads(), before);
    assert_eq!(reader.replica.heads(), {
        let mut heads = server.get_heads();
        heads.sort();
        heads
    });
    assert!(!reader.replica.apply_pending().unwrap());
}

/// What is applied in part is the server's, who has it: it is not counted as ours, and not sent back.
#[test]
fn between_parts_nothing_is_said_and_nothing_is_ours() {
    let mut server = Automerge::new();
    let mut both = [Client::new(1), Client::new(2)];
    // Of a third of the document and more the whole is sent, in one piece.
    for _ in 0..400 {
        both[0].edit(0);
    }
    settle(&mut both, &mut server);
    let [mut writer, mut reader] = both;
    for _ in 0..100 {
        writer.edit(0);
    }
    bring(&mut writer, &mut reader, &mut server);
    let mut parts = 0;
    while reader.replica.has_pending() {
        reader.replica.apply_some_pending(500).unwrap();
        parts += 1;
        assert_eq!(reader.replica.unacknowledged(), 0);
        assert!(reader.replica.has_pending() || parts > 5, "{parts} parts");
        if reader.replica.has_pending() {
            assert!(reader.replica.next_message().is_none());
        }
    }
    let answer = reader.replica.next_message().unwrap();
    assert!(answer.len() < 100, "{} bytes", answer.len());
    assert!(reader.replica.synced());
}

/// Who has an old copy is sent the whole as a snapshot. What is new in it may come part by part, and the server learns in
/// the end that it came.
#[test]
fn a_snapshot_can_be_taken_in_part_by_part() {
    let mut server = Automerge::new();
    let mut both = [Client::new(1), Client::new(2)];
    for _ in 0..50 {
        both[0].edit(0);
    }
    settle(&mut both, &mut server);
    let [mut writer, mut reader] = both;
    for _ in 0..200 {
        writer.edit(0);
    }
    reader.edit(1);
    pass(&mut writer, &mut reader, &mut server);
    assert!(Replica::without_snapshot(&reader.down[0], &Limits::default()).is_some());
    reader.receive_unpacked();
    assert_eq!(reader.replica.unacknowledged(), 1, "its own");
    reader.send();
    assert!(reader.up[0].len() < 400, "{} bytes", reader.up[0].len());
    reader.server_receives(&mut server);
    let mut heads = server.get_heads();
    heads.sort();
    assert_eq!(reader.replica.heads(), heads);
    writer.edit(0);
    pass(&mut writer, &mut reader, &mut server);
    let [.., last] = reader.down.make_contiguous() else {
        panic!("there is something new");
    };
    assert!(Replica::without_snapshot(last, &Limits::default()).is_none());
}

/// Without an own change, too, the server hears that the last part came.
#[test]
fn parts_are_answered() {
    let mut server = Automerge::new();
    let mut both = [Client::new(1), Client::new(2)];
    both[0].edit(0);
    settle(&mut both, &mut server);
    let [mut writer, mut reader] = both;
    for _ in 0..200 {
        writer.edit(0);
    }
    pass(&mut writer, &mut reader, &mut server);
    reader.receive_unpacked();
    assert!(reader.replica.synced());
    reader.send();
    reader.server_receives(&mut server);
    assert!(reader.up.is_empty());
    assert_eq!(
        reader.server_state.their_heads.as_ref(),
        Some(&server.get_heads())
    );
}

/// An own change that could not be applied, since storage had lost what it builds on, is not kept by the server because a
/// part of what that sends has this.
#[test]
fn an_own_change_that_waited_for_a_part_is_not_the_servers() {
    let mut server = Automerge::new();
    let mut writer = Client::new(1);
    writer.edit(0);
    writer.connect();
    settle(std::slice::from_mut(&mut writer), &mut server);
    writer.replica.disconnect();
    let base = writer.replica.save();
    writer.edit(0);
    let waits = writer.replica.doc().get_last_local_change().unwrap();
    let mut again = replica(2);
    again.apply_chunks(waits.raw_bytes()).unwrap();
    again.connect();
    let mut changes = Replica::load(document(), ActorId::from([3; 16]), &base, &[]).unwrap();
    for change in changes.doc().get_changes(&[]) {
        again.receive_part(change.raw_bytes()).unwrap();
    }
    assert_eq!(again.heads(), [waits.hash()], "it is applied");
    assert!(!again.synced());
    assert!(!again.shared_heads().contains(&waits.hash()));
}

/// A server that remembers what this browser lost: Automerge says so again each time that it is asked.
#[test]
fn a_server_that_believes_too_much_is_told_so_once() {
    let mut client = Client::new(1);
    client.edit(0);
    client.connect();
    client.send();
    let message = sync::Message {
        heads: vec![ChangeHash([7; 32])],
        need: Vec::new(),
        have: vec![sync::Have {
            last_sync: vec![ChangeHash([7; 32])],
            bloom: sync::BloomFilter::default(),
        }],
        changes: sync::ChunkList::empty(),
        flags: None,
        version: sync::MessageVersion::V1,
    };
    let limits = Limits::default();
    client.replica.receive(&message.encode(), &limits).unwrap();
    let said = std::iter::from_fn(|| client.replica.next_message());
    assert!((1..=2).contains(&said.take(100).count()));
}

/// The server lost its data under a living connection, while changes of it waited to be applied. Had the
/// "I have nothing" been merged with them, the replica would believe its changes delivered for ever.
#[test]
fn a_server_that_lost_everything_gets_everything_again() {
    let mut server = Automerge::new();
    let mut both = [Client::new(1), Client::new(2)];
    for (at, client) in both.iter_mut().enumerate() {
        client.edit(at);
        client.connect();
    }
    settle(&mut both, &mut server);
    both[1].edit(1);
    both[1].send();
    both[1].server_receives(&mut server);
    both[0].server_sends(&server);
    both[0].receive();
    assert!(both[0].replica.has_pending());

    // Sent, and lost with the server: so many that what remains is less than a third of the document,
    // since beyond that the whole document is sent whatever is believed delivered.
    for _ in 0..20 {
        both[0].edit(0);
    }
    both[0].send();
    both[0].up.clear();
    let mut server = Automerge::new();
    for client in &mut both {
        client.server_state = sync::State::new();
    }
    both[0].server_sends(&server);
    both[0].receive();
    server
        .transact(|tx| tx.put(ROOT, "0-of-another-life", 1))
        .unwrap();
    both[0].server_sends(&server);
    both[0].receive();
    settle(&mut both[..1], &mut server);
    assert_eq!(server.keys(ROOT).filter(|key| key != "last").count(), 24);
}

#[test]
fn a_session_resumed_from_storage_sends_only_what_is_new() {
    let mut server = Automerge::new();
    let mut client = Client::new(1);
    for _ in 0..500 {
        client.edit(0);
    }
    client.connect();
    settle(std::slice::from_mut(&mut client), &mut server);
    let (saved, state) = (client.replica.save(), client.replica.sync_state());

    client.replica = Replica::load(document(), ActorId::from([5; 16]), &saved, &state).unwrap();
    client.edit(0);
    client.connect();
    let first = client.replica.next_message().unwrap();
    assert!(
        first.len() < 200,
        "{} bytes to open a session over a known history",
        first.len()
    );
    client.up.push_back(first);
    settle(std::slice::from_mut(&mut client), &mut server);
    assert!(client.replica.synced());
}

#[test]
fn a_failed_edit_leaves_nothing() {
    let mut replica = replica(1);
    let before = replica.heads();
    let failed = replica.change(|doc| {
        doc.put(ROOT, "half", 1)?;
        doc.put(ROOT, "", 1)?;
        doc.splice_text(ROOT, 0, 0, "not a text")
    });
    assert!(failed.is_err());
    assert_eq!(replica.heads(), before);
    assert!(replica.doc().keys(ROOT).next().is_none());
}

#[test]
fn garbage_is_an_error_and_hurts_nothing() {
    let mut replica = replica(1);
    assert!(
        replica.receive(b"B\0\0\0\0", &Limits::default()).is_err(),
        "not connected"
    );
    replica.connect();
    assert!(replica.receive(b"garbage", &Limits::default()).is_err());
    replica.disconnect();
    replica.connect();
    replica
        .change(|doc| doc.put(ROOT, "still", "here"))
        .unwrap();
    assert!(replica.next_message().is_some());
}
