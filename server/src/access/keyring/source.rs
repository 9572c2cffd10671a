//! Where keys are: a file, or an address from which they are fetched. How each is read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use reqwest::Url;

use super::{Fresh, Kind};
use crate::access::authority::KEYS_VARIABLE;
use crate::access::keys::{KeyError, KeySet, MOST_KEYS_BYTES};
use crate::files::read_at_most;
use crate::outgoing::{self, AddressError, BodyError};

/// Keys that can't be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// An address that is not asked.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The file can't be read.
    #[error("{0}")]
    File(std::io::Error),
    /// No answer, or not all of it in time.
    #[error("fetching")]
    Fetch(#[source] reqwest::Error),
    /// Whoever is named is asked, and nobody else.
    #[error("answered {0}: redirects are not followed")]
    Redirect(StatusCode),
    /// No good one.
    #[error("answered {0}")]
    Status(StatusCode),
    /// Nothing that keys could be.
    #[error("not text")]
    NotText,
    /// Not what keys look like.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// What is fetched is for everybody.
    #[error("there is a secret in it: whoever can fetch it could make tokens")]
    Secret,
    /// A bug.
    #[error("reading it ended with a panic")]
    Panic,
}

/// See the module's docs.
#[derive(Debug, Clone)]
pub enum Source {
    /// By its path.
    File(PathBuf),
    /// By its address.
    Url {
        /// Of scheme https, or of this machine.
        url: Url,
        /// With its deadlines.
        client: reqwest::Client,
    },
}

impl Source {
    /// As it was named. A fetch takes `timeout` at most.
    pub fn of(named: &Path, timeout: Duration) -> Result<Self, SourceError> {
        let Some(url) = as_address(named) else {
            return Ok(Self::File(named.to_owned()));
        };
        // The next fetch is minutes away.
        let (url, client) = outgoing::believed(url, timeout, 0)?;
        Ok(Self::Url { url, client })
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::File(_) => Kind::File,
            Self::Url { .. } => Kind::Url,
        }
    }

    /// Whether it can be read no more than once, as a pipe.
    pub fn is_fixed(&self) -> bool {
        match self {
            Self::File(path) => path.metadata().is_ok_and(|found| !found.is_file()),
            Self::Url { .. } => false,
        }
    }

    /// Reads all of it, as far as keys go.
    pub async fn read(&self) -> Result<Fresh, SourceError> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                let reading =
                    tokio::task::spawn_blocking(move || read_at_most(&path, MOST_KEYS_BYTES));
                let bytes = reading.await.map_err(|_| SourceError::Panic)?;
                let keys = parse(&bytes.map_err(SourceError::File)?)?;
                let max_age = None;
                Ok(Fresh { keys, max_age })
            }
            Self::Url { url, client } => fetch(client, url).await,
        }
    }
}

/// For logs and errors: what was put there in place of a path may be secret, and so may an address's query.
impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.write_str(&shown(path)),
            Self::Url { url, .. } => f.write_str(&shown(Path::new(url.as_str()))),
        }
    }
}

/// As [`Source`] shows itself, of what may be none.
pub fn shown(named: &Path) -> String {
    let text = named.display().to_string();
    if text.contains(['{', '"', '\n']) || text.contains("-----") {
        return format!("(is no path; keys as text are put into {KEYS_VARIABLE})");
    }
    let Some(address) = as_address(named) else {
        return text;
    };
    match Url::parse(address) {
        Ok(url) => outgoing::shown(&url),
        Err(_) => "(an address)".to_owned(),
    }
}

/// Whether it begins as addresses do.
fn as_address(named: &Path) -> Option<&str> {
    let text = named.to_str()?;
    let (scheme, _) = text.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_scheme.then_some(text)
}

fn parse(bytes: &[u8]) -> Result<KeySet, SourceError> {
    if bytes.len() > MOST_KEYS_BYTES {
        return Err(KeyError::TooLarge.into());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| SourceError::NotText)?;
    Ok(KeySet::parse(text)?)
}

