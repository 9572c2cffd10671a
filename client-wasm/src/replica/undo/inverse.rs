//! The edits that take a step back: [`Inverse`].

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, VecDeque},
};

use automerge::{
    ActorId, AutoCommit, AutomergeError, ChangeHash, Cursor, ObjId, ObjType, Prop, ROOT, ReadDoc,
    ScalarValue, TextEncoding, Value, hydrate, transaction::Transactable,
};

use super::{
    alias::{Aliases, Id, Place, external, internal},
    step::{Slot, Slots, Step},
};

/// Former neighbours that are asked whether they are still there, on each side of a run that returns; beyond
/// it the tombstone alone says where.
const MAX_NEIGHBOURS: usize = 256;

type Done = Result<(), AutomergeError>;

/// Makes the inverse edits in the open transaction.
pub(super) struct Inverse<'a> {
    doc: &'a mut AutoCommit,
    aliases: &'a mut Aliases,
    step: &'a Step,
    own: ActorId,
    /// Objects that this undo restored, to how they were before which change.
    restored: HashMap<Id, usize>,
}

/// An element as it is or was.
#[derive(Clone, Debug)]
struct Item {
    element: Id,
    /// Of several values written at once, the one that is seen, and the op that wrote it.
    value: Value<'static>,
    winner: Id,
    position: usize,
    width: usize,
}

/// Where an element or its tombstone is.
struct Found {
    position: usize,
    seen: Option<Item>,
}

/// A sequence as it is, before the first edit.
struct Now<'a> {
    /// What the step called it.
    named: Option<&'a Id>,
    object: Option<&'a Id>,
    slots: &'a Slots,
    /// Of the step's changes, those before this one are to be undone.
    until: usize,
    /// All elements, where an element can't be told by its winning value.
    elements: Option<HashMap<Id, Item>>,
}

#[derive(Debug)]
enum Edit {
    Delete { width: usize },
    Put { item: Item, change: usize },
    Increment { by: i64 },
    Insert { items: Vec<Item>, change: usize },
}

impl<'a> Inverse<'a> {
    pub(super) fn new(doc: &'a mut AutoCommit, aliases: &'a mut Aliases, step: &'a Step) -> Self {
        let own = doc.get_actor().clone();
        Self {
            doc,
            aliases,
            step,
            own,
            restored: HashMap::new(),
        }
    }

    /// Objects that the step deleted return on the way, so those that can't be seen yet are tried again; those
    /// that others deleted are left.
    pub(super) fn run(mut self) -> Done {
        let step = self.step;
        let mut waiting: Vec<_> = step.objects.iter().collect();
        loop {
            let before = waiting.len();
            let mut hidden = Vec::new();
            for one in waiting {
                let (object, slots) = one;
                let target = object.as_ref().map(|object| self.aliases.value(object));
                if self.is_visible(target.as_ref()) {
                    self.undo_object(object.as_ref(), target.as_ref(), slots)?;
                } else {
                    hidden.push(one);
                }
            }
            if hidden.is_empty() || hidden.len() == before {
                return Ok(());
            }
            waiting = hidden;
        }
    }

    fn is_visible(&self, object: Option<&Id>) -> bool {
        let parents = self.doc.parents(id_of(object));
        parents.is_ok_and(|mut parents| parents.all(|parent| parent.visible))
    }

    /// `object` is what the step called it, `target` what it is now.
    fn undo_object(&mut self, object: Option<&Id>, target: Option<&Id>, slots: &Slots) -> Done {
        let until = object.and_then(|object| self.restored.get(object));
        let until = until.copied().unwrap_or(usize::MAX);
        match self.doc.object_type(id_of(target))? {
            ObjType::Map | ObjType::Table => {
                for (key, slot) in &slots.keys {
                    self.undo_key(object, target, key, slot, until)?;
                }
                Ok(())
            }
            kind @ (ObjType::List | ObjType::Text) => {
                self.undo_sequence(object, target, kind, slots, until)
            }
        }
    }

