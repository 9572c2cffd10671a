//! Which documents a connection has open, and which it would have if it might.

use std::sync::Arc;

use concord_shared::access::Role;
use concord_shared::code::ErrorCode;
use concord_shared::ids::DocumentId;
use concord_shared::wire::{Message, SyncFrame};
use tracing::error;

use super::{ReadError, Reader};
use crate::access::{Grant, Grants, Identity};
use crate::connection::Goodbye;
use crate::connection::lobby::{Event, Lobby};
use crate::connection::outbox::Pushed;
use crate::connection::phase::Open;
use crate::document::actor::Input;
use crate::document::registry::{Delivery, DocumentHandle};
use crate::document::task::{Link, Report};

/// How a connection stands to a document.
pub(super) enum Place {
    /// It has it open.
    Inside(DocumentHandle),
    /// For it the document is not there: it waits in the [`Lobby`].
    Outside,
}

impl Place {
    pub(super) fn inside(self) -> Option<DocumentHandle> {
        match self {
            Self::Inside(handle) => Some(handle),
            Self::Outside => None,
        }
    }
}

/// What a message about a document finds.
pub(super) enum Found {
    /// The document, and whether it had to be opened for this connection.
    Here(DocumentHandle, bool),
    /// Nothing, and whether that is news.
    NotHere(bool),
}

/// What somebody may do with a document.
pub(super) async fn granted(
    grants: &Grants,
    who: &Identity,
    document: &DocumentId,
) -> Result<Grant, ReadError> {
    grants.grant(who, document).await.map_err(|error| {
        error!(%document, error = %Report(&error), "access can't be read");
        ReadError::DocumentGone
    })
}

impl Reader<'_> {
    /// For the peer these documents are not there any more.
    pub(super) async fn put_out(
        &mut self,
        documents: Vec<DocumentId>,
        lobby: &mut Lobby,
    ) -> Result<(), ReadError> {
        for document in documents {
            let grant = self.grant(&document).await?;
            self.leave_outside(grant, lobby);
        }
        Ok(())
    }

    /// Does what is to be done about a document that was not for the peer.
    pub(super) async fn attend(
        &mut self,
        event: Event,
        open: &Open,
        lobby: &mut Lobby,
    ) -> Result<(), ReadError> {
        match event {
            Event::Unavailable(document) => {
                let message = Message::DocUnavailable {
                    document,
                    sender: self.connections.server.clone(),
                    target: open.peer().clone(),
                };
                if self.outbox.push(message.encode(), None) == Pushed::Overflowed {
                    self.outbox.abandon(Goodbye::new(ErrorCode::Overloaded));
                }
                Ok(())
            }
            Event::Enter(grant) => {
                if let Found::Here(handle, _) = self.enter(grant, open, lobby, true).await? {
                    self.subscribe(&handle, open).await?;
                }
                Ok(())
            }
        }
    }

    pub(super) async fn subscribe(
        &self,
        handle: &DocumentHandle,
        open: &Open,
    ) -> Result<(), ReadError> {
        if open.subscriptions().is_empty() {
            return Ok(());
        }
        let input = Input::Subscribe(self.id, Arc::clone(open.subscriptions()));
        self.deliver(handle, input).await
    }

    pub(super) async fn grant(&self, document: &DocumentId) -> Result<Grant, ReadError> {
        let identity = self.identity.borrow().clone();
        granted(&self.connections.grants, &identity, document).await
    }

    pub(super) async fn document(
        &mut self,
        document: &DocumentId,
        open: &Open,
        lobby: &mut Lobby,
    ) -> Result<Found, ReadError> {
        match self.documents.get(document) {
            Some(Place::Inside(handle)) => return Ok(Found::Here(handle.clone(), false)),
            Some(Place::Outside) => return Ok(Found::NotHere(false)),
            None => {}
        }
        if self.documents.len() >= self.connections.max_documents {
            return Err(ReadError::TooManyDocuments);
        }
        let permit = self.account().open_document();
        let permit = permit.ok_or(ReadError::TooManyOfCaller)?;
        match &mut self.permits {
            Some(permits) => permits.merge(permit),
            permits => *permits = Some(permit),
        }
        let grant = self.grant(document).await?;
        self.enter(grant, open, lobby, false).await
    }

    /// Opens a document, if that is granted; else it waits in the lobby.
    async fn enter(
        &mut self,
        mut grant: Grant,
        open: &Open,
        lobby: &mut Lobby,
        is_to_begin: bool,
    ) -> Result<Found, ReadError> {
        if is_to_begin {
            // It was recorded before that it was not for them.
            grant.notice();
        } else {
            grant.record(Role::Reader);
        }
        if grant.role() == Role::None {
            self.leave_outside(grant, lobby);
            return Ok(Found::NotHere(true));
        }
        let document = grant.document().clone();
        let handle = self.connections.registry.open(&document)?;
        let server = self.connections.server.clone();
        let link = Link {
            outbox: Arc::clone(self.outbox),
            sync_frame: SyncFrame::new(&document, &server, open.peer()),
            server,
            peer: open.peer().clone(),
            document: handle.clone(),
            grant,
            is_to_begin,
        };
        let delivery = Delivery::Open(self.id, Box::new(link));
        handle.send(delivery).await.map_err(|_| self.gone())?;
        self.documents
            .insert(document, Place::Inside(handle.clone()));
        Ok(Found::Here(handle, true))
    }

    fn leave_outside(&mut self, grant: Grant, lobby: &mut Lobby) {
        let document = grant.document().clone();
        self.documents.insert(document, Place::Outside);
        lobby.wait(grant);
    }

    pub(super) async fn deliver(
        &self,
        handle: &DocumentHandle,
        input: Input,
    ) -> Result<(), ReadError> {
        let sent = handle.send(Delivery::Input(input)).await;
        sent.map_err(|_| self.gone())
    }

    /// Why a document takes nothing: it failed, or it has finished already because the server stops.
    pub(super) fn gone(&self) -> ReadError {
        if self.connections.stop.is_cancelled() {
            ReadError::Stopping
        } else {
            ReadError::DocumentGone
        }
    }
}
