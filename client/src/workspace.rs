//! A job at a shell: `wakebox run`. Inputs come from the current directory, outputs go back.

mod cow;
mod inputs;
mod outputs;
mod surroundings;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cas::changes::InputChanges;
use cas::manifest::Manifest;
use cas::record::Recording;
use cas::report::Report;
use cas::{RelPath, Store};

use crate::cli::{Environment, RunArguments};
use crate::daemon::Daemons;
use crate::delta::DeltaDocument;
use crate::durable;
use crate::error::{Error, Result, say};
use crate::exec::Ended;
use crate::exit_code;
use crate::explain;
use crate::kept::Keeping;
use crate::output::{Collector, Disposal, Hashed, HashedEntry};
use crate::pending::Pending;
use crate::publish::{Publish, Published, publish};
use crate::record::Told;
use crate::result::{self, ResultDocument, Usage};
use crate::run::{self, FinishedView, Job};
use crate::sandbox::plan::Stdin;
use inputs::{ingest, writable};
pub(crate) use outputs::{check_wanted, to_publish, wanted};
use outputs::{has_changed, is_wanted, publishable, spare_repositories, tell_lent};
use surroundings::Surroundings;
pub(crate) use surroundings::variables;

/// What a run says at its end.
struct Summary {
    declared: u64,
    used: usize,
    made: usize,
    published: Published,
    seconds: f64,
}

/// Runs a command on files of the current directory and returns the exit code.
pub fn run(arguments: &RunArguments, environment: &Environment) -> Result<u8> {
    // Before anything is hashed: what changes from now on is not what the job saw.
    let (coarse, started) = (coarse_now(), now());
    let workspace = std::env::current_dir().and_then(|here| here.canonicalize());
    let workspace = workspace.map_err(|e| Error::io("find", "the current directory", e))?;
    let wanted = wanted(&workspace, &arguments.outputs)?;
    let surroundings = Surroundings::new(arguments, environment, &workspace)?;
    let json = result_file(arguments)?;
    let daemons = Daemons::from_environment(environment)?;
    let store = arguments.store.resolve(environment)?;
    check_place(&workspace, &store)?;
    let store = Store::open_own(&store)?;
    let hold = store.hold()?;
    let ingested = ingest(arguments, &workspace, &wanted, &store, coarse)?;
    let declared = ingested.manifest.entries.clone();
    let writable = writable(&declared);
    let job = job(arguments, &surroundings, &workspace, &ingested.manifest)?;
    let keep = arguments.keep.keep_failed;
    let keep = keep.map(|time| Keeping::new(time, &job, environment, None));
    let keep = keep.transpose()?;
    let finished = run::run(job, &store, &daemons, hold)?;
    // What is taken in stays at least until it is published.
    let _hold = store.hold()?;
    surroundings.explain(&finished.ended, &arguments.command[0]);
    let code = exit_code::of_job(&finished.ended);
    let Some(mut view) = finished.view else {
        return Ok(code);
    };
    let id = view.staging.clone();
    let host = view.host.take();
    let status = exit_code::result_status(&finished.ended);
    let keep = keep.filter(|_| code != 0).map(|keep| (keep, status));
    let kept = keep.is_some().then(|| id.clone());
    let (mut report, mut outputs, changes) = collect_for(arguments, view, &store, keep)?;
    outputs.retain(|output| has_changed(output, &writable));
    let absent = std::mem::take(&mut report.absent);
    if report.late_writer {
        say("a process outside the sandbox has a file of the job open and may go on writing");
    }
    if code != 0 {
        explain_failure(&workspace, &store, &wanted, &outputs, &absent)?;
    }
    if let Some(json) = json {
        let record = report.record.take();
        let mut document = document(&finished.ended, &report, &outputs);
        document.isolation = Some(finished.isolation);
        let delta = || DeltaDocument::new(changes.clone(), None);
        document.delta = (!arguments.cow.is_empty()).then(delta);
        document.record = Told::new(arguments.record.into(), record, host, &outputs, Some(&json))?;
        document.wanted.clone_from(&wanted);
        document.kept = kept;
        document.absent = (code != 0).then_some(absent);
        json.commit(&document)?;
    }
    let mut publishable = publishable(&declared, &outputs, &changes, &store)?;
    // Either everything that was asked for is published, or nothing.
    if code == 0 {
        check_wanted(&wanted, publishable.iter().map(|output| &output.path))?;
    }
    let published = if code == 0 || arguments.publish_on_failure {
        publishable.retain(|output| is_wanted(output, &wanted));
        spare_repositories(&workspace, &wanted, &publishable)?;
        let published = publish(&workspace, &store, &publishable, started, &id)?;
        flush(arguments, &workspace, &publishable).map(|()| cow::tell(&changes))?;
        tell_lent(&outputs, &wanted);
        published
    } else {
        Published { files: 0, bytes: 0 }
    };
    if !arguments.quiet {
        let is_directory = |output: &&Hashed| matches!(output.entry, HashedEntry::Directory { .. });
        let made = outputs.len() - outputs.iter().filter(is_directory).count();
        let used = report.inputs.len();
        let seconds = finished.ended.wall.as_secs_f64();
        Summary {
            declared: declared.len() as u64,
            used,
            made,
            published,
            seconds,
        }
        .print(&finished.ended);
    }
    Ok(code)
}

