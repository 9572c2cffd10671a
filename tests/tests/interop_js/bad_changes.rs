//! Two JavaScript clients edit a document that others send wrong changes to.
//!
//! What must hold: users of stock clients notice nothing of an attack on their document. While both edit
//! all the time, each of several hundred hostile clients sends one message over a socket of its own: every
//! hand-made wrong change that the test kit knows ([`facts`](concord_tests::forge::facts)), and wrong
//! versions of changes of honest histories. Neither user's client loses its connection, throws, or prints
//! anything; both, and one that comes later, show the same, which is what the server has stored. What is
//! refused is said to its sender and ends that connection; the server's memory does not grow with what it
//! refuses, and an edit reaches the other user about as fast as before.
//!
//! It can't pass by accident: what has to become of each message is known before, by judging it without a
//! server, and exactly the changes that are to be admitted must be stored in the end; how many there are
//! of each kind is asserted, and so is that both users edited all through the attack.

mod corpus;

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use automerge::sync::{Message as SyncMessage, MessageVersion};
use automerge::{Automerge, ChangeHash, ReadDoc as _};
use concord_server::materialise;
use concord_server::store::{SledOptions, SledStore};
use concord_shared::ids::DocumentId;
use concord_shared::wire::Message;
use concord_tests::bench::process::resident_bytes;
use concord_tests::forge::dump::dump;
use concord_tests::node::{Dump, Found, NodeClient};
use concord_tests::raw_client::RawClient;
use concord_tests::server_process::{ServerProcess, binary};
use serde_json::{Value, json};

use self::corpus::{Attack, Fate, beginning, corpus};
use crate::server;

/// No answer to a hostile client may take longer: far more than any does on a busy machine.
const ANSWER: Duration = Duration::from_secs(10);

/// Between two hostile clients, so that users edit all the time: the server is done with each in milliseconds.
const PAUSE: Duration = Duration::from_millis(20);

/// Rounds of edits before the attack, to compare with.
const ROUNDS_BEFORE: usize = 20;
/// Fewest rounds while it lasts.
const FEWEST_ROUNDS: usize = 20;
/// A median round in the attack may take so many times one before it.
const SLOWER: u32 = 4;
/// A round before the attack counts as this at least: stock clients hold back what they send by up to 100 ms.
const SHORTEST_ROUND: Duration = Duration::from_millis(100);

/// What the server's memory may be after the second half of the attack, by that after the first.
const MEMORY_GROWTH: f64 = 1.3;
/// And so much more, in bytes: the document grows meanwhile, and allocators keep what they have.
const MEMORY_SLACK: f64 = 20e6;

/// Fewest messages that must be refused, so that the corpus is one.
const FEWEST_REFUSED: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn users_notice_nothing_of_wrong_changes() -> Result<()> {
    let mut server = server()?;
    let document = DocumentId::from_uuid([0xbc; 16]);
    let attacks = corpus();
    let beginning = beginning();
    let hostile = Hostile::new(&server, &document)?;
    hostile.send(0, &beginning).await?;

    let mut users = Users::connect(&server, &document).await?;
    let before = users.edit(|rounds| rounds < ROUNDS_BEFORE).await?;
    let attack = tokio::spawn(async move {
        let memory = hostile.send_all(&attacks).await;
        (memory, attacks)
    });
    let during = users.edit(|_| !attack.is_finished()).await?;
    let (memory, attacks) = attack.await?;
    let memory = memory?;

    let (before, rounds, during) = (median(before), during.len(), median(during));
    println!("{rounds} rounds; a median one took {during:?}, {before:?} before; memory {memory:?}");
    ensure!(rounds >= FEWEST_ROUNDS, "{rounds} rounds of edits");
    ensure!(
        during <= SLOWER * before.max(SHORTEST_ROUND),
        "a round took {during:?} in the attack, {before:?} before"
    );
    let [first, second] = memory.map(|bytes| bytes as f64);
    ensure!(
        second <= MEMORY_GROWTH * first + MEMORY_SLACK,
        "the server grew from {first} bytes to {second}"
    );

    let files = users.finish(&server).await?;
    let status = server.terminate()?;
    ensure!(status.success(), "the server ended with {status}");
    ensure!(!server.log().contains("panicked"), "the server panicked");
    verify(server.data())?;
    stored(
        server.data(),
        &document,
        &files,
        [beginning].iter().chain(&attacks),
    )
}

/// Those who send what is wrong.
struct Hostile {
    url: String,
    document: DocumentId,
    process: u32,
}

