use std::sync::Arc;
use std::time::Duration;

use automerge::transaction::{Transactable as _, Transaction};
use automerge::{
    ActorId, Automerge, AutomergeError, ChangeHash, ObjType, ROOT, ReadDoc as _, ScalarValue,
};
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, PeerId, PrincipalId, StorageId};
use concord_shared::json::Types;
use concord_shared::path::Path;
use concord_shared::wire::SyncFrame;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Author, Core, End, Kind, Place, ViewError, Views};
use crate::config::Config;
use crate::connection::caller::Caller;
use crate::connection::outbox::{HIGH_MARK_BYTES_PER_CONNECTION, Outbox};
use crate::document::ConnectionId;
use crate::document::actor::{Input, PeerMessage};
use crate::document::registry::{Delivery, DocumentHandle, Registry};
use crate::document::task::Link;
use crate::metrics::Metrics;
use crate::store::{Committer, CommitterOptions, CommitterThread, Fault, MemoryStore, Store};

fn server(budget: usize) -> (Arc<MemoryStore>, Views, CommitterThread) {
    let (store, _, views, thread) = server_with_relay(budget);
    (store, views, thread)
}

fn server_with_relay(budget: usize) -> (Arc<MemoryStore>, Registry, Views, CommitterThread) {
    let store = Arc::new(MemoryStore::new());
    let shared = Arc::clone(&store) as Arc<dyn Store>;
    let options = CommitterOptions::default();
    let (committer, thread) = Committer::start(Arc::clone(&shared), options).unwrap();
    let stop = CancellationToken::new();
    let registry = Registry::new(
        Arc::clone(&shared),
        committer,
        &Config::default(),
        StorageId::new("storage").unwrap(),
        Arc::new(Semaphore::new(1)),
        stop.clone(),
        Metrics::register(),
    );
    let peer = PeerId::new("server").unwrap();
    let views = Views::new(shared, registry.clone(), peer, budget, stop);
    (store, registry, views, thread)
}

fn id(n: u8) -> DocumentId {
    DocumentId::from_uuid([n; 16])
}

fn author() -> Author {
    Author {
        principal: PrincipalId::anonymous(),
        message: None,
        at_ms: 0,
    }
}

fn put(core: &mut Core, n: i64) {
    let made = core.change(author(), None, |tx| tx.put(ROOT, "n", n));
    made.unwrap().unwrap();
}

fn get(core: &mut Core) -> Option<i64> {
    let (value, _) = core.doc().get(ROOT, "n").unwrap()?;
    value.as_i64()
}

#[tokio::test]
async fn what_is_written_is_read_by_this_view_and_by_the_next() {
    let (store, views, _thread) = server(1 << 30);
    views.run(&id(1), |core| put(core, 7)).await.unwrap();
    assert_eq!(views.run(&id(1), get).await, Ok(Some(7)));
    assert_eq!(store.unsynced_commits(), 0, "it was synced before that");
    let document = id(1);
    let refused = views.run(&document, |core| {
        // No client survives such a key.
        let made = core.change(author(), None, |tx| tx.put(ROOT, "__proto__", 1));
        made.unwrap().unwrap();
    });
    assert_eq!(refused.await, Err(ViewError(ErrorCode::BadOp)));
    let keys = |core: &mut Core| core.doc().keys(ROOT).collect::<Vec<_>>();
    assert_eq!(views.run(&id(1), keys).await, Ok(vec!["n".to_owned()]));
}

#[tokio::test]
async fn what_is_not_on_the_disk_is_shown_to_nobody() {
    let (store, views, _thread) = server(1 << 30);
    store.fail_next_commit(Fault::WriteLost);
    // Both wait for the view to be there, and are run in one go.
    let document = id(1);
    let write = views.run(&document, |core| put(core, 7));
    let read = views.run(&document, get);
    let (written, shown) = tokio::join!(write, read);
    assert_eq!(written, Err(ViewError(ErrorCode::StorageFailed)));
    assert_eq!(shown, Err(ViewError(ErrorCode::StorageFailed)));
}

/// Somebody else who has the document open, and makes changes of any length.
struct Other {
    document: DocumentHandle,
    core: Core,
}

impl Other {
    const CONNECTION: ConnectionId = ConnectionId(5);

    async fn join(registry: &Registry, id: &DocumentId) -> Self {
        let document = registry.open(id).unwrap();
        let peer = PeerId::new("other").unwrap();
        let link = Link {
            outbox: Arc::new(Outbox::new(Arc::new(Caller::local(Self::CONNECTION)))),
            sync_frame: SyncFrame::new(id, &peer, &peer),
            server: peer.clone(),
            peer,
            document: document.clone(),
        };
        let open = Delivery::Open(Self::CONNECTION, Box::new(link));
        document.send(open).await.unwrap();
        let core = Core::new(Automerge::new(), ActorId::random());
        let other = Self { document, core };
        other.send(other.core.hello()).await;
        other
    }

