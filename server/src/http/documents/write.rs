//! Writing: whole documents, values, patches.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use automerge::ChangeHash;
use automerge::transaction::Transaction;
use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, PrincipalId};
use concord_shared::json::{self, Added, Edit, Types, WriteError};
use concord_shared::path::Path;
use serde::Deserialize as _;

use super::Documents;
use super::address::{Address, Parameters, address, url_of, url_of_value};
use super::import::Import;
use super::read::{Shown, json_at};
use crate::http::body::{self, Kind, Parsed};
use crate::http::client_address;
use crate::http::idempotency::{Fingerprint, Key};
use crate::http::prefer::{APPLIED, MINIMAL, is_minimal};
use crate::http::problem::{Code, Problem};
use crate::http::version::{self, Condition, Version};
use crate::listener::Origin;
use crate::view::marks::Mark;
use crate::view::{Author, Core};

/// How long the smallest difference is looked for. Afterwards a larger one is taken.
const DIFF_TIME: Duration = Duration::from_millis(200);

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
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let types = Parameters::of(query)?.types()?;
    let key = Key::of(&headers)?;
    let random = || DocumentId::from_uuid(*uuid::Uuid::new_v4().as_bytes());
    let id = key.as_ref().map_or_else(random, Key::document);
    // Under a key that was used before the document is there.
    let precondition = Precondition::MustBeNew;
    let shown = if Kind::of(&headers)? == Kind::Automerge {
        let import = Import {
            id: &id,
            headers: &headers,
            address: client_address(origin, &headers),
            types,
            precondition,
        };
        documents.import(import, body).await?.0
    } else {
        let parsed = documents.read_json(&headers, body, &Path::root()).await?;
        let mark = key.map(|key| key.mark(&Method::POST, &uri, &headers, parsed.fingerprint));
        documents
            .bring(&id, precondition, types, parsed, mark)
            .await?
            .0
    };
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
    Extension(origin): Extension<Origin>,
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
    let precondition = Precondition::MayBeThere { seen, unseen };
    let key = Key::of(&headers)?;
    let (shown, is_new) = if Kind::of(&headers)? == Kind::Automerge {
        let import = Import {
            id: &id,
            headers: &headers,
            address: client_address(origin, &headers),
            types,
            precondition,
        };
        documents.import(import, body).await?
    } else {
        let parsed = documents.read_json(&headers, body, &Path::root()).await?;
        let mark = key.map(|key| key.mark(&Method::PUT, &uri, &headers, parsed.fingerprint));
        documents
            .bring(&id, precondition, types, parsed, mark)
            .await?
    };
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let location = url_of(&id);
    Ok(answer(&headers, shown, status, is_new.then_some(&location)))
}

/// What a request to make a whole document says of one that is there.
#[derive(Debug)]
pub(super) enum Precondition {
    /// It can only be there by the same request.
    MustBeNew,
    /// It may be.
    MayBeThere {
        /// The version that the author saw.
        seen: Condition,
        /// What must not be there.
        unseen: Condition,
    },
}

impl Precondition {
    fn names_version(&self) -> bool {
        matches!(
            self,
            Self::MayBeThere {
                seen: Condition::OneOf(_),
                ..
            }
        )
    }

    /// Whether the document may be made or changed; `Ok(None)` where that is done already if what is there is as the
    /// request wants it, which `is_as_wanted` says. Else the version that is to be changed.
    pub(super) fn check(
        self,
        core: &Core,
        is_as_wanted: impl Fn() -> Result<bool, Problem>,
    ) -> Result<Option<Base>, Problem> {
        let is_new = core.heads().is_empty();
        match self {
            Self::MustBeNew if is_new => Ok(Some(None)),
            Self::MustBeNew if is_as_wanted()? => Ok(None),
            Self::MustBeNew => Err(reused()),
            Self::MayBeThere { seen, .. } if is_new && seen != Condition::None => {
                let detail = "the document is not there";
                Err(Problem::new(Code::UnknownHeads, detail))
            }
            // Who was not told that it was made, and makes it again, has made it.
            Self::MayBeThere { unseen, .. } if !is_new && unseen == Condition::Any => {
                if is_as_wanted()? {
                    return Ok(None);
                }
                let detail = "the document is there, and differs";
                Err(Problem::new(Code::Exists, detail))
            }
            Self::MayBeThere { seen, .. } => base(core, seen).map(Some),
        }
    }
}

