//! Who watches is told exactly what happened: each patch, by the crate `json-patch`, leads to what the server says was
//! there at the event's version, which it finds by another way. And it is told of all of it, also after being away, too
//! slow, or cut off by a server that was killed.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail, ensure};
use automerge::ActorId;
use concord_client_wasm::Replica;
use concord_shared::ids::DocumentId;
use concord_tests::client::Client;
use concord_tests::server_process::ServerProcess;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep, timeout, timeout_at};

use super::rest::{Rest, send};
use super::values::{edit, object};

const DOCUMENTS: u64 = 12;
const LONG_DOCUMENTS: u64 = 300;
const STEPS: usize = 20;

/// How long anything may take to come.
const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq)]
struct Event {
    kind: String,
    version: String,
    data: Value,
}

/// A stream of events, and the value that they lead to.
struct Follower {
    rest: Rest,
    /// Of the events.
    url: String,
    body: BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffer: Vec<u8>,
    comments: usize,
    /// Patches that were told.
    patches: usize,
    value: Option<Value>,
    version: Option<String>,
}

impl Follower {
    async fn open(rest: &Rest, url: &str, last: Option<&str>) -> Result<Self> {
        let mut request = rest.request(Method::GET, url);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.send().await?.error_for_status()?;
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        Ok(Self {
            rest: rest.clone(),
            url: url.to_owned(),
            body: response.bytes_stream().boxed(),
            buffer: Vec::new(),
            comments: 0,
            patches: 0,
            value: None,
            version: None,
        })
    }

    /// The next event; `None` where the stream ends.
    async fn event(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                let (mut kind, mut version, mut data) = (None, None, None);
                for line in std::str::from_utf8(&block)?.lines() {
                    match line.split_once(':') {
                        Some(("event", rest)) => kind = Some(rest.trim().to_owned()),
                        Some(("id", rest)) => version = Some(rest.trim().to_owned()),
                        Some(("data", rest)) => data = Some(serde_json::from_str(rest)?),
                        Some(("", _)) => self.comments += 1,
                        Some(("retry", _)) | None => {}
                        other => bail!("{other:?}"),
                    }
                }
                if let (Some(kind), Some(version), Some(data)) = (kind, version, data) {
                    return Ok(Some(Event {
                        kind,
                        version,
                        data,
                    }));
                }
                continue;
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                _ => return Ok(None),
            }
        }
    }

    /// Goes on by one event.
    async fn step(&mut self) -> Result<Event> {
        let event = timeout(SOON, self.event()).await?;
        let event = event?.context("the stream ended")?;
        match event.kind.as_str() {
            "value" => self.value = Some(event.data.clone()),
            "gone" => self.value = None,
            "patch" => {
                let patch: json_patch::Patch = serde_json::from_value(event.data.clone())?;
                let value = self.value.as_mut().context("a patch of nothing")?;
                json_patch::patch(value, &patch)?;
                self.patches += 1;
            }
            other => bail!("{other}"),
        }
        self.version = Some(event.version.clone());
        Ok(event)
    }

    /// Goes on to what is there now, and holds each event against what was there then.
    async fn catch_up(&mut self) -> Result<()> {
        let value_url = self.url.replacen("/events", "/value", 1);
        let and = if value_url.contains('?') { '&' } else { '?' };
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(version) = &self.version {
                let then = self
                    .rest
                    .get(&format!("{value_url}{and}at={version}"))
                    .await?;
                let then = match then.status {
                    StatusCode::NOT_FOUND => None,
                    _ => Some(then.good()?.json()?),
                };
                ensure!(
                    self.value == then,
                    "{:?} is told, {then:?} was there at {version}",
                    self.value
                );
            }
            let now = self.rest.get(&value_url).await?;
            let now = match now.status {
                StatusCode::NOT_FOUND => None,
                _ => Some(now.good()?.json()?),
            };
            if self.version.is_some() && self.value == now {
                return Ok(());
            }
            timeout_at(deadline, self.step())
                .await
                .with_context(|| format!("{:?} is told, {now:?} is there", self.value))??;
        }
    }
}

