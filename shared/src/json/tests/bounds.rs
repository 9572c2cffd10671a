//! What a patch may come to. Without the bounds most of these end the process, by its stack or its memory, or take hours:
//! that they end is half of what they say.

use super::*;
use crate::json::work::{MOST_BYTES, MOST_COUNTED, MOST_OPS, MOST_WALKED};

/// Carries out a JSON Patch; gives the operation that failed, and why.
fn refused(base: &Json, operations: Vec<Json>) -> (usize, WriteError) {
    refused_by(&mut document(base), operations)
}

fn refused_by(document: &mut Automerge, operations: Vec<Json>) -> (usize, WriteError) {
    let mut tx = document.transaction();
    match carried_out(&mut tx, operations) {
        Err(WriteError::Operation { index, reason, .. }) => (index, *reason),
        other => panic!("{other:?}"),
    }
}

fn carried_out(tx: &mut Transaction<'_>, operations: Vec<Json>) -> Result<(), WriteError> {
    let patch: json_patch::Patch = serde_json::from_value(Json::Array(operations)).unwrap();
    of(tx, Types::Plain).patch_at(&Path::root(), &patch)
}

/// Objects within each other, so many levels.
fn deep(levels: usize) -> Json {
    around(json!({}), levels - 1)
}

fn around(inner: Json, levels: usize) -> Json {
    let within = |inner| Json::Object(Map::from_iter([("a".to_owned(), inner)]));
    (0..levels).fold(inner, |inner, _| within(inner))
}

/// A long string that is one op.
fn long(bytes: usize) -> Automerge {
    let mut document = Automerge::new();
    let json = json!({ "a": { "$string": "x".repeat(bytes) } });
    write(&mut document, &json, Types::Tagged);
    document
}

#[test]
fn no_operation_builds_more_levels_than_a_document_may_have() {
    let deeper = |error| match error {
        WriteError::TooDeep { at } => at.steps().len(),
        other => panic!("{other:?}"),
    };
    // Doubled each time: 1, 2, 4 levels, …
    let doubled = (0..20).map(|n| {
        let at = format!("{}/a", "/a".repeat(1 << n));
        json!({ "op": "copy", "from": "/a", "path": at })
    });
    let (index, error) = refused(&json!({ "a": {} }), doubled.collect());
    assert_eq!((index, deeper(error)), (7, 129));
    // One more each time.
    let nested = (0..2000).map(|_| json!({ "op": "copy", "from": "/a", "path": "/a/a" }));
    let (index, error) = refused(&json!({ "a": {} }), nested.collect());
    assert_eq!((index, deeper(error)), (MOST_LEVELS - 2, 2));
    let added = (1..2000).map(|n| json!({ "op": "add", "path": "/a".repeat(n), "value": {} }));
    let added = added.take(MOST_LEVELS).collect();
    let (index, error) = refused(&json!({}), added);
    assert_eq!((index, deeper(error)), (MOST_LEVELS - 1, MOST_LEVELS));
    let base = json!({ "a": deep(140), "b": deep(150) });
    let at = "/a".repeat(141);
    for op in ["copy", "move"] {
        let operation = json!({ "op": op, "from": "/b", "path": at });
        let (index, error) = refused(&base, vec![operation]);
        assert_eq!((index, deeper(error)), (0, 141));
    }
    for op in ["add", "replace"] {
        let at = "/a".repeat(140);
        let operation = json!({ "op": op, "path": at, "value": deep(111) });
        let (_, error) = refused(&base, vec![operation]);
        assert_eq!(deeper(error), 140);
    }
}

/// Everything that goes down a value by recursion is asked to go down the deepest.
#[test]
fn the_most_levels_are_built_read_and_removed() {
    // Objects that are written with a tag have two levels of JSON for each of theirs.
    let mut document = document(&json!({ "a": deep(125), "b": { "$counter": {} } }));
    let mut tx = document.transaction();
    let at = "/a".repeat(126);
    let operations = vec![
        json!({ "op": "copy", "from": "/a", "path": format!("/a{}", "/a".repeat(124)) }),
        json!({ "op": "add", "path": format!("/a{}/a", "/a".repeat(124)), "value": deep(124) }),
        json!({ "op": "replace", "path": at, "value": deep(124) }),
        json!({ "op": "move", "from": "/a", "path": "/c" }),
        json!({ "op": "copy", "from": "/c", "path": "/a" }),
        json!({ "op": "test", "path": "/a", "value": deep(249) }),
    ];
    carried_out(&mut tx, operations).unwrap();
    tx.commit();
    let now = read(&document, Types::Plain);
    assert_eq!(now["a"], deep(MOST_LEVELS - 1));
    assert_eq!(now["c"], now["a"]);
}

