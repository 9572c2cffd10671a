//! Documents as JSON: `/v1/documents`. What the addresses, headers and codes mean to clients is in `docs/http.md`.
//!
//! Each handler reads its request, runs one job on the document's [view](crate::view), and answers from what that gave.
//! An edit is made of the version that its author saw (`If-Match`), as the difference to it, and so merges with what
//! came since.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use automerge::transaction::Transaction;
use automerge::{ChangeHash, ROOT, ReadDoc};
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, PrincipalId};
use concord_shared::json::{self, Edit, Types, WriteError};
use concord_shared::path::{Path, Place};
use percent_encoding::AsciiSet;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::body::{self, Kind};
use super::problem::{Code, Problem};
use super::version::{self, Condition, Version};
use crate::store::Store;
use crate::view::{Author, Core, Views};

/// Most bytes of a request's body.
pub const BODY_BYTES: usize = 8 << 20;

/// Documents in one page of the list, unless fewer are asked for.
const DOCUMENTS_PER_PAGE: usize = 100;
/// Most that can be asked for.
const MOST_DOCUMENTS_PER_PAGE: usize = 1000;

/// How long the smallest difference is looked for. Afterwards a larger one is taken.
const DIFF_TIME: Duration = Duration::from_millis(200);

/// What a client says that has no use for the value.
const MINIMAL: &str = "return=minimal";

/// What is not a character of a path (RFC 3986).
const PATH: &AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'/')
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A document's own bytes.
const AUTOMERGE: &str = "application/vnd.automerge";

/// What handlers share.
#[derive(Debug, Clone)]
pub struct Documents {
    /// To read and write them.
    pub views: Views,
    /// To see which there are.
    pub store: Arc<dyn Store>,
}

/// The routes.
pub fn router(documents: Documents) -> Router {
    Router::new()
        .route("/v1/documents", get(list).post(create))
        .route("/v1/documents/{id}", get(whole).put(put_whole))
        .route("/v1/documents/{id}/value", values())
        .route("/v1/documents/{id}/value/", values())
        .route("/v1/documents/{id}/value/{*path}", values())
        .method_not_allowed_fallback(async || {
            Problem::new(Code::Method, "this address does not take that method")
        })
        .with_state(documents)
}

fn values() -> axum::routing::MethodRouter<Documents> {
    on(MethodFilter::GET, read)
        .put(write)
        .patch(write)
        .post(append)
        .delete(delete)
}

/// Parameters of a query.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameters {
    /// A version to be read.
    at: Option<String>,
    /// How what JSON lacks is written.
    types: Option<String>,
    /// The last document of the page before.
    after: Option<String>,
    /// How many there are to a page.
    limit: Option<usize>,
}

impl Parameters {
    fn of(query: Result<Query<Self>, QueryRejection>) -> Result<Self, Problem> {
        match query {
            Ok(Query(parameters)) => Ok(parameters),
            Err(rejection) => Err(Problem::new(Code::BadQuery, rejection.body_text())),
        }
    }

    fn types(&self) -> Result<Types, Problem> {
        match self.types.as_deref() {
            None | Some("plain") => Ok(Types::Plain),
            Some("tagged") => Ok(Types::Tagged),
            Some(_) => Err(Problem::new(Code::BadQuery, "types is plain or tagged")),
        }
    }

    fn at(&self) -> Result<Option<Version>, Problem> {
        let Some(at) = &self.at else {
            return Ok(None);
        };
        let version = Version::parse(at);
        let bad = || {
            Problem::new(
                Code::BadQuery,
                "at is a version, as in an ETag without quotes",
            )
        };
        version.map(Some).ok_or_else(bad)
    }
}

/// What a request is about.
#[derive(Debug, Clone)]
struct Address {
    id: DocumentId,
    path: Path,
}

