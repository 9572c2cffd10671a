//! Reading at versions and times, and what is between two of them.

use concord_shared::json::{from_rfc3339, is_same};
use reqwest::header::IF_NONE_MATCH;

use super::*;

#[test]
fn a_document_is_read_at_any_version_and_at_any_time() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = ServerProcess::start().unwrap();
    let before = rfc3339(now_ms() - 1);
    // What was read, and when.
    let mut moments: Vec<(String, String, Value)> = Vec::new();
    let (url, id) = runtime
        .block_on(async {
            let mut world = World::new(&server, 77).await?;
            for _ in 0..25 {
                let words = noise(&mut world.random, NOISE);
                world.tabs[0].edit(|doc| edit(doc, 0, 1, &words)).await?;
                world.step().await?;
                world.exchange().await?;
                let read = world.rest.get(&world.url).await?.good()?;
                // The clock's next millisecond is the next change's.
                tokio::time::sleep(Duration::from_millis(3)).await;
                moments.push((rfc3339(now_ms()), read.etag()?.to_owned(), read.json()?));
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            anyhow::Ok((world.url.clone(), world.id.clone()))
        })
        .unwrap();
    for is_compacted in [false, true] {
        if is_compacted {
            compact(&mut server, &id).unwrap();
        }
        let rest = Rest::new(server.address());
        let read = async {
            let early = rest.get(&format!("{url}?at={before}")).await?;
            ensure!(code(&early)? == (404, "no-version".to_owned()));
            for (time, etag, value) in &moments {
                let version = etag.trim_matches('"');
                for at in [time.as_str(), version] {
                    let read = rest.get(&format!("{url}?at={at}")).await?.good()?;
                    ensure!(read.etag()? == etag, "{at} is {etag}");
                    ensure!(read.json()? == *value);
                    let text = rest.get(&format!("{url}/value/key%201?at={at}")).await?;
                    match value.get("key 1") {
                        Some(there) => ensure!(text.json()? == *there),
                        None => ensure!(code(&text)?.1 == "no-value"),
                    }
                    let request = rest.request(Method::GET, &format!("{url}?at={at}"));
                    let same = send(request.header(IF_NONE_MATCH, etag)).await?;
                    ensure!(same.status == StatusCode::NOT_MODIFIED);
                    let there = bytes_of(&rest, &format!("{url}?at={at}")).await?;
                    ensure!(to_json(&there.hydrate(None), Types::Plain) == *value);
                    let mut heads = there.get_heads();
                    heads.sort_unstable();
                    ensure!(heads == heads_of(etag));
                }
                // In another zone, and with a plus that nobody encoded.
                let ms = from_rfc3339(time).context("a time")?;
                let elsewhere = rfc3339(ms + 2 * 3_600_000).replace('Z', "+02:00");
                let read = rest.get(&format!("{url}?at={elsewhere}")).await?.good()?;
                ensure!(read.etag()? == etag);
            }
            // What has a version's name never changes; what has a time's might.
            let (time, etag, _) = &moments[3];
            for (at, is_fixed) in [(etag.trim_matches('"'), true), (time, false)] {
                let request = rest
                    .request(Method::GET, &format!("{url}?at={at}"))
                    .send()
                    .await?;
                let cache = request.headers().get("cache-control");
                ensure!(
                    cache.is_some_and(|cache| cache.to_str().unwrap().contains("immutable"))
                        == is_fixed
                );
            }
            anyhow::Ok(())
        };
        runtime.block_on(read).unwrap();
    }
}

