//! Undo and redo of one person's changes, whatever others did since.
//!
//! A step is a few own changes that are undone together. [`Replica::undo`] makes one new change that takes
//! back what is left of them, and the undo of that change is the redo. Nothing is recorded while editing: what
//! a step did is read from its changes (`step`) when it is undone, and compared with the document as it
//! was and as it is (`inverse`, and `sequence` for lists and texts):
//!
//! - a key or list element that was written gets its former value back if what wins there is our own,
//!   and stays as it is if it is another's;
//! - a key or element that was deleted comes back if it is still missing;
//! - an element that was inserted goes if it is still there and nobody else wrote to it;
//! - a counter is counted back;
//! - an object that was made goes with all that is in it, whoever wrote that, and returns whole if it was deleted;
//! - marks stay: their undo would have to know which of several overlapping ones each letter owes its style to.
//!
//! What was deleted can't return in Automerge, only a copy of it can, under new ids. `alias` remembers
//! which, so that steps from before still find what they touched. It lives as long as the replica, as do the steps.
//!
//! A copy is put where its tombstone is, but between its former neighbours, as far as these are left: what
//! is inserted at a tombstone's position lands before all tombstones there, so their order says nothing about copies.
//!
//! A step of several changes that overwrote a key twice gives back the last value that was another's or from before.
//! Letters of another's that arrived between the changes of a step and were deleted by it come back too, but where the
//! letters around them went earlier, no version shows both: they come back beside these, not always between them.
//!
//! A deletion of ours that meets another's write gives nothing back: what they wrote is there.
//!
//! Costs: typing is undone in the time of the edit. What was deleted or overwritten in a list or text is looked
//! for in a pass over that object as it was, which in a text copies only the neighbourhood of what returns and ends
//! behind the last of it. Automerge can only walk an old version from its start: 100,000 letters are some 25 ms.
//!
//! When two persons delete the same words and both undo it, the words are there twice.

mod alias;
mod copy;
mod inverse;
mod item;
mod sequence;
mod stack;
mod step;

#[cfg(test)]
mod tests;

use automerge::{
    AutomergeError, ChangeHash,
    transaction::{CommitOptions, Transactable as _},
};

use super::Replica;
use inverse::Inverse;
use step::Step;

pub(crate) use alias::Aliases;
pub use stack::{MAX_CHANGES_PER_STEP, MAX_STEPS, UndoStack};

/// Why a step was not undone. The document is as before.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// A change that is not in the document.
    #[error("change {hash} is not in the document")]
    Missing {
        /// The change.
        hash: ChangeHash,
    },
    /// A change by another actor than this replica's.
    #[error("change {hash} was made by another actor")]
    NotOwn {
        /// The change.
        hash: ChangeHash,
    },
    /// An inverse edit that Automerge refused.
    #[error("undoing {changes} changes")]
    Edit {
        /// How many changes there were in the step.
        changes: usize,
        /// What Automerge found.
        source: Box<AutomergeError>,
    },
}

impl Replica {
    /// Takes back what is left of a step, its changes oldest first, by one new change; `None` when nothing is left.
    /// Undoing the new change is the redo, as a step of its own: with others in one, what it brought back would go.
    /// An open transaction is committed first.
    ///
    /// It commits by itself, since the ids that it remembers mean nothing unless the edits stay.
    pub fn undo(
        &mut self,
        step: &[ChangeHash],
        options: CommitOptions,
    ) -> Result<Option<ChangeHash>, UndoError> {
        let (doc, aliases) = self.parts();
        doc.commit();
        let read = Step::read(doc, step)?;
        let made = Inverse::new(doc, aliases, &read).run();
        self.settle(made, step.len(), options)
    }

    /// Makes a change of the open transaction, if it was made as a whole and has any edits; otherwise takes it back.
    fn settle(
        &mut self,
        made: Result<(), AutomergeError>,
        changes: usize,
        options: CommitOptions,
    ) -> Result<Option<ChangeHash>, UndoError> {
        let (doc, aliases) = self.parts();
        if made.is_ok() && doc.pending_ops() > 0 {
            aliases.keep();
            return Ok(doc.commit_with(options));
        }
        aliases.forget();
        doc.rollback();
        made.map(|()| None).map_err(|source| UndoError::Edit {
            changes,
            source: Box::new(source),
        })
    }
}
