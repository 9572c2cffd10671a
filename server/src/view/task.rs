//! One open view: takes in what the relay sends and runs jobs, both in batches on blocking threads.
//!
//! A job sees all that the relay had sent when it came: the relay tells a view of what became durable before it tells
//! any client ([`ConnectionId::VIEW`] is the first), so who was told of a change finds it here. The answer to a job waits until
//! all that it saw or made is durable.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use automerge::ChangeHash;
use bytes::Bytes;
use concord_shared::code::ErrorCode;
use concord_shared::ids::DocumentId;
use concord_shared::json::MOST_LEVELS;
use concord_shared::limits::Limits;
use concord_shared::wire::{self, Message, SyncFrame};
use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{error, warn};

use super::Own;
use super::cache::{Share, Shared, ViewError, Views};
use super::core::{Core, Failure};
use super::watch::News;
use crate::access::Grants;
use crate::clock::signed_unix_ms;
use crate::connection::Goodbye;
use crate::connection::caller::Caller;
use crate::connection::outbox::{Outbox, Taken};
use crate::connection::own::Spoken;
use crate::document::ConnectionId;
use crate::document::actor::{Input, PeerMessage};
use crate::document::registry::{Delivery, DocumentGone, DocumentHandle};
use crate::document::task::{Link, Report};
use crate::materialise;
use crate::permit::turn;

/// A view that nobody has asked for anything this long is closed.
const IDLE: Duration = Duration::from_mins(1);

/// Jobs run in one go, so that what they made goes on its way and what came meanwhile is taken in.
const JOBS_PER_BATCH: usize = 32;

/// Bytes of what jobs may show that are run in one go: nobody has begun to send any of it before that.
const SHOWN_BYTES_PER_BATCH: usize = 32 << 20;

/// Bytes of the relay's messages that wait while nobody looks; then they are taken in all the same.
const BACKLOG_BYTES: usize = 256 << 10;

/// How long a view rests that has told its watchers of something, at least and at most: in between as long as that took.
const LEAST_REST: Duration = Duration::from_millis(5);
const MOST_REST: Duration = Duration::from_secs(1);

/// How long what a view has sent has to get to the disk when the view can't go on.
const GRACE: Duration = Duration::from_secs(10);

/// Called once all that a job made or saw is durable, or with the reason why that will not be known.
type Answer = Box<dyn FnOnce(Result<(), ViewError>) + Send + Sync>;

/// What somebody wants done on a view.
pub(super) struct Job {
    /// Does it.
    pub(super) run: Box<dyn FnOnce(&mut Core) + Send>,
    /// Told of it.
    pub(super) answer: Answer,
    /// How many views ended before they came to this.
    pub(super) tries: u32,
}

/// Views that a job waits for. What ends them is what others write.
const MOST_TRIES: u32 = 20;

/// Why a view ended.
#[derive(Debug, Clone)]
struct End {
    error: ViewError,
    /// The change that the relay refused, or those that are waited for and were refused with it.
    refused: Vec<ChangeHash>,
}

impl From<ViewError> for End {
    fn from(error: ViewError) -> Self {
        Self {
            error,
            refused: Vec::new(),
        }
    }
}

/// A job that was run, until all that it made or saw is durable.
struct Ran {
    seen: Vec<ChangeHash>,
    answer: Answer,
}

/// Events, until all that they tell is durable.
struct Held {
    seen: Vec<ChangeHash>,
    news: News,
}

struct Task {
    id: DocumentId,
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    document: DocumentHandle,
    /// Not run yet.
    jobs: Vec<Job>,
    waiting: Vec<Ran>,
    /// What the relay has had since these were asked for: jobs wait until it is here.
    behind: Vec<ChangeHash>,
    /// Made, and not told yet.
    held: VecDeque<Held>,
    /// The relay's messages, in order, that are not taken in yet: nobody looks.
    backlog: Vec<Bytes>,
    backlog_bytes: usize,
    /// Until then nothing is done just to tell watchers.
    rests_until: Instant,
    last_used: Instant,
    share: Share,
}

