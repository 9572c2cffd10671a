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

/// Answers that one session may have out of a snapshot. Each reads a document's stored bytes, or loads
/// them to take single changes out; honest peers need one or two, when they are behind a compaction.
pub const MAX_SNAPSHOT_READS_PER_SESSION: u32 = 32;

/// The peer made more work than an honest one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooDemanding {
    /// Comparisons from scratch.
    #[error("peer reset its sync state more than {MAX_RESETS_PER_SESSION} times")]
    Resets,
    /// Comparisons with its filters.
    #[error("peer left it open too long what it holds")]
    Comparisons,
    /// Old changes.
    #[error("peer asked for old changes more than {MAX_SNAPSHOT_READS_PER_SESSION} times")]
    SnapshotReads,
}

/// What a message should carry; the document turns it into bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Whether the peer reads V2 messages (one blob of chunks, whole documents).
    pub v2: bool,
    /// Whether the peer is told not to send changes, since none are taken.
    pub read_only: bool,
    /// Whether the peer is told to send anew what it has sent before.
    pub reset: bool,
    /// Changes below this index are visible as of this message.
    pub to: Index,
    /// Changes we miss and believe the peer has.
    pub need: Vec<ChangeHash>,
    /// What we have.
    pub have: Haves,
    /// What the peer gets.
    pub changes: Changes,
}

/// What a message says that we have, by which the peer finds what we lack.
#[derive(Debug, Clone, PartialEq)]
pub enum Haves {
    /// The common one, which depends on the message's heads alone: they as `last_sync`, and nothing
    /// beyond them.
    Heads,
    /// These heads as `last_sync`, and a filter over what lies beyond them.
    Filter(Have),
    /// None: the peer sends only what we need by hash.
    Withheld,
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
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Session {
    /// The peer has sent its first message.
    met: bool,
    /// It is spoken to before it has.
    is_begun: bool,
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
    /// A filter was made since the peer last spoke.
    filtered: bool,
    v2: bool,
    peer_read_only: bool,
    /// Nothing is taken from the peer.
    read_only: bool,
    /// What the peer sent may have been dropped: it has to send it again.
    owes_reset: bool,
    resets: u32,
    compared: usize,
    snapshot_reads: u32,
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

    /// The peer's changes are dropped from now on, and it is told not to send any; or they are taken again, and it is
    /// told to send what was dropped. As `automerge::sync::State::set_read_only`.
    pub fn set_read_only(&mut self, read_only: bool) {
        if self.read_only == read_only {
            return;
        }
        self.read_only = read_only;
        self.owes_reset = !read_only;
        // The first message says it all by itself.
        self.owes_reply |= self.met;
    }

    /// The peer is told of the document without having asked for it on this session: it asked once, and was told that
    /// it is not there. What it then said, and what it was sent before, may be lost.
    pub fn begin(&mut self) {
        self.owes_reply = true;
        self.owes_reset = true;
        self.is_begun = true;
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
    ) -> Result<(), TooDemanding> {
        let mut reset = false;
        self.filtered = false;
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
                return Err(TooDemanding::Resets);
            }
        }
        if reset || !self.met || self.unsure_above.is_some() {
            let compared = self.compare(graph, message, &held);
            if self.met {
                self.compared = self.compared.saturating_add(compared);
            }
            if self.compared > MAX_COMPARED_PER_SESSION {
                return Err(TooDemanding::Comparisons);
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
        if !self.met {
            // Nothing is said of a document that is not there yet.
            let is_due = to > 0 && std::mem::take(&mut self.is_begun);
            return is_due.then(|| self.greeting(to));
        }
        if self.announced == Some(to) && !self.owes_reply && !self.lacks_some(to) {
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
            read_only: self.read_only,
            reset: std::mem::take(&mut self.owes_reset),
            to,
            need: self.our_need.clone(),
            have: self.haves(graph),
            changes,
        })
    }

