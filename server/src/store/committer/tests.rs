//! Nothing is reported as committed before the store's strict commit returned, whatever fails.
//!
//! The store here stands still at a gate, so a test sees the moments that a real disk would hide: what is told while
//! a commit is under way, and what waits behind it.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::timeout;

use super::*;
use crate::store::{
    Contents, DocumentInfo, Fault, Ids, Label, LogRecord, MemoryStore, Problem, StoredDocument,
    Tombstone,
    conformance::{access, append, entry, id},
};

/// Long enough that something which can happen does; what must not happen is waited for this long.
const SOON: Duration = Duration::from_millis(50);
const NEVER: Duration = Duration::from_secs(20);

/// A memory store whose commits wait to be let through.
#[derive(Default, Debug)]
struct Gated {
    memory: MemoryStore,
    state: Mutex<Gate>,
    moved: Condvar,
}

#[derive(Default, Debug)]
struct Gate {
    open: bool,
    /// Commits to let through while the gate is closed, with what they are to do.
    passes: VecDeque<Pass>,
    /// Steps of housekeeping that are left, and those done.
    untidy: usize,
    tidied: usize,
    /// Number of writes of each commit that came.
    batches: Vec<(usize, Durability)>,
}

#[derive(Clone, Copy, Debug)]
enum Pass {
    Commit,
    Fail(Fault),
    Panic,
}

impl Gated {
    fn pass(&self, pass: Pass) {
        self.state.lock().unwrap().passes.push_back(pass);
        self.moved.notify_all();
    }

    fn open_gate(&self) {
        self.state.lock().unwrap().open = true;
        self.moved.notify_all();
    }

    fn batches(&self) -> Vec<usize> {
        self.state
            .lock()
            .unwrap()
            .batches
            .iter()
            .map(|(writes, _)| *writes)
            .collect()
    }

