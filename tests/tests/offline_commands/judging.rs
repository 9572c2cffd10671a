//! `verify --deep`, `repair` and `inspect-change`, on changes that were stored before anybody judged their
//! ops: put into the store directly, as an older server would have.

use std::path::Path;

use anyhow::Result;
use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, Automerge, ChangeHash, ROOT};
use bytes::Bytes;
use concord_server::materialise;
use concord_server::store::{Durability, SledOptions, SledStore, Store as _, Write};
use concord_shared::change::change_hash;
use concord_shared::ids::{DocumentId, PrincipalId};
use concord_tests::forge::model::{ChangeModel, OpModel, action};

use super::{concord, succeed};

const INT: u64 = 4;

/// A change by this actor with one op, on an object that is not there if `bad`.
fn change(actor: u8, deps: &[ChangeHash], start_op: u64, bad: bool) -> Bytes {
    let object = bad.then_some((0, start_op - 1));
    let model = ChangeModel {
        deps: deps.to_vec(),
        actor: vec![actor],
        seq: 1,
        start_op,
        ops: vec![OpModel::at_key(object, "key", action::SET).value(INT, &[actor])],
        ..ChangeModel::default()
    };
    model.encode()
}

/// Good; bad; good, on the bad one; good, on the good one.
fn changes() -> [Bytes; 4] {
    let good = change(1, &[], 1, false);
    let bad = change(2, &[change_hash(&good)], 2, true);
    let on_bad = change(3, &[change_hash(&bad)], 3, false);
    let on_good = change(4, &[change_hash(&good)], 2, false);
    [good, bad, on_bad, on_good]
}

fn store(data: &Path, id: &DocumentId, changes: &[Bytes]) -> Result<()> {
    let write = Write::Append {
        document: id.clone(),
        first: 0,
        received_at_ms: 1,
        principal: PrincipalId::new("an older server")?,
        changes: changes.to_vec(),
    };
    Ok(SledStore::open(&SledOptions::new(data))?.commit(&[write], Durability::Strict)?)
}

#[test]
fn what_would_be_refused_today_is_named_and_left_out_of_a_new_document() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let [id, sound, repaired] = [1, 2, 3].map(|n| DocumentId::from_uuid([n; 16]));
    let changes = changes();
    store(&data, &id, &changes)?;
    store(&data, &sound, &changes[..1])?;

    let output = concord(&data, "verify", &["--deep"])?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout)?;
    let [bad, on_bad] = [1, 2].map(|n: usize| change_hash(&changes[n]));
    for line in [
        format!("{id}: change 1 ({bad}): unknown-object: "),
        format!("{id}: change 2 ({on_bad}): builds-on-refused: "),
        "2 documents verified, 1 with problems".to_owned(),
    ] {
        assert!(said.contains(&line), "{line} is not in:\n{said}");
    }
    assert!(!said.contains(sound.as_str()), "{said}");

    let said = succeed(&data, "repair", &[id.as_str(), "--as", repaired.as_str()])?;
    for line in [
        format!("left out: change 1 ({bad}): unknown-object: "),
        format!("left out: change 2 ({on_bad}): builds-on-refused: "),
        format!("{repaired}: 2 of the 4 changes of {id}, which stays as it is"),
    ] {
        assert!(said.contains(&line), "{line} is not in:\n{said}");
    }
    succeed(&data, "verify", &["--deep", repaired.as_str()])?;
    let got: serde_json::Value =
        serde_json::from_str(&succeed(&data, "get", &[repaired.as_str()])?)?;
    assert_eq!(got, serde_json::json!({ "key": 4 }));
    let store = SledStore::open(&SledOptions::new(&data))?;
    let old = store.log(&id, 0, u64::MAX, u64::MAX)?;
    assert_eq!(old.len(), 1);
    assert_eq!(old[0].changes, changes, "the old document is as it was");
    drop(store);

    // Nothing is overwritten, and what is sound is left alone.
    let output = concord(&data, "repair", &[id.as_str(), "--as", sound.as_str()])?;
    assert_eq!(output.status.code(), Some(1));
    let said = succeed(&data, "repair", &[sound.as_str()])?;
    assert!(said.contains("nothing to repair"), "{said}");
    Ok(())
}