    fn undo_key(
        &mut self,
        object: Option<&Id>,
        target: Option<&Id>,
        key: &str,
        slot: &Slot,
        until: usize,
    ) -> Done {
        let at = id_of(target);
        let now = self.doc.get(&at, key)?;
        let now = now.and_then(|(value, id)| Some((value.into_owned(), internal(&id)?)));
        let net = slot.net(until);
        if !net.replaced {
            if let Some((Value::Scalar(scalar), winner)) = now
                && let Some(by) = self.counted(slot, &scalar, &winner, until)
            {
                self.doc.increment(&at, key, by)?;
            }
            return Ok(());
        }
        let ours = match &now {
            Some((_, winner)) => !net.deleted && winner.0 == self.own,
            None => net.deleted,
        };
        if !ours {
            return Ok(());
        }
        let former = match net.former {
            None => None,
            Some(former) => {
                let heads = self.step.heads(former.change);
                let found = self.doc.get_at(id_of(object), key, heads)?;
                found.and_then(|(value, id)| {
                    Some((value.into_owned(), internal(&id)?, former.change))
                })
            }
        };
        match former {
            Some((value, winner, change)) => {
                let prop = Prop::Map(key.to_owned());
                let value = uncounted(&value, &winner, change, slot);
                self.restore(target, prop, &value, &winner, change)
            }
            None if now.is_some() => self.doc.delete(&at, key),
            None => Ok(()),
        }
    }

    /// Writes a former value.
    fn restore(
        &mut self,
        target: Option<&Id>,
        prop: Prop,
        value: &Value<'static>,
        winner: &Id,
        change: usize,
    ) -> Done {
        let at = id_of(target);
        match value {
            Value::Object(kind) => {
                let made = self.doc.put_object(&at, prop, *kind)?;
                self.copy(winner.clone(), &made, *kind, change)
            }
            Value::Scalar(scalar) => {
                self.doc.put(&at, prop.clone(), scalar.as_ref().clone())?;
                if is_counter(value) {
                    self.alias(target, prop, winner)?;
                }
                Ok(())
            }
        }
    }

    /// How much takes back what the step added to the counter that is there now, if it is the same.
    fn counted(&self, slot: &Slot, now: &ScalarValue, winner: &Id, until: usize) -> Option<i64> {
        let is = |id: &Id| self.aliases.value(id) == *winner;
        let sum = slot.sum(until, is);
        (matches!(now, ScalarValue::Counter(_)) && sum != 0).then_some(sum.wrapping_neg())
    }

    fn undo_sequence(
        &mut self,
        object: Option<&Id>,
        target: Option<&Id>,
        kind: ObjType,
        slots: &Slots,
        until: usize,
    ) -> Done {
        let elements = slots.elements.values();
        let exact = kind == ObjType::List
            || elements
                .clone()
                .any(|slot| !slot.inserted && !slot.net(until).deleted);
        let now = Now {
            named: object,
            object: target,
            slots,
            until,
            elements: exact.then(|| {
                let items = self.items(target, None, true).into_iter();
                items.map(|item| (item.element.clone(), item)).collect()
            }),
        };
        let mut edits = Vec::new();
        // Elements whose former value is wanted: where, and whether they are to be inserted.
        let mut wanted: HashMap<&Id, (usize, bool)> = HashMap::new();
        for (element, slot) in &slots.elements {
            // An object that came back as a copy has no tombstones: former neighbours alone say where it was.
            let found = self.locate(&now, element).unwrap_or(Found {
                position: 0,
                seen: None,
            });
            let net = slot.net(until);
            match found.seen {
                Some(item) if slot.inserted || net.replaced => {
                    let ours = item.winner.0 == self.own;
                    if ours && slot.inserted {
                        edits.push((item.position, Edit::Delete { width: item.width }));
                    } else if ours && !net.deleted {
                        wanted.insert(element, (item.position, false));
                    }
                }
                Some(item) => {
                    if let Value::Scalar(scalar) = &item.value
                        && let Some(by) = self.counted(slot, scalar, &item.winner, until)
                    {
                        edits.push((item.position, Edit::Increment { by }));
                    }
                }
                None if net.replaced && net.deleted && !slot.inserted => {
                    wanted.insert(element, (found.position, true));
                }
                None => {}
            }
        }
        let passes: BTreeSet<usize> = wanted
            .keys()
            .filter_map(|element| Some(slots.elements.get(*element)?.net(until).former?.change))
            .collect();
        for change in passes {
            let then = self.items(object, Some(self.step.heads(change)), exact);
            self.former_edits(&now, &then, &mut wanted, &mut edits);
        }
        self.apply(object, target, kind, edits)
    }