impl Hostile {
    fn new(server: &ServerProcess, document: &DocumentId) -> Result<Self> {
        Ok(Self {
            url: server.websocket_url(),
            document: document.clone(),
            process: server.process_id().context("the server runs")?,
        })
    }

    /// Sends all, and returns the server's memory after each half, in bytes.
    async fn send_all(&self, attacks: &[Attack]) -> Result<[u64; 2]> {
        let (first, second) = attacks.split_at(attacks.len() / 2);
        let mut outcomes = BTreeMap::<String, usize>::new();
        let mut memory = [0; 2];
        let mut n = 0;
        for (half, memory) in [first, second].into_iter().zip(&mut memory) {
            for attack in half {
                n += 1;
                self.send(n, attack)
                    .await
                    .with_context(|| format!("{}: {:?}", attack.what, attack.fate))?;
                tokio::time::sleep(PAUSE).await;
                *outcomes.entry(format!("{:?}", attack.fate)).or_default() += 1;
            }
            *memory = resident_bytes(self.process)?;
        }
        println!("{n} messages: {outcomes:?}");
        let is_refusal = |attack: &&Attack| matches!(attack.fate, Fate::Refused(_));
        let refused = attacks.iter().filter(is_refusal).count();
        ensure!(refused >= FEWEST_REFUSED, "only {refused} to refuse");
        Ok(memory)
    }

    /// The nth message, by a client of its own at an address of its own: who is refused again and again
    /// would have to wait.
    async fn send(&self, n: usize, attack: &Attack) -> Result<()> {
        let [.., high, low] = n.to_be_bytes();
        let address = Ipv4Addr::new(198, 18, high, low);
        let version = match n % 2 {
            0 => MessageVersion::V1,
            _ => MessageVersion::V2,
        };
        let mut client = RawClient::join_from(address, &self.url, &format!("hostile-{n}")).await?;
        let message = client.sync_message(self.document.as_str(), &attack.message(version))?;
        client.send(&message).await?;
        let answered = tokio::time::timeout(ANSWER, answered(&mut client, attack.fate));
        answered.await.context("no answer")?
    }
}

/// Waits for the answer that the changes have to get. Whether those that nobody complains of were taken
/// shows in the end.
async fn answered(client: &mut RawClient, fate: Fate) -> Result<()> {
    let Fate::Refused(code) = fate else {
        while !is_sync(&client.next().await?)? {}
        return Ok(());
    };
    let refusal = client.refusal().await?;
    let told = refusal.message.as_deref().unwrap_or_default();
    ensure!(
        told.split(':').next() == Some(code.as_str()) && refusal.reason == code.as_str(),
        "{refusal:?}"
    );
    let is_ours = refusal
        .close_code
        .is_some_and(|code| (4000..5000).contains(&code));
    ensure!(is_ours, "{refusal:?}");
    Ok(())
}

/// False if it is of no concern; an error if it complains.
fn is_sync(message: &Message) -> Result<bool> {
    match message {
        Message::Sync { data, .. } => {
            SyncMessage::decode(data)?;
            Ok(true)
        }
        Message::Error { message, .. } => anyhow::bail!("refused: {message}"),
        _ => Ok(false),
    }
}

/// Two stock clients that have the document open.
struct Users {
    clients: [NodeClient; 2],
    url: String,
    rounds: usize,
}

impl Users {
    async fn connect(server: &ServerProcess, document: &DocumentId) -> Result<Self> {
        let url = format!("automerge:{document}");
        let mut one = NodeClient::connect("one", &server.websocket_url()).await?;
        let mut two = NodeClient::connect("two", &server.websocket_url()).await?;
        ensure!(one.find(&url).await? == Found::Ready, "not found");
        ensure!(two.find(&url).await? == Found::Ready, "not found");
        let shared = json!({ "text": "", "list": [], "map": { "one": 0, "two": 0 } });
        let shared = json!([{ "op": "put", "path": ["shared"], "value": shared }]);
        let heads = one.change(&url, shared).await?;
        two.wait_heads(&url, &heads).await?;
        Ok(Self {
            clients: [one, two],
            url,
            rounds: 0,
        })
    }

