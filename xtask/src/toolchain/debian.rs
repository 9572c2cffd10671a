//! Debian's compiler `rustc-web`, the newest it has, with its source, unpacked into a directory of ours.
//!
//! Its version is looked up and not pinned: security updates replace it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::library;
use crate::apt::PrivateApt;
use crate::run::{captured, run};

/// Below the directory that [`make`] is given: Debian's compiler, as if that were the system's root.
const PREFIX: &str = "debian";

pub(super) fn rustc(directory: &Path) -> PathBuf {
    directory.join(PREFIX).join("bin/rustc")
}

pub(super) fn clippy(directory: &Path) -> PathBuf {
    directory.join(PREFIX).join("bin/cargo-clippy")
}

/// Downloads and unpacks the compiler, and builds the standard library with it. One or two minutes, 500 MB.
pub(super) fn make(directory: &Path) -> Result<()> {
    let prefix = directory.join(PREFIX);
    let source = directory.join("source");
    for old in [&prefix, &source] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
        fs::create_dir_all(old)?;
    }

    let downloads = directory.join("apt");
    let apt = PrivateApt::update(downloads.clone())?;
    let versions = apt.versions("rustc-web")?;
    let version = versions
        .first()
        .context("Debian offers no rustc-web here")?;
    let minor = minor(version).with_context(|| format!("rustc-web is of version {version}"))?;
    let description = apt.show(&format!("libstd-rust-web-1.{minor}"), version)?;
    let llvm = llvm(&description).context("rustc-web does not say which LLVM it needs")?;
    let mut packages: Vec<String> = [
        "rustc-web",
        "libstd-rust-web-dev",
        "rust-web-src",
        "rust-web-clippy",
    ]
    .map(|package| format!("{package}={version}"))
    .into();
    packages.push(format!("libstd-rust-web-1.{minor}={version}"));
    packages.extend([format!("libllvm{llvm}"), format!("lld-{llvm}")]);
    for archive in apt.download(&packages)? {
        let name = archive.file_name().context("an archive has a name")?;
        if name.to_string_lossy().starts_with("rust-web-src_") {
            unpack_library(&archive, &source)?;
        } else {
            let mut unpack = Command::new("dpkg-deb");
            captured(unpack.arg("--extract").args([&archive, &prefix]))?;
        }
    }
    fs::remove_dir_all(downloads)?;

    make_runnable(&prefix, llvm)?;
    library::build(&rustc(directory), &source, directory)?;
    fs::remove_dir_all(source)?;
    Ok(())
}

/// Only `library/` of the compiler's source.
fn unpack_library(archive: &Path, destination: &Path) -> Result<()> {
    let mut package = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdout(Stdio::piped())
        .spawn()
        .context("starting dpkg-deb")?;
    let archive = package.stdout.take().context("its output is a pipe")?;
    let mut tar = Command::new("tar");
    tar.args(["-x", "--strip-components=5", "--wildcards", "-C"])
        .arg(destination)
        .arg("./usr/src/rustc-*/library")
        .stdin(archive);
    let is_unpacked = run("unpacking the source of the standard library", &mut tar)?;
    ensure!(
        is_unpacked && package.wait()?.success(),
        "rust-web-src could not be unpacked"
    );
    Ok(())
}

/// Scripts that start the programs with their own libraries, from wherever the prefix is; and the linker where
/// the compiler looks for it.
fn make_runnable(prefix: &Path, llvm: u32) -> Result<()> {
    let libraries = multiarch_directory(prefix)?;
    let bin = prefix.join("bin");
    fs::create_dir_all(&bin)?;
    for program in ["rustc", "cargo-clippy"] {
        let script = format!(
            "#!/bin/sh\n\
             prefix=${{0%/*}}/..\n\
             export LD_LIBRARY_PATH=\"$prefix/usr/lib/{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"\n\
             exec \"$prefix/usr/bin/{program}\" \"$@\"\n"
        );
        let path = bin.join(program);
        fs::write(&path, script)?;
        captured(Command::new("chmod").arg("+x").arg(path))?;
    }
    let version = captured(Command::new(bin.join("rustc")).arg("-vV"))
        .context("Debian's compiler does not run")?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc tells its host")?;
    let tools = prefix.join("usr/lib/rustlib").join(host).join("bin");
    fs::create_dir_all(&tools)?;
    let linker = format!("../../../llvm-{llvm}/bin/lld");
    let mut link = Command::new("ln");
    captured(link.args(["-sfn", &linker]).arg(tools.join("rust-lld")))?;
    Ok(())
}

/// Debian's name of this architecture's libraries, such as `x86_64-linux-gnu`.
fn multiarch_directory(prefix: &Path) -> Result<String> {
    for entry in fs::read_dir(prefix.join("usr/lib"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.contains("-linux-gnu") {
            return Ok(name);
        }
    }
    bail!("Debian's packages have no libraries")
}

/// 96 of `1.96.0+dfsg1-1~deb12u2`.
fn minor(version: &str) -> Option<u32> {
    let (minor, _) = version.strip_prefix("1.")?.split_once('.')?;
    minor.parse().ok()
}

/// 19 of a package that depends on `libllvm19`.
fn llvm(description: &str) -> Option<u32> {
    let (_, rest) = description.split_once("libllvm")?;
    let end = rest
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_of_a_package_version() {
        assert_eq!(minor("1.96.0+dfsg1-1~deb12u2"), Some(96));
        assert_eq!(minor("2.0.0"), None);
    }

    #[test]
    fn llvm_of_a_description() {
        let description = "Package: libstd-rust-web-1.96\n\
                           Depends: libc6 (>= 2.34), libllvm22, libstdc++6 (>= 11)\n";
        assert_eq!(llvm(description), Some(22));
        assert_eq!(llvm("Depends: libllvm19 (>= 1)"), Some(19));
        assert_eq!(llvm("Depends: libc6"), None);
    }
}
