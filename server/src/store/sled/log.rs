//! Reads sled's own log, as far as it takes to tell whether it is whole; nothing here writes.
//!
//! The format is that of sled 0.34.7, to which the workspace is pinned. The file is a row of segments of
//! [`SEGMENT_BYTES`]. Positions in the log (*lsn*) grow for ever; a segment holds those from a multiple of its size on,
//! and freed segments are used again, so the segments' order is that of their headers, not of the file.
//!
//! ```text
//! segment   header, then messages; after a cap, or in the last 32 bytes, nothing more
//! header    !crc32 u32 of the rest ‖ lsn i64, xor MAX ‖ lsn known to be written then i64, xor MAX
//! message   !crc32 u32 ‖ kind u8 ‖ length of body, number of segment, page (varints) ‖ body
//!           the checksum is that of the body, then of the header from the kind on
//! ```

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
};

use super::SEGMENT_BYTES;

pub(super) const SEGMENT: u64 = SEGMENT_BYTES as u64;
pub(super) const HEADER_BYTES: usize = 20;
/// sled begins no message in a segment's last bytes.
const RED_ZONE_BYTES: usize = 32;

const KIND_CAP: u8 = 2;
const KIND_BATCH: u8 = 3;
const KIND_LAST: u8 = 11;

/// What [`Tail`] reads at a time: more than most commits write.
const READ_BYTES: usize = 16 * 1024;

/// The segments that can be told by their headers.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Where in the file each one lies, by its lsn.
    pub(super) found: BTreeMap<u64, u64>,
    /// The highest position that a header knows to have been written before it.
    pub(super) known_written: u64,
    /// Where in the file a header is neither empty nor right.
    pub(super) damaged: Vec<u64>,
}

impl Segments {
    /// Reads all headers; segments below `lowest` are left out.
    pub(super) fn read(file: &File, lowest: u64) -> io::Result<Self> {
        let mut segments = Self::default();
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        let mut at = 0;
        loop {
            // Up to the end that is found: sled may be cutting free segments off meanwhile.
            read_at(file, at, HEADER_BYTES, &mut bytes)?;
            let Some(header) = bytes.first_chunk() else {
                return Ok(segments);
            };
            match read_header(header) {
                Some((lsn, written)) if lsn >= lowest => {
                    segments.found.insert(lsn, at);
                    segments.known_written = segments.known_written.max(written);
                }
                Some(_) => {}
                None if *header == [0; HEADER_BYTES] => {}
                None => segments.damaged.push(at),
            }
            at += SEGMENT;
        }
    }
}

/// A segment's lsn, and the position that was known to be written when it was begun.
fn read_header(header: &[u8; HEADER_BYTES]) -> Option<(u64, u64)> {
    let (sum, rest) = header.split_first_chunk::<4>()?;
    let (lsn, rest_of) = rest.split_first_chunk::<8>()?;
    let written = rest_of.first_chunk::<8>()?;
    if u32::from_le_bytes(*sum) != !crc32fast::hash(rest) {
        return None;
    }
    let lsn = u64::try_from(i64::from_le_bytes(*lsn) ^ i64::MAX).ok()?;
    let written = u64::try_from(i64::from_le_bytes(*written) ^ i64::MAX).unwrap_or(0);
    (lsn % SEGMENT == 0).then_some((lsn, written))
}

/// All that there is of a segment.
pub(super) fn read_segment(file: &File, at: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    read_at(file, at, SEGMENT_BYTES, &mut bytes)?;
    Ok(bytes)
}

fn read_at(mut file: &File, at: u64, most: usize, into: &mut Vec<u8>) -> io::Result<()> {
    into.clear();
    file.seek(SeekFrom::Start(at))?;
    file.take(most as u64).read_to_end(into)?;
    Ok(())
}