    async fn send(&self, message: PeerMessage) {
        let input = Input::Message(Self::CONNECTION, Box::new(message));
        self.document.send(Delivery::Input(input)).await.unwrap();
    }

    /// Returns when it is durable.
    async fn put(&mut self, key: &str, bytes: usize) {
        let hash = self.begin_to_put(key, bytes).await;
        while !self.document.heads().await.unwrap().contains(&hash) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Returns when it is sent.
    async fn begin_to_put(&mut self, key: &str, bytes: usize) -> ChangeHash {
        let mut value = vec![0_u8; bytes];
        rand::RngExt::fill(&mut rand::rng(), &mut value[..]);
        let made = self
            .core
            .change(author(), None, |tx| tx.put(ROOT, key, value));
        let ((), hash) = made.unwrap().unwrap();
        for message in self.core.take_outgoing() {
            self.send(message).await;
        }
        hash.unwrap()
    }
}

/// The store shows what is written before that is on the disk.
#[tokio::test]
async fn a_view_that_is_loaded_before_the_disk_has_it_waits_until_it_has() {
    for fault in [None, Some(Fault::Sync)] {
        let (store, registry, views, _thread) = server_with_relay(1 << 30);
        let document = id(1);
        let mut other = Other::join(&registry, &document).await;
        other.put("first", 1).await;
        if let Some(fault) = fault {
            store.fail_next_commit(fault);
        }
        let release = store.hold_next_sync();
        other.begin_to_put("second", 1).await;
        while store.unsynced_commits() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let read = views.run(&document, |core| core.doc().keys(ROOT).count());
        tokio::pin!(read);
        let early = tokio::time::timeout(Duration::from_millis(200), &mut read);
        assert!(early.await.is_err(), "told before it was durable");
        release.send(()).unwrap();
        let told = match fault {
            None => Ok(2),
            Some(_) => Err(ViewError(ErrorCode::StorageFailed)),
        };
        assert_eq!(read.await, told);
    }
}

/// What a view does first, taking in or its jobs, is left to chance: so this is done a few times.
#[tokio::test]
async fn what_the_relay_held_back_is_waited_for() {
    let (_store, registry, views, _thread) = server_with_relay(1 << 30);
    for n in 0..10 {
        let document = id(n);
        let mut other = Other::join(&registry, &document).await;
        other.put("first", 1).await;
        // The view is busy, and its outbox fills.
        let (go_on, wait) = std::sync::mpsc::sync_channel(1);
        let (begin, begun) = tokio::sync::oneshot::channel();
        let busy = views.run(&document, move |_| {
            begin.send(()).unwrap();
            wait.recv().unwrap();
        });
        let fill = async {
            begun.await.unwrap();
            other.put("long", HIGH_MARK_BYTES_PER_CONNECTION + 1).await;
            other.put("last", 1).await;
            let read = views.run(&document, |core| core.doc().keys(ROOT).count());
            let go_on = async {
                // The other waits in line by then.
                tokio::task::yield_now().await;
                go_on.send(()).unwrap();
            };
            tokio::join!(read, go_on).0
        };
        let (done, keys) = tokio::join!(busy, fill);
        assert_eq!((done, keys), (Ok(()), Ok(3)));
    }
}

#[tokio::test]
async fn a_job_that_panics_takes_its_view_with_it_and_nothing_else() {
    let (_store, views, _thread) = server(1 << 30);
    views.run(&id(1), |core| put(core, 7)).await.unwrap();
    let document = id(1);
    let panics = views.run(&document, |core| {
        let _never = core.change(author(), None, |tx| {
            tx.put(ROOT, "n", 8)?;
            assert_eq!(tx.pending_ops(), 0, "on purpose");
            Ok::<_, AutomergeError>(())
        });
    });
    assert_eq!(panics.await, Err(ViewError(ErrorCode::Internal)));
    assert_eq!(views.run(&id(1), get).await, Ok(Some(7)));
}

/// All of them wait for the view to be there, and are run in one go.
#[tokio::test]
async fn what_spoils_a_view_is_told_to_who_did_it_and_to_nobody_else() {
    let (_store, views, _thread) = server(1 << 30);
    let document = id(1);
    for refused in [true, false] {
        let expected = if refused {
            ErrorCode::BadOp
        } else {
            ErrorCode::Internal
        };
        let before = views.run(&document, |core| put(core, 7));
        let spoils = views.run(&document, move |core| {
            assert!(refused, "on purpose");
            // No client survives such a key.
            let made = core.change(author(), None, |tx| tx.put(ROOT, "__proto__", 1));
            made.unwrap().unwrap();
        });
        let behind = views.run(&document, |core| put(core, 8));
        let read = views.run(&document, get);
        let (before, spoils, behind, read) = tokio::join!(before, spoils, behind, read);
        assert_eq!(spoils, Err(ViewError(expected)));
        assert_eq!((behind, read), (Ok(()), Ok(Some(8))));
        // What was made before a panic may be kept or not; before a refusal it is.
        assert!(before.is_ok() || !refused);
    }
}

/// What the relay refuses ends the view. What was taken before that is kept, and its authors are told so.
#[tokio::test]
async fn what_the_relay_refuses_is_told_to_who_wrote_it() {
    let (store, views, _thread) = server(1 << 30);
    let document = id(1);
    views.run(&document, |core| put(core, 7)).await.unwrap();
    let release = store.hold_next_sync();
    let before = views.run(&document, |core| put(core, 8));
    let refused = views.run(&document, |core| {
        // More ops than a document of so many bytes may have, but not in one change.
        for key in ["x", "y"] {
            let nulls = vec![ScalarValue::Null; 200_000];
            let made = core.change(author(), None, |tx| {
                let list = tx.put_object(ROOT, key, ObjType::List)?;
                tx.splice(&list, 0, 0, nulls)
            });
            made.unwrap().unwrap();
        }
    });
    let behind = views.run(&document, |core| put(core, 9));
    let read = views.run(&document, get);
    let later = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        release.send(()).unwrap();
    };
    let (before, refused, behind, read, ()) = tokio::join!(before, refused, behind, read, later);
    assert_eq!(before, Ok(()));
    assert_eq!(refused, Err(ViewError(ErrorCode::TooManyOps)));
    // Those ran on top of it, and there is nothing of that; or on the next view.
    for told in [behind, read.map(|_| ())] {
        assert!(
            matches!(told, Ok(()) | Err(ViewError(ErrorCode::Overloaded))),
            "{told:?}"
        );
    }
    let now = views.run(&document, get).await.unwrap().unwrap();
    assert_eq!(now, if behind.is_ok() { 9 } else { 8 });
}

