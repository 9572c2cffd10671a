use std::sync::Arc;

use automerge::sync::{Have, Message, MessageFlags, State, SyncDoc as _};
use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{AutoCommit, ChangeHash, ROOT};
use bytes::Bytes;
use concord_shared::change::Change;
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, PeerId, PrincipalId, SessionId, StorageId};

use super::{ALICE, BOB, Bench, MESSAGE_BYTES, document, greeting, parse, sync_frames};
use crate::document::ConnectionId;
use crate::document::actor::{Effects, Frame, Input, PeerMessage};
use crate::document::append::Append;
use crate::document::ephemeral::Ephemeral;
use crate::document::sync::MAX_SNAPSHOT_READS_PER_SESSION;
use crate::document::{compaction, early, opening};
use crate::store::{Durability, MemoryStore, Store as _, Write};

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
fn a_request_that_is_repeated_is_answered_again() {
    let mut bench = Bench::new();
    for round in 1..4 {
        bench.message(BOB, true, greeting(&[]), vec![]);
        bench.now.monotonic_ms = round * 500;
        let effects = bench.input(Input::Tick);
        assert!(
            matches!(effects.frames[..], [(BOB, Frame::Unavailable)]),
            "round {round}: {effects:?}"
        );
    }
}

#[test]
fn a_refusal_of_what_somebody_else_parked_does_not_silence_the_sender() {
    let changes = parse(&mut document(1, 1));
    // Two changes of one actor with the same seq, on top of the honest one.
    let [forged, twin] = ["forged", "twin"].map(|key| {
        let mut forger = document(1, 1);
        forger.set_actor(automerge::ActorId::from([9; 16]));
        forger.put(ROOT, key, true).expect("put");
        forger.commit();
        parse(&mut forger).pop().expect("a change")
    });
    let mut bench = Bench::new();
    let parked = vec![forged, twin];
    bench.message(ALICE, false, greeting(&[parked[1].hash]), parked);
    let effects = bench.message(BOB, false, greeting(&[changes[0].hash]), changes);
    let rejected: Vec<_> = effects.rejected.iter().map(|(who, _)| *who).collect();
    assert_eq!(rejected, [ALICE]);
    let effects = bench.input(Input::Committed(2));
    let told = sync_frames(&effects);
    assert!(
        matches!(&told[..], [(BOB, message)] if message.heads.len() == 1),
        "{told:?}"
    );
}

#[test]
fn what_a_peer_needs_by_hash_it_gets_though_it_claims_heads_above() {
    let changes = parse(&mut document(1, 5));
    let mut bench = Bench::new();
    bench.message(ALICE, false, greeting(&[]), changes.clone());
    bench.input(Input::Committed(5));
    bench.message(BOB, false, greeting(&[changes[4].hash]), vec![]);
    let mut asking = greeting(&[changes[4].hash]);
    asking.need = vec![changes[1].hash];
    let frames = sync_frames(&bench.message(BOB, false, asking.clone(), vec![]));
    let [(BOB, message)] = &frames[..] else {
        panic!("{frames:?}")
    };
    let sent: Vec<&[u8]> = message.changes.iter().collect();
    assert_eq!(sent, [&changes[1].bytes[..]]);
    // Asked once, answered once.
    asking.need.clear();
    assert!(bench.message(BOB, false, asking, vec![]).frames.is_empty());
}

/// A store with the changes as they were admitted.
fn stored(bench: &mut Bench, changes: Vec<Change>) -> (MemoryStore, DocumentId) {
    let (store, id) = (MemoryStore::new(), DocumentId::from_uuid([3; 16]));
    let effects = bench.message(ALICE, false, greeting(&[]), changes);
    for append in effects.appends {
        let end = append.end();
        store
            .commit(&[append.into_write(id.clone())], Durability::Strict)
            .expect("in order");
        bench.input(Input::Committed(end));
    }
    (store, id)
}

