//! The `concord` command.

use std::process::ExitCode;

use clap::Parser as _;
use concord_server::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
