//! The command `fs-compliance`; see the library's documentation.

use clap::Parser as _;
use fs_compliance::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    fs_compliance::main(&Cli::parse())
}
