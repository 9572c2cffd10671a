//! The audit log: who did what with which document, from where, and what was decided. JSON, a line each; what the fields
//! mean is in `ACCESS.md`.
//!
//! - [`event`]: what is recorded, and of whom.
//! - [`line`]: from an event to its line.
//! - [`bounds`]: how much is recorded of whom.
//! - [`writer`]: the thread that writes, and what becomes of what it can't.
//!
//! Calling contract: [`Audit::of`] opens the log and starts the thread; an [`Audit`] makes a [`Trail`] for each who asks,
//! which goes along with their [`Identity`](crate::access::Identity), and so into every grant; [`Trail::record`] is all
//! that others call. [`Writing::finish`] ends the thread when nothing more comes.
//!
//! Nobody waits for the log. A line is made and put into a bounded queue under a lock that is held for a few microseconds;
//! if the queue is full, since the disk fails or is too slow, the line is lost, and that is counted, logged, and said in
//! the log itself as soon as it can be. To stop serving instead would let whoever fills the disk, or the disk alone, take
//! all documents away from everybody; and a server whose own disk is full can't write documents either.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use concord_shared::ids::PrincipalId;
use metrics::Counter;
use tracing::error;

use self::bounds::{Bounds, Due, Verdict};
use self::event::{Asker, By, Event};
use crate::clock::unix_ms;
use crate::config::Config;
use crate::hangups::Hangups;
use crate::metrics::Metrics;

pub mod bounds;
pub mod event;
pub mod line;
pub mod writer;

pub use writer::Writing;

/// What the log is called that is no file.
const STANDARD_OUTPUT: &str = "-";

/// Bytes of lines that wait to be written: some ten thousand lines.
pub const QUEUE_BYTES: usize = 4 << 20;

/// A log that can't be kept.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A pipe would hold up whoever opens it.
    #[error("--audit-log {}: not a plain file", path.display())]
    NoFile {
        /// Its path.
        path: PathBuf,
    },
    /// It can't be opened, or its end not be read.
    #[error("--audit-log {}: {error}", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// There is no thread to be had, or no signal.
    #[error("--audit-log: {0}")]
    System(#[from] std::io::Error),
}

/// The log, or that there is none. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Audit(Option<Arc<Shared>>);

/// Where what one who asks does is recorded. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Trail(Option<Arc<Marked>>);

#[derive(Debug)]
struct Marked {
    log: Arc<Shared>,
    by: By,
}

/// What those who record and the thread that writes share.
#[derive(Debug)]
pub(crate) struct Shared {
    started: Instant,
    state: Mutex<State>,
    /// There is something for the thread to do.
    wake: Condvar,
    counters: Counters,
}

/// What becomes of what is recorded.
#[derive(Debug)]
struct Counters {
    written: Counter,
    folded: Counter,
    left_out: Counter,
    lost: Counter,
}

#[derive(Debug)]
struct State {
    bounds: Bounds,
    /// Lines to be written.
    queue: Vec<u8>,
    /// Of the next line. One that is lost has its number.
    next: u64,
    /// Lines that were lost since that was said last.
    lost: u64,
    /// The file is to be opened anew.
    reopen: bool,
    is_closed: bool,
}

static OFF: Trail = Trail(None);

impl Audit {
    /// As the settings have it, with the thread that writes it. To be called after the metrics' recorder is there.
    pub fn of(config: &Config) -> Result<(Self, Option<Writing>), AuditError> {
        let Some(path) = &config.audit_log else {
            return Ok((Self::default(), None));
        };
        let to_file = path != Path::new(STANDARD_OUTPUT);
        let output = if to_file {
            writer::file(path)?
        } else {
            writer::standard_output()
        };
        // From here on a hangup no longer ends the process.
        let hangups = if to_file { Some(Hangups::new()?) } else { None };
        let (audit, writing) = Self::start(output)?;
        if let Some(mut hangups) = hangups {
            let audit = audit.clone();
            tokio::spawn(async move {
                loop {
                    hangups.next().await;
                    audit.reopen();
                }
            });
        }
        Ok((audit, Some(writing)))
    }

    fn start(output: Box<dyn writer::Output>) -> Result<(Self, Writing), AuditError> {
        let shared = Arc::new(Shared::new());
        shared.lock().opened();
        let writing = Writing::start(Arc::clone(&shared), output)?;
        Ok((Self(Some(shared)), writing))
    }

    /// The file was moved away: the log goes on in a new one.
    fn reopen(&self) {
        if let Some(shared) = &self.0 {
            shared.lock().reopen = true;
            shared.wake.notify_one();
        }
    }

