//! Replaying through a server: one client for each agent, each waiting until it has seen what its author
//! had seen.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use automerge::{ActorId, ChangeHash};
use concord_client_wasm::Replica;
use indicatif::ProgressBar;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Target;
use super::author::{self, Versions};
use super::client::Client;
use super::report::{Report, ServerReport};
use super::trace::Trace;

/// A reader applies what has gathered in this time: each time costs a pass over the whole text.
const READER_BATCH: Duration = Duration::from_millis(500);

/// How to replay through a server.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) target: Target,
    pub(super) reader: bool,
    pub(super) window: usize,
}

/// What all clients of one replay share.
struct Replay {
    trace: Trace,
    settings: Settings,
    progress: ProgressBar,
    versions: Mutex<Versions>,
    /// The transactions that no other follows.
    last: Vec<usize>,
}

/// What one client ended with.
struct Outcome {
    text: String,
    finished: Instant,
    sent: u64,
    received: u64,
}

/// Replays `trace` into a new document of the server.
pub(super) async fn replay(
    trace: Trace,
    settings: Settings,
    progress: ProgressBar,
) -> anyhow::Result<Report> {
    let mut first = connect(&settings).await?;
    first
        .replica
        .change(|doc| author::start(doc, &trace.start))
        .context("making the text")?;
    // Before it knows the document a server is sent all of it with every message.
    first.work_until(Replica::synced).await?;
    let start = first.replica.heads();
    let transactions = trace.transactions.len();
    let agents = trace.agents;
    let versions = Mutex::new(Versions::new(start.clone(), transactions));
    let last = trace.last();
    let replay = Arc::new(Replay {
        trace,
        settings,
        progress,
        versions,
        last,
    });

    let mut writers = vec![first];
    for _ in 1..agents {
        let mut client = connect(&replay.settings).await?;
        client
            .work_until(|replica| has_all(replica, &start))
            .await?;
        writers.push(client);
    }
    let reader = if replay.settings.reader {
        Some(connect(&replay.settings).await?)
    } else {
        None
    };

    let started = Instant::now();
    let reader = reader.map(|client| tokio::spawn(read(client, Arc::clone(&replay))));
    let mut tasks = JoinSet::new();
    for (agent, client) in writers.into_iter().enumerate() {
        tasks.spawn(write(client, agent, Arc::clone(&replay)));
    }
    let mut outcomes = Vec::new();
    while let Some(outcome) = tasks.join_next().await {
        outcomes.push(outcome.context("a writer panicked")??);
    }
    let finished = outcomes
        .iter()
        .map(|outcome| outcome.finished)
        .max()
        .unwrap_or(started);
    let mut report = Report::new(&replay.trace, finished - started);
    let mut server = ServerReport {
        document: replay.settings.target.document.to_string(),
        bytes_sent: outcomes.iter().map(|outcome| outcome.sent).sum(),
        bytes_received: outcomes.iter().map(|outcome| outcome.received).sum(),
        reader_seconds: None,
        join_seconds: 0.0,
        join_bytes: 0,
    };
    if let Some(reader) = reader {
        let outcome = reader.await.context("the reader panicked")??;
        server.reader_seconds = Some((outcome.finished - started).as_secs_f64());
        outcomes.push(outcome);
    }

    let started = Instant::now();
    let joiner = finish(connect(&replay.settings).await?, &replay).await?;
    server.join_seconds = (joiner.finished - started).as_secs_f64();
    server.join_bytes = joiner.received;
    outcomes.push(joiner);
    for outcome in &outcomes {
        report.compare(&replay.trace, &outcome.text);
    }
    report.server = Some(server);
    Ok(report)
}

async fn connect(settings: &Settings) -> anyhow::Result<Client> {
    let doc = author::empty(ActorId::random());
    let replica = Replica::with_document(settings.target.document.clone(), doc);
    let target = &settings.target;
    Client::connect(&target.url, &target.token, replica, target.latency).await
}

/// Makes `agent`'s transactions, keeping no more than the window of them unacknowledged.
async fn write(mut client: Client, agent: usize, replay: Arc<Replay>) -> anyhow::Result<Outcome> {
    let text = author::text_object(client.replica.doc()).context("the document has no text")?;
    let own = replay
        .trace
        .transactions
        .iter()
        .enumerate()
        .filter(|(_, transaction)| transaction.agent == agent);
    let mut unacknowledged = VecDeque::new();
    for (at, transaction) in own {
        client.receive_ready()?;
        let parents = loop {
            acknowledge(&mut unacknowledged, &mut client.replica);
            if unacknowledged.len() < replay.settings.window {
                // A version that is known is on its way to us, if it has not come.
                let known = replay.versions().before(&transaction.parents);
                if let Some(parents) = known.filter(|parents| has_all(&mut client.replica, parents))
                {
                    break parents;
                }
            }
            // Also with a full window: what acknowledges it may have come with somebody's changes.
            if client.apply()? {
                continue;
            }
            client.flush().await?;
            client
                .receive()
                .await
                .with_context(|| format!("agent {agent} before transaction {at}"))?;
        };
        let after = client
            .replica
            .change(|doc| author::write(doc, &text, &parents, transaction))
            .with_context(|| format!("transaction {at}"))?;
        unacknowledged.extend(after.iter().copied());
        replay.versions().done(at, after);
        replay.progress.inc(1);
        client.flush().await?;
    }
    client.work_until(Replica::synced).await?;
    finish(client, &replay).await
}

/// Drops changes that the server's heads cover. A writer's own changes follow each other.
fn acknowledge(unacknowledged: &mut VecDeque<ChangeHash>, replica: &mut Replica) {
    let named = |hash: &ChangeHash| {
        replica
            .server_heads()
            .is_some_and(|heads| heads.contains(hash))
    };
    if let Some(newest) = unacknowledged.iter().rposition(named) {
        unacknowledged.drain(..=newest);
    } else if !unacknowledged.is_empty() && replica.synced() {
        // Covered by somebody else's change on top of ours.
        unacknowledged.clear();
    }
}

/// Follows a document that others write.
async fn read(mut client: Client, replay: Arc<Replay>) -> anyhow::Result<Outcome> {
    client.flush().await?;
    loop {
        let until = Instant::now() + READER_BATCH;
        while let Ok(received) = tokio::time::timeout_at(until, client.receive()).await {
            received?;
        }
        client.apply()?;
        client.flush().await?;
        if replay.is_complete(&mut client.replica) {
            return finish(client, &replay).await;
        }
    }
}

/// Waits until the whole trace has arrived.
async fn finish(mut client: Client, replay: &Replay) -> anyhow::Result<Outcome> {
    client
        .work_until(|replica| replay.is_complete(replica))
        .await?;
    let finished = Instant::now();
    let (sent, received) = client.traffic();
    let text = tokio::task::block_in_place(|| author::content(client.replica.doc()));
    Ok(Outcome {
        text,
        finished,
        sent,
        received,
    })
}

fn has_all(replica: &mut Replica, version: &[ChangeHash]) -> bool {
    version
        .iter()
        .all(|hash| replica.doc().get_change_meta_by_hash(hash).is_some())
}

impl Replay {
    fn versions(&self) -> std::sync::MutexGuard<'_, Versions> {
        // Every write to the table is a single assignment: it is whole whoever panicked.
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every transaction is made and in this replica.
    fn is_complete(&self, replica: &mut Replica) -> bool {
        let last = self.versions().before(&self.last);
        last.is_some_and(|last| has_all(replica, &last))
    }
}
