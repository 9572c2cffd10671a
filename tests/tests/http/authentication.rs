//! Who is let in, by which token, as whom, and for how long.

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, ROOT};
use concord_client_wasm::Replica;
use concord_server::access::signing::{NewKey, SigningAlgorithm, sign};
use concord_shared::DocumentId;
use concord_tests::client::Client;
use concord_tests::raw_client::RawClient;
use concord_tests::server_process::ServerProcess;
use futures_util::StreamExt as _;
use reqwest::header::{COOKIE, HeaderName, ORIGIN, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, http};

use super::rest::{Answer, Rest, send};

const ISSUER: &str = "https://id.example";
const AUDIENCE: &str = "concord";

/// A server that has to know who asks, and what makes tokens for it.
pub(super) struct World {
    pub(super) server: ServerProcess,
    key: NewKey,
    _keys: NamedTempFile,
}

impl World {
    pub(super) fn start(arguments: &[&str]) -> Result<Self> {
        let key = NewKey::generate(SigningAlgorithm::EdDsa)?;
        let mut keys = NamedTempFile::new()?;
        let public = key.public.as_deref().context("a public key")?;
        keys.write_all(public.as_bytes())?;
        let path = keys.path().to_str().context("a path")?.to_owned();
        let mut all = vec!["--auth", "jwt", "--auth-keys", &path];
        all.extend(["--auth-issuer", ISSUER, "--auth-audience", AUDIENCE]);
        // Who may do what is for others to look at.
        all.extend(["--share", "anyone=writer", "--operator", "root"]);
        all.extend(arguments);
        Ok(Self {
            server: ServerProcess::start_with(&all)?,
            key,
            _keys: keys,
        })
    }

    fn anonymous(&self) -> Rest {
        Rest::new(self.server.address())
    }

    pub(super) fn rest(&self, principal: &str) -> Result<Rest> {
        Ok(self.anonymous().with_token(&self.token(principal, 3600)?))
    }

    pub(super) fn token(&self, principal: &str, seconds: i64) -> Result<String> {
        token(&self.key, principal, seconds)
    }
}

fn now_s() -> Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_secs())?)
}

