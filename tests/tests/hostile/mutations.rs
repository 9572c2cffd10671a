//! Real frames of every type with something broken in them: bits, length, order, or all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use concord_shared::ErrorCode;
use concord_shared::ids::{DocumentId, PeerId};
use concord_shared::limits::Limits;
use concord_shared::wire::{self, Message};
use concord_tests::raw_client::RawClient;
use futures_util::StreamExt as _;
use futures_util::stream;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::world::{ANSWER, World, address, code_of};

/// Many documents and connections, nothing big.
const MOST_MEMORY_MIB: u64 = 192;

/// Broken copies of each frame.
const COPIES: usize = 40;

/// Hostile connections at a time.
const AT_ONCE: usize = 4;

/// What may be told of a frame that comes first, where a `join` is broken but is a message.
const REFUSED_FIRST: [ErrorCode; 2] = [ErrorCode::Protocol, ErrorCode::UnsupportedProtocol];

/// And of one that comes later: something is wrong with whom it is from or to, or with what it brings.
/// A checksum shields what is in a chunk, so that no change gets as far as the graph's rules.
const REFUSED_LATER: [ErrorCode; 6] = [
    ErrorCode::Protocol,
    ErrorCode::BadSyncMessage,
    ErrorCode::SyncMessageTooLarge,
    ErrorCode::BadBloomFilter,
    ErrorCode::BadChunk,
    ErrorCode::BadChecksum,
];

#[test]
fn broken_frames_are_refused_or_do_no_harm() {
    run().expect("all is as promised");
}

fn run() -> Result<()> {
    let seed = std::env::var("CONCORD_TEST_SEED").ok();
    let seed: u64 = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("CONCORD_TEST_SEED={seed}");
    let world = World::start(&[], MOST_MEMORY_MIB)?;
    let probe = world.runtime.block_on(world.join("probe"))?;
    let captured = captured()?;
    let kinds: BTreeSet<_> = captured.iter().map(Message::kind).collect();
    ensure!(kinds.len() == 10, "not every type: {kinds:?}");
    let others: Vec<Bytes> = captured.iter().map(Message::encode).collect();
    let mut random = StdRng::seed_from_u64(seed);
    let mut broken = Vec::new();
    for mut message in captured {
        for copy in 0..=COPIES {
            let peer = PeerId::new(&name(broken.len()))?;
            readdress(&mut message, &peer, probe.server()?, &world.document);
            let frame = message.encode();
            // As it is, too: most are good.
            let frame = match copy {
                0 => frame.to_vec(),
                _ => break_it(&frame, &others, &mut random),
            };
            broken.push((message.kind(), frame));
        }
    }
    let total = broken.len();
    let url = world.server.websocket_url();
    let mut told: BTreeMap<ErrorCode, usize> = BTreeMap::new();
    let mut refused = 0;
    world.runtime.block_on(async {
        let mut sent = stream::iter(broken.into_iter().enumerate())
            .map(|(n, (kind, frame))| {
                let url = &url;
                async move {
                    let sent = send(url, n, kind == "join", &frame).await;
                    sent.with_context(|| format!("{n}: {kind} {}", hex::encode(&frame)))
                }
            })
            .buffer_unordered(AT_ONCE);
        while let Some(outcome) = sent.next().await {
            match outcome? {
                Outcome::Refused(code) => {
                    refused += 1;
                    *told.entry(code).or_default() += 1;
                }
                Outcome::ServedOn => *told.entry(ErrorCode::BadFrame).or_default() += 1,
                Outcome::Left => {}
            }
        }
        anyhow::Ok(())
    })?;
    println!("{refused} of {total} were refused for what they are");
    ensure!(refused > total / 4, "hardly anything was refused");
    ensure!(refused < total, "everything was refused");
    println!("told: {told:?}");
    for code in ErrorCode::ALL {
        let told = told.get(code).copied().unwrap_or_default();
        let counted = world.refused(*code)?;
        ensure!(
            (counted - told as f64).abs() < 0.5,
            "{code} was told {told} times and counted {counted} times"
        );
    }
    // Something must have been broken at every depth: CBOR, fields, addresses, sync messages, chunks.
    for code in [
        ErrorCode::BadFrame,
        ErrorCode::BadField,
        ErrorCode::Protocol,
        ErrorCode::BadSyncMessage,
        ErrorCode::BadChecksum,
    ] {
        ensure!(told.contains_key(&code), "nothing was refused as {code}");
    }
    world.finish()
}

