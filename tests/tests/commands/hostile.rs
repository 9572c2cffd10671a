//! What is not as it should be: directories in use, servers that are none, documents that would steer a terminal.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;

use anyhow::{Context as _, Result};
use automerge::transaction::Transactable as _;
use automerge::{Automerge, ObjType, ROOT};
use concord_server::store::{SledOptions, SledStore, Store as _};
use concord_shared::ids::DocumentId;
use concord_tests::server_process::ServerProcess;
use serde_json::json;

use super::{World, command, file, in_both};

#[test]
fn a_directory_in_use_is_left_alone_and_the_way_out_is_named() -> Result<()> {
    let server = ServerProcess::start()?;
    let data = server.data().to_str().context("a path")?;
    for arguments in [
        vec!["get", "a"],
        vec!["create"],
        vec!["set", "a", "/b", "1"],
        vec!["list"],
    ] {
        let output = command()?
            .args(&arguments)
            .args(["--data", data])
            .output()?;
        let said = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(said.contains("in use by a running server"), "{said}");
        assert!(said.contains("--url http://"), "{said}");
    }
    Ok(())
}

/// Not even what a server writes for itself.
#[test]
fn reading_a_directory_writes_nothing_into_it() -> Result<()> {
    let world = World::Data(tempfile::tempdir()?);
    let World::Data(folder) = &world else {
        unreachable!()
    };
    let data = folder.path().join("data");
    // More than is left uncompacted by a server that ends.
    let mut document = automerge::AutoCommit::new();
    let text = document.put_object(ROOT, "text", ObjType::Text)?;
    document.commit();
    let start = file(folder, &document.save())?;
    let start = start.to_str().context("a path")?;
    world.print(&["import", start, "--id", "long"])?;
    for n in 0..2000 {
        document.splice_text(&text, n, 0, "x")?;
        document.commit();
    }
    let path = file(folder, &document.save())?;
    world.print(&["import", path.to_str().context("a path")?, "--id", "long"])?;
    let id = DocumentId::new("long")?;
    let state = || -> Result<_> {
        let store = SledStore::open(&SledOptions::new(&data))?;
        Ok((
            store.open(&id)?,
            store.meta("peer-id")?,
            store.meta("storage-id")?,
        ))
    };
    let before = state()?;
    assert!(
        before
            .0
            .as_ref()
            .is_some_and(|stored| !stored.tail.is_empty())
    );
    assert_eq!(before.1, None);
    world.json(&["get", "long"])?;
    world.print(&["list"])?;
    assert_eq!(state()?, before);
    // What writes compacts, too: this would be seen.
    world.word(&["set", "long", "/b", "1"])?;
    assert_ne!(
        state()?.0.map(|stored| stored.base),
        before.0.map(|stored| stored.base)
    );
    Ok(())
}

#[test]
fn there_must_be_a_directory_but_to_create() -> Result<()> {
    let world = World::Data(tempfile::tempdir()?);
    for arguments in [vec!["get", "a"], vec!["list"], vec!["unset", "a", "/b"]] {
        let (code, said) = world.fail(&arguments)?;
        assert_eq!(code, 1);
        assert!(said.contains("there is no data directory"), "{said}");
    }
    world.word(&["create"])?;
    world.print(&["list"])?;
    Ok(())
}

const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\u{7f}";

#[test]
fn nothing_in_a_document_reaches_a_terminal_raw() -> Result<()> {
    in_both(|world| {
        let value = json!({ HOSTILE: { "a": HOSTILE } });
        let id = &*world.word(&["create", &value.to_string()])?;
        let is_tame = |text: &str| {
            !text
                .replace('\n', "")
                .contains(|c: char| c.is_control() || c == '\u{202e}')
        };
        let shown = world.print(&["get", id])?;
        assert!(is_tame(&shown), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown)?, value);
        let (_, said) = world.fail(&["get", id, &format!("/x{HOSTILE}")])?;
        assert!(is_tame(&said) && said.contains("no-value"), "{said:?}");
        // Into a file it goes as it is.
        let path = format!("/{HOSTILE}/a");
        assert_eq!(
            world.print(&["get", id, &path, "--raw"])?,
            format!("{HOSTILE}\n")
        );
        Ok(())
    })
}

/// As when it is piped into `head`.
#[test]
fn who_stops_reading_is_no_error() -> Result<()> {
    in_both(|world| {
        let list: Vec<_> = (0..50_000).collect();
        let document = json!({ "list": list }).to_string();
        let made = world.run_with(&document, &["create", "-", "--id", "long"])?;
        assert!(made.status.success());
        let mut child = command()?
            .args(["get", "long"])
            .args(world.flag())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let mut out = BufReader::with_capacity(16, child.stdout.take().context("a pipe")?);
        out.read_line(&mut line)?;
        drop(out);
        let output = child.wait_with_output()?;
        assert_eq!(String::from_utf8(output.stderr)?, "");
        assert!(output.status.success(), "{}", output.status);
        Ok(())
    })
}