fn with_server<F: Future<Output = Result<()>>>(test: impl FnOnce(ServerProcess) -> F) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    runtime.block_on(Box::pin(test(server))).unwrap();
}

#[test]
fn patches_lead_to_what_is_there() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    let mut patches = 0;
    for seed in super::seeds(DOCUMENTS, LONG_DOCUMENTS) {
        let ran = runtime.block_on(Box::pin(world(&server, seed)));
        patches +=
            ran.unwrap_or_else(|error| panic!("CONCORD_TEST_SEED={seed} replays it: {error:?}"));
    }
    assert!(patches > 0, "nothing was told but whole values");
}

/// Gives how many patches were told.
async fn world(server: &ServerProcess, seed: u64) -> Result<usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let rest = Rest::new(server.address());
    let url = format!("/v1/documents/live-{}", random.random::<u64>());
    let id = DocumentId::new(url.rsplit('/').next().unwrap_or_default())?;
    let first = rest.put(&url, &object(&mut random, 4)).await?.good()?;
    let mut old = (first.json()?, first.etag()?.to_owned());
    let replica = Replica::new(id, ActorId::random());
    let mut client = Box::pin(Client::join(
        server.address(),
        &format!("client-{seed}"),
        replica,
    ))
    .await?;
    client.settle().await?;
    let mut followers = Vec::new();
    let places = [
        "events",
        "events?types=tagged",
        "events/a",
        "events/list/0",
        "events/text",
        "events/",
    ];
    for place in places {
        followers.push(Follower::open(&rest, &format!("{url}/{place}"), None).await?);
    }
    for _ in 0..STEPS {
        for _ in 0..random.random_range(1..4) {
            match random.random_range(0..5) {
                0 => {
                    let now = rest.put(&url, &object(&mut random, 4)).await?.good()?;
                    if random.random() {
                        old = (now.json()?, now.etag()?.to_owned());
                    }
                }
                1 => {
                    old.0["stale"] = json!(random.random::<u8>());
                    rest.put_seen(&url, &old.1, &old.0).await?.good()?;
                }
                _ => {
                    edit(&mut random, &mut client)?;
                    client.send().await?;
                }
            }
        }
        if random.random() {
            client.settle().await?;
        }
        // One of them goes away, and comes back with what it knew.
        let n = random.random_range(0..followers.len());
        if random.random_bool(0.2) {
            let Follower {
                url,
                patches,
                value,
                version,
                ..
            } = followers.swap_remove(n);
            let mut back = Follower::open(&rest, &url, version.as_deref()).await?;
            back.patches = patches;
            back.value = value;
            back.version = version;
            followers.push(back);
        } else {
            followers[n].catch_up().await?;
        }
    }
    client.settle().await?;
    for follower in &mut followers {
        follower.catch_up().await?;
    }
    Ok(followers.iter().map(|follower| follower.patches).sum())
}

#[test]
fn who_comes_back_is_told_what_happened_since() {
    with_server(async |mut server| {
        let rest = Rest::new(server.address());
        let made = rest
            .put("/v1/documents/d", &json!({ "a": 1, "list": [{ "id": 1 }] }))
            .await?;
        let version = made.good()?.etag()?.trim_matches('"').to_owned();
        let mut first = Follower::open(&rest, "/v1/documents/d/events", None).await?;
        let event = first.step().await?;
        assert_eq!((event.kind.as_str(), &event.version), ("value", &version));
        drop(first);
        rest.put("/v1/documents/d/value/a", &json!(2))
            .await?
            .good()?;
        rest.post("/v1/documents/d/value/list", &json!({ "id": 2 }))
            .await?
            .good()?;
        // The server remembers nobody: the document itself tells.
        server.kill()?;
        server.restart()?;
        for last in ["header", "query"] {
            let url = "/v1/documents/d/events";
            let mut back = match last {
                "header" => Follower::open(&rest, url, Some(&version)).await?,
                _ => Follower::open(&rest, &format!("{url}?since={version}"), None).await?,
            };
            back.value = Some(json!({ "a": 1, "list": [{ "id": 1 }] }));
            let event = back.step().await?;
            assert_eq!(event.kind, "patch");
            let expected = json!([
                { "op": "replace", "path": "/a", "value": 2 },
                { "op": "add", "path": "/list/1", "value": { "id": 2 } },
            ]);
            assert_eq!(event.data, expected);
            // Who knows all of it is told nothing until there is more.
            let mut again = Follower::open(&rest, url, Some(&event.version)).await?;
            rest.put("/v1/documents/d/value/a", &json!(last))
                .await?
                .good()?;
            assert_eq!(
                again.event().await?.context("an event")?.data,
                json!([{ "op": "replace", "path": "/a", "value": last }])
            );
            rest.put("/v1/documents/d/value/a", &json!(2))
                .await?
                .good()?;
        }
        // What the document never had is no version of it.
        for unknown in ["00", &"0".repeat(64)] {
            let mut back = Follower::open(&rest, "/v1/documents/d/events", Some(unknown)).await?;
            assert_eq!(back.step().await?.kind, "value");
        }
        Ok(())
    });
}

