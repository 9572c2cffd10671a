//! One person's undo takes back that person's work, all of it and nothing else.
//!
//! Alone, undoing everything gives the first value back exactly, and redoing everything the last, whatever was undone
//! and redone in between. With a second person who edits and merges at random, nothing panics, what the second
//! wrote stays, the replicas converge, and the document saves and loads. A case can't pass by not editing: the
//! programs are made of edits that fit what is there, and changes are counted.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::time::Instant;

use automerge::{
    ActorId, AutoCommit, AutomergeError, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value,
    hydrate, transaction::CommitOptions, transaction::Transactable,
};
use concord_client_wasm::{Replica, UndoStack};
use concord_shared::ids::DocumentId;
use proptest::{prelude::*, sample::Index};

const KEYS: [&str; 4] = ["a", "b", "text", "list"];

fn replica(seed: u8) -> Replica {
    Replica::new(DocumentId::from_uuid([9; 16]), ActorId::from([seed; 16]))
}

/// A person with what they can undo.
struct Person {
    replica: Replica,
    stack: UndoStack,
    changes: usize,
}

impl Person {
    fn new(seed: u8, base: &[u8]) -> Self {
        let mut replica = replica(seed);
        replica.apply_chunks(base).unwrap();
        Self {
            replica,
            stack: UndoStack::new(),
            changes: 0,
        }
    }

    fn edit(&mut self, edits: &[Edit], continues: bool, mark: &str) {
        let doc = self.replica.doc();
        for edit in edits {
            edit.run(doc, mark).unwrap();
        }
        if let Some(hash) = doc.commit() {
            self.changes += 1;
            self.stack.record(hash, continues);
        }
    }

    fn undo(&mut self) -> bool {
        let Some(step) = self.stack.next_undo() else {
            return false;
        };
        let made = self.replica.undo(step, CommitOptions::default()).unwrap();
        self.stack.undone(made);
        true
    }

    fn redo(&mut self) -> bool {
        let Some(step) = self.stack.next_redo() else {
            return false;
        };
        let made = self.replica.undo(step, CommitOptions::default()).unwrap();
        self.stack.redone(made);
        true
    }

    fn value(&mut self) -> hydrate::Value {
        self.replica.doc().hydrate(ROOT, None).unwrap()
    }

    fn merge(&mut self, other: &mut Self) {
        self.replica.doc().merge(other.replica.doc()).unwrap();
    }
}

/// An edit that finds its object and its place by chance in what is there.
#[derive(Clone, Debug)]
struct Edit {
    object: Index,
    place: Index,
    length: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Write(i64),
    Counter(i64),
    Make(u8),
    Remove,
    Add(u8),
    Increment(i64),
    Overwrite(i64),
}

/// What insertions consist of: one and two UTF-16 code units, and a composed letter.
const LETTERS: [&str; 4] = ["xy", "😀", "e\u{301}", "z"];

impl Edit {
    fn run(&self, doc: &mut AutoCommit, mark: &str) -> Result<(), AutomergeError> {
        let objects = objects(doc);
        let (object, kind) = &objects[self.object.index(objects.len())];
        match kind {
            ObjType::Map | ObjType::Table => self.run_map(doc, object),
            ObjType::List => self.run_list(doc, object),
            ObjType::Text => self.run_text(doc, object, mark),
        }
    }

    fn run_map(&self, doc: &mut AutoCommit, object: &ObjId) -> Result<(), AutomergeError> {
        let key = KEYS[self.place.index(KEYS.len())];
        match self.what {
            What::Write(value) | What::Overwrite(value) => doc.put(object, key, value),
            What::Counter(value) => doc.put(object, key, ScalarValue::counter(value)),
            What::Make(kind) | What::Add(kind) => {
                let made = doc.put_object(object, key, type_of(kind))?;
                fill(doc, &made, kind)
            }
            What::Remove if doc.get(object, key)?.is_some() => doc.delete(object, key),
            What::Increment(by) if is_counter(doc.get(object, key)?) => {
                doc.increment(object, key, by)
            }
            _ => Ok(()),
        }
    }

    fn run_list(&self, doc: &mut AutoCommit, object: &ObjId) -> Result<(), AutomergeError> {
        let length = doc.length(object);
        let (gap, at) = (
            self.place.index(length + 1),
            self.place.index(length.max(1)),
        );
        match self.what {
            What::Write(value) => doc.insert(object, gap, value),
            What::Counter(value) => doc.insert(object, gap, ScalarValue::counter(value)),
            What::Make(kind) => {
                let made = doc.insert_object(object, gap, type_of(kind))?;
                fill(doc, &made, kind)
            }
            _ if length == 0 => Ok(()),
            What::Add(kind) => {
                let made = doc.put_object(object, at, type_of(kind))?;
                fill(doc, &made, kind)
            }
            What::Remove => {
                for _ in 0..self.length.min(length - at) {
                    doc.delete(object, at)?;
                }
                Ok(())
            }
            What::Increment(by) if is_counter(doc.get(object, at)?) => {
                doc.increment(object, at, by)
            }
            What::Increment(_) => Ok(()),
            What::Overwrite(value) => doc.put(object, at, value),
        }
    }

