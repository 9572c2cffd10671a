//! Whatever comes as chunks, from a server, another tab or storage, a replica answers soon and is as good as
//! before; and what honest replicas write comes out as Automerge alone would have it.
//!
//! Harm is made by hand, where it has a name, and by chance: honest chunks with bytes changed and a right
//! checksum. That it is harm shows in what Automerge does without us: a minute of work, gigabytes, silence. Each
//! test ends with something good that is taken, so that a replica which refused everything would fail it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::Write as _;
use std::time::{Duration, Instant};

use automerge::sync::{self, ChunkList};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, ChangeHash, ObjType, ROOT, ReadDoc as _, TextEncoding};
use concord_client_wasm::replica::intake::{own_limits, server_limits};
use concord_client_wasm::{Replica, ReplicaError};
use concord_shared::ErrorCode;
use concord_shared::change::{change_hash, check_document};
use concord_shared::ids::DocumentId;
use concord_shared::limits::Limits;
use concord_shared::reader::push_uleb;
use proptest::prelude::*;
use proptest::sample::Index;

/// Far more than anything here takes, far less than Automerge would: the machine may be busy.
const SOON: Duration = Duration::from_secs(6);

const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;
const COMPRESSED: u8 = 2;

fn replica() -> Replica {
    let id = DocumentId::from_uuid([9; 16]);
    let mut replica = Replica::new(id, ActorId::from([1; 16]));
    replica.change(|doc| doc.put(ROOT, "mine", 1)).unwrap();
    replica
}

/// A chunk with a right checksum.
fn chunk(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, kind];
    push_uleb(&mut chunk, data.len() as u64);
    chunk.extend_from_slice(data);
    let hash = change_hash(&chunk);
    chunk[4..8].copy_from_slice(&hash.0[..4]);
    chunk
}

/// Where the data of a chunk begins.
fn data_from(chunk: &[u8]) -> usize {
    let length = chunk[9..].iter().take_while(|byte| **byte & 0x80 != 0);
    9 + length.count() + 1
}

/// A number that has a sign: one more byte where the last one's highest bit would be set.
fn signed(number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_uleb(&mut bytes, number);
    if let Some(last) = bytes.last_mut().filter(|last| **last & 0x40 != 0) {
        *last |= 0x80;
        bytes.push(0);
    }
    bytes
}

