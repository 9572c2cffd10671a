//! Each operation, by each way to each role, with each kind of document.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::StatusCode;

use super::askers::{Asker, Fate, Realm};
use super::fresh;
use super::messages;
use super::operations::{self, Operation, told};
use super::table::Table;

/// Askers who are at work at a time.
pub(super) const AT_A_TIME: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_does_for_each_role_what_the_table_says() -> Result<()> {
    let table = Table::of_documents()?;
    let realms = Realm::all().await?;
    let all = operations::all(&realms[0].onlooker()?).await?;
    let all: Vec<_> = all
        .into_iter()
        .filter(Operation::is_about_a_document)
        .collect();
    let mut units = Vec::new();
    for realm in &realms {
        for asker in realm.askers() {
            units.extend(Fate::ALL.map(|fate| (realm, asker.clone(), fate)));
        }
    }
    ensure!(units.len() > 4 * 40, "{}", units.len());
    let carried_out = stream::iter(units).map(async |(realm, asker, fate)| {
        let unit = Unit {
            realm,
            asker: &asker,
            fate,
        };
        let done = unit.carry_out(&all, &table).await;
        let Asker { way, role, .. } = &asker;
        done.with_context(|| format!("{role} {way}, {fate:?}, {:?}", realm.decides))
    });
    let carried_out = carried_out.buffer_unordered(AT_A_TIME);
    let carried_out: Vec<BTreeSet<String>> = carried_out.try_collect().await?;
    // Whatever was refused left nothing anywhere.
    for realm in &realms {
        let listed = realm.listed(&realm.onlooker()?).await?;
        let listed: BTreeSet<String> = listed.into_iter().collect();
        ensure!(listed == *realm.there(), "{:?}", realm.decides);
    }
    let mut done: BTreeSet<&str> = messages::rows().collect();
    done.extend(carried_out.iter().flatten().map(String::as_str));
    let rows = table.rows();
    let other: Vec<_> = done.symmetric_difference(&rows).collect();
    ensure!(other.is_empty(), "{other:?}");
    Ok(())
}

/// Somebody, and a kind of document.
struct Unit<'a> {
    realm: &'a Realm,
    asker: &'a Asker,
    fate: Fate,
}

impl Unit<'_> {
    /// The rows that were looked at.
    async fn carry_out(&self, all: &[Operation], table: &Table) -> Result<BTreeSet<String>> {
        let Self { realm, asker, fate } = *self;
        let shared = realm.document(asker, fate).await?;
        let before = realm.look(&shared).await?;
        let mut rows = BTreeSet::new();
        for operation in all {
            let row = operation.row(table, realm, asker);
            let expected = match realm.lets_in(asker) {
                true => table.cell(&row, asker.column(fate))?,
                false => "401",
            };
            let done = if expected == "yes" && operation.writes() {
                self.is_done(operation).await
            } else {
                self.is_answered(operation, expected, &shared, before.change())
                    .await
            };
            done.with_context(|| operation.shown())?;
            rows.insert(row);
        }
        // What reads, or is refused, changes nothing.
        let after = realm.look(&shared).await?;
        ensure!(after == before, "{after:?}\n{before:?}");
        Ok(rows)
    }

    /// By who may, with a document of its own.
    async fn is_done(&self, operation: &Operation) -> Result<()> {
        let Self { realm, asker, fate } = *self;
        let id = realm.document(asker, fate).await?;
        operation.prepared(realm, &id).await?;
        let before = realm.look(&id).await?;
        let rest = realm.rest(asker, &id)?;
        let answer = operation.asked(realm, &rest, &id, before.change()).await?;
        let done = operation.was_done(realm, (asker, fate), &id, &before, &answer);
        done.await
    }

    async fn is_answered(
        &self,
        operation: &Operation,
        expected: &str,
        id: &str,
        change: &str,
    ) -> Result<()> {
        let Self { realm, asker, fate } = *self;
        let rest = realm.rest(asker, id)?;
        let answer = operation.asked(realm, &rest, id, change).await?;
        let (status, code) = match expected {
            "yes" => {
                let seen = realm.look(id).await?;
                let done = operation.was_done(realm, (asker, fate), id, &seen, &answer);
                return done.await;
            }
            "401" => (Some(StatusCode::UNAUTHORIZED), "unauthenticated"),
            "403" => (Some(StatusCode::FORBIDDEN), "not-allowed"),
            "absent" => (Some(StatusCode::NOT_FOUND), "no-document"),
            code => (None, code),
        };
        let body = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status.is_client_error(), "{}: {body}", answer.status);
        ensure!(
            status.is_none_or(|status| status == answer.status),
            "{}: {body}",
            answer.status
        );
        // `HEAD` has none.
        ensure!(body.is_empty() || answer.json()?["code"] == code, "{body}");
        let is_as_any = status.is_some_and(|status| status != StatusCode::FORBIDDEN);
        // Who may make documents would make one.
        if is_as_any && !(operation.makes() && asker.makes_it) {
            let nobodys = fresh();
            let nobodys = nobodys.as_str();
            let rest = realm.rest(asker, nobodys)?;
            let same = operation.asked(realm, &rest, nobodys, change).await?;
            ensure!(told(&answer, id) == told(&same, nobodys), "{body}");
        }
        Ok(())
    }
}
