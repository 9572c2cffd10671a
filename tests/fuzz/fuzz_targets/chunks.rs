//! Change and document chunks: `cargo +nightly fuzz run chunks`.
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
    checks::chunks(input);
});
