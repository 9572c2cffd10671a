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
//! Each frame is known by the document that it is of: whoever loses their role in one gets nothing of it that is queued,
//! and the reader is told that the document put its peer out ([`Outbox::put_out`]).
//!
//! However a connection ends, its goodbye comes through here: from its reader, its writer, a document,
//! or a newer connection of its peer. The first one wins, and is counted and logged here, once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use concord_shared::ids::DocumentId;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Goodbye;
use super::caller::Caller;
use super::own::Spoken;
use crate::document::registry::DocumentHandle;

/// Queued bytes, with those that are being written, at which a connection counts as congested.
pub const HIGH_MARK_BYTES_PER_CONNECTION: usize = 256 << 10;
/// Queued frames at which a connection counts as congested.
pub const HIGH_MARK_FRAMES_PER_CONNECTION: usize = 256;
/// Queued bytes beyond which a connection with more than one frame waiting is closed.
pub const HARD_BOUND_BYTES_PER_CONNECTION: usize = 64 << 20;

/// Of frames that are of no document.
const NO_DOCUMENT: u64 = 0;

/// See the module's docs.
#[derive(Debug)]
pub struct Outbox {
    caller: Arc<Caller>,
    queue: Mutex<Queue>,
    /// There is something to take.
    filled: Notify,
    /// A document put the peer out.
    put_out: Notify,
    /// What was taken is written.
    written: Notify,
    /// There is a goodbye, or is about to be one.
    ends: AtomicBool,
    closing: CancellationToken,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Spoken>,
    /// Of which document each frame is, by [`DocumentHandle::number`].
    of: VecDeque<u64>,
    bytes: usize,
    /// Documents that put the peer out, for the reader.
    put_out: Vec<DocumentId>,
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
    pub frames: VecDeque<Spoken>,
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
            put_out: Notify::new(),
            written: Notify::new(),
            ends: AtomicBool::new(false),
            closing: CancellationToken::new(),
        }
    }

    /// Who is on the connection.
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// Queues a frame; `document` is whose it is, and who to call when there is room again.
    pub fn push(&self, frame: Bytes, document: Option<&DocumentHandle>) -> Pushed {
        self.queue(Spoken::Wire(frame), document)
    }

    /// Queues one of Concord's own messages, once there is room: whoever asks for many and takes none waits.
    pub async fn answer(&self, text: String) {
        self.room().await;
        self.queue(Spoken::Own(text.into()), None);
    }

    fn queue(&self, frame: Spoken, document: Option<&DocumentHandle>) -> Pushed {
        let mut queue = self.lock();
        if queue.goodbye.is_some() {
            return Pushed::Closed;
        }
        queue.bytes += frame.bytes();
        queue.frames.push_back(frame);
        queue
            .of
            .push_back(document.map_or(NO_DOCUMENT, DocumentHandle::number));
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

    /// A document's peer has no role in it any more: nothing of it that is queued is sent, but `last`, and the reader
    /// learns that the peer is out.
    pub fn put_out(&self, id: &DocumentId, document: &DocumentHandle, last: Bytes) {
        let mut queue = self.lock();
        let queued = std::mem::take(&mut queue.frames);
        let of = std::mem::take(&mut queue.of);
        queue.bytes = 0;
        let kept = queued.into_iter().zip(of);
        for (frame, of) in kept.filter(|(_, of)| *of != document.number()) {
            queue.bytes += frame.bytes();
            queue.frames.push_back(frame);
            queue.of.push_back(of);
        }
        queue.put_out.push(id.clone());
        drop(queue);
        self.push(last, None);
        self.put_out.notify_one();
    }

    /// Waits until documents have put the peer out. Cancel safe.
    pub async fn outs(&self) -> Vec<DocumentId> {
        loop {
            // Told of once for all that are there by then: each message passes here, and takes no lock.
            self.put_out.notified().await;
            let put_out = std::mem::take(&mut self.lock().put_out);
            if !put_out.is_empty() {
                return put_out;
            }
        }
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
        queue.of.clear();
        queue.bytes = 0;
        drop(queue);
        self.close(goodbye);
    }

    /// Cancelled once there is a goodbye: the reader must not go on taking messages that nobody will
    /// answer, nor the writer waiting for a peer that takes nothing.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// How the connection ends, once that is known.
    pub fn goodbye(&self) -> Option<Goodbye> {
        self.lock().goodbye.clone()
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
                    queue.of.clear();
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

    fn wire(text: &'static str) -> Spoken {
        Spoken::Wire(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn who_takes_no_answers_gets_no_more_than_there_is_room_for() {
        let outbox = outbox();
        let answer = "x".repeat(1000);
        let mut given = 0;
        while outbox.answer(answer.clone()).now_or_never().is_some() {
            given += 1;
        }
        assert_eq!(given, HIGH_MARK_FRAMES_PER_CONNECTION);
        let taken = outbox.take().await.frames;
        assert_eq!(taken.back(), Some(&Spoken::Own(answer.into())));
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

    #[tokio::test]
    async fn who_is_put_out_of_a_document_gets_nothing_of_it_that_waits() {
        let outbox = outbox();
        let (mine, other) = (DocumentHandle::lone(1), DocumentHandle::lone(2));
        let frames = [
            (b"a1", &mine),
            (b"b1", &other),
            (b"a2", &mine),
            (b"b2", &other),
        ];
        for (frame, of) in frames {
            outbox.push(Bytes::from_static(frame), Some(of));
        }
        outbox.push(Bytes::from_static(b"no"), None);
        let id = DocumentId::new("mine").expect("an id");
        assert!(outbox.outs().now_or_never().is_none());
        outbox.put_out(&id, &mine, Bytes::from_static(b"last"));
        let taken = outbox.take().await;
        let expected = ["b1", "b2", "no", "last"].map(wire);
        assert_eq!(taken.frames, expected);
        assert_eq!(outbox.outs().now_or_never(), Some(vec![id]));
        // What is written behind is known again by where it comes from.
        outbox.push(Bytes::from_static(b"a3"), Some(&mine));
        outbox.put_out(
            &DocumentId::new("mine").expect("an id"),
            &mine,
            Bytes::new(),
        );
        assert_eq!(outbox.take().await.frames, [wire("")]);
    }

    #[tokio::test]
    async fn room_is_made_by_what_is_dropped() {
        let outbox = outbox();
        let mine = DocumentHandle::lone(1);
        let large = Bytes::from(vec![0; HIGH_MARK_BYTES_PER_CONNECTION]);
        assert_eq!(outbox.push(large, Some(&mine)), Pushed::Congested);
        let id = DocumentId::new("mine").expect("an id");
        outbox.put_out(&id, &mine, Bytes::from_static(b"last"));
        assert_eq!(outbox.push(Bytes::from_static(b"x"), None), Pushed::Queued);
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
                ErrorCode::TokenExpired,
            ] {
                outbox().close(Goodbye::new(code));
            }
        });
        assert_eq!(recorder.handle().render(), "");
    }
}
