//! What every [`Store`] must do, as tests that each backend runs: see [`conformance`](crate::conformance).
//!
//! A backend gives a [`Bench`]: a fresh store, and a way to close it and open it again. What only one backend can
//! show (damage to its files, crashes) is tested beside it.
//!
//! [`writing`] has what commits keep and refuse, [`reading`] what each way of reading gives, [`access`] is of the
//! access log, [`mod@labels`] of what comes with it, [`deletion`] of deleted documents, and [`model`] compares random runs with a model.

use bytes::Bytes;
use concord_shared::ids::{DocumentId, PrincipalId};

use super::{Durability, LABEL_BYTES, Label, LogRecord, Store, StoredDocument, Write};

/// A place where a backend keeps its data, for one test.
pub(super) trait Bench {
    type Store: Store;

    /// A fresh, empty place with a store opened on it.
    fn create() -> (Self, Self::Store)
    where
        Self: Sized;

    /// Closes the store and opens the same place anew.
    fn reopen(&self, store: Self::Store) -> Self::Store;
}

pub(super) use access::*;
pub(super) use deletion::*;
pub(super) use labels::*;
pub(super) use model::random_writes_match_a_model;
pub(super) use reading::*;
pub(super) use writing::*;

mod access;
mod deletion;
mod labels;
mod model;
mod reading;
mod writing;

/// Makes one `#[test]` for each of the assertions below.
macro_rules! conformance {
    ($bench:ty) => {
        $crate::store::conformance::conformance!($bench:
            append_and_read_back,
            a_large_first_upload_is_a_snapshot,
            appends_must_be_contiguous,
            snapshots_stay_within_the_log,
            a_refused_batch_writes_nothing,
            a_batch_spans_documents_and_kinds,
            a_snapshot_replaces_the_records_below_keep_from,
            a_snapshot_in_the_batch_of_what_it_replaces,
            a_snapshot_replaces_the_former_one,
            arrivals_go_with_their_snapshot,
            log_is_cut_to_the_range,
            a_bounded_log_is_a_prefix,
            big_values_come_back,
            hostile_ids_are_kept_apart,
            documents_are_paged_in_order,
            an_unknown_document,
            meta_values,
            empty_commits,
            sound_documents_verify,
            access_entries_are_kept_in_order,
            an_access_log_is_no_document,
            access_entries_must_be_contiguous_and_short,
            access_entries_of_all_lengths,
            documents_are_found_by_their_labels,
            labels_go_with_what_is_purged,
            what_can_be_labelled,
            ids_are_listed_of_all_that_is_stored,
            documents_are_listed_among_others,
            a_deleted_document_is_hidden_and_comes_back,
            what_can_be_deleted_and_undone,
            a_purged_document_is_gone,
            tombstones_are_paged_in_order,
            random_writes_match_a_model,
        );
    };
    ($bench:ty: $($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                $crate::store::conformance::$name::<$bench>();
            }
        )*
    };
}
pub(super) use conformance;

pub(super) fn id(text: &str) -> DocumentId {
    DocumentId::new(text).unwrap()
}

fn principal(text: &str) -> PrincipalId {
    PrincipalId::new(text).unwrap()
}

/// The change at `index`: recognisable, and not all of one length.
pub(super) fn change(index: u64) -> Bytes {
    let padding = usize::try_from(index % 7).unwrap();
    Bytes::from(format!("change {index}{}", ".".repeat(padding)))
}

pub(super) fn append(document: &str, range: std::ops::Range<u64>) -> Write {
    Write::Append {
        document: id(document),
        first: range.start,
        received_at_ms: 1_000 + range.start,
        principal: principal("ann"),
        changes: range.map(change).collect(),
    }
}

pub(super) fn snapshot(document: &str, base: u64, keep_from: u64) -> Write {
    Write::Snapshot {
        document: id(document),
        base,
        keep_from,
        received_at_ms: 5_000 + base,
        snapshot: Bytes::from(format!("snapshot at {base}")),
        graph: Bytes::from(format!("graph of 0..{base}")),
        arrivals: arrivals(base),
    }
}

/// What [`snapshot`] says of arrivals.
pub(super) fn arrivals(base: u64) -> Bytes {
    Bytes::from(format!("arrivals of 0..{base}"))
}

pub(super) fn access(document: &str, number: u64) -> Write {
    Write::Access {
        document: id(document),
        number,
        entry: entry(number),
        labels: labels(number),
    }
}

/// Those that [`access`] gives: one that stays, and one that the next entry takes away.
pub(super) fn labels(number: u64) -> Vec<Label> {
    vec![label(0), label(1 + number % 2)]
}

pub(super) fn label(number: u64) -> Label {
    let mut bytes = [b'l'; LABEL_BYTES];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Label(bytes)
}

/// The ids with a label; whatever the page, they are the same.
pub(super) fn labelled(store: &impl Store, label: Label) -> Vec<String> {
    let all = store.labelled(&label, None, usize::MAX).unwrap();
    for limit in 1..=all.len() + 1 {
        let mut paged: Vec<DocumentId> = Vec::new();
        loop {
            let some = store.labelled(&label, paged.last(), limit).unwrap();
            assert!(some.len() <= limit);
            if some.is_empty() {
                break;
            }
            paged.extend(some);
        }
        assert_eq!(paged, all);
    }
    for document in &all {
        assert!(store.is_labelled(document, &label).unwrap());
    }
    all.iter().map(ToString::to_string).collect()
}

/// What [`access`] says: every third one is too long for one value.
pub(super) fn entry(number: u64) -> Bytes {
    let times = if number % 3 == 2 { 700 } else { 1 };
    Bytes::from(format!("entry {number}").repeat(times))
}

fn strict(store: &impl Store, writes: &[Write]) {
    store.commit(writes, Durability::Strict).unwrap();
}

/// All the housekeeping there is to do.
pub(super) fn tidy(store: &impl Store) {
    while store.tidy().unwrap() {}
}

fn open(store: &impl Store, document: &str) -> StoredDocument {
    store.open(&id(document)).unwrap().unwrap()
}

/// The changes of records that must be contiguous, from `first` on.
fn flatten(records: &[LogRecord], first: u64) -> Vec<Bytes> {
    let mut next = first;
    for record in records {
        assert_eq!(record.first, next);
        assert!(!record.changes.is_empty());
        next = record.end();
    }
    records
        .iter()
        .flat_map(|record| record.changes.iter().cloned())
        .collect()
}

fn changes(range: std::ops::Range<u64>) -> Vec<Bytes> {
    range.map(change).collect()
}
