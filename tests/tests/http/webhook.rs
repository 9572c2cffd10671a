//! Promise: where an application decides who may do what, its word is asked for and holds, for those who are connected,
//! too; it is asked seldom; while it does not answer nobody may do anything; and who asks for much is in nobody's way.
//!
//! The application is the test's own, which counts what it is asked, and says what the test wants at that time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use concord_shared::DocumentId;
use concord_shared::wire::Message;
use concord_tests::issuer::Issuer;
use concord_tests::raw_client::RawClient;
use concord_tests::server_process::ServerProcess;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::rest::Rest;

/// What the application knows the server by.
pub(super) const SECRET: &str = "the application's own";

/// Seconds for which its answers hold.
const HOLDS_S: u64 = 2;

/// An id that nobody has.
const NOBODYS: &str = "4NMNnkMhL8jXrdJ9jamS58PAVdXu";

/// How it answers.
#[derive(Debug, Clone, Default)]
enum Manner {
    /// With the principal's role.
    #[default]
    Good,
    /// With a role that would be good with another status.
    Status(StatusCode),
    Text(String),
    Redirect(String),
    /// Not at all.
    Stuck,
    /// As slowly as this about one of them, and else with the principal's role.
    SlowAbout(&'static str, Duration),
}

#[derive(Debug, Default)]
struct Said {
    roles: HashMap<String, &'static str>,
    manner: Manner,
    asked: Vec<Value>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Application(Arc<Mutex<Said>>);

impl Application {
    /// It, and its address.
    pub(super) async fn listen() -> Result<(Self, String)> {
        let application = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/decide?for=concord", listener.local_addr()?);
        let routes = Router::new().route("/decide", post(Self::answer));
        let routes = routes.with_state(application.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok((application, url))
    }

    fn with<R>(&self, job: impl FnOnce(&mut Said) -> R) -> R {
        job(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says who is what: `ann`, or `ann DOCUMENT` for one document.
    pub(super) fn give(&self, who: &str, role: &'static str) {
        self.with(|said| said.roles.insert(who.to_owned(), role));
    }

    fn be(&self, manner: Manner) {
        self.with(|said| said.manner = manner);
    }

    fn asked_of(&self, who: &str) -> usize {
        let is_of = |asked: &&Value| asked["principal"] == who;
        self.with(|said| said.asked.iter().filter(is_of).count())
    }

    async fn answer(State(this): State<Self>, headers: HeaderMap, body: String) -> Response {
        let known = headers.get(header::AUTHORIZATION);
        if known.is_none_or(|known| *known != format!("Bearer {SECRET}")) {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        let asked: Value = serde_json::from_str(&body).unwrap_or_default();
        let who = asked["principal"].as_str().unwrap_or_default().to_owned();
        let (role, manner) = this.with(|said| {
            let document = asked["document"].as_str().unwrap_or_default();
            let of_it = said.roles.get(&format!("{who} {document}"));
            let role = of_it.or_else(|| said.roles.get(&who)).copied();
            said.asked.push(asked);
            (role, said.manner.clone())
        });
        if let Manner::SlowAbout(slow, pause) = manner
            && who == slow
        {
            tokio::time::sleep(pause).await;
        }
        match manner {
            Manner::Good | Manner::SlowAbout(..) => {
                axum::Json(json!({ "role": role.unwrap_or("none") })).into_response()
            }
            Manner::Status(status) => {
                (status, json!({ "role": "owner" }).to_string()).into_response()
            }
            Manner::Text(text) => text.into_response(),
            Manner::Redirect(to) => {
                (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response()
            }
            Manner::Stuck => std::future::pending().await,
        }
    }
}

struct World {
    application: Application,
    issuer: Issuer,
    server: ServerProcess,
}

impl World {
    async fn start() -> Result<Self> {
        let (application, url) = Application::listen().await?;
        let issuer = Issuer::new()?;
        let holds = HOLDS_S.to_string();
        let mut arguments = vec!["--authorize-url", &url, "--authorize-seconds", &holds];
        arguments.extend(["--request-grace-ms", "100", "--operator", "root"]);
        let mut server = ServerProcess::start_with(&issuer.arguments(&arguments)?)?;
        server.set_variable("CONCORD_AUTHORIZE_TOKEN", SECRET);
        server.kill()?;
        server.restart()?;
        Ok(Self {
            application,
            issuer,
            server,
        })
    }

    fn by(&self, token: &str) -> Rest {
        Rest::new(self.server.address()).with_token(token)
    }

    fn rest(&self, who: &str) -> Result<Rest> {
        Ok(self.by(&self.issuer.of(who)?))
    }

    /// A document of ann's.
    async fn document(&self) -> Result<String> {
        self.application.give("ann", "owner");
        let made = self
            .rest("ann")?
            .post("/v1/documents", &json!({ "a": 1 }))
            .await?;
        let location = made.good()?.location.context("a place")?;
        Ok(location.rsplit('/').next().context("an id")?.to_owned())
    }

    /// A connection of somebody's, which has asked for the document.
    async fn ask(&self, who: &str, id: &str) -> Result<RawClient> {
        let url = format!(
            "{}?token={}",
            self.server.websocket_url(),
            self.issuer.of(who)?
        );
        let mut client = RawClient::join(&url, who).await?;
        client.ask(&DocumentId::new(id)?).await?;
        Ok(client)
    }
}

/// What the next message about the document says: whether it is there.
async fn is_there(client: &mut RawClient) -> Result<bool> {
    match client.next().await? {
        Message::Sync { .. } => Ok(true),
        Message::DocUnavailable { .. } => Ok(false),
        other => bail!("{other:?}"),
    }
}

#[tokio::test]
async fn its_word_decides() -> Result<()> {
    let world = World::start().await?;
    let id = world.document().await?;
    let (whole, value) = (
        format!("/v1/documents/{id}"),
        format!("/v1/documents/{id}/value/a"),
    );
    for (who, role, read, write, delete) in [
        ("nat", "none", 404, 404, 404),
        ("ria", "reader", 200, 403, 403),
        ("wes", "writer", 200, 200, 403),
        ("oda", "owner", 200, 200, 409),
    ] {
        world.application.give(who, role);
        let rest = world.rest(who)?;
        let status = async |answer: Result<super::rest::Answer>| {
            Ok::<_, anyhow::Error>(answer?.status.as_u16())
        };
        ensure!(status(rest.get(&whole).await).await? == read, "{who}");
        ensure!(
            status(rest.put(&value, &json!(2)).await).await? == write,
            "{who}"
        );
        // There are no lists.
        let list = json!({ "principals": { "ann": "owner" } });
        let listed = rest.put(&format!("{whole}/access"), &list).await?;
        ensure!(listed.status.as_u16() == delete, "{who}: {}", listed.status);
        // To make one takes an owner.
        let made = rest
            .put(&format!("/v1/documents/{NOBODYS}"), &json!({}))
            .await?;
        let expected = if role == "owner" { 201 } else { 404 };
        ensure!(made.status.as_u16() == expected, "{who}: {}", made.status);
        ensure!(
            rest.get("/v1/documents").await?.status.as_u16() == 403,
            "{who}"
        );
    }
    let member = world.issuer.of_member("mia", &["board"])?;
    ensure!(world.by(&member).get(&whole).await?.status.as_u16() == 404);
    let asked = world.application.with(|said| said.asked.pop());
    let expected = json!({ "principal": "mia", "groups": ["board"], "document": id });
    ensure!(asked == Some(expected.clone()), "{asked:?}");

    // Those for whom something else decides are not asked about.
    let listed = world
        .rest("root")?
        .get("/v1/documents")
        .await?
        .good()?
        .json()?;
    ensure!(
        listed["documents"]
            .as_array()
            .is_some_and(|all| all.len() == 2),
        "{listed}"
    );
    world.application.give("gus", "none");
    let granting = world.issuer.granting("gus", &json!({ id: "reader" }))?;
    world.by(&granting).get(&whole).await?.good()?;
    ensure!(world.application.asked_of("root") + world.application.asked_of("gus") == 0);
    Ok(())
}

#[tokio::test]
async fn what_it_takes_and_gives_reaches_those_who_are_connected() -> Result<()> {
    let world = World::start().await?;
    let id = world.document().await?;
    let mut bob = world.ask("bob", &id).await?;
    ensure!(!is_there(&mut bob).await?);
    for is_given in [true, false, true] {
        let role = if is_given { "reader" } else { "none" };
        world.application.give("bob", role);
        let started = Instant::now();
        ensure!(is_there(&mut bob).await? == is_given, "{role}");
        // It is asked again when half of the time is over.
        let took = started.elapsed();
        ensure!(took < Duration::from_secs(HOLDS_S + 2), "{took:?}");
    }
    Ok(())
}

#[tokio::test]
async fn while_it_does_not_answer_nobody_may_do_anything() -> Result<()> {
    let world = World::start().await?;
    let id = world.document().await?;
    let whole = format!("/v1/documents/{id}");
    let elsewhere = format!("http://{}/healthz", world.server.address());
    for (n, manner) in [
        Manner::Status(StatusCode::INTERNAL_SERVER_ERROR),
        Manner::Status(StatusCode::NO_CONTENT),
        Manner::Text("owner".to_owned()),
        Manner::Text(json!(["owner"]).to_string()),
        Manner::Text(json!({ "role": "king" }).to_string()),
        Manner::Text(json!({ "role": "owner", "more": "x".repeat(1 << 20) }).to_string()),
        Manner::Redirect(elsewhere),
    ]
    .into_iter()
    .enumerate()
    {
        world.application.be(manner.clone());
        let who = format!("new{n}");
        world.application.give(&who, "owner");
        let refused = world.rest(&who)?.get(&whole).await?;
        ensure!(
            refused.status == StatusCode::SERVICE_UNAVAILABLE,
            "{manner:?}"
        );
        ensure!(refused.json()?["code"] == "undecided", "{manner:?}");
    }

    // Nor take back what was deleted, or erase it, whoever owned it by a list that was written when it was made.
    world.application.be(Manner::Good);
    let gone = world.document().await?;
    let (ann, gone) = (world.rest("ann")?, format!("/v1/documents/{gone}"));
    ann.delete(&gone).await?.good()?;
    ann.get(&format!("{gone}/deletion")).await?.good()?;
    world
        .application
        .be(Manner::Status(StatusCode::INTERNAL_SERVER_ERROR));
    tokio::time::sleep(Duration::from_secs(HOLDS_S + 1)).await;
    for refused in [
        ann.get(&format!("{gone}/deletion")).await?,
        ann.delete(&format!("{gone}/deletion")).await?,
        ann.delete(&format!("{gone}?now=true")).await?,
    ] {
        ensure!(refused.status == StatusCode::SERVICE_UNAVAILABLE);
        ensure!(refused.json()?["code"] == "undecided");
    }
    // That there was no answer is soon forgotten.
    world.application.be(Manner::Good);
    tokio::time::sleep(Duration::from_secs(HOLDS_S) / 2).await;
    let kept = ann.get(&format!("{gone}/deletion")).await?.good()?.json()?;
    ensure!(kept["state"] == "kept", "{kept}");
    ann.delete(&format!("{gone}/deletion")).await?.good()?;

    // Who was let in is put out when what was answered does not hold any more, and let in again.
    world.application.be(Manner::Good);
    world.application.give("bob", "writer");
    let mut bob = world.ask("bob", &id).await?;
    ensure!(is_there(&mut bob).await?);
    let started = Instant::now();
    world.application.be(Manner::Stuck);
    ensure!(!is_there(&mut bob).await?);
    let took = started.elapsed();
    // It holds to its end, and no longer, whatever becomes of the question.
    ensure!(took > Duration::from_millis(500), "{took:?}");
    ensure!(took < Duration::from_secs(HOLDS_S + 2), "{took:?}");
    world.application.be(Manner::Good);
    ensure!(is_there(&mut bob).await?);
    let metrics = world.rest("root")?.get("/metrics").await?.good()?;
    let text = String::from_utf8(metrics.body)?;
    for result in ["ok", "failed"] {
        let line = format!("concord_authorize_asked_total{{result=\"{result}\"}}");
        ensure!(text.contains(&line), "{text}");
    }
    world
        .server
        .wait_for_log("who may do what is not answered")?;
    // It is logged some time after the line before.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !world
        .server
        .log()
        .contains("who may do what is answered again")
    {
        ensure!(Instant::now() < deadline, "{}", world.server.log());
        world.rest("bob")?.get(&whole).await?.good()?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    ensure!(!world.server.log().contains(SECRET));
    ensure!(!world.server.log().contains("for=concord"));
    Ok(())
}

/// Somebody has a document open, and the application hangs while more is asked than is asked at a time, about many.
#[tokio::test]
async fn a_role_ends_by_time_however_much_is_asked() -> Result<()> {
    let world = World::start().await?;
    let id = world.document().await?;
    world.application.give("bob", "writer");
    let mut bob = world.ask("bob", &id).await?;
    ensure!(is_there(&mut bob).await?);
    world.application.be(Manner::Stuck);
    let started = Instant::now();
    let mut others = JoinSet::new();
    for n in 0..200 {
        let rest = world.rest(&format!("other{}", n % 40))?;
        let path = format!("/v1/documents/{}", DocumentId::from_uuid([n; 16]));
        others.spawn(async move {
            let started = Instant::now();
            Ok::<_, anyhow::Error>((rest.get(&path).await?, started.elapsed()))
        });
    }
    ensure!(!is_there(&mut bob).await?);
    let took = started.elapsed();
    ensure!(took < Duration::from_secs(HOLDS_S + 2), "{took:?}");
    while let Some(refused) = others.join_next().await {
        let (refused, took) = refused??;
        ensure!(refused.status == StatusCode::SERVICE_UNAVAILABLE);
        ensure!(refused.json()?["code"] == "undecided");
        // A question takes three seconds, with the wait for its turn.
        ensure!(took < Duration::from_secs(3 + 1), "{took:?}");
    }
    Ok(())
}

/// Mal has no role in anything, and asks for more than the application can say in time.
#[tokio::test]
async fn who_asks_for_much_is_in_nobody_elses_way() -> Result<()> {
    let world = World::start().await?;
    let id = world.document().await?;
    let whole = format!("/v1/documents/{id}");
    world.application.give("bob", "writer");
    world.application.give("carl", "reader");
    let mut bob = world.ask("bob", &id).await?;
    ensure!(is_there(&mut bob).await?);
    let slow = Manner::SlowAbout("mal", Duration::from_millis(150));
    world.application.be(slow);
    let mut asking = JoinSet::new();
    for n in 0..100_u8 {
        // Each has what it asked for in vain asked about again and again.
        let url = world.server.websocket_url();
        let url = format!("{url}?token={}", world.issuer.of("mal")?);
        asking.spawn(async move {
            let mut mal = RawClient::join(&url, &format!("mal{n}")).await?;
            for m in 0..20 {
                let mut id = [n; 16];
                id[0] = m;
                mal.ask(&DocumentId::from_uuid(id)).await?;
            }
            // Stays.
            while mal.next().await.is_ok() {}
            Ok::<_, anyhow::Error>(())
        });
    }
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(3 * HOLDS_S) {
        let asked = Instant::now();
        world.rest("carl")?.get(&whole).await?.good()?;
        let took = asked.elapsed();
        ensure!(took < Duration::from_secs(1), "carl waits for {took:?}");
        // Nor is bob put out: he would be told.
        let said = tokio::time::timeout(Duration::from_millis(100), bob.next()).await;
        ensure!(said.is_err(), "{said:?}");
    }
    let limited = "concord_limited_total{limit=\"questions\"}";
    let metrics = world.rest("root")?.get("/metrics").await?.good()?;
    let metrics = String::from_utf8(metrics.body)?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(limited));
    ensure!(line.is_some_and(|number| number.trim() != "0"), "{line:?}");
    // That mal has to wait is no failure of the application.
    let failing = "who may do what is not answered";
    ensure!(!world.server.log().contains(failing));
    asking.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn it_is_asked_seldom() -> Result<()> {
    let world = World::start().await?;
    let id = world.document().await?;
    let whole = format!("/v1/documents/{id}");
    world.application.give("bob", "reader");
    let bob = world.rest("bob")?;
    let started = Instant::now();
    for _ in 0..50 {
        bob.get(&whole).await?.good()?;
    }
    // An answer is given to all who ask for half of the time for which it holds.
    let periods = 2 * started.elapsed().as_millis() / (1000 * u128::from(HOLDS_S)) + 1;
    let asked = world.application.asked_of("bob") as u128;
    ensure!(asked <= periods, "{asked} in {periods}");
    // And not at all when nobody wants to know any more.
    tokio::time::sleep(Duration::from_secs(HOLDS_S + 1)).await;
    let before = world.application.asked_of("bob");
    tokio::time::sleep(Duration::from_secs(HOLDS_S + 1)).await;
    ensure!(world.application.asked_of("bob") == before);
    Ok(())
}

#[test]
fn an_application_that_can_not_be_believed_stops_the_start() -> Result<()> {
    let issuer = Issuer::new()?;
    for (url, expected) in [
        ("http://app.example/decide", "by https://"),
        ("https://ann:secret@app.example/decide", "no password"),
        ("app.example", "no address"),
    ] {
        let arguments = issuer.arguments(&["--authorize-url", url])?;
        let Err(error) = ServerProcess::start_with(&arguments) else {
            bail!("it started: {url}");
        };
        let told = format!("{error:#}");
        ensure!(
            told.contains(expected) && !told.contains("secret@"),
            "{told}"
        );
    }
    let open = ["--authorize-url", "https://app.example/decide"];
    let Err(error) = ServerProcess::start_with(&open) else {
        bail!("it started");
    };
    ensure!(format!("{error:#}").contains("--auth jwt"), "{error:#}");
    Ok(())
}
