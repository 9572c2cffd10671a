//! Each status, header and problem that is documented.

use anyhow::Result;
use concord_tests::server_process::ServerProcess;
use reqwest::header::{ACCEPT, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::rest::{Answer, Rest, send};

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";

pub(crate) fn run<F: Future<Output = Result<()>>>(test: impl FnOnce(Rest) -> F) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    runtime.block_on(test(Rest::new(server.address()))).unwrap();
}

/// The status and code of a problem document, which must be whole.
pub(crate) fn problem(answer: &Answer) -> Result<(u16, String)> {
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(
        answer.content_type, "application/problem+json",
        "{} {text:.200}",
        answer.status
    );
    let problem = answer.json()?;
    let code = problem["code"].as_str().unwrap().to_owned();
    assert_eq!(problem["type"], format!("urn:concord:problem:{code}"));
    assert_eq!(problem["status"], answer.status.as_u16());
    assert!(problem["title"].is_string(), "{problem}");
    Ok((answer.status.as_u16(), code))
}

#[test]
fn a_document_is_made_read_listed_and_exported() {
    run(async |rest| {
        let value = json!({ "b": [1, { "c": null }], "a": "text" });
        let made = rest.post("/v1/documents", &value).await?;
        assert_eq!(made.status, StatusCode::CREATED);
        assert_eq!(made.json()?, value);
        let url = made.location.clone().unwrap();
        let read = rest.get(&url).await?;
        assert_eq!((read.status, &read.etag), (StatusCode::OK, &made.etag));
        assert_eq!(read.body, br#"{"a":"text","b":[1,{"c":null}]}"#);
        // With an id of one's own, twice, it is one document.
        let own = "/v1/documents/board%202026";
        let first = rest.put(own, &value).await?;
        assert_eq!(first.status, StatusCode::CREATED);
        assert_eq!(first.location.as_deref(), Some(own));
        let again = rest.put(own, &value).await?;
        assert_eq!((again.status, &again.etag), (StatusCode::OK, &first.etag));
        for id in ["c", "d"] {
            rest.put(&format!("/v1/documents/{id}"), &json!({}))
                .await?
                .good()?;
        }
        let mut listed = Vec::new();
        let mut page = rest.get("/v1/documents?limit=3").await?.json()?;
        assert_eq!(page["documents"].as_array().unwrap().len(), 3);
        while let Some(documents) = page["documents"].as_array() {
            listed.extend(
                documents
                    .iter()
                    .map(|d| d["id"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next"].as_str() else {
                break;
            };
            let next = next.replace(' ', "%20");
            page = rest
                .get(&format!("/v1/documents?limit=3&after={next}"))
                .await?
                .json()?;
        }
        listed.sort_unstable();
        let mut all = vec![url.rsplit('/').next().unwrap(), "board 2026", "c", "d"];
        all.sort_unstable();
        assert_eq!(listed, all);
        let bytes = send(
            rest.request(Method::GET, &url)
                .header(ACCEPT, "application/vnd.automerge"),
        )
        .await?;
        assert_eq!(bytes.content_type, "application/vnd.automerge");
        let document = automerge::Automerge::load(&bytes.body)?;
        let hydrated = document.hydrate(None);
        assert_eq!(
            concord_shared::json::to_json(&hydrated, concord_shared::json::Types::Plain),
            value
        );
        Ok(())
    });
}

#[test]
fn every_place_in_a_document_has_an_address() {
    run(async |rest| {
        let value = json!({ "a/b": { "~": [10, { "": "empty" }] }, "é %": 1, "": 2 });
        let url = rest.post("/v1/documents", &value).await?.location.unwrap();
        let at = async |path: &str| rest.get(&format!("{url}/value{path}")).await?.json();
        assert_eq!(at("").await?, value);
        assert_eq!(at("/a~1b/~0/0").await?, json!(10));
        assert_eq!(at("/a~1b/~0/1/").await?, json!("empty"));
        assert_eq!(at("/%C3%A9%20%25").await?, json!(1));
        assert_eq!(at("/").await?, json!(2));
        for (path, expected) in [
            ("/nope", "no-value"),
            ("/a~1b/~0/2", "no-value"),
            ("/a~1b/~0/-", "no-value"),
            ("/a~1b/~0/00", "no-value"),
            ("/a~1b/~0/0/x", "no-value"),
            ("/a~2", "bad-path"),
            ("/%FF", "bad-path"),
        ] {
            assert_eq!(at(path).await?["code"], expected, "{path}");
        }
        Ok(())
    });
}

#[test]
fn values_are_written_added_to_and_removed() {
    run(async |rest| {
        let url = rest
            .post("/v1/documents", &json!({ "list": [1] }))
            .await?
            .location
            .unwrap();
        let value = format!("{url}/value");
        let written = rest
            .put(&format!("{value}/new"), &json!({ "x": 1 }))
            .await?;
        assert_eq!(
            (written.status, written.json()?),
            (StatusCode::CREATED, json!({ "x": 1 }))
        );
        let added = rest.post(&format!("{value}/list"), &json!("two")).await?;
        assert_eq!(added.status, StatusCode::CREATED);
        assert_eq!(added.location.as_deref(), Some(&*format!("{value}/list/1")));
        let added = rest
            .post(&format!("{value}/new"), &json!({ "name": "meeting" }))
            .await?;
        let location = added.location.unwrap();
        assert_eq!(
            rest.get(&location).await?.json()?,
            json!({ "name": "meeting" })
        );
        assert_eq!(rest.delete(&location).await?.status, StatusCode::NO_CONTENT);
        assert_eq!(
            problem(&rest.delete(&location).await?)?,
            (404, "no-value".into())
        );
        let merged = rest
            .patch(
                &value,
                MERGE_PATCH,
                &json!({ "new": { "x": null, "y": 2 } }),
            )
            .await?;
        assert_eq!(
            merged.json()?,
            json!({ "list": [1, "two"], "new": { "y": 2 } })
        );
        let patch =
            json!([{ "op": "add", "path": "/0", "value": 0 }, { "op": "remove", "path": "/2" }]);
        let patched = rest
            .patch(&format!("{value}/list"), JSON_PATCH, &patch)
            .await?;
        assert_eq!(patched.json()?, json!([0, 1]));
        // Who has no use for the answer need not be sent it.
        let request = rest
            .request(Method::PUT, &format!("{value}/list"))
            .header("Prefer", "return=minimal");
        let minimal = send(request.json(&json!([]))).await?;
        assert_eq!(
            (minimal.status, minimal.body.len()),
            (StatusCode::NO_CONTENT, 0)
        );
        assert_eq!(minimal.etag, rest.get(&url).await?.etag);
        Ok(())
    });
}

/// RFC 9110, sections 13.1.1 and 13.1.2; and 8.7: which address the answer's value is of.
#[test]
fn conditions_hold_at_places_too() {
    run(async |rest| {
        let url = "/v1/documents/conditions";
        let made = rest.put(url, &json!({ "a": { "kept": 1 } })).await?;
        assert_eq!(made.header("content-location"), url);
        let at = |path: &str| format!("{url}/value/{path}");
        let ask = async |method: Method, path: &str, (name, value): (&'static str, &str)| {
            let request = rest.request(method, &at(path)).header(name, value);
            send(request.json(&json!({ "new": 1 }))).await
        };
        let exists = (412, "exists".to_owned());
        let nothing = (412, "unknown-heads".to_owned());
        for method in [Method::PUT, Method::PATCH, Method::POST, Method::DELETE] {
            let refused = ask(method.clone(), "a", ("if-none-match", "*")).await?;
            assert_eq!(problem(&refused)?, exists, "{method}");
            let refused = ask(method.clone(), "a", ("if-none-match", made.etag()?)).await?;
            assert_eq!(problem(&refused)?, exists, "{method}");
            let refused = ask(method.clone(), "b", ("if-match", "*")).await?;
            assert_eq!(problem(&refused)?, nothing, "{method}");
        }
        assert_eq!(rest.get(url).await?.json()?, json!({ "a": { "kept": 1 } }));
        let put = ask(Method::PUT, "b", ("if-none-match", "*"))
            .await?
            .good()?;
        assert_eq!(put.status, StatusCode::CREATED);
        assert_eq!(put.header("content-location"), at("b"));
        let put = ask(Method::PUT, "a", ("if-match", "*")).await?;
        assert_eq!(put.status, StatusCode::OK);
        let now = json!({ "a": { "new": 1 }, "b": { "new": 1 } });
        assert_eq!(rest.get(url).await?.json()?, now);
        let refused = rest
            .request(Method::PUT, url)
            .header("if-none-match", "*")
            .json(&json!({}));
        assert_eq!(problem(&send(refused).await?)?, exists);
        Ok(())
    });
}

/// What it takes to write at an old version is not more for what has come since, nor for what is removed. Each of these
/// took minutes, or was refused after the fifth.
#[test]
fn much_may_have_come_since_an_old_version_and_much_may_go() {
    run(async |rest| {
        let url = "/v1/documents/large";
        let at = |path: &str| format!("{url}/value/{path}");
        let full = json!({ "list": vec![1; 50_000], "text": "word ".repeat(20_000), "n": 0 });
        let old = rest.put(url, &full).await?;
        let old = old.etag()?;
        rest.put(&at("since"), &json!("x".repeat(900_000)))
            .await?
            .good()?;
        for n in 0..6 {
            let put = rest.put_seen(&at("n"), old, &json!(n)).await?;
            assert_eq!(put.status, StatusCode::OK);
        }
        for (path, json) in [("list", json!([])), ("text", json!(""))] {
            let put = rest.put_seen(&at(path), old, &json).await?.good()?;
            assert_eq!(put.json()?, json);
        }
        for (kind, patch) in [
            (
                "application/merge-patch+json",
                json!({ "list": [2], "text": "" }),
            ),
            (
                "application/json-patch+json",
                json!([{ "op": "copy", "from": "/text", "path": "/list" }]),
            ),
        ] {
            let request = rest
                .request(Method::PATCH, &format!("{url}/value"))
                .header(IF_MATCH, old)
                .header("content-type", kind)
                .body(patch.to_string());
            send(request).await?.good()?;
        }
        Ok(())
    });
}

#[test]
fn an_old_version_is_no_conflict_and_an_unknown_one_is() {
    run(async |rest| {
        let url = rest
            .post("/v1/documents", &json!({ "a": "1", "b": "1", "n": [] }))
            .await?
            .location
            .unwrap();
        let seen = rest.get(&url).await?;
        let old = seen.etag()?.to_owned();
        rest.put(&format!("{url}/value/a"), &json!("2"))
            .await?
            .good()?;
        // The list as it was, with one more: what came meanwhile stays before or behind it.
        rest.post(&format!("{url}/value/n"), &json!("now"))
            .await?
            .good()?;
        let put = rest
            .put_seen(&url, &old, &json!({ "a": "1", "b": "2", "n": ["then"] }))
            .await?;
        let mut now = put.json()?;
        now["n"]
            .as_array_mut()
            .unwrap()
            .sort_by_key(ToString::to_string);
        assert_eq!(now, json!({ "a": "2", "b": "2", "n": ["now", "then"] }));
        // What was removed since can be written by who has not seen that, and is nowhere.
        rest.delete(&format!("{url}/value/b")).await?.good()?;
        let request = rest
            .request(Method::DELETE, &format!("{url}/value/b"))
            .header(IF_MATCH, &old);
        let gone = send(request).await?;
        assert_eq!(gone.status, StatusCode::NO_CONTENT);
        // Whoever put the old object without it, as of now, would undo what others wrote.
        assert_eq!(gone.etag, None);
        let newest = rest.get(&url).await?;
        let request = rest
            .request(Method::DELETE, &format!("{url}/value/n/0"))
            .header(IF_MATCH, newest.etag()?);
        let gone = send(request).await?;
        assert_eq!(gone.etag, rest.get(&url).await?.etag);
        let unknown = format!("\"{}\"", "ab".repeat(32));
        let refused = rest.put_seen(&url, &unknown, &json!({})).await?;
        assert_eq!(problem(&refused)?, (412, "unknown-heads".into()));
        let refused = rest.put_seen(&url, "\"x\"", &json!({})).await?;
        assert_eq!(problem(&refused)?, (412, "unknown-heads".into()));
        let refused = rest
            .put_seen("/v1/documents/none", &old, &json!({}))
            .await?;
        assert_eq!(problem(&refused)?, (412, "unknown-heads".into()));
        let refused = rest.put_seen(&url, "old", &json!({})).await?;
        assert_eq!(problem(&refused)?, (400, "bad-header".into()));
        // Any past version can be read, by its tag.
        let version = old.trim_matches('"');
        let then = rest.get(&format!("{url}/value/a?at={version}")).await?;
        assert_eq!((then.json()?, then.etag()?), (json!("1"), &*old));
        let never = rest.get(&format!("{url}?at={}", "ab".repeat(32))).await?;
        assert_eq!(problem(&never)?, (404, "no-version".into()));
        // And who has the newest need not be sent it.
        let newest = rest.get(&url).await?;
        let request = rest
            .request(Method::GET, &url)
            .header(IF_NONE_MATCH, newest.etag()?);
        let unchanged = send(request).await?;
        assert_eq!(
            (unchanged.status, unchanged.etag),
            (StatusCode::NOT_MODIFIED, newest.etag)
        );
        let request = rest.request(Method::GET, &url).header(IF_NONE_MATCH, &old);
        assert_eq!(send(request).await?.status, StatusCode::OK);
        Ok(())
    });
}

#[test]
fn what_is_made_once_is_not_made_twice() {
    run(async |rest| {
        let make = async |json: Value| {
            let request = rest
                .request(Method::PUT, "/v1/documents/once")
                .header(IF_NONE_MATCH, "*");
            send(request.json(&json)).await
        };
        let first = make(json!({ "a": 1 })).await?;
        assert_eq!(first.status, StatusCode::CREATED);
        let same = make(json!({ "a": 1.0 })).await?;
        assert_eq!(
            (same.status, same.etag),
            (StatusCode::OK, first.etag.clone())
        );
        assert_eq!(
            problem(&make(json!({ "a": 2 })).await?)?,
            (412, "exists".into())
        );
        assert_eq!(rest.get("/v1/documents/once").await?.etag, first.etag);
        Ok(())
    });
}

#[test]
fn types_that_json_lacks_are_made_and_kept() {
    run(async |rest| {
        let tagged = json!({
            "n": { "$counter": 1 },
            "at": { "$timestamp": "2026-11-22T10:00:00.000Z" },
            "raw": { "$bytes": "AAEC" },
            "state": { "$string": "open" },
            "text": "as it is",
        });
        let url = rest
            .post("/v1/documents?types=tagged", &tagged)
            .await?
            .location
            .unwrap();
        let plain = rest.get(&url).await?;
        let value = json!({ "n": 1, "at": "2026-11-22T10:00:00.000Z", "raw": "AAEC", "state": "open", "text": "as it is" });
        assert_eq!(plain.json()?, value);
        let again = rest.put(&url, &value).await?;
        assert_eq!(
            again.etag, plain.etag,
            "what was read and is written back is no edit"
        );
        rest.put(&format!("{url}/value/n"), &json!(5))
            .await?
            .good()?;
        let now = rest.get(&format!("{url}?types=tagged")).await?.json()?;
        assert_eq!(now["n"], json!({ "$counter": 5 }));
        assert_eq!(now["raw"], tagged["raw"]);
        Ok(())
    });
}

/// A request, and the status and code of the answer.
type Case<'a> = (Method, String, &'a str, Vec<u8>, u16, &'a str);

#[test]
fn what_is_wrong_is_named_and_changes_nothing() {
    run(async |rest| {
        let url = rest
            .post("/v1/documents", &json!({ "a": [1], "t": "text" }))
            .await?
            .location
            .unwrap();
        let before = rest.get(&url).await?;
        let value = format!("{url}/value");
        let body = async |method: Method, path: &str, kind: &str, body: Vec<u8>| {
            let request = rest
                .request(method, path)
                .header(CONTENT_TYPE, kind)
                .body(body);
            problem(&send(request).await?)
        };
        let json = "application/json";
        let deep = |levels: usize| [vec![b'['; levels], vec![b']'; levels]].concat();
        let half = json!([{ "op": "replace", "path": "/a/0", "value": 2 }, { "op": "test", "path": "/t", "value": 1 }]);
        let cases: Vec<Case<'_>> = vec![
            (
                Method::PUT,
                value.clone(),
                json,
                b"{".to_vec(),
                400,
                "bad-json",
            ),
            (
                Method::PUT,
                value.clone(),
                json,
                b"{} x".to_vec(),
                400,
                "bad-json",
            ),
            (
                Method::PUT,
                value.clone(),
                json,
                b"".to_vec(),
                400,
                "bad-json",
            ),
            (
                Method::PUT,
                value.clone(),
                json,
                b"{\"a\":\"\xff\"}".to_vec(),
                400,
                "bad-json",
            ),
            (
                Method::PUT,
                value.clone(),
                json,
                b"{\"a\":1e999}".to_vec(),
                400,
                "bad-json",
            ),
            (
                Method::PUT,
                value.clone(),
                json,
                b"[]".to_vec(),
                422,
                "not-an-object",
            ),
            (
                Method::PUT,
                url.clone(),
                json,
                b"7".to_vec(),
                422,
                "not-an-object",
            ),
            (
                Method::POST,
                "/v1/documents".into(),
                json,
                b"null".to_vec(),
                422,
                "not-an-object",
            ),
            (
                Method::PUT,
                value.clone(),
                "text/plain",
                b"{}".to_vec(),
                415,
                "unsupported-media-type",
            ),
            (
                Method::PUT,
                value.clone(),
                JSON_PATCH,
                b"[]".to_vec(),
                415,
                "unsupported-media-type",
            ),
            (
                Method::POST,
                value.clone(),
                MERGE_PATCH,
                b"{}".to_vec(),
                415,
                "unsupported-media-type",
            ),
            (
                Method::PATCH,
                value.clone(),
                JSON_PATCH,
                b"{}".to_vec(),
                400,
                "bad-patch",
            ),
            (
                Method::PATCH,
                value.clone(),
                JSON_PATCH,
                br#"[{"op":"burn","path":""}]"#.to_vec(),
                400,
                "bad-patch",
            ),
            (
                Method::PATCH,
                value.clone(),
                JSON_PATCH,
                half.to_string().into_bytes(),
                409,
                "test-failed",
            ),
            (
                Method::PATCH,
                value.clone(),
                JSON_PATCH,
                br#"[{"op":"add","path":"/x","value":1},{"op":"remove","path":"/y"}]"#.to_vec(),
                409,
                "patch-failed",
            ),
            (
                Method::PUT,
                format!("{value}/a/1"),
                json,
                b"2".to_vec(),
                404,
                "no-value",
            ),
            (
                Method::PUT,
                format!("{value}/t/0"),
                json,
                b"2".to_vec(),
                404,
                "no-value",
            ),
            (
                Method::PUT,
                format!("{value}/b/c"),
                json,
                b"2".to_vec(),
                404,
                "no-value",
            ),
            (
                Method::POST,
                format!("{value}/t"),
                json,
                b"2".to_vec(),
                409,
                "not-a-container",
            ),
            (Method::DELETE, value.clone(), json, Vec::new(), 409, "root"),
            (
                Method::PUT,
                format!("{value}/a"),
                json,
                deep(250),
                422,
                "too-deep",
            ),
            (
                Method::PUT,
                format!("{value}/a"),
                json,
                deep(1_000_000),
                422,
                "too-deep",
            ),
            (
                Method::PUT,
                format!("{value}/a"),
                json,
                [b"[".to_vec(), b"1,".repeat(250_000), b"1]".to_vec()].concat(),
                422,
                "too-many-values",
            ),
            (
                Method::PUT,
                format!("{value}/a"),
                json,
                vec![b' '; 9 << 20],
                413,
                "body-too-large",
            ),
            (
                Method::PUT,
                format!("{value}/a"),
                json,
                br#"{"__proto__":1}"#.to_vec(),
                422,
                "bad-op",
            ),
            (
                Method::PUT,
                format!("{url}/value?types=all"),
                json,
                b"{}".to_vec(),
                400,
                "bad-query",
            ),
            (
                Method::PUT,
                format!("{url}/value?typos=1"),
                json,
                b"{}".to_vec(),
                400,
                "bad-query",
            ),
            (
                Method::GET,
                format!("{url}?at=1"),
                json,
                Vec::new(),
                400,
                "bad-query",
            ),
            (
                Method::GET,
                "/v1/documents?limit=x".into(),
                json,
                Vec::new(),
                400,
                "bad-query",
            ),
            (
                Method::GET,
                format!("/v1/documents/{}", "x".repeat(100)),
                json,
                Vec::new(),
                400,
                "bad-id",
            ),
            (
                Method::GET,
                "/v1/documents/none".into(),
                json,
                Vec::new(),
                404,
                "no-document",
            ),
            (
                Method::PATCH,
                "/v1/documents/none/value".into(),
                MERGE_PATCH,
                b"{}".to_vec(),
                404,
                "no-document",
            ),
            (
                Method::GET,
                "/v1/nothing".into(),
                json,
                Vec::new(),
                404,
                "no-route",
            ),
            (
                Method::POST,
                url.clone(),
                json,
                b"{}".to_vec(),
                405,
                "method-not-allowed",
            ),
        ];
        for (method, path, kind, bytes, status, code) in cases {
            let what = format!(
                "{method} {path} {:?}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(40)])
            );
            let answer = body(method, &path, kind, bytes).await?;
            assert_eq!(answer, (status, code.to_owned()), "{what}");
        }
        let after = rest.get(&url).await?;
        assert_eq!((after.etag, after.body), (before.etag, before.body));
        // As deep as may be.
        rest.put(&format!("{value}/a"), &serde_json::from_slice(&deep(120))?)
            .await?
            .good()?;
        let deepest = rest
            .request(Method::PUT, &format!("{value}/a"))
            .header(CONTENT_TYPE, json)
            .body(deep(249));
        send(deepest).await?.good()?;
        assert_eq!(rest.get(&format!("{value}/a")).await?.body, deep(249));
        Ok(())
    });
}
