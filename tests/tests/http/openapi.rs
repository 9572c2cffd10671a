//! `/v1/openapi.json` says what the server does, no more and no less; and is shown as a page.
//!
//! That answers are as described is held by `tests/openapi.rs`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::requests::{problem, run};
use super::rest::{Answer, Rest, send};

const DOCUMENT: &str = "/v1/openapi.json";
const PAGE: &str = "/v1/docs";

const METHODS: [Method; 5] = [
    Method::GET,
    Method::PUT,
    Method::POST,
    Method::PATCH,
    Method::DELETE,
];

/// The operations at each path, by method.
async fn operations(rest: &Rest) -> Result<BTreeMap<String, BTreeMap<String, Value>>> {
    let document = rest.get(DOCUMENT).await?.good()?.json()?;
    Ok(serde_json::from_value(document["paths"].clone())?)
}

/// A document, and its paths with what is there in the place of their parameters.
struct World {
    id: String,
    hash: String,
}

impl World {
    async fn make(rest: &Rest) -> Result<Self> {
        let value = json!({ "a": { "b": 1 } });
        let made = rest.post("/v1/documents", &value).await?.good()?;
        let location = made.location.context("a location")?;
        let id = location.rsplit('/').next().context("an id")?.to_owned();
        let hash = made.etag.context("a tag")?.trim_matches('"').to_owned();
        Ok(Self { id, hash })
    }

    fn fill(&self, path: &str) -> Result<String> {
        let filled = path
            .replace("{id}", &self.id)
            .replace("{path}", "a/b")
            .replace("{hash}", &self.hash)
            .replace("{place}", "0");
        ensure!(!filled.contains('{'), "{path} has an unknown parameter");
        Ok(filled)
    }
}

/// Without waiting for the end of what has none.
async fn ask(rest: &Rest, method: &Method, path: &str) -> Result<Answer> {
    send(
        rest.request(method.clone(), path)
            .header("last-event-id", "x")
            .body("{}"),
    )
    .await
}

#[test]
fn every_operation_is_there_and_no_other() {
    run(async |rest| {
        let all = operations(&rest).await?;
        let events = "/v1/documents/{id}/events";
        ensure!(
            all.len() > 10 && all.contains_key(events),
            "{:?}",
            all.keys()
        );
        for (path, operations) in &all {
            let url = World::make(&rest).await?.fill(path)?;
            let described: BTreeSet<String> = operations.keys().cloned().collect();
            for method in METHODS {
                if described.contains(&method.as_str().to_lowercase()) {
                    // Turned away by its query, which every operation reads but those of the description itself.
                    let asked = ask(&rest, &method, &format!("{url}?nothing=1")).await?;
                    let expected = if [DOCUMENT, PAGE].contains(&&path[..]) {
                        200
                    } else {
                        400
                    };
                    assert_eq!(asked.status, expected, "{method} {path}");
                    continue;
                }
                let refused = ask(&rest, &method, &url).await?;
                let told = (405, "method-not-allowed".to_owned());
                assert_eq!(problem(&refused)?, told, "{method} {path}");
                let allowed = refused.header("allow").to_lowercase();
                let allowed: BTreeSet<String> = allowed
                    .split(',')
                    .map(|one| one.trim().to_owned())
                    .collect();
                let mut expected = described.clone();
                if expected.contains("get") {
                    expected.insert("head".to_owned());
                }
                assert_eq!(allowed, expected, "{path}");
            }
        }
        Ok(())
    });
}

#[test]
fn every_parameter_of_a_query_is_described_where_it_means_something() {
    run(async |rest| {
        let world = World::make(&rest).await?;
        let all = operations(&rest).await?;
        let all: Vec<(String, Method, BTreeSet<String>)> = all
            .iter()
            .filter(|(path, _)| path.starts_with("/v1/documents"))
            .flat_map(|(path, operations)| {
                operations.iter().map(move |(method, operation)| {
                    let parameters = operation["parameters"].as_array().into_iter().flatten();
                    let of_query = parameters.filter(|one| one["in"] == "query");
                    let names = of_query.filter_map(|one| one["name"].as_str());
                    let method = Method::from_bytes(method.to_uppercase().as_bytes());
                    (
                        path.clone(),
                        method.unwrap(),
                        names.map(str::to_owned).collect(),
                    )
                })
            })
            .collect();
        let names: BTreeSet<String> = all.iter().flat_map(|(.., names)| names.clone()).collect();
        for name in [
            "at", "after", "limit", "types", "since", "from", "to", "order",
        ] {
            assert!(names.contains(name), "{name}");
        }
        for (path, method, described) in &all {
            for name in &names {
                // What no parameter can be: an answer about it shows that it is read.
                let url = format!("{}?{name}=%00", world.fill(path)?);
                let asked = ask(&rest, method, &url).await?;
                let body = String::from_utf8_lossy(&asked.body).into_owned();
                let is_unknown = body.contains("means nothing here");
                assert_eq!(
                    is_unknown,
                    !described.contains(name),
                    "{method} {url}: {body}"
                );
                if is_unknown {
                    assert_eq!(
                        problem(&asked)?,
                        (400, "bad-query".into()),
                        "{method} {url}"
                    );
                }
            }
        }
        Ok(())
    });
}

