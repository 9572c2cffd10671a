//! Keys that change while the server runs: fetched from an identity provider, or read from a file.
//!
//! Most of it runs the server here, at a quicker pace than that of `concord serve`; what is asked of the provider is
//! counted by the provider.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use concord_server::access::Pace;
use concord_server::access::signing::{NewKey, SigningAlgorithm};
use concord_server::config::{Auth, Config};
use concord_server::http::authenticate::Gate;
use concord_server::serve::Server;
use concord_server::store::MemoryStore;
use concord_tests::server_process::ServerProcess;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::authentication::{claims, refused};
use super::rest::Rest;

/// Nothing is read again by itself, and for an unknown key as often as one comes.
const ON_DEMAND: Pace = Pace {
    file: HOUR,
    url: HOUR,
    url_least: HOUR,
    url_most: HOUR,
    retry: HOUR,
    file_gap: Duration::ZERO,
    url_gap: Duration::ZERO,
    fetch: Duration::from_secs(5),
    believed: HOUR,
    wait: Duration::from_secs(10),
    most_waiting: 4,
};

/// Everything is read again at once by itself, and not for an unknown key.
const BY_TIME: Pace = Pace {
    file: SOON,
    url: SOON,
    url_least: Duration::ZERO,
    retry: SOON,
    file_gap: HOUR,
    url_gap: HOUR,
    ..ON_DEMAND
};

const HOUR: Duration = Duration::from_hours(1);
const SOON: Duration = Duration::from_millis(50);

/// A key with a name.
struct Named {
    name: Option<&'static str>,
    key: NewKey,
}

impl Named {
    fn new(name: &'static str) -> Result<Self> {
        let key = NewKey::generate(SigningAlgorithm::EdDsa)?;
        let name = Some(name);
        Ok(Self { name, key })
    }

    fn public(&self) -> Result<&str> {
        self.key.public.as_deref().context("a public key")
    }

    fn jwk(&self) -> Result<Value> {
        let key = DecodingKey::from_ed_pem(self.public()?.as_bytes())?;
        let mut jwk = serde_json::to_value(Jwk::from_decoding_key(&key, None)?)?;
        jwk["kid"] = json!(self.name);
        Ok(jwk)
    }

    fn token(&self) -> Result<String> {
        let mut head = Header::new(Algorithm::EdDSA);
        head.kid = self.name.map(str::to_owned);
        let key = EncodingKey::from_ed_pem(self.key.private.as_bytes())?;
        Ok(jsonwebtoken::encode(&head, &claims("ann", 3600)?, &key)?)
    }
}

fn set(keys: &[&Named]) -> Result<Value> {
    let keys = keys.iter().map(|key| key.jwk());
    Ok(json!({ "keys": keys.collect::<Result<Vec<_>>>()? }))
}

/// How the provider answers.
#[derive(Debug, Clone)]
enum Manner {
    Good(Value),
    After(Duration, Value),
    Text(String),
    Status(StatusCode),
    Redirect(String),
    /// 10 MiB, as fast as they are taken.
    Huge,
    /// A head, and then nothing.
    Stuck,
}

/// What has the keys.
struct Provider {
    address: SocketAddr,
    manner: watch::Sender<Manner>,
    asked: Arc<AtomicUsize>,
    sent_kib: Arc<AtomicUsize>,
}

impl Provider {
    async fn start(manner: Manner) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (manner, current) = watch::channel(manner);
        let (asked, sent_kib) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (counted, sent) = (Arc::clone(&asked), Arc::clone(&sent_kib));
        let answer = get(async move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let manner = current.borrow().clone();
            answer(manner, sent).await
        });
        let router = Router::new().route("/keys", answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self {
            address,
            manner,
            asked,
            sent_kib,
        })
    }

    fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn now(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }
}

