//! Tells damage to what was durable from the torn end that a crash leaves.
//!
//! sled takes the first message that it can't read for the end of its log. That is right for a torn end, and wrong for
//! a flipped bit: all after it would be gone without a word, or, within an earlier segment, the rest of that segment;
//! and sled overwrites with zeros what it does not take, so that the loss is final. sled can't know better. We can: a
//! file beside its log, the *witness*, says up to where the log was once whole and synced. Before sled opens a
//! directory, and so before anything is overwritten, the part of the log that it will go through is read here, and up
//! to the witness it must be whole.
//!
//! **The witness is never ahead of what is synced.** Its position is where the log was seen whole *before* the
//! `sync_data` that made it so, and it is written after that returned. It is not synced itself: a loss of power may take
//! the last half minute of it, which makes it say less, never more. It has two places, written in turn, each in a
//! sector of its own and with a checksum: a torn one leaves the other.
//!
//! **No crash looks like damage.** Up to the witness each message was written and synced, and sled writes over it in two
//! cases. It takes a batch back whose end is missing: so a witness never stands within a batch. It uses a freed segment
//! again, and a crash may leave the new messages without the new header: so after a place without a message the next
//! one that there is tells by its segment's number whether it is of this segment's old life (damage) or of a new one.
//! Segments without a header are free: recovery fills them with zeros, and a crash may stop it midway.
//!
//! What sled does *not* go through when it opens, since it wrote down where its pages are the last time that it did, is
//! covered by the checksum of each message when it is read.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use super::log::{self, SEGMENT, Segments, Stop, Tail};
use crate::store::error::Damage;

const FILE: &str = "witness";
const SLOT_BYTES: u64 = 512;
const MAGIC: &[u8; 8] = b"concordw";
const RECORD_BYTES: usize = 8 + 8 + 8 + 4;

/// Follows sled's log and keeps the witness.
#[derive(Debug)]
pub(super) struct Witness {
    file: File,
    sequence: u64,
    written: u64,
    tail: Option<Tail>,
    /// Up to here the log is whole; durable with the next sync.
    seen: u64,
}

impl Witness {
    /// For a directory that sled has opened; what was there is replaced with the first [`keep`](Self::keep).
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join(FILE))?;
        let sequence = read(&file).map_or(0, |(sequence, _)| sequence);
        Ok(Self {
            file,
            sequence,
            written: 0,
            tail: None,
            seen: 0,
        })
    }

    /// Looks how far the log is written. Call it after a flush and before the sync.
    pub(super) fn look(&mut self, db: &File) -> io::Result<()> {
        if self.tail.is_none() {
            self.tail = Tail::find(db)?;
        }
        if let Some(tail) = &mut self.tail {
            self.seen = tail.advance(db)?;
        }
        Ok(())
    }

    /// Writes down what [`look`](Self::look) saw last. Call it after the sync that came after.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        if self.seen == self.written {
            return Ok(());
        }
        let sequence = self.sequence + 1;
        let mut record = Vec::with_capacity(RECORD_BYTES);
        record.extend(MAGIC);
        record.extend(sequence.to_le_bytes());
        record.extend(self.seen.to_le_bytes());
        record.extend(crc32fast::hash(&record).to_le_bytes());
        self.file.seek(SeekFrom::Start(sequence % 2 * SLOT_BYTES))?;
        self.file.write_all(&record)?;
        self.sequence = sequence;
        self.written = self.seen;
        Ok(())
    }
}

/// The newer of the two records: its number and its position.
fn read(mut file: &File) -> Option<(u64, u64)> {
    let slot = |slot: u64| {
        let mut record = [0; RECORD_BYTES];
        file.seek(SeekFrom::Start(slot * SLOT_BYTES)).ok()?;
        file.read_exact(&mut record).ok()?;
        let (body, sum) = record.split_last_chunk::<4>()?;
        let (sequence, position) = body.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
        let position = position.first_chunk::<8>()?;
        (crc32fast::hash(body) == u32::from_le_bytes(*sum))
            .then_some((u64::from_le_bytes(*sequence), u64::from_le_bytes(*position)))
    };
    [0, 1].into_iter().filter_map(slot).max()
}

/// What the witness in a directory says, if there is one.
pub(super) fn position(directory: &Path) -> io::Result<Option<u64>> {
    match File::open(directory.join(FILE)) {
        Ok(file) => Ok(read(&file).map(|(_, position)| position)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// For a directory without a log: sled would make a new one.
pub(super) fn check_missing(directory: &Path) -> io::Result<Option<Damage>> {
    Ok(position(directory)?.map(|_| Damage::Missing))
}

/// Reads what sled will go through when it opens `directory`, whose log is `db`; tells what of it is damaged.
pub(super) fn check(directory: &Path, db: &File) -> io::Result<Option<Damage>> {
    let witness = position(directory)?;
    let from = snapshot_position(directory)? / SEGMENT * SEGMENT;
    let segments = Segments::read(db, from)?;
    // Without a witness there is what sled itself wrote down of this, some segments behind.
    let durable = witness.unwrap_or(segments.known_written);
    let Some(last) = durable.checked_sub(1) else {
        return Ok(None);
    };
    let last_segment = last / SEGMENT * SEGMENT;
    let highest = segments.found.last_key_value().map(|(lsn, _)| *lsn);
    let numbers = from / SEGMENT..=highest.unwrap_or(0).max(last_segment) / SEGMENT + 1;
    for &at in &segments.damaged {
        // Whose it was, its messages tell.
        let segment = log::read_segment(db, at)?;
        if log::next_message(&segment, log::HEADER_BYTES, &numbers).is_some() {
            return Ok(Some(Damage::At(at)));
        }
    }
    if highest.is_none_or(|highest| highest < last_segment) {
        return Ok(Some(Damage::Missing));
    }
    // From here on no segment was free when the last one was begun.
    let mut expected = segments.known_written / SEGMENT * SEGMENT;
    while expected <= last_segment {
        if expected >= from && !segments.found.contains_key(&expected) {
            return Ok(Some(Damage::Missing));
        }
        expected += SEGMENT;
    }
    for (&lsn, &at) in &segments.found {
        if lsn > last {
            break;
        }
        let segment = log::read_segment(db, at)?;
        let number = lsn / SEGMENT;
        let Stop::At(stop) = log::walk(&segment, number) else {
            continue;
        };
        if lsn + stop as u64 >= durable {
            break;
        }
        let next = log::next_message(&segment, stop, &numbers);
        if next.is_none_or(|next| next.number <= number) {
            return Ok(Some(Damage::At(at + stop as u64)));
        }
    }
    Ok(None)
}

/// Up to where sled's list of pages reaches: it goes through the log from there on.
fn snapshot_position(directory: &Path) -> io::Result<u64> {
    let mut newest = 0;
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let position = name.to_str().and_then(|name| name.strip_prefix("snap."));
        if let Some(position) = position.and_then(|text| u64::from_str_radix(text, 16).ok()) {
            newest = newest.max(position);
        }
    }
    Ok(newest)
}
