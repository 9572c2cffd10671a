//! Each message about a document, by each way to each role, with each kind of document: what the others who have it open
//! see of it, what comes back, and that the connection goes on.
//!
//! That nothing comes is known without waiting for it: what is asked behind a message, and written behind it, comes when
//! the server is done with the message, and what came before that is all that came of it.

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use automerge::sync::{self, MessageFlags, SyncDoc as _};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ChangeHash, ROOT, ReadDoc as _};
use concord_shared::access::Role;
use concord_shared::wire::{Kind, Message, RemoteHeads};
use concord_shared::{DocumentId, SessionId, StorageId};
use concord_tests::raw_client::RawClient;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::json;

use super::askers::{Asker, Decides, Fate, Realm};
use super::matrix::AT_A_TIME;
use super::operations::{Look, is_content};
use super::table::Table;
use super::{fresh, sync_data};

/// A store that nobody has.
const ELSEWHERE: &str = "elsewhere";

/// The rows of the table that say what a message about a document does. [`Kind::ALL`] has all messages.
pub(super) fn rows_of(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Request => &["request", "request with changes"],
        Kind::Sync => &["sync", "sync with changes"],
        Kind::DocUnavailable => &["doc-unavailable"],
        Kind::Ephemeral => &["ephemeral", "ephemeral, all are anonymous"],
        Kind::RemoteSubscriptionChange => &["remote-subscription-change"],
        Kind::RemoteHeadsChanged => &["remote-heads-changed"],
        // They are about a connection.
        Kind::Join | Kind::Peer | Kind::Error | Kind::Leave => &[],
    }
}

pub(super) fn rows() -> impl Iterator<Item = &'static str> {
    Kind::ALL.into_iter().flat_map(rows_of).copied()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_does_for_each_role_what_the_table_says() -> Result<()> {
    let table = Table::of_documents()?;
    let realms = Realm::all().await?;
    let mut units = Vec::new();
    for realm in &realms {
        // Who shows no token has no connection.
        for asker in realm
            .askers()
            .into_iter()
            .filter(|asker| realm.lets_in(asker))
        {
            units.extend(Fate::ALL.map(|fate| (realm, asker.clone(), fate)));
        }
    }
    let carried_out = stream::iter(&units).map(async |(realm, asker, fate)| {
        for kind in Kind::ALL {
            for row in rows_of(kind) {
                let is_open = realm.decides == Decides::Nothing;
                if kind == Kind::Ephemeral && is_open != row.ends_with("anonymous") {
                    continue;
                }
                let said = Said {
                    kind,
                    brings: row.ends_with("with changes"),
                };
                let expected = table.cell(row, asker.column(*fate))?;
                let done = Box::pin(said.by(realm, asker, *fate, expected)).await;
                let Asker { way, role, .. } = asker;
                let what = || format!("{row} by {role} {way}, {fate:?}, {:?}", realm.decides);
                done.with_context(what)?;
            }
        }
        anyhow::Ok(())
    });
    carried_out
        .buffer_unordered(AT_A_TIME)
        .try_collect::<Vec<_>>()
        .await?;
    ensure!(units.len() > 4 * 30, "{}", units.len());
    Ok(())
}

/// A client that has a document open, and keeps what it hears.
struct Tab {
    client: RawClient,
    id: DocumentId,
    doc: AutoCommit,
    state: sync::State,
    heard: Vec<Message>,
    is_read_only: bool,
}

impl Tab {
    fn new(client: RawClient, id: &str) -> Result<Self> {
        Ok(Self {
            client,
            id: DocumentId::new(id)?,
            doc: AutoCommit::new(),
            state: sync::State::new(),
            heard: Vec::new(),
            is_read_only: false,
        })
    }

