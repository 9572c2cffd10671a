//! Uploads: messages that take the server long to decode, from clients that wait and from such that don't.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ObjType, ROOT};
use concord_shared::wire::Message;
use concord_tests::raw_client::RawClient;

use crate::changes;
use crate::slow::{CHANGE_BYTES, incompressible};
use crate::world::World;

/// Keystrokes of an upload, which takes a while to decode.
const UPLOAD_KEYSTROKES: usize = 400_000;

/// How long the last of those that come together must have waited: for some pings and the next ones.
const BUSY: Duration = Duration::from_secs(4);

/// Who waits for us is not gone.
#[test]
fn clients_whose_uploads_take_the_server_long_stay_connected() {
    slow_uploads().expect("all is as promised");
}

fn slow_uploads() -> Result<()> {
    let world = World::start(&["--keep-alive-seconds", "1"], 1024)?;
    let upload = upload()?;
    let slowest = world.runtime.block_on(async {
        // As many as keep this machine busy for so long, and not much longer, whatever else it does.
        let mut count = 2;
        loop {
            let uploads =
                (0..count).map(|n| upload_to(&world, format!("upload-{count}-{n}"), &upload));
            let took = futures_util::future::try_join_all(uploads).await?;
            let slowest = took.into_iter().max().context("some uploads")?;
            if slowest >= BUSY {
                return anyhow::Ok(slowest);
            }
            count *= 2;
            ensure!(count <= 512, "{slowest:?} is not long");
        }
    })?;
    println!("the slowest took {slowest:?}");
    world.finish()
}

/// What others may take while those come and go: much less than decoding them all.
const MOST_FOR_A_PASTE: Duration = Duration::from_secs(2);
const MOST_FOR_AN_UPLOAD: Duration = Duration::from_secs(5);

/// Uploads whose clients are gone before their turn comes.
const ABANDONED: usize = 300;

#[test]
fn uploads_of_clients_that_have_gone_hold_up_nobody() {
    abandoned_uploads().expect("all is as promised");
}

fn abandoned_uploads() -> Result<()> {
    let world = World::start(&[], 1024)?;
    let upload = upload()?;
    let mut paste = AutoCommit::new();
    for n in 0..5 {
        paste.put(ROOT, n.to_string(), incompressible(n))?;
    }
    let change = paste.get_last_local_change().context("a change")?;
    let paste = changes::sync(&[change.hash()], change.raw_bytes());
    let (paste, other) = world.runtime.block_on(async {
        // Connected before, so that their uploads come at once.
        let clients = (0..ABANDONED).map(async |n| {
            let client = world.join(&format!("abandoned-{n}")).await?;
            let message = client.sync_message(&format!("abandoned-{n}"), &upload)?;
            anyhow::Ok((client, message))
        });
        let clients = futures_util::future::try_join_all(clients).await?;
        for (mut client, message) in clients {
            client.send(&message).await?;
        }
        let paste = upload_to(&world, "paste".to_owned(), &paste).await?;
        let other = upload_to(&world, "other".to_owned(), &upload).await?;
        anyhow::Ok((paste, other))
    })?;
    println!("a paste took {paste:?}, another upload {other:?}");
    ensure!(paste < MOST_FOR_A_PASTE, "a paste took {paste:?}");
    ensure!(other < MOST_FOR_AN_UPLOAD, "an upload took {other:?}");
    world.finish()
}

/// A document that is large to decode.
fn upload() -> Result<Vec<u8>> {
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text)?;
    for n in 0..UPLOAD_KEYSTROKES / CHANGE_BYTES {
        doc.splice_text(&text, CHANGE_BYTES * n, 0, &incompressible(n))?;
        doc.commit();
    }
    Ok(changes::sync(&doc.get_heads(), &doc.save()))
}

/// To a document of its own.
async fn upload_to(world: &World, name: String, upload: &[u8]) -> Result<Duration> {
    let mut client: RawClient = world.join(&name).await?;
    let message = client.sync_message(&name, upload)?;
    let start = Instant::now();
    client.send(&message).await?;
    // Pings are answered while it waits.
    let answer = client.next().await.with_context(|| name.clone())?;
    let is_taken = matches!(answer, Message::Sync { .. });
    ensure!(is_taken, "{name} was answered by {answer:?}");
    Ok(start.elapsed())
}
