//! An application decides who may do what: it is asked by HTTP, and its answers hold for a while.
//!
//! An answer is given to all who ask the same for half of that time. For whoever still holds a [`Decision`] then the
//! application is asked again, so that what it takes away is gone by the end of it. **Whoever it does not answer for has no
//! role**: an answer that can't be had is none, and one that was had holds to its end and no longer, whatever becomes of the
//! question after it. Who asks for a document meanwhile is told so.
//!
//! What this takes is bounded. A decision is there, and a task that keeps it true, as long as somebody holds it; of those that
//! nobody does so many are kept, with a share for each principal. So are the questions ([`asking`]).

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use concord_shared::access::Role;
use concord_shared::ids::{DocumentId, PrincipalId};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use self::asking::{Application, Occasion, Question, Turns};
use super::identity::Identity;
use crate::limits::book::Book;
use crate::outgoing::AddressError;

mod asking;
#[cfg(test)]
mod tests;

/// Has what the application knows this server by.
pub const TOKEN_VARIABLE: &str = "CONCORD_AUTHORIZE_TOKEN";

/// Answers that are kept while nobody holds them.
const MOST_KEPT: usize = 16 * 1024;

/// Of these, about one principal.
const MOST_KEPT_OF_ONE: usize = 1024;

/// Principals whose turns are remembered though nobody asks about them, at less than a kilobyte each.
const MOST_REMEMBERED: usize = 8192;

/// Decisions that are gone are looked for when so many came since.
const LEAST_BETWEEN_PRUNING: usize = 1024;

/// After a question that was not answered the next one comes when this part of the time is over for which answers hold, and
/// sooner where that is long: after a second, two, and so on, at most after so many.
const RETRY_PART: u32 = 8;
const LEAST_RETRY: Duration = Duration::from_secs(1);
const MOST_RETRY: Duration = Duration::from_secs(8);

/// Settings by which nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Not an address that is asked.
    #[error("--authorize-url: {0}")]
    Address(#[from] AddressError),
    /// Not what a header can have.
    #[error("{TOKEN_VARIABLE} can't be sent in a header")]
    Token,
    /// Nobody has to say who they are, so there is nothing to ask.
    #[error("--authorize-url needs --auth jwt")]
    NobodyToAskFor,
}

/// See the module's docs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Webhook(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    application: Application,
    holds: Duration,
    principals: Book<PrincipalId, Own>,
    kept: Arc<Semaphore>,
    known: Mutex<Known>,
}

/// What one principal has of it.
#[derive(Debug)]
struct Own {
    turns: Turns,
    kept: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Known {
    of: HashMap<Question, Weak<Decision>>,
    /// How many there may be before those that are gone are looked for.
    prune_at: usize,
}

/// What an application said, as it is now.
#[derive(Debug)]
pub struct Decision {
    /// `None`: it did not answer, or too long ago.
    said: watch::Sender<Option<Said>>,
    /// Since the first answer.
    keeper: OnceCell<Keeping>,
}

/// The task of a decision's keeper, which ends with it.
#[derive(Debug)]
struct Keeping {
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    role: Role,
    until: Instant,
}

impl Said {
    fn holds(&self) -> bool {
        Instant::now() < self.until
    }
}

impl Decision {
    /// What it allows: nothing, where it did not answer.
    pub fn role(&self) -> Role {
        self.answered().unwrap_or(Role::None)
    }

    /// Whether it did.
    pub fn is_answered(&self) -> bool {
        self.answered().is_some()
    }

    /// By the clock, and not by whether anybody came to take it back.
    fn answered(&self) -> Option<Role> {
        let said = *self.said.borrow();
        said.filter(Said::holds).map(|said| said.role)
    }

    fn is_over(&self) -> bool {
        self.said.borrow().is_some_and(|said| !said.holds())
    }

    /// Whether something else is allowed by that.
    fn say(&self, said: Option<Said>) -> bool {
        let before = self.answered();
        self.said.send_replace(said);
        before != said.map(|said| said.role)
    }
}

impl Webhook {
    /// Asks at this address, which knows this server by the token, and believes an answer for so long.
    pub fn new(address: &str, token: Option<&str>, holds: Duration) -> Result<Self, WebhookError> {
        Ok(Self(Arc::new(Inner {
            application: Application::new(address, token)?,
            holds,
            principals: Book::new(MOST_REMEMBERED),
            kept: Arc::new(Semaphore::new(MOST_KEPT)),
            known: Mutex::default(),
        })))
    }