#[test]
fn what_is_added_lies_one_level_below_what_it_is_added_to() {
    for container in [json!({}), json!([])] {
        let base = around(container, MOST_LEVELS - 2);
        let mut document = document(&base);
        let mut tx = document.transaction();
        let mut edit = of(&mut tx, Types::Plain);
        let at = Path::parse(&"/a".repeat(MOST_LEVELS - 2)).unwrap();
        let error = edit.append_at(&at, "key", &json!({ "a": ["text"] }));
        assert!(
            matches!(error, Err(WriteError::TooDeep { .. })),
            "{error:?}"
        );
        edit.append_at(&at, "key", &json!({ "a": "text" })).unwrap();
    }
}

#[test]
fn copies_come_to_no_more_values_than_a_body_has() {
    let base = json!({ "a": [1] });
    let doubled = (0..40).map(|_| json!({ "op": "copy", "from": "/a", "path": "/a/-" }));
    let (index, error) = refused(&base, doubled.collect());
    // Of 2, 4, 8 values, …
    assert_eq!(index, 16, "{error}");
    assert!(
        matches!(error, WriteError::Edit(EditError::TooMuch(TooMuch::Read))),
        "{error}"
    );
    let copied = |n| json!({ "op": "copy", "from": "/a", "path": format!("/{n}") });
    let (index, error) = refused_by(&mut long(MOST_BYTES / 3), (0..4).map(copied).collect());
    assert_eq!(index, 3, "{error}");
    assert!(
        matches!(
            error,
            WriteError::Edit(EditError::TooMuch(TooMuch::BytesRead))
        ),
        "{error}"
    );
    // A key is as long as it is wherever it is copied to.
    let key = "k".repeat(MOST_BYTES / 3);
    let (index, error) = refused(&json!({ "a": { key: 1 } }), (0..4).map(copied).collect());
    assert_eq!(index, 3, "{error}");
    assert!(
        matches!(
            error,
            WriteError::Edit(EditError::TooMuch(TooMuch::BytesRead))
        ),
        "{error}"
    );
}

#[test]
fn what_is_written_counts_with_what_is_copied() {
    let base = json!({ "a": vec![1; MOST_VALUES / 2] });
    let added = json!({ "op": "add", "path": "/b", "value": vec![1; MOST_VALUES / 2] });
    let copied = json!({ "op": "copy", "from": "/a", "path": "/c" });
    let (index, error) = refused(&base, vec![added, copied]);
    assert_eq!(index, 1);
    assert!(
        matches!(
            error,
            WriteError::Edit(EditError::TooMuch(TooMuch::Written))
        ),
        "{error}"
    );
    // A key, which is no op.
    let key = "k".repeat(MOST_BYTES / 2 + 1);
    let added = json!({ "op": "add", "path": "/b", "value": { key: 1 } });
    let copied = json!({ "op": "copy", "from": "/a", "path": "/c" });
    let (index, error) = refused_by(&mut long(MOST_BYTES / 2), vec![added, copied]);
    assert_eq!(index, 1);
    assert!(
        matches!(
            error,
            WriteError::Edit(EditError::TooMuch(TooMuch::BytesWritten))
        ),
        "{error}"
    );
}

#[test]
fn a_patch_goes_through_no_more_than_a_body_has_room_for() {
    let base = json!({ "a": vec![1; 1000] });
    for operation in [
        json!({ "op": "test", "path": "/a", "value": vec![1; 1000] }),
        json!({ "op": "copy", "from": "/a", "path": "/a" }),
    ] {
        let (index, error) = refused(&base, vec![operation; 1000]);
        assert_eq!(index, MOST_VALUES / 1001);
        assert!(
            matches!(error, WriteError::Edit(EditError::TooMuch(TooMuch::Read))),
            "{error}"
        );
    }
    let steps = MOST_LEVELS - 1;
    let last = json!({ "op": "test", "path": "/a".repeat(steps), "value": {} });
    let (index, error) = refused(&deep(MOST_LEVELS), vec![last; 10_000]);
    assert_eq!(index, MOST_WALKED / steps);
    assert!(
        matches!(error, WriteError::Edit(EditError::TooMuch(TooMuch::Walked))),
        "{error}"
    );
    let moved = json!({ "op": "move", "from": "/a".repeat(steps), "path": "/a".repeat(steps) });
    let (index, _) = refused(&deep(MOST_LEVELS), vec![moved; 10_000]);
    assert_eq!(index, MOST_WALKED / (2 * steps));
}

#[test]
fn positions_in_a_long_array_are_counted() {
    let mut document = document(&json!({ "a": vec![1; 100_000] }));
    let mut tx = document.transaction();
    let mut edit = of(&mut tx, Types::Plain);
    let test = json!({ "op": "test", "path": "/a/-", "value": 1 });
    let test = serde_json::from_value(test).unwrap();
    // It fails, and has counted.
    let patch = json_patch::Patch(vec![test]);
    let mut times = 0;
    while !matches!(
        edit.patch_at(&Path::root(), &patch),
        Err(WriteError::Operation { reason, .. })
            if matches!(*reason, WriteError::Edit(EditError::TooMuch(TooMuch::Counted)))
    ) {
        times += 1;
    }
    assert_eq!(times, MOST_COUNTED / 100_000);
    let first = json!({ "op": "add", "path": "/a/0", "value": 1 });
    let error = carried_out(&mut tx, vec![first; 4000]).unwrap_err();
    assert!(
        error.to_string().contains("the positions of a patch"),
        "{error}"
    );
}

