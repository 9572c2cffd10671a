use std::sync::Arc;
use std::time::Duration;

use automerge::transaction::{CommitOptions, Transactable as _, Transaction};
use automerge::{
    ActorId, Automerge, AutomergeError, ChangeHash, ObjType, ROOT, ReadDoc as _, ScalarValue,
};
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, PeerId, PrincipalId, StorageId};
use concord_shared::json::Types;
use concord_shared::limits::Limits;
use concord_shared::path::Path;
use concord_shared::wire::SyncFrame;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::core::is_joined;
use super::{Author, Core, End, Kind, Own, Place, ViewError, Views};
use crate::access::{Grant, Grants};
use crate::config::Config;
use crate::connection::caller::Caller;
use crate::connection::outbox::{HIGH_MARK_BYTES_PER_CONNECTION, Outbox};
use crate::document::ConnectionId;
use crate::document::actor::{Input, PeerMessage};
use crate::document::admission::MAX_ACTORS;
use crate::document::registry::{Delivery, DocumentHandle, Registry};
use crate::document::task::Link;
use crate::limits::account::Account;
use crate::limits::ledger::Ledger;
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
        Arc::new(Ledger::new(&Config::default(), true)),
        stop.clone(),
        Metrics::register(),
    );
    let peer = PeerId::new("server").unwrap();
    let views = Views::new(shared, registry.clone(), peer, budget, stop);
    (store, registry, views, thread)
}

fn anybody() -> Arc<Account> {
    Arc::new(Account::unlimited())
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
    let made = core.change(author(), |tx| tx.put(ROOT, "n", n));
    made.unwrap().unwrap();
}

fn get(core: &mut Core) -> Option<i64> {
    let (value, _) = core.doc().get(ROOT, "n").unwrap()?;
    value.as_i64()
}

#[tokio::test]
async fn what_is_written_is_read_by_this_view_and_by_the_next() {
    let (store, views, _thread) = server(1 << 30);
    views.run(&all(1), |core| put(core, 7)).await.unwrap();
    assert_eq!(views.run(&all(1), get).await, Ok(Some(7)));
    assert_eq!(store.unsynced_commits(), 0, "it was synced before that");
    let document = all(1);
    let refused = views.run(&document, |core| {
        // No client survives such a key.
        let made = core.change(author(), |tx| tx.put(ROOT, "__proto__", 1));
        made.unwrap().unwrap();
    });
    assert_eq!(refused.await, Err(ViewError(ErrorCode::BadOp)));
    let keys = |core: &mut Core| core.doc().keys(ROOT).collect::<Vec<_>>();
    assert_eq!(views.run(&all(1), keys).await, Ok(vec!["n".to_owned()]));
}

#[tokio::test]
async fn what_is_not_on_the_disk_is_shown_to_nobody() {
    let (store, views, _thread) = server(1 << 30);
    store.fail_next_commit(Fault::WriteLost);
    // Both wait for the view to be there, and are run in one go.
    let document = all(1);
    let write = views.run(&document, |core| put(core, 7));
    let read = views.run(&document, get);
    let (written, shown) = tokio::join!(write, read);
    assert_eq!(written, Err(ViewError(ErrorCode::StorageFailed)));
    assert_eq!(shown, Err(ViewError(ErrorCode::StorageFailed)));
}

/// All of a document.
fn all(n: u8) -> Grant {
    Grants::server(&id(n), Own(()))
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
            grant: Grants::server(id, Own(())),
            is_to_begin: false,
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
        let made = self.core.change(author(), |tx| tx.put(ROOT, key, value));
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
        let document = all(1);
        let mut other = Other::join(&registry, document.document()).await;
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
        let document = all(n);
        let mut other = Other::join(&registry, document.document()).await;
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
    views.run(&all(1), |core| put(core, 7)).await.unwrap();
    let document = all(1);
    let panics = views.run(&document, |core| {
        let _never = core.change(author(), |tx| {
            tx.put(ROOT, "n", 8)?;
            assert_eq!(tx.pending_ops(), 0, "on purpose");
            Ok::<_, AutomergeError>(())
        });
    });
    assert_eq!(panics.await, Err(ViewError(ErrorCode::Internal)));
    assert_eq!(views.run(&all(1), get).await, Ok(Some(7)));
}

