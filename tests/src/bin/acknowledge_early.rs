//! A server with a bug that `concord` must never have: it acknowledges changes before it writes them.
//!
//! It is the real server on a store that says "committed" at once and commits a moment later. The durability
//! test runs against it, too, and must find that it loses what it has acknowledged: that is how the test
//! shows that it would notice. It lives here so that `concord` itself has no such mode.
//!
//! Takes the arguments that [`ServerProcess`](concord_tests::server_process::ServerProcess) gives.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use concord_server::config::Config;
use concord_server::http::authenticate::Gate;
use concord_server::serve::Server;
use concord_server::store::{
    Contents, DocumentInfo, Durability, Ids, Label, LogRecord, Problem, SledOptions, SledStore,
    Store, StoreError, StoredDocument, Tombstone, Write,
};
use concord_shared::ids::DocumentId;

/// How far the writes are behind. A kill hits within it as soon as anybody writes.
const BEHIND: Duration = Duration::from_millis(10);

/// Commits that may be behind at once.
const QUEUED_COMMITS: usize = 1024;

#[tokio::main]
async fn main() -> Result<()> {
    let mut config = Config::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().context("a value is missing");
        match argument.as_str() {
            "serve" => {}
            "--listen" => config.listen = value()?.parse()?,
            "--data" => config.data = PathBuf::from(value()?),
            other => bail!("unknown argument {other}"),
        }
    }
    let store = SledStore::open(&SledOptions::new(&config.data))?;
    let server = Server::bind(&config, Arc::new(Early::new(store)?), Gate::open(), None).await?;
    let address = server.address()?;
    writeln!(
        std::io::stdout(),
        "acknowledging early, listening on http://{address}"
    )?;
    server.run(std::future::pending()).await
}

/// Commits in the background, and says that it is done when it has not begun.
#[derive(Debug)]
struct Early {
    store: Arc<SledStore>,
    queue: mpsc::SyncSender<Vec<Write>>,
    behind: Arc<Behind>,
}

/// How many commits are not written yet.
#[derive(Debug, Default)]
struct Behind {
    commits: Mutex<usize>,
    fewer: Condvar,
}

impl Early {
    fn new(store: SledStore) -> Result<Self> {
        let (queue, writes) = mpsc::sync_channel::<Vec<Write>>(QUEUED_COMMITS);
        let (store, behind) = (Arc::new(store), Arc::<Behind>::default());
        let (writer, left) = (Arc::clone(&store), Arc::clone(&behind));
        std::thread::Builder::new().spawn(move || {
            for writes in writes {
                std::thread::sleep(BEHIND);
                writer
                    .commit(&writes, Durability::Strict)
                    .expect("the store is well");
                *left.commits.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
                left.fewer.notify_all();
            }
        })?;
        Ok(Self {
            store,
            queue,
            behind,
        })
    }

    /// Readers see what was acknowledged, as they would if it were written.
    fn caught_up(&self) -> &SledStore {
        let commits = self.behind.commits.lock();
        let commits = commits.unwrap_or_else(PoisonError::into_inner);
        let _none = self
            .behind
            .fewer
            .wait_while(commits, |commits| *commits > 0);
        &self.store
    }
}

impl Store for Early {
    fn commit(&self, writes: &[Write], _: Durability) -> Result<(), StoreError> {
        *self
            .behind
            .commits
            .lock()
            .unwrap_or_else(PoisonError::into_inner) += 1;
        self.queue
            .send(writes.to_vec())
            .map_err(|_| StoreError::Poisoned)
    }

    fn open(&self, document: &DocumentId) -> Result<Option<StoredDocument>, StoreError> {
        self.caught_up().open(document)
    }

    fn snapshot(&self, document: &DocumentId) -> Result<Option<(u64, Bytes)>, StoreError> {
        self.caught_up().snapshot(document)
    }

    fn contents(&self, document: &DocumentId) -> Result<Option<Contents>, StoreError> {
        self.caught_up().contents(document)
    }

    fn arrivals(&self, document: &DocumentId) -> Result<Option<Bytes>, StoreError> {
        self.store.arrivals(document)
    }

    fn log(
        &self,
        document: &DocumentId,
        from: u64,
        to: u64,
        most_bytes: u64,
    ) -> Result<Vec<LogRecord>, StoreError> {
        self.caught_up().log(document, from, to, most_bytes)
    }

    fn access(&self, document: &DocumentId) -> Result<Option<(u64, Bytes)>, StoreError> {
        self.caught_up().access(document)
    }

    fn access_log(
        &self,
        document: &DocumentId,
        from: u64,
        limit: usize,
        most_bytes: u64,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        self.caught_up()
            .access_log(document, from, limit, most_bytes)
    }

    fn tombstone(&self, document: &DocumentId) -> Result<Option<Tombstone>, StoreError> {
        self.caught_up().tombstone(document)
    }

    fn tombstones(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<(DocumentId, Tombstone)>, StoreError> {
        self.caught_up().tombstones(after, limit)
    }

    fn documents_among(&self, ids: &Ids, limit: usize) -> Result<Vec<DocumentInfo>, StoreError> {
        self.caught_up().documents_among(ids, limit)
    }

    fn info(&self, document: &DocumentId) -> Result<Option<DocumentInfo>, StoreError> {
        self.caught_up().info(document)
    }

    fn labelled(
        &self,
        label: &Label,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentId>, StoreError> {
        self.caught_up().labelled(label, after, limit)
    }

    fn is_labelled(&self, document: &DocumentId, label: &Label) -> Result<bool, StoreError> {
        self.caught_up().is_labelled(document, label)
    }

    fn ids(&self, after: Option<&DocumentId>, limit: usize) -> Result<Vec<DocumentId>, StoreError> {
        self.caught_up().ids(after, limit)
    }

    fn meta(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.caught_up().meta(key)
    }

    fn set_meta(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.caught_up().set_meta(key, value)
    }

    fn verify(&self, document: &DocumentId) -> Result<Vec<Problem>, StoreError> {
        self.caught_up().verify(document)
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.store.size_on_disk()
    }
}