/// The id, and what follows `/value` as a JSON Pointer. Both are percent-encoded: a slash in a key is `~1`, in any
/// encoding.
fn address(uri: &Uri) -> Result<Address, Problem> {
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

/// A value, and the version that it is of.
struct Shown {
    version: Version,
    /// JSON, unless there is nothing at the place any more.
    json: Option<Vec<u8>>,
}

impl Shown {
    /// What is at a path, now or at a version that is part of the document.
    fn of(core: &Core, path: &Path, types: Types, at: Option<Version>) -> Result<Self, Problem> {
        let heads = at.as_ref().map(|version| version.0.as_slice());
        let json = json_at(core, path, types, heads)?;
        let json = json.map(|json| serde_json::to_vec(&json).unwrap_or_default());
        let version = at.unwrap_or_else(|| Version(core.heads()));
        Ok(Self { version, json })
    }

    fn into_response(self, status: StatusCode) -> Response {
        let etag = (header::ETAG, self.version.etag());
        match self.json {
            Some(json) => {
                let content_type = HeaderValue::from_static("application/json");
                let headers = [etag, (header::CONTENT_TYPE, content_type)];
                (status, headers, json).into_response()
            }
            None => (StatusCode::NO_CONTENT, [etag]).into_response(),
        }
    }
}

fn json_at(
    core: &Core,
    path: &Path,
    types: Types,
    heads: Option<&[ChangeHash]>,
) -> Result<Option<Json>, Problem> {
    let doc = core.doc();
    let internal = |_| Problem::new(Code::Wire(ErrorCode::Internal), "");
    let (value, object) = match path.find(doc, heads)? {
        Place::Root => (automerge::Value::Object(automerge::ObjType::Map), ROOT),
        Place::In { object, prop } => {
            let there = match heads {
                Some(heads) => doc.get_at(object, prop, heads),
                None => doc.get(object, prop),
            };
            let Some(there) = there.map_err(internal)? else {
                return Ok(None);
            };
            there
        }
    };
    let value = match value {
        automerge::Value::Scalar(scalar) => automerge::hydrate::Value::Scalar(scalar.into_owned()),
        automerge::Value::Object(_) => ReadDoc::hydrate(doc, object, heads).map_err(internal)?,
    };
    Ok(Some(json::to_json(&value, types)))
}

impl Documents {
    /// Runs a job on a document that is there.
    async fn on<R: Send + 'static>(
        &self,
        id: &DocumentId,
        job: impl FnOnce(&mut Core) -> Result<R, Problem> + Send + 'static,
    ) -> Result<R, Problem> {
        // Whoever asks for what is not there must not make the server open it.
        if !self.views.is_open(id) && !self.is_stored(id).await? {
            return Err(no_document(id));
        }
        let missing = no_document(id);
        let made = self.views.run(id, move |core| {
            if core.heads().is_empty() {
                return Err(missing);
            }
            job(core)
        });
        made.await?
    }

    async fn is_stored(&self, id: &DocumentId) -> Result<bool, Problem> {
        let (store, id) = (Arc::clone(&self.store), id.clone());
        let found = tokio::task::spawn_blocking(move || store.open(&id)).await;
        match found {
            Ok(Ok(found)) => Ok(found.is_some()),
            _ => Err(Problem::new(Code::Wire(ErrorCode::StorageFailed), "")),
        }
    }
}

fn no_document(id: &DocumentId) -> Problem {
    Problem::new(Code::NoDocument, format!("there is no document {id}"))
}

/// Who writes. Nobody has to say who they are yet.
fn author() -> Author {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = now.map_or(0, |now| now.as_millis());
    Author {
        principal: PrincipalId::anonymous(),
        message: None,
        at_ms: i64::try_from(ms).unwrap_or(i64::MAX),
    }
}

/// The version that an edit is to be made of: `None` is now.
fn base(core: &Core, condition: Condition) -> Result<Option<Vec<ChangeHash>>, Problem> {
    let Condition::OneOf(versions) = condition else {
        return Ok(None);
    };
    let now = core.heads();
    if versions.iter().any(|version| version.0 == now) {
        return Ok(None);
    }
    let known = versions.into_iter().find(|version| core.has(&version.0));
    let unknown = || Problem::new(Code::UnknownHeads, "the document never had that version");
    known.map(|version| Some(version.0)).ok_or_else(unknown)
}

/// Makes an edit; what it gave is worth nothing before the job's answer says that it is kept.
fn edit<R>(
    core: &mut Core,
    at: Option<&[ChangeHash]>,
    types: Types,
    make: impl FnOnce(&mut Edit<'_, Transaction<'_>>) -> Result<R, WriteError>,
) -> Result<R, Problem> {
    let made = core.change(author(), at, |tx| {
        make(&mut Edit {
            tx,
            types,
            deadline: Some(Instant::now() + DIFF_TIME),
        })
    });
    match made {
        Ok(made) => Ok(made.map(|(made, _)| made)?),
        Err(_) => Err(Problem::new(Code::Wire(ErrorCode::Internal), "")),
    }
}