async fn answer(manner: Manner, sent_kib: Arc<AtomicUsize>) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    match manner {
        Manner::Good(keys) => (json, keys.to_string()).into_response(),
        Manner::After(pause, keys) => {
            tokio::time::sleep(pause).await;
            (json, keys.to_string()).into_response()
        }
        Manner::Text(text) => text.into_response(),
        Manner::Status(status) => status.into_response(),
        Manner::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
        Manner::Huge => {
            let pieces = stream::iter(0..10 << 10).map(move |_| {
                sent_kib.fetch_add(1, Ordering::SeqCst);
                Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1 << 10]))
            });
            Body::from_stream(pieces).into_response()
        }
        Manner::Stuck => {
            let nothing = stream::pending::<Result<Bytes, Infallible>>();
            Body::from_stream(nothing).into_response()
        }
    }
}

/// A server of this process with these sources of keys, until the test ends.
async fn serve(sources: &[&str], pace: Pace) -> Result<Rest> {
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        auth: Auth::Jwt,
        auth_keys: sources.iter().map(Into::into).collect(),
        auth_audience: vec!["concord".to_owned()],
        // All come from one address here.
        unauthenticated_per_second: 0,
        ..Config::default()
    };
    let gate = Gate::of(&config, pace).await?;
    let server = Server::bind(&config, Arc::new(MemoryStore::new()), gate, None).await?;
    let rest = Rest::new(server.address()?);
    tokio::spawn(server.run(std::future::pending()));
    Ok(rest)
}

/// The code with which a token is refused; `ok` if it is not.
async fn code(rest: &Rest, token: &str) -> Result<String> {
    let answer = rest.with_token(token).get("/v1/documents").await?;
    if answer.status == StatusCode::OK {
        return Ok("ok".to_owned());
    }
    refused(&answer)
}

