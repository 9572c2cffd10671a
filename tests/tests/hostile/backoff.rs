//! Clients whose changes are refused again and again, and the log that tells of them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use automerge::ChangeHash;
use concord_server::connection::backoff::{
    FREE_REFUSALS, LOGGED_REFUSALS_PER_PERIOD, MAX_HOLD, OPEN_AFTER_HOLD,
};
use concord_shared::ErrorCode;
use concord_tests::raw_client::{RawClient, Refusal};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::changes::{Change, sync, sync_of};
use crate::world::{World, code_of};

/// Nothing here is big.
const MOST_MEMORY_MIB: u64 = 128;

/// As many refusals as a very slow machine may need until one more comes within the hold of the last,
/// which is twice as long each time.
const MOST_TRIES: u32 = FREE_REFUSALS + 20;

/// Without ops and with a start op above the next: admission refuses it, whoever sends it.
fn refused_by_admission(actor: u8) -> Change {
    Change {
        start_op: 10,
        ..Change::first(actor)
    }
}

async fn refuse(world: &World, client: &mut RawClient, data: &[u8]) -> Result<Refusal> {
    let message = client.sync_message(world.document.as_str(), data)?;
    client.send(&message).await?;
    client.refusal().await
}

fn ensure_counted(world: &World, code: ErrorCode, times: usize) -> Result<()> {
    let counted = world.refused(code)?;
    ensure!(
        (counted - times as f64).abs() < 0.5,
        "{code} was counted {counted} times, not {times}"
    );
    Ok(())
}

/// The honest clients are at the same address, and must not notice ([the promise](crate)).
#[test]
fn who_is_refused_again_and_again_has_to_wait_and_nobody_who_is_connected_does() {
    hold_off().expect("all is as promised");
}

fn hold_off() -> Result<()> {
    let world = World::start(&[], MOST_MEMORY_MIB)?;
    let url = world.server.websocket_url();
    let bad = refused_by_admission(50);
    let (refused, held_off) = world.runtime.block_on(async {
        // Until a join is refused.
        let mut refused = 0;
        let refusal = loop {
            ensure!(refused < MOST_TRIES, "nothing came of {refused} refusals");
            match RawClient::try_join(&url, "again").await? {
                Ok(mut client) => {
                    let refusal = refuse(&world, &mut client, &sync_of(&bad)).await?;
                    ensure!(code_of(&refusal)? == ErrorCode::BadChange, "{refusal:?}");
                    let told = refusal.message.as_deref().unwrap_or_default();
                    ensure!(told.contains(&bad.hash().to_string()), "no hash: {told}");
                    refused += 1;
                }
                Err(refusal) => break refusal,
            }
        };
        ensure!(refused > FREE_REFUSALS, "held off after {refused}");
        ensure!(code_of(&refusal)? == ErrorCode::BackOff, "{refusal:?}");
        ensure!(refusal.close_code == Some(4429), "{refusal:?}");
        // Whoever is elsewhere is not.
        world.join_from_afar(0, "elsewhere").await?;
        // And it ends by itself, though the client tries all the time.
        let deadline = Instant::now() + OPEN_AFTER_HOLD + 2 * MAX_HOLD;
        let mut held_off = 1;
        while RawClient::try_join(&url, "again").await?.is_err() {
            held_off += 1;
            ensure!(Instant::now() < deadline, "it does not end");
            sleep(Duration::from_millis(100)).await;
        }
        Ok((refused, held_off))
    })?;
    println!("{refused} refusals, {held_off} joins held off");
    ensure_counted(&world, ErrorCode::BadChange, refused as usize)?;
    ensure_counted(&world, ErrorCode::BackOff, held_off)?;
    world.finish()
}

#[test]
fn each_refused_change_is_logged_once_with_all_that_is_known() {
    log().expect("all is as promised");
}

fn log() -> Result<()> {
    let mut world = World::start(&["--log-format", "json"], MOST_MEMORY_MIB)?;
    let bad = refused_by_admission(51);
    let mut wrong_checksum = Change::first(52).chunk();
    wrong_checksum[4] ^= 1;
    let unreadable = sync(&[ChangeHash([1; 32])], &wrong_checksum);
    world.runtime.block_on(async {
        let mut client = world.join_from_afar(1, "admission").await?;
        refuse(&world, &mut client, &sync_of(&bad)).await?;
        let mut client = world.join_from_afar(2, "decoder").await?;
        refuse(&world, &mut client, &unreadable).await
    })?;
    let cases = [
        (
            "admission",
            "198.18.0.1",
            "bad-change",
            bad.hash().to_string(),
        ),
        ("decoder", "198.18.0.2", "bad-checksum", "none".to_owned()),
    ];
    for (peer, address, code, hash) in cases {
        world.server.wait_for_log(&format!("\"peer\":\"{peer}\""))?;
        let lines = refused_changes(&world)?;
        let mut lines = lines.iter().filter(|fields| fields["peer"] == peer);
        let fields = lines.next().context("a line")?;
        ensure!(lines.next().is_none(), "{peer} is logged again");
        let document = world.document.as_str();
        for (field, expected) in [
            ("principal", "anonymous"),
            ("address", address),
            ("document", document),
            ("code", code),
            ("hash", &hash),
        ] {
            ensure!(
                fields[field] == expected,
                "{field} is not {expected}: {fields}"
            );
        }
        let reason = fields["reason"].as_str().unwrap_or_default();
        ensure!(!reason.is_empty(), "no reason: {fields}");
    }
    ensure_counted(&world, ErrorCode::BadChange, 1)?;
    ensure_counted(&world, ErrorCode::BadChecksum, 1)?;
    flood(&mut world, &bad)?;
    world.finish()
}

/// Who opens many connections before anything is refused can be refused on each, but fills no log with it.
fn flood(world: &mut World, bad: &Change) -> Result<()> {
    let many = 3 * LOGGED_REFUSALS_PER_PERIOD as usize;
    world.runtime.block_on(async {
        let mut clients = Vec::new();
        for n in 0..many {
            clients.push(world.join_from_afar(3, &format!("flood-{n}")).await?);
        }
        for client in &mut clients {
            let refusal = refuse(world, client, &sync_of(bad)).await?;
            ensure!(code_of(&refusal)? == ErrorCode::BadChange, "{refusal:?}");
        }
        let mut last = world.join_from_afar(4, "last").await?;
        refuse(world, &mut last, &sync_of(bad)).await
    })?;
    ensure_counted(world, ErrorCode::BadChange, 1 + many + 1)?;
    world.server.wait_for_log("\"peer\":\"last\"")?;
    let lines = refused_changes(world)?;
    let logged = lines
        .iter()
        .filter(|fields| fields["address"] == "198.18.0.3");
    let logged = logged.count();
    ensure!(
        logged == LOGGED_REFUSALS_PER_PERIOD as usize,
        "{logged} lines of {many} refusals"
    );
    Ok(())
}

/// The fields of each line about a refused change.
fn refused_changes(world: &World) -> Result<Vec<Value>> {
    let log = world.server.log();
    let mut all = Vec::new();
    for line in log.lines().filter(|line| line.starts_with('{')) {
        let line: Value = serde_json::from_str(line)?;
        if line["fields"]["message"] == "change refused" {
            all.push(line["fields"].clone());
        }
    }
    Ok(all)
}
