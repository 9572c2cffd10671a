//! Who is asking, as far as it is known.

use std::sync::Arc;
use std::time::Duration;

use concord_shared::ids::PrincipalId;
use tokio::time::sleep;

use super::policy::Claimed;
use super::token::Claims;
use crate::audit::Trail;
use crate::clock::unix_ms;

/// After so long it is looked again how late it is.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// In the extensions of every request that gets as far as a handler, put there by
/// [`authenticate`](crate::http::authenticate).
#[derive(Debug, Clone)]
pub struct Identity {
    /// As whom.
    pub principal: PrincipalId,
    /// Of what they are a member.
    pub groups: Arc<[String]>,
    /// What their token grants, if it says anything of that.
    pub claimed: Option<Arc<Claimed>>,
    /// Until when, in seconds since 1970; for good, where nobody has to say who they are.
    pub until_s: Option<u64>,
    /// Where what they do is recorded.
    pub trail: Trail,
}

impl Identity {
    /// Whoever asks, where nobody has to say who they are.
    pub fn anonymous() -> Self {
        Self {
            principal: PrincipalId::anonymous(),
            groups: Arc::default(),
            claimed: None,
            until_s: None,
            trail: Trail::default(),
        }
    }

    /// Whether it is nobody's any more.
    pub fn is_over(&self) -> bool {
        self.left_ms() == Some(0)
    }

    /// Whether they may do the same as another: at most the time is another one.
    pub fn may_the_same_as(&self, other: &Self) -> bool {
        let Self {
            principal,
            groups,
            claimed,
            until_s: _,
            trail: _,
        } = self;
        *principal == other.principal && *groups == other.groups && *claimed == other.claimed
    }

    /// Waits until it is nobody's any more.
    pub async fn over(&self) {
        // Looked at anew from time to time: the clock can be set, and sleeping does not go by it.
        while let Some(left_ms @ 1..) = self.left_ms() {
            sleep(Duration::from_millis(left_ms).min(LONGEST_SLEEP)).await;
        }
        if !self.is_over() {
            std::future::pending::<()>().await;
        }
    }

    fn left_ms(&self) -> Option<u64> {
        let until_ms = self.until_s?.saturating_mul(1000);
        Some(until_ms.saturating_sub(unix_ms()))
    }
}

impl From<Claims> for Identity {
    fn from(claims: Claims) -> Self {
        Self {
            principal: claims.principal,
            groups: claims.groups,
            claimed: claims.claimed,
            until_s: Some(claims.until_s),
            trail: Trail::default(),
        }
    }
}

/// Somebody, and what they are a member of.
#[cfg(test)]
pub(crate) fn who(name: &str, groups: &[&str]) -> Identity {
    Identity {
        principal: PrincipalId::new(name).expect("a name"),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..Identity::anonymous()
    }
}

#[cfg(test)]
mod tests {
    use concord_shared::access::Role;

    use super::*;

    #[test]
    fn who_has_another_time_may_the_same_and_who_has_anything_else_may_not() {
        let ann = Identity {
            principal: PrincipalId::new("ann").unwrap(),
            groups: vec!["board".to_owned()].into(),
            until_s: Some(100),
            ..Identity::anonymous()
        };
        let later = Identity {
            until_s: Some(200),
            groups: vec!["board".to_owned()].into(),
            ..ann.clone()
        };
        assert!(later.may_the_same_as(&ann));
        let nothing = Claimed::default();
        let something = Claimed(vec![("d".to_owned(), Role::Reader)]);
        let claims = |claimed| Identity {
            claimed: Some(Arc::new(claimed)),
            ..ann.clone()
        };
        assert!(claims(something.clone()).may_the_same_as(&claims(something.clone())));
        assert!(!claims(something).may_the_same_as(&claims(nothing.clone())));
        for other in [
            claims(nothing),
            Identity {
                principal: PrincipalId::new("bob").unwrap(),
                ..ann.clone()
            },
            Identity {
                groups: Arc::default(),
                ..ann.clone()
            },
        ] {
            assert!(!other.may_the_same_as(&ann), "{other:?}");
            assert!(!ann.may_the_same_as(&other), "{other:?}");
        }
    }
}