    /// Waits until the committer stands at the gate with its so-many-th batch.
    async fn arrival(&self, count: usize) {
        let arrived = async {
            while self.batches().len() < count {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(NEVER, arrived).await.unwrap();
    }
}

impl Gated {
    /// Waits for so many steps of housekeeping.
    async fn housekeeping(&self, steps: usize) {
        let done = async {
            while self.state.lock().unwrap().tidied < steps {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(NEVER, done).await.unwrap();
    }
}

impl Store for Gated {
    fn commit(&self, writes: &[Write], durability: Durability) -> Result<(), StoreError> {
        let mut gate = self.state.lock().unwrap();
        gate.batches.push((writes.len(), durability));
        let pass = loop {
            if let Some(pass) = gate.passes.pop_front() {
                break pass;
            }
            if gate.open {
                break Pass::Commit;
            }
            gate = self.moved.wait(gate).unwrap();
        };
        drop(gate);
        match pass {
            Pass::Commit => {}
            Pass::Fail(fault) => self.memory.fail_next_commit(fault),
            Pass::Panic => panic!("the store panics"),
        }
        self.memory.commit(writes, durability)
    }

    fn open(&self, document: &DocumentId) -> Result<Option<StoredDocument>, StoreError> {
        self.memory.open(document)
    }

    fn snapshot(&self, document: &DocumentId) -> Result<Option<(u64, Bytes)>, StoreError> {
        self.memory.snapshot(document)
    }

    fn contents(&self, document: &DocumentId) -> Result<Option<Contents>, StoreError> {
        self.memory.contents(document)
    }

    fn arrivals(&self, document: &DocumentId) -> Result<Option<Bytes>, StoreError> {
        self.memory.arrivals(document)
    }

    fn log(
        &self,
        document: &DocumentId,
        from: u64,
        to: u64,
        most_bytes: u64,
    ) -> Result<Vec<LogRecord>, StoreError> {
        self.memory.log(document, from, to, most_bytes)
    }

    fn access(&self, document: &DocumentId) -> Result<Option<(u64, Bytes)>, StoreError> {
        self.memory.access(document)
    }

    fn access_log(
        &self,
        document: &DocumentId,
        from: u64,
        limit: usize,
        most_bytes: u64,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        self.memory.access_log(document, from, limit, most_bytes)
    }

    fn tombstone(&self, document: &DocumentId) -> Result<Option<Tombstone>, StoreError> {
        self.memory.tombstone(document)
    }

    fn tombstones(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<(DocumentId, Tombstone)>, StoreError> {
        self.memory.tombstones(after, limit)
    }

    fn documents_among(&self, ids: &Ids, limit: usize) -> Result<Vec<DocumentInfo>, StoreError> {
        self.memory.documents_among(ids, limit)
    }

    fn info(&self, document: &DocumentId) -> Result<Option<DocumentInfo>, StoreError> {
        self.memory.info(document)
    }

    fn labelled(
        &self,
        label: &Label,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentId>, StoreError> {
        self.memory.labelled(label, after, limit)
    }

    fn is_labelled(&self, document: &DocumentId, label: &Label) -> Result<bool, StoreError> {
        self.memory.is_labelled(document, label)
    }

    fn ids(&self, after: Option<&DocumentId>, limit: usize) -> Result<Vec<DocumentId>, StoreError> {
        self.memory.ids(after, limit)
    }

    fn meta(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.memory.meta(key)
    }

    fn set_meta(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.memory.set_meta(key, value)
    }

    fn verify(&self, document: &DocumentId) -> Result<Vec<Problem>, StoreError> {
        self.memory.verify(document)
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        let mut gate = self.state.lock().unwrap();
        gate.untidy = gate.untidy.saturating_sub(1);
        gate.tidied += 1;
        Ok(gate.untidy > 0)
    }

    fn size_on_disk(&self) -> Result<u64, StoreError> {
        self.memory.size_on_disk()
    }
}

fn start(options: CommitterOptions) -> (Arc<Gated>, Committer, CommitterThread) {
    let store = Arc::new(Gated::default());
    let (committer, thread) =
        Committer::start(Arc::clone(&store) as Arc<dyn Store>, options).unwrap();
    (store, committer, thread)
}

async fn submit(writer: &mut DocumentWriter, write: Write) -> Ticket {
    timeout(NEVER, writer.submit(write)).await.unwrap().unwrap()
}

/// Waits until a ticket is done.
async fn committed(tickets: &mut Tickets, ticket: Ticket) {
    let done = async {
        loop {
            let progress = tickets.changed().await;
            assert!(progress.failed.is_none(), "{progress:?}");
            if progress.committed >= ticket {
                break;
            }
        }
    };
    timeout(NEVER, done).await.unwrap();
}

async fn failure(tickets: &mut Tickets) -> Progress {
    let failed = async {
        loop {
            let progress = tickets.changed().await;
            if progress.failed.is_some() {
                return progress;
            }
        }
    };
    timeout(NEVER, failed).await.unwrap()
}

async fn nothing_told(tickets: &mut Tickets) {
    assert!(timeout(SOON, tickets.changed()).await.is_err());
}

fn durable(store: &Gated, document: &str) -> u64 {
    let stored = store.memory.crash(0).open(&id(document)).unwrap();
    stored.map_or(0, |document| document.next())
}

#[tokio::test]
async fn nothing_is_committed_before_the_store_says_so() {
    let (store, committer, _thread) = start(CommitterOptions::default());
    let (mut writer, mut tickets) = committer.document();
    let ticket = submit(&mut writer, append("a", 0..1)).await;
    store.arrival(1).await;
    nothing_told(&mut tickets).await;
    store.pass(Pass::Commit);
    committed(&mut tickets, ticket).await;
    assert_eq!(durable(&store, "a"), 1);
    assert_eq!(
        store.state.lock().unwrap().batches,
        [(1, Durability::Strict)]
    );
}

#[tokio::test]
async fn what_comes_during_a_commit_shares_the_next() {
    let (store, committer, thread) = start(CommitterOptions::default());
    let (mut a, mut a_tickets) = committer.document();
    let (mut b, mut b_tickets) = committer.document();
    submit(&mut a, append("a", 0..1)).await;
    store.arrival(1).await;
    for next in 1..50 {
        submit(&mut a, append("a", next..next + 1)).await;
    }
    let last = submit(&mut b, append("b", 0..1)).await;
    store.pass(Pass::Commit);
    store.arrival(2).await;
    assert_eq!(a_tickets.changed().await.committed, Ticket(1));
    nothing_told(&mut b_tickets).await;
    store.pass(Pass::Commit);
    committed(&mut b_tickets, last).await;
    committed(&mut a_tickets, Ticket(50)).await;
    assert_eq!(store.batches(), [1, 50]);
    thread.shutdown().await.unwrap();
}

#[tokio::test]
async fn access_entries_keep_their_place_among_a_documents_writes() {
    let (store, committer, thread) = start(CommitterOptions::default());
    let (mut writer, mut tickets) = committer.document();
    submit(&mut writer, access("a", 0)).await;
    store.arrival(1).await;
    // Each counts as one write, whatever its kind.
    for (number, write) in (2..).zip([append("a", 0..3), access("a", 1), append("a", 3..4)]) {
        assert_eq!(submit(&mut writer, write).await, Ticket(number));
    }
    nothing_told(&mut tickets).await;
    store.pass(Pass::Commit);
    store.arrival(2).await;
    assert_eq!(tickets.changed().await.committed, Ticket(1));
    // There is an entry before there is content.
    assert_eq!(store.memory.access(&id("a")).unwrap(), Some((0, entry(0))));
    assert_eq!(durable(&store, "a"), 0);
    store.pass(Pass::Commit);
    committed(&mut tickets, Ticket(4)).await;
    assert_eq!(durable(&store, "a"), 4);
    assert_eq!(store.memory.access(&id("a")).unwrap(), Some((1, entry(1))));
    // One that is out of order fails its document's writes, and no other's.
    let (mut other, mut other_tickets) = committer.document();
    submit(&mut other, append("b", 0..1)).await;
    submit(&mut writer, access("a", 3)).await;
    submit(&mut writer, append("a", 4..5)).await;
    store.open_gate();
    committed(&mut other_tickets, Ticket(1)).await;
    let progress = failure(&mut tickets).await;
    assert!(matches!(
        progress.failed.as_deref(),
        Some(StoreError::BadAccess { expected: 2, .. })
    ));
    thread.shutdown().await.unwrap();
    assert_eq!(durable(&store, "a"), 4);
}

#[tokio::test]
async fn a_batch_ends_at_its_byte_cap() {
    let options = CommitterOptions {
        batch_bytes: 3 * (WRITE_OVERHEAD_BYTES + 1),
        ..CommitterOptions::default()
    };
    let (store, committer, thread) = start(options);
    let (mut writer, _tickets) = committer.document();
    for next in 0..10 {
        submit(&mut writer, append("a", next..next + 1)).await;
        if next == 0 {
            store.arrival(1).await;
        }
    }
    store.open_gate();
    thread.shutdown().await.unwrap();
    assert_eq!(store.batches(), [1, 3, 3, 3]);
    assert_eq!(durable(&store, "a"), 10);
}

#[tokio::test]
async fn submitting_waits_for_room_by_count() {
    let options = CommitterOptions {
        queue_writes: 2,
        ..CommitterOptions::default()
    };
    let (store, committer, _thread) = start(options);
    let (mut writer, mut tickets) = committer.document();
    submit(&mut writer, append("a", 0..1)).await;
    store.arrival(1).await;
    submit(&mut writer, append("a", 1..2)).await;
    submit(&mut writer, append("a", 2..3)).await;
    assert!(
        timeout(SOON, writer.submit(append("a", 3..4)))
            .await
            .is_err()
    );
    // Given up while it waited, it has queued nothing and taken no ticket.
    store.open_gate();
    let ticket = submit(&mut writer, append("a", 3..4)).await;
    assert_eq!(ticket, Ticket(4));
    committed(&mut tickets, ticket).await;
}

#[tokio::test]
async fn submitting_waits_for_room_by_bytes() {
    let options = CommitterOptions {
        queue_bytes: 2_000,
        ..CommitterOptions::default()
    };
    let (store, committer, thread) = start(options);
    let (mut writer, mut tickets) = committer.document();
    for next in 0..3 {
        submit(&mut writer, append("a", next..next + 1)).await;
        store.arrival(1).await;
    }
    assert!(
        timeout(SOON, writer.submit(append("a", 3..4)))
            .await
            .is_err()
    );
    store.open_gate();
    committed(&mut tickets, Ticket(3)).await;
    // One larger than all the room there is goes alone.
    let ticket = submit(&mut writer, append("a", 3..1_000)).await;
    committed(&mut tickets, ticket).await;
    thread.shutdown().await.unwrap();
    assert_eq!(durable(&store, "a"), 1_000);
}

#[tokio::test]
async fn a_write_that_breaks_the_rules_fails_its_document_alone() {
    let (store, committer, _thread) = start(CommitterOptions::default());
    let (mut first, _first_tickets) = committer.document();
    let (mut good, mut good_tickets) = committer.document();
    let (mut bad, mut bad_tickets) = committer.document();
    submit(&mut first, append("first", 0..1)).await;
    store.arrival(1).await;
    submit(&mut bad, append("bad", 0..1)).await;
    let ticket = submit(&mut good, append("good", 0..1)).await;
    submit(&mut bad, append("bad", 7..8)).await;
    store.open_gate();
    committed(&mut good_tickets, ticket).await;
    let progress = failure(&mut bad_tickets).await;
    assert_eq!(progress.committed, Ticket(0));
    assert!(matches!(
        *progress.failed.unwrap(),
        StoreError::OutOfOrder {
            expected: 1,
            first: 7,
            ..
        }
    ));
    assert_eq!((durable(&store, "good"), durable(&store, "bad")), (1, 0));
    let refused = bad.submit(append("bad", 0..1)).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Failed(_)));
    // Read again, the document goes on.
    let (mut again, mut tickets) = committer.document();
    let ticket = submit(&mut again, append("bad", 0..1)).await;
    committed(&mut tickets, ticket).await;
}

/// The failed batch may or may not be on disk; either way nothing may follow it until the document was read again.
#[tokio::test]
async fn after_a_failed_write_what_is_queued_behind_it_fails_too() {
    for fault in [Fault::WriteLost, Fault::WriteDone] {
        let (store, committer, _thread) = start(CommitterOptions::default());
        let (mut a, mut a_tickets) = committer.document();
        let (mut b, mut b_tickets) = committer.document();
        submit(&mut a, append("a", 0..1)).await;
        store.arrival(1).await;
        submit(&mut a, append("a", 1..2)).await;
        let ticket = submit(&mut b, append("b", 0..1)).await;
        store.pass(Pass::Fail(fault));
        store.open_gate();
        committed(&mut b_tickets, ticket).await;
        let progress = failure(&mut a_tickets).await;
        assert_eq!(progress.committed, Ticket(0));
        assert!(matches!(*progress.failed.unwrap(), StoreError::Write(_)));
        // "a" 1..2 was in the batch with "b", which was committed without it.
        assert_eq!(store.batches(), [1, 1]);

        let next = store
            .open(&id("a"))
            .unwrap()
            .map_or(0, |document| document.next());
        assert_eq!(next, u64::from(fault == Fault::WriteDone));
        let (mut again, mut tickets) = committer.document();
        let ticket = submit(&mut again, append("a", next..next + 1)).await;
        committed(&mut tickets, ticket).await;
        assert_eq!(durable(&store, "a"), next + 1);
    }
}

#[tokio::test]
async fn after_a_failed_sync_or_a_panic_nothing_is_written_any_more() {
    for pass in [Pass::Fail(Fault::Sync), Pass::Panic] {
        let (store, committer, thread) = start(CommitterOptions::default());
        let mut health = committer.health();
        let (mut a, mut a_tickets) = committer.document();
        let (mut b, mut b_tickets) = committer.document();
        submit(&mut a, append("a", 0..1)).await;
        store.arrival(1).await;
        submit(&mut b, append("b", 0..1)).await;
        store.pass(pass);
        store.open_gate();
        for tickets in [&mut a_tickets, &mut b_tickets] {
            assert_eq!(failure(tickets).await.committed, Ticket(0));
        }
        timeout(NEVER, health.changed()).await.unwrap().unwrap();
        assert!(matches!(&*health.borrow(), Health::Poisoned(_)));
        let (mut again, _tickets) = committer.document();
        let refused = again.submit(append("c", 0..1)).await.unwrap_err();
        assert!(matches!(refused, SubmitError::Poisoned(_)));
        // The store was not asked again, not even at the end.
        assert!(thread.shutdown().await.is_err());
        assert_eq!(store.batches(), [1]);
        assert_eq!((durable(&store, "a"), durable(&store, "b")), (0, 0));
    }
}

/// Otherwise a document that has just failed could be opened anew, and show the batch that the failed sync left behind.
#[tokio::test(flavor = "multi_thread")]
async fn health_is_poisoned_before_any_ticket_fails() {
    let (store, committer, _thread) = start(CommitterOptions::default());
    let (mut first, _first_tickets) = committer.document();
    submit(&mut first, append("first", 0..1)).await;
    store.arrival(1).await;
    // Tickets fail one after the other: with many of them, the earliest is told long before the last.
    let mut others = Vec::new();
    for n in 0..2_000 {
        let (mut writer, tickets) = committer.document();
        submit(&mut writer, append(&format!("doc {n}"), 0..1)).await;
        others.push((writer, tickets));
    }
    let watching = committer.clone();
    let mut early = others.remove(0).1;
    let early = tokio::spawn(async move {
        failure(&mut early).await;
        watching.is_poisoned()
    });
    assert!(!committer.is_poisoned());
    store.pass(Pass::Commit);
    store.pass(Pass::Fail(Fault::Sync));
    assert!(timeout(NEVER, early).await.unwrap().unwrap());
}

/// Reading goes on: what must not be shown is for those who show it to know.
#[tokio::test]
async fn a_poisoned_store_can_be_read() {
    let (store, committer, thread) = start(CommitterOptions::default());
    let (mut writer, mut tickets) = committer.document();
    submit(&mut writer, append("a", 0..1)).await;
    store.pass(Pass::Fail(Fault::Sync));
    failure(&mut tickets).await;
    assert!(committer.is_poisoned());
    assert_eq!(store.open(&id("a")).unwrap().unwrap().next(), 1);
    assert_eq!(store.documents(None, 9).unwrap().len(), 1);
    thread.shutdown().await.unwrap_err();
    assert!(committer.is_poisoned());
}

#[tokio::test]
async fn shutdown_commits_what_was_submitted_and_refuses_the_rest() {
    let (store, committer, thread) = start(CommitterOptions::default());
    let (mut writer, mut tickets) = committer.document();
    submit(&mut writer, append("a", 0..1)).await;
    store.arrival(1).await;
    for next in 1..20 {
        submit(&mut writer, append("a", next..next + 1)).await;
    }
    let shutdown = tokio::spawn(thread.shutdown());
    tokio::time::sleep(SOON).await;
    assert!(!shutdown.is_finished());
    store.open_gate();
    timeout(NEVER, shutdown).await.unwrap().unwrap().unwrap();
    committed(&mut tickets, Ticket(20)).await;
    assert_eq!(durable(&store, "a"), 20);
    let refused = writer.submit(append("a", 20..21)).await.unwrap_err();
    assert!(matches!(refused, SubmitError::Closed));
}

#[tokio::test]
async fn relaxed_commits_are_synced_at_shutdown() {
    let options = CommitterOptions {
        durability: Durability::Relaxed,
        ..CommitterOptions::default()
    };
    let (store, committer, thread) = start(options);
    store.open_gate();
    let (mut writer, mut tickets) = committer.document();
    let ticket = submit(&mut writer, append("a", 0..1)).await;
    committed(&mut tickets, ticket).await;
    assert_eq!(durable(&store, "a"), 0);
    thread.shutdown().await.unwrap();
    assert_eq!(durable(&store, "a"), 1);
    assert_eq!(
        store.state.lock().unwrap().batches,
        [(1, Durability::Relaxed), (0, Durability::Strict)]
    );
}

#[tokio::test]
async fn housekeeping_comes_after_tickets_and_stops_when_done() {
    let (store, committer, thread) = start(CommitterOptions::default());
    store.housekeeping(1).await;
    *store.state.lock().unwrap() = Gate {
        untidy: 10,
        ..Gate::default()
    };
    let (mut writer, mut tickets) = committer.document();
    submit(&mut writer, append("a", 0..1)).await;
    store.arrival(1).await;
    let ticket = submit(&mut writer, append("a", 1..2)).await;
    assert_eq!(store.state.lock().unwrap().tidied, 0);
    // One step between two batches, the rest while nothing waits.
    store.pass(Pass::Commit);
    store.arrival(2).await;
    assert_eq!(store.state.lock().unwrap().tidied, 1);
    store.pass(Pass::Commit);
    committed(&mut tickets, ticket).await;
    let all_done = async {
        while store.state.lock().unwrap().untidy > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(NEVER, all_done).await.unwrap();
    tokio::time::sleep(SOON).await;
    assert_eq!(store.state.lock().unwrap().tidied, 10);
    thread.shutdown().await.unwrap();
}

/// A purge that a crash interrupted goes on though nobody writes.
#[tokio::test]
async fn housekeeping_begins_before_anybody_writes() {
    let store = Arc::new(Gated::default());
    store.state.lock().unwrap().untidy = 5;
    let shared = Arc::clone(&store) as Arc<dyn Store>;
    let (_committer, thread) = Committer::start(shared, CommitterOptions::default()).unwrap();
    store.housekeeping(5).await;
    assert_eq!(store.batches(), [0; 0]);
    thread.shutdown().await.unwrap();
}

/// A document that does not look at its tickets holds up nobody.
#[tokio::test]
async fn completion_never_waits() {
    let (store, committer, thread) = start(CommitterOptions::default());
    store.open_gate();
    let (mut deaf, mut unheard) = committer.document();
    let (mut writer, mut tickets) = committer.document();
    for next in 0..5_000 {
        submit(&mut deaf, append("deaf", next..next + 1)).await;
    }
    let ticket = submit(&mut writer, append("a", 0..1)).await;
    committed(&mut tickets, ticket).await;
    committed(&mut unheard, Ticket(5_000)).await;
    // Nor one that is gone.
    drop(unheard);
    submit(&mut deaf, append("deaf", 5_000..5_001)).await;
    thread.shutdown().await.unwrap();
    assert_eq!(durable(&store, "deaf"), 5_001);
}
