//! The story of a job, top to bottom: register, plan, execute, collect.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cas::Store;
use cas::hold::Hold;
use cas::protocol::CopyOnWrite;
use cas::record::{Level, Recording};
use cas::report::Report;

use crate::aliases::Mounts;
use crate::daemon::{Daemons, Lease, Terms, serve_packets};
use crate::declaration::Declaration;
use crate::error::{Error, Result};
use crate::exec::{self, Ended, Status};
use crate::mount_ops::Compiled;
use crate::result::Isolation;
use crate::sandbox::plan::{Draft, Ids, Limit, Namespaces, Plan, Stdin, Step};
use crate::sandbox::{SandboxError, Serve};
use crate::{hidden, host};

/// A job as meant: every default filled in, every path checked.
#[derive(Debug)]
pub struct Job {
    /// What it sees.
    pub manifest: Declaration,
    /// What of that it may change.
    pub copy_on_write: CopyOnWrite,
    /// What is mounted. Without a view among it, the job sees the real directories.
    pub mounts: Compiled,
    /// The program that serves images among it.
    pub squashfuse: Option<PathBuf>,
    /// Namespaces that not every job gets.
    pub namespaces: Namespaces,
    /// Whether a new root has to have a `/proc`.
    pub needs_proc: bool,
    /// Resource limits.
    pub limits: Vec<Limit>,
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
    /// What is recorded of it.
    pub record: Recording,
    /// Shuffles what directories list.
    pub listing_seed: Option<u64>,
    /// What people call it.
    pub label: String,
    /// How far it is kept from the host.
    pub isolation: Isolation,
}

/// A job that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How its process ended.
    pub ended: Ended,
    /// How far it was kept from the host.
    pub isolation: Isolation,
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
    /// What it opened beside its view, if that was asked for and could be seen.
    pub host: Option<host::Opened>,
}

/// Runs a job to its end. Must be called on the process's main thread: the job dies with the
/// thread that started it.
///
/// `hold` is what the inputs were found under. It ends when the job has said what it uses, so that
/// collectors need not wait for jobs.
pub fn run(job: Job, store: &Store, daemons: &Daemons, hold: Hold) -> Result<Finished> {
    // What must not be reached from inside: other jobs' files, and the daemon that serves them.
    let mounts = Mounts::read();
    let secrets = secrets(store, daemons, &mounts);
    check_places(&job, store, &secrets)?;
    let isolation = job.isolation;
    let plan = plan(&job, &secrets, &mounts).check();
    let plan = plan.map_err(|error| Error::Usage(error.to_string()))?;
    if !plan.mounts_view() {
        drop(hold);
        let ended = exec::start(&plan, None)?.wait(job.limit, None)?;
        return Ok(Finished {
            ended,
            isolation,
            view: None,
        });
    }
    let limit = job.limit;
    let terms = Terms {
        copy_on_write: &job.copy_on_write,
        user: job.user,
        record: job.record,
        listing_seed: job.listing_seed,
        label: &job.label,
    };
    let (lease, staging) = daemons.register(store, &job.manifest, &hold, &terms)?;
    let written = job.manifest.write_inputs(store, &staging);
    // The child is a copy of this process: what it need not carry is not carried.
    drop((job.manifest, hold));
    let is_full = job.record.level == Level::Full;
    let served = written
        .map_err(Error::from)
        .and_then(|()| serve(&plan, limit, is_full, &lease));
    // Without a daemon everything fails, each thing with words of its own.
    let (ended, host, report) = served.map_err(|error| match lease.is_gone() {
        true => SandboxError::DaemonGone.into(),
        false => error,
    })?;
    Ok(Finished {
        ended,
        isolation,
        view: Some(FinishedView {
            report,
            staging,
            lease,
            host,
        }),
    })
}

/// The store and the directories of sockets, under every name that they have on the host.
fn secrets(store: &Store, daemons: &Daemons, mounts: &Mounts) -> Vec<PathBuf> {
    let sockets = daemons.runtime.candidates().iter().cloned();
    let known = sockets.chain([store.root().to_owned()]);
    let mut secrets: Vec<_> = known.map(|path| hidden::real(&path)).collect();
    let aliases = secrets.iter().flat_map(|path| mounts.aliases(path));
    let aliases: Vec<_> = aliases.map(|alias| alias.path).collect();
    secrets.extend(aliases);
    secrets
}

