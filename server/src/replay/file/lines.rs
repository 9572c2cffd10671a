//! The lines of a recording, and their checksums.

use serde::{Deserialize, Serialize};

/// What the first line names.
pub(super) const FORMAT: &str = "concord-recording";
/// How every recording begins.
pub(super) const BEGINNING: &[u8] = b"{\"format\":\"concord-recording\"";
pub(super) const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) format: String,
    pub(super) version: u32,
    pub(super) document: Option<String>,
    pub(super) crc: Crc,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) n: u64,
    pub(super) at: Option<u64>,
    pub(super) by: Option<String>,
    pub(super) change: String,
    pub(super) crc: Crc,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    pub(super) end: u64,
    pub(super) crc: Crc,
}

/// A CRC-32 as eight hexadecimal digits.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Crc(String);

impl Crc {
    pub(super) fn of(said: &str, change: &[u8]) -> Self {
        let mut crc = crc32fast::Hasher::new();
        crc.update(said.as_bytes());
        crc.update(change);
        Self(format!("{:08x}", crc.finalize()))
    }

    pub(super) fn of_header(document: Option<&str>) -> Self {
        let document = document.unwrap_or_default();
        Self::of(&format!("{FORMAT} {VERSION} {document}\n"), &[])
    }

    pub(super) fn of_line(n: u64, at: Option<u64>, by: Option<&str>, change: &[u8]) -> Self {
        let at = at.map(|at| at.to_string()).unwrap_or_default();
        let by = by.unwrap_or_default();
        Self::of(&format!("{n} {at} {by}\n"), change)
    }

    pub(super) fn of_end(end: u64) -> Self {
        Self::of(&format!("end {end}\n"), &[])
    }
}
