//! `Idempotency-Key`: a request that is sent again, under the same key, is carried out once.
//!
//! After draft-ietf-httpapi-idempotency-key-header-07. So is a `PUT` that goes on from a version (RFC 9110, section 9.2.2:
//! clients and proxies send it again by themselves): at that version it would be carried out again, beside itself. What was carried out is told by the document itself, in the
//! messages of its changes ([`crate::view::marks`]), so nothing is kept here, nothing is forgotten at a restart, and
//! there is no window of time.

use axum::http::{HeaderMap, Method, Uri, header};
use concord_shared::ids::{DocumentId, PrincipalId};
use sha2::{Digest as _, Sha256};

use super::problem::{Code, Problem};
use crate::view::marks::{By, Mark};

const HEADER: &str = "idempotency-key";

/// Bytes of a key.
const MOST_BYTES: usize = 255;

/// A hash of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// A client's name for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    text: String,
    /// Whose it is. Keys of different people are different keys, should they be alike.
    who: PrincipalId,
}

impl Key {
    /// A string by RFC 9651, in quotes, as the draft has it; or as it is, as many send it.
    pub fn of(headers: &HeaderMap, who: &PrincipalId) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(HEADER).into_iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let bad = || {
            let detail = format!("a key is one string of 1 to {MOST_BYTES} visible characters");
            Problem::new(Code::BadHeader, format!("{HEADER}: {detail}"))
        };
        let text = value.to_str().map_err(|_| bad())?.trim();
        let quoted = text
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'));
        let key = quoted.unwrap_or(text);
        let is_visible = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        let is_good = (1..=MOST_BYTES).contains(&key.len()) && key.bytes().all(is_visible);
        if !is_good || values.next().is_some() {
            return Err(bad());
        }
        Ok(Some(Self {
            text: key.to_owned(),
            who: who.clone(),
        }))
    }

    /// The id of the document that the request makes: it is the same one when it comes again.
    pub fn document(&self) -> DocumentId {
        DocumentId::from_uuid(self.hashed("document").to_be_bytes())
    }

    /// The key in an object of the value that the request adds.
    pub fn member(&self) -> String {
        let random = uuid::Builder::from_custom_bytes(self.hashed("member").to_be_bytes());
        random.into_uuid().to_string()
    }

    /// The id of the document that a request to fork another makes.
    pub fn fork(&self, of: &DocumentId, Fingerprint(body): Fingerprint) -> DocumentId {
        let purpose = format!("fork\0{of}\0{}", hex::encode(body));
        DocumentId::from_uuid(self.hashed(&purpose).to_be_bytes())
    }

    /// What the request's change in this document says. A fork has the changes of what it was forked from, and none of
    /// its own under a key that was used there.
    pub fn mark(
        &self,
        document: &DocumentId,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        Fingerprint(body): Fingerprint,
    ) -> Mark {
        Mark {
            by: By::Key,
            key: self.hashed(&format!("key\0{document}")),
            request: asked(method, uri, headers, &body),
        }
    }

    /// For one purpose.
    fn hashed(&self, purpose: &str) -> u128 {
        let named = format!("concord {purpose}\0{}\0{}", self.who.as_str(), self.text);
        first_half(Sha256::digest(named).into())
    }
}

/// What the change of a `PUT` says: by its key, or without one by the version that it goes on from, if it names any.
pub fn mark_of_put(
    key: Option<Key>,
    who: &PrincipalId,
    document: &DocumentId,
    uri: &Uri,
    headers: &HeaderMap,
    body: Fingerprint,
) -> Option<Mark> {
    if let Some(key) = key {
        return Some(key.mark(document, &Method::PUT, uri, headers, body));
    }
    let version = headers.get(header::IF_MATCH)?;
    let mark = Mark {
        by: By::Version,
        // What another sends is another request, should it be alike.
        key: asked(&Method::PUT, uri, headers, who.as_str().as_bytes()),
        request: asked(&Method::PUT, uri, headers, &body.0),
    };
    (version != "*").then_some(mark)
}

