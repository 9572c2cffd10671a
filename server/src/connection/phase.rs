//! The automerge-repo protocol "1" as a state machine: handshake, then open.
//!
//! Each phase owns what is meaningful then. Pure: messages in, [`Action`]s or a [`ProtocolError`] out.

use std::sync::Arc;

use bytes::Bytes;
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, PeerId, StorageId};
use concord_shared::wire::{Message, PROTOCOL_VERSION, PeerMetadata};
use rustc_hash::FxHashSet;

use crate::document::ephemeral::Ephemeral;

/// Storages whose heads one connection may ask to be told of.
pub const MAX_SUBSCRIPTIONS_PER_CONNECTION: usize = 256;

/// A message that the protocol does not allow here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Anything but `join` came first.
    #[error("expected join, got {found}")]
    ExpectedJoin {
        /// The message's type.
        found: &'static str,
    },
    /// The client speaks other versions only.
    #[error("no common protocol version: this server speaks \"1\"")]
    NoCommonVersion,
    /// The client calls itself what the server is called.
    #[error("the peer id is this server's own")]
    OursIsTaken,
    /// A message that only servers send, or a second `join`.
    #[error("{found} is not allowed on an open connection")]
    Unexpected {
        /// The message's type.
        found: &'static str,
    },
    /// The sender is not who joined.
    #[error("senderId is not the peer that joined")]
    WrongSender,
    /// The message is for somebody else.
    #[error("targetId is not this server")]
    WrongTarget,
    /// Too many storages.
    #[error("more than {MAX_SUBSCRIPTIONS_PER_CONNECTION} storages subscribed to")]
    TooManySubscriptions,
}

impl ProtocolError {
    /// The stable code a peer sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoCommonVersion => ErrorCode::UnsupportedProtocol,
            Self::TooManySubscriptions => ErrorCode::TooManySubscriptions,
            Self::OursIsTaken => ErrorCode::Forbidden,
            Self::ExpectedJoin { .. }
            | Self::Unexpected { .. }
            | Self::WrongSender
            | Self::WrongTarget => ErrorCode::Protocol,
        }
    }
}

/// Before `join`.
#[derive(Debug)]
pub struct Handshake {
    /// Who this server is.
    pub server: PeerId,
}

/// After `join`.
#[derive(Debug)]
pub struct Open {
    server: PeerId,
    peer: PeerId,
    storage: Option<StorageId>,
    subscriptions: Arc<FxHashSet<StorageId>>,
}

/// What an open connection's message asks for.
#[derive(Debug)]
pub enum Action {
    /// A sync message for a document; `is_request` asks whether it exists.
    Sync {
        /// Which.
        document: DocumentId,
        /// `request`, not `sync`.
        is_request: bool,
        /// Encoded Automerge sync message.
        data: Bytes,
    },
    /// Pass on to the document's other peers.
    Ephemeral(DocumentId, Arc<Ephemeral>),
    /// The set of storages whose heads the peer wants to be told of changed to this.
    Subscriptions(Arc<FxHashSet<StorageId>>),
    /// The peer says goodbye.
    Leave,
    /// Nothing to do.
    Ignore,
}

impl Handshake {
    /// Takes the first message.
    pub fn receive(self, message: Message) -> Result<Open, ProtocolError> {
        let found = message.kind();
        let Message::Join {
            sender,
            metadata,
            versions,
        } = message
        else {
            return Err(ProtocolError::ExpectedJoin { found });
        };
        if !versions.iter().any(|version| version == PROTOCOL_VERSION) {
            return Err(ProtocolError::NoCommonVersion);
        }
        if sender == self.server {
            return Err(ProtocolError::OursIsTaken);
        }
        let PeerMetadata {
            storage_id,
            is_ephemeral,
        } = metadata;
        Ok(Open {
            server: self.server,
            peer: sender,
            // What an ephemeral peer stores is gone when it is: nobody can wait for it to have heads.
            storage: storage_id.filter(|_| !is_ephemeral),
            subscriptions: Arc::default(),
        })
    }
}

impl Open {
    /// Who joined.
    pub fn peer(&self) -> &PeerId {
        &self.peer
    }

    /// Its storage, if that outlives the connection.
    pub fn storage(&self) -> Option<&StorageId> {
        self.storage.as_ref()
    }

    /// Storages whose heads the peer wants to be told of.
    pub fn subscriptions(&self) -> &Arc<FxHashSet<StorageId>> {
        &self.subscriptions
    }

    /// Takes a message after the first.
    pub fn receive(&mut self, message: Message) -> Result<Action, ProtocolError> {
        let found = message.kind();
        match message {
            Message::Sync {
                document,
                sender,
                target,
                data,
            } => self.sync(document, &sender, &target, data, false),
            Message::Request {
                document,
                sender,
                target,
                data,
            } => self.sync(document, &sender, &target, data, true),
            // The author may be another than who sends it: tabs behind a shared worker do that.
            Message::Ephemeral {
                document,
                sender,
                target,
                count,
                session,
                data,
            } => {
                self.sent_to_us(&target)?;
                let ephemeral = Ephemeral {
                    sender,
                    session,
                    count,
                    data,
                };
                Ok(Action::Ephemeral(document, Arc::new(ephemeral)))
            }
            Message::RemoteSubscriptionChange {
                sender,
                target: _,
                add,
                remove,
            } => {
                self.sent_by_peer(&sender)?;
                let mut storages = FxHashSet::clone(&self.subscriptions);
                for storage in &remove {
                    storages.remove(storage);
                }
                storages.extend(add);
                if storages.len() > MAX_SUBSCRIPTIONS_PER_CONNECTION {
                    return Err(ProtocolError::TooManySubscriptions);
                }
                self.subscriptions = Arc::new(storages);
                Ok(Action::Subscriptions(Arc::clone(&self.subscriptions)))
            }
            Message::Leave { sender } => {
                self.sent_by_peer(&sender)?;
                Ok(Action::Leave)
            }
            // A client has nothing to tell us about documents it lacks, and what it says of others'
            // heads is hearsay.
            Message::DocUnavailable { .. }
            | Message::RemoteHeadsChanged { .. }
            | Message::Error { .. } => Ok(Action::Ignore),
            Message::Join { .. } | Message::Peer { .. } => Err(ProtocolError::Unexpected { found }),
        }
    }

    fn sync(
        &self,
        document: DocumentId,
        sender: &PeerId,
        target: &PeerId,
        data: Bytes,
        is_request: bool,
    ) -> Result<Action, ProtocolError> {
        self.sent_by_peer(sender)?;
        self.sent_to_us(target)?;
        Ok(Action::Sync {
            document,
            is_request,
            data,
        })
    }

    fn sent_by_peer(&self, sender: &PeerId) -> Result<(), ProtocolError> {
        (*sender == self.peer)
            .then_some(())
            .ok_or(ProtocolError::WrongSender)
    }

    fn sent_to_us(&self, target: &PeerId) -> Result<(), ProtocolError> {
        (*target == self.server)
            .then_some(())
            .ok_or(ProtocolError::WrongTarget)
    }
}
