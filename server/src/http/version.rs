//! Versions of a document in headers and queries: its heads.
//!
//! An entity tag is the heads, each in hex, with dots between: `"1f3a….9c04…"`. What is no JSON, or is compressed, has
//! the same with a suffix, since other bytes must have another tag: `"1f3a…-automerge"`, `"1f3a…-gzip"`. A version of a
//! document is known by exactly one tag without suffixes, and by any suffix: proxies that compress add theirs.

use automerge::ChangeHash;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use sha2::{Digest as _, Sha256};

use super::problem::{Code, Problem};

/// Bytes of a change hash.
const HASH_BYTES: usize = 32;

/// Heads, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub Vec<ChangeHash>);

/// What a document or a value in it is told as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// JSON.
    Json,
    /// The document's own bytes.
    Automerge,
}

impl Form {
    fn suffix(self) -> &'static str {
        match self {
            Self::Json => "",
            Self::Automerge => "-automerge",
        }
    }
}

/// What the tag is of bytes that are no document.
pub fn hash_of(bytes: &[u8]) -> String {
    let mut hash = hex::encode(Sha256::digest(bytes));
    hash.truncate(HASH_BYTES);
    hash
}

impl Version {
    /// Reads what [`Display`](std::fmt::Display) writes, with any suffix that a tag may have.
    pub fn parse(text: &str) -> Option<Self> {
        let mut heads = Vec::new();
        let (text, _suffix) = text.split_once('-').unwrap_or((text, ""));
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

    /// As the entity tag of what is told as JSON.
    pub fn etag(&self) -> HeaderValue {
        self.etag_of(Form::Json)
    }

    /// As an entity tag.
    pub fn etag_of(&self, form: Form) -> HeaderValue {
        tag(&format!("{self}{}", form.suffix()))
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

/// An entity tag, of hex, dots and suffixes, or what was a header's already.
pub fn tag(opaque: &str) -> HeaderValue {
    HeaderValue::try_from(format!("\"{opaque}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// The same tag for bytes that were compressed.
pub fn compressed(etag: &HeaderValue, coding: &str) -> HeaderValue {
    let text = etag.to_str().unwrap_or_default();
    tag(&format!("{}-{coding}", text.trim_matches('"')))
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

/// What a reader has of the same address (`If-None-Match`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Had(Named);

impl Had {
    /// By the headers.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        named(headers, &header::IF_NONE_MATCH).map(Self)
    }

    /// The tag by which the reader has this version in this form, compressed or not: a stored answer is made fresh by
    /// its own tag (RFC 9111, section 4.3.4).
    pub fn etag(&self, version: &Version, form: Form) -> Option<HeaderValue> {
        self.tag(&format!("{version}{}", form.suffix()))
    }

    /// Likewise of anything that has this tag.
    pub fn tag(&self, plain: &str) -> Option<HeaderValue> {
        match &self.0 {
            Named::Any => Some(tag(plain)),
            Named::Tags(tags) => {
                let same = |tag: &&String| match tag.strip_prefix(plain) {
                    Some("") => true,
                    // Not the suffix of another form.
                    Some(rest) => {
                        rest.starts_with('-') && !rest.starts_with(Form::Automerge.suffix())
                    }
                    None => false,
                };
                tags.iter().find(same).map(|opaque| tag(opaque))
            }
        }
    }
}

/// `None` where tags are named and none of them is a version.
fn condition(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Condition>, Problem> {
    let tags = match named(headers, name)? {
        Named::Any => return Ok(Some(Condition::Any)),
        Named::Tags(tags) => tags,
    };
    let versions: Vec<_> = tags.iter().filter_map(|tag| Version::parse(tag)).collect();
    Ok(match (headers.contains_key(name), versions.is_empty()) {
        (false, _) => Some(Condition::None),
        (true, true) => None,
        (true, false) => Some(Condition::OneOf(versions)),
    })
}

/// What a condition names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    /// `*`.
    Any,
    /// These, without quotes.
    Tags(Vec<String>),
}

fn named(headers: &HeaderMap, name: &HeaderName) -> Result<Named, Problem> {
    let mut tags = Vec::new();
    for value in headers.get_all(name) {
        let bad = || Problem::new(Code::BadHeader, format!("{name} can't be read"));
        let mut rest = value.to_str().map_err(|_| bad())?.trim();
        if rest == "*" {
            return Ok(Named::Any);
        }
        // Elements of a list may be empty (RFC 9110, section 5.6.1.2).
        rest = rest.trim_start_matches([',', ' ', '\t']);
        while !rest.is_empty() {
            let tag = rest.strip_prefix("W/").unwrap_or(rest);
            let tag = tag.strip_prefix('"').ok_or_else(bad)?;
            let (tag, after) = tag.split_once('"').ok_or_else(bad)?;
            tags.push(tag.to_owned());
            let after = after.trim_start();
            if !after.is_empty() && !after.starts_with(',') {
                return Err(bad());
            }
            rest = after.trim_start_matches([',', ' ', '\t']);
        }
    }
    Ok(Named::Tags(tags))
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
        assert_eq!(read(&[&format!(" , {a},, ,W/{b},")]), both);
        for none in ["\"x\"", "", ","] {
            assert!(
                read(&[none]).unwrap_err().contains("UnknownHeads"),
                "{none}"
            );
        }
        for bad in ["x", "\"x", "\"x\" \"y\"", "W/x", ",x"] {
            assert!(read(&[bad]).unwrap_err().contains("BadHeader"), "{bad}");
        }
    }

    #[test]
    fn suffixes_tell_forms_apart_and_are_no_part_of_the_version() {
        let version = Version(vec![ChangeHash([1; 32]), ChangeHash([2; 32])]);
        let has = |value: &str, form| {
            let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, value.parse().unwrap())]);
            let etag = Had::of(&headers).unwrap().etag(&version, form);
            etag.map(|etag| etag.to_str().unwrap().to_owned())
        };
        let json = format!("\"{version}\"");
        let zipped = format!("\"{version}-gzip\"");
        let bytes = format!("\"{version}-automerge\"");
        for own in [&json, &zipped] {
            assert_eq!(has(own, Form::Json).as_ref(), Some(own));
            assert_eq!(
                has(&format!("\"x\", W/{own}"), Form::Json).as_ref(),
                Some(own)
            );
            assert_eq!(has(own, Form::Automerge), None);
        }
        assert_eq!(has(&bytes, Form::Json), None);
        assert_eq!(has(&bytes, Form::Automerge).as_ref(), Some(&bytes));
        assert_eq!(has("*", Form::Json), Some(json));
        assert_eq!(has("*", Form::Automerge), Some(bytes));
        let one = Version(vec![ChangeHash([1; 32])]);
        assert_eq!(has(&format!("\"{one}\""), Form::Json), None);
        assert_eq!(compressed(&version.etag(), "gzip"), zipped);
        for suffix in ["", "-gzip", "-automerge", "--gzip"] {
            let text = format!("{version}{suffix}");
            assert_eq!(Version::parse(&text).as_ref(), Some(&version), "{suffix}");
        }
    }
}