/// All that is below.
fn each<'a>(value: &'a Value, look: &mut impl FnMut(&'a Value)) {
    look(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| each(item, look)),
        Value::Object(members) => members.values().for_each(|member| each(member, look)),
        _ => {}
    }
}

#[test]
fn the_document_holds_together() {
    run(async |rest| {
        let document = rest.get(DOCUMENT).await?.good()?.json()?;
        assert_eq!(document["openapi"], "3.1.0");
        let mut names = Vec::new();
        each(&document["paths"], &mut |value| {
            if let Some(name) = value.get("operationId") {
                names.push(name);
                for said in ["summary", "tags", "responses"] {
                    assert!(value.get(said).is_some(), "{name} has no {said}");
                }
            }
        });
        let count = names.len();
        names.sort_by_key(|name| name.as_str());
        names.dedup();
        assert_eq!(names.len(), count, "operations have names of their own");
        each(&document, &mut |value| {
            if let Some(Value::String(target)) = value.get("$ref") {
                let target = target.strip_prefix('#').unwrap();
                assert!(document.pointer(target).is_some(), "{target}");
            }
        });
        // What people read has each code that programs may be told.
        let codes = &document["components"]["schemas"]["ProblemCode"]["enum"];
        let codes = codes.as_array().context("codes")?;
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |name: &str| std::fs::read_to_string(root.join(name));
        let texts = [read("HTTP.md")?, read("PROTOCOL.md")?, read("ACCESS.md")?].concat();
        for code in codes {
            let code = format!("`{}`", code.as_str().unwrap());
            assert!(texts.contains(&code), "{code} is not explained");
        }
        Ok(())
    });
}

#[test]
fn document_and_page_are_kept_until_they_change() {
    run(async |rest| {
        for (path, kind) in [
            (DOCUMENT, "application/json"),
            (PAGE, "text/html; charset=utf-8"),
        ] {
            let shown = rest.get(path).await?.good()?;
            assert_eq!(shown.content_type, kind);
            assert_eq!(shown.header("cache-control"), "public, no-cache");
            let etag = shown.etag.context("a tag")?;
            let again = rest
                .request(Method::GET, path)
                .header("if-none-match", &etag);
            let again = send(again).await?;
            assert_eq!(again.status, StatusCode::NOT_MODIFIED);
            assert_eq!(again.etag.as_ref(), Some(&etag));
            let head = send(rest.request(Method::HEAD, path)).await?.good()?;
            assert_eq!((head.etag.as_ref(), head.body.len()), (Some(&etag), 0));
            let other = rest
                .request(Method::GET, path)
                .header("accept", "image/png");
            assert_eq!(
                problem(&send(other).await?)?,
                (406, "not-acceptable".into())
            );
        }
        Ok(())
    });
}

#[test]
fn the_page_shows_every_operation_and_runs_nothing() {
    run(async |rest| {
        let page = rest.get(PAGE).await?.good()?;
        let policy = page.header("content-security-policy").clone();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-"),
            "{policy}"
        );
        let html = String::from_utf8(page.body)?;
        for never in ["<script", "javascript:", " on", "src=", "url(", "@import"] {
            let tags = html.split('<').filter_map(|tag| tag.split('>').next());
            assert!(!tags.clone().any(|tag| tag.contains(never)), "{never}");
        }
        for operations in operations(&rest).await?.values() {
            for operation in operations.values() {
                let name = operation["operationId"].as_str().context("a name")?;
                assert!(html.contains(&format!("<section id=\"{name}\">")), "{name}");
            }
        }
        for code in ["idempotency-key-reused", "storage-failed", "seq-not-next"] {
            assert!(html.contains(&format!("<code>{code}</code>")), "{code}");
        }
        Ok(())
    });
}
