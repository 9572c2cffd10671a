//! `cargo xtask test`: everything that must hold, and one line for everything that was left out.

use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::run::{cargo, output, root, run, target_directory};
use crate::{browser, client, demo, node, python, toolchain};

/// Tells the tests which binary to start (see `concord_tests::server_process`).
const BINARY_VARIABLE: &str = "BUILT_CONCORD";
/// See [`Options::rounds`].
const LONG_VARIABLE: &str = "CONCORD_TEST_LONG";
/// Tells the tests where schemathesis is.
const SCHEMATHESIS_VARIABLE: &str = "CONCORD_TEST_SCHEMATHESIS";
/// Names the directory of the editing traces.
const TRACES_VARIABLE: &str = "CONCORD_TEST_TRACES";

/// Options of `cargo xtask test`.
#[derive(Args)]
pub(crate) struct Options {
    /// The long profile: many more rounds of the durability, simulation and property tests, of those in the browser, too
    #[arg(long)]
    long: bool,
    /// Only the tests whose name contains this; no formatting, lints and doc tests
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

impl Options {
    /// Tells tests, in whatever language, to run many more rounds, if they are to.
    fn rounds(&self) -> Option<(&'static str, &'static str)> {
        self.long.then_some((LONG_VARIABLE, "1"))
    }
}

/// What was run and left out, for the end.
#[derive(Default)]
struct Summary {
    steps: Vec<(&'static str, bool, u64)>,
    skipped: Vec<String>,
}

impl Summary {
    fn step(&mut self, what: &'static str, command: &mut Command) -> Result<()> {
        self.steps(what, || run(what, command)).map(|_| ())
    }

    /// A step of several commands; true if it succeeded.
    fn steps(&mut self, what: &'static str, run: impl FnOnce() -> Result<bool>) -> Result<bool> {
        let started = Instant::now();
        let succeeded = run()?;
        self.steps
            .push((what, succeeded, started.elapsed().as_secs()));
        Ok(succeeded)
    }

    /// Prints it; true if nothing failed.
    fn finish(&self) -> bool {
        eprintln!();
        for (what, succeeded, seconds) in &self.steps {
            eprintln!(
                "xtask: {} {what} ({seconds} s)",
                if *succeeded { "ok    " } else { "FAILED" }
            );
        }
        if self.skipped.is_empty() {
            eprintln!("xtask: nothing was skipped");
        } else {
            eprintln!("xtask: skipped {}", self.skipped.join("; "));
        }
        self.steps.iter().all(|(_, succeeded, _)| *succeeded)
    }
}

/// Runs it all; a step that fails does not keep the others from running. True if none did.
pub(crate) fn test(options: &Options) -> Result<bool> {
    let mut summary = Summary::default();
    let is_whole = options.filter.is_none();
    if is_whole {
        if has_component("fmt") {
            summary.step("formatting", &mut cargo(&["fmt", "--all", "--check"]))?;
        } else {
            summary
                .skipped
                .push("formatting: there is no rustfmt".to_owned());
        }
        if has_component("clippy") {
            let mut clippy = cargo(&["clippy", "--workspace", "--all-targets", "--locked"]);
            summary.step("lints", clippy.args(["--", "--deny", "warnings"]))?;
        } else {
            summary.skipped.push("lints: there is no clippy".to_owned());
        }
    }

    let binary = build()?;
    let javascript = node::prepare("tests/interop")?;
    let has_javascript = javascript.is_ok();
    if let Err(reason) = javascript {
        summary
            .skipped
            .push(format!("the tests with JavaScript clients: {reason}"));
    }
    let python = python::prepare("tests/openapi")?;
    if let Err(reason) = &python {
        summary
            .skipped
            .push(format!("HTTP against its own description: {reason}"));
    }
    let python = python.ok();
    let has = Has {
        javascript: has_javascript,
        python: python.is_some(),
    };
    let traces = traces();
    if traces.is_none() {
        summary.skipped.push(format!(
            "the replay of editing traces: there is no ../shared/traces, and {TRACES_VARIABLE} names no directory"
        ));
    }
    let environment = || {
        let mut variables: Vec<(&str, OsString)> = vec![(BINARY_VARIABLE, binary.clone().into())];
        variables.extend(options.rounds().map(|(name, value)| (name, value.into())));
        if let Some(programs) = &python {
            let program = programs.join("schemathesis");
            variables.push((SCHEMATHESIS_VARIABLE, program.into()));
        }
        if let Some(traces) = &traces {
            variables.push((TRACES_VARIABLE, traces.clone().into()));
        }
        variables
    };

    let mut tests = if output("cargo-nextest", &["nextest", "--version"]).is_some() {
        with_nextest(options, &has)
    } else {
        eprintln!("xtask: there is no cargo-nextest: cargo test is used, which is slower");
        with_cargo_test(options, &has)
    };
    summary.step("tests", tests.envs(environment()))?;
    if is_whole {
        let mut doc_tests = cargo(&["test", "--workspace", "--doc", "--locked", "--quiet"]);
        summary.step("doc tests", doc_tests.envs(environment()))?;
        test_client(options, &mut summary, &binary)?;
    }
    Ok(summary.finish())
}

/// The npm package: the lints that only wasm32 sees, its build, its own tests, and those in a browser.
fn test_client(options: &Options, summary: &mut Summary, binary: &Path) -> Result<()> {
    if let Err(reason) = node::prepare(client::PACKAGE)? {
        summary
            .skipped
            .push(format!("the JavaScript client: {reason}"));
        return Ok(());
    }
    let toolchain = match toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(error) => {
            summary
                .skipped
                .push(format!("the JavaScript client: {error:#}"));
            return Ok(());
        }
    };
    match client::lints(&toolchain) {
        Some(mut lints) => summary.step("lints for wasm32", &mut lints)?,
        None => summary
            .skipped
            .push("lints for wasm32: there is no clippy".to_owned()),
    }
    // Not as published: what makes it small takes longer than all its tests.
    let build = || Ok(client::build(&toolchain, true)? && demo::build(true)?);
    if !summary.steps("client and board app", build)? {
        return Ok(());
    }
    let mut npm = Command::new("npm");
    npm.args(["test", "--silent"]).envs(options.rounds());
    npm.current_dir(root().join(client::PACKAGE));
    summary.step("client's tests", &mut npm)?;

