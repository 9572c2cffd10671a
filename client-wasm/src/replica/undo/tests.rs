//! One example of each kind, alone and with another's edit in between.

use automerge::{
    ActorId, AutoCommit, AutomergeError, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, ScalarValue,
    marks::{ExpandMark, Mark},
    transaction::{CommitOptions, Transactable},
};
use concord_shared::ids::DocumentId;

use crate::Replica;

mod limits;

fn replica(seed: u8) -> Replica {
    Replica::new(DocumentId::from_uuid([9; 16]), ActorId::from([seed; 16]))
}

/// Two replicas of a document with a text, a list, a counter and a map.
fn pair() -> (Replica, Replica) {
    let (mut ours, mut theirs) = (replica(1), replica(2));
    let mut base = replica(9);
    base.change(|doc| {
        let text = doc.put_object(ROOT, "text", ObjType::Text)?;
        doc.splice_text(&text, 0, 0, "one 😀 three")?;
        let list = doc.put_object(ROOT, "list", ObjType::List)?;
        doc.splice(&list, 0, 0, [1, 2, 3])?;
        doc.put(ROOT, "count", ScalarValue::counter(10))?;
        doc.put(ROOT, "title", "old")?;
        let map = doc.put_object(ROOT, "map", ObjType::Map)?;
        doc.put(&map, "inner", 1)
    })
    .unwrap();
    let base = base.save();
    ours.apply_chunks(&base).unwrap();
    theirs.apply_chunks(&base).unwrap();
    (ours, theirs)
}

fn edit(
    replica: &mut Replica,
    edit: impl FnOnce(&mut AutoCommit) -> Result<(), AutomergeError>,
) -> ChangeHash {
    replica.change(edit).unwrap();
    replica.doc().get_last_local_change().unwrap().hash()
}

fn undo(replica: &mut Replica, step: &[ChangeHash]) -> Option<ChangeHash> {
    replica.undo(step, CommitOptions::default()).unwrap()
}

fn merge(ours: &mut Replica, theirs: &mut Replica) {
    ours.doc().merge(theirs.doc()).unwrap();
    theirs.doc().merge(ours.doc()).unwrap();
    assert_eq!(
        ours.doc().hydrate(ROOT, None).unwrap(),
        theirs.doc().hydrate(ROOT, None).unwrap()
    );
}

fn object(replica: &mut Replica, key: &str) -> ObjId {
    replica.doc().get(ROOT, key).unwrap().unwrap().1
}

fn text(replica: &mut Replica) -> String {
    let text = object(replica, "text");
    replica.doc().text(&text).unwrap()
}

fn numbers(replica: &mut Replica) -> Vec<i64> {
    let list = object(replica, "list");
    let values = replica.doc().values(&list);
    values.map(|(value, _)| value.as_i64().unwrap()).collect()
}

fn at_root(replica: &mut Replica, key: &str) -> Option<String> {
    let found = replica.doc().get(ROOT, key).unwrap();
    found.map(|(value, _)| value.to_string())
}

fn splice(replica: &mut Replica, at: usize, remove: isize, insert: &str) -> ChangeHash {
    let text = object(replica, "text");
    edit(replica, |doc| doc.splice_text(&text, at, remove, insert))
}

#[test]
fn a_replaced_word_returns_around_anothers_letters() {
    let (mut ours, mut theirs) = pair();
    let step = splice(&mut ours, 4, 2, "two");
    assert_eq!(text(&mut ours), "one two three");
    splice(&mut theirs, 0, 0, "zero ");
    splice(&mut theirs, 9, 0, "!");
    merge(&mut ours, &mut theirs);
    let redo = undo(&mut ours, &[step]).unwrap();
    assert_eq!(text(&mut ours), "zero one !😀 three");
    undo(&mut ours, &[redo]).unwrap();
    assert!(text(&mut ours).contains("two"));
    merge(&mut ours, &mut theirs);
}

#[test]
fn anothers_letters_inside_of_a_deleted_run_stay_inside() {
    let (mut ours, mut theirs) = pair();
    let step = splice(&mut ours, 0, 12, "");
    splice(&mut theirs, 6, 0, "X");
    merge(&mut ours, &mut theirs);
    assert_eq!(text(&mut ours), "X");
    undo(&mut ours, &[step]).unwrap();
    assert_eq!(text(&mut ours), "one 😀X three");
}

#[test]
fn a_typed_run_with_corrections_goes_as_one() {
    let (mut ours, mut theirs) = pair();
    let mut step = vec![splice(&mut ours, 0, 0, "a")];
    step.push(splice(&mut ours, 1, 0, "b"));
    splice(&mut theirs, 12, 0, "!");
    merge(&mut ours, &mut theirs);
    step.push(splice(&mut ours, 1, 2, "c"));
    assert_eq!(text(&mut ours), "acne 😀 three!");
    undo(&mut ours, &step).unwrap();
    assert_eq!(text(&mut ours), "one 😀 three!");
}

