//! What must hold: whatever Automerge writes is read, and as Automerge reads it; whatever is taken,
//! Automerge reads the same; columns that Automerge would write otherwise are refused; and hostile
//! bytes cost no more than they weigh.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{ActorId, AutoCommit, Automerge, ObjId, ObjType, ROOT, ReadDoc as _, ScalarValue};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::{ErrorCode, Limits};

fn limits() -> Limits {
    Limits::default()
}

/// One thing that one of three replicas does.
#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8, i64),
    PutBytes(u8, Vec<u8>),
    Delete(u8, u8),
    Make(u8, u8),
    Insert(u8, Index, String),
    Splice(u8, Index, u8, String),
    Mark(u8, Index, Index, bool),
    Increment(u8, i64),
    Commit(u8, Option<String>, i64),
    Empty(u8),
    Merge(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..3_u8;
    prop_oneof![
        (who.clone(), 0..5_u8, any::<i64>()).prop_map(|(w, k, v)| Step::Put(w, k, v)),
        (who.clone(), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(w, v)| Step::PutBytes(w, v)),
        (who.clone(), 0..5_u8).prop_map(|(w, k)| Step::Delete(w, k)),
        (who.clone(), 0..3_u8).prop_map(|(w, k)| Step::Make(w, k)),
        (who.clone(), any::<Index>(), ".{0,3}").prop_map(|(w, i, s)| Step::Insert(w, i, s)),
        (who.clone(), any::<Index>(), 0..5_u8, ".{0,8}")
            .prop_map(|(w, i, d, s)| Step::Splice(w, i, d, s)),
        (who.clone(), any::<Index>(), any::<Index>(), any::<bool>())
            .prop_map(|(w, a, b, e)| Step::Mark(w, a, b, e)),
        (who.clone(), any::<i64>()).prop_map(|(w, n)| Step::Increment(w, n / 1000)),
        (
            who.clone(),
            proptest::option::of(".{0,10}"),
            -(1_i64 << 53) + 1..1 << 53
        )
            .prop_map(|(w, m, t)| Step::Commit(w, m, t)),
        who.clone().prop_map(Step::Empty),
        (who.clone(), who).prop_map(|(a, b)| Step::Merge(a, b)),
    ]
}

/// Three replicas of one document with a text, a list and a counter, after these steps, merged.
fn document(steps: Vec<Step>) -> AutoCommit {
    let actor = |n: u8| ActorId::from(vec![n; 1 + usize::from(n) * 8]);
    let mut first = AutoCommit::new().with_actor(actor(0));
    let text = first.put_object(ROOT, "text", ObjType::Text).unwrap();
    let list = first.put_object(ROOT, "list", ObjType::List).unwrap();
    first.put(ROOT, "counter", ScalarValue::counter(1)).unwrap();
    first.commit();
    let mut replicas: Vec<AutoCommit> = (0..3).map(|n| first.fork().with_actor(actor(n))).collect();
    for step in steps {
        apply(&mut replicas, &text, &list, step);
    }
    let mut merged = replicas.remove(0);
    for mut other in replicas {
        merged.merge(&mut other).unwrap();
    }
    merged
}

