//! A stock samod client in this process, reduced to what the scenarios need.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use automerge::{Automerge, AutomergeError, ROOT, ReadDoc, transaction::Transaction};
use futures_util::{Stream, StreamExt};
use samod::storage::TokioFilesystemStorage;
use samod::{AutomergeUrl, BackoffConfig, DialerEvent, DialerHandle, DocHandle, DocumentId, Repo};
use tokio::time::timeout;

use crate::node::View;

/// How long anything that waits for the server or another client may take.
const WAIT: Duration = Duration::from_secs(20);
/// How often a document is looked at while waiting for it to change.
const POLL: Duration = Duration::from_millis(5);

/// One samod repo with at most one connection.
#[derive(Debug)]
pub struct SamodClient {
    repo: Repo,
    dialer: Option<DialerHandle<Infallible>>,
    url: String,
    lost: Arc<AtomicUsize>,
}

impl SamodClient {
    /// A client without storage, connected to the server at `url` (`ws://…`).
    pub async fn connect(url: &str) -> Result<Self> {
        let mut client = Self::new(url).await;
        client.online().await?;
        Ok(client)
    }

    /// A client without storage that is off-line.
    pub async fn new(url: &str) -> Self {
        let repo = Repo::build_tokio().load().await;
        Self {
            repo,
            dialer: None,
            url: url.to_owned(),
            lost: Arc::default(),
        }
    }

    /// A client that keeps documents and sync states in a directory; off-line at first.
    pub async fn with_storage(url: &str, directory: &Path) -> Self {
        let storage = TokioFilesystemStorage::new(directory);
        let repo = Repo::build_tokio().with_storage(storage).load().await;
        Self {
            repo,
            dialer: None,
            url: url.to_owned(),
            lost: Arc::default(),
        }
    }

