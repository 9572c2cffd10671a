//! A document for whoever asks: what they may do with it are the methods that it has. There is no other way from a
//! request to a document.
//!
//! Who may not read a document is told that it is not there, and so is who asks for one that is not.

use std::ops::{Deref, Range};
use std::sync::Arc;

use automerge::ChangeHash;
use concord_shared::access::{AccessList, Role};
use concord_shared::code::ErrorCode;
use concord_shared::ids::DocumentId;

use super::{Documents, unreadable};
use crate::access::{Grant, Identity, Operator, TokenError};
use crate::audit::Trail;
use crate::audit::event::Event as Audited;
use crate::connection::refusals::Refusals;
use crate::document::graph::{Index, Stretch};
use crate::document::registry::{NotListed, Replaces};
use crate::http::problem::{Code, Problem};
use crate::limits::account::Account;
use crate::view::{Core, Event, Events, Place, ViewError};

/// A document that is there, for who may read it.
pub(super) struct Reader {
    pub(super) documents: Documents,
    pub(super) grant: Grant,
}

/// For who may write to it, too.
pub(super) struct Writer(Reader);

/// For who may say who may do what with it, too.
pub(super) struct Owner(Reader);

/// One that may not be there yet, for who may write to it or make it.
pub(super) struct Maker {
    documents: Documents,
    grant: Grant,
}

/// What somebody may do with a document, and whether it is there.
struct Seen {
    grant: Grant,
    is_for_them: bool,
    is_there: bool,
}

impl Seen {
    fn is_for_them_and_there(&self) -> bool {
        self.is_for_them && self.is_there
    }

    /// For who has this role. It is recorded whether they have, unless it is not there and they might make it.
    fn reader(self, documents: &Documents, role: Role) -> Result<Reader, Problem> {
        let Self {
            grant,
            is_for_them,
            is_there,
        } = self;
        if is_there || !is_for_them {
            grant.record(role);
        }
        must_be(&grant, role)?;
        if !is_there {
            return Err(no_document(grant.document()));
        }
        let documents = documents.clone();
        Ok(Reader { documents, grant })
    }
}

impl Deref for Writer {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.0
    }
}

impl Deref for Owner {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.0
    }
}

impl Documents {
    /// For who may read it.
    pub(super) async fn reader(&self, who: &Identity, id: &DocumentId) -> Result<Reader, Problem> {
        self.there(who, id, Role::Reader).await
    }

    /// For who may write to it.
    pub(super) async fn writer(&self, who: &Identity, id: &DocumentId) -> Result<Writer, Problem> {
        Ok(Writer(self.there(who, id, Role::Writer).await?))
    }

    /// For who owns it.
    pub(super) async fn owner(&self, who: &Identity, id: &DocumentId) -> Result<Owner, Problem> {
        Ok(Owner(self.there(who, id, Role::Owner).await?))
    }

    /// For who owns it. `None`: they may know that it is deleted already.
    pub(super) async fn owner_unless_deleted(
        &self,
        who: &Identity,
        id: &DocumentId,
    ) -> Result<Option<Owner>, Problem> {
        let seen = self.seen(who, id).await?;
        if !seen.is_for_them_and_there() {
            match self.found(&seen.grant).await {
                Ok(_) => {
                    seen.grant.record_as(Role::Owner, Role::Owner);
                    return Ok(None);
                }
                Err(problem) if problem.is(Code::NoDocument) => {}
                Err(problem) => return Err(problem),
            }
        }
        Ok(Some(Owner(seen.reader(self, Role::Owner)?)))
    }

    /// For who owns it, if it is there now: of somebody of whom it was asked, and recorded, before.
    pub(super) async fn owner_if_there(
        &self,
        who: &Identity,
        id: &DocumentId,
    ) -> Result<Option<Owner>, Problem> {
        let seen = self.seen(who, id).await?;
        let is_theirs = seen.is_for_them_and_there() && seen.grant.role() == Role::Owner;
        let (documents, grant) = (self.clone(), seen.grant);
        Ok(is_theirs.then_some(Owner(Reader { documents, grant })))
    }

    /// For who may write to it, or make it.
    pub(super) async fn maker(&self, who: &Identity, id: &DocumentId) -> Result<Maker, Problem> {
        let grant = self.grant(who, id).await?;
        grant.record(Role::Writer);
        must_be(&grant, Role::Writer)?;
        let documents = self.clone();
        Ok(Maker { documents, grant })
    }