async fn list(
    State(documents): State<Documents>,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let parameters = Parameters::of(query)?;
    let bad_id = |error: concord_shared::ids::IdError| Problem::new(Code::BadId, error.to_string());
    let after = parameters.after.as_deref().map(DocumentId::parse_url);
    let after = after.transpose().map_err(bad_id)?;
    let limit = parameters.limit.unwrap_or(DOCUMENTS_PER_PAGE);
    let limit = limit.clamp(1, MOST_DOCUMENTS_PER_PAGE);
    let store = Arc::clone(&documents.store);
    let found = tokio::task::spawn_blocking(move || store.documents(after.as_ref(), limit)).await;
    let Ok(Ok(found)) = found else {
        return Err(Problem::new(Code::Wire(ErrorCode::StorageFailed), ""));
    };
    let is_last = found.len() < limit;
    let next = found.last().filter(|_| !is_last);
    let next = next.map(|info| info.document.to_string());
    let listed: Vec<Json> = found
        .iter()
        .map(|info| {
            let id = info.document.as_str();
            let url = info.document.url();
            match &info.summary {
                Ok(summary) => json!({
                    "id": id,
                    "url": url,
                    "createdAt": json::timestamp(i64::try_from(summary.created_at_ms).unwrap_or(i64::MAX)),
                    "changes": summary.changes,
                    "snapshotBytes": summary.snapshot_bytes,
                }),
                Err(_) => json!({ "id": id, "url": url, "code": "storage-failed" }),
            }
        })
        .collect();
    let body = json!({ "documents": listed, "next": next });
    Ok(axum::Json(body).into_response())
}

async fn create(
    State(documents): State<Documents>,
    headers: HeaderMap,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let types = Parameters::of(query)?.types()?;
    let json = read_json(&headers, body, &Path::root()).await?;
    let id = DocumentId::from_uuid(*uuid::Uuid::new_v4().as_bytes());
    let (shown, _) = documents
        .bring(&id, Condition::None, Condition::None, types, json)
        .await?;
    let location = format!("/v1/documents/{id}");
    Ok(answer(
        &headers,
        shown,
        StatusCode::CREATED,
        Some(&location),
    ))
}

async fn put_whole(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Address { id, .. } = address(&uri)?;
    let types = Parameters::of(query)?.types()?;
    let seen = version::if_match(&headers)?;
    let unseen = version::if_none_match(&headers)?;
    let json = read_json(&headers, body, &Path::root()).await?;
    let (shown, is_new) = documents.bring(&id, seen, unseen, types, json).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let location = format!("/v1/documents/{id}");
    Ok(answer(&headers, shown, status, is_new.then_some(&location)))
}

impl Documents {
    /// Brings a whole document to a value; makes it where it is not. Whether it was made.
    async fn bring(
        &self,
        id: &DocumentId,
        seen: Condition,
        unseen: Condition,
        types: Types,
        json: Json,
    ) -> Result<(Shown, bool), Problem> {
        if !json.is_object() {
            return Err(Problem::new(Code::NotAnObject, "a document is an object").at(""));
        }
        let made = self.views.run(id, move |core| {
            let is_new = core.heads().is_empty();
            if is_new && seen != Condition::None {
                return Err(Problem::new(
                    Code::UnknownHeads,
                    "the document is not there",
                ));
            }
            if !is_new && unseen == Condition::Any {
                // Who was not told that it was made, and makes it again, has made it.
                let there = Shown::of(core, &Path::root(), types, None)?;
                let same = json_at(core, &Path::root(), types, None)?;
                if same.is_some_and(|same| json::is_same(&same, &json)) {
                    return Ok((there, false));
                }
                let detail = "the document is there, and differs";
                return Err(Problem::new(Code::Exists, detail));
            }
            let at = base(core, seen)?;
            edit(core, at.as_deref(), types, |edit| {
                edit.put_at(&Path::root(), &json)
            })?;
            if core.heads().is_empty() {
                core.make_empty(author());
            }
            Ok((Shown::of(core, &Path::root(), types, None)?, is_new))
        });
        made.await?
    }
}

async fn whole(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let accepted = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    if !accepted.is_some_and(|accepted| accepted.contains(AUTOMERGE)) {
        return read(State(documents), headers, uri, query).await;
    }
    let Address { id, .. } = address(&uri)?;
    let (bytes, version) = documents
        .on(&id, |core| Ok((core.doc().save(), Version(core.heads()))))
        .await?;
    let content_type = HeaderValue::from_static(AUTOMERGE);
    let headers = [
        (header::ETAG, version.etag()),
        (header::CONTENT_TYPE, content_type),
    ];
    Ok((headers, bytes).into_response())
}

async fn read(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Address { id, path } = address(&uri)?;
    let parameters = Parameters::of(query)?;
    let (types, at) = (parameters.types()?, parameters.at()?);
    let has = version::if_none_match(&headers)?;
    let shown = documents.on(&id, move |core| {
        if let Some(at) = &at
            && !core.has(&at.0)
        {
            return Err(Problem::new(
                Code::NoVersion,
                "the document never had that version",
            ));
        }
        let now = at.clone().unwrap_or_else(|| Version(core.heads()));
        let is_had = match &has {
            Condition::OneOf(versions) => versions.contains(&now),
            Condition::Any => true,
            Condition::None => false,
        };
        // A path that leads nowhere is no value that anybody has.
        let shown = Shown::of(core, &path, types, at)?;
        match shown.json {
            None => {
                let detail = format!("there is nothing at {path}");
                Err(Problem::new(Code::NoValue, detail).at(&path))
            }
            Some(_) => Ok((shown, is_had)),
        }
    });
    let (shown, is_had) = shown.await?;
    if is_had {
        let etag = [(header::ETAG, shown.version.etag())];
        return Ok((StatusCode::NOT_MODIFIED, etag).into_response());
    }
    Ok(shown.into_response(StatusCode::OK))
}

