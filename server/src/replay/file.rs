//! The recording file: JSON Lines, one for each change in the order of arrival. PROTOCOL.md ("Recordings") has the
//! format for readers in other languages.
//!
//! It is written line by line and flushed by whoever writes, so a writer that is killed leaves whole lines and perhaps a
//! part of one. Every line carries its number and a checksum over what it says, so that what is read is what was written,
//! in its order, or an error; only that lines are missing at the end can't be seen but by the last line, which a
//! writer that ends in peace adds.

use std::fmt;
use std::io::{self, BufRead, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use concord_shared::ids::{DocumentId, IdError, PrincipalId};
use serde::Deserialize;

use super::builder::{Builder, ChangeError};
use super::recording::Loaded;
use lines::{BEGINNING, Crc, End, FORMAT, Header, Line, VERSION};

mod lines;
mod writer;

pub use writer::Writer;

/// What every chunk of Automerge begins with.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// Bytes of one line. The largest change that a server takes is 16 MiB, a third more in base64; this leaves room for
/// larger ones that were imported.
const MAX_LINE_BYTES: usize = 128 << 20;

/// How a recording ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With its last line: it is whole.
    Closed,
    /// With a whole line that is not the last: it is still being written, its writer was killed, or it was cut.
    Open,
    /// With part of a line, which was left out.
    Torn {
        /// The line's number in the file, from 1.
        line: u64,
        /// Bytes of it that are there.
        bytes: usize,
    },
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("it ends with its last line"),
            Self::Open => f.write_str("its last line is missing"),
            Self::Torn { line, bytes } => {
                write!(
                    f,
                    "it ends with {bytes} bytes of line {line}, which is torn"
                )
            }
        }
    }
}

/// Why a file is no recording.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error("reading line {line}")]
    Read {
        /// The line's number in the file, from 1.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// Longer than any line of a recording.
    #[error("line {line} has more than {limit} bytes")]
    LineTooLong {
        /// The line's number in the file, from 1.
        line: u64,
        /// How long it may be.
        limit: usize,
    },
    /// Not JSON, or not of this form.
    #[error("line {line} is not of the format")]
    Json {
        /// The line's number in the file, from 1.
        line: u64,
        /// What the parser found.
        source: serde_json::Error,
    },
    /// Some other file.
    #[error("line 1 does not name the format {FORMAT:?}")]
    Format,
    /// Of a version that this build does not know.
    #[error("version {found} of the format is not known, only {VERSION}")]
    Version {
        /// The version it names.
        found: u32,
    },
    /// What a line says is not what was written.
    #[error("line {line} does not have the checksum that it names")]
    Checksum {
        /// The line's number in the file, from 1.
        line: u64,
    },
    /// A line is missing, comes twice, or is of another recording.
    #[error("line {line} is number {found}, where {expected} should be")]
    OutOfPlace {
        /// The line's number in the file, from 1.
        line: u64,
        /// The number it has.
        found: u64,
        /// The number that was due.
        expected: u64,
    },
    /// The change is not base64.
    #[error("the change in line {line} is not base64")]
    Base64 {
        /// The line's number in the file, from 1.
        line: u64,
        /// What the decoder found.
        source: base64::DecodeError,
    },
    /// An id that is none.
    #[error("in line {line}")]
    Id {
        /// The line's number in the file, from 1.
        line: u64,
        /// What is wrong with it.
        source: IdError,
    },
    /// A change that is none, or in a place where it can't have come.
    #[error("in line {line}")]
    Change {
        /// The line's number in the file, from 1.
        line: u64,
        /// What is wrong with it.
        source: ChangeError,
    },
    /// Something behind the last line.
    #[error("line {line} comes behind the last line")]
    AfterEnd {
        /// The line's number in the file, from 1.
        line: u64,
    },
}

/// Whether a file that begins so is an `.automerge` file.
pub fn is_automerge(start: &[u8]) -> bool {
    start.starts_with(&MAGIC)
}

/// Whether a file that begins so is a recording.
pub fn is_recording(start: &[u8]) -> bool {
    start.starts_with(BEGINNING)
}