/// Brings what a document wants from the store, until it wants nothing more; returns what was sent.
fn fetch_all(
    bench: &mut Bench,
    (store, id): &(MemoryStore, DocumentId),
    effects: Effects,
) -> Vec<(ConnectionId, Message)> {
    let mut sent = sync_frames(&effects);
    let mut fetches = effects.fetches;
    while let Some(fetch) = fetches.pop() {
        let number = fetch.id;
        let fetched = fetch.run(store, id).expect("the store has it");
        let effects = bench.input(Input::Fetched(number, Some(Box::new(fetched))));
        assert!(effects.rejected.is_empty(), "{effects:?}");
        sent.extend(sync_frames(&effects));
        fetches.extend(effects.fetches);
    }
    sent
}

/// As a document's views come and go: all have one id.
#[test]
fn what_was_fetched_for_who_left_is_not_taken_for_who_came_after() {
    let mut author = document(1, 200);
    let changes = parse(&mut author);
    let mut bench = Bench::new();
    let (store, id) = stored(&mut bench, changes);
    bench.document.rest();
    let join = |bench: &mut Bench| {
        let mut fetches = bench.message(BOB, false, greeting(&[]), vec![]).fetches;
        let fetch = fetches.pop().expect("a fetch");
        (fetch.id, fetch.run(&store, &id).expect("the store has it"))
    };
    let (first, of_first) = join(&mut bench);
    bench.input(Input::Leave(BOB));
    let (second, of_second) = join(&mut bench);
    // It failed, or came late.
    for late in [None, Some(Box::new(of_first))] {
        let effects = bench.input(Input::Fetched(first, late));
        assert!(effects.frames.is_empty() && effects.rejected.is_empty());
        assert!(effects.fetches.is_empty(), "the second is still awaited");
    }
    let effects = bench.input(Input::Fetched(second, Some(Box::new(of_second))));
    assert_eq!(sync_frames(&effects).len(), 1);
}

#[test]
fn a_long_catch_up_comes_in_pieces_whose_heads_the_peer_can_reach() {
    let mut author = document(1, 200);
    let changes = parse(&mut author);
    let mut bench = Bench::new();
    let store = stored(&mut bench, changes.clone());
    bench.document.rest();
    let mut reader = AutoCommit::new();
    for change in &changes[..3] {
        reader.load_incremental(&change.bytes).expect("applies");
    }
    let effects = bench.message(BOB, false, greeting(&reader.get_heads()), vec![]);
    let sent = fetch_all(&mut bench, &store, effects);
    assert!(sent.len() > 3, "{} messages", sent.len());
    let mut bytes = 0;
    for (_, message) in sent {
        let length: usize = message.changes.iter().map(<[u8]>::len).sum();
        assert!(length <= MESSAGE_BYTES, "{length} bytes in one message");
        bytes += length;
        let heads = message.heads.clone();
        let mut state = State::new();
        reader
            .sync()
            .receive_sync_message(&mut state, message)
            .expect("applies");
        assert_eq!(reader.get_heads(), heads, "heads that can't be reached yet");
    }
    assert_eq!(reader.get_heads(), author.get_heads());
    let missed: usize = changes[3..].iter().map(|change| change.bytes.len()).sum();
    assert_eq!(bytes, missed, "each change once");
}

#[test]
fn a_joiner_of_a_long_tail_gets_it_in_pieces() {
    let mut author = document(1, 200);
    let mut bench = Bench::new();
    let store = stored(&mut bench, parse(&mut author));
    bench.document.rest();
    let effects = bench.message(BOB, false, greeting(&[]), vec![]);
    let sent = fetch_all(&mut bench, &store, effects);
    assert!(sent.len() > 3, "{} messages", sent.len());
    let last = sent.last().map(|(_, message)| message.heads.clone());
    assert_eq!(last, Some(author.get_heads()));
}

