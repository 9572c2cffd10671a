//! The server process, two honest clients at work, and what must hold of both.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoSerde, ROOT, ReadDoc as _};
use concord_client_wasm::replica::Replica;
use concord_server::materialise;
use concord_server::store::{SledOptions, SledStore, Store as _};
use concord_shared::ErrorCode;
use concord_shared::ids::DocumentId;
use concord_tests::client::Client;
use concord_tests::raw_client::{RawClient, Refusal};
use concord_tests::server_process::ServerProcess;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// No acknowledgement of an honest edit, and no refusal, may take longer: far more than either does
/// on a busy machine, and far less than what the inputs cost a server without bounds.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);

/// Edits of each honest client, however short the test.
const FEWEST_EDITS: i64 = 20;

/// See the module's docs.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) server: ServerProcess,
    pub(crate) document: DocumentId,
    stop: Arc<AtomicBool>,
    honest: Vec<JoinHandle<Result<Honest>>>,
    most_memory_mib: u64,
}

struct Honest {
    client: Client,
    edits: i64,
    slowest: Duration,
}

impl World {
    /// Starts the server and the honest clients. The process must stay below `most_memory_mib`.
    pub(crate) fn start(arguments: &[&str], most_memory_mib: u64) -> Result<Self> {
        let server = ServerProcess::start_with(arguments)?;
        let runtime = Runtime::new()?;
        let document = DocumentId::from_uuid([0xd0; 16]);
        let stop = Arc::new(AtomicBool::new(false));
        let honest = ["honest-1", "honest-2"].map(|name| {
            let replica = Replica::new(document.clone(), ActorId::from(name.as_bytes()));
            let (address, stop) = (server.address(), Arc::clone(&stop));
            runtime.spawn(async move {
                let client = Client::join(address, name, replica).await?;
                edit(client, name, &stop).await.context(name)
            })
        });
        Ok(Self {
            runtime,
            server,
            document,
            stop,
            honest: honest.into(),
            most_memory_mib,
        })
    }

    /// A hostile client that has joined.
    pub(crate) async fn join(&self, peer: &str) -> Result<RawClient> {
        RawClient::join(&self.server.websocket_url(), peer).await
    }

    /// The same, the nth of many, each from an address of its own.
    pub(crate) async fn join_from_afar(&self, n: usize, peer: &str) -> Result<RawClient> {
        RawClient::join_from(address(n), &self.server.websocket_url(), peer).await
    }

    /// How often the server refused with this code.
    pub(crate) fn refused(&self, code: ErrorCode) -> Result<f64> {
        let name = format!("concord_refused_total{{code=\"{code}\"}}");
        self.server.metric(&name)
    }

    /// The most memory that the server had, in MiB.
    pub(crate) fn memory_mib(&self) -> Result<u64> {
        let id = self.server.process_id().context("the server has ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .context("VmHWM is in KiB")?
            .parse()?;
        Ok(kib >> 10)
    }

    /// Sockets that the server has open, the one it listens on included.
    pub(crate) fn sockets(&self) -> Result<usize> {
        let id = self.server.process_id().context("the server has ended")?;
        let files = std::fs::read_dir(format!("/proc/{id}/fd"))?;
        // A file that is closed meanwhile is no socket any more.
        let targets = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
        Ok(targets
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count())
    }

    /// Ends the test: see [the promise](crate).
    pub(crate) fn finish(mut self) -> Result<()> {
        let mut clients = Vec::new();
        self.stop.store(true, Ordering::Relaxed);
        for honest in std::mem::take(&mut self.honest) {
            let honest = self.runtime.block_on(honest)??;
            println!("{} edits, slowest {:?}", honest.edits, honest.slowest);
            clients.push(honest.client);
        }
        let mut clients = <[Client; 2]>::try_from(clients).ok().context("two")?;
        self.runtime.block_on(converge(&mut clients))?;
        let memory = self.memory_mib()?;
        println!("at most {memory} MiB");
        ensure!(
            memory <= self.most_memory_mib,
            "the server took {memory} MiB, more than {}",
            self.most_memory_mib
        );
        drop(self.runtime);
        let status = self.server.terminate()?;
        ensure!(status.success(), "the server ended with {status}");
        ensure!(
            !self.server.log().contains("panicked"),
            "the server panicked"
        );
        // What a client sent must not keep the document from being compacted.
        let compacted = !self.server.log().contains("not compacted");
        ensure!(compacted, "the document can't be compacted");
        let store = SledStore::open(&SledOptions::new(self.server.data()))?;
        let problems = store.verify(&self.document)?;
        ensure!(problems.is_empty(), "the store has problems: {problems:?}");
        let stored = materialise::document(&store, &self.document)?.context("it was stored")?;
        let [one, _] = &mut clients;
        let mut heads = stored.get_heads();
        heads.sort_unstable();
        ensure!(heads == one.replica().heads(), "the stored heads differ");
        // As JSON: the client counts text in other units.
        let shown = serde_json::to_value(AutoSerde::from(&*one.replica().doc()))?;
        let stored = serde_json::to_value(AutoSerde::from(&stored))?;
        ensure!(
            stored == shown,
            "the stored content differs: {stored} {shown}"
        );
        Ok(())
    }
}

/// Edits until told to stop, each edit acknowledged before the next.
async fn edit(mut client: Client, name: &str, stop: &AtomicBool) -> Result<Honest> {
    let mut slowest = Duration::ZERO;
    let mut edits = 0;
    while edits < FEWEST_EDITS || !stop.load(Ordering::Relaxed) {
        edits += 1;
        let key = format!("{name}-{}", edits % 10);
        client.edit(|doc| doc.put(ROOT, key, edits)).await?;
        let sent = Instant::now();
        while !client.replica().synced() {
            ensure!(
                client.receive(sent + ANSWER, drop).await?,
                "edit {edits} was not acknowledged within {ANSWER:?}"
            );
            client.send().await?;
        }
        slowest = slowest.max(sent.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(Honest {
        client,
        edits,
        slowest,
    })
}

async fn converge(clients: &mut [Client; 2]) -> Result<()> {
    let deadline = Instant::now() + ANSWER;
    loop {
        for client in &mut *clients {
            client.settle().await?;
            client
                .receive(Instant::now() + Duration::from_millis(50), drop)
                .await?;
            client.send().await?;
        }
        let [one, other] = &mut *clients;
        if one.replica().heads() == other.replica().heads() {
            let content = one.replica().doc().hydrate(ROOT, None)?;
            let same = content == other.replica().doc().hydrate(ROOT, None)?;
            ensure!(same, "equal heads, different content");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the honest clients differ");
    }
}

/// The nth address of those that nobody has.
pub(crate) fn address(n: usize) -> Ipv4Addr {
    let [.., high, low] = n.to_be_bytes();
    Ipv4Addr::new(198, 18, high, low)
}

/// The code that a refusal states, twice: in the `error` message and in the close frame.
pub(crate) fn code_of(refusal: &Refusal) -> Result<ErrorCode> {
    let message = refusal.message.as_deref();
    let message = message.with_context(|| format!("no error message: {refusal:?}"))?;
    let text = message.split(':').next().unwrap_or(message);
    ensure!(text == refusal.reason, "the two differ: {refusal:?}");
    let code = ErrorCode::ALL.iter().find(|code| code.as_str() == text);
    code.copied()
        .with_context(|| format!("an unknown code: {refusal:?}"))
}
