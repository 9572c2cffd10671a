//! Promise: same changes, same document, on recorded histories.
//!
//! `concord replay` types a history again, through the built server, one client per agent, each
//! transaction on the version its author saw; a further client reads along. The final text of every
//! client must be the recorded one: the command fails otherwise, which a test here checks.
//!
//! A history of changes has no text to come to: in all causal orders, and at readers behind the built server, it must come
//! to one state. `concord record` must write what a server received, nothing else, in whole lines whenever it is
//! killed. (That a replica which parts is caught, and where: beside `server/src/replay`, with broken ones.)
//!
//! The two real histories are not part of the project: where they are absent (`CONCORD_TEST_TRACES`, else
//! `../shared/traces`), the tests use a small one that they make, with two agents typing at once.

#[path = "replay/histories.rs"]
mod histories;
#[path = "replay/honest.rs"]
mod honest;
#[path = "replay/live.rs"]
mod live;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use concord_tests::server_process::{ServerProcess, binary};
use serde_json::{Value, json};

fn trace(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("CONCORD_TEST_TRACES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces"),
        PathBuf::from,
    );
    let path = folder.join(name);
    if !path.is_file() {
        println!("skipped: {name} is not there");
        return None;
    }
    Some(path)
}

fn replay(file: &Path, arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(binary()?)
        .arg("replay")
        .arg(file)
        .arg("--json")
        .args(arguments)
        .output()?)
}

fn replay_well(file: &Path, arguments: &[&str]) -> Result<Value> {
    let output = replay(file, arguments)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {errors}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).context("the report is JSON")?;
    ensure!(report["text_matches"] == true, "{report}");
    Ok(report)
}

/// Two agents at once: each round both type on what they saw, then one merges and deletes.
fn small_trace(end: &str) -> Value {
    let mut transactions: Vec<Value> = Vec::new();
    let mut push = |parents: &[usize], agent: u8, patches: Value| {
        transactions.push(json!({
            "parents": parents, "agent": agent, "numChildren": 0, "time": "", "patches": patches,
        }));
        transactions.len() - 1
    };
    let mut tip = push(&[], 0, json!([[0, 0, "<>"]]));
    for _ in 0..50 {
        let left = push(&[tip], 0, json!([[1, 0, "é🦀"]]));
        let right = push(&[tip], 1, json!([[1, 0, "z"]]));
        // Both inserts, five UTF-16 units between the brackets as the first author counts them.
        tip = push(&[left, right], 0, json!([[1, 3, ""]]));
    }
    push(&[tip], 1, json!([[1, 0, "end"]]));
    json!({ "kind": "concurrent", "endContent": end, "numAgents": 2, "txns": transactions })
}

#[test]
fn a_small_concurrent_history_comes_out_the_same() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("small.json");
    std::fs::write(&file, small_trace("<end>").to_string())?;
    let report = replay_well(&file, &[])?;
    assert_eq!(report["transactions"], 152);
    let server = ServerProcess::start()?;
    let url = server.websocket_url();
    replay_well(&file, &["--to", &url, "--reader", "--latency-ms", "3"])?;
    Ok(())
}

#[test]
fn a_wrong_final_text_is_an_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("wrong.json");
    std::fs::write(&file, small_trace("<something else>").to_string())?;
    assert!(!replay(&file, &[])?.status.success());
    let server = ServerProcess::start()?;
    assert!(
        !replay(&file, &["--to", &server.websocket_url()])?
            .status
            .success()
    );
    Ok(())
}

#[test]
fn two_people_with_latency() -> Result<()> {
    let Some(file) = trace("friendsforever.json.gz") else {
        return Ok(());
    };
    let server = ServerProcess::start()?;
    let url = server.websocket_url();
    let report = replay_well(&file, &["--to", &url, "--reader", "--latency-ms", "5"])?;
    println!("{report}");
    Ok(())
}

#[test]
fn the_paper_keystroke_by_keystroke() -> Result<()> {
    let Some(file) = trace("automerge-paper.json.gz") else {
        return Ok(());
    };
    let server = ServerProcess::start()?;
    let report = replay_well(&file, &["--to", &server.websocket_url()])?;
    println!("{report}");
    Ok(())
}
