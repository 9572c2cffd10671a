//! `concord serve` as an operator meets it: what it prints, answers, refuses, and how it stops.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use automerge::sync::{ChunkList, Message as SyncMessage, MessageVersion};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ChangeHash, ObjType, ROOT};
use concord_server::access::signing::{NewKey, SigningAlgorithm, sign};
use concord_tests::raw_client::RawClient;
use concord_tests::samod_client::SamodClient;
use concord_tests::server_process::{ServerProcess, binary};

fn concord(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CONCORD_") {
            command.env_remove(name);
        }
    }
    let child = command
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output();
    child.context("running concord")
}

#[test]
fn it_says_where_it_listens_and_where_the_data_is_and_nothing_else_on_stdout() -> Result<()> {
    let server = ServerProcess::start()?;
    let data = server.data().canonicalize()?;
    let line = format!(
        "concord listening on http://{0} (WebSocket ws://{0}/sync), data in {1}",
        server.address(),
        data.display()
    );
    assert!(
        server.log().lines().any(|logged| logged == line),
        "{}",
        server.log()
    );
    assert!(data.is_dir());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_metrics_are_answered() -> Result<()> {
    let server = ServerProcess::start()?;
    assert_eq!(server.get("/healthz")?.0, 200);
    assert_eq!(server.get("/readyz")?.0, 200);
    assert_eq!(server.get("/no-such-page")?.0, 404);

    let client = SamodClient::connect(&server.websocket_url()).await?;
    let document = client.create(|tx| tx.put(ROOT, "n", 0)).await?;
    document.change(|tx| tx.put(ROOT, "n", 1))?;
    client.wait_acknowledged(&document).await?;
    assert!((server.metric("concord_changes_in_total")? - 2.0).abs() < f64::EPSILON);
    assert!((server.metric("concord_connections")? - 1.0).abs() < f64::EPSILON);
    assert!((server.metric("concord_documents_open")? - 1.0).abs() < f64::EPSILON);
    for counted in ["frames_in", "frames_out", "bytes_in", "bytes_out"] {
        assert!(
            server.metric(&format!("concord_{counted}_total"))? > 0.0,
            "{counted}"
        );
    }
    let (_, body) = server.get("/metrics")?;
    for name in [
        "concord_commit",
        "concord_fsync",
        "concord_outbox_overflows",
        "concord_store_bytes",
        "concord_refused_total",
    ] {
        assert!(body.contains(name), "no {name} in\n{body}");
    }
    client.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_closes_connections_with_a_reason_and_ends_soon() -> Result<()> {
    let mut server = ServerProcess::start()?;
    let mut joined = RawClient::join(&server.websocket_url(), "joined").await?;
    let mut silent = RawClient::connect(&server.websocket_url(), "silent").await?;
    let started = Instant::now();
    let ended = tokio::task::spawn_blocking(move || server.terminate());
    for client in [&mut joined, &mut silent] {
        let refusal = client.refusal().await?;
        assert_eq!(
            (refusal.close_code, refusal.reason.as_str()),
            (Some(1001), "shutting-down")
        );
    }
    let status = ended.await??;
    assert!(status.success(), "{status}");
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    Ok(())
}

/// What is being decoded when the server stops finds its document closed, which is no fault.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_decoded_while_the_server_stops_is_told_that_it_stops() -> Result<()> {
    let mut server = ServerProcess::start()?;
    let mut client = RawClient::join(&server.websocket_url(), "late").await?;
    let sync = |heads: &[ChangeHash], changes: Vec<Vec<u8>>| SyncMessage {
        heads: heads.to_vec(),
        need: Vec::new(),
        have: Vec::new(),
        changes: ChunkList::from(changes),
        flags: None,
        version: MessageVersion::V1,
    };
    let hello = sync(&[], Vec::new()).encode();
    client.send(&client.sync_message("late", &hello)?).await?;
    client.next().await?;
    // A second's decoding.
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text)?;
    doc.splice_text(&text, 0, 0, &"concord ".repeat(100_000))?;
    let upload = sync(&doc.get_heads(), vec![doc.save()]).encode();
    client.send(&client.sync_message("late", &upload)?).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let ended = tokio::task::spawn_blocking(move || {
        let status = server.terminate();
        (status, server)
    });
    let refusal = client.refusal().await?;
    let (status, server) = ended.await?;
    assert!(status?.success());
    assert_eq!(
        (refusal.close_code, refusal.reason.as_str()),
        (Some(1001), "shutting-down")
    );
    assert!(!server.log().contains("refused"), "{}", server.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_connection_limit_a_websocket_is_answered_503_and_operators_are_served() -> Result<()>
{
    let server = ServerProcess::start_with(&["--max-connections", "2"])?;
    let url = server.websocket_url();
    let first = RawClient::join(&url, "first").await?;
    let _second = RawClient::join(&url, "second").await?;
    let refused = RawClient::connect(&url, "third").await;
    let told = format!("{:#}", refused.err().context("a third was taken")?);
    assert!(told.contains("503"), "{told}");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(server.get(path)?.0, 200, "{path}");
    }
    // Who was refused leaves nothing behind, and who goes makes room.
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = RawClient::join(&url, "fourth").await {
        ensure!(Instant::now() < deadline, "no room again: {error:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// A program that starts the server reads one line.
#[test]
fn where_it_listens_comes_before_an_audit_log_on_standard_output() -> Result<()> {
    let server = ServerProcess::start_with(&["--audit-log", "-"])?;
    server.wait_for_log("\"opened\"")?;
    let log = server.log();
    let at = |text: &str| log.find(text).context("it is not there");
    let (listens, opened) = (at("concord listening on ")?, at("\"opened\"")?);
    ensure!(listens < opened, "{log}");
    Ok(())
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() -> Result<()> {
    let first = ServerProcess::start()?;
    let started = Instant::now();
    let second = ServerProcess::start_at(first.data(), &[]);
    let Err(error) = second else {
        anyhow::bail!("two servers run on the same data");
    };
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
    let told = format!("{error:#}");
    assert!(
        told.contains("use") || told.contains("lock"),
        "it says why: {told}"
    );
    assert_eq!(first.get("/readyz")?.0, 200);
    Ok(())
}

#[test]
fn a_port_in_use_is_named() -> Result<()> {
    let first = ServerProcess::start()?;
    let data = tempfile::tempdir()?;
    let address = first.address().to_string();
    let data = data.path().to_str().context("a path in UTF-8")?;
    let output = concord(&["serve", "--listen", &address, "--data", data], &[])?;
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(&address), "{told}");
    Ok(())
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("concord.toml");
    std::fs::write(
        &file,
        "listen = \"127.0.0.1:1\"\ndata = \"from-file\"\nidle-seconds = 7\n",
    )?;
    let file = file.to_str().context("a path in UTF-8")?;
    let output = concord(
        &[
            "serve",
            "--config",
            file,
            "--listen",
            "127.0.0.1:3",
            "--print-config",
        ],
        &[
            ("CONCORD_LISTEN", "127.0.0.1:2"),
            ("CONCORD_DATA", "from-environment"),
        ],
    )?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let printed = String::from_utf8(output.stdout)?;
    for line in [
        "listen = \"127.0.0.1:3\"",
        "data = \"from-environment\"",
        "idle-seconds = 7",
    ] {
        assert!(
            printed.lines().any(|printed| printed == line),
            "no {line} in\n{printed}"
        );
    }

    // What is printed is a file that is taken.
    std::fs::write(file, &printed)?;
    let again = concord(&["serve", "--config", file, "--print-config"], &[])?;
    assert_eq!(String::from_utf8(again.stdout)?, printed);
    Ok(())
}

#[test]
fn variables_of_the_tests_are_no_settings_and_unknown_ones_are_refused() -> Result<()> {
    let print = ["serve", "--print-config"];
    let defaults = concord(&print, &[])?;
    let tests = [
        ("CONCORD_TEST_SEED", "1"),
        ("CONCORD_TEST_LONG", "1"),
        ("CONCORD_TEST_ANY", "1"),
    ];
    let output = concord(&print, &tests)?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.stdout, defaults.stdout);
    for unknown in ["CONCORD_LONG", "CONCORD_TESTS", "CONCORD_PORT"] {
        let output = concord(&print, &[(unknown, "1")])?;
        assert!(!output.status.success(), "{unknown} was taken");
    }
    Ok(())
}

#[test]
fn an_application_is_served_beside_what_the_server_answers_itself_and_nothing_around_it_is()
-> Result<()> {
    let all = tempfile::tempdir()?;
    let app = all.path().join("app");
    std::fs::create_dir(&app)?;
    std::fs::write(app.join("index.html"), "<p>the app")?;
    // It can't take the place of what clients and operators ask for.
    std::fs::write(app.join("healthz"), "not this")?;
    std::fs::write(all.path().join("Cargo.toml"), "secret")?;
    let app = app.to_str().context("a path in UTF-8")?;
    let server = ServerProcess::start_with(&["--app", app])?;
    assert_eq!(server.get("/")?, (200, "<p>the app".to_owned()));
    assert_eq!(server.get("/index.html?x=1")?.0, 200);
    assert_eq!(server.get("/healthz")?, (200, "ok\n".to_owned()));
    assert_eq!(server.get("/readyz")?.0, 200);
    assert!(server.get("/metrics")?.1.contains("concord_connections"));
    for path in [
        "/../Cargo.toml",
        "/%2e%2e/Cargo.toml",
        "/..%2fCargo.toml",
        "/%2E%2E%2FCargo.toml",
        "/x/../../Cargo.toml",
        "/%252e%252e/Cargo.toml",
        "//etc/passwd",
        "/no-such-file",
    ] {
        let (status, body) = server.get(path)?;
        assert_eq!(status, 404, "{path}");
        assert!(!body.contains("secret"), "{path}");
    }

    let plain = ServerProcess::start()?;
    assert_eq!(plain.get("/")?.0, 404);

    let data = all.path().join("data");
    let data = data.to_str().context("a path in UTF-8")?;
    let missing = concord(
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--data",
            data,
            "--app",
            "no-such-directory",
        ],
        &[],
    )?;
    assert!(!missing.status.success());
    let told = String::from_utf8_lossy(&missing.stderr);
    assert!(told.contains("no-such-directory"), "{told}");
    Ok(())
}

#[test]
fn settings_that_make_no_sense_are_refused_with_their_name() -> Result<()> {
    for (arguments, named) in [
        (["serve", "--listen", "nowhere"], "listen"),
        (["serve", "--durability", "maybe"], "durability"),
        (
            ["serve", "--config", "no-such-file.toml"],
            "no-such-file.toml",
        ),
        (["serve", "--no-such-flag", "x"], "no-such-flag"),
    ] {
        let output = concord(&arguments, &[])?;
        assert!(!output.status.success(), "{arguments:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(named), "{arguments:?}: {told}");
    }
    Ok(())
}

#[test]
fn relaxed_durability_says_so_at_start_up() -> Result<()> {
    let strict = ServerProcess::start()?;
    assert!(!strict.log().contains("relaxed"), "{}", strict.log());
    let relaxed = ServerProcess::start_with(&["--durability", "relaxed"])?;
    relaxed.wait_for_log("relaxed")?;
    Ok(())
}

/// Nobody is let in by mistake: each of these would be a server that is more open than it looks.
#[test]
fn settings_that_would_let_in_anybody_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_str().context("a path")?.to_owned())
    };
    let key = NewKey::generate(SigningAlgorithm::EdDsa)?;
    let public = file("public.pem", &key.public.context("a public key")?)?;
    let private = file("private.pem", &key.private)?;
    let secret = file("secret.txt", "a password of more than thirty-two bytes")?;
    let set = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#;
    let short = file("short.json", set)?;
    let data = folder.path().join("data");
    let data = data.to_str().context("a path")?;
    let with_keys: [&str; 4] = ["--auth", "jwt", "--auth-keys", &public];
    let cookie = [
        &with_keys[..],
        &["--auth-cookie", "s", "--cors-origin", "*"],
    ]
    .concat();
    for (arguments, named) in [
        (&["--listen", "0.0.0.0:0"][..], "--allow-anyone"),
        (&["--listen", "[::]:0"], "--allow-anyone"),
        (&["--auth", "jwt"], "CONCORD_AUTH_KEYS_TEXT"),
        (&["--auth-keys", &public], "--auth is none"),
        (
            &["--auth", "jwt", "--auth-keys", "no-such-file"],
            "no-such-file",
        ),
        (&["--auth", "jwt", "--auth-keys", &private], "private key"),
        (&["--auth", "jwt", "--auth-keys", &short], "32 bytes"),
        (&["--auth", "jwt", "--auth-keys", &secret], "neither PEM"),
        (
            &["--auth", "jwt", "--auth-keys", set],
            "CONCORD_AUTH_KEYS_TEXT",
        ),
        (&cookie, "--cors-origin"),
    ] {
        let arguments = [&["serve", "--data", data], arguments].concat();
        let output = concord(&arguments, &[])?;
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(told.contains(named), "{arguments:?}: {told}");
        assert!(
            !told.contains("password") && !told.contains("c2VjcmV0"),
            "{told}"
        );
        assert!(!folder.path().join("data").exists(), "{arguments:?}");
    }
    let bad = [("CONCORD_AUTH_KEYS_TEXT", "password")];
    let output = concord(&["serve", "--data", data, "--auth", "jwt"], &bad)?;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("CONCORD_AUTH_KEYS_TEXT") && !told.contains("password"),
        "{told}"
    );
    Ok(())
}

