//! What broken and hostile clients send: refused with a code, and nobody else notices.
//!
//! What must hold: each of these inputs gets an `error` message with a stable code, then a close; the
//! process survives in bounded time and memory; and two stock clients that share a document on the same
//! server go on, on the connections they had. Each case is forced over a real socket at the built
//! server, and the bystanders edit after every one of them, so an input that were ignored, or that took
//! the server or a document with it, fails the test.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use automerge::sync::{ChunkList, Message as SyncMessage, MessageVersion};
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ROOT};
use bytes::Bytes;
use concord_shared::PeerId;
use concord_shared::limits::Limits;
use concord_shared::wire::{self, Message, PeerMetadata};
use concord_tests::raw_client::{RawClient, Refusal};
use concord_tests::samod_client::{SamodClient, SamodDocument};
use concord_tests::server_process::ServerProcess;
use flate2::Compression;
use flate2::write::DeflateEncoder;

/// No refusal may take longer; the worst of these inputs cost other servers 44 seconds.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);
/// No input of a few hundred kilobytes may make the process larger than this.
const MAX_RESIDENT_KIB: u64 = 300 * 1024;

/// Whoever is refused changes again and again has to wait, so those who are come from many addresses: this one and
/// those that follow it.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);

/// Two stock clients with a document open, who keep editing.
struct Bystanders {
    server: ServerProcess,
    one: SamodClient,
    two: SamodClient,
    at_one: SamodDocument,
    at_two: SamodDocument,
    edits: i64,
}

impl Bystanders {
    async fn start() -> Result<Self> {
        let server = ServerProcess::start()?;
        let one = SamodClient::connect(&server.websocket_url()).await?;
        let two = SamodClient::connect(&server.websocket_url()).await?;
        let at_one = one.create(|tx| tx.put(ROOT, "edits", 0)).await?;
        let at_two = two.open(&at_one.url()).await?;
        Ok(Self {
            server,
            one,
            two,
            at_one,
            at_two,
            edits: 0,
        })
    }

    fn url(&self) -> String {
        self.server.websocket_url()
    }

    /// The document that both have open, as messages name it.
    fn document(&self) -> String {
        self.at_one
            .url()
            .trim_start_matches("automerge:")
            .to_owned()
    }

    /// Both edit and see each other's edit; neither lost its connection.
    async fn go_on(&mut self) -> Result<()> {
        self.edits += 1;
        let edits = self.edits;
        let heads = self.at_one.change(|tx| tx.put(ROOT, "edits", edits))?;
        self.at_two.wait_heads(&heads).await?;
        let heads = self.at_two.change(|tx| tx.put(ROOT, "edits", -edits))?;
        self.at_one.wait_heads(&heads).await?;
        self.one.wait_acknowledged(&self.at_one).await?;
        for client in [&self.one, &self.two] {
            assert_eq!(client.connections_lost(), 0, "a bystander was disconnected");
        }
        Ok(())
    }
}

