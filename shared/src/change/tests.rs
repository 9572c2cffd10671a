use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, ROOT};
use bytes::Bytes;

use super::*;
use crate::Limits;

#[test]
fn a_change_is_read_as_automerge_reads_it() {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    doc.put(ROOT, "key", "value").unwrap();
    doc.put(ROOT, "key", "other").unwrap();
    let theirs = doc.get_last_local_change().unwrap();
    let bytes = Bytes::copy_from_slice(theirs.raw_bytes());
    let chunks = parse_chunks(&bytes, &Limits::default()).unwrap();
    assert_eq!(
        chunks,
        [Chunk::Change(Change {
            bytes,
            hash: theirs.hash(),
            deps: theirs.deps().to_vec(),
            actor: theirs.actor_id().clone(),
            seq: 1,
            start_op: 1,
            ops: 2,
        })]
    );
}
