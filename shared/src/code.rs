//! The codes a peer can be told.
//!
//! One list for the whole system, so that a client can match on them and an operator can count by
//! them. The text of a code never changes once released; new codes may be added.

use std::fmt;

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal,)*) => {
        /// Why a message or a change was refused, or a connection closed: stable kebab-case text.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[doc = $doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code, for metrics and documentation.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The code as it is told, logged and counted.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $text,)*
                }
            }

            /// What it means, for documentation.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => concat!($($doc),*).trim_ascii_start(),)*
                }
            }
        }
    };
}

codes! {
    // The frame.
    /// Not a CBOR map of the protocol, or not the whole frame.
    BadFrame = "bad-frame",
    /// The frame is larger than the limit.
    FrameTooLarge = "frame-too-large",
    /// A text frame where only binary ones are spoken.
    TextFrame = "text-frame",
    /// A message type that protocol "1" does not have.
    UnknownMessage = "unknown-message",
    /// A message without a field that it must have, or with one of the wrong kind.
    BadField = "bad-field",
    /// An id that is empty or too long.
    BadId = "bad-id",
    /// None of the offered protocol versions is spoken here.
    UnsupportedProtocol = "unsupported-protocol",
    /// A message that this phase of the connection does not allow.
    Protocol = "protocol",

    // The sync message.
    /// Not an Automerge sync message.
    BadSyncMessage = "bad-sync-message",
    /// A sync message with more hashes, haves or chunks than the limit.
    SyncMessageTooLarge = "sync-message-too-large",
    /// A bloom filter with parameters that no Automerge writes.
    BadBloomFilter = "bad-bloom-filter",

    // The chunk.
    /// Not an Automerge chunk, or not a whole one.
    BadChunk = "bad-chunk",
    /// The checksum is not that of the bytes.
    BadChecksum = "bad-checksum",
    /// A chunk type that is not taken from peers.
    UnsupportedChunk = "unsupported-chunk",
    /// A change that Automerge could not read, or would write differently.
    BadChange = "bad-change",
    /// A change with more bytes, deps, actors or text than the limit.
    ChangeTooLarge = "change-too-large",
    /// A change, or a message's changes together, with more ops than the limit.
    TooManyOps = "too-many-ops",
    /// A document chunk that does not load.
    BadDocument = "bad-document",
    /// A document chunk with more changes, ops or bytes than the limit.
    DocumentTooLarge = "document-too-large",

    // What a change's ops say.
    /// An action that no Automerge known here writes.
    UnknownAction = "unknown-action",
    /// A type of value that no Automerge known here writes.
    UnknownValueType = "unknown-value-type",
    /// A value that is not written as Automerge writes it.
    BadValue = "bad-value",
    /// An op that no Automerge writes.
    BadOp = "bad-op",
    /// A text key in a sequence, an element of a map, or any in what is no container.
    KeyMismatch = "key-mismatch",
    /// An object that is not in the document.
    UnknownObject = "unknown-object",
    /// An element that is not in the object.
    UnknownElement = "unknown-element",
    /// A predecessor that is not in the document or not in this place, or none where there must be one.
    BadPred = "bad-pred",
    /// What an op refers to is in the document, but not in the change's past.
    NotInPast = "not-in-past",
    /// An increment of what is no counter.
    NotACounter = "not-a-counter",
    /// A mark without its end, or that ends before it begins, or that is not in a text.
    BadMark = "bad-mark",

    // Admission.
    /// Too many changes wait for deps that nobody sent.
    PendingLimit = "pending-limit",
    /// The change's seq is not the actor's next one.
    SeqNotNext = "seq-not-next",
    /// Another change of this actor has this seq.
    DuplicateSeq = "duplicate-seq",
    /// The change's ops do not come after those of its deps.
    StartOpTooLow = "start-op-too-low",
    /// The change's op ids, and those of others before, leave out more than a document may.
    StartOpTooHigh = "start-op-too-high",
    /// The change does not build on its actor's previous one.
    ForkedActor = "forked-actor",
    /// The change builds on one that was refused.
    BuildsOnRefused = "builds-on-refused",
    /// The document holds as many changes as one may.
    TooManyChanges = "too-many-changes",
    /// The document has as many heads as one may, and the change would be one more.
    TooManyHeads = "too-many-heads",
    /// The document has as many actors as one may, and the change's would be one more.
    TooManyActors = "too-many-actors",
    /// An object that would lie in more others than it may.
    TooDeep = "too-deep",

    // The server.
    /// More storages subscribed to than one connection may.
    TooManySubscriptions = "too-many-subscriptions",
    /// The document could not be read or written.
    StorageFailed = "storage-failed",
    /// Changes of this principal were refused again and again: it may join later.
    BackOff = "back-off",
    /// The principal or address sends too much, or makes too many documents, in too little time: later it may.
    RateLimited = "rate-limited",
    /// What is stored, or has the document open, would be more than the server lets there be.
    OverQuota = "over-quota",
    /// The token by which the connection was opened has expired.
    TokenExpired = "token-expired",
    /// The principal may not do this.
    Forbidden = "forbidden",
    /// More documents open on one connection than the limit, or no memory for one more.
    TooManyDocuments = "too-many-documents",
    /// The peer does not keep up, or asks for too much at once.
    Overloaded = "overloaded",
    /// No join in time, no answer to a ping, or nothing taken of what was written.
    Timeout = "timeout",
    /// The peer closed the connection, or said that it leaves.
    Closed = "closed",
    /// Another connection joined with this peer id.
    Replaced = "replaced",
    /// The server is stopping.
    ShuttingDown = "shutting-down",
    /// A fault of the server, not of the peer.
    Internal = "internal",
}

impl ErrorCode {
    /// Whether a change was refused, by what is in it or where it wants to go.
    pub const fn is_about_a_change(self) -> bool {
        matches!(
            self,
            Self::BadChunk
                | Self::BadChecksum
                | Self::UnsupportedChunk
                | Self::BadChange
                | Self::ChangeTooLarge
                | Self::TooManyOps
                | Self::BadDocument
                | Self::DocumentTooLarge
                | Self::UnknownAction
                | Self::UnknownValueType
                | Self::BadValue
                | Self::BadOp
                | Self::KeyMismatch
                | Self::UnknownObject
                | Self::UnknownElement
                | Self::BadPred
                | Self::NotInPast
                | Self::NotACounter
                | Self::BadMark
                | Self::StartOpTooHigh
                | Self::PendingLimit
                | Self::SeqNotNext
                | Self::DuplicateSeq
                | Self::StartOpTooLow
                | Self::ForkedActor
                | Self::BuildsOnRefused
                | Self::TooManyChanges
                | Self::TooManyHeads
                | Self::TooManyActors
                | Self::TooDeep
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_distinct_kebab_case() {
        let texts: HashSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), ErrorCode::ALL.len());
        for text in texts {
            assert!(
                text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
                "{text}"
            );
        }
    }
}
