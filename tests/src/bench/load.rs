//! Many tabs at once, on one server.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use concord_shared::DocumentId;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::history::{Base, Script};
use super::process::{CPU_RESOLUTION_SECONDS, Target, cpu_seconds};
use super::stats::figure;
use super::tab::{Part, Tab, Tally, new_document};

/// Connections that are opened at the same time.
const OPENING_AT_ONCE: usize = 32;

/// What tabs do to documents.
#[derive(Debug, Clone)]
pub struct Work {
    /// Documents, each with the same text and script.
    pub documents: usize,
    /// Tabs of each.
    pub tabs: usize,
    /// Changes that a writer may have unacknowledged.
    pub window: usize,
    /// Whether tabs answer what they are sent, as clients do.
    pub answers: bool,
    /// What each document holds before.
    pub base: Base,
    /// What is typed into each; its first tabs are the writers.
    pub script: Arc<Script>,
}

/// How it went.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// From the first keystroke until everybody had everything.
    pub seconds: f64,
    /// Changes typed.
    pub changes: u64,
    /// Changes times the tabs that got them, their writers not counted.
    pub deliveries: u64,
    /// CPU seconds of the server's process meanwhile.
    pub server_cpu_seconds: f64,
    /// Frames and bytes that tabs got, and answers they gave.
    pub tally: Tally,
}

impl Outcome {
    /// Deliveries a second.
    pub fn delivery_rate(&self) -> f64 {
        figure(self.deliveries) / self.seconds
    }

    /// Changes a second, accepted and delivered to all.
    pub fn change_rate(&self) -> f64 {
        figure(self.changes) / self.seconds
    }

    /// Microseconds of server CPU for each change, at least what the system's clock can tell.
    pub fn cpu_micros_per_change(&self) -> f64 {
        self.server_cpu_seconds.max(CPU_RESOLUTION_SECONDS) * 1e6 / figure(self.changes)
    }
}

/// Does `work` on `target`, whose documents are new, and checks that every tab got every change once.
pub async fn run(work: &Work, target: &Target) -> Result<Outcome> {
    let (outcome, ()) = run_beside(work, target, async |_| Ok(())).await?;
    Ok(outcome)
}

/// As [`run`], beside what `begin` begins with the documents once they are there, and gives to be held meanwhile.
pub async fn run_beside<G>(
    work: &Work,
    target: &Target,
    begin: impl AsyncFnOnce(Vec<DocumentId>) -> Result<G>,
) -> Result<(Outcome, G)> {
    let documents: Vec<DocumentId> = (0..work.documents).map(|_| new_document()).collect();
    let mut tabs = open(work, target, &documents).await?;
    let beside = begin(documents).await?;
    let process = target.process_id()?;
    let barrier = Arc::new(Barrier::new(tabs.len() + 1));
    let mut running = JoinSet::new();
    for mut tab in tabs.drain(..) {
        let barrier = Arc::clone(&barrier);
        running.spawn(async move {
            barrier.wait().await;
            let finished = tab.run().await?;
            // The tab stays open until everybody is done.
            anyhow::Ok((finished, tab))
        });
    }
    let cpu_before = cpu_seconds(process)?;
    barrier.wait().await;
    let started = Instant::now();
    let mut finished = started;
    let mut done = Vec::new();
    while let Some(tab) = running.join_next().await {
        let (at, tab) = tab.context("a tab panicked")??;
        finished = finished.max(at);
        done.push(tab);
    }
    let server_cpu_seconds = cpu_seconds(process)? - cpu_before;
    let per_document: usize = work.script.changes.iter().map(Vec::len).sum();
    let changes = (work.documents * per_document) as u64;
    let mut tally = Tally::default();
    for tab in &done {
        tally.add(tab.tally());
    }
    let deliveries = changes * (work.tabs as u64 - 1);
    ensure!(
        tally.changes == deliveries,
        "{} changes were delivered where {deliveries} should have been",
        tally.changes
    );
    let outcome = Outcome {
        seconds: (finished - started).as_secs_f64(),
        changes,
        deliveries,
        server_cpu_seconds,
        tally,
    };
    Ok((outcome, beside))
}

async fn open(work: &Work, target: &Target, documents: &[DocumentId]) -> Result<Vec<Tab>> {
    let mut opening = JoinSet::new();
    let mut tabs = Vec::new();
    for (number, document) in documents.iter().cloned().enumerate() {
        if opening.len() >= OPENING_AT_ONCE
            && let Some(opened) = opening.join_next().await
        {
            tabs.extend(opened??);
        }
        let work = work.clone();
        match target {
            Target::Concord(server) => {
                let url = server.websocket_url();
                opening.spawn(async move {
                    let mut tabs = Vec::new();
                    for tab in 0..work.tabs {
                        tabs.push(
                            Tab::open(&url, &document, &work.base, tab == 0, work.part(tab))
                                .await?,
                        );
                    }
                    anyhow::Ok(tabs)
                });
            }
            Target::Relay(relay) => {
                let url = relay.room(&number.to_string());
                opening.spawn(async move {
                    let mut tabs = Vec::new();
                    for tab in 0..work.tabs {
                        tabs.push(Tab::enter(&url, &work.base, work.part(tab)).await?);
                    }
                    anyhow::Ok(tabs)
                });
            }
        }
    }
    while let Some(opened) = opening.join_next().await {
        tabs.extend(opened??);
    }
    Ok(tabs)
}

impl Work {
    fn part(&self, tab: usize) -> Part {
        Part {
            script: Arc::clone(&self.script),
            writer: (tab < self.script.changes.len()).then_some(tab),
            window: self.window,
            answers: self.answers,
        }
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.changes += other.changes;
        self.answers += other.answers;
        self.answer_bytes += other.answer_bytes;
    }
}
