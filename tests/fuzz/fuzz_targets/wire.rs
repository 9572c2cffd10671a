//! Frames: `cargo +nightly fuzz run wire`.
#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)]
mod checks;

libfuzzer_sys::fuzz_target!(|frame: &[u8]| checks::wire(frame));