/// A document that has objects within each other, as the one line that JSON makes of it.
fn nested(levels: usize) -> Result<Vec<u8>> {
    let mut document = Automerge::new();
    let mut change = document.transaction();
    let mut inner = ROOT;
    for _ in 0..levels {
        inner = change.put_object(&inner, "a", ObjType::Map)?;
    }
    change.commit();
    Ok(document.save())
}

/// Deeper than any stack, as only an import can be.
#[test]
fn a_document_of_a_hundred_thousand_levels_is_no_crash() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let world = World::Data(tempfile::tempdir()?);
    for (id, levels) in [("deep", 100_000), ("deeper", 251), ("deepest", 250)] {
        let path = file(&folder, &nested(levels)?)?;
        let path = path.to_str().context("a path")?;
        world.print(&["import", path, "--id", id])?;
    }
    let check = |world: &World| -> Result<()> {
        for arguments in [
            vec!["get", "deep"],
            vec!["get", "deeper"],
            vec!["set", "deep", "/b", "1"],
        ] {
            let (code, said) = world.fail(&arguments)?;
            assert_eq!(code, 1);
            assert!(said.starts_with("concord: too-deep: "), "{said}");
        }
        // The server is still there for others; and what is as deep as may be is shown.
        let shown = world.print(&["get", "deepest"])?;
        assert_eq!(shown.matches(r#""a":"#).count(), 250);
        Ok(())
    };
    check(&world)?;
    let World::Data(directory) = &world else {
        unreachable!()
    };
    let data = directory.path().join("data");
    check(&World::Server(ServerProcess::start_at(&data, &[])?))
}

/// Answers every connection with the same bytes, once each.
fn pretender(answer: &'static str) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else {
                return;
            };
            let _request = connection.read(&mut [0; 4096]);
            let _sent = connection.write_all(answer.as_bytes());
        }
    });
    Ok(url)
}

#[test]
fn a_server_that_is_none_is_no_success() -> Result<()> {
    let elsewhere = "HTTP/1.1 301 Moved Permanently\r\nLocation: https://example.org/\r\nContent-Length: 0\r\n\r\n";
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>";
    let proxy = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nsorry";
    let hostile = "HTTP/1.1 400 Bad Request\r\nContent-Length: 44\r\n\r\n{\"code\":\"x\",\"detail\":\"\\u001b]0;owned\\u0007\"}";
    // What is JSON, and nothing that was asked for.
    let other = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";
    for arguments in [
        vec!["list"],
        vec!["history", "a"],
        vec!["diff", "a", "2026-11-22"],
    ] {
        let url = pretender(other)?;
        let output = command()?.args(&arguments).args(["--url", &url]).output()?;
        let said = String::from_utf8(output.stderr)?;
        assert!(
            said.contains("is it a Concord server?"),
            "{arguments:?}: {said}"
        );
        assert_eq!(output.status.code(), Some(1), "{said}");
    }
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\": 1";
    for (answer, expected) in [
        (elsewhere, "redirects to https://example.org/"),
        (page, "is it a Concord server?"),
        (proxy, "502: Bad Gateway"),
        (hostile, "x: \\u{1b}]0;owned\\u{7}"),
        (cut, "the answer of http://127.0.0.1:"),
        ("", "asking http://127.0.0.1:"),
    ] {
        let url = pretender(answer)?;
        for arguments in [vec!["get", "a"], vec!["set", "a", "/b", "1"]] {
            let output = command()?.args(&arguments).args(["--url", &url]).output()?;
            let said = String::from_utf8(output.stderr)?;
            assert!(said.contains(expected), "{arguments:?} {answer}: {said}");
            assert_eq!(output.status.code(), Some(1), "{said}");
        }
    }
    Ok(())
}

#[test]
fn an_address_is_checked_and_its_password_kept() -> Result<()> {
    let run = |url: &str| -> Result<_> {
        let output = command()?.args(["get", "a", "--url", url]).output()?;
        let said = String::from_utf8(output.stderr)?;
        Ok((output.status.code(), said))
    };
    for url in ["localhost:4010", "ws://127.0.0.1:1/", "x"] {
        assert_eq!(run(url)?.0, Some(2), "{url}");
    }
    // Port 1 answers nobody.
    let (code, said) = run("http://me:secret@127.0.0.1:1")?;
    assert_eq!(code, Some(1));
    assert!(said.contains("asking http://127.0.0.1:1"), "{said}");
    assert!(!said.contains("secret"), "{said}");
    let output = command()?
        .args(["get", "a", "--url", "http://127.0.0.1:1", "--data", "x"])
        .output()?;
    assert_eq!(output.status.code(), Some(2));
    Ok(())
}
