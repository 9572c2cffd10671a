//! The inputs that broke other servers, and some that could break this one.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::LazyLock;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use automerge::ChangeHash;
use bytes::Bytes;
use concord_shared::ErrorCode;
use concord_shared::ids::{DocumentId, PeerId, SessionId, StorageId};
use concord_shared::wire::Message;
use concord_tests::forge::model::{ChangeModel, OpModel, action};

use crate::changes::{
    BUNDLE, CHANGE, COMPRESSED, Change, DOCUMENT, bomb, compressed, framed, hashes, prefixed, put,
    sync, sync_of, uleb,
};
use crate::world::{ANSWER, World, code_of};

/// A document may inflate to 256 MiB before it is refused, and has half as much beside it while it grows to that; two
/// at a time; the rest is small.
const MOST_MEMORY_MIB: u64 = 2 * (256 + 128) + 64;

/// More than any bound on how often something may happen on a connection.
const MANY: usize = 5_000;

/// What a hostile client sends, and what the server must answer.
struct Case {
    name: &'static str,
    frames: Vec<Sent>,
    code: ErrorCode,
    /// Where it depends on how fast the server is.
    or: Option<ErrorCode>,
}

impl Case {
    fn new(name: &'static str, frames: Vec<Sent>, code: ErrorCode) -> Self {
        let or = None;
        Self {
            name,
            frames,
            code,
            or,
        }
    }
}

enum Sent {
    Binary(Bytes),
    Text,
}

/// Makes frames for one joined connection.
struct Hostile {
    peer: PeerId,
    server: PeerId,
    document: DocumentId,
}

impl Hostile {
    fn sync(&self, data: Vec<u8>) -> Sent {
        self.sync_to(self.document.clone(), data)
    }

    fn sync_to(&self, document: DocumentId, data: Vec<u8>) -> Sent {
        let message = Message::Sync {
            document,
            sender: self.peer.clone(),
            target: self.server.clone(),
            data: data.into(),
        };
        Sent::Binary(message.encode())
    }

    /// Our own encoder refuses to write this.
    fn sync_without_data(&self) -> Sent {
        let Sent::Binary(frame) = self.sync(b"\xde\xad\xbe\xef".to_vec()) else {
            return Sent::Text;
        };
        let data = frame.windows(5).position(|w| w == b"\x44\xde\xad\xbe\xef");
        let at = data.expect("the frame holds its data");
        Sent::Binary([&frame[..at], b"\x40", &frame[at + 5..]].concat().into())
    }

    fn request(&self, document: DocumentId) -> Sent {
        let message = Message::Request {
            document,
            sender: self.peer.clone(),
            target: self.server.clone(),
            data: sync(&[], &[]).into(),
        };
        Sent::Binary(message.encode())
    }

    fn ephemeral(&self, count: u64, session: &str) -> Sent {
        let message = Message::Ephemeral {
            document: self.document.clone(),
            sender: self.peer.clone(),
            target: self.server.clone(),
            count,
            session: SessionId::new(session).unwrap(),
            data: Bytes::from_static(b"\xf6"),
        };
        Sent::Binary(message.encode())
    }

