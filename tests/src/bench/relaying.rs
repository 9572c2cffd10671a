//! Fan-out: how fast changes reach everybody, against the bare relay doing the same.

use std::sync::Arc;

use anyhow::Result;

use super::history::Base;
use super::load::{Outcome, Work, run};
use super::process::Target;
use super::stats::{Spread, count, figure};
use super::table::Row;
use super::{Bases, Settings};

/// Changes that a writer may have unacknowledged.
const WINDOW: usize = 32;

/// One line of the table: the same work on both.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Its name, to choose it by.
    pub name: &'static str,
    documents: usize,
    tabs: usize,
    writers: usize,
    /// Changes that each writer types.
    changes: usize,
    large: bool,
    answers: bool,
    /// Least ratio of deliveries that is promised.
    budget: Option<f64>,
}

/// All lines of this kind.
pub fn lines() -> [Line; 4] {
    let fan_out = Line {
        name: "fan-out: 50 tabs, 5 of them writing, one small document",
        documents: 1,
        tabs: 50,
        writers: 5,
        changes: 8000,
        large: false,
        answers: true,
        budget: Some(0.8),
    };
    [
        fan_out,
        Line {
            name: "fan-out to silent readers, otherwise the same",
            answers: false,
            budget: None,
            ..fan_out
        },
        Line {
            name: "many documents: 500 with 2 tabs each, one of them writing",
            documents: 500,
            tabs: 2,
            writers: 1,
            changes: 200,
            budget: Some(0.5),
            ..fan_out
        },
        Line {
            name: "large document: one types, one reads",
            tabs: 2,
            writers: 1,
            changes: 30_000,
            large: true,
            budget: None,
            ..fan_out
        },
    ]
}

impl Line {
    /// Measures it on Concord and on the bare relay in turn.
    pub async fn measure(&self, settings: &Settings, bases: &Bases) -> Result<Vec<Row>> {
        let base = if self.large {
            &bases.large
        } else {
            &bases.small
        };
        let work = self.work(settings, base)?;
        let (mut concord, mut relay) = (Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            concord.push(run(&work, &Target::concord()?).await?);
            relay.push(run(&work, &Target::relay(settings)?).await?);
        }
        let ratio = Spread::of(
            concord
                .iter()
                .zip(&relay)
                .map(|(concord, relay)| concord.delivery_rate() / relay.delivery_rate()),
        );
        let what = match self.large {
            true => format!("{} ({})", self.name, base.name),
            false => self.name.to_owned(),
        };
        Ok(vec![Row {
            what,
            concord: show(&concord) + &show_frames(&concord),
            baseline: format!("bare relay: {}", show(&relay)),
            ratio: ratio.to_string(),
            budget: self
                .budget
                .map(|least| (format!("≥ {least}"), ratio.median >= least)),
        }])
    }

    pub(super) fn work(&self, settings: &Settings, base: &Base) -> Result<Work> {
        let changes = settings.size(self.changes, 5);
        Ok(Work {
            documents: if self.documents > 1 {
                settings.size(self.documents, 3)
            } else {
                1
            },
            tabs: if self.tabs > 2 {
                settings.size(self.tabs, self.writers + 1)
            } else {
                self.tabs
            },
            window: WINDOW,
            answers: self.answers,
            base: base.clone(),
            script: Arc::new(base.script(self.writers, changes)?),
        })
    }
}

/// Rates, and the server's CPU.
pub(super) fn show(outcomes: &[Outcome]) -> String {
    let changes = Spread::of(outcomes.iter().map(Outcome::change_rate));
    let deliveries = Spread::of(outcomes.iter().map(Outcome::delivery_rate));
    let cpu = Spread::of(outcomes.iter().map(Outcome::cpu_micros_per_change));
    format!(
        "{} changes/s, {} deliveries/s, {:.0} µs CPU a change",
        changes.show(count),
        count(deliveries.median),
        cpu.median
    )
}

/// How many changes shared a frame, and the length of the answers.
fn show_frames(outcomes: &[Outcome]) -> String {
    let tallies = || outcomes.iter().map(|outcome| outcome.tally);
    let per_frame = Spread::of(tallies().map(|tally| figure(tally.changes) / figure(tally.frames)));
    let answer = Spread::of(
        tallies().map(|tally| figure(tally.answer_bytes) / figure(tally.answers.max(1))),
    );
    match tallies().any(|tally| tally.answers > 0) {
        true => format!(
            "; {:.1} changes a frame, answers of {:.0} B",
            per_frame.median, answer.median
        ),
        false => format!("; {:.1} changes a frame", per_frame.median),
    }
}

/// What a keystroke costs the server in the large document, against the small one.
pub async fn keystroke_cpu(settings: &Settings, bases: &Bases) -> Result<Vec<Row>> {
    let (mut large, mut small) = (Vec::new(), Vec::new());
    let line = Line {
        changes: 20_000,
        tabs: 2,
        writers: 1,
        documents: 1,
        ..lines()[0]
    };
    let works = (
        line.work(settings, &bases.large)?,
        line.work(settings, &bases.small)?,
    );
    for _ in 0..settings.rounds {
        large.push(
            run(&works.0, &Target::concord()?)
                .await?
                .cpu_micros_per_change(),
        );
        small.push(
            run(&works.1, &Target::concord()?)
                .await?
                .cpu_micros_per_change(),
        );
    }
    let ratio = Spread::of(large.iter().zip(&small).map(|(large, small)| large / small));
    let show =
        |figures: &[f64]| Spread::of(figures.iter().copied()).show(|micros| format!("{micros:.1}"));
    Ok(vec![Row {
        what: format!(
            "keystroke: server CPU in {} against {}",
            bases.large.name, bases.small.name
        ),
        concord: format!("{} µs a change", show(&large)),
        baseline: format!("{} µs in the small document", show(&small)),
        // The kernel counts CPU time in hundredths of a second: a smoke run is over before the first.
        ratio: if ratio.median.is_finite() {
            ratio.to_string()
        } else {
            "too short to tell".to_owned()
        },
        budget: Some(("≤ 1.2".to_owned(), ratio.median <= 1.2)),
    }])
}
