//! Grants: what somebody may do with a document, as values that only this module makes. Whoever opens, reads or writes a
//! document takes one, so that there is no way past it.
//!
//! A [`Grant`] does not say what was allowed once. It looks at what is known of the document now, at each question, so
//! what is taken away is gone at once for those who hold one, and [`Grant::changed`] wakes those who only wait.
//!
//! What is known of a document ([`Standing`]) is read from the store when the first grant of it is made, and shared by
//! all that are held, and kept for a while for those that come soon after. **It is written by the document's task alone,
//! like all of the document, in the order in which it was said.** What takes from somebody, or gives, holds as soon as it
//! is durable. Whose a new document is holds at once ([`Standing::Claimed`]), and is written right before its first change:
//! if nothing is written it is nobody's again. Where the server dies in between there is a list without a document:
//! whoever may write by it may make the document.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use concord_shared::access::{AccessList, Role};
use concord_shared::ids::{DocumentId, PrincipalId};
use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, watch};

use super::identity::Identity;
use super::policy::{Rules, Standing};
use super::search::{Search, labels_of};
use super::webhook::{Decision, Webhook};
use crate::audit::Trail;
use crate::audit::event::Event;
use crate::clock::unix_ms;
use crate::store::{Store, StoreError, Tombstone, Write};
use crate::view::Own;

pub use deleted::Deletion;

mod deleted;
#[cfg(test)]
mod tests;

/// Standings that nobody holds any more are looked for when so many came since.
const LEAST_BETWEEN_PRUNING: usize = 1024;

/// Standings that are kept though nobody holds them, the last that were read: who asks again soon, as HTTP clients do,
/// does not make the store be read again. Nobody but this process changes what is stored.
const KEPT_STANDINGS: usize = 256;

/// One entry of a document's access log, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was said, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// By whom.
    pub by: String,
    /// What.
    pub list: AccessList,
}

/// First byte of a stored entry: JSON follows.
const FORMAT: u8 = 1;

impl Entry {
    /// As bytes.
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![FORMAT];
        // Maps of text to text can't fail.
        let _written = serde_json::to_writer(&mut bytes, self);
        bytes.into()
    }

    /// From bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&FORMAT, json) = bytes.split_first()? else {
            return None;
        };
        serde_json::from_slice(json).ok()
    }
}

/// What is known of a document, shared by all grants of it.
#[derive(Debug)]
struct Cell {
    /// Nothing, before it was read.
    standing: watch::Sender<Standing>,
    read: OnceCell<()>,
}

/// Gives grants out. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Grants(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rules: Rules,
    store: Arc<dyn Store>,
    webhook: Option<Webhook>,
    cells: Mutex<Cells>,
}

#[derive(Debug, Default)]
struct Cells {
    known: HashMap<DocumentId, Weak<Cell>>,
    /// The last that were read, the oldest first.
    recent: VecDeque<Arc<Cell>>,
    /// How many there may be before those that are gone are looked for.
    prune_at: usize,
}

/// What somebody may do with one document. See the module's docs.
#[derive(Debug, Clone)]
pub struct Grant {
    document: DocumentId,
    of: Of,
}

#[derive(Debug, Clone)]
enum Of {
    /// The server itself.
    All,
    Somebody(Box<Somebody>),
}

#[derive(Debug, Clone)]
struct Somebody {
    grants: Grants,
    identity: Identity,
    cell: Arc<Cell>,
    seen: watch::Receiver<Standing>,
    /// What an application says, where it is asked of them.
    decision: Option<Arc<Decision>>,
    /// What was allowed when it was recorded last.
    noticed: Role,
}

impl Somebody {
    fn role(&self, document: &DocumentId, standing: &Standing) -> Role {
        let decided = self.decision.as_ref().map(|decision| decision.role());
        let rules = &self.grants.0.rules;
        rules.role(&self.identity, document, standing, decided)
    }
}

/// Somebody makes a document: what has to be written before its first change.
#[derive(Debug)]
#[must_use = "a document is written to after its list"]
pub struct Claim {
    write: Write,
    by: Grant,
}

