//! What is known of a document's changes: their [graph](super::graph), and what their ops made.
//!
//! [`History::admit`] is the one way in, for a peer's change and for one that is read back from the store:
//! what does not fit is refused in both, so what is stored was judged by the same rules as what comes. The
//! stored form lies beside the snapshot, so that opening a document does not decode it.

use std::borrow::Cow;

use bytes::Bytes;
use concord_shared::change::Change;
use concord_shared::code::ErrorCode;
use concord_shared::reader::{ReadError, Reader, push_uleb};

use super::graph::{DecodeGraphError, Graph, GraphError, Index, NewNode};
use super::index::{DecodeIndexError, OpIndex, RefError};
use super::past::{Pasts, Steps};

/// First byte of a stored history. It was 1 when there was a graph alone.
pub const HISTORY_FORMAT: u8 = 2;

/// How much all changes are together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    /// Of [`Change::work`].
    work: u64,
    /// Of the change chunks, uncompressed.
    bytes: u64,
}

impl Size {
    fn and(self, change: &Change) -> Self {
        Self {
            work: self.work.saturating_add(change.work()),
            bytes: self.bytes.saturating_add(change.bytes.len() as u64),
        }
    }
}

/// Why a change does not fit the history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// Its place among the other changes.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// What its ops refer to.
    #[error(transparent)]
    Ref(#[from] RefError),
    /// A bug: what is known of the ops can't be read.
    #[error(transparent)]
    Index(#[from] DecodeIndexError),
}

impl HistoryError {
    /// The stable code a peer sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Graph(error) => match error {
                GraphError::MissingDeps { .. } => ErrorCode::PendingLimit,
                GraphError::Full { .. } => ErrorCode::TooManyChanges,
                GraphError::DuplicateSeq { .. } => ErrorCode::DuplicateSeq,
                GraphError::SeqNotNext { .. } => ErrorCode::SeqNotNext,
                GraphError::ForkedActor { .. } => ErrorCode::ForkedActor,
                GraphError::StartOpTooLow { .. } => ErrorCode::StartOpTooLow,
                GraphError::StartOpTooHigh { .. } => ErrorCode::StartOpTooHigh,
                GraphError::EmptyAfterGap { .. } => ErrorCode::BadChange,
                GraphError::OpCounterOverflow { .. } => ErrorCode::TooManyOps,
                GraphError::TooManySteps(_) => ErrorCode::Overloaded,
            },
            Self::Index(_) => ErrorCode::Internal,
            Self::Ref(error) => match error {
                RefError::NoObject(_) => ErrorCode::UnknownObject,
                RefError::KeyMismatch { .. } => ErrorCode::KeyMismatch,
                RefError::NoElement(_) => ErrorCode::UnknownElement,
                RefError::NoPred(_) => ErrorCode::BadPred,
                RefError::NotInPast(_) => ErrorCode::NotInPast,
                RefError::NotACounter => ErrorCode::NotACounter,
                RefError::MarkOrder { .. } => ErrorCode::BadMark,
                RefError::TooManySteps(_) => ErrorCode::Overloaded,
            },
        }
    }
}

/// Why a stored history can't be used. The remedy is to rebuild it from the snapshot.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeHistoryError {
    /// Written by another version, or not a history.
    #[error("unknown history format {found}")]
    Format {
        /// The first byte.
        found: u8,
    },
    /// Of fewer or more changes than the snapshot beside it.
    #[error("the stored history is of {changes} changes, the snapshot of {base}")]
    OfOthers {
        /// Changes in the history.
        changes: u64,
        /// Changes in the snapshot.
        base: u64,
    },
    /// Cut short.
    #[error("the stored history can't be read: {0}")]
    Read(#[from] ReadError),
    /// Its graph.
    #[error(transparent)]
    Graph(#[from] DecodeGraphError),
    /// Its index.
    #[error(transparent)]
    Index(#[from] DecodeIndexError),
}

/// The index, in memory: to judge by, or, while nobody edits, as it is stored, in some tenths of the room.
#[derive(Debug, Clone)]
struct Held {
    live: Option<OpIndex>,
    /// Where `live` is none.
    resting: Box<[u8]>,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            live: Some(OpIndex::default()),
            resting: Box::default(),
        }
    }
}

impl Held {
    fn wake(&mut self, actors: usize) -> Result<&mut OpIndex, DecodeIndexError> {
        if self.live.is_none() {
            self.live = Some(OpIndex::decode(&self.resting, actors)?);
            self.resting = Box::default();
        }
        Ok(self.live.get_or_insert_default())
    }

    fn read(&self, actors: usize) -> Result<Cow<'_, OpIndex>, DecodeIndexError> {
        match &self.live {
            Some(index) => Ok(Cow::Borrowed(index)),
            None => OpIndex::decode(&self.resting, actors).map(Cow::Owned),
        }
    }

    fn encode(&self, actors: usize) -> Cow<'_, [u8]> {
        match &self.live {
            Some(index) => Cow::Owned(index.encode(actors)),
            None => Cow::Borrowed(&self.resting),
        }
    }

    fn memory(&self) -> usize {
        self.live.as_ref().map_or(0, OpIndex::memory) + self.resting.len()
    }
}

