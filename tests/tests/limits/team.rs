//! Nothing is set: fifty tabs of ten people in one office, who type, leave and come back all at once.

use std::time::Duration;

use anyhow::{Result, ensure};
use automerge::{ActorId, ROOT, transaction::Transactable as _};
use concord_client_wasm::replica::Replica;
use concord_server::limits::Limit;
use concord_shared::ErrorCode;
use concord_tests::client::Client;
use concord_tests::server_process::ServerProcess;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::document;

/// Tabs, which nobody told who they are: one address has them all, and they share what it may have.
const TABS: u8 = 50;

/// Documents that they are on.
const DOCUMENTS: u8 = 5;

/// Edits of each tab, and the time between two: somebody who types fast.
const EDITS: u64 = 40;
const PAUSE: Duration = Duration::from_millis(50);

async fn tab(server: std::net::SocketAddr, n: u8, edits: u64) -> Result<()> {
    let name = format!("tab-{n}");
    let actor = ActorId::from(format!("{name}-{edits}").as_bytes());
    let replica = Replica::new(document(n % DOCUMENTS), actor);
    let mut tab = Client::join(server, &name, replica).await?;
    for edit in 0..edits {
        tab.edit(|doc| doc.put(ROOT, name.as_str(), edit)).await?;
        tab.settle().await?;
        sleep(PAUSE).await;
    }
    let rest = concord_tests::http_client();
    for path in ["/v1/documents", "/inspect/", "/inspect/main.js", "/healthz"] {
        let answer = rest.get(format!("http://{server}{path}")).send().await?;
        ensure!(answer.status() != 429, "{path}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_team_meets_no_limit() -> Result<()> {
    // Else all who come from this machine are a proxy's.
    let server = ServerProcess::start_with(&["--trusted-proxy", "192.0.2.1"])?;
    for edits in [EDITS, 1, 1] {
        let mut tabs = JoinSet::new();
        for n in 0..TABS {
            tabs.spawn(tab(server.address(), n, edits));
        }
        while let Some(tab) = tabs.join_next().await {
            tab??;
        }
    }
    let (_, metrics) = server.get("/metrics")?;
    for (name, labels) in [
        ("concord_limited_total{", Limit::ALL.len()),
        ("concord_refused_total{", ErrorCode::ALL.len()),
    ] {
        let counted = metrics.lines().filter(|line| line.starts_with(name));
        let moved = counted.clone().filter(|line| !line.ends_with(" 0"));
        let moved: Vec<_> = moved.collect();
        ensure!(moved.is_empty(), "{moved:?}");
        ensure!(counted.count() == labels, "not all are there: {metrics}");
    }
    Ok(())
}