    fn run_text(
        &self,
        doc: &mut AutoCommit,
        object: &ObjId,
        mark: &str,
    ) -> Result<(), AutomergeError> {
        // Positions are between characters, as an editor's are.
        let text: Vec<char> = doc.text(object)?.chars().collect();
        let at = self.place.index(text.len() + 1);
        let gone = match self.what {
            What::Remove | What::Overwrite(_) => self.length.min(text.len() - at),
            _ => 0,
        };
        let units = |part: &[char]| part.iter().map(|one| one.len_utf16()).sum::<usize>();
        let new = match self.what {
            What::Remove => "",
            _ if !mark.is_empty() => mark,
            _ => LETTERS[self.length % LETTERS.len()],
        };
        let remove = isize::try_from(units(&text[at..at + gone])).unwrap();
        doc.splice_text(object, units(&text[..at]), remove, new)
    }
}

fn is_counter(value: Option<(Value<'_>, ObjId)>) -> bool {
    matches!(value, Some((Value::Scalar(scalar), _)) if matches!(*scalar, ScalarValue::Counter(_)))
}

fn type_of(kind: u8) -> ObjType {
    [ObjType::Map, ObjType::List, ObjType::Text][usize::from(kind % 3)]
}

fn fill(doc: &mut AutoCommit, object: &ObjId, kind: u8) -> Result<(), AutomergeError> {
    match type_of(kind) {
        ObjType::Text => doc.splice_text(object, 0, 0, "ab😀c"),
        ObjType::List => {
            doc.insert(object, 0, 1)?;
            doc.insert(object, 1, ScalarValue::counter(5))?;
            let inner = doc.insert_object(object, 2, ObjType::Text)?;
            doc.splice_text(&inner, 0, 0, "in")
        }
        _ => {
            doc.put(object, "a", ScalarValue::counter(1))?;
            let inner = doc.put_object(object, "text", ObjType::Text)?;
            doc.splice_text(&inner, 0, 0, "deep")
        }
    }
}

/// All objects that can be seen.
fn objects(doc: &AutoCommit) -> Vec<(ObjId, ObjType)> {
    let mut all = vec![(ROOT, ObjType::Map)];
    let mut next = 0;
    while let Some((object, kind)) = all.get(next).cloned() {
        next += 1;
        if kind == ObjType::Text {
            continue;
        }
        let values: Vec<(Value<'static>, ObjId)> = doc
            .values(&object)
            .map(|(value, id)| (value.into_owned(), id))
            .collect();
        all.extend(values.into_iter().filter_map(|(value, id)| match value {
            Value::Object(kind) => Some((id, kind)),
            Value::Scalar(_) => None,
        }));
    }
    all
}

/// What is there before anyone of the test writes: a text, a list, a counter and a map.
fn base() -> Vec<u8> {
    let mut base = replica(9);
    base.change(|doc| {
        doc.put(ROOT, "a", ScalarValue::counter(10))?;
        let map = doc.put_object(ROOT, "b", ObjType::Map)?;
        fill(doc, &map, 0)?;
        let text = doc.put_object(ROOT, "text", ObjType::Text)?;
        doc.splice_text(&text, 0, 0, "hello 😀 world")?;
        let list = doc.put_object(ROOT, "list", ObjType::List)?;
        fill(doc, &list, 1)
    })
    .unwrap();
    base.save()
}

fn edit() -> impl Strategy<Value = Edit> {
    let what = prop_oneof![
        3 => any::<i8>().prop_map(|value| What::Write(value.into())),
        1 => any::<i8>().prop_map(|value| What::Counter(value.into())),
        2 => any::<u8>().prop_map(What::Make),
        1 => any::<u8>().prop_map(What::Add),
        4 => Just(What::Remove),
        2 => any::<i8>().prop_map(|by| What::Increment(by.into())),
        2 => any::<i8>().prop_map(|value| What::Overwrite(value.into())),
    ];
    (any::<Index>(), any::<Index>(), 1..5usize, what).prop_map(|(object, place, length, what)| {
        Edit {
            object,
            place,
            length,
            what,
        }
    })
}

#[derive(Clone, Debug)]
enum Act {
    Edit(Vec<Edit>, bool),
    Undo,
    Redo,
    Other(Vec<Edit>),
    OtherUndoes,
    Pull,
    Push,
}

fn alone() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => (prop::collection::vec(edit(), 1..4), prop::bool::weighted(0.3))
            .prop_map(|(edits, continues)| Act::Edit(edits, continues)),
        3 => Just(Act::Undo),
        2 => Just(Act::Redo),
    ]
}

