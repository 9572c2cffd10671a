//! Who may do what with a document: roles, and the list of who has which.
//!
//! Of a list the most particular entry decides: a principal's own; else the highest of those of the principal's groups;
//! else that of anyone. So one person can be kept out of what a whole group may read.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::ID_BYTES;

/// Principals and groups that one list may name.
pub const ENTRIES_PER_LIST: usize = 256;

/// What somebody may do with a document. Each may do what those before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Nothing: for them the document is not there.
    None,
    /// Get it, and all that comes to it; its history; copies of it.
    Reader,
    /// Change it, and send ephemeral messages.
    Writer,
    /// Say who has which role; delete it.
    Owner,
}

impl Role {
    /// All of them, lowest first.
    pub const ALL: [Self; 4] = [Self::None, Self::Reader, Self::Writer, Self::Owner];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Owner => "owner",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No role has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a role is none, reader, writer or owner")]
pub struct NoRole;

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or(NoRole)
    }
}

/// Whom an entry of a list is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject<'a> {
    /// Everybody who knows the document's id, and whom the server lets in at all.
    Anyone,
    /// Who a token says that is a member.
    Group(&'a str),
    /// One person or program.
    Principal(&'a str),
}

/// Why something is no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// Above [`ENTRIES_PER_LIST`].
    #[error("more than {ENTRIES_PER_LIST} principals and groups")]
    TooLong,
    /// A name that nobody can have.
    #[error("a principal or group has 1 to {ID_BYTES} bytes and no control characters")]
    Name,
    /// Nobody could change it any more.
    #[error("no principal and no group is an owner")]
    NoOwner,
}

/// Who has which role. As JSON: `{"anyone": "reader", "groups": {"board": "writer"}, "principals": {"ann": "owner"}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccessList {
    /// Whoever knows the id, unless named below.
    #[serde(default = "nothing")]
    pub anyone: Role,
    /// By the names that tokens have for groups.
    #[serde(default)]
    pub groups: BTreeMap<String, Role>,
    /// By name.
    #[serde(default)]
    pub principals: BTreeMap<String, Role>,
}

const fn nothing() -> Role {
    Role::None
}

impl Default for AccessList {
    fn default() -> Self {
        Self {
            anyone: Role::None,
            groups: BTreeMap::new(),
            principals: BTreeMap::new(),
        }
    }
}

impl AccessList {
    /// Gives somebody a role, in place of the one they had.
    pub fn set(&mut self, subject: Subject<'_>, role: Role) {
        match subject {
            Subject::Anyone => self.anyone = role,
            Subject::Group(name) => {
                self.groups.insert(name.to_owned(), role);
            }
            Subject::Principal(name) => {
                self.principals.insert(name.to_owned(), role);
            }
        }
    }

    /// Takes an entry out, if there is one: what else the list says decides then.
    pub fn unset(&mut self, subject: Subject<'_>) -> bool {
        match subject {
            Subject::Anyone => std::mem::replace(&mut self.anyone, Role::None) > Role::None,
            Subject::Group(name) => self.groups.remove(name).is_some(),
            Subject::Principal(name) => self.principals.remove(name).is_some(),
        }
    }

    /// The role of a principal who is in these groups.
    pub fn role(&self, principal: &str, groups: &[String]) -> Role {
        self.role_by_name(principal, groups).unwrap_or(self.anyone)
    }

    /// The same, where the principal or one of these groups is named.
    pub fn role_by_name(&self, principal: &str, groups: &[String]) -> Option<Role> {
        let of_groups = groups.iter().filter_map(|group| self.groups.get(group));
        self.principals
            .get(principal)
            .or_else(|| of_groups.max())
            .copied()
    }