/// Runs a view until nobody needs it or it can't go on, and answers all jobs.
pub(super) async fn run(views: Views, id: DocumentId, mut jobs: mpsc::Receiver<Job>) {
    let shared = Arc::clone(views.shared());
    let (end, mut left) = match start(&shared, &id).await {
        Ok((mut task, core)) => {
            let end = task.live(&views, core, &mut jobs).await;
            let waiting = std::mem::take(&mut task.waiting);
            answer_rest(&task.document, waiting, end.clone()).await;
            if let Some(end) = &end {
                over(&task.document, end.error).await;
            }
            // What the relay fetches for it waits for room here.
            task.outbox.abandon(Goodbye::new(ErrorCode::Closed));
            task.leave().await;
            shared.account(task.share, Share::default());
            // What was not run is not what ended it.
            let unrun = ViewError(ErrorCode::Overloaded);
            (end.map(|end| (end.error, MOST_TRIES, unrun)), task.jobs)
        }
        Err(end) if end.0 == ErrorCode::Closed => (Some((end, MOST_TRIES, end)), Vec::new()),
        Err(end) => (Some((end, 1, end)), Vec::new()),
    };
    let Some((end, most_tries, after)) = end else {
        return;
    };
    // Out of the map first: who asks from here on gets a new one.
    views.forget(&id);
    jobs.close();
    while let Some(job) = jobs.recv().await {
        left.push(job);
    }
    for job in left {
        // What spoiled this view was somebody else's.
        let is_over = matches!(
            end.0,
            ErrorCode::ShuttingDown | ErrorCode::StorageFailed | ErrorCode::TooManyDocuments
        );
        if is_over {
            (job.answer)(Err(end));
        } else if job.tries >= most_tries {
            (job.answer)(Err(after));
        } else {
            let (views, id) = (views.clone(), id.clone());
            let job = Job {
                tries: job.tries + 1,
                ..job
            };
            tokio::spawn(async move { views.send(&id, job).await });
        }
    }
}

/// Answers jobs that were run by a view that has ended, in order.
///
/// Where the relay refused a change, it took all before it, and nothing after it: whose change it was is told why, and
/// who saw it, and perhaps wrote behind it, that there is nothing of that. Of anything else that was sent it is found out
/// whether it was taken, as far as that can be in some seconds.
async fn answer_rest(document: &DocumentHandle, waiting: Vec<Ran>, end: Option<End>) {
    let unknown = ViewError(ErrorCode::Internal);
    let End { error, refused } = end.unwrap_or_else(|| unknown.into());
    let of_others = if refused.is_empty() { error } else { unknown };
    let mut of_refused = error;
    let until = Instant::now() + GRACE;
    for Ran { seen, answer } in waiting {
        if refused.iter().any(|refused| seen.contains(refused)) {
            answer(Err(of_refused));
            of_refused = ViewError(ErrorCode::Overloaded);
        } else {
            let durable = timeout_at(until, durable(document, &seen)).await;
            answer(match durable {
                Ok(Ok(())) => Ok(()),
                Ok(Err(DocumentGone)) | Err(_) => Err(of_others),
            });
        }
    }
}

/// Where a document is deleted, or there again, waits until the relay has ended: what comes next is for the document that
/// there is then.
async fn over(document: &DocumentHandle, end: ViewError) {
    if end.0 == ErrorCode::Closed {
        let _in_time = timeout(GRACE, document.closed()).await;
    }
}

/// Waits until these changes are durable, which were taken.
async fn durable(document: &DocumentHandle, changes: &[ChangeHash]) -> Result<(), DocumentGone> {
    for change in changes {
        while document.place(*change).await?.is_none() {
            sleep(LEAST_REST).await;
        }
    }
    Ok(())
}

