//! JSON in is JSON out, and a view is what a load of the stored bytes is, whoever edits.

use anyhow::Result;
use automerge::transaction::Transactable as _;
use automerge::{ActorId, Automerge, ObjType, ROOT, ReadDoc as _};
use concord_client_wasm::Replica;
use concord_shared::ids::DocumentId;
use concord_shared::json::{Types, is_same, to_json};
use concord_tests::client::Client;
use concord_tests::server_process::ServerProcess;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::Method;
use reqwest::header::ACCEPT;
use serde_json::{Value, json};

use super::rest::{Rest, send};

const DOCUMENTS: u64 = 20;
const LONG_DOCUMENTS: u64 = 400;
const STEPS: usize = 25;

fn value(random: &mut StdRng, levels: usize) -> Value {
    let kinds = if levels == 0 { 6 } else { 9 };
    match random.random_range(0..kinds) {
        0 => Value::Null,
        1 => json!(random.random::<bool>()),
        2 => json!(random.random::<i64>()),
        3 => json!(random.random::<u64>() as f64 / 7.0),
        4 | 5 => {
            let words = [
                "agenda",
                "é",
                " ",
                "\u{1F469}\u{200D}\u{1F680}",
                "2026-11-22",
                "\n",
                "\"\\",
            ];
            let count = random.random_range(0..6);
            let text: String = (0..count)
                .map(|_| words[random.random_range(0..words.len())])
                .collect();
            json!(text)
        }
        6 => (0..random.random_range(0..5))
            .map(|_| value(random, levels - 1))
            .collect(),
        7 => (0..random.random_range(0..5))
            .map(|id| json!({ "id": id, "value": value(random, levels - 1) }))
            .collect(),
        _ => object(random, levels - 1),
    }
}

pub(crate) fn object(random: &mut StdRng, levels: usize) -> Value {
    let keys = ["a", "b", "c/d", "~", "", "id"];
    let keys = keys
        .into_iter()
        .filter(|_| random.random())
        .collect::<Vec<_>>();
    keys.into_iter()
        .map(|key| (key.to_owned(), value(random, levels)))
        .collect()
}

/// An edit through Automerge's own API.
pub(crate) fn edit(random: &mut StdRng, client: &mut Client) -> Result<()> {
    let kind = random.random_range(0..5);
    let (number, text) = (
        random.random::<i64>(),
        random.random_range(0..1000).to_string(),
    );
    client.replica().change(|doc| {
        match kind {
            0 => doc.put(ROOT, "a", number)?,
            1 => doc.delete(ROOT, "b")?,
            2 => {
                let list = doc.put_object(ROOT, "list", ObjType::List)?;
                doc.insert(&list, 0, text)?;
                doc.insert_object(&list, 1, ObjType::Map)?;
            }
            _ => match doc.get(ROOT, "text")? {
                Some((value, id)) if value.is_object() && kind == 3 => {
                    doc.splice_text(&id, 0, 0, &text)?;
                }
                _ => {
                    let id = doc.put_object(ROOT, "text", ObjType::Text)?;
                    doc.splice_text(&id, 0, 0, &text)?;
                }
            },
        }
        Ok::<_, automerge::AutomergeError>(())
    })?;
    Ok(())
}

#[test]
fn json_in_is_json_out_and_views_are_what_is_stored() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    for seed in super::seeds(DOCUMENTS, LONG_DOCUMENTS) {
        let ran = runtime.block_on(Box::pin(run(&server, seed)));
        ran.unwrap_or_else(|error| panic!("CONCORD_TEST_SEED={seed} replays it: {error:?}"));
    }
}

async fn run(server: &ServerProcess, seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let rest = Rest::new(server.address());
    let url = format!("/v1/documents/values-{}", random.random::<u64>());
    let id = DocumentId::new(url.rsplit('/').next().unwrap_or_default())?;
    let first = object(&mut random, 4);
    assert_eq!(rest.put(&url, &first).await?.good()?.json()?, first);
    let replica = Replica::new(id, ActorId::random());
    let mut client = Box::pin(Client::join(
        server.address(),
        &format!("client-{seed}"),
        replica,
    ))
    .await?;
    client.settle().await?;
    for _ in 0..STEPS {
        if random.random() {
            let json = object(&mut random, 4);
            let now = rest.put(&url, &json).await?.good()?.json()?;
            assert!(is_same(&now, &json), "{now} is not {json}");
        } else {
            edit(&mut random, &mut client)?;
            client.settle().await?;
        }
        // Whoever was told of a change finds it here.
        let shown = rest.get(&url).await?.good()?;
        let request = rest
            .request(Method::GET, &url)
            .header(ACCEPT, "application/vnd.automerge");
        let stored = send(request).await?.good()?;
        assert_eq!(stored.etag()?.replace("-automerge", ""), shown.etag()?);
        let loaded = Automerge::load(&stored.body)?;
        assert_eq!(to_json(&loaded.hydrate(None), Types::Plain), shown.json()?);
        // As it is with somebody who was sent the changes, one by one, and never saw the view.
        let heads = loaded.get_heads();
        let soon = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
        let has = |replica: &mut Replica| {
            let doc = replica.doc();
            heads
                .iter()
                .all(|head| doc.get_change_by_hash(head).is_some())
        };
        while !has(client.replica()) {
            anyhow::ensure!(
                client.receive(soon, drop).await?,
                "the client has not got all"
            );
            client.send().await?;
        }
        let replica = client.replica();
        assert_eq!(replica.heads().len(), heads.len());
        let sent = Automerge::load(&replica.doc().save())?;
        assert_eq!(to_json(&sent.hydrate(None), Types::Plain), shown.json()?);
    }
    Ok(())
}

/// More than a view's outbox takes at once: the relay holds back what comes after it.
#[test]
fn what_is_long_is_there_when_its_author_was_told_that_it_is_kept() {
    const LETTERS: usize = 400 << 10;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    let ran: Result<()> = runtime.block_on(Box::pin(async {
        let mut random = StdRng::seed_from_u64(1);
        let rest = Rest::new(server.address());
        let url = "/v1/documents/long";
        rest.put(url, &json!({ "text": "" })).await?.good()?;
        let replica = Replica::new(DocumentId::new("long")?, ActorId::random());
        let mut client = Box::pin(Client::join(server.address(), "client", replica)).await?;
        let before = client.replica().heads();
        while client.replica().heads() == before {
            let soon = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
            assert!(client.receive(soon, drop).await?);
        }
        for n in 1..4 {
            // That no compression makes short.
            let letters = (0..LETTERS).map(|_| random.random_range('!'..='~'));
            let letters: String = letters.collect();
            client.replica().change(|doc| {
                let (_, text) = doc.get(ROOT, "text")?.expect("a text");
                doc.splice_text(&text, 0, 0, &letters)
            })?;
            client.settle().await?;
            let shown = rest.get(&format!("{url}/value/text")).await?.json()?;
            assert_eq!(shown.as_str().map(str::len), Some(n * LETTERS));
            // And one that comes right behind.
            client
                .replica()
                .change(|doc| doc.put(ROOT, "n", n as u64))?;
            client.settle().await?;
            assert_eq!(rest.get(&format!("{url}/value/n")).await?.json()?, json!(n));
        }
        Ok(())
    }));
    ran.unwrap();
}