#[test]
fn a_place_that_comes_and_goes_is_followed_all_the_time() {
    with_server(async |server| {
        let rest = Rest::new(server.address());
        let url = "/v1/documents/d";
        rest.put(url, &json!({})).await?.good()?;
        let mut at = Follower::open(&rest, "/v1/documents/d/events/a/b~1c/0", None).await?;
        assert_eq!(at.step().await?.kind, "gone");
        rest.put(url, &json!({ "a": { "b/c": ["x"] } }))
            .await?
            .good()?;
        let event = at.step().await?;
        assert_eq!((event.kind.as_str(), &event.data), ("value", &json!("x")));
        // What happens elsewhere is not told here.
        rest.put("/v1/documents/d/value/elsewhere", &json!(1))
            .await?
            .good()?;
        rest.put("/v1/documents/d/value/a/b~1c/0", &json!("y"))
            .await?
            .good()?;
        let event = at.step().await?;
        assert_eq!(event.kind, "patch");
        assert_eq!(
            event.data,
            json!([{ "op": "replace", "path": "", "value": "y" }])
        );
        rest.delete("/v1/documents/d/value/a").await?.good()?;
        assert_eq!(at.step().await?.kind, "gone");
        Ok(())
    });
}

#[test]
fn a_slow_reader_gets_the_value_and_costs_no_queue() {
    with_server(async |server| {
        let rest = Rest::new(server.address());
        let url = "/v1/documents/d";
        rest.put(url, &json!({ "bytes": "" })).await?.good()?;
        let mut slow = Follower::open(&rest, "/v1/documents/d/events", None).await?;
        assert_eq!(slow.step().await?.kind, "value");
        let before = server.max_resident_kib()?;
        let (mut told, writes) = (0_usize, 150_usize);
        for n in 0..writes {
            // Bytes are one op, however many.
            let bytes = json!({ "$bytes": format!("{n:04}").repeat(25_000) });
            let url = "/v1/documents/d/value/bytes?types=tagged";
            rest.put(url, &bytes).await?.good()?;
        }
        let grown = server.max_resident_kib()?.saturating_sub(before);
        let deadline = Instant::now() + SOON;
        let last = rest.get(url).await?.good()?.json()?;
        let mut values = 0;
        while slow.value.as_ref() != Some(&last) {
            ensure!(Instant::now() < deadline, "the last value is not told");
            let event = slow.step().await?;
            told += 1;
            values += usize::from(event.kind == "value");
        }
        assert!(values > 0, "{told} events of {writes}, all patches");
        assert!(told < writes, "{told} events were kept for who read none");
        assert!(grown < 256 << 10, "the server grew by {grown} KiB");
        Ok(())
    });
}

