//! Histories that honest software could have made: replicas that edit, commit, merge and go back.
//!
//! All goes through Automerge's public API. [`history`] is a function of its source alone.

use automerge::transaction::CommitOptions;
use automerge::{
    ActorId, Author, AutoCommit, Change, ChangeHash, ObjId, ObjType, ROOT, TextEncoding,
};

use super::edits;
use super::model::ChangeModel;
use super::quiet::quietly;
use super::source::Source;

/// Replicas of one history.
const MOST_REPLICAS: usize = 6;

/// How an order comes about: see [`order`].
#[derive(Clone, Copy)]
enum Taste {
    Random,
    Oldest,
    Newest,
}

/// A history.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Its changes, in one causal order.
    pub changes: Vec<Change>,
    /// What Automerge did that it should not have, in calls that its API allows: panics, and changes
    /// that refer to what they do not depend on, which are not among the changes.
    pub oddities: Vec<String>,
}

/// Replicas and what they know of each other.
struct World {
    replicas: Vec<AutoCommit>,
    /// Every object ever made by anybody.
    objects: Vec<(ObjId, ObjType)>,
    /// Heads that replicas once had.
    past: Vec<Vec<ChangeHash>>,
    /// Actors that have been given out.
    actors: u8,
    history: History,
}

/// A random history of some `changes` changes or a little more.
///
/// Where Automerge itself panics, as it may when old heads are edited, that replica starts again.
pub fn history(source: &mut Source<'_>, changes: usize) -> History {
    let mut world = World::new(source);
    world.begin(source);
    let mut steps = 0;
    while world.history.changes.len() < changes && steps < 4 * changes {
        world.step(source);
        steps += 1;
    }
    world.history
}

/// One of the orders in which these changes could arrive at someone who has nothing, as indices.
/// Some are near breadth first, some near depth first.
pub fn order(changes: &[Change], source: &mut Source<'_>) -> Vec<usize> {
    let taste = source.pick(&[Taste::Random, Taste::Oldest, Taste::Newest]);
    let mut left: Vec<usize> = (0..changes.len()).collect();
    let mut done: Vec<ChangeHash> = Vec::new();
    let mut order = Vec::new();
    let known: Vec<ChangeHash> = changes.iter().map(Change::hash).collect();
    while !left.is_empty() {
        let ready: Vec<usize> = (0..left.len())
            .filter(|at| {
                let deps = changes[left[*at]].deps();
                deps.iter()
                    .all(|dep| done.contains(dep) || !known.contains(dep))
            })
            .collect();
        let last = ready.len() - 1;
        let at = match taste {
            Taste::Oldest if !source.chance(4) => ready[0],
            Taste::Newest if !source.chance(4) => ready[last],
            _ => source.pick(&ready),
        };
        let index = left.remove(at);
        done.push(known[index]);
        order.push(index);
    }
    order
}

impl World {
    fn new(source: &mut Source<'_>) -> Self {
        let mut world = Self {
            replicas: Vec::new(),
            objects: Vec::new(),
            past: Vec::new(),
            actors: 0,
            history: History::default(),
        };
        for _ in 0..=source.below(MOST_REPLICAS) {
            let encoding = source.pick(&[
                TextEncoding::UnicodeCodePoint,
                TextEncoding::Utf16CodeUnit,
                TextEncoding::Utf8CodeUnit,
            ]);
            let actor = world.next_actor(source);
            let replica = AutoCommit::new_with_encoding(encoding).with_actor(actor);
            world.replicas.push(replica);
        }
        world
    }

    /// An actor nobody has. Not in the order of their making, some of them beginnings of others.
    fn next_actor(&mut self, source: &mut Source<'_>) -> ActorId {
        self.actors += 1;
        let mut actor = vec![source.below(3) as u8, self.actors];
        actor.resize(source.pick(&[2, 4, 16]), 0);
        ActorId::from(actor)
    }

    /// Most worlds begin with something that all replicas share.
    fn begin(&mut self, source: &mut Source<'_>) {
        for _ in 0..=source.below(3) {
            self.edit(0, 1 + source.below(6), source);
        }
        for other in 1..self.replicas.len() {
            if !source.chance(4) {
                self.merge(other, 0, source);
            }
        }
    }

    fn step(&mut self, source: &mut Source<'_>) {
        let replica = source.below(self.replicas.len());
        match source.below(12) {
            0..=6 => {
                let edits = source.pick(&[1, 1, 2, 3, 8]);
                self.edit(replica, edits, source);
            }
            7 | 8 => {
                let other = source.below(self.replicas.len());
                self.merge(replica, other, source);
            }
            9 => self.edit_the_past(replica, source),
            10 => {
                let options = options(source);
                let hash = self.replicas[replica].empty_change(options);
                self.committed(replica, hash, source);
                // Automerge 0.12 takes an actor for free to edit older heads if these have the last
                // op of it, and so leaves out an empty change that comes after: the next change of
                // this actor would not depend on the one before.
                let actor = self.next_actor(source);
                self.replicas[replica].set_actor(actor);
            }
            _ if source.chance(3) => {
                // Setting an author picks a random actor.
                let author = source.below(4) as u8;
                let author = (author > 0).then(|| Author::from(vec![author; 3]).into_owned());
                let actor = self.next_actor(source);
                self.replicas[replica].set_author(author).set_actor(actor);
            }
            _ => {
                // A new tab: another actor, the same document.
                let actor = self.next_actor(source);
                self.replicas[replica].set_actor(actor);
            }
        }
    }

