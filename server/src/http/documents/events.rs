//! A document live: server-sent events (the HTML standard, section 9.2) of what is at a path.
//!
//! An event is told once all that it tells is durable. Each has the version that it leads to as its id, so a client that
//! comes back, which says the last id that it saw, is told what happened since; also over restarts of the server. So
//! is it here where a view ends and another one takes its place. A client that does not keep up gets the value anew.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use automerge::ChangeHash;
use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use concord_shared::access::Role;
use concord_shared::code::ErrorCode;
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::Documents;
use super::address::{Address, Parameters, address};
use super::granted::Reader;
use crate::access::{Grant, Identity};
use crate::http::accept::media_type;
use crate::http::limit;
use crate::http::openapi::problems::Fails;
use crate::http::openapi::{answers, parameters};
use crate::http::problem::{Code, Problem};
use crate::http::version::Version;
use crate::limits::account::Account;
use crate::listener::{Lease, Pass};
use crate::view::{End, Event, Events, Kind, Place, TooManyPlaces};

/// What streams are.
pub(in crate::http) const EVENTS: &str = "text/event-stream";

/// Silence after which a comment is sent, so that whatever is in between keeps the connection, and that one which is
/// broken is found out.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Bytes that are handed on at a time: whoever takes them one after the other is not gone.
const PIECE_BYTES: usize = 64 << 10;

/// A stream's first words: how long to wait before coming back, in milliseconds.
const OPENING: &[u8] = b"retry: 1000\n\n";

/// Watch a value
///
/// Server-sent events, which browsers read with `EventSource`. `value` is all of what is at the place, and comes first;
/// `patch` is a JSON Patch that leads on from there; `gone` says that nothing is there any more. Who comes back with the
/// `id` of the last one is told what happened since.
#[utoipa::path(
    get,
    path = "/v1/documents/{id}/events/{path}",
    operation_id = "watchValue",
    tag = "Events",
    params(parameters::Place, parameters::Watching),
    responses(answers::Stream, Fails<400>, Fails<404>),
)]
pub(super) async fn events(
    State(documents): State<Documents>,
    Extension(identity): Extension<Identity>,
    (lease, pass): (Option<Extension<Lease>>, Option<Extension<Pass>>),
    Extension(account): Extension<Arc<Account>>,
    headers: HeaderMap,
    uri: Uri,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Response, Problem> {
    let Address { id, path } = address(&uri)?;
    media_type(&headers, &[EVENTS])?;
    let parameters = Parameters::of(query, &["since", "types"])?;
    let types = parameters.types()?;
    let since = parameters.since()?;
    // What is no version is none that the document has: its client gets the value.
    let last = headers.get("last-event-id");
    let last = last.and_then(|last| Version::parse(last.to_str().ok()?));
    let seen = last.or(since).map(|Version(heads)| heads);
    // As a WebSocket it stays; the connections beyond those are for what is asked and answered.
    let permit = Arc::clone(&documents.capacity).try_acquire_owned();
    let permit = permit.map_err(|_| {
        let detail = "there are as many connections as may be";
        Problem::new(Code::Wire(ErrorCode::Overloaded), detail)
    })?;
    let document = documents.reader(&identity, &id).await?;
    let stays = limit::stay(&account, pass.as_deref())?;
    let grant = document.grant.clone();
    let mut told = Told {
        document,
        account,
        place: Place { path, types },
        seen,
        pieces: VecDeque::from([Bytes::from_static(OPENING)]),
        lease: lease.map(|Extension(lease)| lease),
        _permits: (permit, stays),
    };
    let events = told.join().await?;
    let pieces = stream::unfold(
        (told, events, identity, grant),
        async |(mut told, mut events, identity, mut grant)| {
            let piece = tokio::select! {
                biased;
                // Who comes back has to say anew who they are.
                () = identity.over() => None,
                // And is told that there is nothing.
                () = lost(&mut grant) => None,
                piece = told.next(&mut events) => piece,
            };
            let piece = piece?;
            Some((
                Ok::<_, std::convert::Infallible>(piece),
                (told, events, identity, grant),
            ))
        },
    );
    let value = HeaderValue::from_static;
    let headers = [
        (header::CONTENT_TYPE, value(EVENTS)),
        (header::CACHE_CONTROL, value("no-store")),
        // Or a proxy (nginx) keeps what comes until there is much of it.
        (
            header::HeaderName::from_static("x-accel-buffering"),
            value("no"),
        ),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// Waits until the document may not be read any more. Cancel safe.
async fn lost(grant: &mut Grant) {
    while grant.role() >= Role::Reader {
        grant.changed().await;
        grant.notice();
    }
}

/// A client, and what it has been told.
struct Told {
    document: Reader,
    account: Arc<Account>,
    place: Place,
    /// The version that it has the value of.
    seen: Option<Vec<ChangeHash>>,
    /// To be sent.
    pieces: VecDeque<Bytes>,
    lease: Option<Lease>,
    /// All connections', and the caller's own.
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Told {
    /// Begins to watch, from what the client has seen.
    async fn join(&mut self) -> Result<Events, Problem> {
        if !self.document.documents.views.can_be_watched() {
            let detail = "as many documents are watched as there is memory for";
            return Err(Problem::new(Code::Wire(ErrorCode::Overloaded), detail));
        }
        let (place, seen) = (self.place.clone(), self.seen.clone());
        let account = Arc::clone(&self.account);
        let (first, events) = self.document.watch(place, seen, account).await?;
        if let Some(event) = first {
            self.put(&event);
        }
        Ok(events)
    }

    /// What is to be sent next; `None` where the stream ends, and its client should come back.
    async fn next(&mut self, events: &mut Events) -> Option<Bytes> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                if let Some(lease) = &self.lease {
                    lease.renew();
                }
                return Some(piece);
            }
            match timeout(HEARTBEAT, events.next()).await {
                Ok(Ok(event)) => self.put(&event),
                Ok(Err(end)) => {
                    if end == End::Behind {
                        self.seen = None;
                    }
                    *events = self.join().await.ok()?;
                }
                Err(_silent) => self.pieces.push_back(Bytes::from_static(b":\n\n")),
            }
        }
    }

    fn put(&mut self, event: &Event) {
        let kind = match event.kind {
            Kind::Value => "value",
            Kind::Patch => "patch",
            Kind::Gone => "gone",
        };
        let version = Version(event.heads.clone());
        let head = format!("event: {kind}\nid: {version}\ndata: ");
        self.pieces.push_back(head.into());
        let mut data = event.data.clone();
        while data.len() > PIECE_BYTES {
            self.pieces.push_back(data.split_to(PIECE_BYTES));
        }
        // JSON has no line breaks but in strings, where they are escaped.
        self.pieces.push_back(data);
        self.pieces.push_back(Bytes::from_static(b"\n\n"));
        self.seen = Some(version.0);
    }
}

impl From<TooManyPlaces> for Problem {
    fn from(error: TooManyPlaces) -> Self {
        Self::new(Code::Wire(ErrorCode::Overloaded), error.to_string())
    }
}