async fn start(shared: &Arc<Shared>, id: &DocumentId) -> Result<(Task, Core), ViewError> {
    let permit = turn(&shared.loads).await;
    // Before it is loaded: should it be deleted meanwhile, or be there again, this relay ends with that. What is loaded is
    // of the document that the relay has, or the relay says that it is over; a later one might have another document.
    let document = shared
        .registry
        .open(id)
        .map_err(|_| ViewError(ErrorCode::TooManyDocuments))?;
    let store = Arc::clone(&shared.store);
    let (actor, told) = (shared.actor(id), Arc::clone(&shared.told));
    let stored = id.clone();
    let loading = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let document = materialise::document(&*store, &stored)?.unwrap_or_default();
        // Import takes what admission would not, and the stack ends before such a document does.
        let is_shallow = materialise::nested_at_most(&document, MOST_LEVELS);
        let core = || Core::new(document, actor).counted_in(told);
        Ok::<_, materialise::LoadError>(is_shallow.then(core))
    });
    let loaded = loading.await.map_err(|_| ViewError(ErrorCode::Internal))?;
    let loaded = loaded.map_err(|error| {
        error!(document = %id, error = %Report(&error), "document can't be shown");
        ViewError(ErrorCode::StorageFailed)
    })?;
    let mut core = loaded.ok_or(ViewError(ErrorCode::TooDeep))?;
    let caller = Arc::new(Caller::local(ConnectionId::VIEW));
    let outbox = Arc::new(Outbox::new(caller));
    let mut task = Task {
        id: id.clone(),
        shared: Arc::clone(shared),
        outbox,
        document,
        jobs: Vec::new(),
        waiting: Vec::new(),
        behind: Vec::new(),
        held: VecDeque::new(),
        backlog: Vec::new(),
        backlog_bytes: 0,
        rests_until: Instant::now(),
        last_used: Instant::now(),
        share: Share::default(),
    };
    if let Err(end) = task.join(&mut core).await {
        over(&task.document, end).await;
        return Err(end);
    }
    Ok((task, core))
}

impl Task {
    /// Opens the document, as a connection does.
    async fn join(&mut self, core: &mut Core) -> Result<(), ViewError> {
        let server = &self.shared.server;
        let link = Link {
            outbox: Arc::clone(&self.outbox),
            sync_frame: SyncFrame::new(&self.id, server, server),
            server: server.clone(),
            peer: server.clone(),
            document: self.document.clone(),
            // Whoever asks a view has been looked at.
            grant: Grants::server(&self.id, Own(())),
            is_to_begin: false,
        };
        let document = self.document.clone();
        let opened = async {
            let open = Delivery::Open(ConnectionId::VIEW, Box::new(link));
            document.send(open).await?;
            deliver(&document, core.hello()).await?;
            document.heads().await
        };
        self.behind = opened.await.map_err(|DocumentGone| self.gone())?;
        core.opened(&self.behind);
        Ok(())
    }

    async fn leave(&mut self) {
        let leave = Delivery::Input(Input::Leave(ConnectionId::VIEW));
        let _gone = self.document.send(leave).await;
    }

    /// Ends the view, if nobody came meanwhile. It leaves the document first: the next view has the same id there.
    async fn may_end(
        &mut self,
        views: &Views,
        core: &mut Core,
        jobs: &mpsc::Receiver<Job>,
    ) -> Result<bool, ViewError> {
        self.last_used = Instant::now();
        if !jobs.is_empty() {
            return Ok(false);
        }
        self.leave().await;
        if views.forget_if_unused(&self.id, jobs) {
            return Ok(true);
        }
        self.join(core).await?;
        Ok(false)
    }