    /// Whether it may stand: not too long, by names that somebody can have, and with an owner.
    pub fn check(&self) -> Result<(), ListError> {
        if self.principals.len() + self.groups.len() > ENTRIES_PER_LIST {
            return Err(ListError::TooLong);
        }
        let names = self.principals.keys().chain(self.groups.keys());
        let is_name = |name: &String| {
            (1..=ID_BYTES).contains(&name.len()) && !name.chars().any(char::is_control)
        };
        if !names.into_iter().all(is_name) {
            return Err(ListError::Name);
        }
        let mut roles = self.principals.values().chain(self.groups.values());
        let has_owner = roles.any(|role| *role == Role::Owner);
        has_owner.then_some(()).ok_or(ListError::NoOwner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(json: &str) -> AccessList {
        serde_json::from_str(json).unwrap()
    }

    fn groups(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_most_particular_entry_decides() {
        let list = list(
            r#"{"anyone": "reader", "groups": {"board": "writer", "guests": "none", "staff": "reader"},
                "principals": {"ann": "owner", "bob": "none"}}"#,
        );
        for (principal, of, role) in [
            ("ann", &[][..], Role::Owner),
            ("ann", &["guests"], Role::Owner),
            ("bob", &["board"], Role::None),
            ("cyd", &[], Role::Reader),
            ("cyd", &["elsewhere"], Role::Reader),
            ("cyd", &["guests"], Role::None),
            ("cyd", &["guests", "staff", "board"], Role::Writer),
        ] {
            assert_eq!(
                list.role(principal, &groups(of)),
                role,
                "{principal} {of:?}"
            );
        }
        // A group of somebody's name is not they.
        assert_eq!(list.role("board", &[]), Role::Reader);
        assert_eq!(
            AccessList::default().role("ann", &groups(&["board"])),
            Role::None
        );
    }

    #[test]
    fn an_entry_that_is_taken_out_leaves_the_decision_to_the_others() {
        let mut list = list(
            r#"{"anyone": "reader", "groups": {"board": "writer"}, "principals": {"ann": "owner"}}"#,
        );
        let board = groups(&["board"]);
        for (subject, left) in [
            (Subject::Principal("ann"), Role::Writer),
            (Subject::Group("board"), Role::Reader),
            (Subject::Anyone, Role::None),
        ] {
            assert!(list.unset(subject), "{subject:?}");
            assert_eq!(list.role("ann", &board), left, "{subject:?}");
            assert!(!list.unset(subject), "{subject:?}");
        }
        assert_eq!(list, AccessList::default());
    }

    #[test]
    fn roles_are_in_order_and_read_back() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        assert_eq!("Owner".parse::<Role>(), Err(NoRole));
    }

    #[test]
    fn a_list_is_read_in_full_or_not_at_all() {
        let whole =
            r#"{"anyone":"reader","groups":{"board":"writer"},"principals":{"ann":"owner"}}"#;
        assert_eq!(serde_json::to_string(&list(whole)).unwrap(), whole);
        assert_eq!(list("{}"), AccessList::default());
        for bad in [
            r#"{"anybody": "reader"}"#,
            r#"{"anyone": "king"}"#,
            r#"{"anyone": null}"#,
            r#"{"principals": ["ann"]}"#,
        ] {
            assert!(serde_json::from_str::<AccessList>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_list_has_an_owner_and_an_end() {
        let owned = |groups: usize| {
            let mut list = list(r#"{"principals": {"ann": "owner"}}"#);
            for n in 0..groups {
                list.set(Subject::Group(&n.to_string()), Role::Reader);
            }
            list
        };
        assert_eq!(owned(ENTRIES_PER_LIST - 1).check(), Ok(()));
        assert_eq!(owned(ENTRIES_PER_LIST).check(), Err(ListError::TooLong));
        let anyones = list(r#"{"anyone": "owner", "principals": {"ann": "writer"}}"#);
        assert_eq!(anyones.check(), Err(ListError::NoOwner));
        let groups = list(r#"{"groups": {"board": "owner"}}"#);
        assert_eq!(groups.check(), Ok(()));
        for name in ["", "a\u{7}b", &"n".repeat(ID_BYTES + 1)] {
            let mut list = owned(0);
            list.set(Subject::Principal(name), Role::Reader);
            assert_eq!(list.check(), Err(ListError::Name), "{name:?}");
        }
    }
}
