//! So many in a period, and as many as come in [`BURST_PERIODS`] at once by whoever was quiet: a token bucket, by
//! [`governor`], which keeps it in one atomic number.
//!
//! Honest use comes in bursts: a tab that was offline, an import, a team that reconnects after a restart. Abuse lasts. So
//! the bucket is deep, and fills slowly.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

/// Periods whose due one may have at once: a minute's, of what is limited by the second.
pub const BURST_PERIODS: u32 = 60;

/// The largest number of a [`Rate`]: as many as fit.
pub const MOST_PER_PERIOD: u64 = (u32::MAX / BURST_PERIODS) as u64;

/// How fast something may come for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    quota: Quota,
}

impl Rate {
    /// So many in each period. None of none: that is no limit.
    pub fn new(number: u64, period: Duration) -> Option<Self> {
        let number = u32::try_from(number.min(MOST_PER_PERIOD)).ok()?;
        let burst = NonZeroU32::new(number.saturating_mul(BURST_PERIODS))?;
        let quota = Quota::with_period(period.checked_div(number)?)?;
        Some(Self {
            quota: quota.allow_burst(burst),
        })
    }

    /// So many times as much.
    #[must_use]
    pub fn times(self, times: NonZeroU32) -> Self {
        let burst = self.quota.burst_size().saturating_mul(times);
        let interval = self.quota.replenish_interval() / times.get();
        let quota = Quota::with_period(interval).unwrap_or(self.quota);
        Self {
            quota: quota.allow_burst(burst),
        }
    }
}

/// See the module's docs.
pub struct Bucket<C: Clock = MonotonicClock> {
    limiter: Option<RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<C::Instant>>>,
    burst: u64,
    /// Whoever waits first is first. Else all would wake for what is enough for one.
    queue: Mutex<()>,
    /// How many wait, or are about to.
    waiting: AtomicUsize,
}

/// Counts one who waits, for as long as they do.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(all: &'a AtomicUsize) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(all)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// It would have taken too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late;

impl Bucket {
    /// Full. Without a rate everything passes.
    pub fn new(rate: Option<Rate>) -> Self {
        Self::with_clock(rate, MonotonicClock)
    }
}

