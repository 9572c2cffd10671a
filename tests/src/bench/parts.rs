//! The CPU cost of parts of the hot path, in this process.

use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use concord_server::document::ConnectionId;
use concord_server::document::admission::{Admission, ParkingLimits, Sender};
use concord_server::document::history::History;
use concord_shared::change::{Change, Chunk, decode_document, parse_chunks};
use concord_shared::ids::PrincipalId;
use concord_shared::limits::Limits;

use super::stats::{Spread, figure};
use super::table::Row;
use super::{Bases, Settings};

/// Keystrokes admitted in one round.
const KEYSTROKES: usize = 20_000;

/// What admission of one may cost, in microseconds.
const BUDGET_MICROS: f64 = 10.0;

/// Parsing a keystroke's change (checksum, hash, columns) and admitting it to the large document's graph.
pub fn admission(settings: &Settings, bases: &Bases) -> Result<Vec<Row>> {
    let limits = Limits::default();
    let base = decode_document(&bases.large.saved, &limits)?;
    let script = bases.large.script(1, settings.size(KEYSTROKES, 50))?;
    let chunks: Vec<Bytes> = script
        .changes
        .iter()
        .flatten()
        .map(|change| Bytes::from(change.bytes.clone()))
        .collect();
    let (mut parsing, mut admitting) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        let (mut history, mut admission) =
            (History::new(), Admission::new(ParkingLimits::default()));
        admit(&mut admission, &mut history, base.clone())?;
        let started = Instant::now();
        let changes = chunks
            .iter()
            .map(|chunk| parse(chunk, &limits))
            .collect::<Result<Vec<_>>>()?;
        parsing.push(started.elapsed().as_secs_f64() * 1e6 / figure(changes.len() as u64));
        let count = changes.len() as u64;
        let started = Instant::now();
        for change in changes {
            admit(&mut admission, &mut history, vec![change])?;
        }
        admitting.push(started.elapsed().as_secs_f64() * 1e6 / figure(count));
    }
    let total = Spread::of(
        parsing
            .iter()
            .zip(&admitting)
            .map(|(parsing, admitting)| parsing + admitting),
    );
    let micros = |figure: f64| format!("{figure:.1} µs");
    Ok(vec![Row {
        what: format!("parsing and admitting a keystroke of {}", bases.large.name),
        concord: total.show(micros),
        baseline: format!(
            "of which parsing {}, graph {}",
            micros(Spread::of(parsing).median),
            micros(Spread::of(admitting).median)
        ),
        ratio: String::new(),
        budget: Some((
            format!("≤ {BUDGET_MICROS} µs"),
            total.median <= BUDGET_MICROS,
        )),
    }])
}

fn parse(chunk: &Bytes, limits: &Limits) -> Result<Change> {
    match parse_chunks(chunk, limits)?.pop() {
        Some(Chunk::Change(change)) => Ok(change),
        other => anyhow::bail!("a change was expected, not {other:?}"),
    }
}

fn admit(admission: &mut Admission, history: &mut History, changes: Vec<Change>) -> Result<()> {
    let sender = Sender {
        connection: ConnectionId(1),
        principal: PrincipalId::new("bench")?,
    };
    let expected = changes.len();
    let outcome = admission.admit(history, &sender, changes);
    ensure!(
        outcome.admitted.len() == expected,
        "{} of {expected} changes were admitted",
        outcome.admitted.len()
    );
    history.make_visible(history.graph().len());
    Ok(())
}
