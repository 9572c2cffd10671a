//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// Exponential backoff with full jitter: the wait is uniform between nothing and a ceiling that doubles
/// with every failure, so that the tabs a restarted server dropped together do not return together.
///
/// Randomness is an argument, so a simulation stays reproducible.
///
/// ```
/// use concord_client_wasm::Backoff;
/// use std::time::Duration;
///
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
/// assert!(backoff.next(u64::MAX, None) <= Duration::from_millis(100));
/// assert!(backoff.next(u64::MAX, None) <= Duration::from_millis(200));
/// // The server asked for two seconds: never earlier than that.
/// assert!(backoff.next(0, Some(Duration::from_secs(2))) >= Duration::from_secs(2));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// The first wait is below `base`, none is above `cap` unless the server asks for more.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            failures: 0,
        }
    }

    /// The wait before the next attempt. `random` is uniform over all of `u64`. A delay `suggested` by the
    /// server is the least wait; the jitter comes on top of it, since every client got the same one.
    pub fn next(&mut self, random: u64, suggested: Option<Duration>) -> Duration {
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let ceiling = self.base.saturating_mul(factor).min(self.cap);
        self.failures = self.failures.saturating_add(1);
        suggested
            .unwrap_or_default()
            .saturating_add(share(ceiling, random))
    }

    /// To be called when a connection has proved itself (the server answered the handshake).
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The fraction `random / 2^64` of `whole`.
fn share(whole: Duration, random: u64) -> Duration {
    let nanos = (whole.as_nanos().min(u128::from(u64::MAX)) * u128::from(random)) >> 64;
    // Below 2^64 since both factors are, after the shift.
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: Duration = Duration::from_millis(250);
    const CAP: Duration = Duration::from_secs(20);

    #[test]
    fn grows_to_the_cap_and_starts_over_after_a_success() {
        let mut backoff = Backoff::new(BASE, CAP);
        let waits: Vec<_> = (0..40).map(|_| backoff.next(u64::MAX, None)).collect();
        assert!(waits.is_sorted());
        assert!(waits[1] > BASE && waits[39] <= CAP && waits[39] > CAP * 99 / 100);
        backoff.reset();
        assert!(backoff.next(u64::MAX, None) <= BASE);
    }

    #[test]
    fn jitter_is_full() {
        let mut backoff = Backoff::new(BASE, CAP);
        assert_eq!(backoff.next(0, None), Duration::ZERO);
        let half = Backoff::new(BASE, CAP).next(1 << 63, None);
        assert_eq!(half, BASE / 2);
    }

    proptest! {
        #[test]
        fn never_before_what_the_server_asked(failures in 0u32..100, random: u64, asked_ms in 0u64..100_000) {
            let asked = Duration::from_millis(asked_ms);
            let mut backoff = Backoff::new(BASE, CAP);
            for _ in 0..failures {
                backoff.next(random, None);
            }
            let wait = backoff.next(random, Some(asked));
            prop_assert!(wait >= asked && wait <= asked + CAP);
        }
    }
}
