//! Unloading: a document that nobody needs goes, and whoever comes at that moment finds it, or a new one.

use std::sync::Arc;
use std::time::Duration;

use automerge::sync::{ChunkList, Message as SyncMessage, State, SyncDoc as _};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, ROOT};
use bytes::Bytes;
use concord_shared::access::{AccessList, Role, Subject};
use concord_shared::change::{Chunk, decode_document, parse_chunks};
use concord_shared::ids::{DocumentId, PeerId, PrincipalId, SessionId, StorageId};
use concord_shared::limits::Limits;
use concord_shared::wire::{self, SyncFrame};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::Link;
use crate::access::identity::who;
use crate::access::{Grant, Grants, Rules};
use crate::config::Config;
use crate::connection::backoff::{Backoff, FREE_REFUSALS};
use crate::connection::caller::Caller;
use crate::connection::outbox::Outbox;
use crate::connection::own::Spoken;
use crate::document::ConnectionId;
use crate::document::actor::{Input, PeerMessage};
use crate::document::ephemeral::Ephemeral;
use crate::document::registry::{Delivery, DocumentHandle, Registry};
use crate::limits::account::Account;
use crate::limits::ledger::Ledger;
use crate::metrics::Metrics;
use crate::store::{Committer, CommitterOptions, CommitterThread, MemoryStore, Store};
use crate::view::Own;

mod claims;

/// Longer than anything here takes on a busy machine.
const NEVER: Duration = Duration::from_secs(30);

fn registry(config: &Config) -> (Arc<MemoryStore>, Registry, CommitterThread) {
    registry_with(config, Arc::new(Semaphore::new(2)))
}

/// With permits for heavy work to give out.
fn registry_with(
    config: &Config,
    heavy: Arc<Semaphore>,
) -> (Arc<MemoryStore>, Registry, CommitterThread) {
    registry_of(config, heavy, Arc::new(Ledger::new(config, true)))
}

/// With quotas.
fn registry_of(
    config: &Config,
    heavy: Arc<Semaphore>,
    ledger: Arc<Ledger>,
) -> (Arc<MemoryStore>, Registry, CommitterThread) {
    let store = Arc::new(MemoryStore::new());
    let shared = Arc::clone(&store) as Arc<dyn Store>;
    let (committer, thread) =
        Committer::start(Arc::clone(&shared), CommitterOptions::default()).unwrap();
    let registry = Registry::new(
        shared,
        committer,
        config,
        StorageId::new("storage").unwrap(),
        heavy,
        ledger,
        CancellationToken::new(),
        Metrics::register(),
    );
    (store, registry, thread)
}

fn id(n: u8) -> DocumentId {
    DocumentId::from_uuid([n; 16])
}

/// One connection with one document open.
struct Tab {
    connection: ConnectionId,
    handle: DocumentHandle,
    outbox: Arc<Outbox>,
    document: AutoCommit,
    session: State,
    edits: i64,
}

impl Tab {
    async fn open(registry: &Registry, document: &DocumentId, connection: u64) -> Self {
        let handle = registry.open(document).unwrap();
        Self::with_handle(handle, document, connection).await
    }

    async fn with_handle(handle: DocumentHandle, document: &DocumentId, connection: u64) -> Self {
        let caller = Caller::local(ConnectionId(connection));
        Self::of(caller, handle, document).await
    }

    async fn of(caller: Caller, handle: DocumentHandle, document: &DocumentId) -> Self {
        Self::granted(caller, handle, Grants::server(document, Own::of_tests())).await
    }

    /// For somebody, as they may have it now.
    async fn opened_by(
        name: &str,
        grants: &Grants,
        registry: &Registry,
        document: &DocumentId,
        connection: u64,
    ) -> Self {
        let grant = grants.grant(&who(name, &[]), document).await.unwrap();
        let caller = Caller::local(ConnectionId(connection));
        Self::granted(caller, registry.open(document).unwrap(), grant).await
    }

