//! Bringing back, and forking.

use concord_shared::json::is_same;
use reqwest::header::IF_MATCH;

use super::*;

#[test]
fn what_was_is_brought_back_by_a_new_change() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    for seed in seeds(WORLDS, LONG_WORLDS) {
        let restored = runtime.block_on(restores(&server, 2000 + seed));
        restored
            .with_context(|| format!("CONCORD_TEST_SEED={seed} replays it"))
            .unwrap();
    }
}

async fn restores(server: &ServerProcess, seed: u64) -> Result<()> {
    let mut world = World::new(server, seed).await?;
    let mut versions: Vec<String> = Vec::new();
    for round in 0..STEPS {
        world.step().await?;
        let (rest, url) = (&world.rest, &world.url);
        let read = rest.get(url).await?.good()?;
        versions.push(read.etag()?.trim_matches('"').to_owned());
        if round % 3 != 2 {
            continue;
        }
        let version = versions[world.random.random_range(0..versions.len())].clone();
        let tagged = async |query: &str| {
            rest.get(&format!("{url}{query}types=tagged"))
                .await?
                .good()?
                .json()
        };
        let (old, count) = (
            tagged(&format!("?at={version}&")).await?,
            changes(rest, url).await?,
        );
        let heads = heads_of(read.etag()?);
        let restored = rest
            .post(&format!("{url}/restore"), &json!({ "at": version }))
            .await?
            .good()?;
        let now = tagged("?").await?;
        ensure!(is_same(&now, &old), "{now} is not {old}");
        let before = at_version(&bytes_of(rest, url).await?, &heads, Types::Tagged);
        let is_news = !is_same(&before, &old);
        ensure!(
            changes(rest, url).await? == count + usize::from(is_news),
            "one change, if any"
        );
        ensure!(is_same(&restored.json()?, &rest.get(url).await?.json()?));
        ensure!(restored.etag()? == rest.get(url).await?.etag()?);
        // All that there was is there still.
        for version in &versions {
            rest.get(&format!("{url}?at={version}")).await?.good()?;
        }
    }
    Ok(())
}

async fn changes(rest: &Rest, url: &str) -> Result<usize> {
    let page = rest
        .get(&format!("{url}/changes?limit=1"))
        .await?
        .good()?
        .json()?;
    Ok(usize::try_from(page["count"].as_u64().context("a count")?)?)
}

#[test]
fn what_is_brought_back_merges_with_what_others_write() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    let merges = async {
        let mut world = World::new(&server, 1).await?;
        let (rest, url) = (world.rest.clone(), world.url.clone());
        rest.put(
            &format!("{url}/value/meeting"),
            &json!({ "name": "one", "room": "A" }),
        )
        .await?
        .good()?;
        let old = rest.get(&url).await?.good()?;
        let version = old.etag()?.trim_matches('"').to_owned();
        rest.put(
            &format!("{url}/value/meeting"),
            &json!({ "name": "two", "who": "ann" }),
        )
        .await?
        .good()?;
        rest.put(&format!("{url}/value/n"), &json!(100))
            .await?
            .good()?;
        world.exchange().await?;
        // A tab writes without having heard of what is to come.
        let seen = rest.get(&url).await?.good()?.etag()?.to_owned();
        world.tabs[0].replica().change(|doc| {
            doc.increment(ROOT, "n", 7)?;
            let (_, meeting) = doc.get(ROOT, "meeting")?.expect("a meeting");
            doc.put(&meeting, "minutes", "written")
        })?;
        let restore = json!({ "at": version, "path": "/meeting" });
        let done = rest
            .post(&format!("{url}/restore"), &restore)
            .await?
            .good()?;
        ensure!(done.json()? == json!({ "name": "one", "room": "A" }));
        let request = rest
            .request(Method::POST, &format!("{url}/restore"))
            .header(IF_MATCH, &seen);
        send(request.json(&json!({ "at": version, "path": "/n" })))
            .await?
            .good()?;
        world.exchange().await?;
        let now = rest
            .get(&format!("{url}?types=tagged"))
            .await?
            .good()?
            .json()?;
        ensure!(
            now["meeting"]["minutes"] == "written"
                || now["meeting"]["minutes"]["$string"] == "written",
            "{now}"
        );
        ensure!(
            now["meeting"]["name"] == "one" && now["meeting"].get("who").is_none(),
            "{now}"
        );
        ensure!(
            now["n"] == json!({ "$counter": 8 }),
            "the counter is one, and goes on: {now}"
        );
        // What was not there is not there again; twice is as good as once.
        let first = json!({ "at": heads_of(&version_of_first(&rest, &url).await?)[0].to_string(), "path": "/meeting" });
        for _ in 0..2 {
            let gone = rest.post(&format!("{url}/restore"), &first).await?;
            ensure!(gone.status == StatusCode::NO_CONTENT, "{gone:?}");
            let answer = rest.get(&format!("{url}/value/meeting")).await?;
            ensure!(code(&answer)?.1 == "no-value");
        }
        anyhow::Ok(())
    };
    runtime.block_on(merges).unwrap();
}

