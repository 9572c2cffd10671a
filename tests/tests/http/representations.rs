//! One document as JSON and as its own bytes, now and at any version: each has a tag of its own, and the tag is still
//! the version.

use anyhow::Result;
use automerge::Automerge;
use concord_shared::json::{Types, to_json};
use reqwest::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, IF_MATCH, IF_NONE_MATCH, VARY};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::requests::{problem, run};
use super::rest::{Answer, Rest, send};

const AUTOMERGE: &str = "application/vnd.automerge";

async fn get_as(rest: &Rest, url: &str, accept: &str) -> Result<Answer> {
    send(rest.request(Method::GET, url).header(ACCEPT, accept)).await
}

fn value_of(bytes: &[u8]) -> Result<Value> {
    Ok(to_json(
        &Automerge::load(bytes)?.hydrate(None),
        Types::Plain,
    ))
}

#[test]
fn each_representation_has_its_own_tag_and_all_tags_are_the_version() {
    run(async |rest| {
        let url = rest
            .post("/v1/documents", &json!({ "n": 1 }))
            .await?
            .location
            .unwrap();
        let plain = rest.get(&url).await?;
        let bytes = get_as(&rest, &url, AUTOMERGE).await?;
        assert_eq!(
            (&*plain.content_type, &*bytes.content_type),
            ("application/json", AUTOMERGE)
        );
        assert_ne!(plain.etag()?, bytes.etag()?);
        for answer in [&plain, &bytes] {
            assert!(
                answer.header(VARY.as_str()).contains("accept"),
                "{answer:?}"
            );
            assert_eq!(answer.header(CACHE_CONTROL.as_str()), "private, no-cache");
        }
        // Each is fresh by its own tag, and by no other's.
        for (accept, own, other) in [("*/*", &plain, &bytes), (AUTOMERGE, &bytes, &plain)] {
            let ask = |etag: &str| {
                let request = rest.request(Method::GET, &url).header(ACCEPT, accept);
                send(request.header(IF_NONE_MATCH, etag))
            };
            let fresh = ask(own.etag()?).await?;
            assert_eq!(
                (fresh.status, &fresh.etag),
                (StatusCode::NOT_MODIFIED, &own.etag)
            );
            let fresh = ask(&format!("\"x\", W/{}", own.etag()?)).await?;
            assert_eq!(
                (fresh.status, &fresh.etag),
                (StatusCode::NOT_MODIFIED, &own.etag)
            );
            assert_eq!(ask("*").await?.etag, own.etag);
            let sent = ask(other.etag()?).await?;
            assert_eq!((sent.status, &sent.body), (StatusCode::OK, &own.body));
            // What a HEAD says is what the GET says.
            let head = rest.request(Method::HEAD, &url).header(ACCEPT, accept);
            let head = send(head).await?;
            assert_eq!(
                (head.status, &head.etag, head.body.len()),
                (StatusCode::OK, &own.etag, 0)
            );
            assert_eq!(head.content_type, own.content_type);
            assert_eq!(
                head.header(CONTENT_LENGTH.as_str()),
                own.body.len().to_string()
            );
        }
        // A write may name either, and so may a reader of old versions; so may one whose proxy adds a suffix.
        rest.put(&format!("{url}/value/n"), &json!(2))
            .await?
            .good()?;
        for etag in [
            plain.etag()?,
            bytes.etag()?,
            &bytes.etag()?.replace("-automerge", "--gzip"),
        ] {
            let version = etag.trim_matches('"');
            let then = rest.get(&format!("{url}/value/n?at={version}")).await?;
            assert_eq!(then.json()?, json!(1));
            let seen = rest.request(Method::PUT, &url).header(IF_MATCH, etag);
            let put = send(seen.json(&json!({ "n": 1, "m": 1 }))).await?;
            assert_eq!(put.json()?, json!({ "n": 2, "m": 1 }));
        }
        Ok(())
    });
}

#[test]
fn the_bytes_of_an_old_version_are_its_history_and_no_more() {
    run(async |rest| {
        let url = rest
            .post("/v1/documents", &json!({ "n": 1 }))
            .await?
            .location
            .unwrap();
        let first = rest.get(&url).await?;
        let version = first.etag()?.trim_matches('"').to_owned();
        rest.put(&format!("{url}/value/n"), &json!(2))
            .await?
            .good()?;
        let then = get_as(&rest, &format!("{url}?at={version}"), AUTOMERGE).await?;
        assert_eq!(value_of(&then.body)?, json!({ "n": 1 }));
        let loaded = Automerge::load(&then.body)?;
        assert_eq!(loaded.get_heads()[0].to_string(), version);
        assert_eq!(then.etag()?, format!("\"{version}-automerge\""));
        let immutable = "private, max-age=31536000, immutable";
        assert_eq!(then.header(CACHE_CONTROL.as_str()), immutable);
        let json = rest.get(&format!("{url}?at={version}")).await?;
        assert_eq!(json.header(CACHE_CONTROL.as_str()), immutable);
        let now = get_as(&rest, &url, AUTOMERGE).await?;
        assert_eq!(value_of(&now.body)?, json!({ "n": 2 }));
        let never = get_as(&rest, &format!("{url}?at={}", "ab".repeat(32)), AUTOMERGE).await?;
        assert_eq!(problem(&never)?, (404, "no-version".into()));
        assert_eq!(never.header(CACHE_CONTROL.as_str()), "no-store");
        Ok(())
    });
}

#[test]
fn what_is_accepted_is_weighed() {
    run(async |rest| {
        let url = rest
            .post("/v1/documents", &json!({}))
            .await?
            .location
            .unwrap();
        for (accept, kind) in [
            (
                "application/json;q=0.5, application/vnd.automerge;q=0.9",
                AUTOMERGE,
            ),
            (
                "application/vnd.automerge;q=0.1, */*;q=0.2",
                "application/json",
            ),
            ("application/vnd.automerge;q=0, */*", "application/json"),
            (
                "text/html, application/xhtml+xml, */*;q=0.8",
                "application/json",
            ),
        ] {
            assert_eq!(
                get_as(&rest, &url, accept).await?.content_type,
                kind,
                "{accept}"
            );
        }
        for (path, accept) in [
            (url.clone(), "text/html"),
            (url.clone(), "application/json;q=0"),
            (format!("{url}/value"), AUTOMERGE),
            ("/v1/documents".to_owned(), "text/*"),
        ] {
            let answer = get_as(&rest, &path, accept).await?;
            assert_eq!(
                problem(&answer)?,
                (406, "not-acceptable".into()),
                "{path} {accept}"
            );
        }
        Ok(())
    });
}