/// Many may write beside a view in turn, each in its way.
#[tokio::test]
async fn those_whose_writes_spoil_views_keep_nobody_from_writing() {
    let (_store, views, _thread) = server(1 << 30);
    let document = id(1);
    let mut all = tokio::task::JoinSet::new();
    for n in 0..60 {
        let (views, document) = (views.clone(), document.clone());
        all.spawn(async move {
            if n % 6 > 0 {
                return views.run(&document, move |core| put(core, n)).await.is_ok();
            }
            let spoils = views.run(&document, |core| {
                let made = core.change(author(), None, |tx| tx.put(ROOT, "__proto__", 1));
                made.unwrap().unwrap();
            });
            spoils.await == Err(ViewError(ErrorCode::BadOp))
        });
    }
    while let Some(is_right) = all.join_next().await {
        assert!(is_right.unwrap());
    }
}

/// Each on the version that it is of, whatever was written aside before; and by as few actors as that takes.
#[test]
fn what_is_written_aside_is_as_what_is_written_in_place() {
    let own = ActorId::from([7; 16]);
    let [mut aside, mut in_place] = [(); 2].map(|()| Core::new(Automerge::new(), own.clone()));
    for core in [&mut aside, &mut in_place] {
        put(core, 0);
    }
    let old = aside.heads();
    let mut versions = vec![old.clone()];
    for n in 1..60_i64 {
        // Mostly the first version again and again; sometimes what was there later.
        let at = if n % 5 > 0 {
            &old
        } else {
            &versions[versions.len() / 2]
        }
        .clone();
        let key = format!("k{}", n % 7);
        let write = |tx: &mut Transaction<'_>| tx.put(ROOT, &key, n);
        // A view that is closed and opened again has the same actor.
        if n % 20 == 0 {
            aside = Core::new(aside.doc().clone(), own.clone());
        }
        let made = aside.change_aside(author(), &at, write).unwrap().unwrap();
        let change = aside.doc().get_change_by_hash(&made.1.unwrap()).unwrap();
        let deps: Vec<ChangeHash> = change.deps().to_vec();
        // And the actor's last one, where that is further back.
        assert!(at.iter().all(|head| deps.contains(head)), "{n}");
        assert!(deps.len() <= at.len() + 1, "{n}: {deps:?}");
        versions.push(aside.heads());
        assert!(aside.heads().len() <= 17, "{} heads", aside.heads().len());
        assert!(aside.failed().is_none());
        let doc = aside.doc();
        assert_eq!(
            doc.save().len(),
            Automerge::load(&doc.save()).unwrap().save().len()
        );
    }
    // The same edits give the same value, whoever made them.
    in_place
        .change(author(), None, |tx| tx.put(ROOT, "a", 1))
        .unwrap()
        .unwrap();
    aside = Core::new(in_place.doc().clone(), own);
    let at = in_place.heads();
    in_place
        .change(author(), None, |tx| tx.put(ROOT, "b", 1))
        .unwrap()
        .unwrap();
    aside
        .change(author(), None, |tx| tx.put(ROOT, "b", 1))
        .unwrap()
        .unwrap();
    in_place
        .change(author(), Some(&at), |tx| tx.put(ROOT, "a", 2))
        .unwrap()
        .unwrap();
    aside
        .change_aside(author(), &at, |tx| tx.put(ROOT, "a", 2))
        .unwrap()
        .unwrap();
    assert_eq!(aside.doc().hydrate(None), in_place.doc().hydrate(None));
}

