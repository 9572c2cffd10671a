//! A request that is sent again under its `Idempotency-Key` is carried out once: at the same time, later, and after the
//! server was killed.

use anyhow::Result;
use concord_tests::server_process::ServerProcess;
use reqwest::header::{CONTENT_TYPE, IF_MATCH};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::requests::{problem, run};
use super::rest::{Rest, send};

const KEY: &str = "idempotency-key";

fn keyed(rest: &Rest, key: &str, method: Method, path: &str, json: &Value) -> RequestBuilder {
    rest.request(method, path).header(KEY, key).json(json)
}

#[test]
fn what_is_added_at_an_old_version_is_found_where_it_is_now() {
    run(async |rest| {
        let value = json!({ "lists": [["a", "b"], ["c"]], "gone": [1] });
        let url = rest.post("/v1/documents", &value).await?.location.unwrap();
        let old = rest.get(&url).await?.etag()?.to_owned();
        // Meanwhile somebody puts something before the list, and empties and fills it.
        let patch = json!([
            { "op": "add", "path": "/lists/0", "value": ["new"] },
            { "op": "remove", "path": "/lists/1/0" },
            { "op": "add", "path": "/lists/1/0", "value": "x" },
            { "op": "add", "path": "/lists/1/0", "value": "y" },
            { "op": "add", "path": "/lists/1/0", "value": "z" },
            { "op": "remove", "path": "/gone" },
        ]);
        let kind = "application/json-patch+json";
        rest.patch(&format!("{url}/value"), kind, &patch)
            .await?
            .good()?;
        let add = async |path: &str, json: Value| {
            let request = rest.request(Method::POST, &format!("{url}/value{path}"));
            send(request.header(IF_MATCH, &old).json(&json))
                .await?
                .good()
        };
        let added = add("/lists/0", json!("added")).await?;
        let location = added.location.unwrap();
        assert_eq!(
            rest.get(&location).await?.json()?,
            json!("added"),
            "{location}"
        );
        assert!(location.contains("/value/lists/1/"), "{location}");
        // Into an object in a list that moved.
        let added = add("/lists", json!({ "o": {} })).await?;
        let object = added.location.unwrap();
        assert_eq!(
            rest.get(&object).await?.json()?,
            json!({ "o": {} }),
            "{object}"
        );
        // What it was added to is gone: it is nowhere.
        let added = add("/gone", json!("nowhere")).await?;
        assert_eq!(added.status, StatusCode::NO_CONTENT);
        assert_eq!((added.location, added.etag), (None, None));
        let put = rest.request(Method::PUT, &format!("{url}/value/gone/0"));
        let put = send(put.header(IF_MATCH, &old).json(&json!("nowhere"))).await?;
        assert_eq!(put.status, StatusCode::NO_CONTENT);
        assert_eq!((put.location, put.etag), (None, None));
        assert_eq!(
            rest.get(&format!("{url}/value/gone")).await?.status,
            StatusCode::NOT_FOUND
        );
        Ok(())
    });
}

#[test]
fn a_key_makes_a_request_once_whatever_it_does() {
    run(async |rest| {
        let make = async |key: &str, json: &Value| {
            send(keyed(&rest, key, Method::POST, "/v1/documents", json)).await
        };
        let first = make("\"one\"", &json!({ "n": [], "o": {} })).await?;
        assert_eq!(first.status, StatusCode::CREATED);
        let url = first.location.clone().unwrap();
        let again = make("one", &json!({ "n": [], "o": {} })).await?;
        assert_eq!(
            (again.status, &again.location, &again.etag),
            (StatusCode::CREATED, &first.location, &first.etag)
        );
        let other = make("one", &json!({ "n": [1] })).await?;
        assert_eq!(problem(&other)?, (422, "idempotency-key-reused".into()));
        assert_ne!(make("two", &json!({})).await?.location, first.location);
        let empty = make("three", &json!({})).await?;
        assert_eq!(make("three", &json!({})).await?.etag, empty.etag);
        // Each way to write, twice: nothing happens the second time, and the answer is the same.
        let value = format!("{url}/value");
        let patch = json!({ "p": "patched" });
        let cases = [
            (Method::POST, format!("{value}/n"), json!("x")),
            (Method::POST, format!("{value}/o"), json!("x")),
            (Method::PATCH, value.clone(), patch),
            (Method::PUT, format!("{value}/q"), json!({ "put": 1 })),
            (
                Method::PUT,
                url.clone(),
                json!({ "n": ["x", "y"], "o": {}, "q": 1, "p": 1 }),
            ),
            (Method::DELETE, format!("{value}/q"), json!(null)),
        ];
        for (n, (method, path, json)) in cases.iter().enumerate() {
            let request = || {
                let request = rest
                    .request(method.clone(), path)
                    .header(KEY, format!("key-{n}"));
                if *method == Method::DELETE {
                    request
                } else {
                    request.json(json)
                }
            };
            let (one, other) = tokio::join!(send(request()), send(request()));
            let (one, other) = (one?.good()?, other?.good()?);
            let told = |answer: &super::rest::Answer| {
                let answer = (answer.status, answer.location.clone(), answer.etag.clone());
                (answer.0, answer.1, answer.2)
            };
            assert_eq!(told(&one), told(&other), "{method} {path}");
            assert_eq!(one.body, other.body);
            let later = send(request()).await?;
            assert_eq!(told(&one), told(&later), "{method} {path}");
            let mut another = rest
                .request(method.clone(), path)
                .header(KEY, format!("key-{n}"));
            if *method == Method::DELETE {
                another = another.header(IF_MATCH, rest.get(&url).await?.etag()?);
            } else {
                another = another.json(&json!({ "another": n }));
            }
            let another = problem(&send(another).await?)?;
            assert_eq!(
                another,
                (422, "idempotency-key-reused".into()),
                "{method} {path}"
            );
        }
        let now = rest.get(&url).await?.json()?;
        assert_eq!(now, json!({ "n": ["x", "y"], "o": {}, "p": 1 }));
        // What went wrong did nothing, and is tried again.
        let late = || {
            send(keyed(
                &rest,
                "late",
                Method::PUT,
                &format!("{value}/l/x"),
                &json!(1),
            ))
        };
        assert_eq!(problem(&late().await?)?, (404, "no-value".into()));
        rest.put(&format!("{value}/l"), &json!({})).await?.good()?;
        late().await?.good()?;
        for bad in ["", "a b", "\"a"] {
            let refused = send(keyed(&rest, bad, Method::POST, &value, &json!(1))).await?;
            assert_eq!(problem(&refused)?, (400, "bad-header".into()), "{bad:?}");
        }
        Ok(())
    });
}

