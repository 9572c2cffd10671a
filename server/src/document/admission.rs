//! The check at the door: no change enters the graph, the store or another peer before it.
//!
//! Checks run in the order of rising cost. Framing, checksum, caps, and what an op can say at all are
//! behind us when a [`Change`] exists (`concord_shared::change`). Here follow the checks against the
//! [history](super::history). First against the graph: deps known, seq exactly its actor's next and built
//! on the one before, one change per actor and seq, start op above its deps' ([`Graph::admit`]). Then what
//! its ops refer to: [`OpIndex::check`](super::index::OpIndex::check).
//!
//! A change whose deps have not arrived is parked, within bounds, and tried again when they have. One
//! that is refused takes with it whatever was parked waiting for it.

use automerge::ChangeHash;
use concord_shared::change::Change;
use concord_shared::code::ErrorCode;
use concord_shared::ids::PrincipalId;
use rustc_hash::FxHashMap;

use super::ConnectionId;
use super::aside::aside;
use super::graph::{Graph, GraphError};
use super::history::{History, HistoryError};
use super::past::Steps;

/// Most heads that a document may have: replicas that edited at the same time and saw nothing of each
/// other. A change names all heads that its author saw as its deps, so beyond `Limits::deps` nobody could
/// edit the document any more; half of that leaves room for heads that have not come here yet.
pub const MAX_HEADS: usize = 2048;

/// Most actors that a document may have. Each tab that edits is one. Automerge's memory for loading grows
/// with the square of their number: measured, 2.3 GB for 60,000 that made a change each.
pub const MAX_ACTORS: usize = 32_768;

/// Ops that a document may have, by [`Change::work`], and how many more for each byte of its changes. A run of
/// ops is a few bytes to send, but each takes some 30 bytes in the [index](super::index), more in a client, and
/// some 100 ns wherever it is applied. Text has one for each byte or less.
pub const FREE_OPS: u64 = 256 << 10;
/// See [`FREE_OPS`].
pub const OPS_PER_BYTE: u64 = concord_shared::change::WORK_PER_BYTE;

/// How deep objects may lie in each other. A browser's Automerge takes seconds to show 2,000 levels, and runs
/// out of memory at 20,000; programs that walk them by recursion end sooner.
pub const MAX_DEPTH: u32 = 250;

/// What judging the changes of one message may look at in the history, in [`Steps`]: some tenths of a
/// second. It looks at any only for changes that do not build on the heads, and for marks.
pub const MAX_STEPS_PER_MESSAGE: u64 = 64 << 20;

/// What judging one change may look at before it is done [aside]: a millisecond or so.
const SHORT_STEPS: u64 = 1 << 20;

/// Changes of a message that take more memory than this, in bytes, are judged aside altogether, and so are
/// those for which an index is made ready that takes this at rest: milliseconds, too.
const SHORT_BYTES: usize = 256 << 10;

/// Bounds on what may wait for its deps, per document.
#[derive(Debug, Clone, Copy)]
pub struct ParkingLimits {
    /// Most changes parked at once.
    pub changes: usize,
    /// Most bytes of them.
    pub bytes: usize,
}

impl Default for ParkingLimits {
    /// A bloom filter's false positive holds back what was typed since; a few hundred changes is
    /// generous, and a peer over the limit just has to sync again.
    fn default() -> Self {
        Self {
            changes: 4096,
            bytes: 4 << 20,
        }
    }
}

/// Why a change was not admitted. Its sender is told `code` and `hash`; the rest is for the operator.
#[derive(Debug, Clone, thiserror::Error)]
#[error("change {hash} refused: {reason}")]
pub struct Refusal {
    /// The change.
    pub hash: ChangeHash,
    /// What is wrong with it.
    #[source]
    pub reason: RefusalReason,
}

