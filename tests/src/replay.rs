//! Recorded histories held against your own code, in your own test suite.
//!
//! `concord record` writes what a server received for a document, from production say, as a file. Keep that file
//! with your tests. What can be done with it:
//!
//! **Step by step**, looking at the JSON after each change. [`Replay::load`] takes a recording or an `.automerge`
//! file:
//!
//! ```
//! use automerge::{AutoCommit, ROOT, transaction::Transactable as _};
//! use concord_tests::replay::{Replay, Writer};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("board.recording");
//! // Where `concord record` is not at hand, any changes make a recording.
//! let mut board = AutoCommit::new();
//! let mut writer = Writer::new(std::fs::File::create(&path)?, None)?;
//! for (at_ms, date) in [(0, "2026-11-21"), (1500, "2026-11-28")] {
//!     board.put(ROOT, "date", date)?;
//!     board.commit();
//!     let change = board.get_last_local_change().expect("a change");
//!     writer.change(change.raw_bytes(), Some(at_ms), None)?;
//! }
//! writer.finish()?;
//!
//! let mut replay = Replay::load(&path)?;
//! while let Some(step) = replay.step()? {
//!     // What must hold after every change that was ever made to this document.
//!     let json = step.json()?;
//!     assert!(json["date"].is_string(), "change {} by {}", step.place, step.change.actor());
//! }
//! assert_eq!(replay.json()?["date"], "2026-11-28");
//! replay.seek(1)?;
//! assert_eq!(replay.json()?["date"], "2026-11-21");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **In many orders**: implement [`Subject`] for your own replica, projection or cache, and [`check`] gives it the
//! changes as they arrived and in random causal orders. It must come to one state; if it does not, the error
//! names the smallest beginning of the history at which two orders part, and the seed of the order, which makes
//! the same order again.
//!
//! ```
//! use automerge::{AutoCommit, ROOT, transaction::Transactable as _};
//! use concord_tests::replay::{Fault, Recorded, Recording, Subject, check};
//!
//! /// Shows whoever's change came last: wrong as soon as two write at once.
//! #[derive(Default)]
//! struct LastComeWins(Option<String>);
//!
//! impl Subject for LastComeWins {
//!     type State = Option<String>;
//!     type Error = std::convert::Infallible;
//!
//!     fn apply(&mut self, change: &Recorded) -> Result<(), Self::Error> {
//!         self.0 = Some(change.actor().to_string());
//!         Ok(())
//!     }
//!
//!     fn state(&mut self) -> Result<Self::State, Self::Error> {
//!         Ok(self.0.clone())
//!     }
//! }
//!
//! let mut ann = AutoCommit::new();
//! ann.put(ROOT, "title", "Draft")?;
//! let mut ben = ann.fork();
//! ann.put(ROOT, "title", "Minutes")?;
//! ben.put(ROOT, "title", "Agenda")?;
//! ann.merge(&mut ben)?;
//!
//! let recording = Recording::from_automerge(ann.save())?;
//! let fault = check(&recording, 0..20, LastComeWins::default).expect_err("it parts");
//! // The third change, the second one made on top of the first.
//! assert!(matches!(fault, Fault::Parted { parting, .. } if parting.prefix == 3));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The same from the command line, with Automerge itself and through a server: `concord replay FILE`. The format is in
//! PROTOCOL.md, "Recordings".

pub use concord_server::replay::file::{Writer, read};
pub use concord_server::replay::{
    AutomergeState, AutomergeSubject, Builder, ChangeError, Content, Ending, Fault, FileError,
    LoadError, Loaded, Order, Outcome, Parting, Player, Recorded, Recording, Replay, ReplayError,
    Step, Subject, check,
};