#[test]
fn a_change_that_would_be_refused_for_its_ops_is_not_made() {
    let letters = "x".repeat(MOST_OPS);
    let mut document = document(&json!({ "a": "x y", "list": [1] }));
    let mut tx = document.transaction();
    let path = |path: &str| Path::parse(path).unwrap();
    let mut edit = of(&mut tx, Types::Plain);
    let made = [
        edit.put_at(&path("/new"), &json!(letters)),
        edit.put_at(&path("/a"), &json!(format!("x y {letters}"))),
        edit.append_at(&path("/list"), "", &json!([letters])),
        edit.merge_at(&Path::root(), &json!({ "b": { "c": letters } })),
    ];
    for made in made {
        assert!(
            matches!(made, Err(WriteError::Edit(EditError::TooManyOps))),
            "{made:?}"
        );
    }
    assert_eq!(tx.pending_ops(), 0);
}

/// Each of these took minutes, when every element that was made was made beside those that were gone.
#[test]
fn long_arrays_are_put_in_another_order_emptied_and_filled_again() {
    let object = |id: usize| json!({ "id": id, "name": "x" });
    let named: Vec<Json> = (0..20_000).map(object).collect();
    let mut turned = named.clone();
    turned.reverse();
    let mut document = document(&json!({ "list": named, "n": [1, 2] }));
    for list in [&turned, &Vec::new(), &named] {
        let whole = json!({ "list": list, "n": [1, 2] });
        write(&mut document, &whole, Types::Plain);
        assert_eq!(read(&document, Types::Plain), whole);
    }
}

#[test]
fn no_edit_makes_a_key_that_no_document_may_have() {
    let mut document = document(&json!({ "a": {}, "list": [] }));
    let mut tx = document.transaction();
    let path = |path: &str| Path::parse(path).unwrap();
    let proto = || serde_json::from_str::<Json>(r#"{"__proto__":1}"#).unwrap();
    let mut edit = of(&mut tx, Types::Plain);
    let made = [
        edit.put_at(&path("/a/__proto__"), &json!(1)),
        edit.put_at(&path("/a"), &proto()),
        edit.put_at(&path("/b"), &json!([proto()])),
        edit.append_at(&path("/list"), "", &proto()),
        edit.merge_at(&Path::root(), &json!({ "a": proto() })),
    ];
    for made in made {
        assert!(
            matches!(made, Err(WriteError::Edit(EditError::ProtoKey))),
            "{made:?}"
        );
    }
    assert_eq!(tx.pending_ops(), 0);
}

/// What a body has room for may be written and tested.
#[test]
fn a_patch_without_copies_is_never_too_much() {
    let value = json!(vec![1; MOST_VALUES - 2]);
    let added = json!({ "op": "add", "path": "/a", "value": value });
    let tested = json!({ "op": "test", "path": "/a", "value": value });
    let mut document = Automerge::new();
    carried_out(&mut document.transaction(), vec![added, tested]).unwrap();
    let short = json!({ "op": "add", "path": "/a", "value": 1 });
    carried_out(&mut document.transaction(), vec![short; MOST_VALUES / 4]).unwrap();
}

#[test]
fn a_merge_patch_of_many_keys_in_the_deepest_object() {
    let keys: Map<String, Json> = (0..20_000).map(|n| (n.to_string(), json!(1))).collect();
    let patch = around(Json::Object(keys), MOST_LEVELS - 1);
    let mut document = document(&deep(MOST_LEVELS));
    let mut tx = document.transaction();
    of(&mut tx, Types::Plain)
        .merge_at(&Path::root(), &patch)
        .unwrap();
    tx.commit();
    assert_eq!(read(&document, Types::Plain), patch);
}

proptest! {
    /// What is counted is read as what is not.
    #[test]
    fn what_is_read_within_bounds_is_all_of_it(json in roots()) {
        let (mut typed, _) = typed();
        write(&mut typed, &json, Types::Plain);
        let (mut other, _) = super::typed();
        let mut tx = other.transaction();
        of(&mut tx, Types::Tagged).merge_at(&Path::root(), &json!({ "in": json })).unwrap();
        tx.commit();
        for mut document in [typed, other] {
            for types in [Types::Plain, Types::Tagged] {
                let whole = read(&document, types);
                let mut tx = document.transaction();
                let root = (Value::Object(automerge::ObjType::Map), automerge::ROOT);
                prop_assert_eq!(of(&mut tx, types).read(root, types).unwrap(), whole);
            }
        }
    }
}