    /// Waits until this holds.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        while !holds(self) {
            let next = self.client.next().await;
            let message = next.with_context(|| format!("{what}: {:?}", self.heard))?;
            if let Message::Sync { document, data, .. } = &message
                && *document == self.id
            {
                let said = sync::Message::decode(data)?;
                let flags = said.flags.unwrap_or_default();
                self.is_read_only = flags.contains(MessageFlags::READ_ONLY);
                self.doc
                    .sync()
                    .receive_sync_message(&mut self.state, said)?;
                if let Some(answer) = self.doc.sync().generate_sync_message(&mut self.state) {
                    let answer = self
                        .client
                        .sync_message(self.id.as_str(), &answer.encode())?;
                    self.client.send(&answer).await?;
                }
            }
            self.heard.push(message);
        }
        Ok(())
    }

    /// Waits until the server is done with all that was sent, by something that it always answers.
    async fn is_answered(&mut self) -> Result<()> {
        let nobodys = fresh();
        self.client.ask(&nobodys).await?;
        self.until("an answer", |tab| tab.is_told_of_none(&nobodys))
            .await
    }

    fn is_told_of_none(&self, id: &DocumentId) -> bool {
        let is_it = |message: &Message| matches!(message, Message::DocUnavailable { document, .. } if document == id);
        self.heard.iter().any(is_it)
    }

    /// What it heard about its document.
    fn of_it(&self) -> Vec<&Message> {
        let all = self.heard.iter();
        let of_it = all.filter(|message| match message {
            Message::Sync { document, .. }
            | Message::Request { document, .. }
            | Message::DocUnavailable { document, .. }
            | Message::Ephemeral { document, .. }
            | Message::RemoteHeadsChanged { document, .. } => *document == self.id,
            _ => false,
        });
        of_it.collect()
    }

    fn is_synced(&self) -> bool {
        let is_it = |message: &&Message| matches!(message, Message::Sync { .. });
        self.of_it().iter().any(is_it)
    }

    fn has(&self, key: &str) -> bool {
        self.doc.get(ROOT, key).is_ok_and(|found| found.is_some())
    }

    fn hears_ephemeral(&self, session: &str) -> bool {
        let is_it = |message: &&Message| matches!(message, Message::Ephemeral { session: of, .. } if of.as_str() == session);
        self.of_it().iter().any(is_it)
    }

    fn hears_heads_of(&self, storage: &str) -> bool {
        let of = |heads: &RemoteHeads| heads.storage_id.as_str() == storage;
        let is_it = |message: &&Message| matches!(message, Message::RemoteHeadsChanged { new_heads, .. } if new_heads.iter().any(of));
        self.of_it().iter().any(is_it)
    }

    async fn says(&mut self, session: &str) -> Result<()> {
        let ephemeral = Message::Ephemeral {
            document: self.id.clone(),
            sender: self.client.peer().clone(),
            target: self.client.server()?.clone(),
            count: 1,
            session: SessionId::new(session)?,
            data: vec![0xf6].into(),
        };
        self.client.send(&ephemeral).await
    }

    async fn subscribes(&mut self, storages: &[&str]) -> Result<()> {
        let add = storages.iter().map(|storage| StorageId::new(storage));
        let subscribe = Message::RemoteSubscriptionChange {
            sender: self.client.peer().clone(),
            target: self.client.server()?.clone(),
            add: add.collect::<Result<_, _>>()?,
            remove: Vec::new(),
        };
        self.client.send(&subscribe).await
    }
}

/// A message.
#[derive(Debug, Clone, Copy)]
struct Said {
    kind: Kind,
    /// Whether there are changes in it.
    brings: bool,
}

impl Said {
    async fn by(self, realm: &Realm, asker: &Asker, fate: Fate, expected: &str) -> Result<()> {
        let id = realm.document(asker, fate).await?;
        let before = realm.look(&id).await?;
        let is_there = fate == Fate::There;
        let reads = is_there && asker.role >= Role::Reader;

        let other = realm.raw_onlooker(fresh().as_str()).await?;
        let mut other = Tab::new(other, &id)?;
        other.subscribes(&[ELSEWHERE]).await?;
        other.client.ask(&DocumentId::new(&id)?).await?;
        if is_there {
            other.until("the document", |tab| tab.has("a")).await?;
        } else {
            other.is_answered().await?;
        }
        let client = realm.raw(asker, &id, fresh().as_str()).await?;
        let mut tab = Tab::new(client, &id)?;
        if !matches!(self.kind, Kind::Request | Kind::Sync) {
            // What is not open is not listened to.
            tab.client.ask(&DocumentId::new(&id)?).await?;
            tab.is_answered().await?;
            if reads {
                tab.until("the document", |tab| tab.has("a")).await?;
            } else {
                tab.until("no document", |tab| tab.is_told_of_none(&tab.id))
                    .await?;
            }
            tab.heard.clear();
        }

        self.sent(&mut tab).await?;
        match (self.kind, expected) {
            (Kind::Request | Kind::Sync, "yes") => tab.until("an answer", Tab::is_synced).await?,
            (_, "absent") => {
                tab.until("no document", |tab| tab.is_told_of_none(&tab.id))
                    .await?;
            }
            _ => {}
        }
        tab.is_answered().await?;
        let fences = if is_there {
            // Comes behind all of that.
            other.says("another's").await?;
            let path = format!("/v1/documents/{id}/value/fence");
            realm.onlooker()?.put(&path, &json!(1)).await?.good()?;
            other
                .until("what is written", |tab| tab.has("fence"))
                .await?;
            if reads {
                let live = |tab: &Tab| tab.has("fence") && tab.hears_ephemeral("another's");
                tab.until("what is written", live).await?;
            }
            1
        } else {
            0
        };
        match self.kind {
            _ if expected != "yes" => {}
            Kind::Ephemeral => {
                let heard = |tab: &Tab| tab.hears_ephemeral("somebody's");
                other.until("what is said", heard).await?;
            }
            Kind::RemoteSubscriptionChange => {
                let server = tab.client.storage()?.to_string();
                let heard = |tab: &Tab| tab.hears_heads_of(&server);
                tab.until("the server's heads", heard).await?;
            }
            _ if self.brings => other.until("the change", |tab| tab.has("new")).await?,
            _ => {}
        }
        other.is_answered().await?;
        tab.is_answered().await?;
        let after = realm.look(&id).await?;
        let shown = Shown {
            asker,
            fate,
            before: &before,
            after: &after,
            tab: &tab,
            other: &other,
        };
        let right = self.looked_at(&shown, expected, fences);
        right.with_context(|| format!("{:?}\n{:?}\n{before:?}\n{after:?}", tab.heard, other.heard))
    }

