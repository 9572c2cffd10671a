//! Which ephemeral messages were passed on already.
//!
//! A JavaScript client sends every ephemeral message it hears on to its own peers. The connection drops
//! such echoes where the author is connected here; where it is behind another peer (tabs behind a
//! shared worker, another server), only the count tells: it grows with each message of a session.

use std::collections::VecDeque;

use concord_shared::ids::{PeerId, SessionId};
use rustc_hash::FxHashMap;

use super::actor::Ephemeral;

/// Authors' sessions remembered per document; beyond, the one first heard of is forgotten, and at worst
/// a receiver drops an echo itself, as the protocol has it do anyway.
const MAX_SESSIONS_PER_DOCUMENT: usize = 64;

type Source = (PeerId, SessionId);

/// See the module's docs.
#[derive(Debug, Default)]
pub struct Passed {
    last: FxHashMap<Source, u64>,
    /// The keys of `last`, oldest first.
    order: VecDeque<Source>,
}

impl Passed {
    /// Whether the message is new; from then on it is not.
    pub fn is_new(&mut self, message: &Ephemeral) -> bool {
        let source = (message.sender.clone(), message.session.clone());
        if let Some(last) = self.last.get_mut(&source) {
            let is_new = message.count > *last;
            *last = message.count.max(*last);
            return is_new;
        }
        if self.order.len() >= MAX_SESSIONS_PER_DOCUMENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.last.remove(&oldest);
        }
        self.order.push_back(source.clone());
        self.last.insert(source, message.count);
        true
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(sender: &str, count: u64) -> Ephemeral {
        Ephemeral {
            sender: PeerId::new(sender).expect("an id"),
            session: SessionId::new("session").expect("an id"),
            count,
            data: Bytes::from_static(b"\x01"),
        }
    }

    #[test]
    fn a_message_is_new_once_and_its_predecessors_never_again() {
        let mut passed = Passed::default();
        assert!(passed.is_new(&message("a", 1)));
        assert!(!passed.is_new(&message("a", 1)), "an echo");
        assert!(passed.is_new(&message("a", 3)));
        assert!(!passed.is_new(&message("a", 2)));
        assert!(passed.is_new(&message("b", 2)), "another author's count");
    }

    #[test]
    fn memory_is_bounded() {
        let mut passed = Passed::default();
        for author in 0..10 * MAX_SESSIONS_PER_DOCUMENT {
            assert!(passed.is_new(&message(&format!("author {author}"), 1)));
        }
        assert_eq!(passed.last.len(), MAX_SESSIONS_PER_DOCUMENT);
        assert_eq!(passed.order.len(), MAX_SESSIONS_PER_DOCUMENT);
    }
}