fn apply(replicas: &mut [AutoCommit], text: &ObjId, list: &ObjId, step: Step) {
    let at = |index: Index, len: usize| index.index(len + 1);
    match step {
        Step::Put(who, key, value) => {
            let value = match key {
                0 => ScalarValue::Int(value),
                1 => ScalarValue::Uint(value.unsigned_abs()),
                2 => ScalarValue::F64(f64::from_bits(value.unsigned_abs())),
                3 => ScalarValue::Timestamp(value),
                _ if value % 2 == 0 => ScalarValue::Null,
                _ => ScalarValue::Boolean(value > 0),
            };
            let key = format!("key{key}");
            replicas[usize::from(who)].put(ROOT, key, value).unwrap();
        }
        Step::PutBytes(who, value) => {
            let doc = &mut replicas[usize::from(who)];
            doc.put(ROOT, "bytes", ScalarValue::Bytes(value)).unwrap();
        }
        Step::Delete(who, key) => {
            let doc = &mut replicas[usize::from(who)];
            doc.delete(ROOT, format!("key{key}")).unwrap();
            if doc.length(list) > 0 {
                doc.delete(list, 0).unwrap();
            }
        }
        Step::Make(who, kind) => {
            let doc = &mut replicas[usize::from(who)];
            let kind = match kind {
                0 => ObjType::Map,
                1 => ObjType::List,
                _ => ObjType::Text,
            };
            let made = doc.put_object(ROOT, "made", kind).unwrap();
            match kind {
                ObjType::Map | ObjType::Table => doc.put(made, "inner", 1).unwrap(),
                ObjType::List => doc.insert(made, 0, 1).unwrap(),
                ObjType::Text => doc.splice_text(made, 0, 0, "inner").unwrap(),
            }
        }
        Step::Insert(who, index, value) => {
            let doc = &mut replicas[usize::from(who)];
            let at = at(index, doc.length(list));
            doc.insert(list, at, value).unwrap();
        }
        Step::Splice(who, index, delete, value) => {
            let doc = &mut replicas[usize::from(who)];
            let at = at(index, doc.length(text));
            let delete = usize::from(delete).min(doc.length(text) - at);
            doc.splice_text(text, at, delete.cast_signed(), &value)
                .unwrap();
        }
        Step::Mark(who, from, to, expand) => {
            let doc = &mut replicas[usize::from(who)];
            let length = doc.length(text);
            let (from, to) = (at(from, length), at(to, length));
            let (from, to) = (from.min(to), from.max(to));
            if from < to {
                let name = if expand { "bold" } else { "link" }.to_owned();
                let mark = Mark::new(name, "value", from, to);
                let expand = if expand {
                    ExpandMark::Both
                } else {
                    ExpandMark::None
                };
                doc.mark(text, mark, expand).unwrap();
            }
        }
        Step::Increment(who, by) => {
            let doc = &mut replicas[usize::from(who)];
            doc.increment(ROOT, "counter", by).unwrap();
        }
        Step::Commit(who, message, time) => {
            let mut options = CommitOptions::default().with_time(time);
            if let Some(message) = message {
                options = options.with_message(message);
            }
            replicas[usize::from(who)].commit_with(options);
        }
        Step::Empty(who) => {
            replicas[usize::from(who)].empty_change(CommitOptions::default());
        }
        Step::Merge(from, into) => {
            replicas[usize::from(from)].commit();
            let mut from = replicas[usize::from(from)].clone();
            replicas[usize::from(into)].merge(&mut from).unwrap();
        }
    }
}

fn same(ours: &Change, theirs: &automerge::Change) {
    assert_eq!(ours.bytes, theirs.raw_bytes());
    assert_eq!(ours.hash, theirs.hash());
    assert_eq!(ours.deps, theirs.deps());
    assert_eq!(&ours.actor, theirs.actor_id());
    assert_eq!(ours.seq, theirs.seq());
    assert_eq!(ours.start_op, theirs.start_op().get());
    assert_eq!(ours.ops, theirs.len() as u64);
    assert_eq!(ours.max_op(), theirs.max_op());
}

