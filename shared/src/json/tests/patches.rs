//! Patches by their RFCs, and what is added.

use json_patch::PatchOperation;
use proptest::sample::Index;

use super::*;

/// Carries out a patch on a document; gives the document or what went wrong.
fn patched(base: &Json, at: &str, patch: &Json) -> Result<Json, String> {
    let mut document = document(base);
    let mut tx = document.transaction();
    let mut edit = of(&mut tx, Types::Plain);
    let at = Path::parse(at).unwrap();
    let done = if patch.is_array() {
        let patch: json_patch::Patch = serde_json::from_value(patch.clone()).unwrap();
        edit.patch_at(&at, &patch)
    } else {
        edit.merge_at(&at, patch)
    };
    done.map_err(|error| error.to_string())?;
    tx.commit();
    Ok(read(&document, Types::Plain))
}

#[test]
fn a_json_patch_is_carried_out_where_it_says() {
    let base = json!({ "a": { "list": [1, 2, 3], "b": "x" }, "c": null });
    let patch = json!([
        { "op": "test", "path": "/list/0", "value": 1.0 },
        { "op": "add", "path": "/list/1", "value": { "n": 9 } },
        { "op": "add", "path": "/list/-", "value": 4 },
        { "op": "remove", "path": "/list/0" },
        { "op": "replace", "path": "/b", "value": "y" },
        { "op": "move", "from": "/list/0", "path": "/moved" },
        { "op": "copy", "from": "/moved/n", "path": "/copied" },
        { "op": "move", "from": "/b", "path": "/b" },
    ]);
    let all = json!({ "a": { "list": [2, 3, 4], "b": "y", "moved": { "n": 9 }, "copied": 9 }, "c": null });
    assert_eq!(patched(&base, "/a", &patch), Ok(all));
}

#[test]
fn a_json_patch_that_does_not_fit_says_which_operation() {
    let base = json!({ "a": [1], "t": "text" });
    let fails = |operation: Json| {
        let first = json!({ "op": "add", "path": "/ok", "value": 1 });
        patched(&base, "", &json!([first, operation])).unwrap_err()
    };
    assert_eq!(
        fails(json!({ "op": "remove", "path": "/b" })),
        "operation 1 at /b: there is nothing at /b"
    );
    assert_eq!(
        fails(json!({ "op": "replace", "path": "/a/1", "value": 1 })),
        "operation 1 at /a/1: there is nothing at /a/1"
    );
    assert_eq!(
        fails(json!({ "op": "test", "path": "/a/0", "value": "1" })),
        "operation 1 at /a/0: the value at /a/0 is another"
    );
    assert_eq!(
        fails(json!({ "op": "add", "path": "/t/0", "value": "1" })),
        "operation 1 at /t/0: /t is no object and no array"
    );
    assert_eq!(
        fails(json!({ "op": "move", "from": "/a", "path": "/a/0" })),
        "operation 1 at /a/0: /a can't be moved into itself, to /a/0"
    );
    assert_eq!(
        fails(json!({ "op": "remove", "path": "" })),
        "operation 1 at : the root of a document can't be removed"
    );
}

proptest! {
    /// The examples of RFC 7396, and all others, by the reference that the crate has.
    #[test]
    fn a_merge_patch_does_what_the_rfc_says(base in roots(), patch in objects(values())) {
        let mut expected = base.clone();
        json_patch::merge(&mut expected, &patch);
        let now = patched(&base, "", &patch).unwrap();
        prop_assert!(is_same(&now, &expected), "{} is not {}", now, expected);
    }

    #[test]
    fn a_json_patch_does_what_the_rfc_says(base in roots(), other in roots()) {
        // As another library would write it.
        let patch = json_patch::diff(&base, &other);
        let now = patched(&base, "", &serde_json::to_value(patch).unwrap()).unwrap();
        prop_assert!(is_same(&now, &other), "{} is not {}", now, other);
    }
}

/// An operation that has to do with what is there: most of its pointers lead somewhere.
#[derive(Debug, Clone)]
struct Drawn {
    kind: u8,
    at: Index,
    from: Index,
    /// A step behind the pointer.
    further: Option<&'static str>,
    value: Json,
}

impl Drawn {
    /// On this value. `None` where the reference is no reference: its root can't be removed, ours is below another.
    fn operation(&self, json: &Json) -> Option<PatchOperation> {
        let mut pointers = Vec::new();
        pointers_to(json, String::new(), &mut pointers);
        let mut at = self.at.get(&pointers).clone();
        if let Some(further) = self.further {
            at = format!("{at}/{further}");
        }
        let from = self.from.get(&pointers);
        let operation = match self.kind {
            0 => json!({ "op": "add", "path": at, "value": self.value }),
            1 => json!({ "op": "replace", "path": at, "value": self.value }),
            2 => json!({ "op": "test", "path": at, "value": self.value }),
            3 => json!({ "op": "test", "path": at, "value": json.pointer(&at) }),
            4 => json!({ "op": "copy", "from": from, "path": at }),
            5 if !from.is_empty() => json!({ "op": "move", "from": from, "path": at }),
            6 if !at.is_empty() => json!({ "op": "remove", "path": at }),
            _ => return None,
        };
        Some(serde_json::from_value(operation).unwrap())
    }
}

fn pointers_to(json: &Json, at: String, pointers: &mut Vec<String>) {
    match json {
        Json::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                pointers_to(element, format!("{at}/{index}"), pointers);
            }
        }
        Json::Object(entries) => {
            for (key, value) in entries {
                let step = crate::path::escaped(key);
                pointers_to(value, format!("{at}/{step}"), pointers);
            }
        }
        _ => {}
    }
    pointers.push(at);
}

