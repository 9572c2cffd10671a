//! Promise: what is erased leaves the files while the server runs, and nobody loses anything by it, whenever it is killed.
//!
//! Writers type as in the other rounds. Beside them documents with random bytes are made and erased, so that the database is
//! written anew, beside some megabytes that take their time; the server is killed at a random moment of that, and goes on
//! with it when it is started again. In the end no file has any of the bytes, of a server that runs; each noted head is there.
//!
//! It can't pass by accident: the bytes are searched for, and found, before the server is told to erase them; kills that
//! left a rewrite half done are counted, and there must be some.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use concord_tests::files::is_found;
use serde_json::Value;

use super::*;

const MEGABYTE: usize = 1 << 20;

fn names(directory: &Path) -> Result<Vec<String>> {
    let names = fs::read_dir(directory)?.map(|entry| {
        let name = entry?.file_name();
        Ok(name.to_string_lossy().into_owned())
    });
    names.collect()
}

/// Makes a document of these bytes; the server has it on disk.
async fn make(server: &ServerProcess, id: &DocumentId, bytes: Vec<u8>) -> Result<()> {
    let replica = Replica::new(id.clone(), ActorId::random());
    let mut client = Client::join(server.address(), "makes", replica).await?;
    client.edit(|doc| doc.put(ROOT, "bytes", bytes)).await?;
    client.settle().await
}

fn url(server: &ServerProcess, id: &DocumentId) -> String {
    format!("http://{}/v1/documents/{id}", server.address())
}

async fn erase(server: &ServerProcess, id: &DocumentId) -> Result<()> {
    let erase = concord_tests::http_client().delete(format!("{}?now=true", url(server, id)));
    let erased = erase.send().await?;
    ensure!(erased.status() == 202, "{erased:?}");
    Ok(())
}

async fn state(server: &ServerProcess, id: &DocumentId) -> Result<Value> {
    let asked = concord_tests::http_client().get(format!("{}/deletion", url(server, id)));
    let told = asked.send().await?.error_for_status()?;
    let told: Value = serde_json::from_slice(&told.bytes().await?)?;
    Ok(told["state"].clone())
}

fn secret(random: &mut StdRng) -> (DocumentId, Vec<u8>) {
    let id = DocumentId::from_uuid(random.random());
    let needle: [u8; 32] = random.random();
    (id, needle.to_vec())
}

#[test]
fn nothing_is_lost_by_a_kill_while_the_database_is_written_anew() -> Result<()> {
    let rounds = if std::env::var_os("CONCORD_TEST_LONG").is_some() {
        60
    } else {
        10
    };
    let mut random = seeded();
    let runtime = Runtime::new()?;
    let mut server = ServerProcess::start()?;
    for _ in 0..6 {
        let id = DocumentId::from_uuid(random.random());
        let filler: Vec<u8> = (0..MEGABYTE).map(|_| random.random()).collect();
        runtime.block_on(make(&server, &id, filler))?;
    }
    let told: Told = Arc::default();
    let (mut secrets, mut half_done) = (Vec::new(), 0);
    for round in 0..rounds {
        if round > 0 {
            server.restart()?;
        }
        let writers = writers(&runtime, &server, round, &told);
        let (id, needle) = secret(&mut random);
        runtime.block_on(make(&server, &id, needle.clone()))?;
        ensure!(is_found(server.data(), &needle)?, "it was never there");
        runtime.block_on(erase(&server, &id))?;
        secrets.push((id, needle));
        let lifetime = Duration::from_millis(random.random_range(0..1500));
        std::thread::sleep(lifetime);
        server.kill()?;
        end(&runtime, writers);
        let mut left = names(server.data())?;
        left.retain(|name| name.starts_with("rewrite"));
        println!("round {round}: killed after {lifetime:?}; {left:?}");
        half_done += usize::from(!left.is_empty());
        // By turns it is opened here, and by the server itself.
        if round % 2 == 0 {
            ensure!(check(&server, &told)?.is_empty(), "round {round}");
        }
    }
    ensure!(
        half_done > 0,
        "no kill came while the database was written anew"
    );
    ensure!(count(&told) > 0, "nothing was acknowledged");

    // In the end it comes to its end, while writers go on.
    server.restart()?;
    let writers = writers(&runtime, &server, rounds, &told);
    let patience = std::time::Instant::now() + Duration::from_mins(2);
    for (id, needle) in &secrets {
        while runtime.block_on(state(&server, id))? != "erased" {
            ensure!(std::time::Instant::now() < patience, "{}", server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        ensure!(!is_found(server.data(), needle)?, "{id} is in the files");
    }
    ensure!(server.metric("concord_rewrites_total{result=\"ok\"}")? >= 1.0);
    let last = server.metric("concord_rewrite_last_timestamp_seconds")?;
    ensure!(last > 1.0e9, "{last}");
    server.kill()?;
    end(&runtime, writers);
    let lost = check(&server, &told).context("opening what is left")?;
    assert_eq!(lost, Vec::<String>::new());
    Ok(())
}
