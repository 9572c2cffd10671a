//! The history: what is told of changes, versions and times is what Automerge says of the same bytes; it is the same
//! after compactions and restarts; and what is brought back or forked is new history, never another one.
//!
//! `told`: changes and their patches. `versions`: reading at versions and times, and differences. `writing`: restoring
//! and forking. `asking`: what is asked wrongly, and what reading holds up.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{ActorId, AutoCommit, Automerge, ChangeHash, ObjType, ROOT, ReadDoc as _};
use concord_client_wasm::Replica;
use concord_server::store::{SledOptions, SledStore, Store as _};
use concord_shared::ids::DocumentId;
use concord_shared::json::{Types, timestamp, to_json};
use concord_tests::client::Client;
use concord_tests::server_process::{ServerProcess, binary};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::header::ACCEPT;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::rest::{Answer, Rest, send};
use super::seeds;

mod asking;
mod told;
mod versions;
mod writing;

const WORLDS: u64 = 2;
const LONG_WORLDS: u64 = 200;
const STEPS: usize = 24;

/// What a change takes, in bytes that do not compress, so that the log soon has more than it keeps beside a snapshot.
const NOISE: usize = 20_000;

fn noise(random: &mut StdRng, length: usize) -> String {
    let letter = |_| char::from(random.random_range(b'a'..=b'z'));
    (0..length).map(letter).collect()
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.expect("after 1970").as_millis()).expect("a time")
}

/// As it stands in a query.
fn rfc3339(ms: i64) -> String {
    timestamp(ms).as_str().expect("a time").to_owned()
}

fn at_version(doc: &Automerge, heads: &[ChangeHash], types: Types) -> Value {
    to_json(&doc.fork_at(heads).unwrap().hydrate(None), types)
}

fn heads_of(etag: &str) -> Vec<ChangeHash> {
    let heads = etag.trim_matches('"').split('.');
    heads.map(|head| head.parse().unwrap()).collect()
}

fn applied(value: &Value, patch: &Value) -> Result<Value> {
    let mut value = value.clone();
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())?;
    json_patch::patch(&mut value, &patch)?;
    Ok(value)
}

fn code(answer: &Answer) -> Result<(u16, String)> {
    let code = answer.json()?["code"]
        .as_str()
        .context("a code")?
        .to_owned();
    Ok((answer.status.as_u16(), code))
}

async fn bytes_of(rest: &Rest, url: &str) -> Result<Automerge> {
    let request = rest.request(Method::GET, url);
    let answer = send(request.header(ACCEPT, "application/vnd.automerge")).await?;
    Ok(Automerge::load(&answer.good()?.body)?)
}

/// All changes, from pages of this length.
async fn pages(rest: &Rest, url: &str, limit: usize, order: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = format!("{url}/changes?limit={limit}&order={order}{after}");
        let page = rest.get(&page).await?.good()?.json()?;
        let changes = page["changes"].as_array().context("changes")?;
        ensure!(changes.len() <= limit && !changes.is_empty());
        all.extend(changes.iter().cloned());
        if page["next"].is_null() {
            ensure!(page["count"] == all.len());
            return Ok(all);
        }
        after = format!("&after={}", page["next"]);
    }
}

/// The server is stopped, the document compacted, and the server started again: much of the log is gone then.
fn compact(server: &mut ServerProcess, id: &DocumentId) -> Result<()> {
    ensure!(server.terminate()?.success());
    let data = server.data().to_str().context("a path")?.to_owned();
    let compacted = Command::new(binary()?)
        .args(["compact", "--data", &data, id.as_str()])
        .output()?;
    ensure!(compacted.status.success());
    let store = SledStore::open(&SledOptions::new(server.data()))?;
    let stored = store.open(id)?.context("is stored")?;
    ensure!(stored.retained_from > 3, "the log's beginning is gone");
    ensure!(store.verify(id)?.is_empty());
    drop(store);
    server.restart()
}

/// Two tabs that write at once, and a program.
struct World {
    random: StdRng,
    rest: Rest,
    id: DocumentId,
    url: String,
    tabs: Vec<Client>,
}

impl World {
    async fn new(server: &ServerProcess, seed: u64) -> Result<Self> {
        let rest = Rest::new(server.address());
        let id = DocumentId::new(&format!("history-{seed}"))?;
        let url = format!("/v1/documents/{id}");
        let value = json!({ "n": { "$counter": 1 }, "list": [], "text": "some words of a text", "when": { "$timestamp": 5 } });
        rest.put(&format!("{url}?types=tagged"), &value)
            .await?
            .good()?;
        let mut tabs = Vec::new();
        for tab in 0..2 {
            let replica = Replica::new(id.clone(), ActorId::random());
            let name = format!("tab-{seed}-{tab}");
            let mut client = Client::join(server.address(), &name, replica).await?;
            while client.replica().heads().is_empty() {
                let deadline = Instant::now() + Duration::from_secs(10);
                ensure!(client.receive(deadline, drop).await?, "the document came");
            }
            tabs.push(client);
        }
        Ok(Self {
            random: StdRng::seed_from_u64(seed),
            rest,
            id,
            url,
            tabs,
        })
    }

    async fn step(&mut self) -> Result<()> {
        let (kind, n) = (
            self.random.random_range(0..8),
            self.random.random_range(0..100),
        );
        match kind {
            0..=3 => {
                let length = self.random.random_range(1..40);
                let words = noise(&mut self.random, length);
                let tab = self.random.random_range(0..2);
                let time = self.random.random_range(0..4) * 900_000_000_000_i64;
                let message = self.random.random::<bool>().then(|| format!("edit {n}"));
                self.tabs[tab].replica().change(|doc| {
                    edit(doc, kind, n, &words)?;
                    let options = CommitOptions::default().with_time(time);
                    doc.commit_with(match message {
                        Some(message) => options.with_message(message),
                        None => options,
                    });
                    Ok::<(), automerge::AutomergeError>(())
                })?;
            }
            4 | 5 => {
                let value = json!({ "id": n, "name": noise(&mut self.random, 30) });
                let answer = self
                    .rest
                    .post(&format!("{}/value/list", self.url), &value)
                    .await?;
                ensure!(
                    answer.status == StatusCode::CREATED
                        || answer.status == StatusCode::CONFLICT
                        || answer.status == StatusCode::NOT_FOUND
                );
            }
            _ => self.exchange().await?,
        }
        Ok(())
    }

    async fn exchange(&mut self) -> Result<()> {
        for _ in 0..2 {
            for tab in &mut self.tabs {
                tab.settle().await?;
                let soon = Instant::now() + Duration::from_millis(20);
                tab.receive(soon, drop).await?;
            }
        }
        Ok(())
    }
}

fn edit(
    doc: &mut AutoCommit,
    kind: i32,
    n: i64,
    words: &str,
) -> Result<(), automerge::AutomergeError> {
    match kind {
        0 => doc.put(ROOT, format!("key {}", n % 5), words)?,
        1 => {
            if let Some((_, text)) = doc.get(ROOT, "text")?
                && doc.object_type(&text)? == ObjType::Text
            {
                doc.splice_text(&text, 0, 1, words)?;
            } else {
                let text = doc.put_object(ROOT, "text", ObjType::Text)?;
                doc.splice_text(&text, 0, 0, words)?;
            }
        }
        2 => doc.increment(ROOT, "n", n)?,
        _ => doc.delete(ROOT, format!("key {}", n % 5))?,
    }
    Ok(())
}