#[tokio::test]
async fn views_that_nobody_uses_go_when_memory_is_short() {
    const EACH: usize = 40 << 10;
    let (_store, views, _thread) = server(5 * EACH);
    for n in 0..100 {
        views.run(&id(n), |core| put(core, 7)).await.unwrap();
        // Those that go need a moment; nobody waits for them.
        for _ in 0..100 {
            if views.memory() <= 6 * EACH {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(views.memory() <= 6 * EACH, "{} bytes", views.memory());
    }
    assert!(views.memory() > 2 * EACH, "some stay");
    assert!(!views.is_open(&id(0)), "not the one that was used first");
    assert_eq!(views.run(&id(0), get).await, Ok(Some(7)));
}

fn root() -> Place {
    Place {
        path: Path::root(),
        types: Types::Plain,
    }
}

#[tokio::test]
async fn watchers_are_told_of_what_is_on_the_disk_and_of_nothing_else() {
    let (store, views, _thread) = server(1 << 30);
    let document = id(1);
    views.run(&document, |core| put(core, 7)).await.unwrap();
    let watch = |core: &mut Core| core.watch(&root(), None).unwrap();
    let (first, mut events) = views.run(&document, watch).await.unwrap();
    let first = first.unwrap();
    assert_eq!(
        (first.kind, &first.data[..]),
        (Kind::Value, &br#"{"n":7}"#[..])
    );
    views.run(&document, |core| put(core, 8)).await.unwrap();
    let told = events.next().await.unwrap();
    let patch = br#"[{"op":"replace","path":"/n","value":8}]"#;
    assert_eq!((told.kind, &told.data[..]), (Kind::Patch, &patch[..]));
    let heads = views.run(&document, |core| core.heads()).await.unwrap();
    assert_eq!(told.heads, heads);
    store.fail_next_commit(Fault::WriteLost);
    let lost = views.run(&document, |core| put(core, 9)).await;
    assert_eq!(lost, Err(ViewError(ErrorCode::StorageFailed)));
    assert_eq!(events.next().await, Err(End::Over));
}

/// What a refused write did to the view is told to nobody; who watches goes on with the next view.
#[tokio::test]
async fn watchers_outlive_a_view_that_is_spoiled() {
    let (_store, views, _thread) = server(1 << 30);
    let document = id(1);
    views.run(&document, |core| put(core, 7)).await.unwrap();
    let watch = |core: &mut Core| core.watch(&root(), None).unwrap();
    let (first, mut events) = views.run(&document, watch).await.unwrap();
    let seen = first.unwrap().heads.clone();
    let refused = views.run(&document, |core| {
        // No client survives such a key.
        let made = core.change(author(), None, |tx| tx.put(ROOT, "__proto__", 1));
        made.unwrap().unwrap();
    });
    assert_eq!(refused.await, Err(ViewError(ErrorCode::BadOp)));
    assert_eq!(events.next().await, Err(End::Over));
    let watch = move |core: &mut Core| core.watch(&root(), Some(&seen)).unwrap();
    let (first, mut events) = views.run(&document, watch).await.unwrap();
    assert_eq!(first, None, "nothing happened since");
    views.run(&document, |core| put(core, 8)).await.unwrap();
    assert_eq!(events.next().await.unwrap().kind, Kind::Patch);
}

#[tokio::test]
async fn what_is_watched_stays_and_is_bounded() {
    const EACH: usize = 40 << 10;
    let (_store, views, _thread) = server(3 * EACH);
    let mut watched = Vec::new();
    for n in 0..100 {
        views.run(&id(n), |core| put(core, 7)).await.unwrap();
        if !views.can_be_watched() {
            break;
        }
        let watch = |core: &mut Core| core.watch(&root(), None).unwrap();
        watched.push(views.run(&id(n), watch).await.unwrap().1);
    }
    assert!((2..6).contains(&watched.len()), "{}", watched.len());
    assert!((0..2).all(|n| views.is_open(&id(n))));
    drop(watched);
    for n in 0..6 {
        // It finds out when it has something to do.
        views.run(&id(n), get).await.unwrap();
    }
    assert!(views.can_be_watched());
}
