//! Servers of each kind, and for each role every way to have it there.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
use concord_shared::access::Role;
use concord_tests::issuer::Issuer;
use concord_tests::raw_client::RawClient;
use concord_tests::server_process::ServerProcess;
use reqwest::StatusCode;
use serde_json::{Map, Value, json};

use super::super::rest::Rest;
use super::super::webhook::{Application, SECRET};
use super::fresh;

/// Makes all documents.
pub(super) const MAKER: &str = "ann";

/// An operator, who looks at what became of them.
const ONLOOKER: &str = "root";

/// By what it is decided who may do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decides {
    Lists,
    Application,
    /// Nobody has to say who they are.
    Nothing,
}

/// A server.
pub(super) struct Realm {
    pub(super) decides: Decides,
    pub(super) server: ServerProcess,
    issuer: Issuer,
    http: Rest,
    /// A document that all may read who bring a token.
    pub(super) source: String,
    /// All documents that there should be.
    there: Mutex<BTreeSet<String>>,
}

/// What becomes of a document before somebody asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    There,
    Deleted,
    Erased,
    /// There never was one.
    Unknown,
}

impl Fate {
    pub(super) const ALL: [Self; 4] = [Self::There, Self::Deleted, Self::Erased, Self::Unknown];
}

/// What somebody shows.
#[derive(Debug, Clone)]
enum Shows {
    Nothing,
    /// A token of somebody in these groups.
    Name(&'static [&'static str]),
    /// A token that grants this for the document, and this for all others.
    Grants(Option<Role>, Option<Role>),
}

/// Somebody who has a role in a way.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) way: &'static str,
    pub(super) name: &'static str,
    shows: Shows,
    pub(super) role: Role,
    /// What the list says of anyone.
    anyone: Role,
    /// Whether they may make the document, where there is none, and others.
    pub(super) makes_it: bool,
    pub(super) makes_others: bool,
    pub(super) is_operator: bool,
}

const fn asker(role: Role, way: &'static str, name: &'static str, shows: Shows) -> Asker {
    Asker {
        way,
        name,
        shows,
        role,
        anyone: Role::None,
        makes_it: false,
        makes_others: false,
        is_operator: false,
    }
}

impl Asker {
    const fn who_makes(mut self) -> Self {
        (self.makes_it, self.makes_others) = (true, true);
        self
    }

    const fn who_makes_it(mut self) -> Self {
        self.makes_it = true;
        self
    }

    const fn operator(mut self) -> Self {
        self.is_operator = true;
        self.who_makes()
    }

    const fn where_anyone_is(mut self, role: Role) -> Self {
        self.anyone = role;
        self
    }

    /// Whether they say who they are, where that is asked for.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self.shows, Shows::Nothing)
    }

    /// Whether they are told of the document by the list of all.
    pub(super) fn is_told(&self) -> bool {
        self.is_operator || self.role >= Role::Reader && self.anyone != self.role
    }

    /// The column that says what they may do with a document.
    pub(super) fn column(&self, fate: Fate) -> &'static str {
        match (fate, self.role) {
            (Fate::There, Role::Owner) => "owner",
            (Fate::There, Role::Writer) => "writer",
            (Fate::There, Role::Reader) => "reader",
            (Fate::Deleted, Role::Owner) => "deleted",
            (Fate::Erased, _) if self.is_operator || self.name == MAKER => "erased",
            (Fate::Unknown, _) if self.makes_it => "unknown",
            _ => "nobody",
        }
    }

    fn token(&self, realm: &Realm, id: &str) -> Result<Option<String>> {
        Ok(Some(match &self.shows {
            Shows::Nothing => return Ok(None),
            Shows::Name(groups) => realm.issuer.of_member(self.name, groups)?,
            Shows::Grants(of_it, of_others) => {
                let mut grants = Map::new();
                grants.insert(realm.source.clone(), json!("reader"));
                let mut grant = |pattern: &str, role: &Option<Role>| {
                    role.map(|role| grants.insert(pattern.to_owned(), json!(role)))
                };
                grant("*", of_others);
                grant(id, of_it);
                realm.issuer.granting(self.name, &Value::Object(grants))?
            }
        }))
    }
}