/// From nothing to a request that is let in, by what ACCESS.md says.
#[test]
fn keys_and_tokens_are_made_and_used() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = |output: &Output| String::from_utf8_lossy(&output.stdout).trim().to_owned();
    for (algorithm, for_makers, for_servers) in [
        ("EdDSA", "concord-private.pem", "concord-public.pem"),
        ("ES256", "concord-private.pem", "concord-public.pem"),
        ("RS256", "concord-private.pem", "concord-public.pem"),
        ("HS256", "concord-secret.json", "concord-secret.json"),
    ] {
        let out = folder.path().join(algorithm);
        let path = |name: &str| out.join(name).to_str().map(str::to_owned).context("a path");
        let make = [
            "token",
            "keys",
            "--algorithm",
            algorithm,
            "--out",
            &path("")?,
        ];
        let made = concord(&make, &[])?;
        ensure!(made.status.success(), "{made:?}");
        let (key, keys) = (path(for_makers)?, path(for_servers)?);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&key)?.permissions().mode();
            assert_eq!(mode & 0o077, 0, "{algorithm}: {mode:o}");
        }
        let before = std::fs::read(&key)?;
        let again = concord(&make, &[])?;
        assert!(!again.status.success(), "{algorithm}");
        assert_eq!(std::fs::read(&key)?, before, "{algorithm}");

        let token = concord(
            &["token", "make", "ann", "--key", &key, "--expires", "1m"],
            &[],
        )?;
        let token = text(&token);
        let server = ServerProcess::start_with(&["--auth", "jwt", "--auth-keys", &keys])?;
        let url = format!("http://{}", server.address());
        let list = ["list", "--url", &url];
        let listed = concord(&list, &[("CONCORD_TOKEN", &token)])?;
        assert!(listed.status.success(), "{algorithm}: {listed:?}");
        for environment in [&[][..], &[("CONCORD_TOKEN", "x")]] {
            let refused = concord(&list, environment)?;
            let told = String::from_utf8_lossy(&refused.stderr);
            let code = if environment.is_empty() {
                "unauthenticated"
            } else {
                "token-malformed"
            };
            assert!(!refused.status.success() && told.contains(code), "{told}");
        }
        let watch = concord(&["watch", "--url", &url, "nobody", "--token", "x"], &[])?;
        let told = String::from_utf8_lossy(&watch.stderr);
        assert!(told.contains("token-malformed"), "{told}");
    }
    Ok(())
}

