//! One peer's side of the Automerge sync protocol, run over the change graph alone.
//!
//! `automerge::sync` keeps, per peer, the set of hashes sent and finds what to send by filtering the
//! document's history. Here the graph's order of admission does that work: nearly always a peer holds
//! every visible change below some index, so what it lacks is a suffix of the log and what it is sent
//! is the same bytes for every peer that stands there ([`Changes::Since`]). Only a first meeting (or a
//! reset) compares heads and, where the peer has changes unknown here, bloom filters.
//!
//! Three properties of the transport and protocol carry this (FACTS of the protocol are in PROTOCOL.md):
//! delivery on a connection is ordered and lossless, so what was sent counts as held by the time the
//! peer reads the next message; having a change means having its ancestors; and a peer that does lack
//! what we believed it had says so, by a reset or by `need`, and is then brought up to date from what
//! it surely has. For the same reason our `have` names our own heads as `last_sync` with an empty
//! filter: whatever the message brings is applied before the `have` is read, so no message grows with
//! the document's history.
//!
//! Calls, in order: [`Session::received`] for each message after its changes went through admission,
//! then [`Session::next`] whenever the graph or the session may have changed, until it gives `None`.

use automerge::ChangeHash;
use automerge::sync::{BloomFilter, Have, Message, MessageFlags};
use rustc_hash::FxHashSet;

use super::graph::{Graph, Index};

/// Resets one session may ask for. Honest peers need one, after losing data; each costs a walk over
/// the history, which a hostile peer must not be able to order without end.
pub const MAX_RESETS_PER_SESSION: u32 = 32;

/// Changes that one session may have held against the peer's bloom filters after the first meeting,
/// in all: some seconds of work. While a peer claims heads that are unknown here, each of its messages
/// is compared anew, with all that it does not surely hold; honest ones clear the doubt up within a
/// few messages, and one of 50 bytes could otherwise order a walk over the history each time.
pub const MAX_COMPARED_PER_SESSION: usize = 4 << 20;

/// The peer asked for a full comparison too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "peer reset its sync state more than {MAX_RESETS_PER_SESSION} times, or left it open too long \
     what it holds"
)]
pub struct TooManyResets;

/// What a message should carry; the document turns it into bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Whether the peer reads V2 messages (one blob of chunks, whole documents).
    pub v2: bool,
    /// Changes below this index are visible as of this message.
    pub to: Index,
    /// Changes we miss and believe the peer has.
    pub need: Vec<ChangeHash>,
    /// What we have; `None` for the common one that depends on `to` alone: our heads as `last_sync`,
    /// nothing beyond them.
    pub have: Option<Have>,
    /// What the peer gets.
    pub changes: Changes,
}

/// Which changes a message carries; indexes are in order, so deps come before dependents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// None.
    Nothing,
    /// All from this index up to [`Outgoing::to`]. The same bytes for every peer at this index.
    Since(Index),
    /// Just these.
    Picked(Vec<Index>),
}

/// State of synchronisation with one peer over one connection.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four independent facts")]
pub struct Session {
    /// The peer has sent its first message.
    met: bool,
    /// The peer holds every visible change below this index, except for `gaps`.
    upto: Index,
    /// Changes below `upto` that the peer is known to lack, in order.
    gaps: Vec<Index>,
    /// Changes at or above `upto` that the peer holds, because it sent them.
    extra: FxHashSet<Index>,
    /// Set while it rests on a bloom filter what the peer holds: the heads of what it holds surely.
    unsure_above: Option<Vec<ChangeHash>>,
    /// The peer's latest heads, as far as they are known here.
    acknowledged: Vec<ChangeHash>,
    /// Changes the peer asked for by hash.
    their_need: Vec<Index>,
    /// What we shall ask for with the next message, and what we asked for with the last.
    our_need: Vec<ChangeHash>,
    asked: Vec<ChangeHash>,
    /// `Graph::visible` when we last told the peer our heads.
    announced: Option<Index>,
    owes_reply: bool,
    v2: bool,
    peer_read_only: bool,
    resets: u32,
    compared: usize,
}

