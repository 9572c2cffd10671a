//! Frames to messages.

use automerge::ChangeHash;
use bytes::Bytes;
use minicbor::Decoder;
use minicbor::data::{Tag, Type};

use super::{Kind, Message, PROTOCOL_VERSION, PeerMetadata, RemoteHeads};
use crate::ids::IdError;
use crate::{DocumentId, ErrorCode, Limits, PeerId, SessionId, StorageId, base58check};

/// The tag that some encoders put before a byte string: RFC 8746, "uint8 typed array".
const BYTE_ARRAY: Tag = Tag::new(64);

/// Why a frame is not a message.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Larger than the limit.
    #[error("the frame has {bytes} bytes, more than {limit}")]
    FrameTooLarge {
        /// Bytes of the frame.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Not well-formed CBOR, or not of the kind that is needed there.
    #[error("bad CBOR in {what}: {error}")]
    Cbor {
        /// The field, or the part of the frame.
        what: &'static str,
        /// Where and why.
        error: minicbor::decode::Error,
    },
    /// Containers nested deeper than the limit.
    #[error("CBOR nested deeper than {limit} at byte {offset}")]
    TooDeep {
        /// Where in the frame.
        offset: usize,
        /// The limit.
        limit: usize,
    },
    /// A map, an array or a text larger than the limit.
    #[error("{what}: {count} is more than {limit}")]
    TooMany {
        /// The field.
        what: &'static str,
        /// What was claimed or counted.
        count: u64,
        /// The limit.
        limit: usize,
    },
    /// Bytes after the map.
    #[error("{bytes} bytes after the message")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A field that this type of message must have.
    #[error("a {kind} message without {field}")]
    Missing {
        /// The message's type.
        kind: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A type that the protocol does not have.
    #[error("unknown message type {kind:?}")]
    UnknownType {
        /// The type, cut to a reasonable length.
        kind: String,
    },
    /// An id that is empty or too long.
    #[error(transparent)]
    Id(#[from] IdError),
    /// `data` of zero length.
    #[error("a {kind} message with empty data")]
    EmptyData {
        /// The message's type.
        kind: &'static str,
    },
    /// A number that is negative, fractional, infinite or too large for what it counts.
    #[error("{what} is not countable: {value}")]
    BadCount {
        /// The field.
        what: &'static str,
        /// The number.
        value: f64,
    },
    /// A head that is not base58check of 32 bytes.
    #[error("a head that is not the base58check of a change hash")]
    BadHead,
}

impl WireError {
    /// What the peer is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::FrameTooLarge { .. } => ErrorCode::FrameTooLarge,
            Self::UnknownType { .. } => ErrorCode::UnknownMessage,
            Self::Cbor { .. }
            | Self::TooDeep { .. }
            | Self::TooMany { .. }
            | Self::Trailing { .. } => ErrorCode::BadFrame,
            Self::Missing { .. }
            | Self::EmptyData { .. }
            | Self::BadCount { .. }
            | Self::BadHead => ErrorCode::BadField,
            Self::Id(error) => error.code(),
        }
    }
}

/// Reads one frame: exactly one CBOR map. `data` fields are slices of the frame, not copies.
///
/// Time and memory are proportional to the frame's bytes.
pub fn decode(frame: &Bytes, limits: &Limits) -> Result<Message, WireError> {
    if frame.len() > limits.frame_bytes {
        return Err(WireError::FrameTooLarge {
            bytes: frame.len(),
            limit: limits.frame_bytes,
        });
    }
    let mut cbor = Cbor {
        decoder: Decoder::new(frame),
        limits,
        depth: 0,
    };
    let fields = Fields::read(&mut cbor)?;
    match frame.len() - cbor.decoder.position() {
        0 => fields.into_message(frame),
        bytes => Err(WireError::Trailing { bytes }),
    }
}

/// Every field that any message has. Which ones a message needs is known only at the end, since
/// keys come in any order.
#[derive(Default)]
struct Fields<'b> {
    kind: Option<&'b str>,
    sender: Option<&'b str>,
    target: Option<&'b str>,
    document: Option<&'b str>,
    session: Option<&'b str>,
    count: Option<u64>,
    data: Option<&'b [u8]>,
    metadata: PeerMetadata,
    versions: Option<Vec<String>>,
    selected: Option<&'b str>,
    message: Option<&'b str>,
    add: Vec<StorageId>,
    remove: Vec<StorageId>,
    new_heads: Vec<RemoteHeads>,
}

