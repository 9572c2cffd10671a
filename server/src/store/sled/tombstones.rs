//! Deleted documents.
//!
//! A tombstone hides its document: every read of one looks for it first. It lies in a key space of its own, so that
//! they can be listed without going through the documents; and what it hides stays as it is, so that it can be taken
//! away again.
//!
//! *Purging* is marked in the tombstone, durably, and from then on nothing of the document counts. Then the
//! [sweep](super::sweep) removes its keys a little at a time, and says so in the tombstone. After a crash in between
//! the mark is found by going through the tombstones, and the sweep begins again: removing what is removed does no harm.
//!
//! ```text
//! value: u64 when it was deleted (ms) ‖ u64 its bytes then ‖ state ‖ who deleted it, UTF-8 (‖ 00 ‖ who purged it, UTF-8)
//! state: 00 deleted, 01 purged and not swept, 02 swept, 03 gone from the files, too
//! ```

use bytes::Buf as _;
use concord_shared::ids::{DocumentId, PrincipalId};

use super::{Database, keys, read::Fail, values};
use crate::store::{Part, Problem, Remains, StoreError, Tombstone};

const DELETED: u8 = 0;
const PURGED: u8 = 1;
const SWEPT: u8 = 2;
const ERASED: u8 = 3;

/// The value of a tombstone.
pub(super) fn seal(key: &[u8], tombstone: &Tombstone) -> Vec<u8> {
    let state = match (tombstone.purged, tombstone.remains) {
        (false, _) => DELETED,
        (true, Remains::Store) => PURGED,
        (true, Remains::Files) => SWEPT,
        (true, Remains::Nothing) => ERASED,
    };
    let mut payload = tombstone.at_ms.to_le_bytes().to_vec();
    payload.extend_from_slice(&tombstone.bytes.to_le_bytes());
    payload.push(state);
    payload.extend_from_slice(tombstone.by.as_str().as_bytes());
    if let Some(purged_by) = &tombstone.purged_by {
        payload.push(0);
        payload.extend_from_slice(purged_by.as_str().as_bytes());
    }
    values::seal(key, &payload)
}

/// The tombstone that a value is.
pub(super) fn unseal(key: &[u8], value: &[u8]) -> Result<Tombstone, Problem> {
    let part = Part::Tombstone;
    let payload = values::unseal(key, value, part)?;
    decode(payload).ok_or(Problem::Malformed { part })
}

fn decode(mut payload: &[u8]) -> Option<Tombstone> {
    let at_ms = payload.try_get_u64_le().ok()?;
    let bytes = payload.try_get_u64_le().ok()?;
    let (purged, remains) = match payload.try_get_u8().ok()? {
        DELETED => (false, Remains::Store),
        PURGED => (true, Remains::Store),
        SWEPT => (true, Remains::Files),
        ERASED => (true, Remains::Nothing),
        _ => return None,
    };
    // No name has a byte 00.
    let names = payload.splitn(2, |byte| *byte == 0);
    let mut names = names.map(|name| PrincipalId::new(std::str::from_utf8(name).ok()?).ok());
    Some(Tombstone {
        at_ms,
        by: names.next()??,
        purged_by: match names.next() {
            None => None,
            Some(name) => Some(name.filter(|_| purged)?),
        },
        bytes,
        purged,
        remains,
    })
}

impl Database {
    /// Whether a document is to be shown to nobody. A tombstone that is damaged hides it, too.
    pub(super) fn is_deleted(&self, document: &DocumentId) -> Result<bool, Fail> {
        Ok(self.db.contains_key(keys::tombstone(document))?)
    }

    pub(super) fn read_tombstone(&self, document: &DocumentId) -> Result<Option<Tombstone>, Fail> {
        let key = keys::tombstone(document);
        let value = self.db.get(&key)?;
        Ok(value.map(|value| unseal(&key, &value)).transpose()?)
    }

    pub(super) fn list_tombstones(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<(DocumentId, Tombstone)>, StoreError> {
        let (low, high) = keys::all_tombstones();
        // No id goes on with a byte 00.
        let low = after.map_or(low.to_vec(), |after| {
            [&*keys::tombstone(after), &[0]].concat()
        });
        let mut found = Vec::new();
        let mut entries = self.db.range(low.as_slice()..high.as_slice());
        while found.len() < limit
            && let Some(entry) = entries.next()
        {
            let (key, value) = entry.map_err(super::read_failed)?;
            match (keys::tombstone_of(&key), unseal(&key, &value)) {
                (Some(document), Ok(tombstone)) => found.push((document, tombstone)),
                // Must not hide the others.
                (_, tombstone) => {
                    tracing::error!(key = ?&*key, ?tombstone, "a tombstone can't be read");
                }
            }
        }
        Ok(found)
    }

    /// Documents that are purged and were not swept to their end.
    pub(super) fn unswept(&self) -> Result<Vec<DocumentId>, StoreError> {
        let mut tombstones = self.list_tombstones(None, usize::MAX)?;
        tombstones.retain(|(_, tombstone)| tombstone.purged && tombstone.remains == Remains::Store);
        Ok(tombstones
            .into_iter()
            .map(|(document, _)| document)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_tombstones() {
        let tombstone = |purged, remains| Tombstone {
            at_ms: 0x0196_0000_0000,
            by: PrincipalId::new("ann").unwrap(),
            bytes: 0x1234,
            purged,
            purged_by: None,
            remains,
        };
        let golden = |state: u8, tombstone: &Tombstone| {
            let value = seal(b"key", tombstone);
            let names = match tombstone.purged_by {
                None => "616e6e",
                Some(_) => "616e6e00626f",
            };
            let payload = format!("0100000000960100003412000000000000{state:02x}{names}");
            assert_eq!(hex::encode(&value[..value.len() - 4]), payload);
            assert_eq!(unseal(b"key", &value).unwrap(), *tombstone);
        };
        golden(0, &tombstone(false, Remains::Store));
        golden(1, &tombstone(true, Remains::Store));
        golden(2, &tombstone(true, Remains::Files));
        golden(3, &tombstone(true, Remains::Nothing));
        let purged_by = PrincipalId::new("bo").ok();
        for (state, remains) in [(1, Remains::Store), (2, Remains::Files)] {
            let purged_by = purged_by.clone();
            golden(
                state,
                &Tombstone {
                    purged_by,
                    ..tombstone(true, remains)
                },
            );
        }
        let malformed = Problem::Malformed {
            part: Part::Tombstone,
        };
        for payload in [
            &b""[..],
            &[0; 8],
            &[0; 16],
            &[0; 17],
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x04ann",
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\xff",
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01ann\0",
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01ann\0bo\0",
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x00ann\0bo",
        ] {
            let value = values::seal(b"key", payload);
            assert_eq!(
                unseal(b"key", &value),
                Err(malformed.clone()),
                "{payload:?}"
            );
        }
    }
}
