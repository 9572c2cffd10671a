//! What peers may do, as a document's task goes by it.
//!
//! A message is looked at when its turn comes, not when it arrives, so what came behind a change of access is judged by
//! that change. Those who may do nothing any more are put out at once, whether they say something or not.

use std::sync::Weak;

use concord_shared::access::Role;
use concord_shared::change::Change;
use concord_shared::code::ErrorCode;
use tokio::sync::oneshot;

use super::{Link, Pending, Task, Undone};
use crate::access::Grant;
use crate::access::grants::Claim;
use crate::connection::Goodbye;
use crate::document::ConnectionId;
use crate::document::actor::{Effects, Frame, Input, PeerMessage};
use crate::document::registry::{NewList, NotListed, Replaces};
use crate::limits::ledger::Bill;
use crate::store::{ACCESS_ENTRY_MAX_BYTES, Write};

impl Task {
    /// From now on the task notices when what somebody may do changes.
    pub(super) fn heed(&mut self, grant: &Grant) {
        if self.grant.is_none() && grant.can_change() {
            self.grant = Some(grant.clone());
        }
    }

    /// A peer opens the document, if it still may.
    pub(super) fn welcome(&mut self, connection: ConnectionId, link: Link, effects: &mut Effects) {
        if self.is_over {
            // As those who come when it has ended: who comes again finds what there is.
            link.outbox.close(Goodbye::new(ErrorCode::Closed));
            return;
        }
        self.heed(&link.grant);
        if let Err(over) = self.may_enter(connection, &link) {
            self.turn_out(&link, ErrorCode::OverQuota, &over);
            return;
        }
        let (role, is_to_begin) = (link.grant.role(), link.is_to_begin);
        self.links.insert(connection, link);
        if role == Role::None {
            self.put_out(connection, effects);
        } else if is_to_begin {
            self.input(Input::Begin(connection), effects);
            self.input(Input::Permit(connection, role >= Role::Writer), effects);
        }
    }

    /// What of an input its sender may say.
    pub(super) fn permitted(&mut self, input: Input, effects: &mut Effects) -> Option<Input> {
        if self.is_over {
            return matches!(input, Input::Leave(_)).then_some(input);
        }
        match input {
            Input::Message(from, mut message) => {
                // Who was put out, or cut off, and has not noticed.
                let grant = &self.links.get(&from)?.grant;
                let (role, brings) = (grant.role(), !message.changes.is_empty());
                let begins = brings && self.begins(&message);
                message.may_write = role >= Role::Writer;
                if role == Role::None {
                    self.put_out(from, effects);
                    return None;
                }
                if brings && message.may_write {
                    let may = self.may_add(from, &message, effects)
                        && (!begins || self.may_begin(from, effects));
                    if !may {
                        return None;
                    }
                } else if brings {
                    grant.record(Role::Writer);
                }
                Some(Input::Message(from, message))
            }
            Input::Ephemeral(from, ephemeral) => {
                let grant = &self.links.get(&from)?.grant;
                if grant.is_unborn() {
                    // Whoever else waits for it may have no role in it once it is made.
                    return None;
                }
                let may = grant.role() >= Role::Writer;
                if !may {
                    grant.record(Role::Writer);
                }
                may.then_some(Input::Ephemeral(from, ephemeral))
            }
            input => Some(input),
        }
    }

    /// Whether a message's changes, if they are taken in, are the first of the document. Such as wait for others are not:
    /// whose the document is, is not said by them.
    fn begins(&self, message: &PeerMessage) -> bool {
        let is_first = |change: &Change| change.deps.is_empty();
        self.document.graph().is_empty() && message.changes.iter().any(is_first)
    }

    /// Whether the document may begin with what somebody sent. It is theirs then: see [`Self::nothing_came_of_it`].
    fn may_begin(&mut self, from: ConnectionId, effects: &mut Effects) -> bool {
        let claim = self.links.get(&from).and_then(|link| link.grant.claim());
        self.claimed(claim, effects);
        // Nothing is written of what is nobody's: what they may do can end between two looks.
        let may = |link: &Link| !link.grant.is_unborn() && !link.grant.is_claimed_by_another();
        if self.links.get(&from).is_some_and(may) {
            return true;
        }
        // Else what they write would be in a document of somebody who has written nothing to it. Soon these have, or it is
        // nobody's again.
        self.input(Input::Leave(from), effects);
        if let Some(link) = self.links.remove(&from) {
            let why = "somebody else is making this document: come again";
            self.turn_out(&link, ErrorCode::Overloaded, &why);
        }
        false
    }

    /// What was claimed by a message is nobody's again at once, if the message was refused; and what was claimed by somebody
    /// who does not hold on to it any more.
    pub(super) fn nothing_came_of_it(&mut self) {
        self.holds.retain(|hold| hold.strong_count() > 0);
        let is_held = !self.holds.is_empty() || self.links.contains_key(&ConnectionId::VIEW);
        if self.claim.is_some() && self.document.graph().is_empty() && !is_held {
            self.give_back_claim();
        }
    }

    /// What peers may do has changed.
    pub(super) fn look_at_roles(&mut self, effects: &mut Effects) {
        let links = self.links.iter_mut();
        let roles: Vec<_> = links.map(|(of, link)| (*of, link.grant.notice())).collect();
        for (connection, role) in roles {
            self.permit(connection, role, effects);
        }
    }

