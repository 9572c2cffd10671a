//! The commands that work on the data directory: list, get, import, export, verify, compact, repair,
//! inspect-change.
//!
//! Driven through the built binary as an operator does. Damage is real: a byte of the database file is
//! turned over, and `verify` must fail.

mod judging;

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Result, ensure};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, Automerge, ObjType, ROOT, ReadDoc as _, ScalarValue};
use concord_server::store::{Durability, SledOptions, SledStore, Store as _, Write};
use concord_shared::ids::DocumentId;
use concord_tests::server_process::{ServerProcess, binary};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

fn concord(data: &Path, command: &str, arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(binary()?)
        .arg(command)
        .arg("--data")
        .arg(data)
        .args(arguments)
        .env_remove("CONCORD_DATA")
        .output()?)
}

fn succeed(data: &Path, command: &str, arguments: &[&str]) -> Result<String> {
    let output = concord(data, command, arguments)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command}: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A document with one of each kind of value.
fn document() -> Result<AutoCommit> {
    let mut document = AutoCommit::new();
    let text = document.put_object(ROOT, "agenda", ObjType::Text)?;
    document.splice_text(&text, 0, 0, "1. welcome 🦀")?;
    document.put(ROOT, "seen", ScalarValue::counter(3))?;
    document.put(ROOT, "at", ScalarValue::Timestamp(1_700_000_000_000))?;
    document.put(ROOT, "logo", ScalarValue::Bytes(vec![1, 2]))?;
    let list = document.put_object(ROOT, "dates", ObjType::List)?;
    document.insert(&list, 0, "2026-11-21")?;
    document.commit();
    Ok(document)
}

#[test]
fn documents_go_in_and_come_out_the_same() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    let id = DocumentId::from_uuid([9; 16]);
    let file = folder.path().join("some notes.automerge");
    let mut original = document()?;
    std::fs::write(&file, original.save())?;
    let path = file.to_str().expect("a path");
    succeed(&data, "import", &[path, "--id", id.as_str()])?;

    let value: Value = serde_json::from_str(&succeed(&data, "get", &[&id.url()])?)?;
    let expected = json!({
        "agenda": "1. welcome 🦀", "seen": 3, "at": "2023-11-14T22:13:20.000Z",
        "logo": "AQI=", "dates": ["2026-11-21"],
    });
    assert_eq!(value, expected);

    // Again, with one change more: only that is new.
    original.put(ROOT, "seen too", true)?;
    std::fs::write(&file, original.save())?;
    let said = succeed(&data, "import", &[path, "--id", id.as_str()])?;
    assert!(said.contains(": 1 changes"), "{said}");

    succeed(&data, "export", &["--to", out.to_str().expect("a path")])?;
    let exported = Automerge::load(&std::fs::read(out.join(format!("{id}.automerge")))?)?;
    assert_eq!(exported.get_heads(), original.get_heads());

    // A whole directory into another data directory, under the same ids.
    let copy = folder.path().join("copy");
    succeed(&copy, "import", &[out.to_str().expect("a path")])?;
    let listed: Value = serde_json::from_str(&succeed(&copy, "list", &["--json"])?)?;
    assert_eq!(
        (&listed["id"], &listed["changes"]),
        (&json!(id.as_str()), &json!(2))
    );

    let said = succeed(&data, "compact", &[])?;
    assert!(said.starts_with("1 documents compacted"), "{said}");
    let said = succeed(&data, "verify", &[])?;
    assert_eq!(said.trim(), "1 documents verified, 0 with problems");
    let stats = exported.stats();
    assert_eq!(stats.num_changes, 2);
    Ok(())
}

#[test]
fn verify_finds_damage_and_errors_are_clear() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let output = concord(&data, "list", &[])?;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no data directory"));

    let garbage = folder.path().join("garbage.automerge");
    std::fs::write(&garbage, b"not a document")?;
    let output = concord(&data, "import", &[garbage.to_str().expect("a path")])?;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no Automerge document"));

    // Many incompressible bytes, so that a turned bit in the middle of the file is inside a record.
    let mut large = AutoCommit::new();
    let mut bytes = vec![0; 300_000];
    StdRng::seed_from_u64(1).fill(&mut bytes[..]);
    large.put(ROOT, "bytes", ScalarValue::Bytes(bytes))?;
    let file = folder.path().join("large.automerge");
    std::fs::write(&file, large.save())?;
    succeed(&data, "import", &[file.to_str().expect("a path")])?;
    succeed(&data, "verify", &[])?;
    let database = data.join("db");
    let mut stored = std::fs::read(&database)?;
    let needle = &large.save()[150_000..150_064];
    let at = stored.windows(64).position(|window| window == needle);
    let at = at.expect("the snapshot's bytes are in the database file");
    stored[at] ^= 1;
    std::fs::write(&database, stored)?;
    let output = concord(&data, "verify", &[])?;
    assert!(
        !output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

/// What is well comes out all the same, on both sides of what is damaged.
#[test]
fn export_goes_on_past_a_damaged_document() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    let [before, damaged, after] = [1, 2, 3].map(|n| DocumentId::from_uuid([n; 16]));
    let file = folder.path().join("good.automerge");
    std::fs::write(&file, document()?.save())?;
    for id in [&before, &after] {
        let path = file.to_str().expect("a path");
        succeed(&data, "import", &[path, "--id", id.as_str()])?;
    }
    let bad = Write::Snapshot {
        document: damaged.clone(),
        base: 1,
        keep_from: 1,
        received_at_ms: 1,
        snapshot: "not a document".into(),
        graph: "not a graph".into(),
        arrivals: "not arrivals".into(),
    };
    SledStore::open(&SledOptions::new(&data))?.commit(&[bad], Durability::Strict)?;

    let output = concord(&data, "export", &["--to", out.to_str().expect("a path")])?;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout)?;
    assert!(said.starts_with("2 documents exported"), "{said}");
    assert!(said.trim().ends_with("1 failed"), "{said}");
    let errors = String::from_utf8(output.stderr)?;
    assert!(errors.contains(damaged.as_str()), "{errors}");
    for (id, exported) in [(&before, true), (&damaged, false), (&after, true)] {
        let file = out.join(format!("{id}.automerge"));
        assert_eq!(file.is_file(), exported, "{id}");
    }
    Ok(())
}

