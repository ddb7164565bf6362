//! What this program does inside a sandbox: timed loops, whose figures go to standard output.

mod change;
mod data;
mod metadata;
mod tool;

use std::path::PathBuf;
use std::time::Instant;

use clap::{Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::Result;

pub(crate) use data::fill;
pub(crate) use metadata::wait_for;

/// What is done in a loop. All paths are relative to the current directory, the workspace.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Loop {
    /// lstat of known paths, twice
    Stat { files: usize },
    /// Names that do not exist, twice
    Absent { files: usize },
    /// Read every directory and lstat every entry, twice
    Walk,
    /// Read all files, then lstat each
    StatAfterRead { files: usize },
    /// Open, read 4 KB and close, twice; then open and close
    Open { files: usize },
    /// Read one big file in every way
    Read { file: String, reads: usize },
    /// Write one big file
    Write { bytes: usize },
    /// Append 4 KB, and 200 bytes, to an open file
    Append { times: usize },
    /// Create, rename and unlink files, and make directories
    Create { files: usize },
    /// lstat of known paths; then say so by a file, and wait until another is there
    Hold { files: usize, paper: PathBuf },
    /// Write files below `out`, and say when that was done
    Outputs { files: usize, bytes: usize },
    /// One pass of BLAKE3, by one thread, over a file that was just written
    Hash { bytes: usize },
    /// Run a command several times
    Tool {
        #[arg(long)]
        name: String,
        #[arg(long)]
        seen: Seen,
        #[arg(last = true)]
        command: Vec<String>,
    },
}

/// What of a tool's output is the same on every file system.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Seen {
    /// The lines, in any order.
    Sorted,
    /// How many lines there are.
    Lines,
    /// How many bytes there are.
    Bytes,
}

/// What a loop found out.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// Nanoseconds per operation.
    pub(crate) figures: Vec<(String, f64)>,
    /// The same for every contender, or one of them shows something else.
    pub(crate) seen: String,
    /// Nanoseconds of the monotonic clock when all was done.
    pub(crate) ended: u64,
}

impl Findings {
    /// Times `operations` operations.
    fn time<T>(
        &mut self,
        name: impl Into<String>,
        operations: usize,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let started = Instant::now();
        let done = work()?;
        let taken = started.elapsed().as_nanos() as f64;
        self.figures
            .push((name.into(), taken / operations.max(1) as f64));
        Ok(done)
    }

    /// Adds to what was seen.
    fn saw(&mut self, what: impl std::fmt::Display) {
        self.seen = format!("{} {what}", self.seen);
    }
}

/// Now, as every process of this machine counts it.
pub(crate) fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Runs a loop and prints its findings, as one line of JSON.
pub(crate) fn run(which: &Loop) -> Result<()> {
    let mut found = Findings::default();
    match which {
        Loop::Stat { files } => metadata::stat(&mut found, *files)?,
        Loop::Hold { files, paper } => metadata::hold(*files, paper)?,
        Loop::Absent { files } => metadata::absent(&mut found, *files)?,
        Loop::Walk => metadata::walk(&mut found)?,
        Loop::StatAfterRead { files } => metadata::stat_after_read(&mut found, *files)?,
        Loop::Open { files } => metadata::open(&mut found, *files)?,
        Loop::Read { file, reads } => data::read(&mut found, file, *reads)?,
        Loop::Write { bytes } => data::write(&mut found, *bytes)?,
        Loop::Append { times } => data::append(&mut found, *times)?,
        Loop::Create { files } => change::create(&mut found, *files)?,
        Loop::Outputs { files, bytes } => change::outputs(*files, *bytes)?,
        Loop::Hash { bytes } => data::hash(&mut found, *bytes)?,
        Loop::Tool {
            name,
            seen,
            command,
        } => tool::run(&mut found, name, *seen, command)?,
    }
    found.ended = monotonic();
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}
