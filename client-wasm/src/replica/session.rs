//! One connection, as the client sees it: the handshake, then frames for many documents.
//!
//! Phases are types. [`Joining`] knows who we are and can only take the server's answer; [`Open`] knows who
//! the server is and can address it. A connection that is lost is dropped, and a new one starts over.

use bytes::Bytes;
use concord_shared::{
    ids::{DocumentId, PeerId, SessionId, StorageId},
    limits::Limits,
    wire::{Message, PROTOCOL_VERSION, PeerMetadata, SyncFrame, WireError, decode},
};

/// Why a connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Bytes that are no message of the protocol.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The server refused, or gave up, and said why.
    #[error("the server reported: {message}")]
    Server {
        /// The server's words.
        message: String,
    },
    /// A message that this phase does not allow.
    #[error("unexpected `{kind}` while {phase}")]
    Unexpected {
        /// The message's type on the wire.
        kind: &'static str,
        /// What the connection was doing.
        phase: &'static str,
    },
    /// The server chose a protocol version that was not offered.
    #[error("the server chose protocol version {version:?}, which was not offered")]
    Version {
        /// Its choice.
        version: String,
    },
    /// A frame for somebody else: the peer ids of this connection are mixed up.
    #[error("a frame for peer {target}, not for us")]
    WrongTarget {
        /// Whom the frame names.
        target: PeerId,
    },
}

/// A connection whose `join` is sent and not answered yet.
#[derive(Debug)]
pub struct Joining {
    us: PeerId,
}

/// A connection that exchanges documents.
#[derive(Clone, Debug)]
pub struct Open {
    us: PeerId,
    server: PeerId,
    server_storage: Option<StorageId>,
}

/// What a frame from the server means.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// A sync message for [`Replica::receive`](super::Replica::receive).
    Sync {
        /// The document.
        document: DocumentId,
        /// The Automerge sync message, a slice of the frame.
        data: Bytes,
    },
    /// The server has nothing of this document for us. It sends a sync message should that change.
    Unavailable {
        /// The document.
        document: DocumentId,
    },
    /// Another peer's passing message.
    Ephemeral {
        /// The document.
        document: DocumentId,
        /// Who says to have written it; nobody checked.
        author: PeerId,
        /// The author's session.
        session: SessionId,
        /// Grows with each message of a session; drop what is not above the last.
        count: u64,
        /// The application's value as CBOR.
        data: Bytes,
    },
    /// The server goes; it closes the connection next.
    Leave,
    /// Part of the protocol that this client has no use for.
    Ignored,
}

impl Joining {
    /// Starts a connection as `us`, which must be new for every tab. The bytes are the first frame.
    /// With a `storage` the server keeps what it knows of us between connections.
    pub fn start(us: PeerId, storage: Option<StorageId>) -> (Self, Bytes) {
        let metadata = PeerMetadata {
            is_ephemeral: storage.is_none(),
            storage_id: storage,
        };
        let versions = vec![PROTOCOL_VERSION.to_owned()];
        let join = Message::Join {
            sender: us.clone(),
            metadata,
            versions,
        }
        .encode();
        (Self { us }, join)
    }

    /// Takes the server's first frame.
    pub fn receive(self, frame: &Bytes, limits: &Limits) -> Result<Open, SessionError> {
        match decode(frame, limits)? {
            Message::Peer {
                sender,
                target,
                version,
                metadata,
            } => {
                if version != PROTOCOL_VERSION {
                    return Err(SessionError::Version { version });
                }
                if target != self.us {
                    return Err(SessionError::WrongTarget { target });
                }
                Ok(Open {
                    us: self.us,
                    server: sender,
                    server_storage: metadata.storage_id,
                })
            }
            Message::Error { message, .. } => Err(SessionError::Server { message }),
            other => Err(SessionError::Unexpected {
                kind: other.kind(),
                phase: "joining",
            }),
        }
    }
}

impl Open {
    /// A connection that was opened elsewhere, for addressing frames.
    pub fn between(us: PeerId, server: PeerId) -> Self {
        Self {
            us,
            server,
            server_storage: None,
        }
    }

    /// Our peer id.
    pub fn us(&self) -> &PeerId {
        &self.us
    }

    /// The server's peer id.
    pub fn server(&self) -> &PeerId {
        &self.server
    }

    /// The server's store: sync states are worth keeping per store, not per connection.
    pub fn server_storage(&self) -> Option<&StorageId> {
        self.server_storage.as_ref()
    }

    /// Takes one frame from the server.
    pub fn receive(&self, frame: &Bytes, limits: &Limits) -> Result<Incoming, SessionError> {
        let message = decode(frame, limits)?;
        match message {
            // A server that asks us for a document is no different from one that announces it.
            Message::Sync {
                document,
                target,
                data,
                ..
            }
            | Message::Request {
                document,
                target,
                data,
                ..
            } => {
                self.check(target)?;
                Ok(Incoming::Sync { document, data })
            }
            Message::DocUnavailable {
                document, target, ..
            } => {
                self.check(target)?;
                Ok(Incoming::Unavailable { document })
            }
            Message::Ephemeral {
                document,
                sender,
                target,
                count,
                session,
                data,
            } => {
                self.check(target)?;
                Ok(Incoming::Ephemeral {
                    document,
                    author: sender,
                    session,
                    count,
                    data,
                })
            }
            Message::Error { message, .. } => Err(SessionError::Server { message }),
            Message::Leave { .. } => Ok(Incoming::Leave),
            Message::RemoteSubscriptionChange { .. } | Message::RemoteHeadsChanged { .. } => {
                Ok(Incoming::Ignored)
            }
            Message::Join { .. } | Message::Peer { .. } => Err(SessionError::Unexpected {
                kind: message.kind(),
                phase: "open",
            }),
        }
    }

