//! Recordings, orders and comparing, without a server, on random histories of replicas that edit at once.
//!
//! What must hold: a recording comes back as it was written, and one that was damaged is an error or a beginning of
//! it, never something else; Automerge comes to one state in all orders; a replica that is broken on purpose is
//! caught, at exactly the change where it breaks.

use std::collections::HashSet;
use std::io::Write as _;

use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{ActorId, AutoCommit, ChangeHash, ObjType, ROOT, ReadDoc as _};
use bytes::Bytes;
use concord_shared::ids::{DocumentId, PrincipalId};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::document::arrivals::Arrivals;
use crate::store::{Durability, MemoryStore, Store as _, Write};

mod parting;

/// One step of a history: replica, what it does, and with which of the others.
type Doing = (usize, u8, usize);

fn doing() -> impl Strategy<Value = Vec<Doing>> {
    prop::collection::vec((0..4_usize, 0..6_u8, 0..4_usize), 1..60)
}

/// The changes of four replicas that do this, in the order of making, which is causal.
fn history(doings: &[Doing]) -> Vec<Bytes> {
    let mut base = AutoCommit::new().with_actor(ActorId::from([9]));
    let text = base.put_object(ROOT, "text", ObjType::Text).unwrap();
    let list = base.put_object(ROOT, "list", ObjType::List).unwrap();
    base.commit_with(CommitOptions::default().with_time(1_700_000_000));
    let actors = (0..4_u8).map(|actor| ActorId::from([actor]));
    let mut replicas: Vec<AutoCommit> = actors.map(|actor| base.fork().with_actor(actor)).collect();
    let mut changes = vec![base.get_last_local_change().unwrap()];
    for (at, (replica, what, other)) in doings.iter().enumerate() {
        let mut source = replicas[*other].clone();
        let replica = &mut replicas[*replica];
        match what {
            0 => replica.splice_text(&text, 0, 0, "ab").unwrap(),
            1 => {
                let delete = isize::from(replica.length(&text) > 0);
                replica.splice_text(&text, 0, delete, "é").unwrap();
            }
            2 => replica.put(ROOT, "title", at.to_string()).unwrap(),
            3 => replica
                .insert(&list, 0, i64::try_from(at).unwrap())
                .unwrap(),
            _ => drop(replica.merge(&mut source).unwrap()),
        }
        if replica.commit().is_some() {
            changes.push(replica.get_last_local_change().unwrap());
        }
    }
    let bytes = changes.iter().map(|change| change.raw_bytes().to_vec());
    bytes.map(Bytes::from).collect()
}

fn document() -> DocumentId {
    DocumentId::from_uuid([7; 16])
}

fn recorded(changes: &[Bytes]) -> Recording {
    let mut builder = Builder::new(Some(document()));
    for (at, bytes) in (0..).zip(changes) {
        let by = (at % 3 > 0).then(|| PrincipalId::new("ann \"a\" é").unwrap());
        let time = (at % 2 > 0).then_some(1_700_000_000_000 + at);
        builder.push(bytes, time, by).unwrap();
    }
    builder.finish().unwrap()
}

fn written(recording: &Recording) -> Vec<u8> {
    let mut writer = file::Writer::new(Vec::new(), recording.document()).unwrap();
    for change in recording.changes() {
        let by = change.principal.as_ref();
        writer
            .change(change.bytes(), change.arrived_ms, by)
            .unwrap();
    }
    writer.finish().unwrap()
}

