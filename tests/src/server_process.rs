//! The built `concord` as a process: started, killed, stopped and started again on its port and data.
//!
//! The calls block; they take as long as a process takes to start or end. A test that fails shows
//! the server's output, since [`ServerProcess`] writes it to stderr when it is dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// Names the binary to test, instead of the one cargo builds from this workspace. No `CONCORD_…`, since
/// those are the settings of the server, which refuses unknown ones. `cargo xtask test`
/// sets it to what it has built, so that the many test processes need not ask cargo.
pub const BINARY_VARIABLE: &str = "BUILT_CONCORD";

/// How long a server may take from its start to the line that says where it listens.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a server may take to stop after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a line may take from the server to here.
const LOG_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an HTTP answer may take.
const HTTP_TIMEOUT: Duration = Duration::from_secs(20);
/// What is kept of a server's output, in bytes: enough to explain a failure.
const MAX_LOG_BYTES: usize = 4 * 1024 * 1024;

/// How much of it a failed test shows: the end.
const MAX_SHOWN_CHARACTERS: usize = 64 * 1024;

/// A running (or killed) server and its data directory.
#[derive(Debug)]
pub struct ServerProcess {
    program: PathBuf,
    child: Option<Child>,
    address: SocketAddr,
    data: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    log: Arc<Mutex<String>>,
    /// Whether its output is shown when it is dropped.
    shows_log: bool,
    /// Removes the data directory at the end; `None` if it belongs to the caller.
    temporary_data: Option<TempDir>,
}

impl ServerProcess {
    /// Starts a server on a free port with a new data directory, removed when this is dropped.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// As [`start`](Self::start), with more arguments for `concord serve`.
    pub fn start_with(arguments: &[&str]) -> Result<Self> {
        let temporary = tempfile::tempdir().context("making a data directory")?;
        let data = temporary.path().join("data");
        let mut server = Self::start_at(&data, arguments)?;
        server.temporary_data = Some(temporary);
        Ok(server)
    }

    /// As [`start`](Self::start), with another program in the place of `concord`, which takes the same arguments.
    pub fn start_program(program: &Path) -> Result<Self> {
        let temporary = tempfile::tempdir().context("making a data directory")?;
        let mut server = Self::start_program_at(program, &temporary.path().join("data"), &[])?;
        server.temporary_data = Some(temporary);
        Ok(server)
    }

    /// Starts a server on a free port with its data in `data`, which stays.
    pub fn start_at(data: &Path, arguments: &[&str]) -> Result<Self> {
        Self::start_program_at(&binary()?, data, arguments)
    }

    fn start_program_at(program: &Path, data: &Path, arguments: &[&str]) -> Result<Self> {
        let mut server = Self {
            program: program.to_owned(),
            child: None,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            data: data.to_owned(),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            variables: Vec::new(),
            log: Arc::default(),
            shows_log: true,
            temporary_data: None,
        };
        server.restart()?;
        Ok(server)
    }

    /// Starts the server again, on the same port and data, after [`kill`](Self::kill) or
    /// [`terminate`](Self::terminate); returns when it listens.
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the server still runs");
        let mut command = Command::new(&self.program);
        // The server's own settings come from variables with this prefix, too: none by accident.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CONCORD_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .arg("serve")
            .args(["--listen", &self.address.to_string()])
            .arg("--data")
            .arg(&self.data)
            .args(&self.arguments)
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        let listening = Arc::new(OnceLock::new());
        if let Some(stdout) = child.stdout.take() {
            self.collect(stdout, Some(listening.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            self.collect(stderr, None);
        }
        self.child = Some(child);
        self.address = self.wait_until_listening(&listening)?;
        Ok(())
    }

    /// From its next start on it finds this in its environment.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// For a program that is no test, whose output nobody holds back: shows nothing when this is dropped.
    pub fn be_quiet(&mut self) {
        self.shows_log = false;
    }

    /// `kill -9`: the process gets no chance to write anything more.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the server does not run")?;
        child.kill().context("killing the server")?;
        child.wait().context("waiting for the killed server")?;
        Ok(())
    }

    /// SIGTERM, then waits for the process to end, and returns its exit status.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the server does not run")?;
        signal(&child, "TERM")?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = child.try_wait().context("waiting for the server")? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                bail!("the server did not stop within {STOP_TIMEOUT:?} of SIGTERM");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGHUP: it looks at once whether its certificate was replaced.
    pub fn hang_up(&self) -> Result<()> {
        signal(
            self.child.as_ref().context("the server does not run")?,
            "HUP",
        )
    }

    /// Where HTTP and `WebSockets` are served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL a client connects to.
    pub fn websocket_url(&self) -> String {
        format!("ws://{}/sync", self.address)
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The process id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The most memory the running process ever held, in KiB. Linux only.
    pub fn max_resident_kib(&self) -> Result<u64> {
        let id = self.process_id().context("the server does not run")?;
        let status =
            std::fs::read_to_string(format!("/proc/{id}/status")).context("reading /proc")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .context("no VmHWM")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse()?)
    }

