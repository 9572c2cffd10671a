//! What a request is about: a document, a place in it, parameters.

use std::str::FromStr;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::Uri;
use concord_shared::ids::DocumentId;
use concord_shared::json::{self, Types};
use concord_shared::path::Path;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::http::problem::{Code, Problem};
use crate::http::version::Version;

/// What is no character of a segment of a URL's path (RFC 3986).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What is none of a path's.
const PATH: &AsciiSet = &SEGMENT.remove(b'/');

/// What there is in a page of a list, unless fewer or more are asked for.
const PAGE: usize = 100;
/// Most that can be asked for.
const MOST_IN_A_PAGE: usize = 1000;

/// Parameters of a query.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// A version to be read, or a time.
    at: Option<String>,
    /// Where a difference begins, and where it ends.
    from: Option<String>,
    to: Option<String>,
    /// The order of changes.
    order: Option<String>,
    /// The version that a watcher has seen.
    since: Option<String>,
    /// How what JSON lacks is written.
    types: Option<String>,
    /// The last document, or change, of the page before.
    pub(super) after: Option<String>,
    /// How many there are to a page.
    limit: Option<String>,
    /// Whether what is deleted is to be erased at once.
    now: Option<String>,
}

impl Parameters {
    /// Those that the address takes; another one is a mistake that should be seen.
    pub(super) fn of(
        query: Result<Query<Self>, QueryRejection>,
        taken: &[&str],
    ) -> Result<Self, Problem> {
        let parameters = match query {
            Ok(Query(parameters)) => parameters,
            Err(rejection) => return Err(Problem::new(Code::BadQuery, rejection.body_text())),
        };
        let Self {
            at,
            from,
            to,
            order,
            since,
            types,
            after,
            limit,
            now,
        } = &parameters;
        let given = [
            ("at", at.is_some()),
            ("from", from.is_some()),
            ("to", to.is_some()),
            ("order", order.is_some()),
            ("since", since.is_some()),
            ("types", types.is_some()),
            ("after", after.is_some()),
            ("limit", limit.is_some()),
            ("now", now.is_some()),
        ];
        let mut given = given.into_iter();
        match given.find(|(name, is_given)| *is_given && !taken.contains(name)) {
            Some((name, _)) => {
                let detail = format!("{name} means nothing here");
                Err(Problem::new(Code::BadQuery, detail))
            }
            None => Ok(parameters),
        }
    }

    /// Behind what a page begins. `what` that is, is told to who gives something else.
    pub(super) fn after<T: FromStr>(&self, what: &str) -> Result<Option<T>, Problem> {
        let after = self.after.as_deref().map(str::parse);
        let bad = |_| Problem::new(Code::BadQuery, format!("after is {what}"));
        after.transpose().map_err(bad)
    }

    /// How many there are to a page.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let Some(limit) = &self.limit else {
            return Ok(PAGE);
        };
        let limit = limit.parse().ok();
        limit
            .filter(|limit| (1..=MOST_IN_A_PAGE).contains(limit))
            .ok_or_else(|| {
                let detail = format!("limit is from 1 to {MOST_IN_A_PAGE}");
                Problem::new(Code::BadQuery, detail)
            })
    }

    pub(super) fn types(&self) -> Result<Types, Problem> {
        match self.types.as_deref() {
            None | Some("plain") => Ok(Types::Plain),
            Some("tagged") => Ok(Types::Tagged),
            Some(_) => Err(Problem::new(Code::BadQuery, "types is plain or tagged")),
        }
    }

    /// Whether what is deleted is to be erased at once.
    pub(super) fn now(&self) -> Result<bool, Problem> {
        match self.now.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::new(Code::BadQuery, "now is true or false")),
        }
    }

    /// Those of a write, which is made of the version that `If-Match` names.
    pub(super) fn of_write(query: Result<Query<Self>, QueryRejection>) -> Result<Self, Problem> {
        Self::of(query, &["types"])
    }

    pub(super) fn at(&self) -> Result<Option<At>, Problem> {
        self.at.as_deref().map(At::parse).transpose()
    }

    pub(super) fn from(&self) -> Result<Option<At>, Problem> {
        self.from.as_deref().map(At::parse).transpose()
    }

    pub(super) fn to(&self) -> Result<Option<At>, Problem> {
        self.to.as_deref().map(At::parse).transpose()
    }

    pub(super) fn since(&self) -> Result<Option<Version>, Problem> {
        let parse = |since| {
            let bad = "since is a version, as in an ETag without quotes";
            Version::parse(since).ok_or_else(|| Problem::new(Code::BadQuery, bad))
        };
        self.since.as_deref().map(parse).transpose()
    }

    /// Whether changes are wanted from the newest on.
    pub(super) fn newest_first(&self) -> Result<bool, Problem> {
        match self.order.as_deref() {
            None | Some("oldest") => Ok(false),
            Some("newest") => Ok(true),
            Some(_) => Err(Problem::new(Code::BadQuery, "order is oldest or newest")),
        }
    }
}

/// What names a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum At {
    Version(Version),
    /// Milliseconds since 1970: what the server had then.
    Time(i64),
}

impl At {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        if let Some(version) = Version::parse(text) {
            return Ok(Self::Version(version));
        }
        // In a query a plus that was not encoded is a space, and RFC 3339 has none.
        let time = json::from_rfc3339(&text.replace(' ', "+"));
        let bad = "a version is as in an ETag without quotes, or a time by RFC 3339";
        time.map(Self::Time)
            .ok_or_else(|| Problem::new(Code::BadQuery, format!("{text:?}: {bad}")))
    }
}

/// What a request is about.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) id: DocumentId,
    pub(super) path: Path,
}

/// The id, and what follows `/value` as a JSON Pointer. Both are percent-encoded: a slash in a key is `~1`, in any
/// encoding.
pub(super) fn address(uri: &Uri) -> Result<Address, Problem> {
    let decoded = |raw: &str| {
        let decoded = percent_encoding::percent_decode_str(raw).decode_utf8();
        let bad = |_| Problem::new(Code::BadPath, "the address is no UTF-8");
        decoded.map(std::borrow::Cow::into_owned).map_err(bad)
    };
    // "", v1, documents, the id, value, the rest.
    let mut segments = uri.path().splitn(6, '/').skip(3);
    let id = decoded(segments.next().unwrap_or_default())?;
    let id =
        DocumentId::parse_url(&id).map_err(|error| Problem::new(Code::BadId, error.to_string()))?;
    let path = match segments.nth(1) {
        Some(steps) => Path::parse(&format!("/{}", decoded(steps)?))?,
        None => Path::root(),
    };
    Ok(Address { id, path })
}

/// Where a document is.
pub(crate) fn url_of(id: &DocumentId) -> String {
    format!(
        "/v1/documents/{}",
        utf8_percent_encode(id.as_str(), SEGMENT)
    )
}

/// Where a value in it is.
pub(super) fn url_of_value(id: &DocumentId, path: &Path) -> String {
    url_within(id, "value", path)
}

/// Where something is that there is of every place in it.
pub(crate) fn url_within(id: &DocumentId, what: &str, path: &Path) -> String {
    let pointer = path.to_string();
    format!(
        "{}/{what}{}",
        url_of(id),
        utf8_percent_encode(&pointer, PATH)
    )
}
