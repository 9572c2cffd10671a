//! From the ops of a change to what they need and make.
//!
//! Here is judged all that can be judged of an op without the document: that Automerge writes such ops at
//! all, that an object, an element or a predecessor which the change makes itself is there before it is
//! referred to and fits, that marks come in pairs. What Automerge does not write is refused, also where
//! today's version would bear it: nobody needs it, and somebody's version may not.

use std::collections::HashMap;

use super::needs::{Container, Made, Need, ObjectKind, ObjectRef, OpRef, Ops, Place, What, find};
use super::op_error::OpError;
use super::ops::{Key, Op};
use super::value::Kind;

/// Actions, as they are written.
mod action {
    pub(super) const MAKE_MAP: u64 = 0;
    pub(super) const SET: u64 = 1;
    pub(super) const MAKE_LIST: u64 = 2;
    pub(super) const DELETE: u64 = 3;
    pub(super) const MAKE_TEXT: u64 = 4;
    pub(super) const INCREMENT: u64 = 5;
    // 6 makes a table, which no release since 1.0 writes, and none can read or edit.
    pub(super) const MARK: u64 = 7;
}

/// What an op does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Make(What),
    Delete,
    Increment,
    BeginMark,
    EndMark,
}

impl Does {
    fn what(op: &Op<'_>) -> Result<Self, OpError> {
        let does = match (op.action, op.mark_name) {
            (action::MAKE_MAP, _) => Self::Make(What::Object(ObjectKind::Map)),
            (action::MAKE_LIST, _) => Self::Make(What::Object(ObjectKind::List)),
            (action::MAKE_TEXT, _) => Self::Make(What::Object(ObjectKind::Text)),
            (action::SET, _) if op.value == Kind::Counter => Self::Make(What::Counter),
            (action::SET, _) => Self::Make(What::Scalar),
            (action::DELETE, _) => Self::Delete,
            (action::INCREMENT, _) => Self::Increment,
            (action::MARK, Some(_)) => Self::BeginMark,
            (action::MARK, None) => Self::EndMark,
            (unknown, _) => return Err(OpError::UnknownAction(unknown)),
        };
        if does.is_mark() {
            // Both may expand.
        } else if op.mark_name.is_some() || op.expand {
            return Err(OpError::NotAMark);
        }
        match does {
            Self::Make(What::Object(_)) | Self::Delete | Self::EndMark
                if op.value != Kind::Null =>
            {
                Err(OpError::NeedlessValue)
            }
            Self::Increment if op.value != Kind::Integer => Err(OpError::NotAnIncrement),
            _ => Ok(does),
        }
    }

    fn is_mark(self) -> bool {
        matches!(self, Self::BeginMark | Self::EndMark)
    }
}

/// Whether the op is among these with consecutive counters, now that one more may have been added.
fn goes_on(first: OpRef, count: &mut u32, id: OpRef) -> bool {
    let Some(nth) = id.counter.checked_sub(first.counter) else {
        return false;
    };
    if id.actor != first.actor || nth > *count {
        return false;
    }
    *count = (*count).max(nth + 1);
    true
}

/// The beginning of a mark whose end comes next.
struct OpenMark {
    id: OpRef,
    object: ObjectRef,
    behind: Option<OpRef>,
}

/// Takes the ops of a change one by one: [`op`](Self::op) for each, then [`finish`](Self::finish).
pub(super) struct Walk<'a> {
    first: u32,
    /// How many of the other actors come before the author in the order of their bytes.
    actors_before_author: u32,
    ops: Ops,
    /// The numbers of the keys, and the last one. Peers choose them: the hash is one that they can't foresee.
    keys: HashMap<&'a str, u32>,
    key: Option<(&'a str, u32)>,
    /// Bytes of the keys, and of the lists in needs.
    listed_bytes: usize,
    /// The last object that was looked at, and what for.
    object: Option<(ObjectRef, Container)>,
    open_mark: Option<OpenMark>,
}

impl<'a> Walk<'a> {
    /// Of a change whose first op has this counter.
    pub(super) fn new(first: u32, actors_before_author: u32) -> Self {
        Self {
            first,
            actors_before_author,
            ops: Ops::default(),
            keys: HashMap::new(),
            key: None,
            listed_bytes: 0,
            object: None,
            open_mark: None,
        }
    }