    /// The edits for those wanted elements that are in `then`.
    fn former_edits(
        &self,
        now: &Now<'_>,
        then: &[Item],
        wanted: &mut HashMap<&Id, (usize, bool)>,
        edits: &mut Vec<(usize, Edit)>,
    ) {
        // The end of the run that is being inserted, and the bounds of what it may be inserted at.
        let mut run: Option<(usize, usize, usize)> = None;
        for (index, item) in then.iter().enumerate() {
            let Some(slot) = now.slots.elements.get(&item.element) else {
                continue;
            };
            let former = slot.net(now.until).former;
            let Some(former) = former.filter(|former| former.ids.contains(&item.winner)) else {
                continue;
            };
            let Some((position, insert)) = wanted.remove(&item.element) else {
                continue;
            };
            let (mut item, change) = (item.clone(), former.change);
            item.value = uncounted(&item.value, &item.winner, change, slot);
            if !insert {
                edits.push((position, Edit::Put { item, change }));
                continue;
            }
            let (low, high) = match run {
                Some((end, low, high)) if end == index => (low, high),
                _ => self.bounds(now, then, index),
            };
            let position = position.clamp(low, high.max(low));
            match edits.last_mut() {
                Some((last, Edit::Insert { items, change: of }))
                    if run.is_some_and(|(end, ..)| end == index)
                        && *last == position
                        && *of == change =>
                {
                    items.push(item);
                }
                _ => {
                    let items = vec![item];
                    edits.push((position, Edit::Insert { items, change }));
                }
            }
            run = Some((index + 1, position, high));
        }
    }

    /// Between which positions the element at `index` was, by those of its neighbours that are still there.
    fn bounds(&self, now: &Now<'_>, then: &[Item], index: usize) -> (usize, usize) {
        let (left, right) = then.split_at_checked(index).unwrap_or_default();
        let seen = |item: &Item| self.locate(now, &item.element)?.seen;
        let low = left.iter().rev().take(MAX_NEIGHBOURS).find_map(seen);
        let high = right.iter().skip(1).take(MAX_NEIGHBOURS).find_map(seen);
        (
            low.map_or(0, |item| item.position + item.width),
            high.map_or_else(|| self.doc.length(id_of(now.object)), |item| item.position),
        )
    }

    /// From the back to the front, so that the positions of what is to come stay right.
    fn apply(
        &mut self,
        object: Option<&Id>,
        target: Option<&Id>,
        kind: ObjType,
        edits: Vec<(usize, Edit)>,
    ) -> Done {
        let at = id_of(target);
        let mut edits: Vec<_> = edits.into_iter().enumerate().collect();
        // What is inserted at an element's position goes before it, so the element's own edit is made first.
        edits.sort_unstable_by_key(|(order, (position, edit))| {
            let insert = matches!(edit, Edit::Insert { .. });
            (Reverse(*position), insert, Reverse(*order))
        });
        let mut edits = edits.into_iter().map(|(_, edit)| edit).peekable();
        while let Some((mut position, edit)) = edits.next() {
            match edit {
                Edit::Delete { mut width } => {
                    while let Some((before, Edit::Delete { width: more })) = edits.peek()
                        && before + more == position
                    {
                        (position, width) = (*before, width + more);
                        edits.next();
                    }
                    let width = isize::try_from(width).unwrap_or(isize::MAX);
                    if kind == ObjType::Text {
                        self.doc.splice_text(&at, position, width, "")?;
                    } else {
                        let nothing: [hydrate::Value; 0] = [];
                        self.doc.splice(&at, position, width, nothing)?;
                    }
                }
                Edit::Increment { by } => self.doc.increment(&at, position, by)?,
                Edit::Put { item, change } => {
                    let prop = Prop::Seq(position);
                    self.restore(target, prop, &item.value, &item.winner, change)?;
                }
                Edit::Insert { items, change } => {
                    let copies = self.insert(object, target, kind, position, &items, change)?;
                    self.copy_all(copies)?;
                }
            }
        }
        Ok(())
    }

