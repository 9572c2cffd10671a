//! Which changes belong together, and what is undone or redone next.

use std::collections::VecDeque;

use automerge::ChangeHash;

/// Steps that can be undone, per document; the oldest goes first.
pub const MAX_STEPS: usize = 1_000;
/// Changes in a step; a run that is longer goes on in the next step.
pub const MAX_CHANGES_PER_STEP: usize = 1_000;

/// What a person can undo and redo, as groups of change hashes.
///
/// Every own change is [`record`](Self::record)ed. To undo: hand [`next_undo`](Self::next_undo) to
/// [`Replica::undo`](crate::Replica::undo), and what that returns to [`undone`](Self::undone); to redo,
/// likewise with [`next_redo`](Self::next_redo) and [`redone`](Self::redone).
#[derive(Clone, Debug, Default)]
pub struct UndoStack {
    undo: VecDeque<Vec<ChangeHash>>,
    redo: Vec<Vec<ChangeHash>>,
    /// Whether the last step is over: nothing is added to a step that was undone and redone.
    sealed: bool,
}

impl UndoStack {
    /// Nothing to undo.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a new change. With `continues` it belongs to the last step, as a letter does to the word before
    /// it. What could be redone no longer can.
    pub fn record(&mut self, hash: ChangeHash, continues: bool) {
        self.redo.clear();
        let sealed = std::mem::replace(&mut self.sealed, false);
        match self.undo.back_mut() {
            Some(step) if continues && !sealed && step.len() < MAX_CHANGES_PER_STEP => {
                step.push(hash);
            }
            _ => self.push(vec![hash]),
        }
    }

    /// The next change begins a step of its own.
    pub fn seal(&mut self) {
        self.sealed = true;
    }

    /// The changes to undo next, oldest first.
    pub fn next_undo(&self) -> Option<&[ChangeHash]> {
        self.undo.back().map(Vec::as_slice)
    }

    /// The changes whose undo is the next redo.
    pub fn next_redo(&self) -> Option<&[ChangeHash]> {
        self.redo.last().map(Vec::as_slice)
    }

    /// Whether there is a step to undo.
    pub fn can_undo(&self) -> bool {
        !self.undo.is_empty()
    }

    /// Whether there is a step to redo.
    pub fn can_redo(&self) -> bool {
        !self.redo.is_empty()
    }

    /// The next undo was made, by the change `made`; by none when others had left nothing of the step.
    pub fn undone(&mut self, made: Option<ChangeHash>) {
        self.sealed = true;
        if self.undo.pop_back().is_some() {
            self.redo.extend(made.map(|hash| vec![hash]));
        }
    }

    /// The next redo was made, by the change `made`.
    pub fn redone(&mut self, made: Option<ChangeHash>) {
        self.sealed = true;
        if self.redo.pop().is_some()
            && let Some(hash) = made
        {
            self.push(vec![hash]);
        }
    }

    fn push(&mut self, step: Vec<ChangeHash>) {
        self.undo.push_back(step);
        if self.undo.len() > MAX_STEPS {
            self.undo.pop_front();
        }
    }
}
