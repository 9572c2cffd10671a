//! What no single crate of Concord can show: the built server against real clients.
//!
//! [`server_process`] runs the `concord` binary as a user would and kills it as a machine would,
//! [`node`] drives stock automerge-repo clients from npm, [`samod_client`] stock samod clients,
//! [`raw_client`] speaks whatever frames a test wants, and [`interop`] holds what the scenarios share.
//! The tests themselves are in `tests/`.

pub mod interop;
pub mod node;
pub mod raw_client;
pub mod samod_client;
pub mod server_process;