#[test]
fn requests_that_can_not_be_streams() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start_with(&["--max-connections", "2"]).unwrap();
    let test = async {
        let rest = Rest::new(server.address());
        rest.put("/v1/documents/d", &json!({})).await?.good()?;
        for (url, status, code) in [
            ("/v1/documents/none/events", 404, "no-document"),
            ("/v1/documents/d/events?since=x", 400, "bad-query"),
            ("/v1/documents/d/events?nonsense=x", 400, "bad-query"),
            ("/v1/documents/d/events/~2", 400, "bad-path"),
        ] {
            let answer = rest.get(url).await?;
            assert_eq!(answer.status.as_u16(), status, "{url}");
            assert_eq!(answer.json()?["code"], code, "{url}");
        }
        let url = "/v1/documents/d/events";
        let first = Follower::open(&rest, url, None).await?;
        let _second = Follower::open(&rest, url, None).await?;
        let third = rest.get(url).await?;
        assert_eq!(
            (third.status.as_u16(), &third.json()?["code"]),
            (503, &json!("overloaded"))
        );
        // Operators and writers are still answered.
        rest.get("/healthz").await?.good()?;
        rest.put("/v1/documents/d/value/a", &json!(1))
            .await?
            .good()?;
        drop(first);
        let deadline = Instant::now() + SOON;
        while send(rest.request(Method::HEAD, url)).await?.status != StatusCode::OK {
            ensure!(Instant::now() < deadline, "who has left still counts");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    let ran: Result<()> = runtime.block_on(test);
    ran.unwrap();
}

#[test]
fn too_many_places_of_one_document_are_refused() {
    with_server(async |server| {
        let rest = Rest::new(server.address());
        rest.put("/v1/documents/d", &json!({})).await?.good()?;
        let mut followers = Vec::new();
        // Half of them for one caller.
        let other = rest.from(Ipv4Addr::new(198, 18, 0, 2));
        for (who, places) in [(&rest, 0..32), (&other, 32..64)] {
            let refused = places.end;
            for place in places {
                let url = format!("/v1/documents/d/events/{place}");
                followers.push(Follower::open(who, &url, None).await?);
            }
            let url = format!("/v1/documents/d/events/{refused}");
            let refused = who.get(&url).await?;
            assert_eq!(refused.json()?["code"], json!("overloaded"));
        }
        // Another of a place that is watched costs little.
        followers.push(Follower::open(&rest, "/v1/documents/d/events/0", None).await?);
        let third = rest.from(Ipv4Addr::new(198, 18, 0, 3));
        let refused = third.get("/v1/documents/d/events/64").await?;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()?["code"]),
            (503, &json!("overloaded"))
        );
        drop(followers);
        rest.put("/v1/documents/d/value/a", &json!(1))
            .await?
            .good()?;
        let deadline = Instant::now() + SOON;
        while Follower::open(&rest, "/v1/documents/d/events/64", None)
            .await
            .is_err()
        {
            ensure!(
                Instant::now() < deadline,
                "places that nobody watches still count"
            );
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    });
}

/// Longer than any other HTTP connection may last; in the long profile.
#[test]
fn a_stream_goes_on_while_it_is_read() {
    let is_long = std::env::var_os("CONCORD_TEST_LONG").is_some();
    let silences = if is_long { 6 } else { 1 };
    with_server(async |server| {
        let rest = Rest::new(server.address());
        rest.put("/v1/documents/d", &json!({})).await?.good()?;
        let mut events = Follower::open(&rest, "/v1/documents/d/events", None).await?;
        assert_eq!(events.step().await?.kind, "value");
        let silent = timeout(Duration::from_secs(16 * silences), events.event()).await;
        assert!(silent.is_err(), "{silent:?}");
        assert!(events.comments >= silences as usize, "it is kept alive");
        rest.put("/v1/documents/d/value/a", &json!(1))
            .await?
            .good()?;
        assert_eq!(events.step().await?.kind, "patch");
        Ok(())
    });
}

#[test]
fn a_server_that_stops_ends_its_streams() {
    with_server(async |mut server| {
        let rest = Rest::new(server.address());
        rest.put("/v1/documents/d", &json!({})).await?.good()?;
        let mut events = Follower::open(&rest, "/v1/documents/d/events", None).await?;
        events.step().await?;
        let started = Instant::now();
        server.terminate()?;
        assert_eq!(timeout(SOON, events.event()).await??, None);
        assert!(
            started.elapsed() < Duration::from_secs(3),
            "{:?}",
            started.elapsed()
        );
        Ok(())
    });
}