#[test]
fn copies_keep_the_order_of_what_they_are_copies_of() {
    let (mut ours, _) = pair();
    let first = splice(&mut ours, 0, 1, "");
    let second = splice(&mut ours, 0, 1, "");
    undo(&mut ours, &[second]).unwrap();
    undo(&mut ours, &[first]).unwrap();
    assert_eq!(text(&mut ours), "one 😀 three");
}

#[test]
fn a_key_returns_unless_another_wrote_it() {
    let (mut ours, mut theirs) = pair();
    let step = edit(&mut ours, |doc| doc.put(ROOT, "title", "new"));
    let redo = undo(&mut ours, &[step]).unwrap();
    assert_eq!(at_root(&mut ours, "title").unwrap(), "\"old\"");
    undo(&mut ours, &[redo]).unwrap();
    assert_eq!(at_root(&mut ours, "title").unwrap(), "\"new\"");

    merge(&mut ours, &mut theirs);
    edit(&mut theirs, |doc| doc.put(ROOT, "title", "theirs"));
    merge(&mut ours, &mut theirs);
    assert_eq!(undo(&mut ours, &[step]), None);
    assert_eq!(at_root(&mut ours, "title").unwrap(), "\"theirs\"");
}

#[test]
fn anothers_value_from_within_a_step_returns_even_if_ours_won() {
    let (mut ours, mut theirs) = pair();
    let list = object(&mut ours, "list");
    let both = |value: &'static str| {
        let list = list.clone();
        move |doc: &mut AutoCommit| {
            doc.put(ROOT, "title", value)?;
            doc.put(&list, 0, value)?;
            doc.put(&list, 1, value)
        }
    };
    edit(&mut ours, |doc| doc.put(ROOT, "ahead", 1));
    let mut step = vec![edit(&mut ours, both("first"))];
    edit(&mut theirs, both("theirs"));
    merge(&mut ours, &mut theirs);
    assert_eq!(at_root(&mut ours, "title").unwrap(), "\"first\"");
    step.push(edit(&mut ours, |doc| {
        doc.delete(&list, 1)?;
        doc.put(&list, 0, "last")?;
        doc.put(ROOT, "title", "last")
    }));
    undo(&mut ours, &step).unwrap();
    assert_eq!(at_root(&mut ours, "title").unwrap(), "\"theirs\"");
    assert_eq!(shown(&mut ours), ["\"theirs\"", "\"theirs\"", "3"]);
}

#[test]
fn a_new_key_goes_and_a_deleted_one_returns_if_it_is_missing() {
    let (mut ours, mut theirs) = pair();
    let made = edit(&mut ours, |doc| doc.put(ROOT, "new", 1));
    let gone = edit(&mut ours, |doc| doc.delete(ROOT, "title"));
    undo(&mut ours, &[gone]).unwrap();
    assert_eq!(at_root(&mut ours, "title").unwrap(), "\"old\"");
    undo(&mut ours, &[made]).unwrap();
    assert_eq!(at_root(&mut ours, "new"), None);

    let gone = edit(&mut ours, |doc| doc.delete(ROOT, "title"));
    edit(&mut theirs, |doc| doc.put(ROOT, "title", "theirs"));
    merge(&mut ours, &mut theirs);
    assert_eq!(undo(&mut ours, &[gone]), None);
    assert_eq!(at_root(&mut ours, "title").unwrap(), "\"theirs\"");
}

#[test]
fn a_counter_is_counted_back_past_what_others_counted() {
    let (mut ours, mut theirs) = pair();
    let one = edit(&mut ours, |doc| doc.increment(ROOT, "count", 5));
    let two = edit(&mut ours, |doc| doc.increment(ROOT, "count", 2));
    edit(&mut theirs, |doc| doc.increment(ROOT, "count", 100));
    merge(&mut ours, &mut theirs);
    let redo = undo(&mut ours, &[one, two]).unwrap();
    assert_eq!(at_root(&mut ours, "count").unwrap(), "Counter: 110");
    undo(&mut ours, &[redo]).unwrap();
    assert_eq!(at_root(&mut ours, "count").unwrap(), "Counter: 117");

    edit(&mut theirs, |doc| {
        doc.put(ROOT, "count", ScalarValue::counter(0))
    });
    merge(&mut ours, &mut theirs);
    assert_eq!(undo(&mut ours, &[one, two]), None, "another counter");
}

