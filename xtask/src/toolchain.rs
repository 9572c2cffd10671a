//! A Rust compiler and a standard library of the same version for wasm32, found or made.
//!
//! The ways to one are in [`ROUTES`], tried in that order. What is made lies in `target/wasm-toolchain` and
//! is used until the compiler at hand changes. Nothing in there names its own place, so it may be copied.

mod debian;
mod library;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::run::{captured, cargo, cargo_as, cargo_program, output, run, target_directory};

/// What the client is compiled for.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Changes when what is made changes: older ones are made anew then.
const RECIPE: &str = "1";

/// What cargo has to be told to build for [`TARGET`]. Nothing, where rustup or a distribution has the target.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// The compiler, if not the one at hand.
    rustc: Option<PathBuf>,
    /// `cargo-clippy` of that compiler; none if it has none.
    clippy: Option<PathBuf>,
    /// Where the standard library is, if not beside the compiler.
    sysroot: Option<PathBuf>,
}

impl Toolchain {
    /// `cargo <arguments>`, for [`TARGET`] with this toolchain.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        self.applied(cargo(arguments))
    }

    /// `cargo clippy <arguments>`, of the very compiler that builds; `None` if it has none.
    pub(crate) fn clippy(&self, arguments: &[&str]) -> Option<Command> {
        if self.rustc.is_none() {
            let has_clippy = cargo(&["clippy", "--version"]).output();
            has_clippy.ok().filter(|output| output.status.success())?;
            return Some(self.applied(cargo(&[&["clippy"], arguments].concat())));
        }
        // It calls cargo, and `clippy-driver` beside itself.
        let mut command = cargo_as(self.clippy.as_ref()?, &[&["clippy"], arguments].concat());
        command.env("CARGO", cargo_program());
        Some(self.applied(command))
    }

    fn applied(&self, mut command: Command) -> Command {
        command.args(["--target", TARGET]);
        if let Some(rustc) = &self.rustc {
            command.env("RUSTC", rustc);
        }
        let mut flags = Vec::new();
        if let Some(sysroot) = &self.sysroot {
            flags.push(format!("--sysroot={}", sysroot.display()));
        }
        // Messages of panics have paths in them: how large the module is would depend on where somebody's home is,
        // and which registry they use.
        for sources in registry_sources() {
            flags.push(format!("--remap-path-prefix={}/=", sources.display()));
        }
        // Before all other sources of flags, and paths with spaces are safe in it.
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        command
    }
}

/// Where cargo keeps the sources of dependencies: a folder for each registry.
fn registry_sources() -> Vec<PathBuf> {
    let in_home = || std::env::home_dir().map(|home| home.join(".cargo"));
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let all = home.or_else(in_home).map(|home| home.join("registry/src"));
    let folders = all
        .and_then(|all| all.read_dir().ok())
        .into_iter()
        .flatten();
    folders.flatten().map(|folder| folder.path()).collect()
}

/// A way to a standard library for [`TARGET`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// It is beside the compiler at hand.
    Installed,
    /// Made from the component `rust-src` of the compiler at hand.
    RustSource,
    /// Made from the source of Debian's compiler, by that compiler; neither is installed.
    Debian,
    /// `rustup target add`.
    Rustup,
}

const ROUTES: [Route; 4] = [
    Route::Installed,
    Route::RustSource,
    Route::Debian,
    Route::Rustup,
];

impl fmt::Display for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Installed => "the target that is installed",
            Self::RustSource => "built from the rust-src component",
            Self::Debian => "built from and by Debian's rustc-web",
            Self::Rustup => "rustup target add",
        })
    }
}

/// Finds or makes one, and says in one line which and why.
pub(crate) fn find() -> Result<Toolchain> {
    let compiler = Compiler::at_hand()?;
    let directory = target_directory().join("wasm-toolchain");
    if let Some((toolchain, why)) = stamped(&compiler, &directory) {
        eprintln!("xtask: wasm32 standard library: {why}");
        return Ok(toolchain);
    }
    let (route, toolchain, reasons) =
        first_that_works(&ROUTES, |route| take(route, &compiler, &directory)).context(
            "there is no standard library for wasm32. Any of these helps: `rustup target add \
             wasm32-unknown-unknown`, `rustup component add rust-src`, or a Debian that offers rustc-web",
        )?;
    let why = if reasons.is_empty() {
        route.to_string()
    } else {
        format!("{route}, since {}", reasons.join(", "))
    };
    eprintln!("xtask: wasm32 standard library: {why}");
    if toolchain.sysroot.is_some() {
        fs::write(directory.join("stamp"), stamp(&compiler, route, &why))?;
    }
    Ok(toolchain)
}

/// The compiler that cargo uses unless told otherwise.
struct Compiler {
    program: PathBuf,
    /// What `rustc -vV` says: version, commit, host.
    version: String,
}

impl Compiler {
    fn at_hand() -> Result<Self> {
        let program = std::env::var_os("RUSTC").map_or_else(|| "rustc".into(), PathBuf::from);
        let version = captured(Command::new(&program).arg("-vV"))?;
        Ok(Self { program, version })
    }

