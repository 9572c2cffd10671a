//! The check at the door: no change enters the graph, the store or another peer before it.
//!
//! Checks run in the order of rising cost. Framing, checksum and caps are behind us when a
//! [`Change`] exists at all (`concord_shared::change`). Here follow the checks against the graph: deps
//! known, seq exactly its actor's next and built on the one before, one change per actor and seq,
//! start op above its deps' ([`Graph::admit`]). What the ops refer to is judged between the two, in
//! [`Admission::enter`], where a change's bytes and its place in the graph are both at hand.
//!
//! A change whose deps have not arrived is parked, within bounds, and tried again when they have. One
//! that is refused takes with it whatever was parked waiting for it.

use automerge::ChangeHash;
use concord_shared::change::Change;
use concord_shared::code::ErrorCode;
use concord_shared::ids::PrincipalId;
use rustc_hash::FxHashMap;

use super::ConnectionId;
use super::graph::{Graph, GraphError, NewNode};

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
    /// It does not fit the graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Too much is waiting for its deps already.
    #[error("too many changes wait for their deps")]
    ParkingFull,
    /// It builds on a change that was refused.
    #[error("builds on refused change {on}")]
    BuildsOnRefused {
        /// That one.
        on: ChangeHash,
    },
}

impl Refusal {
    /// The stable code a peer sees.
    pub fn code(&self) -> ErrorCode {
        match &self.reason {
            RefusalReason::Graph(error) => match error {
                GraphError::MissingDeps { .. } => ErrorCode::PendingLimit,
                GraphError::Full { .. } => ErrorCode::TooManyChanges,
                GraphError::DuplicateSeq { .. } => ErrorCode::DuplicateSeq,
                GraphError::SeqNotNext { .. } => ErrorCode::SeqNotNext,
                GraphError::ForkedActor { .. } => ErrorCode::ForkedActor,
                GraphError::StartOpTooLow { .. } => ErrorCode::StartOpTooLow,
                GraphError::EmptyAfterGap { .. } => ErrorCode::BadChange,
                GraphError::OpCounterOverflow { .. } => ErrorCode::TooManyOps,
            },
            RefusalReason::ParkingFull => ErrorCode::PendingLimit,
            RefusalReason::BuildsOnRefused { .. } => ErrorCode::BuildsOnRefused,
        }
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

/// The door of one document: what waits before it. See the module's docs.
#[derive(Debug, Default)]
pub struct Admission {
    limits: ParkingLimits,
    parked: FxHashMap<ChangeHash, Parked>,
    /// Missing change → the parked ones to try when it comes.
    waiting: FxHashMap<ChangeHash, Vec<ChangeHash>>,
    parked_bytes: usize,
}

impl Admission {
    /// A door with these bounds.
    pub fn new(limits: ParkingLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Judges a message's changes in the order given and grows the graph by those that fit.
    pub fn admit(&mut self, graph: &mut Graph, from: &Sender, changes: Vec<Change>) -> Outcome {
        let mut outcome = Outcome::default();
        for change in changes {
            let from = from.clone();
            self.enter(graph, Parked { change, from }, &mut outcome);
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
        self.parked
            .retain(|_, parked| parked.from.connection != connection);
        self.parked_bytes = self.parked.values().map(|p| p.change.bytes.len()).sum();
        self.waiting.retain(|_, waiters| {
            waiters.retain(|hash| self.parked.contains_key(hash));
            !waiters.is_empty()
        });
    }

    /// Number of parked changes.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }

    fn enter(&mut self, graph: &mut Graph, candidate: Parked, outcome: &mut Outcome) {
        let mut queue = vec![candidate];
        while let Some(Parked { change, from }) = queue.pop() {
            let hash = change.hash;
            if graph.contains(&hash) || self.parked.contains_key(&hash) {
                outcome.known += 1;
                continue;
            }
            match NewNode::of(&change).and_then(|node| graph.admit(&node)) {
                Ok(_) => {
                    outcome.admitted.push((from.principal, change));
                    for waiter in self.waiting.remove(&hash).unwrap_or_default() {
                        queue.extend(self.unpark(&waiter));
                    }
                }
                Err(GraphError::MissingDeps { .. }) => {
                    let connection = from.connection;
                    if let Err(refusal) = self.park(graph, change, from) {
                        self.refuse(connection, refusal, outcome);
                    }
                }
                Err(error) => {
                    let reason = error.into();
                    self.refuse(from.connection, Refusal { hash, reason }, outcome);
                }
            }
        }
    }

    fn park(&mut self, graph: &Graph, change: Change, from: Sender) -> Result<(), Refusal> {
        let hash = change.hash;
        let bytes = self.parked_bytes + change.bytes.len();
        if self.parked.len() >= self.limits.changes || bytes > self.limits.bytes {
            return Err(Refusal {
                hash,
                reason: RefusalReason::ParkingFull,
            });
        }
        self.parked_bytes = bytes;
        // Waiting for any one of the missing deps is enough: when it comes the change is tried
        // again and, if need be, parked to wait for the next.
        if let Some(missing) = change.deps.iter().find(|dep| !graph.contains(dep)) {
            self.waiting.entry(*missing).or_default().push(hash);
        }
        self.parked.insert(hash, Parked { change, from });
        Ok(())
    }

    fn unpark(&mut self, hash: &ChangeHash) -> Option<Parked> {
        let parked = self.parked.remove(hash)?;
        self.parked_bytes -= parked.change.bytes.len();
        Some(parked)
    }

    /// Refuses a change and, with it, what is parked on top of it.
    fn refuse(&mut self, from: ConnectionId, refusal: Refusal, outcome: &mut Outcome) {
        let mut refused = vec![refusal.hash];
        outcome.refused.push((from, refusal));
        while let Some(on) = refused.pop() {
            let dependents: Vec<ChangeHash> = self
                .parked
                .iter()
                .filter(|(_, parked)| parked.change.deps.contains(&on))
                .map(|(hash, _)| *hash)
                .collect();
            for hash in dependents {
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

impl<'a> NewNode<'a> {
    /// What a parsed change says of itself.
    pub fn of(change: &'a Change) -> Result<Self, GraphError> {
        let start_op =
            u32::try_from(change.start_op).map_err(|_| GraphError::OpCounterOverflow {
                start_op: u32::MAX,
                ops: u32::MAX,
            })?;
        let ops = u32::try_from(change.ops).map_err(|_| GraphError::OpCounterOverflow {
            start_op,
            ops: u32::MAX,
        })?;
        Ok(Self {
            hash: change.hash,
            deps: &change.deps,
            actor: &change.actor,
            seq: change.seq,
            start_op,
            ops,
        })
    }
}
