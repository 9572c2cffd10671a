//! Change and document chunks: `cargo +nightly fuzz run chunks`.
#![no_main]

use std::sync::Once;

#[path = "../checks.rs"]
#[allow(dead_code)]
mod checks;

static HOOK: Once = Once::new();

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // libFuzzer aborts on any panic. Those that Automerge has on documents are caught by the function
    // under test, as its documentation says; only other panics are finds.
    HOOK.call_once(|| {
        let abort = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let file = info.location().map_or("", |location| location.file());
            if !file.contains("automerge-") && !file.contains("hexane-") {
                abort(info);
            }
        }));
    });
    checks::chunks(input);
});