#[test]
fn keys_may_be_text_in_the_environment() -> Result<()> {
    let key = NewKey::generate(SigningAlgorithm::Es256)?;
    let mut server = ServerProcess::start()?;
    server.terminate()?;
    server.set_variable("CONCORD_AUTH", "jwt");
    server.set_variable("CONCORD_AUTH_KEYS_TEXT", &key.public.context("a key")?);
    server.restart()?;
    let claims = serde_json::json!({ "sub": "ann", "exp": 4_000_000_000_u64 });
    let token = sign(&key.private, claims.as_object().context("an object")?)?;
    let url = format!("http://{}", server.address());
    let list = ["list", "--url", &url];
    assert!(!concord(&list, &[])?.status.success());
    let listed = concord(&list, &[("CONCORD_TOKEN", &token)])?;
    assert!(listed.status.success(), "{listed:?}");
    Ok(())
}

#[test]
fn a_token_may_grant_roles_by_itself() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().to_str().context("a path")?;
    let made = concord(&["token", "keys", "--out", out], &[])?;
    ensure!(made.status.success(), "{made:?}");
    let (key, keys) = (
        format!("{out}/concord-private.pem"),
        format!("{out}/concord-public.pem"),
    );
    let make = |who: &str, grants: &[&str]| {
        let mut arguments = vec!["token", "make", who, "--key", &key];
        for grant in grants {
            arguments.extend(["--grant", grant]);
        }
        concord(&arguments, &[])
    };
    let server = ServerProcess::start_with(&["--auth", "jwt", "--auth-keys", &keys])?;
    let url = format!("http://{}", server.address());
    let run = |token: &Output, arguments: &[&str]| -> Result<Output> {
        let token = String::from_utf8_lossy(&token.stdout).trim().to_owned();
        let mut all = arguments.to_vec();
        all.extend(["--url", &url]);
        concord(&all, &[("CONCORD_TOKEN", &token)])
    };
    let told = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let ann = make("ann", &["team-7-*=owner", "team-8-a=reader"])?;
    let done = run(&ann, &["create", "{\"a\": 1}", "--id", "team-7-a"])?;
    ensure!(done.status.success(), "{done:?}");
    let refused = run(&ann, &["create", "{\"a\": 1}", "--id", "team-8-a"])?;
    ensure!(!refused.status.success(), "{refused:?}");
    let bob = make("bob", &["automerge:team-7-a=reader"])?;
    let read = run(&bob, &["get", "team-7-a"])?;
    ensure!(read.status.success(), "{read:?}");
    let refused = run(&bob, &["set", "team-7-a", "/a", "2"])?;
    ensure!(told(&refused).contains("not-allowed"), "{refused:?}");

    for bad in [
        &["team-7-*"][..],
        &["d=king"],
        &["=owner"],
        &["d=reader", "d=owner"],
    ] {
        let output = make("bob", bad)?;
        assert_eq!(output.status.code(), Some(2), "{bad:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{bad:?}");
    }
    Ok(())
}
