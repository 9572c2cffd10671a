//! Who is refused changes again and again waits before joining anew.
//!
//! A client whose change is refused is told so and disconnected, reconnects by itself, and mostly sends the
//! same again: a stock automerge-repo client every 5 s, for ever, and each time the change is decoded,
//! refused, counted and logged. Here refusals are counted per principal ([`Who`]). The first few cost
//! nothing, since a client with a bug should hear of it; each further one makes new connections wait for
//! twice as long as the last. Connections that are open are never touched: other tabs do not notice.
//!
//! Pure: the time is an argument.
//!
//! # What a shared address means
//!
//! As long as nobody has to say who they are, principals are told apart by address, and behind one
//! address (NAT, or a proxy that does not say for whom it asks) may be many. One of them who sends what is
//! refused then delays the others' new connections, whether by a bug or on purpose. So a hold never
//! grows while it lasts, and after each the door is open for [`OPEN_AFTER_HOLD`], whatever was refused
//! meanwhile: whoever tries every 5 s is in after about [`MAX_HOLD`]. That is all that an attacker gains
//! over neighbours. What he keeps is a seventh of the time in which to be refused, and whatever he can
//! do from other addresses.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use concord_shared::ids::PrincipalId;

/// Refusals of a principal that cost it nothing, until it was quiet for [`FORGOTTEN_AFTER`]: some tabs
/// with the same bad change, or half a minute of a stock client that tries every 5 s.
pub const FREE_REFUSALS: u32 = 5;

/// How long new connections wait after the first refusal that is not free; after each further one for
/// twice as long.
pub const FIRST_HOLD: Duration = Duration::from_secs(1);

/// The longest that they wait: a change that is refused is decoded about once a minute then, and whoever
/// has mended their client, or has the misfortune to share an address, is in after a minute.
pub const MAX_HOLD: Duration = Duration::from_mins(1);

/// No hold begins sooner than this after the last one has ended. Longer than the 5 s after which stock
/// clients try again, and the time that connecting takes.
pub const OPEN_AFTER_HOLD: Duration = Duration::from_secs(10);

/// After this long without a refusal a principal has a clean slate. It is longer than any hold, or who
/// waits would be forgotten for it.
pub const FORGOTTEN_AFTER: Duration = Duration::from_mins(5);

/// Principals that are remembered, at about 200 bytes each. When they are all taken, the one that was
/// quiet for longest goes, which is the next to be forgotten anyway: who has so many addresses that this
/// helps could as well use a fresh one each time.
pub const MOST_PRINCIPALS: usize = 4096;

/// Refused changes of one principal that are logged in [`LOG_PERIOD`]; the next line says how many were
/// not. Holds do not bound them: somebody may first open all connections that there are, and then be
/// refused on each. It is more than refusals come one by one.
pub const LOGGED_REFUSALS_PER_PERIOD: u32 = 20;

/// See [`LOGGED_REFUSALS_PER_PERIOD`].
pub const LOG_PERIOD: Duration = Duration::from_mins(1);

const _: () = assert!(
    FORGOTTEN_AFTER.as_secs() > OPEN_AFTER_HOLD.as_secs() + MAX_HOLD.as_secs(),
    "no hold outlasts its record"
);

/// Whom refusals are counted for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// Somebody who said who they are.
    Principal(PrincipalId),
    /// Anybody at this address. Of an IPv6 address only the network, since a host can have any in it.
    Address(IpAddr),
}

impl Who {
    /// The anonymous principal is told apart by address.
    pub fn new(principal: &PrincipalId, address: IpAddr) -> Self {
        if *principal == PrincipalId::anonymous() {
            Self::Address(network(address))
        } else {
            Self::Principal(principal.clone())
        }
    }
}

/// What one household or host gets: an IPv4 address, or an IPv6 /64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// What a refusal led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Whether it is to be logged.
    pub is_logged: bool,
    /// If so, how many before it were not.
    pub unlogged: u64,
    /// The hold that is on, or will be: how long it lasts in all. Zero if there is none.
    pub hold: Duration,
}

/// See the module's docs. One for all connections: [`refused`](Self::refused) when a change was,
/// [`held`](Self::held) when somebody wants to join.
#[derive(Debug, Default)]
pub struct Backoff {
    records: Mutex<HashMap<Who, Record>>,
}

#[derive(Debug)]
struct Record {
    refused: u32,
    last: Instant,
    /// The last hold, or the next one.
    hold: Option<Range<Instant>>,
    logged: u32,
    logged_since: Instant,
    unlogged: u64,
}

impl Backoff {
    /// A change was refused.
    pub fn refused(&self, who: &Who, now: Instant) -> Counted {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.get(who).is_some_and(|record| record.is_old(now)) {
            records.remove(who);
        }
        if !records.contains_key(who) && records.len() >= MOST_PRINCIPALS {
            make_room(&mut records, now);
        }
        let record = records
            .entry(who.clone())
            .or_insert_with(|| Record::new(now));
        record.refused = record.refused.saturating_add(1);
        record.last = now;
        record.hold_off(now);
        record.count_line(now)
    }