/// Reads a recording. What is whole of one that ends in the middle of a line is taken, and
/// [`Loaded::ending`] says that there was more; any other fault is an error.
pub fn read(mut from: impl BufRead) -> Result<Loaded, FileError> {
    let mut line = Vec::new();
    next_line(&mut from, 1, &mut line)?;
    let header = read_header(&line)?;
    let mut builder = Builder::new(header);
    let mut ending = Ending::Open;
    for number in 2.. {
        next_line(&mut from, number, &mut line)?;
        if line.is_empty() {
            break;
        }
        if ending == Ending::Closed {
            return Err(FileError::AfterEnd { line: number });
        }
        match read_line(number, &line, &mut builder) {
            Ok(is_last) if is_last => ending = Ending::Closed,
            Ok(_) => {}
            Err(_) if line.last() != Some(&b'\n') => {
                ending = Ending::Torn {
                    line: number,
                    bytes: line.len(),
                };
                break;
            }
            Err(error) => return Err(error),
        }
    }
    // Every change came after its deps, so none waits.
    let recording = builder
        .finish()
        .map_err(|source| FileError::Change { line: 1, source })?;
    Ok(Loaded { recording, ending })
}

fn next_line(from: &mut impl BufRead, number: u64, line: &mut Vec<u8>) -> Result<(), FileError> {
    line.clear();
    let most = MAX_LINE_BYTES as u64 + 1;
    let mut limited = from.take(most);
    limited
        .read_until(b'\n', line)
        .map_err(|source| FileError::Read {
            line: number,
            source,
        })?;
    if line.len() > MAX_LINE_BYTES {
        return Err(FileError::LineTooLong {
            line: number,
            limit: MAX_LINE_BYTES,
        });
    }
    Ok(())
}

fn read_header(line: &[u8]) -> Result<Option<DocumentId>, FileError> {
    // The version first: a later one may have other fields.
    #[derive(Deserialize)]
    struct Known {
        format: String,
        version: u32,
    }
    let json = |source| FileError::Json { line: 1, source };
    let known: Known = serde_json::from_slice(line).map_err(json)?;
    if known.format != FORMAT {
        return Err(FileError::Format);
    }
    if known.version != VERSION {
        return Err(FileError::Version {
            found: known.version,
        });
    }
    let header: Header = serde_json::from_slice(line).map_err(json)?;
    if header.crc != Crc::of_header(header.document.as_deref()) {
        return Err(FileError::Checksum { line: 1 });
    }
    let document = header.document.as_deref().map(DocumentId::new).transpose();
    document.map_err(|source| FileError::Id { line: 1, source })
}

/// Takes one line; whether it is the last.
fn read_line(number: u64, line: &[u8], builder: &mut Builder) -> Result<bool, FileError> {
    let expected = builder.changes().len() as u64;
    let json = |source| FileError::Json {
        line: number,
        source,
    };
    // Not left to serde to find out: of an error it would say only that none fits.
    if line.starts_with(b"{\"end\"") {
        let End { end, crc } = serde_json::from_slice(line).map_err(json)?;
        check(number, crc == Crc::of_end(end), end, expected)?;
        return Ok(true);
    }
    let Line {
        n,
        at,
        by,
        change,
        crc,
    } = serde_json::from_slice(line).map_err(json)?;
    let change = STANDARD
        .decode(change)
        .map_err(|source| FileError::Base64 {
            line: number,
            source,
        })?;
    let is_as_written = crc == Crc::of_line(n, at, by.as_deref(), &change);
    check(number, is_as_written, n, expected)?;
    let by = by.as_deref().map(PrincipalId::new).transpose();
    let by = by.map_err(|source| FileError::Id {
        line: number,
        source,
    })?;
    builder
        .push(&Bytes::from(change), at, by)
        .map_err(|source| FileError::Change {
            line: number,
            source,
        })?;
    Ok(false)
}

fn check(line: u64, is_as_written: bool, found: u64, expected: u64) -> Result<(), FileError> {
    if !is_as_written {
        return Err(FileError::Checksum { line });
    }
    if found != expected {
        return Err(FileError::OutOfPlace {
            line,
            found,
            expected,
        });
    }
    Ok(())
}
