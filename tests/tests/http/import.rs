//! A document's own bytes are taken in: judged as a client's upload, all of it or nothing, durable before the answer.

use anyhow::Result;
use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, Automerge, ROOT, ReadDoc as _};
use concord_tests::server_process::ServerProcess;
use reqwest::header::{ACCEPT, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::json;

use super::requests::{problem, run};
use super::rest::{Answer, Rest, send};

pub(crate) const AUTOMERGE: &str = "application/vnd.automerge";

fn import(rest: &Rest, method: Method, path: &str, bytes: &[u8]) -> RequestBuilder {
    let request = rest.request(method, path).header(CONTENT_TYPE, AUTOMERGE);
    request.body(bytes.to_vec())
}

async fn export(rest: &Rest, url: &str) -> Result<Automerge> {
    let bytes = send(rest.request(Method::GET, url).header(ACCEPT, AUTOMERGE)).await?;
    Ok(Automerge::load(&bytes.good()?.body)?)
}

fn etag_of(doc: &mut AutoCommit) -> String {
    let mut heads = doc.get_heads();
    heads.sort_unstable();
    let heads: Vec<_> = heads.iter().map(ToString::to_string).collect();
    format!("\"{}\"", heads.join("."))
}

/// Three changes in a snapshot, and two behind it, as files grow.
fn grown() -> (AutoCommit, Vec<u8>) {
    let mut doc = AutoCommit::new();
    for n in 0..3 {
        doc.put(ROOT, format!("saved {n}"), n).unwrap();
        doc.commit();
    }
    let mut bytes = doc.save();
    for n in 0..2 {
        doc.put(ROOT, "single", n).unwrap();
        doc.commit();
        bytes.extend(doc.save_incremental());
    }
    (doc, bytes)
}

#[test]
fn what_any_library_saved_is_a_document_here() {
    run(async |rest| {
        let (mut doc, bytes) = grown();
        let value = json!({ "saved 0": 0, "saved 1": 1, "saved 2": 2, "single": 1 });
        let made = send(import(&rest, Method::POST, "/v1/documents", &bytes)).await?;
        assert_eq!(
            (made.status, made.json()?),
            (StatusCode::CREATED, value.clone())
        );
        assert_eq!(made.etag()?, etag_of(&mut doc));
        let url = made.location.unwrap();
        assert_eq!(rest.get(&url).await?.json()?, value);
        assert_eq!(export(&rest, &url).await?.get_heads(), doc.get_heads());
        // Under an id of one's own; what is there is not there twice.
        let own = "/v1/documents/imported";
        let first = send(import(&rest, Method::PUT, own, &bytes)).await?;
        assert_eq!(
            (first.status, first.location.as_deref()),
            (StatusCode::CREATED, Some(own))
        );
        let again = send(import(&rest, Method::PUT, own, &bytes)).await?;
        assert_eq!((again.status, &again.etag), (StatusCode::OK, &first.etag));
        // Edits on both sides since then are all there in the end.
        rest.put(&format!("{own}/value/here"), &json!(true))
            .await?
            .good()?;
        doc.put(ROOT, "there", true).unwrap();
        let merged = send(import(&rest, Method::PUT, own, &doc.save()))
            .await?
            .good()?;
        assert_eq!(merged.json()?["here"], json!(true));
        assert_eq!(merged.json()?["there"], json!(true));
        // One that is empty is there, too, as one that is made of {}.
        let empty = send(import(
            &rest,
            Method::POST,
            "/v1/documents",
            &AutoCommit::new().save(),
        ))
        .await?;
        assert_eq!(
            (empty.status, empty.json()?),
            (StatusCode::CREATED, json!({}))
        );
        Ok(())
    });
}

#[test]
fn who_edits_live_gets_what_is_imported_and_the_view_has_it_at_once() {
    run(async |rest| {
        let own = "/v1/documents/live";
        rest.put(own, &json!({ "a": 1 })).await?.good()?;
        let mut doc = AutoCommit::load(&export(&rest, own).await?.save())?;
        // While others write, too.
        for n in 0..20 {
            doc.put(ROOT, format!("n{n}"), n).unwrap();
            let bytes = doc.save();
            let there = format!("{own}/value/m{n}");
            let value = json!(n);
            let (one, other) = tokio::join!(
                send(import(&rest, Method::PUT, own, &bytes)),
                rest.put(&there, &value)
            );
            assert_eq!(one?.good()?.json()?[format!("n{n}")], json!(n));
            other?.good()?;
        }
        let all = rest.get(own).await?.json()?;
        assert_eq!(all.as_object().unwrap().len(), 41);
        Ok(())
    });
}

/// A version is named in headers, which have an end.
#[test]
fn a_document_of_many_heads_can_be_read_and_written() {
    run(async |rest| {
        let mut doc = AutoCommit::new();
        for n in 0..1000_u32 {
            let mut one = AutoCommit::new();
            one.put(ROOT, format!("{n}"), n).unwrap();
            doc.merge(&mut one).unwrap();
        }
        assert_eq!(doc.get_heads().len(), 1000);
        let url = "/v1/documents/heads";
        let made = send(import(&rest, Method::PUT, url, &doc.save())).await?;
        assert_eq!(made.status, StatusCode::CREATED);
        let seen = rest.get(&format!("{url}/value/7")).await?.good()?;
        rest.put_seen(&format!("{url}/value/7"), seen.etag()?, &json!(8))
            .await?
            .good()?;
        let now = export(&rest, url).await?;
        assert_eq!(now.get_heads().len(), 1);
        let all = doc.get_changes(&[]).into_iter();
        let mut kept = all.map(|change| now.get_change_by_hash(&change.hash()));
        assert!(kept.all(|change| change.is_some()));
        Ok(())
    });
}

#[test]
fn an_upload_with_one_bad_change_leaves_nothing_behind() {
    run(async |rest| {
        let own = "/v1/documents/judged";
        let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
        doc.put(ROOT, "good", 1).unwrap();
        doc.commit();
        let good = doc.save();
        // No client survives such a key.
        doc.put(ROOT, "__proto__", 1).unwrap();
        doc.commit();
        let bad = doc.save();
        let single = doc.save_after(&Automerge::load(&good)?.get_heads());
        let mut cut = good.clone();
        cut.truncate(good.len() - 1);
        let mut fork = AutoCommit::new().with_actor(ActorId::from([1; 16]));
        fork.put(ROOT, "other", 1).unwrap();
        for is_there in [false, true] {
            if is_there {
                send(import(&rest, Method::PUT, own, &good)).await?.good()?;
            }
            let before = rest.get(own).await?;
            let (_, whole) = grown();
            let last = whole
                .windows(4)
                .rposition(|magic| magic == [0x85, 0x6f, 0x4a, 0x83]);
            let lacking = &whole[last.unwrap()..];
            let mut cases = vec![
                (bad.clone(), 422, "bad-op"),
                ([good.clone(), single.clone()].concat(), 422, "bad-op"),
                (cut.clone(), 422, "bad-chunk"),
                ([good.clone(), b"more".to_vec()].concat(), 422, "bad-chunk"),
                (lacking.to_vec(), 422, "missing-deps"),
                (Vec::new(), 400, "bad-body"),
                (b"{}".to_vec(), 422, "bad-chunk"),
            ];
            if is_there {
                cases.push((fork.save(), 422, "duplicate-seq"));
            }
            for (n, (bytes, status, code)) in cases.into_iter().enumerate() {
                // Each from somewhere else: who is refused again and again would have to wait.
                let from = format!("192.0.2.{n}");
                let put = import(&rest, Method::PUT, own, &bytes);
                let refused = send(put.header("x-forwarded-for", &from)).await?;
                assert_eq!(problem(&refused)?, (status, code.to_owned()));
                if !is_there {
                    let post = import(&rest, Method::POST, "/v1/documents", &bytes);
                    let refused = send(post.header("x-forwarded-for", &from)).await?;
                    assert_eq!(problem(&refused)?, (status, code.to_owned()));
                }
            }
            let after = rest.get(own).await?;
            assert_eq!((after.status, after.etag), (before.status, before.etag));
        }
        let listed = rest.get("/v1/documents").await?.json()?;
        assert_eq!(listed["documents"].as_array().unwrap().len(), 1, "{listed}");
        Ok(())
    });
}

#[test]
fn conditions_hold_for_imports_too() {
    run(async |rest| {
        let own = "/v1/documents/conditions";
        let mut doc = AutoCommit::new();
        doc.put(ROOT, "a", 1).unwrap();
        let bytes = doc.save();
        let unknown = format!("\"{}\"", "ab".repeat(32));
        let refused =
            send(import(&rest, Method::PUT, own, &bytes).header(IF_MATCH, &unknown)).await?;
        assert_eq!(problem(&refused)?, (412, "unknown-heads".into()));
        let once = async |bytes: &[u8]| -> Result<Answer> {
            send(import(&rest, Method::PUT, own, bytes).header(IF_NONE_MATCH, "*")).await
        };
        assert_eq!(once(&bytes).await?.status, StatusCode::CREATED);
        assert_eq!(once(&bytes).await?.status, StatusCode::OK);
        let before = rest.get(own).await?.etag()?.to_owned();
        doc.put(ROOT, "a", 2).unwrap();
        assert_eq!(problem(&once(&doc.save()).await?)?, (412, "exists".into()));
        assert_eq!(rest.get(own).await?.etag()?, before);
        let value = send(import(
            &rest,
            Method::PUT,
            &format!("{own}/value/a"),
            &bytes,
        ))
        .await?;
        assert_eq!(problem(&value)?, (415, "unsupported-media-type".into()));
        let patch = send(import(
            &rest,
            Method::PATCH,
            &format!("{own}/value"),
            &bytes,
        ))
        .await?;
        assert_eq!(problem(&patch)?, (415, "unsupported-media-type".into()));
        Ok(())
    });
}

#[test]
fn what_is_too_large_is_not_taken_and_refusals_have_consequences() {
    let server = ServerProcess::start_with(&["--max-message-mib", "1"]).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let test = async {
        let rest = Rest::new(server.address());
        let large = send(import(
            &rest,
            Method::POST,
            "/v1/documents",
            &vec![0; (1 << 20) + 1],
        ))
        .await?;
        assert_eq!(problem(&large)?, (413, "body-too-large".into()));
        // As on the wire: after some refusals whoever it is has to wait.
        let mut codes = Vec::new();
        for _ in 0..20 {
            let refused = send(import(&rest, Method::POST, "/v1/documents", b"nonsense")).await?;
            codes.push(problem(&refused)?);
        }
        assert_eq!(codes[0], (422, "bad-chunk".into()));
        assert_eq!(codes[19], (429, "back-off".into()), "{codes:?}");
        // Who writes JSON is not kept from it.
        rest.post("/v1/documents", &json!({})).await?.good()?;
        anyhow::Ok(())
    };
    runtime.block_on(test).unwrap();
    assert!(
        server
            .metric("concord_refused_total{code=\"bad-chunk\"}")
            .unwrap()
            > 0.0
    );
}

#[test]
fn what_was_answered_is_there_after_a_kill() {
    let mut server = ServerProcess::start().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for n in 0..5 {
        let (mut doc, bytes) = grown();
        let rest = Rest::new(server.address());
        let own = format!("/v1/documents/killed-{n}");
        let made = runtime
            .block_on(send(import(&rest, Method::PUT, &own, &bytes)))
            .unwrap();
        server.kill().unwrap();
        server.restart().unwrap();
        assert_eq!(made.status, StatusCode::CREATED);
        let rest = Rest::new(server.address());
        let there = runtime
            .block_on(send(rest.request(Method::HEAD, &own)))
            .unwrap();
        assert_eq!(there.header(ETAG.as_str()), etag_of(&mut doc));
    }
}
