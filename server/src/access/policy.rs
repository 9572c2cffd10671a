//! What somebody may do with a document: from who they are and what is known of the document to a [`Role`]. Pure.
//!
//! In this order: nothing, with what was deleted; everything, where nobody has to say who they are; everything, for
//! operators; what their token grants, if it grants anything at all, and nothing else then; what an application decides,
//! where one is [asked](super::webhook), and nothing else then; else what the document's list says. What is not there yet belongs to whoever may make documents. What has no list, since it is older than lists or
//! came from a server that asks nobody, is the operators' until they give it one.

use std::fmt;
use std::str::FromStr;

use concord_shared::access::{AccessList, Role, Subject};
use concord_shared::ids::{DocumentId, PrincipalId};

use super::identity::Identity;

/// What settings call everybody.
const ANYONE: &str = "anyone";

/// Begins a group's name in settings.
const GROUP: &str = "group:";

/// Whom a setting is about: `anyone`, `group:NAME`, or the name of a principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Everybody whom the server lets in.
    Anyone,
    /// The members of a group.
    Group(String),
    /// One principal.
    Principal(String),
}

impl Whom {
    /// Whether this is about them.
    fn is(&self, identity: &Identity) -> bool {
        match self {
            Self::Anyone => true,
            Self::Group(name) => identity.groups.contains(name),
            Self::Principal(name) => identity.principal.as_str() == name,
        }
    }

    /// As an entry of a list has it.
    pub fn as_subject(&self) -> Subject<'_> {
        match self {
            Self::Anyone => Subject::Anyone,
            Self::Group(name) => Subject::Group(name),
            Self::Principal(name) => Subject::Principal(name),
        }
    }
}

/// A setting that names nobody, or no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// Neither `anyone` nor a name.
    #[error("{0:?} is not anyone, group:NAME or a principal's name")]
    Whom(String),
    /// Not a pair, or not of a role.
    #[error("{0:?} is not WHOM=ROLE, with reader, writer or owner for the role")]
    Share(String),
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str(ANYONE),
            Self::Group(name) => write!(f, "{GROUP}{name}"),
            Self::Principal(name) => f.write_str(name),
        }
    }
}

impl FromStr for Whom {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let name = text.strip_prefix(GROUP).unwrap_or(text);
        if PrincipalId::new(name).is_err() {
            return Err(SettingError::Whom(text.to_owned()));
        }
        Ok(match text {
            ANYONE => Self::Anyone,
            _ if text.starts_with(GROUP) => Self::Group(name.to_owned()),
            _ => Self::Principal(name.to_owned()),
        })
    }
}

/// A role that somebody gets in each new document: `WHOM=ROLE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    whom: Whom,
    role: Role,
}

impl Share {
    /// Puts it into a list.
    pub fn give(&self, list: &mut AccessList) {
        list.set(self.whom.as_subject(), self.role);
    }
}

impl FromStr for Share {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let bad = || SettingError::Share(text.to_owned());
        let (whom, role) = text.rsplit_once('=').ok_or_else(bad)?;
        Ok(Self {
            whom: whom.parse()?,
            role: role.parse().map_err(|_| bad())?,
        })
    }
}

/// What is known of a document, as far as it matters to who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is none of this id, and there was none.
    Unborn,
    /// It was deleted, and is nobody's.
    Deleted,
    /// It is there, and nobody ever said who may do what.
    Unlisted,
    /// There is none, and somebody is about to make it, with this list. Nothing of that is stored.
    Claimed(PrincipalId, AccessList),
    /// The last that was said, and how many times something was said before.
    Listed(u64, AccessList),
}

/// What a token grants: roles by document or by how an id begins (`PREFIX*`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claimed(pub Vec<(String, Role)>);

impl Claimed {
    /// By the document's own name, or the longest beginning.
    fn role(&self, document: &DocumentId) -> Role {
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => document.as_str().starts_with(prefix),
            None => document.as_str() == pattern,
        };
        let fitting = self.0.iter().filter(|(pattern, _)| fits(pattern));
        let closest = fitting.max_by_key(|(pattern, _)| (!pattern.ends_with('*'), pattern.len()));
        closest.map_or(Role::None, |(_, role)| *role)
    }
}

/// Who may do what, by the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Nobody has to say who they are, so everybody may do everything.
    pub is_open: bool,
    /// Who may do everything with every document, and see what concerns the server.
    pub operators: Vec<Whom>,
    /// Who may make documents.
    pub creators: Vec<Whom>,
    /// Who gets which role in each of them, beside whoever makes it.
    pub shares: Vec<Share>,
}

impl Rules {
    /// Where nobody has to say who they are.
    pub fn open() -> Self {
        Self {
            is_open: true,
            operators: Vec::new(),
            creators: Vec::new(),
            shares: Vec::new(),
        }
    }

