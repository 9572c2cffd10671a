//! Panics turned into text, without a word on standard error.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether a panic of this thread is expected.
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// Calls, and says what it panicked with and where. Not to be used within itself.
///
/// Whatever the call had borrowed is in an unknown state after a panic and is to be dropped.
pub fn quietly<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    HOOK.call_once(|| {
        let loud = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                return loud(info);
            }
            let place = info.location().map_or_else(String::new, |location| {
                let file = location.file();
                let name = file.rsplit("/src/").next().unwrap_or(file);
                format!("{name}:{}", location.line())
            });
            let payload = payload(info.payload());
            LAST.replace(format!("panic at {place}: {payload}"));
        }));
    });
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    QUIET.set(false);
    result.map_err(|_| LAST.take())
}

fn payload(payload: &dyn Any) -> &str {
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    let text = owned.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("no text")
}
