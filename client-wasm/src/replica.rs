//! A document that its owner edits freely and that catches up with a server whenever there is one.
//!
//! - [`document`]: the replica itself, Automerge's document and sync state with one server.
//! - [`intake`]: what is judged of changes before Automerge sees them.
//! - [`session`]: the connection's handshake and its frames, shared by all replicas of one connection.
//! - [`backoff`]: how long to wait before connecting again.
//! - [`undo`]: taking back one's own changes.

pub mod backoff;
pub mod document;
pub mod intake;
mod receive;
pub mod session;
pub mod undo;

pub use backoff::Backoff;
pub use document::{Replica, ReplicaError};
pub use session::{Incoming, Joining, Open, SessionError};
pub use undo::{UndoError, UndoStack};
