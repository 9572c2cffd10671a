//! The `concord` command.

use std::process::ExitCode;

use clap::Parser as _;
use concord_server::cli::Cli;
use mimalloc::MiMalloc;

/// A message is a dozen small allocations, many of them freed by another thread than made them: what the
/// system's allocator is slow at. Measured on many documents at once: 10 to 40 % more changes a second.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    Cli::parse().run()
}
