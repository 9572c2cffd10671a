//! The command line: what can be typed, and what each command calls.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod replay;
pub mod serve;

/// A collaborative data store: Automerge documents, relayed between clients and kept on disk.
#[derive(Debug, Parser)]
#[command(name = "concord", version, about, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server, in the foreground, until SIGTERM or SIGINT (the default command).
    Serve(serve::ServeArgs),
    /// Type an editing trace again, here or through a server, and check the final text.
    Replay(replay::ReplayArgs),
}

/// Where an offline command finds the data.
#[derive(Debug, clap::Args)]
pub struct DataArgs {
    /// Directory of the data.
    #[arg(
        long,
        env = "CONCORD_DATA",
        default_value = "concord-data",
        value_name = "DIRECTORY"
    )]
    pub data: PathBuf,
}

impl Cli {
    /// Runs the command that was typed; errors go to standard error.
    pub fn run(self) -> ExitCode {
        let command = self
            .command
            .unwrap_or_else(|| Command::Serve(serve::ServeArgs::default()));
        let result = match command {
            Command::Serve(args) => serve::run(&args),
            Command::Replay(args) => replay::run(args),
        };
        match result {
            Ok(code) => code,
            Err(error) => {
                eprintln!("concord: {error:#}");
                ExitCode::FAILURE
            }
        }
    }
}
