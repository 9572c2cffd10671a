//! Server-sent events (the HTML standard, section 9.2.6), as far as the API makes them.

use anyhow::{Context as _, ensure};
use bytes::Bytes;

/// Most bytes of an event: no document makes JSON of that length.
const EVENT_BYTES: usize = 256 << 20;

/// One event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) data: String,
}

/// A stream of them.
#[derive(Debug)]
pub(super) struct Events {
    response: reqwest::Response,
    parser: Parser,
}

impl Events {
    pub(super) fn new(response: reqwest::Response) -> Self {
        Self {
            response,
            parser: Parser::default(),
        }
    }

    /// The next event; `None` at the end.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(event) = self.parser.next()? {
                return Ok(Some(event));
            }
            let piece = self.response.chunk().await;
            let piece = piece.map_err(reqwest::Error::without_url);
            match piece.context("reading events")? {
                Some(piece) => self.parser.push(&piece),
                None => return Ok(None),
            }
        }
    }
}

/// Finds events in bytes that come in any pieces.
#[derive(Debug, Default)]
struct Parser {
    bytes: Vec<u8>,
    /// Before this there is no end of a line.
    searched: usize,
    event: Event,
}

impl Parser {
    fn push(&mut self, piece: &Bytes) {
        self.bytes.extend_from_slice(piece);
    }

    fn next(&mut self) -> anyhow::Result<Option<Event>> {
        while let Some(line) = self.line() {
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if !event.kind.is_empty() {
                    return Ok(Some(event));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.event.kind),
                "id" => value.clone_into(&mut self.event.id),
                "data" => self.event.data.push_str(value),
                // Comments are signs of life.
                _ => {}
            }
        }
        ensure!(
            self.bytes.len() + self.event.data.len() <= EVENT_BYTES,
            "an event has more than {EVENT_BYTES} bytes"
        );
        Ok(None)
    }

    /// The next line that is whole.
    fn line(&mut self) -> Option<String> {
        let unsearched = self.bytes.get(self.searched..)?;
        let Some(end) = unsearched.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.bytes.len();
            return None;
        };
        let rest = self.bytes.split_off(self.searched + end + 1);
        let line = std::mem::replace(&mut self.bytes, rest);
        self.searched = 0;
        let line = String::from_utf8_lossy(&line);
        Some(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_they_are_cut() {
        let stream = "retry: 1000\n\nevent: value\nid: 1.2\ndata: {\"a\":\"é\"}\n\n:\n\nevent:gone\r\nid: 3\r\ndata: null\r\n\r\nevent: patch\nid: 4";
        let events = |size: usize| {
            let mut parser = Parser::default();
            let mut found = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                parser.push(&Bytes::copy_from_slice(piece));
                while let Some(event) = parser.next().expect("short") {
                    found.push((event.kind, event.id, event.data));
                }
            }
            found
        };
        let expected = [("value", "1.2", r#"{"a":"é"}"#), ("gone", "3", "null")];
        let expected = expected.map(|(kind, id, data)| (kind.into(), id.into(), data.into()));
        for size in 1..stream.len() {
            assert_eq!(events(size), expected, "pieces of {size}");
        }
    }
}
