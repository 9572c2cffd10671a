//! Answers that wait for their readers: all together take only so much memory.
//!
//! A long answer is in memory until its reader has taken it, and there are as many readers as connections. So each long
//! one takes room for its bytes, in the order in which they came, and gives it back when it is sent. One that finds no
//! room for a while is not given, and a reader that takes nothing for a while is let go: what it was to get is
//! dropped, whether its connection notices or not.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use concord_shared::code::ErrorCode;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::problem::{Code, Problem};
use crate::listener::Lease;

/// Bytes of all long answers that are being sent, per server.
const SENT_BYTES: usize = 256 << 20;

/// Bytes of all those that wait for room.
const WAITING_BYTES: usize = 128 << 20;

/// Bytes of an answer that is long. The kernel holds about as many for each connection as it is.
const LONG_BYTES: usize = 64 << 10;

/// Bytes that are handed out at a time: compressing them takes half a millisecond.
const PIECE_BYTES: usize = 64 << 10;

/// Room is counted in units of so many bytes.
const UNIT_BYTES: usize = 1 << 10;

/// How long an answer waits for room.
const PATIENCE: Duration = Duration::from_secs(5);

/// A reader that has not taken another piece by then is let go.
const STALL: Duration = Duration::from_secs(30);

/// Room for answers. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Room {
    sent: Pool,
    waiting: Pool,
    patience: Duration,
    stall: Duration,
}

#[derive(Debug, Clone)]
struct Pool {
    units: Arc<Semaphore>,
    all: u32,
}

impl Default for Room {
    fn default() -> Self {
        Self::new(SENT_BYTES, WAITING_BYTES, PATIENCE, STALL)
    }
}

impl Pool {
    fn new(bytes: usize) -> Self {
        let units = bytes.div_ceil(UNIT_BYTES);
        Self {
            units: Arc::new(Semaphore::new(units)),
            all: u32::try_from(units).unwrap_or(u32::MAX),
        }
    }

    /// One that is longer than all takes all.
    fn units(&self, bytes: usize) -> u32 {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES));
        units.unwrap_or(u32::MAX).min(self.all)
    }
}

impl Room {
    fn new(sent: usize, waiting: usize, patience: Duration, stall: Duration) -> Self {
        Self {
            sent: Pool::new(sent),
            waiting: Pool::new(waiting),
            patience,
            stall,
        }
    }

    /// Waits for room for so many bytes; `None` if there is none in time.
    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let queue = Arc::clone(&self.waiting.units);
        let _place = queue
            .try_acquire_many_owned(self.waiting.units(bytes))
            .ok()?;
        let room = Arc::clone(&self.sent.units);
        let room = room.acquire_many_owned(self.sent.units(bytes));
        timeout(self.patience, room).await.ok()?.ok()
    }
}

/// Around the handlers: a long answer goes out when there is room for it.
pub async fn hold(State(room): State<Room>, request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let lease = request.extensions().get::<Lease>().cloned();
    let response = next.run(request).await;
    // What has no length is made as it is sent: events.
    let length = response.body().size_hint().exact();
    let length = length.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    let Some(length) = length.filter(|length| *length > LONG_BYTES) else {
        return response;
    };
    let (mut parts, body) = response.into_parts();
    let Some(permit) = room.take(length).await else {
        drop(body);
        if is_read {
            let detail = "too many long answers are waiting for their readers";
            return Problem::new(Code::Wire(ErrorCode::Overloaded), detail).into_response();
        }
        // It is done, and who did it can read what came of it later.
        for name in [
            header::ETAG,
            header::CONTENT_TYPE,
            header::CONTENT_LENGTH,
            header::CONTENT_LOCATION,
        ] {
            parts.headers.remove(name);
        }
        if parts.status == StatusCode::OK {
            parts.status = StatusCode::NO_CONTENT;
        }
        return Response::from_parts(parts, Body::empty());
    };
    let Ok(bytes) = to_bytes(body, length).await else {
        return Problem::new(Code::Wire(ErrorCode::Internal), "").into_response();
    };
    let held = Held {
        left: bytes,
        _permit: permit,
    };
    let answer = Answer::new(held, length as u64, lease, room.stall);
    Response::from_parts(parts, Body::new(answer))
}

/// What is left of an answer.
struct Held {
    left: Bytes,
    _permit: OwnedSemaphorePermit,
}