/// A message whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    /// Number of the segment it was written for: its lsn in segments.
    pub(super) number: u64,
    pub(super) len: usize,
    cap: bool,
    /// Of a batch: where its last message begins.
    batch_end: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parsed {
    Message(Message),
    /// These bytes are no message, whatever follows them.
    Nothing,
    /// Perhaps one, of at least so many bytes.
    Short(usize),
}

fn parse(bytes: &[u8]) -> Parsed {
    // A varint has at most nine bytes: with that many there is no excuse.
    let short = || {
        if bytes.len() < 4 + 1 + 3 * 9 {
            Parsed::Short(4 + 1 + 3 * 9)
        } else {
            Parsed::Nothing
        }
    };
    let Some((sum, header)) = bytes.split_first_chunk::<4>() else {
        return short();
    };
    let Some((&kind, mut rest)) = header.split_first() else {
        return short();
    };
    if kind == 0 || kind > KIND_LAST {
        return Parsed::Nothing;
    }
    let (Some(len), Some(number), Some(_page)) =
        (varint(&mut rest), varint(&mut rest), varint(&mut rest))
    else {
        return short();
    };
    let header = header.get(..header.len() - rest.len()).unwrap_or_default();
    let Some(len) = usize::try_from(len)
        .ok()
        .filter(|len| *len <= SEGMENT_BYTES)
    else {
        return Parsed::Nothing;
    };
    let whole = 4 + header.len() + len;
    let Some(body) = rest.get(..len) else {
        return Parsed::Short(whole);
    };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(body);
    hasher.update(header);
    if !hasher.finalize() != u32::from_le_bytes(*sum) {
        return Parsed::Nothing;
    }
    let batch_end = (kind == KIND_BATCH)
        .then(|| body.first_chunk::<8>())
        .flatten()
        .and_then(|end| u64::try_from(i64::from_le_bytes(*end)).ok());
    Parsed::Message(Message {
        number,
        len: whole,
        cap: kind == KIND_CAP,
        batch_end,
    })
}

/// sled's own kind of varint.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    let (value, taken) = match first {
        0..=240 => (u64::from(first), 0),
        241..=248 => {
            let low = u64::from(*rest.first()?);
            (240 + 256 * (u64::from(first) - 241) + low, 1)
        }
        249 => {
            let [high, low] = *rest.first_chunk::<2>()?;
            (2288 + 256 * u64::from(high) + u64::from(low), 2)
        }
        250.. => {
            let taken = usize::from(first) - 247;
            let mut value = [0; 8];
            value.get_mut(..taken)?.copy_from_slice(rest.get(..taken)?);
            (u64::from_le_bytes(value), taken)
        }
    };
    *bytes = rest.get(taken..)?;
    Some(value)
}

/// Where the messages of a segment stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Where a segment may: nothing more was to come.
    End,
    /// Where no message is, so far from the segment's beginning.
    At(usize),
}

/// Goes through a segment's messages.
pub(super) fn walk(segment: &[u8], number: u64) -> Stop {
    let mut at = HEADER_BYTES;
    while at <= SEGMENT_BYTES - RED_ZONE_BYTES {
        match parse(segment.get(at..).unwrap_or_default()) {
            Parsed::Message(message) if message.number == number => {
                if message.cap {
                    break;
                }
                at += message.len;
            }
            _ => return Stop::At(at),
        }
    }
    Stop::End
}

/// The first message after a place where there is none, if it was written for one of these segments.
pub(super) fn next_message(
    segment: &[u8],
    after: usize,
    numbers: &std::ops::RangeInclusive<u64>,
) -> Option<Message> {
    (after..segment.len()).find_map(|at| {
        let bytes = segment.get(at..)?;
        // Nearly every place is no message by its kind alone.
        let kind = *bytes.get(4)?;
        if kind == 0 || kind > KIND_LAST {
            return None;
        }
        match parse(bytes) {
            Parsed::Message(message) if numbers.contains(&message.number) => Some(message),
            _ => None,
        }
    })
}

