//! Where to look for the documents of somebody, so that nothing else is looked at: what they are told of, and the time it
//! takes, does not depend on documents that are not for them. Pure.
//!
//! A document's [labels](Label) are made of its list: one for each principal and group with a role, and another kind for
//! each principal whom the list keeps out, since one of their groups may be let in. What the list gives to `anyone` makes
//! none: it is for who knows the id. So the labels of somebody lead to what [`Rules::is_listed`] tells them of and to
//! nothing else; but whoever shows something asks that all the same, since what is known may have changed meanwhile.

use std::collections::BTreeSet;

use concord_shared::access::{AccessList, Role};
use sha2::{Digest as _, Sha256};

use super::identity::Identity;
use super::policy::{Claimed, Rules};
use crate::store::{Ids, LABEL_BYTES, Label};

/// Where the documents are that somebody is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Search {
    /// Everywhere.
    All,
    /// Those among these, which come in order.
    Among(Vec<Ids>),
    /// Those with any of these labels.
    Labelled {
        /// Of the principal, and of each group.
        any: Vec<Label>,
        /// Unless they have this one, too.
        unless: Label,
    },
}

/// What a label says of a document. Part of what is stored.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A principal has a role by their own name.
    Principal = 1,
    /// A group has a role.
    Group = 2,
    /// A principal has none, by their own name.
    KeptOut = 3,
}

impl Kind {
    /// A hash, cut: names are of any length. If two ever come to the same, lists still tell them apart.
    fn label(self, name: &str) -> Label {
        let mut hash = Sha256::new();
        hash.update([self as u8]);
        hash.update(name);
        let hash = hash.finalize();
        Label(hash.first_chunk().copied().unwrap_or([0; LABEL_BYTES]))
    }
}

/// The labels of a document with this list.
pub fn labels_of(list: &AccessList) -> Vec<Label> {
    let principals = list.principals.iter().map(|(name, role)| match role {
        Role::None => Kind::KeptOut.label(name),
        _ => Kind::Principal.label(name),
    });
    let groups = list.groups.iter().filter(|(_, role)| **role > Role::None);
    let groups = groups.map(|(name, _)| Kind::Group.label(name));
    principals.chain(groups).collect()
}

impl Rules {
    /// Where to look for what somebody is told of, where no application decides it.
    pub fn search(&self, identity: &Identity) -> Search {
        if self.is_operator(identity) {
            return Search::All;
        }
        if let Some(claimed) = &identity.claimed {
            return Search::Among(claimed.ids());
        }
        let principal = identity.principal.as_str();
        let groups = identity.groups.iter().map(|name| Kind::Group.label(name));
        let any: BTreeSet<Label> = groups.chain([Kind::Principal.label(principal)]).collect();
        Search::Labelled {
            any: any.into_iter().collect(),
            unless: Kind::KeptOut.label(principal),
        }
    }
}

