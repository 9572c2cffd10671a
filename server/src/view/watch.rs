//! What is watched of a document: its changes as events, for those who follow it live.
//!
//! Watchers of one place share its value and its events, each of which is written as JSON once. What an event costs is
//! in proportion to what changed, but for the difference of two versions of the document, which Automerge finds in a
//! pass over its ops, once for all that is watched.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use automerge::{Automerge, ChangeHash};
use bytes::Bytes;
use concord_shared::json::changes::{Step, Watched};
use concord_shared::json::{self, Search, Types};
use concord_shared::path::Path;
use serde::Serialize;
use serde_json::Value as Json;

use super::feed::{self, Events, Sender};
use crate::limits::account::Account;

/// Places of a document that are watched at a time: each has its value in memory, and a step of its own in each batch.
const PLACES_PER_DOCUMENT: usize = 64;

/// Of these, those that one caller alone watches, so that others have some.
const PLACES_PER_CALLER: usize = PLACES_PER_DOCUMENT / 2;

/// Bytes of memory that the values of all of them may take when one more is added.
const BYTES_PER_DOCUMENT: usize = 64 << 20;

/// Bytes of memory of an object's entry, besides its key's letters and its value.
const BYTES_PER_ENTRY: usize = 48;

/// Bytes of an event with which it is long.
const LONG_BYTES: usize = 16 << 10;

/// How long the smallest difference to a version that somebody has seen is looked for. Afterwards a larger one is taken.
const DIFF_TIME: Duration = Duration::from_millis(200);

/// How long those who come back with what they have seen are told what happened since, of each batch of jobs. Whoever is
/// left gets the value.
const SINCE_TIME: Duration = Duration::from_millis(500);

/// A place, and how its values are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Where.
    pub path: Path,
    /// How.
    pub types: Types,
}

/// What happened at a place.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// The version of the document that this leads to, sorted.
    pub heads: Vec<ChangeHash>,
    /// What it is.
    pub kind: Kind,
    /// JSON.
    pub data: Bytes,
}

/// What an event's data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// All of what is there now.
    Value,
    /// The operations (RFC 6902) that lead from what was there to what is there now.
    Patch,
    /// There is nothing; the data is `null`.
    Gone,
}

/// A document has too many places that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a document has at most {PLACES_PER_DOCUMENT} places that are watched at a time, and values of {} MiB at them",
    BYTES_PER_DOCUMENT >> 20
)]
pub struct TooManyPlaces;

/// Whoever watches: the account of a caller.
pub(super) type Watcher = Arc<Account>;

/// Events that were made, for whom, in order.
pub(super) type News = Vec<(Arc<Sender>, Arc<Event>)>;

/// All that is watched of a document. As of its heads, at all places.
#[derive(Debug, Default)]
pub(super) struct Watches {
    places: HashMap<Place, Followed>,
    heads: Vec<ChangeHash>,
    /// Bytes of long events that are in memory, here and in other views: until the last of its readers has taken one.
    told: Arc<AtomicUsize>,
    /// How long it took to find what happened since somebody's version, in this batch.
    searched: Duration,
}

/// A place that somebody watches.
#[derive(Debug)]
struct Followed {
    watched: Watched,
    watchers: Vec<(Watcher, Arc<Sender>)>,
    /// The value as an event, if somebody has asked for it since it last changed.
    value: Option<Arc<Event>>,
    /// What leads to the version that is here from one that somebody had seen: after a restart many come back with the
    /// same one.
    since: Option<Since>,
    /// Of memory, roughly: as it was weighed.
    bytes: usize,
    /// Bytes of patches since then.
    changed: usize,
    /// As in [`Watches`].
    told: Arc<AtomicUsize>,
}

/// What leads from one version to another, if anything differs.
#[derive(Debug)]
struct Since {
    from: Vec<ChangeHash>,
    to: Vec<ChangeHash>,
    event: Option<Arc<Event>>,
}

impl Watches {
    /// None yet. Its long events are counted where those of all views are.
    pub(super) fn counted_in(told: Arc<AtomicUsize>) -> Self {
        Self {
            told,
            ..Self::default()
        }
    }

    /// Whether anybody watches.
    pub(super) fn are_any(&self) -> bool {
        let mut places = self.places.values();
        places.any(|place| place.watchers.iter().any(|(_, watcher)| watcher.is_open()))
    }

    /// Bytes of memory that the values take, roughly.
    pub(super) fn memory(&self) -> usize {
        self.places.values().map(|place| place.bytes).sum()
    }

    /// Goes to the document's present version; what its watchers are to be told.
    pub(super) fn step(&mut self, document: &Automerge, news: &mut News) {
        self.places.retain(|_, place| {
            place.watchers.retain(|(_, watcher)| watcher.is_open());
            !place.watchers.is_empty()
        });
        if self.places.is_empty() {
            return;
        }
        let heads = heads(document);
        if heads == self.heads {
            return;
        }
        let patches = document.diff(&self.heads, &heads);
        self.heads = heads;
        for place in self.places.values_mut() {
            place.since = None;
            place.value = None;
            let step = place.watched.step(document, &patches);
            if let Some(event) = place.told(&self.heads, &step) {
                let watchers = place.watchers.iter();
                news.extend(watchers.map(|(_, watcher)| (Arc::clone(watcher), Arc::clone(&event))));
            }
        }
    }