/// All of them wait for the view to be there, and are run in one go.
#[tokio::test]
async fn what_spoils_a_view_is_told_to_who_did_it_and_to_nobody_else() {
    let (_store, views, _thread) = server(1 << 30);
    let document = all(1);
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
            let made = core.change(author(), |tx| tx.put(ROOT, "__proto__", 1));
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
    let document = all(1);
    views.run(&document, |core| put(core, 7)).await.unwrap();
    let release = store.hold_next_sync();
    let before = views.run(&document, |core| put(core, 8));
    let refused = views.run(&document, |core| {
        // More ops than a document of so many bytes may have, but not in one change.
        for key in ["x", "y"] {
            let nulls = vec![ScalarValue::Null; 200_000];
            let made = core.change(author(), |tx| {
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
    let document = all(1);
    let mut all = tokio::task::JoinSet::new();
    for n in 0..60 {
        let (views, document) = (views.clone(), document.clone());
        all.spawn(async move {
            if n % 6 > 0 {
                return views.run(&document, move |core| put(core, n)).await.is_ok();
            }
            let spoils = views.run(&document, |core| {
                let made = core.change(author(), |tx| tx.put(ROOT, "__proto__", 1));
                made.unwrap().unwrap();
            });
            spoils.await == Err(ViewError(ErrorCode::BadOp))
        });
    }
    while let Some(is_right) = all.join_next().await {
        assert!(is_right.unwrap());
    }
}

/// Whoever writes at an old version changes what they mean, and nothing of what came since; and is later than that.
#[test]
fn what_is_written_at_an_old_version_merges_and_is_the_last() {
    let own = ActorId::from([7; 16]);
    let mut core = Core::new(Automerge::new(), own.clone());
    let made = core.change(author(), |tx| {
        tx.put(ROOT, "counter", ScalarValue::counter(0))?;
        let list = tx.put_object(ROOT, "list", ObjType::List)?;
        tx.splice(&list, 0, 0, (0..40).map(|n| ScalarValue::Uint(1000 + n)))?;
        let text = tx.put_object(ROOT, "text", ObjType::Text)?;
        tx.splice_text(&text, 0, 0, "what was there to begin with")
    });
    made.unwrap().unwrap();
    let mut versions = vec![core.heads()];
    let elements = |doc: &Automerge| -> Vec<u64> {
        let (_, list) = doc.get(ROOT, "list").unwrap().unwrap();
        let elements = (0..doc.length(&list)).map(|n| doc.get(&list, n).unwrap().unwrap().0);
        elements.map(|value| value.as_u64().unwrap()).collect()
    };
    let text = |doc: &Automerge| -> String {
        let (_, text) = doc.get(ROOT, "text").unwrap().unwrap();
        doc.text(&text).unwrap()
    };
    let is_within = |few: &[u64], many: &[u64]| {
        let mut many = many.iter();
        few.iter().all(|one| many.any(|other| other == one))
    };
    for n in 1..150_usize {
        let [value, far] = [0, 10_000].map(|more| ScalarValue::Uint(n as u64 + more));
        // Mostly the first version again and again; sometimes what was there later, and what was there before that.
        let at = if n % 5 > 0 {
            versions[0].clone()
        } else {
            versions[n * 7 % versions.len()].clone()
        };
        let (kind, place) = (n % 6, n % 20);
        let word = format!("<{n}>");
        let mut gone = None;
        let write = |tx: &mut Transaction<'_>| {
            let (_, list) = tx.get(ROOT, "list")?.unwrap();
            let (_, text) = tx.get(ROOT, "text")?.unwrap();
            match kind {
                0 => tx.put(ROOT, "key", value.clone())?,
                1 => tx.splice(&list, place, 0, [value.clone(), far.clone()])?,
                2 => {
                    gone = tx.get(&list, place)?.and_then(|(value, _)| value.as_u64());
                    tx.delete(&list, place)?;
                }
                3 => tx.splice_text(&text, place, 0, &word)?,
                4 => tx.increment(ROOT, "counter", 7)?,
                _ => tx.put(&list, place, value.clone())?,
            }
            Ok::<_, AutomergeError>(())
        };
        let before = core.doc().clone();
        // A view that is closed and opened again has the same actor.
        if n % 20 == 0 {
            core = Core::new(core.doc().clone(), own.clone());
        }
        let ((), hash) = core.change_at(author(), &at, write).unwrap().unwrap();
        let now = core.doc();
        let change = now.get_change_by_hash(&hash.unwrap()).unwrap();
        assert_eq!(change.deps(), before.get_heads(), "{n}: behind all");
        assert_eq!((change.actor_id(), now.stats().num_actors), (&own, 1));
        let (old, new) = (elements(&before), elements(now));
        let n = n as u64;
        match kind {
            0 => assert_eq!(now.get(ROOT, "key").unwrap().unwrap().0.as_u64(), Some(n)),
            1 => {
                assert!(
                    new.windows(2).any(|pair| pair == [n, n + 10_000]),
                    "{n}: {new:?}"
                );
                assert!(is_within(&old, &new), "{n}: {old:?} {new:?}");
            }
            2 => {
                let left: Vec<u64> = old.into_iter().filter(|one| Some(*one) != gone).collect();
                assert_eq!(new, left, "{n}");
            }
            3 => {
                let (old, new) = (text(&before), text(now));
                assert!(new.contains(&word), "{n}: {new}");
                assert_eq!(new.replacen(&word, "", 1), old, "{n}");
            }
            4 => {
                let count = |doc: &Automerge| doc.get(ROOT, "counter").unwrap().unwrap().0.as_i64();
                assert_eq!(count(now), count(&before).map(|count| count + 7), "{n}");
            }
            _ => assert!(new.contains(&n), "{n}: {new:?}"),
        }
        let peer = Automerge::load(&now.save()).unwrap();
        assert_eq!(peer.hydrate(None), now.hydrate(None), "{n}");
        assert!(core.failed().is_none());
        versions.push(core.heads());
    }
}

/// As programs do that never look at the tags they are answered with.
#[test]
fn what_is_written_at_one_version_again_and_again_does_not_pile_up() {
    let mut core = Core::new(Automerge::new(), ActorId::random());
    let made = core.change(author(), |tx| {
        tx.put(ROOT, "key", 0)?;
        let list = tx.put_object(ROOT, "list", ObjType::List)?;
        tx.insert(&list, 0, 0)?;
        tx.insert(&list, 1, 0)
    });
    made.unwrap().unwrap();
    let first = core.heads();
    let write = |n: i64| {
        move |tx: &mut Transaction<'_>| {
            let (_, list) = tx.get(ROOT, "list")?.unwrap();
            tx.put(ROOT, "key", n)?;
            tx.put(&list, 1, n)?;
            let map = tx.put_object(ROOT, "new", ObjType::Map)?;
            tx.put(&map, "n", n)
        }
    };
    // Somebody who had not seen any of the others replaces none of them.
    let mut other = Core::new(core.doc().clone(), ActorId::random());
    other.change(author(), write(-1)).unwrap().unwrap();
    // This one has not written anything yet.
    let mut core = Core::new(other.doc().clone(), ActorId::random());
    for n in 0..50 {
        let made = core.change_at(author(), &first, write(n));
        made.unwrap().unwrap();
    }
    let doc = core.doc();
    let (_, list) = doc.get(ROOT, "list").unwrap().unwrap();
    let there = [
        doc.get_all(ROOT, "key").unwrap(),
        doc.get_all(&list, 1).unwrap(),
    ];
    for there in there {
        let there = there.into_iter().map(|(value, _)| value.as_i64());
        assert_eq!(there.collect::<Vec<_>>(), [Some(-1), Some(49)]);
    }
    assert_eq!(doc.get_all(ROOT, "new").unwrap().len(), 2);
    let peer = Automerge::load(&doc.save()).unwrap();
    assert_eq!(peer.hydrate(None), doc.hydrate(None));
    assert!(core.failed().is_none());
}

/// However many write at once, versions can be named.
#[test]
fn heads_that_are_too_many_are_joined() {
    let mut doc = Automerge::new();
    for n in 0..65_u8 {
        let mut other = Automerge::new().with_actor(ActorId::from([n; 16]));
        let mut tx = other.transaction();
        tx.put(ROOT, "n", i64::from(n)).unwrap();
        tx.commit();
        doc.merge(&mut other).unwrap();
        let heads = usize::from(n) + 1;
        let mut core = Core::new(doc.clone(), ActorId::random());
        core.join_heads(0);
        assert_eq!(core.heads().len(), if heads > 64 { 1 } else { heads });
        assert_eq!(core.take_outgoing().len(), usize::from(heads > 64));
    }
}

/// Who only reads must not be refused for it.
#[test]
fn heads_are_not_joined_where_that_would_be_refused() {
    let deps = Limits::default().deps;
    assert!(is_joined(deps, MAX_ACTORS - 1));
    assert!(!is_joined(deps, MAX_ACTORS));
    let mut doc = Automerge::new();
    let changes = (0..=deps as u64).map(|n| {
        let mut other = Automerge::new().with_actor(ActorId::from(n.to_le_bytes()));
        other.empty_commit(CommitOptions::default().with_time(0));
        other.get_last_local_change().unwrap()
    });
    doc.apply_changes(changes).unwrap();
    let mut core = Core::new(doc, ActorId::random());
    core.join_heads(0);
    assert_eq!(core.heads().len(), deps + 1);
    assert!(core.failed().is_none());
}

/// Two uploads can be judged before either is there.
#[test]
fn what_is_imported_beside_another_of_that_number_is_not_taken_in() {
    let made = |value: i64| {
        let actor = ActorId::from([1; 16]);
        let mut core = Core::new(Automerge::new(), actor);
        for n in value..value + 2 {
            put(&mut core, n);
        }
        let messages = core.take_outgoing().into_iter();
        messages
            .flat_map(|message| message.changes)
            .collect::<Vec<_>>()
    };
    let mut core = Core::new(Automerge::new(), ActorId::random());
    let first = made(1);
    let hashes: Vec<ChangeHash> = first.iter().map(|change| change.hash).collect();
    assert!(core.import(PrincipalId::anonymous(), first).unwrap());
    let heads = core.heads();
    assert!(!core.import(PrincipalId::anonymous(), made(7)).unwrap());
    assert_eq!((core.heads(), get(&mut core)), (heads, Some(2)));
    assert!(core.failed().is_none());
    // Of an upload its last change is waited for, whichever the relay refuses.
    assert_eq!(core.refused_with(hashes[0]), [hashes[1]]);
    assert!(core.waits_for(&hashes[1]));
}

/// A reader that takes nothing holds what it was told, and no longer watches once that is too much.
#[tokio::test]
async fn long_events_count_until_their_readers_have_taken_them() {
    let (_store, views, _thread) = server(1 << 20);
    let document = all(1);
    let long = |core: &mut Core| {
        let made = core.change(author(), |tx| tx.put(ROOT, "s", "x".repeat(2 << 20)));
        made.unwrap().unwrap();
    };
    let watch = |core: &mut Core| core.watch(&root(), None, anybody()).unwrap();
    let first = views.run(&document, move |core| {
        put(core, 1);
        watch(core)
    });
    let (_, mut events) = first.await.unwrap();
    views.run(&document, long).await.unwrap();
    let held = events.next().await.unwrap();
    drop(events);
    // The place is not watched any more, and the view is gone: what the reader has is there all the same.
    let spoilt = views.run(&document, |core| {
        let made = core.change(author(), |tx| tx.put(ROOT, "__proto__", 1));
        made.unwrap().unwrap();
    });
    spoilt.await.unwrap_err();
    views.run(&all(2), get).await.unwrap();
    assert!(!views.can_be_watched());
    drop(held);
    assert!(views.can_be_watched());
}

#[tokio::test]
async fn views_that_nobody_uses_go_when_memory_is_short() {
    const EACH: usize = 40 << 10;
    let (_store, registry, views, _thread) = server_with_relay(5 * EACH);
    for n in 0..100 {
        views.run(&all(n), |core| put(core, 7)).await.unwrap();
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
    // The relay keeps no document for long that only its view had open.
    let gone = async {
        while registry.len() > 7 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(20), gone);
    gone.await.unwrap();
    assert_eq!(views.run(&all(0), get).await, Ok(Some(7)));
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
    let document = all(1);
    views.run(&document, |core| put(core, 7)).await.unwrap();
    let watch = |core: &mut Core| core.watch(&root(), None, anybody()).unwrap();
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
    let document = all(1);
    views.run(&document, |core| put(core, 7)).await.unwrap();
    let watch = |core: &mut Core| core.watch(&root(), None, anybody()).unwrap();
    let (first, mut events) = views.run(&document, watch).await.unwrap();
    let seen = first.unwrap().heads.clone();
    let refused = views.run(&document, |core| {
        // No client survives such a key.
        let made = core.change(author(), |tx| tx.put(ROOT, "__proto__", 1));
        made.unwrap().unwrap();
    });
    assert_eq!(refused.await, Err(ViewError(ErrorCode::BadOp)));
    assert_eq!(events.next().await, Err(End::Over));
    let watch = move |core: &mut Core| core.watch(&root(), Some(&seen), anybody()).unwrap();
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
        views.run(&all(n), |core| put(core, 7)).await.unwrap();
        if !views.can_be_watched() {
            break;
        }
        let watch = |core: &mut Core| core.watch(&root(), None, anybody()).unwrap();
        watched.push(views.run(&all(n), watch).await.unwrap().1);
    }
    assert!((2..6).contains(&watched.len()), "{}", watched.len());
    assert!((0..2).all(|n| views.is_open(&id(n))));
    drop(watched);
    for n in 0..6 {
        // It finds out when it has something to do.
        views.run(&all(n), get).await.unwrap();
    }
    assert!(views.can_be_watched());
}