    /// Where nobody has to say who they are, and all who come are operators: documents have their lists.
    pub fn of_operators() -> Self {
        Self {
            is_open: false,
            operators: vec![Whom::Anyone],
            ..Self::open()
        }
    }

    /// Whether they may see what concerns the server, and not one document.
    pub fn is_operator(&self, identity: &Identity) -> bool {
        self.is_open || is_among(&self.operators, identity)
    }

    /// What somebody may do. `decided`: by an application, where one is asked.
    pub fn role(
        &self,
        identity: &Identity,
        document: &DocumentId,
        standing: &Standing,
        decided: Option<Role>,
    ) -> Role {
        if *standing == Standing::Deleted {
            return Role::None;
        }
        if self.is_operator(identity) {
            return Role::Owner;
        }
        let claimed = identity.claimed.as_ref();
        if let Some(role) = claimed.map(|all| all.role(document)).or(decided) {
            // Who makes a document owns it.
            let may = *standing != Standing::Unborn || role == Role::Owner;
            return if may { role } else { Role::None };
        }
        match standing {
            Standing::Unborn if is_among(&self.creators, identity) => Role::Owner,
            Standing::Unborn | Standing::Unlisted | Standing::Deleted => Role::None,
            Standing::Claimed(_, list) | Standing::Listed(_, list) => {
                list.role(identity.principal.as_str(), &identity.groups)
            }
        }
    }

    /// Whether somebody is told that a document is there, which they may not know: what `anyone` may do is for those who
    /// know its id.
    pub fn is_listed(
        &self,
        identity: &Identity,
        document: &DocumentId,
        standing: &Standing,
    ) -> bool {
        let named = match standing {
            Standing::Claimed(_, list) | Standing::Listed(_, list)
                if identity.claimed.is_none() =>
            {
                let principal = identity.principal.as_str();
                list.role_by_name(principal, &identity.groups).is_some()
            }
            _ => true,
        };
        let role = self.role(identity, document, standing, None);
        role >= Role::Reader && (named || self.is_operator(identity))
    }

    /// The list of a document that somebody makes.
    pub fn list_of(&self, creator: &PrincipalId) -> AccessList {
        let mut list = AccessList::default();
        for share in &self.shares {
            share.give(&mut list);
        }
        list.set(Subject::Principal(creator.as_str()), Role::Owner);
        list
    }
}