type Shared = Mutex<Option<Held>>;

/// A body whose rest can be taken away from its connection.
struct Answer {
    held: Arc<Shared>,
    left: u64,
    /// Of its connection.
    lease: Option<Lease>,
    /// Others had their turn since the last piece.
    has_paused: bool,
}

impl Answer {
    fn new(held: Held, left: u64, lease: Option<Lease>, stall: Duration) -> Self {
        let held = Arc::new(Mutex::new(Some(held)));
        tokio::spawn(watch(Arc::downgrade(&held), stall));
        Self {
            held,
            left,
            lease,
            has_paused: true,
        }
    }
}

/// Lets the reader go if it takes nothing. Nothing asks a body while its connection can't write: so it can't do that
/// by itself.
async fn watch(held: Weak<Shared>, stall: Duration) {
    let mut before = usize::MAX;
    loop {
        sleep(stall).await;
        let Some(held) = held.upgrade() else { return };
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some(now) if now.left.len() < before => before = now.left.len(),
            _ => {
                *held = None;
                return;
            }
        }
    }
}

/// The reader took nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("the reader took nothing for too long")]
struct Stalled;

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Stalled;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Stalled>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut self.has_paused, false) {
            self.has_paused = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let shared = Arc::clone(&self.held);
        let mut held = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Held { left, .. }) = &mut *held else {
            return Poll::Ready(Some(Err(Stalled)));
        };
        let piece = left.split_to(PIECE_BYTES.min(left.len()));
        // A copy: whoever writes it must not keep all the rest with it.
        let piece = Bytes::copy_from_slice(&piece);
        if left.is_empty() {
            *held = None;
        }
        drop(held);
        // Who takes what they are sent may go on, however long it takes.
        if let Some(lease) = &self.lease {
            lease.renew();
        }
        self.left -= piece.len() as u64;
        self.has_paused = false;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn next(answer: &mut Answer) -> Option<Result<usize, Stalled>> {
        let frame = poll_fn(|cx| Pin::new(&mut *answer).poll_frame(cx)).await;
        frame.map(|frame| frame.map(|frame| frame.into_data().expect("data").len()))
    }

    fn answer(permit: OwnedSemaphorePermit, bytes: usize, stall: Duration) -> Answer {
        let left = Bytes::from(vec![0; bytes]);
        Answer::new(
            Held {
                left,
                _permit: permit,
            },
            bytes as u64,
            None,
            stall,
        )
    }

    #[tokio::test]
    async fn room_is_given_back_by_who_has_read_and_taken_from_who_does_not() {
        let stall = Duration::from_millis(200);
        let room = Room::new(1 << 20, 1 << 20, stall / 2, stall);
        let all = 1 << 20;
        let mut read = answer(room.take(all).await.expect("room"), all, stall);
        assert!(room.take(1).await.is_none(), "it is full");
        let mut sum = 0;
        while let Some(piece) = next(&mut read).await {
            sum += piece.expect("it is there");
            // Slow, but not too slow.
            sleep(stall / 4).await;
        }
        assert_eq!(sum, all);
        let mut stuck = answer(room.take(all).await.expect("room again"), all, stall);
        assert!(next(&mut stuck).await.expect("a piece").is_ok());
        sleep(3 * stall).await;
        assert!(room.take(all).await.is_some(), "it was let go");
        assert!(next(&mut stuck).await.expect("an end").is_err());
    }

    #[tokio::test]
    async fn who_came_first_is_first_and_a_long_one_is_not_passed_by() {
        let room = Room::new(10 << 10, 10 << 10, PATIENCE, STALL);
        let first = room.take(6 << 10).await.expect("room");
        let long = tokio::spawn({
            let room = room.clone();
            async move { room.take(8 << 10).await }
        });
        tokio::task::yield_now().await;
        let short = tokio::spawn({
            let room = room.clone();
            async move { room.take(1 << 10).await }
        });
        tokio::task::yield_now().await;
        assert!(!short.is_finished(), "it is behind the long one");
        // Nor do they pile up while they wait.
        assert!(room.take(5 << 10).await.is_none());
        drop(first);
        assert!(long.await.expect("no panic").is_some());
        assert!(short.await.expect("no panic").is_some());
        // What is longer than all there is has it alone.
        assert!(room.take(1 << 30).await.is_some());
    }
}
