//! Which version a document had when a change had been admitted.

use std::collections::BTreeMap;

use automerge::ChangeHash;
use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Documents;
use super::address::{Address, Parameters, address};
use crate::access::Identity;
use crate::document::graph::Index;
use crate::http::accept::{JSON, media_type};
use crate::http::openapi::parameters;
use crate::http::openapi::problems::Fails;
use crate::http::problem::{Code, Problem};
use crate::http::version::Version;

/// A version, and where in the order of admission it is.
#[derive(Debug, Serialize, ToSchema)]
struct VersionAtPlace {
    /// Which change was the last one.
    #[schema(value_type = u32)]
    place: Index,
    /// The version, as an `ETag` has it.
    version: String,
}

/// The version after the change at a place: its heads, and those of what was admitted before it and is concurrent.
#[utoipa::path(
    get,
    path = "/v1/documents/{id}/versions/{place}",
    operation_id = "getVersion",
    tag = "History",
    summary = "Read which version a document had",
    params(parameters::Document, parameters::OnePlace),
    responses((status = 200, description = "The version.", body = VersionAtPlace,
        headers(("ETag" = String, description = "The version."))),
        Fails<400>, Fails<404>, Fails<406>),
)]
pub(super) async fn version(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Address { id, path } = address(&uri)?;
    media_type(&headers, &[JSON])?;
    Parameters::of(query, &[])?;
    let place = path.steps().first().and_then(|text| text.parse().ok());
    let Some(place): Option<Index> = place.filter(|place| *place < Index::MAX) else {
        let detail = "a place is the number of a change in the order of admission";
        return Err(Problem::new(Code::BadPath, detail));
    };
    let document = documents.reader(&identity, &id).await?;
    let mut heads: BTreeMap<Index, ChangeHash> = BTreeMap::new();
    let mut next = 0;
    while next <= place {
        let stretch = document.stretch(next..place + 1).await?;
        if stretch.count <= place {
            return Err(Problem::new(
                Code::NoChange,
                "there are not so many changes",
            ));
        }
        next = stretch.end();
        for (place, hash, deps) in stretch.changes() {
            for dep in deps {
                heads.remove(dep);
            }
            heads.insert(place, hash);
        }
    }
    let mut heads: Vec<ChangeHash> = heads.into_values().collect();
    heads.sort_unstable();
    let version = Version(heads);
    let etag = [(header::ETAG, version.etag())];
    let body = VersionAtPlace {
        place,
        version: version.to_string(),
    };
    Ok((etag, axum::Json(body)).into_response())
}
