//! Messages to frames.

use std::convert::Infallible;

use bytes::{BufMut, Bytes, BytesMut};
use minicbor::Encoder;
use minicbor::encode::Error;

use super::{Message, PeerMetadata, RemoteHeads};
use crate::{DocumentId, PeerId, StorageId, base58check};

type Written = Result<(), Error<Infallible>>;

impl Message {
    /// The message as one frame. Fields that hold nothing are left out. `data` must not be empty:
    /// JavaScript clients throw on it.
    pub fn encode(&self) -> Bytes {
        written(|cbor| self.write(cbor))
    }

    fn write(&self, cbor: &mut Encoder<Vec<u8>>) -> Written {
        match self {
            Self::Join {
                sender,
                metadata,
                versions,
            } => {
                cbor.map(4)?.str("type")?.str(self.kind())?;
                cbor.str("senderId")?.str(sender.as_str())?;
                write_metadata(cbor, metadata)?;
                cbor.str("supportedProtocolVersions")?
                    .array(versions.len() as u64)?;
                for version in versions {
                    cbor.str(version)?;
                }
            }
            Self::Peer {
                sender,
                target,
                version,
                metadata,
            } => {
                cbor.map(5)?.str("type")?.str(self.kind())?;
                cbor.str("senderId")?.str(sender.as_str())?;
                write_metadata(cbor, metadata)?;
                cbor.str("selectedProtocolVersion")?.str(version)?;
                cbor.str("targetId")?.str(target.as_str())?;
            }
            Self::Request {
                document,
                sender,
                target,
                data,
            }
            | Self::Sync {
                document,
                sender,
                target,
                data,
            } => {
                write_sync_header(cbor, self.kind(), document, sender, target)?;
                write_data(cbor, data)?;
            }
            Self::DocUnavailable {
                document,
                sender,
                target,
            } => {
                cbor.map(4)?;
                write_document_header(cbor, self.kind(), document, sender, target)?;
            }
            Self::Ephemeral {
                document,
                sender,
                target,
                count,
                session,
                data,
            } => {
                cbor.map(7)?;
                write_document_header(cbor, self.kind(), document, sender, target)?;
                cbor.str("count")?;
                write_count(cbor, *count)?;
                cbor.str("sessionId")?.str(session.as_str())?;
                cbor.str("data")?;
                write_data(cbor, data)?;
            }
            Self::RemoteSubscriptionChange {
                sender,
                target,
                add,
                remove,
            } => {
                let fields = 3 + u64::from(!add.is_empty()) + u64::from(!remove.is_empty());
                cbor.map(fields)?.str("type")?.str(self.kind())?;
                cbor.str("senderId")?.str(sender.as_str())?;
                cbor.str("targetId")?.str(target.as_str())?;
                write_storage_ids(cbor, "add", add)?;
                write_storage_ids(cbor, "remove", remove)?;
            }
            Self::RemoteHeadsChanged {
                document,
                sender,
                target,
                new_heads,
            } => {
                cbor.map(5)?;
                write_document_header(cbor, self.kind(), document, sender, target)?;
                cbor.str("newHeads")?.map(new_heads.len() as u64)?;
                for heads in new_heads {
                    write_remote_heads(cbor, heads)?;
                }
            }
            Self::Error {
                message,
                sender,
                target,
            } => {
                let fields = 2 + u64::from(sender.is_some()) + u64::from(target.is_some());
                cbor.map(fields)?.str("type")?.str(self.kind())?;
                if let Some(sender) = sender {
                    cbor.str("senderId")?.str(sender.as_str())?;
                }
                cbor.str("message")?.str(message)?;
                if let Some(target) = target {
                    cbor.str("targetId")?.str(target.as_str())?;
                }
            }
            Self::Leave { sender } => {
                cbor.map(2)?.str("type")?.str(self.kind())?;
                cbor.str("senderId")?.str(sender.as_str())?;
            }
        }
        Ok(())
    }
}

/// The constant part of the `sync` frames of one document to one peer: everything but the data.
///
/// Make it once per peer and document, then call [`SyncFrame::with`] for each sync message.
///
/// ```
/// use concord_shared::{DocumentId, Limits, PeerId, wire};
/// use bytes::Bytes;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (document, server, tab) = (DocumentId::new("d")?, PeerId::new("s")?, PeerId::new("t")?);
/// let frame = wire::SyncFrame::new(&document, &server, &tab).with(b"message");
/// let message = wire::decode(&frame, &Limits::default())?;
/// let data = Bytes::from_static(b"message");
/// assert_eq!(message, wire::Message::Sync { document, sender: server, target: tab, data });
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncFrame {
    header: Bytes,
}

/// Most bytes that the head of a CBOR byte string takes.
const BYTES_HEAD: usize = 9;

impl SyncFrame {
    /// The frames' header: `sender` is this side, `target` the peer.
    pub fn new(document: &DocumentId, sender: &PeerId, target: &PeerId) -> Self {
        let header = written(|cbor| write_sync_header(cbor, "sync", document, sender, target));
        Self { header }
    }