#[test]
fn list_elements_go_return_and_get_back_their_value() {
    let (mut ours, mut theirs) = pair();
    let list = object(&mut ours, "list");
    let first = edit(&mut ours, |doc| doc.put(&list, 0, 10));
    let second = edit(&mut ours, |doc| doc.delete(&list, 1));
    let third = edit(&mut ours, |doc| doc.insert(&list, 1, 20));
    edit(&mut theirs, |doc| doc.insert(&list, 2, 25));
    edit(&mut theirs, |doc| doc.delete(&list, 3));
    merge(&mut ours, &mut theirs);
    undo(&mut ours, &[third]).unwrap();
    undo(&mut ours, &[second]).unwrap();
    undo(&mut ours, &[first]).unwrap();
    assert_eq!(numbers(&mut ours), [1, 2, 25]);

    let fourth = edit(&mut ours, |doc| doc.put(&list, 0, 11));
    merge(&mut ours, &mut theirs);
    edit(&mut theirs, |doc| doc.put(&list, 0, 12));
    merge(&mut ours, &mut theirs);
    assert_eq!(undo(&mut ours, &[fourth]), None);
    assert_eq!(numbers(&mut ours), [12, 2, 25]);
}

/// Steps of several changes on a list of a number, a counter and a number.
fn counting(replica: &mut Replica) -> ObjId {
    let list = object(replica, "list");
    edit(replica, |doc| {
        doc.delete(&list, 1)?;
        doc.insert(&list, 1, ScalarValue::counter(5))
    });
    list
}

fn shown(replica: &mut Replica) -> Vec<String> {
    let list = object(replica, "list");
    let values = replica.doc().values(&list);
    values.map(|(value, _)| value.to_string()).collect()
}

#[test]
fn a_counted_counter_and_its_overwritten_neighbour_are_deleted_in_one_step() {
    let (mut ours, _) = pair();
    let list = counting(&mut ours);
    let before = shown(&mut ours);
    // The neighbour's former value is from before the first change, the counter's from before the second.
    let first = edit(&mut ours, |doc| {
        doc.increment(&list, 1, -91)?;
        doc.put(&list, 0, 10)
    });
    let second = edit(&mut ours, |doc| {
        doc.delete(&list, 0)?;
        doc.delete(&list, 0)
    });
    let redo = undo(&mut ours, &[first, second]).unwrap();
    assert_eq!(shown(&mut ours), before);
    undo(&mut ours, &[redo]).unwrap();
    assert_eq!(numbers(&mut ours), [3]);
}

#[test]
fn what_another_counted_in_between_returns_with_the_counter() {
    let (mut ours, mut theirs) = pair();
    let list = counting(&mut ours);
    merge(&mut ours, &mut theirs);
    edit(&mut theirs, |doc| doc.increment(&list, 1, 100));
    let first = edit(&mut ours, |doc| {
        doc.increment(&list, 1, 7)?;
        doc.put(&list, 0, 10)
    });
    merge(&mut ours, &mut theirs);
    let second = edit(&mut ours, |doc| {
        doc.delete(&list, 0)?;
        doc.delete(&list, 0)
    });
    undo(&mut ours, &[first, second]).unwrap();
    assert_eq!(shown(&mut ours), ["1", "Counter: 105", "3"]);
}

#[test]
fn an_inserted_element_that_another_wrote_to_stays() {
    let (mut ours, mut theirs) = pair();
    let list = object(&mut ours, "list");
    let step = edit(&mut ours, |doc| doc.insert(&list, 0, 7));
    merge(&mut ours, &mut theirs);
    edit(&mut theirs, |doc| doc.put(&list, 0, 8));
    merge(&mut ours, &mut theirs);
    assert_eq!(undo(&mut ours, &[step]), None);
    assert_eq!(numbers(&mut ours), [8, 1, 2, 3]);
}

#[test]
fn a_deleted_object_returns_whole_and_older_steps_reach_into_it() {
    let (mut ours, mut theirs) = pair();
    let older = splice(&mut ours, 0, 0, "new ");
    merge(&mut ours, &mut theirs);
    let gone = edit(&mut ours, |doc| doc.delete(ROOT, "text"));
    splice(&mut theirs, 0, 0, "lost with the object; ");
    merge(&mut ours, &mut theirs);
    undo(&mut ours, &[gone]).unwrap();
    assert_eq!(text(&mut ours), "new one 😀 three");
    let redo = undo(&mut ours, &[older]).unwrap();
    assert_eq!(text(&mut ours), "one 😀 three");
    undo(&mut ours, &[redo]).unwrap();
    assert_eq!(text(&mut ours), "new one 😀 three");
    merge(&mut ours, &mut theirs);
}

