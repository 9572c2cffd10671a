//! The history: what is told of changes, versions and times is what Automerge says of the same bytes; it is the same
//! after compactions and restarts; and what is brought back or forked is new history, never another one.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{ActorId, AutoCommit, Automerge, ChangeHash, ObjType, ROOT, ReadDoc as _};
use concord_client_wasm::Replica;
use concord_server::store::{SledOptions, SledStore, Store as _};
use concord_shared::ids::DocumentId;
use concord_shared::json::{Types, from_rfc3339, is_same, timestamp, to_json};
use concord_tests::client::Client;
use concord_tests::server_process::{ServerProcess, binary};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::header::{ACCEPT, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::rest::{Answer, Rest, send};

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

#[test]
fn each_change_is_told_and_its_patch_is_what_it_changed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for seed in super::seeds(WORLDS, LONG_WORLDS) {
        let told = told(&runtime, seed);
        told.with_context(|| format!("CONCORD_TEST_SEED={seed} replays it"))
            .unwrap();
    }
}

fn told(runtime: &tokio::runtime::Runtime, seed: u64) -> Result<()> {
    let mut server = ServerProcess::start()?;
    let began = now_ms();
    let (rest, id, url) = runtime.block_on(async {
        let mut world = World::new(&server, seed).await?;
        for _ in 0..STEPS {
            world.step().await?;
        }
        // More than the log keeps beside a snapshot.
        for _ in 0..16 {
            let words = noise(&mut world.random, NOISE);
            world.tabs[0].edit(|doc| edit(doc, 0, 0, &words)).await?;
        }
        world.exchange().await?;
        anyhow::Ok((world.rest.clone(), world.id.clone(), world.url.clone()))
    })?;
    let before = runtime.block_on(check(&rest, &url, began))?;
    compact(&mut server, &id)?;
    let rest = Rest::new(server.address());
    ensure!(
        runtime.block_on(check(&rest, &url, began))? == before,
        "compacted, all is told as before"
    );
    server.kill()?;
    // And of what is recorded from the directory every arrival is known.
    let file = tempfile::NamedTempFile::new()?;
    let path = file.path().with_extension("recording");
    let (data, to) = (
        server.data().to_str().context("a path")?,
        path.to_str().context("a path")?,
    );
    let recorded = Command::new(binary()?)
        .args(["record", "--data", data, id.as_str(), "--to", to])
        .output()?;
    let lines = std::fs::read_to_string(&path)?;
    std::fs::remove_file(&path)?;
    let said = String::from_utf8_lossy(&recorded.stdout).into_owned();
    ensure!(!said.contains("no time of arrival"), "{said}");
    let lines: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    for (change, line) in before.iter().zip(&lines[1..]) {
        let at = change["receivedAt"].as_str().and_then(from_rfc3339);
        ensure!(
            line["at"].as_i64() == at && at.is_some(),
            "{line} is {change}"
        );
        ensure!(line["by"] == change["principal"]);
    }
    Ok(())
}

/// Holds all that is told of the changes against Automerge.
async fn check(rest: &Rest, url: &str, began: i64) -> Result<Vec<Value>> {
    let doc = bytes_of(rest, url).await?;
    let changes = pages(rest, url, 7, "oldest").await?;
    let mut newest = pages(rest, url, 1000, "newest").await?;
    newest.reverse();
    ensure!(newest == changes, "the order is one");
    let known = doc.get_changes(&[]);
    ensure!(known.len() == changes.len());
    let known: BTreeMap<String, _> = known
        .iter()
        .map(|change| (change.hash().to_string(), change))
        .collect();
    let mut seen = Vec::new();
    let mut arrived = began;
    for (place, told) in changes.iter().enumerate() {
        let hash = told["hash"].as_str().context("a hash")?;
        let change = known[hash];
        let deps: Vec<String> = change.deps().iter().map(ToString::to_string).collect();
        ensure!(told["place"] == place && told["actor"] == change.actor_id().to_hex_string());
        ensure!(told["seq"] == change.seq() && told["ops"] == change.len());
        ensure!(
            told["startOp"] == change.start_op().get()
                && told["message"] == json!(change.message())
        );
        ensure!(told["deps"] == json!(deps) && deps.iter().all(|dep| seen.contains(dep)));
        seen.push(hash.to_owned());
        let made = told["time"].as_str().and_then(from_rfc3339).unwrap_or(0);
        ensure!(made == change.timestamp(), "{told}");
        ensure!(told["principal"] == "anonymous");
        let at = told["receivedAt"]
            .as_str()
            .and_then(from_rfc3339)
            .context("a time")?;
        ensure!(arrived <= at && at <= now_ms(), "{told}");
        arrived = at;

        for (parameter, types) in [("", Types::Plain), ("?types=tagged", Types::Tagged)] {
            let one = rest
                .get(&format!("{url}/changes/{hash}{parameter}"))
                .await?
                .good()?;
            let one = one.json()?;
            let mut whole = told.clone();
            whole["patch"] = one["patch"].clone();
            ensure!(whole == one, "{one} is {told}");
            let before = at_version(&doc, change.deps(), types);
            let after = at_version(&doc, &[change.hash()], types);
            let patched = applied(&before, &one["patch"])?;
            ensure!(is_same(&patched, &after), "{patched} is not {after}");
        }
    }
    Ok(changes)
}

