//! The words of the commands that find out about a job by running it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{StoreArgument, seconds};

/// `wakebox learn`.
#[derive(Debug, Args)]
#[command(
    override_usage = "wakebox learn [OPTIONS] [--] COMMAND...\n       wakebox learn --check SPEC"
)]
pub struct LearnArguments {
    /// What the job may see: a file, a directory with all it holds, or a glob. Without any, all files
    /// that git does not ignore, or outside a git checkout all files
    #[arg(short, long = "input", value_name = "PATH|GLOB")]
    pub inputs: Vec<OsString>,
    /// An output that is wanted. It is an error if the job does not make it. It is no input
    #[arg(short, long = "output", value_name = "PATH")]
    pub outputs: Vec<OsString>,
    /// Pass a variable of the environment, or set one
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<OsString>,
    /// Kill the job after this many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// Write the spec to this file, and not to standard output
    #[arg(long, value_name = "FILE")]
    pub spec: Option<PathBuf>,
    /// Do not run the job again by the spec. Files that it may know from a listing only then count as
    /// inputs
    #[arg(long)]
    pub once: bool,
    /// Say what is not as the job has seen it: paths that were not there and are, directories whose
    /// entries have changed. Exit with 1 if there is any
    #[arg(long, value_name = "SPEC", exclusive = true)]
    pub check: Option<PathBuf>,
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgument,
    /// The command and its arguments
    #[arg(required_unless_present = "check", trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// `wakebox key`.
#[derive(Debug, Args)]
pub struct KeyArguments {
    /// The spec
    #[arg(value_name = "SPEC")]
    pub spec: PathBuf,
    /// Print what is digested, and not its digest
    #[arg(long)]
    pub text: bool,
}

/// `wakebox check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The spec
    #[arg(value_name = "SPEC")]
    pub spec: PathBuf,
    /// Also give the second run a date in another year, by libfaketime
    #[arg(long)]
    pub fake_time: bool,
}
