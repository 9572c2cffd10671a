//! Two hundred connections that nobody knows do what they can, while two tabs edit: every edit is acknowledged, the tabs are
//! the same in the end, and they notice no more than is promised. By how much less is a bench.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use concord_tests::bench::hammer::{HAMMERERS, Kind, run};

/// Edits of each tab.
const EDITS: usize = 30;

/// How much longer an edit may take until the other tab has it.
const MOST_TIMES: u32 = 2;

/// What a machine may add that has other tests to run.
const MARGIN: Duration = Duration::from_millis(3);

/// What else the machine does may begin half way: then it is tried again, and who is really held up is so each time.
const TRIES: usize = 3;

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

async fn hammered(kind: Kind) -> Result<()> {
    let mut tried = Vec::new();
    for _ in 0..TRIES {
        let (quiet, loud) = once(kind).await?;
        if loud <= MOST_TIMES * quiet + MARGIN {
            return Ok(());
        }
        tried.push((quiet, loud));
    }
    bail!("{kind:?}: an edit takes longer than it may, without them and with them: {tried:?}")
}

/// How long an edit takes without them, and with them.
async fn once(kind: Kind) -> Result<(Duration, Duration)> {
    let outcome = Box::pin(run(kind, EDITS, HAMMERERS, true)).await?;
    let slowest = outcome.loud.iter().max();
    let (quiet, loud) = (median(&outcome.quiet), median(&outcome.loud));
    println!(
        "{kind:?}: {} times, {quiet:?} without them, {loud:?} with them, slowest {slowest:?}",
        outcome.done
    );
    ensure!(outcome.loud.len() == 2 * EDITS, "{outcome:?}");
    ensure!(outcome.limited > 0.0, "nobody was held back: {outcome:?}");
    ensure!(outcome.done_in_all > 20, "nobody hammered: {outcome:?}");
    ensure!(outcome.let_in == 0, "{outcome:?}");
    Ok((quiet, loud))
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