    fn print(&self, what: &[&str]) -> Result<PathBuf> {
        let text = captured(Command::new(&self.program).arg("--print").args(what))?;
        Ok(text.into())
    }

    /// Prints the path even where nothing is there.
    fn has_target(&self) -> Result<bool> {
        Ok(has_library(&self.print(&[
            "target-libdir",
            "--target",
            TARGET,
        ])?))
    }
}

/// Tries each; the first that works, and why those before it did not.
fn first_that_works<T>(
    routes: &[Route],
    mut attempt: impl FnMut(Route) -> Result<T>,
) -> Result<(Route, T, Vec<String>)> {
    let mut reasons = Vec::new();
    for route in routes {
        match attempt(*route) {
            Ok(result) => return Ok((*route, result, reasons)),
            Err(reason) => reasons.push(format!("{reason:#}")),
        }
    }
    bail!("{}", reasons.join(", "))
}

fn take(route: Route, compiler: &Compiler, directory: &Path) -> Result<Toolchain> {
    match route {
        Route::Installed => ensure!(compiler.has_target()?, "the target is not installed"),
        Route::RustSource => {
            let source = compiler
                .print(&["sysroot"])?
                .join("lib/rustlib/src/rust/library");
            ensure!(
                source.join("Cargo.lock").is_file(),
                "there is no rust-src component"
            );
            library::build(&compiler.program, &source, directory)?;
        }
        Route::Debian => debian::make(directory)?,
        Route::Rustup => {
            ensure!(
                output("rustup", &["--version"]).is_some(),
                "there is no rustup"
            );
            let mut rustup = Command::new("rustup");
            let succeeded = run("rustup target add", rustup.args(["target", "add", TARGET]))?;
            ensure!(
                succeeded && compiler.has_target()?,
                "rustup could not add the target"
            );
        }
    }
    Ok(toolchain_of(route, directory))
}

/// What a route leaves behind.
fn toolchain_of(route: Route, directory: &Path) -> Toolchain {
    let sysroot = Some(library::sysroot(directory));
    match route {
        Route::Installed | Route::Rustup => Toolchain::default(),
        Route::RustSource => Toolchain {
            sysroot,
            ..Toolchain::default()
        },
        Route::Debian => Toolchain {
            rustc: Some(debian::rustc(directory)),
            clippy: Some(debian::clippy(directory)),
            sysroot,
        },
    }
}

/// The one made earlier, and why it was made so; none if the compiler at hand is another now, or it
/// does not run.
fn stamped(compiler: &Compiler, directory: &Path) -> Option<(Toolchain, String)> {
    let found = fs::read_to_string(directory.join("stamp")).ok()?;
    let why = found.lines().next()?.to_owned();
    let is_this = |route: &&Route| found == stamp(compiler, **route, &why);
    let toolchain = toolchain_of(*ROUTES.iter().find(is_this)?, directory);
    let rustc = toolchain.rustc.as_ref().unwrap_or(&compiler.program);
    output(rustc, &["-vV"])?;
    let library = library::sysroot(directory).join(library::SUBDIRECTORY);
    // Whoever installs the target later wants it used.
    let is_best = has_library(&library) && !compiler.has_target().ok()?;
    is_best.then_some((toolchain, why))
}

fn stamp(compiler: &Compiler, route: Route, why: &str) -> String {
    format!("{why}\n{route:?} {RECIPE}\n{}\n", compiler.version)
}

/// Whether a standard library lies in a directory.
fn has_library(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|entries| {
        entries.filter_map(Result::ok).any(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with("libstd-")
                && Path::new(&name)
                    .extension()
                    .is_some_and(|end| end == "rlib")
        })
    })
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_first_route_that_works_is_taken_and_says_why() {
        let mut tried = Vec::new();
        let (route, made, reasons) = first_that_works(&ROUTES, |route| {
            tried.push(route);
            match route {
                Route::Installed => Err(anyhow!("it is not installed")),
                Route::RustSource => Err(anyhow!("no file").context("there is no source")),
                Route::Debian | Route::Rustup => Ok(7),
            }
        })
        .unwrap();
        assert_eq!((route, made), (Route::Debian, 7));
        assert_eq!(
            reasons,
            ["it is not installed", "there is no source: no file"]
        );
        assert_eq!(tried, [Route::Installed, Route::RustSource, Route::Debian]);
    }

    #[test]
    fn without_a_route_every_reason_is_told() {
        let result = first_that_works(&ROUTES, |route| -> Result<()> { bail!("no {route:?}") });
        assert_eq!(
            result.unwrap_err().to_string(),
            "no Installed, no RustSource, no Debian, no Rustup"
        );
    }

    #[test]
    fn only_what_was_made_has_paths() {
        let directory = Path::new("made");
        assert_eq!(
            toolchain_of(Route::Installed, directory),
            Toolchain::default()
        );
        let source = toolchain_of(Route::RustSource, directory);
        assert_eq!(
            (source.rustc, source.sysroot),
            (None, Some("made/sysroot".into()))
        );
        let debian = toolchain_of(Route::Debian, directory);
        assert_eq!(debian.rustc, Some("made/debian/bin/rustc".into()));
    }
}
