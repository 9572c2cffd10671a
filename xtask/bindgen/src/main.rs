//! `xtask-bindgen <module.wasm> <directory>`: writes `concord_bg.wasm` and `concord.js`, which calls it,
//! into the directory.
//!
//! What wasm-bindgen writes is one instance of the module. `concord.js` makes as many as one likes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
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
        .generate(&directory)?;
    let path = directory.join("concord.js");
    let glue = fs::read_to_string(&path)?;
    Ok(fs::write(&path, factory(&glue)?)?)
}

/// A function around all of it, whose result is what was exported.
fn factory(glue: &str) -> Result<String> {
    const LAST: &str = "export { initSync, __wbg_init as default };";
    let (body, rest) = glue
        .split_once(LAST)
        .context("wasm-bindgen's last line is another")?;
    ensure!(rest.trim().is_empty(), "something follows it: {rest}");
    let mut names = vec!["init: __wbg_init"];
    let mut inside = String::from("export function makeGlue() {\n");
    for line in body.lines() {
        let exported = line.strip_prefix("export ");
        if let Some(exported) = exported {
            let mut words = exported.split(|c: char| !c.is_alphanumeric() && c != '_');
            let kind = words.next();
            ensure!(
                matches!(kind, Some("class" | "function")),
                "an export of another kind: {line}"
            );
            names.push(words.next().context("an export without a name")?);
        }
        ensure!(!line.starts_with("import "), "an import: {line}");
        inside.push_str(exported.unwrap_or(line));
        inside.push('\n');
    }
    inside.push_str(&format!("return {{ {} }};\n}}\n", names.join(", ")));
    Ok(inside)
}
