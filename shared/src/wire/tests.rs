//! What must hold: every frame that the released JavaScript client and server send is read in full,
//! what is written is read back the same, and no bytes make the decoder panic, hang or allocate by a
//! number that they claim. The golden frames were captured by `tests/interop/capture-golden.mjs`;
//! expectations are spelled out here, so a decoder that drops a field fails.

use automerge::ChangeHash;
use bytes::Bytes;
use minicbor::Encoder;
use proptest::prelude::*;

use super::*;
use crate::{DocumentId, ErrorCode, Limits, PeerId, SessionId, StorageId};

const ALICE_STORE: &str = "22222222-2222-4222-8222-222222222222";
const HUB_STORE: &str = "11111111-1111-4111-8111-111111111111";

fn limits() -> Limits {
    Limits::default()
}

fn peer(text: &str) -> PeerId {
    PeerId::new(text).unwrap()
}

fn storage(text: &str) -> StorageId {
    StorageId::new(text).unwrap()
}

fn golden() -> Vec<(String, Bytes)> {
    let json: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/golden/automerge-repo-2.5.6.json")).unwrap();
    let frames = json["frames"].as_array().unwrap();
    let frame = |frame: &serde_json::Value| {
        let bytes = hex::decode(frame["hex"].as_str().unwrap()).unwrap();
        (frame["name"].as_str().unwrap().to_owned(), bytes.into())
    };
    frames.iter().map(frame).collect()
}

fn golden_message(name: &str) -> Message {
    let frames = golden();
    let (_, frame) = frames.iter().find(|(found, _)| found == name).unwrap();
    decode(frame, &limits()).unwrap()
}

#[test]
fn handshake_as_javascript_sends_it() {
    assert_eq!(
        golden_message("client: join without-storage"),
        Message::Join {
            sender: peer("peer-bob"),
            metadata: PeerMetadata {
                storage_id: None,
                is_ephemeral: true,
            },
            versions: vec!["1".into()],
        }
    );
    assert_eq!(
        golden_message("client: join with-storage"),
        Message::Join {
            sender: peer("peer-alice"),
            metadata: PeerMetadata {
                storage_id: Some(storage(ALICE_STORE)),
                is_ephemeral: false,
            },
            versions: vec!["1".into()],
        }
    );
    assert_eq!(
        golden_message("server: peer"),
        Message::Peer {
            sender: peer("storage-server-golden"),
            target: peer("peer-bob"),
            version: "1".into(),
            metadata: PeerMetadata {
                storage_id: Some(storage(HUB_STORE)),
                is_ephemeral: false,
            },
        }
    );
    assert_eq!(
        golden_message("server: error"),
        Message::Error {
            message: "unsupported protocol version".into(),
            sender: Some(peer("storage-server-golden")),
            target: Some(peer("peer-stranger")),
        }
    );
    assert_eq!(
        golden_message("encoder: leave"),
        Message::Leave {
            sender: peer("peer-alice")
        }
    );
}

/// Besides the fields, the sync messages inside are read: that joins the two decoders on real data.
#[test]
fn documents_as_javascript_sends_them() {
    let sync = |data: &Bytes| crate::sync::split(data, &limits()).unwrap();
    for (name, from, to) in [
        ("client: sync short", "peer-alice", "storage-server-golden"),
        ("client: sync long", "peer-alice", "storage-server-golden"),
        ("server: sync short", "storage-server-golden", "peer-alice"),
        ("server: sync long", "storage-server-golden", "peer-bob"),
    ] {
        let Message::Sync {
            document,
            sender,
            target,
            data,
        } = golden_message(name)
        else {
            panic!("{name}");
        };
        assert_eq!((sender, target), (peer(from), peer(to)), "{name}");
        let id = crate::base58check::decode::<16>(document.as_str());
        assert!(id.is_some(), "{name}");
        let inside = sync(&data);
        let long = name.ends_with("long");
        assert_eq!(inside.changes.is_empty(), !long, "{name}");
        for chunks in inside.changes {
            assert!(
                !crate::change::parse_chunks(&chunks, &limits())
                    .unwrap()
                    .is_empty()
            );
        }
    }
    let Message::Request { sender, data, .. } = golden_message("client: request") else {
        panic!();
    };
    assert_eq!(sender, peer("peer-bob"));
    assert_eq!(sync(&data).message.heads, []);
    let Message::DocUnavailable { sender, target, .. } = golden_message("server: doc-unavailable")
    else {
        panic!();
    };
    assert_eq!(sender, peer("storage-server-golden"));
    assert_eq!(target, peer("peer-bob"));
}