impl Claim {
    /// What has to be written, and whose it is. From here on it is somebody's for good, or the write fails.
    pub fn into_write(self) -> (Write, Grant) {
        (self.write, self.by)
    }

    /// By whom.
    pub fn principal(&self) -> Option<&PrincipalId> {
        self.by.principal()
    }

    /// What that takes, in bytes.
    pub fn bytes(&self) -> u64 {
        self.write.payload_bytes() as u64
    }

    /// Nothing was written of the document: it is nobody's again.
    pub fn give_back(self) {
        if let Of::Somebody(somebody) = &self.by.of {
            somebody.cell.standing.send_if_modified(|standing| {
                let is_claimed = matches!(standing, Standing::Claimed(..));
                if is_claimed {
                    *standing = Standing::Unborn;
                }
                is_claimed
            });
        }
    }
}

/// May see what concerns the server, and not one document.
#[derive(Debug, Clone, Copy)]
pub struct Operator(());

impl Grants {
    /// By these rules, over what `store` knows; and by what an application says, if one is to be asked.
    pub fn new(rules: Rules, webhook: Option<Webhook>, store: Arc<dyn Store>) -> Self {
        let cells = Mutex::default();
        Self(Arc::new(Inner {
            rules,
            store,
            webhook,
            cells,
        }))
    }

    /// What somebody may do with a document. Reads what is known of it, if nobody holds a grant of it.
    pub async fn grant(
        &self,
        identity: &Identity,
        document: &DocumentId,
    ) -> Result<Grant, StoreError> {
        let cell = self.cell(document);
        let was_known = cell.read.initialized();
        cell.read
            .get_or_try_init(|| self.read(document, &cell))
            .await?;
        let seen = cell.standing.subscribe();
        let decision = match self.webhook_for(identity) {
            Some(webhook) => {
                let (grants, of) = (Arc::downgrade(&self.0), document.clone());
                let changed = move || wake(&grants, &of);
                Some(webhook.decide(identity, document, changed).await)
            }
            None => None,
        };
        let mut somebody = Somebody {
            grants: self.clone(),
            identity: identity.clone(),
            cell,
            seen,
            decision,
            noticed: Role::None,
        };
        somebody.noticed = somebody.role(document, &somebody.cell.standing.borrow());
        let is_unborn = *somebody.cell.standing.borrow() == Standing::Unborn;
        if was_known && (somebody.noticed == Role::None || is_unborn) {
            // What is known already is known at once. By that those who have no role could tell that somebody has the
            // document open, so for them it is read all the same, and so is what is not there.
            self.look(document).await?;
        }
        Ok(Grant {
            document: document.clone(),
            of: Of::Somebody(Box::new(somebody)),
        })
    }

    /// What is asked about somebody, if nothing else decides what they may do.
    fn webhook_for(&self, identity: &Identity) -> Option<&Webhook> {
        let webhook = self.0.webhook.as_ref()?;
        let is_decided = identity.claimed.is_some() || self.0.rules.is_operator(identity);
        (!is_decided).then_some(webhook)
    }

    /// Whether it is known here which documents somebody may read.
    pub fn knows_documents_of(&self, identity: &Identity) -> bool {
        self.webhook_for(identity).is_none()
    }

    /// For the server's own work on a document, as its view: for whom that is done is looked at by whoever asks for it.
    pub fn server(document: &DocumentId, _: Own) -> Grant {
        Grant {
            document: document.clone(),
            of: Of::All,
        }
    }

    /// For those who may see what concerns the server.
    pub fn operator(&self, identity: &Identity) -> Option<Operator> {
        let may = self.0.rules.is_operator(identity);
        identity.trail.record(&Event::Operator { is_one: may });
        may.then_some(Operator(()))
    }

    /// Where the documents are that somebody is told of.
    pub fn search(&self, who: &Identity) -> Search {
        self.0.rules.search(who)
    }

    /// Whether somebody is told of a document that the store listed. Blocks.
    pub fn is_listed(&self, who: &Identity, document: &DocumentId) -> Result<bool, StoreError> {
        let rules = &self.0.rules;
        if rules.is_operator(who) {
            // What was deleted is not listed.
            return Ok(true);
        }
        let held = self.lock().known.get(document).and_then(Weak::upgrade);
        if let Some(cell) = held.filter(|cell| cell.read.initialized()) {
            return Ok(rules.is_listed(who, document, &cell.standing.borrow()));
        }
        let found = Found::read(&*self.0.store, document, rules.is_open)?;
        Ok(rules.is_listed(who, document, &found.standing()))
    }

