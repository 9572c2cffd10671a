//! Writing: whole documents, values, patches.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use automerge::ChangeHash;
use automerge::transaction::Transaction;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, PrincipalId};
use concord_shared::json::{self, Edit, Types, WriteError};
use concord_shared::path::Path;
use serde::Deserialize as _;

use super::Documents;
use super::address::{Address, Parameters, address, url_of, url_of_value};
use super::read::{Shown, json_at};
use crate::http::body::{self, Kind, Parsed};
use crate::http::problem::{Code, Problem};
use crate::http::version::{self, Condition, Version};
use crate::view::{Author, Core};

/// How long the smallest difference is looked for. Afterwards a larger one is taken.
pub(super) const DIFF_TIME: Duration = Duration::from_millis(200);

/// What a client says that has no use for the value.
const MINIMAL: &str = "return=minimal";

/// What a request to write is about.
struct Target {
    address: Address,
    types: Types,
    /// The version that its author saw.
    seen: Condition,
}

impl Target {
    fn of(
        uri: &Uri,
        query: Result<Query<Parameters>, QueryRejection>,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        Ok(Self {
            address: address(uri)?,
            types: Parameters::of(query)?.types()?,
            seen: version::if_match(headers)?,
        })
    }
}

pub(super) async fn create(
    State(documents): State<Documents>,
    headers: HeaderMap,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let types = Parameters::of(query)?.types()?;
    let parsed = documents.read_json(&headers, body, &Path::root()).await?;
    let id = DocumentId::from_uuid(*uuid::Uuid::new_v4().as_bytes());
    let (shown, _) = documents
        .bring(&id, Condition::None, Condition::None, types, parsed)
        .await?;
    let location = url_of(&id);
    Ok(answer(
        &headers,
        shown,
        StatusCode::CREATED,
        Some(&location),
    ))
}

pub(super) async fn put_whole(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Target {
        address: Address { id, .. },
        types,
        seen,
    } = Target::of(&uri, query, &headers)?;
    let unseen = version::if_none_match(&headers)?;
    let parsed = documents.read_json(&headers, body, &Path::root()).await?;
    let (shown, is_new) = documents.bring(&id, seen, unseen, types, parsed).await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let location = url_of(&id);
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
        Parsed { json, permit }: Parsed,
    ) -> Result<(Shown, bool), Problem> {
        if !json.is_object() {
            return Err(Problem::new(Code::NotAnObject, "a document is an object").at(""));
        }
        let made = self.views.run(id, move |core| {
            let _permit = permit;
            let is_new = core.heads().is_empty();
            if is_new && seen != Condition::None {
                return Err(Problem::new(
                    Code::UnknownHeads,
                    "the document is not there",
                ));
            }
            if !is_new && unseen == Condition::Any {
                // Who was not told that it was made, and makes it again, has made it.
                let there = json_at(core.doc(), &Path::root(), types, None)?;
                if there
                    .as_ref()
                    .is_some_and(|there| json::is_same(there, &json))
                {
                    let version = Version(core.heads());
                    return Ok((Shown::json(version, there.as_ref()), false));
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
            Ok((Shown::of(core, &Path::root(), types)?, is_new))
        });
        made.await?
    }
}

pub(super) async fn write(
    State(documents): State<Documents>,
    method: Method,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Target {
        address: Address { id, path },
        types,
        seen,
    } = Target::of(&uri, query, &headers)?;
    let kind = Kind::of(&headers)?;
    let Parsed { json, permit } = body::json(body, &path, &documents.large).await?;
    let patch = match (method == Method::PATCH, kind) {
        (false, Kind::Json) | (true, Kind::Json | Kind::MergePatch) => None,
        (true, Kind::JsonPatch) => {
            let patch = json_patch::Patch::deserialize(&json);
            Some(patch.map_err(|error| Problem::new(Code::BadPatch, error.to_string()))?)
        }
        (false, _) => {
            let detail = "PUT takes application/json, and PATCH patches";
            return Err(Problem::new(Code::MediaType, detail));
        }
    };
    let shown = documents.on(&id, move |core| {
        let _permit = permit;
        let at = base(core, seen)?;
        edit(core, at.as_deref(), types, |edit| match &patch {
            Some(patch) => edit.patch_at(&path, patch),
            None if method == Method::PATCH => edit.merge_at(&path, &json),
            None => edit.put_at(&path, &json),
        })?;
        shown_now(core, &path, types)
    });
    Ok(answer(&headers, shown.await?, StatusCode::OK, None))
}

/// What is at a path that was written to: it may be gone again by what came since.
pub(super) fn shown_now(core: &Core, path: &Path, types: Types) -> Result<Shown, Problem> {
    match Shown::of(core, path, types) {
        Err(problem) if problem.code == Code::NoValue => {
            Ok(Shown::json(Version(core.heads()), None))
        }
        shown => shown,
    }
}

pub(super) async fn append(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Target {
        address: Address { id, path },
        types,
        seen,
    } = Target::of(&uri, query, &headers)?;
    let Parsed { json, permit } = documents.read_json(&headers, body, &path).await?;
    let document = id.clone();
    let made = documents.on(&id, move |core| {
        let _permit = permit;
        let at = base(core, seen)?;
        let key = uuid::Uuid::new_v4().to_string();
        let new = edit(core, at.as_deref(), types, |edit| {
            edit.append_at(&path, &key, &json)
        })?;
        Ok((new, Shown::json(Version(core.heads()), Some(&json))))
    });
    let (new, shown) = made.await?;
    let location = url_of_value(&document, &new);
    Ok(answer(
        &headers,
        shown,
        StatusCode::CREATED,
        Some(&location),
    ))
}

pub(super) async fn delete(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let Address { id, path } = address(&uri)?;
    let seen = version::if_match(&headers)?;
    let shown = documents.on(&id, move |core| {
        let at = base(core, seen)?;
        edit(core, at.as_deref(), Types::Plain, |edit| {
            edit.delete_at(&path)
        })?;
        Ok(Shown::json(Version(core.heads()), None))
    });
    Ok(shown.await?.into_response(StatusCode::NO_CONTENT))
}

impl Documents {
    pub(super) async fn read_json(
        &self,
        headers: &HeaderMap,
        body: Body,
        path: &Path,
    ) -> Result<Parsed, Problem> {
        match Kind::of(headers)? {
            Kind::Json => body::json(body, path, &self.large).await,
            Kind::MergePatch | Kind::JsonPatch => {
                Err(Problem::new(Code::MediaType, "patches are sent by PATCH"))
            }
        }
    }
}

/// With the value, or without where the client prefers that (RFC 7240).
pub(super) fn answer(
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

/// Who writes. Nobody has to say who they are yet.
pub(super) fn author() -> Author {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = now.map_or(0, |now| now.as_millis());
    Author {
        principal: PrincipalId::anonymous(),
        message: None,
        at_ms: i64::try_from(ms).unwrap_or(i64::MAX),
    }
}

/// The version that an edit is to be made of: `None` is now.
pub(super) fn base(core: &Core, condition: Condition) -> Result<Option<Vec<ChangeHash>>, Problem> {
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
pub(super) fn edit<R>(
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
