//! The words of the commands that look into jobs.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::StoreArgument;
use super::store::age;

/// How long a failed job is kept unless told otherwise.
const KEPT: &str = "7d";

/// `wakebox jobs`.
#[derive(Debug, Args)]
pub struct JobsArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Where to look for jobs that were kept, too.
    #[command(flatten)]
    pub store: StoreArgument,
}

/// `wakebox job`.
#[derive(Debug, Args)]
pub struct JobArguments {
    /// What to do
    #[command(subcommand)]
    pub command: JobCommand,
}

/// What can be done with a job.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// List what a running job sees at a path now: mode, size, whose it is, name
    Ls {
        /// The job, as `wakebox jobs` has it; the beginning of its id is enough
        job: String,
        /// A path of its view
        path: Option<OsString>,
        /// List all that the job has made or changed so far, by its path
        #[arg(long, conflicts_with = "path")]
        outputs: bool,
        /// Print one line of JSON for each entry
        #[arg(long)]
        json: bool,
    },
    /// Write a file of a running job, as it is now, to standard output
    Cat {
        /// The job, as `wakebox jobs` has it; the beginning of its id is enough
        job: String,
        /// A path of its view
        path: OsString,
    },
    /// Open a shell in the view of a job: one that a spec describes, or one that failed and was kept
    Shell(ShellArguments),
}

/// `wakebox job shell`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["spec", "job"]))]
pub struct ShellArguments {
    /// The spec of a job, which begins anew; what is done in the shell is not kept
    #[arg(value_name = "SPEC")]
    pub spec: Option<PathBuf>,
    /// A job that was kept, as `wakebox jobs` has it: with all that it left, as it left it. What is
    /// done in the shell is not kept
    #[arg(long, value_name = "ID")]
    pub job: Option<String>,
    /// Where the job was kept.
    #[command(flatten)]
    pub store: StoreArgument,
}

/// Whether a job is kept that fails.
#[derive(Debug, Args)]
pub struct KeepArgument {
    /// Keep what the job had and made if it fails, for `wakebox job shell`, so long: 90s, 10m, 12h,
    /// 7d, 4w
    #[arg(long, value_name = "AGE", value_parser = age)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = KEPT)]
    pub keep_failed: Option<Duration>,
}

/// How long a job is kept by default.
pub fn kept_by_default() -> Duration {
    Duration::from_secs(7 * 24 * 3600)
}

/// A time as the command line has it: a number with a unit.
pub fn parse_age(text: &str) -> Result<Duration, String> {
    age(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_default() {
        assert_eq!(parse_age(KEPT), Ok(kept_by_default()));
    }
}
