//! Replaying into a document of this process: what Automerge alone makes of the history.

use std::time::Instant;

use anyhow::Context as _;
use automerge::ActorId;
use indicatif::ProgressBar;

use super::author::{self, Versions};
use super::report::Report;
use super::trace::Trace;

/// Replays all of `trace`; each agent writes as an actor of its own.
pub(super) fn replay(trace: &Trace, progress: &ProgressBar) -> anyhow::Result<Report> {
    let actors: Vec<ActorId> = (0..trace.agents).map(|_| ActorId::random()).collect();
    let mut doc = author::empty(ActorId::random());
    author::start(&mut doc, &trace.start).context("making the text")?;
    doc.commit();
    let text = author::text_object(&doc).context("the text just made is not there")?;
    let mut versions = Versions::new(doc.get_heads(), trace.transactions.len());

    let started = Instant::now();
    for (at, transaction) in trace.transactions.iter().enumerate() {
        let before = versions
            .before(&transaction.parents)
            .context("a parent comes later")?;
        if let Some(actor) = actors
            .get(transaction.agent)
            .filter(|actor| *actor != doc.get_actor())
        {
            doc.set_actor(actor.clone());
        }
        let after = author::write(&mut doc, &text, &before, transaction)
            .with_context(|| format!("transaction {at}"))?;
        versions.done(at, after);
        progress.inc(1);
    }
    let elapsed = started.elapsed();
    let mut report = Report::new(trace, elapsed);
    report.compare(trace, &author::content(&doc));
    report.document_bytes = Some(doc.save().len() as u64);
    Ok(report)
}
