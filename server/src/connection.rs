//! Connections: one WebSocket each, from its first byte to its close.
//!
//! [`phase`] is the protocol as a pure state machine: what a message means in the phase the connection
//! is in. [`decode`] turns a sync message into parsed changes, within limits and off the async threads
//! where that takes long. [`outbox`] is the bounded queue between documents and the socket. [`socket`]
//! has the two tasks that do the IO, [`patience`] how long they wait, and [`peers`] knows which peer is
//! on which connection. [`caller`] is who is there, with what becomes of a refusal, and [`backoff`] how long
//! who is refused changes again and again has to wait before joining anew; [`refusals`] are the last ones, to be
//! looked at.

pub mod backoff;
pub mod caller;
pub mod decode;
pub mod lobby;
pub mod outbox;
pub mod own;
pub mod patience;
pub mod peers;
pub mod phase;
pub mod refusals;
pub mod socket;

use automerge::ChangeHash;
use concord_shared::code::ErrorCode;
use concord_shared::ids::DocumentId;
use tracing::debug;

use caller::{Caller, Refused};

/// How a connection ends, as the peer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    /// The stable code; its text is the close frame's reason, and starts the `error` message.
    pub code: ErrorCode,
    /// For people, in the `error` message. Says nothing about the inside of the server.
    pub detail: String,
    /// For the log: what the message that was refused was for.
    pub document: Option<DocumentId>,
    /// For the log: the change that was refused, if it is one and its hash is known.
    pub hash: Option<ChangeHash>,
    /// Who ends the connection has counted and logged it: a document, which knows more than the peer
    /// is told.
    pub is_recorded: bool,
}

impl Goodbye {
    /// An end for a reason that the code alone explains.
    pub fn new(code: ErrorCode) -> Self {
        Self {
            code,
            detail: String::new(),
            document: None,
            hash: None,
            is_recorded: false,
        }
    }

    /// Whether the peer did something wrong, or asked too much: it is told so in an `error` message.
    pub fn is_a_refusal(&self) -> bool {
        !matches!(
            self.code,
            ErrorCode::Closed
                | ErrorCode::ShuttingDown
                | ErrorCode::Replaced
                | ErrorCode::TokenExpired
        )
    }

    /// Counts it and logs it, if it is a refusal. [`outbox`] does so for the one that wins.
    fn record(&self, caller: &Caller) {
        if self.is_a_refusal() && !self.is_recorded {
            caller.refused(Refused {
                code: self.code,
                document: self.document.as_ref(),
                hash: self.hash.as_ref(),
                reason: &self.detail,
            });
        } else {
            let (connection, code) = (caller.connection().0, self.code.as_str());
            debug!(connection, code, detail = self.detail, "connection ends");
        }
    }

    /// The WebSocket close code: a registered one where it says what happened, else one of 4000–4999,
    /// which the protocol leaves to applications.
    pub fn close_code(&self) -> u16 {
        match self.code {
            ErrorCode::Closed => 1000,
            ErrorCode::ShuttingDown => 1001,
            ErrorCode::TextFrame => 1003,
            ErrorCode::FrameTooLarge => 1009,
            ErrorCode::Internal | ErrorCode::StorageFailed => 1011,
            ErrorCode::TokenExpired => 4401,
            ErrorCode::Forbidden => 4403,
            ErrorCode::Timeout => 4408,
            ErrorCode::Replaced => 4409,
            ErrorCode::Overloaded
            | ErrorCode::TooManyDocuments
            | ErrorCode::BackOff
            | ErrorCode::RateLimited
            | ErrorCode::OverQuota => 4429,
            code if code.is_about_a_change() => 4422,
            _ => 4400,
        }
    }

    /// Text of the `error` message: code, then detail.
    pub fn message(&self) -> String {
        if self.detail.is_empty() {
            self.code.as_str().to_owned()
        } else {
            format!("{}: {}", self.code.as_str(), self.detail)
        }
    }
}