    /// Inserts copies of `items`; the objects among them are still to be filled.
    fn insert(
        &mut self,
        from: Option<&Id>,
        target: Option<&Id>,
        kind: ObjType,
        mut position: usize,
        items: &[Item],
        change: usize,
    ) -> Result<VecDeque<Copy>, AutomergeError> {
        let at = id_of(target);
        let mut copies = VecDeque::new();
        let is_run = |item: &Item| match &item.value {
            Value::Object(_) => false,
            Value::Scalar(scalar) => kind == ObjType::List || scalar.is_str(),
        };
        for run in items.chunk_by(|one, next| is_run(one) && is_run(next)) {
            match run {
                [item] if !is_run(item) => match &item.value {
                    Value::Object(kind) => {
                        let made = self.doc.insert_object(&at, position, *kind)?;
                        copies.push_back(Copy::new(item.winner.clone(), made, *kind, change));
                    }
                    Value::Scalar(scalar) => {
                        self.doc.insert(&at, position, scalar.as_ref().clone())?;
                    }
                },
                _ if kind == ObjType::Text => {
                    let text: String = run.iter().filter_map(|item| item.value.as_str()).collect();
                    self.doc.splice_text(&at, position, 0, &text)?;
                }
                _ => {
                    let scalars = run.iter().filter_map(|item| item.value.as_scalar());
                    let values: Vec<_> = scalars.cloned().map(hydrate::Value::Scalar).collect();
                    self.doc.splice(&at, position, 0, values)?;
                }
            }
            for item in run {
                if item.width > 0 {
                    self.alias_element(from, target, position, item)?;
                }
                position += item.width;
            }
        }
        Ok(copies)
    }

    /// Fills the empty object `made` with what `object` was before `change`.
    fn copy(&mut self, object: Id, made: &ObjId, kind: ObjType, change: usize) -> Done {
        self.copy_all(VecDeque::from([Copy::new(
            object,
            made.clone(),
            kind,
            change,
        )]))
    }

    /// Not by recursion: how deep a document nests is its authors' choice.
    fn copy_all(&mut self, mut copies: VecDeque<Copy>) -> Done {
        while let Some(copy) = copies.pop_front() {
            let Some(to) = internal(&copy.to) else {
                continue;
            };
            self.aliases.add_value(&copy.from, &to);
            self.restored.insert(copy.from.clone(), copy.change);
            let heads = self.step.heads(copy.change);
            match copy.kind {
                ObjType::Map | ObjType::Table => {
                    let from = external(&copy.from);
                    let entries = self.doc.map_range_at(&from, .., heads);
                    let entries: Vec<_> = entries
                        .filter_map(|entry| {
                            let id = internal(&entry.id())?;
                            Some((entry.key.into_owned(), entry.value.into_value(), id))
                        })
                        .collect();
                    for (key, value, id) in entries {
                        match value {
                            Value::Object(kind) => {
                                let made = self.doc.put_object(&copy.to, key, kind)?;
                                copies.push_back(Copy::new(id, made, kind, copy.change));
                            }
                            Value::Scalar(scalar) => {
                                let counter = matches!(*scalar, ScalarValue::Counter(_));
                                self.doc.put(&copy.to, key.as_str(), scalar.into_owned())?;
                                if counter {
                                    self.alias(Some(&to), Prop::Map(key), &id)?;
                                }
                            }
                        }
                    }
                }
                ObjType::List | ObjType::Text => {
                    let exact = copy.kind == ObjType::List;
                    let items = self.items(Some(&copy.from), Some(heads), exact);
                    let from = Some(&copy.from);
                    let mut more =
                        self.insert(from, Some(&to), copy.kind, 0, &items, copy.change)?;
                    copies.append(&mut more);
                }
            }
        }
        Ok(())
    }

    /// The value at `prop` is what became of the counter `from`.
    fn alias(&mut self, target: Option<&Id>, prop: Prop, from: &Id) -> Done {
        let made = self.doc.get(id_of(target), prop)?;
        if let Some(to) = made.and_then(|(_, id)| internal(&id)) {
            self.aliases.add_value(from, &to);
        }
        Ok(())
    }

    /// The element at `position` of `target` is what became of `item`, which was in `from`.
    fn alias_element(
        &mut self,
        from: Option<&Id>,
        target: Option<&Id>,
        position: usize,
        item: &Item,
    ) -> Done {
        let made = self.doc.get(id_of(target), position)?;
        if let Some(id) = made.and_then(|(_, id)| internal(&id)) {
            if is_counter(&item.value) {
                self.aliases.add_value(&item.winner, &id);
            }
            let from = Place {
                object: from.cloned(),
                id: item.element.clone(),
            };
            let to = Place {
                object: target.cloned(),
                id,
            };
            self.aliases.add_element(from, &to);
        }
        Ok(())
    }