fn together() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => alone(),
        3 => prop::collection::vec(edit(), 1..4).prop_map(Act::Other),
        1 => Just(Act::OtherUndoes),
        2 => Just(Act::Pull),
        2 => Just(Act::Push),
    ]
}

proptest! {
    #[test]
    fn alone_everything_is_undone_and_redone(acts in prop::collection::vec(alone(), 1..25)) {
        let mut person = Person::new(1, &base());
        let first = person.value();
        for act in acts {
            match act {
                Act::Edit(edits, continues) => person.edit(&edits, continues, ""),
                Act::Undo => { person.undo(); }
                _ => { person.redo(); }
            }
        }
        while person.redo() {}
        let last = person.value();
        // Twice: the second time through copies of copies.
        for _ in 0..2 {
            while person.undo() {}
            prop_assert_eq!(&person.value(), &first);
            while person.redo() {}
            prop_assert_eq!(&person.value(), &last);
        }
    }

    #[test]
    fn together_nobody_loses_anything(acts in prop::collection::vec(together(), 1..30), low: bool) {
        let base = base();
        // Who wins among concurrent writes is decided by the actor.
        let (mut person, mut other) = if low {
            (Person::new(1, &base), Person::new(2, &base))
        } else {
            (Person::new(2, &base), Person::new(1, &base))
        };
        for act in acts {
            match act {
                Act::Edit(edits, continues) => person.edit(&edits, continues, ""),
                Act::Undo => { kept(&mut person, Person::undo)?; }
                Act::Redo => { kept(&mut person, Person::redo)?; }
                Act::Other(edits) => other.edit(&edits, false, "Ω"),
                Act::OtherUndoes => { other.undo(); }
                Act::Pull => person.merge(&mut other),
                Act::Push => other.merge(&mut person),
            }
        }
        person.merge(&mut other);
        while kept(&mut person, Person::undo)? {}
        while kept(&mut person, Person::redo)? {}
        person.merge(&mut other);
        other.merge(&mut person);
        prop_assert_eq!(person.value(), other.value());
        let saved = person.replica.save();
        let mut loaded = replica(3);
        loaded.apply_chunks(&saved).unwrap();
        prop_assert_eq!(loaded.doc().hydrate(ROOT, None).unwrap(), person.value());
    }
}

/// Does `act` and looks whether it took anything of another's: winning values and letters in objects that were not
/// themselves made by the person.
fn kept(person: &mut Person, act: fn(&mut Person) -> bool) -> Result<bool, TestCaseError> {
    let before = foreign(person.replica.doc());
    let acted = act(person);
    let after = foreign(person.replica.doc());
    for one in before {
        prop_assert!(after.contains(&one), "lost {:?}", one);
    }
    Ok(acted)
}

fn foreign(doc: &AutoCommit) -> Vec<String> {
    let own = doc.get_actor().to_string();
    let mut all = Vec::new();
    let mut objects = vec![(ROOT, ObjType::Map)];
    while let Some((object, kind)) = objects.pop() {
        let mut found: Vec<(Value<'static>, ObjId)> = Vec::new();
        if kind == ObjType::Map {
            found.extend(
                doc.map_range(&object, ..)
                    .map(|item| (item.value.clone().into_value(), item.id())),
            );
        } else {
            found.extend(
                doc.list_range(&object, ..)
                    .map(|item| (item.value.clone().into_value(), item.id())),
            );
        }
        for (value, id) in found {
            if id.to_string().ends_with(&own) {
                continue;
            }
            all.push(format!("{id} in {object}"));
            if let Value::Object(kind) = value {
                objects.push((id, kind));
            }
        }
    }
    all
}

/// `cargo nextest run --release --run-ignored only --no-capture undo_costs`
#[test]
#[ignore = "measures"]
fn undo_costs() {
    let mut base = replica(9);
    base.change(|doc| {
        let text = doc.put_object(ROOT, "text", ObjType::Text)?;
        doc.splice_text(&text, 0, 0, &"lorem ipsum ".repeat(200_000 / 12))
    })
    .unwrap();
    let base = base.save();
    for (what, remove, new) in [
        ("one letter typed", 0, "x".to_owned()),
        ("one letter deleted", 1, String::new()),
        ("10,000 letters pasted", 0, "0123456789".repeat(1_000)),
        ("10,000 letters deleted", 10_000, String::new()),
    ] {
        let mut person = Person::new(1, &base);
        let text = person.replica.doc().get(ROOT, "text").unwrap().unwrap().1;
        let before = person.value();
        let hash = person
            .replica
            .change(|doc| doc.splice_text(&text, 100_000, remove, &new))
            .map(|()| person.replica.heads()[0])
            .unwrap();
        person.stack.record(hash, false);
        let start = Instant::now();
        person.undo();
        let undone = start.elapsed();
        assert_eq!(person.value(), before);
        let start = Instant::now();
        person.redo();
        println!("{what}: undo {undone:?}, redo {:?}", start.elapsed());
        assert_ne!(person.value(), before);
    }
}
