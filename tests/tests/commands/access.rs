//! `access`: who may do what is read and said by the command line.

use std::process::Stdio;

use anyhow::{Result, ensure};
use concord_tests::issuer::Issuer;
use concord_tests::server_process::ServerProcess;
use serde_json::{Value, json};

use super::{World, in_both, url};

/// A server that wants to know who asks.
struct Guarded {
    issuer: Issuer,
    server: ServerProcess,
}

impl Guarded {
    fn start() -> Result<Self> {
        let issuer = Issuer::new()?;
        let server = ServerProcess::start_with(&issuer.arguments(&["--operator", "oda"])?)?;
        Ok(Self { issuer, server })
    }

    fn of(&self, who: &str) -> Result<World> {
        let (url, token) = (url(&self.server), self.issuer.of(who)?);
        Ok(World::As { url, token })
    }
}

fn refused(world: &World, arguments: &[&str], why: &str) -> Result<()> {
    let (code, said) = world.fail(arguments)?;
    let begin = format!("concord: {why}");
    ensure!(
        code == 1 && said.starts_with(&begin),
        "{arguments:?}: {said}"
    );
    Ok(())
}

#[test]
fn who_may_do_what_is_printed_and_set() -> Result<()> {
    let guarded = Guarded::start()?;
    let [ann, bob, sam] = [guarded.of("ann")?, guarded.of("bob")?, guarded.of("sam")?];
    ann.word(&["create", "--id", "board"])?;
    // Names turn no terminal's order around, and make no line of their own.
    let list = json!({ "principals": { "ann": "owner", "bob": "reader", "eve\u{202e}": "none" },
        "groups": { "board": "owner" } });
    ensure!(ann.word(&["access", "board", &list.to_string()])? == "access-1");
    let table = "ROLE    WHOM\nowner   principal  ann\nowner   group      board\nreader  principal  bob\n\
        none    principal  eve\\u{202e}\nnone    anyone\n";
    let printed = ann.print(&["access", "board"])?;
    ensure!(printed == table, "{printed}");
    let mut expected = json!({ "role": "owner", "version": "access-1", "list": list });
    expected["list"]["anyone"] = json!("none");
    ensure!(ann.json(&["access", "board", "--json"])? == expected);
    ensure!(bob.print(&["access", "board"])? == "reader; who else may do what is told to owners\n");
    ensure!(bob.json(&["access", "board", "--json"])? == json!({ "role": "reader" }));

    // Only what replaces what its author saw.
    let two = r#"{"principals": {"ann": "owner", "bob": "writer"}}"#;
    let stale = ["access", "board", two, "--if-match", "access-0"];
    refused(&ann, &stale, "unknown-heads: ")?;
    let output = ann.run_with(two, &["access", "board", "-", "--if-match", "access-1"])?;
    ensure!(super::printed(&output)? == "access-2\n");
    bob.word(&["set", "board", "/n", "1"])?;
    for (list, why) in [
        (r#"{"principals": {"ann": "writer"}}"#, "bad-access-list: "),
        (r#"{"principals": {"ann": "king"}}"#, "bad-json: "),
        ("[]", "bad-json: "),
    ] {
        refused(&ann, &["access", "board", list], why)?;
    }
    for arguments in [
        &["access", "board"][..],
        &["access", "board", two],
        &["access", "board", "--grant", "sam=owner"],
        &["access", "board", "--revoke", "ann"],
        &["access", "board", "--history"],
    ] {
        refused(&sam, arguments, "no-document: ")?;
        if arguments.len() > 2 {
            refused(&bob, arguments, "not-allowed: ")?;
        }
    }
    for typed in [
        &["access", "board", "{"][..],
        &["access", "board", two, "--grant", "bob=reader"],
        &["access", "board", two, "--history"],
        &["access", "board", "--if-match", "access-2"],
        &["access", "board", "--grant", "bob"],
        &["access", "board", "--grant", "bob=king"],
        &["access", "board", "--revoke", ""],
    ] {
        ensure!(ann.fail(typed)?.0 == 2, "{typed:?}");
    }

    let history = ann.print(&["access", "board", "--history"])?;
    let lines: Vec<&str> = history.lines().collect();
    ensure!(
        lines.len() == 4 && lines[0].starts_with("NUMBER  TIME "),
        "{history}"
    );
    ensure!(lines[2].starts_with("     1  20"), "{history}");
    ensure!(lines[2].contains(r#"  ann  {"anyone":"none","groups":{"board":"owner"},"#));
    ensure!(lines[2].contains(r"eve\u202e"), "{history}");
    let history = ann.print(&["access", "board", "--history", "--json"])?;
    let entries: Result<Vec<Value>, _> = history.lines().map(serde_json::from_str).collect();
    let numbers: Vec<Value> = entries?
        .iter()
        .map(|entry| entry["number"].clone())
        .collect();
    ensure!(numbers == [0, 1, 2], "{history}");
    Ok(())
}

#[test]
fn single_entries_are_changed_by_many_at_once() -> Result<()> {
    let guarded = Guarded::start()?;
    let (ann, oda) = (guarded.of("ann")?, guarded.of("oda")?);
    ann.word(&["create", "--id", "board"])?;
    let version = ann.word(&[
        "access",
        "board",
        "--grant",
        "group:board=writer",
        "--grant",
        "anyone=reader",
        "--grant",
        "bob=none",
    ])?;
    ensure!(version == "access-1");
    let all = ann.json(&["access", "board", "--json"])?;
    let list = json!({ "principals": { "ann": "owner", "bob": "none" }, "groups": { "board": "writer" }, "anyone": "reader" });
    ensure!(all["list"] == list, "{all}");
    let missing = "the list has no entry of group:bob; nothing is changed";
    let typo = [
        "access",
        "board",
        "--revoke",
        "anyone",
        "--revoke",
        "group:bob",
    ];
    refused(&ann, &typo, missing)?;
    let last = ["access", "board", "--revoke", "ann"];
    refused(&ann, &last, "bad-access-list: ")?;
    ensure!(ann.json(&["access", "board", "--json"])? == all);

    let running: Result<Vec<_>> = (0..6)
        .map(|n| {
            let share = format!("p{n}=writer");
            let mut command = [&ann, &oda][n % 2].command()?;
            let command = command.args(["access", "board", "--grant", &share]);
            let command = command.args(ann.flag()).stdout(Stdio::null());
            Ok(command.spawn()?)
        })
        .collect();
    for mut child in running? {
        ensure!(child.wait()?.success());
    }
    let told = ann.json(&[
        "access",
        "board",
        "--revoke",
        "group:board",
        "--revoke",
        "anyone",
        "--json",
    ])?;
    let mut expected = json!({ "ann": "owner", "bob": "none" });
    for n in 0..6 {
        expected[format!("p{n}")] = json!("writer");
    }
    ensure!(told["list"] == json!({ "principals": expected, "groups": {}, "anyone": "none" }));
    ensure!(told["version"] == "access-8", "{told}");
    Ok(())
}

/// Whoever has the files may do all, also where nobody else may.
#[test]
fn a_list_by_which_nobody_gets_in_is_replaced_over_the_directory() -> Result<()> {
    let issuer = Issuer::new()?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let arguments = issuer.arguments(&[])?;
    let server = ServerProcess::start_at(&data, &arguments)?;
    let mut guarded = Guarded { issuer, server };
    let ann = guarded.of("ann")?;
    ann.word(&["create", "--id", "board", r#"{"n": 1}"#])?;
    ann.word(&[
        "access",
        "board",
        r#"{"principals": {"nobody any more": "owner"}}"#,
    ])?;
    refused(&ann, &["get", "board"], "no-document: ")?;
    guarded.server.terminate()?;

    let files = World::Data(folder);
    let told = files.json(&["access", "board", "--json"])?;
    ensure!(
        told["list"]["principals"] == json!({ "nobody any more": "owner" }),
        "{told}"
    );
    let changes = [
        "access",
        "board",
        "--revoke",
        "nobody any more",
        "--grant",
        "ann=owner",
    ];
    ensure!(files.word(&changes)? == "access-2");
    let history = files.print(&["access", "board", "--history", "--json"])?;
    let last: Value = serde_json::from_str(history.lines().last().unwrap_or_default())?;
    ensure!(last["by"] == "anonymous", "{last}");
    refused(&files, &["access", "nobody"], "no-document: ")?;
    refused(
        &files,
        &["access", "nobody", "--grant", "ann=owner"],
        "no-document: ",
    )?;
    // What is made without a server is nobody's until it gets a list.
    files.word(&["create", "--id", "other"])?;
    let none = files.print(&["access", "other"])?;
    ensure!(
        none == "owner; no list says who else may do what\n",
        "{none}"
    );
    files.word(&["create", "--id", "third"])?;
    files.word(&["access", "third", "--grant", "ann=owner"])?;

    guarded.server.restart()?;
    ensure!(ann.json(&["get", "board"])? == json!({ "n": 1 }));
    ensure!(ann.json(&["get", "third"])? == json!({}));
    refused(&ann, &["get", "other"], "no-document: ")?;
    Ok(())
}

#[test]
fn a_server_that_asks_nobody_has_no_lists() -> Result<()> {
    in_both(|world| {
        world.word(&["create", "--id", "board"])?;
        let told = world.print(&["access", "board"])?;
        ensure!(
            told == "owner; no list says who else may do what\n",
            "{told}"
        );
        if let World::Server(_) = world {
            let list = r#"{"principals": {"ann": "owner"}}"#;
            refused(world, &["access", "board", list], "open-to-all: ")?;
            refused(
                world,
                &["access", "board", "--grant", "ann=owner"],
                "open-to-all: ",
            )?;
        }
        Ok(())
    })
}
