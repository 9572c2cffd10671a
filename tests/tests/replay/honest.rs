//! Random histories with all that Automerge's API can make, in random orders.

use anyhow::{Context as _, Result};
use concord_tests::forge::honest::history;
use concord_tests::forge::source::Source;
use concord_tests::replay::{AutomergeSubject, Builder, Writer, check, read};

/// Histories; each is one from its seed.
const HISTORIES: u64 = 40;

#[test]
fn honest_histories_come_to_one_state_out_of_a_recording() -> Result<()> {
    let mut concurrent = 0;
    for seed in 0..HISTORIES {
        let made = history(&mut Source::seeded(seed), 40);
        let mut builder = Builder::new(None);
        for change in made.changes {
            builder.insert(change, None);
        }
        let recording = builder.finish()?;
        let mut writer = Writer::new(Vec::new(), None)?;
        for change in recording.changes() {
            writer.change(change.bytes(), None, None)?;
        }
        let read = read(writer.finish()?.as_slice()).with_context(|| format!("seed {seed}"))?;
        assert_eq!(read.recording, recording, "seed {seed}");
        check(&recording, 0..6, AutomergeSubject::default)
            .with_context(|| format!("seed {seed}"))?;
        concurrent += usize::from(recording.actors() > 1);
    }
    assert!(concurrent > 20, "{concurrent}");
    Ok(())
}
