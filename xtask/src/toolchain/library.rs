//! Building Rust's standard library for wasm32 from its source, as a sysroot.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::{TARGET, has_library};
use crate::run::{cargo, run};

/// Where a sysroot has its libraries.
pub(super) const SUBDIRECTORY: &str = "lib/rustlib/wasm32-unknown-unknown/lib";

/// The sysroot below what [`build`] is given.
pub(super) fn sysroot(directory: &Path) -> PathBuf {
    directory.join("sysroot")
}

/// Builds the library in `source` with `rustc`, which must be of the very version that it is the source of.
/// Small code is preferred: most of what the client uses of it is not on a hot path.
pub(super) fn build(rustc: &Path, source: &Path, directory: &Path) -> Result<()> {
    let target_directory = directory.join("build");
    let manifest = source.join("sysroot/Cargo.toml");
    let flags = [
        // The library's crates are private to it, as in what the Rust project builds.
        "-Zforce-unstable-if-unmarked".to_owned(),
        "-Cembed-bitcode=yes".to_owned(),
        "-Cdebuginfo=0".to_owned(),
        format!("--remap-path-prefix={}=/rustc/library", source.display()),
    ];
    let mut build = cargo(&["build", "--locked", "--release", "--target", TARGET]);
    build
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target_directory)
        .args(["--no-default-features", "--features", "optimize_for_size"]);
    for setting in [
        "opt-level=\"z\"",
        "codegen-units=1",
        "panic=\"abort\"",
        // Its object files are taken one by one when linking.
        "package.compiler_builtins.codegen-units=64",
    ] {
        build.args(["--config", &format!("profile.release.{setting}")]);
    }
    build
        .env("RUSTC", rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_INCREMENTAL", "0")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // Keeps its crates apart from those that users build with the same names and versions.
        .env("__CARGO_DEFAULT_LIB_METADATA", "wasmsysroot");
    if !run("building the standard library for wasm32", &mut build)? {
        bail!("the standard library does not build");
    }

    let sysroot = sysroot(directory);
    if sysroot.exists() {
        fs::remove_dir_all(&sysroot)?;
    }
    let libraries = sysroot.join(SUBDIRECTORY);
    fs::create_dir_all(&libraries)?;
    for entry in fs::read_dir(target_directory.join(TARGET).join("release/deps"))? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "rlib")
        {
            let name = path.file_name().context("a file has a name")?;
            fs::copy(&path, libraries.join(name))?;
        }
    }
    fs::remove_dir_all(&target_directory)?;
    ensure!(
        has_library(&libraries),
        "the standard library was not among what was built"
    );
    Ok(())
}
