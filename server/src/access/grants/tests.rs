use concord_shared::access::Subject;
use futures_util::FutureExt as _;

use super::*;
use crate::store::{Durability, MemoryStore};

fn id(text: &str) -> DocumentId {
    DocumentId::new(text).unwrap()
}

fn who(name: &str) -> Identity {
    crate::access::identity::who(name, &[])
}

fn grants(store: &Arc<MemoryStore>) -> Grants {
    grants_of_makers(Arc::clone(store) as Arc<dyn Store>)
}

async fn role(grants: &Grants, name: &str, document: &DocumentId) -> Role {
    grants.grant(&who(name), document).await.unwrap().role()
}

#[tokio::test]
async fn a_document_is_whose_who_takes_it_first() {
    let store = Arc::new(MemoryStore::new());
    let (grants, document) = (grants(&store), id("d"));
    let ann = grants.grant(&who("ann"), &document).await.unwrap();
    let bob = grants.grant(&who("bob"), &document).await.unwrap();
    assert_eq!((ann.role(), bob.role()), (Role::Owner, Role::Owner));
    let (write, _by) = ann.claim().expect("it is nobody's").into_write();
    assert_eq!((ann.role(), bob.role()), (Role::Owner, Role::None));
    assert!(ann.claim().is_none() && bob.claim().is_none());
    // As it is found by another process.
    store.commit(&[write], Durability::Strict).unwrap();
    let again = self::grants(&store);
    assert_eq!(role(&again, "ann", &document).await, Role::Owner);
    assert_eq!(role(&again, "bob", &document).await, Role::None);
}

#[tokio::test]
async fn what_is_said_is_seen_by_all_who_hold_a_grant() {
    let store = Arc::new(MemoryStore::new());
    let (grants, document) = (grants(&store), id("d"));
    let ann = grants.grant(&who("ann"), &document).await.unwrap();
    let _written = ann.claim();
    let mut bob = grants.grant(&who("bob"), &document).await.unwrap();
    assert!(bob.changed().now_or_never().is_none());
    let mut list = AccessList::default();
    list.set(Subject::Principal("bob"), Role::Writer);
    let (number, _write) = ann.say(Some(0), &list).unwrap();
    ann.now_listed(number, list);
    assert!(bob.changed().now_or_never().is_some());
    assert!(bob.changed().now_or_never().is_none());
    assert_eq!((ann.role(), bob.role()), (Role::None, Role::Writer));
    assert_eq!(bob.list().unwrap().0, 1);
}

#[tokio::test]
async fn what_was_said_before_it_was_deleted_does_not_bring_it_back() {
    let store = Arc::new(MemoryStore::new());
    let (grants, document) = (grants(&store), id("d"));
    let ann = grants.grant(&who("ann"), &document).await.unwrap();
    let _written = ann.claim();
    ann.now_made();
    let list = ann.list().unwrap().1;
    let (number, _write) = ann.say(Some(0), &list).unwrap();
    let _write = ann.delete(0).expect("it is hers");
    ann.now_listed(number, list);
    assert_eq!(ann.role(), Role::None);
}

#[tokio::test]
async fn what_is_there_again_has_the_list_that_is_stored_then() {
    let store = Arc::new(MemoryStore::new());
    let (grants, document) = (grants(&store), id("d"));
    let ann = grants.grant(&who("ann"), &document).await.unwrap();
    let commit = |write| store.commit(&[write], Durability::Strict).unwrap();
    let mut list = AccessList::default();
    list.set(Subject::Principal("ann"), Role::Owner);
    commit(ann.claim().expect("it is nobody's").write);
    commit(ann.delete(0).expect("it is hers"));
    let slow = ann.deletion().await.unwrap().expect("it is deleted");
    // Meanwhile: back, shared, deleted.
    let fast = slow.clone();
    commit(fast.undo());
    fast.now_undone().await.unwrap();
    list.set(Subject::Principal("bob"), Role::Reader);
    let (number, write) = ann.say(Some(0), &list).unwrap();
    commit(write);
    ann.now_listed(number, list);
    assert_eq!(role(&grants, "bob", &document).await, Role::Reader);
    commit(ann.delete(0).expect("it is hers"));
    assert_eq!(role(&grants, "bob", &document).await, Role::None);
    commit(slow.undo());
    slow.now_undone().await.unwrap();
    assert_eq!(role(&grants, "bob", &document).await, Role::Reader);
}

#[tokio::test]
async fn what_is_in_doubt_is_read_anew() {
    let store = Arc::new(MemoryStore::new());
    let (grants, document) = (grants(&store), id("d"));
    let ann = grants.grant(&who("ann"), &document).await.unwrap();
    let _never_written = ann.claim();
    assert_eq!(role(&grants, "bob", &document).await, Role::None);
    ann.doubt().await;
    assert!(ann.is_unborn(), "who holds a grant is told");
    assert_eq!(role(&grants, "bob", &document).await, Role::Owner);
}

#[tokio::test]
async fn what_can_not_be_read_is_nobodys() {
    let store = Arc::new(MemoryStore::new());
    let document = id("d");
    let write = Write::Access {
        document: document.clone(),
        number: 0,
        entry: Bytes::from_static(b"\x02of a later version"),
        labels: Vec::new(),
    };
    store.commit(&[write], Durability::Strict).unwrap();
    assert_eq!(role(&grants(&store), "ann", &document).await, Role::None);
}

#[tokio::test]
async fn documents_that_nobody_holds_are_forgotten() {
    let store = Arc::new(MemoryStore::new());
    let grants = grants(&store);
    for n in 0..5 * LEAST_BETWEEN_PRUNING {
        role(&grants, "ann", &id(&n.to_string())).await;
    }
    assert!(grants.lock().known.len() <= 2 * LEAST_BETWEEN_PRUNING);
}

#[tokio::test]
async fn those_who_ask_at_once_share_what_is_read_once() {
    let store = Arc::new(MemoryStore::new());
    let (grants, document) = (grants(&store), id("d"));
    let (ann, bob) = (who("ann"), who("bob"));
    let both = tokio::join!(grants.grant(&ann, &document), grants.grant(&bob, &document));
    let (ann, bob) = (both.0.unwrap(), both.1.unwrap());
    let _written = ann.claim().expect("it is nobody's");
    assert_eq!((ann.role(), bob.role()), (Role::Owner, Role::None));
}

#[test]
fn entries_read_back() {
    let entry = Entry {
        at_ms: 5,
        by: "ann".to_owned(),
        list: AccessList::default(),
    };
    let bytes = entry.encode();
    let golden = br#"{"at_ms":5,"by":"ann","list":{"anyone":"none","groups":{},"principals":{}}}"#;
    assert_eq!(bytes.split_first(), Some((&FORMAT, golden.as_slice())));
    assert_eq!(Entry::decode(&bytes), Some(entry));
    assert_eq!(Entry::decode(b""), None);
    assert_eq!(Entry::decode(b"\x01{}"), None);
}