/// Everybody: for each role each way to have it, and some to have none.
fn by_lists() -> Vec<Asker> {
    use Role::{None, Owner, Reader, Writer};
    use Shows::{Grants, Name};
    vec![
        asker(Owner, "who made it", MAKER, Name(&[])).who_makes(),
        asker(Owner, "by name", "oda", Name(&[])),
        asker(Writer, "by name", "wes", Name(&[])),
        asker(Reader, "by name", "ria", Name(&[])),
        asker(Owner, "by a group", "odo", Name(&["owners", "makers"])).who_makes(),
        asker(Writer, "by a group", "wim", Name(&["writers", "makers"])).who_makes(),
        asker(Reader, "by a group", "rob", Name(&["readers", "makers"])).who_makes(),
        asker(
            Writer,
            "by one of two groups",
            "wyn",
            Name(&["readers", "writers"]),
        ),
        asker(
            Reader,
            "by name and not by a group",
            "ria",
            Name(&["owners"]),
        ),
        asker(Owner, "as anyone", "olga", Name(&[])).where_anyone_is(Owner),
        asker(Writer, "as anyone", "willa", Name(&[])).where_anyone_is(Writer),
        asker(Reader, "as anyone", "rana", Name(&["makers"]))
            .where_anyone_is(Reader)
            .who_makes(),
        asker(
            Reader,
            "by a group and not as anyone",
            "rolf",
            Name(&["readers"]),
        )
        .where_anyone_is(Writer),
        asker(Owner, "as an operator", "oscar", Name(&[])).operator(),
        asker(
            Owner,
            "in a group of operators",
            "olaf",
            Name(&["operators"]),
        )
        .operator(),
        asker(
            Owner,
            "as an operator whose token grants nothing",
            "oscar",
            Grants(Option::None, Option::None),
        )
        .operator(),
        asker(None, "by nothing", "sam", Name(&["others"])),
        asker(
            None,
            "by nothing, and may make documents",
            "sue",
            Name(&["makers"]),
        )
        .who_makes(),
        asker(
            None,
            "by name, whatever their group",
            "nat",
            Name(&["owners"]),
        ),
        asker(
            None,
            "by a group, whatever anyone may",
            "nora",
            Name(&["nobodies"]),
        )
        .where_anyone_is(Reader),
    ]
}

/// Whatever lists or an application say.
fn by_tokens() -> Vec<Asker> {
    use Role::{None, Owner, Reader, Writer};
    use Shows::Grants;
    let all = |role| Grants(Option::None, Some(role));
    let it = |role| Grants(Some(role), Option::None);
    vec![
        asker(Owner, "by a token", "tom", it(Owner)).who_makes_it(),
        asker(Writer, "by a token", "tom", it(Writer)),
        asker(Reader, "by a token", "tom", it(Reader)),
        asker(Owner, "by a token for all", "tim", all(Owner)).who_makes(),
        asker(Writer, "by a token for all", "tim", all(Writer)),
        asker(Reader, "by a token for all", "tim", all(Reader)),
        Asker {
            makes_others: true,
            ..asker(
                Writer,
                "by a token that grants more for others",
                "tia",
                Grants(Some(Writer), Some(Owner)),
            )
        },
        asker(
            None,
            "by a token for others, whatever a list says",
            "oda",
            Grants(Option::None, Option::None),
        ),
        Asker {
            makes_others: true,
            ..asker(
                None,
                "by a token for all others",
                "oda",
                Grants(Some(None), Some(Owner)),
            )
        },
    ]
}

