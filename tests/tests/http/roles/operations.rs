//! Every operation of the API about a document, as the server describes them, in each form that it has; and what shows that
//! it was done.

use anyhow::{Context as _, Result, bail, ensure};
use automerge::transaction::Transactable as _;
use automerge::{AutoCommit, ROOT, ReadDoc as _};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::import::AUTOMERGE;
use super::super::rest::{Answer, Rest, send};
use super::askers::{Asker, Fate, Realm, content, list};
use super::table::Table;

/// How an operation is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    /// As `HEAD` in place of `GET`, which says the same.
    Head,
    /// Of a version.
    At,
    /// With a document's own bytes.
    Automerge,
    /// At once.
    Now,
    /// To make the document, of another.
    Into,
}

/// Something that can be asked about a document.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    /// As the server names it.
    name: String,
    method: Method,
    template: String,
    form: Form,
}

/// What an onlooker sees of a document: of each question about it the status, the tag and the JSON.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Look {
    pub(super) value: Seen,
    pub(super) changes: Seen,
    pub(super) access: Seen,
    pub(super) said: Seen,
    pub(super) deletion: Seen,
}

type Seen = (StatusCode, Option<String>, Value);

/// An answer without what differs from one id to the next.
type Told = (StatusCode, String, Vec<(String, String)>);

impl Realm {
    pub(super) async fn look(&self, id: &str) -> Result<Look> {
        let rest = self.onlooker()?;
        let see = async |path: &str| {
            let answer = rest.get(&format!("/v1/documents/{id}{path}")).await?;
            let json = answer.json()?;
            anyhow::Ok((answer.status, answer.etag, json))
        };
        let mut deletion = see("/deletion").await?;
        if deletion.2["state"] == "erased" {
            // It is, some time after it was purged.
            deletion.2["state"] = json!("purged");
        }
        Ok(Look {
            value: see("").await?,
            changes: see("/changes").await?,
            access: see("/access").await?,
            said: see("/access/history").await?,
            deletion,
        })
    }

    /// All documents there are.
    pub(super) async fn listed(&self, rest: &Rest) -> Result<Vec<String>> {
        let (mut found, mut next) = (Vec::new(), String::new());
        loop {
            let page = rest.get(&format!("/v1/documents?limit=1000{next}")).await?;
            let page = page.good()?.json()?;
            for document in page["documents"].as_array().context("documents")? {
                found.push(document["id"].as_str().context("an id")?.to_owned());
            }
            let Some(after) = page["next"].as_str() else {
                return Ok(found);
            };
            next = format!("&after={after}");
        }
    }
}

impl Look {
    /// The hash of the first change.
    pub(super) fn change(&self) -> &str {
        let change = self.changes.2["changes"][0]["hash"].as_str();
        // As good as any, where there is none.
        change.unwrap_or("0000000000000000000000000000000000000000000000000000000000000000")
    }

    pub(super) fn count(&self) -> u64 {
        self.changes.2["count"].as_u64().unwrap_or_default()
    }

    fn is_absent(&self) -> bool {
        self.value.0 == StatusCode::NOT_FOUND && self.value.2["code"] == "no-document"
    }
}

/// All that the server describes.
pub(super) async fn all(rest: &Rest) -> Result<Vec<Operation>> {
    let described = rest.get("/v1/openapi.json").await?.good()?.json()?;
    let mut all = Vec::new();
    for (template, methods) in described["paths"].as_object().context("paths")? {
        for (method, described) in methods.as_object().context("methods")? {
            let name = described["operationId"].as_str().context("a name")?;
            let method = Method::from_bytes(method.to_uppercase().as_bytes())?;
            let mut forms = vec![Form::Plain];
            let takes = |name: &str| {
                let all = described["parameters"].as_array();
                all.is_some_and(|all| all.iter().any(|one| one["name"] == name))
            };
            if template.contains("{id}") {
                if method == Method::GET && !name.starts_with("watch") {
                    forms.push(Form::Head);
                }
                forms.extend(takes("at").then_some(Form::At));
                forms.extend(takes("now").then_some(Form::Now));
                forms.extend((name == "fork").then_some(Form::Into));
            }
            let bytes = ["getDocument", "putDocument", "createDocument"];
            forms.extend(bytes.contains(&name).then_some(Form::Automerge));
            all.extend(forms.into_iter().map(|form| Operation {
                name: name.to_owned(),
                method: method.clone(),
                template: template.clone(),
                form,
            }));
        }
    }
    ensure!(all.iter().any(|one| one.form == Form::At), "no versions");
    ensure!(all.iter().any(|one| one.form == Form::Now), "no erasing");
    Ok(all)
}

