//! An application decides who may do what: it is asked by HTTP, and its answers hold for a while.
//!
//! For whoever still holds a [`Decision`] the application is asked again when half of that time is over, so that what it
//! takes away is gone by the end of it. **Whoever it does not answer for has no role**: an answer that can't be had is
//! none, and one that was had holds to its end and no longer. Who asks for a document meanwhile is told so.
//!
//! What is asked is bounded: so many questions at a time, so many that wait, so many answers that are kept. Where there
//! are more, the answer is that there is none.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use concord_shared::access::Role;
use concord_shared::ids::{DocumentId, PrincipalId};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::identity::Identity;
use crate::metrics::Metrics;
use crate::outgoing::{self, AddressError, BodyError};

/// Has what the application knows this server by.
pub const TOKEN_VARIABLE: &str = "CONCORD_AUTHORIZE_TOKEN";

/// A question has so long to be answered.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Questions at a time, and connections that are kept for the next ones.
const MOST_ASKED: usize = 32;

/// Questions that wait for others to be answered.
const MOST_WAITING: usize = 1024;

/// Answers that are shared, and kept while nobody holds them.
const MOST_KEPT: usize = 16 * 1024;

/// Bytes of an answer.
const MOST_ANSWER_BYTES: usize = 4 << 10;

/// After a question that was not answered the next one comes when this part of the time is over for which answers hold.
const RETRY_PART: u32 = 8;

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

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("asking")]
    Ask(#[source] reqwest::Error),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("the answer is not {{\"role\": \"none|reader|writer|owner\"}}")]
    Unreadable,
    #[error("too many questions wait for an answer")]
    Busy,
}

/// What is asked: what somebody may do with a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    principal: PrincipalId,
    groups: Arc<[String]>,
    document: DocumentId,
}

/// As it is sent.
#[derive(Serialize)]
struct Sent<'a> {
    principal: &'a str,
    groups: &'a [String],
    document: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    role: String,
}

/// See the module's docs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Webhook(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: Url,
    client: Client,
    token: Option<HeaderValue>,
    holds: Duration,
    asked: Semaphore,
    waiting: Semaphore,
    known: Mutex<HashMap<Question, Weak<Decision>>>,
    is_failing: AtomicBool,
}

/// What an application said, as it is now.
#[derive(Debug)]
pub struct Decision {
    /// `None`: it did not answer.
    role: watch::Sender<Option<Role>>,
    first: OnceCell<()>,
}

impl Decision {
    /// What it allows: nothing, where it did not answer.
    pub fn role(&self) -> Role {
        self.role.borrow().unwrap_or(Role::None)
    }

    /// Whether it did.
    pub fn is_answered(&self) -> bool {
        self.role.borrow().is_some()
    }
}

