//! A job as build tools call it: `wakebox -p spec.json -o result.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cas::Store;
use cas::manifest::Manifest;

use crate::cli::{BatchArguments, Environment};
use crate::daemon::Daemons;
use crate::error::{Error, Result};
use crate::exit_code;
use crate::ingest::{self, Coverage, Index, Ingestion, Progress};
use crate::output::{Collector, Disposal, Hashed};
use crate::result::{self, Pending, ResultDocument, Usage};
use crate::run::{self, Finished, FinishedView, Job};
use crate::sandbox::plan::Stdin;
use crate::spec::{Input, Spec};

/// Runs the job of a spec and returns the exit code.
pub fn run(arguments: &BatchArguments, environment: &Environment) -> Result<u8> {
    let spec = read_spec(&arguments.params)?;
    let result = arguments
        .output_stats
        .as_deref()
        .map(Pending::create)
        .transpose()?;
    let store = Store::open(&spec.store)?;
    let daemons = Daemons::from_environment(environment)?;
    let disposal = disposal(&spec);
    let cas_dir = spec.store.clone();
    let job = mean(spec, &store)?;
    let command = job.command[0].clone();
    let finished = run::run(job, &store, &daemons)?;
    if let Some(line) = run::explain(&finished.ended, &command) {
        eprintln!("wakebox: {line}");
    }
    let code = exit_code::of_job(&finished.ended);
    let interrupted = exit_code::stopped(&finished.ended).is_some();
    report(finished, &store, &cas_dir, disposal, result)?;
    Ok(if arguments.isolate_retcode && !interrupted {
        0
    } else {
        code
    })
}

fn read_spec(path: &Path) -> Result<Spec> {
    let wrong = |message: String| Error::Spec {
        path: path.into(),
        message,
    };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    Spec::parse(&text).map_err(wrong)
}

fn disposal(spec: &Spec) -> Disposal {
    match (spec.keep_staging, spec.adopt) {
        (false, _) => Disposal::Move,
        (true, true) => Disposal::Copy,
        (true, false) => Disposal::HashOnly,
    }
}

fn mean(spec: Spec, store: &Store) -> Result<Job> {
    let here = std::env::current_dir().map_err(|e| Error::io("find", ".", e))?;
    let destinations = spec
        .workspaces
        .iter()
        .map(|place| destination(&here, place));
    let destinations: Vec<PathBuf> = destinations.collect::<Result<_>>()?;
    let root = destinations.first().unwrap_or(&here);
    let own = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    Ok(Job {
        directory: root.join(&spec.directory),
        manifest: manifest(spec.visible, &here, store)?,
        destinations,
        stdin: Stdin::Open(spec.stdin.unwrap_or_else(|| "/dev/null".into())),
        command: spec.command,
        environment: spec.environment,
        user: (spec.user.0.unwrap_or(own.0), spec.user.1.unwrap_or(own.1)),
        limit: spec.limit,
    })
}

fn destination(here: &Path, place: &Path) -> Result<PathBuf> {
    let place = here.join(place);
    place
        .canonicalize()
        .map_err(|error| Error::io("mount the workspace at", place, error))
}

/// Everything that is declared, with named files put into the store first. The order of the spec
/// is kept: it decides the times of directories that are only implied.
fn manifest(visible: Vec<Input>, here: &Path, store: &Store) -> Result<Manifest> {
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
    Ok(Manifest {
        entries: entries.collect(),
    })
}

fn report(
    finished: Finished,
    store: &Store,
    cas_dir: &Path,
    disposal: Disposal,
    result: Option<Pending>,
) -> Result<()> {
    let Some(view) = finished.view else {
        let usage = Usage::new(&finished.ended, 0, &[]);
        return write(result, &document(usage, finished.ended.timed_out, None));
    };
    let FinishedView {
        report,
        staging,
        lease,
    } = view;
    run::check_report(&report)?;
    let collector = Collector::open(store, &staging)?;
    let hashed = collector.collect(report.outputs, disposal)?;
    let usage = Usage::new(&finished.ended, report.in_bytes, &hashed);
    let mut document = document(usage, finished.ended.timed_out, Some(&hashed));
    (document.inputs, document.data_path) = (report.inputs, Some(report.data_path));
    document.late_writer = report.late_writer;
    let root = cas_dir.join("staging").join(&staging);
    let mut kept = false;
    if disposal != Disposal::Move {
        let names = collector.names_of_their_own(&hashed)?;
        document.staging_files = Some(result::staging_files(&hashed, &names, &root));
        kept = !names.is_empty();
        document.staging_root = kept.then(|| result::path_text(&root));
    }
    drop(collector);
    // Whoever reads the result takes the staging files over. Until it is in place they are the
    // daemon's, which removes them if we die; so they are taken over before, not after.
    if kept && result.is_some() {
        lease.take()?;
    }
    write(result, &document)
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
        data_path: None,
        late_writer: false,
    }
}

fn write(result: Option<Pending>, document: &ResultDocument) -> Result<()> {
    match result {
        Some(pending) => pending.commit(document),
        None => Ok(()),
    }
}
