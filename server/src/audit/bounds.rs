//! How much is recorded of whom, so that nobody can fill the disk. Pure: the time is an argument.
//!
//! - What is the same as before is written once, then counted, and the count is written after [`FOLD_MS`].
//! - Of each who asks so many lines are written at once, and then so many a second ([`KNOWN`], [`STRANGER`]). All
//!   who are not let in or not known share one such allowance besides ([`STRANGERS`]), however many addresses they have.
//!   What is left out is counted, and the count is written.
//! - Changes are always written, each: who may do what, and documents that come and go. Each of them is stored besides,
//!   in the document's own log, so the store bounds them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::connection::backoff::Who;

/// For so long what is the same is counted.
pub const FOLD_MS: u64 = 10 * 60 * 1000;

/// Lines that are counted again at a time, per server; beyond it the oldest is written as it is.
pub const MOST_FOLDS: usize = 4096;

/// Those of whom it is known how much they had recorded, per server. Of one who is forgotten more is recorded.
pub const MOST_WHO: usize = 4096;

/// So many lines at once, and then one for each `ms_per_line`.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    lines: u64,
    ms_per_line: u64,
}

/// Of one who is let in. A client that comes back opens all its documents at once: 4,096 on a connection.
pub const KNOWN: Allowance = Allowance {
    lines: 5000,
    ms_per_line: 100,
};

/// Of one who is refused, or who can't be told from others.
pub const STRANGER: Allowance = Allowance {
    lines: 100,
    ms_per_line: 1000,
};

/// Of all those together: 1,200 lines a minute are about 400 kB.
pub const STRANGERS: Allowance = Allowance {
    lines: 2000,
    ms_per_line: 50,
};

/// What bounds an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Nothing: it has changed something for good.
    Change,
    /// How much is recorded of one who is known.
    Known,
    /// How much is recorded of one who is refused, and of all of them.
    Stranger,
}

/// What is to be done with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is written.
    Write,
    /// It was written, and is counted.
    Fold,
    /// It is too much, and is counted.
    LeaveOut,
}

/// What is to be written of what was counted.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// This came again.
    Again {
        /// As it was written.
        body: Arc<[u8]>,
        /// How often.
        times: u64,
    },
    /// Of them more was left out.
    LeftOut {
        /// Whom; nobody in particular, where it was all of them together.
        who: Option<Who>,
        /// How much.
        times: u64,
    },
}

/// When an allowance will be whole again.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    until_ms: u64,
}

#[derive(Debug, Default)]
struct Record {
    spent: Spent,
    left_out: u64,
}

/// See the module's docs.
#[derive(Debug, Default)]
pub struct Bounds {
    /// How often it came again.
    folds: HashMap<Arc<[u8]>, u64>,
    /// Until when each is counted, in order.
    ends: VecDeque<(u64, Arc<[u8]>)>,
    records: HashMap<Who, Record>,
    /// Of whom something was left out, and when that is to be said, in order.
    owed: VecDeque<(u64, Who)>,
    strangers: Spent,
    left_out_of_all: u64,
    all_owed_at_ms: u64,
    pruned_ms: u64,
}

impl Spent {
    fn take(&mut self, allowance: Allowance, now_ms: u64) -> bool {
        let until_ms = self.until_ms.max(now_ms) + allowance.ms_per_line;
        let may = until_ms - now_ms <= allowance.lines * allowance.ms_per_line;
        if may {
            self.until_ms = until_ms;
        }
        may
    }
}

impl Bounds {
    /// What is to be done with an event, and what is to be written before it.
    pub fn admit(
        &mut self,
        now_ms: u64,
        weight: Weight,
        who: impl FnOnce() -> Who,
        body: &Arc<[u8]>,
        due: &mut Vec<Due>,
    ) -> Verdict {
        if weight == Weight::Change {
            return Verdict::Write;
        }
        if let Some(times) = self.folds.get_mut(body) {
            *times += 1;
            return Verdict::Fold;
        }
        let who = who();
        let allowance = match weight {
            Weight::Stranger => STRANGER,
            Weight::Known | Weight::Change => KNOWN,
        };
        self.make_room(now_ms, &who, due);
        let record = self.records.entry(who.clone()).or_default();
        if !record.spent.take(allowance, now_ms) {
            if record.left_out == 0 {
                self.owed.push_back((now_ms + FOLD_MS, who));
            }
            record.left_out += 1;
            return Verdict::LeaveOut;
        }
        if weight == Weight::Stranger && !self.strangers.take(STRANGERS, now_ms) {
            if self.left_out_of_all == 0 {
                self.all_owed_at_ms = now_ms + FOLD_MS;
            }
            self.left_out_of_all += 1;
            return Verdict::LeaveOut;
        }
        if self.ends.len() >= MOST_FOLDS {
            self.unfold(due);
        }
        self.folds.insert(Arc::clone(body), 0);
        self.ends.push_back((now_ms + FOLD_MS, Arc::clone(body)));
        Verdict::Write
    }

