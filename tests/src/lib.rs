//! What no single crate of Concord can show: the built server against real clients, and many
//! replicas in a bad world. The library holds what the tests and benches share; the tests
//! themselves are in `tests/`.
//!
//! [`server_process`] runs the `concord` binary as a user would and kills it as a machine would,
//! [`node`] drives stock automerge-repo clients from npm, [`samod_client`] stock samod clients,
//! [`client`] is Concord's own replica on a socket, and [`raw_client`] sends whatever frames a test
//! wants. [`simulation`] needs no process at all, and [`forge`] not even the server: it makes changes that
//! nobody should take. [`replay`] is for other projects' tests, too: recorded histories, held against any code.
//! [`files`] searches what a server left on the disk.

pub mod bench;
pub mod client;
pub mod files;
pub mod forge;
pub mod issuer;
pub mod node;
pub mod raw_client;
pub mod replay;
pub mod samod_client;
pub mod server_process;
pub mod simulation;

/// A stock HTTP client. The server's crate chooses it without a provider of cryptography, and gives it one where it is
/// used; so must this.
pub fn http_client() -> reqwest::Client {
    let _is_set_already = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::new()
}
