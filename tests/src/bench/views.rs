//! Documents as JSON: what they cost those who do not use them, and those who do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, Automerge, ROOT, ReadDoc as _};
use bytes::Bytes;
use concord_server::limits::account::Account;
use concord_server::view::{Core, Place};
use concord_shared::DocumentId;
use concord_shared::json::Types;
use concord_shared::path::Path;
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::task::JoinSet;

use super::history::Base;
use super::load::{run, run_beside};
use super::process::{Target, resident_bytes};
use super::relaying::{self, show};
use super::stats::{Spread, count, figure};
use super::tab::{new_document, sync_message};
use super::table::Row;
use super::{Bases, Settings, memory};
use crate::server_process::{ServerProcess, get};

/// Changes taken in, one by one, and in one batch.
const UPDATES: usize = 300;

/// Documents read one after the other.
const READ: usize = 10_000;

/// What views may take meanwhile.
const BUDGET_MIB: usize = 64;

const MIB: f64 = 1024.0 * 1024.0;

/// Measures all of it.
pub async fn measure(settings: &Settings, bases: &Bases) -> Result<Vec<Row>> {
    let mut rows = beside(settings, bases).await?;
    let user = Base::user()?;
    let board = user.edits(settings.size(UPDATES, 5), |doc, number| {
        let (_, companies) = doc.get(ROOT, "companies")?.context("companies")?;
        let (_, company) = doc.get(&companies, number % 5)?.context("a company")?;
        Ok(doc.put(&company, "city", format!("Delft {number}"))?)
    })?;
    rows.push(updates(settings, &user, &board)?);
    let script = bases.large.script(1, settings.size(UPDATES, 5))?;
    let typed: Vec<Bytes> = script
        .changes
        .iter()
        .flatten()
        .map(|one| one.bytes.clone().into())
        .collect();
    rows.push(updates(settings, &bases.large, &typed)?);
    rows.push(read_in_turn(settings, &user).await?);
    Ok(rows)
}

/// The relay with a stream of its document's events, and a program that writes another one, against without.
async fn beside(settings: &Settings, bases: &Bases) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let [fan_out, _, _, large] = relaying::lines();
    for (line, base) in [(fan_out, &bases.small), (large, &bases.large)] {
        let work = line.work(settings, base)?;
        let (mut with, mut without) = (Vec::new(), Vec::new());
        let (mut told, mut written) = (Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            let target = Target::concord()?;
            let Target::Concord(server) = &target else {
                continue;
            };
            let http = format!("http://{}", server.address());
            let (outcome, others) = run_beside(&work, &target, async |documents| {
                Others::begin(http, documents).await
            })
            .await?;
            told.push(figure(others.told.load(Ordering::Relaxed)) / outcome.seconds);
            written.push(figure(others.written.load(Ordering::Relaxed)) / outcome.seconds);
            with.push(outcome);
            without.push(run(&work, &Target::concord()?).await?);
        }
        let pairs = with.iter().zip(&without);
        let ratio =
            Spread::of(pairs.map(|(with, without)| with.change_rate() / without.change_rate()));
        let name = if line.name == fan_out.name {
            "50 tabs, one small document"
        } else {
            &base.name
        };
        rows.push(Row {
            what: format!("views: relaying ({name}) with an open stream of events and a program that writes JSON"),
            concord: format!(
                "{}; {:.0} writes/s, {:.0} events/s",
                show(&with), Spread::of(written).median, Spread::of(told).median
            ),
            baseline: format!("without: {}", show(&without)),
            ratio: ratio.to_string(),
            budget: None,
        });
    }
    Ok(rows)
}

/// A reader of events and a writer of JSON, until it is dropped.
struct Others {
    told: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
    _tasks: JoinSet<Result<()>>,
}

impl Others {
    async fn begin(http: String, documents: Vec<DocumentId>) -> Result<Self> {
        let document = documents.first().context("a document")?;
        let client = crate::http_client();
        let (told, written) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let mut tasks = JoinSet::new();
        let url = format!("{http}/v1/documents/{document}/events");
        let mut stream = client
            .get(url)
            .send()
            .await?
            .error_for_status()?
            .bytes_stream();
        let counted = Arc::clone(&told);
        tasks.spawn(async move {
            while let Some(piece) = stream.next().await {
                let piece = piece?;
                let events = piece.windows(7).filter(|seven| seven == b"event: ").count();
                counted.fetch_add(events as u64, Ordering::Relaxed);
            }
            Ok(())
        });
        let url = format!("{http}/v1/documents/{}", new_document());
        client
            .put(&url)
            .json(&json!({ "n": 0 }))
            .send()
            .await?
            .error_for_status()?;
        let counted = Arc::clone(&written);
        tasks.spawn(async move {
            loop {
                let n = counted.fetch_add(1, Ordering::Relaxed);
                let put = client.put(format!("{url}/value/n")).json(&n);
                put.send().await?.error_for_status()?;
            }
        });
        Ok(Self {
            told,
            written,
            _tasks: tasks,
        })
    }
}