#[test]
fn a_document_is_read_at_any_version_and_at_any_time() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = ServerProcess::start().unwrap();
    let before = rfc3339(now_ms() - 1);
    // What was read, and when.
    let mut moments: Vec<(String, String, Value)> = Vec::new();
    let (url, id) = runtime
        .block_on(async {
            let mut world = World::new(&server, 77).await?;
            for _ in 0..25 {
                let words = noise(&mut world.random, NOISE);
                world.tabs[0].edit(|doc| edit(doc, 0, 1, &words)).await?;
                world.step().await?;
                world.exchange().await?;
                let read = world.rest.get(&world.url).await?.good()?;
                // The clock's next millisecond is the next change's.
                tokio::time::sleep(Duration::from_millis(3)).await;
                moments.push((rfc3339(now_ms()), read.etag()?.to_owned(), read.json()?));
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            anyhow::Ok((world.url.clone(), world.id.clone()))
        })
        .unwrap();
    for is_compacted in [false, true] {
        if is_compacted {
            compact(&mut server, &id).unwrap();
        }
        let rest = Rest::new(server.address());
        let read = async {
            let early = rest.get(&format!("{url}?at={before}")).await?;
            ensure!(code(&early)? == (404, "no-version".to_owned()));
            for (time, etag, value) in &moments {
                let version = etag.trim_matches('"');
                for at in [time.as_str(), version] {
                    let read = rest.get(&format!("{url}?at={at}")).await?.good()?;
                    ensure!(read.etag()? == etag, "{at} is {etag}");
                    ensure!(read.json()? == *value);
                    let text = rest.get(&format!("{url}/value/key%201?at={at}")).await?;
                    match value.get("key 1") {
                        Some(there) => ensure!(text.json()? == *there),
                        None => ensure!(code(&text)?.1 == "no-value"),
                    }
                    let request = rest.request(Method::GET, &format!("{url}?at={at}"));
                    let same = send(request.header(IF_NONE_MATCH, etag)).await?;
                    ensure!(same.status == StatusCode::NOT_MODIFIED);
                    let there = bytes_of(&rest, &format!("{url}?at={at}")).await?;
                    ensure!(to_json(&there.hydrate(None), Types::Plain) == *value);
                    let mut heads = there.get_heads();
                    heads.sort_unstable();
                    ensure!(heads == heads_of(etag));
                }
                // In another zone, and with a plus that nobody encoded.
                let ms = from_rfc3339(time).context("a time")?;
                let elsewhere = rfc3339(ms + 2 * 3_600_000).replace('Z', "+02:00");
                let read = rest.get(&format!("{url}?at={elsewhere}")).await?.good()?;
                ensure!(read.etag()? == etag);
            }
            // What has a version's name never changes; what has a time's might.
            let (time, etag, _) = &moments[3];
            for (at, is_fixed) in [(etag.trim_matches('"'), true), (time, false)] {
                let request = rest
                    .request(Method::GET, &format!("{url}?at={at}"))
                    .send()
                    .await?;
                let cache = request.headers().get("cache-control");
                ensure!(
                    cache.is_some_and(|cache| cache.to_str().unwrap().contains("immutable"))
                        == is_fixed
                );
            }
            anyhow::Ok(())
        };
        runtime.block_on(read).unwrap();
    }
}