    /// Who may do what is in the grant, and is told of the document without asking unless that is the server's own.
    async fn granted(caller: Caller, handle: DocumentHandle, grant: Grant) -> Self {
        let connection = caller.connection();
        let outbox = Arc::new(Outbox::new(Arc::new(caller)));
        let (server, peer) = (PeerId::new("server").unwrap(), PeerId::new("tab").unwrap());
        let link = Link {
            outbox: Arc::clone(&outbox),
            sync_frame: SyncFrame::new(grant.document(), &server, &peer),
            server,
            peer,
            document: handle.clone(),
            is_to_begin: grant.can_change(),
            grant,
        };
        let delivery = Delivery::Open(connection, Box::new(link));
        handle.send(delivery).await.unwrap();
        let actor = ActorId::from(connection.0.to_be_bytes());
        Self {
            connection,
            handle,
            outbox,
            document: AutoCommit::new().with_actor(actor),
            session: State::new(),
            edits: 0,
        }
    }

    async fn send(&mut self) {
        let session = &mut self.session;
        let Some(mut sync) = self.document.sync().generate_sync_message(session) else {
            return;
        };
        let blobs = std::mem::replace(&mut sync.changes, ChunkList::empty());
        let mut changes = Vec::new();
        let mut is_document = false;
        for blob in blobs.iter() {
            let blob = Bytes::copy_from_slice(blob);
            for chunk in parse_chunks(&blob, &Limits::default()).unwrap() {
                match chunk {
                    Chunk::Change(change) => changes.push(change),
                    Chunk::Document(whole) => {
                        changes.extend(decode_document(&whole, &Limits::default()).unwrap());
                        is_document = true;
                    }
                }
            }
        }
        let message = PeerMessage {
            principal: PrincipalId::new("ann").unwrap(),
            storage: None,
            is_request: false,
            sync,
            changes,
            is_document,
            may_write: true,
        };
        let input = Input::Message(self.connection, Box::new(message));
        self.handle.send(Delivery::Input(input)).await.unwrap();
    }

    /// Only the last change, whatever the server has.
    async fn send_last(&mut self) {
        let change = self.document.get_last_local_change().unwrap();
        let bytes = Bytes::copy_from_slice(change.raw_bytes());
        self.send_change(bytes).await;
    }

    async fn send_change(&mut self, bytes: Bytes) {
        let chunks = parse_chunks(&bytes, &Limits::default()).unwrap();
        let changes = chunks.into_iter().map(|chunk| match chunk {
            Chunk::Change(change) => change,
            Chunk::Document(_) => panic!("it is one change"),
        });
        let sync = self.document.sync();
        let sync = sync.generate_sync_message(&mut self.session).unwrap();
        let message = PeerMessage {
            principal: PrincipalId::new("ann").unwrap(),
            storage: None,
            is_request: false,
            sync,
            changes: changes.collect(),
            is_document: false,
            may_write: true,
        };
        let input = Input::Message(self.connection, Box::new(message));
        self.handle.send(Delivery::Input(input)).await.unwrap();
    }

    fn put(&mut self) {
        self.edits += 1;
        self.document.put(ROOT, "n", self.edits).unwrap();
        self.document.commit();
    }

    /// Edits, and exchanges messages until the server has what this tab has.
    async fn edit(&mut self) {
        self.put();
        let heads = self.document.get_heads();
        self.send().await;
        loop {
            let taken = timeout(NEVER, self.outbox.take()).await.unwrap();
            assert_eq!(taken.goodbye, None);
            let mut told = false;
            for frame in taken.frames.into_iter().filter_map(Spoken::wire) {
                let wire::Message::Sync { data, .. } =
                    wire::decode(&frame, &Limits::default()).unwrap()
                else {
                    continue;
                };
                let message = SyncMessage::decode(&data).unwrap();
                told |= heads.iter().all(|head| message.heads.contains(head));
                let session = &mut self.session;
                let mut sync = self.document.sync();
                sync.receive_sync_message(session, message).unwrap();
            }
            for document in taken.congested {
                document.drained(self.connection);
            }
            if told {
                return;
            }
            self.send().await;
        }
    }

    async fn leave(self) {
        let leave = Delivery::Input(Input::Leave(self.connection));
        self.handle.send(leave).await.unwrap();
    }
}

