//! What is held against a history: anything that takes changes and has a state.

use automerge::{Automerge, AutomergeError, ChangeHash, ReadDoc as _};

use super::content::Content;
use super::recording::Recorded;

/// A replica under test.
///
/// It is given a document's changes, each after its deps, in one order or another. Whoever has been given the same
/// changes must be in the same state. Implement it for your own replica, projection or cache, and give it to
/// [`check`](super::check).
pub trait Subject {
    /// What is compared. Whatever may depend on the order of arrival (caches, counters of messages) does not belong in it.
    type State: PartialEq;
    /// Why a change could not be applied.
    type Error: std::fmt::Display;

    /// Takes one change; its deps were taken before.
    fn apply(&mut self, change: &Recorded) -> Result<(), Self::Error>;

    /// Takes several. Who applies many at once more cheaply than one by one does that here.
    fn apply_all(&mut self, changes: &[&Recorded]) -> Result<(), Self::Error> {
        changes.iter().try_for_each(|change| self.apply(change))
    }

    /// The state after all that was taken.
    fn state(&mut self) -> Result<Self::State, Self::Error>;

    /// How two states differ, for people; [`None`] where there is nothing to say.
    fn difference(_one: &Self::State, _other: &Self::State) -> Option<String> {
        None
    }
}

/// Automerge itself.
#[derive(Debug, Default)]
pub struct AutomergeSubject(Automerge);

/// All that replicas of a document agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutomergeState {
    /// Ascending.
    pub heads: Vec<ChangeHash>,
    /// What can be read.
    pub content: Content,
}

/// Why Automerge did not take a change.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    /// It says so.
    #[error(transparent)]
    Automerge(#[from] AutomergeError),
    /// It took it and keeps it back: it thinks that deps are missing.
    #[error("{missing} changes that others depend on are missing")]
    MissingDeps {
        /// How many.
        missing: usize,
    },
}

impl AutomergeState {
    /// Of a document.
    pub fn of(document: &Automerge) -> Result<Self, SubjectError> {
        let missing = document.get_missing_deps(&[]).len();
        if missing > 0 {
            return Err(SubjectError::MissingDeps { missing });
        }
        let mut heads = document.get_heads();
        heads.sort_unstable();
        Ok(Self {
            heads,
            content: Content::of(document)?,
        })
    }

    /// How two states differ, for people; `None` if they do not.
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.heads != other.heads {
            return Some(format!(
                "heads {:?}, and {:?}",
                shown(&self.heads),
                shown(&other.heads)
            ));
        }
        self.content.difference(&other.content)
    }
}

fn shown(heads: &[ChangeHash]) -> Vec<String> {
    heads.iter().map(ToString::to_string).collect()
}

impl Subject for AutomergeSubject {
    type State = AutomergeState;
    type Error = SubjectError;

    fn apply(&mut self, change: &Recorded) -> Result<(), SubjectError> {
        self.apply_all(&[change])
    }

    fn apply_all(&mut self, changes: &[&Recorded]) -> Result<(), SubjectError> {
        let changes = changes.iter().map(|change| change.change().clone());
        Ok(self.0.apply_changes(changes.collect::<Vec<_>>())?)
    }

    fn state(&mut self) -> Result<AutomergeState, SubjectError> {
        AutomergeState::of(&self.0)
    }

    fn difference(one: &AutomergeState, other: &AutomergeState) -> Option<String> {
        one.difference(other)
    }
}
