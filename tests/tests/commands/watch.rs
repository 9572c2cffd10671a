//! `watch`: each change comes once, over broken connections and restarted servers, too.

use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use concord_tests::server_process::ServerProcess;
use serde_json::{Value, json};

use super::{World, apply, command};

/// A command that goes on until it is told to stop.
struct Watch {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    errors: Lines<BufReader<ChildStderr>>,
}

impl Watch {
    fn start(world: &World, arguments: &[&str]) -> Result<Self> {
        let mut child = command()?
            .arg("watch")
            .args(arguments)
            .args(world.flag())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("a pipe")?;
        let errors = child.stderr.take().context("a pipe")?;
        Ok(Self {
            child,
            out: BufReader::new(out).lines(),
            errors: BufReader::new(errors).lines(),
        })
    }

    fn line(&mut self) -> Result<String> {
        Ok(self.out.next().context("it ended")??)
    }

    fn json(&mut self) -> Result<Value> {
        Ok(serde_json::from_str(&self.line()?)?)
    }

    /// As Ctrl-C does, or as `kill`.
    fn end(mut self, signal: &str) -> Result<ExitStatus> {
        let id = self.child.id();
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {id}")])
            .status()?;
        ensure!(sent.success());
        Ok(self.child.wait()?)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}

/// For as long as a test may take, until it is so.
fn wait_until(mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is_so()? {
        ensure!(
            start.elapsed() < Duration::from_mins(1),
            "it did not happen"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn server() -> Result<World> {
    let world = World::Server(ServerProcess::start()?);
    let value = r#"{"companies": {"acme": {"name": "Acme"}}}"#;
    world.word(&["create", "--id", "board", value])?;
    Ok(world)
}

#[test]
fn each_change_is_printed_when_it_comes() -> Result<()> {
    let world = server()?;
    let mut people = Watch::start(&world, &["board"])?;
    let mut program = Watch::start(&world, &["board", "/companies", "--json"])?;
    let first = program.json()?;
    assert_eq!(first["event"], "value");
    assert_eq!(first["data"], json!({ "acme": { "name": "Acme" } }));
    assert!(people.line()?.contains("version "));
    while people.line()? != "}" {}

    let version = world.word(&[
        "set",
        "board",
        "/companies/acme/name",
        "--string",
        "Acme Ltd",
    ])?;
    let patch = json!([{ "op": "replace", "path": "/acme/name", "value": "Acme Ltd" }]);
    let expected = json!({ "event": "patch", "version": version, "data": patch });
    assert_eq!(program.json()?, expected);
    let line = people.line()?;
    let (time, line) = line.split_once("  ").context("a time")?;
    assert!(
        time.ends_with('Z') && time.len() == "04:10:28Z".len(),
        "{time}"
    );
    assert_eq!(line, r#"~ /companies/acme/name  "Acme" → "Acme Ltd""#);

    // What is not watched is not told, but what is above it is.
    world.word(&["set", "board", "/other", "[1]"])?;
    world.print(&["unset", "board", "/companies"])?;
    assert!(people.line()?.ends_with("  + /other  [1]"));
    assert!(
        people
            .line()?
            .ends_with(r#"  - /companies  {"acme":{"name":"Acme Ltd"}}"#)
    );
    let gone = program.json()?;
    assert_eq!(
        (&gone["event"], &gone["data"]),
        (&json!("gone"), &Value::Null)
    );

    assert_eq!(people.end("INT")?.code(), Some(0));
    assert_eq!(program.end("TERM")?.code(), Some(0));
    Ok(())
}

/// The server is killed, and changed while nobody is connected.
#[test]
fn a_server_that_goes_away_is_waited_for_and_nothing_is_missed_or_told_twice() -> Result<()> {
    let mut world = server()?;
    let mut watch = Watch::start(&world, &["board", "--json"])?;
    let mut value = watch.json()?["data"].take();
    for n in 0..3 {
        world.word(&["set", "board", "/n", &n.to_string()])?;
        let World::Server(server) = &mut world else {
            unreachable!()
        };
        server.kill()?;
        let said = watch.errors.next().context("it ended")??;
        assert!(
            said.starts_with("concord: lost the connection, trying again: "),
            "{said}"
        );
        // Where it listened nobody does, for longer than the first try takes.
        std::thread::sleep(Duration::from_millis(1500));
        let data = server.data().display().to_string();
        let alone = command()?
            .args(["set", "board", "/alone", &n.to_string(), "--data", &data])
            .output()?;
        ensure!(alone.status.success());
        server.restart()?;
        world.word(&["set", "board", "/after", &n.to_string()])?;
        let now = world.json(&["get", "board"])?;
        while value != now {
            let event = watch.json()?;
            assert_eq!(event["event"], "patch", "the value comes once");
            apply(&mut value, &event["data"])?;
        }
    }
    assert_eq!(watch.end("INT")?.code(), Some(0));
    Ok(())
}

#[test]
fn what_can_not_be_watched_is_told_at_once() -> Result<()> {
    let world = server()?;
    for (arguments, problem) in [
        (vec!["watch", "nobody"], "no-document"),
        (vec!["watch", "board", "/x~2"], "~"),
    ] {
        let (_, said) = world.fail(&arguments)?;
        assert!(said.contains(problem), "{said}");
    }
    let run = |arguments: &[&str]| -> Result<_> {
        let output = command()?.arg("watch").args(arguments).output()?;
        Ok((output.status.code(), String::from_utf8(output.stderr)?))
    };
    let (code, said) = run(&["board", "--url", "http://127.0.0.1:1"])?;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("asking http://127.0.0.1:1"), "{said}");
    let (code, said) = run(&["board", "--data", "x"])?;
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("does not change: watch a server's, by --url"),
        "{said}"
    );
    assert_eq!(run(&["board"])?.0, Some(2));
    Ok(())
}

/// A document that is deleted from the server's data, or a server that is another one now.
#[test]
fn a_document_that_is_gone_for_good_ends_the_watch() -> Result<()> {
    let mut world = server()?;
    let mut watch = Watch::start(&world, &["board", "--json"])?;
    watch.json()?;
    let World::Server(server) = &mut world else {
        unreachable!()
    };
    server.kill()?;
    std::fs::remove_dir_all(server.data())?;
    server.restart()?;
    wait_until(|| Ok(watch.child.try_wait()?.is_some()))?;
    assert_eq!(watch.child.wait()?.code(), Some(1));
    let said: Vec<String> = watch.errors.by_ref().collect::<std::io::Result<_>>()?;
    let last = said.last().context("something is said")?;
    assert!(last.starts_with("concord: no-document: "), "{last}");
    Ok(())
}

#[test]
fn what_is_watched_does_not_steer_a_terminal() -> Result<()> {
    let world = server()?;
    let mut watch = Watch::start(&world, &["board", "/companies/acme"])?;
    while watch.line()? != "}" {}
    let hostile = "\u{1b}]0;owned\u{7}\u{9b}31m\r\nroot#";
    let patch = json!({ hostile: hostile, "name": hostile }).to_string();
    world.word(&["patch", "board", "/companies/acme", &patch])?;
    for _ in 0..2 {
        let line = watch.line()?;
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(line.contains("owned"), "{line:?}");
    }
    world.print(&["unset", "board", "/companies/acme"])?;
    assert!(
        watch
            .line()?
            .ends_with("- /companies/acme: there is nothing any more")
    );
    Ok(())
}