/// Waits until so many documents are in memory.
async fn until_left(registry: &Registry, documents: usize) {
    let left = async {
        while registry.len() != documents {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(NEVER, left).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_nobody_has_open_is_unloaded_when_it_was_idle() {
    let config = Config {
        idle_seconds: 1,
        ..Config::default()
    };
    let (store, registry, _thread) = registry(&config);
    let mut leaving = Tab::open(&registry, &id(1), 1).await;
    leaving.edit().await;
    let mut staying = Tab::open(&registry, &id(2), 2).await;
    staying.edit().await;
    let left = Instant::now();
    leaving.leave().await;
    until_left(&registry, 1).await;
    assert!(left.elapsed() > Duration::from_millis(900));

    // The one that is open stays, however long nothing happens in it; and goes when it is left.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(registry.len(), 1);
    staying.edit().await;
    staying.leave().await;
    until_left(&registry, 0).await;

    // Opened anew it is as it was.
    let mut again = Tab::open(&registry, &id(1), 3).await;
    again.edit().await;
    assert_eq!(store.open(&id(1)).unwrap().unwrap().next(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_memory_budget_a_document_goes_when_it_is_left() {
    let config = Config {
        idle_seconds: 3_600,
        documents_mib: 0,
        ..Config::default()
    };
    let (_store, registry, _thread) = registry(&config);
    let mut tab = Tab::open(&registry, &id(1), 1).await;
    tab.edit().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(registry.len(), 1, "somebody has it open");
    tab.leave().await;
    until_left(&registry, 0).await;
}

/// A connection holds a document's handle before it has said anything to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_with_a_handle_out_stays() {
    let config = Config {
        idle_seconds: 0,
        ..Config::default()
    };
    let (_store, registry, _thread) = registry(&config);
    let handle = registry.open(&id(1)).unwrap();
    let mut other = Tab::open(&registry, &id(1), 1).await;
    other.edit().await;
    other.leave().await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut slow = Tab::with_handle(handle, &id(1), 2).await;
    slow.edit().await;
    slow.leave().await;
    until_left(&registry, 0).await;
}

/// Many come and go at once, and documents unload as soon as they can: nobody's message may go to a task that has
/// decided to end, and no two tasks may write one document.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_comes_while_a_document_unloads_is_served() {
    const DOCUMENTS: u8 = 6;
    const TABS_PER_DOCUMENT: u8 = 2;
    const ROUNDS: u64 = 60;
    let config = Config {
        idle_seconds: 0,
        ..Config::default()
    };
    let (store, registry, _thread) = registry(&config);
    let mut tabs = Vec::new();
    for n in 0..DOCUMENTS * TABS_PER_DOCUMENT {
        let registry = registry.clone();
        tabs.push(tokio::spawn(async move {
            let document = id(n % DOCUMENTS);
            for round in 0..ROUNDS {
                let handle = registry.open(&document).unwrap();
                // Pauses of several lengths, so that coming meets leaving in many ways.
                if round % 2 == 0 {
                    tokio::time::sleep(Duration::from_millis(round % 5)).await;
                }
                let connection = u64::from(n) * ROUNDS + round;
                let mut tab = Tab::with_handle(handle, &document, connection).await;
                timeout(NEVER, tab.edit()).await.unwrap();
                tab.leave().await;
            }
        }));
    }
    for tab in tabs {
        tab.await.unwrap();
    }
    until_left(&registry, 0).await;
    for n in 0..DOCUMENTS {
        let stored = store.open(&id(n)).unwrap().unwrap();
        assert_eq!(stored.next(), u64::from(TABS_PER_DOCUMENT) * ROUNDS);
    }
}

/// A compaction covers what is stored when it runs, which is more than when it was due.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_edited_while_its_compaction_waits_is_compacted_once_and_unloaded() {
    let config = Config {
        idle_seconds: 1,
        ..Config::default()
    };
    let heavy = Arc::new(Semaphore::new(0));
    let (store, registry, _thread) = registry_with(&config, Arc::clone(&heavy));
    let mut tab = Tab::open(&registry, &id(1), 1).await;
    // Bytes that don't compress.
    let mut noise = 1_u64;
    let mut paste = || {
        let next = |_| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (noise >> 56) as u8
        };
        (0..2200 << 10).map(next).collect::<Vec<u8>>()
    };
    // The upload.
    tab.edit().await;
    for _ in 0..3 {
        tab.document.put(ROOT, "paste", paste()).unwrap();
        tab.edit().await;
    }
    let (base, _) = store.snapshot(&id(1)).unwrap().unwrap();
    assert_eq!(base, 1, "it waits");
    heavy.add_permits(2);
    tab.leave().await;
    until_left(&registry, 0).await;
    let (base, _) = store.snapshot(&id(1)).unwrap().unwrap();
    assert_eq!(base, 4);
}

/// Every document that a client creates is an upload.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_document_does_not_wait_for_compactions() {
    let heavy = Arc::new(Semaphore::new(0));
    let (store, registry, _thread) = registry_with(&Config::default(), heavy);
    let mut tab = Tab::open(&registry, &id(1), 1).await;
    for n in 0..100 {
        tab.document.put(ROOT, "n", n).unwrap();
        tab.document.commit();
    }
    tab.edit().await;
    let (base, snapshot) = store.snapshot(&id(1)).unwrap().expect("is made at once");
    assert_eq!(base, 101);
    let heads = automerge::Automerge::load(&snapshot).unwrap().get_heads();
    assert_eq!(heads, tab.document.get_heads());
}

/// Who sends a bad change and is gone before it is judged was refused all the same.
#[tokio::test]
async fn a_refusal_counts_though_its_sender_has_gone() {
    let (_store, registry, _thread) = registry(&Config::default());
    let mut honest = Tab::open(&registry, &id(1), 1).await;
    honest.edit().await;
    let backoff = Arc::new(Backoff::default());
    for n in 0..=FREE_REFUSALS {
        assert!(held(&backoff).is_none(), "after {n}");
        let handle = registry.open(&id(1)).unwrap();
        let caller = caller(u64::from(n) + 2, &backoff);
        let mut hostile = Tab::of(caller, handle, &id(1)).await;
        // The same seq of the same actor, and another change.
        hostile
            .document
            .set_actor(honest.document.get_actor().clone());
        hostile.edits = 10;
        hostile.put();
        // Nothing runs in between: the document takes in both at once.
        hostile.send_last().await;
        hostile.leave().await;
        honest.edit().await;
    }
    assert!(held(&backoff).is_some());
}

fn caller(connection: u64, backoff: &Arc<Backoff>) -> Caller {
    let (principal, address) = (PrincipalId::anonymous(), [192, 0, 2, 1].into());
    Caller::new(
        ConnectionId(connection),
        principal,
        address,
        Arc::new(Account::unlimited()),
        Arc::clone(backoff),
        Arc::default(),
    )
}

fn held(backoff: &Arc<Backoff>) -> Option<Duration> {
    caller(1, backoff).held()
}

/// Whoever may not have the document any more gets nothing of what waits in its inbox, though they never say anything
/// themselves. The task has one thread, and does not run before all of it is there.
#[tokio::test]
async fn what_is_taken_away_goes_before_what_waits() {
    let (store, registry, _thread) = registry(&Config::default());
    let rules = Rules {
        is_open: false,
        ..Rules::open()
    };
    let grants = Grants::new(rules, None, store);
    let grant = grants.grant(&who("ann", &[]), &id(1)).await.unwrap();
    let mut readable = AccessList::default();
    readable.set(Subject::Principal("ann"), Role::Reader);
    grant.now_listed(0, readable);

    let mut writing = Tab::open(&registry, &id(1), 1).await;
    writing.edit().await;
    let handle = registry.open(&id(1)).unwrap();
    let caller = Caller::local(ConnectionId(2));
    let reading = Tab::granted(caller, handle, grant.clone()).await;
    let show = async |count| {
        let ephemeral = Ephemeral {
            sender: PeerId::new("tab").unwrap(),
            session: SessionId::new("s").unwrap(),
            count,
            data: Bytes::from_static(&[0]),
        };
        let input = Input::Ephemeral(writing.connection, Arc::new(ephemeral));
        writing.handle.send(Delivery::Input(input)).await.unwrap();
    };
    let next = async || {
        let taken = timeout(NEVER, reading.outbox.take()).await.unwrap();
        let frames = taken.frames.into_iter().filter_map(Spoken::wire);
        let decoded = frames.map(|frame| wire::decode(&frame, &Limits::default()).unwrap());
        decoded.collect::<Vec<_>>()
    };
    let is_shown = |frame: &wire::Message| matches!(frame, wire::Message::Ephemeral { .. });
    show(1).await;
    while !next().await.iter().any(is_shown) {}

    grant.now_listed(1, AccessList::default());
    for count in 2..10 {
        show(count).await;
    }
    let last = next().await;
    assert!(
        matches!(last[..], [wire::Message::DocUnavailable { .. }]),
        "{last:?}"
    );
}
