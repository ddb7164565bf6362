//! What else of the host a job of `run` is shown.

use std::ffi::OsString;

use clap::Args;

/// How far the sandbox of `wakebox run` is opened.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What the job sees beside its inputs")]
pub struct OpeningArguments {
    /// Give the job the host's network
    #[arg(long)]
    pub network: bool,
    /// Show the job a file or directory of the host, read-only, at its own path or at another
    #[arg(long = "bind", value_name = "SOURCE[:PLACE]")]
    pub binds: Vec<OsString>,
    /// The same, and the job may change it: what it does there is not tracked
    #[arg(long = "rw-bind", value_name = "SOURCE[:PLACE]")]
    pub rw_binds: Vec<OsString>,
    /// Give the job an empty directory in memory
    #[arg(long, value_name = "PLACE")]
    pub tmpfs: Vec<OsString>,
    /// Show the job all of the host, with its network, and pass HOME, TERM and TZ. Only the
    /// workspace is sandboxed then
    #[arg(long, conflicts_with_all = ["network", "binds", "rw_binds", "tmpfs"])]
    pub host: bool,
}