/// Follows the end of a log that is being written.
#[derive(Debug)]
pub(super) struct Tail {
    /// Of the segment that it has come to: its lsn, and its place in the file.
    segment: (u64, u64),
    /// Where the next message is to begin, from the segment's beginning.
    next: usize,
    /// Where the last message begins of the last batch that was come by.
    batch_end: u64,
    /// Up to here there are whole messages and whole batches.
    whole: u64,
    buffer: Vec<u8>,
}

impl Tail {
    /// For a log of which nothing is being written: all before its last segment but one was written before.
    pub(super) fn find(file: &File) -> io::Result<Option<Self>> {
        let found = Segments::read(file, 0)?.found;
        let mut last = found.iter().rev().map(|(lsn, at)| (*lsn, *at));
        let Some(top) = last.next() else {
            return Ok(None);
        };
        let segment = last
            .next()
            .filter(|before| before.0 + SEGMENT == top.0)
            .unwrap_or(top);
        Ok(Some(Self {
            segment,
            next: HEADER_BYTES,
            batch_end: 0,
            whole: 0,
            buffer: Vec::new(),
        }))
    }

    /// Goes on over what was written; up to where the log is whole.
    pub(super) fn advance(&mut self, file: &File) -> io::Result<u64> {
        loop {
            let ended = self.advance_in_segment(file)?;
            if !ended || !self.next_segment(file)? {
                return Ok(self.whole);
            }
        }
    }

    /// Whether the segment has come to its end.
    fn advance_in_segment(&mut self, file: &File) -> io::Result<bool> {
        let number = self.segment.0 / SEGMENT;
        let mut want = READ_BYTES;
        loop {
            if self.next > SEGMENT_BYTES - RED_ZONE_BYTES {
                return Ok(true);
            }
            let left = SEGMENT_BYTES - self.next;
            let most = want.min(left);
            let at = self.segment.1 + self.next as u64;
            read_at(file, at, most, &mut self.buffer)?;
            let mut taken = 0;
            loop {
                match parse(self.buffer.get(taken..).unwrap_or_default()) {
                    Parsed::Message(message) if message.number == number => {
                        if message.cap {
                            self.next = SEGMENT_BYTES;
                            return Ok(true);
                        }
                        taken += message.len;
                        self.next += message.len;
                        self.batch_end = self.batch_end.max(message.batch_end.unwrap_or(0));
                        let end = self.segment.0 + self.next as u64;
                        // sled takes a batch back whose last message it does not find.
                        if end > self.batch_end {
                            self.whole = end;
                        }
                        if self.next > SEGMENT_BYTES - RED_ZONE_BYTES {
                            return Ok(true);
                        }
                    }
                    Parsed::Short(need) if self.buffer.len() == most && need <= left => {
                        // At the buffer's end: read on from there, and more if that was all.
                        want = need.max(READ_BYTES);
                        if taken == 0 && most >= want {
                            return Ok(false);
                        }
                        break;
                    }
                    _ => return Ok(false),
                }
            }
        }
    }

    /// Whether there is one.
    fn next_segment(&mut self, mut file: &File) -> io::Result<bool> {
        let lsn = self.segment.0 + SEGMENT;
        // Mostly the next in the file; else one that was free.
        let mut header = [0; HEADER_BYTES];
        let beside = self.segment.1 + SEGMENT;
        let is_beside = file.seek(SeekFrom::Start(beside)).is_ok()
            && file.read_exact(&mut header).is_ok()
            && read_header(&header).is_some_and(|(found, _)| found == lsn);
        let at = if is_beside {
            Some(beside)
        } else {
            Segments::read(file, lsn)?.found.get(&lsn).copied()
        };
        if let Some(at) = at {
            self.segment = (lsn, at);
            self.next = HEADER_BYTES;
        }
        Ok(at.is_some())
    }
}