async fn version_of_first(rest: &Rest, url: &str) -> Result<String> {
    let page = rest
        .get(&format!("{url}/changes?limit=1"))
        .await?
        .good()?
        .json()?;
    Ok(page["changes"][0]["hash"]
        .as_str()
        .context("a hash")?
        .to_owned())
}

#[test]
fn a_fork_has_the_same_changes_and_goes_its_own_way() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = ServerProcess::start().unwrap();
    let forks = async {
        let mut world = World::new(&server, 3).await?;
        let (rest, url) = (world.rest.clone(), world.url.clone());
        let mut versions = Vec::new();
        for _ in 0..STEPS {
            world.step().await?;
            versions.push(rest.get(&url).await?.good()?.etag()?.to_owned());
        }
        let doc = bytes_of(&rest, &url).await?;
        let mut made = Vec::new();
        for (n, etag) in versions.iter().enumerate().step_by(4) {
            let wanted = json!({ "at": etag.trim_matches('"'), "id": format!("fork-{n}") });
            let fork = rest.post(&format!("{url}/fork"), &wanted).await?.good()?;
            ensure!(fork.status == StatusCode::CREATED && fork.etag()? == etag);
            let location = fork.location.context("a place")?;
            ensure!(location == format!("/v1/documents/fork-{n}"));
            let there = bytes_of(&rest, &location).await?;
            let wanted_doc = doc.fork_at(&heads_of(etag))?;
            let hashes = |doc: &Automerge| {
                let changes = doc.get_changes(&[]);
                let mut hashes: Vec<ChangeHash> =
                    changes.iter().map(automerge::Change::hash).collect();
                hashes.sort_unstable();
                hashes
            };
            ensure!(hashes(&there) == hashes(&wanted_doc));
            ensure!(
                to_json(&there.hydrate(None), Types::Tagged)
                    == to_json(&wanted_doc.hydrate(None), Types::Tagged)
            );
            // Who was not told of it may ask again.
            let again = rest.post(&format!("{url}/fork"), &wanted).await?;
            ensure!(again.status == StatusCode::OK, "{again:?}");
            made.push((location, etag.clone()));
        }
        let taken = rest
            .post(
                &format!("{url}/fork"),
                &json!({ "id": world.id.as_str(), "at": versions[0].trim_matches('"') }),
            )
            .await?;
        ensure!(code(&taken)? == (412, "exists".to_owned()));
        // Without a body: all of it, under a new id.
        let whole = send(rest.request(Method::POST, &format!("{url}/fork")))
            .await?
            .good()?;
        let location = whole.location.clone().context("a place")?;
        ensure!(whole.etag()? == rest.get(&url).await?.etag()?);
        // Both go on, and can still be merged: nobody made two changes in one place.
        rest.put(&format!("{location}/value/fork"), &json!("a"))
            .await?
            .good()?;
        rest.put(&format!("{url}/value/origin"), &json!("b"))
            .await?
            .good()?;
        let (mut one, mut other) = (
            bytes_of(&rest, &url).await?,
            bytes_of(&rest, &location).await?,
        );
        one.merge(&mut other)?;
        let merged = to_json(&one.hydrate(None), Types::Plain);
        ensure!(merged["fork"] == "a" && merged["origin"] == "b");
        // It is a document like any other: a tab edits it, and all came at one time.
        let id = DocumentId::new(location.rsplit('/').next().unwrap_or_default())?;
        let mut tab = Client::join(
            server.address(),
            "tab-fork",
            Replica::new(id, ActorId::random()),
        )
        .await?;
        while tab.replica().heads().is_empty() {
            ensure!(
                tab.receive(Instant::now() + Duration::from_secs(10), drop)
                    .await?
            );
        }
        tab.edit(|doc| doc.put(ROOT, "tab", 1)).await?;
        tab.settle().await?;
        ensure!(rest.get(&format!("{location}/value/tab")).await?.json()? == 1);
        let told = pages(&rest, &location, 100, "oldest").await?;
        ensure!(
            told[0]["receivedAt"] == told[3]["receivedAt"] && told[0]["receivedAt"].is_string()
        );
        anyhow::Ok(made)
    };
    let made = runtime.block_on(forks).unwrap();
    // It was durable when it was answered.
    server.kill().unwrap();
    server.restart().unwrap();
    let rest = Rest::new(server.address());
    for (location, etag) in made {
        let read = runtime.block_on(rest.get(&location)).unwrap();
        assert_eq!(read.etag.as_deref(), Some(etag.as_str()));
    }
}
