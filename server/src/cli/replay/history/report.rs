//! What a replay of a history found.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::replay::{Order, Parting, Recording};

/// The result; `--json` prints it as it is.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The document, where it is known.
    pub document: Option<String>,
    /// Whether the recording was whole.
    pub whole: bool,
    /// Changes of the history.
    pub changes: usize,
    /// Replicas that made them.
    pub actors: usize,
    /// Changes whose time of arrival is not known.
    pub untimed: usize,
    /// The heads of whoever has all changes, ascending.
    pub heads: Vec<String>,
    /// Whether everything that was replayed came to one state.
    pub same: bool,
    /// The orders, first that of arrival.
    pub orders: Vec<OrderReport>,
    /// Through the server; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<RelayReport>,
    /// Why Automerge does not take the changes as they arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// Where states part.
    pub partings: Vec<PartingReport>,
}

/// One order.
#[derive(Debug, Serialize)]
pub struct OrderReport {
    /// The seed of a random one; absent for the order of arrival.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Seconds that it took.
    pub seconds: f64,
    /// Changes by `seconds`.
    pub changes_per_second: f64,
    /// Whether it came to the same state as the order of arrival.
    pub same: bool,
}

/// A replay through a server.
#[derive(Debug, Serialize)]
pub struct RelayReport {
    /// The document that was made.
    pub document: String,
    /// Clients that sent.
    pub senders: usize,
    /// Seconds from the first change until the last was acknowledged.
    pub seconds: f64,
    /// Changes by `seconds`.
    pub changes_per_second: f64,
    /// Bytes of frames that the senders sent.
    pub bytes_sent: u64,
    /// Clients that read along, and one that joined when all was there.
    pub readers: Vec<ReaderReport>,
}

/// One reader.
#[derive(Debug, Serialize)]
pub struct ReaderReport {
    /// What it is called here and in [`PartingReport::of`].
    pub name: String,
    /// Seconds until it had all: from the first change on, or for the one that joined late from its joining on. Absent if
    /// it never did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Bytes of frames that it received.
    pub bytes_received: u64,
    /// Whether it came to the state of the replay in this process.
    pub same: bool,
}

/// Changes that can't be applied.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// How many were applied before.
    pub after: usize,
    /// What Automerge said.
    pub why: String,
}

/// Something that came to another state.
#[derive(Debug, Serialize)]
pub struct PartingReport {
    /// An order, or a reader.
    pub of: String,
    /// The smallest prefix of the history that makes two states, and its last change; absent where it could not be made
    /// to part again in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<usize>,
    /// Hash of the prefix's last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<String>,
    /// Who made that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Which of that replica's changes it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// How the states differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<String>,
}

impl PartingReport {
    pub(super) fn new(of: String, parting: Parting) -> Self {
        Self {
            of,
            prefix: Some(parting.prefix),
            change: Some(parting.change.to_string()),
            actor: Some(parting.actor.to_string()),
            seq: Some(parting.seq),
            difference: parting.difference,
        }
    }

    pub(super) fn unplaced(of: String, difference: Option<String>) -> Self {
        Self {
            of,
            prefix: None,
            change: None,
            actor: None,
            seq: None,
            difference,
        }
    }
}

/// A rate to read, not to count with.
#[expect(clippy::cast_precision_loss, reason = "nobody counts with it")]
pub(super) fn per_second(changes: usize, elapsed: Duration) -> f64 {
    changes as f64 / elapsed.as_secs_f64().max(1e-9)
}

impl OrderReport {
    pub(super) fn new(order: Order, recording: &Recording, elapsed: Duration) -> Self {
        Self {
            seed: match order {
                Order::Arrival => None,
                Order::Random(seed) => Some(seed),
            },
            seconds: elapsed.as_secs_f64(),
            changes_per_second: per_second(recording.len(), elapsed),
            same: true,
        }
    }
}

impl Report {
    pub(super) fn new(recording: &Recording, whole: bool) -> Self {
        Self {
            document: recording.document().map(ToString::to_string),
            whole,
            changes: recording.len(),
            actors: recording.actors(),
            untimed: recording.untimed(),
            heads: recording.heads().iter().map(ToString::to_string).collect(),
            same: true,
            orders: Vec::new(),
            relay: None,
            failure: None,
            partings: Vec::new(),
        }
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.same = false;
        self.failure = Some(failure);
    }

    pub(super) fn part(&mut self, parting: PartingReport) {
        self.same = false;
        self.partings.push(parting);
    }

    /// Writes the report for people.
    pub(in super::super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{} changes by {} actors", self.changes, self.actors)?;
        for order in &self.orders {
            match order.seed {
                None => write!(out, "order of arrival: ")?,
                Some(seed) => write!(out, "random causal order, seed {seed}: ")?,
            }
            let (seconds, rate) = (order.seconds, order.changes_per_second);
            writeln!(out, "{seconds:.2} s, {rate:.0} changes a second")?;
        }
        if let Some(relay) = &self.relay {
            relay.write(out)?;
        }
        for parting in &self.partings {
            let PartingReport { of, difference, .. } = parting;
            match (parting.prefix, &parting.change, &parting.actor, parting.seq) {
                (Some(prefix), Some(change), Some(actor), Some(seq)) => writeln!(
                    out,
                    "{of} PARTS from the order of arrival at change {prefix}: {change}, number {seq} of {actor}"
                )?,
                _ => writeln!(
                    out,
                    "{of} PARTS from the order of arrival, and not again when it is replayed"
                )?,
            }
            if let Some(difference) = difference {
                writeln!(out, "  {difference}")?;
            }
        }
        match &self.failure {
            Some(Failure { after, why }) => {
                writeln!(
                    out,
                    "AUTOMERGE DOES NOT TAKE IT, after {after} changes: {why}"
                )
            }
            None if self.same => writeln!(out, "all came to the same state"),
            None => writeln!(out, "THE STATES DIFFER"),
        }
    }
}

impl RelayReport {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "through the server, as automerge:{}", self.document)?;
        writeln!(
            out,
            "{} senders: {:.2} s until all was acknowledged, {:.0} changes a second, {} bytes",
            self.senders, self.seconds, self.changes_per_second, self.bytes_sent
        )?;
        for reader in &self.readers {
            write!(out, "{}: ", reader.name)?;
            match reader.seconds {
                Some(seconds) => write!(out, "had all after {seconds:.2} s")?,
                None => write!(out, "NEVER HAD ALL")?,
            }
            writeln!(out, ", {} bytes", reader.bytes_received)?;
        }
        Ok(())
    }
}
