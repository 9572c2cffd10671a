use bytes::Bytes;
use concord_shared::ids::PrincipalId;

use super::*;
use crate::config::Config;
use crate::store::{CommitterOptions, Durability, Fault, MemoryStore};

fn id(number: usize) -> DocumentId {
    DocumentId::new(&format!("{number:05}")).unwrap()
}

fn principal() -> PrincipalId {
    PrincipalId::new("ann").unwrap()
}

/// Documents of which all were deleted, then.
fn deleted(count: usize, at_ms: u64) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::new());
    for number in 0..count {
        let append = Write::Append {
            document: id(number),
            first: 0,
            received_at_ms: 1,
            principal: principal(),
            changes: vec![Bytes::from_static(b"change")],
        };
        let delete = Write::Delete {
            document: id(number),
            at_ms,
            by: principal(),
            bytes: 6,
        };
        store.commit(&[append, delete], Durability::Strict).unwrap();
    }
    store
}

fn eraser(store: &Arc<MemoryStore>, keep: Duration) -> Eraser {
    let store = Arc::clone(store) as Arc<dyn Store>;
    let options = CommitterOptions::default();
    let (committer, _thread) = Committer::start(Arc::clone(&store), options).unwrap();
    let ledger = Arc::new(Ledger::new(&Config::default(), false));
    Eraser::new(store, committer, Audit::default(), ledger, Some(keep))
}

fn purged(store: &MemoryStore) -> usize {
    let all = store.tombstones(None, usize::MAX).unwrap();
    all.iter().filter(|(_, tombstone)| tombstone.purged).count()
}

#[tokio::test]
async fn one_that_fails_does_not_keep_the_others() {
    let store = deleted(5, 1);
    let eraser = eraser(&store, Duration::ZERO);
    store.fail_next_commit(Fault::WriteLost);
    let mut round = Round::default();
    assert!(eraser.look(&mut round).await.unwrap());
    assert_eq!(purged(&store), 4);
    let mut round = Round::default();
    assert!(eraser.look(&mut round).await.unwrap());
    assert_eq!(purged(&store), 5);
}

#[tokio::test]
async fn a_look_is_at_so_many_and_the_next_goes_on() {
    let store = deleted(2 * TOMBSTONES_PER_LOOK + 7, 1);
    let eraser = eraser(&store, Duration::ZERO);
    let mut round = Round::default();
    for looks in 1..=2 {
        assert!(!eraser.look(&mut round).await.unwrap());
        assert_eq!(purged(&store), looks * TOMBSTONES_PER_LOOK);
    }
    assert!(eraser.look(&mut round).await.unwrap());
    assert_eq!(purged(&store), 2 * TOMBSTONES_PER_LOOK + 7);
}

#[tokio::test]
async fn what_is_kept_is_kept() {
    let store = deleted(3, unix_ms());
    let eraser = eraser(&store, Duration::from_mins(1));
    let mut round = Round::default();
    assert!(eraser.look(&mut round).await.unwrap());
    assert_eq!(purged(&store), 0);
    assert!(!round.has_remains);
    let turn = eraser.turn(&id(1)).await;
    eraser
        .purge_now(&turn, principal(), Trail::off())
        .await
        .unwrap();
    assert_eq!(purged(&store), 1);
    assert_eq!(*eraser.wish.borrow(), Wish::Soon);
    // A lesser wish does not take the place of a greater one.
    eraser.want(Wish::Sometime);
    assert_eq!(*eraser.wish.borrow(), Wish::Soon);
    let turn = eraser.turn(&id(9)).await;
    let unknown = eraser.purge_now(&turn, principal(), Trail::off()).await;
    assert!(
        matches!(unknown, Err(WriteFailed::Failed(_))),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn what_is_due_is_purged_once() {
    let store = deleted(1, 1);
    let eraser = eraser(&store, Duration::ZERO);
    let document = id(0);
    let purges = (0..8).map(|_| eraser.purge_if_due(&document));
    let all = futures_util::future::try_join_all(purges).await.unwrap();
    assert_eq!(all.iter().filter(|is_due| **is_due).count(), 1, "{all:?}");
    assert_eq!(purged(&store), 1);
    // Nothing is left of turns that nobody waits for.
    let _other = eraser.turns.of(&id(1));
    assert_eq!(eraser.turns.0.lock().unwrap().len(), 1);
}

/// Or each would wait for the disk behind the others'.
#[tokio::test]
async fn one_does_not_wait_for_another() {
    let store = deleted(2, 1);
    let eraser = eraser(&store, Duration::ZERO);
    let (one, two) = (id(0), id(1));
    let held = eraser.turn(&one).await;
    let mut same = Box::pin(eraser.purge_if_due(&one));
    let other = eraser.purge_if_due(&two);
    let other = tokio::time::timeout(Duration::from_secs(30), other).await;
    assert!(other.expect("it waits").unwrap());
    let waited = tokio::time::timeout(Duration::from_millis(100), &mut same).await;
    assert!(waited.is_err());
    assert!(!store.tombstone(&id(0)).unwrap().unwrap().purged);
    drop(held);
    assert!(same.await.unwrap());
    assert_eq!(purged(&store), 2);
}

/// It is kept as long as if that were its first deletion.
#[tokio::test]
async fn what_was_brought_back_and_deleted_again_meanwhile_is_kept() {
    let store = deleted(1, 1);
    let eraser = eraser(&store, Duration::from_mins(1));
    let document = id(0);
    let held = eraser.turn(&document).await;
    let mut look = Box::pin(eraser.purge_if_due(&document));
    assert!(futures_util::poll!(&mut look).is_pending());
    let again = [
        Write::Undelete {
            document: document.clone(),
        },
        Write::Delete {
            document: document.clone(),
            at_ms: unix_ms(),
            by: principal(),
            bytes: 6,
        },
    ];
    for write in again {
        store.commit(&[write], Durability::Strict).unwrap();
    }
    drop(held);
    assert!(!look.await.unwrap());
    assert_eq!(purged(&store), 0);
}

#[tokio::test]
async fn a_store_that_gave_up_is_not_asked_for_each() {
    let store = deleted(3, 1);
    let eraser = eraser(&store, Duration::ZERO);
    store.fail_next_commit(Fault::Sync);
    let mut round = Round::default();
    let error = eraser.look(&mut round).await.unwrap_err();
    assert!(
        matches!(error, EraseError::Store(StoreError::Poisoned)),
        "{error}"
    );
}
