//! Turns at what only so many may do at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Goes with the work: back when that is done, whether somebody waits for it or not. Always there, since
/// none is waited for that was closed.
pub type Permit = Option<OwnedSemaphorePermit>;

/// Waits for a turn.
pub async fn turn(of: &Arc<Semaphore>) -> Permit {
    Arc::clone(of).acquire_owned().await.ok()
}
