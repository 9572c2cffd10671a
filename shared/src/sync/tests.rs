//! What must hold: every message that Automerge writes is read as Automerge reads it, and no bytes
//! make the decoder, or Automerge with what was decoded, panic or compute for long.

use std::time::{Duration, Instant};

use automerge::sync::{State, SyncDoc as _};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, ROOT};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn limits() -> Limits {
    Limits::default()
}

/// Two replicas with this many changes of their own, talking until they have nothing to say.
fn conversation(ours: u8, theirs: u8) -> Vec<Vec<u8>> {
    let mut first = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    first.put(ROOT, "shared", 0).unwrap();
    first.commit();
    let mut second = first.fork().with_actor(ActorId::from([2; 16]));
    for (doc, changes) in [(&mut first, ours), (&mut second, theirs)] {
        for n in 0..changes {
            doc.put(ROOT, format!("key{n}"), i64::from(n)).unwrap();
            doc.commit();
        }
    }
    let (mut first_state, mut second_state) = (State::new(), State::new());
    let mut messages = Vec::new();
    for round in 0..20 {
        let (from, to, from_state, to_state) = if round % 2 == 0 {
            (&mut first, &mut second, &mut first_state, &mut second_state)
        } else {
            (&mut second, &mut first, &mut second_state, &mut first_state)
        };
        if let Some(message) = from.sync().generate_sync_message(from_state) {
            messages.push(message.clone().encode());
            to.sync().receive_sync_message(to_state, message).unwrap();
        }
    }
    assert_eq!(first.get_heads(), second.get_heads());
    messages
}

fn same_as_automerge(bytes: &[u8]) {
    let theirs = Message::decode(bytes).unwrap();
    assert_eq!(decode(bytes, &limits()).unwrap(), theirs);
    let SyncMessage { message, changes } =
        split(&Bytes::copy_from_slice(bytes), &limits()).unwrap();
    let theirs_chunks: Vec<&[u8]> = theirs.changes.iter().collect();
    assert_eq!(changes, theirs_chunks);
    assert_eq!((message.heads, message.need), (theirs.heads, theirs.need));
    assert_eq!((message.have, message.flags), (theirs.have, theirs.flags));
}

#[test]
fn hashes_come_out_ascending_and_once() {
    let [a, b] = [[1; 32], [2; 32]];
    let bytes = [&[V1, 3][..], &b, &a, &b, &[0, 0, 0]].concat();
    let message = decode(&bytes, &limits()).unwrap();
    assert_eq!(message.heads, [ChangeHash(a), ChangeHash(b)]);
    assert_eq!(message.flags, None);
}

/// What follows the flags is how the next extension will come.
#[test]
fn bytes_after_the_flags_are_ignored() {
    let bytes = [V2, 0, 0, 0, 0, 2, 2, 0x84, 9, 9];
    let message = decode(&bytes, &limits()).unwrap();
    assert!(
        message
            .flags
            .unwrap()
            .contains(MessageFlags::SUPPORTS_SYNC_RESET)
    );
    same_as_automerge(&bytes);
}

#[test]
fn refused_messages_say_why() {
    let code = |bytes: &[u8]| {
        let start = Instant::now();
        let error = decode(bytes, &limits()).unwrap_err();
        assert!(start.elapsed() < Duration::from_millis(100), "{error}");
        error.code()
    };
    assert_eq!(code(&[]), ErrorCode::BadSyncMessage);
    assert_eq!(code(&[0x44, 0, 0, 0, 0]), ErrorCode::BadSyncMessage);
    // A filter of no bits makes Automerge panic at the next message.
    let no_bits = [0x42, 0, 0, 1, 0, 3, 1, 0, 1, 0];
    assert!(Message::decode(&no_bits).is_ok());
    assert_eq!(code(&no_bits), ErrorCode::BadBloomFilter);
    // 2·10^8 probes are 44 s.
    let probes = [
        0x42, 0, 0, 1, 0, 8, 1, 8, 0x80, 0x84, 0xaf, 0x5f, 0xff, 0xff, 0,
    ];
    let probes = [&probes[..5], &[7], &probes[6..12], &[0xff], &[0]].concat();
    assert!(Message::decode(&probes).is_ok());
    assert_eq!(code(&probes), ErrorCode::BadBloomFilter);
    // No probes, too many bits per entry, more and fewer bytes than they need.
    for bloom in [
        &[1, 8, 0, 0xff][..],
        &[1, 65, 7],
        &[1, 8, 7, 1, 1],
        &[9, 8, 7, 1],
    ] {
        let bytes = [
            &[0x42, 0, 0, 1, 0, u8::try_from(bloom.len()).unwrap()][..],
            bloom,
            &[0],
        ]
        .concat();
        assert_eq!(code(&bytes), ErrorCode::BadBloomFilter, "{bloom:?}");
    }
    // Counts and lengths that are claimed only.
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    for before in [
        &[0x42][..],
        &[0x42, 0],
        &[0x42, 0, 0],
        &[0x42, 0, 0, 1],
        &[0x42, 0, 0, 1, 0],
    ] {
        let bytes = [before, &huge].concat();
        assert_eq!(code(&bytes), ErrorCode::SyncMessageTooLarge, "{before:?}");
    }
    for before in [
        &[0x42, 0, 0, 0][..],
        &[0x42, 0, 0, 0, 1],
        &[0x42, 0, 0, 0, 0],
    ] {
        let bytes = [before, &huge].concat();
        assert_eq!(code(&bytes), ErrorCode::SyncMessageTooLarge, "{before:?}");
    }
    assert_eq!(
        code(&[0x42, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]),
        ErrorCode::SyncMessageTooLarge
    );
    assert_eq!(code(&[0x42, 5, 1, 2, 3]), ErrorCode::BadSyncMessage);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_automerge_writes_is_read_as_it_reads_it(ours in 0..40_u8, theirs in 0..40_u8) {
        for message in conversation(ours, theirs) {
            same_as_automerge(&message);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = decode(&bytes, &limits());
        if let Some(first) = bytes.first_mut() {
            *first = V1;
        }
        let _ = decode(&bytes, &limits());
    }

    /// What is accepted, Automerge reads the same, and can be asked for an answer to.
    #[test]
    fn spoiled_messages_do_no_harm(
        ours in 0..5_u8,
        which in any::<Index>(),
        edits in proptest::collection::vec((any::<Index>(), 0..3_u8, any::<u8>()), 1..4),
    ) {
        let messages = conversation(ours, 3);
        let mut bytes = messages[which.index(messages.len())].clone();
        for (at, how, byte) in edits {
            if bytes.is_empty() { break }
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        if let Ok(mut message) = decode(&bytes, &limits()) {
            let theirs = Message::decode(&bytes).unwrap();
            prop_assert_eq!(&message.have.len(), &theirs.have.len());
            prop_assert_eq!(&message.changes, &theirs.changes);
            message.changes = ChunkList::empty();
            let mut doc = AutoCommit::new();
            doc.put(ROOT, "key", 1).unwrap();
            doc.commit();
            let mut state = State::new();
            doc.sync().receive_sync_message(&mut state, message).unwrap();
            let _ = doc.sync().generate_sync_message(&mut state);
        }
    }
}