/// `count` ops that are alike: the key "k" of the root is set, without predecessors.
fn run_of(count: u64) -> Vec<u8> {
    let length = |extra: &[u8]| [signed(count).as_slice(), extra].concat();
    let mut inserts = Vec::new();
    push_uleb(&mut inserts, count);
    let columns = [
        (0x15, length(b"\x01k")),
        (0x34, inserts),
        (0x42, length(&[1])),
        (0x56, length(&[2])),
        (0x70, length(&[0])),
    ];
    let mut data = vec![0, 1, 7, 1, 1, 0, 0, 0, 5];
    for (spec, bytes) in &columns {
        push_uleb(&mut data, *spec);
        push_uleb(&mut data, bytes.len() as u64);
    }
    data.extend(columns.into_iter().flat_map(|(_, bytes)| bytes));
    chunk(CHANGE, &data)
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// A document of so many changes, without ops and heads.
fn document_of(changes: u64) -> Vec<u8> {
    let columns = [
        (0x01, [signed(changes), vec![0]].concat()),
        (0x03, [signed(changes), vec![1]].concat()),
        (0x13, [signed(changes), vec![1]].concat()),
        (0x40, [vec![0x7f, 0], signed(changes - 1), vec![1]].concat()),
        (0x43, [vec![0x7f, 0], signed(changes - 2), vec![1]].concat()),
    ];
    let mut data = vec![1, 1, 7, 0, 5];
    for (spec, bytes) in &columns {
        data.push(*spec);
        push_uleb(&mut data, bytes.len() as u64);
    }
    data.push(0);
    data.extend(columns.into_iter().flat_map(|(_, bytes)| bytes));
    chunk(DOCUMENT, &data)
}

/// A document of nothing but one column that inflates to so many bytes.
fn inflating_document(bytes: usize) -> Vec<u8> {
    let bomb = deflated(&vec![1; bytes]);
    let mut data = vec![0, 0, 1, 0x35 | 8];
    push_uleb(&mut data, bomb.len() as u64);
    data.push(0);
    data.extend(bomb);
    chunk(DOCUMENT, &data)
}

/// What is refused, with which code.
fn harms() -> Vec<(&'static str, Vec<u8>, ErrorCode)> {
    let many = server_limits().change_bytes + 1;
    let change = run_of(2);
    let mut checksum = change.clone();
    checksum[4] ^= 1;
    let mut unknown = change.clone();
    let action = unknown.iter().rposition(|byte| *byte == 1).unwrap();
    unknown[action] = 9;
    let unknown = chunk(CHANGE, &unknown[data_from(&change)..]);
    vec![
        (
            "5e7 ops in 54 bytes",
            run_of(50_000_000),
            ErrorCode::TooManyOps,
        ),
        (
            "2e6 ops in two changes of 49 bytes",
            run_of(1_000_000).repeat(2),
            ErrorCode::TooManyOps,
        ),
        (
            "a document of a million changes in 55 bytes",
            document_of(900_000),
            ErrorCode::BadDocument,
        ),
        (
            "a change that inflates to 17 MB",
            chunk(COMPRESSED, &deflated(&vec![0; many])),
            ErrorCode::ChangeTooLarge,
        ),
        (
            "a document that inflates to 600 MB",
            inflating_document(600 << 20),
            ErrorCode::DocumentTooLarge,
        ),
        ("rubbish", vec![9; 12], ErrorCode::BadChunk),
        (
            "a chunk cut short",
            change[..change.len() - 3].to_vec(),
            ErrorCode::BadChunk,
        ),
        ("a wrong checksum", checksum, ErrorCode::BadChecksum),
        ("an unknown action", unknown, ErrorCode::UnknownAction),
        (
            "a kind of chunk",
            chunk(9, &[1]),
            ErrorCode::UnsupportedChunk,
        ),
        (
            "no document",
            chunk(DOCUMENT, &[7; 4]),
            ErrorCode::BadDocument,
        ),
    ]
}

/// A sync message with these changes and heads.
fn message(heads: &[ChangeHash], chunks: &[u8]) -> Vec<u8> {
    sync::Message {
        heads: heads.to_vec(),
        need: vec![],
        have: vec![],
        changes: ChunkList::from(vec![chunks.to_vec()]),
        flags: None,
        version: sync::MessageVersion::V1,
    }
    .encode()
}

/// What another replica made: some changes, one after the other.
fn honest() -> AutoCommit {
    let mut doc = AutoCommit::new_with_encoding(TextEncoding::Utf16CodeUnit)
        .with_actor(ActorId::from([2; 16]));
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.commit();
    for n in 0..5 {
        doc.splice_text(&text, n, 0, "a").unwrap();
        doc.commit();
    }
    doc
}

/// The changes' chunks, not deflated.
fn raw(changes: &[automerge::Change]) -> Vec<u8> {
    let chunks = changes.iter().map(automerge::Change::raw_bytes);
    chunks.collect::<Vec<_>>().concat()
}

fn code(error: &ReplicaError) -> Option<ErrorCode> {
    match error {
        ReplicaError::Chunk { source, .. } => Some(source.code()),
        _ => None,
    }
}

#[test]
fn a_hostile_server_is_refused_soon_and_nothing_of_its_message_is_taken() {
    for (name, harm, expected) in harms() {
        let mut victim = replica();
        let before = victim.heads();
        let mut honest = honest();
        let good = honest.save_nocompress();
        let start = Instant::now();
        for chunks in [harm.clone(), [raw(&honest.get_changes(&[])), harm].concat()] {
            victim.connect();
            let message = message(&[ChangeHash([1; 32])], &chunks);
            let error = victim.receive(&message, &server_limits()).unwrap_err();
            assert_eq!(code(&error), Some(expected), "{name}: {error:?}");
            victim.apply_pending().unwrap();
            victim.disconnect();
            assert_eq!(victim.heads(), before, "{name}");
        }
        assert!(start.elapsed() < SOON, "{name}: {:?}", start.elapsed());

        victim.connect();
        let message = message(&honest.get_heads(), &good);
        victim.receive(&message, &server_limits()).unwrap();
        victim.apply_pending().unwrap();
        assert_eq!(victim.heads().len(), 2, "{name}");
    }
}

#[test]
fn of_what_tabs_and_storage_bring_the_good_is_kept_and_the_bad_is_said() {
    for (name, harm, expected) in harms() {
        let expected = match name {
            // What is this browser's own may be larger.
            "a change that inflates to 17 MB" | "2e6 ops in two changes of 49 bytes" => continue,
            // What follows is taken for its end.
            "a chunk cut short" => ErrorCode::BadChecksum,
            _ => expected,
        };
        let mut victim = replica();
        let mut honest = honest();
        let changes = honest.get_changes(&[]);
        let (first, second) = changes.split_at(3);
        let start = Instant::now();
        let error = victim.apply_chunks(&[raw(first), harm.clone(), raw(second)].concat());
        assert_eq!(code(&error.unwrap_err()), Some(expected), "{name}");
        assert!(start.elapsed() < SOON, "{name}: {:?}", start.elapsed());
        let has = |victim: &mut Replica, n: usize| {
            victim
                .doc()
                .get_change_meta_by_hash(&changes[n].hash())
                .is_some()
        };
        assert!(has(&mut victim, 2), "{name}: what came before it");
        // Rubbish has no length, and what is out of bounds is followed by nothing.
        let is_last = name == "a chunk cut short"
            || matches!(
                expected,
                ErrorCode::BadChunk | ErrorCode::TooManyOps | ErrorCode::DocumentTooLarge
            );
        assert_eq!(has(&mut victim, 5), !is_last, "{name}: what came behind it");
        victim.apply_chunks(&raw(second)).unwrap();
        assert!(has(&mut victim, 5), "{name}");
    }
}

/// Automerge says nothing of a document chunk that is not what it says, if there is something in the document
/// already.
#[test]
fn a_document_chunk_without_the_heads_that_it_names_is_an_error() {
    let mut other = honest();
    let good = other.save_nocompress();
    let mut data = good[data_from(&good)..].to_vec();
    let head = other.get_heads()[0];
    let at = data.windows(32).position(|bytes| bytes == head.0).unwrap();
    data[at] ^= 1;
    let spoiled = chunk(DOCUMENT, &data);
    let mut silent = replica();
    silent.doc().load_incremental(&spoiled).unwrap();

    let mut victim = replica();
    victim.connect();
    let message = message(&[head], &spoiled);
    victim.receive(&message, &server_limits()).unwrap();
    let error = victim.apply_pending().unwrap_err();
    assert!(matches!(error, ReplicaError::Document { .. }), "{error:?}");
    let error = victim.apply_chunks(&spoiled).unwrap_err();
    assert!(matches!(error, ReplicaError::Document { .. }), "{error:?}");
    victim.apply_chunks(&good).unwrap();
    assert_eq!(victim.heads().len(), 2);
}

/// Each message is within bounds, and all that gather before the next picture would not be.
#[test]
fn what_is_much_work_does_not_gather() {
    let mut victim = replica();
    victim.connect();
    for seq in 1..=3 {
        let data = run_of(600_000);
        let mut data = data[data_from(&data)..].to_vec();
        // Another actor each time.
        data[2] = 6 + seq;
        let message = message(&[ChangeHash([1; 32])], &chunk(CHANGE, &data));
        victim.receive(&message, &server_limits()).unwrap();
        assert_eq!(victim.has_pending(), seq % 2 == 1, "after {seq}");
    }
}

/// A paste of one letter, and its deletion by runs: many ops in few bytes, and honest.
#[test]
fn what_is_large_and_honest_passes() {
    let mut doc = AutoCommit::new_with_encoding(TextEncoding::Utf16CodeUnit);
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    let paste = "a".repeat(100_000);
    doc.splice_text(&text, 0, 0, &paste).unwrap();
    doc.commit();
    doc.splice_text(&text, 0, 100_000, "").unwrap();
    doc.commit();
    let changes = doc.get_changes(&[]);
    for chunks in [raw(&changes), doc.save()] {
        let mut reader = replica();
        reader.connect();
        let message = message(&doc.get_heads(), &chunks);
        reader.receive(&message, &server_limits()).unwrap();
        reader.apply_pending().unwrap();
        assert_eq!(reader.heads().len(), 2);
    }
}

/// A paper of a quarter of a million keystrokes is 129 kB as a document. The bounds have room for seven of it: a
/// quarter of it passes within a twenty-eighth of them.
#[test]
fn a_long_history_passes_with_room_to_spare() {
    const KEYSTROKES: usize = 65_000;
    let mut doc = AutoCommit::new_with_encoding(TextEncoding::Utf16CodeUnit);
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    let mut random = 1_u64;
    for n in 0..KEYSTROKES {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let letter = char::from(b'a' + u8::try_from((random >> 33) % 17).unwrap());
        doc.splice_text(&text, n, 0, &letter.to_string()).unwrap();
        doc.commit();
    }
    let saved = doc.save().into();
    for limits in [server_limits(), own_limits()] {
        let part = Limits {
            document_bytes: limits.document_bytes / 28,
            document_memory_bytes: limits.document_memory_bytes / 28,
            document_changes: limits.document_changes / 28,
            document_ops: limits.document_ops / 28,
            document_ops_in_a_few_bytes: 0,
            document_ops_per_byte: limits.document_ops_per_byte / 7,
            ..limits
        };
        assert_eq!(check_document(&saved, &part).unwrap(), doc.get_heads());
    }
}

/// What a replica does.
#[derive(Debug, Clone)]
enum Step {
    Put(u8, i64),
    Type(Index, String),
    Erase(Index),
    Count,
    Paste(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4_u8, any::<i64>()).prop_map(|(key, value)| Step::Put(key, value)),
        (any::<Index>(), ".{0,6}").prop_map(|(at, text)| Step::Type(at, text)),
        any::<Index>().prop_map(Step::Erase),
        Just(Step::Count),
        (0..2_000_u16).prop_map(Step::Paste),
    ];
    proptest::collection::vec(step, 1..20)
}

