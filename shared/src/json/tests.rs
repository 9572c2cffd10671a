use std::time::Duration;

use automerge::transaction::{Transactable as _, Transaction};
use automerge::{ActorId, Automerge, ObjType, PatchLog, ROOT, ReadDoc as _};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::path::Path;

mod bounds;
mod patches;

fn read(document: &Automerge, types: Types) -> Json {
    to_json(&document.hydrate(None), types)
}

fn of<'a, 'd>(tx: &'a mut Transaction<'d>, types: Types) -> Edit<'a, Transaction<'d>> {
    Edit {
        tx,
        types,
        search: Search::THOROUGH,
        work: Work::default(),
    }
}

/// Brings a document to a value; gives the number of ops that it took.
fn write(document: &mut Automerge, json: &Json, types: Types) -> usize {
    let mut tx = document.transaction();
    let mut edit = of(&mut tx, types);
    update(&mut edit, json).unwrap();
    let ops = tx.pending_ops();
    tx.commit();
    ops
}

fn document(json: &Json) -> Automerge {
    let mut document = Automerge::new();
    write(&mut document, json, Types::Plain);
    document
}

/// One author writes `ours` over `base`, another `theirs`; both are merged.
fn merged(base: &Json, ours: &Json, theirs: &Json) -> Json {
    let mut ours_document = document(base);
    let seen = ours_document.get_heads();
    write(&mut ours_document, ours, Types::Plain);
    ours_document.set_actor(ActorId::random());
    let mut tx = ours_document
        .transaction_at(PatchLog::inactive(), &seen)
        .unwrap();
    let mut edit = of(&mut tx, Types::Plain);
    update(&mut edit, theirs).unwrap();
    tx.commit();
    read(&ours_document, Types::Plain)
}

fn scalars() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        (-3_i64..4).prop_map(Json::from),
        any::<f64>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(Json::from),
        "[ab \u{e9}\u{1F469}\u{200D}\u{1F680}]{0,9}".prop_map(Json::from),
        ".{0,5}".prop_map(Json::from),
    ]
}

fn values() -> impl Strategy<Value = Json> {
    scalars().prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            objects(inner.clone()),
            keyed(inner),
        ]
    })
}

fn objects(inner: impl Strategy<Value = Json>) -> impl Strategy<Value = Json> {
    let key = prop_oneof![
        "[a-d]",
        Just("$counter".to_owned()),
        Just("$map".to_owned()),
        ".{0,2}"
    ];
    proptest::collection::hash_map(key, inner, 0..5)
        .prop_map(|entries| Json::Object(entries.into_iter().collect()))
}

fn keyed(inner: impl Strategy<Value = Json>) -> impl Strategy<Value = Json> {
    let ids = proptest::collection::hash_set(0..8_u8, 0..6);
    (ids, inner).prop_map(|(ids, inner)| {
        let elements = ids.into_iter();
        Json::Array(
            elements
                .map(|id| json!({ "id": id, "value": inner }))
                .collect(),
        )
    })
}

fn roots() -> impl Strategy<Value = Json> {
    objects(values())
}

proptest! {
    #[test]
    fn json_in_is_json_out(json in roots()) {
        prop_assert_eq!(read(&document(&json), Types::Plain), json);
    }

    #[test]
    fn any_value_becomes_any_other_and_writing_the_same_is_no_edit(one in roots(), other in roots()) {
        let mut document = document(&one);
        write(&mut document, &other, Types::Plain);
        let now = read(&document, Types::Plain);
        prop_assert!(is_same(&now, &other), "{} is not {}", now, other);
        prop_assert_eq!(write(&mut document, &now, Types::Plain), 0);
        let tagged = read(&document, Types::Tagged);
        prop_assert_eq!(write(&mut document, &tagged, Types::Tagged), 0);
    }

    #[test]
    fn what_is_tagged_comes_back(json in roots()) {
        // The root is a map, whatever it looks like.
        let json = json!({ "in": json });
        let mut document = Automerge::new();
        write(&mut document, &json, Types::Tagged);
        let tagged = read(&document, Types::Tagged);
        let mut again = Automerge::new();
        write(&mut again, &tagged, Types::Tagged);
        prop_assert_eq!(read(&again, Types::Tagged), tagged);
    }
}