    /// Does something with a replica that may panic within Automerge; whether it did not.
    fn with<T>(
        &mut self,
        replica: usize,
        source: &mut Source<'_>,
        call: impl FnOnce(&mut AutoCommit, &mut Vec<(ObjId, ObjType)>, &mut Source<'_>) -> T,
    ) -> Option<T> {
        let document = &mut self.replicas[replica];
        let panic = match quietly(|| call(document, &mut self.objects, source)) {
            Ok(done) => return Some(done),
            Err(panic) => panic,
        };
        self.history.oddities.push(panic);
        self.start_again(replica, source);
        None
    }

    fn start_again(&mut self, replica: usize, source: &mut Source<'_>) {
        let actor = self.next_actor(source);
        self.replicas[replica] = AutoCommit::new().with_actor(actor);
    }

    fn edit(&mut self, replica: usize, edits: usize, source: &mut Source<'_>) {
        let options = options(source);
        let hash = self.with(replica, source, |document, objects, source| {
            for _ in 0..edits {
                edits::edit(document, objects, source);
            }
            document.commit_with(options)
        });
        if let Some(Some(hash)) = hash {
            self.committed(replica, hash, source);
        }
    }

    fn committed(&mut self, replica: usize, hash: ChangeHash, source: &mut Source<'_>) {
        let document = &mut self.replicas[replica];
        let change = document.get_change_by_hash(&hash).expect("it is there");
        if let Some(reference) = outside_of_its_past(&self.history.changes, &change) {
            let oddity = format!("a change refers to {reference}, which it does not depend on");
            self.history.oddities.push(oddity);
            return self.start_again(replica, source);
        }
        self.past.push(document.get_heads());
        self.history.changes.push(change);
    }

    /// Edits made on top of heads that are no longer the replica's.
    fn edit_the_past(&mut self, replica: usize, source: &mut Source<'_>) {
        let document = &mut self.replicas[replica];
        let known = self.past.iter().filter(|heads| {
            heads
                .iter()
                .all(|head| document.get_change_by_hash(head).is_some())
        });
        let known: Vec<_> = known.cloned().collect();
        if known.is_empty() {
            return;
        }
        document.isolate(&source.pick(&known));
        for _ in 0..=source.below(2) {
            self.edit(replica, 1 + source.below(2), source);
        }
        self.replicas[replica].integrate();
    }

    fn merge(&mut self, into: usize, from: usize, source: &mut Source<'_>) {
        if into == from {
            return;
        }
        let changes = self.replicas[from].get_changes(&[]);
        let merged = self.with(into, source, |document, _, _| {
            document.apply_changes(changes)
        });
        if let Some(Err(error)) = merged {
            self.history.oddities.push(format!("a merge: {error}"));
        }
    }
}

/// What kind of op a change refers to that is not in its past, nor in itself. `earlier` has its past.
///
/// Automerge 0.12 makes such changes where old heads of a text are edited that has marks since.
fn outside_of_its_past(earlier: &[Change], change: &Change) -> Option<&'static str> {
    let mut past = vec![(
        change.actor_id(),
        change.start_op().get(),
        change.len() as u64,
    )];
    let mut wanted: Vec<ChangeHash> = change.deps().to_vec();
    for other in earlier.iter().rev() {
        if wanted.contains(&other.hash()) {
            past.push((other.actor_id(), other.start_op().get(), other.len() as u64));
            wanted.extend_from_slice(other.deps());
        }
    }
    let model = ChangeModel::decode(change.raw_bytes());
    let known = |actor: Option<u64>, counter: u64| {
        let Some(actor) = actor.and_then(|actor| model.actor_at(actor)) else {
            return true;
        };
        past.iter().any(|(by, start, ops)| {
            by.to_bytes() == actor && (*start..start + ops).contains(&counter)
        })
    };
    model.ops.iter().find_map(|op| {
        if !known(op.obj_actor, op.obj_counter.unwrap_or(0)) {
            return Some("an object");
        }
        if !known(op.key_actor, op.key_counter.unwrap_or(0) as u64) {
            return Some("an element");
        }
        let mut preds = op.preds.iter();
        let unknown = preds.any(|(actor, counter)| !known(Some(*actor), *counter as u64));
        unknown.then_some("a predecessor")
    })
}

fn options(source: &mut Source<'_>) -> CommitOptions {
    let options = CommitOptions::default();
    match source.below(6) {
        1 => options.with_message("a message"),
        2 => options.with_message("").with_time(-1),
        3 => options
            .with_time(1_700_000_000_000)
            .with_message("ünïcode 𝄞"),
        4 => options.with_time((1 << 53) - 1),
        _ => options.with_time(source.below(1000) as i64),
    }
}

/// The root, or any object that was ever made, wherever it is now.
pub(super) fn any_object(
    objects: &[(ObjId, ObjType)],
    source: &mut Source<'_>,
) -> (ObjId, ObjType) {
    let at = source.below(objects.len() + 1 + objects.len() / 4);
    match objects.get(at.wrapping_sub(1)) {
        Some(object) => object.clone(),
        None => (ROOT, ObjType::Map),
    }
}
