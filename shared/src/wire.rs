//! The automerge-repo WebSocket protocol, version "1": one CBOR map per binary frame.
//!
//! The source is the code of the released JavaScript client (npm `@automerge/automerge-repo` and
//! `-network-websocket` 2.5.6); golden frames captured from it are in `tests/golden`. [`decode`] is
//! lenient where clients differ (order of keys, unknown keys, absent or null or undefined, integer
//! or float, tagged or plain bytes) and strict about size. [`Message::encode`] writes definite
//! lengths and float64 timestamps.
//!
//! [`SyncFrame`] is the hot path: the same sync message goes to many peers, whose frames differ only
//! in their header.

mod decode;
mod encode;
mod message;

pub use decode::{WireError, decode};
pub use encode::SyncFrame;
pub use message::{Kind, Message, PeerMetadata, RemoteHeads};

/// The only protocol version there is.
pub const PROTOCOL_VERSION: &str = "1";

#[cfg(test)]
mod tests;