    /// The frame of a sync message.
    pub fn sync(&self, document: &DocumentId, data: &[u8]) -> Bytes {
        SyncFrame::new(document, &self.us, &self.server).with(data)
    }

    /// The frame that asks for a document of which we have nothing, with our first sync message.
    pub fn request(&self, document: &DocumentId, data: &[u8]) -> Bytes {
        Message::Request {
            document: document.clone(),
            sender: self.us.clone(),
            target: self.server.clone(),
            data: Bytes::copy_from_slice(data),
        }
        .encode()
    }

    /// The frame of a passing message: `value` is the application's, as CBOR; `count` grows with each of an author's
    /// in a session. The author may be another than who joined: a tab that has no connection of its own.
    pub fn ephemeral(
        &self,
        document: &DocumentId,
        author: &PeerId,
        session: &SessionId,
        count: u64,
        value: &Bytes,
    ) -> Bytes {
        Message::Ephemeral {
            document: document.clone(),
            sender: author.clone(),
            target: self.server.clone(),
            count,
            session: session.clone(),
            data: value.clone(),
        }
        .encode()
    }

    fn check(&self, target: PeerId) -> Result<(), SessionError> {
        if target == self.us {
            Ok(())
        } else {
            Err(SessionError::WrongTarget { target })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> PeerId {
        PeerId::new(name).unwrap()
    }

    fn answer(target: &str, version: &str) -> Bytes {
        let metadata = PeerMetadata {
            storage_id: Some(StorageId::new("disk").unwrap()),
            is_ephemeral: false,
        };
        Message::Peer {
            sender: peer("server"),
            target: peer(target),
            version: version.to_owned(),
            metadata,
        }
        .encode()
    }

    fn open() -> Open {
        let (joining, _) = Joining::start(peer("tab"), None);
        joining
            .receive(&answer("tab", "1"), &Limits::default())
            .unwrap()
    }

    #[test]
    fn join_is_answered_and_frames_are_addressed() {
        let limits = Limits::default();
        let (joining, join) = Joining::start(peer("tab"), Some(StorageId::new("idb").unwrap()));
        let Message::Join {
            sender,
            metadata,
            versions,
        } = decode(&join, &limits).unwrap()
        else {
            panic!()
        };
        assert_eq!((sender, versions), (peer("tab"), vec!["1".to_owned()]));
        assert!(
            !metadata.is_ephemeral,
            "a client with a store wants its sync state kept"
        );

        let open = joining.receive(&answer("tab", "1"), &limits).unwrap();
        assert_eq!(open.server_storage().unwrap().as_str(), "disk");
        let document = DocumentId::from_uuid([1; 16]);
        let sync = open.sync(&document, b"data");
        let Message::Sync {
            sender,
            target,
            data,
            ..
        } = decode(&sync, &limits).unwrap()
        else {
            panic!()
        };
        assert_eq!(
            (sender, target, &data[..]),
            (peer("tab"), peer("server"), &b"data"[..])
        );
    }

    #[test]
    fn the_handshake_refuses_what_does_not_belong() {
        let limits = Limits::default();
        let join = || Joining::start(peer("tab"), None).0;
        let refuse = |frame: Bytes| join().receive(&frame, &limits).unwrap_err();
        assert!(
            matches!(refuse(answer("tab", "2")), SessionError::Version { version } if version == "2")
        );
        assert!(matches!(
            refuse(answer("other", "1")),
            SessionError::WrongTarget { .. }
        ));
        let error = Message::Error {
            message: "unsupported".to_owned(),
            sender: None,
            target: None,
        };
        assert!(
            matches!(refuse(error.encode()), SessionError::Server { message } if message == "unsupported")
        );
        let sync = open().sync(&DocumentId::from_uuid([1; 16]), b"early");
        assert!(matches!(
            refuse(sync),
            SessionError::Unexpected {
                kind: "sync",
                phase: "joining"
            }
        ));
        assert!(matches!(
            refuse(Bytes::from_static(b"\xf6")),
            SessionError::Wire(_)
        ));
    }

    #[test]
    fn an_open_connection_takes_only_its_own_frames() {
        let (limits, open) = (Limits::default(), open());
        let document = DocumentId::from_uuid([1; 16]);
        let mine = SyncFrame::new(&document, &peer("server"), &peer("tab")).with(b"data");
        let expected = Incoming::Sync {
            document: document.clone(),
            data: Bytes::from_static(b"data"),
        };
        assert_eq!(open.receive(&mine, &limits).unwrap(), expected);
        let foreign = SyncFrame::new(&document, &peer("server"), &peer("other")).with(b"data");
        assert!(matches!(
            open.receive(&foreign, &limits),
            Err(SessionError::WrongTarget { .. })
        ));
        let again = answer("tab", "1");
        assert!(matches!(
            open.receive(&again, &limits),
            Err(SessionError::Unexpected { kind: "peer", .. })
        ));
        let gone = Message::Leave {
            sender: peer("server"),
        }
        .encode();
        assert_eq!(open.receive(&gone, &limits).unwrap(), Incoming::Leave);
    }
}
