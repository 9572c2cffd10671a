//! When the database is written anew.

use std::time::Duration;

use tokio::time::Instant;

/// From the end of one to the beginning of the next at least, where nobody waits for it.
const BETWEEN: Duration = Duration::from_hours(24);

/// From the end of one to the beginning of the next, in the time that it took: whoever deletes one document after the
/// other, each to be erased at once, has the disk for a tenth of the time.
const REST: u32 = 9;

/// After one that failed: what it lacks, room as a rule, is not there in a moment.
const RETRY: Duration = Duration::from_mins(10);

/// How soon the database is to be written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    Nothing,
    /// Something was purged because its time had come.
    Sometime,
    /// Somebody asked for it.
    Soon,
}

/// When the next one may begin. At first at once: what is found when the server starts may be what somebody asked for.
#[derive(Debug, Default)]
pub(super) struct Pace {
    sometime: Option<Instant>,
    soon: Option<Instant>,
}

impl Pace {
    /// When what is wished for is due.
    pub(super) fn due(&self, wish: Wish, now: Instant) -> Option<Instant> {
        let earliest = match wish {
            Wish::Nothing => return None,
            Wish::Sometime => self.sometime,
            Wish::Soon => self.soon,
        };
        Some(earliest.unwrap_or(now))
    }

    /// One ended, or failed, that took so long.
    pub(super) fn ended(&mut self, is_done: bool, started: Instant, took: Duration) {
        let rested = started + took + took * REST;
        if is_done {
            self.soon = Some(rested);
            self.sometime = Some(rested.max(started + took + BETWEEN));
        } else {
            self.soon = Some(rested.max(started + took + RETRY));
            self.sometime = self.soon;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_waits_for_a_rest_and_others_for_a_day() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut pace = Pace::default();
        assert_eq!(pace.due(Wish::Nothing, now), None);
        assert_eq!(pace.due(Wish::Sometime, now), Some(now));
        assert_eq!(pace.due(Wish::Soon, now), Some(now));
        pace.ended(true, now, second);
        assert_eq!(pace.due(Wish::Soon, now), Some(now + 10 * second));
        let day = now + second + BETWEEN;
        assert_eq!(pace.due(Wish::Sometime, now), Some(day));
        // One that takes hours has hours of rest, and one that takes a night more than a day.
        pace.ended(true, now, 3600 * 9 * second);
        assert_eq!(pace.due(Wish::Soon, now), Some(now + 36000 * 9 * second));
        assert_eq!(pace.due(Wish::Sometime, now), pace.due(Wish::Soon, now));
        pace.ended(false, now, second);
        let later = now + second + RETRY;
        assert_eq!(pace.due(Wish::Soon, now), Some(later));
        assert_eq!(pace.due(Wish::Sometime, now), Some(later));
        assert!(Wish::Soon > Wish::Sometime && Wish::Sometime > Wish::Nothing);
    }
}
