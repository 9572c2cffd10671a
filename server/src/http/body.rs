//! Bodies of requests, within bounds: JSON, or bytes; as they are, or compressed.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use concord_shared::code::ErrorCode;
use concord_shared::json::{MOST_BYTES, MOST_LEVELS, MOST_VALUES};
use concord_shared::path::Path;
use flate2::read::MultiGzDecoder;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::Value as Json;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::accept::{AUTOMERGE, JSON};
use super::idempotency::Fingerprint;
use super::problem::{Code, Problem};
use crate::connection::patience::SLOWEST_MESSAGE_BYTES_PER_SECOND;
use crate::limits::Limit;
use crate::limits::account::{Account, Turn};
use crate::metrics::Metrics;
use crate::object::Object;

/// How long a body may take beside what the slowest line there is needs for it. Who sends more slowly holds what came of it
/// in memory, and a connection.
const BODY_PATIENCE: Duration = Duration::from_secs(15);

/// Bytes of a body that is too large which are read all the same, behind those that it may have.
const DROPPED_BYTES: usize = 64 << 20;

/// See [`Kind`].
pub const MERGE_PATCH: &str = "application/merge-patch+json";
/// See [`Kind`].
pub const JSON_PATCH: &str = "application/json-patch+json";

/// The one coding in which bodies come and go compressed. Every client has it, and it is built in already.
pub const GZIP: &str = "gzip";

/// What a body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value.
    Json,
    /// A merge patch, RFC 7396.
    MergePatch,
    /// A JSON Patch, RFC 6902.
    JsonPatch,
    /// A document's own bytes.
    Automerge,
}

impl Kind {
    /// By `Content-Type`. A body without one is JSON, as is whatever ends in `+json` and is no patch.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else {
            return Ok(Self::Json);
        };
        let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
        let mut parts = text.split(';').map(str::trim);
        let bad = || {
            let detail = format!("{text:?} is not taken here; {JSON} is");
            Problem::new(Code::MediaType, detail)
        };
        let kind = match parts.next().unwrap_or_default() {
            MERGE_PATCH => Self::MergePatch,
            JSON_PATCH => Self::JsonPatch,
            AUTOMERGE => Self::Automerge,
            JSON => Self::Json,
            other if other.ends_with("+json") => Self::Json,
            _ => return Err(bad()),
        };
        // JSON is in UTF-8 (RFC 8259, section 8.1), and who says that it is not should not be misread.
        let charset = parts.find_map(|part| part.strip_prefix("charset="));
        match charset.map(|charset| charset.trim_matches('"')) {
            None | Some("utf-8" | "us-ascii") => Ok(kind),
            Some(_) => Err(bad()),
        }
    }
}

/// Most bytes of a request's body.
pub const BODY_BYTES: usize = MOST_BYTES;

/// Bytes of a body with which it is large.
const LARGE_BYTES: usize = 64 << 10;

/// Large bodies that are parsed and written at a time, per server. One caller has half of them at most: writing can take as
/// long as half a minute in a document that is full of what was removed.
pub const CONCURRENT_LARGE_BODIES: usize = 4;

/// A value, and the right to hold it in memory.
#[derive(Debug)]
pub struct Parsed {
    /// The value.
    pub json: Json,
    /// Given back when the work on it is done. None, for one that is not large.
    pub turn: Option<Turn>,
    /// Of the bytes that it was.
    pub fingerprint: Fingerprint,
}

/// Reads a body as JSON that a document may have at `path`. Large ones wait for each other.
pub async fn json(
    headers: &HeaderMap,
    body: Body,
    path: &Path,
    large: &Arc<Semaphore>,
    account: &Account,
) -> Result<Parsed, Problem> {
    // Before there is a turn: who sends slowly takes up none.
    let raw = raw(headers, body, BODY_BYTES).await?;
    // What is compressed may be large, whatever it looks like.
    let turn = if raw.is_compressed || raw.bytes.len() > LARGE_BYTES {
        Some(account.bodies.turn(large).await)
    } else {
        None
    };
    let (is_large, path) = (turn.is_some(), path.clone());
    let read = move || {
        let bytes = raw.inflated()?;
        let json = parsed(&bytes, &path)?;
        let fingerprint = Fingerprint::of(&bytes);
        Ok(Parsed {
            json,
            turn,
            fingerprint,
        })
    };
    if !is_large {
        return read();
    }
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|_| Err(Problem::new(Code::Wire(ErrorCode::Internal), "")))
}

