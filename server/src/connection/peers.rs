//! Which peer is on which connection: one live connection per peer id.
//!
//! A client that reconnects before we notice that its old socket is dead joins with the same peer id.
//! The new connection replaces the old one, else both would sync on the client's one sync state and
//! answer each other without end. Only the same principal may do that, or anyone could evict anyone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use concord_shared::code::ErrorCode;
use concord_shared::ids::{PeerId, PrincipalId};

use super::Goodbye;
use super::outbox::Outbox;
use crate::document::ConnectionId;

/// The peer id is taken by another principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer id is in use")]
pub struct PeerIdInUse;

/// See the module's docs.
#[derive(Debug, Default)]
pub struct Peers {
    live: Mutex<HashMap<PeerId, Live>>,
}

#[derive(Debug)]
struct Live {
    connection: ConnectionId,
    principal: PrincipalId,
    outbox: Arc<Outbox>,
}

impl Peers {
    /// Makes the connection this peer's, and closes the one it had.
    pub fn join(
        &self,
        peer: &PeerId,
        principal: &PrincipalId,
        connection: ConnectionId,
        outbox: &Arc<Outbox>,
    ) -> Result<(), PeerIdInUse> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live
            .get(peer)
            .is_some_and(|holder| holder.principal != *principal)
        {
            return Err(PeerIdInUse);
        }
        let joined = Live {
            connection,
            principal: principal.clone(),
            outbox: Arc::clone(outbox),
        };
        let replaced = live.insert(peer.clone(), joined);
        drop(live);
        if let Some(replaced) = replaced {
            replaced.outbox.abandon(Goodbye::new(ErrorCode::Replaced));
        }
        Ok(())
    }

    /// The connection is gone; the peer may have a newer one already, which stays.
    pub fn leave(&self, peer: &PeerId, connection: ConnectionId) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if live
            .get(peer)
            .is_some_and(|holder| holder.connection == connection)
        {
            live.remove(peer);
        }
    }
}
