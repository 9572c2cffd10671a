//! The servers that are measured, each in a process of its own, and what the system knows of them.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::Settings;
use super::relay::ROOM_FRAMES;
use crate::server_process::ServerProcess;

/// The kernel's clock ticks a second in `/proc`; 100 on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// The least CPU time that [`cpu_seconds`] can tell.
pub const CPU_RESOLUTION_SECONDS: f64 = 1.0 / TICKS_PER_SECOND;

/// A server to put load on.
#[derive(Debug)]
pub enum Target {
    /// Concord on a data directory of its own.
    Concord(ServerProcess),
    /// The bare relay.
    Relay(RelayProcess),
}

/// A running relay; killed when dropped.
#[derive(Debug)]
pub struct RelayProcess {
    child: Child,
    address: String,
}

impl RelayProcess {
    /// Starts a relay on a free port; `file` is what it sends to those who ask.
    pub fn start(settings: &Settings, file: Option<&Path>) -> Result<Self> {
        let mut command = Command::new(&settings.relay);
        command.args([
            "relay",
            "--listen",
            "127.0.0.1:0",
            "--room-frames",
            &ROOM_FRAMES.to_string(),
        ]);
        if let Some(file) = file {
            command.arg("--file").arg(file);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", settings.relay.display()))?;
        let stdout = child.stdout.take().context("the relay has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line
            .split_once("http://")
            .map(|(_, address)| address.trim().to_owned())
            .context("the relay did not say where it listens")?;
        Ok(Self { child, address })
    }

    /// The process.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// The URL of a room.
    pub fn room(&self, name: &str) -> String {
        format!("ws://{}/room/{name}", self.address)
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Target {
    /// A new Concord without documents.
    pub fn concord() -> Result<Self> {
        start_concord().map(Self::Concord)
    }

    /// A new relay.
    pub fn relay(settings: &Settings) -> Result<Self> {
        RelayProcess::start(settings, None).map(Self::Relay)
    }

    /// The process.
    pub fn process_id(&self) -> Result<u32> {
        match self {
            Self::Concord(server) => server.process_id().context("the server does not run"),
            Self::Relay(relay) => Ok(relay.process_id()),
        }
    }
}

/// What all tabs do comes from one address, which may have so much of each in a second: more than they do, and it is
/// counted.
const MOST: &str = "1000000";

/// A new Concord that logs warnings only, since a log is work.
pub fn start_concord() -> Result<ServerProcess> {
    let limits = ["--messages-per-second", MOST, "--changes-per-second", MOST];
    let more = [
        "--requests-per-second",
        MOST,
        "--received-mib-per-second",
        "4096",
    ];
    let quiet = ["--log", "warn"];
    let mut server = ServerProcess::start_with(&[&limits[..], &more, &quiet].concat())?;
    server.be_quiet();
    Ok(server)
}

/// Seconds of CPU time that a process has used, user and system.
pub fn cpu_seconds(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))
        .context("CPU times need Linux's /proc")?;
    // The second field is the name in parentheses, which may hold anything; times are fields 14 and 15.
    let (_, after_name) = stat.rsplit_once(')').context("a process has a name")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| -> Result<f64> {
        Ok(fields.get(index).context("a process has times")?.parse()?)
    };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// Bytes of memory that a process holds.
pub fn resident_bytes(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))
        .context("memory figures need Linux's /proc")?;
    let kilobytes: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.split_whitespace().next())
        .context("a process has a resident size")?
        .parse()?;
    Ok(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn this_process_uses_time_and_memory() {
        let own = std::process::id();
        let (cpu, before) = (cpu_seconds(own).unwrap(), resident_bytes(own).unwrap());
        let started = Instant::now();
        let mut held = Vec::new();
        while started.elapsed() < Duration::from_millis(300) {
            held.push(vec![1u8; 1 << 20]);
            held.truncate(64);
        }
        assert!(cpu_seconds(own).unwrap() > cpu);
        assert!(resident_bytes(own).unwrap() > before + (32 << 20));
    }
}
