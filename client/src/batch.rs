//! A job as build tools call it: `wakebox -p spec.json -o result.json`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cas::Store;
use cas::directory::Root;
use cas::manifest::{Declared, Manifest};
use cas::record::{Level, Recording};

use crate::cli::{Environment, kept_by_default};
use crate::daemon::Daemons;
use crate::declaration::Declaration;
use crate::delta::DeltaDocument;
use crate::durable;
use crate::error::{Error, Result, say};
use crate::exit_code;
use crate::images;
use crate::ingest::{self, Coverage, Index, Ingestion, Progress};
use crate::kept::Keeping;
use crate::mount_ops;
use crate::original::{Batch, Bind};
use crate::output::{Collector, Disposal, Hashed};
use crate::pending::Pending;
use crate::record::Told;
use crate::result::{self, Isolation, ResultDocument, SandboxFailure, Usage};
use crate::run::{self, Finished, FinishedView, Job};
use crate::runtime::RuntimeDirectory;
use crate::sandbox::SignalHold;
use crate::sandbox::plan::Stdin;
use crate::shell;
use crate::spec::{Input, Seen, Spec};
use crate::trial;

/// Runs the job of a spec and returns the exit code. A failure that is not the job's goes into the
/// result, too, so that a caller who reads nothing else does not take it for one.
pub fn run(arguments: &Batch, environment: &Environment) -> Result<u8> {
    let result = arguments.output_stats.as_deref();
    let mut result = result.map(Pending::create).transpose()?;
    let outcome = attempt(arguments, environment, &mut result);
    if let (Err(error), Some(result)) = (&outcome, result) {
        let mut document = document(Usage::failed(), false, None);
        document.sandbox_error = Some(SandboxFailure::new(error));
        // There is a failure to tell of already, and it came first.
        let _ = result.commit(&document);
    }
    outcome
}

fn attempt(
    arguments: &Batch,
    environment: &Environment,
    result: &mut Option<Pending>,
) -> Result<u8> {
    let (spec, declaration, text) = read(&arguments.params, environment)?;
    let spec = override_spec(spec, arguments);
    let keep = spec.keep_failed;
    let durable = spec.durable || arguments.durable;
    if let (true, Some(result)) = (durable, result.as_mut()) {
        result.make_durable();
    }
    let store = Store::open(&spec.store)?;
    let daemons = Daemons::from_environment(environment)?;
    let disposal = disposal(&spec);
    let hold = store.hold()?;
    let (cas_dir, level) = (spec.store.clone(), spec.record);
    let tracked = Tracked {
        changes: spec.copy_on_write.is_anything(),
        input_root: spec.input_root,
    };
    let mut job = match declaration {
        Some(declaration) => mean_on(spec, environment, |_| Ok(declaration))?,
        None => mean(spec, &store, environment)?,
    };
    if arguments.interactive {
        job.stdin = Stdin::Inherit;
    }
    if arguments.force_shell {
        job.stdin = Stdin::Terminal;
        let hint = "To execute the original command:\n\teval $WAKEBOX_CMD";
        let _ = writeln!(std::io::stderr(), "{hint}");
    }
    let command = job.command[0].clone();
    let keep = keep.map(|time| {
        let text = String::from_utf8_lossy(&text).into_owned();
        Keeping::new(time, &job, environment, Some(text))
    });
    let keep = keep.transpose()?;
    drop(text);
    // From here on a signal to stop ends the job and not us, so that nothing is left behind. Whoever
    // stops a job asks for it more than once, and wants no result of half of it.
    let signals = SignalHold::new();
    let finished = run::run(job, &store, &daemons, hold)?;
    // What is taken in stays at least until the result, or whoever made it, can name it.
    let _hold = store.hold()?;
    let mut code = exit_code::of_job(&finished.ended);
    let mut stopped = exit_code::stopped(&finished.ended);
    if stopped.is_none() {
        if let Some(line) = run::explain(&finished.ended, &command) {
            say(line);
        }
        let to = Destination {
            cas_dir: &cas_dir,
            disposal,
            tracked,
            level,
            keep: keep.filter(|_| code != 0),
            durable,
            result: &mut *result,
        };
        stopped = report(finished, &store, to, &signals)?;
    }
    if let Some(signal) = stopped {
        code = exit_code::of_signal(signal);
        if let Some(result) = result.take() {
            result.withdraw();
        }
    } else if arguments.isolate_retcode {
        code = 0;
    }
    signals.keep();
    Ok(code)
}

/// Reads a spec, and its text. If it is quickly read, or was read before, its inputs are declared and not
/// part of it.
fn read(path: &Path, environment: &Environment) -> Result<(Spec, Option<Declaration>, Vec<u8>)> {
    let text = trial::read_bytes(path)?;
    let seen = Seen::new(&text, || RuntimeDirectory::find(environment).ok());
    if let Some((spec, declaration)) = seen.as_ref().and_then(|seen| seen.read(&text)) {
        return Ok((spec, Some(declaration), text));
    }
    let plain = std::str::from_utf8(&text).ok().and_then(Spec::parse_plain);
    let Some(plain) = plain else {
        let (spec, _) = trial::spec_of(path, &text)?;
        return Ok((spec, None, text));
    };
    let (size, length) = (plain.manifest.len() as u64, plain.length);
    let declaration = Declaration::new(plain.manifest);
    if let Some(seen) = seen {
        seen.remember(length, &declaration, size);
    }
    Ok((plain.spec, Some(declaration), text))
}

