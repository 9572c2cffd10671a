//! The story that Concord is for: a board document, four tabs, one program that writes back whole objects that it
//! read a while ago, and one that writes single fields.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use automerge::transaction::Transactable as _;
use automerge::{ActorId, AutoCommit, AutomergeError, ObjId, ROOT, ReadDoc as _};
use concord_client_wasm::Replica;
use concord_shared::ids::DocumentId;
use concord_shared::json::{Types, to_json};
use concord_tests::client::Client;
use concord_tests::server_process::ServerProcess;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::rest::Rest;

const TABS: usize = 4;
const COMPANIES: usize = 5;
const MEETINGS: usize = 10;
const ROUNDS: usize = 6;

const WORLDS: u64 = 150;
const LONG_WORLDS: u64 = 4_000;

/// Company, meeting, field.
type Place = (usize, usize, &'static str);

#[test]
fn tabs_and_programs_write_at_once_and_only_what_was_changed_moves() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = ServerProcess::start().unwrap();
    let mut at_once = 0;
    for seed in super::seeds(WORLDS, LONG_WORLDS) {
        let ran = runtime.block_on(Box::pin(World::run(&server, seed)));
        at_once += ran
            .with_context(|| format!("CONCORD_TEST_SEED={seed} replays it"))
            .unwrap();
    }
    assert!(at_once > 0, "nobody wrote while others did");
}

struct World {
    random: StdRng,
    rest: Rest,
    url: String,
    tabs: Vec<Client>,
    /// What the program that writes whole objects read last, with its version.
    read: Option<(Value, String)>,
    /// What was written to each field, and what of that was written over by somebody who had seen it.
    written: BTreeMap<Place, BTreeSet<String>>,
    dead: BTreeSet<String>,
    /// What was added to agendas.
    words: BTreeMap<(usize, usize), BTreeSet<String>>,
    next: usize,
}

fn company(n: usize) -> String {
    format!("company-{n}")
}

fn meeting(n: usize) -> String {
    format!("2026-{:02}", n + 1)
}

fn seed_document() -> Value {
    let meetings = |c: usize| -> Value {
        let one = |m| json!({ "date": format!("date-{c}/{m}"), "room": format!("room-{c}/{m}"), "agenda": "Opening. Closing.", "open": true });
        (0..MEETINGS).map(|m| (meeting(m), one(m))).collect()
    };
    let companies: Value = (0..COMPANIES)
        .map(|c| {
            (
                company(c),
                json!({ "name": format!("Company {c}"), "meetings": meetings(c) }),
            )
        })
        .collect();
    json!({ "user": { "name": "Ann" }, "companies": companies })
}

fn field_of(document: &Value, (c, m, field): Place) -> Result<String> {
    let value = &document["companies"][company(c)]["meetings"][meeting(m)][field];
    Ok(value.as_str().context("a string")?.to_owned())
}

fn meeting_in(doc: &AutoCommit, c: usize, m: usize) -> Result<ObjId> {
    let mut at = ROOT;
    for step in ["companies", &company(c), "meetings", &meeting(m)] {
        let (_, id) = doc.get(&at, step)?.context("the path")?;
        at = id;
    }
    Ok(at)
}

impl World {
    /// Gives how often programs wrote while tabs had something to send.
    async fn run(server: &ServerProcess, seed: u64) -> Result<usize> {
        let mut random = StdRng::seed_from_u64(seed);
        let rest = Rest::new(server.address());
        let url = format!("/v1/documents/story-{seed}-{}", random.random::<u64>());
        let id = DocumentId::new(url.rsplit('/').next().unwrap_or_default())?;
        rest.put(&url, &seed_document()).await?.good()?;
        let mut tabs = Vec::new();
        for tab in 0..TABS {
            let replica = Replica::new(id.clone(), ActorId::random());
            let name = format!("tab-{seed}-{tab}");
            let mut client = Box::pin(Client::join(server.address(), &name, replica)).await?;
            client.settle().await?;
            while client.replica().heads().is_empty() {
                let deadline = Instant::now() + Duration::from_secs(10);
                ensure!(client.receive(deadline, drop).await?, "the document came");
            }
            tabs.push(client);
        }
        let mut world = Self {
            random,
            rest,
            url,
            tabs,
            read: None,
            written: BTreeMap::new(),
            dead: BTreeSet::new(),
            words: BTreeMap::new(),
            next: 0,
        };
        let mut at_once = 0;
        for _ in 0..ROUNDS {
            at_once += world.round().await?;
        }
        world.finish().await?;
        Ok(at_once)
    }