#[test]
fn old_changes_are_taken_out_of_a_snapshot_only_so_often() {
    let changes = parse(&mut document(1, 100));
    let mut bench = Bench::new();
    let (store, id) = stored(&mut bench, changes.clone());
    bench.document.rest();
    let built = compaction::build(&store, &id, 0).expect("compacts");
    let Some(Write::Snapshot {
        document,
        base,
        received_at_ms,
        snapshot,
        graph,
        arrivals,
        ..
    }) = built.write
    else {
        panic!("nothing to compact")
    };
    let write = Write::Snapshot {
        document,
        base,
        keep_from: base,
        received_at_ms,
        snapshot,
        graph,
        arrivals,
    };
    store.commit(&[write], Durability::Strict).expect("commits");
    bench.message(BOB, false, greeting(&[changes[99].hash]), vec![]);
    let mut asking = greeting(&[changes[99].hash]);
    asking.need = vec![changes[1].hash];
    for asked in 0..1000 {
        let fetches = bench.message(BOB, false, asking.clone(), vec![]).fetches;
        let fetch = fetches.into_iter().next().expect("a fetch");
        let number = fetch.id;
        let fetched = fetch.run(&store, &id).expect("it is in the snapshot");
        assert_eq!(fetched.chunks, [changes[1].bytes.clone()]);
        let effects = bench.input(Input::Fetched(number, Some(Box::new(fetched))));
        if let [(BOB, rejection)] = &effects.rejected[..] {
            assert_eq!(rejection.code(), ErrorCode::Overloaded);
            assert_eq!(asked, MAX_SNAPSHOT_READS_PER_SESSION);
            return;
        }
    }
    panic!("never refused");
}

/// A joiner of a document that was being opened, and what it was sent before.
fn served_early(behind: usize) -> (Bench, AutoCommit, AutoCommit) {
    let mut author = document(1, 100);
    let changes = parse(&mut author);
    let mut bench = Bench::new();
    let (store, id) = stored(&mut bench, changes);
    let built = compaction::build(&store, &id, 0).expect("compacts");
    store
        .commit(&[built.write.expect("a tail")], Durability::Strict)
        .expect("commits");
    for n in 0..behind {
        author.put(ROOT, "later", n as u64).expect("put");
        author.commit();
    }
    let later = parse(&mut author).split_off(100);
    let effects = bench.message(ALICE, false, greeting(&[]), later);
    for append in effects.appends {
        store
            .commit(&[append.into_write(id.clone())], Durability::Strict)
            .expect("commits");
    }
    // Opened anew, while somebody joins.
    let whole = early::whole(&store, &id, MESSAGE_BYTES)
        .expect("readable")
        .expect("there is a snapshot");
    let (to, message) = (whole.to, whole.message(false));
    let mut joiner = AutoCommit::new();
    let message = Message::decode(&message).expect("decodes");
    let heads = message.heads.clone();
    joiner
        .sync()
        .receive_sync_message(&mut State::new(), message)
        .expect("applies");
    assert_eq!(
        joiner.get_heads(),
        heads,
        "heads are those of what was sent"
    );
    let history = opening::open(&store, &id).expect("opens").history;
    let mut bench = Bench::with(history);
    // In one go, as the task does it: no message goes out between.
    let message = PeerMessage {
        principal: PrincipalId::anonymous(),
        storage: None,
        is_request: true,
        sync: greeting(&[]),
        changes: vec![],
        is_document: false,
        may_write: true,
    };
    let joined = Input::Message(BOB, Box::new(message));
    bench.document.handle(bench.now, joined, &mut bench.effects);
    let effects = bench.input(Input::Served(BOB, to));
    for fetch in effects.fetches {
        let number = fetch.id;
        let fetched = fetch.run(&store, &id).expect("the store has it");
        let effects = bench.input(Input::Fetched(number, Some(Box::new(fetched))));
        for (_, message) in sync_frames(&effects) {
            assert!(!message.changes.is_empty());
            joiner
                .sync()
                .receive_sync_message(&mut State::new(), message)
                .expect("applies");
        }
        assert!(effects.fetches.is_empty());
    }
    assert!(effects.frames.is_empty(), "nothing is said twice");
    (bench, joiner, author)
}

#[test]
fn a_joiner_served_before_opening_hears_only_of_what_comes_later() {
    let (mut bench, mut joiner, mut author) = served_early(3);
    assert_eq!(joiner.get_heads(), author.get_heads());
    author.put(ROOT, "last", true).expect("put");
    author.commit();
    let last = parse(&mut author).split_off(103);
    bench.message(ALICE, false, greeting(&author.get_heads()), last.clone());
    let frames = sync_frames(&bench.input(Input::Committed(104)));
    let to_bob = frames.iter().find(|(who, _)| *who == BOB).expect("told");
    let sent: Vec<&[u8]> = to_bob.1.changes.iter().collect();
    assert_eq!(sent, [&last[0].bytes[..]]);
}

