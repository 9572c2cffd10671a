//! The keys that are believed now, of sources that change while the server runs.
//!
//! Pure: what happens, and when, are arguments; what is to be read is returned. [`live`] does the reading, [`source`]
//! knows how.
//!
//! Two things make a source be read: time, and a token that names a key which is not known. The latter is what strangers
//! can send as much of as they like, so each source has a least time between two readings, and one at a time.
//!
//! A source that can't be read keeps the keys it had, for [`Pace::believed`] at most. One that can be has those alone that
//! it has now.

use std::time::{Duration, Instant};

use super::keys::{KeyError, KeySet};
use source::SourceError;

pub mod live;
pub mod source;

/// When sources are read, and who waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From one reading of a file to the next.
    pub file: Duration,
    /// The same of an address, where its answer does not say how long it may be kept.
    pub url: Duration,
    /// And where it does, at least…
    pub url_least: Duration,
    /// …and at most. So long a key that was taken out of a set may be believed.
    pub url_most: Duration,
    /// After an address that could not be fetched.
    pub retry: Duration,
    /// From one reading of a file to the next that an unknown key may bring about.
    pub file_gap: Duration,
    /// The same of an address.
    pub url_gap: Duration,
    /// Until a fetch has its answer, all of it.
    pub fetch: Duration,
    /// How long keys are believed whose source can't be read.
    pub believed: Duration,
    /// How long a request with an unknown key waits for what is being read.
    pub wait: Duration,
    /// Requests that wait so at a time, per server. Others are refused at once.
    pub most_waiting: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            file: Duration::from_secs(30),
            url: Duration::from_mins(10),
            url_least: Duration::from_mins(1),
            url_most: Duration::from_hours(1),
            retry: Duration::from_mins(1),
            file_gap: Duration::from_secs(1),
            url_gap: Duration::from_secs(30),
            fetch: Duration::from_secs(10),
            believed: Duration::from_hours(24),
            wait: Duration::from_secs(3),
            most_waiting: 64,
        }
    }
}

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On this machine.
    File,
    /// Fetched from somewhere.
    Url,
}

/// What a source has now.
#[derive(Debug, Clone, Default)]
pub struct Fresh {
    /// All of its keys.
    pub keys: KeySet,
    /// How long they may be kept, if it says that.
    pub max_age: Option<Duration>,
}

/// What came of a reading, to be told.
#[derive(Debug)]
pub enum Outcome {
    /// The source's keys are those that it has now.
    Read {
        /// Whether it could not be read before.
        was_failing: bool,
    },
    /// Its keys are those that it had.
    Failed {
        /// Why.
        error: SourceError,
        /// Whether it could be read before.
        is_first: bool,
    },
}

#[derive(Debug)]
struct Slot {
    kind: Kind,
    keys: KeySet,
    /// When the keys came.
    read_at: Option<Instant>,
    /// When the last reading began.
    asked_at: Option<Instant>,
    /// When the next one begins.
    due_at: Instant,
    is_reading: bool,
    is_failing: bool,
}

impl Slot {
    /// When its keys are not believed any more.
    fn ends_at(&self, pace: &Pace) -> Option<Instant> {
        let read_at = self.read_at.filter(|_| !self.keys.is_empty())?;
        Some(read_at + pace.believed)
    }
}

/// See the module's docs. Sources are called by their number.
///
/// The driver takes what is [`due`](Self::due), reads it, and tells what came of it ([`done`](Self::done)); it comes back at
/// [`wake_at`](Self::wake_at), and whenever [`unknown_key`](Self::unknown_key) was called, which anybody may.
#[derive(Debug)]
pub struct Keyring {
    fixed: KeySet,
    slots: Vec<Slot>,
    pace: Pace,
}

impl Keyring {
    /// Keys that stay, and sources, all of which are due.
    pub fn new(
        fixed: KeySet,
        sources: impl IntoIterator<Item = Kind>,
        pace: Pace,
        now: Instant,
    ) -> Self {
        let slots = sources.into_iter().map(|kind| Slot {
            kind,
            keys: KeySet::default(),
            read_at: None,
            asked_at: None,
            due_at: now,
            is_reading: false,
            is_failing: false,
        });
        Self {
            fixed,
            slots: slots.collect(),
            pace,
        }
    }

