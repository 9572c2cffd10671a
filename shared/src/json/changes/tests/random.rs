//! Random documents: three authors edit and merge at random, a fourth receives what they made in random batches.

use automerge::marks::{ExpandMark, Mark};
use automerge::{ActorId, Prop};
use proptest::prelude::*;

use super::*;

const AUTHORS: usize = 3;
const KEYS: [&str; 5] = ["a", "b", "/~", "$counter", "$map"];
/// Some lead through lists, whose elements move.
const PATHS: [&str; 9] = [
    "",
    "/a",
    "/b",
    "/a/a",
    "/a/0",
    "/b/1",
    "/a/0/a",
    "/$map/$map",
    "/a/-",
];

/// One thing that happens. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Event {
    Edit {
        author: usize,
        /// Which of the objects that the author sees; small ones are near the root.
        object: usize,
        what: What,
        prop: usize,
        number: i64,
    },
    Merge {
        from: usize,
        to: usize,
    },
    /// The fourth receives from authors, in one batch.
    Arrive {
        authors: Vec<usize>,
        is_reversed: bool,
        by_diff: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum What {
    Scalar,
    Object(ObjType),
    Insert,
    InsertObject(ObjType),
    Delete,
    Increment,
    Splice,
    Mark,
    Block,
}

fn kinds() -> impl Strategy<Value = ObjType> {
    prop_oneof![Just(ObjType::Map), Just(ObjType::List), Just(ObjType::Text)]
}

fn events() -> impl Strategy<Value = Event> {
    let what = prop_oneof![
        4 => Just(What::Scalar),
        3 => kinds().prop_map(What::Object),
        3 => Just(What::Insert),
        3 => kinds().prop_map(What::InsertObject),
        4 => Just(What::Delete),
        3 => Just(What::Increment),
        3 => Just(What::Splice),
        1 => Just(What::Mark),
        1 => Just(What::Block),
    ];
    let author = 0..AUTHORS;
    // Few places, so that authors meet.
    let object = prop_oneof![0_usize..3, 0_usize..12];
    let prop = prop_oneof![2 => 0_usize..2, 1 => 0_usize..8];
    let edit = (author.clone(), object, what, prop, -2_i64..9);
    let edit = edit.prop_map(|(author, object, what, prop, number)| Event::Edit {
        author,
        object,
        what,
        prop,
        number,
    });
    let merge = (author.clone(), author.clone()).prop_map(|(from, to)| Event::Merge { from, to });
    let authors = proptest::collection::vec(author, 1..4);
    let arrive = (authors, any::<bool>(), proptest::bool::weighted(0.2));
    let arrive = arrive.prop_map(|(authors, is_reversed, by_diff)| Event::Arrive {
        authors,
        is_reversed,
        by_diff,
    });
    prop_oneof![9 => edit, 2 => merge, 2 => arrive]
}

fn scalar(number: i64) -> ScalarValue {
    match number {
        -2 => ScalarValue::F64(f64::NAN),
        -1 => ScalarValue::Null,
        0..3 => ScalarValue::counter(number),
        3 => ScalarValue::Timestamp(number),
        4 => ScalarValue::Bytes(vec![1]),
        5 => ScalarValue::from("c3Rh"),
        _ => ScalarValue::Int(number),
    }
}

/// All objects that are seen, from the root down.
fn objects(document: &Automerge) -> Vec<(ObjId, ObjType)> {
    let mut objects = vec![(ROOT, ObjType::Map)];
    let mut at = 0;
    while let Some((object, kind)) = objects.get(at).cloned() {
        match kind {
            ObjType::Map | ObjType::Table => {
                for item in document.map_range(&object, ..) {
                    if let automerge::ValueRef::Object(kind) = item.value {
                        objects.push((item.id(), kind));
                    }
                }
            }
            ObjType::List => {
                for item in document.list_range(&object, ..) {
                    if let automerge::ValueRef::Object(kind) = item.value {
                        objects.push((item.id(), kind));
                    }
                }
            }
            ObjType::Text => {}
        }
        at += 1;
    }
    objects
}

/// What makes no sense there is something else, or nothing.
fn edit(document: &mut Automerge, object: usize, what: What, prop: usize, number: i64) {
    let objects = objects(document);
    let (object, kind) = objects[object % objects.len()].clone();
    let length = document.length(&object);
    let mut tx = document.transaction();
    if kind == ObjType::Text {
        let at = prop % (length + 1);
        let there = usize::from(at < length);
        match what {
            What::Mark if length > 0 => {
                let mark = Mark::new("bold".into(), number, 0, at.max(1));
                tx.mark(&object, mark, ExpandMark::After).unwrap();
            }
            What::Block => drop(tx.split_block(&object, at).unwrap()),
            What::Delete => tx
                .splice_text(&object, at, there.cast_signed(), "")
                .unwrap(),
            _ => {
                let text = ["x", "\u{1F469}\u{200D}\u{1F680}", "1970-01-01T00:00:00Z"][prop % 3];
                let delete = if number > 6 { there.cast_signed() } else { 0 };
                tx.splice_text(&object, at, delete, text).unwrap();
            }
        }
        tx.commit();
        return;
    }
    let is_list = kind == ObjType::List;
    let (what, prop) = match what {
        What::Insert if !is_list => (What::Scalar, Prop::from(KEYS[prop % KEYS.len()])),
        What::InsertObject(made) if !is_list => {
            (What::Object(made), Prop::from(KEYS[prop % KEYS.len()]))
        }
        _ if !is_list => (what, Prop::from(KEYS[prop % KEYS.len()])),
        What::Insert | What::InsertObject(_) => (what, Prop::from(prop % (length + 1))),
        _ if length == 0 => (What::Insert, Prop::from(0)),
        _ => (what, Prop::from(prop % length)),
    };
    let index = match &prop {
        Prop::Seq(index) => *index,
        Prop::Map(_) => 0,
    };
    match what {
        What::Object(made) => drop(tx.put_object(&object, prop, made).unwrap()),
        What::Insert => tx.insert(&object, index, scalar(number)).unwrap(),
        What::InsertObject(made) => drop(tx.insert_object(&object, index, made).unwrap()),
        What::Delete => drop(tx.delete(&object, prop)),
        What::Increment => {
            // In lists upwards, as what comes to 0 may come without a patch: see `Watched`.
            let by = if is_list { number.max(1) } else { number };
            // Only of counters.
            if tx.increment(&object, prop.clone(), by).is_err() {
                tx.put(&object, prop, ScalarValue::counter(number)).unwrap();
            }
        }
        _ => tx.put(&object, prop, scalar(number)).unwrap(),
    }
    tx.commit();
}

fn run(events: &[Event]) {
    let mut authors = [[1], [2], [3]].map(|id| Automerge::new().with_actor(ActorId::from(id)));
    let mut reader = Automerge::new().with_actor(ActorId::from([9]));
    let mut watched = Vec::new();
    for pointer in PATHS {
        for types in [Types::Plain, Types::Tagged] {
            let path = Path::parse(pointer).unwrap();
            watched.push(Watched::new(&reader, path, types));
        }
    }
    let end = Event::Arrive {
        authors: (0..AUTHORS).collect(),
        is_reversed: false,
        by_diff: false,
    };
    for event in events.iter().chain([&end]) {
        match event {
            Event::Edit {
                author,
                object,
                what,
                prop,
                number,
            } => edit(&mut authors[*author], *object, *what, *prop, *number),
            Event::Merge { from, to } => {
                let mut from = authors[*from].clone();
                authors[*to].merge(&mut from).unwrap();
            }
            Event::Arrive {
                authors: from,
                is_reversed,
                by_diff,
            } => {
                let before = reader.get_heads();
                let mut log = PatchLog::active();
                for author in from {
                    let mut changes = authors[*author].get_changes(&reader.get_heads());
                    if *is_reversed {
                        changes.reverse();
                    }
                    reader.apply_changes_log_patches(changes, &mut log).unwrap();
                }
                let patches = if *by_diff {
                    reader.diff(&before, &reader.get_heads())
                } else {
                    reader.make_patches(&mut log)
                };
                for watched in &mut watched {
                    let step = step(watched, &reader, &patches);
                    let is_root = watched.path() == &Path::root() && watched.types == Types::Plain;
                    if let (true, Step::Patch(operations)) = (is_root, &step) {
                        let is_whole = operations.iter().any(|op| op.path().is_root());
                        assert!(!is_whole, "lost: {patches:#?}");
                    }
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn the_operations_lead_from_each_version_to_the_next(
        events in proptest::collection::vec(events(), 0..80),
    ) {
        run(&events);
    }
}