#[test]
fn of_what_was_imported_its_authors_clocks_are_believed() {
    let folder = tempfile::tempdir().unwrap();
    let mut document = AutoCommit::new();
    let years = [1_577_836_800_i64, 1_609_459_200, 1_640_995_200];
    for (year, seconds) in (2020..).zip(years) {
        document.put(ROOT, "year", i64::from(year)).unwrap();
        // Automerge's own clients write seconds.
        document.commit_with(CommitOptions::default().with_time(seconds));
    }
    document.put(ROOT, "timeless", true).unwrap();
    document.commit();
    let (file, data) = (
        folder.path().join("old.automerge"),
        folder.path().join("data"),
    );
    std::fs::write(&file, document.save()).unwrap();
    let imported = Command::new(binary().unwrap())
        .args(["import", "--id", "old", "--data"])
        .args([&data, &file])
        .output()
        .unwrap();
    assert!(imported.status.success());
    let server = ServerProcess::start_at(&data, &[]).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let read = async {
        let rest = Rest::new(server.address());
        let at = async |time: &str| rest.get(&format!("/v1/documents/old?at={time}")).await;
        ensure!(at("2021-06-01T00:00:00Z").await?.json()? == json!({ "year": 2021 }));
        ensure!(at("2020-01-01T00:00:00Z").await?.json()? == json!({ "year": 2020 }));
        // One that says nothing of its time is there when what it builds on is.
        ensure!(
            at("2022-06-01T00:00:00Z").await?.json()? == json!({ "year": 2022, "timeless": true })
        );
        ensure!(code(&at("2019-12-31T23:59:59Z").await?)?.1 == "no-version");
        let changes = pages(&rest, "/v1/documents/old", 10, "oldest").await?;
        ensure!(changes[0]["time"] == "2020-01-01T00:00:00.000Z");
        ensure!(changes[3]["time"].is_null());
        ensure!(
            changes
                .iter()
                .all(|change| change["receivedAt"].is_null() && change["principal"].is_null())
        );
        anyhow::Ok(())
    };
    runtime.block_on(read).unwrap();
}

#[test]
fn a_difference_leads_from_any_version_to_any_other() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    for seed in super::seeds(WORLDS, LONG_WORLDS) {
        let differs = runtime.block_on(differences(&server, 1000 + seed));
        differs
            .with_context(|| format!("CONCORD_TEST_SEED={seed} replays it"))
            .unwrap();
    }
}

async fn differences(server: &ServerProcess, seed: u64) -> Result<()> {
    let mut world = World::new(server, seed).await?;
    let mut versions: Vec<String> = Vec::new();
    for _ in 0..STEPS {
        world.step().await?;
        let read = world.rest.get(&world.url).await?.good()?;
        versions.push(read.etag()?.trim_matches('"').to_owned());
    }
    let doc = bytes_of(&world.rest, &world.url).await?;
    let patch_of = async |query: &str| {
        let answer = world
            .rest
            .get(&format!("{}/diff{query}", world.url))
            .await?
            .good()?;
        ensure!(answer.content_type == "application/json-patch+json");
        Ok((answer.etag()?.to_owned(), answer.json()?))
    };
    for _ in 0..20 {
        let mut any = || versions[world.random.random_range(0..versions.len())].clone();
        let (from, to) = (any(), any());
        for (parameter, types) in [("", Types::Plain), ("&types=tagged", Types::Tagged)] {
            let (etag, patch) = patch_of(&format!("?from={from}&to={to}{parameter}")).await?;
            ensure!(etag.trim_matches('"') == to);
            let before = at_version(&doc, &heads_of(&from), types);
            let after = at_version(&doc, &heads_of(&to), types);
            ensure!(is_same(&applied(&before, &patch)?, &after));
            ensure!(
                (patch == json!([])) == is_same(&before, &after),
                "no more than differs"
            );
        }
        // Of a part of it, which may come and go.
        let there = |heads: &str| {
            at_version(&doc, &heads_of(heads), Types::Plain)
                .get("key 0")
                .cloned()
        };
        let query = format!("/key%200?from={from}&to={to}");
        match (there(&from), there(&to)) {
            (None, None) => {
                let answer = world
                    .rest
                    .get(&format!("{}/diff{query}", world.url))
                    .await?;
                ensure!(code(&answer)? == (404, "no-value".to_owned()));
            }
            (None, Some(value)) => ensure!(
                patch_of(&query).await?.1 == json!([{ "op": "add", "path": "", "value": value }])
            ),
            (Some(_), None) => {
                ensure!(patch_of(&query).await?.1 == json!([{ "op": "remove", "path": "" }]))
            }
            (Some(before), Some(after)) => {
                ensure!(applied(&before, &patch_of(&query).await?.1)? == after)
            }
        }
    }
    // From nothing, and to now.
    let now = at_version(&doc, &doc.get_heads(), Types::Plain);
    ensure!(is_same(&applied(&json!({}), &patch_of("").await?.1)?, &now));
    let from = &versions[2];
    let before = at_version(&doc, &heads_of(from), Types::Plain);
    ensure!(is_same(
        &applied(&before, &patch_of(&format!("?from={from}")).await?.1)?,
        &now
    ));
    Ok(())
}

