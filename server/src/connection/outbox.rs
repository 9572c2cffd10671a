//! The bounded queue of frames from documents to one connection's socket.
//!
//! Documents never wait for it. [`Outbox::push`] always takes the frame and says when the queue has
//! reached its high mark; the document then makes no more messages for this connection until the
//! writer, having drained the queue, calls back. Since a sync session makes its next message from the
//! graph as it is by then, a slow peer gets one message in place of many. Each document can overshoot
//! the mark by the message it just made, so the bound is the mark plus one message per open document;
//! past the hard bound the connection is closed. Messages that may be large, since they come from the
//! store, are not even made before there is room ([`Outbox::room`]).
//!
//! However a connection ends, its goodbye comes through here: from its reader, its writer, a document,
//! or a newer connection of its peer. The first one wins, and is counted and logged here, once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Goodbye;
use super::caller::Caller;
use crate::document::registry::DocumentHandle;

/// Queued bytes, with those that are being written, at which a connection counts as congested.
pub const HIGH_MARK_BYTES_PER_CONNECTION: usize = 256 << 10;
/// Queued frames at which a connection counts as congested.
pub const HIGH_MARK_FRAMES_PER_CONNECTION: usize = 256;
/// Queued bytes beyond which a connection with more than one frame waiting is closed.
pub const HARD_BOUND_BYTES_PER_CONNECTION: usize = 64 << 20;

/// See the module's docs.
#[derive(Debug)]
pub struct Outbox {
    caller: Arc<Caller>,
    queue: Mutex<Queue>,
    /// There is something to take.
    filled: Notify,
    /// What was taken is written.
    written: Notify,
    /// There is a goodbye, or is about to be one.
    ends: AtomicBool,
    closing: CancellationToken,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes that were taken and are not written yet.
    writing: usize,
    /// Documents to tell when there is room again.
    congested: Vec<DocumentHandle>,
    goodbye: Option<Goodbye>,
}

impl Queue {
    fn is_congested(&self) -> bool {
        self.bytes + self.writing >= HIGH_MARK_BYTES_PER_CONNECTION
            || self.frames.len() >= HIGH_MARK_FRAMES_PER_CONNECTION
    }
}

/// What became of a pushed frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// Queued.
    Queued,
    /// Queued, and that is enough until [`DocumentHandle::drained`] is called.
    Congested,
    /// Too much: the connection is being closed.
    Overflowed,
    /// The connection is closing; the frame is dropped.
    Closed,
}

/// What the writer took.
#[derive(Debug, Default)]
pub struct Taken {
    /// To write, in order.
    pub frames: VecDeque<Bytes>,
    /// To call once they are written.
    pub congested: Vec<DocumentHandle>,
    /// To close with after them.
    pub goodbye: Option<Goodbye>,
}

impl Outbox {
    /// For this caller's connection.
    pub fn new(caller: Arc<Caller>) -> Self {
        Self {
            caller,
            queue: Mutex::default(),
            filled: Notify::new(),
            written: Notify::new(),
            ends: AtomicBool::new(false),
            closing: CancellationToken::new(),
        }
    }