    /// What is to be written by now of what was counted.
    pub fn due(&mut self, now_ms: u64, due: &mut Vec<Due>) {
        while self.ends.front().is_some_and(|(end, _)| *end <= now_ms) {
            self.unfold_or_go_on(now_ms, due);
        }
        while self.owed.front().is_some_and(|(at, _)| *at <= now_ms) {
            self.pay(due);
        }
        if self.left_out_of_all > 0 && self.all_owed_at_ms <= now_ms {
            self.pay_for_all(due);
        }
    }

    /// All that was counted, at the end.
    pub fn rest(&mut self, due: &mut Vec<Due>) {
        while !self.ends.is_empty() {
            self.unfold(due);
        }
        while !self.owed.is_empty() {
            self.pay(due);
        }
        if self.left_out_of_all > 0 {
            self.pay_for_all(due);
        }
    }

    /// What is said again and again stays one line for each stretch of time; what was not said again is forgotten.
    fn unfold_or_go_on(&mut self, now_ms: u64, due: &mut Vec<Due>) {
        let Some((_, body)) = self.ends.pop_front() else {
            return;
        };
        match self.folds.get_mut(&body) {
            Some(times) if *times > 0 => {
                let times = std::mem::take(times);
                self.ends.push_back((now_ms + FOLD_MS, Arc::clone(&body)));
                due.push(Due::Again { body, times });
            }
            _ => {
                self.folds.remove(&body);
            }
        }
    }

    fn unfold(&mut self, due: &mut Vec<Due>) {
        if let Some((_, body)) = self.ends.pop_front()
            && let Some(times @ 1..) = self.folds.remove(&body)
        {
            due.push(Due::Again { body, times });
        }
    }

    fn pay(&mut self, due: &mut Vec<Due>) {
        if let Some((_, who)) = self.owed.pop_front()
            && let Some(record) = self.records.get_mut(&who)
            && let times @ 1.. = std::mem::take(&mut record.left_out)
        {
            let who = Some(who);
            due.push(Due::LeftOut { who, times });
        }
    }

    fn pay_for_all(&mut self, due: &mut Vec<Due>) {
        let times = std::mem::take(&mut self.left_out_of_all);
        due.push(Due::LeftOut { who: None, times });
    }

