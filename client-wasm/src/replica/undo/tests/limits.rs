//! What is refused, what is taken back after an error, and what is left when bounds are reached.

use automerge::{
    ActorId, AutomergeError, ChangeHash, ROOT, ReadDoc,
    transaction::{CommitOptions, Transactable},
};

use super::super::{
    MAX_CHANGES_PER_STEP, MAX_STEPS, UndoError, UndoStack,
    alias::{MAX_RUNS, Place},
};
use super::{at_root, edit, merge, object, pair, splice, text, undo};
use crate::Replica;

#[test]
fn only_own_changes_that_are_there_can_be_undone() {
    let (mut ours, mut theirs) = pair();
    let foreign = edit(&mut theirs, |doc| doc.put(ROOT, "title", "theirs"));
    let error = ours.undo(&[foreign], CommitOptions::default());
    assert!(matches!(error, Err(UndoError::Missing { hash }) if hash == foreign));
    merge(&mut ours, &mut theirs);
    let heads = ours.heads();
    let error = ours.undo(&[foreign], CommitOptions::default());
    assert!(matches!(error, Err(UndoError::NotOwn { hash }) if hash == foreign));
    assert_eq!(undo(&mut ours, &[]), None);
    assert_eq!(ours.heads(), heads);
}

#[test]
fn a_refused_edit_leaves_nothing_behind() {
    let (mut ours, mut theirs) = pair();
    let (heads, id) = (ours.heads(), object(&mut ours, "text"));
    let (doc, aliases) = ours.parts();
    let number = doc.get_actor().clone();
    let place = |counter| Place {
        object: None,
        id: (number.clone(), counter),
    };
    doc.splice_text(&id, 0, 3, "half").unwrap();
    aliases.add_element(place(1), &place(100));
    aliases.add_value(&place(2).id, &place(200).id);
    let error = ours.settle(
        Err(AutomergeError::InvalidIndex(7)),
        3,
        CommitOptions::default(),
    );
    assert!(matches!(error, Err(UndoError::Edit { changes: 3, .. })));
    assert_eq!(ours.heads(), heads);
    assert_eq!(ours.doc().pending_ops(), 0);
    assert_eq!(text(&mut ours), "one 😀 three");
    let (_, aliases) = ours.parts();
    assert_eq!(aliases.element(place(1)), Some(place(1)));
    assert_eq!(aliases.value(&place(2).id), place(2).id);

    let step = splice(&mut ours, 0, 3, "");
    undo(&mut ours, &[step]).unwrap();
    assert_eq!(text(&mut ours), "one 😀 three");
    merge(&mut ours, &mut theirs);
}

/// As many other aliases as make the older half be forgotten, `times` times: by the second, all that was remembered before.
fn crowd_out(replica: &mut Replica, times: usize) {
    let (_, aliases) = replica.parts();
    let place = |seed: u8, counter: usize| Place {
        object: None,
        id: (ActorId::from([seed; 16]), u64::try_from(counter).unwrap()),
    };
    for seed in [50, 60].into_iter().take(times) {
        // Every second one, so that each is a run.
        for counter in 0..=MAX_RUNS {
            let (from, to) = (place(seed, 2 * counter), place(seed + 1, 3 * counter));
            aliases.add_element(from.clone(), &to);
            aliases.add_value(&from.id, &to.id);
        }
        aliases.keep();
    }
}

#[test]
fn forgotten_letters_are_left_alone() {
    for times in 0..=2 {
        let forget = times == 2;
        let (mut ours, mut theirs) = pair();
        let typed = splice(&mut ours, 0, 0, "new ");
        let gone = splice(&mut ours, 0, 2, "");
        undo(&mut ours, &[gone]).unwrap();
        assert_eq!(text(&mut ours), "new one 😀 three");
        crowd_out(&mut ours, times);
        let redo = undo(&mut ours, &[typed]).unwrap();
        let left = if forget {
            "neone 😀 three"
        } else {
            "one 😀 three"
        };
        assert_eq!(
            text(&mut ours),
            left,
            "what is known by its first name goes"
        );
        undo(&mut ours, &[redo]).unwrap();
        assert_eq!(text(&mut ours), "new one 😀 three");
        merge(&mut ours, &mut theirs);
    }
}

#[test]
fn forgotten_objects_and_counters_are_left_alone() {
    for times in 0..=2 {
        let forget = times == 2;
        let (mut ours, mut theirs) = pair();
        let map = object(&mut ours, "map");
        let inner = edit(&mut ours, |doc| doc.put(&map, "inner", 2));
        let counted = edit(&mut ours, |doc| doc.increment(ROOT, "count", 5));
        let gone = edit(&mut ours, |doc| {
            doc.delete(ROOT, "map")?;
            doc.delete(ROOT, "count")
        });
        undo(&mut ours, &[gone]).unwrap();
        crowd_out(&mut ours, times);
        assert_eq!(undo(&mut ours, &[counted]).is_none(), forget);
        assert_eq!(undo(&mut ours, &[inner]).is_none(), forget);
        let count = if forget { "Counter: 15" } else { "Counter: 10" };
        assert_eq!(at_root(&mut ours, "count").unwrap(), count);
        let map = object(&mut ours, "map");
        let value = ours.doc().get(&map, "inner").unwrap().unwrap().0.as_i64();
        assert_eq!(value, Some(if forget { 2 } else { 1 }));
        merge(&mut ours, &mut theirs);
    }
}

#[test]
fn the_stack_groups_bounds_and_forgets() {
    let hash = |number: usize| {
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(number.to_be_bytes()) {
            *to = from;
        }
        ChangeHash(bytes)
    };
    let mut stack = UndoStack::new();
    assert!(!stack.can_undo() && !stack.can_redo());
    stack.record(hash(1), true);
    stack.record(hash(2), true);
    stack.record(hash(3), false);
    assert_eq!(stack.next_undo(), Some(&[hash(3)][..]));
    stack.undone(Some(hash(4)));
    assert_eq!(stack.next_undo(), Some(&[hash(1), hash(2)][..]));
    assert_eq!(stack.next_redo(), Some(&[hash(4)][..]));
    stack.redone(Some(hash(5)));
    assert_eq!(stack.next_undo(), Some(&[hash(5)][..]));
    stack.undone(None);
    assert!(!stack.can_redo(), "others left nothing of it");
    stack.record(hash(6), true);
    assert_eq!(
        stack.next_undo(),
        Some(&[hash(6)][..]),
        "not part of what was there"
    );
    for number in 0..=MAX_CHANGES_PER_STEP {
        stack.record(hash(number), true);
    }
    assert!(
        stack
            .next_undo()
            .is_some_and(|step| step.len() <= MAX_CHANGES_PER_STEP)
    );
    let mut steps = 0;
    for number in 0..=MAX_STEPS {
        stack.record(hash(number), false);
    }
    while stack.can_undo() {
        stack.undone(None);
        steps += 1;
    }
    assert_eq!(steps, MAX_STEPS);
}