impl Documents {
    /// Brings a whole document to a value; makes it where it is not. Whether it was made.
    async fn bring(
        &self,
        id: &DocumentId,
        precondition: Precondition,
        types: Types,
        Parsed { json, permit, .. }: Parsed,
        mark: Option<Mark>,
    ) -> Result<(Shown, bool), Problem> {
        if !json.is_object() {
            return Err(Problem::new(Code::NotAnObject, "a document is an object").at(""));
        }
        let made = self.views.run(id, move |core| {
            let _permit = permit;
            if let Some(change) = done(core, mark)? {
                let made = core.doc().get_change_meta_by_hash(&change);
                let is_new = made.is_some_and(|made| made.deps.is_empty());
                return Ok((written(core, &Path::root(), types, Some(&json))?, is_new));
            }
            let is_new = core.heads().is_empty();
            let is_as_wanted = || {
                let there = json_at(core, &Path::root(), types, None)?;
                Ok(there.is_some_and(|there| json::is_same(&there, &json)))
            };
            let names_version = precondition.names_version();
            let Some(at) = precondition.check(core, is_as_wanted)? else {
                return Ok((Shown::of(core, &Path::root(), types, None)?, false));
            };
            edit(core, at.as_deref(), types, mark, |edit| {
                edit.put_at(&Path::root(), &json)
            })?;
            if core.heads().is_empty() {
                core.make_empty(author(mark));
            }
            let mut shown = written(core, &Path::root(), types, Some(&json))?;
            shown.is_known |= names_version && at.is_none();
            Ok((shown, is_new))
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
    let (kind, key) = (Kind::of(&headers)?, Key::of(&headers)?);
    let is_json_patch = match (method == Method::PATCH, kind) {
        (false, Kind::Json) | (true, Kind::Json | Kind::MergePatch) => false,
        (true, Kind::JsonPatch) => true,
        (false, _) | (true, Kind::Automerge) => {
            let detail = "PUT takes application/json, and PATCH patches";
            return Err(Problem::new(Code::MediaType, detail));
        }
    };
    let parsed = body::json(&headers, body, &path, &documents.large).await?;
    let Parsed {
        json,
        permit,
        fingerprint,
    } = parsed;
    let mark = key.map(|key| key.mark(&method, &uri, &headers, fingerprint));
    let bad = |error: serde_json::Error| Problem::new(Code::BadPatch, error.to_string());
    let patch = is_json_patch.then(|| json_patch::Patch::deserialize(&json));
    let patch = patch.transpose().map_err(bad)?;
    let shown = documents.on(&id, move |core| {
        let _permit = permit;
        let is_patch = method == Method::PATCH;
        let mut saw_all = false;
        if done(core, mark)?.is_none() {
            let names_version = matches!(seen, Condition::OneOf(_));
            let at = base(core, seen)?;
            saw_all = names_version && at.is_none();
            edit(core, at.as_deref(), types, mark, |edit| match &patch {
                Some(patch) => edit.patch_at(&path, patch),
                None if is_patch => edit.merge_at(&path, &json),
                None => edit.put_at(&path, &json),
            })?;
        }
        let mut shown = written(core, &path, types, (!is_patch).then_some(&json))?;
        shown.is_known |= saw_all;
        Ok(shown)
    });
    Ok(answer(&headers, shown.await?, StatusCode::OK, None))
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
    let key = Key::of(&headers)?;
    let parsed = documents.read_json(&headers, body, &path).await?;
    let Parsed {
        json,
        permit,
        fingerprint,
    } = parsed;
    let random = || uuid::Uuid::new_v4().to_string();
    let member = key.as_ref().map_or_else(random, Key::member);
    let mark = key.map(|key| key.mark(&Method::POST, &uri, &headers, fingerprint));
    let document = id.clone();
    let made = documents.on(&id, move |core| {
        let _permit = permit;
        let change = match done(core, mark)? {
            Some(change) => change,
            None => {
                let at = base(core, seen)?;
                let ((), change) = edit(core, at.as_deref(), types, mark, |edit| {
                    edit.append_at(&path, &member, &json)
                })?;
                // Something is always added.
                change.ok_or_else(internal)?
            }
        };
        let location = location_of(core, &document, &path, &member, change)?;
        Ok((location, Shown::json(Version(core.heads()), Some(&json))))
    });
    let (location, shown) = made.await?;
    Ok(answer(
        &headers,
        shown,
        StatusCode::CREATED,
        Some(&location),
    ))
}

/// Where what a change added to what is at a path is now. If it is nowhere any more, where it was then.
fn location_of(
    core: &Core,
    document: &DocumentId,
    path: &Path,
    member: &str,
    change: ChangeHash,
) -> Result<String, Problem> {
    let doc = core.doc();
    let added = Added::find(doc, path, member, &[change])?.ok_or_else(internal)?;
    Ok(match added.now(doc).map_err(|_| internal())? {
        Some(now) => url_of_value(document, &now),
        None => {
            let then = url_of_value(document, added.then());
            format!("{then}?at={}", Version(vec![change]))
        }
    })
}

pub(super) async fn delete(
    State(documents): State<Documents>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let Address { id, path } = address(&uri)?;
    let seen = version::if_match(&headers)?;
    let key = Key::of(&headers)?;
    let mark = key.map(|key| key.mark(&Method::DELETE, &uri, &headers, Fingerprint::of(b"")));
    let shown = documents.on(&id, move |core| {
        if done(core, mark)?.is_none() {
            let at = base(core, seen)?;
            edit(core, at.as_deref(), Types::Plain, mark, |edit| {
                edit.delete_at(&path)
            })?;
        }
        Ok(Shown::json(Version(core.heads()), None))
    });
    Ok(shown.await?.into_response(StatusCode::NO_CONTENT))
}

impl Documents {
    async fn read_json(
        &self,
        headers: &HeaderMap,
        body: Body,
        path: &Path,
    ) -> Result<Parsed, Problem> {
        match Kind::of(headers)? {
            Kind::Json => body::json(headers, body, path, &self.large).await,
            Kind::MergePatch | Kind::JsonPatch => {
                Err(Problem::new(Code::MediaType, "patches are sent by PATCH"))
            }
            Kind::Automerge => {
                let detail = "a document's own bytes are put at its own address";
                Err(Problem::new(Code::MediaType, detail))
            }
        }
    }
}

/// With the value, or without where the client prefers that.
///
/// Without it a version is told only to who knows what it is of. Others would take what they sent for it, and put that
/// back later, as of this version: what others wrote would be undone.
fn answer(
    headers: &HeaderMap,
    mut shown: Shown,
    status: StatusCode,
    location: Option<&str>,
) -> Response {
    let is_minimal = is_minimal(headers);
    let is_known = shown.is_known;
    if is_minimal {
        shown.json = None;
    }
    let is_told = shown.json.is_some() || is_known;
    let mut response = shown.into_response(status);
    if !is_told {
        response.headers_mut().remove(header::ETAG);
    }
    if is_minimal {
        let applied = HeaderValue::from_static(MINIMAL);
        response.headers_mut().insert(APPLIED, applied);
    }
    if let Some(Ok(location)) = location.map(HeaderValue::from_str) {
        if status == StatusCode::CREATED {
            *response.status_mut() = status;
        }
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// What is at a path after it was written: something else where that was merged, or nothing if it was removed meanwhile.
/// Its author knows it if it is what they sent.
fn written(
    core: &Core,
    path: &Path,
    types: Types,
    sent: Option<&serde_json::Value>,
) -> Result<Shown, Problem> {
    let now = match json_at(core, path, types, None) {
        Err(problem) if problem.code == Code::NoValue => None,
        now => now?,
    };
    let mut shown = Shown::json(Version(core.heads()), now.as_ref());
    let both = now.as_ref().zip(sent);
    shown.is_known = both.is_some_and(|(now, sent)| json::is_same(now, sent));
    Ok(shown)
}

/// Who writes. Nobody has to say who they are yet.
pub(super) fn author(mark: Option<Mark>) -> Author {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = now.map_or(0, |now| now.as_millis());
    Author {
        principal: PrincipalId::anonymous(),
        message: mark.map(|mark| mark.to_string()),
        at_ms: i64::try_from(ms).unwrap_or(i64::MAX),
    }
}

/// The change by which a request was carried out, if it was.
fn done(core: &mut Core, mark: Option<Mark>) -> Result<Option<ChangeHash>, Problem> {
    let Some((mark, done)) = mark.and_then(|mark| Some((mark, core.done(&mark)?))) else {
        return Ok(None);
    };
    if done.request == mark.request {
        Ok(Some(done.change))
    } else {
        Err(reused())
    }
}

fn reused() -> Problem {
    let detail = "another request was carried out under this key";
    Problem::new(Code::KeyReused, detail)
}

fn internal() -> Problem {
    Problem::new(Code::Wire(ErrorCode::Internal), "")
}

/// The version that an edit is to be made of: `None` is now.
type Base = Option<Vec<ChangeHash>>;

fn base(core: &Core, condition: Condition) -> Result<Base, Problem> {
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

/// Makes an edit, and its change unless it changes nothing. What it gave is worth nothing before the job's answer says
/// that it is kept.
fn edit<R>(
    core: &mut Core,
    at: Option<&[ChangeHash]>,
    types: Types,
    mark: Option<Mark>,
    make: impl FnOnce(&mut Edit<'_, Transaction<'_>>) -> Result<R, WriteError>,
) -> Result<(R, Option<ChangeHash>), Problem> {
    let made = core.change(author(mark), at, |tx| {
        make(&mut Edit {
            tx,
            types,
            deadline: Some(Instant::now() + DIFF_TIME),
        })
    });
    match made {
        Ok(made) => Ok(made?),
        Err(_) => Err(internal()),
    }
}
