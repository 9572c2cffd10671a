//! The events of one watcher, on their way from the view to whoever writes them out.
//!
//! A view never waits for it. Who does not keep up loses what is waiting and is told so, and begins anew with the
//! value as it is by then: so one queue never holds more than its bound, and one event.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::watch::Event;

/// Bytes of events that may wait for one watcher. One event may be larger, if no other waits.
const WAITING_BYTES_PER_WATCHER: usize = 256 << 10;

/// Events that may.
const WAITING_EVENTS_PER_WATCHER: usize = 256;

/// Why there are no more events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The watcher did not keep up: what it had not taken is gone.
    Behind,
    /// The view has ended. The version that was told last is part of the document.
    Over,
}

#[derive(Debug, Default)]
struct Feed {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    end: Option<End>,
    /// Nobody listens any more.
    is_left: bool,
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The view's end. Dropping it tells the watcher that the view is over.
#[derive(Debug)]
pub(super) struct Sender(Arc<Feed>);

/// The watcher's end. Dropping it tells the view that nobody listens.
#[derive(Debug)]
pub struct Events(Arc<Feed>);

pub(super) fn feed() -> (Sender, Events) {
    let feed = Arc::new(Feed::default());
    (Sender(Arc::clone(&feed)), Events(feed))
}

impl Sender {
    /// Whether anybody is still to be told anything.
    pub(super) fn is_open(&self) -> bool {
        let queue = self.0.lock();
        !queue.is_left && queue.end.is_none()
    }

    pub(super) fn push(&self, event: &Arc<Event>) {
        let mut queue = self.0.lock();
        if queue.is_left || queue.end.is_some() {
            return;
        }
        queue.bytes += event.data.len();
        queue.events.push_back(Arc::clone(event));
        let waiting = queue.events.len();
        if waiting > WAITING_EVENTS_PER_WATCHER
            || queue.bytes > WAITING_BYTES_PER_WATCHER && waiting > 1
        {
            queue.events = VecDeque::new();
            queue.end = Some(End::Behind);
        }
        drop(queue);
        self.0.filled.notify_one();
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.lock().end.get_or_insert(End::Over);
        self.0.filled.notify_one();
    }
}

impl Events {
    /// The next event, or why there is none. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Arc<Event>, End> {
        loop {
            {
                let mut queue = self.0.lock();
                if let Some(event) = queue.events.pop_front() {
                    queue.bytes -= event.data.len();
                    return Ok(event);
                }
                if let Some(end) = queue.end {
                    return Err(end);
                }
            }
            self.0.filled.notified().await;
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.is_left = true;
        queue.events = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::view::watch::Kind;

    fn event(bytes: usize) -> Arc<Event> {
        Arc::new(Event {
            heads: Vec::new(),
            kind: Kind::Patch,
            data: Bytes::from(vec![b' '; bytes]),
        })
    }

    #[tokio::test]
    async fn who_does_not_keep_up_is_told_and_costs_nothing() {
        let (sender, mut events) = feed();
        sender.push(&event(10 * WAITING_BYTES_PER_WATCHER));
        assert!(sender.is_open(), "one event is taken whatever its size");
        sender.push(&event(1));
        assert!(!sender.is_open());
        sender.push(&event(1));
        assert_eq!(events.next().await, Err(End::Behind));

        let (sender, mut events) = feed();
        for _ in 0..WAITING_EVENTS_PER_WATCHER {
            sender.push(&event(1));
        }
        assert_eq!(events.next().await, Ok(event(1)));
        sender.push(&event(1));
        assert!(sender.is_open());
        sender.push(&event(1));
        assert!(!sender.is_open());
        assert_eq!(events.next().await, Err(End::Behind));
    }

    #[tokio::test]
    async fn what_was_sent_comes_before_the_end() {
        let (sender, mut events) = feed();
        sender.push(&event(1));
        drop(sender);
        assert_eq!(events.next().await, Ok(event(1)));
        assert_eq!(events.next().await, Err(End::Over));
        let (sender, events) = feed();
        drop(events);
        assert!(!sender.is_open());
    }
}
