//! Which version a document had at a time.
//!
//! It is made of the changes that had arrived, each with all that it builds on. Of a change whose arrival is not known
//! (it was imported, say) its author's clock is believed; one that says nothing of its time is there as soon as all is
//! that it builds on. Clocks go wrong, the server's own, too: what is there is then what they say.

use std::collections::BTreeMap;

use automerge::ChangeHash;
use concord_shared::ids::DocumentId;

use super::granted::Reader;
use crate::document::arrivals;
use crate::document::graph::Index;
use crate::http::problem::{Code, Problem};
use crate::http::version::Version;
use crate::replay::made_ms;
use crate::store::{Store, StoreError};

impl Reader {
    /// The version that the server had of a document at a time, in milliseconds since 1970.
    pub(super) async fn version_at(&self, at_ms: i64) -> Result<Version, Problem> {
        let count = self.stretch(0..0).await?.count;
        let document = self.id().clone();
        let look = move |store: &_| Came::by(store, &document, count, at_ms);
        let came = self.documents.stored(look).await?;
        let mut is_there: Vec<bool> = Vec::new();
        let mut heads: BTreeMap<Index, ChangeHash> = BTreeMap::new();
        let mut next = 0;
        while next < count {
            let stretch = self.stretch(next..count).await?;
            if stretch.hashes.is_empty() {
                break;
            }
            next = stretch.end();
            let changes = stretch.changes();
            let unknown = changes.filter(|(place, ..)| came.at(*place).is_none());
            let unknown: Vec<ChangeHash> = unknown.map(|(_, hash, _)| hash).collect();
            let mut made = self.made_by(unknown, at_ms).await?.into_iter();
            for (place, hash, deps) in stretch.changes() {
                let came = came.at(place).or_else(|| made.next()).unwrap_or(false);
                let has = |dep: &Index| is_there.get(*dep as usize) == Some(&true);
                let is = came && deps.iter().all(has);
                is_there.push(is);
                if is {
                    for dep in deps {
                        heads.remove(dep);
                    }
                    heads.insert(place, hash);
                }
            }
        }
        let mut heads: Vec<ChangeHash> = heads.into_values().collect();
        heads.sort_unstable();
        if heads.is_empty() {
            let detail = "there was nothing of the document at that time";
            return Err(Problem::new(Code::NoVersion, detail));
        }
        Ok(Version(heads))
    }

    /// Whether changes had been made at a time, as their authors say.
    async fn made_by(&self, changes: Vec<ChangeHash>, at_ms: i64) -> Result<Vec<bool>, Problem> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let made = self.see(move |core| {
            let had_made = |hash: &ChangeHash| {
                let meta = core.doc().get_change_meta_by_hash(hash);
                let made = meta.and_then(|meta| made_ms(meta.timestamp));
                made.is_none_or(|made| made <= at_ms)
            };
            Ok(changes.iter().map(had_made).collect())
        });
        made.await
    }
}

/// Which changes had come at a time.
#[derive(Debug, Default)]
struct Came {
    /// Of those whose records the log does not have any more: up to which place, and whether they had come.
    runs: Vec<(u64, Option<bool>)>,
    /// The log begins here.
    logged_from: u64,
    /// Of those in it, these had come.
    logged_to: u64,
}

impl Came {
    /// Blocks.
    fn by(
        store: &dyn Store,
        document: &DocumentId,
        count: Index,
        at_ms: i64,
    ) -> Result<Self, StoreError> {
        let had_come =
            |received_at_ms| i64::try_from(received_at_ms).is_ok_and(|came| came <= at_ms);
        let mut came = Self::default();
        // A compaction may take the log's beginning away, and has put what it says elsewhere by then. It takes longer
        // than this does, so this ends.
        'again: loop {
            let first = store.log(document, 0, u64::MAX, 0)?;
            let count = u64::from(count);
            let logged_from = first.first().map_or(count, |record| record.first);
            let (mut low, mut high) = (logged_from, count.max(logged_from));
            while low < high {
                let middle = low.midpoint(high);
                let record = store.log(document, middle, middle + 1, 0)?;
                match record.first() {
                    Some(record) if had_come(record.received_at_ms) => low = middle + 1,
                    Some(_) => high = middle,
                    None => continue 'again,
                }
            }
            came.logged_from = logged_from;
            came.logged_to = low;
            break;
        }
        let mut end = 0_u64;
        for (changes, arrival) in arrivals::stored(store, document)?.runs() {
            end = end.saturating_add(changes);
            came.runs
                .push((end, arrival.map(|(at_ms, _)| had_come(at_ms))));
        }
        Ok(came)
    }

    /// Whether the change at this place had come; `None` where that is not known.
    fn at(&self, place: Index) -> Option<bool> {
        let place = u64::from(place);
        if place >= self.logged_from {
            return Some(place < self.logged_to);
        }
        let run = self.runs.partition_point(|(end, _)| *end <= place);
        self.runs.get(run).and_then(|(_, came)| *came)
    }
}
