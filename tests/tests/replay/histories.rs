//! Histories of changes: recorded by `concord record`, replayed by `concord replay`.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, ROOT};
use concord_shared::ids::DocumentId;
use concord_tests::replay::{Ending, Recording, Writer};
use concord_tests::server_process::{ServerProcess, binary};
use serde_json::Value;

use super::{replay_well, small_trace};

pub(super) fn concord(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(arguments).env_remove("CONCORD_DATA");
    Ok(command)
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}

pub(super) fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Replays a history, which must come to one state.
pub(super) fn same(arguments: &[&str]) -> Result<Value> {
    let output = concord(&["replay", "--json"])?.args(arguments).output()?;
    ensure!(output.status.success(), "{}", errors(&output));
    let report: Value = serde_json::from_slice(&output.stdout).context("the report is JSON")?;
    ensure!(report["same"] == true, "{report}");
    Ok(report)
}

/// A server's data, with a document that two agents wrote in 152 transactions and one change before.
fn written(folder: &Path, id: &DocumentId) -> Result<std::path::PathBuf> {
    let data = folder.join("data");
    let trace = folder.join("small.json");
    std::fs::write(&trace, small_trace("<end>").to_string())?;
    let mut server = ServerProcess::start_at(&data, &[])?;
    let url = server.websocket_url();
    let to = ["--to", &url, "--document", id.as_str()];
    replay_well(&trace, &to)?;
    ensure!(server.terminate()?.success(), "the server ends well");
    Ok(data)
}

pub(super) fn now_ms() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64)
}

#[test]
fn a_stored_document_is_recorded_and_comes_to_one_state_from_everywhere() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let id = DocumentId::from_uuid([3; 16]);
    let before = now_ms()?;
    let data = written(folder.path(), &id)?;
    let data = text(&data);
    let after = now_ms()?;

    let file = folder.path().join("small.recording");
    let record = ["record", "--data", data, id.as_str(), "--to", text(&file)];
    let output = concord(&record)?.output()?;
    ensure!(output.status.success(), "{}", errors(&output));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.starts_with("153 changes recorded to "), "{said}");
    // The first one came as a whole document, which is stored as one: it came when that did.
    assert!(!said.contains("no time of arrival"), "{said}");
    // What is there can't be made again: it stays.
    let output = concord(&record)?.output()?;
    assert!(!output.status.success() && errors(&output).contains("is there already"));

    // The format, as a program in another language reads it.
    let lines = std::fs::read_to_string(&file)?;
    let lines: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!(lines.len(), 155);
    assert_eq!(lines[0]["format"], "concord-recording");
    assert_eq!(
        (&lines[0]["version"], &lines[0]["document"]),
        (&1.into(), &id.as_str().into())
    );
    let mut earlier = before;
    for (n, line) in (0..153).zip(&lines[1..]) {
        let at = line["at"].as_u64().context("a time")?;
        assert!(earlier <= at && at <= after, "{line}");
        earlier = at;
        assert_eq!((&line["n"], &line["by"]), (&n.into(), &"anonymous".into()));
    }
    assert_eq!(lines[154]["end"], 153);

    let report = same(&[text(&file), "--orders", "3", "--seed", "7"])?;
    let orders = report["orders"].as_array().context("orders")?;
    let seeds: Vec<&Value> = orders.iter().map(|order| &order["seed"]).collect();
    assert_eq!(seeds, [&Value::Null, &7.into(), &8.into(), &9.into()]);
    assert_eq!(
        (&report["changes"], &report["actors"]),
        (&153.into(), &2.into())
    );
    assert_eq!(
        same(&["--data", data, &id.url()])?["heads"],
        report["heads"]
    );

    // When they came is known still when they are in a snapshot.
    let output = concord(&["compact", "--data", data])?.output()?;
    ensure!(output.status.success(), "{}", errors(&output));
    let compacted = folder.path().join("compacted.recording");
    let record = [
        "record",
        "--data",
        data,
        id.as_str(),
        "--to",
        text(&compacted),
    ];
    let said = String::from_utf8(concord(&record)?.output()?.stdout)?;
    let recording = Recording::load(&compacted)?.recording;
    assert_eq!(recording.len(), 153);
    assert!(!said.contains("no time of arrival"), "{said}");
    let first = Recording::load(&file)?;
    assert_eq!(first.ending, Ending::Closed);
    assert_eq!(recording, first.recording, "in the order of arrival");
    // Of what was imported that is not known, and it is said of how many.
    let (out, other) = (folder.path().join("out"), folder.path().join("other"));
    let exported = concord(&["export", "--data", data, "--to", text(&out)])?.output()?;
    ensure!(exported.status.success(), "{}", errors(&exported));
    let imported = concord(&["import", "--data", text(&other), text(&out)])?.output()?;
    ensure!(imported.status.success(), "{}", errors(&imported));
    let to = folder.path().join("imported.recording");
    let record = [
        "record",
        "--data",
        text(&other),
        id.as_str(),
        "--to",
        text(&to),
    ];
    let said = String::from_utf8(concord(&record)?.output()?.stdout)?;
    assert!(
        said.contains("153 of them have no time of arrival"),
        "{said}"
    );
    assert_eq!(Recording::load(&to)?.recording.untimed(), 153);
    let exported = out.join(format!("{id}.automerge"));
    assert_eq!(same(&[text(&exported)])?["heads"], report["heads"]);
    Ok(())
}

