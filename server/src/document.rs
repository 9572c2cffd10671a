//! Documents: what is between a connection's decoded message and the store.
//!
//! [`history`] knows which changes exist ([`graph`]) and what their ops made ([`index`]), [`admission`]
//! decides which may, [`sync`] what each peer has and lacks; [`ephemeral`] and [`remote_heads`] know what else
//! it was told. [`actor`] joins them into one pure machine per open document, whose [`append`]s are to be made durable; [`task`] runs it and does its
//! IO; [`registry`] finds, opens and unloads documents, and [`early`] serves joiners meanwhile.
//! [`arrivals`] keeps when changes came. [`assemble`] turns "this peer lacks these changes" into a message's bytes from what the store has, and
//! [`compaction`] makes snapshots. [`judging`] asks of changes that are stored already what admission would say.

pub mod actor;
pub mod admission;
pub mod append;
pub mod arrivals;
mod aside;
pub mod assemble;
pub mod compaction;
pub mod early;
pub mod ephemeral;
pub mod graph;
pub mod history;
pub mod index;
pub mod judging;
pub mod opening;
pub mod past;
pub mod recent;
pub mod registry;
pub mod remote_heads;
pub mod sync;
pub mod task;
#[cfg(test)]
mod tests;

/// A connection, numbered within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

impl ConnectionId {
    /// The document's view, which is no connection, and is told of everything first.
    pub const VIEW: Self = Self(0);
    /// Of the first connection.
    pub const FIRST: u64 = 1;
}

/// A moment, as drivers hand it to pure code.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds on a clock that never goes back; its zero means nothing.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970, for people.
    pub unix_ms: u64,
}