#[test]
fn what_was_is_brought_back_by_a_new_change() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    for seed in super::seeds(WORLDS, LONG_WORLDS) {
        let restored = runtime.block_on(restores(&server, 2000 + seed));
        restored
            .with_context(|| format!("CONCORD_TEST_SEED={seed} replays it"))
            .unwrap();
    }
}

async fn restores(server: &ServerProcess, seed: u64) -> Result<()> {
    let mut world = World::new(server, seed).await?;
    let mut versions: Vec<String> = Vec::new();
    for round in 0..STEPS {
        world.step().await?;
        let (rest, url) = (&world.rest, &world.url);
        let read = rest.get(url).await?.good()?;
        versions.push(read.etag()?.trim_matches('"').to_owned());
        if round % 3 != 2 {
            continue;
        }
        let version = versions[world.random.random_range(0..versions.len())].clone();
        let tagged = async |query: &str| {
            rest.get(&format!("{url}{query}types=tagged"))
                .await?
                .good()?
                .json()
        };
        let (old, count) = (
            tagged(&format!("?at={version}&")).await?,
            changes(rest, url).await?,
        );
        let heads = heads_of(read.etag()?);
        let restored = rest
            .post(&format!("{url}/restore"), &json!({ "at": version }))
            .await?
            .good()?;
        let now = tagged("?").await?;
        ensure!(is_same(&now, &old), "{now} is not {old}");
        let before = at_version(&bytes_of(rest, url).await?, &heads, Types::Tagged);
        let is_news = !is_same(&before, &old);
        ensure!(
            changes(rest, url).await? == count + usize::from(is_news),
            "one change, if any"
        );
        ensure!(is_same(&restored.json()?, &rest.get(url).await?.json()?));
        ensure!(restored.etag()? == rest.get(url).await?.etag()?);
        // All that there was is there still.
        for version in &versions {
            rest.get(&format!("{url}?at={version}")).await?.good()?;
        }
    }
    Ok(())
}

async fn changes(rest: &Rest, url: &str) -> Result<usize> {
    let page = rest
        .get(&format!("{url}/changes?limit=1"))
        .await?
        .good()?
        .json()?;
    Ok(usize::try_from(page["count"].as_u64().context("a count")?)?)
}