impl<'b> Fields<'b> {
    fn read(cbor: &mut Cbor<'b, '_>) -> Result<Self, WireError> {
        let mut fields = Self::default();
        cbor.map("message", |cbor, key| {
            match key {
                "type" => fields.kind = cbor.text("type")?,
                "senderId" => fields.sender = cbor.text("senderId")?,
                "targetId" => fields.target = cbor.text("targetId")?,
                "documentId" => fields.document = cbor.text("documentId")?,
                "sessionId" => fields.session = cbor.text("sessionId")?,
                "count" => fields.count = cbor.count("count")?,
                "data" => fields.data = cbor.bytes("data")?,
                "peerMetadata" => fields.metadata = cbor.metadata()?,
                "supportedProtocolVersions" => fields.versions = cbor.versions()?,
                "selectedProtocolVersion" => {
                    fields.selected = cbor.text("selectedProtocolVersion")?;
                }
                "message" => fields.message = cbor.text("message")?,
                "add" => fields.add = cbor.storage_ids("add")?,
                "remove" => fields.remove = cbor.storage_ids("remove")?,
                "newHeads" => fields.new_heads = cbor.new_heads()?,
                _ => cbor.skip()?,
            }
            Ok(())
        })?;
        Ok(fields)
    }

    fn into_message(self, frame: &Bytes) -> Result<Message, WireError> {
        let text = self.kind.ok_or(WireError::Missing {
            kind: "CBOR",
            field: "type",
        })?;
        let unknown = || {
            const SHOWN_CHARS: usize = 64;
            WireError::UnknownType {
                kind: text.chars().take(SHOWN_CHARS).collect(),
            }
        };
        let which = Kind::of(text).ok_or_else(unknown)?;
        let kind = which.as_str();
        Ok(match which {
            Kind::Join => Message::Join {
                sender: self.sender(kind)?,
                metadata: self.metadata,
                versions: self
                    .versions
                    .unwrap_or_else(|| vec![PROTOCOL_VERSION.to_owned()]),
            },
            Kind::Peer => Message::Peer {
                sender: self.sender(kind)?,
                target: self.target(kind)?,
                version: need(self.selected, kind, "selectedProtocolVersion")?.to_owned(),
                metadata: self.metadata,
            },
            Kind::Request => Message::Request {
                document: self.document(kind)?,
                sender: self.sender(kind)?,
                target: self.target(kind)?,
                data: self.data(kind, frame)?,
            },
            Kind::Sync => Message::Sync {
                document: self.document(kind)?,
                sender: self.sender(kind)?,
                target: self.target(kind)?,
                data: self.data(kind, frame)?,
            },
            Kind::DocUnavailable => Message::DocUnavailable {
                document: self.document(kind)?,
                sender: self.sender(kind)?,
                target: self.target(kind)?,
            },
            Kind::Ephemeral => Message::Ephemeral {
                document: self.document(kind)?,
                sender: self.sender(kind)?,
                target: self.target(kind)?,
                count: need(self.count, kind, "count")?,
                session: SessionId::new(need(self.session, kind, "sessionId")?)?,
                data: self.data(kind, frame)?,
            },
            Kind::RemoteSubscriptionChange => Message::RemoteSubscriptionChange {
                sender: self.sender(kind)?,
                target: self.target(kind)?,
                add: self.add,
                remove: self.remove,
            },
            Kind::RemoteHeadsChanged => Message::RemoteHeadsChanged {
                document: self.document(kind)?,
                sender: self.sender(kind)?,
                target: self.target(kind)?,
                new_heads: self.new_heads,
            },
            Kind::Error => Message::Error {
                message: self.message.unwrap_or_default().to_owned(),
                sender: self.sender.map(PeerId::new).transpose()?,
                target: self.target.map(PeerId::new).transpose()?,
            },
            Kind::Leave => Message::Leave {
                sender: self.sender(kind)?,
            },
        })
    }

    fn sender(&self, kind: &'static str) -> Result<PeerId, WireError> {
        Ok(PeerId::new(need(self.sender, kind, "senderId")?)?)
    }

    fn target(&self, kind: &'static str) -> Result<PeerId, WireError> {
        Ok(PeerId::new(need(self.target, kind, "targetId")?)?)
    }

    fn document(&self, kind: &'static str) -> Result<DocumentId, WireError> {
        Ok(DocumentId::new(need(self.document, kind, "documentId")?)?)
    }

    fn data(&self, kind: &'static str, frame: &Bytes) -> Result<Bytes, WireError> {
        match need(self.data, kind, "data")? {
            [] => Err(WireError::EmptyData { kind }),
            data => Ok(frame.slice_ref(data)),
        }
    }
}