    /// What a peer may do is in another grant from here on.
    pub(super) fn regrant(
        &mut self,
        connection: ConnectionId,
        grant: Grant,
        effects: &mut Effects,
    ) {
        // Who was put out meanwhile is in their connection's lobby, with the new one.
        if let Some(link) = self.links.get_mut(&connection) {
            link.grant = grant.noticed_as(link.grant.noticed());
            let role = link.grant.notice();
            self.permit(connection, role, effects);
        }
    }

    fn permit(&mut self, connection: ConnectionId, role: Role, effects: &mut Effects) {
        if role == Role::None {
            self.put_out(connection, effects);
        } else {
            let input = Input::Permit(connection, role >= Role::Writer);
            self.input(input, effects);
        }
    }

    /// For whoever is there the document is gone.
    fn put_out(&mut self, connection: ConnectionId, effects: &mut Effects) {
        self.input(Input::Leave(connection), effects);
        if let Some(mut link) = self.links.remove(&connection) {
            link.grant.notice();
            let last = link.frame(&self.id, &Frame::Unavailable);
            link.outbox.put_out(&self.id, &link.document, last);
        }
    }

    /// The document becomes that of whoever holds the grant, if it is nobody's and they may make it, for as long as they
    /// keep the hold, and for good once something is written.
    pub(super) fn claim(&mut self, grant: &Grant, hold: Weak<()>, effects: &mut Effects) {
        self.heed(grant);
        self.claimed(grant.claim(), effects);
        self.holds.push(hold);
    }

    fn claimed(&mut self, claim: Option<Claim>, effects: &mut Effects) {
        if let Some(claim) = claim {
            self.last_said = Some(0);
            self.bill.first_list(claim.bytes());
            if let Some(maker) = claim.principal() {
                self.shared.ledger.charge(&mut self.bill, maker);
            }
            self.claim = Some(claim);
            // What others sent that waits goes with them, if they may do nothing from here on: before what it waits for
            // comes, which may be next.
            self.look_at_roles(effects);
        }
    }

    /// Nothing came of what was claimed, and nothing is on its way: the document is nobody's again.
    pub(super) fn give_back_claim(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.shared.ledger.never_made(&mut self.bill);
            self.bill = Bill::default();
            self.last_said = None;
            claim.give_back();
        }
    }

    /// The document is to be deleted. Nobody is told anything of it any more, and nothing more comes into it: it is
    /// written behind what was admitted before, and the task ends with it.
    pub(super) fn delete(
        &mut self,
        grant: &Grant,
        give: oneshot::Sender<bool>,
        effects: &mut Effects,
    ) {
        let is_there = !self.document.graph().is_empty();
        let write = is_there.then(|| grant.delete(self.bill.bytes())).flatten();
        let Some(write) = write else {
            let _gone = give.send(false);
            return;
        };
        self.bill.keep();
        self.is_over = true;
        self.deletion = Some((write, grant.clone(), give));
        self.look_at_roles(effects);
        // Those of the server itself: a view.
        self.close_all(ErrorCode::Closed);
    }

    /// The document is to be there again. This task is of one that is not: nobody but a view has it open, and it ends with
    /// that, so that the next one reads what there is.
    pub(super) fn undelete(&mut self, undone: Undone) {
        let is_free = self.links.keys().all(|of| *of == ConnectionId::VIEW);
        if self.is_over {
            // It ends already: who asks is told by the channel's end.
        } else if is_free && self.document.graph().is_empty() {
            self.close_all(ErrorCode::Closed);
            self.is_over = true;
            let write = undone.0.undo();
            self.said.push((write, Pending::Undeletion(undone)));
        } else {
            let _gone = undone.1.send(false);
        }
    }

    /// Who may do what is to be changed.
    pub(super) fn set_list(&mut self, new: NewList) {
        let NewList {
            grant,
            list,
            replaces,
            give,
        } = new;
        self.heed(&grant);
        // What is on its way counts: it will hold before this does.
        let held = grant.list();
        let last = self.last_said.max(held.as_ref().map(|(number, _)| *number));
        let is_that = match replaces {
            None => true,
            Some(Replaces::Nothing) => last.is_none(),
            Some(Replaces::Something) => last.is_some(),
            Some(Replaces::Number(number)) => last == Some(number),
        };
        let is_there = !self.document.graph().is_empty();
        let role = if is_there { grant.role() } else { Role::None };
        let refused = if role < Role::Owner || grant.is_over() {
            Some(NotListed::NotOwner(role))
        } else if !is_that {
            Some(NotListed::Changed)
        } else {
            None
        };
        let said = grant.say(last, &list).ok_or(NotListed::NoLists);
        let said = refused.map_or(said, Err);
        if let (Ok(_), Some((number, held))) = (&said, held)
            && last == Some(number)
            && held == list
        {
            // It holds already.
            let _gone = give.send(Ok(number));
            return;
        }
        let room = |said: (u64, Write)| self.room_for_list(&said.1).map(|()| said);
        match said.and_then(room) {
            Ok((number, write)) => {
                self.last_said = Some(number);
                let pending = Pending::List {
                    grant,
                    number,
                    list,
                    give,
                };
                self.said.push((write, pending));
            }
            Err(refused) => {
                let _gone = give.send(Err(refused));
            }
        }
    }

    /// Whether what is to be said may be, as far as it is about how much there is. It counts from here on.
    fn room_for_list(&mut self, write: &Write) -> Result<(), NotListed> {
        let bytes = write.payload_bytes();
        if bytes > ACCESS_ENTRY_MAX_BYTES {
            return Err(NotListed::TooLarge);
        }
        Ok(self.shared.ledger.list(&mut self.bill, bytes as u64)?)
    }
}