    /// Takes the next op, which has this counter.
    pub(super) fn op(&mut self, counter: u32, op: &Op<'a>, preds: &[OpRef]) -> Result<(), OpError> {
        let does = Does::what(op)?;
        if self.open_mark.is_some() && does != Does::EndMark {
            return Err(OpError::MarkWithoutEnd);
        }
        let container = match op.key {
            Key::Text(_) if does.is_mark() => return Err(OpError::MarkNotInserted),
            Key::Text(_) if op.insert => return Err(OpError::InsertIntoMap),
            Key::Text("__proto__") => return Err(OpError::ProtoKey),
            Key::Text(_) => Container::Map,
            Key::Element(_) if does.is_mark() => Container::Text,
            Key::Element(_) if op.insert || does == Does::Delete => Container::Sequence,
            // What is in a text is inserted and deleted. Automerge's API can overwrite it in place, which no
            // editor does, and panics on what may come of that.
            Key::Element(_) => Container::List,
        };
        self.in_object(op.object, container, counter)?;
        let place = if op.insert {
            self.insertion(counter, op, does, preds)?
        } else {
            self.update(counter, op, does, preds)?
        };
        let what = match does {
            Does::Make(what) => what,
            Does::BeginMark | Does::EndMark => What::Mark,
            Does::Delete | Does::Increment => return Ok(()),
        };
        self.make(counter, op.object, place, what);
        Ok(())
    }

