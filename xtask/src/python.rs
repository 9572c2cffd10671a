//! Python, and the packages that a folder names in its `requirements.txt`, in a virtual environment of its own there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::apt;
use crate::run::{output, root, run};

/// The oldest Python 3 that the packages are used with.
const MIN_MINOR: u32 = 10;

/// Where the packages are, in a folder.
const ENVIRONMENT: &str = ".venv";

/// Installs what is missing, for a folder below the root, and returns where its programs are. `Err(reason)` inside when
/// that can't be done here: tests are skipped then, and the reason said.
pub(crate) fn prepare(folder: &str) -> Result<Result<PathBuf, String>> {
    let directory = root().join(folder);
    let environment = directory.join(ENVIRONMENT);
    let programs = environment.join("bin");
    let wanted = fs::read(directory.join("requirements.txt"))?;
    // Written last: what was broken off is made anew.
    let installed = environment.join("installed.txt");
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(Ok(programs));
    }
    if let Err(reason) = find_python() {
        let is_there = apt::install(&["python3", "python3-venv"])? && find_python().is_ok();
        if !is_there {
            return Ok(Err(reason));
        }
    }
    if environment.exists() {
        fs::remove_dir_all(&environment)?;
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&environment);
    if !run("python3 -m venv", &mut make)? {
        return Ok(Err("python3 -m venv failed".to_owned()));
    }
    if !run(
        &format!("pip install in {folder}"),
        &mut install(&directory, &programs),
    )? {
        return Ok(Err(format!("pip install failed in {folder}")));
    }
    fs::write(installed, wanted)?;
    Ok(Ok(programs))
}

fn install(directory: &Path, programs: &Path) -> Command {
    let mut pip = Command::new(programs.join("python"));
    pip.args(["-m", "pip", "install", "--quiet"]);
    pip.args(["--disable-pip-version-check", "--requirement"]);
    pip.arg(directory.join("requirements.txt"));
    pip
}

fn find_python() -> Result<(), String> {
    let version = output("python3", &["--version"]).ok_or("there is no python3")?;
    if minor(&version).is_none_or(|minor| minor < MIN_MINOR) {
        return Err(format!("{version} is here, and 3.{MIN_MINOR} is needed"));
    }
    // Debian has it apart, and says so only when it is used.
    let modules = ["-c", "import venv, ensurepip"];
    output("python3", &modules).ok_or("python3 has no venv (Debian: python3-venv)")?;
    Ok(())
}

/// Of `Python 3.11.7`: 11.
fn minor(version: &str) -> Option<u32> {
    let numbers = version.strip_prefix("Python 3.")?;
    numbers.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::minor;

    #[test]
    fn only_python_3_is_python() {
        assert_eq!(minor("Python 3.11.7"), Some(11));
        assert_eq!(minor("Python 3.14.0rc1"), Some(14));
        assert_eq!(minor("Python 2.7.18"), None);
    }
}