/// What is wrong with a change.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RefusalReason {
    /// It does not fit the history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Too much is waiting for its deps already, most of it of this peer's.
    #[error("too many changes wait for their deps")]
    ParkingFull,
    /// The document has as many heads as it may, and this would be one more.
    #[error(
        "the document has {MAX_HEADS} heads, the most one may have, and the change builds on none"
    )]
    TooManyHeads,
    /// The document has as many actors as it may, and this would be one more.
    #[error("the document has {MAX_ACTORS} actors, the most one may have")]
    TooManyActors,
    /// Too many ops for so few bytes.
    #[error(
        "the document's ops would be more than {FREE_OPS} and {OPS_PER_BYTE} for each byte of its changes"
    )]
    OutOfProportion,
    /// It makes an object in too many others.
    #[error("an object more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// It builds on a change that was refused.
    #[error("builds on refused change {on}")]
    BuildsOnRefused {
        /// That one.
        on: ChangeHash,
    },
}

impl RefusalReason {
    /// The stable code a peer sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::History(error) => error.code(),
            Self::ParkingFull => ErrorCode::PendingLimit,
            Self::TooManyHeads => ErrorCode::TooManyHeads,
            Self::TooManyActors => ErrorCode::TooManyActors,
            Self::OutOfProportion => ErrorCode::TooManyOps,
            Self::TooDeep => ErrorCode::TooDeep,
            Self::BuildsOnRefused { .. } => ErrorCode::BuildsOnRefused,
        }
    }

    /// It may fit once its deps are here.
    pub fn is_missing_deps(&self) -> bool {
        matches!(
            self,
            Self::History(HistoryError::Graph(GraphError::MissingDeps { .. }))
        )
    }
}

impl Refusal {
    /// The stable code a peer sees.
    pub fn code(&self) -> ErrorCode {
        self.reason.code()
    }
}

/// Who brought a change.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Over this connection.
    pub connection: ConnectionId,
    /// As this principal.
    pub principal: PrincipalId,
}

/// What became of the changes of one message.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Admitted, in index order, each with who sent it: the message's own and those parked ones that
    /// it made possible.
    pub admitted: Vec<(PrincipalId, Change)>,
    /// Refused, each with the connection that brought it.
    pub refused: Vec<(ConnectionId, Refusal)>,
    /// How many were here before.
    pub known: usize,
}

#[derive(Debug)]
struct Parked {
    change: Change,
    from: Sender,
}

/// What is parked, in numbers.
#[derive(Debug, Default, Clone, Copy)]
struct Held {
    changes: usize,
    bytes: usize,
}

impl Held {
    fn add(&mut self, change: &Change) {
        self.changes += 1;
        self.bytes += change.memory();
    }

    fn remove(&mut self, change: &Change) {
        self.changes -= 1;
        self.bytes -= change.memory();
    }

    /// How much of the limits this is: greater is more.
    fn share(self, limits: ParkingLimits) -> u128 {
        let changes = self.changes as u128 * limits.bytes as u128;
        changes.max(self.bytes as u128 * limits.changes as u128)
    }

    /// Whether the change fits beside this.
    fn has_room(self, change: &Change, limits: ParkingLimits) -> bool {
        self.changes < limits.changes && self.bytes + change.memory() <= limits.bytes
    }
}

/// The steps for a message's changes, and for those of others that it lets in: they are not to be refused
/// because the message took too many.
#[derive(Debug)]
struct Allowed {
    connection: ConnectionId,
    steps: Steps,
    others: FxHashMap<ConnectionId, Steps>,
}

impl Allowed {
    fn of(&mut self, connection: ConnectionId) -> &mut Steps {
        if connection == self.connection {
            return &mut self.steps;
        }
        let others = self.others.entry(connection);
        others.or_insert_with(|| Steps::new(MAX_STEPS_PER_MESSAGE))
    }
}

/// The door of one document: what waits before it. See the module's docs.
#[derive(Debug, Default)]
pub struct Admission {
    limits: ParkingLimits,
    parked: FxHashMap<ChangeHash, Parked>,
    /// Missing change → the parked ones to try when it comes.
    waiting: FxHashMap<ChangeHash, Vec<ChangeHash>>,
    held: Held,
    /// By who brought it.
    held_of: FxHashMap<ConnectionId, Held>,
}