    /// For who may make a document under an id that nobody chose.
    pub(super) async fn maker_of_new(
        &self,
        who: &Identity,
        id: &DocumentId,
    ) -> Result<Maker, Problem> {
        let grant = self.grant(who, id).await?;
        grant.record(Role::Writer);
        if grant.role() < Role::Writer {
            return Err(Problem::new(
                Code::NotAllowed,
                "they may not make documents",
            ));
        }
        let documents = self.clone();
        Ok(Maker { documents, grant })
    }

    /// For who may see what concerns the server.
    pub(in crate::http) fn operator(&self, who: &Identity) -> Result<Operator, Problem> {
        let operator = self.grants.operator(who);
        operator.ok_or_else(|| Problem::new(Code::NotAllowed, "this is for operators"))
    }

    /// What was refused.
    pub(in crate::http) fn refusals(&self, _: Operator) -> &Refusals {
        &self.refusals
    }

    async fn there(&self, who: &Identity, id: &DocumentId, role: Role) -> Result<Reader, Problem> {
        self.seen(who, id).await?.reader(self, role)
    }

    async fn seen(&self, who: &Identity, id: &DocumentId) -> Result<Seen, Problem> {
        let grant = self.grant(who, id).await?;
        // Whoever asks for what is not there must not make the server open it. Of what is not for them it is asked as well,
        // and in the same way whether others have it open, so that it takes as long.
        let is_for_them = grant.role() > Role::None;
        let is_there = is_for_them && self.views.is_open(id) || self.is_stored(id).await?;
        Ok(Seen {
            grant,
            is_for_them,
            is_there,
        })
    }

    pub(super) async fn grant(&self, who: &Identity, id: &DocumentId) -> Result<Grant, Problem> {
        let granted = self.grants.grant(who, id).await;
        let grant = granted.map_err(|error| unreadable(&error))?;
        if grant.is_undecided() {
            return Err(Problem::new(Code::Undecided, ""));
        }
        Ok(grant)
    }

    async fn is_stored(&self, id: &DocumentId) -> Result<bool, Problem> {
        let id = id.clone();
        self.stored(move |store| store.holds(&id)).await
    }
}

impl Reader {
    /// Which.
    pub(super) fn id(&self) -> &DocumentId {
        self.grant.document()
    }

    /// Which changes are durable at these places.
    pub(super) async fn stretch(&self, places: Range<Index>) -> Result<Stretch, Problem> {
        Ok(self.documents.views.stretch(&self.grant, places).await?)
    }

    /// The place of a durable change.
    pub(super) async fn place(&self, hash: ChangeHash) -> Result<Option<Index>, Problem> {
        Ok(self.documents.views.place(&self.grant, hash).await?)
    }

    /// Runs a job on the document.
    pub(super) async fn see<R: Send + 'static>(
        &self,
        job: impl FnOnce(&Core) -> Result<R, Problem> + Send + 'static,
    ) -> Result<R, Problem> {
        self.run(Role::Reader, |core| job(core)).await
    }

    /// Watches a place in it, from a version on.
    pub(super) async fn watch(
        &self,
        place: Place,
        seen: Option<Vec<ChangeHash>>,
        account: Arc<Account>,
    ) -> Result<(Option<Arc<Event>>, Events), Problem> {
        let watch = move |core: &mut Core| Ok(core.watch(&place, seen.as_deref(), account)?);
        self.run(Role::Reader, watch).await
    }

    /// What was granted may have been taken away while the job waited.
    async fn run<R: Send + 'static>(
        &self,
        role: Role,
        job: impl FnOnce(&mut Core) -> Result<R, Problem> + Send + 'static,
    ) -> Result<R, Problem> {
        let grant = self.grant.clone();
        let made = self.documents.views.run(&self.grant, move |core| {
            must_be(&grant, role)?;
            if core.heads().is_empty() {
                return Err(no_document(grant.document()));
            }
            job(core)
        });
        answered(&self.grant, made.await, role)
    }
}

impl Writer {
    /// Runs a job on the document, which may change it.
    pub(super) async fn edit<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Core) -> Result<R, Problem> + Send + 'static,
    ) -> Result<R, Problem> {
        self.documents.views.room(&self.grant).await??;
        self.run(Role::Writer, job).await
    }
}