    /// What was asked for together has been told.
    pub(super) fn end_batch(&mut self) {
        self.searched = Duration::ZERO;
    }

    /// Begins to watch a place of the document as it is now: to [`step`](Self::step) comes before. The first event
    /// leads there from the version that the watcher has seen, or from nothing; there is none where that is the same.
    pub(super) fn add(
        &mut self,
        document: &Automerge,
        place: &Place,
        seen: Option<&[ChangeHash]>,
        who: Watcher,
    ) -> Result<(Option<Arc<Event>>, Events), TooManyPlaces> {
        if !self.places.contains_key(place) {
            let places = self.places.values();
            let own = places.filter(|place| place.is_watched_by_none_but(&who));
            if self.places.len() >= PLACES_PER_DOCUMENT
                || self.memory() >= BYTES_PER_DOCUMENT
                || own.count() >= PLACES_PER_CALLER
            {
                return Err(TooManyPlaces);
            }
            self.heads = heads(document);
            let followed = Followed::new(document, place, Arc::clone(&self.told));
            self.places.insert(place.clone(), followed);
        }
        let Some(followed) = self.places.get_mut(place) else {
            return Err(TooManyPlaces);
        };
        let (sender, events) = feed::feed();
        followed.watchers.push((who, Arc::new(sender)));
        let first = match seen {
            Some(seen) if self.searched < SINCE_TIME => {
                let started = Instant::now();
                let event = followed.since(document, place, &self.heads, seen);
                self.searched += started.elapsed();
                event
            }
            _ => Some(followed.value(&self.heads)),
        };
        Ok((first, events))
    }
}

impl Followed {
    fn new(document: &Automerge, place: &Place, told: Arc<AtomicUsize>) -> Self {
        let mut new = Self {
            watched: Watched::new(document, place.path.clone(), place.types),
            watchers: Vec::new(),
            value: None,
            since: None,
            bytes: 0,
            changed: 0,
            told,
        };
        new.weigh();
        new
    }

    fn is_watched_by_none_but(&self, who: &Watcher) -> bool {
        let mut watchers = self.watchers.iter();
        watchers.all(|(watcher, _)| Arc::ptr_eq(watcher, who))
    }

    /// The value as it is now.
    fn value(&mut self, heads: &[ChangeHash]) -> Arc<Event> {
        if let Some(value) = self.value.as_ref().filter(|value| value.heads == heads) {
            return Arc::clone(value);
        }
        let data = match self.watched.json() {
            Some(json) => (Kind::Value, written(json)),
            None => (Kind::Gone, written(&())),
        };
        let event = self.event(heads, data);
        self.value = Some(Arc::clone(&event));
        event
    }

    /// What is told of a step.
    fn told(&mut self, heads: &[ChangeHash], step: &Step) -> Option<Arc<Event>> {
        match step {
            Step::Nothing => None,
            Step::Appeared | Step::Gone => Some(self.value(heads)),
            Step::Patch(operations) => {
                let event = self.event(heads, (Kind::Patch, written(operations)));
                self.changed = self.changed.saturating_add(event.data.len());
                if self.changed > self.bytes {
                    self.weigh();
                }
                Some(event)
            }
        }
    }

    /// What leads from what was there at a version to what is there now.
    fn since(
        &mut self,
        document: &Automerge,
        place: &Place,
        heads: &[ChangeHash],
        seen: &[ChangeHash],
    ) -> Option<Arc<Event>> {
        let known = self.since.as_ref();
        if let Some(known) = known.filter(|known| known.from == seen && known.to == heads) {
            return known.event.clone();
        }
        let event = self.found_since(document, place, heads, seen);
        self.since = Some(Since {
            from: seen.to_vec(),
            to: heads.to_vec(),
            event: event.clone(),
        });
        event
    }

    fn found_since(
        &mut self,
        document: &Automerge,
        place: &Place,
        heads: &[ChangeHash],
        seen: &[ChangeHash],
    ) -> Option<Arc<Event>> {
        let there = place.path.value(document, Some(seen)).ok().flatten();
        let there = there.map(|there| json::read(document, &there, Some(seen), place.types));
        let there = there.and_then(Result::ok);
        match (there, self.watched.json()) {
            (None, None) => None,
            (Some(before), Some(now)) => {
                let search = Search::at_most(DIFF_TIME);
                let operations = json::diff(&before, now, place.types, search);
                let patch = (Kind::Patch, written(&operations));
                (!operations.is_empty()).then(|| self.event(heads, patch))
            }
            _ => Some(self.value(heads)),
        }
    }