impl Admission {
    /// A door with these bounds.
    pub fn new(limits: ParkingLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Judges a message's changes in the order given and grows the graph by those that fit. After one
    /// that is refused the rest is not looked at: the sender is cut off anyway.
    pub fn admit(&mut self, history: &mut History, from: &Sender, changes: Vec<Change>) -> Outcome {
        let bytes: usize = changes.iter().map(Change::memory).sum();
        if bytes + history.resting_bytes() <= SHORT_BYTES {
            self.admit_all(history, from, changes)
        } else {
            aside(|| self.admit_all(history, from, changes))
        }
    }

    fn admit_all(&mut self, history: &mut History, from: &Sender, changes: Vec<Change>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut allowed = Allowed {
            connection: from.connection,
            steps: Steps::new(MAX_STEPS_PER_MESSAGE),
            others: FxHashMap::default(),
        };
        for change in changes {
            let from = from.clone();
            let connection = from.connection;
            self.enter(history, &mut allowed, Parked { change, from }, &mut outcome);
            if outcome.refused.iter().any(|(of, _)| *of == connection) {
                break;
            }
        }
        outcome
    }

    /// Which changes to ask a peer for so that these heads of its can be reached: the heads
    /// themselves, or what parked changes still wait for.
    pub fn missing_for(&self, graph: &Graph, heads: &[ChangeHash]) -> Vec<ChangeHash> {
        let mut missing = Vec::new();
        let mut seen = rustc_hash::FxHashSet::default();
        let mut stack: Vec<ChangeHash> = heads.to_vec();
        while let Some(hash) = stack.pop() {
            if graph.contains(&hash) || !seen.insert(hash) {
                continue;
            }
            match self.parked.get(&hash) {
                Some(parked) => stack.extend_from_slice(&parked.change.deps),
                None => missing.push(hash),
            }
        }
        missing.sort_unstable();
        missing
    }

    /// Drops what a connection that is gone left waiting.
    pub fn forget(&mut self, connection: ConnectionId) {
        let Some(gone) = self.held_of.remove(&connection) else {
            return;
        };
        self.held.changes -= gone.changes;
        self.held.bytes -= gone.bytes;
        self.parked
            .retain(|_, parked| parked.from.connection != connection);
        self.waiting.retain(|_, waiters| {
            waiters.retain(|hash| self.parked.contains_key(hash));
            !waiters.is_empty()
        });
    }

    /// Number of parked changes.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    /// Bytes of parked changes.
    pub fn parked_bytes(&self) -> usize {
        self.held.bytes
    }

    fn enter(
        &mut self,
        history: &mut History,
        allowed: &mut Allowed,
        candidate: Parked,
        outcome: &mut Outcome,
    ) {
        let mut queue = vec![candidate];
        while let Some(Parked { change, from }) = queue.pop() {
            let hash = change.hash;
            if history.graph().contains(&hash) || self.parked.contains_key(&hash) {
                outcome.known += 1;
                continue;
            }
            match judge(history, allowed.of(from.connection), &change) {
                Ok(()) => {
                    outcome.admitted.push((from.principal, change));
                    for waiter in self.waiting.remove(&hash).unwrap_or_default() {
                        queue.extend(self.unpark(&waiter));
                    }
                }
                Err(reason) if reason.is_missing_deps() => {
                    self.park(history.graph(), change, from, outcome);
                }
                Err(reason) => self.refuse(from.connection, Refusal { hash, reason }, outcome),
            }
        }
    }

    /// Keeps a change until its deps are here. Where there is no room, whoever has most parked loses it
    /// all: one peer must not keep the others' changes out.
    fn park(&mut self, graph: &Graph, change: Change, from: Sender, outcome: &mut Outcome) {
        let hash = change.hash;
        while !self.held.has_room(&change, self.limits) {
            let mut with_this = self
                .held_of
                .get(&from.connection)
                .copied()
                .unwrap_or_default();
            with_this.add(&change);
            let limits = self.limits;
            let shares = self.held_of.iter();
            match shares.map(|(of, held)| (held.share(limits), *of)).max() {
                Some((largest, of)) if largest > with_this.share(limits) => self.evict(of, outcome),
                _ => {
                    let reason = RefusalReason::ParkingFull;
                    return self.refuse(from.connection, Refusal { hash, reason }, outcome);
                }
            }
        }
        // Waiting for any one of the missing deps is enough: when it comes the change is tried
        // again and, if need be, parked to wait for the next.
        if let Some(missing) = change.deps.iter().find(|dep| !graph.contains(dep)) {
            self.waiting.entry(*missing).or_default().push(hash);
        }
        self.held.add(&change);
        self.held_of
            .entry(from.connection)
            .or_default()
            .add(&change);
        self.parked.insert(hash, Parked { change, from });
    }

    /// Refuses all that a connection has parked.
    fn evict(&mut self, connection: ConnectionId, outcome: &mut Outcome) {
        let mut parked = self.parked.iter();
        let of_it = parked.find(|(_, parked)| parked.from.connection == connection);
        if let Some((hash, _)) = of_it {
            let (hash, reason) = (*hash, RefusalReason::ParkingFull);
            outcome.refused.push((connection, Refusal { hash, reason }));
        }
        self.forget(connection);
    }

    fn unpark(&mut self, hash: &ChangeHash) -> Option<Parked> {
        let parked = self.parked.remove(hash)?;
        self.held.remove(&parked.change);
        if let Some(held) = self.held_of.get_mut(&parked.from.connection) {
            held.remove(&parked.change);
        }
        Some(parked)
    }

    /// Refuses a change and, with it, what is parked on top of it.
    fn refuse(&mut self, from: ConnectionId, refusal: Refusal, outcome: &mut Outcome) {
        let mut refused = vec![refusal.hash];
        outcome.refused.push((from, refusal));
        if self.parked.is_empty() {
            return;
        }
        let mut dependents: FxHashMap<ChangeHash, Vec<ChangeHash>> = FxHashMap::default();
        for (hash, parked) in &self.parked {
            for dep in &parked.change.deps {
                dependents.entry(*dep).or_default().push(*hash);
            }
        }
        while let Some(on) = refused.pop() {
            for hash in dependents.remove(&on).unwrap_or_default() {
                if let Some(parked) = self.unpark(&hash) {
                    let reason = RefusalReason::BuildsOnRefused { on };
                    outcome
                        .refused
                        .push((parked.from.connection, Refusal { hash, reason }));
                    refused.push(hash);
                }
            }
        }
    }
}

/// Lets the change into the history if it fits, and keeps the bounds on what strangers may make of it.
pub fn judge(
    history: &mut History,
    steps: &mut Steps,
    change: &Change,
) -> Result<(), RefusalReason> {
    let graph = history.graph();
    let is_one_more_head = || !change.deps.iter().any(|dep| graph.is_head(dep));
    if graph.admitted_heads().len() >= MAX_HEADS && is_one_more_head() {
        return Err(RefusalReason::TooManyHeads);
    }
    if graph.actors() >= MAX_ACTORS && graph.actor_number(&change.actor).is_none() {
        return Err(RefusalReason::TooManyActors);
    }
    match steps.at_most(SHORT_STEPS, |steps| admit(history, steps, change)) {
        Err(reason) if reason.code() == ErrorCode::Overloaded => {
            aside(|| admit(history, steps, change))
        }
        result => result,
    }
}

fn admit(history: &mut History, steps: &mut Steps, change: &Change) -> Result<(), RefusalReason> {
    // With its deps it may be in proportion: those that are missing are asked for first.
    let graph = history.graph();
    let may_wait = change.deps.iter().any(|dep| !graph.contains(dep));
    if !may_wait && !history.is_in_proportion(change, FREE_OPS, OPS_PER_BYTE) {
        return Err(RefusalReason::OutOfProportion);
    }
    if history.is_too_deep(change, MAX_DEPTH, steps)? {
        return Err(RefusalReason::TooDeep);
    }
    history.admit(change, steps)?;
    Ok(())
}
