//! Bringing back what was.
//!
//! The history only grows: what was there at a version is written again, as the smallest edit of what is there now.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use concord_shared::json::{Types, WriteError};
use concord_shared::path::Path;
use serde::Deserialize;
use utoipa::ToSchema;

use super::Documents;
use super::address::{Address, At, Parameters, address, url_of_value};
use super::diff::there;
use super::past::must_have;
use super::write::{Asked, Conditions, answer, edit, written};
use crate::access::Identity;
use crate::http::body::{self, Parsed};
use crate::http::openapi::problems::Fails;
use crate::http::openapi::{answers, parameters};
use crate::http::problem::Problem;
use crate::limits::account::Account;

/// What is to be brought back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Restore {
    /// The version, or the time.
    #[schema(schema_with = parameters::version_or_time)]
    at: String,
    /// Where; a JSON Pointer.
    #[serde(default)]
    #[schema(pattern = "^(/([^~/]|~[01])*)*$")]
    path: String,
}

/// Bring back what was
///
/// One new change, which brings what is there to what was there: as a smallest edit, so that it merges. Types come back,
/// too, and what was not there is removed.
#[utoipa::path(
    post,
    path = "/v1/documents/{id}/restore",
    operation_id = "restore",
    tag = "History",
    params(parameters::Document, parameters::Writing),
    request_body(content((Restore = "application/json",
        example = json!({"at": "2026-11-21T00:00:00Z", "path": "/companies/acme"})))),
    responses(answers::Written, Fails<400>, Fails<404>, Fails<409>, Fails<412>, Fails<413>, Fails<415>, Fails<422>),
)]
pub(super) async fn restore(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    Extension(account): Extension<Arc<Account>>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Address { id, .. } = address(&uri)?;
    let types = Parameters::of_write(query)?.types()?;
    let conditions = Conditions::of(&headers)?;
    let key = documents.keys.of(&headers, &identity.principal)?;
    let document = documents.writer(&identity, &id).await?;
    let parsed = documents
        .read_json(&account, &headers, body, &Path::root())
        .await?;
    let Parsed {
        json,
        turn: of_body,
        fingerprint,
        ..
    } = parsed;
    let mark = key.map(|key| key.mark(&id, &Method::POST, &uri, &headers, fingerprint));
    let asked = Asked::new(&identity, mark);
    let Restore { at, path } = body::object(&json)?;
    let (at, path) = (At::parse(&at)?, Path::parse(&path)?);
    let version = document.version(at).await?;
    // What there was may be large, whatever the body is, and waits in memory until the document is written.
    let turn = match of_body {
        Some(turn) => turn,
        None => account.bodies.turn(&documents.large).await,
    };
    let old_path = path.clone();
    // With its types, so that what comes back is what it was.
    let old = document.past(&account, move |doc| {
        must_have(doc, &version.0)?;
        there(doc, &old_path, Types::Tagged, &version.0)
    });
    let old = old.await?;
    let address = url_of_value(&id, &path);
    let shown = document.edit(move |core| {
        let _turn = turn;
        if asked.done(core)?.is_none() {
            let base = conditions.check(core, &path)?;
            edit(core, &base, Types::Tagged, &asked, |edit| {
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
    Ok(answer(&headers, shown.await?, StatusCode::OK, &address))
}
