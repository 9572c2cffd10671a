//! The Concord client.
//!
//! In this crate a document lives as a [`Replica`]: a whole Automerge document that works offline and,
//! while a [`session`](replica::session) is open, exchanges sync messages with one server. Everything here is
//! pure: no socket, no clock, no randomness, so the same code runs in a browser, in a native tool and in
//! a simulation that replays from a seed. Whoever drives it owns the transport and the timers.
//!
//! The life of one edit: [`Replica::change`] commits it locally, [`Replica::next_message`] turns what the
//! server lacks into one message, and once the server's answer, fed to [`Replica::receive`], names heads
//! that cover it, [`Replica::synced`] says that it is kept.

#[cfg(target_family = "wasm")]
pub mod bindings;
pub mod replica;

pub use replica::{
    Backoff, Incoming, Joining, Open, Replica, ReplicaError, SessionError, UndoError, UndoStack,
};