impl Operation {
    pub(super) fn is_about_a_document(&self) -> bool {
        self.template.contains("{id}")
    }

    pub(super) fn shown(&self) -> String {
        format!("{} ({:?})", self.name, self.form)
    }

    /// The row of the table that says who may do this.
    pub(super) fn row(&self, table: &Table, realm: &Realm, asker: &Asker) -> String {
        let name = &*self.name;
        // What is at a place is also at the document itself.
        let whole = name.strip_suffix("OfDocument").unwrap_or(name);
        let name = if table.has(name) { name } else { whole };
        let more = match (self.form, name) {
            (Form::Automerge, _) => " as Automerge",
            (Form::Now, _) => " with now",
            (Form::Into, _) => " into it",
            (_, "fork") if asker.makes_others => ", may make documents",
            (_, "fork") => ", may make none",
            (_, "putAccess") if !realm.has_lists() => ", no lists",
            (_, "listDocuments") if realm.is_decided_by_application(asker) => {
                ", an application decides"
            }
            _ => "",
        };
        format!("{name}{more}")
    }

    /// Whether it would make the document, where there is none.
    pub(super) fn makes(&self) -> bool {
        self.name == "putDocument" || self.form == Form::Into
    }

    /// Whether what there is is another afterwards.
    pub(super) fn writes(&self) -> bool {
        self.method != Method::GET && self.form != Form::Head && self.name != "fork"
            || self.form == Form::Into
    }

    fn is(&self, name: &str) -> bool {
        self.name == name
    }

    fn has_path(&self) -> bool {
        self.template.contains("{path}")
    }

    fn body(&self, realm: &Realm, id: &str, change: &str) -> Option<Value> {
        let name = self.name.strip_suffix("OfDocument").unwrap_or(&self.name);
        match name {
            _ if self.form == Form::Into => Some(json!({ "id": id })),
            "createDocument" => Some(content()),
            "putDocument" => Some(json!({ "a": { "b": 1 }, "list": [], "put": true })),
            "putValue" if !self.has_path() => Some(json!({ "list": [] })),
            "putValue" | "addValue" => Some(json!(2)),
            "patchValue" => Some(json!({ "c": 3 })),
            "restore" => Some(json!({ "at": change, "path": "/a" })),
            "putAccess" => Some(new_list()),
            "fork" if realm.has_lists() => None,
            "fork" => Some(json!({})),
            _ => None,
        }
    }