#[test]
fn of_what_was_imported_its_authors_clocks_are_believed() {
    let folder = tempfile::tempdir().unwrap();
    let mut document = AutoCommit::new();
    let years = [1_577_836_800_i64, 1_609_459_200, 1_640_995_200];
    for (year, seconds) in (2020..).zip(years) {
        document.put(ROOT, "year", i64::from(year)).unwrap();
        // Automerge's own clients write seconds.
        document.commit_with(CommitOptions::default().with_time(seconds));
    }
    document.put(ROOT, "timeless", true).unwrap();
    document.commit();
    let (file, data) = (
        folder.path().join("old.automerge"),
        folder.path().join("data"),
    );
    std::fs::write(&file, document.save()).unwrap();
    let imported = Command::new(binary().unwrap())
        .args(["import", "--id", "old", "--data"])
        .args([&data, &file])
        .output()
        .unwrap();
    assert!(imported.status.success());
    let server = ServerProcess::start_at(&data, &[]).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let read = async {
        let rest = Rest::new(server.address());
        let at = async |time: &str| rest.get(&format!("/v1/documents/old?at={time}")).await;
        ensure!(at("2021-06-01T00:00:00Z").await?.json()? == json!({ "year": 2021 }));
        ensure!(at("2020-01-01T00:00:00Z").await?.json()? == json!({ "year": 2020 }));
        // One that says nothing of its time is there when what it builds on is.
        ensure!(
            at("2022-06-01T00:00:00Z").await?.json()? == json!({ "year": 2022, "timeless": true })
        );
        ensure!(code(&at("2019-12-31T23:59:59Z").await?)?.1 == "no-version");
        let changes = pages(&rest, "/v1/documents/old", 10, "oldest").await?;
        ensure!(changes[0]["time"] == "2020-01-01T00:00:00.000Z");
        ensure!(changes[3]["time"].is_null());
        ensure!(
            changes
                .iter()
                .all(|change| change["receivedAt"].is_null() && change["principal"].is_null())
        );
        anyhow::Ok(())
    };
    runtime.block_on(read).unwrap();
}

#[test]
fn a_difference_leads_from_any_version_to_any_other() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    for seed in seeds(WORLDS, LONG_WORLDS) {
        let differs = runtime.block_on(differences(&server, 1000 + seed));
        differs
            .with_context(|| format!("CONCORD_TEST_SEED={seed} replays it"))
            .unwrap();
    }
}

async fn differences(server: &ServerProcess, seed: u64) -> Result<()> {
    let mut world = World::new(server, seed).await?;
    let mut versions: Vec<String> = Vec::new();
    for _ in 0..STEPS {
        world.step().await?;
        let read = world.rest.get(&world.url).await?.good()?;
        versions.push(read.etag()?.trim_matches('"').to_owned());
    }
    let doc = bytes_of(&world.rest, &world.url).await?;
    let patch_of = async |query: &str| {
        let answer = world
            .rest
            .get(&format!("{}/diff{query}", world.url))
            .await?
            .good()?;
        ensure!(answer.content_type == "application/json-patch+json");
        Ok((answer.etag()?.to_owned(), answer.json()?))
    };
    for _ in 0..20 {
        let mut any = || versions[world.random.random_range(0..versions.len())].clone();
        let (from, to) = (any(), any());
        for (parameter, types) in [("", Types::Plain), ("&types=tagged", Types::Tagged)] {
            let (etag, patch) = patch_of(&format!("?from={from}&to={to}{parameter}")).await?;
            ensure!(etag.trim_matches('"') == to);
            let before = at_version(&doc, &heads_of(&from), types);
            let after = at_version(&doc, &heads_of(&to), types);
            ensure!(is_same(&applied(&before, &patch)?, &after));
            ensure!(
                (patch == json!([])) == is_same(&before, &after),
                "no more than differs"
            );
        }
        // Of a part of it, which may come and go.
        let there = |heads: &str| {
            at_version(&doc, &heads_of(heads), Types::Plain)
                .get("key 0")
                .cloned()
        };
        let query = format!("/key%200?from={from}&to={to}");
        match (there(&from), there(&to)) {
            (None, None) => {
                let answer = world
                    .rest
                    .get(&format!("{}/diff{query}", world.url))
                    .await?;
                ensure!(code(&answer)? == (404, "no-value".to_owned()));
            }
            (None, Some(value)) => ensure!(
                patch_of(&query).await?.1 == json!([{ "op": "add", "path": "", "value": value }])
            ),
            (Some(_), None) => {
                ensure!(patch_of(&query).await?.1 == json!([{ "op": "remove", "path": "" }]));
            }
            (Some(before), Some(after)) => {
                ensure!(applied(&before, &patch_of(&query).await?.1)? == after);
            }
        }
    }
    // From nothing, and to now.
    let now = at_version(&doc, &doc.get_heads(), Types::Plain);
    ensure!(is_same(&applied(&json!({}), &patch_of("").await?.1)?, &now));
    let from = &versions[2];
    let before = at_version(&doc, &heads_of(from), Types::Plain);
    ensure!(is_same(
        &applied(&before, &patch_of(&format!("?from={from}")).await?.1)?,
        &now
    ));
    Ok(())
}
