//! Node, and the npm packages that a folder names in its `package-lock.json`.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::Result;

use crate::apt;
use crate::run::{output, root, run};

/// The oldest Node the packages are used with.
const MIN_NODE: u32 = 20;

/// Installs what is missing, for a folder below the root. `Err(reason)` inside when that can't be done here:
/// tests are skipped then, and the reason said.
pub(crate) fn prepare(folder: &str) -> Result<Result<(), String>> {
    if let Err(reason) = find_node() {
        if !apt::install(&["nodejs", "npm"])? {
            return Ok(Err(reason));
        }
        if let Err(reason) = find_node() {
            return Ok(Err(reason));
        }
    }
    let directory = root().join(folder);
    if is_installed(&directory) {
        return Ok(Ok(()));
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .current_dir(&directory);
    if run(&format!("npm ci in {folder}"), &mut npm)? {
        Ok(Ok(()))
    } else {
        Ok(Err(format!("npm ci failed in {folder}")))
    }
}

/// Whether `WebSockets` are there only when they are asked for: before Node 22.
pub(crate) fn needs_flag_for_websockets() -> bool {
    output("node", &["--version"])
        .and_then(|version| major(&version))
        .is_some_and(|major| major < 22)
}

fn find_node() -> Result<(), String> {
    let version = output("node", &["--version"]).ok_or("there is no node")?;
    if major(&version).is_none_or(|major| major < MIN_NODE) {
        return Err(format!("node is {version}, and {MIN_NODE} is needed"));
    }
    output("npm", &["--version"]).ok_or("there is no npm")?;
    Ok(())
}

/// Of `v20.11.1`: 20.
fn major(version: &str) -> Option<u32> {
    version
        .trim_start_matches('v')
        .split('.')
        .next()?
        .parse()
        .ok()
}

/// npm writes a lock file of its own into `node_modules`: as new as ours, nothing changed since.
fn is_installed(directory: &Path) -> bool {
    let modified = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    let installed = modified(&directory.join("node_modules/.package-lock.json"));
    let wanted = modified(&directory.join("package-lock.json"));
    installed.is_some() && installed >= wanted
}