/// Says what a job that failed has probably missed.
fn explain_failure(
    workspace: &Path,
    store: &Store,
    wanted: &[RelPath],
    outputs: &[Hashed],
    absent: &[RelPath],
) -> Result<()> {
    let made = outputs.iter().map(|output| output.path.clone());
    let made: Vec<_> = made.chain(wanted.iter().cloned()).collect();
    let search = explain::Search {
        workspace,
        log: "",
        made: &made,
        store: Some(identity(store)?),
    };
    explain::unasked(&search, absent);
    Ok(())
}

/// Device and inode of a store's directory.
pub(crate) fn identity(store: &Store) -> Result<(u64, u64)> {
    let root = store.root().metadata();
    let root = root.map_err(|e| Error::io("open the store", store.root(), e))?;
    Ok((root.dev(), root.ino()))
}

/// Refuses places that cannot work, before anything is made in them.
pub(crate) fn check_place(workspace: &Path, store: &Path) -> Result<()> {
    let refuse = |why: String| Err(Error::Usage(why));
    let absolute = std::path::absolute(store).unwrap_or_else(|_| store.into());
    let store = absolute.canonicalize().unwrap_or(absolute);
    if workspace == Path::new("/") {
        return refuse("the workspace cannot be /: a job's view would cover its programs".into());
    }
    if workspace.starts_with(&store) {
        let (workspace, store) = (workspace.display(), store.display());
        return refuse(format!(
            "the workspace {workspace} lies inside the store {store}; move one of them"
        ));
    }
    Ok(())
}

/// Takes what the job made into the store, and flushes it if that is asked for.
fn collect_for(
    arguments: &RunArguments,
    view: FinishedView,
    store: &Store,
    keep: Option<(Keeping, i32)>,
) -> Result<(Report, Vec<Hashed>, InputChanges)> {
    let collected = collect(view, store, keep)?;
    if arguments.durable {
        durable::sync_outputs(store, &collected.1)?;
    }
    Ok(collected)
}

/// Flushes what was published, if that is asked for.
fn flush(arguments: &RunArguments, workspace: &Path, published: &[Publish]) -> Result<()> {
    if arguments.durable {
        durable::sync_published(workspace, published)?;
    }
    Ok(())
}

/// The file for the result document, if one is asked for.
fn result_file(arguments: &RunArguments) -> Result<Option<Pending>> {
    let mut json = arguments.json.as_deref().map(Pending::create).transpose()?;
    if let (true, Some(json)) = (arguments.durable, json.as_mut()) {
        json.make_durable();
    }
    Ok(json)
}