fn written(steps: &[Step]) -> AutoCommit {
    let mut doc = AutoCommit::new_with_encoding(TextEncoding::Utf16CodeUnit)
        .with_actor(ActorId::from([3; 16]));
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.put(ROOT, "count", automerge::ScalarValue::counter(1))
        .unwrap();
    for step in steps {
        let length = doc
            .text(&text)
            .unwrap()
            .chars()
            .filter(char::is_ascii)
            .count();
        let fits = length == doc.length(&text);
        match step {
            Step::Put(key, value) => doc.put(ROOT, format!("key {key}"), *value).unwrap(),
            Step::Type(at, typed) if fits => {
                doc.splice_text(&text, at.index(length + 1), 0, typed)
                    .unwrap();
            }
            Step::Erase(at) if fits && length > 0 => {
                doc.splice_text(&text, at.index(length), 1, "").unwrap();
            }
            Step::Paste(count) => {
                doc.splice_text(&text, 0, 0, &"p".repeat(usize::from(*count)))
                    .unwrap();
            }
            Step::Count | Step::Type(..) | Step::Erase(_) => {
                doc.increment(ROOT, "count", 1).unwrap();
            }
        }
        doc.commit();
    }
    doc
}

/// The document's changes as chunks, plain or deflated, or all in one.
fn chunks_of(doc: &mut AutoCommit, how: u8) -> Vec<Vec<u8>> {
    let changes = doc.get_changes(&[]);
    let each = |change: &automerge::Change| match how {
        1 => change.clone().bytes().to_vec(),
        _ => change.raw_bytes().to_vec(),
    };
    if how == 2 {
        return vec![doc.save()];
    }
    changes.iter().map(each).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// As Automerge takes them by itself: in any order, deflated or not, one by one or as a document.
    #[test]
    fn honest_chunks_apply_as_before(
        steps in steps(),
        how in 0..3_u8,
        order in any::<prop::sample::Index>(),
        is_from_server in any::<bool>(),
    ) {
        let mut doc = written(&steps);
        let mut chunks = chunks_of(&mut doc, how);
        let turn = order.index(chunks.len());
        chunks.rotate_left(turn);
        let chunks = chunks.concat();
        let mut alone = replica();
        alone.doc().load_incremental(&chunks).unwrap();
        let mut judging = replica();
        if is_from_server {
            judging.connect();
            judging.receive(&message(&doc.get_heads(), &chunks), &server_limits()).unwrap();
            judging.apply_pending().unwrap();
        } else {
            judging.apply_chunks(&chunks).unwrap();
        }
        prop_assert_eq!(judging.heads(), alone.heads());
        prop_assert_eq!(judging.save(), alone.save());
        prop_assert_eq!(judging.heads().len(), 2);
    }

    /// Chunks that were damaged on the way are never taken, nor do they cost more than time to read them.
    #[test]
    fn damaged_chunks_are_refused(
        steps in steps(),
        how in 0..3_u8,
        flips in proptest::collection::vec((any::<Index>(), 1..=255_u8), 1..4),
    ) {
        let mut doc = written(&steps);
        let mut chunks = chunks_of(&mut doc, how).concat();
        let good = chunks.clone();
        for (at, flip) in flips {
            let at = at.index(chunks.len());
            chunks[at] ^= flip;
        }
        prop_assume!(chunks != good);
        let mut victim = replica();
        let before = victim.heads();
        victim.connect();
        let start = Instant::now();
        let damaged = message(&doc.get_heads(), &chunks);
        prop_assert!(victim.receive(&damaged, &server_limits()).is_err());
        prop_assert!(start.elapsed() < SOON);
        prop_assert_eq!(victim.heads(), before);
        victim.disconnect();
        victim.apply_chunks(&good).unwrap();
    }

    /// Spoiled by somebody who knows how to make a checksum. What passes may still refer to what is not there, so
    /// nothing is applied; but judging it never panics and takes no longer than its bytes and ops may.
    #[test]
    fn spoiled_chunks_are_judged_soon(
        steps in steps(),
        how in 0..3_u8,
        which in any::<Index>(),
        edits in proptest::collection::vec((any::<Index>(), 0..3_u8, any::<u8>()), 1..4),
    ) {
        let mut doc = written(&steps);
        let chunks = chunks_of(&mut doc, how);
        let victim_chunk = &chunks[which.index(chunks.len())];
        let mut data = victim_chunk[data_from(victim_chunk)..].to_vec();
        for (at, how, byte) in edits {
            let at = at.index(data.len());
            match how {
                0 => data[at] = byte,
                1 => data.insert(at, byte),
                _ => { data.remove(at); }
            }
        }
        let spoiled = chunk(victim_chunk[8], &data);
        let mut victim = replica();
        victim.connect();
        let start = Instant::now();
        // It waits to be applied, or is refused.
        drop(victim.receive(&message(&[ChangeHash([1; 32])], &spoiled), &server_limits()));
        prop_assert!(start.elapsed() < SOON);
        victim.disconnect();
        victim.apply_chunks(&doc.save()).unwrap();
    }
}