fn need<T>(field: Option<T>, kind: &'static str, name: &'static str) -> Result<T, WireError> {
    field.ok_or(WireError::Missing { kind, field: name })
}

/// A decoder that keeps to the limits. Its readers take one value each; those that return an option
/// read null and undefined as none.
struct Cbor<'b, 'l> {
    decoder: Decoder<'b>,
    limits: &'l Limits,
    depth: usize,
}

impl<'b> Cbor<'b, '_> {
    fn peek(&self, what: &'static str) -> Result<Type, WireError> {
        self.decoder.datatype().map_err(bad(what))
    }

    /// Takes a null or undefined value, if one is next.
    fn take_nothing(&mut self, what: &'static str) -> Result<bool, WireError> {
        match self.peek(what)? {
            Type::Null => self.decoder.null().map_err(bad(what))?,
            Type::Undefined => self.decoder.undefined().map_err(bad(what))?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn text(&mut self, what: &'static str) -> Result<Option<&'b str>, WireError> {
        if self.take_nothing(what)? {
            return Ok(None);
        }
        self.some_text(what).map(Some)
    }

    fn some_text(&mut self, what: &'static str) -> Result<&'b str, WireError> {
        let text = self.decoder.str().map_err(bad(what))?;
        if text.len() > self.limits.text_bytes {
            return Err(WireError::TooMany {
                what,
                count: text.len() as u64,
                limit: self.limits.text_bytes,
            });
        }
        Ok(text)
    }

    /// A byte string, which some encoders tag as a typed array of bytes (tag 64).
    fn bytes(&mut self, what: &'static str) -> Result<Option<&'b [u8]>, WireError> {
        if self.take_nothing(what)? {
            return Ok(None);
        }
        if self.peek(what)? == Type::Tag {
            let tag = self.decoder.tag().map_err(bad(what))?;
            if tag != BYTE_ARRAY {
                return Err(WireError::Cbor {
                    what,
                    error: minicbor::decode::Error::tag_mismatch(tag),
                });
            }
        }
        self.decoder.bytes().map_err(bad(what)).map(Some)
    }

    fn bool(&mut self, what: &'static str) -> Result<bool, WireError> {
        if self.take_nothing(what)? {
            return Ok(false);
        }
        self.decoder.bool().map_err(bad(what))
    }

    fn number(&mut self, what: &'static str) -> Result<f64, WireError> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "JavaScript's numbers are float64"
        )]
        let value = match self.peek(what)? {
            Type::F16 | Type::F32 | Type::F64 => self.decoder.f64().map_err(bad(what))?,
            _ => self.decoder.i64().map_err(bad(what))? as f64,
        };
        if value.is_finite() {
            Ok(value)
        } else {
            Err(WireError::BadCount { what, value })
        }
    }

    fn count(&mut self, what: &'static str) -> Result<Option<u64>, WireError> {
        if self.take_nothing(what)? {
            return Ok(None);
        }
        if !matches!(self.peek(what)?, Type::F16 | Type::F32 | Type::F64) {
            return self.decoder.u64().map(Some).map_err(bad(what));
        }
        let value = self.number(what)?;
        // 2^53: above it a float64 no longer counts by one.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range is checked"
        )]
        if value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&value) {
            Ok(Some(value as u64))
        } else {
            Err(WireError::BadCount { what, value })
        }
    }

    fn metadata(&mut self) -> Result<PeerMetadata, WireError> {
        let mut metadata = PeerMetadata::default();
        if self.take_nothing("peerMetadata")? {
            return Ok(metadata);
        }
        self.map("peerMetadata", |cbor, key| {
            match key {
                "storageId" => {
                    metadata.storage_id =
                        cbor.text("storageId")?.map(StorageId::new).transpose()?;
                }
                "isEphemeral" => metadata.is_ephemeral = cbor.bool("isEphemeral")?,
                _ => cbor.skip()?,
            }
            Ok(())
        })?;
        Ok(metadata)
    }

    fn versions(&mut self) -> Result<Option<Vec<String>>, WireError> {
        const WHAT: &str = "supportedProtocolVersions";
        if self.take_nothing(WHAT)? {
            return Ok(None);
        }
        let mut versions = Vec::new();
        self.array(WHAT, |cbor| {
            versions.push(cbor.some_text(WHAT)?.to_owned());
            Ok(())
        })?;
        Ok(Some(versions))
    }

    fn storage_ids(&mut self, what: &'static str) -> Result<Vec<StorageId>, WireError> {
        let mut ids = Vec::new();
        if self.take_nothing(what)? {
            return Ok(ids);
        }
        self.array(what, |cbor| {
            ids.push(StorageId::new(cbor.some_text(what)?)?);
            Ok(())
        })?;
        Ok(ids)
    }

    fn new_heads(&mut self) -> Result<Vec<RemoteHeads>, WireError> {
        let mut all = Vec::new();
        if self.take_nothing("newHeads")? {
            return Ok(all);
        }
        self.map("newHeads", |cbor, storage_id| {
            let mut remote = RemoteHeads {
                storage_id: StorageId::new(storage_id)?,
                heads: Vec::new(),
                timestamp_ms: 0.0,
            };
            cbor.map("newHeads", |cbor, key| {
                match key {
                    "heads" => cbor.array("heads", |cbor| {
                        remote.heads.push(parse_head(cbor.some_text("heads")?)?);
                        Ok(())
                    })?,
                    "timestamp" => remote.timestamp_ms = cbor.number("timestamp")?,
                    _ => cbor.skip()?,
                }
                Ok(())
            })?;
            all.push(remote);
            Ok(())
        })?;
        Ok(all)
    }

    /// Calls `entry` after each text key of a map, to read the value. Entries with keys of other
    /// kinds are skipped.
    fn map(
        &mut self,
        what: &'static str,
        mut entry: impl FnMut(&mut Self, &'b str) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let len = self.decoder.map().map_err(bad(what))?;
        self.each(what, len, |cbor| {
            if cbor.peek(what)? == Type::String {
                let key = cbor.decoder.str().map_err(bad(what))?;
                entry(cbor, key)
            } else {
                cbor.skip()?;
                cbor.skip()
            }
        })
    }

    /// Calls `item` to read each item of an array.
    fn array(
        &mut self,
        what: &'static str,
        item: impl FnMut(&mut Self) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        let len = self.decoder.array().map_err(bad(what))?;
        self.each(what, len, item)
    }

    /// Reads a container of `len` items, or up to the break if it has no length, one level deeper.
    fn each(
        &mut self,
        what: &'static str,
        len: Option<u64>,
        mut item: impl FnMut(&mut Self) -> Result<(), WireError>,
    ) -> Result<(), WireError> {
        if self.depth == self.limits.cbor_depth {
            return Err(WireError::TooDeep {
                offset: self.decoder.position(),
                limit: self.limits.cbor_depth,
            });
        }
        let too_many = |count| WireError::TooMany {
            what,
            count,
            limit: self.limits.cbor_entries,
        };
        let limit = self.limits.cbor_entries as u64;
        if let Some(count) = len.filter(|count| *count > limit) {
            return Err(too_many(count));
        }
        self.depth += 1;
        let mut count = 0;
        loop {
            match len {
                Some(len) if count == len => break,
                None if self.peek(what)? == Type::Break => {
                    self.decoder
                        .set_position(self.decoder.position().saturating_add(1));
                    break;
                }
                None if count == limit => {
                    return Err(WireError::TooMany {
                        what,
                        count: count + 1,
                        limit: self.limits.cbor_entries,
                    });
                }
                _ => item(self)?,
            }
            count += 1;
        }
        self.depth -= 1;
        Ok(())
    }

    /// Passes over one value of any kind, to the limits' depth and size.
    fn skip(&mut self) -> Result<(), WireError> {
        const WHAT: &str = "unknown field";
        while self.peek(WHAT)? == Type::Tag {
            self.decoder.tag().map_err(bad(WHAT))?;
        }
        match self.peek(WHAT)? {
            Type::Array | Type::ArrayIndef => self.array(WHAT, Self::skip),
            Type::Map | Type::MapIndef => {
                let len = self.decoder.map().map_err(bad(WHAT))?;
                self.each(WHAT, len, |cbor| {
                    cbor.skip()?;
                    cbor.skip()
                })
            }
            // A break where a value belongs: minicbor would take it for the end of something.
            Type::Break => Err(WireError::Cbor {
                what: WHAT,
                error: minicbor::decode::Error::type_mismatch(Type::Break),
            }),
            // Scalars, and strings in pieces, which do not nest.
            _ => self.decoder.skip().map_err(bad(WHAT)),
        }
    }
}

fn parse_head(text: &str) -> Result<ChangeHash, WireError> {
    let hash = base58check::decode(text).ok_or(WireError::BadHead)?;
    Ok(ChangeHash(hash))
}

fn bad(what: &'static str) -> impl FnOnce(minicbor::decode::Error) -> WireError {
    move |error| WireError::Cbor { what, error }
}
