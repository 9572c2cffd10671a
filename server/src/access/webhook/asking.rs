//! How the application is asked: by HTTP, in turn, and not for long.
//!
//! Each principal has a share of the turns, so that whose questions are many waits behind their own alone. What somebody
//! holds already is asked about in turns of its own: who comes keeps nobody from staying.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use concord_shared::access::Role;
use concord_shared::ids::{DocumentId, PrincipalId};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use super::WebhookError;
use crate::limits::Limit;
use crate::limits::account::{Share, Turn};
use crate::metrics::Metrics;
use crate::object::Object;
use crate::outgoing::{self, BodyError};

/// A question has so long to be answered, with the wait for its turn.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);

/// And so long for its turn, so that whoever is asked has time to answer: else it would look as if they did not.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Questions at a time, and connections that are kept for the next ones: of first ones, and as many of others.
pub(super) const MOST_ASKED: usize = 32;

/// Of these, about one principal.
pub(super) const MOST_ASKED_OF_ONE: usize = 8;

/// First questions about one principal that wait for others to be answered. Of those about what somebody holds each
/// waits, in a task that there is anyhow.
pub(super) const MOST_WAITING_OF_ONE: usize = 64;

/// Bytes of an answer.
const MOST_ANSWER_BYTES: usize = 4 << 10;

/// Between two lines in the log: an application that answers some can't be made to fill it.
const LEAST_BETWEEN_LINES: Duration = Duration::from_secs(10);

/// What is asked: what somebody may do with a document.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) principal: PrincipalId,
    pub(super) groups: Arc<[String]>,
    pub(super) document: DocumentId,
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

/// Why there is no answer though it was asked.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("asking")]
    Ask(#[source] reqwest::Error),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("no answer in time")]
    Late,
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("the answer is not {{\"role\": \"none|reader|writer|owner\"}}")]
    Unreadable,
}

/// Whether a question is about what somebody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    First,
    Again,
}

/// The turns of one principal.
#[derive(Debug)]
pub(super) struct Turns {
    first: Share,
    waiting: Semaphore,
    again: Share,
}

impl Turns {
    pub(super) fn new() -> Self {
        Self {
            first: Share::of(MOST_ASKED_OF_ONE),
            waiting: Semaphore::new(MOST_WAITING_OF_ONE),
            again: Share::of(MOST_ASKED_OF_ONE),
        }
    }
}

/// See the module's docs.
#[derive(Debug)]
pub(super) struct Application {
    url: Url,
    client: Client,
    token: Option<HeaderValue>,
    first: Arc<Semaphore>,
    again: Arc<Semaphore>,
    told: Mutex<Told>,
}

impl Application {
    /// At this address, which knows this server by the token.
    pub(super) fn new(address: &str, token: Option<&str>) -> Result<Self, WebhookError> {
        let (url, client) = outgoing::believed(address, TIMEOUT, 2 * MOST_ASKED)?;
        let token = token.map(|token| HeaderValue::try_from(format!("Bearer {token}")));
        let mut token = token.transpose().map_err(|_| WebhookError::Token)?;
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        Ok(Self {
            url,
            client,
            token,
            first: Arc::new(Semaphore::new(MOST_ASKED)),
            again: Arc::new(Semaphore::new(MOST_ASKED)),
            told: Mutex::default(),
        })
    }

    /// What it answers, in its principal's turn. `None`: nothing, or that turn did not come.
    pub(super) async fn ask(
        &self,
        question: &Question,
        of: &Turns,
        occasion: Occasion,
    ) -> Option<Role> {
        let due = Instant::now() + TIMEOUT;
        let Some(_turn) = self.turn(of, occasion).await else {
            // It was not asked, so this says nothing of it.
            Metrics::limited(Limit::Questions);
            return None;
        };
        let answer = timeout_at(due, self.answer(question)).await;
        let answer = answer.unwrap_or(Err(NoAnswer::Late));
        Metrics::decided(answer.is_ok());
        self.tell(answer.as_ref().err());
        answer.ok()
    }

    async fn turn(&self, of: &Turns, occasion: Occasion) -> Option<Turn> {
        match occasion {
            Occasion::First => {
                let _waiting = of.waiting.try_acquire().ok()?;
                timeout(LONGEST_WAIT, of.first.turn(&self.first)).await.ok()
            }
            Occasion::Again => timeout(LONGEST_WAIT, of.again.turn(&self.again)).await.ok(),
        }
    }

    async fn answer(&self, question: &Question) -> Result<Role, NoAnswer> {
        let sent = Sent {
            principal: question.principal.as_str(),
            groups: &question.groups,
            document: question.document.as_str(),
        };
        // Maps of text to text can't fail.
        let body = serde_json::to_vec(&sent).unwrap_or_default();
        let mut request = self.client.post(self.url.clone()).body(body);
        request = request.header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let failed = |error: reqwest::Error| NoAnswer::Ask(error.without_url());
        let response = request.send().await.map_err(failed)?;
        if response.status() != StatusCode::OK {
            return Err(NoAnswer::Status(response.status()));
        }
        let body = outgoing::body(response, MOST_ANSWER_BYTES).await?;
        let answer: Option<Object<Answer>> = serde_json::from_slice(&body).ok();
        let role = answer.and_then(|Object(answer)| answer.role.parse().ok());
        role.ok_or(NoAnswer::Unreadable)
    }

    fn tell(&self, error: Option<&NoAnswer>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.is_news(error.is_some(), Instant::now()) {
            return;
        }
        if let Some(error) = error {
            let error = crate::document::task::Report(error);
            warn!(address = outgoing::shown(&self.url), %error, "who may do what is not answered: nobody may do anything");
        } else {
            info!("who may do what is answered again");
        }
    }
}

/// Whether it answers, as the log was told last.
#[derive(Debug, Default)]
struct Told {
    is_failing: bool,
    at: Option<Instant>,
}

impl Told {
    /// Whether this is to be told. What is not, since the last line was a moment ago, is so later, if it is still true.
    fn is_news(&mut self, is_failing: bool, now: Instant) -> bool {
        let is_soon = self.at.is_some_and(|at| now < at + LEAST_BETWEEN_LINES);
        if is_failing == self.is_failing || is_soon {
            return false;
        }
        *self = Self {
            is_failing,
            at: Some(now),
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_what_changes_but_not_all_the_time() {
        let (mut told, start) = (Told::default(), Instant::now());
        let mut at = |seconds, is_failing| told.is_news(is_failing, start + seconds * SECOND);
        assert!(!at(0, false), "as it is to be");
        assert!(at(1, true));
        assert!(!at(2, true) && !at(3, false) && !at(4, true));
        assert!(!at(60, true), "is known");
        assert!(at(61, false));
        assert!(!at(62, true));
        assert!(at(71, true));
    }

    const SECOND: Duration = Duration::from_secs(1);
}
