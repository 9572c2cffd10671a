//! Bodies of requests and responses: JSON within bounds.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use concord_shared::json::MOST_LEVELS;
use concord_shared::path::Path;
use futures_util::StreamExt as _;
use serde_json::Value as Json;

use super::problem::{Code, Problem};

/// Bytes of a body that is too large which are read all the same, behind those that it may have.
const DROPPED_BYTES: usize = 64 << 20;

/// What a body may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value.
    Json,
    /// A merge patch, RFC 7396.
    MergePatch,
    /// A JSON Patch, RFC 6902.
    JsonPatch,
}

impl Kind {
    /// By `Content-Type`. A body without one is JSON, as is whatever ends in `+json` and is no patch.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else {
            return Ok(Self::Json);
        };
        let text = value.to_str().unwrap_or_default();
        let essence = text.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            "application/merge-patch+json" => Ok(Self::MergePatch),
            "application/json-patch+json" => Ok(Self::JsonPatch),
            "application/json" => Ok(Self::Json),
            other if other.ends_with("+json") => Ok(Self::Json),
            _ => {
                let detail = format!("{text:?} is not taken here; application/json is");
                Err(Problem::new(Code::MediaType, detail))
            }
        }
    }
}

/// Reads a body of at most `most` bytes as JSON that a document may have at `path`.
pub async fn json(body: Body, most: usize, path: &Path) -> Result<Json, Problem> {
    let bytes = bytes(body, most).await?;
    // The parser's recursion must end before the stack does, and what is written must fit below the path.
    let levels = levels(&bytes);
    if levels + path.steps().len() > MOST_LEVELS {
        let detail = format!("a document has at most {MOST_LEVELS} levels");
        return Err(Problem::new(Code::TooDeep, detail).at(&path));
    }
    let mut parser = serde_json::Deserializer::from_slice(&bytes);
    parser.disable_recursion_limit();
    let parsed = serde::Deserialize::deserialize(&mut parser);
    let json: Json = parsed
        .and_then(|json| parser.end().map(|()| json))
        .map_err(|error| Problem::new(Code::BadJson, error.to_string()))?;
    Ok(json)
}

/// Reads a body of at most `most` bytes. One that is longer is read on for a while and dropped: who is still sending
/// when the connection is closed is not sure to see why.
async fn bytes(body: Body, most: usize) -> Result<Vec<u8>, Problem> {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    let mut length = 0_usize;
    while let Some(piece) = stream.next().await {
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
        let detail = format!("the body has more than {most} bytes");
        return Err(Problem::new(Code::BodyTooLarge, detail));
    }
    Ok(bytes)
}

/// Most brackets that are open at a time, outside of strings.
fn levels(bytes: &[u8]) -> usize {
    let (mut open, mut most) = (0_usize, 0);
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
                most = most.max(open);
            }
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::levels;

    #[test]
    fn levels_are_counted_outside_of_strings() {
        assert_eq!(levels(b""), 0);
        assert_eq!(levels(br#"{"a": [1, {"b": "[[[\"[["}], "c": []}"#), 3);
        assert_eq!(levels(b"]]][["), 2);
        assert_eq!(levels(&[b'['; 1000]), 1000);
    }
}
