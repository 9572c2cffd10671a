//! Writing: values and patches, and what all writes have in common.

use std::sync::Arc;

use std::time::Duration;

use automerge::transaction::Transaction;
use automerge::{ChangeHash, ReadDoc as _};
use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use concord_shared::code::ErrorCode;
use concord_shared::ids::PrincipalId;
use concord_shared::json::{self, Added, Edit, Search, Types, Work, WriteError};
use concord_shared::path::Path;
use serde::Deserialize as _;

use super::Documents;
use super::address::{Address, Parameters, address, url_of_value};
use super::read::{Shown, json_at};
use crate::access::Identity;
use crate::clock::signed_unix_ms;
use crate::http::body::{self, Kind, Parsed};
use crate::http::idempotency::{Fingerprint, Key};
use crate::http::openapi::problems::Fails;
use crate::http::openapi::{answers, bodies, parameters};
use crate::http::prefer::{APPLIED, MINIMAL, is_minimal};
use crate::http::problem::{Code, Problem};
use crate::http::version::{self, Condition, Version};
use crate::limits::account::Account;
use crate::view::marks::{By, Mark};
use crate::view::{Author, Core};

/// How long the smallest difference is looked for. Afterwards a larger one is taken.
pub(super) const DIFF_TIME: Duration = Duration::from_millis(200);

/// What a request to write is about.
pub(super) struct Target {
    pub(super) address: Address,
    pub(super) types: Types,
    pub(super) conditions: Conditions,
}

/// What a request to write asks of what is there.
#[derive(Debug)]
pub(super) struct Conditions {
    /// The version that its author saw.
    pub(super) seen: Condition,
    /// What must not be there.
    pub(super) unseen: Condition,
}

impl Conditions {
    /// By the headers.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            seen: version::if_match(headers)?,
            unseen: version::if_none_match(headers)?,
        })
    }

    /// Whether what is at a path may be written, and what is to be changed.
    pub(super) fn check(self, core: &Core, path: &Path) -> Result<Base, Problem> {
        let is_there = || is_there(core, path, None);
        let unmet = |code, detail: &str| Err(Problem::new(code, detail).at(path));
        let now = core.heads();
        let has_now = |versions: &[Version]| versions.iter().any(|version| version.0 == now);
        match &self.unseen {
            Condition::Any if is_there() => return unmet(Code::Exists, "there is a value"),
            Condition::OneOf(versions) if has_now(versions) => {
                return unmet(Code::Exists, "the version is that one");
            }
            _ => {}
        }
        match self.seen {
            Condition::Any if !is_there() => unmet(Code::UnknownHeads, "there is no value"),
            Condition::None | Condition::Any => Ok(Base::default()),
            Condition::OneOf(versions) if has_now(&versions) => Ok(Base {
                at: None,
                saw_all: true,
            }),
            Condition::OneOf(versions) => {
                let known = versions.into_iter().find(|version| core.has(&version.0));
                let detail = "the document never had that version";
                let known = known.ok_or_else(|| Problem::new(Code::UnknownHeads, detail))?;
                Ok(Base {
                    at: Some(known.0),
                    saw_all: false,
                })
            }
        }
    }
}

impl Target {
    pub(super) fn of(
        uri: &Uri,
        query: Result<Query<Parameters>, QueryRejection>,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        Ok(Self {
            address: address(uri)?,
            types: Parameters::of_write(query)?.types()?,
            conditions: Conditions::of(headers)?,
        })
    }
}

/// Write a value
///
/// Brings what is at a place to a value, as the difference to the version that `If-Match` names, merged with what came
/// since. The last step may be a new key; a position in an array must be there.
#[utoipa::path(
    put,
    path = "/v1/documents/{id}/value/{path}",
    operation_id = "putValue",
    tag = "Values",
    params(parameters::Place, parameters::Writing),
    request_body(content((bodies::Value = "application/json", example = json!("Acme Ltd")))),
    responses(answers::Put, Fails<400>, Fails<404>, Fails<409>, Fails<412>, Fails<413>, Fails<415>, Fails<422>),
)]
pub(super) async fn put(
    documents: State<Documents>,
    identity: Extension<Identity>,
    account: Extension<Arc<Account>>,
    request: Request,
) -> Result<Response, Problem> {
    write(documents, identity, account, request).await
}

