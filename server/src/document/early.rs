//! Serving a joiner before the document is open.
//!
//! Opening reads and indexes the change graph, which for a long history is many times larger than the
//! snapshot. A peer that has nothing needs none of that: what it gets are the stored bytes, and the
//! heads that go with them are in the snapshot's own header and in the few changes since.

use automerge::ChangeHash;
use bytes::Bytes;
use concord_shared::ids::DocumentId;
use concord_shared::reader::{ReadError, Reader};

use super::actor::PeerMessage;
use super::assemble::{self, AssembleError};
use super::graph::Index;
use super::opening;
use super::sync::{Changes, Outgoing};
use crate::store::Store;

/// Whether the message is of a peer that has nothing of the document and reads whole documents.
pub fn is_joiner(message: &PeerMessage) -> bool {
    message.sync.heads.is_empty() && message.changes.is_empty() && message.sync.flags.is_some()
}

/// The sync message with all of a stored document, and how many changes that are. `None` when the
/// document has no snapshot: then opening it is as cheap. Blocks.
pub fn whole(
    store: &dyn Store,
    document: &DocumentId,
) -> Result<Option<(Index, Bytes)>, AssembleError> {
    let Some((base, snapshot)) = store.snapshot(document)? else {
        return Ok(None);
    };
    let Ok(mut heads) = document_heads(&snapshot) else {
        return Ok(None);
    };
    let mut chunks = vec![snapshot];
    let mut index = base;
    for record in store.log(document, base, u64::MAX, u64::MAX)? {
        for bytes in record.changes {
            let change = opening::stored_change(index, &bytes)?;
            heads.retain(|head| !change.deps.contains(head));
            heads.push(change.hash);
            chunks.push(bytes);
            index += 1;
        }
    }
    heads.sort_unstable();
    let Ok(to) = Index::try_from(index) else {
        return Ok(None);
    };
    let outgoing = Outgoing {
        v2: true,
        to,
        need: Vec::new(),
        have: None,
        changes: Changes::Since(0),
    };
    Ok(Some((to, assemble::message(&outgoing, &heads, &chunks))))
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
