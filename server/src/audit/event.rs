//! What is recorded, and of whom. Nothing here can hold a token, nor anything of what is in a document.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use concord_shared::access::{AccessList, Role};
use concord_shared::ids::{DocumentId, PrincipalId};

use super::bounds::Weight;
use crate::connection::backoff::Who;

/// Who did or asked something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// The server itself, of its own accord.
    Server,
    /// Somebody else.
    Asker(Asker),
}

/// Somebody who asks, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// As whom; nobody, before that is known.
    pub principal: Option<PrincipalId>,
    /// From where.
    pub address: IpAddr,
    /// By what.
    pub via: Via,
    /// On which WebSocket.
    pub connection: Option<u64>,
    /// The operation of the API, by its method and address as they are described.
    pub operation: Option<Arc<str>>,
}

/// By what somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A request.
    Http,
    /// A WebSocket, or the request for one.
    WebSocket,
}

/// What is recorded.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The log goes on here: the server was started, or the file replaced.
    Opened,
    /// It is known who asks.
    Identified,
    /// It is not.
    NotIdentified {
        /// As they are told.
        code: &'static str,
    },
    /// A WebSocket's peer has joined.
    Begun,
    /// It was not let join.
    NotBegun {
        /// As it is told.
        code: &'static str,
    },
    /// A peer that had joined is gone.
    Ended {
        /// Why, as it is told if it is still there.
        code: &'static str,
    },
    /// Somebody asked for a document.
    Document {
        /// Which.
        document: &'a DocumentId,
        /// What they may do with it.
        role: Role,
        /// What they would have to.
        needs: Role,
    },
    /// What somebody may do with a document changed while they had it open.
    Role {
        /// Which.
        document: &'a DocumentId,
        /// What they could do.
        before: Role,
        /// What they can do now.
        after: Role,
    },
    /// Who may do what was changed.
    Access {
        /// With which document.
        document: &'a DocumentId,
        /// The entry's number in the document's own access log.
        number: u64,
        /// What was said before.
        before: &'a AccessList,
        /// What holds now.
        after: &'a AccessList,
    },
    /// A document became somebody's.
    Made {
        /// Which.
        document: &'a DocumentId,
        /// Who may do what with it.
        list: &'a AccessList,
    },
    /// A document was made of another one's changes.
    Forked {
        /// The new one.
        document: &'a DocumentId,
        /// The other one.
        from: &'a DocumentId,
    },
    /// A document's own bytes were brought in.
    Imported {
        /// Into which.
        document: &'a DocumentId,
        /// Changes that it lacked.
        changes: usize,
    },
    /// A document's own bytes were handed out over HTTP.
    Exported {
        /// Of which.
        document: &'a DocumentId,
    },
    /// A document was deleted.
    Deleted {
        /// Which.
        document: &'a DocumentId,
    },
    /// That was taken back.
    Undeleted {
        /// Of which.
        document: &'a DocumentId,
    },
    /// What was kept of a deleted document was erased from the store.
    Purged {
        /// Which.
        document: &'a DocumentId,
    },
    /// Somebody asked for what is for operators.
    Operator {
        /// Whether they are one.
        is_one: bool,
    },
    /// Of somebody more is not recorded: it was too much.
    LeftOut,
    /// Lines were lost: the disk failed, or was too slow.
    Lost,
}

impl Event<'_> {
    /// What bounds how often it is recorded.
    pub(super) fn weight(&self, by: &By) -> Weight {
        let By::Asker(asker) = by else {
            return Weight::Change;
        };
        let known = match &asker.principal {
            Some(principal) if *principal != PrincipalId::anonymous() => Weight::Known,
            _ => Weight::Stranger,
        };
        match self {
            Self::Access { .. }
            | Self::Made { .. }
            | Self::Forked { .. }
            | Self::Imported { .. }
            | Self::Deleted { .. }
            | Self::Undeleted { .. }
            | Self::Purged { .. }
            | Self::Opened
            | Self::LeftOut
            | Self::Lost => Weight::Change,
            Self::Document { role, needs, .. } if role >= needs => known,
            Self::NotIdentified { .. }
            | Self::NotBegun { .. }
            | Self::Document { .. }
            | Self::Operator { is_one: false } => Weight::Stranger,
            Self::Identified
            | Self::Begun
            | Self::Ended { .. }
            | Self::Role { .. }
            | Self::Exported { .. }
            | Self::Operator { is_one: true } => known,
        }
    }
}

impl By {
    /// Of whom so much is recorded and no more.
    pub(super) fn who(&self) -> Who {
        match self {
            Self::Server => Who::Address(Ipv4Addr::UNSPECIFIED.into()),
            Self::Asker(asker) => {
                let anonymous = PrincipalId::anonymous();
                Who::new(
                    asker.principal.as_ref().unwrap_or(&anonymous),
                    asker.address,
                )
            }
        }
    }
}