pub(crate) fn claims(principal: &str, seconds: i64) -> Result<Value> {
    let until = now_s()? + seconds;
    Ok(json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": principal, "exp": until }))
}

fn signed(key: &NewKey, claims: &Value) -> Result<String> {
    let claims: Map<String, Value> = serde_json::from_value(claims.clone())?;
    Ok(sign(&key.private, &claims)?)
}

fn token(key: &NewKey, principal: &str, seconds: i64) -> Result<String> {
    signed(key, &claims(principal, seconds)?)
}

/// The code of a 401, whose shape is always the same.
pub(crate) fn refused(answer: &Answer) -> Result<String> {
    let body = answer.json()?;
    ensure!(answer.status == StatusCode::UNAUTHORIZED, "{body}");
    ensure!(answer.content_type == "application/problem+json");
    let fields: Vec<_> = body.as_object().context("an object")?.keys().collect();
    ensure!(
        fields == ["code", "detail", "status", "title", "type"],
        "{fields:?}"
    );
    let code = body["code"].as_str().context("a code")?.to_owned();
    let challenge = answer.header(WWW_AUTHENTICATE.as_str());
    let expected = if code == "unauthenticated" {
        "Bearer realm=\"concord\""
    } else {
        "Bearer realm=\"concord\", error=\"invalid_token\""
    };
    ensure!(challenge == expected, "{code}: {challenge}");
    Ok(code)
}

/// What answered the request to become a WebSocket.
async fn upgrade(url: &str, headers: &[(&'static str, &str)]) -> Result<http::Response<()>> {
    let mut request = url.into_client_request()?;
    for (name, value) in headers {
        let name = HeaderName::from_static(name);
        request.headers_mut().insert(name, value.parse()?);
    }
    match tokio_tungstenite::connect_async(request).await {
        Ok((_, response)) => Ok(response.map(drop)),
        Err(tungstenite::Error::Http(response)) => Ok(response.map(drop)),
        Err(error) => Err(error.into()),
    }
}

/// Every operation that is described, and the WebSocket; and what is for everybody.
#[tokio::test]
async fn without_a_token_nothing_is_answered() -> Result<()> {
    let world = World::start(&[])?;
    let rest = world.anonymous();
    let described = rest.get("/v1/openapi.json").await?.good()?.json()?;
    let paths = described["paths"].as_object().context("paths")?;
    let (mut operations, mut open) = (0, 0);
    for (path, methods) in paths {
        let url = path
            .replace("{id}", "4NMNnkMhL8jXrdJ9jamS58PAVdXu")
            .replace("{path}", "a/b")
            .replace("{hash}", &"0".repeat(64))
            .replace("{place}", "0");
        for (method, described) in methods.as_object().context("methods")? {
            let method = Method::from_bytes(method.to_uppercase().as_bytes())?;
            let answer = send(rest.request(method.clone(), &url).body("{}")).await?;
            if described["security"].is_null() {
                ensure!(answer.status == StatusCode::OK, "{method} {path}");
                open += 1;
                continue;
            }
            let code = refused(&answer).with_context(|| format!("{method} {path}"))?;
            ensure!(code == "unauthenticated", "{method} {path}: {code}");
            operations += 1;
        }
    }
    // The description itself, and its page.
    ensure!(operations > 15 && open == 2, "{operations} {open}");
    let socket = upgrade(&world.server.websocket_url(), &[]).await?;
    ensure!(socket.status() == 401, "{socket:?}");
    for (method, path) in [
        (Method::HEAD, "/v1/documents"),
        (Method::GET, "/v1/documents/x/value/"),
        (Method::GET, "/v1/documents/x/events"),
    ] {
        let answer = send(rest.request(method, path)).await?;
        ensure!(answer.status == StatusCode::UNAUTHORIZED, "{path}");
    }
    for open in ["/healthz", "/readyz", "/v1/docs", "/inspect"] {
        ensure!(rest.get(open).await?.status.is_success(), "{open}");
    }
    Ok(())
}

#[tokio::test]
async fn a_token_is_taken_from_wherever_a_client_can_put_it_and_told_to_nobody() -> Result<()> {
    let world = World::start(&[
        "--auth-cookie",
        "session",
        "--cors-origin",
        "https://app.example",
        "--log",
        "trace",
    ])?;
    let (rest, token) = (world.anonymous(), world.token("ann", 3600)?);
    let list = "/v1/documents";
    let get = |url: &str| rest.request(Method::GET, url);
    let ok = async |request| anyhow::Ok(send(request).await?.status == StatusCode::OK);

    ensure!(ok(get(list).bearer_auth(&token)).await?);
    ensure!(ok(get(list).header("authorization", format!("bearer  {token}"))).await?);
    for query in ["token=", "limit=1&token=", "to%6ben=x&token="] {
        let answer = send(get(&format!("{list}?{query}{token}"))).await?;
        // A parameter by another name is one that there is not.
        let expected = if query.contains('%') { 400 } else { 200 };
        ensure!(answer.status == expected, "{query}: {}", answer.status);
    }
    ensure!(ok(get(list).header(COOKIE, format!("a=b; session={token}"))).await?);
    ensure!(!ok(get(list).header(COOKIE, format!("other={token}"))).await?);

    let base = world.server.websocket_url();
    let with_query = format!("{base}?token={token}");
    ensure!(upgrade(&with_query, &[]).await?.status() == 101);
    let offered = format!("concord, concord.token.{token}");
    let answer = upgrade(&base, &[("sec-websocket-protocol", &offered)]).await?;
    ensure!(answer.status() == 101, "{answer:?}");
    let chosen = answer.headers().get("sec-websocket-protocol");
    ensure!(chosen.context("a subprotocol")? == "concord");

    // And in a message, where it was shown before.
    let mut tab = RawClient::join(&with_query, "tab").await?;
    let said = json!({ "type": "token", "token": token });
    tab.send_text(&said.to_string()).await?;
    let answer = tab.next_text().await?;
    ensure!(answer.contains("until"), "{answer}");

    // A cookie comes along whichever page asks.
    let cookie = format!("session={token}");
    let own = format!("http://{}", world.server.address());
    for (origin, expected) in [
        (own.as_str(), 101),
        ("https://app.example", 101),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
    ] {
        let mut headers = vec![("cookie", cookie.as_str())];
        if !origin.is_empty() {
            headers.push(("origin", origin));
        }
        let answer = upgrade(&base, &headers).await?;
        ensure!(answer.status() == expected, "{origin:?}: {answer:?}");
    }
    // A proxy on this machine says that it was asked over TLS: a page that came without is not the server's own.
    for (origin, proto, expected) in [
        (own.as_str(), "https", 403),
        (own.as_str(), "http", 101),
        (&*own.replace("http:", "https:"), "https", 101),
    ] {
        let headers = [
            ("cookie", cookie.as_str()),
            ("origin", origin),
            ("x-forwarded-proto", proto),
        ];
        let answer = upgrade(&base, &headers).await?;
        ensure!(answer.status() == expected, "{origin} {proto}: {answer:?}");
    }
    for (origin, is_taken) in [(own.as_str(), true), ("https://evil.example", false)] {
        let request = rest.request(Method::POST, list).json(&json!({}));
        let answer = send(request.header(COOKIE, &cookie).header(ORIGIN, origin)).await?;
        ensure!(
            answer.status.is_success() == is_taken,
            "{origin}: {}",
            answer.status
        );
    }
    let of_app = get(list)
        .header(COOKIE, &cookie)
        .header(ORIGIN, "https://app.example");
    let answer = send(of_app).await?.good()?;
    ensure!(answer.header("access-control-allow-credentials") == "true");
    // What a page has to ask first, and what it is told if it brings nothing.
    let preflight = rest
        .request(Method::OPTIONS, list)
        .header(ORIGIN, "https://app.example");
    let preflight = preflight.header("access-control-request-method", "PUT");
    let preflight = preflight.header("access-control-request-headers", "authorization");
    let answer = send(preflight).await?.good()?;
    let headers = answer.header("access-control-allow-headers");
    ensure!(headers.contains("authorization"), "{headers}");
    let answer = send(get(list).header(ORIGIN, "https://app.example")).await?;
    ensure!(answer.status == StatusCode::UNAUTHORIZED);
    let origin = answer.header("access-control-allow-origin");
    ensure!(origin == "https://app.example", "{origin}");

    // The token is in nothing that anybody is told, whichever way it came.
    let made = format!("{list}?token={token}");
    let made = rest.request(Method::POST, &made).json(&json!({ "n": 0 }));
    let made = send(made.header("idempotency-key", "k")).await?.good()?;
    let url = made.location.clone().context("a place")?;
    let mut told = vec![format!("{made:?}"), world.server.log()];
    for path in [
        &format!("{url}/changes"),
        "/v1/refusals",
        "/metrics",
        "/v1/nowhere",
    ] {
        let answer = send(get(&format!("{path}?token={token}"))).await?;
        told.push(format!(
            "{:?}{}",
            answer.headers,
            String::from_utf8_lossy(&answer.body)
        ));
    }
    let wrong = token.replace('.', "");
    let refused = send(get(&format!("{list}?token={wrong}"))).await?;
    told.push(String::from_utf8_lossy(&refused.body).into_owned());
    told.push(world.server.log());
    let part = token.rsplit('.').next().context("a signature")?;
    let found = told.iter().find(|text| text.contains(part));
    ensure!(found.is_none(), "{found:?}");
    ensure!(
        world.server.log().contains("TRACE"),
        "nothing would be in this log"
    );
    Ok(())
}

#[tokio::test]
async fn a_cookie_is_neither_for_pages_of_other_sites_nor_one_of_two() -> Result<()> {
    let world = World::start(&["--auth-cookie", "session"])?;
    let rest = world.anonymous();
    let (ann, eve) = (world.token("ann", 3600)?, world.token("eve", 3600)?);
    let get = |cookie: &str| {
        let request = rest.request(Method::GET, "/v1/documents");
        request.header(COOKIE, cookie)
    };
    let cookie = format!("session={ann}");
    // What a page of another site has shown, as a picture or in a frame, says no origin.
    for (site, status) in [
        ("same-origin", 200),
        ("none", 200),
        ("same-site", 403),
        ("cross-site", 403),
    ] {
        let answer = send(get(&cookie).header("sec-fetch-site", site)).await?;
        ensure!(answer.status == status, "{site}: {}", answer.status);
        let is_told = status == 200 || answer.json()?["code"] == "foreign-origin";
        ensure!(is_told, "{site}: {answer:?}");
    }
    // Which of two is whose can't be known.
    for two in [
        format!("session={eve}; session={ann}"),
        format!("session={ann}; a=b; session={eve}"),
        format!("session=; session={ann}"),
    ] {
        let answer = send(get(&two)).await?;
        ensure!(refused(&answer)? == "token-malformed", "{two}");
    }
    let answer = send(get(&cookie).header(COOKIE, format!("session={eve}"))).await?;
    ensure!(refused(&answer)? == "token-malformed", "in two headers");
    let same = send(get(&format!("session={ann}; session=\"{ann}\""))).await?;
    ensure!(same.status == StatusCode::OK, "{}", same.status);
    Ok(())
}

/// HS256 by a text.
fn with_secret(secret: &str, claims: &Value) -> Result<String> {
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    Ok(jsonwebtoken::encode(&header, claims, &key)?)
}

#[tokio::test]
async fn each_wrong_token_has_its_code_and_all_answers_are_alike() -> Result<()> {
    let world = World::start(&["--auth-leeway-seconds", "5"])?;
    let rest = world.anonymous();
    let stranger = NewKey::generate(SigningAlgorithm::EdDsa)?;
    let good = claims("ann", 3600)?;
    let with = |changes: Value| {
        let mut claims = good.clone();
        for (name, value) in changes.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        signed(&world.key, &claims)
    };
    let token = signed(&world.key, &good)?;
    let (rest_of_token, _) = token.rsplit_once('.').context("a signature")?;
    let secret = NewKey {
        private: world.key.public.clone().context("a public key")?,
        public: None,
    };
    ensure!(
        signed(&secret, &good).is_err(),
        "a public key signs nothing"
    );
    let cases = [
        ("not.a.token".to_owned(), "token-malformed"),
        ("x".repeat(9000), "token-too-large"),
        // {"alg":"none"}
        (
            format!(
                "eyJhbGciOiJub25lIn0.{}.",
                token.split('.').nth(1).context("claims")?
            ),
            "token-algorithm",
        ),
        (
            signed(&NewKey::generate(SigningAlgorithm::Es256)?, &good)?,
            "token-algorithm",
        ),
        // The public key, which everybody has, as a secret.
        (
            with_secret(world.key.public.as_deref().context("a public key")?, &good)?,
            "token-algorithm",
        ),
        (signed(&stranger, &good)?, "token-signature"),
        (
            format!("{rest_of_token}.{}", "A".repeat(86)),
            "token-signature",
        ),
        (
            with(json!({ "iss": "https://evil.example" }))?,
            "token-issuer",
        ),
        (with(json!({ "aud": "another" }))?, "token-audience"),
        (with(json!({ "sub": "" }))?, "token-claims"),
        (with(json!({ "exp": now_s()? - 10 }))?, "token-expired"),
        (
            with(json!({ "nbf": now_s()? + 60 }))?,
            "token-not-yet-valid",
        ),
    ];
    for (token, expected) in &cases {
        let answer = rest.with_token(token).get("/v1/documents").await?;
        ensure!(refused(&answer)? == *expected, "{expected}");
        let url = format!("{}?token={token}", world.server.websocket_url());
        ensure!(upgrade(&url, &[]).await?.status() == 401, "{expected}");
    }
    let two = rest.request(Method::GET, "/v1/documents");
    let two = two.bearer_auth(&token).bearer_auth(&token);
    ensure!(refused(&send(two).await?)? == "token-malformed");
    ensure!(rest.with_token(&token).get("/v1/documents").await?.status == StatusCode::OK);
    Ok(())
}

/// What somebody writes has their name, whichever way it comes; and what is theirs is nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_apart() -> Result<()> {
    let world = World::start(&[])?;
    let (ann, bo) = (world.rest("ann")?, world.rest("bo")?);
    let id = "4NMNnkMhL8jXrdJ9jamS58PAVdXu";
    let url = format!("/v1/documents/{id}");
    ann.put(&url, &json!({ "n": 0 })).await?.good()?;
    let replica = Replica::new(DocumentId::new(id)?, ActorId::random());
    let (address, token) = (world.server.address(), world.token("cy", 3600)?);
    let mut cy = Client::join_as(&token, address, "tab", replica).await?;
    cy.settle().await?;
    cy.edit(|doc| doc.put(ROOT, "n", 1)).await?;
    cy.settle().await?;
    bo.put(&format!("{url}/value/n"), &json!(2)).await?.good()?;
    let history = ann.get(&format!("{url}/changes")).await?.good()?.json()?;
    let changes = history["changes"].as_array().context("changes")?;
    let mut people: Vec<_> = changes
        .iter()
        .map(|change| change["principal"].as_str())
        .collect();
    people.sort_unstable();
    ensure!(people == [Some("ann"), Some("bo"), Some("cy")], "{history}");

    // The same key of two people is two keys.
    let make = async |rest: &Rest| {
        let request = rest.request(Method::POST, "/v1/documents").json(&json!({}));
        anyhow::Ok(
            send(request.header("idempotency-key", "k"))
                .await?
                .good()?
                .location,
        )
    };
    let made = make(&ann).await?;
    ensure!(made == make(&ann).await? && made != make(&bo).await?);

    // Nobody else takes a peer's place.
    let joined_as = async |principal: &str, peer: &str| {
        let token = world.token(principal, 3600)?;
        let url = format!("{}?token={token}", world.server.websocket_url());
        RawClient::try_join(&url, peer).await
    };
    let joined = async |principal: &str| joined_as(principal, "same-peer").await;
    let Ok(mut first) = joined("ann").await? else {
        bail!("a peer may join");
    };
    let Err(refusal) = joined("bo").await? else {
        bail!("another's peer id was taken");
    };
    ensure!(refusal.close_code == Some(4403), "{refusal:?}");
    let server = first.server()?.to_string();
    let Err(refusal) = joined_as("ann", &server).await? else {
        bail!("the server's own peer id was taken");
    };
    ensure!(refusal.close_code == Some(4403), "{refusal:?}");
    let Ok(_second) = joined("ann").await? else {
        bail!("one's own place may be taken");
    };
    ensure!(first.refusal().await?.close_code == Some(4409));
    Ok(())
}

/// Rights end with the token, in the middle of a session and of a stream of events.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_token() -> Result<()> {
    let world = World::start(&["--auth-leeway-seconds", "0"])?;
    let ann = world.rest("ann")?;
    let made = ann
        .post("/v1/documents", &json!({ "n": 0 }))
        .await?
        .good()?;
    let url = made.location.context("a place")?;
    let started = Instant::now();
    let short = world.token("bo", 4)?;
    let socket = format!("{}?token={short}", world.server.websocket_url());
    let mut client = RawClient::join(&socket, "bo's tab").await?;
    let bo = world.anonymous().with_token(&short);
    let stream = bo
        .request(Method::GET, &format!("{url}/events"))
        .send()
        .await?;
    ensure!(stream.status() == StatusCode::OK);
    let mut stream = stream.bytes_stream();
    let first = stream.next().await.context("an event")??;
    ensure!(!first.is_empty());
    let events = tokio::spawn(async move {
        while stream.next().await.is_some() {}
        Instant::now()
    });

    let refusal = client.refusal().await?;
    ensure!(refusal.reason == "token-expired", "{refusal:?}");
    ensure!(refusal.close_code == Some(4401), "{refusal:?}");
    // The token has whole seconds.
    let ended = started.elapsed();
    ensure!(ended > Duration::from_millis(2_900), "{ended:?}");
    ensure!(ended < Duration::from_secs(8), "{ended:?}");
    ensure!(refusal.message.is_none(), "{refusal:?}");
    let refusals = world
        .rest("root")?
        .get("/v1/refusals")
        .await?
        .good()?
        .json()?;
    ensure!(refusals["refusals"] == json!([]), "{refusals}");
    let events_ended = tokio::time::timeout(Duration::from_secs(5), events).await??;
    ensure!(events_ended.duration_since(started) > Duration::from_millis(2_900));
    ensure!(refused(&bo.get(&url).await?)? == "token-expired");
    ensure!(upgrade(&socket, &[]).await?.status() == 401);
    ensure!(ann.get(&url).await?.status == StatusCode::OK);
    Ok(())
}

/// Nobody has to say who they are, so what they say of it is not looked at.
#[tokio::test]
async fn where_nobody_has_to_tokens_are_not_looked_at() -> Result<()> {
    let server = ServerProcess::start()?;
    let rest = Rest::new(server.address());
    let get = |url: &str| rest.request(Method::GET, url);
    for request in [
        get("/v1/documents").bearer_auth("not.a.token"),
        get("/v1/documents").bearer_auth("a").bearer_auth("b"),
        get("/v1/documents").basic_auth("a proxy's", Some("own")),
        get("/v1/documents?token=x"),
    ] {
        ensure!(send(request).await?.status == StatusCode::OK);
    }
    let url = format!("{}?token=x", server.websocket_url());
    ensure!(upgrade(&url, &[]).await?.status() == 101);
    Ok(())
}
