//! What the messages hold.

use automerge::ChangeHash;
use bytes::Bytes;

use crate::{DocumentId, PeerId, SessionId, StorageId};

/// One message of the protocol. `sender` and `target` are the wire's `senderId` and `targetId`.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A client's first message.
    Join {
        /// The client.
        sender: PeerId,
        /// What it says about itself.
        metadata: PeerMetadata,
        /// Protocol versions it speaks; "1" where it does not say.
        versions: Vec<String>,
    },
    /// The server's answer to a join.
    Peer {
        /// The server.
        sender: PeerId,
        /// The client.
        target: PeerId,
        /// The version both will speak.
        version: String,
        /// What the server says about itself.
        metadata: PeerMetadata,
    },
    /// "I have nothing of this document; tell me if you have nothing either."
    Request {
        /// The document.
        document: DocumentId,
        /// From.
        sender: PeerId,
        /// To.
        target: PeerId,
        /// An Automerge sync message, never empty.
        data: Bytes,
    },
    /// A step of the sync protocol for a document.
    Sync {
        /// The document.
        document: DocumentId,
        /// From.
        sender: PeerId,
        /// To.
        target: PeerId,
        /// An Automerge sync message, never empty.
        data: Bytes,
    },
    /// "I don't have this document", also where access is denied.
    DocUnavailable {
        /// The document.
        document: DocumentId,
        /// From.
        sender: PeerId,
        /// To.
        target: PeerId,
    },
    /// Something to show and forget: passed on to whoever has the document open.
    Ephemeral {
        /// The document.
        document: DocumentId,
        /// The original author, not necessarily the peer at the other end.
        sender: PeerId,
        /// To.
        target: PeerId,
        /// Grows with each message of a session, for receivers to drop what they have seen.
        count: u64,
        /// The author's session.
        session: SessionId,
        /// The application's value as CBOR, never empty.
        data: Bytes,
    },
    /// Whose stores' heads the sender wants to hear of.
    RemoteSubscriptionChange {
        /// From.
        sender: PeerId,
        /// To.
        target: PeerId,
        /// Stores to follow from now on.
        add: Vec<StorageId>,
        /// Stores to follow no longer.
        remove: Vec<StorageId>,
    },
    /// What other stores have of a document.
    RemoteHeadsChanged {
        /// The document.
        document: DocumentId,
        /// From.
        sender: PeerId,
        /// To.
        target: PeerId,
        /// One entry per store, in the order of the wire.
        new_heads: Vec<RemoteHeads>,
    },
    /// Something is wrong. JavaScript clients log it and stay: close after sending one.
    Error {
        /// What, for people.
        message: String,
        /// From; the JavaScript server sends it, others may not.
        sender: Option<PeerId>,
        /// To; as `sender`.
        target: Option<PeerId>,
    },
    /// The sender goes.
    Leave {
        /// Who.
        sender: PeerId,
    },
}

/// What a peer says about itself when it joins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerMetadata {
    /// The store behind the peer, shared by a browser's tabs.
    pub storage_id: Option<StorageId>,
    /// Whether the store goes with the peer. A peer keeps its sync state for stores that stay.
    pub is_ephemeral: bool,
}

/// What one store has of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteHeads {
    /// The store.
    pub storage_id: StorageId,
    /// Its heads; base58check on the wire.
    pub heads: Vec<ChangeHash>,
    /// When, in milliseconds since 1970 by the reporter's clock. JavaScript's number.
    pub timestamp_ms: f64,
}

/// The types of messages there are. Frames are decoded by [`Kind::ALL`], so none can be left out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`Message::Join`]
    Join,
    /// [`Message::Peer`]
    Peer,
    /// [`Message::Request`]
    Request,
    /// [`Message::Sync`]
    Sync,
    /// [`Message::DocUnavailable`]
    DocUnavailable,
    /// [`Message::Ephemeral`]
    Ephemeral,
    /// [`Message::RemoteSubscriptionChange`]
    RemoteSubscriptionChange,
    /// [`Message::RemoteHeadsChanged`]
    RemoteHeadsChanged,
    /// [`Message::Error`]
    Error,
    /// [`Message::Leave`]
    Leave,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Join,
        Self::Peer,
        Self::Request,
        Self::Sync,
        Self::DocUnavailable,
        Self::Ephemeral,
        Self::RemoteSubscriptionChange,
        Self::RemoteHeadsChanged,
        Self::Error,
        Self::Leave,
    ];

    /// The `type` on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Peer => "peer",
            Self::Request => "request",
            Self::Sync => "sync",
            Self::DocUnavailable => "doc-unavailable",
            Self::Ephemeral => "ephemeral",
            Self::RemoteSubscriptionChange => "remote-subscription-change",
            Self::RemoteHeadsChanged => "remote-heads-changed",
            Self::Error => "error",
            Self::Leave => "leave",
        }
    }

    /// Which has this `type`.
    pub fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl Message {
    /// The message's `type` on the wire.
    pub fn kind(&self) -> &'static str {
        let kind = match self {
            Self::Join { .. } => Kind::Join,
            Self::Peer { .. } => Kind::Peer,
            Self::Request { .. } => Kind::Request,
            Self::Sync { .. } => Kind::Sync,
            Self::DocUnavailable { .. } => Kind::DocUnavailable,
            Self::Ephemeral { .. } => Kind::Ephemeral,
            Self::RemoteSubscriptionChange { .. } => Kind::RemoteSubscriptionChange,
            Self::RemoteHeadsChanged { .. } => Kind::RemoteHeadsChanged,
            Self::Error { .. } => Kind::Error,
            Self::Leave { .. } => Kind::Leave,
        };
        kind.as_str()
    }
}