#[test]
fn what_is_brought_back_merges_with_what_others_write() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    let merges = async {
        let mut world = World::new(&server, 1).await?;
        let (rest, url) = (world.rest.clone(), world.url.clone());
        rest.put(
            &format!("{url}/value/meeting"),
            &json!({ "name": "one", "room": "A" }),
        )
        .await?
        .good()?;
        let old = rest.get(&url).await?.good()?;
        let version = old.etag()?.trim_matches('"').to_owned();
        rest.put(
            &format!("{url}/value/meeting"),
            &json!({ "name": "two", "who": "ann" }),
        )
        .await?
        .good()?;
        rest.put(&format!("{url}/value/n"), &json!(100))
            .await?
            .good()?;
        world.exchange().await?;
        // A tab writes without having heard of what is to come.
        let seen = rest.get(&url).await?.good()?.etag()?.to_owned();
        world.tabs[0].replica().change(|doc| {
            doc.increment(ROOT, "n", 7)?;
            let (_, meeting) = doc.get(ROOT, "meeting")?.expect("a meeting");
            doc.put(&meeting, "minutes", "written")
        })?;
        let restore = json!({ "at": version, "path": "/meeting" });
        let done = rest
            .post(&format!("{url}/restore"), &restore)
            .await?
            .good()?;
        ensure!(done.json()? == json!({ "name": "one", "room": "A" }));
        let request = rest
            .request(Method::POST, &format!("{url}/restore"))
            .header(IF_MATCH, &seen);
        send(request.json(&json!({ "at": version, "path": "/n" })))
            .await?
            .good()?;
        world.exchange().await?;
        let now = rest
            .get(&format!("{url}?types=tagged"))
            .await?
            .good()?
            .json()?;
        ensure!(
            now["meeting"]["minutes"] == "written"
                || now["meeting"]["minutes"]["$string"] == "written",
            "{now}"
        );
        ensure!(
            now["meeting"]["name"] == "one" && now["meeting"].get("who").is_none(),
            "{now}"
        );
        ensure!(
            now["n"] == json!({ "$counter": 8 }),
            "the counter is one, and goes on: {now}"
        );
        // What was not there is not there again; twice is as good as once.
        let first = json!({ "at": heads_of(&version_of_first(&rest, &url).await?)[0].to_string(), "path": "/meeting" });
        for _ in 0..2 {
            let gone = rest.post(&format!("{url}/restore"), &first).await?;
            ensure!(gone.status == StatusCode::NO_CONTENT, "{gone:?}");
            let answer = rest.get(&format!("{url}/value/meeting")).await?;
            ensure!(code(&answer)?.1 == "no-value");
        }
        anyhow::Ok(())
    };
    runtime.block_on(merges).unwrap();
}

async fn version_of_first(rest: &Rest, url: &str) -> Result<String> {
    let page = rest
        .get(&format!("{url}/changes?limit=1"))
        .await?
        .good()?
        .json()?;
    Ok(page["changes"][0]["hash"]
        .as_str()
        .context("a hash")?
        .to_owned())
}

