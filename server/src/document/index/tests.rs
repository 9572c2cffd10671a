use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, ObjType, ROOT, ReadDoc as _, ScalarValue};
use bytes::Bytes;
use concord_shared::change::{Chunk, parse_chunks};
use concord_shared::limits::Limits;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::document::history::History;

fn parse(bytes: &[u8]) -> Change {
    let chunks = parse_chunks(&Bytes::copy_from_slice(bytes), &Limits::default());
    match chunks.expect("a good chunk").pop() {
        Some(Chunk::Change(change)) => change,
        other => panic!("not a change: {other:?}"),
    }
}

fn history(document: &mut AutoCommit) -> History {
    let mut history = History::new();
    let mut steps = Steps::new(u64::MAX);
    for change in document.get_changes(&[]) {
        let change = parse(change.raw_bytes());
        history.admit(&change, &mut steps).expect("is honest");
    }
    history
}

fn runs(document: &mut AutoCommit) -> usize {
    history(document).index().expect("is good").runs()
}

/// A document with something in every kind of run.
fn every_kind() -> AutoCommit {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 4]));
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
    doc.splice_text(&text, 0, 0, "hello").unwrap();
    doc.put(ROOT, "counter", ScalarValue::counter(1)).unwrap();
    doc.commit();
    let mut other = doc.fork().with_actor(ActorId::from([2; 4]));
    other.insert(&list, 0, 1.5).unwrap();
    other.insert(&list, 1, ScalarValue::counter(3)).unwrap();
    let map = other.insert_object(&list, 1, ObjType::Map).unwrap();
    other.put(&map, "key", "value").unwrap();
    let mark = Mark::new("bold".to_owned(), true, 1, 3);
    other.mark(&text, mark, ExpandMark::Both).unwrap();
    other.commit();
    doc.splice_text(&text, 2, 2, "xyz").unwrap();
    doc.increment(ROOT, "counter", 1).unwrap();
    doc.commit();
    doc.merge(&mut other).unwrap();
    doc.put(&list, 0, "updated").unwrap();
    doc.put_object(ROOT, "made", ObjType::Text).unwrap();
    doc.put(ROOT, "counter", 5).unwrap();
    doc.commit();
    doc
}

#[test]
fn the_stored_index_is_the_same_again_and_damage_is_refused() {
    let history = history(&mut every_kind());
    let actors = history.graph().actors();
    let index = history.index().expect("is good");
    let bytes = index.encode(actors);
    let decoded = OpIndex::decode(&bytes, actors).expect("decodes");
    assert_eq!(decoded.runs, index.runs);
    assert_eq!(decoded.encode(actors), bytes);
    let plain = index.encode_plain(actors);
    for (bytes, decode) in [
        (
            bytes,
            OpIndex::decode as fn(&[u8], usize) -> Result<OpIndex, DecodeIndexError>,
        ),
        (plain, OpIndex::decode_plain),
    ] {
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end], actors).is_err(), "cut at {end}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                // Refused or not, it is read without harm.
                let _ = decode(&flipped, actors);
            }
        }
    }
}

#[test]
fn stored_index_format_does_not_change() {
    // Version 1, byte for byte: a change here needs a new version byte and a reader for this one.
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 4]));
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, "ab").unwrap();
    doc.splice_text(&text, 0, 1, "").unwrap();
    doc.put(ROOT, "n", ScalarValue::counter(1)).unwrap();
    doc.commit();
    let expected = [
        "02",         // keys
        "0474657874", // text
        "016e",       // n
        "03",         // runs of the one actor
        "01011400",   // 1: a text under key 0 of the root
        "0002210101", // 2, 3: scalars in another object, of actor 0 and 1 before
        "00",         //   behind nothing
        "0101240001", // 5 (4 deletes): a counter in another object, the root, under key 1
    ]
    .concat();
    let index = history(&mut doc).index().expect("is good").into_owned();
    assert_eq!(hex::encode(index.encode_plain(1)), expected);
    assert_eq!(index.encode(1)[..2], [1, 24]);
}

#[test]
fn a_typed_text_is_few_runs() {
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    for n in 0..1000 {
        doc.splice_text(&text, n, 0, "x").unwrap();
        doc.commit();
    }
    assert_eq!(runs(&mut doc), 2);
    // Going elsewhere, and deleting, begin another.
    doc.splice_text(&text, 500, 0, "abc").unwrap();
    doc.splice_text(&text, 100, 1, "def").unwrap();
    doc.commit();
    assert_eq!(runs(&mut doc), 4);
}

/// One thing that one of three replicas does to a list.
#[derive(Debug, Clone)]
enum Step {
    Insert(usize, Index, u8),
    Merge(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3_usize, any::<Index>(), 1..4_u8).prop_map(|(w, i, n)| Step::Insert(w, i, n)),
        1 => (0..3_usize, 0..3_usize).prop_map(|(a, b)| Step::Merge(a, b)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn elements_are_in_the_order_that_automerge_has_them_in(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let actor = |n: u8| ActorId::from([9 - n; 4]);
        let mut first = AutoCommit::new().with_actor(actor(0));
        let list = first.put_object(ROOT, "list", ObjType::List).unwrap();
        first.commit();
        let mut replicas: Vec<AutoCommit> =
            (0..3).map(|n| first.fork().with_actor(actor(n))).collect();
        for step in steps {
            match step {
                Step::Insert(who, at, count) => {
                    let doc = &mut replicas[who];
                    let at = at.index(doc.length(&list) + 1);
                    for n in 0..usize::from(count) {
                        doc.insert(&list, at + n, 0).unwrap();
                    }
                    doc.commit();
                }
                Step::Merge(from, to) => {
                    let mut from = replicas[from].clone();
                    replicas[to].merge(&mut from).unwrap();
                }
            }
        }
        let mut merged = replicas.remove(0);
        for mut other in replicas {
            merged.merge(&mut other).unwrap();
        }
        let history = history(&mut merged);
        let graph = history.graph();
        let elements: Vec<Id> = (0..merged.length(&list))
            .map(|at| {
                let (_, id) = merged.get(&list, at).unwrap().expect("an element");
                let id = id.to_string();
                let (counter, actor) = id.split_once('@').expect("an op id");
                let actor = ActorId::try_from(actor).unwrap();
                Id {
                    actor: graph.actor_number(&actor).expect("known"),
                    counter: counter.parse().unwrap(),
                }
            })
            .collect();
        let stranger = ActorId::from([7]);
        let runs = order::Runs {
            index: &history.index().expect("is good"),
            graph,
            author: u32::MAX,
            author_id: &stranger,
            own: &[],
        };
        let mut steps = Steps::new(u64::MAX);
        for (n, one) in elements.iter().enumerate() {
            for (m, other) in elements.iter().enumerate() {
                let before = runs.is_before(*one, *other, &mut steps).unwrap();
                prop_assert_eq!(before, n < m, "{} {}", n, m);
            }
        }
    }
}

/// It is asked for after every keystroke, so it is not added up then.
#[test]
fn memory_is_counted_as_it_is_taken() {
    let history = history(&mut every_kind());
    let stored = History::decode(&history.encode()).expect("its own bytes");
    for history in [&history, &stored] {
        let index = history.index().expect("is good");
        let room: usize = index.runs.iter().map(Vec::capacity).sum();
        assert!(room > 0);
        assert_eq!(index.room, room);
        let keys: usize = index.keys.iter().map(str::len).sum();
        assert_eq!(index.keys.bytes(), keys);
    }
}
