//! `wakebox run`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use cas::record::Level;
use clap::{Args, ValueEnum};

use super::{KeepArgument, OpeningArguments, StoreArgument, seconds};

/// `wakebox run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// An input: a file, a directory with all it holds, or a glob. Without any, all files that
    /// git does not ignore, or outside a git checkout all files
    #[arg(short, long = "input", value_name = "PATH|GLOB")]
    pub inputs: Vec<OsString>,
    /// An output that is wanted: a file, or a directory with all that the job made in it. It is an
    /// error if the job does not make it. It is no input, unless -i or --rw names it, too. Without
    /// any, everything that the job makes is published
    #[arg(short, long = "output", value_name = "PATH")]
    pub outputs: Vec<OsString>,
    /// An input that the job may rewrite: it gets a copy, published if it changed
    #[arg(long, value_name = "PATH|GLOB")]
    pub rw: Vec<OsString>,
    /// Inputs, a file or a directory with all it holds, that the job may change: a file is copied
    /// when it is first written to, and published if it changed. What the job renames or deletes of
    /// them stays in the workspace, which is said
    #[arg(long, value_name = "PATH")]
    pub cow: Vec<OsString>,
    /// Pass a variable of the environment, or set one
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// Kill the job after this many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// Publish outputs even if the job fails
    #[arg(long)]
    pub publish_on_failure: bool,
    /// Write the result document to a file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// End only when all that is published, and the result document, is on disk
    #[arg(long)]
    pub durable: bool,
    /// Record what the job touches, in the result document
    #[arg(long, value_name = "LEVEL", default_value = "none")]
    pub record: RecordLevel,
    /// Whether it is kept if it fails.
    #[command(flatten)]
    pub keep: KeepArgument,
    /// No summary and no progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgument,
    /// What of the host it is shown.
    #[command(flatten)]
    pub opening: OpeningArguments,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// How much is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RecordLevel {
    /// Nothing
    None,
    /// Declared paths that were read, run, followed or listed
    Inputs,
    /// Everything that the job did with any path, found or not
    Full,
}

impl From<RecordLevel> for Level {
    fn from(level: RecordLevel) -> Self {
        match level {
            RecordLevel::None => Self::None,
            RecordLevel::Inputs => Self::Inputs,
            RecordLevel::Full => Self::Full,
        }
    }
}
