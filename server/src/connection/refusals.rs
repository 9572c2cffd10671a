//! The last refusals, for whoever looks: operators, and people who wonder why a change does not arrive.
//!
//! Clients decide how many there are and, within limits, how long: the ring is bounded in entries and each entry in
//! bytes. What is refused again (a stock client sends the same change every 5 s, for ever) is one entry with a count,
//! and nobody has more than a part of the ring, so that one who is refused much does not hide the others.
//!
//! Pure: the time is an argument.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use automerge::ChangeHash;
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, PeerId, PrincipalId};

use super::backoff::Who;
use crate::document::ConnectionId;

/// Refusals that are remembered, per server, at 1.5 KiB each at most.
pub const MOST_REFUSALS: usize = 200;

/// Of these, refusals of one principal (see [`Who`]).
pub const MOST_REFUSALS_OF_ONE: usize = 50;

/// Bytes of a reason that are remembered; a reason can quote what a client sent.
pub const REASON_BYTES: usize = 512;

/// See the module's docs. One for all connections.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<VecDeque<Refusal>>);

/// Something that was refused, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    who: Who,
    /// When it was refused first, in milliseconds since 1970.
    pub first_ms: u64,
    /// And last.
    pub last_ms: u64,
    /// How often.
    pub times: u64,
    /// As the peer was told.
    pub code: ErrorCode,
    /// What it was for.
    pub document: Option<DocumentId>,
    /// The change; a chunk that can't be read has none.
    pub hash: Option<ChangeHash>,
    /// Who sent it last, on which connection and from where.
    pub sender: Sender,
    /// What is wrong with it, cut.
    pub reason: String,
}

/// Who sent something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// On this connection.
    pub connection: ConnectionId,
    /// By the name that it gave itself, if it has joined.
    pub peer: Option<PeerId>,
    /// As this principal.
    pub principal: PrincipalId,
    /// From here.
    pub address: IpAddr,
}

/// What is refused now.
#[derive(Debug, Clone)]
pub struct New<'a> {
    /// Who is counted together.
    pub who: &'a Who,
    /// Who sent it.
    pub sender: Sender,
    /// As the peer is told.
    pub code: ErrorCode,
    /// What it was for.
    pub document: Option<&'a DocumentId>,
    /// The change, if it is one.
    pub hash: Option<&'a ChangeHash>,
    /// What is wrong with it.
    pub reason: String,
}

impl Refusals {
    /// Remembers a refusal.
    pub fn record(&self, new: New<'_>, now_ms: u64) {
        let New {
            who,
            sender,
            code,
            document,
            hash,
            mut reason,
        } = new;
        reason.truncate(reason.floor_char_boundary(REASON_BYTES));
        reason.shrink_to_fit();
        let mut ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |old: &Refusal| {
            (old.code, &old.who) == (code, who)
                && (old.document.as_ref(), old.hash.as_ref()) == (document, hash)
        };
        let again = ring.iter().position(is_same);
        let (first_ms, times) = match again.and_then(|at| ring.remove(at)) {
            Some(old) => (old.first_ms, old.times.saturating_add(1)),
            None => (now_ms, 1),
        };
        let of_this_one = ring.iter().filter(|old| &old.who == who).count();
        if of_this_one >= MOST_REFUSALS_OF_ONE {
            let oldest = ring.iter().position(|old| &old.who == who);
            oldest.and_then(|at| ring.remove(at));
        } else if ring.len() >= MOST_REFUSALS {
            ring.pop_front();
        }
        ring.push_back(Refusal {
            who: who.clone(),
            first_ms,
            last_ms: now_ms,
            times,
            code,
            document: document.cloned(),
            hash: hash.copied(),
            sender,
            reason,
        });
    }

    /// Those that are remembered, of one document or of all; the last one first.
    pub fn last(&self, document: Option<&DocumentId>) -> Vec<Refusal> {
        let ring = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted =
            |refusal: &&Refusal| document.is_none() || refusal.document.as_ref() == document;
        ring.iter().rev().filter(wanted).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(refusals: &Refusals, address: [u8; 4], document: &str, reason: &str, now_ms: u64) {
        let (principal, address) = (PrincipalId::anonymous(), address.into());
        let document = DocumentId::new(document).unwrap();
        let new = New {
            who: &Who::new(&principal, address),
            sender: Sender {
                connection: ConnectionId(now_ms),
                peer: None,
                principal,
                address,
            },
            code: ErrorCode::SeqNotNext,
            document: Some(&document),
            hash: None,
            reason: reason.to_owned(),
        };
        refusals.record(new, now_ms);
    }

    #[test]
    fn what_is_refused_again_is_one_entry_and_the_last() {
        let refusals = Refusals::default();
        refuse(&refusals, [192, 0, 2, 1], "one", "then", 1);
        refuse(&refusals, [192, 0, 2, 1], "other", "", 2);
        refuse(&refusals, [192, 0, 2, 2], "one", "", 3);
        refuse(&refusals, [192, 0, 2, 1], "one", "now", 4);
        let last = refusals.last(None);
        let seen = last
            .iter()
            .map(|one| (one.first_ms, one.last_ms, one.times));
        assert_eq!(seen.collect::<Vec<_>>(), [(1, 4, 2), (3, 3, 1), (2, 2, 1)]);
        assert_eq!(
            (last[0].reason.as_str(), last[0].sender.connection.0),
            ("now", 4)
        );
        let of_one = refusals.last(Some(&DocumentId::new("one").unwrap()));
        assert_eq!(of_one.len(), 2);
    }

    #[test]
    fn one_who_is_refused_much_does_not_hide_the_others() {
        let refusals = Refusals::default();
        refuse(&refusals, [192, 0, 2, 1], "quiet", "", 0);
        for n in 1..1000 {
            refuse(&refusals, [192, 0, 2, 2], &format!("loud{n}"), "", n);
        }
        let last = refusals.last(None);
        assert_eq!(last.len(), MOST_REFUSALS_OF_ONE + 1);
        assert_eq!(last[0].last_ms, 999);
        assert_eq!(last[MOST_REFUSALS_OF_ONE].last_ms, 0);
    }

    #[test]
    fn the_ring_is_bounded_and_so_is_what_is_in_it() {
        let refusals = Refusals::default();
        let reason = "ü".repeat(REASON_BYTES);
        for n in 0..1000_u64 {
            let [.., high, low] = n.to_be_bytes();
            refuse(&refusals, [10, 0, high, low], "same", &reason, n);
        }
        let last = refusals.last(None);
        assert_eq!(last.len(), MOST_REFUSALS);
        assert!(last.iter().all(|one| one.reason.len() == REASON_BYTES));
        assert_eq!(last.last().unwrap().last_ms, 800);
    }
}
