//! How lists and texts are taken back: all edits are planned on the sequence as it is, then made from its end.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use automerge::{ObjType, Prop, ReadDoc, Value, hydrate, transaction::Transactable};

use super::{
    alias::{Id, Place, internal},
    inverse::{Done, Inverse, uncounted},
    item::{Item, cursor, id_of, is_counter, items, items_around, width},
    step::{Former, Slots},
};

/// Former neighbours that are asked whether they are still there, on each side of a run that returns; beyond
/// it the tombstone alone says where.
const MAX_NEIGHBOURS: usize = 256;

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

impl Now<'_> {
    /// What the step overwrote in an element.
    fn former(&self, element: &Id) -> Option<Former<'_>> {
        self.slots.elements.get(element)?.net(self.until).former
    }
}

#[derive(Debug)]
enum Edit {
    Delete { width: usize },
    Put { item: Item, change: usize },
    Increment { by: i64 },
    Insert { items: Vec<Item>, change: usize },
}

impl Inverse<'_> {
    pub(super) fn undo_sequence(
        &mut self,
        object: Option<&Id>,
        target: Option<&Id>,
        kind: ObjType,
        slots: &Slots,
        until: usize,
    ) -> Done {
        // In a text, elements are looked at one by one unless one of them was overwritten: its winning value
        // has another id than the element.
        let exact = kind == ObjType::List
            || slots.elements.iter().any(|(element, slot)| {
                let net = slot.net(until);
                let own_value = net.deleted && net.former.is_none_or(|it| it.ids.contains(element));
                !slot.inserted && !own_value
            });
        let now = Now {
            named: object,
            object: target,
            slots,
            until,
            elements: exact.then(|| {
                let items = items(self.doc, target, None, true).into_iter();
                items.map(|item| (item.element.clone(), item)).collect()
            }),
        };
        let mut edits = Vec::new();
        let mut going = HashSet::new();
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
                        // An element and its copy, both of this step, are the same now.
                        if going.insert(item.element) {
                            edits.push((item.position, Edit::Delete { width: item.width }));
                        }
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
        // The earliest version first: what was there at once comes back in the order it had there.
        let former_change = |element: &Id| now.former(element).map(|former| former.change);
        while let Some(change) = wanted.keys().copied().filter_map(former_change).min() {
            let heads = self.step.heads(change);
            let then = if exact {
                items(self.doc, object, Some(heads), true)
            } else {
                let is_wanted = |element: &Id| wanted.contains_key(element);
                items_around(
                    self.doc,
                    object,
                    heads,
                    MAX_NEIGHBOURS,
                    wanted.len(),
                    is_wanted,
                )
            };
            self.former_edits(&now, change, &then, &mut wanted, &mut edits)?;
            wanted.retain(|element, _| former_change(element).is_some_and(|later| later > change));
        }
        self.apply(object, target, kind, edits)
    }

    /// The edits for those wanted elements that are in `then`, the elements before `pass`.
    fn former_edits(
        &self,
        now: &Now<'_>,
        pass: usize,
        then: &[Item],
        wanted: &mut HashMap<&Id, (usize, bool)>,
        edits: &mut Vec<(usize, Edit)>,
    ) -> Done {
        // The end of the run that is being inserted, and the bounds of what it may be inserted at.
        let mut run: Option<(usize, usize, usize)> = None;
        for (index, item) in then.iter().enumerate() {
            let Some(slot) = now.slots.elements.get(&item.element) else {
                continue;
            };
            let former = slot.net(now.until).former;
            let is_here =
                |former: &Former<'_>| former.change == pass || former.ids.contains(&item.winner);
            let Some(former) = former.filter(is_here) else {
                continue;
            };
            let Some((position, insert)) = wanted.remove(&item.element) else {
                continue;
            };
            let change = former.change;
            let mut item = item.clone();
            let lost = !former.ids.contains(&item.winner);
            let changed = change > pass && (former.ids.len() > 1 || is_counter(&item.value));
            if lost || changed {
                self.read_overwritten(now, &mut item, former)?;
            }
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
        Ok(())
    }

    /// Gives an item the value that `former.change` overwrote, where another one was found: an earlier version's, since
    /// when a counter was counted on or another's write came to win, or the step's own.
    fn read_overwritten(&self, now: &Now<'_>, item: &mut Item, former: Former<'_>) -> Done {
        let (at, heads) = (id_of(now.named), self.step.heads(former.change));
        let Some(cursor) = cursor(&item.element) else {
            return Ok(());
        };
        let position = self.doc.get_cursor_position(&at, &cursor, Some(heads))?;
        let all = self.doc.get_all_at(&at, position, heads)?;
        if let Some((value, winner)) = former.winner(all) {
            let kind = self.doc.object_type(&at)?;
            item.width = width(&value, kind, self.doc.text_encoding());
            (item.value, item.winner) = (value, winner);
        }
        Ok(())
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
        let cursor = cursor(&place.id)?;
        let position = self.doc.get_cursor_position(&at, &cursor, None).ok()?;
        let mut seen = None;
        if now.elements.is_none()
            && let Ok(Some((value, id))) = self.doc.get(&at, position)
            && let Some(winner) = internal(&id).filter(|winner| *winner == place.id)
        {
            let encoding = self.doc.text_encoding();
            let value = value.into_owned();
            seen = Some(Item::new(winner, value, position, ObjType::Text, encoding));
        }
        Some(Found { position, seen })
    }
}
