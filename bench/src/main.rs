//! What a sandbox costs: each workload natively and under every contender, in turn, as ratios.
//!
//! Absolute times of a noisy machine mean little, so all contenders run alternately (A B A B ...)
//! on the same disk, and medians are compared. What matters inside a job (a stat, an open) is
//! timed by this program itself, run in the sandbox as `bench inner`, so that no shell and no
//! process start is in the figure.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads its own environment and writes plain files"
)]

mod bars;
mod cache;
mod cli;
mod contender;
mod disk;
mod inner;
mod litter;
mod machine;
mod measure;
mod memory;
mod report;
mod row;
mod stats;
mod tree;
mod workload;

use std::error::Error;
use std::process::ExitCode;

/// Anything that went wrong: one line that says what, and where.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let outcome = match cli::Arguments::parse().command {
        cli::Call::Inner(loop_) => inner::run(&loop_).map(|()| ExitCode::SUCCESS),
        cli::Call::Measure(options) => measure::main(&options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("bench: {error}");
        ExitCode::FAILURE
    })
}