    /// The one that all grants of the document share. It is in the map before it is read, so whoever would change what
    /// is known meanwhile waits for that, and changes this one: what was read before can't be put in its place.
    fn cell(&self, document: &DocumentId) -> Arc<Cell> {
        let mut cells = self.lock();
        if let Some(cell) = cells.known.get(document).and_then(Weak::upgrade) {
            return cell;
        }
        let cell = Arc::new(Cell {
            standing: watch::Sender::new(Standing::Unlisted),
            read: OnceCell::new(),
        });
        cells.known.insert(document.clone(), Arc::downgrade(&cell));
        cells.recent.push_back(Arc::clone(&cell));
        if cells.recent.len() > KEPT_STANDINGS {
            cells.recent.pop_front();
        }
        if cells.known.len() > cells.prune_at {
            cells.known.retain(|_, cell| cell.strong_count() > 0);
            cells.prune_at = cells.known.len() * 2 + LEAST_BETWEEN_PRUNING;
        }
        cell
    }

    async fn read(&self, document: &DocumentId, cell: &Cell) -> Result<(), StoreError> {
        let found = self.look(document).await?;
        cell.standing.send_replace(found.standing());
        Ok(())
    }

    async fn look(&self, document: &DocumentId) -> Result<Found, StoreError> {
        let (store, id) = (Arc::clone(&self.0.store), document.clone());
        let is_open = self.0.rules.is_open;
        let reading = tokio::task::spawn_blocking(move || Found::read(&*store, &id, is_open));
        reading.await.map_err(|_| StoreError::Poisoned)?
    }

