//! Writing a recording.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use concord_shared::ids::{DocumentId, PrincipalId};
use serde::Serialize;

use super::lines::{Crc, End, FORMAT, Header, Line, VERSION};

/// Writes a recording.
///
/// [`new`](Self::new) writes the first line, [`change`](Self::change) one for each change, [`flush`](Self::flush) hands
/// them to the operating system, and [`finish`](Self::finish) writes the last line, without which the
/// recording is not whole.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: W,
    changes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a recording of a document.
    pub fn new(to: W, document: Option<&DocumentId>) -> io::Result<Self> {
        let document = document.map(DocumentId::as_str);
        let mut writer = Self { to, changes: 0 };
        writer.line(&Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            document: document.map(ToOwned::to_owned),
            crc: Crc::of_header(document),
        })?;
        Ok(writer)
    }

    /// Writes one change chunk, which must come after those it depends on.
    pub fn change(
        &mut self,
        bytes: &[u8],
        arrived_ms: Option<u64>,
        principal: Option<&PrincipalId>,
    ) -> io::Result<()> {
        let by = principal.map(PrincipalId::as_str);
        self.line(&Line {
            n: self.changes,
            at: arrived_ms,
            by: by.map(ToOwned::to_owned),
            change: STANDARD.encode(bytes),
            crc: Crc::of_line(self.changes, arrived_ms, by, bytes),
        })?;
        self.changes += 1;
        Ok(())
    }

    /// How many changes were written.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Hands over what was written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// Writes the last line.
    pub fn finish(mut self) -> io::Result<W> {
        let end = self.changes;
        let crc = Crc::of_end(end);
        self.line(&End { end, crc })?;
        self.to.flush()?;
        Ok(self.to)
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, line)?;
        self.to.write_all(b"\n")
    }
}