    /// Until the view ends; the reason, unless it is that nobody needs it.
    async fn live(
        &mut self,
        views: &Views,
        mut core: Core,
        jobs: &mut mpsc::Receiver<Job>,
    ) -> Option<End> {
        let stop = self.shared.stop.clone();
        let shared = Arc::clone(&self.shared);
        loop {
            // A view that is spoiled only waits for what was made before that.
            let is_ready = self.behind.is_empty() && core.failed().is_none();
            let is_watched = core.is_watched();
            let unused = !core.is_waiting() && is_ready && !is_watched;
            // What there is nothing of is as soon opened again.
            let idle = if core.heads().is_empty() {
                Duration::ZERO
            } else {
                IDLE
            };
            let has_news = is_watched && is_ready && !self.backlog.is_empty();
            let jobs_per_batch = SHOWN_BYTES_PER_BATCH / core.bytes().max(1);
            let jobs_per_batch = jobs_per_batch.clamp(1, JOBS_PER_BATCH);
            let taken = tokio::select! {
                taken = self.outbox.take() => taken,
                _ = jobs.recv_many(&mut self.jobs, jobs_per_batch), if is_ready => {
                    self.last_used = Instant::now();
                    self.outbox.take().now_or_never().unwrap_or_default()
                }
                () = may_go(&shared, self.last_used + idle), if unused => {
                    match self.may_end(views, &mut core, jobs).await {
                        Ok(true) => return None,
                        Ok(false) => continue,
                        Err(end) => return Some(end.into()),
                    }
                }
                () = sleep_until(self.rests_until), if has_news => Taken::default(),
                // Watchers may have left.
                () = sleep(IDLE), if is_watched => Taken::default(),
                // What is on its way to the disk can still be acknowledged; the relay says when it can't.
                () = stop.cancelled(), if !core.is_waiting() => {
                    return Some(ViewError(ErrorCode::ShuttingDown).into());
                }
            };
            if let Err(end) = self.gather(taken, &core).await {
                return Some(end);
            }
            let is_wanted = !self.jobs.is_empty() || core.is_waiting() || !self.behind.is_empty();
            let tells =
                is_watched && !self.backlog.is_empty() && Instant::now() >= self.rests_until;
            if self.share.is_watched && !is_watched {
                let share = Share {
                    is_watched: false,
                    ..self.share
                };
                self.shared.account(self.share, share);
                self.share = share;
            }
            if !is_wanted && !tells && self.backlog_bytes < BACKLOG_BYTES {
                continue;
            }
            let started = Instant::now();
            let frames = std::mem::take(&mut self.backlog);
            self.backlog_bytes = 0;
            let behind = std::mem::take(&mut self.behind);
            let batch = std::mem::take(&mut self.jobs);
            let now_ms = signed_unix_ms();
            let work =
                tokio::task::spawn_blocking(move || step(core, &frames, behind, batch, now_ms));
            let Ok(stepped) = work.await else {
                return Some(ViewError(ErrorCode::Internal).into());
            };
            core = stepped.core;
            self.behind = stepped.behind;
            self.jobs = stepped.jobs;
            self.waiting.extend(stepped.ran);
            let (seen, news) = (core.pending(), core.take_news());
            if !news.is_empty() {
                self.held.push_back(Held { seen, news });
            }
            // The relay and others need the processor, too; and what comes meanwhile is told at once.
            self.rests_until = Instant::now() + started.elapsed().clamp(LEAST_REST, MOST_REST);
            for message in core.take_outgoing() {
                if deliver(&self.document, message).await.is_err() {
                    return Some(self.gone().into());
                }
            }
            self.answer_durable(&core);
            self.tell_durable(&core);
            if let Some(failure) = core.failed() {
                let code = failure.code();
                if code == ErrorCode::Internal {
                    error!(document = %self.id, error = %Report(failure), "view can't go on");
                    let end = ViewError(code).into();
                    return Some(Box::pin(self.settled(&core, end)).await);
                }
                if !core.is_waiting() {
                    return Some(ViewError(code).into());
                }
            }
            let share = Share {
                bytes: core.memory(),
                is_watched: core.is_watched(),
            };
            self.shared.account(self.share, share);
            self.share = share;
        }
    }

    /// Why a view ends that can't go on, once the relay has taken all that was sent to it, or has refused some of it: what
    /// comes next then knows of all that was taken, and goes on behind that.
    async fn settled(&mut self, core: &Core, end: End) -> End {
        let (document, pending) = (self.document.clone(), core.pending());
        let until = Instant::now() + GRACE;
        let goodbye = async {
            loop {
                let taken = self.outbox.take().await;
                if let Err(end) = self.gather(taken, core).await {
                    return end;
                }
            }
        };
        tokio::select! {
            end = goodbye => end,
            _ = timeout_at(until, durable(&document, &pending)) => end,
        }
    }

    /// Puts what was taken behind what is waiting, and makes room for more.
    async fn gather(&mut self, taken: Taken, core: &Core) -> Result<(), End> {
        let Taken {
            frames,
            congested,
            goodbye,
        } = taken;
        self.outbox.written();
        for frame in frames.into_iter().filter_map(Spoken::wire) {
            self.backlog_bytes += frame.len();
            self.backlog.push(frame);
        }
        if !congested.is_empty() {
            // The relay has held back what came since.
            let caught_up = async {
                for document in congested {
                    let drained = Input::Drained(ConnectionId::VIEW);
                    document.send(Delivery::Input(drained)).await?;
                }
                self.document.heads().await
            };
            self.behind = caught_up.await.map_err(|DocumentGone| self.gone())?;
        }
        let Some(goodbye) = goodbye else {
            return Ok(());
        };
        let (code, detail) = (goodbye.code, goodbye.detail);
        if code != ErrorCode::Closed {
            warn!(document = %self.id, code = code.as_str(), detail, "view was sent away");
        }
        // Somebody forged a change of this view's actor, and was first: the next view goes on behind that.
        let told = match code {
            ErrorCode::DuplicateSeq => ErrorCode::Overloaded,
            code => code,
        };
        let refused = goodbye.hash.map(|hash| core.refused_with(hash));
        Err(End {
            error: ViewError(told),
            refused: refused.unwrap_or_default(),
        })
    }

