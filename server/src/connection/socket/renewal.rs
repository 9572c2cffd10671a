//! A session goes on beyond its token, if another is shown in time.
//!
//! That is next to nothing where the new one says the same but for its time, as nearly all do. Else each document is granted
//! anew, which is paid for. Until that is done for all of them the session is what the token before says: should that one
//! end meanwhile, the session ends with it, and nobody has by an old token what it does not allow any more.

use std::pin::pin;
use std::time::Duration;

use concord_shared::access::Role;
use concord_shared::ids::DocumentId;
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::documents::{Place, granted};
use super::{ReadError, Reader};
use crate::access::Identity;
use crate::audit::event::Event;
use crate::clock::unix_ms;
use crate::connection::lobby::Lobby;
use crate::connection::own::{Answer, Renewed, Said, renewed};
use crate::document::registry::Delivery;

/// Between two tokens on a connection, whose signatures have to be verified. Who shows one sooner waits.
const LEAST_BETWEEN_TOKENS: Duration = Duration::from_secs(1);

/// Documents that are granted anew at a time: as many as an application is asked about one principal.
const GRANTED_AT_ONCE: usize = 8;

/// Waits until whoever is shown last is nobody any more.
pub(super) async fn over(mut shown: watch::Receiver<Identity>) {
    loop {
        let identity = shown.borrow_and_update().clone();
        tokio::select! {
            () = identity.over() => return,
            changed = shown.changed() => if changed.is_err() {
                // Whoever would change it has ended, and with it whoever waits here.
                return identity.over().await;
            },
        }
    }
}

impl Reader<'_> {
    /// Does what one of Concord's own messages says, and answers.
    pub(super) async fn renew(&mut self, text: &str, lobby: &mut Lobby) -> Result<(), ReadError> {
        let Said::Token { token } = Said::read(text).ok_or(ReadError::Text)?;
        self.unless_gone(sleep_until(self.next_token)).await?;
        self.next_token = Instant::now() + LEAST_BETWEEN_TOKENS;
        let authority = &self.connections.authority;
        let now = authority.identify(Some(&token), unix_ms() / 1000).await;
        let renewed = renewed(&self.identity.borrow(), now);
        let trail = self.trail();
        let answer = match renewed {
            Ok(identity) => {
                trail.record(&Event::Identified);
                let is_same = identity.may_the_same_as(&self.identity.borrow());
                if !is_same {
                    self.afford_documents().await?;
                    self.regrant(&identity, lobby).await?;
                }
                let answer = Renewed::until(&identity);
                self.identity.send_replace(identity);
                answer
            }
            Err(refused) => {
                if let Renewed::Refused { code, .. } = refused {
                    trail.record(&Event::NotIdentified { code });
                }
                refused
            }
        };
        self.outbox.answer(Answer::Token(answer).text()).await;
        Ok(())
    }

    /// Each document that is granted anew counts as a message.
    async fn afford_documents(&mut self) -> Result<(), ReadError> {
        let (number, most) = (self.documents.len(), self.connections.stall);
        let due = self.account().messages(number, most);
        Ok(self.unless_gone(due).await??)
    }

    /// What may be done with each document that the connection has to do with may be more or less than it was.
    async fn regrant(&mut self, who: &Identity, lobby: &mut Lobby) -> Result<(), ReadError> {
        lobby.clear();
        let connections = self.connections;
        let documents: Vec<DocumentId> = self.documents.keys().cloned().collect();
        let granting = documents
            .into_iter()
            .map(async |document| granted(&connections.grants, who, &document).await);
        let mut granting = pin!(stream::iter(granting).buffer_unordered(GRANTED_AT_ONCE));
        while let Some(grant) = self.unless_gone(granting.next()).await? {
            let grant = grant?;
            match self.documents.get(grant.document()) {
                Some(Place::Inside(handle)) => {
                    let delivery = Delivery::Regrant(self.id, grant);
                    handle.send(delivery).await.map_err(|_| self.gone())?;
                }
                Some(Place::Outside) => lobby.wait(grant.noticed_as(Role::None)),
                None => {}
            }
        }
        Ok(())
    }
}