#[test]
fn a_directory_in_use_is_left_alone() -> Result<()> {
    let server = ServerProcess::start()?;
    let output = concord(server.data(), "list", &[])?;
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("in use"), "{errors}");
    Ok(())
}

/// A flipped bit in what was durable: every command says so and leaves the directory as it is, what is left comes out of
/// a copy, and the server starts on it only when told to.
#[test]
fn a_damaged_directory_is_named_read_from_a_copy_and_not_served() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    let file = folder.path().join("good.automerge");
    std::fs::write(&file, document()?.save())?;
    let path = file.to_str().expect("a path");
    for n in 0..6 {
        let id = DocumentId::from_uuid([n; 16]);
        succeed(&data, "import", &[path, "--id", id.as_str()])?;
    }
    let database = data.join("db");
    let good = std::fs::read(&database)?;
    let mut bad = good.clone();
    let end = bad.iter().rposition(|byte| *byte != 0).expect("something");
    bad[end - 40] ^= 1;
    std::fs::write(&database, &bad)?;

    for (command, arguments) in [
        ("verify", vec![]),
        ("list", vec![]),
        ("export", vec!["--to", out.to_str().expect("a path")]),
        ("compact", vec![]),
        ("import", vec![path]),
        ("serve", vec!["--listen", "127.0.0.1:0"]),
    ] {
        let output = concord(&data, command, &arguments)?;
        assert_eq!(output.status.code(), Some(1), "{command}");
        let errors = String::from_utf8(output.stderr)?;
        assert!(
            errors.contains("has lost something that was durable"),
            "{command}: {errors}"
        );
        assert_eq!(
            errors.contains("--accept-loss"),
            command == "serve",
            "{command}: {errors}"
        );
        assert!(std::fs::read(&database)? == bad, "{command}");
        let left = std::fs::read_dir(folder.path())?.count();
        assert!(left <= 3, "{command} left its copy behind");
    }
    assert!(std::fs::read_dir(&out)?.count() >= 4);

    std::fs::write(&database, &good)?;
    let said = succeed(&data, "verify", &[])?;
    assert!(said.starts_with("6 documents verified, 0 with"), "{said}");
    Ok(())
}

/// What is junk is reported, and what is not is imported.
#[test]
fn import_goes_on_past_files_that_are_none() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, files) = (folder.path().join("data"), folder.path().join("files"));
    std::fs::create_dir(&files)?;
    for (name, bytes) in [
        ("a.automerge", b"junk".to_vec()),
        ("b.automerge", document()?.save()),
        ("c.automerge", Vec::new()),
        ("d.automerge", document()?.save()),
    ] {
        std::fs::write(files.join(name), bytes)?;
    }
    let output = concord(&data, "import", &[files.to_str().expect("a path")])?;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout)?.lines().count(), 2);
    let errors = String::from_utf8(output.stderr)?;
    assert!(
        errors.contains("a.automerge: this is no Automerge document"),
        "{errors}"
    );
    assert!(
        errors.contains("c.automerge: this is no Automerge document"),
        "{errors}"
    );
    assert!(errors.contains("2 of 4 files not imported"), "{errors}");
    assert_eq!(succeed(&data, "list", &[])?.lines().count(), 2);
    Ok(())
}

/// Deeper than any stack: a message for `get`, nothing special for the others.
#[test]
fn a_document_of_a_hundred_thousand_levels_is_no_crash() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, out) = (folder.path().join("data"), folder.path().join("out"));
    let mut deep = Automerge::new();
    let mut change = deep.transaction();
    let mut inner = ROOT;
    for _ in 0..100_000 {
        inner = change.put_object(&inner, "a", ObjType::Map)?;
    }
    change.commit();
    let file = folder.path().join("deep.automerge");
    std::fs::write(&file, deep.save())?;
    succeed(
        &data,
        "import",
        &[file.to_str().expect("a path"), "--id", "deep"],
    )?;
    let output = concord(&data, "get", &["deep"])?;
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8(output.stderr)?;
    assert!(
        errors.contains("too-deep: there are more levels"),
        "{errors}"
    );
    succeed(&data, "verify", &[])?;
    succeed(&data, "export", &["--to", out.to_str().expect("a path")])?;
    succeed(&data, "compact", &[])?;
    succeed(&data, "list", &[])?;
    Ok(())
}