#[test]
fn a_joiner_served_before_opening_gets_what_was_too_long_for_one_message() {
    let (_, mut joiner, mut author) = served_early(60);
    assert_eq!(joiner.get_heads(), author.get_heads());
}

#[test]
fn a_read_only_peer_costs_nothing_for_the_history_it_does_not_take() {
    let mut author = document(1, 100);
    let changes = parse(&mut author);
    let mut bench = Bench::new();
    bench.message(ALICE, false, greeting(&[]), changes[..99].to_vec());
    bench.input(Input::Committed(99));
    for (peer, held) in [(ConnectionId(8), vec![]), (BOB, vec![changes[0].hash])] {
        let mut hello = greeting(&held);
        let mut flags = MessageFlags::new();
        flags.set(MessageFlags::READ_ONLY);
        hello.flags = Some(flags);
        let frames = sync_frames(&bench.message(peer, false, hello, vec![]));
        let [(_, message)] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert!(message.changes.is_empty());
        // Of the peer's own heads, which it has, or none: other heads, or a blank one, reset it.
        let told: Vec<_> = message.have.iter().map(|have| &have.last_sync).collect();
        let expected = if held.is_empty() { vec![] } else { vec![&held] };
        assert_eq!(told, expected);
        assert!(
            message
                .have
                .iter()
                .all(|have| have.bloom.to_bytes().is_empty())
        );
    }
    bench.message(
        ALICE,
        false,
        greeting(&author.get_heads()),
        changes[99..].to_vec(),
    );
    let frames = sync_frames(&bench.input(Input::Committed(100)));
    let to_bob = frames.iter().find(|(who, _)| *who == BOB).expect("told");
    assert!(to_bob.1.changes.is_empty() && to_bob.1.heads == author.get_heads());
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
            Frame::RemoteHeads(moved) if *connection == BOB => Some(&moved.heads[..]),
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
fn peers_do_not_say_what_the_server_has() {
    let mut author = document(1, 1);
    let first = author.get_heads();
    let mut bench = Bench::new();
    bench.message(ALICE, false, greeting(&[]), parse(&mut author));
    bench.input(Input::Committed(1));
    author.empty_change(CommitOptions::default());
    let second = author.get_heads();
    let more = parse(&mut author).pop().expect("a change");
    bench.message(ALICE, false, greeting(&first), vec![more]);
    bench.input(Input::Committed(2));
    let ours = StorageId::new("server-storage").expect("an id");
    bench.message(BOB, false, greeting(&[]), vec![]);
    let subscribed = Arc::new([ours.clone()].into_iter().collect());
    let mut told = bench.input(Input::Subscribe(BOB, subscribed)).frames;
    let forged = PeerMessage {
        principal: PrincipalId::anonymous(),
        storage: Some(ours),
        is_request: false,
        sync: greeting(&first),
        changes: vec![],
        is_document: false,
        may_write: false,
    };
    let stranger = ConnectionId(3);
    told.extend(
        bench
            .input(Input::Message(stranger, Box::new(forged)))
            .frames,
    );
    told.extend(bench.input(Input::Tick).frames);
    let heads = told.iter().filter_map(|(_, frame)| match frame {
        Frame::RemoteHeads(moved) => Some(&moved.heads[..]),
        _ => None,
    });
    assert_eq!(heads.collect::<Vec<_>>(), [&second[..]]);
}

#[test]
fn an_upload_is_a_snapshot_unless_something_else_came_with_it() {
    let mut author = document(1, 30);
    let changes = parse(&mut author);
    let upload = |bench: &mut Bench, changes: Vec<Change>| {
        let message = PeerMessage {
            principal: PrincipalId::anonymous(),
            storage: None,
            is_request: false,
            sync: greeting(&[]),
            changes,
            is_document: true,
            may_write: true,
        };
        bench
            .input(Input::Message(ALICE, Box::new(message)))
            .appends
    };
    let appends = upload(&mut Bench::new(), changes.clone());
    assert!(
        matches!(appends[..], [Append::Upload { .. }]) && appends[0].end() == 30,
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
