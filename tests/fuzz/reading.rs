//! A change as it is read here, held against the same as Automerge reads it.
//!
//! Nothing of Automerge is between a peer's bytes and the server's judgement any more; so here it is
//! asked again: it takes what is taken, and says the same of it, down to what each op refers to and
//! makes. From what it read it also writes the same bytes, as it would after loading a saved document.

use std::collections::{BTreeMap, BTreeSet};

use automerge::legacy::{self, Key, ObjectId, OpType};
use automerge::{ActorId, ExpandedChange, ObjType, ScalarValue};
use concord_shared::change::{Change, Made, Need, ObjectKind, OpRef, Place, What};

/// An op's id.
type Id = (u64, ActorId);

/// What is needed of an op that is not the change's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum As {
    Object,
    /// To be inserted behind.
    Element,
    /// The element itself is what is overwritten.
    Replaced,
    Pred,
    Counter,
}

/// Where an op put something.
#[derive(Debug, PartialEq, Eq)]
enum Spot {
    Key(String),
    Behind(Option<Id>),
    Element(Id),
}

/// By counter: the object, the place in it, and what was made.
type AllMade = BTreeMap<u64, (Option<Id>, Spot, What)>;

/// Asserts that Automerge reads the same.
pub(super) fn same(ours: &Change) {
    let theirs = automerge::Change::try_from(&ours.bytes[..]).expect("what is taken is read");
    assert_eq!(ours.bytes, theirs.raw_bytes());
    assert_eq!(ours.hash, theirs.hash());
    assert_eq!(ours.deps, theirs.deps());
    assert_eq!(&ours.actor, theirs.actor_id());
    assert_eq!((ours.seq, ours.ops), (theirs.seq(), theirs.len() as u64));
    assert_eq!(ours.start_op, theirs.start_op().get());
    assert_eq!(ours.max_op(), theirs.max_op());
    assert_eq!(ours.refs.other_actors, theirs.other_actor_ids());
    let read = theirs.decode();
    let made = made(&read);
    assert_eq!(our_made(ours), made);
    assert_eq!(our_needs(ours), needs(&read, &made));
    let increments = |op: &legacy::Op| matches!(op.action, OpType::Increment(_));
    // Of increments the expanded form does not say whether they are signed.
    if !read.operations.iter().any(increments) {
        let again = automerge::Change::from(read);
        assert_eq!(ours.bytes, again.raw_bytes());
    }
}

fn our_made(change: &Change) -> AllMade {
    let mut all = AllMade::new();
    for made in &change.refs.made {
        for nth in 0..made.count {
            let counter = made.first + nth;
            let object = made.object.map(|id| named(change, id));
            let before = OpRef {
                actor: 0,
                counter: counter - 1,
            };
            let spot = our_spot(change, made, (nth > 0).then_some(before));
            let twice = all.insert(u64::from(counter), (object, spot, made.what));
            assert!(twice.is_none(), "{counter} was made twice");
        }
    }
    all
}

fn our_spot(change: &Change, made: &Made, before: Option<OpRef>) -> Spot {
    match &made.place {
        Place::Key(key) => Spot::Key(change.refs.keys[*key as usize].to_string()),
        Place::Behind(first) => Spot::Behind(before.or(*first).map(|id| named(change, id))),
        Place::Element(element) => Spot::Element(named(change, *element)),
    }
}

/// But for the order of marks.
fn our_needs(change: &Change) -> BTreeSet<(As, Id)> {
    let mut needs = BTreeSet::new();
    for need in &change.refs.needs {
        match need {
            Need::Object(id, _) => {
                needs.insert((As::Object, named(change, *id)));
            }
            Need::Elements {
                first,
                count,
                replaced,
                ..
            } => {
                let kind = if *replaced { As::Replaced } else { As::Element };
                needs.extend((0..*count).map(|nth| {
                    let counter = first.counter + nth;
                    (kind, named(change, OpRef { counter, ..*first }))
                }));
            }
            Need::Preds { first, count, .. } => needs.extend((0..*count).map(|nth| {
                let counter = first.counter + nth;
                (As::Pred, named(change, OpRef { counter, ..*first }))
            })),
            Need::Counter(ids) => {
                needs.extend(ids.iter().map(|id| (As::Counter, named(change, *id))));
            }
            Need::MarkOrder(..) => {}
        }
    }
    needs
}

fn named(change: &Change, id: OpRef) -> Id {
    let actor = match id.actor {
        0 => &change.actor,
        other => &change.refs.other_actors[other as usize - 1],
    };
    (u64::from(id.counter), actor.clone())
}

fn made(change: &ExpandedChange) -> AllMade {
    let ops = change.operations.iter().zip(change.start_op.get()..);
    let made = ops.filter_map(|(op, counter)| {
        let what = match &op.action {
            OpType::Make(kind) => What::Object(match kind {
                ObjType::Map => ObjectKind::Map,
                ObjType::List => ObjectKind::List,
                ObjType::Text => ObjectKind::Text,
                ObjType::Table => unreachable!("it is refused"),
            }),
            OpType::Put(ScalarValue::Counter(_)) => What::Counter,
            OpType::Put(_) => What::Scalar,
            OpType::MarkBegin(_) | OpType::MarkEnd(_) => What::Mark,
            OpType::Delete | OpType::Increment(_) => return None,
        };
        let spot = match &op.key {
            Key::Map(key) => Spot::Key(key.to_string()),
            Key::Seq(element) if op.insert => Spot::Behind(element.as_opid().map(id)),
            Key::Seq(element) => {
                Spot::Element(id(element.as_opid().expect("an update has an element")))
            }
        };
        Some((counter, (object(op), spot, what)))
    });
    made.collect()
}

fn needs(change: &ExpandedChange, made: &AllMade) -> BTreeSet<(As, Id)> {
    let mut needs = BTreeSet::new();
    let is_own = |id: &Id| id.1 == change.actor_id && id.0 >= change.start_op.get();
    let mut need = |kind, id: Id| {
        if !is_own(&id) {
            needs.insert((kind, id));
        }
    };
    for op in &change.operations {
        if let Some(object) = object(op) {
            need(As::Object, object);
        }
        let element = match &op.key {
            Key::Map(_) => None,
            Key::Seq(element) => element.as_opid().map(id),
        };
        let preds: Vec<Id> = op.pred.iter().map(id).collect();
        for pred in &preds {
            let kind = if element.as_ref() == Some(pred) {
                As::Replaced
            } else {
                As::Pred
            };
            need(kind, pred.clone());
        }
        if let OpType::Increment(_) = op.action {
            let is_counter =
                |id: &Id| is_own(id) && made.get(&id.0).is_some_and(|made| made.2 == What::Counter);
            if !preds.iter().any(is_counter) {
                for pred in preds {
                    need(As::Counter, pred);
                }
            }
        }
        if let Some(element) = element
            && op.insert
        {
            need(As::Element, element);
        }
    }
    needs
}

fn object(op: &legacy::Op) -> Option<Id> {
    match &op.obj {
        ObjectId::Root => None,
        ObjectId::Id(object) => Some(id(object)),
    }
}

fn id(id: &legacy::OpId) -> Id {
    (id.counter(), id.actor().clone())
}