    let directory = root().join("tests/browser");
    if !browser::has_tests(&directory) {
        return Ok(());
    }
    match browser::prepare()? {
        Ok(chromium) => {
            // Finds the tests itself: how it is told where they are depends on Node's version.
            let mut node = Command::new("node");
            node.arg("--test").current_dir(directory);
            node.env(browser::CHROMIUM_VARIABLE, chromium);
            node.envs(options.rounds());
            summary.step("browser tests", node.env(BINARY_VARIABLE, binary))
        }
        Err(reason) => {
            summary.skipped.push(format!("browser tests: {reason}"));
            Ok(())
        }
    }
}

/// What the tests need of other languages, and have.
struct Has {
    javascript: bool,
    python: bool,
}

fn with_nextest(options: &Options, has: &Has) -> Command {
    let mut command = cargo(&["nextest", "run", "--workspace", "--locked"]);
    command.args(["--profile", if options.long { "long" } else { "default" }]);
    let mut filters = Vec::new();
    if !has.javascript {
        filters.push("not binary(interop_js)".to_owned());
    }
    if !has.python {
        filters.push("not binary(openapi)".to_owned());
    }
    if let Some(filter) = &options.filter {
        filters.push(format!("test({filter})"));
    }
    if !filters.is_empty() {
        command.args(["--filterset", &filters.join(" & ")]);
    }
    command
}

fn with_cargo_test(options: &Options, has: &Has) -> Command {
    let mut command = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    command.args(["--lib", "--bins", "--tests"]);
    let mut harness: Vec<&str> = Vec::new();
    if let Some(filter) = &options.filter {
        harness.push(filter);
    }
    if !has.python {
        harness.extend(["--skip", "schemathesis"]);
    }
    if !has.javascript {
        // Only the modules of interop_js have these names.
        for module in [
            "finding::",
            "editing::",
            "bad_changes::",
            "offline::",
            "presence::",
            "restart::",
            "large::",
            "shares::",
            "tokens::",
        ] {
            harness.extend(["--skip", module]);
        }
    }
    // Two at a time: many tests start processes, or use every core themselves.
    harness.extend(["--test-threads", "2"]);
    command.arg("--").args(harness);
    command
}

/// Builds the server once, for all tests that start it, and returns its path.
fn build() -> Result<PathBuf> {
    let arguments = [
        "build",
        "--locked",
        "--package",
        "concord-server",
        "--bin",
        "concord",
    ];
    if !run("build", &mut cargo(&arguments))? {
        bail!("the server does not build");
    }
    let binary = target_directory()
        .join("debug")
        .join(format!("concord{EXE_SUFFIX}"));
    binary
        .canonicalize()
        .with_context(|| format!("{} was built", binary.display()))
}

/// Where the traces are: where the user says, or beside the repository.
fn traces() -> Option<PathBuf> {
    let named = std::env::var_os(TRACES_VARIABLE).map(PathBuf::from);
    let traces = named.unwrap_or_else(|| root().join("../shared/traces"));
    traces
        .is_dir()
        .then(|| traces.canonicalize().ok())
        .flatten()
}

fn has_component(name: &str) -> bool {
    cargo(&[name, "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}