/// Patch a value
///
/// By a merge patch (RFC 7396; also as `application/json`), or by a JSON Patch (RFC 6902) whose paths begin at the place:
/// all of it is carried out, or nothing.
#[utoipa::path(
    patch,
    path = "/v1/documents/{id}/value/{path}",
    operation_id = "patchValue",
    tag = "Values",
    params(parameters::Place, parameters::Writing),
    request_body(content(
        (bodies::Value = "application/merge-patch+json", example = json!({"name": "Acme Ltd"})),
        (bodies::Value = "application/json", example = json!({"name": "Acme Ltd"})),
        (bodies::JsonPatch = "application/json-patch+json",
            example = json!([{"op": "replace", "path": "/name", "value": "Acme Ltd"}])),
    )),
    responses(answers::Written, Fails<400>, Fails<404>, Fails<409>, Fails<412>, Fails<413>, Fails<415>, Fails<422>),
)]
pub(super) async fn patch(
    documents: State<Documents>,
    identity: Extension<Identity>,
    account: Extension<Arc<Account>>,
    request: Request,
) -> Result<Response, Problem> {
    write(documents, identity, account, request).await
}

async fn write(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    Extension(account): Extension<Arc<Account>>,
    request: Request,
) -> Result<Response, Problem> {
    let (
        Parts {
            method,
            uri,
            headers,
            ..
        },
        body,
    ) = request.into_parts();

    let query = Query::try_from_uri(&uri);
    let Target {
        address: Address { id, path },
        types,
        conditions,
    } = Target::of(&uri, query, &headers)?;
    let (kind, key) = (
        Kind::of(&headers)?,
        documents.keys.of(&headers, &identity.principal)?,
    );
    let is_json_patch = match (method == Method::PATCH, kind) {
        (false, Kind::Json) | (true, Kind::Json | Kind::MergePatch) => false,
        (true, Kind::JsonPatch) => true,
        (false, _) | (true, Kind::Automerge) => {
            let detail = "PUT takes application/json, and PATCH patches";
            return Err(Problem::new(Code::MediaType, detail));
        }
    };
    let there = documents.writer(&identity, &id).await?;
    let parsed = body::json(&headers, body, &path, &documents.large, &account).await?;
    let Parsed {
        json,
        turn,
        fingerprint,
    } = parsed;
    let mark = if method == Method::PUT {
        documents
            .keys
            .mark_of_put(key, &identity.principal, &id, &uri, &headers, fingerprint)
    } else {
        key.map(|key| key.mark(&id, &method, &uri, &headers, fingerprint))
    };
    let asked = Asked::new(&identity, mark);
    let address = url_of_value(&id, &path);
    let shown = there.edit(move |core| {
        let _turn = turn;
        let bad = |error: serde_json::Error| Problem::new(Code::BadPatch, error.to_string());
        let patch = is_json_patch.then(|| json_patch::Patch::deserialize(&json));
        let patch = patch.transpose().map_err(bad)?;
        let is_patch = method == Method::PATCH;
        let mut saw_all = false;
        let was_there;
        if let Some(change) = asked.done(core)? {
            let made = core.doc().get_change_meta_by_hash(&change);
            was_there = made.is_none_or(|made| is_there(core, &path, Some(&made.deps)));
        } else {
            was_there = is_there(core, &path, None);
            let base = conditions.check(core, &path)?;
            saw_all = base.saw_all;
            edit(core, &base, types, &asked, |edit| match &patch {
                Some(patch) => edit.patch_at(&path, patch),
                None if is_patch => edit.merge_at(&path, &json),
                None => edit.put_at(&path, &json),
            })?;
        }
        let mut shown = written(core, &path, types, (!is_patch).then_some(&json))?;
        shown.is_known |= saw_all;
        // What it was written into may have gone.
        let is_new = !is_patch && !was_there && shown.json.is_some();
        Ok((
            shown,
            if is_new {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            },
        ))
    });
    let (shown, status) = shown.await?;
    Ok(answer(&headers, shown, status, &address))
}