    /// Where the element `element` of what the step called `object` is.
    fn locate(&self, now: &Now<'_>, element: &Id) -> Option<Found> {
        let place = self.aliases.element(Place {
            object: now.named.cloned(),
            id: element.clone(),
        })?;
        if let Some(item) = now.elements.as_ref().and_then(|all| all.get(&place.id)) {
            return Some(Found {
                position: item.position,
                seen: Some(item.clone()),
            });
        }
        let at = id_of(now.object);
        let (actor, counter) = &place.id;
        let cursor = Cursor::try_from(format!("{counter}@{actor}")).ok()?;
        let position = self.doc.get_cursor_position(&at, &cursor, None).ok()?;
        let mut seen = None;
        if now.elements.is_none()
            && let Ok(Some((value, id))) = self.doc.get(&at, position)
            && let Some(winner) = internal(&id).filter(|winner| *winner == place.id)
        {
            let value = value.into_owned();
            seen = Some(Item {
                width: width(&value, ObjType::Text, self.doc.text_encoding()),
                element: winner.clone(),
                value,
                winner,
                position,
            });
        }
        Some(Found { position, seen })
    }

    /// All elements of a sequence. An element that was overwritten is known by its own id only if `exact`, which
    /// costs a string each.
    fn items(&self, object: Option<&Id>, heads: Option<&[ChangeHash]>, exact: bool) -> Vec<Item> {
        let at = id_of(object);
        let kind = self.doc.object_type(&at).unwrap_or(ObjType::List);
        let encoding = self.doc.text_encoding();
        let range = match heads {
            Some(heads) => self.doc.list_range_at(&at, .., heads),
            None => self.doc.list_range(&at, ..),
        };
        let mut position = 0;
        let mut items: Vec<Item> = range
            .filter_map(|item| {
                let winner = internal(&item.id())?;
                let value = item.value.into_value();
                let width = width(&value, kind, encoding);
                position += width;
                Some(Item {
                    element: winner.clone(),
                    value,
                    winner,
                    position: position - width,
                    width,
                })
            })
            .collect();
        if exact {
            let keys = match heads {
                Some(heads) => self.doc.keys_at(&at, heads),
                None => self.doc.keys(&at),
            };
            let keys: Vec<_> = keys.filter_map(|key| parse(&key)).collect();
            if keys.len() == items.len() {
                for (item, key) in items.iter_mut().zip(keys) {
                    item.element = key;
                }
            }
        }
        items
    }
}

/// An object that was made and is still to be filled.
struct Copy {
    from: Id,
    to: ObjId,
    kind: ObjType,
    change: usize,
}

impl Copy {
    fn new(from: Id, to: ObjId, kind: ObjType, change: usize) -> Self {
        Self {
            from,
            to,
            kind,
            change,
        }
    }
}

/// The value before `change`, without what earlier changes of the step added to it.
fn uncounted(value: &Value<'static>, winner: &Id, change: usize, slot: &Slot) -> Value<'static> {
    if let Some(ScalarValue::Counter(counter)) = value.as_scalar() {
        let ours = slot.sum(change, |id| id == winner);
        return Value::counter(i64::from(counter).wrapping_sub(ours));
    }
    value.clone()
}

fn is_counter(value: &Value<'_>) -> bool {
    value
        .as_scalar()
        .is_some_and(|scalar| matches!(scalar, ScalarValue::Counter(_)))
}

fn id_of(object: Option<&Id>) -> ObjId {
    object.map_or(ROOT, external)
}

fn parse(key: &str) -> Option<Id> {
    let (counter, actor) = key.split_once('@')?;
    Some((ActorId::try_from(actor).ok()?, counter.parse().ok()?))
}

/// How many positions an element takes.
fn width(value: &Value<'_>, kind: ObjType, encoding: TextEncoding) -> usize {
    if kind != ObjType::Text {
        return 1;
    }
    let text = value.as_str().unwrap_or("\u{fffc}");
    match encoding {
        TextEncoding::Utf8CodeUnit => text.len(),
        TextEncoding::Utf16CodeUnit => text.encode_utf16().count(),
        TextEncoding::UnicodeCodePoint => text.chars().count(),
        // One element each, as Automerge splits what it inserts.
        TextEncoding::GraphemeCluster => usize::from(!text.is_empty()),
    }
}
