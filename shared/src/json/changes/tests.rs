//! Promise: whatever is done to a document by several authors at once, and however it arrives, the operations lead
//! from the last JSON to the present one, exactly. What they lead to is found by the crate `json-patch`, and what
//! it shall be by reading the whole document; neither knows of the code here.

use automerge::transaction::Transactable as _;
use automerge::{Automerge, ObjType, PatchLog, ROOT, ReadDoc, ScalarValue};
use serde_json::json;

use super::*;
use crate::json::{Search, to_json};
use crate::path::Place;

mod random;

/// What is at the path, read without `Watched`.
fn read(document: &Automerge, path: &Path, types: Types) -> Option<Json> {
    match path.find(document, None).ok()? {
        Place::Root => Some(to_json(&document.hydrate(None), types)),
        Place::In { object, prop } => {
            let (value, id) = document.get(&object, prop).unwrap()?;
            Some(match value {
                Value::Scalar(scalar) => crate::json::scalars::to_json(&scalar, types),
                Value::Object(_) => to_json(&ReadDoc::hydrate(document, &id, None).unwrap(), types),
            })
        }
    }
}

/// Steps, and asserts that the step is true.
fn step(watched: &mut Watched, document: &Automerge, patches: &[Patch]) -> Step {
    let before = watched.json().cloned();
    let step = watched.step(document, patches);
    let now = read(document, watched.path(), watched.types);
    assert_eq!(
        watched.json(),
        now.as_ref(),
        "{:?} at {}: {patches:#?}",
        step,
        watched.path()
    );
    match &step {
        Step::Nothing => assert_eq!(before, now),
        Step::Patch(operations) => {
            let mut json = before.clone().unwrap();
            let written = serde_json::to_string(operations).unwrap();
            let operations: json_patch::Patch = serde_json::from_str(&written).unwrap();
            json_patch::patch(&mut json, &operations).unwrap();
            assert_eq!(Some(json), now, "{written} over {before:?}");
            // An element that is removed and added again may have been for nothing.
            assert!(before != now || operations.len() > 1, "{written}");
        }
        Step::Appeared => assert!(before.is_none() && now.is_some()),
        Step::Gone => assert!(before.is_some() && now.is_none()),
    }
    step
}

/// A document, and what is watched of it.
struct Scene {
    document: Automerge,
    watched: Watched,
}

impl Scene {
    fn new(json: &Json, pointer: &str, types: Types) -> Self {
        let mut document = Automerge::new();
        let mut tx = document.transaction();
        let mut edit = crate::json::Edit {
            tx: &mut tx,
            types,
            search: Search::THOROUGH,
            work: crate::json::Work::default(),
        };
        crate::json::update(&mut edit, json).unwrap();
        tx.commit();
        let path = Path::parse(pointer).unwrap();
        let watched = Watched::new(&document, path, types);
        Self { document, watched }
    }