/// A document with one of everything that JSON lacks.
fn typed() -> (Automerge, Json) {
    let tagged = json!({
        "counter": { "$counter": 5 },
        "when": { "$timestamp": "2026-11-22T04:10:28.123Z" },
        "long ago": { "$timestamp": -99_999_999_999_999_i64 },
        "never": { "$timestamp": i64::MAX },
        "bytes": { "$bytes": "3q2+7w==" },
        "string": { "$string": "done" },
        "text": "a meeting",
        "nan": { "$number": "NaN" },
        "infinite": { "$number": "-Infinity" },
        "map": { "$map": { "$counter": 5 } },
        "no tag": { "$counter": "five" },
        "float": 5.0,
    });
    let mut document = Automerge::new();
    write(&mut document, &tagged, Types::Tagged);
    (document, tagged)
}

#[test]
fn what_json_lacks_has_a_plain_form() {
    let (document, mut tagged) = typed();
    // Years before 0 are written as milliseconds.
    tagged["long ago"] = json!({ "$timestamp": "-1199-02-15T14:13:20.001Z" });
    let ago = read(&document, Types::Tagged)["long ago"].take();
    assert!(ago["$timestamp"].is_i64(), "{ago}");
    let plain = json!({
        "counter": 5,
        "when": "2026-11-22T04:10:28.123Z",
        "long ago": -99_999_999_999_999_i64,
        "never": i64::MAX,
        "bytes": "3q2+7w==",
        "string": "done",
        "text": "a meeting",
        "nan": null,
        "infinite": null,
        "map": { "$counter": 5 },
        "no tag": { "$counter": "five" },
        "float": 5.0,
    });
    assert_eq!(read(&document, Types::Plain), plain);
}

#[test]
fn types_stay_where_plain_json_is_written_back() {
    let (mut document, tagged) = typed();
    let plain = read(&document, Types::Plain);
    assert_eq!(write(&mut document, &plain, Types::Plain), 0);
    // As JavaScript writes it.
    let mut touched = plain.clone();
    touched["float"] = json!(5);
    assert_eq!(write(&mut document, &touched, Types::Plain), 0);
    touched["counter"] = json!(7);
    touched["when"] = json!("2026-11-23T00:00:00+01:00");
    touched["bytes"] = json!("AAEC");
    touched["string"] = json!("open");
    touched["text"] = json!("a short meeting");
    assert!(write(&mut document, &touched, Types::Plain) > 0);
    let now = read(&document, Types::Tagged);
    assert_eq!(now["counter"], json!({ "$counter": 7 }));
    assert_eq!(
        now["when"],
        json!({ "$timestamp": "2026-11-22T23:00:00.000Z" })
    );
    assert_eq!(now["bytes"], json!({ "$bytes": "AAEC" }));
    assert_eq!(now["string"], json!({ "$string": "open" }));
    assert_eq!(now["nan"], tagged["nan"]);
    // What is of another type becomes it.
    touched["counter"] = json!("seven");
    touched["when"] = json!("tomorrow");
    touched["bytes"] = json!("?");
    touched["string"] = json!([1]);
    write(&mut document, &touched, Types::Plain);
    assert_eq!(
        read(&document, Types::Plain),
        read(&document, Types::Tagged).clone().tap(|json| {
            for key in ["nan", "infinite"] {
                json[key] = Json::Null;
            }
            json["long ago"] = touched["long ago"].clone();
            json["never"] = touched["never"].clone();
            json["map"] = touched["map"].clone();
        })
    );
}

trait Tap {
    fn tap(self, change: impl FnOnce(&mut Self)) -> Self;
}