/// A document chunk of "ab" whose elements are stored as b, a: Automerge loads it as "ba", under the same heads.
#[test]
fn ops_out_of_order_are_not_imported_and_are_found_where_they_are_stored() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/elements-out-of-order.automerge"
    );
    let shown = |id: &DocumentId| -> Result<serde_json::Value> {
        let json = succeed(&data, "get", &[id.as_str()])?;
        Ok(serde_json::from_str(&json)?)
    };
    succeed(&data, "import", &[fixture])?;
    let store = SledStore::open(&SledOptions::new(&data))?;
    let imported = store.documents(None, 1)?[0].document.clone();
    let [stored, repaired] = [1, 2].map(|n| DocumentId::from_uuid([n; 16]));
    let write = Write::Snapshot {
        document: stored.clone(),
        base: 1,
        keep_from: 1,
        received_at_ms: 1,
        snapshot: std::fs::read(fixture)?.into(),
        graph: store
            .open(&imported)?
            .and_then(|open| open.graph)
            .expect("is stored"),
        arrivals: bytes::Bytes::new(),
    };
    store.commit(&[write], Durability::Strict)?;
    drop(store);
    assert_eq!(shown(&imported)?, serde_json::json!({ "text": "ab" }));
    assert_eq!(shown(&stored)?, serde_json::json!({ "text": "ba" }));

    succeed(&data, "verify", &["--deep", imported.as_str()])?;
    let output = concord(&data, "verify", &["--deep"])?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout)?;
    let line = format!("{stored}: its ops are stored in another order than its changes put them");
    assert!(said.contains(&line), "{said}");

    succeed(
        &data,
        "repair",
        &[stored.as_str(), "--as", repaired.as_str()],
    )?;
    assert_eq!(shown(&repaired)?, serde_json::json!({ "text": "ab" }));
    succeed(&data, "verify", &["--deep", repaired.as_str()])?;
    Ok(())
}

/// Automerge has the changes of one batch in an order of its own: here of two histories with no change in common.
#[test]
fn changes_in_another_order_are_no_ops_out_of_order() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let mut histories = [1_u8, 2].map(|actor| {
        let mut document = AutoCommit::new().with_actor(ActorId::from([actor; 16]));
        for n in 0..5_i64 {
            document.put(ROOT, format!("key {actor}"), n).expect("ok");
            document.commit();
        }
        document
    });
    let file = folder.path().join("one.automerge");
    std::fs::write(&file, histories[0].save())?;
    succeed(&data, "import", &[file.to_str().expect("a path")])?;
    let store = SledStore::open(&SledOptions::new(&data))?;
    let id = store.documents(None, 1)?[0].document.clone();
    let changes = histories[1].get_changes(&[]);
    let raw = |change: &automerge::Change| Bytes::copy_from_slice(change.raw_bytes());
    let append = Write::Append {
        document: id.clone(),
        first: 5,
        received_at_ms: 1,
        principal: PrincipalId::anonymous(),
        changes: changes.iter().map(raw).collect(),
    };
    store.commit(&[append], Durability::Strict)?;
    let stored = materialise::document(&store, &id)?.expect("is there");
    drop(store);
    let order = |document: &Automerge| -> Vec<ChangeHash> {
        let changes = document.get_changes(&[]);
        changes.iter().map(automerge::Change::hash).collect()
    };
    let rebuilt = materialise::rebuilt(&stored)?;
    assert_ne!(
        order(&stored),
        order(&rebuilt),
        "Automerge orders them otherwise now"
    );
    succeed(&data, "verify", &["--deep"])?;
    let said = succeed(&data, "repair", &[id.as_str()])?;
    assert!(said.contains("nothing to repair"), "{said}");
    Ok(())
}

