//! `cargo xtask client`: builds the npm package `@concord/client` into `client-wasm/js/dist`.
//!
//! From Rust to wasm by cargo; from that to JavaScript that calls it by `xtask/bindgen`, into
//! `client-wasm/js/build/wasm`; the rest, which needs npm's tools, is `client-wasm/js/build.mjs`.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;

use crate::node;
use crate::run::{cargo, root, run, target_directory};
use crate::toolchain::{self, TARGET, Toolchain};

/// The folder of the npm package.
pub(crate) const PACKAGE: &str = "client-wasm/js";

/// Options of `cargo xtask client`.
#[derive(Args)]
pub(crate) struct Options {
    /// Quick to build instead of small
    #[arg(long)]
    dev: bool,
}

/// True if it was built and is not larger than it may be.
pub(crate) fn client(options: &Options) -> Result<bool> {
    if let Err(reason) = node::prepare(PACKAGE)? {
        bail!("the client needs Node and its npm packages: {reason}");
    }
    build(&toolchain::find()?, options.dev)
}

/// As [`client`], with the npm packages installed.
pub(crate) fn build(toolchain: &Toolchain, is_dev: bool) -> Result<bool> {
    Ok(compile(toolchain, is_dev)? && bind(is_dev)? && bundle(is_dev)?)
}

/// Lints the client for wasm32; none if the toolchain has no clippy.
pub(crate) fn lints(toolchain: &Toolchain) -> Option<Command> {
    let arguments = ["--package", "concord-client-wasm", "--no-deps", "--locked"];
    let mut clippy = toolchain.clippy(&arguments)?;
    clippy.args(["--", "--deny", "warnings"]);
    Some(clippy)
}

fn compile(toolchain: &Toolchain, is_dev: bool) -> Result<bool> {
    let mut arguments = vec!["rustc", "--package", "concord-client-wasm", "--locked"];
    // That crate type alone: with a Rust library beside it, cargo leaves out LTO.
    arguments.extend(["--lib", "--crate-type", "cdylib"]);
    arguments.extend(["--profile", if is_dev { "dev" } else { "wasm" }]);
    run("the client for wasm32", &mut toolchain.cargo(&arguments))
}

/// Its dependencies are many, so it is built only for this, and in no way with the workspace.
fn bind(is_dev: bool) -> Result<bool> {
    let profile = if is_dev { "debug" } else { "wasm" };
    let mut bindgen = cargo(&["run", "--quiet", "--locked", "--manifest-path"]);
    bindgen
        .arg(root().join("xtask/bindgen/Cargo.toml"))
        .arg("--target-dir")
        .arg(target_directory().join("xtask-bindgen"))
        .arg("--")
        .arg(
            target_directory()
                .join(TARGET)
                .join(profile)
                .join("concord_client_wasm.wasm"),
        )
        .arg(root().join(PACKAGE).join("build/wasm"));
    run("the client's JavaScript bindings", &mut bindgen)
}

fn bundle(is_dev: bool) -> Result<bool> {
    let mut node = Command::new("node");
    node.arg("build.mjs").current_dir(root().join(PACKAGE));
    if is_dev {
        node.arg("--dev");
    }
    run(&format!("the npm package in {PACKAGE}/dist"), &mut node)
}
