//! Bringing back what was.
//!
//! The history only grows: what was there at a version is written again, as the smallest edit of what is there now.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use concord_shared::json::{Types, WriteError};
use concord_shared::path::Path;
use serde::Deserialize;

use super::Documents;
use super::address::{Address, At, Parameters, address};
use super::diff::there;
use super::past::must_have;
use super::write::{answer, base, done, edit, written};
use crate::http::body::Parsed;
use crate::http::idempotency::Key;
use crate::http::problem::{Code, Problem};
use crate::http::version;

/// What is to be brought back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Restore {
    /// The version, or the time.
    at: String,
    /// Where; a JSON Pointer.
    #[serde(default)]
    path: String,
}

pub(super) async fn restore(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Address { id, .. } = address(&uri)?;
    let types = Parameters::of(query)?.types()?;
    let seen = version::if_match(&headers)?;
    let key = Key::of(&headers)?;
    let parsed = documents.read_json(&headers, body, &Path::root()).await?;
    let Parsed {
        json,
        permit,
        fingerprint,
    } = parsed;
    let mark = key.map(|key| key.mark(&Method::POST, &uri, &headers, fingerprint));
    let bad = |error: serde_json::Error| Problem::new(Code::BadJson, error.to_string());
    let Restore { at, path } = Restore::deserialize(&json).map_err(bad)?;
    drop(permit);
    let (at, path) = (At::parse(&at)?, Path::parse(&path)?);
    let version = documents.version(&id, at).await?;
    let old_path = path.clone();
    // With its types, so that what comes back is what it was.
    let old = documents.past(&id, move |doc| {
        must_have(doc, &version.0)?;
        there(doc, &old_path, Types::Tagged, &version.0)
    });
    let old = old.await?;
    let shown = documents.on(&id, move |core| {
        if done(core, mark)?.is_none() {
            let at = base(core, seen)?;
            edit(core, at.as_deref(), Types::Tagged, mark, |edit| {
                match &old {
                    Some(old) => edit.put_at(&path, old),
                    None => match edit.delete_at(&path) {
                        // It is not there now, either.
                        Err(WriteError::NoPlace(_)) => Ok(()),
                        deleted => deleted,
                    },
                }
            })?;
        }
        written(core, &path, types, None)
    });
    Ok(answer(&headers, shown.await?, StatusCode::OK, None))
}
