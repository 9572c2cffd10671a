//! Frames: `cargo +nightly fuzz run wire`.
#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)]
mod checks;
#[path = "../../src/forge.rs"]
#[allow(dead_code)]
mod forge;

libfuzzer_sys::fuzz_target!(|frame: &[u8]| checks::wire(frame));