    /// The status code and body of a `GET`.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        get(self.address, path)
    }

    /// The value of a metric, with its labels if it has any, from `/metrics`; zero when it was never counted.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let (status, body) = self.get("/metrics")?;
        ensure!(status == 200, "/metrics answered {status}");
        for line in body.lines() {
            if let Some(value) = line
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(' '))
            {
                return value
                    .trim()
                    .parse()
                    .with_context(|| format!("{name} in {line}"));
            }
        }
        Ok(0.0)
    }

    /// Everything the server has written to stdout and stderr so far, over all its runs.
    pub fn log(&self) -> String {
        self.log.lock().map(|log| log.clone()).unwrap_or_default()
    }

    /// Waits until the server has written this text: what goes to stderr may be read later than
    /// what was written to stdout after it.
    pub fn wait_for_log(&self, text: &str) -> Result<()> {
        let deadline = Instant::now() + LOG_TIMEOUT;
        while !self.log().contains(text) {
            ensure!(
                Instant::now() < deadline,
                "the server did not write {text}:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Copies a pipe of the child into the log, and the first address it names into `listening`.
    fn collect(
        &self,
        pipe: impl Read + Send + 'static,
        listening: Option<Arc<OnceLock<SocketAddr>>>,
    ) {
        let log = self.log.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if let Ok(mut log) = log.lock()
                    && log.len() < MAX_LOG_BYTES
                {
                    log.push_str(&line);
                    log.push('\n');
                }
                if let Some(listening) = &listening
                    && let Some(address) = parse_listening(&line)
                {
                    let _ = listening.set(address);
                }
            }
        });
    }

    fn wait_until_listening(&mut self, listening: &OnceLock<SocketAddr>) -> Result<SocketAddr> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(address) = listening.get() {
                return Ok(*address);
            }
            let ended = match &mut self.child {
                Some(child) => child.try_wait().context("watching the server")?,
                None => None,
            };
            if let Some(status) = ended {
                self.child = None;
                // The pipes' readers may still be copying the reason.
                thread::sleep(Duration::from_millis(200));
                bail!("the server ended at its start, {status}:\n{}", self.log());
            }
            ensure!(
                Instant::now() < deadline,
                "the server did not say where it listens within {START_TIMEOUT:?}:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if !self.shows_log {
            return;
        }
        // Kept by the test runner and shown only if the test failed, by a panic or by an error.
        let log = self.log();
        let tail = log
            .char_indices()
            .rev()
            .nth(MAX_SHOWN_CHARACTERS)
            .map_or(0, |(start, _)| start);
        eprintln!(
            "--- what the server wrote ---\n{}---",
            log.get(tail..).unwrap_or(&log)
        );
    }
}

/// By the shell's own `kill`: the standard library sends only SIGKILL, and not every system has a kill program.
fn signal(child: &Child, name: &str) -> Result<()> {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{name} {}", child.id())])
        .status()
        .with_context(|| format!("sending SIG{name}"))?;
    ensure!(sent.success(), "kill -{name} failed: {sent}");
    Ok(())
}

/// The status code and body of a `GET`, without an HTTP client in between. Blocks.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut connection = TcpStream::connect(address).context("connecting")?;
    connection.set_read_timeout(Some(HTTP_TIMEOUT))?;
    write!(
        connection,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    connection
        .read_to_string(&mut answer)
        .context("reading the answer")?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer has a head and a body")?;
    let status = head.split(' ').nth(1).context("an answer has a status")?;
    Ok((status.parse()?, body.to_owned()))
}

/// `concord listening on http://127.0.0.1:1234 (WebSocket …), data in …`
fn parse_listening(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on http")?;
    let rest = rest.strip_prefix('s').unwrap_or(rest);
    rest.strip_prefix("://")?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

/// The binary to test: the one named by [`BINARY_VARIABLE`], or what cargo builds now, in this
/// test's own profile and target directory, so that no stale server is tested.
pub fn binary() -> Result<PathBuf> {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = BINARY.get() {
        return Ok(found.clone());
    }
    let found = match std::env::var_os(BINARY_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => build_binary()?,
    };
    ensure!(found.is_file(), "there is no {}", found.display());
    Ok(BINARY.get_or_init(|| found).clone())
}

fn build_binary() -> Result<PathBuf> {
    // target/<profile>/deps/<this test>
    let this = std::env::current_exe().context("finding this test's own path")?;
    let profile_directory = this
        .ancestors()
        .find(|path| path.join("deps").is_dir())
        .with_context(|| format!("{} is in no cargo target directory", this.display()))?;
    let target = profile_directory
        .parent()
        .context("a profile directory has a parent")?;
    let profile = match profile_directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--package", "concord-server", "--bin", "concord"])
        .args(["--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("building concord")?;
    ensure!(
        output.status.success(),
        "building concord: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(profile_directory.join(format!("concord{}", std::env::consts::EXE_SUFFIX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_line_that_says_the_server_is_ready() {
        let line = "concord listening on http://127.0.0.1:4711 (WebSocket ws://127.0.0.1:4711/sync), data in /d";
        assert_eq!(
            parse_listening(line),
            Some(SocketAddr::from(([127, 0, 0, 1], 4711)))
        );
        assert_eq!(
            parse_listening(&line.replace("http", "https").replace("ws:", "wss:")),
            Some(SocketAddr::from(([127, 0, 0, 1], 4711)))
        );
        assert_eq!(parse_listening("concord 0.1.0"), None);
    }
}
