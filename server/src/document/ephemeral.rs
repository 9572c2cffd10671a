//! Ephemeral messages: shown and forgotten, each once.
//!
//! Stock clients pass on what they hear to all of their peers, the server too: a message is news only if
//! its count is above the last of its author's session, whoever brings it.

use bytes::Bytes;
use concord_shared::ids::{PeerId, SessionId};
use rustc_hash::FxHashMap;

use super::ConnectionId;

/// Sessions of ephemeral messages that one peer may bring to one document: its own, and those of tabs
/// that speak through it. Messages of more are dropped.
pub const MAX_EPHEMERAL_SESSIONS_PER_PEER: usize = 256;

/// Something to show and forget. The author is as the sender says: do not trust it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ephemeral {
    /// The original author.
    pub sender: PeerId,
    /// The author's session.
    pub session: SessionId,
    /// Grows with each message of the session.
    pub count: u64,
    /// The application's value as CBOR.
    pub data: Bytes,
}

/// The last message of each author's session.
#[derive(Debug, Default)]
pub struct Heard {
    sessions: FxHashMap<(PeerId, SessionId), Last>,
    /// Sessions by who brought their last message.
    brought: FxHashMap<ConnectionId, usize>,
}

#[derive(Debug)]
struct Last {
    /// Who brought the message with this count: when they go, so does what they may have made up.
    from: ConnectionId,
    count: u64,
}

impl Heard {
    /// Whether the message has not been heard yet and may be passed on.
    pub fn is_news(&mut self, from: ConnectionId, ephemeral: &Ephemeral) -> bool {
        let session = (ephemeral.sender.clone(), ephemeral.session.clone());
        let count = ephemeral.count;
        let last = self.sessions.get(&session);
        if last.is_some_and(|last| count <= last.count) {
            return false;
        }
        let before = last.map(|last| last.from);
        if before != Some(from) {
            let brought = self.brought.entry(from).or_default();
            if *brought >= MAX_EPHEMERAL_SESSIONS_PER_PEER {
                return false;
            }
            *brought += 1;
            if let Some(brought) = before.and_then(|before| self.brought.get_mut(&before)) {
                *brought -= 1;
            }
        }
        self.sessions.insert(session, Last { from, count });
        true
    }

    /// Forgets the sessions that a connection brought.
    pub fn forget(&mut self, connection: ConnectionId) {
        if self.brought.remove(&connection).is_some() {
            self.sessions.retain(|_, last| last.from != connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(count: u64) -> Ephemeral {
        Ephemeral {
            sender: PeerId::new("author").expect("an id"),
            session: SessionId::new("session").expect("an id"),
            count,
            data: Bytes::new(),
        }
    }

    #[test]
    fn an_echo_is_no_news_whoever_brings_it() {
        let mut heard = Heard::default();
        assert!(heard.is_news(ConnectionId(1), &message(1)));
        assert!(!heard.is_news(ConnectionId(2), &message(1)));
        assert!(heard.is_news(ConnectionId(1), &message(2)));
    }

    #[test]
    fn who_was_spoken_for_is_heard_again_when_the_impostor_is_gone() {
        let mut heard = Heard::default();
        assert!(heard.is_news(ConnectionId(1), &message(1)));
        assert!(heard.is_news(ConnectionId(2), &message(1 << 53)));
        assert!(!heard.is_news(ConnectionId(1), &message(2)));
        heard.forget(ConnectionId(2));
        assert!(heard.is_news(ConnectionId(1), &message(3)));
    }

    #[test]
    fn sessions_are_bounded_for_each_peer() {
        let mut heard = Heard::default();
        let bring = |heard: &mut Heard, from, n: usize| {
            let session = SessionId::new(&n.to_string()).expect("an id");
            let message = Ephemeral {
                session,
                ..message(1)
            };
            heard.is_news(ConnectionId(from), &message)
        };
        let brought = (0..1000).filter(|n| bring(&mut heard, 1, *n)).count();
        assert_eq!(brought, MAX_EPHEMERAL_SESSIONS_PER_PEER);
        assert!(bring(&mut heard, 2, 1001));
        heard.forget(ConnectionId(1));
        assert_eq!(heard.sessions.len(), 1);
    }
}