fn by_an_application() -> Vec<Asker> {
    use Role::{None, Owner, Reader, Writer};
    let named = |role, name| asker(role, "by an application", name, Shows::Name(&["makers"]));
    vec![
        asker(Owner, "who made it", MAKER, Shows::Name(&[])).who_makes(),
        named(Owner, "odile").who_makes(),
        named(Writer, "wes"),
        named(Reader, "ria"),
        named(None, "sam"),
        asker(
            None,
            "by an application, whatever a list says",
            "oda",
            Shows::Name(&[]),
        ),
        asker(Owner, "as an operator", "oscar", Shows::Name(&[])).operator(),
    ]
}

impl Realm {
    pub(super) async fn all() -> Result<[Self; 3]> {
        Ok([
            Self::start(Decides::Lists).await?,
            Self::start(Decides::Application).await?,
            Self::start(Decides::Nothing).await?,
        ])
    }

    async fn start(decides: Decides) -> Result<Self> {
        let issuer = Issuer::new()?;
        let mut arguments = vec!["--request-grace-ms", "20"];
        // As many as come here, from one address.
        for option in ["--unauthenticated-per-second", "--open-requests-per-second"] {
            arguments.extend([option, "0"]);
        }
        if decides == Decides::Nothing {
            let server = ServerProcess::start_with(&arguments)?;
            return Self::with(decides, server, issuer).await;
        }
        for who in [ONLOOKER, "oscar", "group:operators"] {
            arguments.extend(["--operator", who]);
        }
        if decides == Decides::Lists {
            arguments.extend(["--creator", MAKER, "--creator", "group:makers"]);
            let server = ServerProcess::start_with(&issuer.arguments(&arguments)?)?;
            return Self::with(decides, server, issuer).await;
        }
        let (application, url) = Application::listen().await?;
        for asker in by_an_application() {
            application.give(asker.name, asker.role.as_str());
        }
        // It is not asked what lists say.
        arguments.extend(["--authorize-url", &url, "--share", "oda=owner"]);
        let mut server = ServerProcess::start_with(&issuer.arguments(&arguments)?)?;
        server.set_variable("CONCORD_AUTHORIZE_TOKEN", SECRET);
        server.kill()?;
        server.restart()?;
        let realm = Self::with(decides, server, issuer).await?;
        for asker in by_an_application() {
            application.give(&format!("{} {}", asker.name, realm.source), "reader");
        }
        Ok(realm)
    }

    async fn with(decides: Decides, server: ServerProcess, issuer: Issuer) -> Result<Self> {
        let mut realm = Self {
            decides,
            http: Rest::new(server.address()),
            server,
            issuer,
            source: String::new(),
            there: Mutex::default(),
        };
        realm.source = realm.made().await?;
        if decides == Decides::Lists {
            let all = json!({ "anyone": "reader", "principals": { MAKER: "owner" } });
            realm.share(&realm.source, &all).await?;
        }
        Ok(realm)
    }

    pub(super) fn askers(&self) -> Vec<Asker> {
        let silent = asker(Role::None, "without a token", "nobody", Shows::Nothing);
        match self.decides {
            Decides::Lists => [by_lists(), by_tokens(), vec![silent]].concat(),
            Decides::Application => [by_an_application(), by_tokens(), vec![silent]].concat(),
            Decides::Nothing => {
                let way = "where nobody says who they are";
                vec![asker(Role::Owner, way, "anonymous", Shows::Nothing).operator()]
            }
        }
    }

    /// Whether there are lists of roles.
    pub(super) fn has_lists(&self) -> bool {
        self.decides == Decides::Lists
    }

    /// Whether an application is asked about somebody.
    pub(super) fn is_decided_by_application(&self, asker: &Asker) -> bool {
        let is_asked = !asker.is_operator && matches!(asker.shows, Shows::Name(_));
        self.decides == Decides::Application && is_asked
    }