#[test]
fn a_fork_has_the_same_changes_and_goes_its_own_way() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = ServerProcess::start().unwrap();
    let forks = async {
        let mut world = World::new(&server, 3).await?;
        let (rest, url) = (world.rest.clone(), world.url.clone());
        let mut versions = Vec::new();
        for _ in 0..STEPS {
            world.step().await?;
            versions.push(rest.get(&url).await?.good()?.etag()?.to_owned());
        }
        let doc = bytes_of(&rest, &url).await?;
        let mut made = Vec::new();
        for (n, etag) in versions.iter().enumerate().step_by(4) {
            let wanted = json!({ "at": etag.trim_matches('"'), "id": format!("fork-{n}") });
            let fork = rest.post(&format!("{url}/fork"), &wanted).await?.good()?;
            ensure!(fork.status == StatusCode::CREATED && fork.etag()? == etag);
            let location = fork.location.context("a place")?;
            ensure!(location == format!("/v1/documents/fork-{n}"));
            let there = bytes_of(&rest, &location).await?;
            let wanted_doc = doc.fork_at(&heads_of(etag))?;
            let hashes = |doc: &Automerge| {
                let changes = doc.get_changes(&[]);
                let mut hashes: Vec<ChangeHash> =
                    changes.iter().map(|change| change.hash()).collect();
                hashes.sort_unstable();
                hashes
            };
            ensure!(hashes(&there) == hashes(&wanted_doc));
            ensure!(
                to_json(&there.hydrate(None), Types::Tagged)
                    == to_json(&wanted_doc.hydrate(None), Types::Tagged)
            );
            // Who was not told of it may ask again.
            let again = rest.post(&format!("{url}/fork"), &wanted).await?;
            ensure!(again.status == StatusCode::OK, "{again:?}");
            made.push((location, etag.clone()));
        }
        let taken = rest
            .post(
                &format!("{url}/fork"),
                &json!({ "id": world.id.as_str(), "at": versions[0].trim_matches('"') }),
            )
            .await?;
        ensure!(code(&taken)? == (412, "exists".to_owned()));
        // Without a body: all of it, under a new id.
        let whole = send(rest.request(Method::POST, &format!("{url}/fork")))
            .await?
            .good()?;
        let location = whole.location.clone().context("a place")?;
        ensure!(whole.etag()? == rest.get(&url).await?.etag()?);
        // Both go on, and can still be merged: nobody made two changes in one place.
        rest.put(&format!("{location}/value/fork"), &json!("a"))
            .await?
            .good()?;
        rest.put(&format!("{url}/value/origin"), &json!("b"))
            .await?
            .good()?;
        let (mut one, mut other) = (
            bytes_of(&rest, &url).await?,
            bytes_of(&rest, &location).await?,
        );
        one.merge(&mut other)?;
        let merged = to_json(&one.hydrate(None), Types::Plain);
        ensure!(merged["fork"] == "a" && merged["origin"] == "b");
        // It is a document like any other: a tab edits it, and all came at one time.
        let id = DocumentId::new(location.rsplit('/').next().unwrap_or_default())?;
        let mut tab = Client::join(
            server.address(),
            "tab-fork",
            Replica::new(id, ActorId::random()),
        )
        .await?;
        while tab.replica().heads().is_empty() {
            ensure!(
                tab.receive(Instant::now() + Duration::from_secs(10), drop)
                    .await?
            );
        }
        tab.edit(|doc| doc.put(ROOT, "tab", 1)).await?;
        tab.settle().await?;
        ensure!(rest.get(&format!("{location}/value/tab")).await?.json()? == 1);
        let told = pages(&rest, &location, 100, "oldest").await?;
        ensure!(
            told[0]["receivedAt"] == told[3]["receivedAt"] && told[0]["receivedAt"].is_string()
        );
        anyhow::Ok(made)
    };
    let made = runtime.block_on(forks).unwrap();
    // It was durable when it was answered.
    server.kill().unwrap();
    server.restart().unwrap();
    let rest = Rest::new(server.address());
    for (location, etag) in made {
        let read = runtime.block_on(rest.get(&location)).unwrap();
        assert_eq!(read.etag.as_deref(), Some(etag.as_str()));
    }
}

/// A keystroke is relayed, and the present read, while old versions of a long document are.
#[test]
fn reading_old_versions_holds_up_nobody() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    let relayed = async {
        let mut world = World::new(&server, 4).await?;
        let (rest, url) = (world.rest.clone(), world.url.clone());
        // Long as a list: every element is read, and written into the patch.
        let list = |n: i64| (0..30_000).map(|m| json!(m * n)).collect::<Value>();
        rest.put(&format!("{url}/value/list"), &list(1))
            .await?
            .good()?;
        let changed = rest
            .put(&format!("{url}/value/list"), &list(3))
            .await?
            .good()?;
        let hash = heads_of(changed.etag()?)[0];
        world.exchange().await?;
        let mut reading = Vec::new();
        for _ in 0..12 {
            let (rest, url) = (rest.clone(), url.clone());
            reading.push(tokio::spawn(async move {
                rest.get(&format!("{url}/changes/{hash}")).await?.good()
            }));
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        ensure!(
            reading.iter().any(|read| !read.is_finished()),
            "it takes a while"
        );
        let started = Instant::now();
        world.tabs[0]
            .edit(|doc| doc.put(ROOT, "keystroke", true))
            .await?;
        world.tabs[0].settle().await?;
        while world.tabs[1]
            .replica()
            .doc()
            .get(ROOT, "keystroke")?
            .is_none()
        {
            ensure!(
                world.tabs[1]
                    .receive(started + Duration::from_secs(10), drop)
                    .await?
            );
        }
        let now = rest.get(&format!("{url}/value/keystroke")).await?.good()?;
        ensure!(now.json()? == true);
        let took = started.elapsed();
        let still = reading.iter().filter(|read| !read.is_finished()).count();
        ensure!(still >= 1, "{still} of 12 are read still, after {took:?}");
        for read in reading {
            read.await??;
        }
        anyhow::Ok(())
    };
    runtime.block_on(relayed).unwrap();
}

