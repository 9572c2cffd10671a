//! `xtask-bindgen <module.wasm> <directory>`: writes `concord_bg.wasm` and `concord.js`, which calls it,
//! into the directory.

use std::path::PathBuf;

use anyhow::{Context, Result};
use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let module = arguments
        .next()
        .context("the first argument is the module")?;
    let directory = arguments
        .next()
        .context("the second argument is a directory")?;
    Bindgen::new()
        .input_path(module)
        .out_name("concord")
        .web(true)?
        // The package has types of its own.
        .typescript(false)
        // Whoever loads the module knows where it is.
        .omit_default_module_path(true)
        .remove_producers_section(true)
        .generate(directory)
}