#[test]
fn a_letter_deleted_before_its_text_returns_to_its_place_in_the_copy() {
    let (mut ours, _) = pair();
    let letters = splice(&mut ours, 8, 3, "");
    let gone = edit(&mut ours, |doc| doc.delete(ROOT, "text"));
    undo(&mut ours, &[gone]).unwrap();
    assert_eq!(text(&mut ours), "one 😀 te");
    undo(&mut ours, &[letters]).unwrap();
    assert_eq!(text(&mut ours), "one 😀 three");
}

#[test]
fn what_another_deleted_is_left() {
    let (mut ours, mut theirs) = pair();
    let map = object(&mut ours, "map");
    let step = edit(&mut ours, |doc| doc.put(&map, "inner", 2));
    edit(&mut theirs, |doc| doc.delete(ROOT, "map"));
    merge(&mut ours, &mut theirs);
    assert_eq!(undo(&mut ours, &[step]), None);
}

#[test]
fn marks_stay_and_disturb_nothing() {
    let (mut ours, _) = pair();
    let text_id = object(&mut ours, "text");
    let bold = Mark::new("bold".to_owned(), true, 0, 3);
    let step = edit(&mut ours, |doc| {
        doc.mark(&text_id, bold, ExpandMark::After)?;
        doc.splice_text(&text_id, 0, 0, "x")
    });
    undo(&mut ours, &[step]).unwrap();
    assert_eq!(text(&mut ours), "one 😀 three");
    assert_eq!(ours.doc().marks(&text_id).unwrap().len(), 1);
}

#[test]
fn runs_far_apart_return_to_their_places_in_a_long_text() {
    let (mut ours, mut theirs) = pair();
    splice(&mut ours, 0, 12, "");
    let long: String = ('a'..='z').cycle().take(3_000).collect();
    splice(&mut ours, 0, 0, &long);
    merge(&mut ours, &mut theirs);
    let id = object(&mut ours, "text");
    // At both ends, near to each other, and with more and less than the neighbourhood in between.
    let runs = [
        (2_990, 10),
        (2_000, 300),
        (1_990, 5),
        (1_500, 1),
        (1_243, 1),
        (700, 260),
        (1, 1),
    ];
    let step = edit(&mut ours, |doc| {
        for (at, length) in runs {
            doc.splice_text(&id, at, length, "")?;
        }
        Ok(())
    });
    // Of the runs' neighbours some are gone.
    edit(&mut theirs, |doc| {
        doc.splice_text(&id, 1_400, 100, "")?;
        doc.splice_text(&id, 960, 40, "Ω")?;
        doc.splice_text(&id, 0, 1, "")
    });
    let expected = text(&mut theirs);
    merge(&mut ours, &mut theirs);
    let redo = undo(&mut ours, &[step]).unwrap();
    assert_eq!(text(&mut ours), expected);
    undo(&mut ours, &[redo]).unwrap();
    assert_eq!(text(&mut ours).len(), expected.len() - 578);
}

#[test]
fn a_run_deleted_letter_by_letter_returns_in_order() {
    let (mut ours, mut theirs) = pair();
    let mut step = Vec::new();
    for at in [9, 8, 7, 6] {
        step.push(splice(&mut ours, at, 1, ""));
    }
    splice(&mut theirs, 0, 0, "zero ");
    merge(&mut ours, &mut theirs);
    for at in [5, 5, 5] {
        step.push(splice(&mut ours, at, 1, ""));
    }
    assert_eq!(text(&mut ours), "zero  😀ee");
    undo(&mut ours, &step).unwrap();
    assert_eq!(text(&mut ours), "zero one 😀 three");
}

#[test]
fn a_letter_that_was_overwritten_in_place_returns() {
    let (mut ours, _) = pair();
    let id = object(&mut ours, "text");
    edit(&mut ours, |doc| doc.put(&id, 1, "N"));
    assert_eq!(text(&mut ours), "oNe 😀 three");
    let step = splice(&mut ours, 0, 3, "");
    undo(&mut ours, &[step]).unwrap();
    assert_eq!(text(&mut ours), "oNe 😀 three");
}

#[test]
fn an_element_that_returned_within_its_step_goes_once() {
    let (mut ours, _) = pair();
    let list = object(&mut ours, "list");
    let made = edit(&mut ours, |doc| doc.insert(&list, 1, 9));
    let gone = edit(&mut ours, |doc| doc.delete(&list, 1));
    let again = undo(&mut ours, &[gone]).unwrap();
    undo(&mut ours, &[made, gone, again]).unwrap();
    assert_eq!(numbers(&mut ours), [1, 2, 3]);
}