    pub(super) async fn asked(
        &self,
        realm: &Realm,
        rest: &Rest,
        id: &str,
        change: &str,
    ) -> Result<Answer> {
        let place = match &*self.name {
            "addValue" => "list",
            "deleteValue" => "a/b",
            _ => "a",
        };
        let about = match self.form {
            Form::Into => &realm.source,
            _ => id,
        };
        let path = self
            .template
            .replace("{id}", about)
            .replace("{path}", place)
            .replace("{hash}", change)
            .replace("{place}", "0");
        let path = match self.form {
            Form::At => format!("{path}?at={change}"),
            Form::Now => format!("{path}?now=true"),
            _ => path,
        };
        let method = match self.form {
            Form::Head => Method::HEAD,
            _ => self.method.clone(),
        };
        let mut request = rest.request(method.clone(), &path);
        let body = self.body(realm, id, change);
        if self.form == Form::Automerge && method == Method::GET {
            request = request.header(ACCEPT, AUTOMERGE);
        } else if self.form == Form::Automerge {
            let mut document = AutoCommit::new();
            document.put(ROOT, "imported", true)?;
            request = request.header(CONTENT_TYPE, AUTOMERGE);
            request = request.body(document.save());
        } else if let Some(body) = body {
            request = request.json(&body);
        }
        if !self.template.contains("/events") {
            return send(request).await;
        }
        // A stream goes on: its first event is waited for.
        let mut response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            let told = String::from_utf8_lossy(&body);
            if status.is_success() && told.contains("data: ") && told.ends_with("\n\n") {
                break;
            }
        }
        Ok(Answer {
            status,
            etag: None,
            location: None,
            content_type: String::new(),
            headers,
            body,
        })
    }

    /// Before somebody asks who may do it.
    pub(super) async fn prepared(&self, realm: &Realm, id: &str) -> Result<()> {
        if self.is("restore") {
            let path = format!("/v1/documents/{id}/value/a");
            realm.onlooker()?.put(&path, &json!(5)).await?.good()?;
        }
        Ok(())
    }

    /// Shows that it was done: by the answer, and by what others see before and afterwards.
    pub(super) async fn was_done(
        &self,
        realm: &Realm,
        (asker, fate): (&Asker, Fate),
        id: &str,
        before: &Look,
        answer: &Answer,
    ) -> Result<()> {
        let told = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status.is_success(), "{}: {told}", answer.status);
        if self.writes() {
            let after = realm.look(id).await?;
            let wrote = self.wrote(realm, (asker, fate), id, before, &after).await;
            return wrote.with_context(|| format!("{told}\n{before:?}\n{after:?}"));
        }
        if self.form == Form::Head {
            ensure!(answer.body.is_empty(), "{told}");
            return Ok(());
        }
        if self.form == Form::Automerge {
            return is_content(&AutoCommit::load(&answer.body)?);
        }
        let part = if self.has_path() {
            content()["a"].clone()
        } else {
            content()
        };
        let name = self.name.strip_suffix("OfDocument").unwrap_or(&self.name);
        if name == "watchValue" {
            let mut lines = told.lines().skip_while(|line| *line != "event: value");
            let data = lines.find_map(|line| line.strip_prefix("data: "));
            let data: Value = serde_json::from_str(data.context("no value")?)?;
            ensure!(data == part, "{told}");
            return Ok(());
        }
        let json = answer.json()?;
        let is_right = match name {
            "getDocument" | "getValue" => json == part,
            "listChanges" => json == before.changes.2 && json["count"] == 1,
            "getChange" => json["hash"] == before.change(),
            "getVersion" => json == json!({ "place": 0, "version": before.change() }),
            "compare" => {
                let mut value = if self.has_path() {
                    Value::Null
                } else {
                    json!({})
                };
                let patch: json_patch::Patch = serde_json::from_value(json.clone())?;
                json_patch::patch(&mut value, &patch)?;
                value == part
            }
            "getAccess" => {
                let list = &before.access.2["list"];
                let sees =
                    json["list"] == *list || asker.role < concord_shared::access::Role::Owner;
                json["role"] == asker.role.as_str() && sees
            }
            "listAccess" => json == before.said.2,
            "getDeletion" => {
                let states: &[&str] = match fate {
                    Fate::Erased => &["purged", "erased"],
                    _ => &["kept"],
                };
                json["by"] == realm.maker() && states.iter().any(|state| json["state"] == *state)
            }
            "fork" => {
                let new = json["id"].as_str().context("an id")?;
                realm.there().insert(new.to_owned());
                let there = realm.look(new).await?;
                ensure!(owns(realm, asker, &there), "{there:?}");
                there.value.2 == content() && there.change() == before.change()
            }
            other => bail!("nothing shows that {other} was done"),
        };
        ensure!(is_right, "{told}\n{before:?}");
        Ok(())
    }

    async fn wrote(
        &self,
        realm: &Realm,
        (asker, fate): (&Asker, Fate),
        id: &str,
        before: &Look,
        after: &Look,
    ) -> Result<()> {
        let mut value = content();
        match &*self.name {
            "deleteDocument" => {
                realm.there().remove(id);
                let by = match fate {
                    Fate::There => realm.name_of(asker.name),
                    _ => realm.maker(),
                };
                let state = if self.form == Form::Now {
                    "purged"
                } else {
                    "kept"
                };
                ensure!(after.is_absent(), "it is there");
                ensure!(after.deletion.2["by"] == by, "by whom?");
                ensure!(after.deletion.2["state"] == state, "is it?");
                return Ok(());
            }
            "undeleteDocument" => {
                realm.there().insert(id.to_owned());
                ensure!(
                    after.value.2 == value && after.count() == 1,
                    "another came back"
                );
                ensure!(after.deletion.0 == StatusCode::NOT_FOUND, "still deleted");
                return Ok(());
            }
            "putAccess" => {
                ensure!(after.access.2["list"] == new_list(), "another list");
                ensure!(after.access.1 != before.access.1, "the same tag");
                let said = after.said.2["entries"].as_array().context("entries")?;
                ensure!(said.last().is_some_and(|last| last["by"] == asker.name));
                let path = format!("/v1/documents/{id}");
                realm.named("zed")?.get(&path).await?.good()?;
                ensure!((&after.value, &after.changes) == (&before.value, &before.changes));
                return Ok(());
            }
            // Of another document, or an older version, whose value is the same.
            "fork" | "restore" => {}
            "putDocument" if self.form == Form::Automerge => {
                if fate == Fate::Unknown {
                    value = json!({});
                }
                value["imported"] = json!(true);
            }
            "putDocument" => value["put"] = json!(true),
            "putValue" => value["a"] = json!(2),
            "putValueOfDocument" => value = json!({ "list": [] }),
            "patchValue" => value["a"]["c"] = json!(3),
            "patchValueOfDocument" => value["c"] = json!(3),
            "addValue" => value["list"] = json!([2]),
            "addValueOfDocument" => {
                let there = after.value.2.as_object().context("an object")?;
                let new = there.iter().find(|(_, value)| **value == json!(2));
                value[new.context("nothing was added")?.0] = json!(2);
            }
            "deleteValue" => value["a"] = json!({}),
            other => bail!("nothing shows that {other} was done"),
        }
        ensure!(after.value.2 == value, "another value");
        ensure!(after.count() == before.count() + 1, "other changes");
        if fate == Fate::Unknown {
            realm.there().insert(id.to_owned());
            ensure!(owns(realm, asker, after), "somebody else's");
            return Ok(());
        }
        let others = |look: &Look| {
            (
                look.access.clone(),
                look.said.clone(),
                look.deletion.clone(),
            )
        };
        ensure!(others(after) == others(before), "and something else");
        Ok(())
    }
}

/// Whether a new document is its maker's.
fn owns(realm: &Realm, asker: &Asker, look: &Look) -> bool {
    let no_names = !realm.has_lists() && !asker.is_known();
    no_names || look.access.2["list"]["principals"][asker.name] == "owner"
}

fn new_list() -> Value {
    let mut all = list(concord_shared::access::Role::None);
    all["principals"]["zed"] = json!("reader");
    all
}

/// Whether a document is as all are at first.
pub(super) fn is_content(document: &AutoCommit) -> Result<()> {
    let (_, map) = document.get(ROOT, "a")?.context("no object")?;
    let (number, _) = document.get(map, "b")?.context("no number")?;
    ensure!(
        number.as_i64() == Some(1) || number.as_u64() == Some(1),
        "{number:?}"
    );
    Ok(())
}

/// What somebody is told of a document, without what differs from one id to the next.
pub(super) fn told(answer: &Answer, id: &str) -> Told {
    let body = String::from_utf8_lossy(&answer.body).replace(id, "ID");
    let headers = answer
        .headers
        .iter()
        .filter(|(name, _)| *name != "date" && *name != "content-length");
    let headers = headers.map(|(name, value)| (name.to_string(), format!("{value:?}")));
    (answer.status, body, headers.collect())
}