/// Without floating numbers: to the crate `1` and `1.0` are two.
fn exact() -> impl Strategy<Value = Json> {
    let scalar = prop_oneof![
        Just(Json::Null),
        (-3_i64..4).prop_map(Json::from),
        "[ab ]{0,4}".prop_map(Json::from)
    ];
    scalar.prop_recursive(3, 12, 4, |inner| {
        let key = prop_oneof!["[ab]", "[0~/]", Just("$counter".to_owned())];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::hash_map(key, inner, 0..4)
                .prop_map(|entries| Json::Object(entries.into_iter().collect())),
        ]
    })
}

fn drawn() -> impl Strategy<Value = Drawn> {
    let further = prop_oneof![
        2 => Just(None),
        1 => prop_oneof![Just("-"), Just("0"), Just("1"), Just("a"), Just("01"), Just("")].prop_map(Some),
    ];
    (0..7_u8, any::<Index>(), any::<Index>(), further, exact()).prop_map(
        |(kind, at, from, further, value)| Drawn {
            kind,
            at,
            from,
            further,
            value,
        },
    )
}

proptest! {
    /// Every operation by itself fails where the crate's does and makes what the crate's makes; and all that did not
    /// fail make it as one patch.
    #[test]
    fn operations_do_what_another_library_does(
        base in exact(),
        operations in proptest::collection::vec(drawn(), 1..12),
    ) {
        let within = |json: &Json| json!({ "in": json });
        let patch = |operations: &[PatchOperation]| {
            serde_json::to_value(json_patch::Patch(operations.to_vec())).unwrap()
        };
        let mut expected = base.clone();
        let mut done = Vec::new();
        for drawn in operations {
            let Some(operation) = drawn.operation(&expected) else {
                continue;
            };
            let mut next = expected.clone();
            let theirs = json_patch::patch(&mut next, std::slice::from_ref(&operation));
            let ours = patched(&within(&expected), "/in", &patch(std::slice::from_ref(&operation)));
            prop_assert_eq!(
                theirs.is_ok(), ours.is_ok(),
                "{}: {} on {}: {:?}, {:?}", done.len(), operation, expected, theirs, ours
            );
            if let Ok(ours) = ours {
                prop_assert_eq!(&ours, &within(&next), "{} on {}", operation, expected);
                expected = next;
                done.push(operation);
            }
        }
        let all = patched(&within(&base), "/in", &patch(&done));
        prop_assert_eq!(all, Ok(within(&expected)));
    }
}

/// Merges a patch with types into a document, and gives it with types.
fn merged_with_types(base: &Json, patch: &Json) -> Json {
    let mut document = Automerge::new();
    write(&mut document, base, Types::Tagged);
    let mut tx = document.transaction();
    of(&mut tx, Types::Tagged)
        .merge_at(&Path::root(), patch)
        .unwrap();
    tx.commit();
    read(&document, Types::Tagged)
}

#[test]
fn a_merge_patch_with_types_takes_tags_for_values() {
    let map = json!({ "x": { "a": 1, "b": 2 } });
    for value in [json!({ "$counter": 5 }), json!({ "$string": "s" })] {
        let patch = json!({ "x": value });
        assert_eq!(merged_with_types(&map, &patch), patch);
        assert_eq!(merged_with_types(&json!({}), &patch), patch);
    }
    // The map within is merged.
    let patch = json!({ "x": { "$map": { "$counter": 5, "a": null } } });
    let both = json!({ "x": { "$counter": 5, "b": 2 } });
    assert_eq!(merged_with_types(&map, &patch), both);
    let both = json!({ "x": { "$map": { "$counter": 5 } } });
    assert_eq!(merged_with_types(&json!({ "x": 1 }), &patch), both);
    // What is left when nothing goes is a map, whatever it looks like.
    let patch = json!({ "x": { "$counter": 5, "gone": null } });
    assert_eq!(merged_with_types(&json!({}), &patch), both);
    // At the root, too, it is the map within.
    let patch = json!({ "$map": { "$counter": 5 } });
    assert_eq!(
        merged_with_types(&map, &patch),
        json!({ "$counter": 5, "x": { "a": 1, "b": 2 } })
    );
}

#[test]
fn what_was_added_under_a_key_is_not_what_was_put_there_later() {
    for value in [json!(1), json!({ "a": 1 }), json!("text")] {
        let mut document = document(&json!({ "in": {} }));
        let at = Path::parse("/in").unwrap();
        let edit = |document: &mut Automerge, edit: &dyn Fn(&mut Edit<'_, Transaction<'_>>)| {
            let mut tx = document.transaction();
            edit(&mut of(&mut tx, Types::Plain));
            let (hash, _) = tx.commit();
            document.get_change_by_hash(&hash.unwrap()).unwrap()
        };
        let change = edit(&mut document, &|edit| {
            edit.append_at(&at, "key", &value).unwrap();
        });
        let added = Added::by(&document, &change).unwrap().unwrap();
        let there = at.with("key");
        assert_eq!(added.place(&document, None).unwrap(), Some(there.clone()));
        edit(&mut document, &|edit| edit.delete_at(&there).unwrap());
        assert_eq!(added.place(&document, None).unwrap(), None);
        edit(&mut document, &|edit| edit.put_at(&there, &value).unwrap());
        assert_eq!(added.place(&document, None).unwrap(), None, "{value}");
    }
}
