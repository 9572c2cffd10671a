//! Answers that are the same for everybody until another server starts. They cost little, since anybody may ask for them as
//! often as they like: they are compressed once, and sent from memory.

use std::io::Write as _;
use std::sync::OnceLock;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::accept::prefers_coding;
use super::body::GZIP;
use super::problem::Problem;
use super::version::{Had, hash_of, tag};

/// See the module's docs. To be served inside of [`negotiate`](super::compress::negotiate), which tells caches that there
/// are two forms.
#[derive(Debug)]
pub struct Constant {
    plain: Bytes,
    /// Made when it is first asked for. None where it would be longer.
    zipped: OnceLock<Option<Bytes>>,
    /// A hash of the bytes, which is their tag.
    hash: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Constant {
    /// With these headers.
    pub fn new(plain: impl Into<Bytes>, headers: Vec<(HeaderName, HeaderValue)>) -> Self {
        let plain = plain.into();
        Self {
            hash: hash_of(&plain),
            plain,
            zipped: OnceLock::new(),
            headers,
        }
    }

    /// The bytes, unless their reader has them.
    pub fn answer(&self, asked: &HeaderMap) -> Result<Response, Problem> {
        let had = Had::of(asked)?.tag(&self.hash);
        let etag = had.clone().unwrap_or_else(|| tag(&self.hash));
        let own = self.headers.iter().cloned();
        let mut headers: HeaderMap = own.chain([(header::ETAG, etag)]).collect();
        if had.is_some() {
            headers.remove(header::CONTENT_TYPE);
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        if prefers_coding(asked, GZIP)
            && let Some(zipped) = self.zipped.get_or_init(|| zipped(&self.plain))
        {
            let coding = HeaderValue::from_static(GZIP);
            headers.insert(header::CONTENT_ENCODING, coding);
            return Ok((headers, zipped.clone()).into_response());
        }
        Ok((headers, self.plain.clone()).into_response())
    }
}

fn zipped(plain: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).ok()?;
    let zipped = encoder.finish().ok()?;
    (zipped.len() < plain.len()).then(|| zipped.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    fn asked(headers: &[(HeaderName, &str)]) -> HeaderMap {
        let headers = headers.iter();
        headers
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    async fn bytes(response: Response) -> Bytes {
        let body = axum::body::to_bytes(response.into_body(), usize::MAX);
        body.await.unwrap()
    }

    #[tokio::test]
    async fn it_is_compressed_once_and_not_sent_to_who_has_it() {
        let text = "abc ".repeat(1000);
        let kind = (header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let constant = Constant::new(text.clone(), vec![kind]);
        let plain = constant.answer(&asked(&[])).unwrap();
        assert!(!plain.headers().contains_key(header::CONTENT_ENCODING));
        let etag = plain.headers()[header::ETAG].clone();
        assert_eq!(bytes(plain).await, text);
        let gzip = (header::ACCEPT_ENCODING, GZIP);
        let mut sent = Vec::new();
        for _ in 0..2 {
            let answer = constant.answer(&asked(std::slice::from_ref(&gzip)));
            let answer = answer.unwrap();
            assert_eq!(answer.headers()[header::CONTENT_ENCODING], GZIP);
            sent.push(bytes(answer).await);
        }
        assert_eq!(sent[0].as_ptr(), sent[1].as_ptr(), "it was made anew");
        let mut read = String::new();
        GzDecoder::new(&*sent[0]).read_to_string(&mut read).unwrap();
        assert_eq!(read, text);
        let had = format!("W/{}-gzip\"", etag.to_str().unwrap().trim_end_matches('"'));
        let not_again = constant.answer(&asked(&[gzip, (header::IF_NONE_MATCH, &had)]));
        let not_again = not_again.unwrap();
        assert_eq!(not_again.status(), StatusCode::NOT_MODIFIED);
        assert!(!not_again.headers().contains_key(header::CONTENT_ENCODING));
        assert!(bytes(not_again).await.is_empty());
    }

    #[tokio::test]
    async fn what_would_be_longer_is_not_compressed() {
        let constant = Constant::new("a", Vec::new());
        let asked = asked(&[(header::ACCEPT_ENCODING, GZIP)]);
        assert_eq!(bytes(constant.answer(&asked).unwrap()).await, "a");
    }
}