    fn lock(&self) -> MutexGuard<'_, Cells> {
        self.0.lock()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Cells> {
        // Nothing that holds the lock can panic half way through a change.
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody may do something else with the document than before: all who hold a grant of it look again.
fn wake(grants: &Weak<Inner>, document: &DocumentId) {
    let grants = grants.upgrade();
    let cell = grants.and_then(|grants| grants.lock().known.get(document)?.upgrade());
    if let Some(cell) = cell {
        cell.standing.send_modify(|_| {});
    }
}

/// What the store has that says how a document stands.
struct Found {
    tombstone: Option<Tombstone>,
    said: Option<(u64, Bytes)>,
    is_there: bool,
}

impl Found {
    /// All that is asked is asked of every document, so that it takes as long for one that is not there. Where nobody has
    /// to say who they are nothing matters but whether it was deleted. Blocks.
    fn read(store: &dyn Store, document: &DocumentId, is_open: bool) -> Result<Self, StoreError> {
        let tombstone = store.tombstone(document)?;
        let said = if is_open {
            None
        } else {
            store.access(document)?
        };
        let is_there = is_open || store.holds(document)?;
        Ok(Self {
            tombstone,
            said,
            is_there,
        })
    }

    fn standing(&self) -> Standing {
        if self.tombstone.is_some() {
            return Standing::Deleted;
        }
        match self.listed() {
            Some(listed) => listed,
            None if self.is_there => Standing::Unlisted,
            None => Standing::Unborn,
        }
    }

    /// How a deleted document stood before, and stands if that is taken back: nothing that says so has changed since.
    fn before(&self) -> Standing {
        self.listed().unwrap_or(Standing::Unlisted)
    }

    fn listed(&self) -> Option<Standing> {
        let (number, entry) = self.said.as_ref()?;
        // An entry that can't be read lets nobody in but operators.
        let list = Entry::decode(entry).map_or_else(AccessList::default, |entry| entry.list);
        Some(Standing::Listed(*number, list))
    }
}

impl Grant {
    /// Of which document.
    pub fn document(&self) -> &DocumentId {
        &self.document
    }

    /// What is allowed now.
    pub fn role(&self) -> Role {
        match &self.of {
            Of::All => Role::Owner,
            Of::Somebody(somebody) => {
                let standing = somebody.cell.standing.borrow();
                somebody.role(&self.document, &standing)
            }
        }
    }

    /// Whether whoever holds this is nobody any more: their token is over.
    pub fn is_over(&self) -> bool {
        match &self.of {
            Of::All => false,
            Of::Somebody(somebody) => somebody.identity.is_over(),
        }
    }

    /// Whether nothing is allowed because the application that decides does not answer.
    pub fn is_undecided(&self) -> bool {
        match &self.of {
            Of::All => false,
            Of::Somebody(somebody) => {
                let decision = somebody.decision.as_ref();
                decision.is_some_and(|decision| !decision.is_answered())
            }
        }
    }

    /// Where what whoever holds this does with the document is recorded.
    pub fn trail(&self) -> &Trail {
        match &self.of {
            Of::All => Trail::off(),
            Of::Somebody(somebody) => &somebody.identity.trail,
        }
    }

    /// Records whether this allows what `needs` allows.
    pub fn record(&self, needs: Role) {
        self.record_as(self.role(), needs);
    }

    /// Records that this role was found, in a document that is deleted.
    pub fn record_as(&self, role: Role, needs: Role) {
        self.trail().record(&Event::Document {
            document: &self.document,
            role,
            needs,
        });
    }

    /// What was allowed when that was recorded last.
    pub fn noticed(&self) -> Role {
        match &self.of {
            Of::All => Role::Owner,
            Of::Somebody(somebody) => somebody.noticed,
        }
    }

    /// In the place of another grant, for which this was recorded last.
    #[must_use]
    pub fn noticed_as(mut self, role: Role) -> Self {
        if let Of::Somebody(somebody) = &mut self.of {
            somebody.noticed = role;
        }
        self
    }

    /// Records what is allowed, if that is not what it was; and tells it.
    pub fn notice(&mut self) -> Role {
        let after = self.role();
        if let Of::Somebody(somebody) = &mut self.of {
            let before = std::mem::replace(&mut somebody.noticed, after);
            if before != after {
                somebody.identity.trail.record(&Event::Role {
                    document: &self.document,
                    before,
                    after,
                });
            }
        }
        after
    }

    /// Whose; nobody's in particular, for the server itself.
    pub fn principal(&self) -> Option<&PrincipalId> {
        match &self.of {
            Of::All => None,
            Of::Somebody(somebody) => Some(&somebody.identity.principal),
        }
    }

    /// Whether what is allowed can ever change.
    pub fn can_change(&self) -> bool {
        matches!(self.of, Of::Somebody(_))
    }

    /// Whether the document is not there yet, and nobody's.
    pub fn is_unborn(&self) -> bool {
        match &self.of {
            Of::All => false,
            Of::Somebody(somebody) => *somebody.cell.standing.borrow() == Standing::Unborn,
        }
    }

    /// Whether somebody else is about to make the document.
    pub fn is_claimed_by_another(&self) -> bool {
        match (&self.of, self.principal()) {
            (Of::Somebody(somebody), Some(me)) => {
                matches!(&*somebody.cell.standing.borrow(), Standing::Claimed(by, _) if by != me)
            }
            _ => false,
        }
    }

    /// What this claimed is written.
    pub fn now_made(&self) {
        if let Of::Somebody(somebody) = &self.of {
            // Nobody may do more or less by that.
            somebody.cell.standing.send_if_modified(|standing| {
                if let Standing::Claimed(_, list) = standing {
                    *standing = Standing::Listed(0, std::mem::take(list));
                }
                false
            });
        }
    }

    /// Waits until what is known of the document has changed since the last call. Cancel safe.
    pub async fn changed(&mut self) {
        // The sender lives as long as the grant.
        if let Of::Somebody(somebody) = &mut self.of
            && somebody.seen.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }

    /// Takes a document that is not there yet for whoever holds this grant, if it allows that: nobody else can from here
    /// on. `None` where there is nothing to take.
    pub fn claim(&self) -> Option<Claim> {
        let Of::Somebody(somebody) = &self.of else {
            return None;
        };
        // Asked for each message with changes: the lock that is shared suffices for nearly all of them.
        if !self.is_unborn() {
            return None;
        }
        let principal = &somebody.identity.principal;
        let mut claimed = None;
        somebody.cell.standing.send_if_modified(|standing| {
            let may = somebody.role(&self.document, standing) == Role::Owner;
            if *standing != Standing::Unborn || !may {
                return false;
            }
            let list = somebody.grants.0.rules.list_of(principal);
            *standing = Standing::Claimed(principal.clone(), list.clone());
            claimed = Some(list);
            true
        });
        claimed.map(|list| Claim {
            write: self.entry(0, principal, list),
            by: self.clone(),
        })
    }

    /// The last that was said of who may do what, and is stored, and its number. `None` where nothing was, or nobody has to
    /// say who they are.
    pub fn list(&self) -> Option<(u64, AccessList)> {
        let Of::Somebody(somebody) = &self.of else {
            return None;
        };
        match &*somebody.cell.standing.borrow() {
            Standing::Listed(number, list) => Some((*number, list.clone())),
            Standing::Unborn | Standing::Claimed(..) | Standing::Unlisted | Standing::Deleted => {
                None
            }
        }
    }

    /// What has to be written for whoever holds this grant to say who may do what from here on, where `last` is the number
    /// of what was said last. Once it is durable, [`Self::now_listed`].
    pub fn say(&self, last: Option<u64>, list: &AccessList) -> Option<(u64, Write)> {
        let Of::Somebody(somebody) = &self.of else {
            return None;
        };
        let grants = &somebody.grants.0;
        if grants.rules.is_open || grants.webhook.is_some() {
            return None;
        }
        let number = last.map_or(0, |last| last + 1);
        let by = &somebody.identity.principal;
        Some((number, self.entry(number, by, list.clone())))
    }

    /// This was said, and holds for everybody from here on.
    pub fn now_listed(&self, number: u64, list: AccessList) {
        if let Of::Somebody(somebody) = &self.of {
            let before = self.list().map(|(_, list)| list).unwrap_or_default();
            self.trail().record(&Event::Access {
                document: &self.document,
                number,
                before: &before,
                after: &list,
            });
            somebody.cell.standing.send_if_modified(|standing| {
                // It may be deleted by now, which was said behind this.
                let is_there = *standing != Standing::Deleted;
                if is_there {
                    *standing = Standing::Listed(number, list);
                }
                is_there
            });
        }
    }

    /// Deletes the document, which takes so many bytes, for whoever holds this grant, and for all at once: what has to be
    /// written. `None` where they may not.
    pub fn delete(&self, bytes: u64) -> Option<Write> {
        let Of::Somebody(somebody) = &self.of else {
            return None;
        };
        if self.role() < Role::Owner || self.is_over() {
            return None;
        }
        somebody.cell.standing.send_replace(Standing::Deleted);
        Some(Write::Delete {
            document: self.document.clone(),
            at_ms: unix_ms(),
            by: somebody.identity.principal.clone(),
            bytes,
        })
    }

    /// What is known here may not be what is stored: it is read anew, for all who hold a grant. Only the document's task
    /// may say this, as long as there is no other one.
    pub async fn doubt(&self) {
        let Of::Somebody(somebody) = &self.of else {
            return;
        };
        let (grants, cell) = (&somebody.grants, &somebody.cell);
        if grants.read(&self.document, cell).await.is_err() {
            // Then whoever asks next is told so.
            grants.lock().known.remove(&self.document);
        }
    }

    fn entry(&self, number: u64, by: &PrincipalId, list: AccessList) -> Write {
        let labels = labels_of(&list);
        let entry = Entry {
            at_ms: unix_ms(),
            by: by.to_string(),
            list,
        };
        Write::Access {
            document: self.document.clone(),
            number,
            entry: entry.encode(),
            labels,
        }
    }
}

/// Everybody may make documents, and owns what they made.
#[cfg(test)]
pub(crate) fn grants_of_makers(store: Arc<dyn Store>) -> Grants {
    let rules = Rules {
        is_open: false,
        creators: vec!["anyone".parse().expect("a subject")],
        ..Rules::open()
    };
    Grants::new(rules, None, store)
}