/// Add a value
///
/// To an array's end, or to an object under a new id.
#[utoipa::path(
    post,
    path = "/v1/documents/{id}/value/{path}",
    operation_id = "addValue",
    tag = "Values",
    params(parameters::Place, parameters::Writing),
    request_body(content((bodies::Value = "application/json", example = json!({"date": "2026-11-22"})))),
    responses(answers::Added, Fails<400>, Fails<404>, Fails<409>, Fails<412>, Fails<413>, Fails<415>, Fails<422>),
)]
pub(super) async fn append(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    Extension(account): Extension<Arc<Account>>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Target {
        address: Address { id, path },
        types,
        conditions,
    } = Target::of(&uri, query, &headers)?;
    let key = documents.keys.of(&headers, &identity.principal)?;
    let there = documents.writer(&identity, &id).await?;
    let parsed = documents.read_json(&account, &headers, body, &path).await?;
    let Parsed {
        json,
        turn,
        fingerprint,
    } = parsed;
    let random = || uuid::Uuid::new_v4().to_string();
    let member = key.as_ref().map_or_else(random, Key::member);
    let mark = key.map(|key| key.mark(&id, &Method::POST, &uri, &headers, fingerprint));
    let asked = Asked::new(&identity, mark);
    let document = id.clone();
    let made = there.edit(move |core| {
        let _turn = turn;
        let change = if let Some(change) = asked.done(core)? {
            change
        } else {
            let base = conditions.check(core, &path)?;
            let ((), change) = edit(core, &base, types, &asked, |edit| {
                edit.append_at(&path, &member, &json)
            })?;
            // Something is always added.
            change.ok_or_else(internal)?
        };
        let doc = core.doc();
        let made = doc.get_change_by_hash(&change).ok_or_else(internal)?;
        let added = Added::by(doc, &made).map_err(|_| internal())?;
        let added = added.ok_or_else(internal)?;
        let place = |heads| added.place(doc, heads).map_err(|_| internal());
        // Where it is now, and what is there: others may have written it since, where this was asked before. If it is
        // nowhere any more, where it was then; if what it was added to had gone, it never was anywhere.
        if let Some(now) = place(None)? {
            let shown = written(core, &now, types, Some(&json))?;
            return Ok((Some(url_of_value(&document, &now)), shown));
        }
        let version = Version(vec![change]);
        let Some(path) = place(Some(&version.0))? else {
            let mut nowhere = Shown::json(Version(core.heads()), None);
            nowhere.is_known = false;
            return Ok((None, nowhere));
        };
        let then = json_at(doc, &path, types, Some(&version.0))?;
        let location = format!("{}?at={version}", url_of_value(&document, &path));
        Ok((Some(location), Shown::json(version, then.as_ref())))
    });
    let (location, shown) = made.await?;
    Ok(match location {
        Some(location) => answer(&headers, shown, StatusCode::CREATED, &location),
        None => answer(&headers, shown, StatusCode::NO_CONTENT, uri.path()),
    })
}

/// Remove a value
#[utoipa::path(
    delete,
    path = "/v1/documents/{id}/value/{path}",
    operation_id = "deleteValue",
    tag = "Values",
    params(parameters::Place, parameters::Removing),
    responses(answers::Removed, Fails<400>, Fails<404>, Fails<409>, Fails<412>, Fails<422>),
)]
pub(super) async fn delete(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Target {
        address: Address { id, path },
        conditions,
        ..
    } = Target::of(&uri, query, &headers)?;
    let key = documents.keys.of(&headers, &identity.principal)?;
    let nothing = Fingerprint::of(b"");
    let mark = key.map(|key| key.mark(&id, &Method::DELETE, &uri, &headers, nothing));
    let asked = Asked::new(&identity, mark);
    let address = url_of_value(&id, &path);
    let there = documents.writer(&identity, &id).await?;
    let shown = there.edit(move |core| {
        let mut shown = Shown::json(Version(Vec::new()), None);
        shown.is_known = false;
        if asked.done(core)?.is_none() {
            let base = conditions.check(core, &path)?;
            shown.is_known = base.saw_all;
            edit(core, &base, Types::Plain, &asked, |edit| {
                edit.delete_at(&path)
            })?;
        }
        shown.version = Version(core.heads());
        Ok(shown)
    });
    let shown = shown.await?;
    Ok(answer(&headers, shown, StatusCode::NO_CONTENT, &address))
}