    /// Bytes of memory that the needs and what is made take so far.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Made>() * self.ops.made.len()
            + size_of::<Need>() * self.ops.needs.len()
            + self.listed_bytes
    }

    /// What the ops need and make, but for the actors.
    pub(super) fn finish(self) -> Result<Ops, OpError> {
        if self.open_mark.is_some() {
            return Err(OpError::MarkWithoutEnd);
        }
        Ok(self.ops)
    }

    /// Whether the op is one of this change's.
    fn is_own(&self, id: OpRef) -> bool {
        id.actor == 0 && id.counter >= self.first
    }

    /// The run of one of this change's ops, if that comes before `counter`.
    fn own(&self, id: OpRef, counter: u32) -> Option<&Made> {
        find(&self.ops.made, id.counter).filter(|_| id.counter < counter)
    }

    fn in_object(
        &mut self,
        object: ObjectRef,
        container: Container,
        counter: u32,
    ) -> Result<(), OpError> {
        if self.object == Some((object, container)) {
            return Ok(());
        }
        let kind = match object {
            None => ObjectKind::Map,
            Some(id) if self.is_own(id) => match self.own(id, counter).map(|made| made.what) {
                Some(What::Object(kind)) => kind,
                _ => return Err(OpError::NoObject(id.counter)),
            },
            Some(id) => {
                self.ops.needs.push(Need::Object(id, container));
                self.object = Some((object, container));
                return Ok(());
            }
        };
        if !container.takes(kind) {
            return Err(OpError::KeyMismatch { container, kind });
        }
        self.object = Some((object, container));
        Ok(())
    }

    fn insertion(
        &mut self,
        counter: u32,
        op: &Op<'_>,
        does: Does,
        preds: &[OpRef],
    ) -> Result<Place, OpError> {
        let Key::Element(behind) = op.key else {
            return Err(OpError::InsertIntoMap);
        };
        if matches!(does, Does::Delete | Does::Increment) {
            return Err(OpError::InsertsNothing);
        }
        if !preds.is_empty() {
            return Err(OpError::InsertWithPreds);
        }
        if let Some(element) = behind {
            self.element(counter, op.object, element, false)?;
        }
        let id = OpRef { actor: 0, counter };
        match does {
            Does::BeginMark => {
                self.open_mark = Some(OpenMark {
                    id,
                    object: op.object,
                    behind,
                });
            }
            Does::EndMark => self.end_mark(op.object, behind)?,
            _ => {}
        }
        Ok(Place::Behind(behind))
    }

    /// The end must come after the beginning in the text, or the document never loads again. What is
    /// inserted behind an element comes before all that was behind it, so that is decided by the elements
    /// which the two are behind.
    fn end_mark(&mut self, object: ObjectRef, behind: Option<OpRef>) -> Result<(), OpError> {
        let begin = self.open_mark.take().filter(|begin| begin.object == object);
        let begin = begin.ok_or(OpError::MarkWithoutBegin)?;
        match (begin.behind, behind) {
            (_, Some(behind)) if behind == begin.id => Ok(()),
            (_, None) => Err(OpError::MarkOrder),
            (None, Some(_)) => Ok(()),
            (Some(first), Some(second)) if first == second => Err(OpError::MarkOrder),
            (Some(first), Some(second)) => {
                self.ops.needs.push(Need::MarkOrder(first, second));
                Ok(())
            }
        }
    }

    fn update(
        &mut self,
        counter: u32,
        op: &Op<'a>,
        does: Does,
        preds: &[OpRef],
    ) -> Result<Place, OpError> {
        let place = match op.key {
            _ if does.is_mark() => return Err(OpError::MarkNotInserted),
            Key::Text(key) => Place::Key(self.key(key)),
            Key::Element(Some(element)) => Place::Element(element),
            Key::Element(None) => return Err(OpError::NotAnElement),
        };
        let may_be_first = matches!((&place, does), (Place::Key(_), Does::Make(_)));
        if preds.is_empty() && !may_be_first {
            return Err(OpError::WithoutPreds);
        }
        if !preds.is_sorted_by(|a, b| self.order(*a) < self.order(*b)) {
            return Err(OpError::UnsortedPreds);
        }
        let mut is_counter = false;
        for pred in preds {
            is_counter |= self.pred(counter, op.object, place, *pred)? == Some(What::Counter);
        }
        if does == Does::Increment && !is_counter {
            let others = preds.iter().copied().filter(|pred| !self.is_own(*pred));
            let others: Box<[OpRef]> = others.collect();
            if others.is_empty() {
                return Err(OpError::NotACounter);
            }
            if !matches!(self.ops.needs.last(), Some(Need::Counter(last)) if *last == others) {
                self.listed_bytes += size_of_val(&*others);
                self.ops.needs.push(Need::Counter(others));
            }
        }
        Ok(place)
    }

    /// The key's number. One that many ops name is read, and hashed, once for each run of them.
    fn key(&mut self, key: &'a str) -> u32 {
        if let Some((last, number)) = self.key
            && std::ptr::eq(last, key)
        {
            return number;
        }
        // Each takes a row of a column, and there are fewer of those.
        let next = u32::try_from(self.ops.keys.len()).unwrap_or(u32::MAX);
        let number = *self.keys.entry(key).or_insert(next);
        if number == next {
            self.listed_bytes += key.len() + size_of::<Box<str>>();
            self.ops.keys.push(key.into());
        }
        self.key = Some((key, number));
        number
    }

    /// What the predecessor made, if that is known here.
    fn pred(
        &mut self,
        counter: u32,
        object: ObjectRef,
        place: Place,
        id: OpRef,
    ) -> Result<Option<What>, OpError> {
        if self.is_own(id) {
            let fits = |made: &&Made| {
                let is_there = match place {
                    Place::Element(element) if element == id => {
                        matches!(made.place, Place::Behind(_))
                    }
                    place => made.place == place,
                };
                is_there && made.object == object && made.what != What::Mark
            };
            let made = self.own(id, counter).filter(fits);
            return made
                .map(|made| Some(made.what))
                .ok_or(OpError::NoPred(id.counter));
        }
        // What this change makes has no predecessors before it.
        if object.is_some_and(|object| self.is_own(object)) {
            return Err(OpError::NoPred(id.counter));
        }
        if place == Place::Element(id) {
            self.element(counter, object, id, true)?;
            return Ok(None);
        }
        if let Some(Need::Preds {
            object: of,
            place: at,
            first,
            count,
        }) = self.last_ops_needed()
            && (*of, *at) == (object, place)
            && goes_on(*first, count, id)
        {
            return Ok(None);
        }
        self.ops.needs.push(Need::Preds {
            object,
            place,
            first: id,
            count: 1,
        });
        Ok(None)
    }

    /// The last need, but for one that goes with it: an increment's.
    fn last_ops_needed(&mut self) -> Option<&mut Need> {
        let mut latest = self.ops.needs.iter_mut().rev().take(2);
        latest.find(|need| !matches!(need, Need::Counter(_)))
    }

    fn element(
        &mut self,
        counter: u32,
        object: ObjectRef,
        id: OpRef,
        replaced: bool,
    ) -> Result<(), OpError> {
        if self.is_own(id) {
            let is_element =
                |made: &Made| made.object == object && matches!(made.place, Place::Behind(_));
            return match self.own(id, counter) {
                Some(made) if is_element(made) => Ok(()),
                _ => Err(OpError::NoElement(id.counter)),
            };
        }
        if object.is_some_and(|object| self.is_own(object)) {
            return Err(OpError::NoElement(id.counter));
        }
        if let Some(Need::Elements {
            object: of,
            first,
            count,
            replaced: also,
        }) = self.last_ops_needed()
            && (*of, *also) == (object, replaced)
            && goes_on(*first, count, id)
        {
            return Ok(());
        }
        self.ops.needs.push(Need::Elements {
            object,
            first: id,
            count: 1,
            replaced,
        });
        Ok(())
    }

    fn make(&mut self, counter: u32, object: ObjectRef, place: Place, what: What) {
        if let Some(last) = self.ops.made.last_mut()
            && last.end() == counter
            && last.object == object
            && last.what == what
        {
            let previous = OpRef {
                actor: 0,
                counter: counter.saturating_sub(1),
            };
            let goes_on = match (&last.place, &place) {
                (Place::Behind(_), Place::Behind(behind)) => *behind == Some(previous),
                (before, place) => before == place,
            };
            if goes_on {
                last.count += 1;
                return;
            }
        }
        self.ops.made.push(Made {
            first: counter,
            count: 1,
            object,
            place,
            what,
        });
    }

    /// How Automerge orders op ids: by counter, then by the bytes of the actor. The other actors are written
    /// in that order.
    fn order(&self, id: OpRef) -> (u32, u32) {
        let actor = match id.actor.checked_sub(1) {
            None => self.actors_before_author,
            Some(other) if other < self.actors_before_author => other,
            Some(other) => other + 1,
        };
        (id.counter, actor)
    }
}
