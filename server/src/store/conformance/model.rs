//! Random runs of writes, against a model of a few numbers per document.

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::TestRunner};

use super::{
    Bench, access, append, arrivals, changes, delete, entry, flatten, id, label, labels, open,
    purge, snapshot, strict, undelete,
};
use crate::store::{Durability, Store, check::Life};

/// One step of a random run.
#[derive(Debug, Clone)]
enum Step {
    /// Batches of appends and snapshots, as (document, number), and whether to sync.
    Commit(Vec<(u8, Action)>, bool),
    Reopen,
    Tidy,
}

#[derive(Debug, Clone, Copy)]
enum Action {
    /// So many changes.
    Append(u64),
    /// Base and `keep_from` as shares of what is possible.
    Snapshot(f64, f64),
    /// An access entry.
    Access,
    /// One step from there to deleted to purged, or back: what is not possible is left out.
    Delete,
    Undelete,
    Purge,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let action = prop_oneof![
        4 => (1_u64..6).prop_map(Action::Append),
        1 => (0.0..=1.0, 0.0..=1.0).prop_map(|(base, keep)| Action::Snapshot(base, keep)),
        1 => prop::sample::select(vec![
            Action::Access,
            Action::Access,
            Action::Delete,
            Action::Undelete,
            Action::Undelete,
            Action::Purge,
        ]),
    ];
    let step = prop_oneof![
        9 => (prop::collection::vec((0_u8..3, action), 1..8), any::<bool>())
            .prop_map(|(writes, strict)| Step::Commit(writes, strict)),
        1 => Just(Step::Reopen),
        3 => Just(Step::Tidy),
    ];
    prop::collection::vec(step, 1..30)
}

#[derive(Debug, Default, Clone, Copy)]
struct Model {
    base: u64,
    next: u64,
    keep_from: u64,
    has_snapshot: bool,
    is_there: bool,
    entries: u64,
    life: Life,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a small number"
)]
fn share(low: u64, high: u64, share: f64) -> u64 {
    low + ((high - low) as f64 * share) as u64
}

/// Any run of legal writes leaves what a model of a few numbers per document says.
pub(crate) fn random_writes_match_a_model<B: Bench>() {
    let config = ProptestConfig {
        cases: 48,
        ..ProptestConfig::default()
    };
    let run = |steps: Vec<Step>| {
        let (bench, mut store) = B::create();
        let mut model: BTreeMap<String, Model> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Tidy => drop(store.tidy().unwrap()),
                Step::Reopen => {
                    strict(&store, &[]);
                    store = bench.reopen(store);
                }
                Step::Commit(actions, sync) => {
                    let mut writes = Vec::new();
                    for (document, action) in actions {
                        let document = format!("doc {document}");
                        let expected = model.entry(document.clone()).or_default();
                        let known = expected.is_there;
                        let buries =
                            matches!(action, Action::Delete | Action::Undelete | Action::Purge);
                        let any = known || expected.entries > 0;
                        if if buries {
                            !any
                        } else {
                            expected.life != Life::Live
                        } {
                            continue;
                        }
                        expected.is_there |= !buries && !matches!(action, Action::Access);
                        match action {
                            Action::Append(count) => {
                                writes
                                    .push(append(&document, expected.next..expected.next + count));
                                expected.next += count;
                            }
                            Action::Delete if expected.life == Life::Live => {
                                writes.push(delete(&document));
                                expected.life = Life::Deleted;
                            }
                            Action::Undelete if expected.life == Life::Deleted => {
                                writes.push(undelete(&document));
                                expected.life = Life::Live;
                            }
                            Action::Purge if expected.life == Life::Deleted => {
                                writes.push(purge(&document));
                                expected.life = Life::Purged;
                            }
                            Action::Delete | Action::Undelete | Action::Purge => {}
                            Action::Access => {
                                writes.push(access(&document, expected.entries));
                                expected.entries += 1;
                            }
                            Action::Snapshot(base, keep) => {
                                let limit = if known { expected.next } else { 20 };
                                expected.base = share(expected.base, limit, base);
                                expected.next = expected.next.max(expected.base);
                                let keep_from = share(0, expected.base, keep);
                                expected.keep_from = expected.keep_from.max(if known {
                                    keep_from
                                } else {
                                    expected.base
                                });
                                expected.has_snapshot = true;
                                writes.push(snapshot(&document, expected.base, keep_from));
                            }
                        }
                    }
                    let durability = if sync {
                        Durability::Strict
                    } else {
                        Durability::Relaxed
                    };
                    store.commit(&writes, durability).unwrap();
                }
            }
            for (name, expected) in &model {
                let is_there = expected.is_there && expected.life == Life::Live;
                prop_assert_eq!(store.holds(&id(name)).unwrap(), is_there);
                let listed = store.documents(None, 9).unwrap();
                let is_listed = listed.iter().any(|info| info.document == id(name));
                prop_assert_eq!(is_listed, is_there);
                let tombstone = store.tombstone(&id(name)).unwrap();
                prop_assert_eq!(Life::of(tombstone.as_ref()), expected.life);
                let newest = expected.entries.checked_sub(1);
                let newest = newest
                    .filter(|_| expected.life != Life::Purged)
                    .map(|number| (number, entry(number)));
                let has = newest
                    .as_ref()
                    .map_or(Vec::new(), |(number, _)| labels(*number));
                for number in 0..3 {
                    let found = store.labelled(&label(number), None, 9).unwrap();
                    // What is purged is found until it is swept.
                    if expected.life != Life::Purged {
                        let is_found = found.contains(&id(name));
                        prop_assert_eq!(is_found, has.contains(&label(number)));
                    }
                }
                prop_assert!(store.mislabelled().unwrap().is_empty());
                prop_assert_eq!(store.access(&id(name)).unwrap(), newest);
                if expected.is_there || expected.entries > 0 {
                    prop_assert!(store.verify(&id(name)).unwrap().is_empty());
                }
                if !is_there {
                    continue;
                }
                let document = open(&store, name);
                prop_assert_eq!(
                    (document.base, document.next()),
                    (expected.base, expected.next)
                );
                prop_assert_eq!(document.retained_from, expected.keep_from);
                let log = store.log(&id(name), 0, u64::MAX, u64::MAX).unwrap();
                let all = flatten(&log, document.retained_from);
                prop_assert_eq!(all, changes(document.retained_from..expected.next));
                prop_assert_eq!(
                    flatten(&document.tail, expected.base),
                    changes(expected.base..expected.next)
                );
                let contents = store.contents(&id(name)).unwrap().unwrap();
                prop_assert_eq!(
                    (contents.base, contents.tail),
                    (document.base, document.tail)
                );
                let snapshot = store.snapshot(&id(name)).unwrap().map(|(_, bytes)| bytes);
                prop_assert_eq!(contents.snapshot, snapshot);
                let known = expected.has_snapshot.then(|| arrivals(expected.base));
                prop_assert_eq!(store.arrivals(&id(name)).unwrap(), known);
            }
        }
        Ok(())
    };
    TestRunner::new(config).run(&steps(), run).unwrap();
}
