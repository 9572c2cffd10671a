//! Whose a new document is.

use std::sync::Arc;
use std::time::Duration;

use automerge::{Change, ExpandedChange};
use bytes::Bytes;
use concord_shared::access::{AccessList, Role, Subject};
use concord_shared::code::ErrorCode;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::{NEVER, Tab, id, registry, registry_of, until_left};
use crate::access::grants::{Entry, grants_of_makers};
use crate::access::identity::who;
use crate::access::{Grants, Rules};
use crate::config::Config;
use crate::connection::caller::Caller;
use crate::document::ConnectionId;
use crate::document::registry::{Delivery, Hold, Registry};
use crate::limits::ledger::Ledger;
use crate::store::{Fault, MemoryStore, Store};

/// Everybody may make documents, and has a role in those of others.
fn grants_of_a_team(store: &Arc<MemoryStore>, role: &str) -> Grants {
    let rules = Rules {
        is_open: false,
        creators: vec!["anyone".parse().unwrap()],
        shares: vec![format!("anyone={role}").parse().unwrap()],
        ..Rules::open()
    };
    Grants::new(rules, None, Arc::clone(store) as Arc<dyn Store>)
}

/// Who made it, by what is stored.
fn maker(store: &MemoryStore) -> Option<String> {
    let (_, entry) = store.access(&id(1)).unwrap()?;
    Some(Entry::decode(&entry).unwrap().by)
}

/// Waits until all that was sent before was taken in.
async fn heard(tab: &Tab) {
    timeout(NEVER, tab.handle.heads()).await.unwrap().unwrap();
}

/// A change that waits for others says nothing of whose the document is; and is not in it, if that is somebody else's, and
/// who sent it may not write there.
#[tokio::test]
async fn who_sends_what_waits_makes_nothing() {
    for role in ["none", "reader", "writer"] {
        let (store, registry, _thread) = registry(&Config::default());
        let grants = grants_of_a_team(&store, role);
        let mut bob = Tab::opened_by("bob", &grants, &registry, &id(1), 1).await;
        let _ann = waiting(&mut bob, &grants, &registry).await;
        bob.send_last().await;
        heard(&bob).await;
        bob.edits = 20;
        bob.edit().await;
        assert_eq!(maker(&store).as_deref(), Some("bob"));
        let next = if role == "writer" { 3 } else { 2 };
        assert_eq!(store.open(&id(1)).unwrap().unwrap().next(), next, "{role}");
    }
}

/// Likewise where bob takes the document first, and what comes behind that comes at once.
#[tokio::test]
async fn what_waits_is_gone_before_what_it_waits_for_comes() {
    for role in ["none", "reader"] {
        let (store, registry, _thread) = registry(&Config::default());
        let grants = grants_of_a_team(&store, role);
        let mut bob = Tab::opened_by("bob", &grants, &registry, &id(1), 1).await;
        let _ann = waiting(&mut bob, &grants, &registry).await;
        let bobs = grants.grant(&who("bob", &[]), &id(1)).await.unwrap();
        let (give, given) = oneshot::channel();
        let claim = Delivery::Claim(bobs, Hold::of(&bob.handle), give);
        bob.handle.send(claim).await.unwrap();
        bob.send_last().await;
        let _hold = timeout(NEVER, given).await.unwrap().unwrap();
        heard(&bob).await;
        bob.edits = 20;
        bob.edit().await;
        assert_eq!(maker(&store).as_deref(), Some("bob"));
        assert_eq!(store.open(&id(1)).unwrap().unwrap().next(), 2, "{role}");
    }
}

/// Whoever may only read by the time that it comes has written nothing, though they might when they sent it.
#[tokio::test]
async fn what_waits_of_who_is_made_a_reader_is_never_taken_in() {
    for role in [Role::Reader, Role::Writer] {
        let (store, registry, _thread) = registry(&Config::default());
        let grants = grants_of_a_team(&store, "writer");
        let mut bob = Tab::opened_by("bob", &grants, &registry, &id(1), 1).await;
        bob.edit().await;
        let mut ann = Tab::opened_by("ann", &grants, &registry, &id(1), 2).await;
        bob.put();
        ann.document.merge(&mut bob.document).unwrap();
        ann.put();
        ann.send_last().await;
        heard(&ann).await;
        let of_bob = grants.grant(&who("bob", &[]), &id(1)).await.unwrap();
        let (_, mut list) = of_bob.list().unwrap();
        list.set(Subject::Principal("ann"), role);
        of_bob.now_listed(1, list);
        bob.send_last().await;
        heard(&bob).await;
        bob.edit().await;
        let next = if role == Role::Writer { 4 } else { 3 };
        let stored = store.open(&id(1)).unwrap().unwrap();
        assert_eq!(stored.next(), next, "{role}");
    }
}

