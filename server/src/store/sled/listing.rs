//! Which documents there are, also where a part of that can't be read.

use concord_shared::ids::DocumentId;

use super::{Database, DocumentKeys, End, keys, tree::Tree};
use crate::store::{DocumentInfo, DocumentSummary, Ids, StoreError, Unlisted};

impl Database {
    /// Goes from document to document by seeking past each one's last key.
    pub(super) fn list(&self, ids: &Ids, limit: usize) -> Result<Vec<DocumentInfo>, StoreError> {
        let mut walk = self.walk(ids);
        let mut found = Vec::new();
        while found.len() < limit {
            let Some(document) = walk.next_document() else {
                break;
            };
            found.extend(self.read_info(&document)?);
        }
        Ok(found)
    }

    /// What a listing tells of a document. `None` where it is deleted, or there is only something staged, which a crash
    /// left behind, or an access log.
    pub(super) fn read_info(
        &self,
        document: &DocumentId,
    ) -> Result<Option<DocumentInfo>, StoreError> {
        let state = |keys: &mut DocumentKeys| {
            if self.is_deleted(document)? {
                return Ok(None);
            }
            Ok(Some(self.read_record(keys)?))
        };
        let summary = self.settled_by(document, state, |keys, visible| {
            let Some(record) = visible else {
                return Ok(None);
            };
            let end = self.end(keys, record)?;
            Ok(end.map(|End { record, next }| DocumentSummary {
                created_at_ms: record.created_at_ms,
                base: record.base,
                changes: next,
                snapshot_bytes: record.snapshot_len,
            }))
        });
        let summary = match summary {
            Ok(Some(summary)) => Ok(summary),
            Ok(None) => return Ok(None),
            Err(StoreError::Corrupt { problem, .. }) => Err(problem),
            Err(error) => return Err(error),
        };
        Ok(Some(DocumentInfo {
            document: document.clone(),
            summary,
        }))
    }

    /// Ids of which there is any key.
    pub(super) fn list_ids(&self, after: Option<&DocumentId>, limit: usize) -> Vec<DocumentId> {
        let all = Ids::all();
        let mut walk = self.walk(&after.map_or(all.clone(), |after| all.behind(after)));
        std::iter::from_fn(|| walk.next_document())
            .take(limit)
            .collect()
    }

    /// The stretches that [`list`](Self::list) passes over.
    pub(super) fn find_unlisted(&self) -> Vec<Unlisted> {
        let mut walk = self.walk(&Ids::all());
        while walk.next_document().is_some() {}
        walk.unlisted
    }

    fn walk(&self, ids: &Ids) -> Walk<'_> {
        let (from, high) = keys::documents_among(ids);
        Walk {
            db: &self.db,
            from,
            high,
            last: None,
            unlisted: Vec::new(),
        }
    }
}

/// Goes from document to document, past what can't be read.
struct Walk<'s> {
    db: &'s Tree,
    from: Vec<u8>,
    high: Vec<u8>,
    last: Option<DocumentId>,
    unlisted: Vec<Unlisted>,
}

/// Longer than any document's prefix and what sled may cut its leaves by behind it.
const PROBE_BYTES: usize = 96;

/// Lowest byte in an id: see [`DocumentId`].
const LOWEST_IN_ID: u8 = 0x20;

impl Walk<'_> {
    /// The next document of which any key can be read.
    fn next_document(&mut self) -> Option<DocumentId> {
        let mut passed_over = false;
        let found = loop {
            match self.first_from(&self.from) {
                Ok(Some(key)) => {
                    if let Some(document) = keys::document_of(&key) {
                        break Some(document);
                    }
                    // Must not hide the documents after it.
                    tracing::error!(key = ?&*key, "unknown key in the store");
                    self.from = [&*key, &[0]].concat();
                }
                Ok(None) => break None,
                Err(error) => {
                    tracing::error!(%error, "a part of the listing can't be read");
                    passed_over = true;
                    self.from = self.readable_after(&self.from);
                }
            }
        };
        if passed_over {
            self.unlisted.push(Unlisted {
                after: self.last.clone(),
                before: found.clone(),
            });
        }
        match &found {
            Some(document) => self.from = DocumentKeys::new(document).end().to_vec(),
            None => self.from.clone_from(&self.high),
        }
        self.last.clone_from(&found);
        found
    }

    fn first_from(&self, from: &[u8]) -> Result<Option<::sled::IVec>, ::sled::Error> {
        self.db
            .range(from..self.high.as_slice())
            .keys()
            .next()
            .transpose()
    }

    /// Where reading goes on after `from`, which can't be read. sled names no bounds of what it can't read, so it is
    /// found by trying: in ever longer steps up to a place that can be read, and back from there by halves.
    fn readable_after(&self, from: &[u8]) -> Vec<u8> {
        let mut bad = from.to_vec();
        let mut good = self.high.clone();
        let id_starts = keys::all_documents().0.len();
        let padded = [from, &[0]].concat();
        'steps: for depth in (id_starts..padded.len()).rev() {
            let (kept, rest) = padded.split_at(depth);
            let next = rest.first().map_or(u8::MAX, |byte| byte.saturating_add(1));
            for byte in next.max(LOWEST_IN_ID)..=u8::MAX {
                let key = [kept, &[byte]].concat();
                if key <= bad {
                    continue;
                }
                if self.first_from(&key).is_ok() {
                    good = key;
                    break 'steps;
                }
                bad = key;
            }
        }
        bad.resize(PROBE_BYTES, 0);
        good.resize(PROBE_BYTES, 0);
        loop {
            let middle = middle(&bad, &good);
            if middle == bad {
                return good;
            }
            if self.first_from(&middle).is_ok() {
                good = middle;
            } else {
                bad = middle;
            }
        }
    }
}

/// Halfway between two strings of one length, taken as numbers.
fn middle(low: &[u8], high: &[u8]) -> Vec<u8> {
    let mut sum: Vec<u8> = Vec::with_capacity(low.len());
    let mut carry = 0;
    for (low, high) in low.iter().zip(high).rev() {
        let [byte, over] = (u16::from(*low) + u16::from(*high) + carry).to_le_bytes();
        sum.push(byte);
        carry = u16::from(over);
    }
    let mut half = Vec::with_capacity(sum.len());
    for byte in sum.iter().rev() {
        let [low, _] = ((carry << 8 | u16::from(*byte)) >> 1).to_le_bytes();
        half.push(low);
        carry = u16::from(*byte) & 1;
    }
    half
}