impl Session {
    /// A session with a peer that has not spoken yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The peer's latest heads, as far as they are known here.
    pub fn acknowledged(&self) -> &[ChangeHash] {
        &self.acknowledged
    }

    /// Whether the peer holds, or was sent, every change that is visible.
    pub fn is_up_to_date(&self, graph: &Graph) -> bool {
        self.met && self.announced == Some(graph.visible()) && self.gaps.is_empty()
    }

    /// Takes in what a message says about the peer. Its changes have been through admission already;
    /// `our_need` are hashes that we miss for the peer's heads, `repeated` is true when it brought
    /// changes and all were known.
    pub fn received(
        &mut self,
        graph: &Graph,
        message: &Message,
        our_need: Vec<ChangeHash>,
        repeated: bool,
    ) -> Result<(), TooManyResets> {
        let mut reset = false;
        if let Some(flags) = message.flags {
            self.v2 = true;
            self.peer_read_only = flags.contains(MessageFlags::READ_ONLY);
            reset = flags.contains(MessageFlags::SYNC_RESET);
        }
        let held: Vec<Index> = find_all(graph, &message.heads);
        // As `automerge::sync` does: a peer without heads has lost everything, and a peer that was
        // told of a `last_sync` it lacks answers with an empty filter over nothing.
        reset |= message.heads.is_empty() && self.upto > 0;
        reset |= !message.heads.is_empty() && is_blank(&message.have);
        if reset && self.met {
            self.resets += 1;
            if self.resets > MAX_RESETS_PER_SESSION {
                return Err(TooManyResets);
            }
        }
        if reset || !self.met || self.unsure_above.is_some() {
            let compared = self.compare(graph, message, &held);
            if self.met {
                self.compared = self.compared.saturating_add(compared);
            }
            if self.compared > MAX_COMPARED_PER_SESSION {
                return Err(TooManyResets);
            }
            self.owes_reply |= reset || !self.met;
            self.met = true;
        } else {
            self.note_held(graph, &held);
        }
        self.acknowledged = message
            .heads
            .iter()
            .filter(|head| graph.contains(head))
            .copied()
            .collect();
        let needed = find_all(graph, &message.need).into_iter();
        self.their_need = needed.filter(|index| *index < graph.visible()).collect();
        self.owes_reply |= repeated || (!our_need.is_empty() && our_need != self.asked);
        self.our_need = our_need;
        Ok(())
    }

    /// The next message for this peer, if there is anything to say. What it carries counts as sent:
    /// the caller delivers it before any later one, or ends the session.
    pub fn next(&mut self, graph: &Graph) -> Option<Outgoing> {
        let to = graph.visible();
        if !self.met || (self.announced == Some(to) && !self.owes_reply && !self.has_requests()) {
            return None;
        }
        let changes = if self.peer_read_only {
            self.their_need.clear();
            Changes::Nothing
        } else {
            self.take_changes(to)
        };
        self.announced = Some(to);
        self.owes_reply = false;
        self.asked.clone_from(&self.our_need);
        Some(Outgoing {
            v2: self.v2,
            to,
            need: self.our_need.clone(),
            have: self.have(graph),
            changes,
        })
    }

    /// Before the document was open the peer was sent every change below `to`, all there are.
    pub fn was_sent_all(&mut self, to: Index) {
        self.upto = to;
        self.gaps.clear();
        self.announced = Some(to);
        self.owes_reply = false;
    }

    fn has_requests(&self) -> bool {
        !self.peer_read_only && (!self.gaps.is_empty() || !self.their_need.is_empty())
    }

    /// What the peer lacks, now counted as held.
    fn take_changes(&mut self, to: Index) -> Changes {
        let from = self.upto;
        self.upto = to;
        if self.gaps.is_empty() && self.their_need.is_empty() && self.extra.is_empty() {
            return if from < to {
                Changes::Since(from)
            } else {
                Changes::Nothing
            };
        }
        let mut picked = std::mem::take(&mut self.gaps);
        picked.append(&mut self.their_need);
        picked.extend((from..to).filter(|index| !self.extra.contains(index)));
        self.extra.retain(|index| *index >= to);
        picked.sort_unstable();
        picked.dedup();
        if picked.is_empty() {
            Changes::Nothing
        } else {
            Changes::Picked(picked)
        }
    }