    /// How much longer somebody who wants to join has to wait, if they have to.
    pub fn held(&self, who: &Who, now: Instant) -> Option<Duration> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let hold = records.get(who)?.hold.as_ref()?;
        hold.contains(&now).then(|| hold.end - now)
    }
}

fn make_room(records: &mut HashMap<Who, Record>, now: Instant) {
    records.retain(|_, record| !record.is_old(now));
    if records.len() < MOST_PRINCIPALS {
        return;
    }
    let quietest = records.iter().min_by_key(|(_, record)| record.last);
    if let Some(who) = quietest.map(|(who, _)| who.clone()) {
        records.remove(&who);
    }
}

impl Record {
    fn new(now: Instant) -> Self {
        Self {
            refused: 0,
            last: now,
            hold: None,
            logged: 0,
            logged_since: now,
            unlogged: 0,
        }
    }

    fn is_old(&self, now: Instant) -> bool {
        now.duration_since(self.last) >= FORGOTTEN_AFTER
    }

    fn hold_off(&mut self, now: Instant) {
        let Some(doublings) = self.refused.checked_sub(FREE_REFUSALS + 1) else {
            return;
        };
        let length = FIRST_HOLD
            .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .min(MAX_HOLD);
        let start = match &self.hold {
            Some(hold) if hold.contains(&now) => return,
            Some(hold) if now < hold.start => hold.start,
            Some(hold) => now.max(hold.end + OPEN_AFTER_HOLD),
            None => now,
        };
        self.hold = Some(start..start + length);
    }