async fn fetch(client: &reqwest::Client, url: &Url) -> Result<Fresh, SourceError> {
    let failed = |error: reqwest::Error| SourceError::Fetch(error.without_url());
    let response = client.get(url.clone()).send().await.map_err(failed)?;
    match response.status() {
        StatusCode::OK => {}
        status if status.is_redirection() => return Err(SourceError::Redirect(status)),
        status => return Err(SourceError::Status(status)),
    }
    let max_age = max_age(response.headers());
    let bytes = outgoing::body(response, MOST_KEYS_BYTES).await;
    let bytes = bytes.map_err(|error| match error {
        BodyError::Fetch(error) => SourceError::Fetch(error),
        BodyError::TooLarge { .. } => KeyError::TooLarge.into(),
    })?;
    let keys = parse(&bytes)?;
    if keys.has_secrets() {
        return Err(SourceError::Secret);
    }
    Ok(Fresh { keys, max_age })
}

/// How long an answer may be kept (RFC 9111, section 5.2.2), if it says so.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).into_iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(',')).map(str::trim);
    directives.find_map(|directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => Some(Duration::ZERO),
            "max-age" => value
                .trim_matches('"')
                .parse()
                .ok()
                .map(Duration::from_secs),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    #[test]
    fn keys_are_fetched_by_tls_or_from_this_machine() {
        let of = |named: &str| Source::of(Path::new(named), TIMEOUT);
        for named in [
            "https://id.example/keys?p=1",
            "HTTPS://id.example:8443/keys",
            "http://localhost:8080/keys",
            "http://127.0.0.1/keys",
            "http://127.1.2.3:80/keys",
            "http://[::1]:8080/keys",
        ] {
            assert_eq!(of(named).expect(named).kind(), Kind::Url, "{named}");
        }
        for named in [
            "http://id.example/keys",
            "http://192.0.2.1/keys",
            "http://localhost.id.example/keys",
            "http://127.0.0.1.id.example/keys",
            "http://[::2]/keys",
            "ftp://id.example/keys",
            "file:///etc/keys",
        ] {
            assert!(
                matches!(of(named), Err(SourceError::Address(AddressError::Scheme))),
                "{named}"
            );
        }
        let with_user = of("https://ann:secret@id.example/keys");
        assert!(matches!(
            with_user,
            Err(SourceError::Address(AddressError::Credentials))
        ));
        assert!(matches!(
            of("https://"),
            Err(SourceError::Address(AddressError::NoAddress(_)))
        ));
        for named in ["keys.pem", "/a:b/keys", "://keys", "C:\\keys", "a/b://c"] {
            assert_eq!(of(named).expect(named).kind(), Kind::File, "{named}");
        }
    }

    #[test]
    fn what_may_be_secret_is_not_shown() {
        for (named, expected) in [
            (
                "https://ann:secret@id.example:8443/keys?code=secret#secret",
                "https://id.example:8443/keys",
            ),
            ("https://ann:secret@:x/", "(an address)"),
            ("keys/a.pem", "keys/a.pem"),
        ] {
            assert_eq!(shown(Path::new(named)), expected);
        }
        assert!(shown(Path::new("{\"keys\": [\"secret\"]}")).contains(KEYS_VARIABLE));
    }

    #[test]
    fn how_long_an_answer_may_be_kept_is_read_as_the_rfc_has_it() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CACHE_CONTROL, HeaderValue::from_static(value));
            }
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["public, max-age=300, must-revalidate"]), Some(300));
        assert_eq!(of(&["public", "Max-Age=\"300\""]), Some(300));
        assert_eq!(of(&["no-cache"]), Some(0));
        assert_eq!(of(&["no-store, max-age=300"]), Some(0));
        assert_eq!(of(&["s-maxage=300, max-age=-1"]), None);
        assert_eq!(of(&["max-age=99999999999999999999"]), None);
    }
}
