//! How much there may be of the document, and of documents: looked at before a message's changes are judged, and followed
//! as they are written. See [`crate::limits::ledger`].

use std::sync::Arc;

use concord_shared::code::ErrorCode;

use super::{Link, Pending, Task};
use crate::connection::Goodbye;
use crate::document::ConnectionId;
use crate::document::actor::{Effects, Input, PeerMessage};
use crate::limits::Limited;
use crate::limits::ledger::OverQuota;

/// Why a message's changes are not looked at.
#[derive(Debug, thiserror::Error)]
enum Beyond {
    #[error(transparent)]
    Limited(#[from] Limited),
    #[error(transparent)]
    OverQuota(#[from] OverQuota),
}

impl Beyond {
    fn code(&self) -> ErrorCode {
        match self {
            Self::Limited(_) => ErrorCode::RateLimited,
            Self::OverQuota(_) => ErrorCode::OverQuota,
        }
    }
}

impl Task {
    /// Whether one more may have the document open. The server itself always may.
    pub(super) fn may_enter(&self, connection: ConnectionId, link: &Link) -> Result<(), OverQuota> {
        if connection == ConnectionId::VIEW || self.links.contains_key(&connection) {
            return Ok(());
        }
        // A view is nobody's peer.
        let views = usize::from(self.links.contains_key(&ConnectionId::VIEW));
        let peers = self.links.len() - views;
        // Whoever it is has one account on all connections.
        let caller = link.outbox.caller();
        let is_own = |of: &&Link| Arc::ptr_eq(of.outbox.caller().account(), caller.account());
        let own = || self.links.values().filter(is_own).count();
        let role = link.grant.role();
        self.shared.ledger.may_enter(role, peers, own)
    }

    /// Whether a message's changes may be added, as far as it is about how much there is. If not, its sender is told so,
    /// and cut off: they keep what they wrote.
    pub(super) fn may_add(
        &mut self,
        from: ConnectionId,
        message: &PeerMessage,
        effects: &mut Effects,
    ) -> bool {
        // What comes over HTTP was looked at before it was made: a view can't take back what it has shown.
        if from == ConnectionId::VIEW {
            return true;
        }
        let Err(beyond) = self.add(from, message) else {
            self.has_promised = true;
            return true;
        };
        self.input(Input::Leave(from), effects);
        if let Some(link) = self.links.remove(&from) {
            self.turn_out(&link, beyond.code(), &beyond);
        }
        false
    }

    /// Whether something may be written to the document.
    pub(super) fn room(&self) -> Result<(), OverQuota> {
        if self.document.graph().is_empty() {
            self.shared.ledger.may_begin(&self.bill)
        } else {
            self.shared.ledger.room(&self.bill)
        }
    }

    /// Ends the connection of somebody for whom there is no room, and tells them.
    pub(super) fn turn_out(&self, link: &Link, code: ErrorCode, why: &impl ToString) {
        link.outbox.close(Goodbye {
            document: Some(self.id.clone()),
            detail: why.to_string(),
            ..Goodbye::new(code)
        });
    }

    fn add(&mut self, from: ConnectionId, message: &PeerMessage) -> Result<(), Beyond> {
        let ledger = &self.shared.ledger;
        let changes = message.changes.iter();
        let all: usize = changes.clone().map(|change| change.bytes.len()).sum();
        if self.document.graph().is_empty()
            && let Some(link) = self.links.get(&from)
        {
            link.outbox.caller().account().new_document()?;
            if link.grant.is_unborn()
                && let Some(maker) = link.grant.principal()
            {
                ledger.may_make(maker, all as u64)?;
            }
            ledger.may_begin(&self.bill)?;
        }
        // Clients send again what they are not sure of: that is nothing more, where it matters.
        let graph = self.document.graph();
        let news = changes.filter(|change| graph.find(&change.hash).is_none());
        let news: usize = if ledger.is_near(&self.bill, all as u64) {
            news.map(|change| change.bytes.len()).sum()
        } else {
            all
        };
        Ok(ledger.promise(&mut self.bill, news as u64)?)
    }

    /// From promises to what is written, or on its way.
    pub(super) fn settle_bill(&mut self) {
        self.has_promised = false;
        let on_their_way = self.pending.iter().map(|(_, pending)| match pending {
            Pending::Append { bytes, .. } => *bytes,
            Pending::Upload { snapshot_bytes, .. } => *snapshot_bytes,
            // Of what is there already.
            Pending::Compaction { .. }
            | Pending::Claim(_)
            | Pending::Deletion(..)
            | Pending::Undeletion(_)
            | Pending::List { .. } => 0,
        });
        let on_their_way: u64 = on_their_way.sum();
        self.bill.is(self.sizes.bytes() + on_their_way);
    }
}
