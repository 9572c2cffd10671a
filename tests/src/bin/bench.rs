//! `cargo xtask bench`: measures, prints the table, and writes it into the README.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use concord_tests::bench::{self, Settings, relay, table};

/// Rounds of a real measurement.
const ROUNDS: usize = 3;

/// How much smaller everything is for a look whether it works.
const QUICK_SHRINK: usize = 100;

/// Measures Concord against a bare broadcast relay.
#[derive(Debug, Parser)]
struct Arguments {
    /// Everything small and once: shows that it works, not how fast
    #[arg(long)]
    quick: bool,
    /// Measure only lines whose name contains this: fan-out, documents, large, keystroke, parsing, joining,
    /// memory, acknowledgement, views, hammering
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Rounds of each line
    #[arg(long, value_name = "N", default_value_t = ROUNDS, value_parser = at_least_one)]
    rounds: usize,
    /// Leave the README as it is, as --quick and --only do
    #[arg(long)]
    print_only: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The bare relay, which the measurement starts itself
    #[command(hide = true)]
    Relay {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        file: Option<PathBuf>,
        #[arg(long)]
        room_frames: usize,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Command::Relay {
        listen,
        file,
        room_frames,
    }) = arguments.command
    {
        return relay::serve(listen, file, room_frames).await;
    }
    let settings = Settings {
        rounds: if arguments.quick { 1 } else { arguments.rounds },
        shrink: if arguments.quick { QUICK_SHRINK } else { 1 },
        only: arguments.only,
        relay: std::env::current_exe().context("finding this program")?,
    };
    let rows = Box::pin(bench::run(&settings, |line| eprintln!("{line} …"))).await?;
    let table = table::markdown(&rows, settings.rounds);
    std::io::stdout().write_all(table.as_bytes())?;
    if !arguments.quick && !arguments.print_only && settings.only.is_none() {
        table::write_into(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md"),
            &table,
        )?;
    }
    Ok(())
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(rounds) => Ok(rounds),
        Err(error) => Err(format!("{error}")),
    }
}
