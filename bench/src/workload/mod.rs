//! What is run: suites of tasks, each a tree of inputs and jobs on it.

mod change;
mod compile;
mod data;
mod ingest;
mod jobs;
mod metadata;
mod start;
mod tools;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::Result;
use crate::cache;
use crate::cli::Options;
use crate::tree::Tree;

/// One command on declared inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) command: Vec<String>,
    /// Which files of the tree; all of them unless named.
    pub(crate) inputs: Option<HashSet<String>>,
    /// Files and directories that it makes and that are wanted.
    pub(crate) outputs: Vec<String>,
}

impl Job {
    pub(crate) fn new(command: &[&str]) -> Self {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Self {
            command,
            inputs: None,
            outputs: Vec::new(),
        }
    }

    /// A loop of this program's.
    pub(crate) fn inner(words: &[&str]) -> Result<Self> {
        let own = std::env::current_exe()?;
        let own = own.to_str().ok_or("this program's path is not UTF-8")?;
        Ok(Self::new(&[&[own, "inner"], words].concat()))
    }
}

/// What of a pass is its figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// What the job itself says.
    Inside,
    /// The time of all jobs, over their number.
    PerJob,
    /// The time from the end of the job's work to the end of the call, over the number of outputs.
    AfterEnd { items: usize },
}

/// Jobs that are measured together.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) tree: Arc<Tree>,
    pub(crate) jobs: Vec<Job>,
    /// How many run at once.
    pub(crate) at_once: usize,
    /// Whether the jobs change their directory.
    pub(crate) writes: bool,
    /// Whether each round's inputs are ones that no daemon has seen.
    pub(crate) fresh: bool,
    /// Whether the inputs are named by one digest.
    pub(crate) by_digest: bool,
    pub(crate) measure: Measure,
}

impl Task {
    /// One job that reads, measured from inside.
    fn reading(name: &str, tree: &Arc<Tree>, job: Job) -> Self {
        Self {
            name: name.to_owned(),
            tree: Arc::clone(tree),
            jobs: vec![job],
            at_once: 1,
            writes: false,
            fresh: false,
            by_digest: false,
            measure: Measure::Inside,
        }
    }

    /// One job that writes, measured from inside.
    fn writing(name: &str, tree: &Arc<Tree>, job: Job) -> Self {
        Self {
            writes: true,
            ..Self::reading(name, tree, job)
        }
    }
}

/// A group of tasks, by the name that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    /// Whether `--pin` measures it once more.
    pub(crate) pinnable: bool,
    /// Makes the tasks, and their trees below a directory.
    pub(crate) tasks: fn(&Options, &Path) -> Result<Vec<Task>>,
}

pub(crate) use compile::{CACHED_LIBRARY, cached_library, zstd};

/// Not a suite of tasks: it measures the daemon.
pub(crate) const MEMORY: &str = "memory";

pub(crate) const SUITES: [Suite; 8] = [
    Suite {
        name: "start",
        pinnable: false,
        tasks: start::tasks,
    },
    Suite {
        name: "tools",
        pinnable: true,
        tasks: tools::tasks,
    },
    Suite {
        name: "metadata",
        pinnable: true,
        tasks: metadata::tasks,
    },
    Suite {
        name: "data",
        pinnable: true,
        tasks: data::tasks,
    },
    Suite {
        name: "change",
        pinnable: true,
        tasks: change::tasks,
    },
    Suite {
        name: "compile",
        pinnable: false,
        tasks: compile::tasks,
    },
    Suite {
        name: "jobs",
        pinnable: false,
        tasks: jobs::tasks,
    },
    Suite {
        name: "ingest",
        pinnable: false,
        tasks: ingest::tasks,
    },
];

/// What is asked for.
pub(crate) struct Chosen {
    pub(crate) suites: Vec<Suite>,
    pub(crate) cache: bool,
    pub(crate) memory: bool,
}

pub(crate) fn chosen(options: &Options) -> Result<Chosen> {
    let known = |name: &str| {
        [MEMORY, cache::SUITE].contains(&name) || SUITES.iter().any(|suite| suite.name == name)
    };
    if let Some(unknown) = options.suites.iter().find(|name| !known(name)) {
        return Err(format!("no suite is called {unknown}: see --help").into());
    }
    let wanted = |name: &str| options.suites.is_empty() || options.suites.iter().any(|s| s == name);
    let suites = SUITES
        .into_iter()
        .filter(|suite| wanted(suite.name))
        .collect();
    Ok(Chosen {
        suites,
        cache: wanted(cache::SUITE),
        memory: wanted(MEMORY),
    })
}

/// One job that is measured from outside.
pub(crate) fn touching(tree: &Arc<Tree>, job: Job) -> Task {
    Task::reading("memory", tree, job)
}
