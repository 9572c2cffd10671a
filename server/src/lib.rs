//! The Concord server: relays Automerge documents between clients and keeps them in sled.
//!
//! # The life of one change
//!
//! A tab's WebSocket frame reaches its [`connection`]: decoded within limits, allowed by the phase the
//! connection is in, its changes parsed and their hashes computed. The [`document`] judges the change
//! against its change graph and, if it is admitted, hands it to the [`store`]'s committer, which writes
//! and syncs what all documents have waiting as one batch. Only then is the change visible: the
//! document acknowledges it to its author and makes, once, the message that all other tabs get.
//!
//! [`serve`] starts and stops all that, [`listener`] accepts, with [`tls`] if asked to, [`http`] has the routes, [`limits`] says how much
//! of it all one caller may have, [`cli`] has the commands. What documents
//! *contain* is looked at by [`materialise`] and [`replay`] alone, off the hot path.

pub mod access;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connection;
pub mod document;
pub mod erasure;
mod files;
mod hangups;
pub mod http;
pub mod limits;
pub mod listener;
pub mod materialise;
pub mod metrics;
mod object;
mod outgoing;
pub mod permit;
mod plain;
pub mod replay;
pub mod secret;
pub mod serve;
pub mod store;
pub mod tls;
pub mod traffic;
pub mod view;