/// What the command line says beats what the spec says.
fn override_spec(mut spec: Spec, arguments: &Batch) -> Spec {
    let binds = arguments.binds.iter().map(Bind::operation);
    spec.mount_ops.extend(binds);
    if arguments.force_shell {
        let name = b"WAKEBOX_CMD=";
        let given = |variable: &OsString| variable.as_bytes().starts_with(name);
        spec.environment.retain(|variable| !given(variable));
        let mut variable = OsString::from("WAKEBOX_CMD=");
        variable.push(shell::quote(&spec.command));
        spec.environment.push(variable);
        spec.command = vec!["/bin/sh".into()];
    }
    if arguments.keep_failed {
        spec.keep_failed = spec.keep_failed.or_else(|| Some(kept_by_default()));
    }
    spec
}

/// The job of a spec that is given as text, on other inputs.
///
/// # Errors
/// A spec that makes no sense any more.
pub(crate) fn again(
    arguments: &Batch,
    text: &str,
    manifest: Manifest,
    store: &Store,
    environment: &Environment,
) -> Result<Job> {
    let spec = Spec::parse(text).map_err(|message| Error::Spec {
        path: arguments.params.clone(),
        message,
    })?;
    let mut spec = override_spec(spec, arguments);
    (spec.visible, spec.input_root) = (Vec::new(), manifest.input_root);
    mean(spec, store, environment)
}

fn disposal(spec: &Spec) -> Disposal {
    match (spec.keep_staging, spec.adopt) {
        (false, _) => Disposal::Move,
        (true, true) => Disposal::Copy,
        (true, false) => Disposal::HashOnly,
    }
}

/// The job of a spec.
pub(crate) fn mean(mut spec: Spec, store: &Store, environment: &Environment) -> Result<Job> {
    let (visible, input_root) = (std::mem::take(&mut spec.visible), spec.input_root);
    mean_on(spec, environment, |here| {
        let entries = declared(visible, here, store)?;
        let manifest = Manifest {
            input_root,
            entries,
        };
        Ok(Declaration::from(&manifest))
    })
}

/// The job of a spec, on inputs that are declared when the rest makes sense.
fn mean_on(
    spec: Spec,
    environment: &Environment,
    manifest: impl FnOnce(&Path) -> Result<Declaration>,
) -> Result<Job> {
    let here = std::env::current_dir().map_err(|e| Error::io("find", ".", e))?;
    let path = environment.variables.get(std::ffi::OsStr::new("PATH"));
    let expanded = images::expand(spec.mount_ops, &here, path.map(OsString::as_os_str))?;
    let mounts = mount_ops::compile(&expanded.ops, &here).map_err(Error::Usage)?;
    let own = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let label = spec.label.unwrap_or_else(|| label(&spec.command));
    let isolation = Isolation::of(&mounts);
    Ok(Job {
        label,
        directory: mounts.run_directory.join(&spec.directory),
        manifest: manifest(&here)?,
        copy_on_write: spec.copy_on_write,
        mounts,
        stdin: Stdin::Open(spec.stdin.unwrap_or_else(|| "/dev/null".into())),
        command: expanded.command(spec.command),
        squashfuse: expanded.squashfuse,
        namespaces: spec.namespaces,
        needs_proc: spec.isolate_pids,
        limits: spec.limits,
        environment: spec.environment,
        user: (spec.user.0.unwrap_or(own.0), spec.user.1.unwrap_or(own.1)),
        limit: spec.limit,
        record: Recording {
            level: spec.record,
            absent: false,
            each_look: false,
        },
        listing_seed: None,
        isolation,
    })
}

/// What a job is called that has no name of its own: its command.
pub(crate) fn label(command: &[OsString]) -> String {
    shell::quote(command).to_string_lossy().into_owned()
}

/// Everything that is declared, with named files put into the store first. The order of the spec
/// is kept: it decides the times of directories that are only implied.
pub(crate) fn declared(visible: Vec<Input>, here: &Path, store: &Store) -> Result<Vec<Declared>> {
    let named = visible.iter().filter_map(|input| match input {
        Input::Named(path) => Some(path.clone()),
        Input::Declared(_) => None,
    });
    let named: Vec<_> = named.collect();
    let hashed = if named.is_empty() {
        BTreeMap::new()
    } else {
        if named.len() >= cas::parallel::WORTH_IT {
            crate::sandbox::start_hashing_threads();
        }
        let index = Index::load(store.root(), here);
        let (now_ns, progress) = (crate::workspace::coarse_now(), Progress::silent());
        let job = Ingestion {
            store,
            workspace: here,
            index: &index,
            writable: &|_| false,
            now_ns,
            progress: &progress,
        };
        let ingested = ingest::ingest_named(&job, &named)?;
        if let Err(error) = index.save(store, Coverage::Part) {
            tracing::warn!("the index of unchanged files is not saved: {error}");
        }
        let entries = ingested.manifest.entries.into_iter();
        entries.map(|entry| (entry.path.clone(), entry)).collect()
    };
    let entries = visible.into_iter().filter_map(|input| match input {
        Input::Declared(declared) => Some(declared),
        Input::Named(path) => hashed.get(&path).cloned(),
    });
    Ok(entries.collect())
}