fn one_change(bytes: &[u8]) -> Result<Change, ChunkError> {
    let mut chunks = parse_chunks(&Bytes::copy_from_slice(bytes), &limits())?;
    match (chunks.pop(), chunks.len()) {
        (Some(Chunk::Change(change)), 0) => Ok(change),
        other => panic!("not one change: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_automerge_writes_is_read_as_it_reads_it(
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut doc = document(steps);
        let mut all = Vec::new();
        let mut compressed = Vec::new();
        let theirs = doc.get_changes(&[]);
        for change in &theirs {
            same(&one_change(change.raw_bytes()).unwrap(), change);
            all.extend_from_slice(change.raw_bytes());
            compressed.extend_from_slice(&change.clone().bytes());
        }
        for blob in [all, compressed] {
            let chunks = parse_chunks(&blob.into(), &limits()).unwrap();
            prop_assert_eq!(chunks.len(), theirs.len());
            for (ours, theirs) in chunks.iter().zip(&theirs) {
                let Chunk::Change(ours) = ours else { panic!("{ours:?}") };
                same(ours, theirs);
            }
        }
        for saved in [doc.save(), doc.save_nocompress()] {
            let saved = Bytes::from(saved);
            let Chunk::Document(chunk) = &parse_chunks(&saved, &limits()).unwrap()[0] else {
                panic!()
            };
            prop_assert_eq!(chunk, &saved);
            let ours = decode_document(chunk, &limits()).unwrap();
            prop_assert_eq!(ours.len(), theirs.len());
            for (ours, theirs) in ours.iter().zip(&theirs) {
                same(ours, theirs);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However the changes came together: Automerge orders those of one batch, and takes others as they come.
    #[test]
    fn documents_of_the_same_changes_have_the_same_ops(
        steps in proptest::collection::vec(step(), 1..60),
        batch in 1..10_usize,
    ) {
        let mut doc = document(steps);
        let mut other = AutoCommit::new().with_actor(ActorId::from([9; 16]));
        other.put(ROOT, "other", 1).unwrap();
        other.put(ROOT, "other", 2).unwrap();
        doc.merge(&mut other).unwrap();
        let mut one_by_one = Automerge::new();
        for changes in doc.get_changes(&[]).chunks(batch) {
            one_by_one.apply_changes(changes.to_vec()).unwrap();
        }
        let at_once = Automerge::load(&doc.save()).unwrap();
        let [one, other] = [one_by_one, at_once].map(|doc| Bytes::from(doc.save()));
        prop_assert!(have_same_ops(&one, &other, &limits()).unwrap());
        doc.put(ROOT, "more", 1).unwrap();
        prop_assert!(!have_same_ops(&one, &doc.save().into(), &limits()).unwrap());
    }
}

static SAMPLES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(samples);

/// Changes that between them have every column.
fn samples() -> Vec<Vec<u8>> {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, "hello world").unwrap();
    doc.put(ROOT, "a", 1).unwrap();
    doc.put(ROOT, "b", "text").unwrap();
    doc.commit();
    let mut other = doc.fork().with_actor(ActorId::from([2; 16]));
    let mark = Mark::new("bold".to_owned(), true, 2, 5);
    other.mark(&text, mark, ExpandMark::Both).unwrap();
    other.put(ROOT, "a", 2).unwrap();
    other.put(ROOT, "c", 1.5).unwrap();
    other.splice_text(&text, 3, 4, "xyz").unwrap();
    doc.put(ROOT, "a", 3).unwrap();
    doc.commit();
    doc.merge(&mut other).unwrap();
    doc.delete(ROOT, "a").unwrap();
    doc.commit_with(CommitOptions::default().with_message("message"));
    doc.splice_text(&text, 1, 0, "i").unwrap();
    doc.commit();
    let changes = doc.get_changes(&[]);
    changes
        .iter()
        .map(|change| change.raw_bytes().to_vec())
        .collect()
}

/// The chunk with this data, its checksum right: mutations would otherwise never get past it.
fn chunk(kind: u8, data: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    let mut hashed = vec![kind];
    let mut length = data.len();
    while length >= 0x80 {
        hashed.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    hashed.push(u8::try_from(length).unwrap());
    hashed.extend_from_slice(data);
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83];
    chunk.extend_from_slice(&sha2::Sha256::digest(&hashed)[..4]);
    chunk.extend_from_slice(&hashed);
    chunk
}

/// What comes after the length of a small chunk.
fn data_of(chunk: &[u8]) -> &[u8] {
    let after = chunk[9..].iter().position(|byte| byte & 0x80 == 0).unwrap();
    &chunk[9 + after + 1..]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// The mutated data gets a good checksum, so that the parser is reached.
    #[test]
    fn what_is_taken_automerge_reads_the_same(
        which in any::<Index>(),
        edits in proptest::collection::vec((any::<Index>(), 0..3_u8, any::<u8>()), 1..4),
    ) {
        let mut data = data_of(&SAMPLES[which.index(SAMPLES.len())]).to_vec();
        for (at, how, byte) in edits {
            if data.is_empty() { break }
            let at = at.index(data.len());
            match how {
                0 => data[at] = byte,
                1 => data.insert(at, byte),
                _ => { data.remove(at); }
            }
        }
        let bytes = chunk(1, &data);
        if let Ok(ours) = one_change(&bytes) {
            let theirs = automerge::Change::try_from(&bytes[..]).unwrap();
            same(&ours, &theirs);
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_chunks(&bytes.clone().into(), &limits());
        for kind in 0..4 {
            let chunk = Bytes::from(chunk(kind, &bytes));
            let _ = parse_chunks(&chunk, &limits());
        }
    }

    #[test]
    fn truncations_and_flips_are_errors(
        which in any::<Index>(), at in any::<Index>(), bit in 0..8_u8,
    ) {
        let sample = &SAMPLES[which.index(SAMPLES.len())];
        let at = at.index(sample.len());
        prop_assert!(at == 0 || one_change(&sample[..at]).is_err());
        let mut flipped = sample.clone();
        flipped[at] ^= 1 << bit;
        prop_assert!(parse_chunks(&flipped.into(), &limits()).is_err());
    }
}

mod hostile;