#[test]
fn what_is_asked_wrongly_is_answered_with_a_code() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    let asked = async {
        let rest = Rest::new(server.address());
        let url = "/v1/documents/known";
        rest.put(url, &json!({ "a": 1 })).await?.good()?;
        let other = rest.put("/v1/documents/other", &json!({})).await?.good()?;
        let stranger = other.etag()?.trim_matches('"').to_owned();
        for (path, status, wanted) in [
            ("/changes?order=best".to_owned(), 400, "bad-query"),
            ("/changes?after=x".to_owned(), 400, "bad-query"),
            ("/changes?limit=-1".to_owned(), 400, "bad-query"),
            ("/changes/abc".to_owned(), 400, "bad-path"),
            (format!("/changes/{stranger}"), 404, "no-change"),
            (format!("/diff?from={stranger}"), 404, "no-version"),
            (format!("/diff?to={stranger}"), 404, "no-version"),
            ("/diff?from=yesterday".to_owned(), 400, "bad-query"),
            ("/diff/nothing".to_owned(), 404, "no-value"),
            (format!("?at={stranger}"), 404, "no-version"),
            ("?at=2026-11-22".to_owned(), 400, "bad-query"),
        ] {
            let answer = rest.get(&format!("{url}{path}")).await?;
            ensure!(
                code(&answer)? == (status, wanted.to_owned()),
                "{path}: {answer:?}"
            );
        }
        for (path, body, status, wanted) in [
            ("/restore", json!({}), 400, "bad-json"),
            ("/restore", json!({ "at": "x" }), 400, "bad-query"),
            ("/restore", json!({ "at": stranger }), 404, "no-version"),
            (
                "/restore",
                json!({ "at": stranger, "path": "a" }),
                400,
                "bad-path",
            ),
            (
                "/restore",
                json!({ "at": stranger, "what": 1 }),
                400,
                "bad-json",
            ),
            ("/fork", json!({ "at": stranger }), 404, "no-version"),
            ("/fork", json!({ "id": "" }), 400, "bad-id"),
            ("/fork", json!([]), 400, "bad-json"),
        ] {
            let answer = rest.post(&format!("{url}{path}"), &body).await?;
            ensure!(
                code(&answer)? == (status, wanted.to_owned()),
                "{path} {body}: {answer:?}"
            );
        }
        let nobody = "/v1/documents/nobody";
        for path in [
            "/changes",
            &format!("/changes/{stranger}"),
            "/diff",
            "?at=2026-11-22T00:00:00Z",
        ] {
            let answer = rest.get(&format!("{nobody}{path}")).await?;
            ensure!(
                code(&answer)? == (404, "no-document".to_owned()),
                "{path}: {answer:?}"
            );
        }
        let answer = rest.post(&format!("{nobody}/fork"), &json!({})).await?;
        ensure!(code(&answer)? == (404, "no-document".to_owned()));
        let request = rest
            .request(Method::POST, &format!("{url}/fork"))
            .header(CONTENT_TYPE, "text/plain");
        ensure!(
            code(&send(request.body("x")).await?)? == (415, "unsupported-media-type".to_owned())
        );
        ensure!(
            rest.get("/v1/documents?limit=100").await?.json()?["documents"]
                .as_array()
                .map(Vec::len)
                == Some(2)
        );
        // A change says what it did, of whatever it was made of; and who has it need not ask.
        let told = pages(&rest, url, 10, "oldest").await?;
        let hash = told[0]["hash"].as_str().context("a hash")?;
        let one = rest.get(&format!("{url}/changes/{hash}")).await?.good()?;
        ensure!(one.json()?["patch"] == json!([{ "op": "add", "path": "/a", "value": 1 }]));
        let request = rest.request(Method::GET, &format!("{url}/changes/{hash}"));
        ensure!(
            send(request.header(IF_NONE_MATCH, one.etag()?))
                .await?
                .status
                == StatusCode::NOT_MODIFIED
        );
        anyhow::Ok(())
    };
    runtime.block_on(asked).unwrap();
}
