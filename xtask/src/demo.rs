//! `cargo xtask demo`: a server with the board app on it, and a board to look at.
//!
//! What can't be built here, for lack of Node or of a standard library for wasm32, is said and left out: the server
//! alone is a demo for other Automerge clients.

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{captured, cargo, root, run, target_directory};
use crate::{client, node, toolchain};

/// The folder of the app, below the root.
const APP: &str = "client-wasm/example";
/// Where the data is, below the root.
const DATA: &str = "concord-data";
/// Remembers which document the sample board is, beside the data.
const BOARD: &str = "demo-board.txt";

/// Runs until it is interrupted. False if the server could not be built, or ended badly.
pub(crate) fn demo() -> Result<bool> {
    let app = app()?;
    if let Err(reason) = &app {
        eprintln!("xtask: the board app is left out: {reason}");
    }
    let arguments = ["build", "--release", "--locked", "--bin", "concord"];
    if !run("the server", &mut cargo(&arguments))? {
        return Ok(false);
    }
    let Served { mut child, address } = Served::start(app.as_deref().ok())?;
    match app {
        Ok(app) => {
            let url = match seed(&app, &address) {
                Ok(document) => format!("http://{address}/#{document}"),
                Err(error) => {
                    eprintln!("xtask: there is no sample board yet, the page makes one: {error:#}");
                    format!("http://{address}/")
                }
            };
            eprintln!("\n  The board: {url}");
            eprintln!(
                "  Open it in two tabs and change a date. Ctrl-C ends the server; its data stays in {DATA}.\n"
            );
            open(&url);
        }
        Err(_) => eprintln!(
            "\n  The server, without an app: ws://{address}/sync\n  Point any automerge-repo client at it. Ctrl-C ends \
             it; its data stays in {DATA}.\n"
        ),
    }
    Ok(child.wait().context("waiting for the server")?.success())
}

/// Builds the app, and returns where its files are; or why that can't be done here.
fn app() -> Result<Result<PathBuf, String>> {
    if let Err(reason) = node::prepare(client::PACKAGE)? {
        return Ok(Err(reason));
    }
    let toolchain = match toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(error) => return Ok(Err(format!("{error:#}"))),
    };
    if !client::build(&toolchain, false)? {
        return Ok(Err("the client does not build".to_owned()));
    }
    Ok(if build(false)? {
        Ok(root().join(APP).join("dist"))
    } else {
        Err("the app does not build".to_owned())
    })
}

/// Builds the app over the client as it was built last.
pub(crate) fn build(is_dev: bool) -> Result<bool> {
    let mut node = Command::new("node");
    node.arg("build.mjs").current_dir(root().join(APP));
    if is_dev {
        node.arg("--dev");
    }
    run("the board app", &mut node)
}

/// A server that listens.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(app: Option<&Path>) -> Result<Self> {
        let binary = target_directory()
            .join("release")
            .join(format!("concord{EXE_SUFFIX}"));
        let mut command = Command::new(&binary);
        // Its one line on standard output says where it listens; what is no warning would hide what to do.
        command
            .args(["serve", "--data", DATA, "--log", "warn"])
            .current_dir(root())
            .stdout(Stdio::piped());
        if let Some(app) = app {
            command.arg("--app").arg(app);
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        let mut line = String::new();
        if let Some(stdout) = &mut child.stdout {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        // "concord listening on http://127.0.0.1:4010 (…"
        let address = line
            .split_once("http://")
            .and_then(|(_, rest)| rest.split_whitespace().next());
        if let Some(address) = address {
            let address = address.to_owned();
            return Ok(Self { child, address });
        }
        let status = child.wait()?;
        bail!("the server did not start: {status}")
    }
}

/// Puts the sample board on the server, if it is not there, and returns its id; tells the page, too.
fn seed(app: &Path, address: &str) -> Result<String> {
    let mut node = Command::new("node");
    if node::needs_flag_for_websockets() {
        node.arg("--experimental-websocket");
    }
    node.arg(root().join(APP).join("build/seed.mjs"))
        .arg(format!("ws://{address}/sync"))
        .arg(root().join(DATA).join(BOARD));
    let document = captured(&mut node)?;
    ensure!(
        document
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric()),
        "{document:?} is no document's id"
    );
    let known = format!("{{ \"document\": \"{document}\" }}\n");
    fs::write(app.join("board.json"), known).context("telling the page")?;
    Ok(document)
}

/// Opens it in a browser if there is a screen; that it can't be is no failure.
fn open(url: &str) {
    let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if has_screen {
        let _not_there = Command::new("xdg-open")
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
    }
}
