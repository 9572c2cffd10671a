//! Which documents there are for somebody, a page at a time: only what is theirs is looked at, so neither what is found nor
//! how long that takes depends on anything else.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::RangeInclusive;

use concord_shared::ids::DocumentId;

use crate::access::{Grants, Identity, Search};
use crate::store::{DocumentInfo, Ids, Label, Store, StoreError};

/// Documents that have somebody in their lists that are looked at for one page. Nearly all of them are shown; not those
/// that were deleted and are kept still, or that are not there yet.
const DOCUMENTS_LOOKED_AT: usize = 1000;

/// Ids that are read at a time, of all labels together.
const IDS_READ: usize = 1000;

/// Of each label so many at least, and at most.
const IDS_OF_A_LABEL: RangeInclusive<usize> = 4..=256;

/// Documents behind `after` that somebody is told of, and where the next page goes on: behind a full page always, whatever
/// there is. Blocks.
pub(super) fn readable(
    store: &dyn Store,
    grants: &Grants,
    who: &Identity,
    after: Option<&DocumentId>,
    limit: usize,
) -> Result<(Vec<DocumentInfo>, Option<DocumentId>), StoreError> {
    let is_listed = |document: &DocumentId| grants.is_listed(who, document);
    let found = match grants.search(who) {
        Search::All => store.documents(after, limit)?,
        Search::Among(all) => among(store, &all, after, limit, is_listed)?,
        Search::Labelled { any, unless } => {
            let merged = Merged::new(store, &any, unless, after)?;
            return labelled(store, merged, limit, is_listed);
        }
    };
    let last = found.last().filter(|_| found.len() >= limit);
    let next = last.map(|info| info.document.clone());
    Ok((found, next))
}

fn among(
    store: &dyn Store,
    all: &[Ids],
    after: Option<&DocumentId>,
    limit: usize,
    is_listed: impl Fn(&DocumentId) -> Result<bool, StoreError>,
) -> Result<Vec<DocumentInfo>, StoreError> {
    let mut found = Vec::new();
    for ids in all {
        let mut ids = after.map_or(ids.clone(), |after| ids.clone().behind(after));
        while found.len() < limit && !ids.are_none() {
            let wanted = limit - found.len();
            let some = store.documents_among(&ids, wanted)?;
            let last = some.last().filter(|_| some.len() == wanted);
            let last = last.map(|info| info.document.clone());
            for info in some {
                // It may have been deleted meanwhile.
                if is_listed(&info.document)? {
                    found.push(info);
                }
            }
            let Some(last) = last else {
                break;
            };
            ids = ids.behind(&last);
        }
    }
    Ok(found)
}

fn labelled(
    store: &dyn Store,
    mut merged: Merged<'_>,
    limit: usize,
    is_listed: impl Fn(&DocumentId) -> Result<bool, StoreError>,
) -> Result<(Vec<DocumentInfo>, Option<DocumentId>), StoreError> {
    let mut found = Vec::new();
    let mut last = None;
    for _ in 0..DOCUMENTS_LOOKED_AT {
        let Some(document) = merged.following()? else {
            return Ok((found, None));
        };
        if is_listed(&document)? {
            found.extend(store.info(&document)?);
        }
        last = Some(document);
        if found.len() == limit {
            break;
        }
    }
    Ok((found, last))
}

/// Ids that have any of some labels, in order, each once, unless they have another one, too.
struct Merged<'s> {
    store: &'s dyn Store,
    labelled: Vec<Labelled>,
    /// Of each that has more the next id.
    heads: BinaryHeap<Reverse<(DocumentId, usize)>>,
    unless: Label,
    last: Option<DocumentId>,
}

/// Ids with one label, in order.
struct Labelled {
    label: Label,
    read: VecDeque<DocumentId>,
    /// Up to where they were read.
    after: Option<DocumentId>,
    /// `None`: to the end.
    at_a_time: Option<usize>,
}

impl<'s> Merged<'s> {
    fn new(
        store: &'s dyn Store,
        any: &[Label],
        unless: Label,
        after: Option<&DocumentId>,
    ) -> Result<Self, StoreError> {
        let each = IDS_READ / any.len().max(1);
        let each = each.clamp(*IDS_OF_A_LABEL.start(), *IDS_OF_A_LABEL.end());
        let labelled = any.iter().map(|label| Labelled {
            label: *label,
            read: VecDeque::new(),
            after: after.cloned(),
            at_a_time: Some(each),
        });
        let mut merged = Self {
            store,
            labelled: labelled.collect(),
            heads: BinaryHeap::new(),
            unless,
            last: None,
        };
        for of in 0..any.len() {
            merged.advance(of)?;
        }
        Ok(merged)
    }

