//! Documents that a connection asked for and has no role in. To its peer they are not there: after the same grace as for
//! one that is not, it is told so. Should it get a role, the document is opened for it, without its asking again.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use concord_shared::access::Role;
use concord_shared::ids::DocumentId;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustc_hash::FxHashSet;
use tokio::time::{Instant, sleep_until};

use crate::access::Grant;

/// What is to be done about a document.
#[derive(Debug)]
pub enum Event {
    /// Tell the peer that it is not there.
    Unavailable(DocumentId),
    /// The peer may have it now.
    Enter(Grant),
}

/// See the module's docs.
#[derive(Default)]
pub struct Lobby {
    /// One for each document here.
    waiting: FuturesUnordered<Pin<Box<dyn Future<Output = Grant> + Send>>>,
    /// Whom to tell and when, in order, since all wait equally long.
    untold: VecDeque<(Instant, DocumentId)>,
    /// Those that are to be told.
    asking: FxHashSet<DocumentId>,
}

impl Lobby {
    /// Nobody is waiting.
    pub fn new() -> Self {
        Self::default()
    }

    /// A document waits here from now on.
    pub fn wait(&mut self, mut grant: Grant) {
        self.waiting.push(Box::pin(async move {
            while grant.role() == Role::None {
                grant.changed().await;
            }
            grant
        }));
    }

    /// Nothing waits any more; those that are to be told that a document is not there still are.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }

    /// The peer is to be told that a document is not there, after `grace`, unless it is to be told already.
    pub fn ask(&mut self, document: &DocumentId, grace: Duration) {
        if self.asking.insert(document.clone()) {
            self.untold
                .push_back((Instant::now() + grace, document.clone()));
        }
    }

    /// Waits for something to do. Cancel safe.
    pub async fn next(&mut self) -> Event {
        loop {
            let until = self.untold.front().map(|(until, _)| *until);
            let due = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(grant) = self.waiting.next(), if !self.waiting.is_empty() => {
                    self.asking.remove(grant.document());
                    return Event::Enter(grant);
                }
                () = due => {
                    // Who got in meanwhile is not told.
                    if let Some((_, document)) = self.untold.pop_front()
                        && self.asking.remove(&document)
                    {
                        return Event::Unavailable(document);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use concord_shared::access::{AccessList, Subject};
    use concord_shared::ids::PrincipalId;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::access::{Grants, Identity, Rules};
    use crate::store::MemoryStore;

    /// Short, and longer than anything here takes between two lines.
    const GRACE: Duration = Duration::from_millis(200);

    fn id(text: &str) -> DocumentId {
        DocumentId::new(text).expect("an id")
    }

    /// Ann's, on a server where nobody may make documents.
    async fn grant(document: &DocumentId) -> Grant {
        let rules = Rules {
            is_open: false,
            ..Rules::open()
        };
        let grants = Grants::new(rules, None, Arc::new(MemoryStore::new()));
        let ann = Identity {
            principal: PrincipalId::new("ann").expect("a name"),
            ..Identity::anonymous()
        };
        grants.grant(&ann, document).await.expect("is read")
    }

    fn list(role: Role) -> AccessList {
        let mut list = AccessList::default();
        list.set(Subject::Principal("ann"), role);
        list
    }

    async fn unavailable(lobby: &mut Lobby) -> DocumentId {
        match lobby.next().await {
            Event::Unavailable(document) => document,
            Event::Enter(grant) => panic!("{grant:?}"),
        }
    }

    #[tokio::test]
    async fn who_asks_is_told_once_and_when_it_is_time() {
        let (mut lobby, a, b) = (Lobby::new(), id("a"), id("b"));
        for document in [&a, &b] {
            lobby.wait(grant(document).await);
        }
        let asked = Instant::now();
        lobby.ask(&a, GRACE);
        lobby.ask(&b, GRACE);
        lobby.ask(&a, GRACE);
        assert!(lobby.next().now_or_never().is_none());
        assert_eq!(unavailable(&mut lobby).await, a);
        assert!(asked.elapsed() >= GRACE);
        assert_eq!(unavailable(&mut lobby).await, b);
        assert!(lobby.next().now_or_never().is_none());
        // And again, if they ask again.
        lobby.ask(&a, GRACE);
        assert!(lobby.next().now_or_never().is_none());
        assert_eq!(unavailable(&mut lobby).await, a);
    }

    #[tokio::test]
    async fn who_gets_a_role_enters_and_is_not_told_any_more() {
        let (mut lobby, a) = (Lobby::new(), id("a"));
        let outside = grant(&a).await;
        let owners = outside.clone();
        lobby.wait(outside);
        lobby.ask(&a, GRACE);
        assert!(lobby.next().now_or_never().is_none());
        owners.now_listed(0, list(Role::None));
        assert!(lobby.next().now_or_never().is_none());
        owners.now_listed(1, list(Role::Reader));
        let entered = lobby.next().now_or_never();
        assert!(matches!(entered, Some(Event::Enter(grant)) if *grant.document() == a));
        tokio::time::sleep(GRACE * 2).await;
        assert!(lobby.next().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_role_that_came_before_the_wait_is_seen() {
        let (mut lobby, a) = (Lobby::new(), id("a"));
        let outside = grant(&a).await;
        outside.now_listed(0, list(Role::Writer));
        lobby.wait(outside);
        let entered = lobby.next().now_or_never();
        assert!(matches!(entered, Some(Event::Enter(_))));
    }
}
