//! When a document's changes came, and from whom: what of the log's records is kept when a snapshot takes their place.
//!
//! The store keeps this beside the snapshot, and reads it for nobody but those who ask for the history: an open
//! document does not have it. What is unknown (a document that was imported, a directory of an older build) is a run
//! like any other.
//!
//! Layout (u = unsigned LEB128):
//!
//! ```text
//! format: u8 = 1, u length of what follows, which is deflated
//! principals: u count × (u length, UTF-8)
//! runs: u count
//! for all runs one after the other: u changes;  then for all: u 0 for unknown, or principal's number + 1;
//! then for all that are known: milliseconds since 1970, as zigzag u of the difference to the one before
//! ```
//!
//! Apart, each of these is nearly the same number again and again, so that deflating leaves about a byte for each
//! keystroke: its time.

use std::collections::HashMap;
use std::io::Read as _;

use bytes::Bytes;
use concord_shared::ids::{DocumentId, IdError, PrincipalId};
use concord_shared::reader::{ReadError, Reader, push_uleb};
use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};
use tracing::warn;

use crate::store::{LogRecord, Store, StoreError};

/// First byte of stored arrivals.
pub const ARRIVALS_FORMAT: u8 = 1;

/// When a change came, and from whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Who sent it.
    pub principal: PrincipalId,
}

/// Consecutive changes that came together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    changes: u64,
    /// Milliseconds since 1970, and the principal's number.
    arrival: Option<(u64, usize)>,
}

/// Of a document's first changes, in the order of admission.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arrivals {
    principals: Vec<PrincipalId>,
    numbers: HashMap<PrincipalId, usize>,
    runs: Vec<Run>,
}