    /// Whether somebody is let in.
    pub(super) fn lets_in(&self, asker: &Asker) -> bool {
        self.decides == Decides::Nothing || asker.is_known()
    }

    /// Somebody who asks for a document.
    pub(super) fn rest(&self, asker: &Asker, id: &str) -> Result<Rest> {
        let token = asker.token(self, id)?;
        Ok(token.map_or_else(|| self.http.clone(), |token| self.http.with_token(&token)))
    }

    /// The same by WebSocket.
    pub(super) async fn raw(&self, asker: &Asker, id: &str, peer: &str) -> Result<RawClient> {
        RawClient::join(&self.url(asker.token(self, id)?), peer).await
    }

    fn url(&self, token: Option<String>) -> String {
        let url = self.server.websocket_url();
        token.map_or_else(|| url.clone(), |token| format!("{url}?token={token}"))
    }

    pub(super) fn token(&self, asker: &Asker) -> Result<Option<String>> {
        asker.token(self, "")
    }

    /// Somebody else, by name.
    pub(super) fn named(&self, name: &str) -> Result<Rest> {
        if self.decides == Decides::Nothing {
            return Ok(self.http.clone());
        }
        Ok(self.http.with_token(&self.issuer.of(name)?))
    }

    pub(super) fn onlooker(&self) -> Result<Rest> {
        self.named(ONLOOKER)
    }

    pub(super) async fn raw_onlooker(&self, peer: &str) -> Result<RawClient> {
        let token = match self.decides {
            Decides::Nothing => None,
            _ => Some(self.issuer.of(ONLOOKER)?),
        };
        RawClient::join(&self.url(token), peer).await
    }

    /// Who made all documents, as the server has it.
    pub(super) fn maker(&self) -> &'static str {
        self.name_of(MAKER)
    }

    /// What the server calls somebody.
    pub(super) fn name_of(&self, name: &'static str) -> &'static str {
        match self.decides {
            Decides::Nothing => "anonymous",
            _ => name,
        }
    }

    /// All documents that there should be.
    pub(super) fn there(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn made(&self) -> Result<String> {
        let made = self.named(MAKER)?.post("/v1/documents", &content()).await?;
        let location = made.good()?.location.context("a place")?;
        let id = location.rsplit('/').next().context("an id")?.to_owned();
        self.there().insert(id.clone());
        Ok(id)
    }

    async fn share(&self, id: &str, list: &Value) -> Result<()> {
        let path = format!("/v1/documents/{id}/access");
        let maker = self.named(MAKER)?;
        maker.put(&path, list).await?.good()?;
        Ok(())
    }

    /// An id for somebody to ask for.
    pub(super) async fn document(&self, asker: &Asker, fate: Fate) -> Result<String> {
        if fate == Fate::Unknown {
            return Ok(fresh().to_string());
        }
        let id = self.made().await?;
        if self.has_lists() && asker.name != MAKER {
            self.share(&id, &list(asker.anyone)).await?;
        }
        let query = match fate {
            Fate::Deleted => "",
            Fate::Erased => "?now=true",
            _ => return Ok(id),
        };
        let path = format!("/v1/documents/{id}{query}");
        let deleted = self.named(MAKER)?.delete(&path).await?.good()?;
        let expected = if fate == Fate::Erased { 202 } else { 204 };
        ensure!(deleted.status == StatusCode::from_u16(expected)?);
        self.there().remove(&id);
        Ok(id)
    }
}

/// What all documents have at first.
pub(super) fn content() -> Value {
    json!({ "a": { "b": 1 }, "list": [] })
}

/// Who may do what.
pub(super) fn list(anyone: Role) -> Value {
    json!({
        "anyone": anyone,
        "groups": { "owners": "owner", "writers": "writer", "readers": "reader", "nobodies": "none" },
        "principals": { MAKER: "owner", "oda": "owner", "wes": "writer", "ria": "reader", "nat": "none" },
    })
}
