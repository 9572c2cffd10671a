//! Which version a document had when a change had been admitted.

use std::collections::BTreeMap;

use automerge::ChangeHash;
use axum::extract::State;
use axum::http::{Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::Documents;
use super::address::{Address, address};
use super::past::immutable;
use crate::document::graph::Index;
use crate::http::problem::{Code, Problem};
use crate::http::version::Version;

/// The version after the change at a place: its heads, and those of what was admitted before it and is concurrent.
pub(super) async fn version(
    State(documents): State<Documents>,
    uri: Uri,
) -> Result<Response, Problem> {
    let Address { id, path } = address(&uri)?;
    let place = path.steps().first().and_then(|text| text.parse().ok());
    let Some(place): Option<Index> = place.filter(|place| *place < Index::MAX) else {
        let detail = "a place is the number of a change in the order of admission";
        return Err(Problem::new(Code::BadPath, detail));
    };
    documents.must_be_there(&id).await?;
    let mut heads: BTreeMap<Index, ChangeHash> = BTreeMap::new();
    let mut next = 0;
    while next <= place {
        let stretch = documents.views.stretch(&id, next..place + 1).await?;
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
    let body = axum::Json(json!({ "place": place, "version": version.to_string() }));
    Ok(immutable((etag, body).into_response()))
}
