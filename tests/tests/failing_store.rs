//! Promise: a write that failed is neither acknowledged nor shown to anybody, and those who wait for it are told.
//!
//! The whole server runs here on a store in memory, whose next commit fails in the way the test says: lost, written
//! though the store says it does not know, or written and not synced. The store then reads back what it could not
//! make durable, so a server that looked there and showed it would be caught.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use automerge::sync::{State, SyncDoc as _};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ChangeHash, ROOT};
use concord_server::config::Config;
use concord_server::http::authenticate::Gate;
use concord_server::serve::Server;
use concord_server::store::{Fault, MemoryStore, Store};
use concord_shared::code::ErrorCode;
use concord_shared::ids::DocumentId;
use concord_shared::limits::Limits;
use concord_shared::wire::Message;
use concord_tests::raw_client::{RawClient, Refusal};
use concord_tests::server_process::get;

const DOCUMENT: &str = "4NMNnkMhL8jXrdJ9jamS58PAVdXu";

/// A server of this process, until the test ends.
async fn serve(store: Arc<MemoryStore>) -> Result<SocketAddr> {
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..Config::default()
    };
    let server = Server::bind(&config, store, Gate::open(), None).await?;
    let address = server.address()?;
    tokio::spawn(server.run(std::future::pending()));
    Ok(address)
}

async fn status(address: SocketAddr, path: &'static str) -> Result<u16> {
    let (status, _) = tokio::task::spawn_blocking(move || get(address, path)).await??;
    Ok(status)
}

/// A document and its session with the server.
struct Tab {
    connection: RawClient,
    document: AutoCommit,
    session: State,
}

impl Tab {
    /// Joins and opens the document.
    async fn open(address: SocketAddr, name: &str, document: AutoCommit) -> Result<Self> {
        let connection = RawClient::join(&format!("ws://{address}/sync"), name).await?;
        let mut tab = Self {
            connection,
            document,
            session: State::new(),
        };
        tab.send().await?;
        Ok(tab)
    }

    async fn send(&mut self) -> Result<()> {
        let session = &mut self.session;
        if let Some(message) = self.document.sync().generate_sync_message(session) {
            let message = self.connection.sync_message(DOCUMENT, &message.encode())?;
            self.connection.send(&message).await?;
        }
        Ok(())
    }

    async fn edit(&mut self, n: i64) -> Result<ChangeHash> {
        self.document.put(ROOT, "n", n)?;
        let change = self.document.commit().context("a change")?;
        self.send().await?;
        Ok(change)
    }

    /// Takes messages until the server has told these heads.
    async fn until_told(&mut self, heads: &[ChangeHash]) -> Result<()> {
        loop {
            let Message::Sync { data, .. } = self.connection.next().await? else {
                continue;
            };
            let told = concord_shared::sync::decode(&data, &Limits::default())?.heads;
            let message = automerge::sync::Message::decode(&data)?;
            let session = &mut self.session;
            self.document
                .sync()
                .receive_sync_message(session, message)?;
            if told == heads {
                return Ok(());
            }
            self.send().await?;
        }
    }

    /// How the server closes the connection, and all the heads it tells before.
    async fn until_closed(&mut self) -> Result<(Refusal, Vec<ChangeHash>)> {
        let mut told = Vec::new();
        let seen = |message| {
            if let Message::Sync { data, .. } = message {
                let message = concord_shared::sync::decode(&data, &Limits::default());
                told.extend(message.expect("a sync message").heads);
            }
        };
        Ok((self.connection.refusal_after(seen).await?, told))
    }
}

/// Two tabs with one change each of them has; then a second change, whose write fails. Both must be told so, and of
/// nothing else. Gives the writer's document, the hash of its second change, and where the server is.
async fn fail_a_write(
    store: &Arc<MemoryStore>,
    fault: Fault,
) -> Result<(AutoCommit, ChangeHash, SocketAddr)> {
    let address = serve(Arc::clone(store)).await?;
    let mut writer = Tab::open(address, "writer", AutoCommit::new()).await?;
    let first = writer.edit(1).await?;
    writer.until_told(&[first]).await?;
    let mut reader = Tab::open(address, "reader", AutoCommit::new()).await?;
    reader.until_told(&[first]).await?;
    assert_eq!(status(address, "/readyz").await?, 200);

    store.fail_next_commit(fault);
    let second = writer.edit(2).await?;
    for tab in [&mut writer, &mut reader] {
        let (refusal, told) = tab.until_closed().await?;
        assert_eq!(refusal.reason, ErrorCode::StorageFailed.as_str());
        assert_eq!(refusal.close_code, Some(1011));
        assert!(
            !told.contains(&second),
            "told of a change that was not kept"
        );
    }
    Ok((writer.document, second, address))
}

/// After a failed sync nothing read from the store can be trusted: it may be what the disk never got.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_nothing_is_shown_until_a_restart() -> Result<()> {
    let store = Arc::new(MemoryStore::new());
    let (document, second, address) = Box::pin(fail_a_write(&store, Fault::Sync)).await?;
    let stored = store
        .open(&DocumentId::new(DOCUMENT)?)?
        .context("it is there")?;
    assert_eq!(stored.next(), 2, "the store reads back what was not kept");
    assert_eq!(status(address, "/readyz").await?, 503);
    assert_eq!(status(address, "/healthz").await?, 200);
    for name in ["late", "later"] {
        let mut late = Tab::open(address, name, AutoCommit::new()).await?;
        let (refusal, told) = late.until_closed().await?;
        assert_eq!(refusal.reason, ErrorCode::StorageFailed.as_str());
        assert_eq!(told, []);
    }

    // What is on the disk is the first change; the author still has the second, and a new process takes it.
    let store = Arc::new(store.crash(0));
    let address = serve(Arc::clone(&store)).await?;
    let mut reader = Tab::open(address, "reader", AutoCommit::new()).await?;
    let mut writer = Tab::open(address, "writer", document).await?;
    writer.until_told(&[second]).await?;
    reader.until_told(&[second]).await?;
    assert_eq!(status(address, "/readyz").await?, 200);
    Ok(())
}

/// A backend that survives a failed write: only the documents of that batch are read again, whether it is there or not.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_write_the_document_is_read_again() -> Result<()> {
    for fault in [Fault::WriteLost, Fault::WriteDone] {
        let store = Arc::new(MemoryStore::new());
        let (document, second, address) = Box::pin(fail_a_write(&store, fault)).await?;
        assert_eq!(status(address, "/readyz").await?, 200);
        let mut writer = Tab::open(address, "writer again", document).await?;
        writer.until_told(&[second]).await?;
        let mut reader = Tab::open(address, "reader again", AutoCommit::new()).await?;
        reader.until_told(&[second]).await?;
        let third = writer.edit(3).await?;
        reader.until_told(&[third]).await?;
        let kept = store.crash(0).open(&DocumentId::new(DOCUMENT)?)?;
        assert_eq!(kept.map(|document| document.next()), Some(3), "{fault:?}");
    }
    Ok(())
}
