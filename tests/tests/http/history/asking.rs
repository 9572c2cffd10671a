//! What is asked wrongly; and that asking holds up nobody.

use reqwest::header::{CONTENT_TYPE, IF_NONE_MATCH};

use super::*;

/// Old versions that are read at a time.
const OLD: usize = 12;

/// A keystroke is relayed, and the present read, while old versions of a long document are.
#[test]
fn reading_old_versions_holds_up_nobody() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    let relayed = async {
        let mut world = World::new(&server, 4).await?;
        let (rest, url) = (world.rest.clone(), world.url.clone());
        // Long as a list: every element is read, and written into the patch.
        let list = |n: i64| (0..30_000).map(|m| json!(m * n)).collect::<Value>();
        rest.put(&format!("{url}/value/list"), &list(1))
            .await?
            .good()?;
        let changed = rest
            .put(&format!("{url}/value/list"), &list(3))
            .await?
            .good()?;
        let hash = heads_of(changed.etag()?)[0];
        world.exchange().await?;
        let mut reading = Vec::new();
        for _ in 0..OLD {
            let (rest, url) = (rest.clone(), url.clone());
            reading.push(tokio::spawn(async move {
                rest.get(&format!("{url}/changes/{hash}")).await?.good()
            }));
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        ensure!(
            reading.iter().any(|read| !read.is_finished()),
            "it takes a while"
        );
        let started = Instant::now();
        world.tabs[0]
            .edit(|doc| doc.put(ROOT, "keystroke", true))
            .await?;
        world.tabs[0].settle().await?;
        while world.tabs[1]
            .replica()
            .doc()
            .get(ROOT, "keystroke")?
            .is_none()
        {
            ensure!(
                world.tabs[1]
                    .receive(started + Duration::from_secs(10), drop)
                    .await?
            );
        }
        ensure!(
            reading.iter().any(|read| !read.is_finished()),
            "it is relayed meanwhile"
        );
        // One after the other: where the old ones were read by the view they got to 16 for each of those, and beside it to
        // 340.
        let mut present = 0;
        while reading.iter().any(|read| !read.is_finished()) {
            let now = rest.get(&format!("{url}/value/keystroke")).await?.good()?;
            ensure!(now.json()? == true);
            present += 1;
        }
        ensure!(
            present > 60 * OLD,
            "{present} reads of the present beside {OLD} old ones"
        );
        for read in reading {
            read.await??;
        }
        anyhow::Ok(())
    };
    runtime.block_on(relayed).unwrap();
}

#[test]
fn what_is_asked_wrongly_is_answered_with_a_code() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    let asked = async {
        let rest = Rest::new(server.address());
        let url = "/v1/documents/known";
        rest.put(url, &json!({ "a": 1 })).await?.good()?;
        let other = rest.put("/v1/documents/other", &json!({})).await?.good()?;
        let stranger = other.etag()?.trim_matches('"').to_owned();
        for (path, status, wanted) in [
            ("/changes?order=best".to_owned(), 400, "bad-query"),
            ("/changes?after=x".to_owned(), 400, "bad-query"),
            ("/changes?limit=-1".to_owned(), 400, "bad-query"),
            ("/changes/abc".to_owned(), 400, "bad-path"),
            (format!("/changes/{stranger}"), 404, "no-change"),
            (format!("/diff?from={stranger}"), 404, "no-version"),
            (format!("/diff?to={stranger}"), 404, "no-version"),
            ("/diff?from=yesterday".to_owned(), 400, "bad-query"),
            ("/diff/nothing".to_owned(), 404, "no-value"),
            (format!("?at={stranger}"), 404, "no-version"),
            ("?at=2026-11-22".to_owned(), 400, "bad-query"),
        ] {
            let answer = rest.get(&format!("{url}{path}")).await?;
            ensure!(
                code(&answer)? == (status, wanted.to_owned()),
                "{path}: {answer:?}"
            );
        }
        for (path, body, status, wanted) in [
            ("/restore", json!({}), 400, "bad-json"),
            ("/restore", json!({ "at": "x" }), 400, "bad-query"),
            ("/restore", json!({ "at": stranger }), 404, "no-version"),
            (
                "/restore",
                json!({ "at": stranger, "path": "a" }),
                400,
                "bad-path",
            ),
            (
                "/restore",
                json!({ "at": stranger, "what": 1 }),
                400,
                "bad-json",
            ),
            ("/fork", json!({ "at": stranger }), 404, "no-version"),
            ("/fork", json!({ "id": "" }), 400, "bad-id"),
            ("/fork", json!([]), 400, "bad-json"),
        ] {
            let answer = rest.post(&format!("{url}{path}"), &body).await?;
            ensure!(
                code(&answer)? == (status, wanted.to_owned()),
                "{path} {body}: {answer:?}"
            );
        }
        let nobody = "/v1/documents/nobody";
        for path in [
            "/changes",
            &format!("/changes/{stranger}"),
            "/diff",
            "?at=2026-11-22T00:00:00Z",
        ] {
            let answer = rest.get(&format!("{nobody}{path}")).await?;
            ensure!(
                code(&answer)? == (404, "no-document".to_owned()),
                "{path}: {answer:?}"
            );
        }
        let answer = rest.post(&format!("{nobody}/fork"), &json!({})).await?;
        ensure!(code(&answer)? == (404, "no-document".to_owned()));
        let request = rest
            .request(Method::POST, &format!("{url}/fork"))
            .header(CONTENT_TYPE, "text/plain");
        ensure!(
            code(&send(request.body("x")).await?)? == (415, "unsupported-media-type".to_owned())
        );
        ensure!(
            rest.get("/v1/documents?limit=100").await?.json()?["documents"]
                .as_array()
                .map(Vec::len)
                == Some(2)
        );
        // A change says what it did, of whatever it was made of; and who has it need not ask.
        let told = pages(&rest, url, 10, "oldest").await?;
        let hash = told[0]["hash"].as_str().context("a hash")?;
        let one = rest.get(&format!("{url}/changes/{hash}")).await?.good()?;
        ensure!(one.json()?["patch"] == json!([{ "op": "add", "path": "/a", "value": 1 }]));
        let request = rest.request(Method::GET, &format!("{url}/changes/{hash}"));
        ensure!(
            send(request.header(IF_NONE_MATCH, one.etag()?))
                .await?
                .status
                == StatusCode::NOT_MODIFIED
        );
        anyhow::Ok(())
    };
    runtime.block_on(asked).unwrap();
}