fn asked(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> u128 {
    let mut asked = Sha256::new();
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let mut part = |bytes: &[u8]| {
        asked.update((bytes.len() as u64).to_be_bytes());
        asked.update(bytes);
    };
    part(method.as_str().as_bytes());
    part(target.as_bytes());
    for name in [
        header::CONTENT_TYPE,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
    ] {
        part(headers.get(name).map_or(&[][..], |value| value.as_bytes()));
    }
    part(body);
    first_half(asked.finalize().into())
}

fn first_half(hash: [u8; 32]) -> u128 {
    let half = hash.first_chunk().copied();
    u128::from_be_bytes(half.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[&str]) -> Result<Option<String>, Code> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, value.parse().expect("a value"));
        }
        let key = Key::of(&headers, &PrincipalId::anonymous()).map_err(|problem| problem.code);
        key.map(|key| key.map(|key| key.text))
    }

    fn key_of(text: &str) -> Key {
        Key {
            text: text.to_owned(),
            who: PrincipalId::anonymous(),
        }
    }

    #[test]
    fn a_key_is_read_with_quotes_and_without() {
        assert_eq!(key(&[]), Ok(None));
        for value in ["8e03978e", "\"8e03978e\""] {
            assert_eq!(key(&[value]), Ok(Some("8e03978e".to_owned())));
        }
        let long = "x".repeat(256);
        for bad in [
            &["a", "a"][..],
            &[""],
            &["\"\""],
            &["\"a"],
            &["a b"],
            &["\"a\\b\""],
            &[&long],
        ] {
            assert_eq!(key(bad), Err(Code::BadHeader), "{bad:?}");
        }
    }

    #[test]
    fn what_is_asked_is_told_apart_by_all_that_counts() {
        let key = key_of("k");
        let [document, fork] = [1, 2].map(|n| DocumentId::from_uuid([n; 16]));
        let mark = |method, uri: &str, seen: &'static str, body: &[u8]| {
            let seen = (header::IF_MATCH, seen.parse().expect("a value"));
            let uri: Uri = uri.parse().expect("an address");
            key.mark(
                &document,
                &method,
                &uri,
                &HeaderMap::from_iter([seen]),
                Fingerprint::of(body),
            )
        };
        let one = mark(Method::PUT, "/v1/documents/a", "*", b"1");
        let others = [
            mark(Method::PATCH, "/v1/documents/a", "*", b"1"),
            mark(Method::PUT, "/v1/documents/b", "*", b"1"),
            mark(Method::PUT, "/v1/documents/a?types=tagged", "*", b"1"),
            mark(Method::PUT, "/v1/documents/a", "\"x\"", b"1"),
            mark(Method::PUT, "/v1/documents/a", "*", b"2"),
        ];
        assert_eq!(one, mark(Method::PUT, "/v1/documents/a", "*", b"1"));
        for other in others {
            assert_eq!(other.key, one.key);
            assert_ne!(other.request, one.request);
        }
        // What a fork has from its source are no marks of its own.
        let headers = HeaderMap::new();
        let asked = || Fingerprint::of(b"");
        let in_document = |id| {
            key.mark(id, &Method::PUT, &Uri::default(), &headers, asked())
                .key
        };
        assert_ne!(in_document(&document), in_document(&fork));
        assert_ne!(key.fork(&document, asked()), key.document());
        assert_ne!(key.fork(&document, asked()), key.fork(&fork, asked()));
        let other = Fingerprint::of(b"{}");
        assert_ne!(key.fork(&document, asked()), key.fork(&document, other));
        assert_eq!(key.document(), key_of("k").document());
        assert_ne!(key.document(), key_of("l").document());
        assert_ne!(key.member(), key_of("l").member());
        let anothers = Key {
            who: PrincipalId::new("ann").expect("an id"),
            ..key.clone()
        };
        assert_ne!(anothers.document(), key.document());
        assert_ne!(anothers.member(), key.member());
    }
}