    /// Tells a peer that has not spoken what is here, so that it says what it has.
    fn greeting(&mut self, to: Index) -> Outgoing {
        self.owes_reply = false;
        Outgoing {
            v2: false,
            read_only: self.read_only,
            reset: std::mem::take(&mut self.owes_reset),
            to,
            need: Vec::new(),
            have: Haves::Withheld,
            changes: Changes::Nothing,
        }
    }

    /// Before the document was open the peer, which had nothing, was sent every change below `to`.
    pub fn was_sent_up_to(&mut self, to: Index) {
        self.upto = to;
        self.gaps.clear();
        self.announced = Some(to);
        self.owes_reply = false;
    }

    /// The last message was too long for these changes, in index order: they come with the next.
    pub fn was_not_sent(&mut self, unsent: Vec<Index>) {
        self.gaps.extend(unsent);
        self.gaps.sort_unstable();
        self.gaps.dedup();
    }

    /// A message took reading the stored snapshot.
    pub fn read_snapshot(&mut self) -> Result<(), TooDemanding> {
        self.snapshot_reads += 1;
        if self.snapshot_reads > MAX_SNAPSHOT_READS_PER_SESSION {
            return Err(TooDemanding::SnapshotReads);
        }
        Ok(())
    }

    /// Bytes of memory held, roughly.
    pub fn memory(&self) -> usize {
        let hashes =
            self.acknowledged.capacity() + self.our_need.capacity() + self.asked.capacity();
        let indexes = self.gaps.capacity() + self.their_need.capacity() + self.extra.capacity() * 2;
        size_of::<Self>() + hashes * size_of::<ChangeHash>() + indexes * size_of::<Index>()
    }

    /// Whether the peer would take changes that it lacks, or asked for some.
    fn lacks_some(&self, to: Index) -> bool {
        let lacks = self.upto < to || !self.gaps.is_empty() || !self.their_need.is_empty();
        lacks && !self.peer_read_only
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

    /// What we say that we have. Only while a filter of the peer's leaves doubt on what it holds does it
    /// take one of ours: over all that the peer does not surely hold, which may be the history, so it is
    /// made once for each message of the peer's, and counted.
    fn haves(&mut self, graph: &Graph) -> Haves {
        let Some(surely) = &self.unsure_above else {
            return self.haves_when_sure(graph);
        };
        if self.filtered {
            return Haves::Withheld;
        }
        self.filtered = true;
        let last_sync = visible_of(graph, surely);
        let rest = graph.visible_not_below(&find_all(graph, &last_sync));
        self.compared = self.compared.saturating_add(rest.len());
        let hashes: Vec<ChangeHash> = rest
            .iter()
            .filter_map(|i| graph.hash(*i).copied())
            .collect();
        Haves::Filter(Have {
            last_sync,
            bloom: BloomFilter::from_hashes(hashes.iter()),
        })
    }

    /// A peer that ignores changes stays where it is, and would reset at heads that it lacks: it is told
    /// of its own.
    fn haves_when_sure(&self, graph: &Graph) -> Haves {
        if !self.peer_read_only {
            return Haves::Heads;
        }
        let last_sync = visible_of(graph, &self.acknowledged);
        if last_sync.is_empty() {
            // A filter over nothing above nothing would ask it to reset.
            return Haves::Withheld;
        }
        Haves::Filter(Have {
            last_sync,
            bloom: BloomFilter::default(),
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

/// Those of `hashes` that are visible, sorted.
fn visible_of(graph: &Graph, hashes: &[ChangeHash]) -> Vec<ChangeHash> {
    let is_visible = |hash: &&ChangeHash| graph.find(hash).is_some_and(|i| i < graph.visible());
    let mut visible: Vec<ChangeHash> = hashes.iter().filter(is_visible).copied().collect();
    visible.sort_unstable();
    visible
}

fn find_all(graph: &Graph, hashes: &[ChangeHash]) -> Vec<Index> {
    hashes.iter().filter_map(|hash| graph.find(hash)).collect()
}