    /// Of somebody who asks. `asker` is not called where there is no log, and may not know where they ask from, for the
    /// server's own requests to itself, of which nothing is recorded.
    pub fn trail(&self, asker: impl FnOnce() -> Option<Asker>) -> Trail {
        let marked = self.0.as_ref().and_then(|log| {
            Some(Marked {
                log: Arc::clone(log),
                by: By::Asker(asker()?),
            })
        });
        Trail(marked.map(Arc::new))
    }

    /// Of the server itself.
    pub fn own(&self) -> Trail {
        let log = self.0.clone();
        Trail(log.map(|log| {
            let by = By::Server;
            Arc::new(Marked { log, by })
        }))
    }
}

impl Trail {
    /// Where nothing is recorded.
    pub fn off() -> &'static Self {
        &OFF
    }

    /// The same, of whom it is known who they are.
    #[must_use]
    pub fn of(&self, principal: &PrincipalId) -> Self {
        self.with(|asker| asker.principal = Some(principal.clone()))
    }

    /// The same, on a WebSocket.
    #[must_use]
    pub fn on(&self, connection: u64) -> Self {
        self.with(|asker| asker.connection = Some(connection))
    }

    fn with(&self, change: impl FnOnce(&mut Asker)) -> Self {
        let marked = self.0.as_ref().map(|marked| {
            let mut by = marked.by.clone();
            if let By::Asker(asker) = &mut by {
                change(asker);
            }
            let log = Arc::clone(&marked.log);
            Arc::new(Marked { log, by })
        });
        Self(marked)
    }

    /// Records something. Does not wait.
    pub fn record(&self, event: &Event<'_>) {
        if let Some(marked) = &self.0 {
            marked.log.record(&marked.by, event);
        }
    }
}

impl Shared {
    fn new() -> Self {
        let [written, folded, left_out, lost] = Metrics::audit_lines();
        Self {
            started: Instant::now(),
            state: Mutex::new(State {
                bounds: Bounds::default(),
                queue: Vec::new(),
                next: 0,
                lost: 0,
                reopen: false,
                is_closed: false,
            }),
            wake: Condvar::new(),
            counters: Counters {
                written,
                folded,
                left_out,
                lost,
            },
        }
    }

    fn record(&self, by: &By, event: &Event<'_>) {
        let body = line::body(by, event).into();
        let weight = event.weight(by);
        let mut due = Vec::new();
        let mut state = self.lock();
        let now_ms = self.now_ms();
        match state
            .bounds
            .admit(now_ms, weight, || by.who(), &body, &mut due)
        {
            Verdict::Fold => self.counters.folded.increment(1),
            Verdict::LeaveOut => self.counters.left_out.increment(1),
            Verdict::Write => {
                self.put_due(&mut state, due);
                self.put(&mut state, None, &body);
                drop(state);
                self.wake.notify_one();
            }
        }
    }

    /// Puts what was counted into the queue: so far as it is time, or all of it.
    fn settle(&self, state: &mut State, all: bool) {
        let mut due = Vec::new();
        if all {
            state.bounds.rest(&mut due);
        } else {
            state.bounds.due(self.now_ms(), &mut due);
        }
        self.put_due(state, due);
    }

    fn put_due(&self, state: &mut State, due: Vec<Due>) {
        for due in due {
            match due {
                Due::Again { body, times } => self.put(state, Some(times), &body),
                Due::LeftOut { who, times } => {
                    let body = match who {
                        Some(who) => line::left_out(&who),
                        None => line::body(&By::Server, &Event::LeftOut),
                    };
                    self.put(state, Some(times), &body);
                }
            }
        }
    }

    fn put(&self, state: &mut State, times: Option<u64>, body: &[u8]) {
        if state.queue.len() + body.len() > QUEUE_BYTES {
            if state.lost == 0 {
                error!("the audit log is not written fast enough, or not at all: lines are lost");
            }
            state.lost += 1;
            state.next += 1;
            self.counters.lost.increment(1);
            return;
        }
        if state.lost > 0 {
            let times = std::mem::take(&mut state.lost);
            state.push(Some(times), &line::body(&By::Server, &Event::Lost));
        }
        state.push(times, body);
    }

    /// Since the start, by a clock that nobody sets.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, times: Option<u64>, body: &[u8]) {
        line::put(&mut self.queue, self.next, unix_ms(), times, body);
        self.next += 1;
    }

    /// The log goes on here.
    fn opened(&mut self) {
        self.push(None, &line::body(&By::Server, &Event::Opened));
    }
}
