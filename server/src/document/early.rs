//! Serving a joiner before the document is open.
//!
//! Opening reads and indexes the change graph, which for a long history is many times larger than the
//! snapshot. A peer that has nothing needs none of that: what it gets are the stored bytes, and the
//! heads that go with them are in the snapshot's own header and in the few changes since.

use automerge::ChangeHash;
use automerge::sync::MessageFlags;
use bytes::Bytes;
use concord_shared::ids::DocumentId;
use concord_shared::reader::{ReadError, Reader};

use super::actor::PeerMessage;
use super::assemble::{self, AssembleError};
use super::graph::Index;
use super::opening;
use super::sync::{Changes, Haves, Outgoing};
use crate::store::{Store, changes_of};

/// Whether the message is of a peer that has nothing of the document and takes whole documents.
pub fn is_joiner(message: &PeerMessage) -> bool {
    let takes_documents = |flags: MessageFlags| !flags.contains(MessageFlags::READ_ONLY);
    let sync = &message.sync;
    sync.heads.is_empty() && message.changes.is_empty() && sync.flags.is_some_and(takes_documents)
}

/// A stored document, as far as one message has room for it.
pub struct Whole {
    /// How many of its changes that are: all, unless the tail is too long.
    pub to: Index,
    heads: Vec<ChangeHash>,
    chunks: Vec<Bytes>,
}

/// A stored document as one message. `None` when the document has no snapshot: then opening it is as cheap. Blocks.
pub fn whole(
    store: &dyn Store,
    document: &DocumentId,
    most_bytes: usize,
) -> Result<Option<Whole>, AssembleError> {
    let Some(contents) = store.contents(document)? else {
        return Ok(None);
    };
    let Some(snapshot) = contents.snapshot else {
        return Ok(None);
    };
    let Ok(mut heads) = document_heads(&snapshot) else {
        return Ok(None);
    };
    let mut bytes = snapshot.len();
    let mut chunks = vec![snapshot];
    let mut index = contents.base;
    for change in changes_of(contents.tail) {
        bytes = bytes.saturating_add(change.len());
        if bytes > most_bytes {
            break;
        }
        let parsed = opening::stored_change(index, &change)?;
        heads.retain(|head| !parsed.deps.contains(head));
        heads.push(parsed.hash);
        chunks.push(change);
        index += 1;
    }
    heads.sort_unstable();
    let Ok(to) = Index::try_from(index) else {
        return Ok(None);
    };
    Ok(Some(Whole { to, heads, chunks }))
}

impl Whole {
    /// The sync message that has it.
    pub fn message(&self, read_only: bool) -> Bytes {
        let outgoing = Outgoing {
            v2: true,
            read_only,
            reset: false,
            to: self.to,
            need: Vec::new(),
            have: Haves::Heads,
            changes: Changes::Since(0),
        };
        assemble::message(&outgoing, &self.heads, &self.chunks)
    }
}

/// The heads in a document chunk's header.
fn document_heads(chunk: &[u8]) -> Result<Vec<ChangeHash>, ReadError> {
    let mut reader = Reader::new(chunk);
    reader.take(9, "magic, checksum and type")?;
    reader.uleb("length")?;
    for _ in 0..reader.uleb("actors")? {
        reader.prefixed(usize::MAX, "actor")?;
    }
    let heads = reader.uleb("heads")?;
    (0..heads).map(|_| reader.hash("head")).collect()
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable as _;
    use automerge::{AutoCommit, ROOT};

    use super::*;

    #[test]
    fn heads_are_read_from_a_saved_document() {
        let mut one = AutoCommit::new();
        one.put(ROOT, "a", 1).expect("put");
        let mut two = one.fork();
        one.put(ROOT, "b", 1).expect("put");
        two.put(ROOT, "c", 1).expect("put");
        one.merge(&mut two).expect("merge");
        let mut heads = document_heads(&one.save()).expect("a whole chunk");
        heads.sort_unstable();
        assert_eq!((heads.len(), &heads), (2, &one.get_heads()));
        assert!(document_heads(&one.save()[..40]).is_err());
    }
}