impl Tap for Json {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

#[test]
fn the_root_is_an_object() {
    let mut document = Automerge::new();
    let mut tx = document.transaction();
    for json in [json!([]), json!(1), json!({ "$counter": 1 })] {
        let mut edit = of(&mut tx, Types::Tagged);
        assert!(matches!(
            update(&mut edit, &json),
            Err(EditError::RootIsAMap)
        ));
    }
}

#[test]
fn different_fields_merge() {
    let base = json!({ "name": "Acme", "meeting": { "date": "1", "room": "A" } });
    let ours = json!({ "name": "Acme", "meeting": { "date": "2", "room": "A" } });
    let theirs = json!({ "name": "Apex", "meeting": { "date": "1", "room": "B" }, "new": true });
    let all = json!({ "name": "Apex", "meeting": { "date": "2", "room": "B" }, "new": true });
    assert_eq!(merged(&base, &ours, &theirs), all);
}

#[test]
fn texts_merge_by_word() {
    let base = json!({ "agenda": "Open the doors. Read the minutes." });
    let ours = json!({ "agenda": "Open the windows. Read the minutes." });
    let theirs = json!({ "agenda": "Open the doors. Skip the minutes!" });
    let all = json!({ "agenda": "Open the windows. Skip the minutes!" });
    assert_eq!(merged(&base, &ours, &theirs), all);
}

#[test]
fn of_two_dates_one_is_taken_as_it_is() {
    let date = |date: &str| json!({ "date": date });
    let now = merged(
        &date("2026-11-22"),
        &date("2026-11-23"),
        &date("2026-12-22"),
    );
    assert!(
        now == date("2026-11-23") || now == date("2026-12-22"),
        "{now}"
    );
    // Where nothing stood, what both write is kept.
    let now = merged(&date(""), &date("one"), &date("other"));
    assert_eq!(now["date"].as_str().map(str::len), Some(8), "{now}");
}

#[test]
fn elements_with_an_id_are_the_same_wherever_they_stand() {
    let base = json!({ "list": [{ "id": 1, "a": 1 }, { "id": 2, "a": 1 }, { "id": 3, "a": 1 }] });
    let ours = json!({ "list": [{ "id": 0, "a": 9 }, { "id": 1, "a": 1 }, { "id": 2, "a": 2 }, { "id": 3, "a": 1 }] });
    let theirs = json!({ "list": [{ "id": 2, "a": 1, "b": 3 }, { "id": 3, "a": 1 }] });
    let all =
        json!({ "list": [{ "id": 0, "a": 9 }, { "id": 2, "a": 2, "b": 3 }, { "id": 3, "a": 1 }] });
    assert_eq!(merged(&base, &ours, &theirs), all);
}

/// Two programs that sorted a list at once leave doubles; and not all that is in a list needs to have an id.
#[test]
fn elements_with_an_id_are_the_same_beside_others_that_share_one_or_have_none() {
    let record = |id: u64, name: &str| json!({ "id": id, "name": name });
    for strange in [
        record(1, "a"),
        record(1, "other"),
        json!("note"),
        json!({ "name": "z" }),
    ] {
        let base = json!({ "list": [record(1, "a"), record(2, "b"), strange, record(3, "c"), record(4, "d")] });
        // One takes the first away, another changes one behind it, by what they saw.
        let mut ours = base.clone();
        ours["list"].as_array_mut().unwrap().remove(0);
        let mut theirs = base.clone();
        theirs["list"][3]["name"] = json!("C");
        let all = json!({ "list": [record(2, "b"), strange, record(3, "C"), record(4, "d")] });
        assert_eq!(merged(&base, &ours, &theirs), all);
        // Nor does what comes in one's place become it.
        let mut ours = base.clone();
        ours["list"][3] = record(9, "new");
        let list = merged(&base, &ours, &theirs);
        let list = list["list"].as_array().unwrap();
        assert_eq!(list.len(), 5, "{list:?}");
        assert!(list.contains(&record(9, "new")), "{list:?}");
    }
}

/// Whatever ids are in a list, more than once or not at all, it becomes what it is to be, and no record becomes another one.
#[test]
fn no_record_becomes_another() {
    let element = (0..6_u8, 0..8_u8).prop_map(|(kind, id)| match kind {
        0 => json!(id),
        1 => json!({ "name": id }),
        _ => json!({ "id": id, "name": id, "of": { "id": id } }),
    });
    let list = proptest::collection::vec(element, 0..8);
    proptest!(|(before in list.clone(), after in list.clone())| {
        let mut document = Automerge::new();
        write(&mut document, &json!({ "list": before }), Types::Plain);
        let ids = |document: &Automerge| -> BTreeMap<String, String> {
            let (_, list) = document.get(ROOT, "list").unwrap().unwrap();
            let objects = document.list_range(&list, ..).filter_map(|element| {
                let object = element.id();
                let (id, _) = document.get(&object, "id").ok().flatten()?;
                Some((object.to_string(), id.to_string()))
            });
            objects.collect()
        };
        let old = ids(&document);
        write(&mut document, &json!({ "list": after }), Types::Plain);
        prop_assert_eq!(read(&document, Types::Plain), json!({ "list": after }));
        let named = |list: &[Json]| {
            let names = list.iter().filter_map(|element| element.get("id"));
            names.cloned().collect::<Vec<_>>()
        };
        let once = |list: &[Json], id: &Json| named(list).iter().filter(|other| *other == id).count() == 1;
        let is_named = named(&before).iter().any(|id| once(&before, id) && once(&after, id));
        for (object, id) in ids(&document) {
            if let Some(before) = old.get(&object).filter(|_| is_named) {
                prop_assert_eq!(before, &id);
            }
        }
    });
}

#[test]
fn elements_without_one_are_paired_between_those_that_stayed() {
    let base = json!({ "list": ["x", { "a": 1, "b": 1 }, "y"] });
    let ours = json!({ "list": ["x", { "a": 2, "b": 1 }, "y"] });
    let theirs = json!({ "list": ["w", "x", { "a": 1, "b": 2 }, "y", "z"] });
    let all = json!({ "list": ["w", "x", { "a": 2, "b": 2 }, "y", "z"] });
    assert_eq!(merged(&base, &ours, &theirs), all);
}

#[test]
fn counters_add_up() {
    let mut document = Automerge::new();
    write(
        &mut document,
        &json!({ "n": { "$counter": 5 } }),
        Types::Tagged,
    );
    let seen = document.get_heads();
    write(&mut document, &json!({ "n": 7 }), Types::Plain);
    let mut tx = document
        .transaction_at(PatchLog::inactive(), &seen)
        .unwrap();
    let mut edit = of(&mut tx, Types::Plain);
    update(&mut edit, &json!({ "n": 4 })).unwrap();
    tx.commit();
    assert_eq!(read(&document, Types::Plain), json!({ "n": 6 }));
}

/// Python and Ruby write whole numbers so that they have computed.
#[test]
fn a_counter_moves_to_a_whole_number_however_it_is_written() {
    let mut document = Automerge::new();
    let base = json!({ "n": { "$counter": 5 }, "float": 1.5 });
    write(&mut document, &base, Types::Tagged);
    write(
        &mut document,
        &json!({ "n": 6.0, "float": 2.0 }),
        Types::Plain,
    );
    let now = json!({ "n": { "$counter": 6 }, "float": 2.0 });
    assert_eq!(read(&document, Types::Tagged), now);
    let tagged = json!({ "n": { "$counter": 7.0 }, "float": 2.0, "new": { "$counter": -1e3 } });
    write(&mut document, &tagged, Types::Tagged);
    let now = json!({ "n": { "$counter": 7 }, "float": 2.0, "new": { "$counter": -1000 } });
    assert_eq!(read(&document, Types::Tagged), now);
    // What is no integer of Automerge's is another value.
    for other in [
        json!(7.5),
        json!(9_223_372_036_854_775_808.0),
        json!(u64::MAX),
    ] {
        let mut document = document.clone();
        let json = json!({ "n": other, "float": 2.0, "new": -1000 });
        write(&mut document, &json, Types::Plain);
        assert_eq!(read(&document, Types::Tagged)["n"], other);
    }
    let lowest = json!({ "n": -9_223_372_036_854_775_808.0, "float": 2.0 });
    write(
        &mut document,
        &json!({ "n": { "$counter": -1 } }),
        Types::Tagged,
    );
    write(&mut document, &lowest, Types::Plain);
    assert_eq!(
        read(&document, Types::Tagged)["n"],
        json!({ "$counter": i64::MIN })
    );
}

#[test]
fn a_block_in_a_text_is_a_letter_that_stays() {
    let mut document = Automerge::new();
    let mut tx = document.transaction();
    let text = tx.put_object(ROOT, "text", ObjType::Text).unwrap();
    tx.splice_text(&text, 0, 0, "one two").unwrap();
    tx.split_block(&text, 3).unwrap();
    tx.commit();
    assert_eq!(
        read(&document, Types::Plain),
        json!({ "text": "one\u{fffc} two" })
    );
    write(
        &mut document,
        &json!({ "text": "one\u{fffc} three" }),
        Types::Plain,
    );
    assert_eq!(document.spans(&text).unwrap().count(), 3);
}

#[test]
fn a_search_that_is_over_changes_the_way_and_not_the_result() {
    let words = |seed: usize| -> String {
        let words = (0..2000).map(|n| ((n * seed) % 997).to_string());
        words.collect::<Vec<_>>().join(" ")
    };
    let one = json!({ "text": words(7), "list": (0..500).collect::<Vec<_>>() });
    let other = json!({ "text": words(13), "list": (0..500).rev().collect::<Vec<_>>() });
    let mut document = document(&one);
    let mut tx = document.transaction();
    let mut edit = Edit {
        tx: &mut tx,
        types: Types::Plain,
        search: Search::at_most(Duration::ZERO),
        work: Work::default(),
    };
    update(&mut edit, &other).unwrap();
    tx.commit();
    assert_eq!(read(&document, Types::Plain), other);
}

proptest! {
    #[test]
    fn a_difference_leads_from_one_value_to_the_other(one in values(), other in values()) {
        for types in [Types::Plain, Types::Tagged] {
            for search in [Search::THOROUGH, Search::at_most(Duration::ZERO)] {
                let operations = diff(&one, &other, types, search);
                let mut now = one.clone();
                json_patch::patch(&mut now, &operations).unwrap();
                prop_assert!(is_same(&now, &other), "{} is not {}: {:?}", now, other, operations);
            }
        }
        prop_assert_eq!(diff(&one, &one, Types::Plain, Search::THOROUGH), []);
    }

    /// Both say the smallest that changed: what one writes into a document the other tells of it.
    #[test]
    fn a_difference_says_no_more_than_what_is_written(one in roots(), other in roots()) {
        let operations = diff(&one, &other, Types::Plain, Search::THOROUGH);
        let mut document = document(&one);
        let ops = write(&mut document, &other, Types::Plain);
        prop_assert_eq!(operations.is_empty(), ops == 0, "{:?}", operations);
    }
}

#[test]
fn a_difference_is_as_small_as_what_changed() {
    let patch = |from: Json, to: Json, types| {
        serde_json::to_value(diff(&from, &to, types, Search::THOROUGH)).unwrap()
    };
    let from = json!({ "list": [{ "id": 1, "n": 1 }, { "id": 2, "n": 1 }], "a/b": "x", "gone": 1, "same": 5 });
    let to =
        json!({ "list": [{ "id": 3 }, { "id": 2, "n": 2 }], "a/b": "y", "new": {}, "same": 5.0 });
    let small = json!([
        { "op": "remove", "path": "/gone" },
        { "op": "replace", "path": "/a~1b", "value": "y" },
        { "op": "replace", "path": "/list/1/n", "value": 2 },
        { "op": "add", "path": "/list/1", "value": { "id": 3 } },
        { "op": "remove", "path": "/list/0" },
        { "op": "add", "path": "/new", "value": {} },
    ]);
    assert_eq!(patch(from, to, Types::Plain), small);
    assert_eq!(
        patch(json!([1, 2, 3]), json!([1, 3, 4]), Types::Plain),
        json!([{ "op": "add", "path": "/3", "value": 4 }, { "op": "remove", "path": "/1" }])
    );
    let (from, to) = (
        json!({ "n": { "$counter": 1 } }),
        json!({ "n": { "$counter": 2 } }),
    );
    let whole = json!([{ "op": "replace", "path": "/n", "value": { "$counter": 2 } }]);
    assert_eq!(patch(from, to, Types::Tagged), whole);
    let whole = json!([{ "op": "replace", "path": "", "value": [] }]);
    assert_eq!(patch(json!({}), json!([]), Types::Plain), whole);
}