async fn write(
    State(documents): State<Documents>,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Address { id, path } = address(&uri)?;
    let types = Parameters::of(query)?.types()?;
    let seen = version::if_match(&headers)?;
    let kind = Kind::of(&headers)?;
    let json = body::json(body, BODY_BYTES, &path).await?;
    let patch = match (method == Method::PATCH, kind) {
        (false, Kind::Json) | (true, Kind::Json | Kind::MergePatch) => None,
        (true, Kind::JsonPatch) => {
            let patch: Result<json_patch::Patch, _> = serde_json::from_value(json.clone());
            Some(patch.map_err(|error| Problem::new(Code::BadPatch, error.to_string()))?)
        }
        (false, _) => {
            let detail = "PUT takes application/json, and PATCH patches";
            return Err(Problem::new(Code::MediaType, detail));
        }
    };
    let shown = documents.on(&id, move |core| {
        let at = base(core, seen)?;
        edit(core, at.as_deref(), types, |edit| match &patch {
            Some(patch) => edit.patch_at(&path, patch),
            None if method == Method::PATCH => edit.merge_at(&path, &json),
            None => edit.put_at(&path, &json),
        })?;
        // What was written may be gone again by what came since.
        match Shown::of(core, &path, types, None) {
            Err(problem) if problem.code == Code::NoValue => Ok(Shown {
                version: Version(core.heads()),
                json: None,
            }),
            shown => shown,
        }
    });
    Ok(answer(&headers, shown.await?, StatusCode::OK, None))
}

async fn append(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Address { id, path } = address(&uri)?;
    let types = Parameters::of(query)?.types()?;
    let seen = version::if_match(&headers)?;
    let json = read_json(&headers, body, &path).await?;
    let document = id.clone();
    let made = documents.on(&id, move |core| {
        let at = base(core, seen)?;
        let key = uuid::Uuid::new_v4().to_string();
        let new = edit(core, at.as_deref(), types, |edit| {
            edit.append_at(&path, &key, &json)
        })?;
        Ok((new, Version(core.heads()), json))
    });
    let (new, version, json) = made.await?;
    let shown = Shown {
        version,
        json: serde_json::to_vec(&json).ok(),
    };
    let steps = new.to_string();
    let location = percent_encoding::utf8_percent_encode(&steps, PATH);
    let location = format!("/v1/documents/{document}/value{location}");
    Ok(answer(
        &headers,
        shown,
        StatusCode::CREATED,
        Some(&location),
    ))
}

async fn delete(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let Address { id, path } = address(&uri)?;
    let seen = version::if_match(&headers)?;
    let version = documents.on(&id, move |core| {
        let at = base(core, seen)?;
        edit(core, at.as_deref(), Types::Plain, |edit| {
            edit.delete_at(&path)
        })?;
        Ok(Version(core.heads()))
    });
    let shown = Shown {
        version: version.await?,
        json: None,
    };
    Ok(shown.into_response(StatusCode::NO_CONTENT))
}

async fn read_json(headers: &HeaderMap, body: Body, path: &Path) -> Result<Json, Problem> {
    match Kind::of(headers)? {
        Kind::Json => body::json(body, BODY_BYTES, path).await,
        Kind::MergePatch | Kind::JsonPatch => {
            Err(Problem::new(Code::MediaType, "patches are sent by PATCH"))
        }
    }
}

/// With the value, or without where the client prefers that (RFC 7240).
fn answer(
    headers: &HeaderMap,
    mut shown: Shown,
    status: StatusCode,
    location: Option<&str>,
) -> Response {
    let is_minimal = headers.get_all("prefer").iter().any(|value| {
        let value = value.to_str().unwrap_or_default();
        value
            .split(',')
            .any(|preference| preference.trim() == MINIMAL)
    });
    if is_minimal {
        shown.json = None;
    }
    let mut response = shown.into_response(status);
    if is_minimal {
        let applied = HeaderValue::from_static(MINIMAL);
        response.headers_mut().insert("preference-applied", applied);
    }
    if let Some(Ok(location)) = location.map(HeaderValue::from_str) {
        if status == StatusCode::CREATED {
            *response.status_mut() = status;
        }
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
