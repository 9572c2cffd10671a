//! Documents at old versions.
//!
//! A large document is not read at an old version where those wait who want it as it is now: its view gives a copy of it,
//! which takes milliseconds, and the reading is done on that, for a few at a time.

use automerge::{Automerge, ChangeHash, ReadDoc as _};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use concord_shared::code::ErrorCode;

use super::address::At;
use super::granted::Reader;
use crate::http::problem::{Code, Problem};
use crate::http::version::Version;
use crate::limits::account::Account;

/// Large documents that are read at old versions at a time, per server: each is in memory once more.
pub const CONCURRENT_LARGE_PASTS: usize = 2;

/// Ops with which a document is large: to copy and read it takes more than a millisecond.
const LARGE_OPS: u64 = 10_000;

/// Bytes with which it is, whatever its ops.
const LARGE_BYTES: usize = 256 << 10;

impl Reader {
    /// Runs a job on a copy of the document, at the caller's turn if it is large. All that it has is durable.
    pub(super) async fn past<R: Send + 'static>(
        &self,
        account: &Account,
        job: impl FnOnce(&Automerge) -> Result<R, Problem> + Send + 'static,
    ) -> Result<R, Problem> {
        let small = self.see(|core| {
            let is_small = core.doc().stats().num_ops < LARGE_OPS && core.bytes() < LARGE_BYTES;
            Ok(is_small.then(|| core.doc().clone()))
        });
        let (doc, turn) = if let Some(doc) = small.await? {
            (doc, None)
        } else {
            let turn = account.pasts.turn(&self.documents.past).await;
            (self.see(|core| Ok(core.doc().clone())).await?, Some(turn))
        };
        let reading = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            job(&doc)
        });
        // It panicked.
        let internal = |_| Problem::new(Code::Wire(ErrorCode::Internal), "");
        reading.await.map_err(internal)?
    }

    /// The version that is named: still to be looked for in the document, if it is named by itself.
    pub(super) async fn version(&self, at: At) -> Result<Version, Problem> {
        match at {
            At::Version(version) => Ok(version),
            At::Time(ms) => self.version_at(ms).await,
        }
    }
}

/// A version must be part of the document.
pub(super) fn must_have(doc: &Automerge, heads: &[ChangeHash]) -> Result<(), Problem> {
    let mut heads = heads.iter();
    if heads.all(|head| doc.get_change_meta_by_hash(head).is_some()) {
        Ok(())
    } else {
        let detail = "the document never had that version";
        Err(Problem::new(Code::NoVersion, detail))
    }
}

/// Its heads, sorted.
pub(super) fn heads(doc: &Automerge) -> Version {
    let mut heads = doc.get_heads();
    heads.sort_unstable();
    Version(heads)
}

/// Of what never changes: who has it need not ask again.
pub(super) fn immutable(mut response: Response) -> Response {
    let value = HeaderValue::from_static("private, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, value);
    response
}
