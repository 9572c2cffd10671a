//! Importing: a document's own bytes, as any Automerge library saves them.
//!
//! They are judged as a client's upload is, change by change, and never stored as they came. On the wire what was good
//! before the first refused change stays; here it is all or nothing, since whoever imports is told of the whole. So the
//! changes are judged beforehand, against the stored history, and what was judged goes through the document's view, as
//! what is written there does: into the view at once, on to the relay, and the answer waits for the disk.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;
use concord_shared::change::Change;
use concord_shared::code::ErrorCode;
use concord_shared::ids::{DocumentId, PrincipalId};
use concord_shared::json::Types;
use concord_shared::limits::Limits;
use concord_shared::path::Path;

use super::granted::Maker;
use super::make::Precondition;
use super::read::Shown;
use super::write::Asked;
use super::{unfit, unreadable};
use crate::audit::event::Event;
use crate::connection::caller::{Caller, Refused};
use crate::connection::decode::{self, DecodeError};
use crate::document::ConnectionId;
use crate::document::admission::{Admission, ParkingLimits, Refusal, Sender};
use crate::document::opening;
use crate::document::task::Report;
use crate::http::body;
use crate::http::problem::{Code, Problem};
use crate::limits::account::Account;
use crate::store::Store;

/// Imports at a time, per server. Each may hold a whole document in memory, as changes.
pub const CONCURRENT_IMPORTS: usize = 2;

/// Who imports, and as what.
pub(super) struct Import<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) principal: PrincipalId,
    pub(super) address: IpAddr,
    pub(super) account: &'a Arc<Account>,
    pub(super) types: Types,
    pub(super) precondition: Precondition,
}

impl Maker {
    /// Brings the changes in a body into a document; makes it where it is not. Whether it was made.
    pub(super) async fn import(
        &self,
        import: Import<'_>,
        body: Body,
    ) -> Result<(Shown, bool), Problem> {
        let Import {
            headers,
            principal,
            address,
            account,
            types,
            precondition,
        } = import;
        let documents = self.documents();
        let backoff = Arc::clone(&documents.backoff);
        let refusals = Arc::clone(&documents.refusals);
        let caller = Caller::new(
            ConnectionId::VIEW,
            principal.clone(),
            address,
            Arc::clone(account),
            backoff,
            refusals,
        );
        // Whose changes were refused again and again can't go on by another way.
        if let Some(wait) = caller.held() {
            let detail = "changes from there were refused again and again";
            let problem = Problem::new(Code::Wire(ErrorCode::BackOff), detail);
            return Err(problem.retry_after(wait.as_secs() + 1));
        }
        let raw = body::raw(headers, body, documents.limits.frame_bytes).await?;
        // Before it is inflated: who waits here holds what was sent, no more.
        let turn = account.imports.turn(&documents.imports).await;
        let (store, limits) = (Arc::clone(&documents.store), documents.limits);
        let document = self.id().clone();
        let sender = Sender {
            connection: ConnectionId::VIEW,
            principal: principal.clone(),
        };
        let judging = tokio::task::spawn_blocking(move || {
            let uploaded = Bytes::from(raw.inflated()?);
            judged(&*store, &document, uploaded, &sender, &limits)
        });
        let judged = judging
            .await
            .unwrap_or(Err(Unfit::Decode(DecodeError::Panicked)));
        let changes = judged.map_err(|unfit| unfit.told(&caller, self.id()))?;
        let asked = Asked {
            principal,
            mark: None,
        };
        let (document, trail) = (self.id().clone(), self.trail().clone());
        self.check_unborn(&precondition)?;
        let made = self.make(account, move |core| {
            let _turn = turn;
            let is_new = core.heads().is_empty();
            let is_here = || {
                let mut hashes = changes.iter().map(|change| change.hash);
                Ok(hashes.all(|hash| core.has(&[hash])))
            };
            if precondition.check(core, is_here)?.is_some() {
                let count = changes.len();
                let imported = core.import(asked.principal.clone(), changes);
                if !imported.map_err(|failure| unfit(core, failure))? {
                    let detail = "another change with the same actor and number came first";
                    return Err(Problem::new(Code::Wire(ErrorCode::DuplicateSeq), detail));
                }
                // What brings nothing is nothing that the store would bound.
                if count > 0 {
                    trail.record(&Event::Imported {
                        document: &document,
                        changes: count,
                    });
                }
                if core.heads().is_empty() {
                    core.make_empty(asked.author());
                }
            }
            let mut shown = Shown::of(core, &Path::root(), types)?;
            // There may be more than what was sent.
            shown.is_known = false;
            Ok((shown, is_new))
        });
        made.await
    }
}

/// Why an upload is not taken.
enum Unfit {
    Decode(DecodeError),
    Refused(Refusal),
    /// By no fault of its changes.
    Problem(Problem),
}

impl From<DecodeError> for Unfit {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

impl From<Problem> for Unfit {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl Unfit {
    /// Counts and logs it as any refusal.
    fn told(self, caller: &Caller, document: &DocumentId) -> Problem {
        let (code, hash, reason): (_, _, Box<dyn std::error::Error>) = match self {
            Self::Problem(problem) => return problem,
            Self::Decode(error) => (error.code(), error.hash(), error.into()),
            Self::Refused(refusal) => (refusal.code(), Some(refusal.hash), refusal.reason.into()),
        };
        caller.refused(Refused {
            code,
            document: Some(document),
            hash: hash.as_ref(),
            reason: &Report(&*reason),
        });
        Problem::new(Code::Wire(code), Report(&*reason).to_string())
    }
}

/// The changes in a document's bytes, each after its deps, if a document of this id may have all of them: without those
/// that it has. Blocks.
fn judged(
    store: &dyn Store,
    document: &DocumentId,
    bytes: Bytes,
    sender: &Sender,
    limits: &Limits,
) -> Result<Vec<Change>, Unfit> {
    if bytes.is_empty() {
        return Err(Problem::new(Code::BadBody, "the body is empty").into());
    }
    let changes = decode::saved(&bytes, limits)?;
    drop(bytes);
    let opened = opening::open(store, document);
    let mut history = opened.map_err(|error| unreadable(&error))?.history;
    // Whatever order they are in, they wait for each other here.
    let mut admission = Admission::new(ParkingLimits {
        changes: usize::MAX,
        bytes: usize::MAX,
    });
    let outcome = admission.admit(&mut history, sender, changes);
    if let Some((_, refusal)) = outcome.refused.into_iter().next() {
        return Err(Unfit::Refused(refusal));
    }
    if admission.parked() > 0 {
        let detail = "changes that others build on are neither in the upload nor here";
        return Err(Problem::new(Code::MissingDeps, detail).into());
    }
    let admitted = outcome.admitted.into_iter();
    Ok(admitted.map(|(_, change)| change).collect())
}