    fn edit(&mut self, edit: impl FnOnce(&mut automerge::transaction::Transaction<'_>)) -> Step {
        let mut author = self.document.fork();
        let mut tx = author.transaction();
        edit(&mut tx);
        tx.commit();
        self.merge(&mut author)
    }

    fn merge(&mut self, author: &mut Automerge) -> Step {
        let changes = author.get_changes(&self.document.get_heads());
        let mut log = PatchLog::active();
        self.document
            .apply_changes_log_patches(changes, &mut log)
            .unwrap();
        let patches = self.document.make_patches(&mut log);
        step(&mut self.watched, &self.document, &patches)
    }

    fn object(&self, pointer: &str) -> ObjId {
        found(&self.document, &Path::parse(pointer).unwrap())
            .unwrap()
            .1
    }
}

/// What a step sends.
fn sent(step: Step) -> Json {
    match step {
        Step::Patch(operations) => serde_json::to_value(operations).unwrap(),
        other => json!(format!("{other:?}")),
    }
}

#[test]
fn many_splices_are_one_replace() {
    let mut scene = Scene::new(&json!({ "t": "a meeting" }), "", Types::Plain);
    let text = scene.object("/t");
    let step = scene.edit(|tx| {
        for at in 0..5 {
            tx.splice_text(&text, at * 2, 0, "x").unwrap();
        }
    });
    let value = "xax xmxexeting";
    assert_eq!(
        sent(step),
        json!([{ "op": "replace", "path": "/t", "value": value }])
    );
}

#[test]
fn a_block_is_its_placeholder_and_marks_are_nothing() {
    let mut scene = Scene::new(&json!({ "t": "ab" }), "", Types::Plain);
    let text = scene.object("/t");
    let block = scene.edit(|tx| {
        let block = tx.split_block(&text, 1).unwrap();
        tx.put(&block, "type", "p").unwrap();
    });
    assert_eq!(
        sent(block),
        json!([{ "op": "replace", "path": "/t", "value": "a\u{fffc}b" }])
    );
    let in_block = scene.edit(|tx| {
        let (_, block) = tx.get(&text, 1).unwrap().unwrap();
        tx.put(&block, "type", "h1").unwrap();
    });
    assert_eq!(in_block, Step::Nothing);
    let mark = automerge::marks::Mark::new("bold".into(), true, 0, 2);
    let marked = scene.edit(|tx| {
        let expand = automerge::marks::ExpandMark::Both;
        tx.mark(&text, mark, expand).unwrap();
    });
    assert_eq!(marked, Step::Nothing);
}

#[test]
fn what_is_new_comes_whole_and_once() {
    let mut scene = Scene::new(&json!({}), "", Types::Plain);
    let step = scene.edit(|tx| {
        let map = tx.put_object(ROOT, "a/~", ObjType::Map).unwrap();
        let list = tx.put_object(&map, "list", ObjType::List).unwrap();
        tx.insert(&list, 0, 1).unwrap();
        let gone = tx.insert_object(&list, 1, ObjType::Map).unwrap();
        tx.put(&gone, "k", 1).unwrap();
        tx.delete(&list, 1).unwrap();
    });
    assert_eq!(
        sent(step),
        json!([{ "op": "add", "path": "/a~1~0", "value": { "list": [1] } }])
    );
}

#[test]
fn a_lists_elements_move_and_what_changed_in_them_is_told_behind() {
    let json = json!({ "l": [0, { "n": 1 }, 2, 3, 4] });
    let mut scene = Scene::new(&json, "/l", Types::Plain);
    let (list, map) = (scene.object("/l"), scene.object("/l/1"));
    let step = scene.edit(|tx| {
        tx.put(&map, "n", 7).unwrap();
        tx.delete(&list, 3).unwrap();
        tx.insert(&list, 0, "new").unwrap();
        tx.put(&list, 3, "other").unwrap();
    });
    let expected = json!([
        { "op": "add", "path": "/0", "value": "new" },
        { "op": "replace", "path": "/3", "value": "other" },
        { "op": "remove", "path": "/4" },
        { "op": "replace", "path": "/2/n", "value": 7 },
    ]);
    assert_eq!(sent(step), expected);
    let emptied = scene.edit(|tx| {
        for _ in 0..5 {
            tx.delete(&list, 0).unwrap();
        }
    });
    assert_eq!(
        sent(emptied),
        json!([{ "op": "replace", "path": "", "value": [] }])
    );
}

#[test]
fn a_counter_is_replaced() {
    let json = json!({ "c": { "$counter": 5 } });
    let mut scene = Scene::new(&json, "", Types::Tagged);
    let step = scene.edit(|tx| tx.increment(ROOT, "c", 2).unwrap());
    let value = json!({ "$counter": 7 });
    assert_eq!(
        sent(step),
        json!([{ "op": "replace", "path": "/c", "value": value }])
    );
}

#[test]
fn a_map_that_would_be_read_as_a_tag_is_escaped_and_its_entries_are_beneath() {
    let json = json!({ "m": { "$map": { "$counter": 5 } }, "n": 0 });
    let mut scene = Scene::new(&json, "", Types::Tagged);
    let map = scene.object("/m");
    let within = scene.edit(|tx| tx.put(&map, "$counter", 6).unwrap());
    assert_eq!(
        sent(within),
        json!([{ "op": "replace", "path": "/m/$map/$counter", "value": 6 }])
    );
    let no_more = scene.edit(|tx| tx.put(&map, "more", 0).unwrap());
    assert_eq!(
        sent(no_more),
        json!([{ "op": "replace", "path": "/m", "value": { "$counter": 6, "more": 0 } }])
    );
    let plain = scene.edit(|tx| tx.put(&map, "more", 1).unwrap());
    assert_eq!(
        sent(plain),
        json!([{ "op": "replace", "path": "/m/more", "value": 1 }])
    );
}

#[test]
fn a_place_can_go_and_come_back_and_null_is_something() {
    let mut scene = Scene::new(&json!({ "a": { "b": 1 } }), "/a/b", Types::Plain);
    let map = scene.object("/a");
    let null = scene.edit(|tx| tx.put(&map, "b", ScalarValue::Null).unwrap());
    assert_eq!(
        sent(null),
        json!([{ "op": "replace", "path": "", "value": null }])
    );
    assert_eq!(scene.edit(|tx| tx.delete(ROOT, "a").unwrap()), Step::Gone);
    assert_eq!(
        scene.edit(|tx| tx.put(ROOT, "z", 1).unwrap()),
        Step::Nothing
    );
    let back = scene.edit(|tx| {
        let map = tx.put_object(ROOT, "a", ObjType::Map).unwrap();
        tx.put(&map, "b", 2).unwrap();
    });
    assert_eq!(back, Step::Appeared);
    assert_eq!(scene.watched.json(), Some(&json!(2)));
    let elsewhere = scene.edit(|tx| tx.put(ROOT, "z", 2).unwrap());
    assert_eq!(elsewhere, Step::Nothing);
}

#[test]
fn patches_that_do_not_fit_are_answered_with_the_whole() {
    let mut scene = Scene::new(&json!({}), "", Types::Plain);
    let mut tx = scene.document.transaction();
    let map = tx.put_object(ROOT, "m", ObjType::Map).unwrap();
    tx.commit();
    // The patches of the batch before were kept back.
    let told = scene.edit(|tx| tx.put(&map, "k", 1).unwrap());
    assert_eq!(
        sent(told),
        json!([{ "op": "replace", "path": "", "value": { "m": { "k": 1 } } }])
    );
}

/// Automerge's patches take an element for gone that another author's value keeps there: what comes behind it is
/// one position too low in them.
#[test]
fn positions_in_patches_are_not_relied_on() {
    let json = json!({ "l": [1, 2] });
    let mut scene = Scene::new(&json, "", Types::Plain);
    let list = scene.object("/l");
    let mut other = scene.document.fork();
    let replaced = scene.edit(|tx| tx.put(&list, 0, 7).unwrap());
    assert_eq!(
        sent(replaced),
        json!([{ "op": "replace", "path": "/l/0", "value": 7 }])
    );
    let mut tx = other.transaction();
    tx.put(&list, 1, 8).unwrap();
    tx.delete(&list, 0).unwrap();
    tx.commit();
    let told = scene.merge(&mut other);
    assert_eq!(
        sent(told),
        json!([{ "op": "replace", "path": "/l/1", "value": 8 }])
    );
}

/// The patches of an object that was hidden and is seen again make it from nothing: what was deleted in it
/// meanwhile they do not name.
#[test]
fn what_was_hidden_within_a_batch_is_read_anew() {
    for pointer in ["", "/l", "/l/0", "/l/0/deep"] {
        let mut scene = Scene::new(&json!({ "l": [0] }), pointer, Types::Plain);
        let list = scene.object("/l");
        let mut one = scene.document.fork();
        let mut two = scene.document.fork();
        let mut tx = one.transaction();
        let map = tx.put_object(&list, 0, ObjType::Map).unwrap();
        let deep = tx.put_object(&map, "deep", ObjType::Map).unwrap();
        tx.put(&deep, "k", 1).unwrap();
        tx.put(&map, "k", 1).unwrap();
        tx.commit();
        let _ = scene.merge(&mut one);
        let mut tx = one.transaction();
        tx.delete(&deep, "k").unwrap();
        tx.delete(&map, "k").unwrap();
        tx.commit();

        let mut log = PatchLog::active();
        let mut tx = two.transaction();
        // So that its value is the one to be seen.
        (0..9).for_each(|at| tx.put(ROOT, "pad", at).unwrap());
        tx.put(&list, 0, "hides").unwrap();
        tx.commit();
        let reader = &mut scene.document;
        let hiding = two.get_changes(&reader.get_heads());
        reader.apply_changes_log_patches(hiding, &mut log).unwrap();
        assert_eq!(
            reader.get(&list, 0).unwrap().unwrap().0.as_str(),
            Some("hides")
        );
        let mut tx = two.transaction();
        tx.delete(&list, 0).unwrap();
        tx.commit();
        two.merge(&mut one).unwrap();
        let shown = two.get_changes(&reader.get_heads());
        reader.apply_changes_log_patches(shown, &mut log).unwrap();
        let patches = reader.make_patches(&mut log);
        let _ = step(&mut scene.watched, &scene.document, &patches);
    }
}

/// Of an increment of a counter that is in conflict Automerge's patches are silent, if a third value comes along.
#[test]
fn what_patches_leave_out_is_found() {
    let mut scene = Scene::new(&json!({}), "", Types::Plain);
    let mut authors = [[1], [2], [3]].map(|id| {
        let author = scene.document.fork();
        author.with_actor(automerge::ActorId::from(id))
    });
    for author in &mut authors {
        let mut tx = author.transaction();
        tx.put(ROOT, "n", ScalarValue::counter(0)).unwrap();
        tx.commit();
    }
    let [one, two, three] = &mut authors;
    let _ = scene.merge(one);
    let _ = scene.merge(three);
    let mut tx = three.transaction();
    tx.increment(ROOT, "n", 5).unwrap();
    tx.commit();
    three.merge(two).unwrap();
    let told = scene.merge(three);
    assert_eq!(
        sent(told),
        json!([{ "op": "replace", "path": "/n", "value": 5 }])
    );
}

#[test]
fn without_patches_the_whole_is_compared() {
    let mut scene = Scene::new(&json!({ "a": 1 }), "/a", Types::Plain);
    assert_eq!(scene.watched.renew(&scene.document), Step::Nothing);
    let mut tx = scene.document.transaction();
    tx.put(ROOT, "a", 2).unwrap();
    tx.commit();
    let told = scene.watched.renew(&scene.document);
    assert_eq!(
        sent(told),
        json!([{ "op": "replace", "path": "", "value": 2 }])
    );
}
