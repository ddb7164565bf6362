//! The story of a job, top to bottom: register, plan, execute, collect.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cas::Store;
use cas::manifest::Manifest;
use cas::report::Report;

use crate::daemon::{Daemons, Lease, serve_packets};
use crate::error::{Error, Result};
use crate::exec::{self, Ended, Status};
use crate::sandbox::Serve;
use crate::sandbox::plan::{Draft, Ids, Namespaces, Stdin, Step};

/// A job as meant: every default filled in, every path checked.
#[derive(Debug)]
pub struct Job {
    /// What it sees.
    pub manifest: Manifest,
    /// Where the view is mounted, absolute. Empty: there is no view, and the job sees the real
    /// directories.
    pub destinations: Vec<PathBuf>,
    /// Where the command starts, absolute.
    pub directory: PathBuf,
    /// Standard input.
    pub stdin: Stdin,
    /// The command and its arguments.
    pub command: Vec<OsString>,
    /// The whole environment, as `NAME=VALUE`.
    pub environment: Vec<OsString>,
    /// The user and group that the job sees itself as.
    pub user: (u32, u32),
    /// Wall time that it may take.
    pub limit: Option<Duration>,
}

/// A job that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How its process ended.
    pub ended: Ended,
    /// What it did; `None` without a view.
    pub view: Option<FinishedView>,
}

/// What is left of a job's view.
#[derive(Debug)]
pub struct FinishedView {
    /// What the job used and made.
    pub report: Report,
    /// The name of its staging directory.
    pub staging: String,
    /// The job, for the daemon: dropping it drops the staged files.
    pub lease: Lease,
}

/// Runs a job to its end. Must be called on the process's main thread: the job dies with the
/// thread that started it.
pub fn run(job: Job, store: &Store, daemons: &Daemons) -> Result<Finished> {
    check_place(&job, store.root())?;
    let plan = plan(&job, store.root(), daemons.runtime.path()).check();
    let plan = plan.map_err(|error| Error::Usage(error.to_string()))?;
    if job.destinations.is_empty() {
        let ended = exec::start(&plan, None)?.wait(job.limit, None)?;
        return Ok(Finished { ended, view: None });
    }
    let mut lease = daemons.lease(store.root())?;
    let staging = lease.register(&job.manifest, job.user.0, job.user.1)?;
    // The child is a copy of this process: what it need not carry is not carried.
    drop(job.manifest);
    let packets = serve_packets().map_err(|error| Error::io("prepare", "the view", error))?;
    let serve = Serve {
        socket: lease.socket(),
        request: &packets.0,
        ack: &packets.1,
    };
    let running = exec::start(&plan, Some(serve))?;
    let ended = running.wait(job.limit, Some(lease.socket()))?;
    let report = lease.finish()?;
    Ok(Finished {
        ended,
        view: Some(FinishedView {
            report,
            staging,
            lease,
        }),
    })
}

/// The view covers the workspace; a store that holds the workspace could not be hidden from it.
fn check_place(job: &Job, store: &Path) -> Result<()> {
    let store = store.canonicalize().unwrap_or_else(|_| store.into());
    match job
        .destinations
        .iter()
        .find(|place| place.starts_with(&store))
    {
        Some(place) => Err(Error::Usage(format!(
            "the workspace {} lies inside the store {}; move one of them",
            place.display(),
            store.display()
        ))),
        None => Ok(()),
    }
}

fn plan(job: &Job, store: &Path, runtime: &Path) -> Draft {
    let outside = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let mut steps = vec![Step::FreshProc];
    if !job.destinations.is_empty() {
        let destinations = job.destinations.clone();
        steps.push(Step::MountView {
            destinations,
            default_permissions: false,
            allow_other: false,
        });
    }
    // What must not be reached from inside: other jobs' files, and the daemon that serves them.
    for hidden in [store, runtime] {
        let path = hidden.canonicalize().unwrap_or_else(|_| hidden.into());
        steps.push(Step::Hide { path });
    }
    Draft {
        ids: Ids {
            inside_uid: job.user.0,
            inside_gid: job.user.1,
            outside_uid: outside.0,
            outside_gid: outside.1,
        },
        namespaces: Namespaces::default(),
        steps,
        cwd: job.directory.clone(),
        stdin: job.stdin.clone(),
        argv: job.command.clone(),
        env: job.environment.clone(),
    }
}

/// What to tell the user of an end that the exit code alone would not explain.
pub fn explain(ended: &Ended, command: &std::ffi::OsStr) -> Option<String> {
    let command = command.to_string_lossy();
    match &ended.status {
        Status::NotFound => Some(format!("{command}: command not found")),
        Status::CannotRun(errno) => Some(format!(
            "{command}: {}",
            std::io::Error::from_raw_os_error(*errno)
        )),
        _ => None,
    }
}

/// Refuses a report of a view that could not be served: what the job did then proves nothing.
pub fn check_report(report: &Report) -> Result<()> {
    match &report.failure {
        Some(failure) => Err(Error::Outcome(format!(
            "the job could not be served: {failure}"
        ))),
        None => Ok(()),
    }
}
