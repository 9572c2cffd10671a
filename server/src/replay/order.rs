//! Orders in which a history's changes could have arrived.

use std::collections::HashMap;
use std::fmt;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};

use super::recording::Recording;

/// One order: every change after those it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// As the changes arrived.
    Arrival,
    /// At each step any of the changes whose deps are there, each as likely as the others. The same seed gives the same
    /// order for the same recording, in every version.
    Random(u64),
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrival => f.write_str("order of arrival"),
            Self::Random(seed) => write!(f, "seed {seed}"),
        }
    }
}

impl Order {
    /// The order of this recording's changes, by their places in it.
    pub fn of(self, recording: &Recording) -> Vec<usize> {
        match self {
            Self::Arrival => (0..recording.len()).collect(),
            Self::Random(seed) => random(recording, seed),
        }
    }
}

fn random(recording: &Recording, seed: u64) -> Vec<usize> {
    // One that is defined by its algorithm: `StdRng` may become another one.
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let changes = recording.changes();
    let places: HashMap<_, usize> = (0..)
        .zip(changes)
        .map(|(place, change)| (change.hash(), place))
        .collect();
    let mut waits_for: Vec<usize> = changes.iter().map(|change| change.deps().len()).collect();
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); changes.len()];
    for (place, change) in changes.iter().enumerate() {
        for dep in change.deps() {
            if let Some(of_dep) = places.get(dep).and_then(|dep| children.get_mut(*dep)) {
                of_dep.push(place);
            }
        }
    }
    let none_missing = waits_for.iter().enumerate().filter(|(_, deps)| **deps == 0);
    let mut ready: Vec<usize> = none_missing.map(|(place, _)| place).collect();
    let mut order = Vec::with_capacity(changes.len());
    while !ready.is_empty() {
        // As `u64`: the choice must not depend on the machine.
        let chosen = random.random_range(0..ready.len() as u64);
        let chosen = ready.swap_remove(usize::try_from(chosen).unwrap_or(0));
        order.push(chosen);
        for child in children.get(chosen).into_iter().flatten() {
            if let Some(left) = waits_for.get_mut(*child) {
                *left -= 1;
                if *left == 0 {
                    ready.push(*child);
                }
            }
        }
    }
    order
}
