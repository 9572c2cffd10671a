//! `delete`, `undelete` and `deletion`: what they say is true when they say it.
//!
//! What is searched for on the disk is random, and is found there before it is deleted.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Output;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use concord_server::store::{Durability, SledOptions, SledStore, Store as _, Write};
use concord_shared::ids::{DocumentId, PrincipalId};
use concord_tests::files::{is_found, needle};
use concord_tests::issuer::Issuer;
use concord_tests::server_process::ServerProcess;
use serde_json::{Value, json};

use super::{World, command, in_both, url};

fn said(output: &Output) -> Result<(Option<i32>, String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
    let code = output.status.code();
    Ok((code, text(&output.stdout)?, text(&output.stderr)?))
}

/// A document whose text is in the files.
fn secret(world: &World, id: &str) -> Result<String> {
    let text = hex::encode(needle());
    world.word(&["create", "--id", id, &json!({ "secret": text }).to_string()])?;
    Ok(text)
}

#[test]
fn what_is_deleted_says_until_when_it_is_kept_and_comes_back() -> Result<()> {
    in_both(|world| {
        world.word(&["create", "--id", "board", r#"{"name": "Acme"}"#])?;
        let before = world.json(&["get", "board", "--with-version"])?;
        let told = world.print(&["delete", "board"])?;
        let lines: Vec<&str> = told.lines().collect();
        // Over a directory nobody knows for how long the server is told to keep it.
        let is_local = matches!(world, World::Data(_));
        let kept = match is_local {
            true => "board: kept for as long as the server keeps what is deleted (--keep-deleted",
            false => "board: kept until 20",
        };
        ensure!(lines.len() == 2 && lines[0].starts_with(kept), "{told}");
        ensure!(lines[0].ends_with("`concord undelete board` brings it back"));
        ensure!(lines[1].starts_with("deleted 20") && lines[1].ends_with(" UTC by anonymous"));
        ensure!(world.print(&["deletion", "board"])? == told);
        let told = world.json(&["deletion", "board", "--json"])?;
        ensure!(
            told["state"] == "kept" && told["by"] == "anonymous",
            "{told}"
        );
        ensure!(told["until"].is_string() != is_local, "{told}");
        ensure!(world.print(&["list"])?.is_empty());
        for arguments in [&["get", "board"][..], &["delete", "board"]] {
            let (code, said) = world.fail(arguments)?;
            ensure!(
                code == 1 && said.starts_with("concord: no-document: "),
                "{said}"
            );
        }

        let back = world.print(&["undelete", "board"])?;
        ensure!(back == "board: it is there again\n", "{back}");
        ensure!(world.json(&["get", "board", "--with-version"])? == before);
        for arguments in [
            ["undelete", "board"],
            ["deletion", "board"],
            ["delete", "nobody"],
            ["deletion", "nobody"],
        ] {
            let (code, said) = world.fail(&arguments)?;
            ensure!(
                code == 1 && said.starts_with("concord: no-document: "),
                "{said}"
            );
        }
        let told = world.json(&["delete", "board", "--json"])?;
        ensure!(told == world.json(&["deletion", "board", "--json"])?);
        ensure!(world.fail(&["delete", "board", "--wait", "1m"])?.0 == 2);
        Ok(())
    })
}

#[test]
fn what_is_erased_is_in_no_file_when_the_command_ends() -> Result<()> {
    in_both(|world| {
        let data = world.data()?;
        let stays = secret(world, "stays")?;
        for (id, was_deleted) in [("one", false), ("two", true)] {
            let text = secret(world, id)?;
            if was_deleted {
                world.print(&["delete", id])?;
            }
            ensure!(is_found(&data, text.as_bytes())?, "it was never there");
            let (code, told, aside) = said(&world.run(&["delete", id, "--now"])?)?;
            ensure!(!is_found(&data, text.as_bytes())?, "{id}: {told}{aside}");
            ensure!(code == Some(0), "{aside}");
            let begin = format!("{id}: erased; nothing of it is in any file");
            ensure!(told.starts_with(&begin), "{told}");
            // Who waits is told for what.
            ensure!(aside.starts_with("concord: purged; "), "{aside}");
            ensure!(aside.contains(" anew"), "{aside}");
            // Asked once more, there is nothing to wait for.
            ensure!(world.print(&["delete", id, "--now"])? == told);
            ensure!(world.print(&["deletion", id])? == told);
            let (code, said) = world.fail(&["undelete", id])?;
            ensure!(code == 1 && said.starts_with("concord: purged: "), "{said}");
        }
        ensure!(world.json(&["get", "stays", "/secret"])? == stays);
        let (code, said) = world.fail(&["delete", "nobody", "--now"])?;
        ensure!(
            code == 1 && said.starts_with("concord: no-document: "),
            "{said}"
        );
        Ok(())
    })
}

#[test]
fn who_does_not_wait_long_enough_is_not_told_that_it_is_erased() -> Result<()> {
    let world = World::Server(ServerProcess::start()?);
    secret(&world, "board")?;
    let output = world.run(&["delete", "board", "--now", "--wait", "0s", "--json"])?;
    let (code, told, aside) = said(&output)?;
    ensure!(code == Some(1), "{told}");
    let told: Value = serde_json::from_str(&told)?;
    ensure!(told["state"] == "purged", "{told}");
    ensure!(aside.contains("it is not erased yet: `concord deletion board` says when"));
    let (code, _, aside) = said(&world.run(&["delete", "board", "--now"])?)?;
    ensure!(code == Some(0), "{aside}");
    Ok(())
}

#[test]
fn owners_delete_and_operators_and_owners_take_it_back() -> Result<()> {
    let issuer = Issuer::new()?;
    let arguments = issuer.arguments(&["--operator", "oda", "--keep-deleted-seconds", "3600"])?;
    let server = ServerProcess::start_with(&arguments)?;
    let of = |who: &str| -> Result<World> {
        let (url, token) = (url(&server), issuer.of(who)?);
        Ok(World::As { url, token })
    };
    let [ann, bob, oda, sam] = [of("ann")?, of("bob")?, of("oda")?, of("sam")?];
    let text = secret(&ann, "board")?;
    ann.word(&["access", "board", "--grant", "bob=writer"])?;
    let refused = |who: &World, arguments: &[&str], code: &str| -> Result<()> {
        let (status, said) = who.fail(arguments)?;
        let begin = format!("concord: {code}: ");
        ensure!(
            status == 1 && said.starts_with(&begin),
            "{arguments:?}: {said}"
        );
        Ok(())
    };
    for now in [&[][..], &["--now"]] {
        let arguments = [&["delete", "board"], now].concat();
        refused(&bob, &arguments, "not-allowed")?;
        refused(&sam, &arguments, "no-document")?;
    }
    for whoever in [&oda, &ann] {
        let told = ann.json(&["delete", "board", "--json"])?;
        ensure!(told["by"] == "ann" && told["until"].is_string(), "{told}");
        for stranger in [&bob, &sam] {
            for command in ["deletion", "undelete"] {
                refused(stranger, &[command, "board"], "no-document")?;
            }
            refused(stranger, &["delete", "board", "--now"], "no-document")?;
        }
        whoever.print(&["undelete", "board"])?;
        ensure!(bob.json(&["get", "board", "/secret"])? == text);
    }
    ensure!(is_found(server.data(), text.as_bytes())?);
    let (code, told, aside) = said(&ann.run(&["delete", "board", "--now"])?)?;
    ensure!(
        code == Some(0) && !is_found(server.data(), text.as_bytes())?,
        "{aside}"
    );
    ensure!(told.contains(" UTC by ann\n"), "{told}");
    ensure!(oda.print(&["deletion", "board"])? == told);
    refused(&sam, &["deletion", "board"], "no-document")?;
    let nobody = World::Server(server);
    refused(&nobody, &["delete", "board"], "unauthenticated")?;
    Ok(())
}

/// For how long it is kept is a setting of the server's, which a command does not know.
#[test]
fn a_command_over_a_directory_erases_nothing_by_the_clock() -> Result<()> {
    let world = World::Data(tempfile::tempdir()?);
    let text = secret(&world, "old")?;
    let store = SledStore::open(&SledOptions::new(&world.data()?))?;
    let delete = Write::Delete {
        document: DocumentId::new("old")?,
        at_ms: 1,
        by: PrincipalId::new("ann")?,
        bytes: 0,
    };
    store.commit(&[delete], Durability::Strict)?;
    drop(store);
    for n in 0..20 {
        let id = format!("other {n}");
        world.word(&["create", "--id", &id])?;
        world.word(&["set", &id, "/n", "1"])?;
    }
    let told = world.json(&["deletion", "old", "--json"])?;
    ensure!(told == json!({ "at": "1970-01-01T00:00:00.001Z", "by": "ann", "state": "kept" }));
    world.print(&["undelete", "old"])?;
    ensure!(world.json(&["get", "old", "/secret"])? == text);
    Ok(())
}

/// Answers one connection after the other, and the last answer for ever.
fn pretender(answers: Vec<String>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    thread::spawn(move || {
        let mut answers = answers.into_iter();
        let mut last = String::new();
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else {
                return;
            };
            last = answers.next().unwrap_or(last);
            let _request = connection.read(&mut [0; 4096]);
            let _sent = connection.write_all(last.as_bytes());
        }
    });
    Ok(url)
}

fn answer(status: &str, json: &Value) -> String {
    let body = json.to_string();
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// The server is started anew, say; and what it tells is not believed to be harmless.
#[test]
fn who_waits_asks_again_as_long_as_that_may_help() -> Result<()> {
    let became = |state: &str| {
        let by = "\u{202e}nna\u{1b}[31m";
        json!({ "at": "2026-11-23T09:00:00Z", "by": by, "state": state })
    };
    let purged = answer("202 Accepted", &became("purged"));
    let erased = answer("200 OK", &became("erased"));
    let passing = answer("503 Service Unavailable", &json!({ "code": "overloaded" }));
    let none = answer(
        "404 Not Found",
        &json!({ "code": "no-document", "detail": "none" }),
    );
    let run = |answers: &[&str], wait: &str| -> Result<_> {
        let url = pretender(answers.iter().map(ToString::to_string).collect())?;
        let mut command = command()?;
        command.args(["delete", "board", "--now", "--wait", wait, "--url", &url]);
        said(&command.output()?)
    };
    // One that breaks off.
    let (code, told, aside) = run(&[&purged, "", &passing, "HTTP/1.1 200", &erased], "1m")?;
    ensure!(code == Some(0), "{aside}");
    let by = "deleted 2026-11-23 09:00:00 UTC by \\u{202e}nna\\u{1b}[31m\n";
    ensure!(
        told.starts_with("board: erased; ") && told.ends_with(by),
        "{told}"
    );
    for (answers, why) in [
        (&[purged.as_str(), &none][..], ": no-document: none"),
        (&[&purged, &passing], ": overloaded: "),
    ] {
        let (code, told, aside) = run(answers, "1s")?;
        ensure!(code == Some(1) && told.is_empty(), "{told}");
        let line = aside.lines().last().context("a line")?;
        ensure!(line.starts_with("concord: it is purged, and nobody can bring it back"));
        ensure!(line.contains(why), "{aside}");
    }
    let (code, told, aside) = run(&[&answer("202 Accepted", &json!([]))], "1m")?;
    ensure!(code == Some(1) && told.is_empty());
    ensure!(aside.contains("is it a Concord server?"), "{aside}");
    Ok(())
}
