//! Promise: what the HTTP API does can be done from the command line, alike on a running server (`--url`) and on a
//! data directory that no server uses (`--data`); scripts can rely on what is printed and on the exit status.
//!
//! Driven through the built binary. What is about the API itself runs in both worlds, from one description, so a
//! command that works in one of them only fails here.

mod access;
mod deleting;
mod history;
mod hostile;
mod values;
mod watch;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use concord_tests::server_process::{ServerProcess, binary};
use serde_json::Value;
use tempfile::TempDir;

/// Where the documents of a test are.
enum World {
    /// In a directory.
    Data(TempDir),
    /// At a server.
    Server(ServerProcess),
    /// At a server that wants to know who asks.
    As { url: String, token: String },
}

/// Runs a test on a directory, and on a server.
fn in_both(test: impl Fn(&World) -> Result<()>) -> Result<()> {
    test(&World::Data(tempfile::tempdir()?)).context("by --data")?;
    test(&World::Server(ServerProcess::start()?)).context("by --url")
}

impl World {
    /// What names it.
    fn flag(&self) -> [String; 2] {
        match self {
            Self::Data(folder) => {
                let data = folder.path().join("data");
                ["--data".to_owned(), data.display().to_string()]
            }
            Self::Server(server) => ["--url".to_owned(), url(server)],
            Self::As { url, .. } => ["--url".to_owned(), url.clone()],
        }
    }

    /// The command, for this.
    fn command(&self) -> Result<Command> {
        let mut command = command()?;
        if let Self::As { token, .. } = self {
            command.env("CONCORD_TOKEN", token);
        }
        Ok(command)
    }

    /// The directory of the data.
    fn data(&self) -> Result<PathBuf> {
        match self {
            Self::Data(folder) => Ok(folder.path().join("data")),
            Self::Server(server) => Ok(server.data().to_owned()),
            Self::As { .. } => bail!("it is the server's"),
        }
    }

    /// Runs a command.
    fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.run_with("", arguments)
    }

    /// Runs a command with this as its standard input.
    fn run_with(&self, input: &str, arguments: &[&str]) -> Result<Output> {
        let mut child = self
            .command()?
            .args(arguments)
            .args(self.flag())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("a pipe")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        Ok(child.wait_with_output()?)
    }

    /// What a command prints that succeeds.
    fn print(&self, arguments: &[&str]) -> Result<String> {
        printed(&self.run(arguments)?).with_context(|| format!("{arguments:?}"))
    }

    /// The one word that a command prints that succeeds.
    fn word(&self, arguments: &[&str]) -> Result<String> {
        let text = self.print(arguments)?;
        ensure!(text.lines().count() == 1, "{text}");
        Ok(text.trim_end().to_owned())
    }

    /// The JSON that a command prints that succeeds.
    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.print(arguments)?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed {text}"))
    }

    /// The exit status and what is said of a command that fails; it prints nothing.
    fn fail(&self, arguments: &[&str]) -> Result<(i32, String)> {
        let output = self.run(arguments)?;
        ensure!(output.stdout.is_empty(), "{arguments:?} printed something");
        let said = String::from_utf8(output.stderr)?;
        let code = output.status.code().context("ended by a signal")?;
        ensure!(code != 0, "{arguments:?} succeeded");
        Ok((code, said.trim_end().to_owned()))
    }
}

fn url(server: &ServerProcess) -> String {
    format!("http://{}", server.address())
}

/// The command, without the settings of whoever runs the tests.
fn command() -> Result<Command> {
    let mut command = Command::new(binary()?);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().to_lowercase();
        if name.starts_with("concord_") || name.ends_with("_proxy") {
            command.env_remove(&name).env_remove(name.to_uppercase());
        }
    }
    Ok(command)
}

fn printed(output: &Output) -> Result<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {errors}", output.status);
    ensure!(errors.is_empty(), "{errors}");
    Ok(String::from_utf8(output.stdout.clone())?)
}

/// Carries out a JSON Patch, which must fit.
fn apply(value: &mut Value, patch: &Value) -> Result<()> {
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())?;
    json_patch::patch(value, &patch).with_context(|| format!("{patch} in {value}"))
}

/// A file for a command to read.
fn file(folder: &TempDir, content: &[u8]) -> Result<PathBuf> {
    let path = folder.path().join("file");
    std::fs::write(&path, content)?;
    Ok(path)
}