    fn count_line(&mut self, now: Instant) -> Counted {
        if now.duration_since(self.logged_since) >= LOG_PERIOD {
            self.logged_since = now;
            self.logged = 0;
        }
        let hold = match &self.hold {
            Some(hold) if now < hold.end => hold.end - hold.start,
            _ => Duration::ZERO,
        };
        let is_logged = self.logged < LOGGED_REFUSALS_PER_PERIOD;
        let unlogged = if is_logged {
            self.logged += 1;
            std::mem::take(&mut self.unlogged)
        } else {
            self.unlogged += 1;
            0
        };
        Counted {
            is_logged,
            unlogged,
            hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOCK_CLIENT_RETRY: Duration = Duration::from_secs(5);

    fn at(last: u8) -> Who {
        Who::new(&PrincipalId::anonymous(), [192, 0, 2, last].into())
    }

    /// Refused until the next refusal is not free.
    fn with_free_ones_used(now: Instant) -> Backoff {
        let backoff = Backoff::default();
        for _ in 0..FREE_REFUSALS {
            backoff.refused(&at(1), now);
        }
        backoff
    }

    #[test]
    fn the_first_few_cost_nothing_and_the_next_one_does() {
        let now = Instant::now();
        let backoff = with_free_ones_used(now);
        assert_eq!(backoff.held(&at(1), now), None);
        assert_eq!(backoff.refused(&at(1), now).hold, FIRST_HOLD);
        assert_eq!(backoff.held(&at(1), now), Some(FIRST_HOLD));
        assert_eq!(backoff.held(&at(2), now), None);
        assert_eq!(backoff.held(&at(1), now + FIRST_HOLD), None);
    }

    #[test]
    fn each_hold_is_twice_as_long_up_to_a_bound() {
        let mut now = Instant::now();
        let backoff = with_free_ones_used(now);
        let mut holds = Vec::new();
        for _ in 0..40 {
            let hold = backoff.refused(&at(1), now).hold;
            assert_eq!(backoff.held(&at(1), now), Some(hold));
            holds.push(hold.as_secs());
            now += hold + OPEN_AFTER_HOLD;
        }
        assert_eq!(holds[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(holds[39], 60);
    }

    #[test]
    fn it_is_forgotten_after_a_quiet_time_and_not_before() {
        let now = Instant::now();
        for (quiet, is_forgotten) in [
            (FORGOTTEN_AFTER, true),
            (FORGOTTEN_AFTER.saturating_sub(FIRST_HOLD), false),
        ] {
            let backoff = with_free_ones_used(now);
            let later = now + quiet;
            backoff.refused(&at(1), later);
            assert_eq!(backoff.held(&at(1), later).is_none(), is_forgotten);
        }
    }

    #[test]
    fn a_hold_does_not_grow_while_it_lasts_nor_follow_the_last_one_at_once() {
        let start = Instant::now();
        let backoff = with_free_ones_used(start);
        backoff.refused(&at(1), start);
        // By somebody who has a thousand connections open, and is refused all the time.
        let mut longest_hold = Duration::ZERO;
        let mut shortest_open = OPEN_AFTER_HOLD;
        let mut since = start;
        let mut was_held = true;
        for tenths in 0..6000 {
            let now = start + Duration::from_millis(100 * tenths);
            let is_held = backoff.held(&at(1), now).is_some();
            if is_held != was_held {
                let lasted = now - since;
                if was_held {
                    longest_hold = longest_hold.max(lasted);
                } else {
                    shortest_open = shortest_open.min(lasted);
                }
                (since, was_held) = (now, is_held);
            }
            backoff.refused(&at(1), now);
        }
        assert_eq!(longest_hold, MAX_HOLD);
        assert_eq!(shortest_open, OPEN_AFTER_HOLD);
    }

    #[test]
    fn a_stock_client_that_is_refused_each_time_is_soon_let_in_about_twice_a_minute() {
        let start = Instant::now();
        let backoff = Backoff::default();
        let mut refused_at = Vec::new();
        for n in 0..720 {
            let now = start + n * STOCK_CLIENT_RETRY;
            if backoff.held(&at(1), now).is_none() {
                backoff.refused(&at(1), now);
                refused_at.push(now - start);
            }
        }
        // Told again and again at first …
        let in_first_minute = refused_at.iter().filter(|at| at.as_secs() < 60);
        assert!(in_first_minute.count() >= 6);
        // … and then no more than twice for each hold.
        let after_five_minutes = refused_at.iter().filter(|at| at.as_secs() >= 300);
        let count = after_five_minutes.count();
        assert!(
            (45..=2 * 48).contains(&count),
            "{count} times in 55 minutes"
        );
    }

    #[test]
    fn it_remembers_so_many_and_drops_the_quietest() {
        let now = Instant::now();
        let backoff = Backoff::default();
        let many = |n: usize| Who::Principal(PrincipalId::new(&n.to_string()).expect("an id"));
        for n in 0..MOST_PRINCIPALS {
            let at = now + Duration::from_millis(n as u64);
            for _ in 0..=FREE_REFUSALS {
                backoff.refused(&many(n), at);
            }
        }
        let later = now + Duration::from_millis(MOST_PRINCIPALS as u64);
        // Heard of again, so no longer the quietest.
        backoff.refused(&many(0), later);
        backoff.refused(&at(1), later);
        let records = backoff.records.lock().expect("nobody panicked");
        assert_eq!(records.len(), MOST_PRINCIPALS);
        assert!(records.contains_key(&many(0)));
        assert!(!records.contains_key(&many(1)));
        assert!(records.contains_key(&many(2)));
        assert!(records.contains_key(&at(1)));
    }

    #[test]
    fn who_is_forgotten_makes_room_first() {
        let now = Instant::now();
        let backoff = Backoff::default();
        for n in 0..MOST_PRINCIPALS {
            let who = Who::Principal(PrincipalId::new(&n.to_string()).expect("an id"));
            backoff.refused(&who, now);
        }
        backoff.refused(&at(1), now + FORGOTTEN_AFTER);
        assert_eq!(backoff.records.lock().expect("nobody panicked").len(), 1);
    }

    #[test]
    fn so_many_lines_are_logged_and_the_next_says_how_many_were_not() {
        let now = Instant::now();
        let backoff = Backoff::default();
        let unlogged = 1000;
        let all = u64::from(LOGGED_REFUSALS_PER_PERIOD) + unlogged;
        let lines = (0..all).filter(|_| backoff.refused(&at(1), now).is_logged);
        assert_eq!(lines.count(), LOGGED_REFUSALS_PER_PERIOD as usize);
        assert!(backoff.refused(&at(2), now).is_logged);
        let next = backoff.refused(&at(1), now + LOG_PERIOD);
        assert_eq!((next.is_logged, next.unlogged), (true, unlogged));
        let next = backoff.refused(&at(1), now + LOG_PERIOD);
        assert_eq!((next.is_logged, next.unlogged), (true, 0));
    }

    #[test]
    fn the_anonymous_are_told_apart_by_address_and_others_by_name() {
        let nobody = PrincipalId::anonymous();
        let ann = PrincipalId::new("ann").expect("an id");
        let who = |principal, address: &str| Who::new(principal, address.parse().expect("one"));
        assert_ne!(who(&nobody, "192.0.2.1"), who(&nobody, "192.0.2.2"));
        assert_eq!(who(&nobody, "192.0.2.1"), who(&nobody, "::ffff:192.0.2.1"));
        assert_eq!(
            who(&nobody, "2001:db8:1:2:3::4"),
            who(&nobody, "2001:db8:1:2:5::6")
        );
        assert_ne!(
            who(&nobody, "2001:db8:1:2::1"),
            who(&nobody, "2001:db8:1:3::1")
        );
        assert_eq!(who(&ann, "192.0.2.1"), who(&ann, "192.0.2.2"));
        assert_ne!(who(&ann, "192.0.2.1"), who(&nobody, "192.0.2.1"));
    }
}
