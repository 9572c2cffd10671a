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

impl Message {
    /// The message's `type` on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Join { .. } => "join",
            Self::Peer { .. } => "peer",
            Self::Request { .. } => "request",
            Self::Sync { .. } => "sync",
            Self::DocUnavailable { .. } => "doc-unavailable",
            Self::Ephemeral { .. } => "ephemeral",
            Self::RemoteSubscriptionChange { .. } => "remote-subscription-change",
            Self::RemoteHeadsChanged { .. } => "remote-heads-changed",
            Self::Error { .. } => "error",
            Self::Leave { .. } => "leave",
        }
    }
}
