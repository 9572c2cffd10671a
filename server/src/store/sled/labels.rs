//! Labels: documents are found by them without anything else being looked at.
//!
//! A label of a document is two keys: an *entry*, `01 03 <label> <id>`, by which the document is found, and a *tag*,
//! `01 01 <id> 00 80 <label>`, by which the entry is. Neither says anything but that it is there; what is read of a
//! document goes by the document's own keys, so an entry too many does no harm but that somebody looks.
//!
//! **There is never an entry without a tag.** Both are set, and removed, by the batch that has the access entry with
//! which they came: a crash leaves both or neither. Only the [sweep](super::sweep) of what is purged removes them one by
//! one, and the entry goes first: a crash in between leaves a tag without an entry, of a document whose tombstone says
//! that it is not swept to its end; so it is swept again when the store is opened, and to remove what is removed does no
//! harm. The other way round an entry would be left that nothing leads to, and with it the id of an erased document, in
//! the database and in all that are copied of it. The mark that all is swept comes after both in sled's log.
//!
//! Where a label is set anew it is looked whether both are there: so a missing one of two, by whatever damage, is made
//! good by the next access entry.

use std::collections::BTreeSet;

use ::sled::IVec;
use concord_shared::ids::DocumentId;

use super::{
    Database, DocumentKeys,
    batch::Batch,
    keys::{self, Place},
    read_failed, values,
};
use crate::store::{Label, StoreError};

impl Database {
    /// What has to be set and removed for a document to have these labels and no others.
    pub(super) fn label(
        &self,
        batch: &mut Batch,
        document: &DocumentId,
        labels: &[Label],
    ) -> Result<(), ::sled::Error> {
        let mut tags = DocumentKeys::new(document);
        let wanted: BTreeSet<Label> = labels.iter().copied().collect();
        for tag in self.tags(&mut tags)? {
            let Some(Place::Label(label)) = tags.parse(&tag) else {
                continue;
            };
            if !wanted.contains(&label) {
                batch.remove(&keys::labelled(label, document));
                batch.remove(&tag);
            }
        }
        for label in wanted {
            let entry = keys::labelled(label, document);
            let tag = tags.at(Place::Label(label));
            for key in [&entry, tag] {
                if !self.db.contains_key(key)? {
                    batch.insert(key, values::seal(key, &[]));
                }
            }
        }
        Ok(())
    }

    /// Keys of a document's tags.
    fn tags(&self, keys: &mut DocumentKeys) -> Result<Vec<IVec>, ::sled::Error> {
        let (low, high) = keys.all_labels();
        self.db.range(low.as_slice()..high).keys().collect()
    }

    pub(super) fn list_labelled(
        &self,
        label: Label,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentId>, StoreError> {
        let (low, high) = keys::all_labelled_so(label);
        // No id goes on with a byte 00.
        let low = after.map_or(low, |after| [&*keys::labelled(label, after), &[0]].concat());
        let mut found = Vec::new();
        let mut entries = self.db.range(low.as_slice()..high.as_slice()).keys();
        while found.len() < limit
            && let Some(key) = entries.next()
        {
            let key = key.map_err(read_failed)?;
            let Some((_, document)) = keys::labelled_of(&key) else {
                // Must not hide the others.
                tracing::error!(key = ?&*key, "unknown key in the store");
                continue;
            };
            found.push(document);
        }
        Ok(found)
    }

    /// Of which documents there are entries without a tag.
    pub(super) fn find_mislabelled(&self) -> Result<Vec<DocumentId>, StoreError> {
        let (low, high) = keys::all_labelled();
        let mut found = BTreeSet::new();
        for key in self.db.range(low.as_slice()..high.as_slice()).keys() {
            let key = key.map_err(read_failed)?;
            let Some((label, document)) = keys::labelled_of(&key) else {
                tracing::error!(key = ?&*key, "unknown key in the store");
                continue;
            };
            let mut tag = DocumentKeys::new(&document);
            let tag = tag.at(Place::Label(label));
            if !self.db.contains_key(tag).map_err(read_failed)? {
                found.insert(document);
            }
        }
        Ok(found.into_iter().collect())
    }
}