    fn place(&mut self) -> Place {
        // Few of the fields, so that writers meet.
        let field = if self.random.random() { "date" } else { "room" };
        (
            self.random.random_range(0..COMPANIES),
            self.random.random_range(0..2),
            field,
        )
    }

    fn value(&mut self) -> String {
        self.next += 1;
        format!("value-{}", self.next)
    }

    fn wrote(&mut self, place: Place, over: String) -> String {
        let value = self.value();
        // Nothing is dead by being written again: each value is written once.
        self.dead.insert(over);
        self.written.entry(place).or_default().insert(value.clone());
        value
    }

    async fn round(&mut self) -> Result<usize> {
        let mut sending = Vec::new();
        for tab in 0..TABS {
            if self.random.random_bool(0.6) {
                self.edit_in_tab(tab)?;
                sending.push(tab);
            }
        }
        let whole = self.whole_object().await?;
        let single = self.single_field().await?;
        let (rest, url) = (self.rest.clone(), self.url.clone());
        let programs = async {
            let whole = async {
                if let Some((document, etag)) = &whole {
                    rest.put_seen(&url, etag, document).await?.good()?;
                }
                anyhow::Ok(())
            };
            let single = async {
                if let Some((path, patch)) = &single {
                    let kind = "application/merge-patch+json";
                    rest.patch(path, kind, patch).await?.good()?;
                }
                anyhow::Ok(())
            };
            tokio::try_join!(whole, single)
        };
        let tabs = async {
            let soon = Duration::from_millis(self.random.random_range(0..4));
            for (n, tab) in self.tabs.iter_mut().enumerate() {
                if sending.contains(&n) {
                    tab.send().await?;
                }
                if self.random.random() {
                    tab.receive(Instant::now() + soon, drop).await?;
                    tab.send().await?;
                }
            }
            anyhow::Ok(())
        };
        tokio::try_join!(programs, tabs)?;
        let wrote = whole.is_some() || single.is_some();
        Ok(usize::from(wrote && !sending.is_empty()))
    }

    fn edit_in_tab(&mut self, tab: usize) -> Result<()> {
        let (c, m, field) = self.place();
        let doc = self.tabs[tab].replica().doc();
        let meeting = meeting_in(doc, c, m)?;
        if self.random.random_bool(0.3) {
            let (_, agenda) = doc.get(&meeting, "agenda")?.context("an agenda")?;
            let at = self.random.random_range(0..=doc.length(&agenda));
            let word = format!("[{}]", self.value());
            self.words.entry((c, m)).or_default().insert(word.clone());
            return Ok(self.change(tab, |doc| doc.splice_text(&agenda, at, 0, &word))?);
        }
        let doc = self.tabs[tab].replica().doc();
        let (value, id) = doc.get(&meeting, field)?.context("a field")?;
        let over = if value.is_object() {
            doc.text(&id)?
        } else {
            value.as_str().context("a string")?.to_owned()
        };
        let value = self.wrote((c, m, field), over);
        // As a whole: what two write at once into a text would be both.
        Ok(self.change(tab, |doc| doc.put(&meeting, field, value))?)
    }

    fn change(
        &mut self,
        tab: usize,
        edit: impl FnOnce(&mut AutoCommit) -> Result<(), AutomergeError>,
    ) -> Result<(), AutomergeError> {
        self.tabs[tab].replica().change(edit)
    }

