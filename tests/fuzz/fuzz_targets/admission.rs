//! Arbitrary ops in valid framing, judged: `cargo +nightly fuzz run -O admission`. (Without `-O` Automerge
//! has its debug assertions, which some honest documents fail; see `Cargo.toml`.)
#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)]
mod checks;
#[path = "../../src/forge.rs"]
#[allow(dead_code)]
mod forge;

use checks::admission::history_bytes;

/// One mutation in so many is of the history as well.
const HISTORY_ONE_IN: u32 = 4;

libfuzzer_sys::fuzz_target!(|input: &[u8]| checks::admission(input));

// A byte more or less in the history makes another one, in which what the fuzzer had found to refer to
// is not there: mostly it stays as it is.
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut kept = history_bytes(&data[..size]);
    if seed % HISTORY_ONE_IN == 0 || size > max_size || kept >= max_size {
        kept = 0;
    }
    kept + libfuzzer_sys::fuzzer_mutate(&mut data[kept..], size - kept, max_size - kept)
});
