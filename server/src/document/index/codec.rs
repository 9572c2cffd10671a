//! How an admission index is stored behind its graph.
//!
//! Layout (u = unsigned LEB128):
//!
//! ```text
//! format: u8 = 1, u length of what follows, which is deflated
//! keys: u count × (u length, UTF-8)
//! for each actor, in the graph's order: u count of runs × run
//! run: u first − end of the run before, u count, u8 tag, [object], spot
//! tag: bits 0–1 spot (0 key, 1 behind, 2 element), bits 2–4 what, bit 5 the object is another than that
//!      of the run before (of the actor; before the first, the root)
//! object: id;  spot: u key number | id;  id: u 0 for none, or u actor + 1, u first − counter
//! ```
//!
//! An op refers to ops with lower counters, so differences are positive, and small where the author goes
//! on with what was just made.

use std::io::Read as _;

use concord_shared::change::{ObjectKind, What};
use concord_shared::reader::{ReadError, Reader, push_uleb};
use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};

use super::keys::Keys;
use super::{Id, NONE, OpIndex, Run, Spot};

/// First byte of a stored index.
pub(super) const INDEX_FORMAT: u8 = 1;

const KEY: u8 = 0;
const BEHIND: u8 = 1;
const ELEMENT: u8 = 2;
const SPOT_BITS: u8 = 0b11;
const WHAT_SHIFT: u32 = 2;
const WHAT_BITS: u8 = 0b111;
const OTHER_OBJECT: u8 = 1 << 5;

/// In the order of their numbers.
const WHATS: [What; 6] = [
    What::Scalar,
    What::Counter,
    What::Mark,
    What::Object(ObjectKind::Map),
    What::Object(ObjectKind::List),
    What::Object(ObjectKind::Text),
];

/// Why a stored index can't be used. The remedy is to rebuild it from the snapshot.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum DecodeIndexError {
    /// Written by another version, or not an index.
    #[error("unknown index format {found}")]
    Format {
        /// The first byte.
        found: u8,
    },
    /// Cut short or malformed.
    #[error("the stored index can't be read: {0}")]
    Read(#[from] ReadError),
    /// It does not inflate to the length that it says.
    #[error("the stored index does not inflate to {length} bytes")]
    Inflate {
        /// What it says.
        length: u64,
    },
    /// A number that points to what is not there.
    #[error("{what} of a run of actor {actor} of the stored index is out of range")]
    OutOfRange {
        /// The actor's number.
        actor: usize,
        /// Which number.
        what: &'static str,
    },
}

impl OpIndex {
    /// The index of a graph with so many actors, in stored form.
    pub fn encode(&self, actors: usize) -> Vec<u8> {
        let plain = self.encode_plain(actors);
        let mut out = vec![INDEX_FORMAT];
        push_uleb(&mut out, plain.len() as u64);
        // Reading from memory and writing to it can't fail.
        let _infallible = DeflateEncoder::new(&*plain, Compression::fast()).read_to_end(&mut out);
        out
    }

    /// What the stored form deflates.
    pub(super) fn encode_plain(&self, actors: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let keys = self.keys.iter();
        push_uleb(&mut out, keys.len() as u64);
        for key in keys {
            push_uleb(&mut out, key.len() as u64);
            out.extend_from_slice(key.as_bytes());
        }
        for actor in 0..actors {
            let runs = self.runs.get(actor).map_or(&[][..], Vec::as_slice);
            push_uleb(&mut out, runs.len() as u64);
            let (mut end, mut object) = (0, NONE);
            for run in runs {
                write_run(&mut out, run, end, object);
                (end, object) = (run.end(), run.object);
            }
        }
        out
    }

    /// Reads the stored index of a graph with so many actors.
    pub fn decode(bytes: &[u8], actors: usize) -> Result<Self, DecodeIndexError> {
        let mut reader = Reader::new(bytes);
        let format = reader.u8("index format")?;
        if format != INDEX_FORMAT {
            return Err(DecodeIndexError::Format { found: format });
        }
        let length = reader.uleb("index length")?;
        let mut plain = Vec::new();
        let mut inflated = DeflateDecoder::new(reader.take_rest()).take(length.saturating_add(1));
        match inflated.read_to_end(&mut plain) {
            Ok(_) if plain.len() as u64 == length => Self::decode_plain(&plain, actors),
            _ => Err(DecodeIndexError::Inflate { length }),
        }
    }

