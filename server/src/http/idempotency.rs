//! `Idempotency-Key`: a request that is sent again, under the same key, is carried out once.
//!
//! After draft-ietf-httpapi-idempotency-key-header-07. So is a `PUT` that goes on from a version (RFC 9110, section 9.2.2:
//! clients and proxies send it again by themselves): at that version it would be carried out again, beside itself. What was carried out is told by the document itself, in the
//! messages of its changes ([`crate::view::marks`]), so nothing is kept here, nothing is forgotten at a restart, and
//! there is no window of time.
//!
//! All who may read a document can read its marks, and all who may write to it can write some. So what is in them is keyed
//! by the server's [secret](crate::secret): who guesses somebody's key can neither take the id of the document that they
//! are about to make, nor tell the server that it has carried out what they are about to ask.

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use axum::http::{HeaderMap, Method, Uri, header};
use concord_shared::ids::{DocumentId, PrincipalId};
use sha2::{Digest as _, Sha256};

use super::problem::{Code, Problem};
use crate::secret::{Secret, mac};
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

/// Reads what tells a request from others, for this server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Keys(hmac::Key);

/// A client's name for a request.
#[derive(Debug, Clone)]
pub struct Key {
    text: String,
    /// Whose it is. Keys of different people are different keys, should they be alike.
    who: PrincipalId,
    secret: hmac::Key,
}

impl Keys {
    /// By the server's secret.
    pub fn new(secret: &Secret) -> Self {
        Self(hmac::Key::new(HMAC_SHA256, &secret.key("idempotency")))
    }

    /// A string by RFC 9651, in quotes, as the draft has it; or as it is, as many send it.
    pub fn of(&self, headers: &HeaderMap, who: &PrincipalId) -> Result<Option<Key>, Problem> {
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
        Ok(Some(Key {
            text: key.to_owned(),
            who: who.clone(),
            secret: self.0.clone(),
        }))
    }

    /// What the change of a `PUT` says: by its key, or without one by the version that it goes on from, if it names any.
    pub fn mark_of_put(
        &self,
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
        let asked = |last: &[u8]| asked(&self.0, &Method::PUT, uri, headers, last);
        let mark = Mark {
            by: By::Version,
            // What another sends is another request, should it be alike.
            key: asked(who.as_str().as_bytes()),
            request: asked(&body.0),
        };
        (version != "*").then_some(mark)
    }
}

impl Key {
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
            request: asked(&self.secret, method, uri, headers, &body),
        }
    }

    /// For one purpose.
    fn hashed(&self, purpose: &str) -> u128 {
        let parts = [purpose, self.who.as_str(), &self.text].map(str::as_bytes);
        first_half(mac(&self.secret, &parts))
    }
}

fn asked(secret: &hmac::Key, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> u128 {
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let seen = [
        header::CONTENT_TYPE,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
    ];
    let [kind, of, but] =
        seen.map(|name| headers.get(name).map_or(&[][..], |value| value.as_bytes()));
    let parts = [
        method.as_str().as_bytes(),
        target.as_bytes(),
        kind,
        of,
        but,
        body,
    ];
    first_half(mac(secret, &parts))
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
        let key = keys().of(&headers, &PrincipalId::anonymous());
        let key = key.map_err(|problem| problem.code);
        key.map(|key| key.map(|key| key.text))
    }

    fn keys() -> Keys {
        Keys::new(&Secret::of(&[7; 32]).expect("32 bytes"))
    }

    fn key_of(text: &str) -> Key {
        Key {
            text: text.to_owned(),
            who: PrincipalId::anonymous(),
            secret: keys().0,
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

    #[test]
    fn nobody_but_the_server_computes_ids_and_marks() {
        let other = Keys::new(&Secret::random().expect("random bytes"));
        let ann = PrincipalId::new("ann").expect("an id");
        let document = DocumentId::from_uuid([1; 16]);
        let headers = [(HEADER, "k"), ("if-match", "\"x\"")];
        let headers = headers.map(|(name, value)| {
            let value = value.parse().expect("a value");
            (header::HeaderName::from_static(name), value)
        });
        let headers = HeaderMap::from_iter(headers);
        let marks = |keys: &Keys| {
            let body = Fingerprint::of(b"1");
            let key = keys.of(&headers, &ann).expect("a key");
            let id = key.as_ref().map(Key::document);
            let put = |key| keys.mark_of_put(key, &ann, &document, &Uri::default(), &headers, body);
            (id, put(key), put(None))
        };
        let (here, there) = (marks(&keys()), marks(&other));
        assert_eq!(here, marks(&keys()));
        assert_ne!(here.0, there.0);
        for (here, there) in [(here.1, there.1), (here.2, there.2)] {
            let (here, there) = (here.expect("a mark"), there.expect("a mark"));
            assert_ne!(here.key, there.key);
            assert_ne!(here.request, there.request);
        }
    }
}
