//! Promise: a document that grows while people edit it is compacted under them, and nothing of it is lost.
//!
//! Three tabs fill one document, all the time connected, until the running server says that it has made a snapshot;
//! they go on a little, so that there are changes after it, too. Then the server is killed. What it finds when it
//! starts again must be all that was acknowledged: here, everything.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, ChangeHash, ROOT, ReadDoc as _, ScalarValue};
use concord_client_wasm::replica::Replica;
use concord_server::store::{SledOptions, SledStore, Store as _};
use concord_shared::ids::DocumentId;
use concord_tests::client::Client;
use concord_tests::server_process::ServerProcess;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

const TABS: u8 = 3;

/// Bytes of each edit, which do not compress. A document without a snapshot is compacted at 4 MiB of changes.
const EDIT_BYTES: usize = 60_000;

/// Edits of each tab before the server is asked whether it has compacted: 5.4 MB together.
const EDITS: u16 = 30;

/// Longer than a compaction takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn replica(document: &DocumentId, actor: u8) -> Replica {
    Replica::new(document.clone(), ActorId::from([actor; 16]))
}

fn key(tab: u8, n: u16) -> String {
    format!("tab {tab}, edit {n}")
}

async fn fill(tab: &mut Client, number: u8, edits: std::ops::Range<u16>) -> Result<()> {
    for n in edits {
        let mut random = StdRng::seed_from_u64(u64::from(n) << 8 | u64::from(number));
        let mut bytes = vec![0; EDIT_BYTES];
        random.fill(&mut bytes[..]);
        tab.edit(|doc| doc.put(ROOT, key(number, n), ScalarValue::Bytes(bytes)))
            .await?;
        tab.settle().await?;
    }
    Ok(())
}

/// Fills the document; its heads at the end, when all tabs have all of it.
async fn session(server: &ServerProcess, document: &DocumentId) -> Result<Vec<ChangeHash>> {
    let mut tabs = Vec::new();
    for number in 0..TABS {
        let name = format!("tab-{number}");
        tabs.push(Client::join(server.address(), &name, replica(document, number)).await?);
    }
    // Turn by turn, so that the actors' changes lie between each other.
    for n in 0..EDITS {
        for (number, tab) in (0..).zip(&mut tabs) {
            fill(tab, number, n..n + 1).await?;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while server.metric("concord_compactions_total")? < 1.0 {
        ensure!(Instant::now() < deadline, "the server made no snapshot");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (number, tab) in (0..).zip(&mut tabs) {
        fill(tab, number, EDITS..EDITS + 1).await?;
    }
    Ok(reader(server.address(), document).await?.replica().heads())
}

/// One more tab, which has read all there is: each tab's last edit. It comes in pieces, of which each makes a whole
/// document, only an earlier one.
async fn reader(address: SocketAddr, document: &DocumentId) -> Result<Client> {
    let mut reader = Client::join(address, "reader", replica(document, TABS)).await?;
    let deadline = Instant::now() + PATIENCE;
    let lacks = |reader: &mut Client, tab| {
        let last = reader.replica().doc().get(ROOT, key(tab, EDITS));
        matches!(last, Ok(None))
    };
    while (0..TABS).any(|tab| lacks(&mut reader, tab)) {
        ensure!(reader.receive(deadline, drop).await?, "nothing came");
        reader.send().await?;
    }
    Ok(reader)
}

#[test]
fn a_document_compacted_while_it_is_edited_is_whole_after_a_kill() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let document = DocumentId::from_uuid([0xc0; 16]);
    let mut server = ServerProcess::start()?;
    let heads = runtime.block_on(session(&server, &document))?;
    server.kill()?;
    {
        let store = SledStore::open(&SledOptions::new(server.data()))?;
        let stored = store.open(&document)?.expect("it was stored");
        let changes = u64::from(TABS) * u64::from(EDITS + 1);
        assert!(stored.base > 0, "there is a snapshot");
        assert!(stored.base < changes, "and changes after it");
        assert_eq!(stored.next(), changes);
        assert_eq!(store.verify(&document)?, []);
    }
    server.restart()?;
    let mut reader = runtime.block_on(reader(server.address(), &document))?;
    assert_eq!(reader.replica().heads(), heads);
    for tab in 0..TABS {
        for n in 0..=EDITS {
            let value = reader.replica().doc().get(ROOT, key(tab, n))?;
            assert!(value.is_some(), "{}", key(tab, n));
        }
    }
    Ok(())
}
