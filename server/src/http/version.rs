//! Versions of a document in headers and queries: its heads.
//!
//! An entity tag is the heads, each in hex, with dots between: `"1f3a….9c04…"`. A version of a document is known by
//! exactly one.

use automerge::ChangeHash;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::problem::{Code, Problem};

/// Bytes of a change hash.
const HASH_BYTES: usize = 32;

/// Heads, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub Vec<ChangeHash>);

impl Version {
    /// Reads what [`Display`](std::fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut heads = Vec::new();
        for head in text.split('.') {
            if head.len() != 2 * HASH_BYTES {
                return None;
            }
            heads.push(head.parse().ok()?);
        }
        heads.sort_unstable();
        heads.dedup();
        Some(Self(heads))
    }

    /// As an entity tag.
    pub fn etag(&self) -> HeaderValue {
        // Hex, dots and quotes.
        HeaderValue::try_from(format!("\"{self}\""))
            .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, head) in self.0.iter().enumerate() {
            let dot = if n == 0 { "" } else { "." };
            write!(f, "{dot}{head}")?;
        }
        Ok(())
    }
}

/// What a request asks of the version that is here (RFC 9110, section 13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    None,
    /// Anything (`*`).
    Any,
    /// One of these. A weak tag is as good: two versions that are equivalent here are equal.
    OneOf(Vec<Version>),
}

/// `If-Match`: the version that the author of a write saw.
pub fn if_match(headers: &HeaderMap) -> Result<Condition, Problem> {
    let condition = condition(headers, &header::IF_MATCH)?;
    // What can't be a version of any document is no version of this one.
    condition.ok_or_else(|| Problem::new(Code::UnknownHeads, "If-Match names no version"))
}

/// `If-None-Match`: the versions that the client has. Tags that are none of this server's match nothing.
pub fn if_none_match(headers: &HeaderMap) -> Result<Condition, Problem> {
    let condition = condition(headers, &header::IF_NONE_MATCH)?;
    Ok(condition.unwrap_or(Condition::None))
}

/// `None` where tags are named and none of them is a version.
fn condition(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Condition>, Problem> {
    let mut tags = Vec::new();
    let mut is_named = false;
    for value in headers.get_all(name) {
        let bad = || Problem::new(Code::BadHeader, format!("{name} can't be read"));
        let mut rest = value.to_str().map_err(|_| bad())?.trim();
        if rest == "*" {
            return Ok(Some(Condition::Any));
        }
        is_named = true;
        while !rest.is_empty() {
            let tag = rest.strip_prefix("W/").unwrap_or(rest);
            let tag = tag.strip_prefix('"').ok_or_else(bad)?;
            let (tag, after) = tag.split_once('"').ok_or_else(bad)?;
            tags.extend(Version::parse(tag));
            let after = after.trim_start();
            rest = after.strip_prefix(',').map_or(after, str::trim_start);
            if rest == after && !rest.is_empty() {
                return Err(bad());
            }
        }
    }
    Ok(match (is_named, tags.is_empty()) {
        (false, _) => Some(Condition::None),
        (true, true) => None,
        (true, false) => Some(Condition::OneOf(tags)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read_as_the_rfc_writes_them() {
        let one = Version(vec![ChangeHash([1; 32])]);
        let two = Version(vec![ChangeHash([1; 32]), ChangeHash([2; 32])]);
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_MATCH, value.parse().unwrap());
            }
            if_match(&headers).map_err(|problem| format!("{problem:?}"))
        };
        assert_eq!(read(&[]), Ok(Condition::None));
        assert_eq!(read(&["*"]), Ok(Condition::Any));
        let (a, b) = (one.etag(), two.etag());
        let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
        let both = Ok(Condition::OneOf(vec![one.clone(), two.clone()]));
        assert_eq!(read(&[&format!("{a}, W/{b}")]), both);
        assert_eq!(read(&[a, b]), both);
        assert_eq!(
            read(&[&format!("\"x\",{b}")]),
            Ok(Condition::OneOf(vec![two]))
        );
        assert!(read(&["\"x\""]).unwrap_err().contains("UnknownHeads"));
        for bad in ["x", "\"x", "\"x\" \"y\"", "W/x", ","] {
            assert!(read(&[bad]).unwrap_err().contains("BadHeader"), "{bad}");
        }
    }
}
