//! What the JavaScript interop tests need: Node, and the npm packages in `tests/interop`.

use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::Result;

use crate::run::{output, root, run};

/// The oldest Node the packages are used with.
const MIN_NODE: u32 = 20;

/// Installs what is missing. `Err(reason)` inside when that can't be done here: the tests are skipped
/// then, and the reason said.
pub(crate) fn prepare() -> Result<Result<(), String>> {
    if let Err(reason) = find_node() {
        if !install_node()? {
            return Ok(Err(reason));
        }
        if let Err(reason) = find_node() {
            return Ok(Err(reason));
        }
    }
    let interop = root().join("tests/interop");
    if is_installed(&interop) {
        return Ok(Ok(()));
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .current_dir(&interop);
    if run("npm ci in tests/interop", &mut npm)? {
        Ok(Ok(()))
    } else {
        Ok(Err("npm ci failed in tests/interop".to_owned()))
    }
}

fn find_node() -> Result<(), String> {
    let version = output("node", &["--version"]).ok_or("there is no node")?;
    let major = version
        .trim_start_matches('v')
        .split('.')
        .next()
        .and_then(|major| major.parse().ok());
    if major.is_none_or(|major: u32| major < MIN_NODE) {
        return Err(format!("node is {version}, and {MIN_NODE} is needed"));
    }
    output("npm", &["--version"]).ok_or("there is no npm")?;
    Ok(())
}

/// Debian's own packages, where we may install them: in a container, as root.
fn install_node() -> Result<bool> {
    let is_root = output("id", &["-u"]).is_some_and(|id| id == "0");
    if !is_root || output("apt-get", &["--version"]).is_none() {
        return Ok(false);
    }
    let mut update = Command::new("apt-get");
    let mut install = Command::new("apt-get");
    install.args([
        "install",
        "--yes",
        "--no-install-recommends",
        "nodejs",
        "npm",
    ]);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(run("apt-get update", update.arg("update"))?
        && run("apt-get install nodejs npm", &mut install)?)
}

/// npm writes a lock file of its own into `node_modules`: as new as ours, nothing changed since.
fn is_installed(interop: &Path) -> bool {
    let modified = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    let installed = modified(&interop.join("node_modules/.package-lock.json"));
    let wanted = modified(&interop.join("package-lock.json"));
    installed.is_some() && installed >= wanted
}
