//! `wakebox recover`: outputs of jobs that ended, and whose result was never written, because the
//! client or the machine went down in between.

use std::path::Path;

use cas::Store;
use cas::gc::Dead;
use cas::recovery::JobState;
use cas::report::Report;
use indicatif::HumanBytes;

use crate::cli::{Environment, RecoverArguments};
use crate::commands::{existing, print};
use crate::durable;
use crate::error::{Error, Result};
use crate::output::{Collector, Disposal, Hashed};
use crate::pending::Pending;
use crate::publish::publish;
use crate::record::Told;
use crate::result::{self, ResultDocument, SandboxFailure, Usage};
use crate::{sandbox, workspace};

/// Lists what can be recovered, or recovers one job's outputs.
///
/// # Errors
/// No such directory, or one that a live process has, or whose files nobody knows; a place that
/// cannot be written to. Then everything stays where it is.
pub fn run(arguments: &RecoverArguments, environment: &Environment) -> Result<u8> {
    let store = existing(&arguments.store.resolve(environment)?)?;
    match &arguments.staging {
        None => list(&store),
        Some(name) => recover(&store, name, arguments),
    }
}

fn list(store: &Store) -> Result<u8> {
    let now = workspace::now() / 1_000_000_000;
    for dead in Dead::all(store)? {
        let kept = if dead.kept().is_some() {
            ", failed and kept"
        } else {
            ""
        };
        let what = match dead.recovery().map(|recovery| recovery.job) {
            None => continue, // an import's, or its result was written
            Some(JobState::Running) => "died while it ran; `wakebox gc` removes it".to_owned(),
            Some(JobState::Ended(report)) => {
                format!("ended with {} outputs{kept}", report.outputs.len())
            }
        };
        let (name, size, ago) = (dead.name(), HumanBytes(dead.size()), now - dead.changed());
        print(format_args!("{name}  {size}  {ago} s ago  {what}"))?;
    }
    Ok(0)
}

fn recover(store: &Store, name: &str, arguments: &RecoverArguments) -> Result<u8> {
    let _hold = store.hold()?;
    let (dead, report) = find(store, name)?;
    let result = arguments.result.as_deref().map(Pending::create);
    let result = result.transpose()?;
    sandbox::start_hashing_threads();
    let Report {
        outputs,
        inputs,
        changes,
        late_writer,
        data_path,
        ..
    } = report;
    let collector = Collector::open(store, name, late_writer)?;
    let (hashed, _) = collector.collect(outputs, changes, Disposal::Copy)?;
    if let Some(directory) = &arguments.to {
        write_out(store, &hashed, directory, name)?;
    }
    // The last copy goes when this is done, so what takes its place has to be on disk.
    durable::sync_outputs(store, &hashed)?;
    if let Some(mut result) = result {
        result.make_durable();
        let mut document = document(&hashed);
        (document.inputs, document.data_path) = (inputs, Some(data_path));
        document.late_writer = late_writer;
        result.commit(&document)?;
    }
    // Only now: whatever failed before can be tried again.
    cas::staging::remove_flat_directory(store.staging(), name)?;
    drop(dead);
    print(format_args!(
        "{} outputs ({}) recovered",
        hashed.len(),
        HumanBytes(result::out_bytes(&hashed))
    ))?;
    Ok(0)
}

/// The directory, which is ours as long as the first of the pair lives, and what is in it.
fn find(store: &Store, name: &str) -> Result<(Dead, Report)> {
    let place = store.root().join("staging").join(name);
    let refuse = |why: &str| Err(Error::Outcome(format!("{}: {why}", place.display())));
    if !cas::store::is_own_staging(name) || !place.is_dir() {
        return refuse("there is no such staging directory; `wakebox recover` lists them");
    }
    let Some(dead) = Dead::find(store, name) else {
        return refuse("its job is alive, or just ending");
    };
    match dead.recovery().map(|recovery| recovery.job) {
        Some(JobState::Ended(report)) => Ok((dead, *report)),
        Some(JobState::Running) => {
            refuse("its daemon died while the job ran, so nobody knows what its numbered files are")
        }
        None => refuse("it says nothing of a job; its result was written, or it is an import's"),
    }
}

fn write_out(store: &Store, hashed: &[Hashed], directory: &Path, id: &str) -> Result<()> {
    let failed = |error| Error::io("recover to", directory, error);
    std::fs::create_dir_all(directory).map_err(failed)?;
    let chosen: Vec<_> = hashed.iter().map(workspace::to_publish).collect();
    // Nothing that is there is older than this, so nothing is replaced.
    publish(directory, store, &chosen, i64::MIN, id)?;
    Ok(durable::sync_published(directory, &chosen)?)
}

/// A result that says what was made, and that how the job ended is not known.
fn document(hashed: &[Hashed]) -> ResultDocument {
    let lost = Error::Outcome("the job's end is not known; its outputs were recovered".into());
    ResultDocument {
        usage: Usage::failed(),
        inputs: Vec::new(),
        outputs: hashed.iter().map(|output| output.path.clone()).collect(),
        timed_out: false,
        staging_files: None,
        staging_root: None,
        run_host: result::host_name(),
        hashed_files: Some(result::hashed_files(hashed)),
        view: true,
        isolation: None,
        data_path: None,
        fuse_ops: None,
        late_writer: false,
        delta: None,
        sandbox_error: Some(SandboxFailure::new(&lost)),
        record: Told::default(),
        wanted: Vec::new(),
        kept: None,
        absent: None,
    }
}
