//! Promise: what a role allows is what the tables of ACCESS.md say, by every way to a document and however somebody came to
//! the role, and a document that is not for somebody is to them as one that is not there.
//!
//! - [`table`]: the tables, as they are read from the documentation.
//! - [`askers`]: servers, and for each role every way to have it.
//! - [`operations`]: every operation of the API, and what shows that it was done.
//! - [`matrix`], [`messages`], [`beside`]: the tests of operations, of messages, and of what is not about a document.
//! - [`lists`]: lists of roles, and what becomes of those who have a document open.
//!
//! No operation can be forgotten, since they are taken from what the server says of itself; nor a message, since frames
//! are decoded by the list that is taken here; nor another address, which a test in the server holds against the table.
//! A cell passes by what somebody else sees afterwards, and what is absent by what an id gives that nobody ever had.

use std::time::Duration;

use anyhow::{Context as _, Result};
use automerge::{ActorId, AutoCommit, ChangeHash};
use concord_shared::DocumentId;
use concord_shared::wire::Message;
use concord_tests::issuer::Issuer;
use concord_tests::raw_client::RawClient;
use concord_tests::server_process::ServerProcess;
use serde_json::json;
use tokio::time::timeout;

use super::rest::Rest;

mod askers;
mod beside;
mod lists;
mod matrix;
mod messages;
mod operations;
mod table;

/// Nothing came for so long: longer than the grace of the servers here, and than a busy machine takes.
const A_WHILE: Duration = Duration::from_millis(1500);

pub(super) struct World {
    pub(super) issuer: Issuer,
    pub(super) server: ServerProcess,
}

impl World {
    pub(super) fn start(arguments: &[&str]) -> Result<Self> {
        let issuer = Issuer::new()?;
        let mut all = vec!["--request-grace-ms", "100"];
        all.extend(arguments);
        let server = ServerProcess::start_with(&issuer.arguments(&all)?)?;
        Ok(Self { issuer, server })
    }

    pub(super) fn rest(&self, who: &str) -> Result<Rest> {
        let rest = Rest::new(self.server.address());
        Ok(rest.with_token(&self.issuer.of(who)?))
    }

    pub(super) async fn raw(&self, who: &str, peer: &str) -> Result<RawClient> {
        let token = self.issuer.of(who)?;
        let url = format!("{}?token={token}", self.server.websocket_url());
        RawClient::join(&url, peer).await
    }

    /// A document of ann's, with others in it.
    pub(super) async fn document(&self) -> Result<String> {
        let ann = self.rest("ann")?;
        let value = json!({ "a": { "b": 1 }, "list": [] });
        let made = ann.post("/v1/documents", &value).await?;
        let location = made.good()?.location.context("a place")?;
        let id = location.rsplit('/').next().context("an id")?.to_owned();
        let list = json!({ "principals": { "ann": "owner", "wes": "writer", "ria": "reader" } });
        let path = format!("/v1/documents/{id}/access");
        ann.put(&path, &list).await?.good()?;
        Ok(id)
    }
}

/// An id that nobody has.
pub(super) fn fresh() -> DocumentId {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(ActorId::random().to_bytes());
    DocumentId::from_uuid(uuid)
}

/// A sync message with this document's heads, and its changes if they are to be sent.
pub(super) fn sync_data(document: &mut AutoCommit, with_changes: bool) -> Vec<u8> {
    sync_data_since(document, with_changes.then_some(&[]))
}

/// The same, with the changes that come after these.
fn sync_data_since(document: &mut AutoCommit, since: Option<&[ChangeHash]>) -> Vec<u8> {
    use automerge::sync::{ChunkList, Message, MessageFlags, MessageVersion};
    let changes = since.map_or_else(Vec::new, |since| document.get_changes(since));
    let changes = changes.iter().map(|change| change.raw_bytes().to_vec());
    let changes: Vec<Vec<u8>> = changes.collect();
    let mut flags = MessageFlags::new();
    flags.set(MessageFlags::SUPPORTS_SYNC_RESET);
    Message {
        heads: document.get_heads(),
        need: Vec::new(),
        have: Vec::new(),
        changes: ChunkList::from(changes),
        flags: Some(flags),
        version: MessageVersion::V1,
    }
    .encode()
}

/// The next message of a document, if one comes.
pub(super) async fn next_of(client: &mut RawClient, id: &str) -> Result<Option<Message>> {
    let next = async {
        loop {
            let message = client.next().await?;
            let of = match &message {
                Message::Sync { document, .. }
                | Message::DocUnavailable { document, .. }
                | Message::Ephemeral { document, .. } => document.as_str(),
                _ => continue,
            };
            if of == id {
                return Ok(message);
            }
        }
    };
    match timeout(A_WHILE, next).await {
        Ok(message) => message.map(Some),
        Err(_nothing) => Ok(None),
    }
}
