//! What a Concord server and its clients agree on.
//!
//! Everything here is pure: no clock, no randomness, no IO, no async runtime; it builds natively and
//! for wasm. What arrives from a peer goes through three decoders, outermost first, each bounded by
//! [`Limits`] *before* it allocates or loops by a number that the peer chose:
//!
//! 1. [`wire::decode`]: one WebSocket frame, a CBOR message of the automerge-repo protocol "1";
//! 2. [`sync::split`] or [`sync::decode`]: the Automerge sync message inside its `data`;
//! 3. [`change::parse_message`]: the change chunks inside that, and [`change::decode_document`] for a
//!    whole document chunk (a first upload), which is work for a blocking thread.
//!
//! Every error keeps its evidence in fields for the operator, and has one [`ErrorCode`] that the
//! peer may be told.

pub mod access;
mod base58check;
pub mod change;
pub mod code;
pub mod ids;
pub mod json;
pub mod limits;
pub mod path;
pub mod reader;
pub mod sync;
pub mod wire;

pub use code::ErrorCode;
pub use ids::{DocumentId, PeerId, PrincipalId, SessionId, StorageId};
pub use limits::Limits;