    /// Forgets those who would be allowed all again; if there are none, anybody.
    fn make_room(&mut self, now_ms: u64, who: &Who, due: &mut Vec<Due>) {
        if self.records.len() < MOST_WHO || self.records.contains_key(who) {
            return;
        }
        // It goes through all of them.
        if self.pruned_ms + 1000 <= now_ms {
            self.pruned_ms = now_ms;
            self.records
                .retain(|_, record| record.left_out > 0 || record.spent.until_ms > now_ms);
        }
        if self.records.len() < MOST_WHO {
            return;
        }
        let anybody = self.records.keys().next().cloned();
        if let Some(who) = anybody
            && let Some(Record {
                left_out: times @ 1..,
                ..
            }) = self.records.remove(&who)
        {
            self.owed.retain(|(_, owed)| *owed != who);
            let who = Some(who);
            due.push(Due::LeftOut { who, times });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Arc<[u8]> {
        text.as_bytes().into()
    }

    fn who(number: u32) -> Who {
        Who::Address(std::net::Ipv4Addr::from_bits(number).into())
    }

    struct World {
        bounds: Bounds,
        due: Vec<Due>,
        written: u64,
    }

    impl World {
        fn new() -> Self {
            Self {
                bounds: Bounds::default(),
                due: Vec::new(),
                written: 0,
            }
        }

        fn say(&mut self, now_ms: u64, weight: Weight, from: u32, text: &str) -> Verdict {
            let body = body(text);
            let due = &mut self.due;
            let verdict = self.bounds.admit(now_ms, weight, || who(from), &body, due);
            self.written += u64::from(verdict == Verdict::Write);
            verdict
        }

        /// How many events the lines stand for.
        fn counted(&self) -> u64 {
            let counts = self.due.iter().map(|due| match due {
                Due::Again { times, .. } | Due::LeftOut { times, .. } => *times,
            });
            self.written + counts.sum::<u64>()
        }
    }

    #[test]
    fn what_is_the_same_is_written_once_and_counted() {
        let mut world = World::new();
        assert_eq!(world.say(0, Weight::Stranger, 1, "a"), Verdict::Write);
        for now in 1..=1000 {
            assert_eq!(world.say(now, Weight::Stranger, 1, "a"), Verdict::Fold);
        }
        assert_eq!(world.say(1, Weight::Known, 1, "b"), Verdict::Write);
        world.bounds.due(FOLD_MS - 1, &mut world.due);
        assert_eq!(world.due, []);
        world.bounds.due(FOLD_MS + 1, &mut world.due);
        let (again, times) = (body("a"), 1000);
        assert_eq!(world.due, [Due::Again { body: again, times }]);
        // And goes on being counted, as long as it goes on.
        assert_eq!(
            world.say(FOLD_MS + 2, Weight::Stranger, 1, "a"),
            Verdict::Fold
        );
        assert_eq!(
            world.say(FOLD_MS + 2, Weight::Known, 1, "b"),
            Verdict::Write
        );
        world.bounds.due(2 * FOLD_MS + 1, &mut world.due);
        world.bounds.due(3 * FOLD_MS + 1, &mut world.due);
        assert_eq!(world.due.len(), 2);
        assert_eq!(
            world.say(3 * FOLD_MS + 2, Weight::Stranger, 1, "a"),
            Verdict::Write
        );
        assert_eq!(world.counted(), 1001 + 1 + 1 + 1 + 1);
    }

    #[test]
    fn of_one_who_is_refused_so_much_is_written_and_the_rest_counted() {
        let mut world = World::new();
        for n in 0..10_000 {
            world.say(n / 10, Weight::Stranger, 1, &n.to_string());
        }
        assert_eq!(world.written, STRANGER.lines);
        // Others are not touched by that.
        assert_eq!(world.say(1000, Weight::Stranger, 2, "x"), Verdict::Write);
        assert_eq!(world.say(1000, Weight::Known, 3, "y"), Verdict::Write);
        // Later there is room again.
        assert_eq!(world.say(3000, Weight::Stranger, 1, "z"), Verdict::Write);
        world.bounds.due(2 * FOLD_MS, &mut world.due);
        let (who, times) = (Some(who(1)), 10_000 - STRANGER.lines);
        assert_eq!(world.due, [Due::LeftOut { who, times }]);
        assert_eq!(world.counted(), 10_003);
    }

    #[test]
    fn many_addresses_share_what_is_written_of_strangers() {
        let mut world = World::new();
        let mut said = 0;
        for second in 0..60_u64 {
            for n in 0..2000_u32 {
                let from = n + u32::try_from(second).unwrap() * 2000;
                world.say(second * 1000, Weight::Stranger, from, &said.to_string());
                said += 1;
            }
        }
        let most = STRANGERS.lines + 60_000 / STRANGERS.ms_per_line;
        assert!(world.written <= most, "{}", world.written);
        assert!(world.bounds.records.len() <= MOST_WHO);
        assert!(world.bounds.folds.len() <= MOST_FOLDS && world.bounds.ends.len() <= MOST_FOLDS);
        assert!(world.bounds.owed.len() <= MOST_WHO);
        // Nor is what is left out a line for each.
        world.bounds.rest(&mut world.due);
        assert_eq!(world.due.len(), 1);
        assert_eq!(world.counted(), said);
        // Somebody who is known is recorded all the same.
        assert_eq!(world.say(60_000, Weight::Known, 7, "known"), Verdict::Write);
    }

    #[test]
    fn changes_are_always_written() {
        let mut world = World::new();
        for _ in 0..100_000 {
            assert_eq!(world.say(0, Weight::Change, 1, "a"), Verdict::Write);
        }
        assert!(world.bounds.folds.is_empty() && world.bounds.records.is_empty());
    }

    #[test]
    fn nothing_that_was_counted_is_lost_at_the_end() {
        let mut world = World::new();
        for n in 0..3 * MOST_FOLDS {
            let text = (n / 2).to_string();
            world.say(0, Weight::Known, u32::try_from(n / 1000).unwrap(), &text);
        }
        world.bounds.rest(&mut world.due);
        assert_eq!(world.counted(), 3 * MOST_FOLDS as u64);
        assert!(world.bounds.folds.is_empty() && world.bounds.owed.is_empty());
    }
}
