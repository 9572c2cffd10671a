//! Replaying into a document of this process: what Automerge alone makes of the history.

use std::time::Instant;

use anyhow::Context as _;
use automerge::{ActorId, AutoCommit, Change};
use indicatif::ProgressBar;

use super::author::{self, Versions};
use super::report::Report;
use super::trace::Trace;

/// One agent's document: what its author had seen, no more.
struct Agent {
    doc: AutoCommit,
    /// By transaction: whether it is in the document.
    has: Vec<bool>,
}

/// Replays all of `trace`. Each agent has a document of its own, which takes over others' transactions as
/// its author saw them: so every transaction is made at its document's heads, which costs little, and
/// nothing is looked up in an old version, which costs a pass over the text.
pub(super) fn replay(trace: &Trace, progress: &ProgressBar) -> anyhow::Result<Report> {
    let transactions = trace.transactions.len();
    let mut base = author::empty(ActorId::random());
    author::start(&mut base, &trace.start).context("making the text")?;
    let text = author::text_object(&base).context("the text just made is not there")?;
    let mut versions = Versions::new(base.get_heads(), transactions);
    let mut agents: Vec<Agent> = (0..trace.agents)
        .map(|_| Agent {
            doc: base.fork().with_actor(ActorId::random()),
            has: vec![false; transactions],
        })
        .collect();
    // What the others will take over.
    let mut changes: Vec<Option<Change>> = vec![None; transactions];

    let started = Instant::now();
    for (at, transaction) in trace.transactions.iter().enumerate() {
        let agent = agents
            .get_mut(transaction.agent)
            .context("an agent that the trace does not have")?;
        agent.take_over(&transaction.parents, trace, &changes)?;
        let before = versions
            .before(&transaction.parents)
            .context("a parent comes later")?;
        let after = author::write(&mut agent.doc, &text, &before, transaction)
            .with_context(|| format!("transaction {at}"))?;
        agent.mark(at);
        if trace.agents > 1
            && after != before
            && let Some(slot) = changes.get_mut(at)
        {
            *slot = agent.doc.get_last_local_change();
        }
        versions.done(at, after);
        progress.inc(1);
    }
    let last = trace.last();
    for agent in &mut agents {
        agent.take_over(&last, trace, &changes)?;
    }
    let mut report = Report::new(trace, started.elapsed());
    for agent in &mut agents {
        report.compare(trace, &author::content(&agent.doc));
        report.document_bytes = Some(agent.doc.save().len() as u64);
    }
    Ok(report)
}

impl Agent {
    fn mark(&mut self, transaction: usize) {
        if let Some(has) = self.has.get_mut(transaction) {
            *has = true;
        }
    }

    /// Applies what is missing of `transactions` and all that they follow, as one batch.
    fn take_over(
        &mut self,
        transactions: &[usize],
        trace: &Trace,
        changes: &[Option<Change>],
    ) -> anyhow::Result<()> {
        let mut missing = Vec::new();
        let mut todo = transactions.to_vec();
        while let Some(at) = todo.pop() {
            if self.has.get(at) == Some(&false) {
                self.mark(at);
                missing.push(at);
                todo.extend(
                    trace
                        .transactions
                        .get(at)
                        .iter()
                        .flat_map(|transaction| &transaction.parents),
                );
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_unstable();
        let batch: Vec<Change> = missing
            .iter()
            .filter_map(|&at| changes.get(at)?.clone())
            .collect();
        self.doc
            .apply_changes_batch(batch)
            .context("taking over another agent's transactions")
    }
}
