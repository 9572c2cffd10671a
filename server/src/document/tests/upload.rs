use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, Automerge, ObjType, ROOT, ReadDoc as _};
use concord_shared::change::{change_hash, decode_document};
use concord_shared::ids::{DocumentId, PrincipalId};
use concord_shared::limits::Limits;
use concord_shared::reader::{Reader, push_uleb};

use super::{ALICE, Bench, greeting};
use crate::document::actor::{Input, PeerMessage};
use crate::document::append::Append;
use crate::store::Write;

/// Columns of a document's ops.
mod column {
    pub(super) const KEY_ACTOR: u64 = 0x11;
    pub(super) const KEY_COUNTER: u64 = 0x13;
    pub(super) const ID_COUNTER: u64 = 0x23;
    pub(super) const VALUE: u64 = 0x57;
}

/// The document chunk with other bytes in some columns of its ops, and a right checksum.
fn with_op_columns(document: &[u8], replace: &[(u64, &[u8])]) -> Vec<u8> {
    let mut rest = Reader::new(&document[9..]);
    let length = rest.uleb("length").unwrap();
    let data = rest.take(length, "data").unwrap();
    let mut rest = Reader::new(data);
    for _ in 0..rest.uleb("actors").unwrap() {
        rest.prefixed(usize::MAX, "actor").unwrap();
    }
    rest.hashes(usize::MAX, "heads").unwrap();
    let mut new = data[..rest.offset()].to_vec();
    let mut table = || -> Vec<(u64, u64)> {
        let count = rest.uleb("columns").unwrap();
        let mut entry = || (rest.uleb("spec").unwrap(), rest.uleb("length").unwrap());
        (0..count).map(|_| entry()).collect()
    };
    let (changes, ops) = (table(), table());
    let change_bytes = changes.iter().map(|(_, length)| length).sum();
    let change_bytes = rest.take(change_bytes, "change columns").unwrap();
    let mut columns = Vec::new();
    for (spec, length) in ops {
        let old = rest.take(length, "column").unwrap();
        let found = replace.iter().find(|(replaced, _)| *replaced == spec);
        columns.push((spec, found.map_or(old, |(_, new)| new)));
    }
    let mut write_table = |table: Vec<(u64, u64)>| {
        push_uleb(&mut new, table.len() as u64);
        for (spec, length) in table {
            push_uleb(&mut new, spec);
            push_uleb(&mut new, length);
        }
    };
    write_table(changes);
    write_table(columns.iter().map(|(s, b)| (*s, b.len() as u64)).collect());
    new.extend_from_slice(change_bytes);
    for (_, bytes) in &columns {
        new.extend_from_slice(bytes);
    }
    new.extend_from_slice(rest.take_rest());

    let mut chunk = document[..9].to_vec();
    push_uleb(&mut chunk, new.len() as u64);
    chunk.extend(new);
    let hash = change_hash(&chunk);
    chunk[4..8].copy_from_slice(&hash.0[..4]);
    chunk
}

fn text(document: &Automerge) -> String {
    let (_, text) = document.get(ROOT, "text").unwrap().unwrap();
    document.text(text).unwrap()
}

/// A document chunk whose ops are in another order than its changes put them has the same changes and
/// heads. What is stored, and sent to whoever comes later, is what the changes say.
#[test]
fn an_upload_with_elements_out_of_order_is_stored_as_its_changes_say() {
    let mut author = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    let object = author.put_object(ROOT, "text", ObjType::Text).unwrap();
    author.splice_text(&object, 0, 0, "ab").unwrap();
    let swapped = with_op_columns(
        &author.save(),
        &[
            // The ops 1, 3, 2; behind nothing, behind 2, at the beginning.
            (column::ID_COUNTER, &[0x7d, 1, 2, 0x7f]),
            (column::KEY_ACTOR, &[0, 1, 0x7f, 0, 0, 1]),
            (column::KEY_COUNTER, &[0, 1, 0x7e, 2, 0x7e]),
            (column::VALUE, b"ba"),
        ],
    );
    // For the tests of what is imported and stored.
    let fixture = "../tests/fixtures/elements-out-of-order.automerge";
    assert_eq!(swapped, std::fs::read(fixture).unwrap());
    let loaded = Automerge::load(&swapped).unwrap();
    assert_eq!(
        (text(&loaded), loaded.get_heads()),
        ("ba".to_owned(), author.get_heads())
    );

    let changes = decode_document(&swapped.into(), &Limits::default()).unwrap();
    let message = PeerMessage {
        principal: PrincipalId::anonymous(),
        storage: None,
        is_request: false,
        sync: greeting(&[]),
        changes,
        is_document: true,
        may_write: true,
    };
    let mut appends = Bench::new()
        .input(Input::Message(ALICE, Box::new(message)))
        .appends;
    let Some(upload @ Append::Upload { .. }) = appends.pop() else {
        panic!("not an upload")
    };
    let Write::Snapshot { snapshot, .. } = upload.into_write(DocumentId::from_uuid([1; 16])) else {
        panic!("not a snapshot")
    };
    let stored = Automerge::load(&snapshot).unwrap();
    assert_eq!(
        (text(&stored), stored.get_heads()),
        ("ab".to_owned(), author.get_heads())
    );
}