/// What an object says by its members.
pub fn object<'a, T: Deserialize<'a>>(json: &'a Json) -> Result<T, Problem> {
    let bad = |error: serde_json::Error| Problem::new(Code::BadJson, error.to_string());
    Ok(Object::<T>::deserialize(json).map_err(bad)?.0)
}

/// A body as it came.
#[derive(Debug)]
pub struct Raw {
    bytes: Vec<u8>,
    is_compressed: bool,
    most: usize,
}

/// Reads a body of at most `most` bytes, before and after inflating.
pub async fn raw(headers: &HeaderMap, body: Body, most: usize) -> Result<Raw, Problem> {
    let is_compressed = is_compressed(headers)?;
    Ok(Raw {
        bytes: bytes(body, most, BODY_PATIENCE).await?,
        is_compressed,
        most,
    })
}

impl Raw {
    /// What it is when it is inflated: some thousand times as much, perhaps. Blocks.
    pub fn inflated(self) -> Result<Vec<u8>, Problem> {
        if self.is_compressed {
            inflated(&self.bytes, self.most)
        } else {
            Ok(self.bytes)
        }
    }
}

/// By `Content-Encoding`.
fn is_compressed(headers: &HeaderMap) -> Result<bool, Problem> {
    let codings = headers.get_all(header::CONTENT_ENCODING).into_iter();
    let codings = codings.flat_map(|value| value.to_str().unwrap_or("?").split(','));
    let codings = codings.map(|coding| coding.trim().to_ascii_lowercase());
    let mut codings = codings.filter(|coding| !coding.is_empty() && coding != "identity");
    match (codings.next().as_deref(), codings.next()) {
        (None, _) => Ok(false),
        (Some(GZIP | "x-gzip"), None) => Ok(true),
        _ => {
            let detail = format!("a body may be compressed by {GZIP}, once");
            Err(Problem::new(Code::ContentCoding, detail))
        }
    }
}

/// What was compressed, if it is no more than may come as it is. Stops there: a few bytes can claim gigabytes.
fn inflated(bytes: &[u8], most: usize) -> Result<Vec<u8>, Problem> {
    let mut inflated = Vec::new();
    let mut reader = MultiGzDecoder::new(bytes).take(most as u64 + 1);
    let bad = |_| Problem::new(Code::BadBody, format!("the body is no {GZIP}, or was cut"));
    reader.read_to_end(&mut inflated).map_err(bad)?;
    if inflated.len() > most {
        return Err(too_large(most));
    }
    Ok(inflated)
}

fn too_large(most: usize) -> Problem {
    let detail = format!("the body has more than {most} bytes");
    Problem::new(Code::BodyTooLarge, detail)
}

fn parsed(bytes: &[u8], path: &Path) -> Result<Json, Problem> {
    let Size { levels, values } = Size::of(bytes);
    // The parser's recursion must end before the stack does, and what is written must fit below the path.
    if levels + path.steps().len() > MOST_LEVELS {
        let detail = format!("a document has at most {MOST_LEVELS} levels");
        return Err(Problem::new(Code::TooDeep, detail).at(path));
    }
    // In memory one takes tens of bytes, of two in the body.
    if values > MOST_VALUES {
        let detail = format!("a body has at most {MOST_VALUES} values");
        return Err(Problem::new(Code::TooManyValues, detail));
    }
    parse(bytes).map_err(|error| Problem::new(Code::BadJson, error.to_string()))
}