    /// Edits of both at the same time, again and again while they `go_on`, each round after both have
    /// seen the other's last; how long each took.
    async fn edit(&mut self, go_on: impl Fn(usize) -> bool) -> Result<Vec<Duration>> {
        let mut took = Vec::new();
        while go_on(took.len()) {
            self.rounds += 1;
            let round = self.rounds;
            let [one, two] = &mut self.clients;
            let url = &self.url;
            let start = Instant::now();
            tokio::try_join!(
                one.change(url, edits("one", round)),
                two.change(url, edits("two", round))
            )?;
            tokio::try_join!(
                one.wait_value(url, json!(["shared", "map", "two"]), json!(round)),
                two.wait_value(url, json!(["shared", "map", "one"]), json!(round))
            )?;
            took.push(start.elapsed());
        }
        Ok(took)
    }

    /// That both see the same when all is with the server, and so does a third who only comes now, and that
    /// nothing happened to them. Their files, in hexadecimal.
    async fn finish(self, server: &ServerProcess) -> Result<[String; 3]> {
        let Self {
            clients: [mut one, mut two],
            url,
            rounds,
        } = self;
        let last = json!([{ "op": "put", "path": ["shared", "map", "end"], "value": true }]);
        let heads = one.change(&url, last).await?;
        ensure!(heads.len() == 1, "the last edit builds on all: {heads:?}");
        two.wait_heads(&url, &heads).await?;
        ensure!(one.wait_acknowledged(&url).await? == heads, "acknowledged");
        ensure!(two.wait_acknowledged(&url).await? == heads, "acknowledged");
        let mut late = NodeClient::connect("late", &server.websocket_url()).await?;
        ensure!(late.find(&url).await? == Found::Ready, "not found");
        late.wait_heads(&url, &heads).await?;

        let mut seen = Vec::new();
        for (name, mut client) in [("one", one), ("two", two), ("late", late)] {
            let dump = client.dump(&url).await?;
            let text = client.value(&url, json!(["shared", "text"])).await?;
            let typed = text.as_str().unwrap_or_default().chars().count();
            ensure!(
                typed == 2 * rounds,
                "{name} has {typed} characters of {rounds} rounds"
            );
            ensure!(
                client.disconnections().await? == 0,
                "{name} was disconnected"
            );
            ensure!(client.handshakes().await? == 1, "{name} joined again");
            let printed = client.log();
            ensure!(printed.is_empty(), "{name} wrote: {printed}");
            client.quit().await?;
            seen.push(dump);
        }
        let [one, two, late] = <[Dump; 3]>::try_from(seen).ok().context("three")?;
        ensure!(one.shown == two.shown, "both show different things");
        ensure!(
            one.shown == late.shown,
            "who comes later is shown other things"
        );
        Ok([one.file, two.file, late.file])
    }
}

/// One user's edits of a round, as one change: a character, a list element, a map value.
fn edits(name: &str, round: usize) -> Value {
    json!([
        { "op": "text", "path": ["shared", "text"], "index": round / 2, "text": name.get(..1) },
        { "op": "list", "path": ["shared", "list"], "index": round / 2, "values": [name] },
        { "op": "put", "path": ["shared", "map", name], "value": round },
    ])
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations
        .get(durations.len() / 2)
        .copied()
        .unwrap_or_default()
}

/// `concord verify --deep`.
fn verify(data: &Path) -> Result<()> {
    let output = Command::new(binary()?)
        .args(["verify", "--deep", "--data"])
        .arg(data)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "verify: {said}{errors}");
    Ok(())
}

/// What is stored is what users see, with all the changes that were to be taken and no others.
fn stored<'a>(
    data: &Path,
    document: &DocumentId,
    files: &[String],
    attacks: impl Iterator<Item = &'a Attack>,
) -> Result<()> {
    let store = SledStore::open(&SledOptions::new(data))?;
    let stored = materialise::document(&store, document)?.context("it was stored")?;
    let stored = Automerge::load(&stored.save())?;
    let heads = |document: &Automerge| -> HashSet<ChangeHash> {
        document.get_heads().into_iter().collect()
    };
    for file in files {
        let seen = Automerge::load(&hex::decode(file)?)?;
        ensure!(heads(&stored) == heads(&seen), "the stored heads differ");
        ensure!(dump(&stored)? == dump(&seen)?, "the stored value differs");
    }
    for attack in attacks {
        let is_taken = attack.is_harmful && attack.kept_out.is_empty();
        ensure!(!is_taken, "{} is harmful, and admitted", attack.what);
        for hash in &attack.taken {
            let is_there = stored.get_change_by_hash(hash).is_some();
            ensure!(is_there, "{}: {hash} was lost", attack.what);
        }
        for hash in &attack.kept_out {
            let is_there = stored.get_change_by_hash(hash).is_some();
            ensure!(!is_there, "{}: {hash} was stored", attack.what);
        }
    }
    Ok(())
}