    /// Our `have`: the heads of what the peer surely holds once it has read this message, and a filter
    /// over the rest, which is empty unless the peer ignores changes or a filter of its own left doubt.
    fn have(&self, graph: &Graph) -> Option<Have> {
        let surely = match &self.unsure_above {
            Some(surely) => surely,
            None if self.peer_read_only => &self.acknowledged,
            None => return None,
        };
        let mut last_sync: Vec<ChangeHash> = surely
            .iter()
            .filter(|hash| graph.find(hash).is_some_and(|i| i < graph.visible()))
            .copied()
            .collect();
        last_sync.sort_unstable();
        let rest = graph.visible_not_below(&find_all(graph, &last_sync));
        let hashes: Vec<ChangeHash> = rest
            .iter()
            .filter_map(|i| graph.hash(*i).copied())
            .collect();
        Some(Have {
            last_sync,
            bloom: BloomFilter::from_hashes(hashes.iter()),
        })
    }

    /// Works out from scratch what the peer holds. Gives how many changes a filter had to tell of.
    fn compare(&mut self, graph: &Graph, message: &Message, held: &[Index]) -> usize {
        self.extra.clear();
        self.gaps.clear();
        self.unsure_above = None;
        self.upto = graph.visible();
        if held.len() == message.heads.len() {
            // Exactly its heads and what is below them.
            if held.is_empty() {
                self.upto = 0;
            } else {
                self.gaps = graph.visible_not_below(held);
                self.note_held(graph, held);
            }
            return 0;
        }
        // It has changes that we lack, so its filter has to tell which of ours it has.
        let last_syncs: Vec<ChangeHash> = message
            .have
            .iter()
            .flat_map(|have| have.last_sync.iter().copied())
            .collect();
        let mut roots = find_all(graph, &last_syncs);
        let filters_apply = roots.len() == last_syncs.len();
        roots.extend_from_slice(held);
        let unsure = graph.visible_not_below(&roots);
        self.note_held(graph, &roots);
        if message.have.is_empty() {
            // It withholds them until it has what it needs: nothing can be said about the rest.
        } else if filters_apply {
            self.gaps = surely_missing(graph, &message.have, &unsure);
        } else {
            self.gaps.clone_from(&unsure);
        }
        if self.gaps.len() < unsure.len() {
            self.unsure_above = Some(
                roots
                    .iter()
                    .filter_map(|i| graph.hash(*i).copied())
                    .collect(),
            );
        }
        unsure.len()
    }

    /// The peer holds these changes and what is below them.
    fn note_held(&mut self, graph: &Graph, held: &[Index]) {
        let mut stack: Vec<Index> = held.to_vec();
        while let Some(index) = stack.pop() {
            if index >= self.upto && self.extra.insert(index) {
                stack.extend_from_slice(graph.deps(index));
            }
        }
    }
}

/// Those of `unsure` that no filter claims, and what builds on them (a peer can't have a change
/// without its deps). A filter has false positives, never false negatives.
fn surely_missing(graph: &Graph, have: &[Have], unsure: &[Index]) -> Vec<Index> {
    let mut missing = FxHashSet::default();
    unsure
        .iter()
        .copied()
        .filter(|index| {
            let claimed = graph
                .hash(*index)
                .is_some_and(|hash| have.iter().any(|have| have.bloom.contains_hash(hash)));
            let lacks = !claimed || graph.deps(*index).iter().any(|dep| missing.contains(dep));
            if lacks {
                missing.insert(*index);
            }
            lacks
        })
        .collect()
}

/// The shape of `automerge::sync`'s reset: one `have` that claims nothing.
fn is_blank(have: &[Have]) -> bool {
    matches!(have, [have] if have.last_sync.is_empty() && have.bloom == BloomFilter::default())
}

fn find_all(graph: &Graph, hashes: &[ChangeHash]) -> Vec<Index> {
    hashes.iter().filter_map(|hash| graph.find(hash)).collect()
}