/// Bob has made a change, and ann has sent one that waits for it.
async fn waiting(bob: &mut Tab, grants: &Grants, registry: &Registry) -> Tab {
    let mut ann = Tab::opened_by("ann", grants, registry, &id(1), 2).await;
    bob.put();
    ann.document.merge(&mut bob.document).unwrap();
    ann.edits = 10;
    ann.put();
    ann.send_last().await;
    heard(&ann).await;
    let of_bob = grants.grant(&who("bob", &[]), &id(1)).await.unwrap();
    assert_eq!(of_bob.role(), Role::Owner);
    ann
}

/// Nor does a change that is refused.
#[tokio::test]
async fn who_sends_what_is_refused_makes_nothing() {
    let (store, registry, _thread) = registry(&Config::default());
    let grants = grants_of_makers(Arc::clone(&store) as Arc<dyn Store>);
    let mut ann = Tab::opened_by("ann", &grants, &registry, &id(1), 1).await;
    ann.put();
    // There is none before it, and it needs none.
    let second = Change::from(ExpandedChange {
        seq: 2,
        ..ann.document.get_last_local_change().unwrap().decode()
    });
    let bytes = Bytes::copy_from_slice(second.raw_bytes());
    ann.send_change(bytes).await;
    heard(&ann).await;
    let taken = timeout(NEVER, ann.outbox.take()).await.unwrap();
    let code = taken.goodbye.map(|goodbye| goodbye.code);
    assert_eq!(code, Some(ErrorCode::SeqNotNext));
    let of_bob = grants.grant(&who("bob", &[]), &id(1)).await.unwrap();
    assert_eq!(of_bob.role(), Role::Owner);
    assert_eq!(maker(&store), None);
}

/// Where all may write, nobody writes to a document that somebody else is about to make: it would be theirs.
#[tokio::test]
async fn nobody_fills_what_somebody_else_is_about_to_make() {
    for role in [Role::Writer, Role::Owner] {
        let (store, registry, _thread) = registry(&Config::default());
        let grants = grants_of_a_team(&store, role.as_str());
        let anns = grants.grant(&who("ann", &[]), &id(1)).await.unwrap();
        let mut early = Tab::opened_by("bob", &grants, &registry, &id(1), 1).await;
        let handle = registry.open(&id(1)).unwrap();
        let claim = |give| Delivery::Claim(anns.clone(), Hold::of(&handle), give);
        let hold = handle.ask(claim).await.unwrap();
        early.put();
        early.send_last().await;
        let gone = async {
            loop {
                let taken = early.outbox.take().await;
                if let Some(goodbye) = taken.goodbye {
                    return goodbye.code;
                }
            }
        };
        assert_eq!(timeout(NEVER, gone).await.unwrap(), ErrorCode::Overloaded);
        assert!(store.open(&id(1)).unwrap().is_none());

        // Nothing comes of it; and it is not only then nobody's when something else is said.
        let bobs = grants.grant(&who("bob", &[]), &id(1)).await.unwrap();
        assert!(bobs.is_claimed_by_another() && bobs.role() == role);
        drop(hold);
        let is_free = async {
            while !bobs.is_unborn() {
                tokio::task::yield_now().await;
            }
        };
        timeout(NEVER, is_free).await.unwrap();
        let mut again = Tab::opened_by("bob", &grants, &registry, &id(1), 2).await;
        again.edit().await;
        assert_eq!(maker(&store).as_deref(), Some("bob"));
        assert_eq!(anns.role(), role);
    }
}