/// The refusal names `code` in its message and in its close frame, and came in time.
async fn assert_refused(
    client: &mut RawClient,
    code: &str,
    close_code: u16,
    what: &str,
) -> Result<()> {
    let started = Instant::now();
    let Refusal {
        message,
        close_code: closed_with,
        reason,
    } = client.refusal().await.with_context(|| what.to_owned())?;
    let message =
        message.with_context(|| format!("{what}: closed without an error message, {reason}"))?;
    assert_eq!(message.split(':').next(), Some(code), "{what}: {message}");
    assert_eq!(
        (closed_with, reason.as_str()),
        (Some(close_code), code),
        "{what}"
    );
    assert!(
        started.elapsed() < REFUSED_WITHIN,
        "{what}: {:?}",
        started.elapsed()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_no_messages() -> Result<()> {
    let mut bystanders = Bystanders::start().await?;
    let frames: [(&str, &[u8], &str); 7] = [
        // One byte, CBOR's null: it ends the official JavaScript server.
        ("null", b"\xf6", "bad-frame"),
        ("nothing", b"", "bad-frame"),
        ("no CBOR", b"\xff\xff\xff\xff", "bad-frame"),
        (
            "a text that is not there",
            b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
            "bad-frame",
        ),
        (
            "a map that is not there",
            b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
            "bad-frame",
        ),
        ("a message without a type", b"\xa1\x61a\x01", "bad-field"),
        (
            "a message of an unknown type",
            b"\xa1\x64type\x65hello",
            "unknown-message",
        ),
    ];
    for (what, frame, code) in frames {
        let mut first = RawClient::connect(&bystanders.url(), "stranger").await?;
        first.send_bytes(frame).await?;
        assert_refused(&mut first, code, 4400, &format!("{what}, first")).await?;

        let mut later = RawClient::join(&bystanders.url(), "stranger").await?;
        later.send_bytes(frame).await?;
        assert_refused(&mut later, code, 4400, &format!("{what}, later")).await?;
        bystanders.go_on().await?;
    }

    let nested = vec![0x81; 100_000];
    let mut deep = RawClient::join(&bystanders.url(), "stranger").await?;
    deep.send_bytes(&nested).await?;
    assert_refused(&mut deep, "bad-frame", 4400, "deeply nested").await?;

    let mut text = RawClient::join(&bystanders.url(), "stranger").await?;
    text.send_text("{\"type\":\"join\"}").await?;
    assert_refused(&mut text, "text-frame", 1003, "a text frame").await?;
    bystanders.go_on().await
}

/// Every prefix of a good message, and the good message with one bit changed, at every seventh bit.
/// Each is answered before the next is sent, which would replace its connection.
#[tokio::test(flavor = "multi_thread")]
async fn truncated_and_flipped_messages_leave_the_server_standing() -> Result<()> {
    let mut bystanders = Bystanders::start().await?;
    let template = RawClient::join(&bystanders.url(), "broken").await?;
    let good = template
        .sync_message(&bystanders.document(), &hello())?
        .encode();
    drop(template);
    for end in 0..good.len() {
        let mut client = RawClient::join(&bystanders.url(), "broken").await?;
        client
            .send_bytes(good.get(..end).unwrap_or_default())
            .await?;
        assert_refused(&mut client, "bad-frame", 4400, &format!("cut at {end}")).await?;
    }
    let mut answered = 0;
    let mut refused = BTreeSet::new();
    for bit in (0..good.len() * 8).step_by(7) {
        let address = Ipv4Addr::from_bits(FIRST_ADDRESS.to_bits() + u32::try_from(bit)?);
        let mut frame = good.to_vec();
        if let Some(byte) = frame.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        let what = format!("bit {bit}");
        let mut client = RawClient::join_from(address, &bystanders.url(), "broken").await?;
        client.send_bytes(&frame).await?;
        let answer = client.next().await.with_context(|| what.clone())?;
        let message = match answer {
            // A bit that does no harm, or another document's name.
            Message::Sync { .. } => {
                answered += 1;
                continue;
            }
            Message::Error { message, .. } => message,
            other => anyhow::bail!("{what} was answered by {other:?}"),
        };
        let code = message.split(':').next().unwrap_or_default().to_owned();
        let Refusal { reason, .. } = client.refusal().await?;
        assert_eq!(reason, code, "{what}: {message}");
        let expected = match wire::decode(&frame.into(), &Limits::default()) {
            // No message any more: there is one right code.
            Err(error) => vec![error.code().as_str()],
            // From or to somebody else, or around something else.
            Ok(_) => vec![
                "protocol",
                "bad-sync-message",
                "sync-message-too-large",
                "bad-bloom-filter",
                "bad-chunk",
            ],
        };
        assert!(expected.contains(&code.as_str()), "{what}: {message}");
        refused.insert(code);
    }
    assert!(answered > 0, "everything was refused");
    assert!(refused.len() > 3, "refused only as {refused:?}");
    bystanders.go_on().await
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_gone_wrong() -> Result<()> {
    let mut bystanders = Bystanders::start().await?;

    let mut other_version = RawClient::connect(&bystanders.url(), "future").await?;
    let join = Message::Join {
        sender: PeerId::new("future")?,
        metadata: PeerMetadata::default(),
        versions: vec!["2".to_owned(), "3".to_owned()],
    };
    other_version.send(&join).await?;
    assert_refused(
        &mut other_version,
        "unsupported-protocol",
        4400,
        "another version",
    )
    .await?;

    let joined = RawClient::join(&bystanders.url(), "eager").await?;
    let sync = joined.sync_message(&bystanders.document(), &hello())?;
    drop(joined);
    let mut eager = RawClient::connect(&bystanders.url(), "eager").await?;
    eager.send(&sync).await?;
    assert_refused(&mut eager, "protocol", 4400, "a message before join").await?;

    let mut twice = RawClient::join(&bystanders.url(), "twice").await?;
    twice.send(&twice.join_message()).await?;
    assert_refused(&mut twice, "protocol", 4400, "a second join").await?;

    let mut nameless = RawClient::connect(&bystanders.url(), "nameless").await?;
    nameless
        .send_bytes(b"\xa2\x64type\x64join\x68senderId\x60")
        .await?;
    assert_refused(&mut nameless, "bad-id", 4400, "an empty peer id").await?;
    bystanders.go_on().await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_in_somebody_elses_name_or_for_somebody_else() -> Result<()> {
    let mut bystanders = Bystanders::start().await?;
    let mut astray = RawClient::join(&bystanders.url(), "astray").await?;
    let Message::Sync {
        document,
        sender,
        data,
        ..
    } = astray.sync_message(&bystanders.document(), &hello())?
    else {
        unreachable!("sync_message makes a sync");
    };
    let target = PeerId::new("another server")?;
    astray
        .send(&Message::Sync {
            document: document.clone(),
            sender,
            target,
            data: data.clone(),
        })
        .await?;
    assert_refused(&mut astray, "protocol", 4400, "for another server").await?;

    let mut impostor = RawClient::join(&bystanders.url(), "impostor").await?;
    let Message::Sync { target, .. } = impostor.sync_message(&bystanders.document(), &hello())?
    else {
        unreachable!("sync_message makes a sync");
    };
    let sender = PeerId::new(&bystanders.one.peer_id())?;
    impostor
        .send(&Message::Sync {
            document,
            sender,
            target,
            data,
        })
        .await?;
    assert_refused(&mut impostor, "protocol", 4400, "in another peer's name").await?;
    bystanders.go_on().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_joins_again_replaces_its_old_connection() -> Result<()> {
    let mut bystanders = Bystanders::start().await?;
    let document = bystanders.document();
    let mut old = RawClient::join(&bystanders.url(), "tab").await?;
    old.send(&old.sync_message(&document, &hello())?).await?;
    assert!(matches!(old.next().await?, Message::Sync { .. }));

    let mut new = RawClient::join(&bystanders.url(), "tab").await?;
    let refusal = old.refusal().await?;
    assert_eq!(
        (refusal.close_code, refusal.reason.as_str()),
        (Some(4409), "replaced")
    );
    new.send(&new.sync_message(&document, &hello())?).await?;
    assert!(matches!(new.next().await?, Message::Sync { .. }));
    // The new connection is the one that hears of what follows.
    bystanders.go_on().await?;
    assert!(matches!(new.next().await?, Message::Sync { .. }));
    Ok(())
}

/// The sync messages of FACTS.md §3 that make Automerge panic, or work for minutes, or take gigabytes.
#[tokio::test(flavor = "multi_thread")]
async fn sync_messages_that_break_other_servers() -> Result<()> {
    let mut bystanders = Bystanders::start().await?;
    let bomb = deflate_bomb(200 << 20)?;
    let mut garbage_after = change(1, "x")?;
    garbage_after.extend_from_slice(b"garbage");
    let mut bad_checksum = change(1, "x")?;
    if let Some(byte) = bad_checksum.get_mut(4) {
        *byte ^= 1;
    }
    let cases: Vec<(&str, Vec<u8>, &str, u16)> = vec![
        ("nothing known", b"\x99".to_vec(), "bad-sync-message", 4400),
        (
            "a bloom filter of zero bits",
            hex::decode("42000001000301000100")?,
            "bad-bloom-filter",
            4400,
        ),
        (
            "2·10^8 probes",
            hex::decode("420000010008010a8084af5f0000")?,
            "bad-bloom-filter",
            4400,
        ),
        (
            "2^60 hashes",
            hex::decode("42808080808080808010")?,
            "sync-message-too-large",
            4400,
        ),
        (
            "no chunk",
            with_changes(&[b"garbage".to_vec()]),
            "bad-chunk",
            4422,
        ),
        (
            "garbage after a chunk",
            with_changes(&[garbage_after]),
            "bad-chunk",
            4422,
        ),
        (
            "a wrong checksum",
            with_changes(&[bad_checksum]),
            "bad-checksum",
            4422,
        ),
        (
            "200 MiB in 200 kB",
            with_changes(&[bomb]),
            "change-too-large",
            4422,
        ),
    ];
    for ((what, data, code, close_code), last) in cases.into_iter().zip(1..) {
        let address = Ipv4Addr::from_bits(FIRST_ADDRESS.to_bits() + last);
        for document in [bystanders.document(), "a document of its own".to_owned()] {
            let mut hostile = RawClient::join_from(address, &bystanders.url(), "hostile").await?;
            hostile
                .send(&hostile.sync_message(&document, &data)?)
                .await?;
            assert_refused(&mut hostile, code, close_code, what).await?;
        }
        bystanders.go_on().await?;
    }
    assert!(
        bystanders.server.max_resident_kib()? < MAX_RESIDENT_KIB,
        "{} KiB",
        bystanders.server.max_resident_kib()?
    );
    assert!(
        bystanders
            .server
            .metric("concord_refused_total{code=\"bad-bloom-filter\"}")?
            >= 4.0
    );
    Ok(())
}

/// Two changes of one actor with one sequence number: whoever saw the second first would part from the
/// others for ever. The first one stands, for everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_would_part_the_others_is_refused() -> Result<()> {
    let mut bystanders = Bystanders::start().await?;
    let document = bystanders.document();
    let first = change(7, "first")?;
    let second = change(7, "second")?;
    let mut forker = RawClient::join(&bystanders.url(), "forker").await?;
    forker
        .send(&forker.sync_message(&document, &with_changes(&[first]))?)
        .await?;
    let arrived = async {
        while bystanders.at_two.view()?.value["who"] != "first" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(20), arrived)
        .await
        .context("the first change")??;

    forker
        .send(&forker.sync_message(&document, &with_changes(&[second]))?)
        .await?;
    assert_refused(
        &mut forker,
        "duplicate-seq",
        4422,
        "a second change 1 of one actor",
    )
    .await?;
    bystanders.go_on().await?;
    assert_eq!(bystanders.at_one.view()?, bystanders.at_two.view()?);
    assert_eq!(bystanders.at_one.view()?.value["who"], "first");

    // And it is not on disk either.
    assert!(bystanders.server.terminate()?.success());
    bystanders.server.restart()?;
    let late = SamodClient::connect(&bystanders.url()).await?;
    let found = late.open(&bystanders.at_one.url()).await?;
    found.wait_heads(&bystanders.at_one.heads()).await
}

/// The greeting of a peer that has nothing.
fn hello() -> Vec<u8> {
    sync_message(Vec::new()).encode()
}

/// A sync message that brings these chunks, whatever they are.
fn with_changes(chunks: &[Vec<u8>]) -> Vec<u8> {
    sync_message(chunks.to_vec()).encode()
}

fn sync_message(chunks: Vec<Vec<u8>>) -> SyncMessage {
    SyncMessage {
        heads: Vec::new(),
        need: Vec::new(),
        have: Vec::new(),
        changes: ChunkList::from(chunks),
        flags: None,
        version: MessageVersion::V1,
    }
}

/// The first change of an actor, on an empty document: `{who: …}`.
fn change(actor: u8, who: &str) -> Result<Vec<u8>> {
    let mut document = AutoCommit::new().with_actor(ActorId::from([actor; 16]));
    document.put(ROOT, "who", who)?;
    document.commit();
    let changes = document.get_changes(&[]);
    Ok(changes.first().context("one change")?.raw_bytes().to_vec())
}

/// A compressed change chunk that inflates to `bytes` zeros.
fn deflate_bomb(bytes: usize) -> Result<Vec<u8>> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; 1 << 20];
    for _ in 0..bytes / zeros.len() {
        encoder.write_all(&zeros)?;
    }
    let data = encoder.finish()?;
    let mut chunk = b"\x85\x6f\x4a\x83\0\0\0\0\x02".to_vec();
    let mut length = data.len();
    while length >= 0x80 {
        chunk.push(u8::try_from(length & 0x7f)? | 0x80);
        length >>= 7;
    }
    chunk.push(u8::try_from(length)?);
    chunk.extend(Bytes::from(data));
    Ok(chunk)
}