#[test]
fn a_history_goes_through_a_server_to_readers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let id = DocumentId::from_uuid([4; 16]);
    let data = written(folder.path(), &id)?;
    let server = ServerProcess::start()?;
    let url = server.websocket_url();
    for senders in ["1", "2"] {
        let made = DocumentId::from_uuid([senders.as_bytes()[0]; 16]);
        let report = same(&[
            "--data",
            text(&data),
            id.as_str(),
            "--orders",
            "1",
            "--to",
            &url,
            "--document",
            made.as_str(),
            "--replicas",
            "3",
            "--senders",
            senders,
            "--latency-ms",
            "2",
        ])?;
        let relay = &report["relay"];
        assert_eq!(relay["senders"].to_string(), senders);
        assert_eq!(relay["document"], made.as_str());
        let readers = relay["readers"].as_array().context("readers")?;
        assert_eq!(readers.len(), 4, "three that read along, and a late joiner");
        for reader in readers {
            assert!(
                reader["same"] == true && reader["seconds"].is_number(),
                "{reader}"
            );
        }
    }
    Ok(())
}

/// Three changes, the last two seconds after the first.
fn slow_recording(path: &Path) -> Result<()> {
    let mut document = AutoCommit::new();
    let mut writer = Writer::new(std::fs::File::create(path)?, None)?;
    for at in [0, 500, 2000] {
        document.put(ROOT, "at", at)?;
        let change = document.get_last_local_change().context("a change")?;
        writer.change(
            change.raw_bytes(),
            Some(1_700_000_000_000 + at as u64),
            None,
        )?;
    }
    writer.finish()?;
    Ok(())
}

#[test]
fn a_recording_keeps_its_pace_or_a_multiple_of_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("slow.recording");
    slow_recording(&file)?;
    let server = ServerProcess::start()?;
    let url = server.websocket_url();
    let seconds = |speed: &str| -> Result<f64> {
        let report = same(&[text(&file), "--orders", "0", "--to", &url, "--speed", speed])?;
        report["relay"]["seconds"].as_f64().context("seconds")
    };
    let (slow, fast) = (seconds("1x")?, seconds("10x")?);
    assert!(slow >= 2.0, "{slow}");
    assert!((0.2..2.0).contains(&fast), "{fast}");
    let output = concord(&["replay", text(&file), "--to", &url, "--speed", "fast"])?.output()?;
    assert!(errors(&output).contains("a speed is max, or a number above 0 and an x"));
    Ok(())
}

/// Two changes under one number of one actor: what a client makes that was restored from a backup, and what Automerge
/// does not take.
#[test]
fn what_automerge_does_not_take_is_a_failure() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("forked.automerge");
    let mut bytes = Vec::new();
    for title in ["one", "other"] {
        let mut document = AutoCommit::new().with_actor(ActorId::from([1]));
        document.put(ROOT, "title", title)?;
        let change = document.get_last_local_change().context("a change")?;
        bytes.extend_from_slice(change.raw_bytes());
    }
    std::fs::write(&file, bytes)?;
    let output = concord(&["replay", text(&file), "--json"])?.output()?;
    assert!(!output.status.success());
    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(
        (&report["same"], &report["failure"]["after"]),
        (&false.into(), &1.into())
    );
    let output = concord(&["replay", text(&file)])?.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("AUTOMERGE DOES NOT TAKE IT, after 1 changes"),
        "{said}"
    );
    Ok(())
}

#[test]
fn faults_are_told_by_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("slow.recording");
    slow_recording(&file)?;
    let whole = std::fs::read(&file)?;
    let fails = |arguments: &[&str], because: &str| -> Result<()> {
        let output = concord(arguments)?.output()?;
        let said = errors(&output);
        ensure!(
            !output.status.success() && said.contains(because),
            "{arguments:?}: {said}"
        );
        Ok(())
    };

    let damaged = folder.path().join("damaged.recording");
    let mut bytes = whole.clone();
    let third = bytes
        .split(|byte| *byte == b'\n')
        .take(2)
        .map(|line| line.len() + 1);
    let third: usize = third.sum();
    bytes[third + 60] ^= 1;
    std::fs::write(&damaged, &bytes)?;
    fails(
        &["replay", text(&damaged)],
        "line 3 does not have the checksum",
    )?;

    // Of one that was cut what is whole is replayed, and the rest is said.
    std::fs::File::create(&damaged)?.write_all(&whole[..whole.len() - 50])?;
    let output = concord(&["replay", text(&damaged), "--json"])?.output()?;
    ensure!(output.status.success(), "{}", errors(&output));
    assert!(
        errors(&output).contains("which is torn; 2 changes are there"),
        "{}",
        errors(&output)
    );
    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(
        (&report["whole"], &report["changes"]),
        (&false.into(), &2.into())
    );

    let trace = folder.path().join("small.json");
    std::fs::write(&trace, small_trace("<end>").to_string())?;
    fails(
        &["replay", text(&trace), "--orders", "2"],
        "--orders is for histories",
    )?;
    let reader = [
        "replay",
        text(&file),
        "--to",
        "ws://127.0.0.1:1/sync",
        "--reader",
    ];
    fails(&reader, "--reader is for editing traces")?;
    let nowhere = folder.path().join("nowhere");
    fails(
        &["replay", "--data", text(&nowhere), "x"],
        "there is no data directory",
    )?;
    fails(&["replay", text(&nowhere)], "opening")?;
    Ok(())
}