    /// Who is on the connection.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// Queues a frame; `document` is who to call when there is room again.
    pub fn push(&self, frame: Bytes, document: Option<&DocumentHandle>) -> Pushed {
        let mut queue = self.lock();
        if queue.goodbye.is_some() {
            return Pushed::Closed;
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        let pushed = if queue.bytes > HARD_BOUND_BYTES_PER_CONNECTION && queue.frames.len() > 1 {
            Pushed::Overflowed
        } else if queue.is_congested() {
            queue.congested.extend(document.cloned());
            Pushed::Congested
        } else {
            Pushed::Queued
        };
        drop(queue);
        self.filled.notify_one();
        pushed
    }

    /// Whether there is no room; then `document` is called when there is again.
    pub fn is_congested(&self, document: &DocumentHandle) -> bool {
        let mut queue = self.lock();
        let congested = queue.is_congested();
        if congested {
            queue.congested.push(document.clone());
        }
        congested
    }

    /// Whether there is room, or the connection ends, which drops what is pushed.
    pub fn has_room(&self) -> bool {
        let queue = self.lock();
        queue.goodbye.is_some() || !queue.is_congested()
    }

    /// Waits until there is room, or the connection ends.
    pub async fn room(&self) {
        loop {
            let written = self.written.notified();
            if self.has_room() {
                return;
            }
            tokio::select! {
                () = written => {}
                () = self.closing.cancelled() => return,
            }
        }
    }

    /// Ends the connection after what is queued; the first goodbye wins.
    pub fn close(&self, goodbye: Goodbye) {
        if self.ends.swap(true, Ordering::Relaxed) {
            return;
        }
        // Before anyone can be told: who was refused finds it counted.
        goodbye.record(&self.caller);
        self.lock().goodbye = Some(goodbye);
        self.closing.cancel();
        self.filled.notify_one();
    }

    /// Ends the connection and drops what is queued: the peer can't take it.
    pub fn abandon(&self, goodbye: Goodbye) {
        let mut queue = self.lock();
        queue.frames.clear();
        queue.bytes = 0;
        drop(queue);
        self.close(goodbye);
    }

    /// Cancelled once there is a goodbye: the reader must not go on taking messages that nobody will
    /// answer, nor the writer waiting for a peer that takes nothing.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// What was taken is written. To be called before those who are to be told that there is room.
    pub fn written(&self) {
        self.lock().writing = 0;
        self.written.notify_waiters();
    }

    /// Waits until there is something to write or somebody to be told of room, and takes all of it.
    pub async fn take(&self) -> Taken {
        loop {
            {
                let mut queue = self.lock();
                let has_news = !queue.congested.is_empty() || queue.goodbye.is_some();
                if !queue.frames.is_empty() || has_news {
                    queue.writing = std::mem::take(&mut queue.bytes);
                    return Taken {
                        frames: std::mem::take(&mut queue.frames),
                        congested: std::mem::take(&mut queue.congested),
                        goodbye: queue.goodbye.clone(),
                    };
                }
            }
            self.filled.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that holds the lock can panic half way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use concord_shared::code::ErrorCode;
    use futures_util::FutureExt as _;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::document::ConnectionId;

    fn outbox() -> Outbox {
        Outbox::new(Arc::new(Caller::local(ConnectionId(7))))
    }

    #[tokio::test]
    async fn the_first_goodbye_is_told_and_it_alone_is_counted() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let outbox = outbox();
        metrics::with_local_recorder(&recorder, || {
            outbox.push(Bytes::from_static(b"frame"), None);
            outbox.abandon(Goodbye::new(ErrorCode::Overloaded));
            outbox.close(Goodbye::new(ErrorCode::StorageFailed));
            outbox.close(Goodbye::new(ErrorCode::Closed));
        });
        let counted = recorder.handle().render();
        assert!(counted.contains("{code=\"overloaded\"} 1"), "{counted}");
        assert!(!counted.contains("storage-failed"), "{counted}");
        assert!(outbox.closing().is_cancelled());
        let taken = outbox.take().await;
        assert_eq!(taken.frames.len(), 0);
        assert_eq!(taken.goodbye, Some(Goodbye::new(ErrorCode::Overloaded)));
        assert_eq!(outbox.push(Bytes::new(), None), Pushed::Closed);
    }

    #[tokio::test]
    async fn what_is_being_written_takes_room_until_it_is() {
        let outbox = outbox();
        let large = Bytes::from(vec![0; HIGH_MARK_BYTES_PER_CONNECTION]);
        assert_eq!(outbox.push(large, None), Pushed::Congested);
        let taken = outbox.take().await;
        assert_eq!(taken.frames.len(), 1);
        assert_eq!(
            outbox.push(Bytes::from_static(b"x"), None),
            Pushed::Congested
        );
        let room = outbox.room();
        tokio::pin!(room);
        assert!(room.as_mut().now_or_never().is_none());
        outbox.written();
        room.await;
        assert_eq!(outbox.push(Bytes::from_static(b"x"), None), Pushed::Queued);
    }

    #[tokio::test]
    async fn who_waits_for_room_is_let_go_when_the_connection_ends() {
        let outbox = outbox();
        let large = Bytes::from(vec![0; HIGH_MARK_BYTES_PER_CONNECTION]);
        outbox.push(large, None);
        outbox.close(Goodbye::new(ErrorCode::ShuttingDown));
        outbox.room().await;
    }

    #[test]
    fn an_end_that_is_nobodys_fault_or_was_counted_is_not() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            outbox().close(Goodbye {
                is_recorded: true,
                ..Goodbye::new(ErrorCode::BadChange)
            });
            for code in [
                ErrorCode::Closed,
                ErrorCode::ShuttingDown,
                ErrorCode::Replaced,
            ] {
                outbox().close(Goodbye::new(code));
            }
        });
        assert_eq!(recorder.handle().render(), "");
    }
}