/// What became of a connection.
enum Outcome {
    /// It was refused for the frame.
    Refused(ErrorCode),
    /// It was refused for what came after the frame.
    ServedOn,
    /// The frame said goodbye.
    Left,
}

/// Sends a frame, as the first one or after joining, and then one that is refused in any case.
async fn send(url: &str, n: usize, instead_of_join: bool, frame: &[u8]) -> Result<Outcome> {
    let start = Instant::now();
    let mut client = if instead_of_join {
        RawClient::connect_from(address(n), url, &name(n)).await?
    } else {
        RawClient::join_from(address(n), url, &name(n)).await?
    };
    client.send_bytes(frame).await?;
    // The server may have closed already.
    let _sent = client.send_bytes(b"\xf6").await;
    let refusal = client.refusal().await?;
    let took = start.elapsed();
    ensure!(took < ANSWER, "it took {took:?}");
    let message = wire::decode(&Bytes::copy_from_slice(frame), &Limits::default());
    // A `leave` is answered by a close without complaint.
    if refusal.close_code == Some(1000) {
        ensure!(matches!(message, Ok(Message::Leave { .. })), "{refusal:?}");
        return Ok(Outcome::Left);
    }
    let code = code_of(&refusal)?;
    match message {
        // No message at all: there is one right answer.
        Err(error) => {
            let expected = error.code();
            ensure!(code == expected, "{refusal:?}, not {expected}");
            Ok(Outcome::Refused(code))
        }
        Ok(_) if refusal.message.as_deref() == Some(REFUSED_LAST) => Ok(Outcome::ServedOn),
        Ok(_) => {
            let allowed: &[ErrorCode] = match instead_of_join {
                true => &REFUSED_FIRST,
                false => &REFUSED_LATER,
            };
            ensure!(
                allowed.contains(&code),
                "{refusal:?}, not one of {allowed:?}"
            );
            Ok(Outcome::Refused(code))
        }
    }
}

const REFUSED_LAST: &str =
    "bad-frame: bad CBOR in message: unexpected type null at position 0: expected map";

/// The nth hostile peer.
fn name(n: usize) -> String {
    format!("hostile-{n}")
}

/// The frames that the JavaScript client and server were seen to send.
fn captured() -> Result<Vec<Message>> {
    let golden = include_str!("../../../shared/tests/golden/automerge-repo-2.5.6.json");
    let golden: serde_json::Value = serde_json::from_str(golden)?;
    let frames = golden["frames"].as_array().context("frames")?;
    let mut messages = Vec::new();
    for frame in frames {
        let bytes = hex::decode(frame["hex"].as_str().context("hex")?)?;
        messages.push(wire::decode(&bytes.into(), &Limits::default())?);
    }
    Ok(messages)
}

/// As this peer would send it to this server, about this document.
fn readdress(message: &mut Message, from: &PeerId, to: &PeerId, about: &DocumentId) {
    match message {
        Message::Join { sender, .. } | Message::Leave { sender } => *sender = from.clone(),
        Message::Peer { sender, target, .. }
        | Message::RemoteSubscriptionChange { sender, target, .. } => {
            *sender = from.clone();
            *target = to.clone();
        }
        Message::Error { .. } => {}
        Message::Request {
            document,
            sender,
            target,
            ..
        }
        | Message::Sync {
            document,
            sender,
            target,
            ..
        }
        | Message::DocUnavailable {
            document,
            sender,
            target,
        }
        | Message::Ephemeral {
            document,
            sender,
            target,
            ..
        }
        | Message::RemoteHeadsChanged {
            document,
            sender,
            target,
            ..
        } => {
            *document = about.clone();
            *sender = from.clone();
            *target = to.clone();
        }
    }
}

fn break_it(frame: &[u8], others: &[Bytes], random: &mut StdRng) -> Vec<u8> {
    let mut broken = frame.to_vec();
    let at = random.random_range(0..broken.len());
    match random.random_range(0..6) {
        0 | 1 => {
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..broken.len());
                broken[at] ^= 1 << random.random_range(0..8);
            }
        }
        2 => broken.truncate(at),
        3 => {
            broken.insert(at, random.random());
        }
        4 => {
            let other = &others[random.random_range(0..others.len())];
            broken.truncate(at);
            broken.extend_from_slice(&other[random.random_range(0..other.len())..]);
        }
        _ => {
            let length = random.random_range(0..200);
            broken = (0..length).map(|_| random.random()).collect();
        }
    }
    broken
}
