//! What was acknowledged is on the disk: programs write, and the server is killed, or stopped, in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use concord_tests::server_process::ServerProcess;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Duration, sleep};

use super::rest::Rest;

const WRITERS: usize = 6;
const ROUNDS: u64 = 12;
const LONG_ROUNDS: u64 = 200;

#[test]
fn what_was_acknowledged_is_there_after_a_kill_or_a_stop() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = ServerProcess::start().unwrap();
    let mut acknowledged = 0;
    for seed in super::seeds(ROUNDS, LONG_ROUNDS) {
        acknowledged += runtime
            .block_on(Box::pin(round(&mut server, seed)))
            .unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    }
    assert!(acknowledged > WRITERS, "nothing was acknowledged");
}

/// Gives how many writes were acknowledged.
async fn round(server: &mut ServerProcess, seed: u64) -> Result<usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let rest = Rest::new(server.address());
    let url = format!("/v1/documents/kept-{seed}");
    rest.put(&url, &json!({})).await?.good()?;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (rest, url, is_over) = (rest.clone(), url.clone(), Arc::clone(&is_over));
        writers.spawn(async move {
            let mut kept = Vec::new();
            for n in 0.. {
                let key = format!("{writer}-{n}");
                let Ok(answer) = rest.put(&format!("{url}/value/{key}"), &json!(n)).await else {
                    break;
                };
                if answer.status != StatusCode::CREATED {
                    // It says so where it can't know.
                    let code = answer.json()?["code"].clone();
                    ensure!(code == "shutting-down", "{} {code}", answer.status);
                    ensure!(is_over.load(Ordering::SeqCst), "nobody stopped it");
                    break;
                }
                kept.push((key, n));
            }
            anyhow::Ok(kept)
        });
    }
    sleep(Duration::from_millis(random.random_range(5..80))).await;
    is_over.store(true, Ordering::SeqCst);
    if seed.is_multiple_of(3) {
        server.terminate()?;
    } else {
        server.kill()?;
    }
    let mut kept = Vec::new();
    while let Some(writer) = writers.join_next().await {
        kept.extend(writer??);
    }
    server.restart()?;
    let there = rest.get(&url).await?.good()?.json()?;
    for (key, n) in &kept {
        ensure!(there[key] == *n, "{key} was acknowledged, and is not there");
    }
    Ok(kept.len())
}