    /// Connects, and waits for the handshake; from then on samod reconnects by itself.
    pub async fn online(&mut self) -> Result<()> {
        let backoff = BackoffConfig {
            initial_delay: Duration::from_millis(100),
            max_delay: Duration::from_millis(500),
            max_retries: None,
        };
        let dialer = self.repo.dial_websocket(self.url.parse()?, backoff)?;
        self.lost = Arc::default();
        let (lost, watched) = (self.lost.clone(), dialer.clone());
        tokio::spawn(async move {
            let mut events = watched.events();
            while let Some(event) = events.next().await {
                if matches!(event, DialerEvent::Disconnected { .. }) {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        within("a handshake", dialer.established())
            .await?
            .map_err(|error| anyhow::anyhow!("{error:?}"))?;
        self.dialer = Some(dialer);
        Ok(())
    }

    /// Closes the connection and stays away.
    pub fn offline(&mut self) {
        if let Some(dialer) = self.dialer.take() {
            dialer.close();
        }
    }

    /// How often the connection was lost since it was last asked to connect.
    pub fn connections_lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }

    /// This client's peer id.
    pub fn peer_id(&self) -> String {
        self.repo.peer_id().to_string()
    }

    /// Creates a document; `fill` writes its first change.
    pub async fn create(
        &self,
        fill: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
    ) -> Result<SamodDocument> {
        let mut document = Automerge::new();
        edit(&mut document, fill)?;
        Ok(SamodDocument {
            handle: self.repo.create(document).await?,
        })
    }

    /// Looks for a document; `None` when the server says it has none.
    pub async fn find(&self, url: &str) -> Result<Option<SamodDocument>> {
        let id: AutomergeUrl = url
            .parse()
            .map_err(|error| anyhow::anyhow!("{url}: {error:?}"))?;
        let id: DocumentId = id.document_id().clone();
        let found = within("an answer to find", self.repo.find(id)).await??;
        Ok(found.map(|handle| SamodDocument { handle }))
    }

    /// Looks for a document that must be there.
    pub async fn open(&self, url: &str) -> Result<SamodDocument> {
        self.find(url)
            .await?
            .with_context(|| format!("{url} is unavailable"))
    }

    /// Waits for a document that was unavailable when it was looked for.
    pub async fn wait_ready(&self, url: &str) -> Result<SamodDocument> {
        within("the document to appear", async {
            loop {
                if let Some(found) = self.find(url).await? {
                    return Ok(found);
                }
                tokio::time::sleep(POLL).await;
            }
        })
        .await?
    }

    /// Waits until the server has said that it has exactly what we have of the document.
    pub async fn wait_acknowledged(&self, document: &SamodDocument) -> Result<Vec<String>> {
        within("an acknowledgement", async {
            loop {
                // The connection may be another one by now: samod reconnects by itself.
                let heads = document
                    .handle
                    .with_document(|document| document.get_heads());
                let (peers, _) = document.handle.peers();
                let connection = self.dialer.as_ref().and_then(DialerHandle::connection_id);
                if let Some(theirs) = connection
                    .and_then(|connection| peers.get(&connection))
                    .and_then(|peer| peer.their_heads.as_ref())
                    && same(theirs, &heads)
                {
                    return hex(&heads);
                }
                tokio::time::sleep(POLL).await;
            }
        })
        .await
    }

    /// Stops the repo: everything is written to its storage.
    pub async fn stop(mut self) {
        self.offline();
        self.repo.stop().await;
    }
}

/// A document a [`SamodClient`] has open.
#[derive(Debug, Clone)]
pub struct SamodDocument {
    handle: DocHandle,
}

impl SamodDocument {
    /// `automerge:…`
    pub fn url(&self) -> String {
        self.handle.url().to_string()
    }

    /// Makes one change; returns the new heads.
    pub fn change(
        &self,
        fill: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
    ) -> Result<Vec<String>> {
        self.handle.with_document(|document| {
            edit(document, fill)?;
            Ok(hex(&document.get_heads()))
        })
    }

    /// Reads something with automerge's own interface.
    pub fn read<T>(&self, look: impl FnOnce(&Automerge) -> T) -> T {
        self.handle.with_document(|document| look(document))
    }

    /// The document as the client has it now, in the shape the Node client reports.
    pub fn view(&self) -> Result<View> {
        self.read(|document| {
            let changes = document.get_changes(&[]).len();
            Ok(View {
                value: serde_json::to_value(automerge::AutoSerde::from(document))?,
                heads: hex(&document.get_heads()),
                changes: u64::try_from(changes)?,
            })
        })
    }

    /// The marks of a text at the root: `(name, value, start, end)`, in code points.
    pub fn marks(&self, key: &str) -> Result<Vec<(String, String, usize, usize)>> {
        self.read(|document| {
            let (_, text) = document
                .get(ROOT, key)?
                .with_context(|| format!("no {key}"))?;
            let marks = document.marks(&text)?;
            Ok(marks
                .into_iter()
                .map(|mark| {
                    (
                        mark.name().to_owned(),
                        mark.value().to_string(),
                        mark.start,
                        mark.end,
                    )
                })
                .collect())
        })
    }

    /// Waits until the document has exactly these heads.
    pub async fn wait_heads(&self, heads: &[String]) -> Result<()> {
        let reached = timeout(WAIT, async {
            while self.heads() != heads {
                tokio::time::sleep(POLL).await;
            }
        });
        if reached.await.is_err() {
            bail!("no heads {heads:?} within {WAIT:?}; has {:?}", self.heads());
        }
        Ok(())
    }

    /// Waits until the document holds at least `count` changes.
    pub async fn wait_changes(&self, count: usize) -> Result<()> {
        within("all changes", async {
            while self.read(|document| document.get_changes(&[]).len()) < count {
                tokio::time::sleep(POLL).await;
            }
        })
        .await
    }

    /// Sorted hexadecimal hashes.
    pub fn heads(&self) -> Vec<String> {
        self.read(|document| hex(&document.get_heads()))
    }

    /// Sends an ephemeral message: any CBOR.
    pub fn broadcast(&self, cbor: Vec<u8>) {
        self.handle.broadcast(cbor);
    }

    /// Ephemeral messages from now on, as CBOR.
    pub fn ephemera(&self) -> impl Stream<Item = Vec<u8>> + Unpin + 'static {
        self.handle.ephemera().boxed_local()
    }
}

fn edit(
    document: &mut Automerge,
    fill: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
) -> Result<()> {
    let mut transaction = document.transaction();
    fill(&mut transaction)?;
    let (hash, _) = transaction.commit();
    ensure!(hash.is_some(), "the edit changed nothing");
    Ok(())
}

fn hex(hashes: &[automerge::ChangeHash]) -> Vec<String> {
    let mut hashes: Vec<String> = hashes.iter().map(ToString::to_string).collect();
    hashes.sort();
    hashes
}

fn same(left: &[automerge::ChangeHash], right: &[automerge::ChangeHash]) -> bool {
    left.len() == right.len() && left.iter().all(|hash| right.contains(hash))
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    timeout(WAIT, future)
        .await
        .with_context(|| format!("no {what} within {WAIT:?}"))
}
