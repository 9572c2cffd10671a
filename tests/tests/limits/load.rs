//! Two hundred connections that nobody knows do what they can, while two tabs edit. What is measured of it is a bench; here,
//! that every edit is acknowledged and the tabs are the same in the end.

use anyhow::{Result, ensure};
use concord_tests::bench::hammer::{HAMMERERS, Kind, run};

/// Edits of each tab.
const EDITS: usize = 30;

async fn hammered(kind: Kind) -> Result<()> {
    let outcome = Box::pin(run(kind, EDITS, HAMMERERS, true)).await?;
    let slowest = outcome.loud.iter().max();
    println!("{kind:?}: {} times, slowest {slowest:?}", outcome.done);
    ensure!(outcome.loud.len() == 2 * EDITS, "{outcome:?}");
    ensure!(outcome.limited > 0.0, "nobody was held back: {outcome:?}");
    ensure!(outcome.done_in_all > 20, "nobody hammered: {outcome:?}");
    ensure!(outcome.let_in == 0, "{outcome:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tabs_edit_while_strangers_ask_with_wrong_tokens() -> Result<()> {
    hammered(Kind::Requests).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tabs_edit_while_strangers_read_what_is_open_to_all() -> Result<()> {
    hammered(Kind::Open).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tabs_edit_while_strangers_connect_again_and_again() -> Result<()> {
    hammered(Kind::Connections).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_tabs_edit_while_strangers_send_messages() -> Result<()> {
    hammered(Kind::Messages).await
}
