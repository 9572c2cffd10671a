//! What must hold for any bytes that a peer may send.
//!
//! The fuzz targets run these on what the fuzzer makes up, and `tests/fuzz_corpus.rs` on every file
//! of the corpora, so that what was found once stays found without a fuzzer. Both have the `forge` of
//! `tests/src` beside this.

#[path = "admission.rs"]
pub(crate) mod admission;
#[path = "reading.rs"]
mod reading;
#[path = "session.rs"]
pub(crate) mod session;

use automerge::sync::{ChunkList, Message, State, SyncDoc as _};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ROOT};
use bytes::Bytes;
use concord_shared::change::{self, Chunk};
use concord_shared::{Limits, sync, wire};
use sha2::{Digest as _, Sha256};

/// Small, so that an input that comes near them is still fast.
fn limits() -> Limits {
    Limits {
        ops_per_change: 20_000,
        ops_per_message: 50_000,
        preds_per_change: 20_000,
        document_changes: 2_000,
        document_ops: 20_000,
        ..Limits::default()
    }
}

/// A frame that is read can be written, and is read the same again.
pub(crate) fn wire(frame: &[u8]) {
    let frame = Bytes::copy_from_slice(frame);
    if let Ok(message) = wire::decode(&frame, &limits()) {
        let again = wire::decode(&message.encode(), &limits());
        assert_eq!(again.ok().as_ref(), Some(&message));
    }
}

/// A change that is taken is read by Automerge as the same; a document's changes are each good.
///
/// The first byte says what the rest is: chunks as they are, or the data of one chunk, which gets a
/// good checksum here since no fuzzer would find one.
pub(crate) fn chunks(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else {
        return;
    };
    let bytes = match how % 4 {
        kind @ 0..=2 => framed(kind, rest),
        _ => rest.to_vec(),
    };
    for chunk in change::parse_chunks(&bytes.into(), &limits()).unwrap_or_default() {
        match chunk {
            Chunk::Change(ours) => reading::same(&ours),
            Chunk::Document(document) => {
                for ours in change::decode_document(&document, &limits()).unwrap_or_default() {
                    let again = change::parse_chunks(&ours.bytes, &limits()).unwrap();
                    reading::same(&ours);
                    assert_eq!(again, [Chunk::Change(ours)]);
                }
            }
        }
    }
}

/// Arbitrary ops in valid framing: what is admitted of a history with something wrong in it survives
/// with Automerge, and what is honest is admitted; see `admission.rs`.
pub(crate) fn admission(input: &[u8]) {
    admission::check(input);
}

/// Sync messages and what comes of them: each is read as Automerge reads it, and together they are one
/// peer's conversation with the server's core.
///
/// The input is a list of messages, each behind its length in two bytes, the upper bits of which say
/// what else happens; see [`session`]. Without that framing it is one message.
pub(crate) fn sync_session(input: &[u8]) {
    let messages = session::split(input);
    for (message, _) in &messages {
        sync_message(message);
    }
    session::converse(&messages);
}

/// A sync message that is taken is read by Automerge as the same, but for the order of hashes, and
/// Automerge can answer it.
fn sync_message(input: &[u8]) {
    let Ok(mut message) = sync::decode(input, &limits()) else {
        return;
    };
    let theirs = Message::decode(input).unwrap();
    assert_eq!(message.changes, theirs.changes);
    assert_eq!(message.flags, theirs.flags);
    for (ours, theirs) in message.have.iter().zip(&theirs.have) {
        assert_eq!(ours.bloom, theirs.bloom);
    }
    // What the changes are made of is for `chunks`.
    message.changes = ChunkList::empty();
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "key", 1).unwrap();
    let mut state = State::new();
    doc.sync()
        .receive_sync_message(&mut state, message)
        .unwrap();
    let _ = doc.sync().generate_sync_message(&mut state);
}

/// A chunk of this type around `data`, its checksum right.
pub(crate) fn framed(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut hashed = vec![kind];
    let mut length = data.len();
    while length >= 0x80 {
        hashed.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    hashed.push(u8::try_from(length).unwrap());
    hashed.extend_from_slice(data);
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83];
    chunk.extend_from_slice(&Sha256::digest(&hashed)[..4]);
    chunk.extend_from_slice(&hashed);
    chunk
}
