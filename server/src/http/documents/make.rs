//! Writing whole documents: making them, and bringing them to a value.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use concord_shared::ids::DocumentId;
use concord_shared::json::{self, Types};
use concord_shared::path::Path;

use super::Documents;
use super::address::{Address, Parameters, url_of};
use super::granted::Maker;
use super::import::Import;
use super::read::{Shown, json_at};
use super::write::{Asked, Base, Conditions, Target, answer, edit, reused, written};
use crate::access::Identity;
use crate::http::body::{Kind, Parsed};
use crate::http::idempotency::Key;
use crate::http::openapi::problems::Fails;
use crate::http::openapi::{answers, bodies, parameters};
use crate::http::problem::{Code, Problem};
use crate::http::proxies::Client;
use crate::http::version::Condition;
use crate::limits::account::Account;
use crate::view::Core;

/// Make a document
///
/// Of a value, or of a document's own bytes, under a new id.
#[utoipa::path(
    post,
    path = "/v1/documents",
    operation_id = "createDocument",
    tag = "Documents",
    params(parameters::Making),
    request_body(content(
        (bodies::Document = "application/json", example = json!({"companies": {"acme": {"name": "Acme"}}})),
        (bodies::Bytes = "application/vnd.automerge"),
    )),
    responses(answers::Made, Fails<400>, Fails<413>, Fails<415>, Fails<422>),
)]
pub(super) async fn create(
    State(documents): State<Documents>,
    (Extension(identity), Extension(account)): (Extension<Identity>, Extension<Arc<Account>>),
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let types = Parameters::of_write(query)?.types()?;
    let key = documents.keys.of(&headers, &identity.principal)?;
    let random = || DocumentId::from_uuid(*uuid::Uuid::new_v4().as_bytes());
    let id = key.as_ref().map_or_else(random, Key::document);
    let maker = documents.maker_of_new(&identity, &id).await?;
    // Under a key that was used before the document is there.
    let precondition = Precondition::MustBeNew;
    let shown = if Kind::of(&headers)? == Kind::Automerge {
        let import = Import {
            headers: &headers,
            principal: identity.principal,
            address: client.address,
            account: &account,
            types,
            precondition,
        };
        maker.import(import, body).await?.0
    } else {
        let parsed = documents
            .read_json(&account, &headers, body, &Path::root())
            .await?;
        let mark = key.map(|key| key.mark(&id, &Method::POST, &uri, &headers, parsed.fingerprint));
        maker
            .bring(
                &account,
                precondition,
                types,
                parsed,
                Asked::new(&identity, mark),
            )
            .await?
            .0
    };
    Ok(answer(&headers, shown, StatusCode::CREATED, &url_of(&id)))
}

/// Make or write a document
///
/// Makes it, or brings it to the value: as the difference to the version that `If-Match` names, merged with what came
/// since. A document's own bytes are merged with what is there.
#[utoipa::path(
    put,
    path = "/v1/documents/{id}",
    operation_id = "putDocument",
    tag = "Documents",
    params(parameters::Document, parameters::Writing),
    request_body(content(
        (bodies::Document = "application/json", example = json!({"companies": {"acme": {"name": "Acme"}}})),
        (bodies::Bytes = "application/vnd.automerge"),
    )),
    responses(answers::Replaced, Fails<400>, Fails<404>, Fails<412>, Fails<413>, Fails<415>, Fails<422>),
)]
pub(super) async fn put_whole(
    State(documents): State<Documents>,
    (Extension(identity), Extension(account)): (Extension<Identity>, Extension<Arc<Account>>),
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Target {
        address: Address { id, .. },
        types,
        conditions,
    } = Target::of(&uri, query, &headers)?;
    let maker = documents.maker(&identity, &id).await?;
    let precondition = Precondition::MayBeThere(conditions);
    let key = documents.keys.of(&headers, &identity.principal)?;
    let (shown, is_new) = if Kind::of(&headers)? == Kind::Automerge {
        let import = Import {
            headers: &headers,
            principal: identity.principal,
            address: client.address,
            account: &account,
            types,
            precondition,
        };
        maker.import(import, body).await?
    } else {
        let parsed = documents
            .read_json(&account, &headers, body, &Path::root())
            .await?;
        let mark = documents.keys.mark_of_put(
            key,
            &identity.principal,
            &id,
            &uri,
            &headers,
            parsed.fingerprint,
        );
        maker
            .bring(
                &account,
                precondition,
                types,
                parsed,
                Asked::new(&identity, mark),
            )
            .await?
    };
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(answer(&headers, shown, status, &url_of(&id)))
}