/// What the result is to tell of inputs that were changed.
struct Tracked {
    /// Whether the job was free to change any.
    changes: bool,
    /// The stored tree that it started from.
    input_root: Option<Root>,
}

/// Where a report goes.
struct Destination<'a> {
    cas_dir: &'a Path,
    disposal: Disposal,
    tracked: Tracked,
    level: Level,
    /// The job failed, and is to be kept.
    keep: Option<Keeping>,
    durable: bool,
    result: &'a mut Option<Pending>,
}

/// Writes the result, unless a signal came first, which is returned.
fn report(
    finished: Finished,
    store: &Store,
    to: Destination<'_>,
    hold: &SignalHold,
) -> Result<Option<i32>> {
    if let Some(signal) = hold.kept() {
        return Ok(Some(signal));
    }
    let Some(view) = finished.view else {
        let usage = Usage::new(&finished.ended, 0, &[]);
        let mut document = document(usage, finished.ended.timed_out, None);
        document.isolation = Some(finished.isolation);
        write(to.result, &document)?;
        return Ok(None);
    };
    let FinishedView {
        report,
        staging,
        lease,
        host,
    } = view;
    run::check_report(&report)?;
    let collector = Collector::open(store, &staging, report.late_writer)?;
    // A directory that stays is nobody else's.
    let disposal = match to.keep {
        Some(_) => Disposal::Spare,
        None => to.disposal,
    };
    let (hashed, changes) = collector.collect(report.outputs, report.changes, disposal)?;
    let usage = Usage::new(&finished.ended, report.in_bytes, &hashed);
    let mut document = document(usage, finished.ended.timed_out, Some(&hashed));
    (document.inputs, document.data_path) = (report.inputs, Some(report.data_path));
    document.fuse_ops = Some(report.requests);
    document.late_writer = report.late_writer;
    document.isolation = Some(finished.isolation);
    if to.tracked.changes {
        let input_root = to.tracked.input_root.as_ref();
        document.delta = Some(DeltaDocument::new(changes, input_root));
    }
    document.record = Told::new(to.level, report.record, host, &hashed, to.result.as_ref())?;
    let root = to.cas_dir.join("staging").join(&staging);
    let mut kept = false;
    if matches!(disposal, Disposal::Copy | Disposal::HashOnly) {
        let names = collector.names_of_their_own(&hashed)?;
        document.staging_files = Some(result::staging_files(&hashed, &names, &root));
        kept = !names.is_empty();
        document.staging_root = kept.then(|| result::path_text(&root));
        if to.durable {
            let names: Vec<_> = names.values().map(String::as_str).collect();
            store.sync_staged(&staging, &names)?;
        }
    }
    if to.durable {
        durable::sync_outputs(store, &hashed)?;
    }
    if let Some(signal) = hold.kept() {
        return Ok(Some(signal));
    }
    if let Some(keeping) = &to.keep {
        keeping.keep(store, &staging, document.usage.status, lease)?;
        document.kept = Some(staging);
        write(to.result, &document)?;
        return Ok(None);
    }
    // Whoever reads the result takes the staging files over. Until it is in place they are the
    // daemon's, which removes them if we die; so they are taken over before, not after.
    let taken = kept && to.result.is_some();
    if taken {
        lease.take()?;
    }
    let written = write(to.result, &document);
    if taken && written.is_err() {
        // Nobody will ever hear of them.
        let _ = std::fs::remove_dir_all(&root);
    } else if taken {
        // The result says it now, and whoever reads it removes the directory once it is empty. It
        // stands, so the call has not failed.
        if let Err(error) = collector.remove_manifest() {
            tracing::warn!("{error}");
        }
    }
    written.map(|()| None)
}

fn document(usage: Usage, timed_out: bool, hashed: Option<&[Hashed]>) -> ResultDocument {
    ResultDocument {
        usage,
        inputs: Vec::new(),
        outputs: hashed
            .unwrap_or_default()
            .iter()
            .map(|output| output.path.clone())
            .collect(),
        timed_out,
        staging_files: None,
        staging_root: None,
        run_host: result::host_name(),
        hashed_files: hashed.map(result::hashed_files),
        view: hashed.is_some(),
        isolation: None,
        data_path: None,
        fuse_ops: None,
        late_writer: false,
        delta: None,
        sandbox_error: None,
        record: Told::default(),
        wanted: Vec::new(),
        kept: None,
        absent: None,
    }
}

fn write(result: &mut Option<Pending>, document: &ResultDocument) -> Result<()> {
    match result.take() {
        Some(pending) => pending.commit(document),
        None => Ok(()),
    }
}