    fn answer_durable(&mut self, core: &Core) {
        let is_waiting = |ran: &Ran| ran.seen.iter().any(|hash| core.waits_for(hash));
        let (waiting, done) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(is_waiting);
        self.waiting = waiting;
        let done: Vec<Ran> = done;
        for Ran { answer, .. } in done {
            answer(Ok(()));
        }
    }

    fn tell_durable(&mut self, core: &Core) {
        while let Some(held) = self.held.front() {
            if held.seen.iter().any(|hash| core.waits_for(hash)) {
                break;
            }
            let told = self.held.pop_front();
            for (watcher, event) in told.into_iter().flat_map(|held| held.news) {
                watcher.push(&event);
            }
        }
    }

    /// Why the document's task is gone: what it said, or, where it did not come to this view any more, that it is deleted or
    /// there again, which the next view finds out.
    fn gone(&self) -> ViewError {
        ViewError(if self.shared.stop.is_cancelled() {
            ErrorCode::ShuttingDown
        } else {
            self.outbox
                .goodbye()
                .map_or(ErrorCode::Closed, |goodbye| goodbye.code)
        })
    }
}

/// Waits until a view that nobody is using should go: memory is short, or it was not used for long.
async fn may_go(shared: &Shared, idle_at: Instant) {
    tokio::select! {
        () = shared.pressure.notified() => {}
        // Of documents: the view's is kept by it.
        () = shared.registry.pressed() => {}
        () = sleep_until(idle_at) => {}
    }
}

async fn deliver(document: &DocumentHandle, message: PeerMessage) -> Result<(), DocumentGone> {
    let input = Input::Message(ConnectionId::VIEW, Box::new(message));
    document.send(Delivery::Input(input)).await
}

/// What became of a batch.
struct Stepped {
    core: Core,
    ran: Vec<Ran>,
    /// What is still missing before jobs may run, and those that wait for it.
    behind: Vec<ChangeHash>,
    jobs: Vec<Job>,
}

/// Takes in what came, then runs the jobs, if what they must see is here. Blocks.
fn step(
    mut core: Core,
    frames: &[Bytes],
    behind: Vec<ChangeHash>,
    jobs: Vec<Job>,
    now_ms: i64,
) -> Stepped {
    for frame in frames {
        // Whatever else the relay tells its peers is of no use to a view.
        if let Ok(Message::Sync { data, .. }) = wire::decode(frame, &Limits::unbounded()) {
            match catch_unwind(AssertUnwindSafe(|| core.take_in(&data))) {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => core.fail(failure),
                Err(_) => core.fail(Failure::Panicked),
            }
        }
    }
    let mut stepped = Stepped {
        ran: Vec::new(),
        behind: if core.has(&behind) {
            Vec::new()
        } else {
            behind
        },
        jobs,
        core,
    };
    if !stepped.behind.is_empty() || stepped.core.failed().is_some() {
        return stepped;
    }
    stepped.core.join_heads(now_ms);
    let mut jobs = std::mem::take(&mut stepped.jobs).into_iter();
    for Job { run, answer, .. } in jobs.by_ref() {
        let core = &mut stepped.core;
        if catch_unwind(AssertUnwindSafe(|| run(core))).is_err() {
            core.fail(Failure::Panicked);
        }
        if let Some(failure) = core.failed() {
            answer(Err(ViewError(failure.code())));
            break;
        }
        let seen = core.pending();
        stepped.ran.push(Ran { seen, answer });
    }
    stepped.jobs = jobs.collect();
    let core = &mut stepped.core;
    if core.failed().is_none() && catch_unwind(AssertUnwindSafe(|| core.tell())).is_err() {
        core.fail(Failure::Panicked);
    }
    stepped
}