    /// What the application says of somebody and a document. Waits for its first answer. `changed` is called when it says
    /// something else later, as long as the decision is held.
    pub async fn decide(
        &self,
        identity: &Identity,
        document: &DocumentId,
        changed: impl Fn() + Send + 'static,
    ) -> Arc<Decision> {
        let question = Question {
            principal: identity.principal.clone(),
            groups: Arc::clone(&identity.groups),
            document: document.clone(),
        };
        let decision = self.0.decision(&question);
        let first = async {
            let asker = Asker {
                own: self.0.own(&question.principal),
                inner: Arc::clone(&self.0),
                question,
            };
            let answer = asker.ask(Occasion::First).await;
            let mut keeper = Keeper {
                asker: Arc::new(asker),
                decision: Arc::downgrade(&decision),
                until: None,
                pause: Duration::ZERO,
                unanswered: 0,
                kept: None,
                changed,
            };
            keeper.hear(answer);
            Keeping {
                _task: AbortOnDropHandle::new(tokio::spawn(keeper.run())),
            }
        };
        decision.keeper.get_or_init(|| first).await;
        decision
    }
}

impl Inner {
    fn own(&self, principal: &PrincipalId) -> Arc<Own> {
        self.principals.get(principal.clone(), || Own {
            turns: Turns::new(),
            kept: Arc::new(Semaphore::new(MOST_KEPT_OF_ONE)),
        })
    }

    /// The one that all who ask the same share.
    fn decision(&self, question: &Question) -> Arc<Decision> {
        let mut known = self.lock();
        let found = known.of.get(question).and_then(Weak::upgrade);
        if let Some(decision) = found.filter(|decision| !decision.is_over()) {
            return decision;
        }
        if known.of.len() >= known.prune_at {
            known.of.retain(|_, decision| decision.strong_count() > 0);
            known.prune_at = known.of.len() * 2 + LEAST_BETWEEN_PRUNING;
        }
        let decision = Arc::new(Decision {
            said: watch::Sender::new(None),
            keeper: OnceCell::new(),
        });
        known.of.insert(question.clone(), Arc::downgrade(&decision));
        decision
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing that holds the lock can panic half way through a change.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks one question.
struct Asker {
    inner: Arc<Inner>,
    own: Arc<Own>,
    question: Question,
}

impl Asker {
    async fn ask(&self, occasion: Occasion) -> Option<Role> {
        let application = &self.inner.application;
        application
            .ask(&self.question, &self.own.turns, occasion)
            .await
    }
}

/// Keeps a decision true as long as somebody holds it.
struct Keeper<C> {
    asker: Arc<Asker>,
    decision: Weak<Decision>,
    /// When what was answered is over, if anything was.
    until: Option<Instant>,
    /// Before the next question.
    pause: Duration,
    /// Questions in a row that were not answered.
    unanswered: u32,
    /// Until then, if there is room for it.
    kept: Option<Kept>,
    changed: C,
}

/// Holds a decision that nobody else may hold.
struct Kept {
    _decision: Arc<Decision>,
    _of_all: OwnedSemaphorePermit,
    _of_own: OwnedSemaphorePermit,
}

impl<C: Fn()> Keeper<C> {
    /// Ends by itself where nobody holds the decision when it is to be asked, and before with the decision.
    async fn run(mut self) {
        loop {
            self.by_time(sleep(self.pause)).await;
            self.kept = None;
            if self.decision.strong_count() == 0 {
                return;
            }
            let asker = Arc::clone(&self.asker);
            let answer = self.by_time(asker.ask(Occasion::Again)).await;
            if self.hear(answer) {
                (self.changed)();
            }
        }
    }

    /// Waits for `work`. What was answered ends when its time is over, not when `work` is done.
    async fn by_time<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        if let Some(until) = self.until {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = sleep_until(until) => self.until = None,
            }
            self.say(None);
            (self.changed)();
        }
        work.await
    }

    /// This was answered, or nothing. Whether that allows something else.
    fn hear(&mut self, answer: Option<Role>) -> bool {
        let holds = self.asker.inner.holds;
        let Some(role) = answer else {
            let patience = LEAST_RETRY.saturating_mul(2_u32.saturating_pow(self.unanswered));
            self.pause = (holds / RETRY_PART).min(patience.min(MOST_RETRY));
            self.unanswered = self.unanswered.saturating_add(1);
            return false;
        };
        self.unanswered = 0;
        let until = Instant::now() + holds;
        self.pause = holds / 2;
        self.until = Some(until);
        self.kept = self.keep();
        self.say(Some(Said { role, until }))
    }

    fn say(&self, said: Option<Said>) -> bool {
        let decision = self.decision.upgrade();
        decision.is_some_and(|decision| decision.say(said))
    }

    fn keep(&self) -> Option<Kept> {
        let Asker { inner, own, .. } = &*self.asker;
        Some(Kept {
            _of_own: Arc::clone(&own.kept).try_acquire_owned().ok()?,
            _of_all: Arc::clone(&inner.kept).try_acquire_owned().ok()?,
            _decision: self.decision.upgrade()?,
        })
    }
}
