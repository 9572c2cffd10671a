//! Developer commands. `cargo xtask --help` lists them.

mod apt;
mod browser;
mod client;
mod demo;
mod node;
mod python;
mod run;
mod test;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::run::cargo;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of Concord")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that must hold: formatting, lints, tests, doc tests
    Test(test::Options),
    /// Build the npm package @concord/client into client-wasm/js/dist
    Client(client::Options),
    /// Measure what README's table shows, in one run on this machine
    Bench {
        /// Passed on to the bench program; `-- --help` lists them
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Start a server with the board app on 127.0.0.1, its data in ./concord-data, and say where to look
    Demo,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Test(options) => test::test(&options),
        Command::Client(options) => client::client(&options),
        Command::Bench { arguments } => {
            let mut command = cargo(&["run", "--release", "--package", "concord-tests"]);
            command.args(["--bin", "bench", "--"]).args(arguments);
            run::run("bench", &mut command)
        }
        Command::Demo => demo::demo(),
    }
    .map(|succeeded| {
        if succeeded {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    })
}
