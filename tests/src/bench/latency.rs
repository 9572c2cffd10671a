//! How long one writer waits for an acknowledgement, against one sync of the same file system.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::process::start_concord;
use super::stats::Spread;
use super::tab::{Part, Tab, new_document};
use super::table::Row;
use super::{Bases, Settings};

/// Acknowledgements, and syncs, in one round.
const SAMPLES: usize = 300;

/// Bytes written before each sync: about one change with its record.
const WRITTEN_BYTES: usize = 256;

/// The file system's page.
const PAGE_BYTES: usize = 4096;

/// How much longer than one sync an acknowledgement may take, in milliseconds.
const BUDGET_MILLIS: f64 = 1.0;

/// Measures it: medians of a round, and of the rounds.
pub async fn measure(settings: &Settings, bases: &Bases) -> Result<Vec<Row>> {
    let samples = settings.size(SAMPLES, 5);
    let (mut acknowledged, mut synced) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        let server = start_concord()?;
        let script = Arc::new(bases.small.script(1, samples)?);
        let part = Part {
            script,
            writer: Some(0),
            window: 1,
            answers: true,
        };
        let mut tab = Tab::open(
            &server.websocket_url(),
            &new_document(),
            &bases.small,
            true,
            part,
        )
        .await?;
        let mut times = Vec::new();
        for _ in 0..samples {
            times.push(tab.type_one().await?);
        }
        acknowledged.push(median_millis(&times));
        // Beside the data, so that it is the same file system under the same conditions.
        synced.push(median_millis(&sync_times(
            &server.data().join("bench-sync"),
            samples,
        )?));
    }
    let over = Spread::of(
        acknowledged
            .iter()
            .zip(&synced)
            .map(|(acknowledged, synced)| acknowledged - synced),
    );
    let show = |millis: &[f64]| {
        Spread::of(millis.iter().copied()).show(|millis| format!("{millis:.2} ms"))
    };
    Ok(vec![Row {
        what: "acknowledgement: one writer, one change at a time".to_owned(),
        concord: show(&acknowledged),
        baseline: format!("one fdatasync of {WRITTEN_BYTES} B: {}", show(&synced)),
        ratio: over.show(|millis| format!("{millis:+.2} ms")),
        budget: Some((
            "≤ one fsync + 1 ms".to_owned(),
            over.median <= BUDGET_MILLIS,
        )),
    }])
}

/// Overwrites a file that has its length already, a page of its own each time: the cheapest sync there is,
/// since the file system has nothing to note but the data, and no earlier write of the page to wait for.
fn sync_times(path: &Path, samples: usize) -> Result<Vec<Duration>> {
    let mut file = File::create_new(path)?;
    file.write_all(&vec![0; samples * PAGE_BYTES])?;
    file.sync_all()?;
    let mut times = Vec::new();
    for sample in 0..samples {
        file.seek(SeekFrom::Start((sample * PAGE_BYTES) as u64))?;
        let started = Instant::now();
        file.write_all(&[7; WRITTEN_BYTES])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    std::fs::remove_file(path)?;
    Ok(times)
}

fn median_millis(times: &[Duration]) -> f64 {
    Spread::of(times.iter().map(Duration::as_secs_f64)).median * 1e3
}