#[test]
fn the_rest_as_javascript_sends_it() {
    for (name, from, expected_count) in [
        ("client: ephemeral", "peer-alice", 1),
        ("server: ephemeral", "peer-alice", 1),
        (
            "encoder: ephemeral with a large count",
            "peer-alice",
            1 << 33,
        ),
    ] {
        let Message::Ephemeral {
            sender,
            count,
            session,
            data,
            ..
        } = golden_message(name)
        else {
            panic!("{name}");
        };
        assert_eq!((sender, count), (peer(from), expected_count), "{name}");
        assert!(!session.as_str().is_empty());
        let mut value = minicbor::Decoder::new(&data);
        value.map().unwrap();
        assert_eq!(value.str().unwrap(), "cursor");
        assert_eq!(value.u8().unwrap(), 7);
    }
    let stores = vec![storage(ALICE_STORE)];
    assert_eq!(
        golden_message("client: remote-subscription-change add"),
        Message::RemoteSubscriptionChange {
            sender: peer("peer-bob"),
            target: peer("storage-server-golden"),
            add: stores.clone(),
            remove: vec![],
        }
    );
    assert_eq!(
        golden_message("encoder: remote-subscription-change remove"),
        Message::RemoteSubscriptionChange {
            sender: peer("peer-bob"),
            target: peer("storage-server-golden"),
            add: vec![],
            remove: stores,
        }
    );
    let Message::RemoteHeadsChanged { new_heads, .. } =
        golden_message("server: remote-heads-changed")
    else {
        panic!();
    };
    assert_eq!(new_heads.len(), 1);
    assert_eq!(new_heads[0].storage_id, storage(ALICE_STORE));
    assert_eq!(new_heads[0].heads.len(), 1);
    assert!(new_heads[0].timestamp_ms > 1.7e12);
}

