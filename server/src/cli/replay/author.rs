//! Making a trace's transactions in an Automerge document, each at the version that its author saw.

use automerge::{
    ActorId, AutoCommit, AutomergeError, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, TextEncoding,
    Value, transaction::Transactable,
};

use super::trace::Transaction;

/// The key of the root under which the text lies.
const TEXT_KEY: &str = "text";

/// An empty document whose text positions count code points, as traces do.
pub(super) fn empty(actor: ActorId) -> AutoCommit {
    AutoCommit::new_with_encoding(TextEncoding::UnicodeCodePoint).with_actor(actor)
}

/// Makes the text object with what the trace starts from, for one commit.
pub(super) fn start(doc: &mut AutoCommit, content: &str) -> Result<(), AutomergeError> {
    let text = doc.put_object(ROOT, TEXT_KEY, ObjType::Text)?;
    doc.splice_text(&text, 0, 0, content)
}

/// The text object, if it has arrived.
pub(super) fn text_object(doc: &AutoCommit) -> Option<ObjId> {
    match doc.get(ROOT, TEXT_KEY) {
        Ok(Some((Value::Object(ObjType::Text), id))) => Some(id),
        _ => None,
    }
}

/// The text's content; empty if there is none.
pub(super) fn content(doc: &AutoCommit) -> String {
    text_object(doc)
        .and_then(|text| doc.text(text).ok())
        .unwrap_or_default()
}

/// Makes `transaction`'s edits as one change at the version `parents` and returns the version after it,
/// which is `parents` itself where the edits change nothing.
pub(super) fn write(
    doc: &mut AutoCommit,
    text: &ObjId,
    parents: &[ChangeHash],
    transaction: &Transaction,
) -> Result<Vec<ChangeHash>, AutomergeError> {
    let mut heads = doc.get_heads();
    heads.sort_unstable();
    // Editing an old version makes Automerge look through the text's history: only where it must.
    let elsewhere = heads != parents;
    if elsewhere {
        doc.isolate(parents);
    }
    let edited = transaction
        .edits
        .iter()
        .try_for_each(|edit| doc.splice_text(text, edit.0, edit.1.cast_signed(), &edit.2));
    if edited.is_err() {
        doc.rollback();
    }
    let hash = doc.commit();
    if elsewhere {
        doc.integrate();
    }
    edited?;
    Ok(hash.map_or_else(|| parents.to_vec(), |hash| vec![hash]))
}

/// The versions after transactions that are done, which name the versions before later ones.
#[derive(Debug)]
pub(super) struct Versions {
    start: Vec<ChangeHash>,
    after: Vec<Option<Vec<ChangeHash>>>,
}

impl Versions {
    /// For `transactions` transactions that start at `start`.
    pub(super) fn new(start: Vec<ChangeHash>, transactions: usize) -> Self {
        Self {
            start,
            after: vec![None; transactions],
        }
    }

    /// The merge of `parents`, sorted, or `None` while one of them is not done.
    pub(super) fn before(&self, parents: &[usize]) -> Option<Vec<ChangeHash>> {
        if parents.is_empty() {
            return Some(self.start.clone());
        }
        let mut merged = Vec::new();
        for &parent in parents {
            merged.extend_from_slice(self.after.get(parent)?.as_ref()?);
        }
        merged.sort_unstable();
        merged.dedup();
        Some(merged)
    }

    /// Notes the version after `transaction`.
    pub(super) fn done(&mut self, transaction: usize, after: Vec<ChangeHash>) {
        if let Some(slot) = self.after.get_mut(transaction) {
            *slot = Some(after);
        }
    }
}