    async fn sent(self, tab: &mut Tab) -> Result<()> {
        let (document, sender) = (tab.id.clone(), tab.client.peer().clone());
        let target = tab.client.server()?.clone();
        if self.brings {
            tab.doc.put(ROOT, "new", true)?;
        }
        let data = sync_data(&mut tab.doc, self.brings).into();
        let message = match self.kind {
            Kind::Request => Message::Request {
                document,
                sender,
                target,
                data,
            },
            Kind::Sync => Message::Sync {
                document,
                sender,
                target,
                data,
            },
            Kind::DocUnavailable => Message::DocUnavailable {
                document,
                sender,
                target,
            },
            Kind::RemoteHeadsChanged => {
                let heads = RemoteHeads {
                    storage_id: StorageId::new(ELSEWHERE)?,
                    heads: vec![ChangeHash([1; 32])],
                    timestamp_ms: 1e12,
                };
                let new_heads = vec![heads];
                Message::RemoteHeadsChanged {
                    document,
                    sender,
                    target,
                    new_heads,
                }
            }
            Kind::Ephemeral => return tab.says("somebody's").await,
            Kind::RemoteSubscriptionChange => {
                let storage = tab.client.storage()?.clone();
                return tab.subscribes(&[storage.as_str()]).await;
            }
            other => anyhow::bail!("{other:?} is not about a document"),
        };
        tab.client.send(&message).await
    }

    fn looked_at(self, shown: &Shown<'_>, expected: &str, fences: u64) -> Result<()> {
        let Shown {
            asker,
            fate,
            before,
            after,
            tab,
            other,
        } = *shown;
        let is_done = expected == "yes";
        let reads = fate == Fate::There && asker.role >= Role::Reader;
        let of_it = tab.of_it();
        let server = tab.client.storage()?.as_str();
        // What each message does, all of which are looked at after any of them.
        let effects = HashMap::from([
            ("writes", after.value.2["new"] == true || other.has("new")),
            ("says", other.hears_ephemeral("somebody's")),
            ("subscribes", tab.hears_heads_of(server)),
            ("tells", other.hears_heads_of(ELSEWHERE)),
        ]);
        let own = match self.kind {
            Kind::Request | Kind::Sync if self.brings => Some("writes"),
            Kind::Ephemeral => Some("says"),
            Kind::RemoteSubscriptionChange => Some("subscribes"),
            _ => None,
        };
        for (effect, is_there) in effects {
            ensure!(
                is_there == (is_done && own == Some(effect)),
                "{effect}: {is_there}"
            );
        }
        let is_made = is_done && self.brings;
        ensure!(
            after.count() == before.count() + fences + u64::from(is_made),
            "changes"
        );
        let others = |look: &Look| {
            (
                look.access.clone(),
                look.said.clone(),
                look.deletion.clone(),
            )
        };
        if is_made && fate == Fate::Unknown {
            let list = &after.access.2["list"];
            let is_theirs = list["principals"][asker.name] == "owner";
            ensure!(is_theirs || !asker.is_known(), "somebody else's");
        } else {
            ensure!(others(after) == others(before), "something else changed");
        }
        // What comes back.
        if reads {
            is_content(&tab.doc)?;
            ensure!(
                tab.is_read_only == (asker.role == Role::Reader),
                "{}",
                tab.is_read_only
            );
            ensure!(
                !tab.is_told_of_none(&tab.id),
                "they are told that it is not there"
            );
        } else if is_done {
            let is_answered = matches!(self.kind, Kind::Request | Kind::Sync);
            ensure!(tab.is_synced() == is_answered, "{of_it:?}");
        } else if expected == "absent" {
            let [
                Message::DocUnavailable {
                    document,
                    sender,
                    target,
                },
            ] = of_it.as_slice()
            else {
                anyhow::bail!("{of_it:?}");
            };
            let as_any = (sender, target) == (tab.client.server()?, tab.client.peer());
            ensure!(as_any && *document == tab.id, "{of_it:?}");
        } else {
            ensure!(
                expected == "nothing",
                "{expected:?} is nothing that a message does"
            );
            ensure!(of_it.is_empty(), "{of_it:?}");
        }
        Ok(())
    }
}

/// What there is to see of a message.
#[derive(Clone, Copy)]
struct Shown<'a> {
    asker: &'a Asker,
    fate: Fate,
    before: &'a Look,
    after: &'a Look,
    tab: &'a Tab,
    other: &'a Tab,
}
