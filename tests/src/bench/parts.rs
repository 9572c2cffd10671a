//! The CPU cost of admission, in this process: reading a change (checksum, hash, every op) and judging it
//! against the history, in a small document and in the paper, and next to what `automerge` takes to apply
//! the same changes; and what the admission index of a document takes.

use std::time::Instant;

use anyhow::{Result, ensure};
use automerge::transaction::Transactable as _;
use automerge::{Automerge, ROOT};
use bytes::Bytes;
use concord_server::document::ConnectionId;
use concord_server::document::admission::{Admission, ParkingLimits, Sender};
use concord_server::document::history::History;
use concord_shared::change::{Change, Chunk, decode_document, parse_chunks};
use concord_shared::ids::PrincipalId;
use concord_shared::limits::Limits;

use super::history::{Base, text_object};
use super::stats::{Spread, figure};
use super::table::Row;
use super::{Bases, Settings};

/// What admission of a keystroke may cost, in microseconds.
const BUDGET_MICROS: f64 = 10.0;

/// How much more it may cost in the large document.
const BUDGET_RATIO: f64 = 1.2;

/// Characters of a paste.
const PASTE: usize = 10_000;

/// Edits of one kind.
struct Kind {
    name: &'static str,
    /// Of a round of admission, and of one of applying, which takes O(document) for each.
    admitted: usize,
    applied: usize,
    edit: fn(&mut automerge::AutoCommit, usize) -> Result<()>,
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "a keystroke",
        admitted: 20_000,
        applied: 10,
        edit: |doc, number| {
            let text = text_object(doc)?;
            Ok(doc.splice_text(&text, number, 0, "x")?)
        },
    },
    Kind {
        name: "a map put",
        admitted: 5_000,
        applied: 100,
        edit: |doc, number| Ok(doc.put(ROOT, "title", figure(number as u64))?),
    },
    Kind {
        name: "a paste of 10,000 characters",
        admitted: 20,
        applied: 5,
        edit: |doc, _| {
            let text = text_object(doc)?;
            Ok(doc.splice_text(&text, 0, 0, &"Lorem ipsu".repeat(PASTE / 10))?)
        },
    },
];

/// All lines.
pub fn admission(settings: &Settings, bases: &Bases) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kind in &KINDS {
        rows.extend(admitting(settings, bases, kind)?);
    }
    for base in [&bases.large, &Base::user()?] {
        rows.push(index(base)?);
    }
    Ok(rows)
}

fn admitting(settings: &Settings, bases: &Bases, kind: &Kind) -> Result<Vec<Row>> {
    let edits = settings.size(kind.admitted, 3);
    let small = bases.small.edits(edits, kind.edit)?;
    let large = bases.large.edits(edits, kind.edit)?;
    let small_history = history(&bases.small)?;
    let large_history = history(&bases.large)?;
    let (mut in_small, mut in_large) = (Vec::new(), Vec::new());
    for _ in 0..settings.rounds {
        in_small.push(round(&small_history, &small)?);
        in_large.push(round(&large_history, &large)?);
    }
    let ratio = Spread::of(
        in_large
            .iter()
            .zip(&in_small)
            .map(|(large, small)| large / small),
    );
    let (in_small, in_large) = (Spread::of(in_small), Spread::of(in_large));
    let is_keystroke = kind.name == KINDS[0].name;
    let applied = settings.size(kind.applied, 2).min(edits);
    let apply_small = applying(&bases.small, &small[..applied])?;
    let apply_large = applying(&bases.large, &large[..applied])?;
    let budget = |met| {
        let text = format!("≤ {BUDGET_MICROS} µs, ≤ {BUDGET_RATIO}");
        is_keystroke.then_some((text, met))
    };
    Ok(vec![
        Row {
            what: format!("admitting {} into {}", kind.name, bases.large.name),
            concord: in_large.show(micros),
            baseline: format!("into {}: {}", bases.small.name, in_small.show(micros)),
            ratio: ratio.show(|ratio| format!("{ratio:.2}")),
            budget: budget(in_large.median <= BUDGET_MICROS && ratio.median <= BUDGET_RATIO),
        },
        Row {
            what: format!(
                "the same by `Automerge::apply_changes`, into {}",
                bases.large.name
            ),
            concord: in_large.show(micros),
            baseline: format!(
                "{}; into {}: {}",
                micros(apply_large),
                bases.small.name,
                micros(apply_small)
            ),
            ratio: format!("{:.5}", in_large.median / apply_large),
            budget: None,
        },
    ])
}

fn micros(figure: f64) -> String {
    if figure < 1000.0 {
        format!("{figure:.1} µs")
    } else {
        format!("{:.1} ms", figure / 1000.0)
    }
}

/// Microseconds for each of these, one message each.
fn round(history: &History, chunks: &[Bytes]) -> Result<f64> {
    let limits = Limits::default();
    let mut history = history.clone();
    let mut admission = Admission::new(ParkingLimits::default());
    let started = Instant::now();
    for chunk in chunks {
        let change = parse(chunk, &limits)?;
        admit(&mut admission, &mut history, vec![change])?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / figure(chunks.len() as u64))
}

/// Microseconds for each of these, one call each.
fn applying(base: &Base, chunks: &[Bytes]) -> Result<f64> {
    let mut doc = Automerge::load(&base.saved)?;
    let started = Instant::now();
    for chunk in chunks {
        let change = automerge::Change::try_from(&chunk[..])?;
        doc.apply_changes([change])?;
    }
    Ok(started.elapsed().as_secs_f64() * 1e6 / figure(chunks.len() as u64))
}

/// What the index of a document takes, in memory and as it is stored.
fn index(base: &Base) -> Result<Row> {
    let history = history(base)?;
    let graph = history.graph();
    let last = graph.len().saturating_sub(1);
    // All of one author, without gaps.
    let ops = u64::from(graph.max_op(last));
    let actors = graph.actors();
    let index = history.index()?.into_owned();
    let stored = index.encode(actors).len();
    let per_op = |bytes: usize| format!("{:.2} B", figure(bytes as u64) / figure(ops));
    Ok(Row {
        what: format!("admission index of {} ({ops} ops), for each op", base.name),
        concord: format!(
            "{} in memory, {} at rest and stored",
            per_op(index.memory()),
            per_op(stored)
        ),
        baseline: format!("{} B saved, {} runs", base.saved.len(), index.runs()),
        ratio: String::new(),
        budget: None,
    })
}

fn history(base: &Base) -> Result<History> {
    let mut history = History::new();
    let mut admission = Admission::new(ParkingLimits::default());
    let changes = decode_document(&base.saved, &Limits::default())?;
    admit(&mut admission, &mut history, changes)?;
    Ok(history)
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
        "{} of {expected} changes were admitted: {:?}",
        outcome.admitted.len(),
        outcome.refused.first()
    );
    history.make_visible(history.graph().len());
    Ok(())
}
