//! What is stored, of principals and of documents, and how many have one open. It is found again after a restart.

use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use automerge::{ActorId, ROOT, transaction::Transactable as _};
use concord_client_wasm::replica::Replica;
use concord_tests::client::Client;
use concord_tests::issuer::Issuer;
use concord_tests::server_process::ServerProcess;
use futures_util::future::join_all;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::{SOON, address, document, problem, tab};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Asks as somebody.
struct As<'a> {
    server: &'a ServerProcess,
    token: String,
}

impl<'a> As<'a> {
    fn new(server: &'a ServerProcess, issuer: &Issuer, who: &str) -> Result<Self> {
        let token = issuer.of(who)?;
        Ok(Self { server, token })
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Response> {
        let request = super::request(self.server, HERE, method, path).bearer_auth(&self.token);
        Ok(match body {
            Some(body) => request.json(body).send().await?,
            None => request.send().await?,
        })
    }

    async fn make(&self, body: &Value) -> Result<Response> {
        self.ask(Method::POST, "/v1/documents", Some(body)).await
    }

    async fn erase(&self, path: &str) -> Result<()> {
        let now = format!("{path}?now=true");
        let erased = self.ask(Method::DELETE, &now, None).await?;
        ensure!(erased.status() == 202, "{}", erased.status());
        Ok(())
    }

    async fn tab(&self, name: &str, n: u8) -> Result<Client> {
        let replica = Replica::new(document(n), ActorId::from(name.as_bytes()));
        Client::join_as(&self.token, self.server.address(), name, replica).await
    }

    /// What becomes of an edit over a WebSocket.
    async fn edits(&self, name: &str, n: u8, text: &str) -> Result<()> {
        let mut tab = self.tab(name, n).await?;
        tab.settle().await?;
        tab.edit(|doc| doc.put(ROOT, name, text)).await?;
        tab.settle().await
    }
}

fn place(made: &Response) -> Result<String> {
    ensure!(made.status() == 201, "{}", made.status());
    Ok(made.headers()["location"].to_str()?.to_owned())
}

async fn is_over(response: Response) -> Result<()> {
    let (status, code, _) = problem(response).await?;
    ensure!(
        (status, code.as_str()) == (403, "over-quota"),
        "{status} {code}"
    );
    Ok(())
}

fn is_refused(ended: Result<()>) -> Result<()> {
    let refused = ended.err().context("it was taken")?;
    ensure!(format!("{refused:#}").contains("over-quota"), "{refused:#}");
    Ok(())
}

/// Letters that take three quarters of a byte each, or a byte where they are not compressed.
fn letters(seed: u64, count: usize) -> String {
    let mut state = seed;
    let letter = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + u8::try_from(state >> 33 & 63).unwrap_or(0))
    };
    (0..count).map(letter).collect()
}

#[tokio::test]
async fn a_principal_has_so_many_documents() -> Result<()> {
    let issuer = Issuer::new()?;
    let limits = ["--max-documents-per-principal", "3", "--operator", "root"];
    let mut server = ServerProcess::start_with(&issuer.arguments(&limits)?)?;
    let small = json!({ "a": 1 });
    let first;
    {
        let ann = As::new(&server, &issuer, "ann")?;
        let bob = As::new(&server, &issuer, "bob")?;
        first = place(&ann.make(&small).await?)?;
        ann.edits("ann-1", 1, "here").await?;
        let put = format!("/v1/documents/{}", document(2));
        ensure!(ann.ask(Method::PUT, &put, Some(&small)).await?.status() == 201);
        is_over(ann.make(&small).await?).await?;
        is_refused(ann.edits("ann-2", 3, "one more").await)?;
        // It is not there, and somebody else can make it.
        bob.edits("bob-1", 3, "here").await?;
        // Those that are there can be written to.
        ann.edits("ann-3", 1, "again").await?;
        ensure!(
            ann.ask(Method::PUT, &put, Some(&json!({ "b": 2 })))
                .await?
                .status()
                == 200
        );
    }
    ensure!(server.terminate()?.success());
    server.restart()?;
    let ann = As::new(&server, &issuer, "ann")?;
    is_over(ann.make(&small).await?).await?;
    is_refused(ann.edits("ann-4", 4, "one more").await)?;
    // One that is deleted counts as long as it is kept, also when it is found again.
    ensure!(ann.ask(Method::DELETE, &first, None).await?.status() == 204);
    is_over(ann.make(&small).await?).await?;
    let deletion = format!("{first}/deletion");
    ensure!(ann.ask(Method::DELETE, &deletion, None).await?.status() == 204);
    is_over(ann.make(&small).await?).await?;
    ensure!(ann.ask(Method::DELETE, &first, None).await?.status() == 204);
    drop(ann);
    ensure!(server.terminate()?.success());
    server.restart()?;
    let ann = As::new(&server, &issuer, "ann")?;
    is_over(ann.make(&small).await?).await?;
    let now = format!("{first}?now=true");
    ensure!(ann.ask(Method::DELETE, &now, None).await?.status() == 202);
    place(&ann.make(&small).await?)?;
    is_over(ann.make(&small).await?).await?;
    let root = As::new(&server, &issuer, "root")?;
    let metrics = root
        .ask(Method::GET, "/metrics", None)
        .await?
        .text()
        .await?;
    let counted = "concord_limited_total{limit=\"documents\"} 2";
    ensure!(metrics.contains(counted), "not {counted}");
    let told = ["ann", "bob", "127.0.0.1"].map(|label| metrics.contains(label));
    ensure!(told == [false; 3], "who it is, in metrics");
    Ok(())
}

