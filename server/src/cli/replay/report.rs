//! What a replay found.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::trace::Trace;

/// The result of one replay; `--json` prints it as it is.
#[derive(Debug, Serialize)]
pub struct Report {
    /// People who typed.
    pub agents: usize,
    /// Transactions, each one change.
    pub transactions: usize,
    /// Single edits in them.
    pub edits: usize,
    /// Seconds from the first transaction until the last was acknowledged (in process: made).
    pub seconds: f64,
    /// Transactions by `seconds`.
    pub transactions_per_second: f64,
    /// Where it went; absent in process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerReport>,
    /// Bytes of the final document, saved; absent with a server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_bytes: Option<u64>,
    /// Whether every text compared (each writer's, the reader's, a late joiner's) is the trace's final text.
    pub text_matches: bool,
    /// The first difference, for a text that does not match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
}

/// The part of a report that needs a server.
#[derive(Debug, Serialize)]
pub struct ServerReport {
    /// The document that was made.
    pub document: String,
    /// Bytes of frames that the writers sent.
    pub bytes_sent: u64,
    /// Bytes of frames that the writers received.
    pub bytes_received: u64,
    /// Seconds from the first transaction until a second client had them all, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reader_seconds: Option<f64>,
    /// Seconds until a client that opened the document afterwards had it all.
    pub join_seconds: f64,
    /// Bytes of frames it received for that.
    pub join_bytes: u64,
}

/// Where a text departs from the trace's final text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Place of the first difference, in code points.
    pub position: usize,
    /// Code points of the text.
    pub length: usize,
    /// Code points of the trace's final text.
    pub expected_length: usize,
}

impl Report {
    pub(super) fn new(trace: &Trace, elapsed: Duration) -> Self {
        let transactions = trace.transactions.len();
        let seconds = elapsed.as_secs_f64();
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate to read, not to count with"
        )]
        let transactions_per_second = transactions as f64 / seconds.max(1e-9);
        Self {
            agents: trace.agents,
            transactions,
            edits: trace.edits(),
            seconds,
            transactions_per_second,
            server: None,
            document_bytes: None,
            text_matches: true,
            difference: None,
        }
    }

    /// Compares one resulting text; the first that differs is reported.
    pub(super) fn compare(&mut self, trace: &Trace, text: &str) {
        if text == trace.end {
            return;
        }
        self.text_matches = false;
        let same = text
            .chars()
            .zip(trace.end.chars())
            .take_while(|(a, b)| a == b)
            .count();
        self.difference.get_or_insert(Difference {
            position: same,
            length: text.chars().count(),
            expected_length: trace.end.chars().count(),
        });
    }

    /// Writes the report for people.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{} transactions ({} edits by {}) in {:.2} s: {:.0} a second",
            self.transactions,
            self.edits,
            if self.agents == 1 {
                "one agent".to_owned()
            } else {
                format!("{} agents", self.agents)
            },
            self.seconds,
            self.transactions_per_second
        )?;
        if let Some(bytes) = self.document_bytes {
            writeln!(out, "document: {bytes} bytes saved")?;
        }
        if let Some(server) = &self.server {
            writeln!(out, "document: automerge:{}", server.document)?;
            writeln!(
                out,
                "writers: {} bytes sent, {} received",
                server.bytes_sent, server.bytes_received
            )?;
            if let Some(seconds) = server.reader_seconds {
                writeln!(out, "reader: had everything after {seconds:.2} s")?;
            }
            writeln!(
                out,
                "late joiner: {} bytes, {:.3} s",
                server.join_bytes, server.join_seconds
            )?;
        }
        match &self.difference {
            None => writeln!(out, "the final text is the trace's"),
            Some(difference) => writeln!(
                out,
                "THE FINAL TEXT DIFFERS at code point {}: {} code points where the trace has {}",
                difference.position, difference.length, difference.expected_length
            ),
        }
    }
}
