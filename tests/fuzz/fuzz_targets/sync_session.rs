//! Sync messages and what is done with them: `cargo +nightly fuzz run sync_session`.
#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)]
mod checks;

libfuzzer_sys::fuzz_target!(|message: &[u8]| checks::sync_session(message));
