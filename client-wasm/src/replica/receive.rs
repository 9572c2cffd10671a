//! Taking in one sync message.
//!
//! The same as Automerge's `receive_sync_message`, but for one step: to forget which changes were sent and have
//! arrived, Automerge walks the whole history for every message, acknowledgements included. Here the walk is over what
//! the server lacks, which is what was typed in the last moments.

use automerge::sync::{Message, MessageFlags, State, SyncDoc as _};
use automerge::{AutoCommit, AutomergeError, ChangeHash};
use std::collections::HashSet;

/// Applies the message's changes, and notes what its sender has.
pub(super) fn receive(
    doc: &mut AutoCommit,
    state: &mut State,
    message: Message,
) -> Result<(), AutomergeError> {
    // Capabilities can only be noted by Automerge: it does the first message of a session.
    if state.their_capabilities.is_none() {
        return doc.sync().receive_sync_message(state, message);
    }
    state.in_flight = false;
    let before = doc.get_heads();
    if let Some(flags) = message.flags {
        if flags.contains(MessageFlags::SYNC_RESET) {
            state.sent_hashes.clear();
        }
        state.peer_read_only = flags.contains(MessageFlags::READ_ONLY);
    }
    let has_changes = !message.changes.is_empty();
    if has_changes {
        let chunks: Vec<&[u8]> = message.changes.iter().collect();
        let new = apply(doc, &chunks.concat())?;
        let heads = doc.get_heads();
        state.shared_heads.retain(|head| heads.contains(head));
        add(&mut state.shared_heads, new);
    }

    let known =
        |doc: &mut AutoCommit, head: &ChangeHash| doc.get_change_meta_by_hash(head).is_some();
    let mut theirs = message.heads.clone();
    theirs.retain(|head| known(doc, head));
    if !state.sent_hashes.is_empty() {
        let unseen = doc.get_changes_meta(&theirs);
        let unseen: HashSet<ChangeHash> = unseen.iter().map(|change| change.hash).collect();
        state.sent_hashes.retain(|hash| unseen.contains(hash));
    }

    if !has_changes && message.heads == before {
        state.last_sent_heads.clone_from(&message.heads);
    }
    if theirs.len() == message.heads.len() {
        state.shared_heads = theirs;
        if message.heads.is_empty() {
            // It lost everything: all is sent again.
            state.last_sent_heads.clear();
            state.sent_hashes.clear();
        }
    } else {
        add(&mut state.shared_heads, theirs);
    }
    state.their_have = Some(message.have);
    state.their_heads = Some(message.heads);
    state.their_need = Some(message.need);
    Ok(())
}

/// Applies the first changes of a message, of which the rest comes later, and with it what both have in the end. Until
/// then what was shared stays so, also where it is no head any more.
pub(super) fn receive_part(
    doc: &mut AutoCommit,
    state: &mut State,
    changes: &[u8],
) -> Result<(), AutomergeError> {
    let mut new = apply(doc, changes)?;
    // An own change that waited for what came is not the server's by that.
    new.retain(|head| {
        let change = doc.get_change_by_hash(head);
        change.is_some_and(|change| contains(changes, change.raw_bytes()))
    });
    add(&mut state.shared_heads, new);
    Ok(())
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

fn add(shared: &mut Vec<ChangeHash>, heads: Vec<ChangeHash>) {
    shared.extend(heads);
    shared.sort_unstable();
    shared.dedup();
}

/// Applies changes; the heads that came by them.
fn apply(doc: &mut AutoCommit, changes: &[u8]) -> Result<Vec<ChangeHash>, AutomergeError> {
    let before = doc.get_heads();
    doc.load_incremental(changes)?;
    let mut heads = doc.get_heads();
    heads.retain(|head| !before.contains(head));
    Ok(heads)
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable as _;
    use automerge::{ActorId, ROOT};
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Edit(bool),
        Send(bool),
        Lose(bool),
        /// Past the session, as changes come from another tab.
        Merge(bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => any::<bool>().prop_map(Step::Edit),
            6 => any::<bool>().prop_map(Step::Send),
            1 => any::<bool>().prop_map(Step::Lose),
            1 => any::<bool>().prop_map(Step::Merge),
        ]
    }

    proptest! {
        /// Two documents exchange messages; some are lost with the connection. After each the two ways of taking
        /// it have come to the same.
        #[test]
        fn it_is_what_automerge_does(steps in prop::collection::vec(step(), 1..60)) {
            let actor = |n: u8| AutoCommit::new().with_actor(ActorId::from([n; 8]));
            let mut docs = [actor(1), actor(2)];
            let mut states = [State::new(), State::new()];
            let mut ours = 0;
            for (n, step) in (0i64..).zip(steps) {
                match step {
                    Step::Edit(who) => {
                        let doc = &mut docs[usize::from(who)];
                        doc.put(ROOT, "key", n).unwrap();
                        doc.commit();
                    }
                    Step::Send(who) => {
                        let (from, to) = (usize::from(who), usize::from(!who));
                        let message = docs[from].sync().generate_sync_message(&mut states[from]);
                        let Some(message) = message else { continue };
                        let mut theirs = (docs[to].clone(), states[to].clone());
                        theirs.0.sync().receive_sync_message(&mut theirs.1, message.clone()).unwrap();
                        ours += usize::from(states[to].their_capabilities.is_some());
                        receive(&mut docs[to], &mut states[to], message).unwrap();
                        prop_assert_eq!(&states[to], &theirs.1);
                        prop_assert_eq!(docs[to].get_heads(), theirs.0.get_heads());
                    }
                    Step::Merge(who) => {
                        let from = docs[usize::from(!who)].save();
                        docs[usize::from(who)].load_incremental(&from).unwrap();
                    }
                    Step::Lose(who) => {
                        // Whoever begins anew has lost everything; both begin a session.
                        if n % 3 == 0 {
                            docs[usize::from(who)] = actor(u8::try_from(n).unwrap() + 3);
                        }
                        states = states.map(|state| State::decode(&state.encode()).unwrap());
                    }
                }
            }
            // Not only by Automerge itself.
            prop_assume!(ours > 0);
        }
    }
}
