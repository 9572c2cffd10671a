//! `history`, `diff`, `restore` and `fork`, and what was: `get --at` a time.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{Automerge, ROOT};
use serde_json::{Value, json};

use super::{World, apply, command, file, in_both};

/// A document of three changes, by the command line; its versions.
fn board(world: &World) -> Result<[String; 3]> {
    let value = r#"{"name": "Acme", "dates": ["2026-11-21"], "n": 1}"#;
    world.word(&["create", "--id", "board", value])?;
    let first = world.json(&["get", "board", "--with-version"])?;
    let first = first["version"].as_str().context("a version")?.to_owned();
    let second = world.word(&["set", "board", "/name", "--string", "Acme Ltd"])?;
    let third = world.word(&["patch", "board", r#"{"n": null, "x": [1, {}]}"#])?;
    Ok([first, second, third])
}

#[test]
fn changes_are_listed_from_either_end() -> Result<()> {
    in_both(|world| {
        let versions = board(world)?;
        let table = world.print(&["history", "board"])?;
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "{table}");
        assert!(lines[0].starts_with("PLACE  HASH"), "{table}");
        for (line, (place, version)) in lines[1..].iter().zip(versions.iter().enumerate().rev()) {
            let begin = format!("{place:>5}  {}   20", &version[..8]);
            assert!(line.starts_with(&begin), "{begin}: {table}");
        }
        let oldest = world.print(&["history", "board", "--oldest", "--limit", "1"])?;
        let oldest: Vec<&str> = oldest.lines().collect();
        assert_eq!(oldest, [lines[0], lines[3]]);
        let all = world.print(&["history", "board", "--json"])?;
        let all = all.lines().map(serde_json::from_str::<Value>);
        let hashes: Vec<Value> = all
            .map(|change| Ok(change?["hash"].clone()))
            .collect::<Result<_>>()?;
        let expected: Vec<&String> = versions.iter().rev().collect();
        assert_eq!(json!(hashes), json!(expected));
        let (code, said) = world.fail(&["history", "nobody"])?;
        assert_eq!(code, 1);
        assert!(said.starts_with("concord: no-document: "), "{said}");
        Ok(())
    })
}

#[test]
fn differences_are_shown_to_people_and_to_programs() -> Result<()> {
    in_both(|world| {
        let [first, second, third] = &board(world)?;
        let shown = world.print(&["diff", "board", first])?;
        let expected = format!(
            "--- {first}\n+++ {third}\n- /n  1\n- /name  \"Acme\"\n+ /name  \"Acme Ltd\"\n+ /x  [1,{{}}]\n"
        );
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines[2..].sort();
            lines
        };
        assert_eq!(sorted(&shown), sorted(&expected), "{shown}");
        let part = world.print(&["diff", "board", first, "/name"])?;
        assert_eq!(part.lines().count(), 4, "{part}");
        let part = world.print(&["diff", "board", first, second, "/n"])?;
        assert_eq!(part, "", "nothing differs");
        let part = world.print(&["diff", "board", first, third, "/x"])?;
        assert!(part.ends_with("\n+ /x  [1,{}]\n"), "{part}");
        let patch = world.json(&["diff", "board", first, third, "--json"])?;
        let mut value = world.json(&["get", "board", "--at", first])?;
        apply(&mut value, &patch)?;
        assert_eq!(value, world.json(&["get", "board"])?);
        // And back.
        let back = world.json(&["diff", "board", third, first, "/n", "--json"])?;
        assert_eq!(back, json!([{ "op": "add", "path": "", "value": 1 }]));
        for arguments in [
            vec!["diff", "board", "/name"],
            vec!["diff", "board", first, "/name", "/n"],
            vec!["diff", "board", ""],
        ] {
            let (code, said) = world.fail(&arguments)?;
            assert!(code != 0, "{arguments:?}: {said}");
        }
        Ok(())
    })
}