/// What a request to make a whole document says of one that is there.
#[derive(Debug)]
pub(super) enum Precondition {
    /// It can only be there by the same request.
    MustBeNew,
    /// It may be.
    MayBeThere(Conditions),
}

impl Precondition {
    /// Whether the document may be made or changed; `Ok(None)` where that is done already if what is there is as the
    /// request wants it, which `is_as_wanted` says. Else the version that is to be changed.
    pub(super) fn check(
        self,
        core: &Core,
        is_as_wanted: impl Fn() -> Result<bool, Problem>,
    ) -> Result<Option<Base>, Problem> {
        if core.heads().is_empty() {
            self.check_new()?;
            return Ok(Some(Base::default()));
        }
        match self {
            Self::MustBeNew if is_as_wanted()? => Ok(None),
            Self::MustBeNew => Err(reused()),
            // Who was not told that it was made, and makes it again, has made it.
            Self::MayBeThere(conditions) if conditions.unseen == Condition::Any => {
                if is_as_wanted()? {
                    return Ok(None);
                }
                let detail = "the document is there, and differs";
                Err(Problem::new(Code::Exists, detail))
            }
            Self::MayBeThere(conditions) => conditions.check(core, &Path::root()).map(Some),
        }
    }

    /// Whether a document may be made where there is none.
    pub(super) fn check_new(&self) -> Result<(), Problem> {
        match self {
            Self::MayBeThere(conditions) if conditions.seen != Condition::None => {
                let detail = "the document is not there";
                Err(Problem::new(Code::UnknownHeads, detail))
            }
            _ => Ok(()),
        }
    }
}

impl Maker {
    /// Refuses what can't be while the document is nobody's: it is somebody's as soon as they begin to make it.
    pub(super) fn check_unborn(&self, precondition: &Precondition) -> Result<(), Problem> {
        if self.is_unborn() {
            precondition.check_new()?;
        }
        Ok(())
    }

    /// Brings a whole document to a value; makes it where it is not. Whether it was made.
    async fn bring(
        &self,
        account: &Arc<Account>,
        precondition: Precondition,
        types: Types,
        parsed: Parsed,
        asked: Asked,
    ) -> Result<(Shown, bool), Problem> {
        let Parsed { json, turn, .. } = parsed;
        if !json.is_object() {
            return Err(Problem::new(Code::NotAnObject, "a document is an object").at(""));
        }
        self.check_unborn(&precondition)?;
        let made = self.make(account, move |core| {
            let _turn = turn;
            if let Some(change) = asked.done(core)? {
                let made = core.doc().get_change_meta_by_hash(&change);
                let is_new = made.is_some_and(|made| made.deps.is_empty());
                return Ok((written(core, &Path::root(), types, Some(&json))?, is_new));
            }
            let is_new = core.heads().is_empty();
            let is_as_wanted = || {
                let there = json_at(core.doc(), &Path::root(), types, None)?;
                Ok(there.is_some_and(|there| json::is_same(&there, &json)))
            };
            let Some(base) = precondition.check(core, is_as_wanted)? else {
                return Ok((Shown::of(core, &Path::root(), types)?, false));
            };
            edit(core, &base, types, &asked, |edit| {
                edit.put_at(&Path::root(), &json)
            })?;
            if core.heads().is_empty() {
                core.make_empty(asked.author());
            }
            let mut shown = written(core, &Path::root(), types, Some(&json))?;
            shown.is_known |= base.saw_all;
            Ok((shown, is_new))
        });
        made.await
    }
}