impl Owner {
    /// Says who may do what from here on. The number of what was said.
    pub(super) async fn set_list(
        &self,
        list: AccessList,
        replaces: Option<Replaces>,
    ) -> Result<u64, Problem> {
        let views = &self.documents.views;
        let set = views.set_list(&self.grant, list, replaces).await?;
        set.map_err(|refused| match refused {
            NotListed::NoLists => Problem::new(Code::OpenToAll, refused.to_string()),
            NotListed::NotOwner(role) => must_be(&self.grant, Role::Owner)
                .err()
                .unwrap_or_else(|| lacking(self.id(), role, Role::Owner)),
            NotListed::Changed => Problem::new(Code::UnknownHeads, refused.to_string()),
            NotListed::TooLarge => Problem::new(Code::BadAccessList, refused.to_string()),
            NotListed::OverQuota(over) => over.into(),
        })
    }

    /// Deletes it.
    pub(super) async fn delete(&self) -> Result<(), Problem> {
        let deleted = self.documents.views.delete(&self.grant).await?;
        if deleted {
            return Ok(());
        }
        must_be(&self.grant, Role::Owner).and(Err(no_document(self.id())))
    }
}

impl Maker {
    /// Which.
    pub(super) fn id(&self) -> &DocumentId {
        self.grant.document()
    }

    /// Whether it is not there, and nobody's.
    pub(super) fn is_unborn(&self) -> bool {
        self.grant.is_unborn()
    }

    /// Where what is done with it is recorded.
    pub(super) fn trail(&self) -> &Trail {
        self.grant.trail()
    }

    pub(super) fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Runs a job on the document, which is empty if it is not there, and belongs to who asks from here on.
    pub(super) async fn make<R: Send + 'static>(
        &self,
        account: &Arc<Account>,
        job: impl FnOnce(&mut Core) -> Result<R, Problem> + Send + 'static,
    ) -> Result<R, Problem> {
        // The body may have taken its time.
        must_be(&self.grant, Role::Writer)?;
        let is_unborn = self.is_unborn();
        let _claimed = if is_unborn {
            account.new_document()?;
            if let Some(maker) = self.grant.principal() {
                self.documents.callers.ledger.may_make(maker, 0)?;
            }
            Some(self.documents.views.claim(&self.grant).await?)
        } else {
            None
        };
        self.documents.views.room(&self.grant).await??;
        let account = Arc::clone(account);
        let grant = self.grant.clone();
        let made = self.documents.views.run(&self.grant, move |core| {
            must_be(&grant, Role::Writer)?;
            // What somebody else is about to make is not for others to fill; nor is what is nobody's, since somebody else's
            // hold on it, of the same principal, ended.
            let is_empty = core.heads().is_empty();
            if grant.is_unborn() || is_empty && grant.is_claimed_by_another() {
                return Err(ViewError(ErrorCode::Overloaded).into());
            }
            // Who makes a document owns it.
            if is_empty {
                must_be(&grant, Role::Owner)?;
            }
            // Where nobody has to say who they are it is not known sooner.
            if !is_unborn && is_empty {
                account.new_document()?;
            }
            job(core)
        });
        answered(&self.grant, made.await, Role::Writer)
    }
}

/// What a job gave. If it is not known what became of it, that may be since the document was deleted, or taken from whoever
/// asked, meanwhile.
fn answered<R>(
    grant: &Grant,
    made: Result<Result<R, Problem>, ViewError>,
    role: Role,
) -> Result<R, Problem> {
    made.or_else(|error| must_be(grant, role).and(Err(error.into())))?
}

/// Refuses who may do less, or is nobody any more.
fn must_be(grant: &Grant, role: Role) -> Result<(), Problem> {
    if grant.is_over() {
        let code = Code::TokenExpired;
        let refused = Audited::NotIdentified {
            code: code.as_str(),
        };
        grant.trail().record(&refused);
        return Err(Problem::new(code, TokenError::Expired.to_string()));
    }
    match grant.role() {
        has if has < role => Err(lacking(grant.document(), has, role)),
        _ => Ok(()),
    }
}

/// Who has a role that is less than what is needed.
fn lacking(document: &DocumentId, has: Role, needs: Role) -> Problem {
    if has == Role::None {
        return no_document(document);
    }
    let detail = format!("they are {has} of this document, and no {needs}");
    Problem::new(Code::NotAllowed, detail)
}

pub(super) fn no_document(id: &DocumentId) -> Problem {
    Problem::new(Code::NoDocument, format!("there is no document {id}"))
}