    /// Those that have the other label are not counted by whoever bounds what is looked at: by where a page ends they
    /// could be found.
    fn following(&mut self) -> Result<Option<DocumentId>, StoreError> {
        while let Some(Reverse((document, of))) = self.heads.pop() {
            self.advance(of)?;
            if self.last.as_ref() == Some(&document) {
                continue;
            }
            self.last = Some(document.clone());
            if !self.store.is_labelled(&document, &self.unless)? {
                return Ok(Some(document));
            }
        }
        Ok(None)
    }

    fn advance(&mut self, of: usize) -> Result<(), StoreError> {
        if let Some(labelled) = self.labelled.get_mut(of)
            && let Some(document) = labelled.following(self.store)?
        {
            self.heads.push(Reverse((document, of)));
        }
        Ok(())
    }
}

impl Labelled {
    fn following(&mut self, store: &dyn Store) -> Result<Option<DocumentId>, StoreError> {
        if let Some(wanted) = self.at_a_time.filter(|_| self.read.is_empty()) {
            let some = store.labelled(&self.label, self.after.as_ref(), wanted)?;
            if some.len() < wanted {
                self.at_a_time = None;
            }
            self.after = some.last().cloned();
            self.read = some.into();
        }
        Ok(self.read.pop_front())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use concord_shared::access::{AccessList, Role};
    use concord_shared::ids::PrincipalId;

    use super::*;
    use crate::access::Rules;
    use crate::access::grants::Entry;
    use crate::access::identity::who;
    use crate::access::policy::Claimed;
    use crate::access::search::labels_of;
    use crate::store::{Durability, MemoryStore, Write};

    fn id(text: &str) -> DocumentId {
        DocumentId::new(text).unwrap()
    }

    fn listed(id: &str, list: &str) -> Write {
        let list: AccessList = serde_json::from_str(list).unwrap();
        let labels = labels_of(&list);
        let by = "ann".to_owned();
        Write::Access {
            document: self::id(id),
            number: 0,
            entry: Entry { at_ms: 0, by, list }.encode(),
            labels,
        }
    }

    fn change(id: &str) -> Write {
        Write::Append {
            document: self::id(id),
            first: 0,
            received_at_ms: 0,
            principal: PrincipalId::new("ann").unwrap(),
            changes: vec![Bytes::from_static(b"change")],
        }
    }

    const OF_ANN: &str = r#"{"principals": {"ann": "owner"}}"#;
    const OF_BOB: &str = r#"{"principals": {"bob": "owner"}}"#;

    struct World {
        store: Arc<MemoryStore>,
        grants: Grants,
    }

    impl World {
        fn new() -> Self {
            let store = Arc::new(MemoryStore::new());
            let rules = Rules {
                is_open: false,
                operators: vec!["root".parse().unwrap()],
                ..Rules::open()
            };
            let grants = Grants::new(rules, None, Arc::clone(&store) as Arc<dyn Store>);
            Self { store, grants }
        }

        fn commit(&self, writes: &[Write]) {
            self.store.commit(writes, Durability::Strict).unwrap();
        }

        fn document(&self, id: &str, list: &str) {
            self.commit(&[listed(id, list), change(id)]);
        }

        /// Of each page the ids, and whether there is a next one.
        fn pages(&self, who: &Identity, limit: usize) -> Vec<(Vec<String>, bool)> {
            let (mut pages, mut after) = (Vec::new(), None);
            loop {
                let page = readable(&*self.store, &self.grants, who, after.as_ref(), limit);
                let (found, next) = page.unwrap();
                let found = found.iter().map(|info| info.document.to_string());
                pages.push((found.collect(), next.is_some()));
                after = next;
                if after.is_none() {
                    return pages;
                }
            }
        }

        fn all(&self, who: &Identity, limit: usize) -> Vec<String> {
            let pages = self.pages(who, limit);
            let full = pages.iter().rev().skip(1);
            assert!(full.into_iter().all(|(found, _)| found.len() == limit));
            pages.into_iter().flat_map(|(found, _)| found).collect()
        }
    }

    #[test]
    fn what_is_not_for_somebody_changes_nothing_in_their_pages() {
        // By name, and by a group; kept out of what a group may read; open to who knows the id.
        let foreign = [
            OF_BOB,
            r#"{"groups": {"staff": "reader"}, "principals": {"bob": "owner", "ann": "none"}}"#,
            r#"{"groups": {"staff": "none", "board": "owner"}}"#,
            r#"{"anyone": "writer", "principals": {"bob": "owner"}}"#,
        ];
        let ann = who("ann", &["staff"]);
        let world = |foreign: &[String]| {
            let world = World::new();
            world.document("k", OF_ANN);
            world.document("p", r#"{"groups": {"staff": "reader"}}"#);
            for (number, list) in foreign.iter().enumerate() {
                for before in ["a", "l", "z"] {
                    world.document(&format!("{before}{number}"), list);
                }
            }
            world
        };
        let alone = world(&[]);
        for list in foreign {
            // More than are looked at for a page.
            let among = world(&vec![list.to_owned(); 1_200]);
            for limit in [1, 2, 3, 4, 1_000] {
                let pages = among.pages(&ann, limit);
                assert_eq!(pages, alone.pages(&ann, limit), "{limit} {list}");
            }
        }
        let pages = alone.pages(&ann, 3);
        assert_eq!(pages, [(vec!["k".to_owned(), "p".to_owned()], false)]);
    }

    #[test]
    fn each_is_found_once_by_whichever_name_and_in_order() {
        let world = World::new();
        let mut expected = Vec::new();
        for number in 0..700 {
            let id = format!("{number:04}");
            let list = match number % 7 {
                0 => OF_ANN,
                1 => r#"{"groups": {"staff": "reader"}}"#,
                2 => {
                    r#"{"groups": {"staff": "none", "board": "reader"}, "principals": {"ann": "writer"}}"#
                }
                3 => r#"{"groups": {"staff": "writer", "board": "reader"}}"#,
                _ => OF_BOB,
            };
            world.document(&id, list);
            if number % 7 < 4 {
                expected.push(id);
            }
        }
        let ann = who("ann", &["board", "staff", "elsewhere"]);
        for limit in [1, 7, 100, 399, 400, 401, 1_000] {
            assert_eq!(world.all(&ann, limit), expected, "{limit}");
        }
        assert_eq!(world.all(&who("cyd", &[]), 10), [""; 0]);
        assert_eq!(world.all(&who("root", &[]), 10).len(), 700);
    }

    #[test]
    fn what_is_not_there_is_passed_over_and_a_page_has_an_end() {
        let world = World::new();
        // Deleted, and lists of documents that nobody made yet.
        for number in 0..DOCUMENTS_LOOKED_AT {
            let id = format!("b{number}");
            world.commit(&[listed(&id, OF_ANN)]);
            if number % 2 == 0 {
                let document = self::id(&id);
                let by = PrincipalId::new("ann").unwrap();
                let (at_ms, bytes) = (0, 0);
                let delete = Write::Delete {
                    document,
                    at_ms,
                    by,
                    bytes,
                };
                world.commit(&[change(&id), delete]);
            }
        }
        world.document("a", OF_ANN);
        world.document("c", OF_ANN);
        let page = |ids: &[&str], more| (ids.iter().map(ToString::to_string).collect(), more);
        let expected: [(Vec<String>, bool); 2] = [page(&["a"], true), page(&["c"], false)];
        assert_eq!(world.pages(&who("ann", &[]), 10), expected);
    }

    #[test]
    fn who_has_grants_is_told_of_what_they_are_about() {
        let world = World::new();
        for id in ["a", "team-1", "team-10", "team-2", "team-3", "team-x1", "z"] {
            world.document(id, OF_BOB);
        }
        let claims = |patterns: &[(&str, Role)]| {
            let patterns = patterns
                .iter()
                .map(|(name, role)| ((*name).to_owned(), *role));
            Identity {
                claimed: Some(Arc::new(Claimed(patterns.collect()))),
                ..who("bob", &[])
            }
        };
        let (reader, none) = (Role::Reader, Role::None);
        for limit in 1..5 {
            let all = |patterns: &[(&str, Role)]| world.all(&claims(patterns), limit);
            assert_eq!(all(&[]), [""; 0]);
            assert_eq!(all(&[("z", reader), ("nobody", reader)]), ["z"]);
            let team = [("team-*", reader), ("team-x*", none), ("team-2", none)];
            assert_eq!(all(&team), ["team-1", "team-10", "team-3"]);
            assert_eq!(all(&[("*", reader)]).len(), 7);
        }
    }
}