impl<C: Clock> Bucket<C> {
    fn with_clock(rate: Option<Rate>, clock: C) -> Self {
        Self {
            limiter: rate.map(|rate| RateLimiter::direct_with_clock(rate.quota, clock)),
            burst: rate.map_or(0, |rate| rate.quota.burst_size().get().into()),
            queue: Mutex::const_new(()),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Takes so many, or says how long it will be until they are there. Who wants more than there can ever be takes all.
    pub fn take(&self, number: u64) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        let number = u32::try_from(number.min(self.burst)).unwrap_or(u32::MAX);
        let Some(number) = NonZeroU32::new(number) else {
            return Ok(());
        };
        match limiter.check_n(number) {
            Ok(Err(until)) => Err(until.wait_time_from(limiter.clock().now())),
            // More than fit are never asked for.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Takes so many, as soon as they are there and all who waited before have theirs. `late` is called when it is clear
    /// that this takes a while, and an error is returned where it would take longer than `most`.
    pub async fn wait(&self, number: u64, most: Duration, late: impl FnOnce()) -> Result<(), Late> {
        if self.limiter.is_none() {
            return Ok(());
        }
        // Without the queue: a thousand connections of one caller, each of which finds it held for a moment by another,
        // would all wait behind each other from then on, though there is enough for all.
        if self.waiting.load(Ordering::Relaxed) == 0 && self.take(number).is_ok() {
            return Ok(());
        }
        late();
        let _waiting = Waiting::new(&self.waiting);
        let turn = async {
            let _turn = self.queue.lock().await;
            while let Err(wait) = self.take(number) {
                sleep(wait).await;
            }
        };
        timeout(most, turn).await.map_err(|_| Late)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn bucket(number: u64, period: Duration) -> (Bucket<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        // Nothing in it is before the beginning.
        clock.advance(SECOND);
        let bucket = Bucket::with_clock(Rate::new(number, period), clock.clone());
        (bucket, clock)
    }

    #[test]
    fn a_burst_passes_and_then_what_is_due() {
        let (bucket, clock) = bucket(10, SECOND);
        assert_eq!(bucket.take(600), Ok(()));
        assert_eq!(bucket.take(1), Err(SECOND / 10));
        assert_eq!(bucket.take(10), Err(SECOND));
        clock.advance(SECOND / 2);
        assert_eq!(bucket.take(5), Ok(()));
        assert!(bucket.take(1).is_err());
        // It is not fuller than full, however long nothing came.
        clock.advance(Duration::from_hours(1));
        assert_eq!(bucket.take(600), Ok(()));
        assert!(bucket.take(1).is_err());
    }

    #[test]
    fn more_than_there_can_be_is_all() {
        let (bucket, clock) = bucket(10, SECOND);
        assert_eq!(bucket.take(1 << 40), Ok(()));
        assert!(bucket.take(1).is_err());
        clock.advance(60 * SECOND);
        assert_eq!(bucket.take(601), Ok(()));
        assert_eq!(bucket.take(0), Ok(()));
    }

    #[test]
    fn none_is_no_limit_and_the_largest_fits() {
        assert_eq!(Rate::new(0, SECOND), None);
        let bucket = Bucket::new(None);
        assert_eq!(bucket.take(u64::MAX), Ok(()));
        for number in [MOST_PER_PERIOD, u64::MAX] {
            let (bucket, _) = self::bucket(number, SECOND);
            assert_eq!(bucket.take(u64::MAX), Ok(()));
            assert!(bucket.take(1).is_err());
        }
    }

    proptest! {
        #[test]
        fn never_more_than_a_burst_and_what_is_due(
            rate in 1_u64..1000,
            tries in prop::collection::vec((0_u64..3000, 0_u64..3000), 1..60),
        ) {
            let (bucket, clock) = bucket(rate, SECOND);
            let (mut passed, mut millis) = (0, 0);
            for (number, pause) in tries {
                let burst = rate * u64::from(BURST_PERIODS);
                if bucket.take(number).is_ok() {
                    passed += number.min(burst);
                } else {
                    // What is told is enough, and not more than needed.
                    let wait = bucket.take(number).unwrap_err();
                    prop_assert!(wait <= SECOND * BURST_PERIODS);
                }
                // A period divided is rounded down, to a nanosecond.
                let due = rate * millis / 1000 + 1 + millis / 1000;
                prop_assert!(passed <= burst + due, "{} in {} ms", passed, millis);
                clock.advance(Duration::from_millis(pause));
                millis += pause;
            }
        }

        #[test]
        fn who_waits_as_long_as_told_gets_it(rate in 1_u64..100_000, number in 1_u64..100_000) {
            let (bucket, clock) = bucket(rate, SECOND);
            prop_assert_eq!(bucket.take(u64::MAX), Ok(()));
            if let Err(wait) = bucket.take(number) {
                clock.advance(wait);
            }
            prop_assert_eq!(bucket.take(number), Ok(()));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn who_need_not_wait_never_does() {
        let bucket = Arc::new(Bucket::new(Rate::new(MOST_PER_PERIOD, SECOND)));
        let late = Arc::new(AtomicBool::new(false));
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (bucket, late) = (Arc::clone(&bucket), Arc::clone(&late));
            all.spawn(async move {
                for _ in 0..20_000 {
                    let is_late = || late.store(true, Ordering::Relaxed);
                    bucket.wait(1, SECOND, is_late).await.expect("in time");
                }
            });
        }
        all.join_all().await;
        assert!(!late.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn who_waits_gets_on_in_turn_and_who_would_wait_too_long_is_told() {
        let bucket = Arc::new(Bucket::new(Rate::new(100, SECOND)));
        bucket.take(u64::MAX).expect("it was full");
        let started = Instant::now();
        let mut waiting = Vec::new();
        for n in 0..10 {
            let bucket = Arc::clone(&bucket);
            waiting.push(tokio::spawn(async move {
                let mut was_late = false;
                bucket.wait(2, 60 * SECOND, || was_late = true).await?;
                Ok::<_, Late>((n, was_late, started.elapsed()))
            }));
            tokio::task::yield_now().await;
        }
        let late = bucket.wait(1, SECOND / 100, || ()).await;
        assert_eq!(late, Err(Late));
        let mut before = Duration::ZERO;
        for (n, waited) in waiting.into_iter().enumerate() {
            let (who, was_late, after) = waited.await.expect("ran").expect("in time");
            assert_eq!((who, was_late), (n, true));
            assert!(after >= before, "{n} was overtaken");
            before = after;
        }
        // Ten times two, at a hundred a second.
        assert!(before >= SECOND / 5, "{before:?}");
    }
}