    pub(super) fn decode_plain(plain: &[u8], actors: usize) -> Result<Self, DecodeIndexError> {
        let reader = &mut Reader::new(plain);
        let mut keys = Keys::default();
        for _ in 0..reader.uleb("keys")? {
            keys.number_or_new(reader.text(usize::MAX, "key")?);
        }
        let mut all = Vec::with_capacity(actors);
        for actor in 0..actors {
            let count = reader.uleb("runs")?;
            let mut runs: Vec<Run> = Vec::new();
            // No more than there are bytes for.
            let most = (reader.remaining() / 4) as u64;
            runs.reserve_exact(usize::try_from(count.min(most)).unwrap_or(0));
            for _ in 0..count {
                let run = read_run(reader, runs.last(), actors, keys.iter().len());
                runs.push(run.map_err(|error| error.of(actor))?);
            }
            all.push(runs);
        }
        reader.finish("index")?;
        let room = all.iter().map(Vec::capacity).sum();
        Ok(Self {
            runs: all,
            room,
            keys,
        })
    }
}

fn write_run(out: &mut Vec<u8>, run: &Run, end: u32, object: Id) {
    push_uleb(out, u64::from(run.first.saturating_sub(end)));
    push_uleb(out, u64::from(run.count));
    let what = WHATS.iter().position(|what| *what == run.what);
    let what = what.and_then(|what| u8::try_from(what).ok()).unwrap_or(0);
    let mut tag = what << WHAT_SHIFT;
    tag |= match run.spot {
        Spot::Key(_) => KEY,
        Spot::Behind(_) => BEHIND,
        Spot::Element(_) => ELEMENT,
    };
    if run.object != object {
        tag |= OTHER_OBJECT;
    }
    out.push(tag);
    if run.object != object {
        write_id(out, run.object, run.first);
    }
    match run.spot {
        Spot::Key(key) => push_uleb(out, u64::from(key)),
        Spot::Behind(id) | Spot::Element(id) => write_id(out, id, run.first),
    }
}

fn write_id(out: &mut Vec<u8>, id: Id, first: u32) {
    if id == NONE {
        return out.push(0);
    }
    push_uleb(out, u64::from(id.actor) + 1);
    push_uleb(out, u64::from(first.saturating_sub(id.counter)));
}

/// What is wrong with a run.
enum BadRun {
    Read(ReadError),
    OutOfRange(&'static str),
}

impl From<ReadError> for BadRun {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl BadRun {
    fn of(self, actor: usize) -> DecodeIndexError {
        match self {
            Self::Read(error) => error.into(),
            Self::OutOfRange(what) => DecodeIndexError::OutOfRange { actor, what },
        }
    }
}

fn read_run(
    reader: &mut Reader<'_>,
    before: Option<&Run>,
    actors: usize,
    keys: usize,
) -> Result<Run, BadRun> {
    let small = |number: u64, what| u32::try_from(number).map_err(|_| BadRun::OutOfRange(what));
    let gap = small(reader.uleb("gap")?, "gap")?;
    let first = gap.checked_add(before.map_or(0, Run::end));
    let first = first.ok_or(BadRun::OutOfRange("gap"))?;
    let count = small(reader.uleb("count")?, "count")?;
    if first == 0 || count == 0 || first.checked_add(count).is_none() {
        return Err(BadRun::OutOfRange("count"));
    }
    let tag = reader.u8("tag")?;
    let what = WHATS.get(usize::from(tag >> WHAT_SHIFT & WHAT_BITS));
    let what = *what.ok_or(BadRun::OutOfRange("tag"))?;
    let id = |reader: &mut Reader<'_>| -> Result<Id, BadRun> {
        let Some(actor) = reader.uleb("actor")?.checked_sub(1) else {
            return Ok(NONE);
        };
        let distance = small(reader.uleb("distance")?, "distance")?;
        let counter = first.checked_sub(distance).filter(|counter| *counter > 0);
        if actor >= actors as u64 {
            return Err(BadRun::OutOfRange("actor"));
        }
        Ok(Id {
            actor: small(actor, "actor")?,
            counter: counter.ok_or(BadRun::OutOfRange("distance"))?,
        })
    };
    let object = if tag & OTHER_OBJECT == 0 {
        before.map_or(NONE, |run| run.object)
    } else {
        id(reader)?
    };
    let spot = match tag & SPOT_BITS {
        KEY => match small(reader.uleb("key")?, "key")? {
            key if (key as usize) < keys => Spot::Key(key),
            _ => return Err(BadRun::OutOfRange("key")),
        },
        BEHIND => Spot::Behind(id(reader)?),
        ELEMENT => Spot::Element(id(reader)?),
        _ => return Err(BadRun::OutOfRange("tag")),
    };
    Ok(Run {
        first,
        count,
        object,
        spot,
        what,
    })
}
