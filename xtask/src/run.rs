//! Running other programs, from the root of the repository.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The root of the repository: xtask's own directory is below it.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Where cargo builds.
pub(crate) fn target_directory() -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(named)
}

/// Cargo, the one that runs us, in the root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    cargo_as(cargo_program(), arguments)
}

pub(crate) fn cargo_program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A program to be called like cargo, in the root.
pub(crate) fn cargo_as(program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    // Set for xtask itself by the cargo that runs it; another cargo would take them for its own and
    // build everything again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs it with its output shown; says what is run. True if it succeeded.
pub(crate) fn run(what: &str, command: &mut Command) -> Result<bool> {
    eprintln!("xtask: {what}");
    let status = command
        .status()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    Ok(status.success())
}

/// What a program prints, trimmed; `None` if it is not there or fails.
pub(crate) fn output(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    captured(command.args(arguments).stderr(Stdio::null())).ok()
}

/// What a program prints, trimmed. An error holds what it says of its own errors.
pub(crate) fn captured(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting {program}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed: {}", errors.trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
