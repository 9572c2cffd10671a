//! Promise: same changes, same document; nothing is shown before it is kept.
//!
//! Each seed is a world of its own: replicas that run `automerge`'s own sync protocol, one server
//! core, cut connections, crashes that drop what the store had not committed, compactions, old
//! clients, filters with false positives, clients that lost their sync state. At every message to a
//! client all heads in it must be in the store; at the end all replicas, the server, the stored bytes
//! and a reference that merged everything must be equal, and everybody silent.
//!
//! It can't pass by accident: worlds without any change are rare (replicas edit in a third of all
//! steps), and the comparison is of heads and of values. To see it fail, make `Input::Committed`
//! unnecessary (call `make_visible` where changes are admitted): the first crash shows it.
//!
//! `CONCORD_TEST_WORLDS=n` runs the first n seeds. `CONCORD_TEST_SEED=n` runs that world alone and prints what happened in it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use concord_tests::simulation::{Rare, World};

fn run(seed: u64, verbose: bool) -> Rare {
    let mut world = World::new(seed);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    if verbose || result.is_err() {
        for event in &world.events {
            println!("{event}");
        }
    }
    if let Err(panic) = result {
        println!("world {seed} failed: CONCORD_TEST_SEED={seed} replays it");
        resume_unwind(panic);
    }
    world.rare
}

#[test]
fn all_replicas_converge_and_nothing_is_shown_before_it_is_kept() {
    if let Some(seed) = std::env::var("CONCORD_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
    {
        println!("{:?}", run(seed, true));
        return;
    }
    let long = std::env::var_os("CONCORD_TEST_LONG").is_some();
    let asked = std::env::var("CONCORD_TEST_WORLDS")
        .ok()
        .and_then(|n| n.parse().ok());
    let worlds = asked.unwrap_or(if long { 20_000 } else { 1_000 });
    let mut all = Rare::default();
    for seed in 0..worlds {
        let rare = run(seed, false);
        all.served_early += rare.served_early;
        all.pieces += rare.pieces;
        all.congested += rare.congested;
        all.crashed_untold += rare.crashed_untold;
        all.read_only += rare.read_only;
    }
    println!("in {worlds} worlds: {all:?}");
    // A simulation in which these no longer happen tests less than it says.
    let Rare {
        served_early,
        pieces,
        congested,
        crashed_untold,
        read_only,
    } = all;
    for happened in [served_early, pieces, congested, crashed_untold, read_only] {
        assert!(worlds < 500 || happened > 0, "{all:?}");
    }
}