/// Why stored arrivals can't be used. They are unknown then; nothing else depends on them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeArrivalsError {
    /// Written by another version.
    #[error("unknown format {found} of arrivals")]
    Format {
        /// The first byte.
        found: u8,
    },
    /// Cut short or malformed.
    #[error("stored arrivals can't be read: {0}")]
    Read(#[from] ReadError),
    /// They do not inflate to the length that they say.
    #[error("stored arrivals do not inflate to {length} bytes")]
    Inflate {
        /// What they say.
        length: u64,
    },
    /// A principal that is none.
    #[error("stored arrivals name no principal")]
    Principal(#[from] IdError),
    /// A number that points to what is not there.
    #[error("a number of stored arrivals is out of range")]
    OutOfRange,
}

impl Arrivals {
    /// So many more changes, that came then from whoever that was; `None` where that is not known.
    pub fn push(&mut self, changes: u64, arrival: Option<(u64, &PrincipalId)>) {
        let arrival = arrival.map(|(at_ms, principal)| (at_ms, self.number(principal)));
        self.push_run(Run { changes, arrival });
    }

    /// The changes of a log's record.
    pub fn push_record(&mut self, record: &LogRecord) {
        let arrival = (record.received_at_ms, &record.principal);
        self.push(record.changes.len() as u64, Some(arrival));
    }

    /// These of the first `changes` alone; of as many, where there were fewer, of which the rest is not known.
    #[must_use]
    pub fn resized(mut self, changes: u64) -> Self {
        let mut left = changes;
        for run in &mut self.runs {
            run.changes = run.changes.min(left);
            left -= run.changes;
        }
        self.runs.retain(|run| run.changes > 0);
        self.push(left, None);
        self
    }

    fn number(&mut self, principal: &PrincipalId) -> usize {
        if let Some(number) = self.numbers.get(principal) {
            return *number;
        }
        let number = self.principals.len();
        self.principals.push(principal.clone());
        self.numbers.insert(principal.clone(), number);
        number
    }

    fn push_run(&mut self, run: Run) {
        match self.runs.last_mut() {
            _ if run.changes == 0 => {}
            Some(last) if last.arrival == run.arrival => {
                last.changes = last.changes.saturating_add(run.changes);
            }
            _ => self.runs.push(run),
        }
    }

    /// How many changes these are of.
    pub fn changes(&self) -> u64 {
        self.runs
            .iter()
            .fold(0, |sum, run| sum.saturating_add(run.changes))
    }

    /// Each run: how many changes, and their arrival.
    pub fn runs(&self) -> impl Iterator<Item = (u64, Option<(u64, &PrincipalId)>)> {
        self.runs.iter().map(|run| {
            let arrival = run
                .arrival
                .and_then(|(at_ms, principal)| Some((at_ms, self.principals.get(principal)?)));
            (run.changes, arrival)
        })
    }

    /// The stored form; no bytes where nothing is known.
    pub fn encode(&self) -> Bytes {
        if self.runs.iter().all(|run| run.arrival.is_none()) {
            return Bytes::new();
        }
        let mut plain = Vec::new();
        push_uleb(&mut plain, self.principals.len() as u64);
        for principal in &self.principals {
            push_uleb(&mut plain, principal.as_str().len() as u64);
            plain.extend_from_slice(principal.as_str().as_bytes());
        }
        push_uleb(&mut plain, self.runs.len() as u64);
        for run in &self.runs {
            push_uleb(&mut plain, run.changes);
        }
        for run in &self.runs {
            let principal = run.arrival.map_or(0, |(_, principal)| principal as u64 + 1);
            push_uleb(&mut plain, principal);
        }
        let mut before = 0_u64;
        for (at_ms, _) in self.runs.iter().filter_map(|run| run.arrival) {
            push_uleb(&mut plain, zigzag(at_ms.wrapping_sub(before)));
            before = at_ms;
        }
        let mut out = vec![ARRIVALS_FORMAT];
        push_uleb(&mut out, plain.len() as u64);
        // Reading from memory and writing to it can't fail.
        let _infallible =
            DeflateEncoder::new(&*plain, Compression::default()).read_to_end(&mut out);
        out.into()
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeArrivalsError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut reader = Reader::new(bytes);
        let format = reader.u8("format")?;
        if format != ARRIVALS_FORMAT {
            return Err(DecodeArrivalsError::Format { found: format });
        }
        let length = reader.uleb("length")?;
        let mut plain = Vec::new();
        let mut inflated = DeflateDecoder::new(reader.take_rest()).take(length.saturating_add(1));
        match inflated.read_to_end(&mut plain) {
            Ok(_) if plain.len() as u64 == length => Self::decode_plain(&plain),
            _ => Err(DecodeArrivalsError::Inflate { length }),
        }
    }

    fn decode_plain(plain: &[u8]) -> Result<Self, DecodeArrivalsError> {
        let reader = &mut Reader::new(plain);
        let mut arrivals = Self::default();
        for _ in 0..reader.uleb("principals")? {
            let principal = PrincipalId::new(reader.text(usize::MAX, "principal")?)?;
            arrivals.number(&principal);
        }
        let mut counts = Vec::new();
        for _ in 0..reader.uleb("runs")? {
            counts.push(reader.uleb("changes")?);
        }
        let mut principals = Vec::with_capacity(counts.len());
        for _ in &counts {
            let number = reader.uleb("principal")?.checked_sub(1);
            let number = number.map(|number| usize::try_from(number).unwrap_or(usize::MAX));
            if number.is_some_and(|number| number >= arrivals.principals.len()) {
                return Err(DecodeArrivalsError::OutOfRange);
            }
            principals.push(number);
        }
        let mut at_ms = 0_u64;
        for (changes, principal) in counts.into_iter().zip(principals) {
            let arrival = match principal {
                None => None,
                Some(principal) => {
                    at_ms = at_ms.wrapping_add(unzigzag(reader.uleb("time")?));
                    Some((at_ms, principal))
                }
            };
            arrivals.push_run(Run { changes, arrival });
        }
        reader.finish("arrivals")?;
        Ok(arrivals)
    }
}

/// A difference of which the top bit tells that it is negative, with that bit at the bottom.
const fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ (if difference >> 63 == 1 { u64::MAX } else { 0 })
}

const fn unzigzag(zigzag: u64) -> u64 {
    (zigzag >> 1) ^ (if zigzag & 1 == 1 { u64::MAX } else { 0 })
}

/// What is stored of a document's arrivals beside its snapshot. Those that can't be read are unknown, and that is said
/// in the log: the document does not depend on them. Blocks.
pub fn stored(store: &dyn Store, document: &DocumentId) -> Result<Arrivals, StoreError> {
    let bytes = match store.arrivals(document) {
        Err(error @ StoreError::Corrupt { .. }) => {
            warn!(%document, %error, "stored times of arrival can't be read");
            return Ok(Arrivals::default());
        }
        bytes => bytes?.unwrap_or_default(),
    };
    Ok(Arrivals::decode(&bytes).unwrap_or_else(|error| {
        warn!(%document, %error, "stored times of arrival can't be read");
        Arrivals::default()
    }))
}

/// When the changes `from..to` came, one for each that the document has there, in order; `None` where that is not known.
/// Blocks.
pub fn between(
    store: &dyn Store,
    document: &DocumentId,
    from: u64,
    to: u64,
) -> Result<Vec<Option<Arrival>>, StoreError> {
    let mut known: HashMap<u64, Arrival> = HashMap::new();
    let mut next = from;
    while next < to {
        let records = store.log(document, next, to, LOG_PAGE_BYTES)?;
        let Some(last) = records.last() else { break };
        next = last.end();
        for record in records {
            let arrival = Arrival {
                at_ms: record.received_at_ms,
                principal: record.principal.clone(),
            };
            known.extend((record.first..record.end()).map(|place| (place, arrival.clone())));
        }
    }
    // Behind the log: what a compaction takes out of that in between it has put in here before.
    let mut first = 0_u64;
    for (changes, arrival) in stored(store, document)?.runs() {
        let end = first.saturating_add(changes);
        if let Some((at_ms, principal)) = arrival {
            for place in first.max(from)..end.min(to) {
                known.entry(place).or_insert_with(|| Arrival {
                    at_ms,
                    principal: principal.clone(),
                });
            }
        }
        first = end;
    }
    Ok((from..to).map(|place| known.remove(&place)).collect())
}

