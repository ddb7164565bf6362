//! What is asked.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::inner::Loop;

/// What is asked, as typed.
#[derive(Debug, Parser)]
#[command(about, args_conflicts_with_subcommands = true)]
struct Line {
    #[command(subcommand)]
    hidden: Option<Hidden>,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Hidden {
    /// One timed loop, run inside a sandbox.
    #[command(hide = true)]
    Inner {
        #[command(subcommand)]
        which: Loop,
    },
}

/// What is asked, as meant.
#[derive(Debug)]
pub(crate) enum Call {
    Inner(Loop),
    Measure(Options),
}

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) command: Call,
}

impl Arguments {
    pub(crate) fn parse() -> Self {
        let line = Line::parse();
        let command = match line.hidden {
            Some(Hidden::Inner { which }) => Call::Inner(which),
            None => Call::Measure(line.options),
        };
        Self { command }
    }
}

/// How to measure.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// What to measure; all of it unless named [possible: start, tools, metadata, data, change,
    /// compile, jobs, ingest, cache, memory]
    #[arg(value_name = "SUITE")]
    pub(crate) suites: Vec<String>,
    /// How often each contender runs each workload
    #[arg(long, default_value_t = 7)]
    pub(crate) rounds: usize,
    /// A contender that has spent this many seconds on a workload runs it no more
    #[arg(long, default_value_t = 20.0, value_name = "SECONDS")]
    pub(crate) budget: f64,
    /// Multiplies the number of files, jobs and bytes
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub(crate) scale: f64,
    /// Where all lies [default: as root an ext4 image with a journal, in /dev/shm or $TMPDIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) disk: Option<PathBuf>,
    /// The wakebox to measure [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub(crate) wakebox: Option<PathBuf>,
    /// A further program with the batch contract (`PATH -p SPEC -o RESULT`); may be repeated
    #[arg(long = "box", value_name = "NAME=PATH", value_parser = named_path)]
    pub(crate) boxes: Vec<(String, PathBuf)>,
    /// Only these contenders beside native; may be repeated
    #[arg(long, value_name = "CONTENDER")]
    pub(crate) only: Vec<String>,
    /// The C sources of zstd (`lib`), which are built [default: those that cargo has fetched]
    #[arg(long, value_name = "DIR")]
    pub(crate) zstd: Option<PathBuf>,
    /// Measure single-threaded workloads once more with job and daemon on this CPU
    #[arg(long, value_name = "CPU")]
    pub(crate) pin: Option<usize>,
    /// Write all samples here
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Rows of an earlier run on this machine, as `--json` wrote them, to be shown with the new ones;
    /// may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) with: Vec<PathBuf>,
    /// Write docs/benchmarks.md and its plot
    #[arg(long)]
    pub(crate) write_docs: bool,
    /// Fail, with a list, unless every bar of bench/bars.toml is met
    #[arg(long, conflicts_with = "quick")]
    pub(crate) check: bool,
    /// Tiny sizes and one round: shows that the harness works, not how fast anything is
    #[arg(long)]
    pub(crate) quick: bool,
    /// Name the suites, and stop
    #[arg(long)]
    pub(crate) list: bool,
    /// We are in a mount namespace of our own
    #[arg(long, hide = true)]
    pub(crate) in_namespace: bool,
}

impl Options {
    /// `n` scaled, at least `least`.
    pub(crate) fn scaled(&self, n: usize, least: usize) -> usize {
        ((n as f64 * self.scale) as usize).max(least)
    }

    /// With `--quick` taken into account.
    pub(crate) fn effective(mut self) -> Self {
        if self.quick {
            self.scale = self.scale.min(0.002);
            self.rounds = 1;
            self.budget = self.budget.min(2.0);
        }
        self
    }
}

fn named_path(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=PATH")?;
    let path = PathBuf::from(path)
        .canonicalize()
        .map_err(|error| format!("{path}: {error}"))?;
    Ok((name.to_owned(), path))
}