/// Of six documents at once there is room for one at most. The others are nobody's, though whoever wanted to make them waits
/// for them, and take no room.
#[tokio::test]
async fn what_there_was_no_room_for_is_nobodys() -> Result<()> {
    let issuer = Issuer::new()?;
    let limits = ["--max-documents-per-principal", "2"];
    let server = ServerProcess::start_with(&issuer.arguments(&limits)?)?;
    let (eve, bob) = (
        As::new(&server, &issuer, "eve")?,
        As::new(&server, &issuer, "bob")?,
    );
    let small = json!({ "a": 1 });
    for round in 0..4 {
        let first = place(&eve.make(&small).await?)?;
        let numbers: Vec<u8> = (10 * round..10 * round + 6).collect();
        let mut waiting = Vec::new();
        for n in &numbers {
            waiting.push(eve.tab(&format!("eve-{n}"), *n).await?);
        }
        let path = |n: &u8| format!("/v1/documents/{}", document(*n));
        let paths: Vec<_> = numbers.iter().map(path).collect();
        let puts = paths
            .iter()
            .map(|path| eve.ask(Method::PUT, path, Some(&small)));
        let (mut made, mut left) = (vec![first], Vec::new());
        for (answer, path) in join_all(puts).await.into_iter().zip(&paths) {
            match answer?.status().as_u16() {
                201 => made.push(path.clone()),
                403 => left.push(path),
                other => bail!("{path}: {other}"),
            }
        }
        ensure!(made.len() <= 2, "{made:?}");
        for path in &left {
            let started = Instant::now();
            while bob.ask(Method::PUT, path, Some(&small)).await?.status() != 201 {
                ensure!(
                    started.elapsed() < SOON,
                    "{path} is nobody's, and somebody's"
                );
            }
            bob.erase(path).await?;
        }
        for path in made {
            eve.erase(&path).await?;
        }
    }
    place(&eve.make(&small).await?)?;
    place(&eve.make(&small).await?)?;
    is_over(eve.make(&small).await?).await
}

