//! `concord record` at a running server.

use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, ROOT};
use concord_client_wasm::Replica;
use concord_shared::ids::DocumentId;
use concord_tests::client::Client;
use concord_tests::replay::{Ending, Recording};
use concord_tests::server_process::ServerProcess;

use super::histories::{concord, errors, now_ms, same, text};

/// How long what must happen may take.
const WAIT: Duration = Duration::from_secs(30);

/// Ends the process, however the test ends.
struct Recorder(Child);

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for_lines(path: &Path, lines: usize) -> Result<()> {
    let deadline = Instant::now() + WAIT;
    loop {
        let there = std::fs::read_to_string(path).unwrap_or_default();
        if there.lines().count() >= lines {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not {lines} lines:\n{there}");
        sleep(Duration::from_millis(10));
    }
}

/// What was there has no time; what comes has one; and every line is in the file when the next change is made,
/// whoever kills the recorder then.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_recording_has_each_change_as_it_comes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = ServerProcess::start()?;
    let url = server.websocket_url();
    let id = DocumentId::from_uuid([5; 16]);
    let replica = Replica::new(id.clone(), ActorId::random());
    let mut writer = Client::join(server.address(), "writer", replica).await?;
    for at in 0..5 {
        writer.edit(|doc| doc.put(ROOT, "at", at)).await?;
    }
    writer.settle().await?;

    let start = |name: &str, more: &[&str]| -> Result<_> {
        let file = folder.path().join(name);
        let mut command = concord(&["record", "--from", &url, id.as_str(), "--to", text(&file)])?;
        let child = command.args(more).stdout(Stdio::piped()).spawn()?;
        Ok((file, Recorder(child)))
    };
    let (killed, mut killed_child) = start("killed.recording", &[])?;
    let (ended, mut ended_child) = start("ended.recording", &["--for", "4"])?;
    for file in [&killed, &ended] {
        wait_for_lines(file, 1 + 5)?;
    }
    let before = now_ms()?;
    for at in 5..25_i64 {
        writer.edit(|doc| doc.put(ROOT, "at", at)).await?;
        writer.settle().await?;
        wait_for_lines(&killed, 2 + at as usize)?;
    }
    killed_child.0.kill()?;
    let after = now_ms()?;
    assert!(ended_child.0.wait()?.success());

    let heads = writer.replica().heads();
    for (file, ending) in [(killed, Ending::Open), (ended, Ending::Closed)] {
        let loaded = Recording::load(&file)?;
        assert_eq!(loaded.ending, ending);
        let recording = loaded.recording;
        assert_eq!((recording.len(), recording.heads()), (25, heads.clone()));
        let times = recording.changes().iter().map(|change| change.arrived_ms);
        for (place, time) in times.enumerate() {
            let is_as_made = match time {
                None => place < 5,
                Some(time) => place >= 5 && (before..=after).contains(&time),
            };
            assert!(is_as_made, "change {place}: {time:?}");
        }
        let report = same(&[text(&file)])?;
        assert_eq!(report["whole"], ending == Ending::Closed);
    }

    let nobody = folder.path().join("nothing.recording");
    let other = DocumentId::from_uuid([6; 16]);
    let output = concord(&[
        "record",
        "--from",
        &url,
        other.as_str(),
        "--to",
        text(&nobody),
    ])?;
    let output = { output }.output()?;
    assert!(!output.status.success() && errors(&output).contains("does not give us"));
    assert!(!nobody.exists(), "nothing was recorded");
    Ok(())
}