    /// Reads the whole object, or writes back what was read earlier with one field changed.
    async fn whole_object(&mut self) -> Result<Option<(Value, String)>> {
        let Some((mut document, etag)) = self.read.take() else {
            let answer = self.rest.get(&self.url).await?.good()?;
            self.read = Some((answer.json()?, answer.etag()?.to_owned()));
            return Ok(None);
        };
        if self.random.random() {
            self.read = Some((document, etag));
            return Ok(None);
        }
        let place = self.place();
        let over = field_of(&document, place)?;
        let value = self.wrote(place, over);
        let (c, m, field) = place;
        document["companies"][company(c)]["meetings"][meeting(m)][field] = json!(value);
        Ok(Some((document, etag)))
    }

    async fn single_field(&mut self) -> Result<Option<(String, Value)>> {
        if self.random.random() {
            return Ok(None);
        }
        let (c, m, field) = self.place();
        let path = format!(
            "{}/value/companies/{}/meetings/{}",
            self.url,
            company(c),
            meeting(m)
        );
        let over = self
            .rest
            .get(&format!("{path}/{field}"))
            .await?
            .good()?
            .json()?;
        let over = over.as_str().context("a string")?.to_owned();
        let value = self.wrote((c, m, field), over);
        Ok(Some((path, json!({ field: value }))))
    }

    async fn finish(&mut self) -> Result<()> {
        for tab in &mut self.tabs {
            tab.settle().await?;
        }
        let answer = self.rest.get(&self.url).await?.good()?;
        let (document, etag) = (answer.json()?, answer.etag()?.to_owned());
        // Everybody comes to the version that the server shows.
        let deadline = Instant::now() + Duration::from_secs(10);
        for (n, tab) in self.tabs.iter_mut().enumerate() {
            loop {
                let heads: Vec<String> = tab
                    .replica()
                    .heads()
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                if format!("\"{}\"", heads.join(".")) == etag {
                    break;
                }
                ensure!(
                    Instant::now() < deadline,
                    "tab {n} has {heads:?}, the server {etag}"
                );
                tab.receive(Instant::now() + Duration::from_millis(50), drop)
                    .await?;
                tab.send().await?;
            }
            let shown = to_json(&tab.replica().doc().hydrate(ROOT, None)?, Types::Plain);
            ensure!(
                shown == document,
                "tab {n} shows {shown}, the server {document}"
            );
        }
        self.check(&document)
    }

    fn check(&self, document: &Value) -> Result<()> {
        let mut expected = seed_document();
        for c in 0..COMPANIES {
            for m in 0..MEETINGS {
                for field in ["date", "room"] {
                    let now = field_of(document, (c, m, field))?;
                    let written = self.written.get(&(c, m, field));
                    let first = field_of(&expected, (c, m, field))?;
                    let is_known = match written {
                        Some(written) => written.contains(&now),
                        None => now == first,
                    };
                    ensure!(is_known, "{c}/{m}/{field} is {now:?}, of {written:?}");
                    ensure!(
                        !self.dead.contains(&now),
                        "{c}/{m}/{field} is {now:?} again"
                    );
                    expected["companies"][company(c)]["meetings"][meeting(m)][field] = json!(now);
                }
                let agenda = field_of(document, (c, m, "agenda"))?;
                // A word may stand within another: by their letters all are there, and once.
                let added: usize = self
                    .words
                    .get(&(c, m))
                    .into_iter()
                    .flatten()
                    .map(String::len)
                    .sum();
                ensure!(
                    agenda.len() == "Opening. Closing.".len() + added,
                    "agenda {agenda:?}"
                );
                expected["companies"][company(c)]["meetings"][meeting(m)]["agenda"] = json!(agenda);
            }
        }
        ensure!(*document == expected, "{document} is not {expected}");
        Ok(())
    }
}