    fn event(&mut self, heads: &[ChangeHash], (kind, data): (Kind, Vec<u8>)) -> Arc<Event> {
        let data = if data.len() > LONG_BYTES {
            Bytes::from_owner(Long::new(data, Arc::clone(&self.told)))
        } else {
            data.into()
        };
        let heads = heads.to_vec();
        Arc::new(Event { heads, kind, data })
    }

    fn weigh(&mut self) {
        self.bytes = self.watched.json().map_or(0, weight);
        self.changed = 0;
    }
}

/// The bytes of a long event, and of each piece of it, wherever they are: counted until nobody has them any more.
struct Long {
    data: Vec<u8>,
    told: Arc<AtomicUsize>,
}

impl Long {
    fn new(data: Vec<u8>, told: Arc<AtomicUsize>) -> Self {
        told.fetch_add(data.len(), Ordering::Relaxed);
        Self { data, told }
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        self.told.fetch_sub(self.data.len(), Ordering::Relaxed);
    }
}

impl AsRef<[u8]> for Long {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// JSON is always written.
fn written(data: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(data).unwrap_or_default()
}

/// Bytes of memory that a value takes, roughly.
fn weight(json: &Json) -> usize {
    let below = match json {
        Json::Null | Json::Bool(_) | Json::Number(_) => 0,
        Json::String(text) => text.len(),
        Json::Array(values) => values.iter().map(weight).sum(),
        Json::Object(object) => object
            .iter()
            .map(|(key, value)| key.len() + BYTES_PER_ENTRY + weight(value))
            .sum(),
    };
    below.saturating_add(size_of::<Json>())
}

fn heads(document: &Automerge) -> Vec<ChangeHash> {
    let mut heads = document.get_heads();
    heads.sort_unstable();
    heads
}

#[cfg(test)]
mod tests {
    use automerge::ROOT;
    use automerge::transaction::Transactable as _;

    use super::*;

    fn place(key: &str) -> Place {
        Place {
            path: Path::root().with(key),
            types: Types::Plain,
        }
    }

    /// Whoever comes back is told the difference; but not all who come at once, while others wait.
    #[test]
    fn what_happened_since_is_looked_for_only_so_long() {
        let mut document = Automerge::new();
        let mut put = |n: i64| {
            let mut tx = document.transaction();
            tx.put(ROOT, "n", n).expect("it is a map");
            tx.commit();
            document.clone()
        };
        let (old, now) = (put(1), put(2));
        let mut watches = Watches::default();
        let kind = |watches: &mut Watches| {
            let (first, _) = watches
                .add(
                    &now,
                    &place("n"),
                    Some(&heads(&old)),
                    Arc::new(Account::unlimited()),
                )
                .expect("there is room");
            first.expect("it changed").kind
        };
        assert_eq!(kind(&mut watches), Kind::Patch);
        watches.searched = SINCE_TIME;
        assert_eq!(kind(&mut watches), Kind::Value);
        watches.step(&now, &mut News::new());
        assert_eq!(kind(&mut watches), Kind::Value, "it is the same batch");
        watches.end_batch();
        assert_eq!(kind(&mut watches), Kind::Patch);
    }

    #[test]
    fn one_caller_leaves_places_to_others() {
        let document = Automerge::new();
        let mut watches = Watches::default();
        let mut has = Vec::new();
        let mut watch = |n: usize, who: &Watcher| {
            let place = place(&n.to_string());
            let added = watches.add(&document, &place, None, Arc::clone(who));
            added.map(|(_, events)| has.push(events))
        };
        let [one, other, third] = [(); 3].map(|()| Arc::new(Account::unlimited()));
        for n in 0..PLACES_PER_CALLER {
            assert_eq!(watch(n, &one), Ok(()));
        }
        assert_eq!(watch(64, &one), Err(TooManyPlaces));
        // What is watched already is, and what somebody else watches, too, is not theirs alone.
        assert_eq!(watch(0, &one), Ok(()));
        assert_eq!(watch(0, &other), Ok(()));
        assert_eq!(watch(64, &one), Ok(()));
        for n in 65..65 + PLACES_PER_DOCUMENT - PLACES_PER_CALLER - 1 {
            assert_eq!(watch(n, &other), Ok(()));
        }
        assert_eq!(watch(1000, &third), Err(TooManyPlaces));
    }

    #[test]
    fn the_values_that_are_watched_are_bounded_together() {
        let mut document = Automerge::new();
        let mut tx = document.transaction();
        for key in ["a", "b", "c", "d"] {
            let text = "x".repeat(BYTES_PER_DOCUMENT / 2);
            tx.put(ROOT, key, text).expect("it is a map");
        }
        tx.commit();
        let mut watches = Watches::default();
        let mut readers = Vec::new();
        let mut watch = |key| {
            let added = watches.add(&document, &place(key), None, Arc::new(Account::unlimited()));
            added.map(|(_, events)| readers.push(events))
        };
        assert_eq!(watch("a"), Ok(()));
        assert_eq!(watch("b"), Ok(()));
        assert_eq!(watch("c"), Err(TooManyPlaces));
        assert_eq!(watch("a"), Ok(()), "it is there already");
    }
}