/// Until the token's code is this one.
async fn until(rest: &Rest, token: &str, expected: &str) -> Result<()> {
    let started = Instant::now();
    loop {
        let code = code(rest, token).await?;
        if code == expected {
            return Ok(());
        }
        ensure!(started.elapsed() < Duration::from_secs(20), "still {code}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// How often keys were read from addresses with this result.
async fn reads(result: &str) -> Result<u64> {
    // The counters are this process's, and another server of it shows them to anybody.
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..Config::default()
    };
    let store = Arc::new(MemoryStore::new());
    let server = Server::bind(&config, store, Gate::open(), None).await?;
    let rest = Rest::new(server.address()?);
    let running = tokio::spawn(server.run(std::future::pending()));
    let metrics = rest.get("/metrics").await?.good()?;
    running.abort();
    let metrics = String::from_utf8(metrics.body)?;
    let name = format!("concord_auth_key_reads_total{{source=\"url\",result=\"{result}\"}} ");
    let mut lines = metrics.lines();
    let count = lines.find_map(|line| line.strip_prefix(&name));
    Ok(count
        .with_context(|| format!("{name} in {metrics}"))?
        .parse()?)
}

#[tokio::test]
async fn keys_are_fetched_again_when_their_time_has_come() -> Result<()> {
    let [old, new] = [Named::new("old")?, Named::new("new")?];
    let provider = Provider::start(Manner::Good(set(&[&old])?)).await?;
    let rest = serve(&[&provider.url()], BY_TIME).await?;
    let (old_token, new_token) = (old.token()?, new.token()?);
    ensure!(code(&rest, &old_token).await? == "ok");
    ensure!(code(&rest, &new_token).await? == "token-unknown-key");
    provider.now(Manner::Good(set(&[&new, &old])?));
    until(&rest, &new_token, "ok").await?;
    ensure!(code(&rest, &old_token).await? == "ok");
    // What is gone from the set is not believed any more.
    provider.now(Manner::Good(set(&[&new])?));
    until(&rest, &old_token, "token-unknown-key").await?;
    ensure!(code(&rest, &new_token).await? == "ok");
    provider.now(Manner::Good(json!({ "keys": [] })));
    until(&rest, &new_token, "token-unknown-key").await?;
    Ok(())
}

#[tokio::test]
async fn a_key_that_is_not_known_is_looked_for_at_once() -> Result<()> {
    let [old, new, never] = [Named::new("old")?, Named::new("new")?, Named::new("never")?];
    let provider = Provider::start(Manner::Good(set(&[&old])?)).await?;
    let rest = serve(&[&provider.url()], ON_DEMAND).await?;
    ensure!(code(&rest, &old.token()?).await? == "ok");
    ensure!(provider.asked() == 1);
    provider.now(Manner::After(
        Duration::from_millis(300),
        set(&[&old, &new])?,
    ));
    ensure!(code(&rest, &new.token()?).await? == "ok", "the first time");
    ensure!(provider.asked() == 2);
    // Nor does one wait longer than it takes to find nothing.
    let started = Instant::now();
    ensure!(code(&rest, &never.token()?).await? == "token-unknown-key");
    ensure!(provider.asked() == 3);
    ensure!(started.elapsed() < Duration::from_secs(5));

    // Nothing else makes a server ask.
    let stranger = Named::new("old")?;
    ensure!(code(&rest, &stranger.token()?).await? == "token-signature");
    let nameless = Named {
        name: None,
        key: NewKey::generate(SigningAlgorithm::EdDsa)?,
    };
    ensure!(code(&rest, &nameless.token()?).await? == "token-signature");
    ensure!(code(&rest, "not.a.token").await? == "token-malformed");
    ensure!(provider.asked() == 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_unknown_keys_troubles_nobody() -> Result<()> {
    let good = Named::new("good")?;
    let keys = set(&[&good])?;
    let provider = Provider::start(Manner::Good(keys.clone())).await?;
    let gap = Duration::from_millis(500);
    let wait = Duration::from_millis(1500);
    let pace = Pace {
        url_gap: gap,
        wait,
        ..ON_DEMAND
    };
    let started = Instant::now();
    let rest = serve(&[&provider.url()], pace).await?;
    // Slower than anybody waits.
    provider.now(Manner::After(Duration::from_secs(3), keys));
    tokio::time::sleep(gap).await;
    let ask = async |token: &str| {
        let asked = Instant::now();
        let code = code(&rest, token).await?;
        anyhow::Ok((code, asked.elapsed()))
    };
    let strangers = (0..40).map(|_| Named::new("unknown")?.token());
    let strangers = strangers.collect::<Result<Vec<_>>>()?;
    let good = good.token()?;
    // For as long as the fetch takes and longer.
    while started.elapsed() < Duration::from_secs(5) {
        let flood = join_all(strangers.iter().map(|token| ask(token)));
        let others = async {
            let mut slowest = Duration::ZERO;
            for _ in 0..10 {
                let (code, took) = ask(&good).await?;
                ensure!(code == "ok");
                slowest = slowest.max(took);
            }
            Ok(slowest)
        };
        let (flood, slowest) = tokio::join!(flood, others);
        let slowest = slowest?;
        ensure!(slowest < wait / 2, "good ones took {slowest:?}");
        let mut waited = 0;
        for answer in flood {
            let (code, took) = answer?;
            ensure!(code == "token-unknown-key");
            ensure!(took < 2 * wait, "{took:?}");
            waited += usize::from(took > wait / 2);
        }
        ensure!(waited <= pace.most_waiting, "{waited} waited");
    }
    // One at the start, and then one after another.
    let most = 1 + usize::try_from(started.elapsed().as_millis() / 3000)? + 1;
    ensure!(
        (2..=most).contains(&provider.asked()),
        "{}",
        provider.asked()
    );

    // One that is answered quickly is not asked more often than it may be.
    provider.now(Manner::Status(StatusCode::NOT_FOUND));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (before, started) = (provider.asked(), Instant::now());
    while started.elapsed() < Duration::from_secs(2) {
        for answer in join_all(strangers.iter().map(|token| ask(token))).await {
            ensure!(answer?.0 == "token-unknown-key");
        }
    }
    let most = 1 + usize::try_from(started.elapsed().as_millis() / gap.as_millis())?;
    let asked = provider.asked() - before;
    ensure!((2..=most).contains(&asked), "{asked} of {most}");
    Ok(())
}

#[tokio::test]
async fn what_can_not_be_fetched_changes_nothing() -> Result<()> {
    let [good, other] = [Named::new("good")?, Named::new("other")?];
    let elsewhere = Provider::start(Manner::Good(set(&[&other])?)).await?;
    let provider = Provider::start(Manner::Good(set(&[&good])?)).await?;
    let pace = Pace {
        fetch: Duration::from_millis(500),
        ..ON_DEMAND
    };
    let rest = serve(&[&provider.url()], pace).await?;
    let (good, other_token) = (good.token()?, other.token()?);
    let secret = json!({ "kty": "oct", "kid": "other", "k": "A".repeat(43) });
    let mut private = other.jwk()?;
    private["d"] = json!("AA");
    let many = vec![other.jwk()?; 65];
    let (ok, mut failed) = (reads("ok").await?, reads("failed").await?);
    for manner in [
        Manner::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Manner::Status(StatusCode::NO_CONTENT),
        Manner::Redirect(elsewhere.url()),
        Manner::Huge,
        Manner::Stuck,
        Manner::Text(String::new()),
        Manner::Text("<html>".to_owned()),
        Manner::Good(json!({ "keys": [other.jwk()?, secret] })),
        Manner::Good(json!({ "keys": [other.jwk()?, private] })),
        Manner::Good(json!({ "keys": many })),
        Manner::After(Duration::from_secs(2), set(&[&other])?),
    ] {
        provider.now(manner.clone());
        let refused = code(&rest, &other_token).await?;
        ensure!(refused == "token-unknown-key", "{manner:?}: {refused}");
        ensure!(code(&rest, &good).await? == "ok", "{manner:?}");
        failed += 1;
        ensure!(reads("failed").await? == failed, "{manner:?}");
    }
    ensure!(elsewhere.asked() == 0);
    // 256 KiB, and what was on its way.
    let sent_kib = provider.sent_kib.load(Ordering::SeqCst);
    ensure!((257..9_000).contains(&sent_kib), "{sent_kib}");
    provider.now(Manner::Good(set(&[&other])?));
    ensure!(code(&rest, &other_token).await? == "ok");
    ensure!(reads("ok").await? == ok + 1);
    ensure!(code(&rest, &good).await? == "token-unknown-key");
    Ok(())
}

#[tokio::test]
async fn keys_that_can_not_be_renewed_are_given_up() -> Result<()> {
    let good = Named::new("good")?;
    let provider = Provider::start(Manner::Good(set(&[&good])?)).await?;
    let pace = Pace {
        believed: Duration::from_secs(1),
        ..BY_TIME
    };
    let rest = serve(&[&provider.url()], pace).await?;
    let token = good.token()?;
    for manner in [Manner::Status(StatusCode::BAD_GATEWAY), Manner::Stuck] {
        provider.now(manner);
        tokio::time::sleep(Duration::from_millis(500)).await;
        ensure!(code(&rest, &token).await? == "ok");
        until(&rest, &token, "token-unknown-key").await?;
        provider.now(Manner::Good(set(&[&good])?));
        until(&rest, &token, "ok").await?;
    }
    Ok(())
}

#[tokio::test]
async fn files_and_addresses_are_believed_together_and_files_change_too() -> Result<()> {
    let [near, far] = [Named::new("same")?, Named::new("same")?];
    let own = Named {
        name: None,
        key: NewKey::generate(SigningAlgorithm::EdDsa)?,
    };
    let folder = tempfile::tempdir()?;
    let [set_file, pem_file] = ["set.json", "own.pem"].map(|name| folder.path().join(name));
    std::fs::write(&set_file, set(&[&near])?.to_string())?;
    std::fs::write(&pem_file, own.public()?)?;
    let provider = Provider::start(Manner::Good(set(&[&far])?)).await?;
    let url = provider.url();
    let [set_path, pem_path] = [&set_file, &pem_file].map(|path| path.to_str());
    let sources = [
        set_path.context("a path")?,
        &url,
        pem_path.context("a path")?,
    ];
    let rest = serve(&sources, ON_DEMAND).await?;
    for key in [&near, &far, &own] {
        ensure!(code(&rest, &key.token()?).await? == "ok");
    }
    // Of a name that the files have, and not of another: a key without a name could be any.
    let new = Named::new("new")?;
    let token = new.token()?;
    ensure!(code(&rest, &token).await? == "token-unknown-key");
    std::fs::write(&set_file, set(&[&new])?.to_string())?;
    ensure!(code(&rest, &token).await? == "ok");
    ensure!(code(&rest, &near.token()?).await? == "token-signature");

    // By time: a broken or missing file changes nothing, another key in it does.
    let rest = serve(&[sources[2]], BY_TIME).await?;
    let token = own.token()?;
    for broken in ["", "-----BEGIN PUBLIC KEY-----\nMCow", "keys"] {
        std::fs::write(&pem_file, broken)?;
        tokio::time::sleep(4 * SOON).await;
        ensure!(code(&rest, &token).await? == "ok", "{broken:?}");
    }
    std::fs::remove_file(&pem_file)?;
    tokio::time::sleep(4 * SOON).await;
    ensure!(code(&rest, &token).await? == "ok");
    std::fs::write(&pem_file, near.public()?)?;
    until(&rest, &token, "token-signature").await?;
    ensure!(code(&rest, &near.token()?).await? == "ok");
    Ok(())
}

/// The command itself, and what it says.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_starts_with_a_key_or_not_at_all() -> Result<()> {
    let key = Named::new("a")?;
    let provider = Provider::start(Manner::Good(set(&[&key])?)).await?;
    let url = format!("{}?code=secret", provider.url());
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("own.pem");
    let own = NewKey::generate(SigningAlgorithm::EdDsa)?;
    std::fs::write(&file, own.public.as_deref().context("a public key")?)?;
    let file = file.to_str().context("a path")?;
    // Nobody listens there.
    let nobody = "http://127.0.0.1:1/keys";
    let start = |sources: &[&str]| {
        let mut arguments = vec!["--auth", "jwt", "--auth-audience", "concord"];
        for source in sources {
            arguments.extend(["--auth-keys", source]);
        }
        ServerProcess::start_with(&arguments)
    };
    let server = start(&[&url, nobody])?;
    ensure!(code(&Rest::new(server.address()), &key.token()?).await? == "ok");
    let log = server.log();
    ensure!(log.contains(r#"EdDSA \"a\""#), "{log}");
    ensure!(log.contains(nobody) && !log.contains("secret"), "{log}");
    drop(start(&[file, nobody])?);

    provider.now(Manner::Good(json!({ "keys": [] })));
    for (sources, told) in [
        (
            &[nobody][..],
            "no key could be had: http://127.0.0.1:1/keys",
        ),
        (&[&url], "no key in it"),
        (&[file, "http://192.0.2.1/keys"], "asked for by https://"),
        (&[file, "ftp://id.example/keys"], "asked for by https://"),
        (&[file, "https://ann:secret@id.example/"], "no password"),
        (&[file, "https://:::/"], "no address"),
        (&[&url, "no-such-file"], "no-such-file"),
    ] {
        let error = start(sources).err().context("it was started")?.to_string();
        ensure!(error.contains(told), "{sources:?}: {error}");
        ensure!(!error.contains("secret"), "{error}");
    }
    Ok(())
}
