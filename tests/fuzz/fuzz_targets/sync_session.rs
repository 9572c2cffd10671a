//! Sync messages and what the server does with them: `cargo +nightly fuzz run sync_session`.
#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)]
mod checks;
#[path = "../../src/forge.rs"]
#[allow(dead_code)]
mod forge;
#[path = "../hook.rs"]
mod hook;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    hook::overlook_panics_of_automerge();
    checks::sync_session(input);
});
