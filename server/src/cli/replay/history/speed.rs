//! When each change of a history is due.

use std::str::FromStr;
use std::time::Duration;

use crate::replay::{Recorded, Recording};

/// How fast a history is replayed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Speed {
    /// As fast as it goes.
    #[default]
    Max,
    /// At so many times its own pace; above 0.
    Times(f64),
}

/// Why a text is no speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a speed is max, or a number above 0 and an x: 1x, 10x, 0.5x")]
pub struct SpeedError;

impl FromStr for Speed {
    type Err = SpeedError;

    fn from_str(text: &str) -> Result<Self, SpeedError> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let times = text.strip_suffix('x').ok_or(SpeedError)?;
        let times: f64 = times.parse().map_err(|_not_a_number| SpeedError)?;
        let is_a_pace = times.is_finite() && times > 0.0;
        is_a_pace.then_some(Self::Times(times)).ok_or(SpeedError)
    }
}

impl Speed {
    /// For each change, how long after the first one it is sent; never before one that came before it. Times of arrival
    /// count where there is any, else the times that authors gave. A change without a time is sent with the one before it.
    pub fn schedule(self, recording: &Recording) -> Vec<Duration> {
        let changes = recording.changes();
        let Self::Times(pace) = self else {
            return vec![Duration::ZERO; changes.len()];
        };
        let has_arrivals = changes.iter().any(|change| change.arrived_ms.is_some());
        let time = |change: &Recorded| {
            if has_arrivals {
                change.arrived_ms
            } else {
                change.made_ms().and_then(|time| u64::try_from(time).ok())
            }
        };
        let first = changes.iter().find_map(time).unwrap_or(0);
        let mut latest = 0;
        let due = changes.iter().map(|change| {
            let since = time(change).map_or(0, |time| time.saturating_sub(first));
            latest = latest.max(since);
            let seconds = Duration::from_millis(latest).as_secs_f64() / pace;
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        });
        due.collect()
    }
}

#[cfg(test)]
mod tests {
    use automerge::transaction::{CommitOptions, Transactable as _};
    use automerge::{AutoCommit, ROOT};
    use bytes::Bytes;

    use super::*;
    use crate::replay::Builder;

    fn recording(made: &[i64], arrived: &[Option<u64>]) -> Recording {
        let mut document = AutoCommit::new();
        let mut builder = Builder::new(None);
        for (made, arrived) in made.iter().zip(arrived) {
            document.put(ROOT, "at", *made).unwrap();
            document.commit_with(CommitOptions::default().with_time(*made));
            let mut change = document.get_last_local_change().unwrap();
            let bytes = Bytes::copy_from_slice(change.bytes().as_ref());
            builder.push(&bytes, *arrived, None).unwrap();
        }
        builder.finish().unwrap()
    }

    fn millis(speed: &str, recording: &Recording) -> Vec<u128> {
        let schedule = speed.parse::<Speed>().unwrap().schedule(recording);
        schedule.iter().map(Duration::as_millis).collect()
    }

    #[test]
    fn changes_are_due_by_arrival_or_else_by_their_authors_clocks() {
        let made = [
            1_700_000_000,
            1_700_000_001_000,
            1_699_000_000,
            1_700_000_003,
            0,
        ];
        let by_authors = recording(&made, &[None; 5]);
        assert_eq!(millis("1x", &by_authors), [0, 1000, 1000, 3000, 3000]);
        assert_eq!(millis("10x", &by_authors), [0, 100, 100, 300, 300]);
        assert_eq!(millis("max", &by_authors), [0; 5]);
        let arrived = [None, Some(5000), Some(5200), Some(5100), Some(6000)];
        let by_arrival = recording(&made, &arrived);
        assert_eq!(millis("0.5x", &by_arrival), [0, 0, 400, 400, 2000]);
    }

    #[test]
    fn what_is_no_speed_is_told() {
        for text in ["", "x", "0x", "-1x", "nanx", "infx", "10", "MAX"] {
            assert_eq!(text.parse::<Speed>(), Err(SpeedError), "{text}");
        }
    }
}