/// See the module's docs.
#[derive(Debug, Clone, Default)]
pub struct History {
    graph: Graph,
    index: Held,
    size: Size,
    pasts: Pasts,
}

impl History {
    /// Of no changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The change graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What the ops made. An error is a bug: what rests was read before, or written here.
    pub fn index(&self) -> Result<Cow<'_, OpIndex>, DecodeIndexError> {
        self.index.read(self.graph.actors())
    }

    /// Admits a change that fits; a refused one leaves no trace.
    pub fn admit(&mut self, change: &Change, steps: &mut Steps) -> Result<Index, HistoryError> {
        let node = NewNode::of(change)?;
        let index = self.index.wake(self.graph.actors())?;
        let admitted = self
            .graph
            .admit(&node, &mut self.pasts, steps, |graph, past, steps| {
                index.check(graph, change, past, steps)?;
                Ok::<(), HistoryError>(())
            })?;
        index.add(&self.graph, change);
        self.size = self.size.and(change);
        Ok(admitted)
    }

    /// Whether the [work](Change::work) of all changes with this one is at most `free` and `each_byte` for each
    /// of their bytes; or this one's alone, which makes no document worse than it is.
    pub fn is_in_proportion(&self, change: &Change, free: u64, each_byte: u64) -> bool {
        let alone = Size::default().and(change);
        let all = self.size.and(change);
        alone.work <= alone.bytes.saturating_mul(each_byte)
            || all.work <= free.saturating_add(all.bytes.saturating_mul(each_byte))
    }

    /// Whether an object that the change makes would lie more than `most` levels deep.
    pub fn is_too_deep(
        &mut self,
        change: &Change,
        most: u32,
        steps: &mut Steps,
    ) -> Result<bool, HistoryError> {
        if !OpIndex::makes_objects(change) {
            return Ok(false);
        }
        let index = self.index.wake(self.graph.actors())?;
        let too_deep = index.is_too_deep(&self.graph, change, most, steps);
        Ok(too_deep.map_err(RefError::from)?)
    }

    /// Whether the two are of the same changes and know the same of them, in whatever order each took
    /// them in.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.graph, &other.graph);
        self.size == other.size
            && ours.is_same_as(theirs)
            && match (self.index(), other.index()) {
                (Ok(index), Ok(other)) => index.described(ours) == other.described(theirs),
                _ => false,
            }
    }

    /// Moves the durable frontier: see [`Graph::make_visible`].
    pub fn make_visible(&mut self, visible: Index) {
        self.graph.make_visible(visible);
    }

    /// Bytes of memory held, roughly.
    pub fn memory(&self) -> usize {
        self.graph.memory() + self.index.memory() + self.pasts.memory()
    }

    /// Bytes of the index while it rests: before it can be judged by, they are inflated.
    pub fn resting_bytes(&self) -> usize {
        self.index.resting.len()
    }

    /// Gives back memory that only activity needs.
    pub fn rest(&mut self) {
        self.graph.shrink();
        if let Some(index) = self.index.live.take() {
            self.index.resting = index.encode(self.graph.actors()).into();
        }
        self.pasts.clear();
    }

    /// The stored form: format, u work, u bytes, u length of the graph, graph, index.
    pub fn encode(&self) -> Bytes {
        let graph = self.graph.encode(self.graph.len());
        let index = self.index.encode(self.graph.actors());
        let mut out = Vec::with_capacity(graph.len() + index.len() + 32);
        out.push(HISTORY_FORMAT);
        push_uleb(&mut out, self.size.work);
        push_uleb(&mut out, self.size.bytes);
        push_uleb(&mut out, graph.len() as u64);
        out.extend_from_slice(&graph);
        out.extend_from_slice(&index);
        out.into()
    }

    /// Reads a stored history; every change in it counts as visible.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeHistoryError> {
        let mut reader = Reader::new(bytes);
        let format = reader.u8("format")?;
        if format != HISTORY_FORMAT {
            return Err(DecodeHistoryError::Format { found: format });
        }
        let size = Size {
            work: reader.uleb("work")?,
            bytes: reader.uleb("bytes")?,
        };
        let graph = Graph::decode(reader.prefixed(usize::MAX, "graph")?)?;
        let index = reader.take_rest();
        // It is not needed before somebody edits, but whether it is good is to be known now.
        OpIndex::decode(index, graph.actors())?;
        Ok(Self {
            graph,
            index: Held {
                live: None,
                resting: index.into(),
            },
            size,
            pasts: Pasts::default(),
        })
    }
}

impl<'a> NewNode<'a> {
    /// What a parsed change says of itself.
    pub(super) fn of(change: &'a Change) -> Result<Self, GraphError> {
        let small = |number| u32::try_from(number).unwrap_or(u32::MAX);
        let (start_op, ops) = (small(change.start_op), small(change.ops));
        if start_op.checked_add(ops).is_none() {
            return Err(GraphError::OpCounterOverflow { start_op, ops });
        }
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