/// To see that JavaScript accepts what is written, run this with `--ignored --nocapture`, and give the
/// lines that begin with a brace to `node capture-golden.mjs --check FILE`.
#[test]
#[ignore = "prints for the check by hand with the JavaScript decoder"]
fn print_encoded() {
    for (name, frame) in golden() {
        let encoded = decode(&frame, &limits()).unwrap().encode();
        let line = serde_json::json!({ "name": name, "hex": hex::encode(encoded) });
        println!("{line}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    for (name, frame) in golden() {
        let message = decode(&frame, &limits()).unwrap();
        let encoded = message.encode();
        assert_eq!(decode(&encoded, &limits()).unwrap(), message, "{name}");
        assert!(encoded.len() <= frame.len() + 2, "{name}");
    }
}

/// Float64 timestamps and definite lengths, byte by byte.
#[test]
fn encoding_is_as_agreed() {
    let message = Message::RemoteHeadsChanged {
        document: DocumentId::new("d").unwrap(),
        sender: peer("s"),
        target: peer("t"),
        new_heads: vec![RemoteHeads {
            storage_id: storage("x"),
            heads: vec![ChangeHash([0; 32])],
            timestamp_ms: 2.0,
        }],
    };
    let head = "11111111111111111111111111111111273Yts";
    assert_eq!(
        hex::encode(message.encode()),
        [
            "a5",
            "6474797065",
            "7472656d6f74652d68656164732d6368616e676564",
            "6a646f63756d656e744964",
            "6164",
            "6873656e6465724964",
            "6173",
            "687461726765744964",
            "6174",
            "686e65774865616473",
            "a1",
            "6178",
            "a2",
            "656865616473",
            "81",
            "7826",
            &hex::encode(head),
            "6974696d657374616d70",
            "fb4000000000000000",
        ]
        .concat()
    );
}

/// An eight-byte integer would be a `BigInt` to JavaScript, which throws when it compares it.
#[test]
fn large_counts_are_written_as_javascript_writes_them() {
    let encoded = golden_message("encoder: ephemeral with a large count").encode();
    let float = [&b"count\xfb"[..], &8_589_934_592.0_f64.to_be_bytes()].concat();
    assert!(encoded.windows(float.len()).any(|window| window == float));
}

#[test]
fn a_sync_frame_is_what_the_message_encodes_to() {
    let document = DocumentId::new("doc").unwrap();
    let (sender, target) = (peer("server"), peer("tab"));
    let frame = SyncFrame::new(&document, &sender, &target);
    for len in [1, 23, 24, 255, 256, 65_535, 65_536] {
        let data = Bytes::from(vec![7; len]);
        let message = Message::Sync {
            document: document.clone(),
            sender: sender.clone(),
            target: target.clone(),
            data: data.clone(),
        };
        assert_eq!(frame.with(&data), message.encode(), "{len}");
        assert_eq!(decode(&message.encode(), &limits()).unwrap(), message);
    }
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn cbor(write: impl FnOnce(&mut Encoder<Vec<u8>>) -> Written) -> Bytes {
    let mut encoder = Encoder::new(Vec::new());
    write(&mut encoder).unwrap();
    encoder.into_writer().into()
}

fn ephemeral() -> Message {
    Message::Ephemeral {
        document: DocumentId::new("d").unwrap(),
        sender: peer("s"),
        target: peer("t"),
        count: 3,
        session: SessionId::new("x").unwrap(),
        data: Bytes::from_static(&[1, 2]),
    }
}

/// Keys in any order, unknown ones with anything inside, tagged bytes, float counts, maps without a
/// length, and integer keys.
#[test]
fn decoding_is_lenient() {
    let frame = cbor(|e| {
        e.begin_map()?;
        e.str("later")?.begin_array()?;
        e.begin_map()?.str("k")?.null()?.end()?;
        e.tag(minicbor::data::Tag::new(1))?.f64(1.5)?.end()?;
        e.str("data")?.tag(minicbor::data::Tag::new(64))?;
        e.bytes(&[1, 2])?;
        e.str("count")?.f64(3.0)?;
        e.u8(9)?.map(1)?.str("a")?.array(0)?;
        e.str("sessionId")?.str("x")?;
        e.str("targetId")?.str("t")?;
        e.str("peerMetadata")?.undefined()?;
        e.str("add")?.null()?;
        e.str("pieces")?
            .begin_bytes()?
            .bytes(&[1])?
            .bytes(&[2])?
            .end()?;
        e.str("documentId")?.str("d")?;
        e.str("senderId")?.str("s")?;
        e.str("type")?.str("ephemeral")?.end()?;
        Ok(())
    });
    assert_eq!(decode(&frame, &limits()).unwrap(), ephemeral());

    // A join that says nothing of versions speaks "1"; undefined metadata is none.
    let frame = cbor(|e| {
        e.map(3)?
            .str("type")?
            .str("join")?
            .str("senderId")?
            .str("s")?;
        e.str("peerMetadata")?
            .map(1)?
            .str("isEphemeral")?
            .undefined()?;
        Ok(())
    });
    assert_eq!(
        decode(&frame, &limits()).unwrap(),
        Message::Join {
            sender: peer("s"),
            metadata: PeerMetadata::default(),
            versions: vec!["1".into()],
        }
    );
}

#[test]
fn refused_frames_say_why() {
    let code = |frame: Bytes| decode(&frame, &limits()).unwrap_err().code();
    let sync_with = |write: &dyn Fn(&mut Encoder<Vec<u8>>) -> Written| {
        cbor(|e| {
            e.map(5)?
                .str("type")?
                .str("sync")?
                .str("senderId")?
                .str("s")?;
            e.str("targetId")?.str("t")?.str("documentId")?.str("d")?;
            e.str("data")?;
            write(e)
        })
    };
    // The frame that ends the official server's process (`f6`), nothing, and other kinds.
    for frame in [&[0xf6][..], &[], &[0x80], &[0x01], &[0xff], &[0x61, b'a']] {
        assert_eq!(
            code(Bytes::copy_from_slice(frame)),
            ErrorCode::BadFrame,
            "{frame:02x?}"
        );
    }
    assert_eq!(code(Bytes::from_static(&[0xa0])), ErrorCode::BadField);
    let empty = |e: &mut Encoder<Vec<u8>>| e.bytes(&[]).map(|_| ());
    assert_eq!(code(sync_with(&empty)), ErrorCode::BadField);
    let undefined = |e: &mut Encoder<Vec<u8>>| e.undefined().map(|_| ());
    assert_eq!(code(sync_with(&undefined)), ErrorCode::BadField);
    let text = |e: &mut Encoder<Vec<u8>>| e.str("text").map(|_| ());
    assert_eq!(code(sync_with(&text)), ErrorCode::BadFrame);
    let date = |e: &mut Encoder<Vec<u8>>| {
        e.tag(minicbor::data::Tag::new(1))?.bytes(&[1])?;
        Ok(())
    };
    assert_eq!(code(sync_with(&date)), ErrorCode::BadFrame);

    let mut trailing = ephemeral().encode().to_vec();
    trailing.push(0);
    assert_eq!(code(trailing.into()), ErrorCode::BadFrame);

    let kind = |kind: &str| {
        cbor(|e| {
            e.map(1)?.str("type")?.str(kind)?;
            Ok(())
        })
    };
    assert_eq!(code(kind("nonsense")), ErrorCode::UnknownMessage);
    assert_eq!(code(kind("leave")), ErrorCode::BadField);

    let leave = |sender: &str| {
        cbor(|e| {
            e.map(2)?
                .str("type")?
                .str("leave")?
                .str("senderId")?
                .str(sender)?;
            Ok(())
        })
    };
    assert_eq!(code(leave("")), ErrorCode::BadId);
    assert_eq!(code(leave(&"x".repeat(257))), ErrorCode::BadId);

    for count in [-1.0, 0.5, f64::NAN, f64::INFINITY, 1e300] {
        let frame = cbor(|e| {
            e.map(1)?.str("count")?.f64(count)?;
            Ok(())
        });
        assert_eq!(code(frame), ErrorCode::BadField, "{count}");
    }
    let frame = cbor(|e| {
        e.map(1)?.str("newHeads")?.map(1)?.str("store")?.map(1)?;
        e.str("heads")?.array(1)?.str("not base58check")?;
        Ok(())
    });
    assert_eq!(code(frame), ErrorCode::BadField);
    let small = Limits {
        frame_bytes: 10,
        ..limits()
    };
    let error = decode(&ephemeral().encode(), &small).unwrap_err();
    assert_eq!(error.code(), ErrorCode::FrameTooLarge);
}

/// Each claims more than it has, or nests as deep as its length.
#[test]
fn claims_cost_nothing() {
    let claims: &[&[u8]] = &[
        &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // a map of 2^64 entries
        &[0xba, 0x00, 0xff, 0xff, 0xff],
        b"\xa1\x63add\x9b\xff\xff\xff\xff\xff\xff\xff\xff", // an array
        b"\xa1\x64data\x5b\x7f\xff\xff\xff\xff\xff\xff\xff", // bytes
        b"\xa1\x64type\x7b\x7f\xff\xff\xff\xff\xff\xff\xff", // text
        b"\xa1\x61x\x9b\xff\xff\xff\xff\xff\xff\xff\xff",   // inside what is skipped
    ];
    for frame in claims {
        let error = decode(&Bytes::copy_from_slice(frame), &limits()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::BadFrame, "{frame:02x?}");
    }
    for opener in [
        &[0x81][..],
        &[0x9f],
        &[0xa1, 0x61, b'k'],
        &[0xbf, 0x61, b'k'],
        &[0xc1, 0x81],
    ] {
        let mut frame = b"\xa1\x61x".to_vec();
        frame.extend(opener.repeat(1_000_000));
        let error = decode(&frame.into(), &limits()).unwrap_err();
        assert!(
            matches!(error, WireError::TooDeep { .. }),
            "{opener:02x?}: {error}"
        );
    }
    // Containers of more entries than the limit that do have them, with and without a length.
    let mut frame = b"\xa1\x61x\x9a\x00\x0f\x42\x40".to_vec();
    frame.resize(frame.len() + 1_000_000, 0);
    let error = decode(&frame.into(), &limits()).unwrap_err();
    assert!(
        matches!(
            error,
            WireError::TooMany {
                count: 1_000_000,
                ..
            }
        ),
        "{error}"
    );
    let mut frame = b"\xa1\x61x\x9f".to_vec();
    frame.resize(1_000_000, 0);
    let error = decode(&frame.into(), &limits()).unwrap_err();
    assert!(matches!(error, WireError::TooMany { .. }), "{error}");
    // A million tags before a value do not nest in our stack either.
    let mut frame = b"\xa1\x61x".to_vec();
    frame.resize(1_000_000, 0xc1);
    assert!(decode(&frame.into(), &limits()).is_err());
}

fn any_golden() -> impl Strategy<Value = Bytes> {
    let frames: Vec<_> = golden().into_iter().map(|(_, frame)| frame).collect();
    proptest::sample::select(frames)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes.into(), &limits());
    }

    #[test]
    fn truncations_are_errors(frame in any_golden(), cut in any::<proptest::sample::Index>()) {
        let cut = cut.index(frame.len());
        prop_assert!(decode(&frame.slice(..cut), &limits()).is_err());
    }

    #[test]
    fn flips_never_panic(
        frame in any_golden(),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut frame = frame.to_vec();
        for (at, bits) in flips {
            let at = at.index(frame.len());
            frame[at] ^= bits;
        }
        if let Ok(message) = decode(&frame.into(), &limits()) {
            // What is accepted is written and read back the same.
            prop_assert_eq!(decode(&message.encode(), &limits()).unwrap(), message);
        }
    }
}