    /// The frame that carries `data`, an Automerge sync message, which is never empty. One
    /// allocation and two copies.
    pub fn with(&self, data: &[u8]) -> Bytes {
        debug_assert!(!data.is_empty(), "JavaScript clients throw on empty data");
        let mut frame = BytesMut::with_capacity(self.header.len() + BYTES_HEAD + data.len());
        frame.put_slice(&self.header);
        put_bytes_head(&mut frame, data.len());
        frame.put_slice(data);
        frame.freeze()
    }
}

/// The head of a definite-length CBOR byte string: major type 2 and the length in the fewest bytes
/// (RFC 8949, section 3).
#[expect(
    clippy::cast_possible_truncation,
    reason = "each arm's range says that the length fits"
)]
fn put_bytes_head(out: &mut BytesMut, len: usize) {
    const BYTES: u8 = 0x40;
    match len {
        0..=23 => out.put_u8(BYTES | len as u8),
        24..=0xff => {
            out.put_u8(BYTES | 0x18);
            out.put_u8(len as u8);
        }
        0x100..=0xffff => {
            out.put_u8(BYTES | 0x19);
            out.put_u16(len as u16);
        }
        0x1_0000..=0xffff_ffff => {
            out.put_u8(BYTES | 0x1a);
            out.put_u32(len as u32);
        }
        _ => {
            out.put_u8(BYTES | 0x1b);
            out.put_u64(len as u64);
        }
    }
}

/// Up to and with the key of `data`, which comes last so that a header can be shared.
fn write_sync_header(
    cbor: &mut Encoder<Vec<u8>>,
    kind: &str,
    document: &DocumentId,
    sender: &PeerId,
    target: &PeerId,
) -> Written {
    cbor.map(5)?;
    write_document_header(cbor, kind, document, sender, target)?;
    cbor.str("data")?;
    Ok(())
}

fn write_document_header(
    cbor: &mut Encoder<Vec<u8>>,
    kind: &str,
    document: &DocumentId,
    sender: &PeerId,
    target: &PeerId,
) -> Written {
    cbor.str("type")?.str(kind)?;
    cbor.str("documentId")?.str(document.as_str())?;
    cbor.str("senderId")?.str(sender.as_str())?;
    cbor.str("targetId")?.str(target.as_str())?;
    Ok(())
}

fn write_metadata(cbor: &mut Encoder<Vec<u8>>, metadata: &PeerMetadata) -> Written {
    cbor.str("peerMetadata")?
        .map(1 + u64::from(metadata.storage_id.is_some()))?;
    if let Some(storage_id) = &metadata.storage_id {
        cbor.str("storageId")?.str(storage_id.as_str())?;
    }
    cbor.str("isEphemeral")?.bool(metadata.is_ephemeral)?;
    Ok(())
}

fn write_data(cbor: &mut Encoder<Vec<u8>>, data: &[u8]) -> Written {
    debug_assert!(!data.is_empty(), "JavaScript clients throw on empty data");
    cbor.bytes(data)?;
    Ok(())
}

/// JavaScript decodes an eight-byte integer as a `BigInt`, which it can't compare with a number, so
/// large counts go as the float64 that JavaScript itself would send.
fn write_count(cbor: &mut Encoder<Vec<u8>>, count: u64) -> Written {
    match u32::try_from(count) {
        Ok(small) => cbor.u32(small)?,
        #[expect(
            clippy::cast_precision_loss,
            reason = "a JavaScript author's count is a float64 to begin with"
        )]
        Err(_) => cbor.f64(count as f64)?,
    };
    Ok(())
}

fn write_storage_ids(cbor: &mut Encoder<Vec<u8>>, key: &str, ids: &[StorageId]) -> Written {
    if ids.is_empty() {
        return Ok(());
    }
    cbor.str(key)?.array(ids.len() as u64)?;
    for id in ids {
        cbor.str(id.as_str())?;
    }
    Ok(())
}

fn write_remote_heads(cbor: &mut Encoder<Vec<u8>>, remote: &RemoteHeads) -> Written {
    cbor.str(remote.storage_id.as_str())?;
    cbor.map(2)?
        .str("heads")?
        .array(remote.heads.len() as u64)?;
    for hash in &remote.heads {
        cbor.str(&base58check::encode(&hash.0))?;
    }
    cbor.str("timestamp")?.f64(remote.timestamp_ms)?;
    Ok(())
}

#[expect(
    clippy::expect_used,
    reason = "the encoder's only error is the writer's, and a Vec has none"
)]
fn written(write: impl FnOnce(&mut Encoder<Vec<u8>>) -> Written) -> Bytes {
    let mut cbor = Encoder::new(Vec::with_capacity(256));
    write(&mut cbor).expect("writing to a Vec does not fail");
    cbor.into_writer().into()
}
