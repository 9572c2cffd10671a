//! Stock JavaScript clients share documents through the built server.
//!
//! What must hold: what users of `@automerge/automerge-repo` do works against `concord` as it is on
//! npm, together and mixed with samod. Each client is a Node process of its own that knows nothing of
//! the test; the server is the built binary on a real socket. A test ends with every client at exactly
//! the heads that the edits made, which nothing but the exchange of all changes can bring about, and
//! mostly with the value written out, so that a wrong merge can't hide behind equal heads.
//!
//! `cargo xtask test` installs what is needed; without it these tests fail, and say so.

mod bad_changes;
mod editing;
mod finding;
mod large;
mod offline;
mod presence;
mod restart;
mod shares;
mod tokens;

use std::time::Duration;

use anyhow::Result;
use concord_tests::server_process::ServerProcess;

/// The heads of a document into which these were merged, each made without knowing of the others.
fn merged(heads: &[&[String]]) -> Vec<String> {
    let mut all: Vec<String> = heads
        .iter()
        .flat_map(|heads| heads.iter().cloned())
        .collect();
    all.sort();
    all.dedup();
    all
}

/// A server with its data in a temporary directory.
fn server() -> Result<ServerProcess> {
    ServerProcess::start()
}

/// Long enough for a message to cross the machine, too short for a client to have retried anything.
const MOMENT: Duration = Duration::from_millis(50);
