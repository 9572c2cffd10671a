//! A session goes on beyond its token, if another is shown in time.

use concord_shared::access::Role;
use tokio::sync::watch;

use super::documents::Place;
use super::{ReadError, Reader};
use crate::access::Identity;
use crate::audit::event::Event;
use crate::clock::unix_ms;
use crate::connection::lobby::Lobby;
use crate::connection::own::{Answer, Renewed, Said, renewed};
use crate::document::registry::Delivery;

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
        let authority = &self.connections.authority;
        let now = authority.identify(Some(&token), unix_ms() / 1000).await;
        let renewed = renewed(&self.identity.borrow(), now);
        let trail = self.trail();
        let answer = match renewed {
            Ok(identity) => {
                trail.record(&Event::Identified);
                let answer = Renewed::until(&identity);
                self.identity.send_replace(identity);
                self.regrant(lobby).await?;
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

    /// What may be done with each document that the connection has to do with may be more or less than it was.
    async fn regrant(&mut self, lobby: &mut Lobby) -> Result<(), ReadError> {
        lobby.clear();
        for (document, place) in &self.documents {
            let grant = self.grant(document).await?;
            match place {
                Place::Inside(handle) => {
                    let delivery = Delivery::Regrant(self.id, grant);
                    handle.send(delivery).await.map_err(|_| self.gone())?;
                }
                Place::Outside => lobby.wait(grant.noticed_as(Role::None)),
            }
        }
        Ok(())
    }
}
