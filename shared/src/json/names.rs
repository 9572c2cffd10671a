//! What names the elements of two lists.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::canonical::canonical;

/// What names an element within its list.
const KEYS: [&str; 3] = ["id", "_id", "key"];

/// Of one element, next to those of both lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// It has none.
    Nothing,
    /// It is the only one with this name in its list, and the one at this position the only one in the other.
    Same(usize),
    /// None of the other list has it.
    Alone,
    /// Some on both sides have it, more than one on one of them.
    Shared(String),
}

/// Of all elements, in order.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) old: Vec<Name>,
    pub(super) new: Vec<Name>,
}

impl Names {
    /// By the first of [`KEYS`] that names all of both, each another; else by the first that names any that is in both.
    pub(super) fn of(from: &[Json], to: &[Json]) -> Self {
        let mut some = None;
        for key in KEYS {
            let names = Self::by(from, to, key);
            let mut all = names.old.iter().chain(&names.new);
            if all.all(|name| matches!(name, Name::Same(_) | Name::Alone)) {
                return names;
            }
            let has_same = names.new.iter().any(|name| matches!(name, Name::Same(_)));
            some = some.or(has_same.then_some(names));
        }
        some.unwrap_or_else(|| Self {
            old: vec![Name::Nothing; from.len()],
            new: vec![Name::Nothing; to.len()],
        })
    }

    fn by(from: &[Json], to: &[Json], key: &str) -> Self {
        let name = |element: &Json| match element.get(key) {
            Some(name @ (Json::String(_) | Json::Number(_))) => Some(canonical(name)),
            _ => None,
        };
        let names = |elements: &[Json]| elements.iter().map(name).collect::<Vec<_>>();
        let (from, to) = (names(from), names(to));
        let (old, new) = (Where::of(&from), Where::of(&to));
        Self {
            old: named(&from, &old, &new),
            new: named(&to, &new, &old),
        }
    }

    /// Positions of elements that are the same, in both lists, in the order of the new one.
    pub(super) fn same(&self) -> Vec<(usize, usize)> {
        let new = self.new.iter().enumerate();
        let same = new.filter_map(|(new, name)| match name {
            Name::Same(old) => Some((*old, new)),
            _ => None,
        });
        same.collect()
    }
}

fn named(names: &[Option<String>], here: &Where<'_>, there: &Where<'_>) -> Vec<Name> {
    let name = |name: &Option<String>| {
        let Some(name) = name else {
            return Name::Nothing;
        };
        match (here.0.get(name.as_str()), there.0.get(name.as_str())) {
            (Some(Some(_)), Some(Some(other))) => Name::Same(*other),
            // Twice in its own list, it is not named by that.
            (Some(Some(_)), None) => Name::Alone,
            _ => Name::Shared(name.clone()),
        }
    };
    names.iter().map(name).collect()
}

/// Where each name is; nothing for one that is in more than one place.
struct Where<'a>(HashMap<&'a str, Option<usize>>);

impl<'a> Where<'a> {
    fn of(names: &'a [Option<String>]) -> Self {
        let mut places = HashMap::new();
        for (at, name) in names.iter().enumerate() {
            if let Some(name) = name {
                let place = places.entry(name.as_str());
                place.and_modify(|place| *place = None).or_insert(Some(at));
            }
        }
        Self(places)
    }
}
