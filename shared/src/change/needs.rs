//! What a change's ops need to find in the document, and what they make in it.
//!
//! Reading a change (`walk`) settles all that the change itself can tell; what is left for whoever
//! knows the document are these lists. Both are run by run: a paste of 10,000 characters needs one
//! element and makes one run.

use automerge::ActorId;

/// An op's id as a change writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpRef {
    /// Which of the change's actors: 0 is its author, `n` is `Ops::other_actors[n - 1]`.
    pub actor: u32,
    /// From 1.
    pub counter: u32,
}

/// An object: the document's root, or what an op made.
pub type ObjectRef = Option<OpRef>;

/// A place in a sequence: its beginning, or behind the element that an op inserted.
pub type ElementRef = Option<OpRef>;

/// What an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// Values by text keys.
    Map,
    /// A sequence of values.
    List,
    /// A sequence of text and what is embedded in it.
    Text,
}

/// What an op that others may refer to made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A value that is replaced as a whole.
    Scalar,
    /// A value that can be incremented.
    Counter,
    /// An object.
    Object(ObjectKind),
    /// A boundary of a mark: something can be inserted behind it, nothing can replace it.
    Mark,
}

/// Where an op put what it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Under a key of a map: `Ops::keys[n]`.
    Key(u32),
    /// As a new element of a sequence, behind this one; the others of a run each behind the one before.
    Behind(ElementRef),
    /// In the place of what this element of a sequence held.
    Element(OpRef),
}

/// A run of ops that others may refer to, alike in all but their counters. Their author is the change's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Counter of the first.
    pub first: u32,
    /// How many, with consecutive counters.
    pub count: u32,
    /// The object that they are in.
    pub object: ObjectRef,
    /// Where in it.
    pub place: Place,
    /// What each made.
    pub what: What,
}

impl Made {
    /// Counter after the last.
    pub fn end(&self) -> u32 {
        self.first.saturating_add(self.count)
    }
}

/// What must be in the document, and in the change's past, for it to be admitted. Nothing that the change
/// makes itself is among these, but for [`Need::MarkOrder`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// An object of one of these kinds.
    Object(OpRef, Container),
    /// Elements of the object, with consecutive counters.
    Elements {
        /// The sequence.
        object: ObjectRef,
        /// The first.
        first: OpRef,
        /// How many.
        count: u32,
        /// They are replaced or deleted: none of them is a mark.
        replaced: bool,
    },
    /// Ops, with consecutive counters, that each put something in this place of the object, to be replaced
    /// or deleted.
    Preds {
        /// The object.
        object: ObjectRef,
        /// A key or an element.
        place: Place,
        /// The first.
        first: OpRef,
        /// How many.
        count: u32,
    },
    /// One of these ops, all of which are needed as [`Need::Preds`] or [`Need::Elements`] too, made a counter.
    Counter(Box<[OpRef]>),
    /// The first comes before the second in the sequence. Either may be made by the change.
    MarkOrder(OpRef, OpRef),
}

/// What kinds of object a need is content with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// A map.
    Map,
    /// A list or a text.
    Sequence,
    /// A list.
    List,
    /// A text.
    Text,
}

impl Container {
    /// Whether an object of this kind will do.
    pub fn takes(self, kind: ObjectKind) -> bool {
        match self {
            Self::Map => kind == ObjectKind::Map,
            Self::Sequence => matches!(kind, ObjectKind::List | ObjectKind::Text),
            Self::List => kind == ObjectKind::List,
            Self::Text => kind == ObjectKind::Text,
        }
    }
}

/// What the ops of one change need and make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ops {
    /// Actors other than the author that the ops refer to, ascending.
    pub other_actors: Vec<ActorId>,
    /// The keys of maps that the ops name, each once.
    pub keys: Vec<Box<str>>,
    /// In the order of the ops.
    pub needs: Vec<Need>,
    /// In the order of the ops, so their counters ascend.
    pub made: Vec<Made>,
}

impl Ops {
    /// The run that holds the author's op with this counter.
    pub fn made(&self, counter: u32) -> Option<&Made> {
        find(&self.made, counter)
    }

    /// Bytes of memory that this takes, roughly.
    pub fn memory(&self) -> usize {
        let keys = self.keys.iter().map(|key| key.len());
        let needs = self.needs.iter().map(|need| match need {
            Need::Counter(ids) => std::mem::size_of_val(&**ids),
            _ => 0,
        });
        size_of::<Made>() * self.made.capacity()
            + size_of::<Need>() * self.needs.capacity()
            + size_of::<Box<str>>() * self.keys.capacity()
            + keys.chain(needs).sum::<usize>()
            + self.other_actors.capacity() * size_of::<ActorId>()
    }
}

/// The run of `made`, which ascend, that holds the op with this counter.
pub(super) fn find(made: &[Made], counter: u32) -> Option<&Made> {
    // Most look for what was made just now.
    let last = made.last()?;
    let run = if last.first <= counter {
        last
    } else {
        let after = made.partition_point(|run| run.first <= counter);
        made.get(after.checked_sub(1)?)?
    };
    (counter < run.end()).then_some(run)
}