#[tokio::test]
async fn a_principal_has_so_many_bytes_whoever_writes_them() -> Result<()> {
    let issuer = Issuer::new()?;
    let limits = ["--max-mib-per-principal", "1", "--share", "anyone=writer"];
    let mut server = ServerProcess::start_with(&issuer.arguments(&limits)?)?;
    let large = letters(1, 600_000);
    let one;
    {
        let ann = As::new(&server, &issuer, "ann")?;
        let bob = As::new(&server, &issuer, "bob")?;
        one = place(&ann.make(&json!({ "large": large })).await?)?;
        ann.edits("ann-1", 1, "small").await?;
        // Bob writes into what is Ann's.
        is_refused(bob.edits("bob-1", 1, &letters(2, 900_000)).await)?;
        bob.edits("bob-2", 1, &letters(3, 300_000)).await?;
        // And has as much himself.
        bob.edits("bob-3", 2, &letters(4, 600_000)).await?;
        is_refused(ann.edits("ann-2", 3, &letters(5, 700_000)).await)?;
        ann.edits("ann-3", 3, "small").await?;
    }
    // As it is found by another process.
    server.kill()?;
    server.restart()?;
    let ann = As::new(&server, &issuer, "ann")?;
    is_refused(ann.edits("ann-4", 3, &letters(6, 700_000)).await)?;
    // Over HTTP the last one may go beyond. What is compacted meanwhile takes less, so that there may be room once more.
    let mut last = None;
    for n in 0..20 {
        let path = format!("{one}/value/more{n}");
        let value = json!(letters(10 + n, 200_000));
        let put = ann.ask(Method::PUT, &path, Some(&value)).await?;
        if put.status().is_success() {
            continue;
        }
        is_over(put).await?;
        let made = ann.make(&json!({})).await?;
        if made.status() != 201 {
            is_over(made).await?;
            last = Some(n);
            break;
        }
    }
    let last = last.context("there is no end")?;
    // What is there can be read, and deleted; there is room once it is not kept any more.
    let read = ann.ask(Method::GET, &one, None).await?;
    let value: Value = read.json().await?;
    ensure!(value["large"] == json!(large), "something is gone");
    ensure!(last > 0 && value["more0"] != Value::Null);
    ensure!(value[format!("more{last}")] == Value::Null);
    ensure!(ann.ask(Method::DELETE, &one, None).await?.status() == 204);
    is_refused(ann.edits("ann-5", 3, &letters(7, 700_000)).await)?;
    let now = format!("{one}?now=true");
    ensure!(ann.ask(Method::DELETE, &now, None).await?.status() == 202);
    ann.edits("ann-5", 3, &letters(8, 200_000)).await
}

/// A list of about 40 kB, of which there are two.
fn long_list(n: usize) -> Value {
    let mut names = serde_json::Map::from_iter([("ann".to_owned(), json!("owner"))]);
    let rest = if n.is_multiple_of(2) { "x" } else { "y" }.repeat(150);
    for k in 0..240 {
        names.insert(format!("{k}{rest}"), json!("reader"));
    }
    json!({ "principals": names })
}

#[tokio::test]
async fn what_is_said_of_a_document_counts_and_to_say_the_same_again_is_nothing() -> Result<()> {
    let issuer = Issuer::new()?;
    let mut server =
        ServerProcess::start_with(&issuer.arguments(&["--max-mib-per-principal", "1"])?)?;
    let mut said = 0;
    let access = {
        let ann = As::new(&server, &issuer, "ann")?;
        let made = place(&ann.make(&json!({ "a": 1 })).await?)?;
        let path = format!("{made}/access");
        loop {
            let put = ann.ask(Method::PUT, &path, Some(&long_list(said))).await?;
            if put.status() != 200 {
                is_over(put).await?;
                break path;
            }
            ensure!(said < 40, "there is no end");
            said += 1;
            // It holds already.
            let put = ann
                .ask(Method::PUT, &path, Some(&long_list(said - 1)))
                .await?;
            ensure!(put.headers()["etag"] == format!("\"access-{said}\""));
        }
    };
    ensure!(said > 20, "{said} are not nearly a MiB");
    server.kill()?;
    server.restart()?;
    let ann = As::new(&server, &issuer, "ann")?;
    is_refused(ann.edits("ann-1", 1, &letters(1, 200_000)).await)?;
    let put = ann
        .ask(Method::PUT, &access, Some(&long_list(said)))
        .await?;
    is_over(put).await?;
    // What is erased makes room, of lists, too.
    let document = access.strip_suffix("/access").context("a document")?;
    let now = format!("{document}?now=true");
    ensure!(ann.ask(Method::DELETE, &now, None).await?.status() == 202);
    ann.edits("ann-2", 1, &letters(2, 200_000)).await
}