impl Documents {
    pub(super) async fn read_json(
        &self,
        account: &Account,
        headers: &HeaderMap,
        body: Body,
        path: &Path,
    ) -> Result<Parsed, Problem> {
        match Kind::of(headers)? {
            Kind::Json => body::json(headers, body, path, &self.large, account).await,
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
/// back later, as of this version: what others wrote would be undone. With it, it is said that the value is what is at
/// the address now, which need not be what was sent (RFC 9110, sections 8.7 and 9.3.4).
pub(super) fn answer(
    headers: &HeaderMap,
    mut shown: Shown,
    status: StatusCode,
    address: &str,
) -> Response {
    let is_minimal = is_minimal(headers);
    let is_known = shown.is_known;
    if is_minimal {
        shown.json = None;
    }
    let has_value = shown.json.is_some();
    let is_told = has_value || is_known;
    let mut response = shown.into_response(status);
    if !is_told {
        response.headers_mut().remove(header::ETAG);
    }
    if is_minimal {
        let applied = HeaderValue::from_static(MINIMAL);
        response.headers_mut().insert(APPLIED, applied);
    }
    if let Ok(address) = HeaderValue::from_str(address) {
        let headers = response.headers_mut();
        if has_value {
            headers.insert(header::CONTENT_LOCATION, address.clone());
        }
        if status == StatusCode::CREATED {
            headers.insert(header::LOCATION, address);
            *response.status_mut() = status;
        }
    }
    response
}

/// What is at a path after it was written: something else where that was merged, or nothing if it was removed meanwhile.
/// Its author knows it if it is what they sent.
pub(super) fn written(
    core: &Core,
    path: &Path,
    types: Types,
    sent: Option<&serde_json::Value>,
) -> Result<Shown, Problem> {
    let now = match json_at(core.doc(), path, types, None) {
        Err(problem) if problem.code == Code::NoValue => None,
        now => now?,
    };
    let mut shown = Shown::json(Version(core.heads()), now.as_ref());
    let both = now.as_ref().zip(sent);
    shown.is_known = both.is_some_and(|(now, sent)| json::is_same(now, sent));
    Ok(shown)
}

fn is_there(core: &Core, path: &Path, heads: Option<&[ChangeHash]>) -> bool {
    let found = path.value(core.doc(), heads);
    found.is_ok_and(|found| found.is_some())
}

/// A request that writes.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Who asks.
    pub(super) principal: PrincipalId,
    /// How it is known when it comes again.
    pub(super) mark: Option<Mark>,
}

impl Asked {
    pub(super) fn new(identity: &Identity, mark: Option<Mark>) -> Self {
        let principal = identity.principal.clone();
        Self { principal, mark }
    }

    /// Of the change that carries it out.
    pub(super) fn author(&self) -> Author {
        Author {
            principal: self.principal.clone(),
            message: self.mark.map(|mark| mark.to_string()),
            at_ms: signed_unix_ms(),
        }
    }

    /// The change by which it was carried out, if it was.
    pub(super) fn done(&self, core: &mut Core) -> Result<Option<ChangeHash>, Problem> {
        let found = self.mark.and_then(|mark| Some((mark, core.done(&mark)?)));
        let Some((mark, done)) = found else {
            return Ok(None);
        };
        match mark.by {
            _ if done.request == mark.request => Ok(Some(done.change)),
            By::Version => Ok(None),
            By::Key => Err(reused()),
        }
    }
}

pub(super) fn reused() -> Problem {
    let detail = "another request was carried out under this key";
    Problem::new(Code::KeyReused, detail)
}

fn internal() -> Problem {
    Problem::new(Code::Wire(ErrorCode::Internal), "")
}

/// The version that an edit is to be made of.
#[derive(Debug, Default)]
pub(super) struct Base {
    /// `None` is now.
    at: Option<Vec<ChangeHash>>,
    /// Whether its author named the version that is here.
    pub(super) saw_all: bool,
}

/// Makes an edit, and its change unless it changes nothing. What it gave is worth nothing before the job's answer says
/// that it is kept.
pub(super) fn edit<R>(
    core: &mut Core,
    base: &Base,
    types: Types,
    asked: &Asked,
    make: impl FnOnce(&mut Edit<'_, Transaction<'_>>) -> Result<R, WriteError>,
) -> Result<(R, Option<ChangeHash>), Problem> {
    let make = |tx: &mut Transaction<'_>| {
        make(&mut Edit {
            tx,
            types,
            search: Search::at_most(DIFF_TIME),
            work: Work::default(),
        })
    };
    let made = match &base.at {
        Some(at) => core.change_at(asked.author(), at, make),
        None => core.change(asked.author(), make),
    };
    match made {
        Ok(made) => Ok(made?),
        Err(_) => Err(internal()),
    }
}