    /// Frames that are no messages, or not for this place.
    fn bad_frames(&self) -> Vec<(&'static str, Sent, ErrorCode)> {
        use ErrorCode as Code;
        let binary = |bytes: &[u8]| Sent::Binary(Bytes::copy_from_slice(bytes));
        let Self {
            peer,
            server,
            document,
        } = self;
        let sync_from = |sender: &PeerId, target: &PeerId| {
            let message = Message::Sync {
                document: document.clone(),
                sender: sender.clone(),
                target: target.clone(),
                data: sync(&[], &[]).into(),
            };
            Sent::Binary(message.encode())
        };
        let subscriptions = Message::RemoteSubscriptionChange {
            sender: peer.clone(),
            target: server.clone(),
            add: (0..1000)
                .map(|n| StorageId::new(&format!("storage-{n}")).unwrap())
                .collect(),
            remove: Vec::new(),
        };
        let of_2_63_bytes = b"\xa1\x64data\x5b\x7f\xff\xff\xff\xff\xff\xff\xff";
        let of_2_60_entries = b"\xbb\x10\0\0\0\0\0\0\0\x61a\x01";
        vec![
            ("f6", binary(b"\xf6"), Code::BadFrame),
            ("nothing", binary(b""), Code::BadFrame),
            ("text", Sent::Text, Code::TextFrame),
            ("zero-length data", self.sync_without_data(), Code::BadField),
            ("data of 2^63 bytes", binary(of_2_63_bytes), Code::BadFrame),
            ("a map of 2^60", binary(of_2_60_entries), Code::BadFrame),
            ("nested arrays", binary(&[0x81; 10_000]), Code::BadFrame),
            ("endless arrays", binary(&[0x9f; 10_000]), Code::BadFrame),
            ("another's name", sync_from(server, server), Code::Protocol),
            ("for another", sync_from(peer, peer), Code::Protocol),
            (
                "subscriptions",
                Sent::Binary(subscriptions.encode()),
                Code::TooManySubscriptions,
            ),
        ]
    }

    /// Too much of what is allowed.
    fn too_much(&self) -> Vec<Case> {
        let known = Change::first(40);
        let blank_have = [
            &[0x43][..],
            &hashes(&[known.hash()]),
            &[0, 1, 0, 0, 0, 2, 2, 0x84],
        ]
        .concat();
        let mut resets = vec![self.sync(sync_of(&known))];
        resets.extend((0..MANY).map(|_| self.sync(blank_have.clone())));
        let documents = (0..MANY).map(|n| {
            let mut id = [0xee; 16];
            id[..8].copy_from_slice(&n.to_le_bytes());
            self.request(DocumentId::from_uuid(id))
        });
        vec![
            Case::new("resets", resets, ErrorCode::Overloaded),
            Case::new(
                "documents",
                documents.collect(),
                ErrorCode::TooManyDocuments,
            ),
        ]
    }

    /// Much of what does no harm; the connection goes on until the frame that ends it.
    fn harmless(&self) -> Vec<Case> {
        let unknown: Vec<ChangeHash> = (0..10_000_u32)
            .map(|n| {
                let mut hash = [9; 32];
                hash[..4].copy_from_slice(&n.to_be_bytes());
                ChangeHash(hash)
            })
            .collect();
        let needs = [&[0x43, 0][..], &hashes(&unknown), &[0, 0, 2, 2, 0x84]].concat();
        let nowhere = DocumentId::from_uuid([0xef; 16]);
        let repeat = |count: usize, make: &dyn Fn(usize) -> Sent| (0..count).map(make).collect();
        let floods: Vec<(&'static str, Vec<Sent>)> = vec![
            (
                "requests for what is not here",
                repeat(MANY, &|_| self.request(nowhere.clone())),
            ),
            ("heads nobody has", vec![self.sync(sync(&unknown, &[]))]),
            ("need of what nobody has", vec![self.sync(needs)]),
            (
                "ephemeral messages of many sessions",
                repeat(MANY, &|n| self.ephemeral(1, &n.to_string())),
            ),
            (
                "the same change again and again",
                repeat(1000, &|_| self.sync(sync_of(&Change::first(41)))),
            ),
            (
                "empty documents",
                repeat(100, &|n| {
                    let id = DocumentId::from_uuid([u8::try_from(n).unwrap(); 16]);
                    self.sync_to(id, sync(&[], &[]))
                }),
            ),
        ];
        floods
            .into_iter()
            .map(|(name, mut frames)| {
                frames.push(Sent::Binary(Bytes::from_static(b"\xf6")));
                Case::new(name, frames, ErrorCode::BadFrame)
            })
            .collect()
    }

