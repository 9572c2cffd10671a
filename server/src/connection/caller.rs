//! Who is on a connection, and what becomes of a refusal of theirs: counted, logged, remembered, shown.
//!
//! Refusals are found at many places, by a connection's reader or writer and by documents; all come
//! through here, so that each is in the metrics and in the log with the same fields.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use automerge::ChangeHash;
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, PeerId, PrincipalId};
use tracing::field::display;
use tracing::{debug, warn};

use super::backoff::{Backoff, Who};
use super::refusals::{New, Refusals, Sender};
use crate::clock::unix_ms;
use crate::document::ConnectionId;
use crate::limits::account::Account;
use crate::metrics::Metrics;

/// See the module's docs. Shared by a connection's tasks and the documents that it has open.
#[derive(Debug)]
pub struct Caller {
    connection: ConnectionId,
    principal: PrincipalId,
    address: IpAddr,
    who: Who,
    peer: OnceLock<PeerId>,
    account: Arc<Account>,
    backoff: Arc<Backoff>,
    refusals: Arc<Refusals>,
}

/// What was refused, for the operator.
#[derive(Clone, Copy)]
pub struct Refused<'a> {
    /// As the peer is told.
    pub code: ErrorCode,
    /// What the change or message was for.
    pub document: Option<&'a DocumentId>,
    /// The change; a chunk that can't be read has none.
    pub hash: Option<&'a ChangeHash>,
    /// What is wrong with it.
    pub reason: &'a dyn Display,
}

impl Caller {
    /// Whoever is on this connection.
    pub fn new(
        connection: ConnectionId,
        principal: PrincipalId,
        address: IpAddr,
        account: Arc<Account>,
        backoff: Arc<Backoff>,
        refusals: Arc<Refusals>,
    ) -> Self {
        Self {
            connection,
            who: Who::new(&principal, address),
            principal,
            address,
            peer: OnceLock::new(),
            account,
            backoff,
            refusals,
        }
    }

    /// Somebody on this machine, who has been refused nothing: for connections without a socket.
    pub fn local(connection: ConnectionId) -> Self {
        let address = Ipv4Addr::LOCALHOST.into();
        let principal = PrincipalId::anonymous();
        Self::new(
            connection,
            principal,
            address,
            Arc::new(Account::unlimited()),
            Arc::default(),
            Arc::default(),
        )
    }

    /// On which connection.
    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    /// As which principal.
    pub fn principal(&self) -> &PrincipalId {
        &self.principal
    }

    /// What they have had of the server.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The peer has joined, which it can do once.
    pub fn joined(&self, peer: &PeerId) {
        let _once = self.peer.set(peer.clone());
    }

    /// How long whoever this is must wait before joining, if they must.
    pub fn held(&self) -> Option<Duration> {
        self.backoff.held(&self.who, Instant::now())
    }

    /// Counts a refusal, remembers it if it is of a change, and logs it. Whoever is told of it finds all
    /// this done.
    pub fn refused(&self, refused: Refused<'_>) {
        let Refused {
            code,
            document,
            hash,
            reason,
        } = refused;
        Metrics::refused(code);
        self.remember(refused);
        let connection = self.connection.0;
        let document = document.map(display);
        let peer = self.peer.get().map(display);
        let (principal, address) = (&self.principal, self.address);
        let code_text = code.as_str();
        if code.is_about_a_change() {
            let counted = self.backoff.refused(&self.who, Instant::now());
            if counted.is_logged {
                let hash = hash.map_or_else(|| "none".to_owned(), ToString::to_string);
                let (hold_seconds, unlogged) = (counted.hold.as_secs(), counted.unlogged);
                warn!(connection, %principal, %address, peer, document, hash, code = code_text, %reason, hold_seconds, unlogged, "change refused");
            }
        } else if code == ErrorCode::BackOff {
            // The refusal that led to it was logged with how long it lasts, and who is held off can try
            // as often as they like.
            debug!(connection, %principal, %address, code = code_text, %reason, "connection refused");
        } else {
            warn!(connection, %principal, %address, peer, document, code = code_text, %reason, "connection refused");
        }
    }

    fn remember(&self, refused: Refused<'_>) {
        let Refused {
            code,
            document,
            hash,
            reason,
        } = refused;
        let new = New {
            who: &self.who,
            sender: Sender {
                connection: self.connection,
                peer: self.peer.get().cloned(),
                principal: self.principal.clone(),
                address: self.address,
            },
            code,
            document,
            hash,
            reason: reason.to_string(),
        };
        self.refusals.record(new, unix_ms());
    }
}