/// How often a second a watched document is brought up to date.
fn updates(settings: &Settings, base: &Base, changes: &[Bytes]) -> Result<Row> {
    let (mut single, mut batched, mut loads) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        let started = Instant::now();
        let document = Automerge::load(&base.saved)?;
        loads.push(started.elapsed().as_secs_f64() * 1e3);
        let mut core = Core::new(document, ActorId::random());
        let place = Place {
            path: Path::root(),
            types: Types::Plain,
        };
        let (_first, _events) = core.watch(&place, None, Arc::new(Account::unlimited()))?;
        let started = Instant::now();
        for change in changes {
            take_in(&mut core, std::slice::from_ref(change))?;
        }
        single.push(figure(changes.len() as u64) / started.elapsed().as_secs_f64());
        let mut core = Core::new(Automerge::load(&base.saved)?, ActorId::random());
        let (_first, _events) = core.watch(&place, None, Arc::new(Account::unlimited()))?;
        let started = Instant::now();
        take_in(&mut core, changes)?;
        batched.push(figure(changes.len() as u64) / started.elapsed().as_secs_f64());
    }
    let (single, batched) = (Spread::of(single), Spread::of(batched));
    Ok(Row {
        what: format!(
            "views: changes a second taken in and told to who watches all of {}",
            base.name
        ),
        concord: format!(
            "{} one by one, {} in a batch of {}",
            single.show(count),
            batched.show(count),
            changes.len()
        ),
        baseline: format!("loading it: {:.1} ms", Spread::of(loads).median),
        ratio: String::new(),
        budget: None,
    })
}

fn take_in(core: &mut Core, changes: &[Bytes]) -> Result<()> {
    // The heads do not matter here: nothing was written that waits for them.
    let data = sync_message(&[], &[], Some(&changes.concat()));
    core.take_in(&data.into())?;
    core.tell();
    ensure!(core.is_watched());
    Ok(())
}

/// The growth of the server while documents are read over HTTP, one after the other: with the budget of views, less
/// that with next to none, since what reads them fills sled's page cache and more besides.
async fn read_in_turn(settings: &Settings, base: &Base) -> Result<Row> {
    let many = settings.size(READ, 20);
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let start = |views_mib: usize| {
        let views_mib = views_mib.to_string();
        let mut server =
            ServerProcess::start_at(&data, &["--log", "warn", "--views-mib", &views_mib])?;
        server.be_quiet();
        anyhow::Ok(server)
    };
    let ids: Vec<DocumentId> = (0..many).map(|_| new_document()).collect();
    let mut server = start(1)?;
    // A connection has so many documents open, and no more.
    for some in ids.chunks(1000) {
        drop(memory::exchange(&server, base, some, true).await?);
    }
    server.terminate()?;
    let grown = |views_mib| {
        let mut server = start(views_mib)?;
        let grown = growth(&server, &ids)?;
        server.terminate()?;
        anyhow::Ok(grown)
    };
    let (mut all, mut other, mut of_views) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        let (with, without) = (grown(BUDGET_MIB)?, grown(1)?);
        all.push(with);
        other.push(without);
        of_views.push((with - without) / figure(BUDGET_MIB as u64));
    }
    let [all, other, of_views] = [all, other, of_views].map(Spread::of);
    let is_met = of_views.median <= 1.0;
    let mib = |value| format!("{value:.0} MiB");
    Ok(Row {
        what: format!(
            "views: growth while {many} documents ({}) are read in turn, against the budget of views",
            base.name
        ),
        concord: format!("{} with --views-mib {BUDGET_MIB}", all.show(mib)),
        baseline: format!("{} with --views-mib 1", other.show(mib)),
        ratio: of_views.to_string(),
        budget: Some(("≤ 1".to_owned(), is_met)),
    })
}

/// How much more memory a server has, at the most, while it is asked for one document after the other, in MiB.
fn growth(server: &ServerProcess, ids: &[DocumentId]) -> Result<f64> {
    let process = server.process_id().context("the server does not run")?;
    let read = |id: &DocumentId| {
        let (status, _) = get(server.address(), &format!("/v1/documents/{id}"))?;
        ensure!(status == 200, "{status}");
        anyhow::Ok(())
    };
    // What the first brings with it is nobody's.
    read(ids.first().context("a document")?)?;
    let before = resident_bytes(process)?;
    let mut most = before;
    for (n, id) in ids.iter().enumerate() {
        read(id)?;
        if n % 50 == 0 || n + 1 == ids.len() {
            most = most.max(resident_bytes(process)?);
        }
    }
    Ok(figure(most - before) / MIB)
}
