//! Replaying a history of changes: in many orders here, and through a server to readers.
//!
//! - `relay`: through a server. [`speed`]: when which change is sent. [`report`]: the result.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use automerge::ChangeHash;
use indicatif::ProgressBar;

use super::{Target, block_on, progress};
use crate::replay::{
    AutomergeState, AutomergeSubject, Ending, Loaded, Order, Outcome, Parting, Player, Recording,
};
use report::{Failure, OrderReport, PartingReport, Report};
use speed::Speed;

mod relay;
pub mod report;
pub mod speed;

/// Random orders, where nothing else is said.
const ORDERS: u32 = 4;
/// Readers of a server, where nothing else is said.
const REPLICAS: u32 = 2;
/// Most senders that are taken without being asked for.
const SENDERS: usize = 8;

/// Flags that mean something for histories of changes alone.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Histories of changes")]
pub struct HistoryArgs {
    /// Random causal orders to replay in, besides the order of arrival [default: 4]
    #[arg(long, value_name = "N")]
    orders: Option<u32>,
    /// Seed of the first random order; the others have the next ones [default: a new one, which is printed]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Clients that read along from the server, and must end in the same state; one more joins when all is there
    /// [default: 2]
    #[arg(long, value_name = "N", requires = "to", value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: Option<u32>,
    /// Clients that send the changes, each in the role of some of the authors: it sends a change when it has got from the
    /// server what its author had seen [default: one for each author, at most 8]
    #[arg(long, value_name = "N", requires = "to", value_parser = clap::value_parser!(u32).range(1..=1000))]
    senders: Option<u32>,
    /// How fast changes are sent: by the times at which they arrived, or were made where that is not known, at this many
    /// times their pace (1x, 10x, …), or max [default: max]
    #[arg(long, value_name = "SPEED", requires = "to")]
    speed: Option<Speed>,
}

impl HistoryArgs {
    /// The first flag that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let given = [
            (self.orders.is_some(), "--orders"),
            (self.seed.is_some(), "--seed"),
            (self.replicas.is_some(), "--replicas"),
            (self.senders.is_some(), "--senders"),
            (self.speed.is_some(), "--speed"),
        ];
        given
            .into_iter()
            .find(|(is_given, _)| *is_given)
            .map(|(_, flag)| flag)
    }
}

/// Replays in all the ways that are asked for.
pub(super) fn replay(
    loaded: &Loaded,
    target: Option<Target>,
    args: &HistoryArgs,
) -> anyhow::Result<Report> {
    let recording = &loaded.recording;
    let mut report = Report::new(recording, loaded.ending == Ending::Closed);
    let orders = args.orders.unwrap_or(ORDERS);
    let bar = progress(recording.len() * (orders as usize + 1))?;
    let player = Player::new(recording, AutomergeSubject::default);
    let seed = args.seed.unwrap_or_else(rand::random);
    let state = in_orders(&player, recording, (seed, orders), &mut report, &bar);
    bar.finish_and_clear();
    let (Some(state), Some(target)) = (state, target) else {
        return Ok(report);
    };

    let senders = args.senders.map_or(SENDERS, |senders| senders as usize);
    let settings = relay::Settings {
        target,
        senders: senders.min(recording.actors()),
        readers: args.replicas.unwrap_or(REPLICAS),
        speed: args.speed.unwrap_or_default(),
    };
    let bar = progress(recording.len())?.with_message("through the server");
    let relayed = block_on(relay::replay(recording.clone(), settings, bar.clone()))?;
    bar.finish_and_clear();
    for (reader, ended) in &relayed.readers {
        if ended.state.as_ref() != Ok(&state) {
            report.part(parting_of_reader(&player, recording, &state, reader, ended));
        }
    }
    report.relay = Some(relayed.report(&state));
    Ok(report)
}

/// Plays the order of arrival and the random ones; what the first came to, if it came to anything.
fn in_orders<New: Fn() -> AutomergeSubject>(
    player: &Player<'_, New>,
    recording: &Recording,
    (seed, orders): (u64, u32),
    report: &mut Report,
    bar: &ProgressBar,
) -> Option<AutomergeState> {
    let play = |order: &[usize]| {
        let started = Instant::now();
        let outcome = player.play(order, |changes| bar.inc(changes as u64));
        (outcome, started.elapsed())
    };
    bar.set_message(Order::Arrival.to_string());
    let (arrival, elapsed) = play(&Order::Arrival.of(recording));
    report
        .orders
        .push(OrderReport::new(Order::Arrival, recording, elapsed));
    if let Outcome::Failed { after, why } = arrival {
        report.fail(Failure { after, why });
        return None;
    }
    for more in 0..u64::from(orders) {
        let order = Order::Random(seed.wrapping_add(more));
        bar.set_message(order.to_string());
        let places = order.of(recording);
        let (outcome, elapsed) = play(&places);
        let mut ran = OrderReport::new(order, recording, elapsed);
        if outcome != arrival {
            ran.same = false;
            bar.set_message(format!("{order}: looking for where it parts"));
            let found = player.parting(&places);
            let parting = match (found, outcome) {
                (Some(found), _) => PartingReport::new(order.to_string(), found),
                // It parted once and not again: not by the order alone.
                (None, Outcome::Failed { why, .. }) => {
                    PartingReport::unplaced(order.to_string(), Some(why))
                }
                (None, Outcome::Came(_)) => PartingReport::unplaced(order.to_string(), None),
            };
            report.part(parting);
        }
        report.orders.push(ran);
    }
    match arrival {
        Outcome::Came(state) => Some(state),
        Outcome::Failed { .. } => None,
    }
}