    /// All that are believed.
    pub fn keys(&self) -> Result<KeySet, KeyError> {
        let mut keys = self.fixed.clone();
        for slot in &self.slots {
            keys.extend(slot.keys.clone())?;
        }
        Ok(keys)
    }

    /// The sources that are to be read now.
    pub fn due(&mut self, now: Instant) -> Vec<usize> {
        let mut due = Vec::new();
        for (nth, slot) in self.slots.iter_mut().enumerate() {
            if !slot.is_reading && slot.due_at <= now {
                slot.is_reading = true;
                slot.asked_at = Some(now);
                due.push(nth);
            }
        }
        due
    }

    /// When something is to be done, if no reading ends before.
    pub fn wake_at(&self) -> Option<Instant> {
        let slots = self.slots.iter();
        let times = slots.flat_map(|slot| {
            let due_at = (!slot.is_reading).then_some(slot.due_at);
            [due_at, slot.ends_at(&self.pace)]
        });
        times.flatten().min()
    }

    /// Somebody named a key that is not known.
    pub fn unknown_key(&mut self, now: Instant) {
        for slot in &mut self.slots {
            let gap = match slot.kind {
                Kind::File => self.pace.file_gap,
                Kind::Url => self.pace.url_gap,
            };
            let may_be = |asked_at: Instant| now.saturating_duration_since(asked_at) >= gap;
            if !slot.is_reading && slot.asked_at.is_none_or(may_be) {
                slot.due_at = slot.due_at.min(now);
            }
        }
    }

    /// Whether a source is being read, or is to be: so that it is worth waiting.
    pub fn is_looking(&self, now: Instant) -> bool {
        let mut slots = self.slots.iter();
        slots.any(|slot| slot.is_reading || slot.due_at <= now)
    }

    /// What came of reading a source.
    pub fn done(
        &mut self,
        nth: usize,
        now: Instant,
        read: Result<Fresh, SourceError>,
    ) -> Option<Outcome> {
        let read = match read {
            // That there is none is said clearly, and so believed.
            Err(SourceError::Keys(KeyError::None)) => Ok(Fresh::default()),
            read => read,
        };
        let read = read.and_then(|fresh| {
            let max_age = fresh.max_age;
            self.replace(nth, fresh.keys)?;
            Ok(max_age)
        });
        let pace = self.pace;
        let slot = self.slots.get_mut(nth)?;
        slot.is_reading = false;
        let pause = match (slot.kind, &read) {
            (Kind::File, _) => pace.file,
            (Kind::Url, Err(_)) => pace.retry,
            (Kind::Url, Ok(max_age)) => max_age
                .unwrap_or(pace.url)
                .clamp(pace.url_least, pace.url_most),
        };
        slot.due_at = now + pause;
        let was_failing = std::mem::replace(&mut slot.is_failing, read.is_err());
        Some(match read {
            Ok(_) => {
                slot.read_at = Some(now);
                Outcome::Read { was_failing }
            }
            Err(error) => Outcome::Failed {
                error,
                is_first: !was_failing,
            },
        })
    }

    /// Takes a source's keys for those that it had, if all together are not too many.
    fn replace(&mut self, nth: usize, keys: KeySet) -> Result<(), KeyError> {
        let Some(slot) = self.slots.get_mut(nth) else {
            return Ok(());
        };
        let before = std::mem::replace(&mut slot.keys, keys);
        let together = self.keys();
        if together.is_err()
            && let Some(slot) = self.slots.get_mut(nth)
        {
            slot.keys = before;
        }
        together.map(drop)
    }

    /// Gives up keys that could not be read anew for too long. Whose.
    pub fn give_up(&mut self, now: Instant) -> Vec<usize> {
        let mut given_up = Vec::new();
        for (nth, slot) in self.slots.iter_mut().enumerate() {
            if slot.ends_at(&self.pace).is_some_and(|end| end <= now) {
                slot.keys = KeySet::default();
                given_up.push(nth);
            }
        }
        given_up
    }
}

#[cfg(test)]
mod tests;
