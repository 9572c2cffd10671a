//! Replaying through a server: senders in the role of the changes' authors, and readers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use automerge::{ActorId, ChangeHash};
use concord_client_wasm::Replica;
use indicatif::ProgressBar;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, timeout_at};

use super::super::Target;
use super::super::client::Client;
use super::report::{ReaderReport, RelayReport, per_second};
use super::speed::Speed;
use super::{has_all, order_of};
use crate::replay::{AutomergeState, Recorded, Recording};

/// Changes that a sender sends at a time: each time costs it a pass over the texts that they touch.
const BATCH: usize = 256;

/// A client that has nothing to do looks again after this time, and a reader gathers frames for so long before it applies
/// them, or for as long as that took the last time.
const TICK: Duration = Duration::from_millis(20);

/// How long a client waits for changes that have been sent.
const PATIENCE: Duration = Duration::from_secs(30);

/// How to replay through a server.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) target: Target,
    pub(super) senders: usize,
    pub(super) readers: u32,
    pub(super) speed: Speed,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Relayed {
    document: String,
    senders: usize,
    changes: usize,
    elapsed: Duration,
    bytes_sent: u64,
    /// By what they are called.
    pub(super) readers: Vec<(String, Ended)>,
}

/// What a reader ended with.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its state; text if there is none.
    pub(super) state: Result<AutomergeState, String>,
    /// Its changes, in the order in which they came.
    pub(super) order: Vec<ChangeHash>,
    /// Until it had all; `None` if it never did.
    pub(super) elapsed: Option<Duration>,
    pub(super) bytes_received: u64,
}

impl Relayed {
    /// For the result.
    pub(super) fn report(&self, state: &AutomergeState) -> RelayReport {
        let readers = self.readers.iter().map(|(name, ended)| ReaderReport {
            name: name.clone(),
            seconds: ended.elapsed.map(|elapsed| elapsed.as_secs_f64()),
            bytes_received: ended.bytes_received,
            same: ended.state.as_ref() == Ok(state),
        });
        RelayReport {
            document: self.document.clone(),
            senders: self.senders,
            seconds: self.elapsed.as_secs_f64(),
            changes_per_second: per_second(self.changes, self.elapsed),
            bytes_sent: self.bytes_sent,
            readers: readers.collect(),
        }
    }
}

/// What all clients of one replay share.
#[derive(Debug)]
struct Shared {
    recording: Recording,
    target: Target,
    heads: Vec<ChangeHash>,
    started: Instant,
    /// By place: when it is due, after the start.
    due: Vec<Duration>,
    /// Whether all is sent and acknowledged.
    is_sent: AtomicBool,
    bar: ProgressBar,
}

/// Replays into a new document of the server.
pub(super) async fn replay(
    recording: Recording,
    settings: Settings,
    bar: ProgressBar,
) -> anyhow::Result<Relayed> {
    let first = recording.changes().first();
    let first = first.context("there are no changes to send")?;
    // What nobody has can't be joined: one change first.
    let mut author = connect(&settings.target).await?;
    block_in_place(|| author.replica.apply_chunks(first.bytes()))?;
    author.work_until(Replica::synced).await?;

    let by_sender = assign(&recording, settings.senders.max(1));
    let mut clients = vec![author];
    for _ in 1..by_sender.len() {
        clients.push(connect(&settings.target).await?);
    }
    let mut reading = Vec::new();
    for _ in 0..settings.readers {
        reading.push(connect(&settings.target).await?);
    }
    let shared = Arc::new(Shared {
        heads: recording.heads(),
        due: settings.speed.schedule(&recording),
        recording,
        target: settings.target,
        started: Instant::now(),
        is_sent: AtomicBool::new(false),
        bar,
    });
    let readers: Vec<_> = reading
        .into_iter()
        .map(|client| tokio::spawn(read(client, Arc::clone(&shared), shared.started)))
        .collect();
    let senders = by_sender.len();
    let mut tasks = JoinSet::new();
    for (client, places) in clients.into_iter().zip(by_sender) {
        tasks.spawn(send(client, places, Arc::clone(&shared)));
    }
    let mut bytes_sent = 0;
    while let Some(sent) = tasks.join_next().await {
        bytes_sent += sent.context("a sender panicked")??;
    }
    let elapsed = shared.started.elapsed();
    shared.is_sent.store(true, Ordering::Relaxed);
    let mut ended = Vec::new();
    for (at, reader) in (1..).zip(readers) {
        let reader = reader.await.context("a reader panicked")??;
        ended.push((format!("reader {at}"), reader));
    }
    let joining = Instant::now();
    let late = read(connect(&shared.target).await?, Arc::clone(&shared), joining).await?;
    ended.push(("late joiner".to_owned(), late));
    Ok(Relayed {
        document: shared.target.document.to_string(),
        senders,
        changes: shared.recording.len(),
        elapsed,
        bytes_sent,
        readers: ended,
    })
}