/// Parses JSON of any depth, which is to be known to be bounded ([`Size::levels`]): the parser recurses.
pub(crate) fn parse(bytes: &[u8]) -> serde_json::Result<Json> {
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    parser.disable_recursion_limit();
    let json = Json::deserialize(&mut parser)?;
    parser.end()?;
    Ok(json)
}

/// Reads a body of at most `most` bytes. One that is longer is read on for a while and dropped: who is still sending
/// when the connection is closed is not sure to see why.
async fn bytes(body: Body, most: usize, patience: Duration) -> Result<Vec<u8>, Problem> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut length = 0_usize;
    let started = Instant::now();
    loop {
        let due = Duration::from_secs(length as u64 / u64::from(SLOWEST_MESSAGE_BYTES_PER_SECOND));
        let Ok(piece) = timeout_at(started + patience + due, stream.next()).await else {
            Metrics::limited(Limit::SlowBodies);
            let detail = "the body comes more slowly than any line is";
            return Err(Problem::new(Code::SlowBody, detail));
        };
        let Some(piece) = piece else { break };
        let cut_short = |_| Problem::new(Code::BadBody, "the body did not come to its end");
        let piece = piece.map_err(cut_short)?;
        length = length.saturating_add(piece.len());
        if length <= most {
            bytes.extend_from_slice(&piece);
        } else {
            bytes = Vec::new();
        }
        if length > most.saturating_add(DROPPED_BYTES) {
            break;
        }
    }
    if length > most {
        return Err(too_large(most));
    }
    Ok(bytes)
}

/// How large a value is that bytes stand for, if they are JSON.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Most brackets that are open at a time.
    pub(crate) levels: usize,
    /// At least as many as there are values.
    values: usize,
}

impl Size {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let (mut open, mut levels, mut values) = (0_usize, 0, 1);
        let mut is_string = false;
        let mut is_escaped = false;
        for byte in bytes {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' if is_string => is_escaped = true,
                b'"' => is_string = !is_string,
                _ if is_string => {}
                b'[' | b'{' => {
                    open += 1;
                    values += 1;
                    levels = levels.max(open);
                }
                b',' => values += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
        }
        Self { levels, values }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::stream;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::time::sleep;

    use super::*;

    /// So many pieces, and as long before each.
    async fn come(pieces: usize, bytes: usize, pause: Duration) -> Result<usize, &'static str> {
        let pieces = stream::unfold(0, move |n| async move {
            sleep(pause).await;
            (n < pieces).then(|| (Ok::<_, Infallible>(Bytes::from(vec![b' '; bytes])), n + 1))
        });
        let read = super::bytes(
            Body::from_stream(pieces),
            1 << 20,
            Duration::from_millis(400),
        );
        let read = read.await.map_err(|problem| problem.code.as_str())?;
        Ok(read.len())
    }

    #[test]
    fn a_body_that_comes_too_slowly_is_not_waited_for_and_a_large_one_may_take_its_time() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        let come = |pieces, bytes| {
            let come = come(pieces, bytes, Duration::from_millis(50));
            metrics::with_local_recorder(&recorder, || runtime.block_on(come))
        };
        assert_eq!(come(3, 1), Ok(3));
        assert_eq!(come(20, 1), Err("slow-body"));
        let enough = SLOWEST_MESSAGE_BYTES_PER_SECOND as usize;
        assert_eq!(come(20, enough), Ok(20 * enough));
        let counted = recorder.handle().render();
        assert!(counted.contains("concord_limited_total{limit=\"slow-bodies\"} 1"));
    }

    #[test]
    fn levels_and_values_are_counted_outside_of_strings() {
        let size = |bytes: &[u8]| {
            let Size { levels, values } = Size::of(bytes);
            (levels, values)
        };
        assert_eq!(size(b""), (0, 1));
        assert_eq!(size(br#"{"a": [1, {"b": "[[[\"[[,,"}], "c": []}"#), (3, 7));
        assert_eq!(size(b"]]][["), (2, 3));
        assert_eq!(size(&[b'['; 1000]), (1000, 1001));
    }
}