#[tokio::test]
async fn a_document_has_so_many_bytes() -> Result<()> {
    let server = ServerProcess::start_with(&["--max-document-mib", "1"])?;
    let edits = async |name: &str, n: u8, text: String| {
        let mut tab = tab(&server, HERE, name, n).await?;
        tab.settle().await?;
        tab.edit(|doc| doc.put(ROOT, name, text)).await?;
        tab.settle().await
    };
    edits("one", 1, letters(1, 700_000)).await?;
    is_refused(edits("two", 1, letters(2, 900_000)).await)?;
    edits("three", 1, letters(3, 200_000)).await?;
    edits("other", 2, letters(4, 700_000)).await?;
    let path = format!("/v1/documents/{}/value/more", document(1));
    let mut refused = None;
    // What is compacted takes less.
    for n in 0..10 {
        let value = json!(letters(5 + n, 200_000));
        let put = super::ask(&server, HERE, Method::PUT, &path, Some(&value)).await?;
        if !put.status().is_success() {
            refused = Some(put);
            break;
        }
    }
    is_over(refused.context("there is no end")?).await?;
    super::was_limited(&server, "document-bytes")
}

#[tokio::test]
async fn a_document_has_so_many_peers() -> Result<()> {
    let server = ServerProcess::start_with(&["--max-peers-per-document", "2"])?;
    let mut one = tab(&server, address(1), "one", 1).await?;
    super::edit(&mut one, "one").await?;
    let mut two = tab(&server, address(2), "two", 1).await?;
    super::edit(&mut two, "two").await?;
    let mut three = tab(&server, address(3), "three", 1).await?;
    is_refused(super::edit(&mut three, "three").await.map(drop))?;
    // Nobody else notices, and by HTTP it can be read.
    super::edit(&mut one, "again").await?;
    let path = format!("/v1/documents/{}", document(1));
    let read = super::ask(&server, HERE, Method::GET, &path, None).await?;
    ensure!(read.status() == 200, "{}", read.status());
    drop(two);
    let deadline = std::time::Instant::now() + super::SOON;
    loop {
        let mut four = tab(&server, address(4), "four", 1).await?;
        if super::edit(&mut four, "four").await.is_ok() {
            return super::was_limited(&server, "peers");
        }
        ensure!(
            std::time::Instant::now() < deadline,
            "there is no room again"
        );
    }
}

/// What was refused made no document, and is soon not counted as one.
#[tokio::test]
async fn who_was_refused_has_used_up_nothing() -> Result<()> {
    let issuer = Issuer::new()?;
    let limits = ["--max-documents-per-principal", "1", "--idle-seconds", "1"];
    let server = ServerProcess::start_with(&issuer.arguments(&limits)?)?;
    let ann = As::new(&server, &issuer, "ann")?;
    let path = format!("/v1/documents/{}", document(1));
    let refused = ann
        .ask(Method::PUT, &path, Some(&json!({ "__proto__": 1 })))
        .await?;
    ensure!(refused.status() == 422, "{}", refused.status());
    let deadline = std::time::Instant::now() + super::SOON;
    while ann.make(&json!({})).await?.status() != 201 {
        ensure!(std::time::Instant::now() < deadline, "it counts for good");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    is_over(
        ann.ask(Method::PUT, &path, Some(&json!({ "n": 1 })))
            .await?,
    )
    .await?;
    // The id is nobody's.
    let bob = As::new(&server, &issuer, "bob")?;
    let made = bob
        .ask(Method::PUT, &path, Some(&json!({ "n": 1 })))
        .await?;
    ensure!(made.status() == 201, "{}", made.status());
    Ok(())
}

/// Whoever has many connections leaves places of a document to others.
#[tokio::test]
async fn one_caller_has_a_part_of_the_places_of_a_document() -> Result<()> {
    let server = ServerProcess::start_with(&["--max-peers-per-document", "20"])?;
    let mut open = Vec::new();
    for name in ["one", "two"] {
        let mut tab = tab(&server, address(1), name, 1).await?;
        super::edit(&mut tab, name).await?;
        open.push(tab);
    }
    let mut third = tab(&server, address(1), "three", 1).await?;
    is_refused(super::edit(&mut third, "three").await.map(drop))?;
    super::was_limited(&server, "peers")?;
    // In another document they have as many, and others get into this one.
    let mut elsewhere = tab(&server, address(1), "elsewhere", 2).await?;
    super::edit(&mut elsewhere, "elsewhere").await?;
    for n in 2..8 {
        let name = format!("other-{n}");
        let mut other = tab(&server, address(n), &name, 1).await?;
        super::edit(&mut other, &name).await?;
        open.push(other);
    }
    Ok(())
}
