//! Promise: what `/v1/openapi.json` says of HTTP is true, and no request that can be made of it hurts the server.
//!
//! schemathesis (a Python program) reads the document from the built server and makes thousands of requests of it: its
//! examples, the edges of each parameter and body, random ones, those that the document forbids, and chains in which
//! what one answer names is asked for next. Every answer is held against the document: status, type, headers, body.
//! `tests/openapi/schemathesis.toml` says where its expectations do not fit, and why.
//!
//! It can't pass by accident: requests must have changed documents many times, and afterwards the server must be ready, have caught no
//! panic, and have a store in which `verify --deep` finds nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use concord_tests::server_process::{ServerProcess, binary};

/// Names the program, where it is not where `cargo xtask test` installs it.
const PROGRAM_VARIABLE: &str = "CONCORD_TEST_SCHEMATHESIS";

/// Seconds that requests are made for.
const SECONDS: u32 = 100;
/// The same in the long profile.
const LONG_SECONDS: u32 = 1200;

/// Otherwise every run tries the same.
const SEED: &str = "1";

/// Changes that requests make, at least: fewer mean that something is wrong with the test.
const LEAST_CHANGES: f64 = 100.0;

fn program(directory: &Path) -> Result<PathBuf> {
    let named = std::env::var_os(PROGRAM_VARIABLE).map(PathBuf::from);
    let program = named.unwrap_or_else(|| directory.join(".venv/bin/schemathesis"));
    ensure!(
        program.is_file(),
        "there is no {}: cargo xtask test installs it",
        program.display()
    );
    Ok(program)
}

#[test]
fn schemathesis_finds_nothing() -> Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi");
    let mut server = ServerProcess::start()?;
    let is_long = std::env::var_os("CONCORD_TEST_LONG").is_some();
    let seconds = if is_long { LONG_SECONDS } else { SECONDS };
    let seed = std::env::var("CONCORD_TEST_SEED").unwrap_or_else(|_| SEED.to_owned());
    println!("CONCORD_TEST_SEED={seed}");
    let url = format!("http://{}/v1/openapi.json", server.address());
    let run = Command::new(program(&directory)?)
        .args(["run", &url, "--seed", &seed])
        .args(["--max-time", &seconds.to_string()])
        // It keeps what it found for the next time, which would be another test then.
        .args(["--generation-database", "none"])
        .arg("--no-color")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env(
            "HYPOTHESIS_STORAGE_DIRECTORY",
            server.data().with_file_name("hypothesis"),
        )
        .current_dir(&directory)
        .status()
        .context("starting schemathesis")?;

    let (status, ready) = server.get("/readyz")?;
    ensure!(status == 200, "/readyz: {status} {ready}");
    ensure!(run.success(), "schemathesis: {run}");
    ensure!(!server.log().contains("panicked"), "a panic was logged");
    let changes = server.metric("concord_changes_in_total")?;
    ensure!(changes >= LEAST_CHANGES, "only {changes} changes were made");

    let stopped = server.terminate()?;
    ensure!(stopped.success(), "the server: {stopped}");
    let verified = Command::new(binary()?)
        .args(["verify", "--deep", "--data"])
        .arg(server.data())
        .output()?;
    let said = String::from_utf8_lossy(&verified.stdout);
    let complained = String::from_utf8_lossy(&verified.stderr);
    ensure!(verified.status.success(), "verify: {said}{complained}");
    Ok(())
}