/// Where a reader parts: at the first change that it lacks; or, if it has all, where the order in which it got them parts
/// from that of arrival.
fn parting_of_reader<New: Fn() -> AutomergeSubject>(
    player: &Player<'_, New>,
    recording: &Recording,
    state: &AutomergeState,
    reader: &str,
    ended: &relay::Ended,
) -> PartingReport {
    let places: HashMap<ChangeHash, usize> = (0..)
        .zip(recording.changes())
        .map(|(place, change)| (change.hash(), place))
        .collect();
    let has: HashSet<&ChangeHash> = ended.order.iter().collect();
    let mut changes = (1..).zip(recording.changes());
    if let Some((prefix, change)) = changes.find(|(_, change)| !has.contains(&change.hash())) {
        let parting = Parting {
            prefix,
            change: change.hash(),
            actor: change.actor().clone(),
            seq: change.seq(),
            difference: Some("it did not get this change".to_owned()),
        };
        return PartingReport::new(reader.to_owned(), parting);
    }
    let order = ended
        .order
        .iter()
        .filter_map(|hash| places.get(hash).copied());
    if let Some(found) = player.parting(&order.collect::<Vec<_>>()) {
        return PartingReport::new(reader.to_owned(), found);
    }
    let difference = match &ended.state {
        Ok(ended) => state.difference(ended),
        Err(why) => Some(why.clone()),
    };
    PartingReport::unplaced(reader.to_owned(), difference)
}

/// The changes that a document has, in the order in which it got them.
fn order_of(document: &automerge::Automerge) -> Vec<ChangeHash> {
    let changes = document.get_changes_meta(&[]);
    changes.iter().map(|change| change.hash).collect()
}

/// Whether a document has all changes up to these heads.
fn has_all(document: &automerge::Automerge, heads: &[ChangeHash]) -> bool {
    heads
        .iter()
        .all(|hash| document.get_change_meta_by_hash(hash).is_some())
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable as _;
    use automerge::{AutoCommit, Automerge, ROOT};

    use super::*;

    /// Two who write at once, and one who merges; each change is a head's.
    fn recording() -> Recording {
        let mut one = AutoCommit::new();
        one.put(ROOT, "title", "a").unwrap();
        let mut other = one.fork();
        one.put(ROOT, "title", "b").unwrap();
        other.put(ROOT, "title", "c").unwrap();
        one.merge(&mut other).unwrap();
        one.put(ROOT, "title", "d").unwrap();
        Recording::from_automerge(one.save()).unwrap()
    }

    fn ended(recording: &Recording, places: &[usize]) -> relay::Ended {
        let changes = places.iter().map(|place| &recording.changes()[*place]);
        let mut document = Automerge::new();
        let apply = changes.map(|change| change.change().clone());
        document.apply_changes(apply.collect::<Vec<_>>()).unwrap();
        relay::Ended {
            state: AutomergeState::of(&document).map_err(|error| error.to_string()),
            order: order_of(&document),
            elapsed: None,
            bytes_received: 0,
        }
    }

    #[test]
    fn a_reader_that_lacks_a_change_parts_there() {
        let recording = recording();
        let player = Player::new(&recording, AutomergeSubject::default);
        let whole = ended(&recording, &[0, 2, 1, 3]);
        let state = whole.state.clone().unwrap();
        assert_eq!(whole.order.len(), recording.len());
        for (places, prefix) in [(&[0, 1][..], 3), (&[0, 2], 2), (&[], 1)] {
            let lacking = ended(&recording, places);
            assert_ne!(lacking.state.as_ref(), Ok(&state));
            let parting = parting_of_reader(&player, &recording, &state, "reader 1", &lacking);
            let hash = recording.changes()[prefix - 1].hash().to_string();
            assert_eq!((parting.prefix, parting.change), (Some(prefix), Some(hash)));
        }
    }

    #[test]
    fn a_reader_that_shows_something_else_says_what() {
        let recording = recording();
        let player = Player::new(&recording, AutomergeSubject::default);
        let state = ended(&recording, &[0, 1, 2, 3]).state.unwrap();
        let mut wrong = ended(&recording, &[0, 1, 2, 3]);
        let mut elsewhere = Automerge::new().fork();
        let mut change = elsewhere.transaction();
        change.put(ROOT, "title", "z").unwrap();
        change.commit();
        let shown = AutomergeState::of(&elsewhere).unwrap().content;
        let heads = state.heads.clone();
        wrong.state = Ok(AutomergeState {
            heads,
            content: shown,
        });
        let parting = parting_of_reader(&player, &recording, &state, "reader 1", &wrong);
        assert_eq!(parting.prefix, None);
        assert!(parting.difference.unwrap().contains("/title"));
    }
}