    /// Each is answered with the whole document, or counts as asked before the answer to an earlier
    /// one was made; the former may happen only so often.
    fn requests_for_what_is_here(&self) -> Case {
        let mut frames: Vec<Sent> = (0..MANY)
            .map(|_| self.request(self.document.clone()))
            .collect();
        frames.push(Sent::Binary(Bytes::from_static(b"\xf6")));
        Case {
            name: "requests for what is here",
            frames,
            code: ErrorCode::BadFrame,
            or: Some(ErrorCode::Overloaded),
        }
    }

    fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for (name, messages, code) in BAD_MESSAGES.iter() {
            let messages = messages.iter().cloned();
            let frames = messages.map(|data| self.sync(data)).collect();
            cases.push(Case::new(name, frames, *code));
        }
        for (name, frame, code) in self.bad_frames() {
            let frames = vec![frame];
            cases.push(Case::new(name, frames, code));
        }
        cases.extend(self.too_much());
        cases.push(self.requests_for_what_is_here());
        cases.extend(self.harmless());
        cases
    }
}

type BadMessages = (&'static str, Vec<Vec<u8>>, ErrorCode);

/// Made once, as what inflates to gigabytes takes long to make: a client that is busy with it answers no
/// ping.
static BAD_MESSAGES: LazyLock<Vec<BadMessages>> = LazyLock::new(|| {
    let alone = bad_sync_messages().into_iter();
    let alone = alone.map(|(name, data, code)| (name, vec![data], code));
    alone.chain(bad_histories()).collect()
});

/// Everything that one sync message can do wrong.
fn bad_sync_messages() -> Vec<(&'static str, Vec<u8>, ErrorCode)> {
    use ErrorCode as Code;
    let good = Change::first(20);
    let claims = b"\0\x01\x07\x01\x01\0\0\0\x05\x15\x06\x34\x04\x42\x05\x56\x05\x70\x05\
        \x80\xe1\xeb\x17\x01k\x80\xe1\xeb\x17\x80\xe1\xeb\x17\x01\x80\xe1\xeb\x17\x02\x80\xe1\xeb\x17\0";
    let million_preds = b"\0\x01\x07\x01\x81\x89\x7a\0\0\x01\x01\x09\x07\
        \x15\x03\x34\x01\x42\x02\x56\x02\x70\x04\x71\x04\x73\x04\
        \x7f\x01k\x01\x7f\x01\x7f\x02\x7f\xc0\x84\x3d\xc0\x84\x3d\x01\xc0\x84\x3d\x01";
    let mut wrong_checksum = good.chunk();
    wrong_checksum[4] ^= 1;
    let mut garbage_after = good.chunk();
    garbage_after.extend_from_slice(b"garbage");
    let mut too_long = good.chunk()[..9].to_vec();
    too_long.extend(uleb(1 << 40));
    let chunk = |kind, data: &[u8]| sync(&[ChangeHash([1; 32])], &framed(kind, data));
    let have = |bloom: &[u8]| [&[0x42, 0, 0, 1, 0], &prefixed(bloom)[..], &[0]].concat();
    vec![
        (
            "a filter of no bits",
            have(&[1, 0, 1]),
            Code::BadBloomFilter,
        ),
        (
            "a filter of 2e8 probes",
            have(&[1, 8, 0x80, 0x84, 0xaf, 0x5f, 0xff]),
            Code::BadBloomFilter,
        ),
        (
            "5e7 ops in 55 bytes",
            chunk(CHANGE, claims),
            Code::TooManyOps,
        ),
        (
            "a million predecessors in 50 bytes",
            chunk(CHANGE, million_preds),
            Code::BadPred,
        ),
        // They took 3 GB when each op had the key to itself.
        (
            "a key of a megabyte for thousands of ops",
            sync(&[], &long_key()),
            Code::SeqNotNext,
        ),
        (
            "1 MB that inflates to 1 GB",
            chunk(COMPRESSED, &bomb(1 << 20)),
            Code::ChangeTooLarge,
        ),
        (
            "compressed nonsense",
            chunk(COMPRESSED, b"\xff\xff\xff"),
            Code::BadChunk,
        ),
        (
            "wrong checksum",
            sync(&[], &wrong_checksum),
            Code::BadChecksum,
        ),
        (
            "garbage after a chunk",
            sync(&[], &garbage_after),
            Code::BadChunk,
        ),
        ("a bundle", chunk(BUNDLE, &[0; 8]), Code::UnsupportedChunk),
        ("a chunk of 1 TB", sync(&[], &too_long), Code::BadChunk),
        ("no change in a chunk", chunk(CHANGE, &[]), Code::BadChunk),
        (
            "a document of 5e7 changes in 20 bytes",
            chunk(DOCUMENT, &rows_bomb()),
            Code::DocumentTooLarge,
        ),
        (
            "a document column that inflates to 1 GB",
            chunk(DOCUMENT, &column_bomb()),
            Code::DocumentTooLarge,
        ),
        (
            "no document in a chunk",
            chunk(DOCUMENT, &[]),
            Code::BadDocument,
        ),
        (
            "2^60 heads",
            [&[0x42][..], &uleb(1 << 60)].concat(),
            Code::SyncMessageTooLarge,
        ),
        (
            "more heads than there are",
            [&[0x42][..], &uleb(9)].concat(),
            Code::BadSyncMessage,
        ),
        (
            "three haves",
            [0x42, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0].to_vec(),
            Code::SyncMessageTooLarge,
        ),
        ("no sync message", b"hello".to_vec(), Code::BadSyncMessage),
    ]
}

/// Changes that are well formed and do not fit.
fn bad_histories() -> Vec<BadMessages> {
    let message = |text: &str, change: Change| Change {
        message: text.to_owned(),
        ..change
    };
    let next = |of: &Change, seq, start_op| Change {
        deps: vec![of.hash()],
        seq,
        start_op,
        ..of.clone()
    };
    let twice = Change::first(30);
    let gap = Change::first(31);
    let (below, below_hash) = put(32);
    let low = Change {
        deps: vec![below_hash],
        ..Change::first(35)
    };
    let high = Change {
        start_op: 10,
        ..Change::first(36)
    };
    let forked = Change::first(33);
    let fork = Change {
        deps: Vec::new(),
        ..next(&forked, 2, 1)
    };
    let after_fork = next(&fork, 3, 1);
    let orphans: Vec<u8> = (0..MANY)
        .flat_map(|n| {
            let orphan = Change {
                deps: vec![ChangeHash([7; 32])],
                ..Change::first(34)
            };
            message(&n.to_string(), orphan).chunk()
        })
        .collect();
    vec![
        (
            "two changes of one actor and seq",
            vec![sync_of(&twice), sync_of(&message("other", twice.clone()))],
            ErrorCode::DuplicateSeq,
        ),
        (
            "a gap in the seqs",
            vec![sync_of(&gap), sync_of(&next(&gap, 3, 1))],
            ErrorCode::SeqNotNext,
        ),
        (
            "a start op not above its deps'",
            vec![sync(&[below_hash], &below), sync_of(&low)],
            ErrorCode::StartOpTooLow,
        ),
        // Saved, a document with such a change does not load.
        (
            "no ops and a start op above the next",
            vec![sync_of(&high)],
            ErrorCode::BadChange,
        ),
        (
            "an actor that does not build on itself",
            vec![sync_of(&after_fork), sync_of(&forked), sync_of(&fork)],
            ErrorCode::ForkedActor,
        ),
        (
            "deps that never come",
            vec![sync(&[ChangeHash([8; 32])], &orphans)],
            ErrorCode::PendingLimit,
        ),
    ]
}

/// A change in a thousand bytes.
fn long_key() -> Vec<u8> {
    let key = "k".repeat(1 << 20);
    let op = OpModel::at_key(None, &key, action::SET).over(&[(0, 1)]);
    let model = ChangeModel {
        actor: vec![7; 8],
        seq: 2,
        start_op: 2,
        ops: vec![op; 3_000],
        ..ChangeModel::default()
    };
    let chunk = compressed(&model.encode());
    assert!(chunk.len() < 2_000, "{}", chunk.len());
    chunk
}

/// One actor, no heads, one column: 50 million changes of that actor.
fn rows_bomb() -> Vec<u8> {
    let column = [&uleb(50_000_000)[..], &[0]].concat();
    let length = u8::try_from(column.len()).unwrap();
    [&[1, 1, 7, 0, 1, 1, length, 0][..], &column].concat()
}

/// The same column, compressed.
fn column_bomb() -> Vec<u8> {
    let column = bomb(1 << 20);
    let table = [
        &[1, 1, 7, 0, 1, 1 | 8][..],
        &uleb(column.len() as u64),
        &[0],
    ]
    .concat();
    [table, column].concat()
}

#[test]
fn each_bad_input_is_refused_and_hurts_nobody_else() {
    run().expect("all is as promised");
}

fn run() -> Result<()> {
    LazyLock::force(&BAD_MESSAGES);
    let world = World::start(&[], MOST_MEMORY_MIB)?;
    let count = {
        let probe = world.runtime.block_on(world.join("probe"))?;
        let hostile = Hostile {
            peer: probe.peer().clone(),
            server: probe.server()?.clone(),
            document: world.document.clone(),
        };
        hostile.cases().len()
    };
    ensure!(count > 40, "{count} cases");
    for n in 0..count {
        run_case(&world, n)?;
    }
    world.finish()
}

fn run_case(world: &World, n: usize) -> Result<()> {
    let mut client = world
        .runtime
        .block_on(world.join_from_afar(n, &format!("hostile-{n}")))?;
    let hostile = Hostile {
        peer: client.peer().clone(),
        server: client.server()?.clone(),
        document: world.document.clone(),
    };
    let case = hostile.cases().into_iter().nth(n).context("a case")?;
    let codes = [Some(case.code), case.or];
    let count = || -> Result<f64> {
        let codes = codes.iter().flatten();
        codes.map(|code| world.refused(*code)).sum()
    };
    let before = count()?;
    let start = Instant::now();
    let refusal = world.runtime.block_on(async {
        for frame in &case.frames {
            let sent = match frame {
                Sent::Binary(bytes) => client.send_bytes(bytes).await,
                Sent::Text => client.send_text("{}").await,
            };
            // The server may have closed already.
            if sent.is_err() {
                break;
            }
        }
        client.refusal().await
    });
    let took = start.elapsed();
    let refusal = refusal.with_context(|| case.name)?;
    println!("{}: {:?} after {took:?}", case.name, refusal.message);
    let code = code_of(&refusal).with_context(|| case.name)?;
    ensure!(
        codes.contains(&Some(code)),
        "{} was answered by {refusal:?}, not {}",
        case.name,
        case.code
    );
    ensure!(took < ANSWER, "{} took {took:?}", case.name);
    let counted = count()? - before;
    ensure!(
        (counted - 1.0).abs() < 0.5,
        "{} counted {counted} times",
        case.name
    );
    Ok(())
}

#[test]
fn a_frame_larger_than_the_limit_is_refused_before_it_is_read() {
    let world = World::start(&[], 128).expect("the server starts");
    let before = world.refused(ErrorCode::FrameTooLarge).unwrap();
    let mut stream = TcpStream::connect(world.server.address()).unwrap();
    stream.set_read_timeout(Some(ANSWER)).unwrap();
    let upgrade = "GET /sync HTTP/1.1\r\nHost: concord\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).unwrap();
    // A binary frame, masked, of a terabyte.
    let header = [0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4];
    stream.write_all(&header).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("frame-too-large: "), "{answer}");
    let after = world.refused(ErrorCode::FrameTooLarge).unwrap();
    assert!((after - before - 1.0).abs() < 0.5);
    world.finish().expect("nobody else noticed");
}