/// Where else the host shows the workspace, which would show what was not declared: there, the view
/// is attached, too.
fn further_views(job: &Job, mounts: &Mounts) -> Vec<Step> {
    if job.mounts.new_root {
        return Vec::new();
    }
    let places = job.mounts.views().map(hidden::real);
    let aliases = places.flat_map(|place| mounts.aliases(&place));
    let whole = aliases.filter(|alias| alias.part.as_os_str().is_empty());
    whole
        .map(|alias| Step::CoverAlias { path: alias.path })
        .collect()
}

/// Runs a registered job, watching the host's files if the record is to be full, and asks what it
/// did.
fn serve(
    plan: &Plan,
    limit: Option<Duration>,
    is_full: bool,
    lease: &Lease,
) -> Result<(Ended, Option<host::Opened>, Report)> {
    let packets = serve_packets().map_err(|error| Error::io("prepare", "the view", error))?;
    let mut host = is_full.then(host::Watch::new).flatten();
    let serve = Serve {
        socket: lease.socket(),
        request: &packets.0,
        ack: &packets.1,
        waits: host.is_some(),
    };
    let running = exec::start(plan, Some(serve))?;
    let ended = running.wait_watching(limit, Some(lease.socket()), host.as_mut())?;
    // Before the view: it ends with the job's mount namespace, which this has open.
    let host = host.and_then(host::Watch::finish);
    Ok((ended, host, lease.finish()?))
}

/// The view covers the workspace; a store that holds the workspace could not be hidden from it.
/// Nor could one of which a part is bound, unless it is a part that is the caller's.
fn check_places(job: &Job, store: &Store, secrets: &[PathBuf]) -> Result<()> {
    let store = hidden::real(store.root());
    let places = job.mounts.views().map(hidden::real);
    // In a new root they are other places.
    let mut places = places.filter(|_| !job.mounts.new_root);
    if let Some(place) = places.find(|place| place.starts_with(&store)) {
        return Err(Error::Usage(format!(
            "the workspace {} lies inside the store {}; move one of them",
            place.display(),
            store.display()
        )));
    }
    match hidden::revealing(&job.mounts.steps, secrets) {
        Some(source) => Err(Error::Usage(format!(
            "cannot mount {}: it lies inside the store or the daemon's directory",
            source.display()
        ))),
        None => Ok(()),
    }
}

fn plan(job: &Job, secrets: &[PathBuf], mounts: &Mounts) -> Draft {
    let outside = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let mut steps = Vec::new();
    if !job.mounts.new_root || job.mounts.steps.iter().any(shows_proc) {
        steps.push(Step::FreshProc { required: false });
    }
    steps.extend(job.mounts.steps.iter().cloned());
    steps.extend(further_views(job, mounts));
    if job.mounts.new_root {
        let required = job.needs_proc;
        steps.push(Step::FreshProc { required });
    }
    let hidden = hidden::aliases(&job.mounts.steps, secrets).into_iter();
    steps.extend(hidden.map(|path| Step::Hide { path }));
    Draft {
        ids: Ids {
            inside_uid: job.user.0,
            inside_gid: job.user.1,
            outside_uid: outside.0,
            outside_gid: outside.1,
        },
        namespaces: job.namespaces.clone(),
        steps,
        squashfuse: job.squashfuse.clone(),
        limits: job.limits.clone(),
        cwd: job.directory.clone(),
        stdin: job.stdin.clone(),
        argv: job.command.clone(),
        env: job.environment.clone(),
    }
}

/// Whether a step may take the `/proc` of the old root into a new one, or needs one.
fn shows_proc(step: &Step) -> bool {
    let proc = Path::new("/proc");
    match step {
        Step::Bind { source, .. } => proc.starts_with(source) || source.starts_with(proc),
        Step::Squashfs { .. } => true,
        _ => false,
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
