//! Every answer that a browser could show tells it not to guess, not to tell, and not to be framed; what a token opened is
//! in no cache that others use; and an application's files are left to do what they do.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use concord_tests::server_process::ServerProcess;
use reqwest::Method;
use reqwest::header::HOST;
use serde_json::json;

use super::authentication::World;
use super::rest::{Answer, Rest, send};

const POLICY: &str = "content-security-policy";

/// Of all that is the server's own.
fn is_shut(answer: &Answer) -> Result<()> {
    for (name, expected) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("strict-transport-security", ""),
    ] {
        let found = answer.header(name);
        ensure!(found == expected, "{name}: {found:?}");
    }
    let policy = answer.header(POLICY);
    for directive in [
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        ensure!(policy.contains(directive), "{policy}");
    }
    Ok(())
}

#[tokio::test]
async fn every_answer_of_the_server_shuts_what_it_does_not_need() -> Result<()> {
    let site = tempfile::tempdir()?;
    fs::write(site.path().join("index.html"), "<p>an application")?;
    fs::write(site.path().join("app.js"), "1")?;
    let site_path = site.path().to_str().context("a path")?;
    let with_app = ServerProcess::start_with(&["--app", site_path])?;
    let without = ServerProcess::start()?;
    let rest = Rest::new(with_app.address());
    let made = rest.post("/v1/documents", &json!({ "a": "<b>" })).await?;
    let url = made.location.clone().context("a place")?;
    is_shut(&made)?;
    let version = made.etag()?.trim_matches('"').to_owned();
    let (document, private) = ("private, no-cache", "no-store");
    for (method, path, status, caching) in [
        (Method::GET, "/healthz", 200, private),
        (Method::GET, "/readyz", 200, private),
        (Method::GET, "/metrics", 200, private),
        (Method::GET, "/sync", 400, private),
        (Method::POST, "/healthz", 405, private),
        (Method::GET, "/inspect", 308, private),
        (Method::GET, "/inspect/", 200, "no-cache"),
        (Method::GET, "/inspect/main.js", 200, "no-cache"),
        (Method::GET, "/inspect/none.js", 404, private),
        (Method::GET, "/v1/docs", 200, "public, no-cache"),
        (Method::GET, "/v1/openapi.json", 200, "public, no-cache"),
        (Method::GET, "/v1", 404, private),
        (Method::GET, "/v1/nowhere", 404, private),
        (Method::GET, "/v1/documents", 200, document),
        (Method::PUT, "/v1/documents", 405, private),
        (Method::GET, "/v1/documents/none", 404, private),
        (Method::GET, &*url, 200, document),
        (Method::HEAD, &*url, 200, document),
        (Method::OPTIONS, &*url, 204, document),
        (Method::GET, &*format!("{url}/value/a"), 200, document),
        (
            Method::GET,
            &*format!("{url}?at={version}"),
            200,
            "private, max-age=31536000, immutable",
        ),
        (Method::GET, &*format!("{url}/events"), 200, private),
        (Method::GET, &*format!("{url}/changes"), 200, document),
        (Method::GET, "/v1/refusals", 200, document),
    ] {
        let told = || format!("{method} {path}");
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let address = format!("http://{}{path}", with_app.address());
        let response = client.build()?.request(method.clone(), address).send();
        let response = response.await?;
        let answer = Answer {
            status: response.status(),
            etag: None,
            location: None,
            content_type: String::new(),
            headers: response.headers().clone(),
            // One of them has no end.
            body: Vec::new(),
        };
        ensure!(answer.status == status, "{}: {}", told(), answer.status);
        is_shut(&answer).with_context(told)?;
        let found = answer.header("cache-control");
        ensure!(found == caching, "{}: {found}", told());
    }
    let answer = Rest::new(without.address()).get("/none").await?;
    ensure!(answer.status == 404);
    is_shut(&answer)?;

    // Only of pages of other sites is an application kept apart.
    for (path, status) in [("/", 200), ("/app.js", 200), ("/none", 404)] {
        let answer = rest.get(path).await?;
        ensure!(answer.status == status, "{path}");
        for (name, expected) in [
            (POLICY, "frame-ancestors 'self'"),
            ("x-frame-options", "SAMEORIGIN"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "strict-origin-when-cross-origin"),
            ("cross-origin-opener-policy", ""),
            ("cross-origin-resource-policy", ""),
            ("cache-control", "no-cache"),
        ] {
            let found = answer.header(name);
            ensure!(found == expected, "{path}: {name}: {found:?}");
        }
    }
    Ok(())
}

/// What is kept of an answer is kept for the token that it was given to, and in no cache between here and there.
#[tokio::test]
async fn what_a_token_opened_is_kept_for_that_token_alone() -> Result<()> {
    let world = World::start(&["--auth-cookie", "session"])?;
    let rest = world.rest("ann")?;
    let made = rest
        .post("/v1/documents", &json!({ "a": 1 }))
        .await?
        .good()?;
    let url = made.location.clone().context("a place")?;
    let version = made.etag()?.trim_matches('"').to_owned();
    let token = world.token("ann", 3600)?;
    let nobody = Rest::new(world.server.address());
    for request in [
        rest.request(Method::GET, &url),
        rest.request(Method::GET, &format!("{url}?at={version}")),
        rest.request(Method::GET, "/v1/documents"),
        nobody.request(Method::GET, &format!("{url}?at={version}&token={token}")),
        nobody
            .request(Method::GET, &format!("{url}?at={version}"))
            .header("cookie", format!("session={token}")),
    ] {
        let answer = send(request).await?.good()?;
        let caching = answer.header("cache-control");
        ensure!(caching.starts_with("private, "), "{caching}");
        let varies = answer.header("vary");
        for name in ["authorization", "cookie"] {
            ensure!(varies.contains(name), "{varies}");
        }
        is_shut(&answer)?;
    }
    for path in [&*url, "/sync", "/v1/documents?token=x"] {
        let answer = nobody.get(path).await?;
        ensure!(answer.status == 401, "{path}: {}", answer.status);
        ensure!(answer.header("cache-control") == "no-store", "{path}");
        is_shut(&answer).with_context(|| path.to_owned())?;
    }
    Ok(())
}

/// Whoever let a name point here is told no more than anybody.
#[tokio::test]
async fn an_unknown_host_is_told_no_more() -> Result<()> {
    let server = ServerProcess::start()?;
    let rest = Rest::new(server.address());
    let request = rest.request(Method::GET, "/v1/documents");
    let answer = send(request.header(HOST, "rebound.example")).await?;
    ensure!(answer.status == 421, "{}", answer.status);
    is_shut(&answer)
}