/// Others may have written meanwhile: the answer has what is there, or its author's next PUT would undo that.
#[test]
fn the_second_answer_to_what_was_added_has_the_value_of_now() {
    run(async |rest| {
        let url = "/v1/documents/added";
        rest.put(url, &json!({ "list": [] })).await?.good()?;
        let list = format!("{url}/value/list");
        let add = async || {
            let meeting = json!({ "date": "2026-11-22" });
            send(keyed(&rest, "one", Method::POST, &list, &meeting)).await
        };
        let first = add().await?;
        assert_eq!(first.status, StatusCode::CREATED);
        let place = first.location.clone().unwrap();
        rest.put(&format!("{place}/room"), &json!("Delft"))
            .await?
            .good()?;
        let second = add().await?;
        let now = rest.get(&place).await?;
        assert_eq!(second.status, StatusCode::CREATED);
        assert_eq!(second.location.as_deref(), Some(&*place));
        assert_eq!((second.json()?, &second.etag), (now.json()?, &now.etag));
        rest.delete(&place).await?.good()?;
        let third = add().await?;
        let place = third.location.clone().unwrap();
        assert!(place.contains("?at="), "{place}");
        let then = rest.get(&place).await?;
        assert_eq!((third.json()?, &third.etag), (then.json()?, &then.etag));
        Ok(())
    });
}

#[test]
fn a_restore_and_a_fork_are_carried_out_once() {
    run(async |rest| {
        let url = "/v1/documents/restored";
        let value = format!("{url}/value/q");
        let old = rest.put(url, &json!({ "q": 1 })).await?;
        let old = old.etag()?.trim_matches('"').to_owned();
        rest.put(&value, &json!(2)).await?.good()?;
        let restore = async |json: Value| {
            send(keyed(
                &rest,
                "back",
                Method::POST,
                &format!("{url}/restore"),
                &json,
            ))
            .await
        };
        let asked = json!({ "at": old, "path": "/q" });
        restore(asked.clone()).await?.good()?;
        assert_eq!(rest.get(&value).await?.json()?, json!(1));
        rest.put(&value, &json!(3)).await?.good()?;
        assert_eq!(restore(asked).await?.good()?.json()?, json!(3));
        assert_eq!(rest.get(&value).await?.json()?, json!(3));
        let other = restore(json!({ "at": old })).await?;
        assert_eq!(problem(&other)?, (422, "idempotency-key-reused".into()));

        let fork = async |json: Value| {
            send(keyed(
                &rest,
                "split",
                Method::POST,
                &format!("{url}/fork"),
                &json,
            ))
            .await
        };
        let first = fork(json!({})).await?;
        assert_eq!(first.status, StatusCode::CREATED);
        let place = first.location.clone().unwrap();
        // Both go on, and it is still that one.
        rest.put(&format!("{url}/value/later"), &json!(1))
            .await?
            .good()?;
        rest.put(&format!("{place}/value/q"), &json!(4))
            .await?
            .good()?;
        let again = fork(json!({})).await?.good()?;
        assert_eq!(
            (again.status, again.json()?),
            (StatusCode::OK, first.json()?)
        );
        assert_eq!(rest.get(&place).await?.json()?, json!({ "q": 4 }));
        let other = fork(json!({ "at": old })).await?;
        assert_eq!(other.status, StatusCode::CREATED);
        assert_eq!(
            rest.get(&other.location.unwrap()).await?.json()?,
            json!({ "q": 1 })
        );
        // An id of one's own is another matter: what is there is that fork, or is none.
        let named = fork(json!({ "id": "restored", "at": old })).await?;
        assert_eq!(problem(&named)?, (412, "exists".into()));
        let listed = rest.get("/v1/documents").await?.json()?;
        assert_eq!(listed["documents"].as_array().unwrap().len(), 3);
        // What was asked of the source was not asked of the fork.
        let request = keyed(
            &rest,
            "back",
            Method::PUT,
            &format!("{place}/value/q"),
            &json!(5),
        );
        send(request).await?.good()?;
        assert_eq!(rest.get(&place).await?.json()?["q"], 5);
        Ok(())
    });
}