#[test]
fn what_was_comes_back_and_begins_another_document() -> Result<()> {
    in_both(|world| {
        let [first, second, _] = &board(world)?;
        assert_eq!(
            world.word(&["fork", "board", "--at", second, "--id", "other"])?,
            "other"
        );
        let old = world.json(&["get", "board", "--at", second])?;
        assert_eq!(world.json(&["get", "other"])?, old);
        let forked = world.json(&["get", "other", "--with-version"])?;
        assert_eq!(&forked["version"], second, "the same changes");
        let copy = world.word(&["fork", "board"])?;
        assert_eq!(world.json(&["get", &copy])?, world.json(&["get", "board"])?);
        let (code, said) = world.fail(&["fork", "board", "--id", "other"])?;
        assert_eq!(code, 1);
        assert!(said.starts_with("concord: exists: "), "{said}");

        let version = world.word(&["restore", "board", "/name", "--at", first])?;
        let now = json!({ "name": "Acme", "dates": ["2026-11-21"], "x": [1, {}] });
        assert_eq!(world.json(&["get", "board"])?, now);
        assert_eq!(
            world.word(&["restore", "board", "/name", "--at", first])?,
            version
        );
        world.word(&["restore", "board", "--at", first, "--if-match", &version])?;
        assert_eq!(
            world.json(&["get", "board"])?,
            world.json(&["get", "board", "--at", first])?
        );
        assert_eq!(world.print(&["history", "board"])?.lines().count(), 6);
        assert_eq!(world.fail(&["restore", "board"])?.0, 2, "--at is needed");
        Ok(())
    })
}

#[test]
fn a_version_is_named_by_the_beginning_of_its_hash_or_by_a_time() -> Result<()> {
    in_both(|world| {
        let [first, second, third] = &board(world)?;
        let at = |text: &str| world.json(&["get", "board", "--at", text]);
        assert_eq!(at(&second[..10])?, at(second)?);
        assert_eq!(at(&second[..63].to_uppercase())?, at(second)?);
        let patch = world.json(&["diff", "board", &first[..10], &third[..10], "--json"])?;
        assert_eq!(
            patch,
            world.json(&["diff", "board", first, third, "--json"])?
        );

        let changes = world.print(&["history", "board", "--json", "--limit", "1"])?;
        let last: Value = serde_json::from_str(&changes)?;
        let time = last["receivedAt"].as_str().context("a time")?.to_owned();
        sleep(Duration::from_millis(20));
        world.word(&["set", "board", "/later", "1"])?;
        for text in [time.clone(), format!("@{{{time}}}")] {
            assert_eq!(at(&text)?, at(third)?);
        }
        // A date is its first moment: there was nothing yet.
        for (text, problem) in [
            (&time[..10], "no-version: "),
            ("@{2020-01-01}", "no-version: "),
            (
                "0000000000",
                "no change of the document begins with 0000000000",
            ),
            ("soon", "bad-query: "),
        ] {
            let (code, said) = world.fail(&["get", "board", "--at", text])?;
            assert_eq!(code, 1);
            assert!(
                said.starts_with(&format!("concord: {problem}")),
                "{text}: {said}"
            );
        }
        Ok(())
    })
}

/// With more changes than are asked for at a time, and words of others that would steer the terminal.
#[test]
fn a_long_history_is_paged_and_its_messages_are_tame() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut document = Automerge::new();
    for n in 0..250 {
        let mut change = document.transaction();
        change.put(ROOT, "n", n)?;
        let message = format!("\u{1b}[31m number {n} \u{202e}\nand more");
        change.commit_with(CommitOptions::default().with_message(message));
    }
    let path = file(&folder, &document.save())?;
    let world = World::Data(tempfile::tempdir()?);
    world.print(&["import", path.to_str().context("a path")?, "--id", "long"])?;
    for limit in [1, 99, 100, 101, 200, 250, 1000] {
        let table = world.print(&["history", "long", "--limit", &limit.to_string()])?;
        let lines: Vec<&str> = table.lines().skip(1).collect();
        assert_eq!(lines.len(), limit.min(250));
        for (n, line) in (0..250).rev().zip(lines) {
            assert!(line.trim_start().starts_with(&format!("{n}  ")), "{line}");
            assert!(
                line.ends_with(&format!("\\u{{1b}}[31m number {n} \\u{{202e}}…")),
                "{line}"
            );
        }
    }
    // Who reads on is asked for more, and who stops is no error.
    let mut child = command()?
        .args(["history", "long"])
        .args(world.flag())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut out = BufReader::with_capacity(16, child.stdout.take().context("a pipe")?);
    out.read_line(&mut String::new())?;
    drop(out);
    let output = child.wait_with_output()?;
    assert_eq!(String::from_utf8(output.stderr)?, "");
    assert!(output.status.success());
    Ok(())
}