fn is_among(all: &[Whom], identity: &Identity) -> bool {
    all.iter().any(|whom| whom.is(identity))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::access::identity::who;

    fn id(text: &str) -> DocumentId {
        DocumentId::new(text).unwrap()
    }

    fn whom(texts: &[&str]) -> Vec<Whom> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn rules() -> Rules {
        Rules {
            is_open: false,
            operators: whom(&["root", "group:ops"]),
            creators: whom(&["group:staff", "eve"]),
            shares: vec!["group:board=reader".parse().unwrap()],
        }
    }

    #[test]
    fn who_makes_a_document_owns_it_and_others_get_what_settings_say() {
        let rules = rules();
        let listed = Standing::Listed(0, rules.list_of(&PrincipalId::new("ann").unwrap()));
        let document = id("d");
        let role = |who: &Identity, standing: &Standing| rules.role(who, &document, standing, None);
        for (who, unborn, unlisted, of_ann) in [
            (who("ann", &["staff"]), Role::Owner, Role::None, Role::Owner),
            (who("eve", &[]), Role::Owner, Role::None, Role::None),
            (who("bob", &["board"]), Role::None, Role::None, Role::Reader),
            (who("cyd", &[]), Role::None, Role::None, Role::None),
            (who("root", &[]), Role::Owner, Role::Owner, Role::Owner),
            (who("dan", &["ops"]), Role::Owner, Role::Owner, Role::Owner),
            // Names of people are no names of groups, nor the other way round.
            (
                who("ops", &["root", "ann"]),
                Role::None,
                Role::None,
                Role::None,
            ),
        ] {
            assert_eq!(role(&who, &Standing::Unborn), unborn, "{who:?}");
            assert_eq!(role(&who, &Standing::Unlisted), unlisted, "{who:?}");
            assert_eq!(role(&who, &listed), of_ann, "{who:?}");
        }
    }

    #[test]
    fn a_share_does_not_take_from_whoever_makes_the_document() {
        let mut rules = rules();
        rules.shares = vec![
            "ann=reader".parse().unwrap(),
            "anyone=writer".parse().unwrap(),
        ];
        let list = rules.list_of(&PrincipalId::new("ann").unwrap());
        assert_eq!(list.role("ann", &[]), Role::Owner);
        assert_eq!(list.role("bob", &[]), Role::Writer);
        assert_eq!(list.check(), Ok(()));
    }

    #[test]
    fn a_token_that_grants_something_grants_nothing_else() {
        let rules = rules();
        let mut ann = who("ann", &["staff"]);
        let claimed = [
            ("team-*", Role::Reader),
            ("team-a*", Role::Writer),
            ("team-a1", Role::None),
            ("team-x*", Role::Owner),
        ];
        let claimed = claimed.map(|(pattern, role)| (pattern.to_owned(), role));
        ann.claimed = Some(Arc::new(Claimed(claimed.to_vec())));
        let listed = Standing::Listed(0, rules.list_of(&ann.principal));
        for (document, there, unborn) in [
            ("team-1", Role::Reader, Role::None),
            ("team-a2", Role::Writer, Role::None),
            ("team-a1", Role::None, Role::None),
            ("team-x9", Role::Owner, Role::Owner),
            ("other", Role::None, Role::None),
        ] {
            let role = |standing: &Standing| rules.role(&ann, &id(document), standing, None);
            assert_eq!(role(&listed), there, "{document}");
            assert_eq!(role(&Standing::Unlisted), there, "{document}");
            assert_eq!(role(&Standing::Unborn), unborn, "{document}");
        }
        ann.claimed = Some(Arc::default());
        assert_eq!(rules.role(&ann, &id("team-1"), &listed, None), Role::None);
    }

    #[test]
    fn who_is_told_of_a_document_is_named_or_an_operator() {
        let rules = rules();
        let list = r#"{"anyone": "writer", "groups": {"board": "reader", "guests": "none"},
            "principals": {"ann": "owner", "bob": "none"}}"#;
        let listed = Standing::Listed(0, serde_json::from_str(list).unwrap());
        let document = id("d");
        let mut claims = who("cyd", &[]);
        claims.claimed = Some(Arc::new(Claimed(vec![("d".to_owned(), Role::Reader)])));
        for (who, is_told) in [
            (who("ann", &[]), true),
            (who("bob", &["board"]), false),
            (who("cyd", &["board"]), true),
            (who("cyd", &["guests"]), false),
            // They may write to it, if they know its id.
            (who("cyd", &[]), false),
            (claims, true),
            (who("root", &[]), true),
        ] {
            let told = rules.is_listed(&who, &document, &listed);
            assert_eq!(told, is_told, "{who:?}");
            assert!(!rules.is_listed(&who, &document, &Standing::Deleted));
        }
    }

    #[test]
    fn what_an_application_decides_goes_before_lists_and_behind_the_rest() {
        let rules = rules();
        let document = id("d");
        let (ann, root) = (who("ann", &["staff"]), who("root", &[]));
        let listed = Standing::Listed(0, rules.list_of(&ann.principal));
        let role = |who: &Identity, standing: &Standing, decided: Role| {
            rules.role(who, &document, standing, Some(decided))
        };
        assert_eq!(role(&ann, &listed, Role::None), Role::None);
        assert_eq!(role(&ann, &listed, Role::Reader), Role::Reader);
        assert_eq!(role(&ann, &Standing::Unlisted, Role::Writer), Role::Writer);
        assert_eq!(role(&ann, &Standing::Unborn, Role::Writer), Role::None);
        assert_eq!(role(&ann, &Standing::Unborn, Role::Owner), Role::Owner);
        assert_eq!(role(&ann, &Standing::Deleted, Role::Owner), Role::None);
        assert_eq!(role(&root, &listed, Role::None), Role::Owner);
        let mut claims = ann;
        claims.claimed = Some(Arc::new(Claimed(vec![("d".to_owned(), Role::Reader)])));
        assert_eq!(role(&claims, &listed, Role::Owner), Role::Reader);
    }

    #[test]
    fn where_nobody_says_who_they_are_everybody_may_do_everything() {
        let rules = Rules::open();
        let anonymous = Identity::anonymous();
        for standing in [
            Standing::Unborn,
            Standing::Unlisted,
            Standing::Listed(3, AccessList::default()),
        ] {
            assert_eq!(
                rules.role(&anonymous, &id("d"), &standing, None),
                Role::Owner
            );
        }
        assert!(rules.is_operator(&anonymous));
        // But not with what is not there any more.
        assert_eq!(
            rules.role(&anonymous, &id("d"), &Standing::Deleted, None),
            Role::None
        );
    }

    #[test]
    fn settings_name_somebody_and_a_role() {
        assert_eq!(
            "group:a=b=writer".parse(),
            Ok(Share {
                whom: Whom::Group("a=b".into()),
                role: Role::Writer
            })
        );
        assert_eq!("anyone".parse(), Ok(Whom::Anyone));
        assert_eq!("group:board".parse(), Ok(Whom::Group("board".into())));
        assert_eq!("ann".parse(), Ok(Whom::Principal("ann".into())));
        assert_eq!("group:anyone".parse(), Ok(Whom::Group("anyone".into())));
        for bad in ["", "group:", "a\nb"] {
            assert!(bad.parse::<Whom>().is_err(), "{bad:?}");
        }
        for bad in ["ann", "ann=king", "=reader", "ann="] {
            assert!(bad.parse::<Share>().is_err(), "{bad:?}");
        }
    }
}