impl Claimed {
    /// The ids for which there is a role.
    ///
    /// The patterns' bounds cut all ids into stretches; those in one stretch fit the same patterns, so what holds for the
    /// place where it begins holds for all of it.
    fn ids(&self) -> Vec<Ids> {
        let of_pattern = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => Ids::beginning_with(prefix),
            None => Ids::only(pattern),
        };
        let patterns: Vec<(Ids, bool, Role)> = self
            .0
            .iter()
            .map(|(pattern, role)| (of_pattern(pattern), pattern.ends_with('*'), *role))
            .collect();
        let bounds = patterns.iter().map(|(ids, ..)| ids.bounds());
        let bounds: BTreeSet<&[u8]> = bounds.flat_map(|ids| [ids.start, ids.end]).collect();
        let mut found: Vec<Ids> = Vec::new();
        for (from, to) in bounds.iter().zip(bounds.iter().skip(1)) {
            let fitting = patterns
                .iter()
                .filter(|(ids, ..)| ids.bounds().contains(from));
            let closest =
                fitting.max_by_key(|(ids, is_prefix, _)| (!is_prefix, ids.bounds().start));
            if closest.is_none_or(|(.., role)| *role < Role::Reader) {
                continue;
            }
            match found.last_mut() {
                Some(last) if last.bounds().end == *from => {
                    *last = Ids::between(last.bounds().start, to);
                }
                _ => found.push(Ids::between(from, to)),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use concord_shared::ids::DocumentId;

    use super::*;
    use crate::access::identity::who;
    use crate::access::policy::Standing;

    fn rules() -> Rules {
        Rules {
            is_open: false,
            operators: vec!["root".parse().unwrap()],
            ..Rules::open()
        }
    }

    fn claims(patterns: &[(&str, Role)]) -> Identity {
        let claimed = patterns
            .iter()
            .map(|(name, role)| ((*name).to_owned(), *role));
        Identity {
            claimed: Some(Arc::new(Claimed(claimed.collect()))),
            ..who("cyd", &["board"])
        }
    }

    #[test]
    fn golden_labels() {
        for (kind, name, label) in [
            (Kind::Principal, "ann", "fce4d7fb0b303c7de5f4679ed98e5ac3"),
            (Kind::Group, "ann", "d49e43cfd7a411c1f1fac8b936829b20"),
            (Kind::KeptOut, "ann", "39ac5aecbd6d1df4d2f53a6aadf357e2"),
        ] {
            assert_eq!(hex::encode(kind.label(name).0), label);
        }
    }

    #[test]
    fn labels_lead_to_what_somebody_is_told_of_and_to_nothing_else() {
        let rules = rules();
        let document = DocumentId::new("d").unwrap();
        let lists = [
            r#"{"principals": {"ann": "owner"}}"#,
            r#"{"anyone": "writer", "principals": {"ann": "reader", "bob": "none"}}"#,
            r#"{"groups": {"board": "reader", "guests": "none"}, "principals": {"ann": "none"}}"#,
            r#"{"groups": {"board": "none", "staff": "writer"}}"#,
            r#"{"groups": {"ann": "owner"}, "principals": {"board": "owner"}}"#,
            r#"{"anyone": "owner"}"#,
        ];
        let mut told = 0;
        for list in lists {
            let list: AccessList = serde_json::from_str(list).unwrap();
            let labels = labels_of(&list);
            let listed = Standing::Listed(0, list);
            for name in ["ann", "bob", "board"] {
                for groups in [
                    &[][..],
                    &["board"],
                    &["guests"],
                    &["guests", "board", "board"],
                    &["staff", "board"],
                    &["ann"],
                ] {
                    let who = who(name, groups);
                    let Search::Labelled { any, unless } = rules.search(&who) else {
                        panic!("{who:?}");
                    };
                    let is_any = any.iter().any(|label| labels.contains(label));
                    let is_found = is_any && !labels.contains(&unless);
                    let is_told = rules.is_listed(&who, &document, &listed);
                    assert_eq!(is_found, is_told, "{who:?} {listed:?}");
                    told += usize::from(is_told);
                    let distinct: BTreeSet<_> = groups.iter().collect();
                    assert_eq!(any.len(), distinct.len() + 1);
                }
            }
        }
        assert!(told > 20, "{told}");
    }

    #[test]
    fn operators_look_everywhere_and_who_has_grants_where_these_are() {
        assert_eq!(rules().search(&who("root", &[])), Search::All);
        assert_eq!(Rules::open().search(&Identity::anonymous()), Search::All);
        let search = |patterns: &[(&str, Role)]| rules().search(&claims(patterns));
        let (reader, none) = (Role::Reader, Role::None);
        assert_eq!(search(&[]), Search::Among(vec![]));
        assert_eq!(search(&[("*", none), ("a*", none)]), Search::Among(vec![]));
        assert_eq!(search(&[("*", reader)]), Search::Among(vec![Ids::all()]));
        let apart = [Ids::only("a"), Ids::beginning_with("b")].to_vec();
        let patterns = [("a", reader), ("b*", Role::Owner), ("b1*", Role::Writer)];
        assert_eq!(search(&patterns), Search::Among(apart));
    }

    #[test]
    fn ids_with_a_role_are_those_that_the_patterns_give_one() {
        let (reader, writer, none) = (Role::Reader, Role::Writer, Role::None);
        let all = [
            "a",
            "aa",
            "aab",
            "aac",
            "ab",
            "b",
            "ba",
            "team-",
            "team-1",
            "team-10",
            "team-2",
            "z",
            "\u{10ffff}",
        ];
        for patterns in [
            &[("a*", reader), ("aa*", none), ("aab*", writer)][..],
            &[
                ("a*", none),
                ("aa", reader),
                ("aab*", reader),
                ("aa*", none),
            ],
            &[("team-*", reader), ("team-1", none), ("team-", none)],
            &[("team-1", reader), ("team-10", none), ("team-1*", none)],
            &[("team-1", none), ("team-10", reader), ("team-1*", writer)],
            &[
                ("*", reader),
                ("team-*", none),
                ("team-2", reader),
                ("z*", none),
            ],
            &[("a*", reader), ("b*", reader), ("\u{10ffff}*", reader)],
            &[("a\n*", reader), ("", reader), ("a\0", reader)],
            &[("b", reader), ("b*", none)],
        ] {
            let who = claims(patterns);
            let Search::Among(found) = rules().search(&who) else {
                panic!("{patterns:?}");
            };
            for id in all {
                let id = DocumentId::new(id).unwrap();
                let among = found.iter().filter(|ids| ids.contain(&id)).count();
                let is_told = rules().is_listed(&who, &id, &Standing::Unlisted);
                assert_eq!(among, usize::from(is_told), "{id} {patterns:?} {found:?}");
            }
            // In order, and apart.
            assert!(found.iter().all(|ids| !ids.are_none()));
            let apart = found
                .windows(2)
                .all(|two| two[0].bounds().end < two[1].bounds().start);
            assert!(apart, "{found:?}");
        }
    }
}