async fn connect(target: &Target) -> anyhow::Result<Client> {
    let replica = Replica::new(target.document.clone(), ActorId::random());
    Client::connect(&target.url, &target.token, replica, target.latency).await
}

/// The places that each sender sends, all of one actor by one sender; the first one has the first change.
fn assign(recording: &Recording, senders: usize) -> Vec<Vec<usize>> {
    let mut by_sender = vec![Vec::new(); senders];
    let mut of_actor: HashMap<&ActorId, usize> = HashMap::new();
    for (place, change) in recording.changes().iter().enumerate() {
        let next = of_actor.len() % senders;
        let sender = *of_actor.entry(change.actor()).or_insert(next);
        if let Some(places) = by_sender.get_mut(sender) {
            places.push(place);
        }
    }
    by_sender
}

/// Sends the changes at these places, each when it is due and what its author had seen is here; returns the bytes sent.
async fn send(mut client: Client, places: Vec<usize>, shared: Arc<Shared>) -> anyhow::Result<u64> {
    let mut left = places.as_slice();
    let mut last_got_on = Instant::now();
    while let Some(next) = left.first() {
        client.receive_ready()?;
        client.apply()?;
        let sent = shared.batch(left, &mut client.replica);
        if sent > 0 {
            let (batch, rest) = left.split_at(sent);
            let changes = batch.iter().filter_map(|place| shared.change(*place));
            let chunks: Vec<&[u8]> = changes.map(Recorded::bytes).collect();
            block_in_place(|| client.replica.apply_chunks(&chunks.concat()))?;
            shared.bar.inc(sent as u64);
            left = rest;
            last_got_on = Instant::now();
        }
        client.flush().await?;
        if sent > 0 {
            continue;
        }
        let due = shared.due(*next);
        let stalled = Instant::now().saturating_duration_since(due.max(last_got_on));
        ensure!(
            stalled < PATIENCE,
            "change {next} waits for others that the server does not send on"
        );
        let until = (Instant::now() + TICK).max(due.min(Instant::now() + PATIENCE / 2));
        if let Ok(received) = timeout_at(until, client.receive()).await {
            received?;
            last_got_on = Instant::now();
        }
    }
    client.work_until(Replica::synced).await?;
    Ok(client.traffic().0)
}

/// Reads along until all is there, or nothing more comes.
async fn read(mut client: Client, shared: Arc<Shared>, since: Instant) -> anyhow::Result<Ended> {
    client.flush().await?;
    let mut gather = TICK;
    let mut last_came = Instant::now();
    let elapsed = loop {
        let until = Instant::now() + gather;
        while let Ok(received) = timeout_at(until, client.receive()).await {
            received?;
            last_came = Instant::now();
        }
        let applying = Instant::now();
        client.apply()?;
        gather = applying.elapsed().max(TICK);
        client.flush().await?;
        if has_all(client.replica.doc().document(), &shared.heads) {
            break Some(since.elapsed());
        }
        if !shared.is_sent.load(Ordering::Relaxed) {
            last_came = Instant::now();
        } else if last_came.elapsed() > PATIENCE {
            break None;
        }
    };
    let bytes_received = client.traffic().1;
    Ok(block_in_place(|| {
        let document = client.replica.doc().document();
        Ended {
            state: AutomergeState::of(document).map_err(|error| error.to_string()),
            order: order_of(document),
            elapsed,
            bytes_received,
        }
    }))
}

impl Shared {
    fn change(&self, place: usize) -> Option<&Recorded> {
        self.recording.changes().get(place)
    }

    fn due(&self, place: usize) -> Instant {
        let due = self.due.get(place).copied().unwrap_or_default();
        // A time beyond all clocks is one that nobody waits for.
        self.started.checked_add(due).unwrap_or(self.started)
    }

    /// How many of these places' changes can be sent now.
    fn batch(&self, places: &[usize], replica: &mut Replica) -> usize {
        let now = Instant::now();
        let document = replica.doc().document();
        let mut own: HashSet<ChangeHash> = HashSet::new();
        let can_go = places.iter().take(BATCH).take_while(|place| {
            let Some(change) = self.change(**place) else {
                return false;
            };
            let mut deps = change.deps().iter();
            let is_ready = self.due(**place) <= now
                && deps.all(|dep| own.contains(dep) || has_all(document, &[*dep]));
            own.insert(change.hash());
            is_ready
        });
        can_go.count()
    }
}
