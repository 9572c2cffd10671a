//! Concord server.

pub mod store;
