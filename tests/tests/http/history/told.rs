//! Each change, and what it changed.

use std::collections::BTreeMap;

use concord_shared::json::{from_rfc3339, is_same};

use super::*;

#[test]
fn each_change_is_told_and_its_patch_is_what_it_changed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for seed in seeds(WORLDS, LONG_WORLDS) {
        let told = told(&runtime, seed);
        told.with_context(|| format!("CONCORD_TEST_SEED={seed} replays it"))
            .unwrap();
    }
}

fn told(runtime: &tokio::runtime::Runtime, seed: u64) -> Result<()> {
    let mut server = ServerProcess::start()?;
    let began = now_ms();
    let (rest, id, url) = runtime.block_on(async {
        let mut world = World::new(&server, seed).await?;
        for _ in 0..STEPS {
            world.step().await?;
        }
        // More than the log keeps beside a snapshot.
        for _ in 0..16 {
            let words = noise(&mut world.random, NOISE);
            world.tabs[0].edit(|doc| edit(doc, 0, 0, &words)).await?;
        }
        world.exchange().await?;
        anyhow::Ok((world.rest.clone(), world.id.clone(), world.url.clone()))
    })?;
    let before = runtime.block_on(check(&rest, &url, began))?;
    compact(&mut server, &id)?;
    let rest = Rest::new(server.address());
    ensure!(
        runtime.block_on(check(&rest, &url, began))? == before,
        "compacted, all is told as before"
    );
    server.kill()?;
    // And of what is recorded from the directory every arrival is known.
    let file = tempfile::NamedTempFile::new()?;
    let path = file.path().with_extension("recording");
    let (data, to) = (
        server.data().to_str().context("a path")?,
        path.to_str().context("a path")?,
    );
    let recorded = Command::new(binary()?)
        .args(["record", "--data", data, id.as_str(), "--to", to])
        .output()?;
    let lines = std::fs::read_to_string(&path)?;
    std::fs::remove_file(&path)?;
    let said = String::from_utf8_lossy(&recorded.stdout).into_owned();
    ensure!(!said.contains("no time of arrival"), "{said}");
    let lines: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    for (change, line) in before.iter().zip(&lines[1..]) {
        let at = change["receivedAt"].as_str().and_then(from_rfc3339);
        ensure!(
            line["at"].as_i64() == at && at.is_some(),
            "{line} is {change}"
        );
        ensure!(line["by"] == change["principal"]);
    }
    Ok(())
}

/// Holds all that is told of the changes against Automerge.
async fn check(rest: &Rest, url: &str, began: i64) -> Result<Vec<Value>> {
    let doc = bytes_of(rest, url).await?;
    let changes = pages(rest, url, 7, "oldest").await?;
    let mut newest = pages(rest, url, 1000, "newest").await?;
    newest.reverse();
    ensure!(newest == changes, "the order is one");
    let known = doc.get_changes(&[]);
    ensure!(known.len() == changes.len());
    let known: BTreeMap<String, _> = known
        .iter()
        .map(|change| (change.hash().to_string(), change))
        .collect();
    let mut seen = Vec::new();
    let mut arrived = began;
    for (place, told) in changes.iter().enumerate() {
        let hash = told["hash"].as_str().context("a hash")?;
        let change = known[hash];
        let deps: Vec<String> = change.deps().iter().map(ToString::to_string).collect();
        ensure!(told["place"] == place && told["actor"] == change.actor_id().to_hex_string());
        ensure!(told["seq"] == change.seq() && told["ops"] == change.len());
        ensure!(
            told["startOp"] == change.start_op().get()
                && told["message"] == json!(change.message())
        );
        ensure!(told["deps"] == json!(deps) && deps.iter().all(|dep| seen.contains(dep)));
        seen.push(hash.to_owned());
        let made = told["time"].as_str().and_then(from_rfc3339).unwrap_or(0);
        ensure!(made == change.timestamp(), "{told}");
        ensure!(told["principal"] == "anonymous");
        let at = told["receivedAt"]
            .as_str()
            .and_then(from_rfc3339)
            .context("a time")?;
        ensure!(arrived <= at && at <= now_ms(), "{told}");
        arrived = at;

        for (parameter, types) in [("", Types::Plain), ("?types=tagged", Types::Tagged)] {
            let one = rest
                .get(&format!("{url}/changes/{hash}{parameter}"))
                .await?
                .good()?;
            let one = one.json()?;
            let mut whole = told.clone();
            whole["patch"] = one["patch"].clone();
            ensure!(whole == one, "{one} is {told}");
            let before = at_version(&doc, change.deps(), types);
            let after = at_version(&doc, &[change.hash()], types);
            let patched = applied(&before, &one["patch"])?;
            ensure!(is_same(&patched, &after), "{patched} is not {after}");
        }
    }
    Ok(changes)
}