/// Bytes of log that are read from a store at a time.
const LOG_PAGE_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn principal(text: &str) -> PrincipalId {
        PrincipalId::new(text).unwrap()
    }

    fn arrivals(runs: &[(u64, Option<(u64, &str)>)]) -> Arrivals {
        let mut arrivals = Arrivals::default();
        for (changes, arrival) in runs {
            let arrival = arrival.map(|(at_ms, by)| (at_ms, principal(by)));
            arrivals.push(*changes, arrival.as_ref().map(|(at_ms, by)| (*at_ms, by)));
        }
        arrivals
    }

    #[test]
    fn golden_arrivals() {
        let ms = 1_795_000_000_000;
        let some = arrivals(&[
            (3, None),
            (1, Some((ms, "ann"))),
            (2, Some((ms + 120, "bo"))),
            (1, Some((ms + 90, "ann"))),
        ]);
        let stored = some.encode();
        assert_eq!(
            hex::encode(&stored),
            "011a63624ecccb634aca6761666462646064626cf8b1e9e9de8c0f8cd600"
        );
        assert_eq!(Arrivals::decode(&stored).unwrap(), some);
        assert_eq!(some.changes(), 7);
        assert!(arrivals(&[(9, None)]).encode().is_empty());
        assert_eq!(Arrivals::decode(&[]), Ok(Arrivals::default()));
    }

    #[test]
    fn what_is_no_arrivals_is_refused() {
        let stored = arrivals(&[(1, Some((5, "ann"))), (2, Some((7, "bo")))]).encode();
        for end in 1..stored.len() {
            assert!(Arrivals::decode(&stored[..end]).is_err(), "cut at {end}");
        }
        let other = [&[2], &stored[1..]].concat();
        assert_eq!(
            Arrivals::decode(&other),
            Err(DecodeArrivalsError::Format { found: 2 })
        );
        // One principal, one run of it, of principal 2.
        let plain = [1, 1, b'a', 1, 1, 2, 0];
        assert_eq!(
            Arrivals::decode_plain(&plain),
            Err(DecodeArrivalsError::OutOfRange)
        );
        // So many runs as no memory holds.
        let plain = [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert!(Arrivals::decode_plain(&plain).is_err());
    }

    #[test]
    fn a_keystroke_takes_about_a_byte() {
        let mut typed = Arrivals::default();
        let (ann, mut at_ms) = (principal("ann"), 1_795_000_000_000);
        for n in 0..100_000_u64 {
            at_ms += 60 + n.wrapping_mul(2_654_435_761) % 200;
            typed.push(1, Some((at_ms, &ann)));
        }
        let bytes = typed.encode().len();
        assert!(bytes < 150_000, "{bytes}");
    }

    proptest! {
        #[test]
        fn what_is_stored_comes_back(runs in prop::collection::vec((0_u64..5, prop::option::of((any::<u64>(), 0_u8..3))), 0..20)) {
            let names = ["ann", "bo", "cy"];
            let runs: Vec<_> = runs
                .into_iter()
                .map(|(count, at)| (count, at.map(|(ms, by)| (ms, names[usize::from(by)]))))
                .collect();
            let some = arrivals(&runs);
            let back = Arrivals::decode(&some.encode()).unwrap();
            let is_known = runs.iter().any(|(count, at)| *count > 0 && at.is_some());
            prop_assert_eq!(back.changes(), if is_known { some.changes() } else { 0 });
            if is_known {
                prop_assert_eq!(back.runs().collect::<Vec<_>>(), some.runs().collect::<Vec<_>>());
            }
        }

        #[test]
        fn resized_is_cut_or_filled(count in 0_u64..12) {
            let some = arrivals(&[(2, None), (3, Some((1, "ann"))), (2, Some((2, "bo")))]);
            let each = |arrivals: &Arrivals| -> Vec<Option<u64>> {
                let runs = arrivals.runs();
                runs.flat_map(|(count, at)| (0..count).map(move |_| at.map(|(ms, _)| ms))).collect()
            };
            let mut wanted = each(&some);
            wanted.resize(usize::try_from(count).unwrap(), None);
            prop_assert_eq!(each(&some.resized(count)), wanted);
        }
    }
}