impl Webhook {
    /// Asks at this address, which knows this server by the token, and believes an answer for so long.
    pub fn new(address: &str, token: Option<&str>, holds: Duration) -> Result<Self, WebhookError> {
        let (url, client) = outgoing::believed(address, TIMEOUT, MOST_ASKED)?;
        let token = token.map(|token| HeaderValue::try_from(format!("Bearer {token}")));
        let mut token = token.transpose().map_err(|_| WebhookError::Token)?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        Ok(Self(Arc::new(Inner {
            url,
            client,
            token,
            holds,
            asked: Semaphore::new(MOST_ASKED),
            waiting: Semaphore::new(MOST_WAITING),
            known: Mutex::default(),
            is_failing: AtomicBool::new(false),
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
        let decision = self.decision(&question);
        let first = async {
            let role = self.ask(&question).await;
            decision.role.send_replace(role);
            let keeping = self.clone().keep(question, Arc::clone(&decision), changed);
            tokio::spawn(keeping);
        };
        decision.first.get_or_init(|| first).await;
        decision
    }

    fn decision(&self, question: &Question) -> Arc<Decision> {
        let mut known = self.lock();
        if let Some(decision) = known.get(question).and_then(Weak::upgrade) {
            return decision;
        }
        let decision = Arc::new(Decision {
            role: watch::Sender::new(None),
            first: OnceCell::new(),
        });
        if known.len() >= MOST_KEPT {
            // Of those who went before their first answer came nobody keeps anything.
            known.retain(|_, decision| decision.strong_count() > 0);
        }
        if known.len() < MOST_KEPT {
            known.insert(question.clone(), Arc::downgrade(&decision));
        }
        decision
    }

    /// Keeps a decision true while somebody else holds it; an answer that nobody does is kept as long as it holds.
    async fn keep(self, question: Question, decision: Arc<Decision>, changed: impl Fn() + Send) {
        let holds = self.0.holds;
        let mut until = Instant::now() + holds;
        let mut pause = if decision.is_answered() {
            holds / 2
        } else {
            holds / RETRY_PART
        };
        loop {
            sleep(pause).await;
            let left = until.saturating_duration_since(Instant::now());
            if Arc::strong_count(&decision) == 1 {
                // That there was no answer is not kept: the next who asks may get one.
                if decision.is_answered() && !left.is_zero() {
                    pause = left;
                    continue;
                }
                let mut known = self.lock();
                // Somebody may have found it a moment ago.
                if Arc::strong_count(&decision) == 1 {
                    // Another may be known, where this was one too many when it was made.
                    let kept = known.get(&question).map(Weak::as_ptr);
                    if kept == Some(Arc::as_ptr(&decision)) {
                        known.remove(&question);
                    }
                    return;
                }
            }
            let answer = self.ask(&question).await;
            let now = Instant::now();
            if answer.is_some() {
                until = now + holds;
                pause = holds / 2;
            } else {
                pause = holds / RETRY_PART;
            }
            let is_over = now >= until;
            let is_news = decision.role.send_if_modified(|role| {
                let before = *role;
                if answer.is_some() || is_over {
                    *role = answer;
                }
                *role != before
            });
            if is_news {
                changed();
            }
        }
    }

    async fn ask(&self, question: &Question) -> Option<Role> {
        let answer = self.answer(question).await;
        Metrics::decided(answer.is_ok());
        let was_failing = self.0.is_failing.swap(answer.is_err(), Ordering::Relaxed);
        match &answer {
            Err(error) if !was_failing => {
                let error = crate::document::task::Report(error);
                warn!(address = outgoing::shown(&self.0.url), %error, "who may do what is not answered: nobody may do anything");
            }
            Ok(_) if was_failing => info!("who may do what is answered again"),
            _ => {}
        }
        answer.ok()
    }

    async fn answer(&self, question: &Question) -> Result<Role, NoAnswer> {
        let inner = &self.0;
        let _waiting = inner.waiting.try_acquire().map_err(|_| NoAnswer::Busy)?;
        let _asked = inner.asked.acquire().await.map_err(|_| NoAnswer::Busy)?;
        let sent = Sent {
            principal: question.principal.as_str(),
            groups: &question.groups,
            document: question.document.as_str(),
        };
        // Maps of text to text can't fail.
        let body = serde_json::to_vec(&sent).unwrap_or_default();
        let mut request = inner.client.post(inner.url.clone()).body(body);
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(token) = &inner.token {
            request = request.header(AUTHORIZATION, token);
        }
        let failed = |error: reqwest::Error| NoAnswer::Ask(error.without_url());
        let response = request.send().await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(NoAnswer::Status(response.status()));
        }
        let body = outgoing::body(response, MOST_ANSWER_BYTES).await?;
        let answer: Option<Answer> = serde_json::from_slice(&body).ok();
        let role = answer.and_then(|answer| answer.role.parse().ok());
        role.ok_or(NoAnswer::Unreadable)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Question, Weak<Decision>>> {
        // Nothing that holds the lock can panic half way through a change.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