/// Takes what the job made into the store, and lets the job go or keeps it.
pub(crate) fn collect(
    view: FinishedView,
    store: &Store,
    keep: Option<(Keeping, i32)>,
) -> Result<(Report, Vec<Hashed>, InputChanges)> {
    let FinishedView {
        mut report,
        staging,
        lease,
        host: _,
    } = view;
    run::check_report(&report)?;
    let outputs = std::mem::take(&mut report.outputs);
    let collector = Collector::open(store, &staging, report.late_writer)?;
    let changes = std::mem::take(&mut report.changes);
    let disposal = match keep {
        Some(_) => Disposal::Spare,
        None => Disposal::Move,
    };
    let (outputs, changes) = collector.collect(outputs, changes, disposal)?;
    match keep {
        Some((keeping, status)) => keeping.keep(store, &staging, status, lease)?,
        None => drop(lease),
    }
    Ok((report, outputs, changes))
}

/// The clock by which file systems stamp changes.
pub(crate) fn coarse_now() -> i64 {
    nanoseconds(rustix::time::ClockId::RealtimeCoarse)
}

/// The time. Never before the stamp of a change that has been made.
pub(crate) fn now() -> i64 {
    nanoseconds(rustix::time::ClockId::Realtime)
}

fn nanoseconds(clock: rustix::time::ClockId) -> i64 {
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// The job of a call in the current directory, on other inputs.
///
/// # Errors
/// A call that makes no sense any more.
pub(crate) fn again(
    arguments: &RunArguments,
    environment: &Environment,
    manifest: Manifest,
) -> Result<Job> {
    let workspace = std::env::current_dir().and_then(|here| here.canonicalize());
    let workspace = workspace.map_err(|e| Error::io("find", "the current directory", e))?;
    let surroundings = Surroundings::new(arguments, environment, &workspace)?;
    job(arguments, &surroundings, &workspace, &manifest)
}

fn job(
    arguments: &RunArguments,
    surroundings: &Surroundings,
    workspace: &Path,
    manifest: &Manifest,
) -> Result<Job> {
    Ok(Job {
        label: crate::batch::label(&arguments.command),
        manifest: manifest.into(),
        copy_on_write: cow::rule(workspace, &arguments.cow)?,
        mounts: surroundings.mounts.clone(),
        squashfuse: None,
        namespaces: surroundings.namespaces(),
        needs_proc: false,
        limits: Vec::new(),
        directory: workspace.into(),
        stdin: Stdin::Inherit,
        command: arguments.command.clone(),
        environment: surroundings.entries(),
        user: (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        ),
        limit: arguments.timeout,
        record: Recording {
            level: arguments.record.into(),
            absent: true,
            each_look: false,
        },
        listing_seed: None,
        isolation: surroundings.isolation(),
    })
}

fn document(ended: &Ended, report: &Report, outputs: &[Hashed]) -> ResultDocument {
    ResultDocument {
        usage: Usage::new(ended, report.in_bytes, outputs),
        inputs: report.inputs.clone(),
        outputs: outputs.iter().map(|output| output.path.clone()).collect(),
        timed_out: ended.timed_out,
        staging_files: None,
        staging_root: None,
        run_host: result::host_name(),
        hashed_files: Some(result::hashed_files(outputs)),
        view: true,
        isolation: None,
        data_path: Some(report.data_path),
        fuse_ops: Some(report.requests.clone()),
        late_writer: report.late_writer,
        delta: None,
        sandbox_error: None,
        record: Told::default(),
        wanted: Vec::new(),
        kept: None,
        absent: None,
    }
}

impl Summary {
    fn print(&self, ended: &Ended) {
        let Self {
            declared,
            used,
            made,
            published,
            seconds,
        } = self;
        let verdict = match exit_code::of_job(ended) {
            _ if ended.timed_out => "time limit exceeded; ".into(),
            0 => String::new(),
            code => format!("exit code {code}; "),
        };
        say(format_args!(
            "{verdict}{declared} inputs declared, {used} used; {made} outputs, {} published \
             ({}); {seconds:.2} s",
            published.files,
            indicatif::HumanBytes(published.bytes),
        ));
    }
}