/// Clients and proxies send it again by themselves. It goes on in documents that this process has not written to yet, too.
#[test]
fn a_put_at_a_version_is_carried_out_once_and_any_number_of_them() {
    let mut server = ServerProcess::start().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = "/v1/documents/put";
    let made = json!({ "text": "hello there", "list": ["a"], "n": { "$counter": 0 } });
    let old = runtime
        .block_on(Rest::new(server.address()).put(&format!("{url}?types=tagged"), &made))
        .unwrap();
    let old = old.etag().unwrap().to_owned();
    for round in 0..3 {
        server.kill().unwrap();
        server.restart().unwrap();
        let rest = Rest::new(server.address());
        let put = async |path: &str, json: Value| {
            let request = rest.request(Method::PUT, &format!("{url}{path}"));
            let put = send(request.header(IF_MATCH, &old).json(&json)).await;
            anyhow::Ok(put?.good()?.json()?)
        };
        let puts = async {
            let whole = json!({ "text": "hello there you", "list": ["a", "b"], "n": 1 });
            for _ in 0..3 {
                let mut now = put("", whole.clone()).await?;
                now.as_object_mut().unwrap().remove("flag");
                assert_eq!(now, whole, "round {round}");
            }
            // Others, at the same version: each is one more.
            for n in 0..5 {
                let one = json!(format!("{round} {n}"));
                assert_eq!(put("/value/other", one.clone()).await?, one);
                rest.delete(&format!("{url}/value/other")).await?.good()?;
                assert_eq!(rest.get(&format!("{url}/value/other")).await?.status, 404);
            }
            // What was put in between is another request: this is not the one before that, sent again.
            for flag in [true, false, true] {
                assert_eq!(put("/value/flag", json!(flag)).await?, json!(flag));
            }
            anyhow::Ok(())
        };
        runtime.block_on(puts).unwrap();
    }
}

#[test]
fn a_retry_after_a_crash_is_not_done_twice() {
    let mut server = ServerProcess::start().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let requests = async |rest: &Rest| -> Result<Vec<(StatusCode, Option<String>)>> {
        let made = send(keyed(
            rest,
            "made",
            Method::POST,
            "/v1/documents",
            &json!({ "list": [] }),
        ))
        .await?;
        let value = format!("{}/value", made.location.clone().unwrap());
        let list = format!("{value}/list");
        let added = send(keyed(
            rest,
            "added",
            Method::POST,
            &list,
            &json!({ "a": 1 }),
        ))
        .await?;
        // Where it is, whether something was put before it meanwhile or not.
        let there = rest.get(&added.location.unwrap()).await?.json()?;
        let added = (added.status, Some(there.to_string()));
        let add = json!([{ "op": "add", "path": "/list/0", "value": "first" }]);
        let patch = rest.request(Method::PATCH, &value).header(KEY, "patched");
        let patch = patch.header(CONTENT_TYPE, "application/json-patch+json");
        let patched = send(patch.body(add.to_string())).await?;
        Ok(vec![
            (made.status, made.location),
            added,
            (patched.status, None),
        ])
    };
    let first = runtime
        .block_on(requests(&Rest::new(server.address())))
        .unwrap();
    server.kill().unwrap();
    server.restart().unwrap();
    let rest = Rest::new(server.address());
    let again = runtime.block_on(requests(&rest)).unwrap();
    assert_eq!(first, again);
    let url = first[0].1.as_ref().unwrap();
    let now = runtime.block_on(rest.get(url)).unwrap().json().unwrap();
    assert_eq!(now, json!({ "list": ["first", { "a": 1 }] }));
    let listed = runtime
        .block_on(rest.get("/v1/documents"))
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(listed["documents"].as_array().unwrap().len(), 1);
}