/// What was compacted is judged as well, and what is stored beside the snapshot is held against it.
#[test]
fn a_compacted_document_is_judged_change_by_change() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let mut document = AutoCommit::new();
    for n in 0..50_i64 {
        document.put(ROOT, format!("key {}", n % 7), n)?;
        document.commit();
    }
    let file = folder.path().join("some.automerge");
    std::fs::write(&file, document.save())?;
    succeed(&data, "import", &[file.to_str().expect("a path")])?;
    let said = succeed(&data, "verify", &["--deep"])?;
    assert_eq!(said.trim(), "1 documents verified, 0 with problems");

    // The history of another document of as many changes, by an actor of the same length.
    let mut other = AutoCommit::new().with_actor(ActorId::from([7; 16]));
    for n in 0..50_i64 {
        other.put(ROOT, "other", n)?;
        other.commit();
    }
    let store = SledStore::open(&SledOptions::new(&data))?;
    let id = store.documents(None, 1)?[0].document.clone();
    let scratch = folder.path().join("scratch");
    let file = folder.path().join("other.automerge");
    std::fs::write(&file, other.save())?;
    succeed(&scratch, "import", &[file.to_str().expect("a path")])?;
    let scratch = SledStore::open(&SledOptions::new(&scratch))?;
    let foreign = scratch.documents(None, 1)?[0].document.clone();
    let graph = scratch.open(&foreign)?.expect("is there").graph;
    let swapped = Write::Snapshot {
        document: id.clone(),
        base: 50,
        keep_from: 50,
        received_at_ms: 1,
        snapshot: document.save().into(),
        graph: graph.expect("is stored"),
        arrivals: bytes::Bytes::new(),
    };
    store.commit(&[swapped], Durability::Strict)?;
    drop(store);
    let output = concord(&data, "verify", &["--deep"])?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout)?;
    assert!(
        said.contains("the stored history is not that of the changes"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_change_in_a_file_is_shown_and_judged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let id = DocumentId::from_uuid([1; 16]);
    let [good, bad, ..] = changes();
    store(&data, &id, std::slice::from_ref(&good))?;
    let file = |name: &str, bytes: &[u8]| -> Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes)?;
        Ok(path.to_str().expect("a path").to_owned())
    };
    let mut document = Automerge::new();
    document.apply_changes([automerge::Change::try_from(&good[..])?])?;
    assert_eq!(document.get_heads(), [change_hash(&good)]);
    let after = file("after.automerge", &document.save())?;
    let (good_file, bad_file) = (file("good", &good)?, file("bad", &bad)?);

    // By itself nothing is wrong with it: the object might exist.
    let said = succeed(&data, "inspect-change", &[&bad_file])?;
    for line in [
        format!("change       {}", change_hash(&bad)),
        "\"actor\": \"02\"".to_owned(),
        "needs        object 1@02, a map".to_owned(),
        "makes        2@02, 1 value(s) at key \"key\" of 1@02".to_owned(),
        "verdict      good by itself".to_owned(),
    ] {
        assert!(said.contains(&line), "{line} is not in:\n{said}");
    }
    for against in [["--document", id.as_str()], ["--after", &after]] {
        let output = concord(
            &data,
            "inspect-change",
            &[against[0], against[1], &bad_file],
        )?;
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stdout)?;
        assert!(
            said.contains("verdict      refused: unknown-object: "),
            "{said}"
        );
    }
    // It is there already.
    let output = concord(&data, "inspect-change", &["--after", &after, &good_file])?;
    let said = String::from_utf8(output.stdout)?;
    assert!(said.contains("refused: duplicate-seq"), "{said}");

    let mut spoiled = bad.to_vec();
    spoiled[4] ^= 1;
    for (bytes, verdict) in [
        (&spoiled[..], "refused: bad-checksum: "),
        // Not even Automerge is asked then.
        (&spoiled[..], "claims       not shown"),
        (b"not a change", "refused: bad-chunk: "),
        (b"", "nothing"),
    ] {
        let path = file("spoiled", bytes)?;
        let output = concord(&data, "inspect-change", &[&path])?;
        assert_eq!(output.status.code(), Some(1));
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said)?;
        assert!(said.contains(verdict), "{verdict} is not in:\n{said}");
    }

    // Each chunk of a file has a verdict, whatever the others have.
    let over_itself = OpModel::at_key(None, "key", action::SET)
        .value(INT, &[1])
        .over(&[(0, 1)]);
    let pred_of_its_own = ChangeModel {
        actor: vec![5],
        seq: 1,
        start_op: 1,
        ops: vec![over_itself],
        ..ChangeModel::default()
    };
    let several = [&bad[..], &pred_of_its_own.encode(), &good].concat();
    let path = file("several", &several)?;
    let output = concord(&data, "inspect-change", &[&path])?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout)?;
    let verdicts: Vec<&str> = said.lines().filter(|l| l.starts_with("verdict")).collect();
    let [first, second, third] = verdicts[..] else {
        panic!("{said}");
    };
    assert!(first.contains("good by itself") && third.contains("good by itself"));
    assert!(second.contains("refused: bad-pred: change "), "{second}");
    assert_eq!(second.matches("op 1: ").count(), 1, "{second}");

    // What builds on one that is refused is, too; what builds on one that is not there would wait for it.
    let [_, _, on_bad, _] = changes();
    let both = file("both", &[&bad[..], &on_bad].concat())?;
    let output = concord(&data, "inspect-change", &["--after", &after, &both])?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout)?;
    assert!(said.contains("refused: builds-on-refused: "), "{said}");
    let alone = file("alone", &on_bad)?;
    let said = succeed(&data, "inspect-change", &["--after", &after, &alone])?;
    assert!(
        said.contains("verdict      would wait: 1 of the change's deps"),
        "{said}"
    );
    Ok(())
}
