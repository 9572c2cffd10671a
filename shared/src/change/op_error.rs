//! What can be wrong with an op, as far as its change can tell.

use super::needs::{Container, ObjectKind};
use crate::ErrorCode;

/// Why an op is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// An action that Automerge 0.12 does not know.
    #[error("action {0} is unknown")]
    UnknownAction(u64),
    /// A type of value that Automerge 0.12 does not know.
    #[error("value type {0} is unknown")]
    UnknownValueType(u64),
    /// A value in other bytes than Automerge writes: overlong, of a wrong length, or not UTF-8.
    #[error("the value is not as Automerge writes values of type {0}")]
    BadValue(u64),
    /// A value where Automerge keeps none.
    #[error("a value that is lost with the next save")]
    NeedlessValue,
    /// An increment by something else than an integer.
    #[error("the increment is not an integer")]
    NotAnIncrement,
    /// An object's or a key's op id of which one half is missing, or whose counter is 0.
    #[error("half an op id as {0}")]
    HalfAnId(&'static str),
    /// Neither a text key nor an element.
    #[error("no key")]
    NoKey,
    /// A text key and an element.
    #[error("two keys")]
    TwoKeys,
    /// A key that names no property of a JavaScript object, but its prototype: clients that get it throw, or
    /// show something else than what is saved.
    #[error("the key __proto__")]
    ProtoKey,
    /// A text key in a sequence, or an element of a map.
    #[error("the key is one of a {container:?}, the object is a {kind:?}")]
    KeyMismatch {
        /// What the key is for.
        container: Container,
        /// What the object is.
        kind: ObjectKind,
    },
    /// The object is made by a later op of this change, or is none.
    #[error("op {0} of this change made no object before")]
    NoObject(u32),
    /// The element is made by a later op of this change, or is none of this object's.
    #[error("op {0} of this change inserted nothing into this object before")]
    NoElement(u32),
    /// The predecessor is a later op of this change, or put nothing there.
    #[error("op {0} of this change put nothing there before")]
    NoPred(u32),
    /// An insertion into a map.
    #[error("an insertion under a text key")]
    InsertIntoMap,
    /// A deletion or increment that is an insertion.
    #[error("a deletion or increment that inserts")]
    InsertsNothing,
    /// An insertion that has predecessors.
    #[error("an insertion with predecessors")]
    InsertWithPreds,
    /// A change at the beginning of a sequence, where no element is.
    #[error("an update of no element")]
    NotAnElement,
    /// A deletion, an increment, or an update of an element, of nothing.
    #[error("no predecessors")]
    WithoutPreds,
    /// Predecessors that do not ascend.
    #[error("the predecessors do not ascend")]
    UnsortedPreds,
    /// A mark's name, or that it expands, on something else.
    #[error("a mark's attributes on another op")]
    NotAMark,
    /// A mark that is not inserted into a text.
    #[error("a mark that is not inserted")]
    MarkNotInserted,
    /// A mark whose end does not follow, in the same object.
    #[error("a mark without its end")]
    MarkWithoutEnd,
    /// The end of a mark that does not follow its beginning.
    #[error("the end of no mark")]
    MarkWithoutBegin,
    /// A mark that ends before it begins.
    #[error("a mark that ends before it begins")]
    MarkOrder,
    /// An increment of what is no counter.
    #[error("an increment of no counter")]
    NotACounter,
}

impl OpError {
    /// What the peer is told.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::UnknownAction(_) => ErrorCode::UnknownAction,
            Self::UnknownValueType(_) => ErrorCode::UnknownValueType,
            Self::BadValue(_) | Self::NeedlessValue | Self::NotAnIncrement => ErrorCode::BadValue,
            Self::ProtoKey
            | Self::HalfAnId(_)
            | Self::NoKey
            | Self::TwoKeys
            | Self::InsertIntoMap
            | Self::InsertsNothing
            | Self::InsertWithPreds
            | Self::NotAnElement => ErrorCode::BadOp,
            Self::KeyMismatch { .. } => ErrorCode::KeyMismatch,
            Self::NoObject(_) => ErrorCode::UnknownObject,
            Self::NoElement(_) => ErrorCode::UnknownElement,
            Self::NoPred(_) | Self::WithoutPreds | Self::UnsortedPreds => ErrorCode::BadPred,
            Self::NotAMark
            | Self::MarkNotInserted
            | Self::MarkWithoutEnd
            | Self::MarkWithoutBegin
            | Self::MarkOrder => ErrorCode::BadMark,
            Self::NotACounter => ErrorCode::NotACounter,
        }
    }
}
