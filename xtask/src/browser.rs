//! The browser that the browser tests drive: Chromium.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::apt;
use crate::run::output;

/// Names the browser to be used; also tells the tests.
pub(crate) const CHROMIUM_VARIABLE: &str = "CONCORD_TEST_CHROMIUM";

/// Under these names it is installed.
const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// Installs it if it is missing. `Err(reason)` inside when that can't be done here: tests are skipped
/// then, and the reason said.
pub(crate) fn prepare() -> Result<Result<PathBuf, String>> {
    if let Some(named) = std::env::var_os(CHROMIUM_VARIABLE) {
        let named = PathBuf::from(named);
        return Ok(if named.is_file() {
            Ok(named)
        } else {
            Err(format!("{CHROMIUM_VARIABLE} names no file"))
        });
    }
    if let Some(found) = find() {
        return Ok(Ok(found));
    }
    let reason = || format!("there is no Chromium, and {CHROMIUM_VARIABLE} names none");
    if !apt::install(&["chromium"])? {
        return Ok(Err(reason()));
    }
    Ok(find().ok_or_else(reason))
}

/// Whether a directory has tests that `node --test` finds in it: `*.test.mjs`.
pub(crate) fn has_tests(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|entries| {
        entries.filter_map(Result::ok).any(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().ends_with(".test.mjs")
        })
    })
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let name = NAMES
        .into_iter()
        .find(|name| output(name, &["--version"]).is_some())?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
}
