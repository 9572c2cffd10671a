//! What is gone comes back as a copy, and its name leads to the copy from then on.

use std::collections::VecDeque;

use automerge::{
    AutomergeError, ObjId, ObjType, Prop, ReadDoc, ScalarValue, Value, hydrate,
    transaction::Transactable,
};

use super::{
    alias::{Id, Place, external, internal},
    inverse::{Done, Inverse},
    item::{Item, id_of, is_counter, items},
};

impl Inverse<'_> {
    /// Writes a former value.
    pub(super) fn restore(
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

    /// Inserts copies of `items`; the objects among them are still to be filled.
    pub(super) fn insert(
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
    pub(super) fn copy_all(&mut self, mut copies: VecDeque<Copy>) -> Done {
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
                    let items = items(self.doc, Some(&copy.from), Some(heads), exact);
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
}

/// An object that was made and is still to be filled.
pub(super) struct Copy {
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
