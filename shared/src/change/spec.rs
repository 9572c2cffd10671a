//! Specifications of columns: id in the upper bits, then one bit for compression, then three for the type.
//!
//! Those of the ops are the same in a change and in a document, but that a change names the predecessors of its ops
//! and a document the successors, and a document the ops' own ids.

/// Set where a column's bytes are deflated.
pub(super) const COMPRESSED: u64 = 1 << 3;

/// The columns of a document that say what its changes are. Changes and ops count their ids apart.
pub(super) mod change {
    pub(in super::super) const ACTOR: u64 = 1;
    pub(in super::super) const SEQ: u64 = 3;
    pub(in super::super) const MAX_OP: u64 = 1 << 4 | 3;
    pub(in super::super) const TIME: u64 = 2 << 4 | 3;
    pub(in super::super) const MESSAGE: u64 = 3 << 4 | 5;
    pub(in super::super) const DEPS_COUNT: u64 = 4 << 4;
    pub(in super::super) const DEPS: u64 = 4 << 4 | 3;
    pub(in super::super) const EXTRA_META: u64 = 5 << 4 | 6;
    pub(in super::super) const EXTRA: u64 = 5 << 4 | 7;
}

/// The columns of ops.
pub(super) mod op {
    pub(in super::super) const OBJ_ACTOR: u64 = 1;
    pub(in super::super) const OBJ_COUNTER: u64 = 2;
    pub(in super::super) const KEY_ACTOR: u64 = 1 << 4 | 1;
    pub(in super::super) const KEY_COUNTER: u64 = 1 << 4 | 3;
    pub(in super::super) const KEY_TEXT: u64 = 1 << 4 | 5;
    /// In a document only.
    pub(in super::super) const ID_ACTOR: u64 = 2 << 4 | 1;
    /// In a document only.
    pub(in super::super) const ID_COUNTER: u64 = 2 << 4 | 3;
    pub(in super::super) const INSERT: u64 = 3 << 4 | 4;
    pub(in super::super) const ACTION: u64 = 4 << 4 | 2;
    pub(in super::super) const VALUE_META: u64 = 5 << 4 | 6;
    pub(in super::super) const VALUE: u64 = 5 << 4 | 7;
    /// In a change only.
    pub(in super::super) const PRED_COUNT: u64 = 7 << 4;
    /// In a change only.
    pub(in super::super) const PRED_ACTOR: u64 = 7 << 4 | 1;
    /// In a change only.
    pub(in super::super) const PRED_COUNTER: u64 = 7 << 4 | 3;
    /// In a document only.
    pub(in super::super) const SUCC_COUNT: u64 = 8 << 4;
    /// In a document only.
    pub(in super::super) const SUCC_ACTOR: u64 = 8 << 4 | 1;
    /// In a document only.
    pub(in super::super) const SUCC_COUNTER: u64 = 8 << 4 | 3;
    pub(in super::super) const EXPAND: u64 = 9 << 4 | 4;
    pub(in super::super) const MARK_NAME: u64 = 10 << 4 | 5;
}