#[tokio::test]
async fn a_first_write_that_failed_takes_no_place_of_its_makers_quota() {
    let config = Config {
        max_documents_per_principal: 1,
        ..Config::default()
    };
    let ledger = Arc::new(Ledger::new(&config, false));
    let heavy = Arc::new(Semaphore::new(2));
    let (store, registry, _thread) = registry_of(&config, heavy, Arc::clone(&ledger));
    let grants = grants_of_makers(Arc::clone(&store) as Arc<dyn Store>);
    let maker = who("ann", &[]).principal;
    let opened = async |n| Tab::opened_by("ann", &grants, &registry, &id(n), n.into()).await;

    store.fail_next_commit(Fault::WriteLost);
    let mut lost = opened(1).await;
    lost.put();
    lost.send_last().await;
    until_left(&registry, 0).await;
    assert!(store.open(&id(1)).unwrap().is_none());
    assert!(ledger.may_make(&maker, 0).is_ok());

    opened(2).await.edit().await;
    assert!(ledger.may_make(&maker, 0).is_err());
}

/// Whoever makes a document may say at once who may do what.
#[tokio::test]
async fn a_list_that_comes_with_the_first_change_is_the_second() {
    let (store, registry, _thread) = registry(&Config::default());
    let grants = grants_of_makers(Arc::clone(&store) as Arc<dyn Store>);
    let grant = grants.grant(&who("ann", &[]), &id(1)).await.unwrap();
    let mut tab = Tab::opened_by("ann", &grants, &registry, &id(1), 1).await;
    tab.put();
    // Both are in the inbox before the task takes the first of them.
    tab.send_last().await;
    let mut list = AccessList::default();
    list.principals.insert("ann".to_owned(), Role::Owner);
    list.principals.insert("bob".to_owned(), Role::Writer);
    let set = tab.handle.set_list(grant, list, None).await;
    assert!(matches!(set, Ok(Ok(1))), "{set:?}");
    assert_eq!(store.access(&id(1)).unwrap().unwrap().0, 1);
    assert!(store.open(&id(1)).unwrap().is_some());
}

/// However claims are given back and taken: what is made is its maker's.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_stored_of_a_document_that_is_nobodys() {
    // Whoever leaves one leaves it to go.
    let config = Config {
        documents_mib: 0,
        ..Config::default()
    };
    let (store, registry, _thread) = registry(&config);
    let grants = grants_of_makers(Arc::clone(&store) as Arc<dyn Store>);
    let granted = async |name: &str, n: u8| grants.grant(&who(name, &[]), &id(n)).await.unwrap();
    let is_there = |n| store.open(&id(n)).unwrap().is_some();
    let mut in_the_way = 0;
    for n in 0..=u8::MAX {
        // On a busy machine it may take more.
        if n >= 100 && in_the_way > 0 {
            break;
        }
        let claims = async {
            for again in 0..u64::from(n % 4) {
                // There may be no room for one document more.
                let Ok(handle) = registry.open(&id(n)) else {
                    continue;
                };
                let grant = granted("ann", n).await;
                if again < 2 {
                    let claim = |give| Delivery::Claim(grant, Hold::of(&handle), give);
                    let _hold = handle.ask(claim).await;
                    // Longer than it takes to look again.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                } else if grant.role() > Role::None {
                    let caller = Caller::local(ConnectionId(2));
                    let mut tab = Tab::granted(caller, handle, grant).await;
                    tab.put();
                    tab.send_last().await;
                    tab.leave().await;
                }
            }
        };
        let mut tries = 0;
        let makes = async {
            while !is_there(n) {
                tries += 1;
                tokio::time::sleep(Duration::from_micros(500)).await;
                let grant = granted("bob", n).await;
                if grant.role() == Role::None {
                    in_the_way += u64::from(!is_there(n));
                    continue;
                }
                let Ok(handle) = registry.open(&id(n)) else {
                    continue;
                };
                let caller = Caller::local(ConnectionId(2 * tries + 1));
                let mut tab = Tab::granted(caller, handle, grant).await;
                tab.put();
                tab.send_last().await;
                tokio::time::sleep(Duration::from_millis(2)).await;
                tab.leave().await;
            }
        };
        let both = async { tokio::join!(claims, makes) };
        timeout(NEVER, Box::pin(both)).await.unwrap();
        let (number, entry) = store.access(&id(n)).unwrap().expect("it is somebody's");
        let by = Entry::decode(&entry).unwrap().by;
        let may_be_anns = n % 4 == 3 && by == "ann";
        assert!(number == 0 && (by == "bob" || may_be_anns), "{n}: {by}");
    }
    assert!(in_the_way > 0, "nobody was in the way");
}