/// Whether every change comes after its deps, and all are there once.
fn is_causal(recording: &Recording, order: &[usize]) -> bool {
    let mut known: HashSet<ChangeHash> = HashSet::new();
    order.len() == recording.len()
        && order.iter().all(|at| {
            let change = &recording.changes()[*at];
            change.deps().iter().all(|dep| known.contains(dep)) && known.insert(change.hash())
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn automerge_comes_to_one_state_in_all_orders(doings in doing(), seed in any::<u64>()) {
        let recording = recorded(&history(&doings));
        let order = Order::Random(seed).of(&recording);
        prop_assert!(is_causal(&recording, &order));
        prop_assert_eq!(&order, &Order::Random(seed).of(&recording));
        let seeds = (0..4).map(|more| seed.wrapping_add(more));
        prop_assert_eq!(check(&recording, seeds, AutomergeSubject::default), Ok(()));
    }

    #[test]
    fn a_recording_comes_back_as_it_was_written(doings in doing()) {
        let recording = recorded(&history(&doings));
        let loaded = file::read(written(&recording).as_slice()).unwrap();
        prop_assert_eq!(loaded.ending, Ending::Closed);
        prop_assert_eq!(loaded.recording, recording);
    }

    #[test]
    fn of_a_recording_that_was_cut_what_is_whole_is_there(doings in doing(), cut in any::<prop::sample::Index>()) {
        let recording = recorded(&history(&doings));
        let whole = written(&recording);
        let cut = &whole[..cut.index(whole.len())];
        let lines = cut.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).count();
        match file::read(cut) {
            // Only the first line can't be done without.
            Err(_) => prop_assert_eq!(lines, 0),
            Ok(loaded) => {
                let changes = loaded.recording.changes();
                prop_assert!(changes.len() + 1 >= lines);
                prop_assert!(recording.changes().starts_with(changes));
                // Of the last line, too, the line feed alone can be missed.
                let is_all = cut.len() + 1 == whole.len();
                prop_assert!(is_all || loaded.ending != Ending::Closed);
                let is_torn = matches!(loaded.ending, Ending::Torn { .. });
                // But for the line feed alone, all of a line may be there.
                let ends_whole = cut.last().is_some_and(|last| b"\n}".contains(last));
                prop_assert!(is_torn || ends_whole);
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_an_error_or_a_torn_end(doings in doing(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let recording = recorded(&history(&doings));
        let mut bytes = written(&recording);
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        if let Ok(loaded) = file::read(bytes.as_slice()) {
            prop_assert!(matches!(loaded.ending, Ending::Torn { .. }), "{:?}", loaded.ending);
            prop_assert!(recording.changes().starts_with(loaded.recording.changes()));
        }
    }

    #[test]
    fn any_bytes_are_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = file::read(bytes.as_slice());
        let _ = Recording::from_automerge(bytes);
    }
}

/// Two who write at once, `rounds` times; then the changes of a round are: both's titles, a merge.
fn rounds(rounds: usize) -> Vec<Bytes> {
    let round = [(0, 2, 0), (1, 2, 0), (0, 5, 1), (0, 0, 0), (1, 5, 0)];
    history(&round.repeat(rounds))
}

#[test]
fn contents_differ_by_more_than_what_is_shown() {
    let mut one = automerge::Automerge::new();
    let mut other = automerge::Automerge::new();
    for (document, value) in [(&mut one, 1), (&mut other, 2)] {
        let mut change = document.transaction();
        let list = change.put_object(ROOT, "a/b", ObjType::List).unwrap();
        change.insert(&list, 0, value).unwrap();
        change.commit();
    }
    let (one, other) = (Content::of(&one).unwrap(), Content::of(&other).unwrap());
    // The maker of the value differs already.
    assert!(one.difference(&other).unwrap().starts_with("at \"/a~1b\""));
    assert_eq!(one.difference(&one.clone()), None);
}

/// A stored document: a snapshot, of which the log still has a little, and changes after it.
#[test]
fn a_stored_document_is_recorded_as_it_was_admitted() {
    let changes = rounds(5);
    let (base, keep_from) = (12, 9);
    let store = MemoryStore::new();
    let append = |first: u64, changes: &[Bytes]| Write::Append {
        document: document(),
        first,
        received_at_ms: 1000 + first,
        principal: PrincipalId::new("ann").unwrap(),
        changes: changes.to_vec(),
    };
    for (first, change) in (0..).zip(&changes) {
        let write = append(first, std::slice::from_ref(change));
        store.commit(&[write], Durability::Strict).unwrap();
    }
    let whole = Recording::from_store(&store, &document()).unwrap().unwrap();
    assert_eq!(whole.untimed(), 0);

    let old = crate::document::judging::judge(&changes[..base]);
    // Automerge keeps the order in which it got the changes; that of admission is in the graph.
    let orders = (0..).map(|seed| Order::Random(seed).of(&whole));
    let mut orders = orders.map(|order| {
        let order = order.into_iter().filter(|at| *at < base);
        order.collect::<Vec<_>>()
    });
    let order = orders.find(|order| !order.is_sorted()).unwrap();
    let otherwise: Vec<Bytes> = order.iter().map(|at| changes[*at].clone()).collect();
    let loaded = crate::materialise::load(&otherwise).unwrap();
    let hashes = |recording: &Recording| -> Vec<ChangeHash> {
        recording.changes().iter().map(Recorded::hash).collect()
    };
    let mut all = Arrivals::default();
    for (at, change) in whole.changes().iter().enumerate().take(base) {
        all.push(
            1,
            Some((1000 + at as u64, change.principal.as_ref().unwrap())),
        );
    }
    // As older builds left it; damaged, which must not matter; and as it is written.
    let unreadable = Bytes::from_static(b"\x01\x09arrivals");
    for (arrivals, known_from) in [
        (Bytes::new(), keep_from),
        (unreadable, keep_from),
        (all.encode(), 0),
    ] {
        let snapshot = Write::Snapshot {
            document: document(),
            base: base as u64,
            keep_from: keep_from as u64,
            received_at_ms: 5000,
            snapshot: loaded.save().into(),
            graph: old.history.encode(),
            arrivals,
        };
        store.commit(&[snapshot], Durability::Strict).unwrap();
        let recording = Recording::from_store(&store, &document()).unwrap().unwrap();
        assert_eq!(hashes(&recording), hashes(&whole));
        for (at, change) in recording.changes().iter().enumerate() {
            let arrived = (at >= known_from).then_some(1000 + at as u64);
            assert_eq!(change.arrived_ms, arrived, "change {at}");
            assert_eq!(change.principal.is_some(), at >= known_from);
        }
        assert_eq!(recording.untimed(), known_from);
    }
    let nobody = DocumentId::from_uuid([8; 16]);
    assert_eq!(Recording::from_store(&store, &nobody).unwrap(), None);
}

#[test]
fn automerge_files_are_read_in_any_order_and_only_whole() {
    let changes = rounds(5);
    let backwards: Vec<u8> = changes
        .iter()
        .rev()
        .flat_map(|bytes| bytes.to_vec())
        .collect();
    let recording = Recording::from_automerge(backwards).unwrap();
    assert_eq!(recording.len(), changes.len());
    assert!(is_causal(&recording, &Order::Arrival.of(&recording)));
    let loaded = crate::materialise::load(&changes).unwrap();
    let mut heads = loaded.get_heads();
    heads.sort_unstable();
    assert_eq!(recording.heads(), heads);
    // Saved as a whole, with all single changes behind it: nothing comes twice.
    let mut saved = loaded.save();
    saved.extend(changes.concat());
    let again = Recording::from_automerge(saved).unwrap();
    assert_eq!(again.len(), changes.len());

    let without_first = Bytes::from(changes[1..].concat());
    let error = Recording::from_automerge(without_first).unwrap_err();
    assert!(matches!(error, ChangeError::MissingDep { .. }), "{error}");
}

#[test]
fn a_replay_goes_forward_and_back() {
    let recording = recorded(&rounds(3));
    let mut replay = Replay::new(recording.clone());
    let mut seen = Vec::new();
    while let Some(step) = replay.step().unwrap() {
        assert_eq!(step.change, &recording.changes()[step.place]);
        seen.push(step.json().unwrap());
    }
    assert_eq!(seen.len(), recording.len());
    assert_eq!(seen[0], json!({ "text": "", "list": [] }));
    for to in [0, 5, 2, recording.len(), 1] {
        replay.seek(to).unwrap();
        let expected = to.checked_sub(1).map_or(json!({}), |at| seen[at].clone());
        assert_eq!((replay.json().unwrap(), replay.position()), (expected, to));
    }
    assert!(matches!(
        replay.seek(recording.len() + 1),
        Err(ReplayError::Beyond { .. })
    ));
}

/// A seed that somebody wrote down must make the same order again, whatever becomes of the libraries.
#[test]
fn seeds_make_the_orders_that_they_always_made() {
    let apart = [(0, 2, 0), (1, 2, 0), (2, 2, 0), (3, 2, 0)].repeat(3);
    let order = Order::Random(7).of(&recorded(&history(&apart)));
    assert_eq!(order, [0, 1, 3, 2, 6, 7, 5, 10, 11, 4, 9, 8, 12]);
}

/// The format, byte by byte: what is recorded today must be readable for ever.
#[test]
fn the_format_stays_as_it_is() {
    let mut document = AutoCommit::new().with_actor(ActorId::from([1]));
    document.put(ROOT, "a", 1).unwrap();
    let change = document.get_last_local_change().unwrap();
    let id = DocumentId::from_uuid([7; 16]);
    let by = PrincipalId::new("ann").unwrap();
    let mut writer = file::Writer::new(Vec::new(), Some(&id)).unwrap();
    writer
        .change(change.raw_bytes(), Some(1_700_000_000_000), Some(&by))
        .unwrap();
    let written = String::from_utf8(writer.finish().unwrap()).unwrap();
    let golden = include_str!("tests/golden.recording");
    assert_eq!(written, golden);
    let loaded = file::read(golden.as_bytes()).unwrap();
    assert_eq!((loaded.ending, loaded.recording.len()), (Ending::Closed, 1));
    assert_eq!(loaded.recording.document(), Some(&id));
}

#[test]
fn files_are_told_apart_and_faults_named() {
    let recording = recorded(&rounds(2));
    let bytes = written(&recording);
    let load = |bytes: &[u8]| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Replay::load(file.path())
    };
    assert_eq!(load(&bytes).unwrap().recording(), &recording);
    let saved = Bytes::from(rounds(2).concat());
    assert_eq!(load(&saved).unwrap().recording().len(), recording.len());
    assert!(matches!(
        load(b"{}").unwrap_err(),
        ReplayError::Load(LoadError::Unknown { .. })
    ));
    let torn = load(&bytes[..bytes.len() - 3]).unwrap_err();
    assert!(matches!(torn, ReplayError::NotWhole { .. }), "{torn}");

    // Faults that no flipped bit makes: each by its name.
    let text = String::from_utf8(bytes).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let fault = |lines: &[&str]| {
        let text = lines.join("\n") + "\n";
        file::read(text.as_bytes()).unwrap_err()
    };
    let swapped = [&lines[..2], &[lines[3], lines[2]], &lines[4..]].concat();
    let error = fault(&swapped);
    assert!(
        matches!(
            error,
            FileError::OutOfPlace {
                line: 3,
                found: 2,
                expected: 1
            }
        ),
        "{error}"
    );
    let missing = [&lines[..lines.len() - 2], &lines[lines.len() - 1..]].concat();
    assert!(matches!(fault(&missing), FileError::OutOfPlace { .. }));
    let twice = [&lines[..], &lines[lines.len() - 1..]].concat();
    assert!(matches!(fault(&twice), FileError::AfterEnd { .. }));
    let newer = lines[0].replace("\"version\":1", "\"version\":2,\"more\":true");
    assert!(matches!(fault(&[&newer]), FileError::Version { found: 2 }));
    let renamed = lines[1].replace("ann", "eve");
    let by_other = lines[2].replace("ann", "eve");
    assert_ne!(by_other, lines[2]);
    let error = fault(&[lines[0], &renamed, &by_other]);
    assert!(matches!(error, FileError::Checksum { line: 3 }), "{error}");
}
