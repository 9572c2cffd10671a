//! Promise: the audit log has what its page says, of everything that is worth it, and never a token or anything of what is
//! in a document; nobody can fill it, or write lines of their own; and it can be rotated.
//!
//! The first test has one person after the other do what they may and what they may not, and demands exactly the lines
//! that this should give, no fewer and no more, so nothing can be missing and nothing told twice. What must not be in
//! the log is looked for in all of it, in every form in which it was sent.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ROOT};
use concord_shared::wire::Message;
use concord_tests::issuer::Issuer;
use concord_tests::raw_client::RawClient;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::header::{ACCEPT, COOKIE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::rest::{Rest, send};
use super::roles::{World, fresh, next_of, sync_data};

/// For what comes a moment later.
const SOON: Duration = Duration::from_secs(10);

/// What is in the document, and nowhere else.
const CONTENT: &str = "qwertz-content-4711";

struct Log {
    directory: TempDir,
    world: World,
}

impl Log {
    fn start(arguments: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("audit.jsonl");
        let path = path.to_str().context("a path")?;
        let mut all = vec!["--audit-log", path, "--operator", "root"];
        all.extend(arguments);
        let world = World::start(&all)?;
        Ok(Self { directory, world })
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("audit.jsonl")
    }

    /// Waits until so many lines have this.
    async fn wait(&self, text: &str, times: usize) -> Result<()> {
        let start = Instant::now();
        loop {
            let log = fs::read_to_string(self.path()).unwrap_or_default();
            if log.matches(text).count() >= times {
                return Ok(());
            }
            ensure!(start.elapsed() < SOON, "no {text}:\n{log}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn lines(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path)?;
    ensure!(text.ends_with('\n'));
    text.lines()
        .map(|line| serde_json::from_str(line).context(line.to_owned()))
        .collect()
}

/// For how many events a line stands.
fn times(line: &Value) -> u64 {
    line["times"].as_u64().unwrap_or(1)
}

fn are_numbered(lines: &[Value]) -> Result<()> {
    for (n, line) in lines.iter().enumerate() {
        ensure!(line["n"] == n && line["v"] == 1, "{n}: {line}");
        let at = line["at"].as_str().context("a time")?;
        ensure!(at.ends_with('Z') && at.len() >= 20, "{line}");
    }
    Ok(())
}

/// What happened, with the ids by their names.
fn story(lines: &[Value], names: &BTreeMap<String, &str>) -> Vec<String> {
    let told = lines.iter().map(|line| {
        let text = |field: &str| match &line[field] {
            Value::Null => None,
            Value::String(text) => Some(
                names
                    .get(text)
                    .map_or(text.as_str(), |name| name)
                    .to_owned(),
            ),
            other => Some(other.to_string()),
        };
        let fields = [
            "principal",
            "event",
            "decision",
            "code",
            "operation",
            "document",
            "from",
        ];
        let roles = ["role", "needs", "before", "after", "entries", "changes"];
        let parts: Vec<_> = fields
            .iter()
            .chain(&roles)
            .filter_map(|field| text(field))
            .collect();
        parts.join(" ")
    });
    told.collect()
}

#[tokio::test]
async fn the_log_has_what_the_page_says_and_no_secret() -> Result<()> {
    let mut log = Log::start(&["--auth-cookie", "session"])?;
    let world = &log.world;
    let url = world.server.websocket_url();
    let (ann, ria, sam) = (world.rest("ann")?, world.rest("ria")?, world.rest("sam")?);
    let mut tokens = Vec::new();

    // The owner makes it, and says who may do what.
    let id = world.document().await?;
    let at = |path: &str| format!("/v1/documents/{id}{path}");
    // The writer writes; the reader reads, in two forms, and may not write; the stranger finds nothing.
    let wes = world.rest("wes")?;
    let content = json!(CONTENT);
    wes.put(&at("/value/a"), &content).await?.good()?;
    ria.get(&at("/value/a")).await?.good()?;
    let bytes = ria
        .request(Method::GET, &at(""))
        .header(ACCEPT, "application/vnd.automerge");
    let bytes = send(bytes).await?.good()?.body;
    ensure!(ria.put(&at("/value/a"), &content).await?.status == StatusCode::FORBIDDEN);
    ensure!(sam.get(&at("")).await?.status == StatusCode::NOT_FOUND);
    ensure!(sam.get("/metrics").await?.status == StatusCode::FORBIDDEN);
    ensure!(ria.get(&at("/access/history")).await?.status == StatusCode::FORBIDDEN);

    // Copies: by the server, and by way of somebody's disk.
    let forked = ria.post(&at("/fork"), &json!({})).await?.good()?.json()?;
    let forked = forked["id"].as_str().context("an id")?.to_owned();
    let imported = fresh();
    let import = ria
        .request(Method::PUT, &format!("/v1/documents/{imported}"))
        .header("content-type", "application/vnd.automerge");
    send(import.body(bytes)).await?.good()?;

    // Tokens wherever they can be, good and bad ones.
    let anonymous = Rest::new(world.server.address());
    let other = Issuer::new()?;
    for (who, issuer) in [("cookie", &world.issuer), ("cookie", &other)] {
        let token = issuer.of(who)?;
        let asked = anonymous.request(Method::GET, "/v1/documents");
        send(asked.header(COOKIE, format!("session={token}"))).await?;
        tokens.push(token);
    }
    for (who, issuer) in [("query", &world.issuer), ("query", &other)] {
        let token = issuer.of(who)?;
        anonymous
            .get(&format!("/v1/documents?token={token}"))
            .await?;
        tokens.push(token);
    }
    for token in [other.of("header")?, "no-token-at-all-8472".to_owned()] {
        let refused = anonymous.with_token(&token).get("/v1/documents").await?;
        ensure!(refused.status == StatusCode::UNAUTHORIZED);
        tokens.push(token);
    }
    ensure!(anonymous.get(&at("")).await?.status == StatusCode::UNAUTHORIZED);

    // A WebSocket by a subprotocol: the reader's, whose changes are dropped, and who is put out in the middle.
    let token = world.issuer.of("ria")?;
    let mut request = url.as_str().into_client_request()?;
    let protocols = format!("concord, concord.token.{token}").parse()?;
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocols);
    tokens.push(token);
    let mut client = RawClient::open(request, "peer-of-ria")
        .await?
        .joined()
        .await?;
    let mut edited = AutoCommit::new();
    edited.put(ROOT, "new", CONTENT)?;
    client
        .send(&client.sync_message(&id, &sync_data(&mut edited, true))?)
        .await?;
    next_of(&mut client, &id).await?;
    let list = json!({ "principals": { "ann": "owner", "wes": "writer", "sam": "none" } });
    ann.put(&at("/access"), &list).await?.good()?;
    log.wait("\"role\",\"decision\":\"changed\"", 1).await?;
    let list = json!({ "principals": { "ann": "owner" }, "anyone": "reader" });
    ann.put(&at("/access"), &list).await?.good()?;
    log.wait("\"role\",\"decision\":\"changed\"", 2).await?;
    drop(client);
    log.wait("\"ended\",\"code\":\"closed\"", 1).await?;
    // A stranger's, and one that ends with its token.
    let token = world.issuer.for_seconds("eve", 2)?;
    let mut client = RawClient::join(&format!("{url}?token={token}"), "peer-of-eve").await?;
    tokens.push(token);
    client
        .send(&client.sync_message(&forked, &sync_data(&mut AutoCommit::new(), false))?)
        .await?;
    let got = next_of(&mut client, &forked).await?;
    ensure!(
        matches!(got, Some(Message::DocUnavailable { .. })),
        "{got:?}"
    );
    ensure!(client.refusal().await?.reason == "token-expired");
    log.wait("\"ended\",\"code\":\"token-expired\"", 1).await?;
    let refused = RawClient::connect(&format!("{url}?token={}", tokens[1]), "x").await;
    ensure!(refused.is_err());

    // The end of it.
    ensure!(ann.delete(&at("?now=true")).await?.status == StatusCode::ACCEPTED);
    ensure!(ann.get(&at("")).await?.status == StatusCode::NOT_FOUND);
    // In two steps: what is deleted is theirs to erase.
    for (query, status) in [
        ("", StatusCode::NO_CONTENT),
        ("?now=true", StatusCode::ACCEPTED),
    ] {
        let path = format!("/v1/documents/{forked}{query}");
        ensure!(ria.delete(&path).await?.status == status);
    }
    world.rest("root")?.get("/metrics").await?.good()?;
    log.world.server.terminate()?;

    let lines = lines(&log.path())?;
    are_numbered(&lines)?;
    let imported = imported.to_string();
    let names = BTreeMap::from([
        (id.clone(), "D"),
        (forked.clone(), "F"),
        (imported.clone(), "I"),
    ]);
    let mut told = story(&lines, &names);
    let roles = |all: &[(&str, &str, Value, Value)]| -> String {
        let entries = all.iter().map(|(whom, name, before, after)| match *name {
            "" => json!({ "whom": whom, "before": before, "after": after }),
            name => json!({ "whom": whom, "name": name, "before": before, "after": after }),
        });
        entries.collect::<Value>().to_string()
    };
    let (no, own, reads, writes) = (
        json!(null),
        json!("owner"),
        json!("reader"),
        json!("writer"),
    );
    let of_ann = roles(&[("principal", "ann", no.clone(), own.clone())]);
    let of_ria = roles(&[("principal", "ria", no.clone(), own)]);
    let first = roles(&[
        ("principal", "ria", no.clone(), reads.clone()),
        ("principal", "wes", no.clone(), writes.clone()),
    ]);
    let second = roles(&[
        ("principal", "sam", no.clone(), json!("none")),
        ("principal", "ria", reads.clone(), no.clone()),
    ]);
    let third = roles(&[
        ("anyone", "", json!("none"), reads),
        ("principal", "sam", json!("none"), no.clone()),
        ("principal", "wes", writes, no),
    ]);
    let id_of = "/v1/documents/{id}";
    let mut expected = vec![
        "opened".to_owned(),
        "ann authentication accepted".to_owned(),
        // Whose it will be, under an id that is made for them.
        "ann document granted POST /v1/documents D owner writer".to_owned(),
        format!("ann made done POST /v1/documents D {of_ann}"),
        format!("ann document granted PUT {id_of}/access D owner owner"),
        format!("ann access changed PUT {id_of}/access D {first}"),
        "wes authentication accepted".to_owned(),
        format!("wes document granted PUT {id_of}/value/{{path}} D writer writer"),
        "ria authentication accepted".to_owned(),
        format!("ria document granted GET {id_of}/value/{{path}} D reader reader"),
        format!("ria document granted GET {id_of} D reader reader"),
        format!("ria exported done GET {id_of} D"),
        format!("ria document denied PUT {id_of}/value/{{path}} D reader writer"),
        "sam authentication accepted".to_owned(),
        format!("sam document denied GET {id_of} D none reader"),
        "sam operator denied GET /metrics".to_owned(),
        format!("ria document denied GET {id_of}/access/history D reader owner"),
        format!("ria document granted POST {id_of}/fork D reader reader"),
        format!("ria document granted POST {id_of}/fork F owner writer"),
        format!("ria made done POST {id_of}/fork F {of_ria}"),
        format!("ria forked done POST {id_of}/fork F D"),
        format!("ria document granted PUT {id_of} I owner writer"),
        format!("ria made done PUT {id_of} I {of_ria}"),
        format!("ria imported done PUT {id_of} I 2"),
        "cookie authentication accepted".to_owned(),
        "query authentication accepted".to_owned(),
        // By cookie, query and header: once, and counted.
        "authentication refused token-signature GET /v1/documents".to_owned(),
        "authentication refused token-signature GET /v1/documents".to_owned(),
        "authentication refused token-malformed GET /v1/documents".to_owned(),
        format!("authentication refused unauthenticated GET {id_of}"),
        "ria authentication accepted".to_owned(),
        "ria session begun".to_owned(),
        "ria document granted D reader reader".to_owned(),
        "ria document denied D reader writer".to_owned(),
        format!("ann access changed PUT {id_of}/access D {second}"),
        "ria role changed D reader none".to_owned(),
        format!("ann access changed PUT {id_of}/access D {third}"),
        "ria role changed D none reader".to_owned(),
        "ria session ended closed".to_owned(),
        "eve authentication accepted".to_owned(),
        "eve session begun".to_owned(),
        "eve document denied F none reader".to_owned(),
        "eve session ended token-expired".to_owned(),
        "authentication refused token-signature".to_owned(),
        format!("ann document granted DELETE {id_of} D owner owner"),
        format!("ann deleted done DELETE {id_of} D"),
        format!("ann purged done DELETE {id_of} D"),
        format!("ann document denied GET {id_of} D none reader"),
        format!("ria document granted DELETE {id_of} F owner owner"),
        format!("ria deleted done DELETE {id_of} F"),
        format!("ria document granted DELETE {id_of} F owner owner"),
        format!("ria purged done DELETE {id_of} F"),
        "root authentication accepted".to_owned(),
        "root operator granted GET /metrics".to_owned(),
    ];
    // Those who came again.
    for (who, times) in [("ann", 5), ("ria", 7), ("sam", 1)] {
        expected.push(format!("{who} authentication accepted"));
        let again = lines.iter().find(|line| {
            let is_of_them = line["event"] == "authentication" && line["principal"] == who;
            is_of_them && !line["times"].is_null()
        });
        ensure!(again.map(self::times) == Some(times), "{again:?}");
    }
    expected.push(format!(
        "ann document granted PUT {id_of}/access D owner owner"
    ));
    told.sort();
    expected.sort();
    let text = told.join("\n");
    ensure!(told == expected, "{text}\n---\n{}", expected.join("\n"));
    ensure!(lines[0]["version"] == env!("CARGO_PKG_VERSION"));
    // From where, and by what.
    for line in &lines {
        let by_socket = matches!(line["event"].as_str(), Some("session" | "role"));
        if line["event"] != "opened" {
            ensure!(line["address"] == "127.0.0.1", "{line}");
            let via = line["via"].as_str().context("by what")?;
            ensure!(
                !by_socket || via == "websocket" && line["connection"].is_u64(),
                "{line}"
            );
            ensure!(via == "http" || line["operation"].is_null(), "{line}");
        }
    }

    // Nothing of a token: not whole, nor any of its parts, nor what somebody tried; and nothing of the document's.
    for who in ["ann", "wes", "ria", "sam", "root"] {
        tokens.push(world_token(&log.world, who)?);
    }
    for secret in secrets(&tokens) {
        for (what, text) in [
            ("audit log", fs::read_to_string(log.path())?),
            ("log", log.world.server.log()),
        ] {
            ensure!(!text.contains(&secret), "the {what} has {secret}");
        }
    }
    ensure!(!fs::read_to_string(log.path())?.contains(CONTENT));
    Ok(())
}

fn world_token(world: &World, who: &str) -> Result<String> {
    world.issuer.of(who)
}

/// Tokens, and their payloads and signatures; what all have in common says nothing.
fn secrets(tokens: &[String]) -> Vec<String> {
    let parts = tokens.iter().flat_map(|token| token.split('.').skip(1));
    let parts = parts.map(|part| part.chars().take(24).collect());
    tokens.iter().cloned().chain(parts).collect()
}

#[tokio::test]
async fn a_file_that_was_moved_is_followed_by_a_new_one() -> Result<()> {
    let mut log = Log::start(&[])?;
    let (path, old) = (log.path(), log.directory.path().join("audit.1"));
    let (ann, wes) = (log.world.rest("ann")?, log.world.rest("wes")?);
    ann.get("/v1/documents").await?.good()?;
    log.wait("\"ann\"", 1).await?;
    fs::rename(&path, &old)?;
    // As long as it is not told, it goes on in the old one.
    wes.get("/v1/documents").await?.good()?;
    let start = Instant::now();
    while !fs::read_to_string(&old)?.contains("\"wes\"") {
        ensure!(start.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    log.world.server.hang_up()?;
    log.wait("\"opened\"", 1).await?;
    log.world.rest("sam")?.get("/v1/documents").await?.good()?;
    log.wait("\"sam\"", 1).await?;
    // Where it can't be opened the former one is kept.
    let (kept, new) = (log.directory.path().join("audit.2"), lines(&path)?);
    fs::rename(&path, &kept)?;
    fs::create_dir(&path)?;
    log.world.server.hang_up()?;
    log.world
        .server
        .wait_for_log("the former file of the audit log is kept")?;
    log.world.rest("eve")?.get("/v1/documents").await?.good()?;
    log.world.server.terminate()?;
    let mut all = lines(&old)?;
    ensure!(all.iter().all(|line| line["principal"] != "sam"));
    ensure!(new[0]["event"] == "opened");
    let kept_lines = lines(&kept)?;
    ensure!(kept_lines.iter().any(|line| line["principal"] == "eve"));
    all.extend(kept_lines);
    are_numbered(&all)?;
    for file in [&old, &kept] {
        let mode = fs::metadata(file)?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{mode:o}");
    }
    // A log that can't be kept stops the start, and a next start goes on in the same file.
    ensure!(log.world.server.restart().is_err());
    fs::remove_dir(&path)?;
    fs::rename(&kept, &path)?;
    let before = fs::read_to_string(&path)?;
    log.world.server.restart()?;
    log.wait("\"opened\"", 2).await?;
    ensure!(fs::read_to_string(&path)?.starts_with(&before));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_what_is_refused_leaves_few_lines_and_all_counts() -> Result<()> {
    const EACH: usize = 3000;
    // All of it is to come as far as the log.
    let unlimited = [
        "--requests-per-second",
        "0",
        "--unauthenticated-per-second",
        "0",
    ];
    let mut log = Log::start(&[&["--creator", "ann"], &unlimited[..]].concat())?;
    let world = &log.world;
    let id = world.document().await?;
    let anonymous = Rest::new(world.server.address());
    let sam = world.rest("sam")?;
    let start = Instant::now();
    let ask = async |n: usize| -> Result<()> {
        let from = Ipv4Addr::from_bits(0x0a00_0000 + u32::try_from(n)?).to_string();
        let unknown = format!("/v1/documents/{}", fresh());
        let (request, expected) = match n % 4 {
            // Strangers, each from an address of their own.
            0 => {
                let asked = anonymous.request(Method::GET, "/v1/documents");
                (
                    asked.header("x-forwarded-for", from),
                    StatusCode::UNAUTHORIZED,
                )
            }
            // One of them.
            1 => (
                anonymous.request(Method::GET, &unknown),
                StatusCode::UNAUTHORIZED,
            ),
            // Somebody who looks for documents.
            2 => (sam.request(Method::GET, &unknown), StatusCode::NOT_FOUND),
            // And for one in particular.
            _ => {
                let path = format!("/v1/documents/{id}");
                (sam.request(Method::GET, &path), StatusCode::NOT_FOUND)
            }
        };
        let answer = send(request).await?;
        if answer.status != expected {
            bail!("{n}: {answer:?}");
        }
        Ok(())
    };
    let asking = stream::iter(0..4 * EACH).map(ask);
    asking.buffer_unordered(16).try_collect::<()>().await?;
    // Who is known is recorded all the same, and what was done is in full.
    let ann = world.rest("ann")?;
    for n in 0..20 {
        let list = json!({ "principals": { "ann": "owner", format!("p{n}"): "reader" } });
        ann.put(&format!("/v1/documents/{id}/access"), &list)
            .await?
            .good()?;
    }
    let seconds = start.elapsed().as_secs() as usize;
    let root = world.rest("root")?;
    let metrics = root.get("/metrics").await?.good()?;
    let metrics = String::from_utf8(metrics.body)?;
    log.world.server.terminate()?;
    let lines = lines(&log.path())?;
    are_numbered(&lines)?;

    let is_change = |line: &&Value| line["event"] == "access";
    ensure!(lines.iter().filter(is_change).count() == 21);
    // Of one, and of all: at first, and each second. What was counted is told besides.
    let denied = lines.iter().filter(|line| line["decision"] == "denied");
    let denied = denied.filter(|line| line["times"].is_null()).count();
    ensure!(denied <= 101 + seconds, "{denied} lines in {seconds} s");
    let is_refused = |line: &&Value| {
        let is_decided = line["decision"] == "refused" || line["decision"] == "denied";
        is_decided || line["event"] == "left-out"
    };
    let refused: Vec<_> = lines.iter().filter(is_refused).collect();
    let most = 2000 + 20 * (seconds + 1) + 10;
    ensure!(
        refused.len() <= most,
        "{} lines in {seconds} s",
        refused.len()
    );
    ensure!(
        refused
            .iter()
            .any(|line| line["event"] == "left-out" && line["principal"] == "sam")
    );
    // Each is in a line, or in a count.
    let all: u64 = refused.iter().map(|line| times(line)).sum();
    ensure!(all == 4 * EACH as u64, "{all}");
    let size = fs::metadata(log.path())?.len();
    ensure!(size < 1 << 20, "{} lines, {size} bytes", lines.len());
    for result in ["written", "folded", "left-out"] {
        let name = format!("concord_audit_lines_total{{result=\"{result}\"}} ");
        let found = metrics.lines().find_map(|line| line.strip_prefix(&name));
        ensure!(found.is_some_and(|count| count != "0"), "{metrics}");
    }
    ensure!(metrics.contains("concord_audit_lines_total{result=\"lost\"} 0"));
    Ok(())
}
