//! Bytes that honest software does not write: chunks and sync messages, good but for one thing.

use std::io::Write as _;

use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, ChangeHash, ROOT};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use sha2::{Digest as _, Sha256};

/// Chunk types.
pub(crate) const DOCUMENT: u8 = 0;
pub(crate) const CHANGE: u8 = 1;
pub(crate) const COMPRESSED: u8 = 2;
pub(crate) const BUNDLE: u8 = 3;

/// A change without ops by the actor `[actor; 8]`: enough for every check against the graph.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) deps: Vec<ChangeHash>,
    pub(crate) actor: u8,
    pub(crate) seq: u64,
    pub(crate) start_op: u64,
    /// Told apart by this.
    pub(crate) message: String,
}

impl Change {
    pub(crate) fn first(actor: u8) -> Self {
        Self {
            deps: Vec::new(),
            actor,
            seq: 1,
            start_op: 1,
            message: String::new(),
        }
    }

    pub(crate) fn data(&self) -> Vec<u8> {
        let mut data = hashes(&self.deps);
        data.extend(prefixed(&[self.actor; 8]));
        data.extend(uleb(self.seq));
        data.extend(uleb(self.start_op));
        data.push(0); // time
        data.extend(prefixed(self.message.as_bytes()));
        data.push(0); // other actors
        data.push(0); // columns
        data
    }

    pub(crate) fn chunk(&self) -> Vec<u8> {
        framed(CHANGE, &self.data())
    }

    pub(crate) fn hash(&self) -> ChangeHash {
        ChangeHash(hash(CHANGE, &self.data()))
    }
}

/// A sync message with these heads and one blob of changes, as V2 clients send it.
pub(crate) fn sync(heads: &[ChangeHash], blob: &[u8]) -> Vec<u8> {
    let mut message = vec![0x43];
    message.extend(hashes(heads));
    message.push(0); // need
    message.push(0); // have
    if blob.is_empty() {
        message.push(0);
    } else {
        message.push(1);
        message.extend(prefixed(blob));
    }
    message.extend([2, 2, 0x84]); // flags
    message
}

/// A change with one op by another actor, as a chunk with its hash.
pub(crate) fn put(actor: u8) -> (Vec<u8>, ChangeHash) {
    let mut document = AutoCommit::new().with_actor(ActorId::from([actor; 8]));
    document.put(ROOT, "hostile", 1).unwrap();
    let change = document.get_last_local_change().unwrap();
    (change.raw_bytes().to_vec(), change.hash())
}

/// One change, announced as the head.
pub(crate) fn sync_of(change: &Change) -> Vec<u8> {
    sync(&[change.hash()], &change.chunk())
}

/// A chunk with a good checksum.
pub(crate) fn framed(kind: u8, data: &[u8]) -> Vec<u8> {
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83];
    chunk.extend_from_slice(&hash(kind, data)[..4]);
    chunk.push(kind);
    chunk.extend(prefixed(data));
    chunk
}

fn hash(kind: u8, data: &[u8]) -> [u8; 32] {
    let mut hashed = vec![kind];
    hashed.extend(prefixed(data));
    Sha256::digest(hashed).into()
}

/// A change chunk, compressed.
pub(crate) fn compressed(chunk: &[u8]) -> Vec<u8> {
    let length = chunk[9..]
        .iter()
        .take_while(|byte| **byte & 0x80 != 0)
        .count()
        + 1;
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&chunk[9 + length..]).unwrap();
    let data = encoder.finish().unwrap();
    [&chunk[..8], &[COMPRESSED], &prefixed(&data)].concat()
}

/// DEFLATE data of about `bytes` bytes, a thousandth of what it inflates to.
pub(crate) fn bomb(bytes: usize) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&vec![0; 4 << 20]).unwrap();
    encoder.flush().unwrap();
    // A flushed piece ends at a byte, and this one refers only to zeros.
    let piece = encoder.get_ref().clone();
    let mut all = piece.repeat(bytes / piece.len());
    all.extend([3, 0]); // an empty last block
    all
}

pub(crate) fn hashes(hashes: &[ChangeHash]) -> Vec<u8> {
    let mut out = uleb(hashes.len() as u64);
    for hash in hashes {
        out.extend_from_slice(&hash.0);
    }
    out
}

pub(crate) fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let mut out = uleb(bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

pub(crate) fn uleb(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return out;
        }
        out.push(byte | 0x80);
    }
}
