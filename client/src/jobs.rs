//! `wakebox jobs` and `wakebox job`: which jobs there are, and looks into them.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cas::look::{Entry, EntryKind, Look, Origin, Page, Running};
use cas::{RelPath, Store, text};
use indicatif::{HumanBytes, HumanDuration};

use crate::batch;
use crate::cli::{
    Environment, JobArguments, JobCommand, JobsArguments, ShellArguments, StoreArgument,
};
use crate::commands::print;
use crate::daemon::{Daemons, Lease};
use crate::error::{Error, Result};
use crate::kept::{self, KeptJob};
use crate::original::Batch;

/// `wakebox jobs`.
///
/// # Errors
/// A store that cannot be read. A daemon that does not answer is passed over.
pub fn list(arguments: &JobsArguments, environment: &Environment) -> Result<u8> {
    let served = served(environment)?;
    let mut kept = Vec::new();
    for store in stores(&arguments.store, environment)? {
        kept.extend(kept::all(&store)?);
    }
    let now = crate::workspace::now() / 1_000_000_000;
    if arguments.json {
        let rows = served.iter().flat_map(|(_, jobs)| jobs).map(running_json);
        let rows = rows.chain(kept.iter().map(|job| kept_json(job, now)));
        print(format_args!("{}", serde_json::Value::from_iter(rows)))?;
        return Ok(0);
    }
    for job in served.iter().flat_map(|(_, jobs)| jobs) {
        print_running(job)?;
    }
    for job in &kept {
        print_kept(job, now)?;
    }
    Ok(0)
}

fn running_json(job: &Running) -> serde_json::Value {
    serde_json::json!({
        "id": job.id, "state": "running", "label": job.label, "age": seconds(job.age_ms),
        "open-files": job.open_files, "bytes-staged": job.bytes_staged,
    })
}

fn kept_json(job: &KeptJob, now: i64) -> serde_json::Value {
    serde_json::json!({
        "id": job.id, "state": "kept", "label": job.kept.label, "age": now - job.kept.since,
        "status": job.kept.status, "kept-for": job.kept.seconds, "bytes-staged": job.bytes,
        "store": text::encode(job.store.as_os_str().as_bytes()),
    })
}

#[expect(clippy::cast_precision_loss, reason = "ages are short")]
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

fn print_running(job: &Running) -> Result<()> {
    print(format_args!(
        "{}  running {:.1} s  {} open  {} staged  {}",
        job.id,
        seconds(job.age_ms),
        job.open_files,
        HumanBytes(job.bytes_staged),
        job.label
    ))
}

fn print_kept(job: &KeptJob, now: i64) -> Result<()> {
    let left = job.kept.since.saturating_add_unsigned(job.kept.seconds) - now;
    let left = std::time::Duration::from_secs(u64::try_from(left).unwrap_or(0));
    print(format_args!(
        "{}  failed with {}, kept for {} more  {}  {}",
        job.id,
        job.kept.status,
        HumanDuration(left),
        HumanBytes(job.bytes),
        job.kept.label
    ))
}

/// The daemons of this user that answer, with their jobs.
fn served(environment: &Environment) -> Result<Vec<(Lease, Vec<Running>)>> {
    let daemons = Daemons::from_environment(environment)?;
    let sockets = daemons.runtime.sockets()?;
    let leases = sockets.iter().filter_map(|socket| Lease::at(socket));
    let served = leases.filter_map(|lease| match lease.jobs() {
        Ok(jobs) => Some((lease, jobs)),
        // It is ending, or of another build, whose jobs its own binary knows.
        Err(error) => {
            tracing::info!("a daemon is passed over: {error}");
            None
        }
    });
    Ok(served.collect())
}

/// The stores in which jobs may have been kept: the one that is named, or those that are used here
/// when none is.
fn stores(named: &StoreArgument, environment: &Environment) -> Result<Vec<Store>> {
    let places = match &named.path {
        Some(path) => vec![path.clone()],
        None => {
            let batch = PathBuf::from(crate::spec::DEFAULT_STORE);
            environment
                .default_store()
                .into_iter()
                .chain([batch])
                .collect()
        }
    };
    let there = places
        .into_iter()
        .filter(|place| place.join("blobs").is_dir());
    let open = |place: PathBuf| {
        let place = place.canonicalize().unwrap_or(place);
        Store::open(&place).map_err(Error::from)
    };
    there.map(open).collect()
}

/// `wakebox job`.
///
/// # Errors
/// No such job, no such path.
pub fn run(arguments: &JobArguments, environment: &Environment) -> Result<u8> {
    match &arguments.command {
        JobCommand::Ls {
            job,
            path,
            outputs,
            json,
        } => {
            let (lease, job) = find(job, environment)?;
            let what = match outputs {
                true => Listed::Outputs,
                false => Listed::At(path.as_ref().map_or(Ok(None), parse)?),
            };
            what.list(&lease, &job, *json).map(|()| 0)
        }
        JobCommand::Cat { job, path } => {
            let (lease, job) = find(job, environment)?;
            let path = parse(path)?;
            let path = path.ok_or_else(|| Error::Outcome("the view is a directory".into()))?;
            cat(&lease, &job, path)
        }
        JobCommand::Shell(arguments) => shell(arguments, environment),
    }
}

/// The job whose id begins so, and its daemon.
fn find(id: &str, environment: &Environment) -> Result<(Lease, String)> {
    let mut found = Vec::new();
    for (lease, jobs) in served(environment)? {
        let named = jobs.into_iter().find(|job| job.id.starts_with(id));
        found.extend(named.map(|job| (lease, job.id)));
    }
    match (found.pop(), found.is_empty()) {
        (Some(found), true) => Ok(found),
        (Some(_), false) => Err(Error::Outcome(format!(
            "more than one running job is called {id}; give more of its id"
        ))),
        (None, _) => Err(Error::Outcome(format!(
            "no running job is called {id}; `wakebox jobs` lists them"
        ))),
    }
}

/// A path of a view; `None` is the view.
fn parse(path: &OsString) -> Result<Option<RelPath>> {
    if path == "." {
        return Ok(None);
    }
    let parsed = RelPath::parse(path.as_bytes()).map(Some);
    parsed.map_err(|reason| Error::Usage(format!("path '{}' {reason}", Path::new(path).display())))
}

/// What is listed.
enum Listed {
    At(Option<RelPath>),
    Outputs,
}

impl Listed {
    /// Prints it page by page.
    fn list(&self, lease: &Lease, job: &str, json: bool) -> Result<()> {
        let mut look = self.look(0, None);
        loop {
            let Page { entries, next } = lease.page(job, look).map_err(|e| self.explain(e))?;
            for entry in &entries {
                print_entry(entry, json)?;
            }
            let Some(next) = next else { return Ok(()) };
            let last = entries.last().map(|entry| RelPath::parse(&entry.name.0));
            look = self.look(next, last.and_then(std::result::Result::ok));
        }
    }

    fn look(&self, from: u64, after: Option<RelPath>) -> Look {
        match self {
            Self::At(path) => Look::At {
                path: path.clone(),
                from,
            },
            Self::Outputs => Look::Outputs { after },
        }
    }

    fn explain(&self, error: crate::daemon::DaemonError) -> Error {
        match self {
            Self::At(Some(path)) => explain(path, error),
            _ => error.into(),
        }
    }
}

/// Names the path of a refusal.
fn explain(path: &RelPath, error: crate::daemon::DaemonError) -> Error {
    match error {
        crate::daemon::DaemonError::Refused(why) => Error::Outcome(format!("'{path}': {why}")),
        other => other.into(),
    }
}

fn print_entry(entry: &Entry, json: bool) -> Result<()> {
    if json {
        let line = serde_json::to_string(entry);
        let line = line.map_err(|error| Error::io("print", "an entry", io::Error::from(error)))?;
        return print(format_args!("{line}"));
    }
    let whose = match entry.origin {
        Origin::Input => "input",
        Origin::Changed => "changed",
        Origin::Made => "made",
    };
    let behind = match (&entry.kind, &entry.target) {
        (EntryKind::Directory, _) => "/".to_owned(),
        (EntryKind::Special, _) => "|".to_owned(),
        (_, Some(target)) => format!(" -> {}", text::encode(&target.0)),
        (_, None) => String::new(),
    };
    let (mode, size, name) = (entry.mode, entry.size, text::encode(&entry.name.0));
    print(format_args!(
        "{mode:04o} {size:>12} {whose:<7} {name}{behind}"
    ))
}

fn cat(lease: &Lease, job: &str, path: RelPath) -> Result<u8> {
    let at = Look::File { path: path.clone() };
    let mut file = lease.file(job, at).map_err(|error| explain(&path, error))?;
    match io::copy(&mut file, &mut io::stdout()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("copy to standard output", path.as_path(), error))
        }
        _ => Ok(0),
    }
}

fn shell(arguments: &ShellArguments, environment: &Environment) -> Result<u8> {
    let Some(id) = &arguments.job else {
        let params = arguments.spec.clone().unwrap_or_default();
        let batch = Batch {
            params,
            force_shell: true,
            interactive: true,
            ..Batch::default()
        };
        return batch::run(&batch, environment);
    };
    for store in stores(&arguments.store, environment)? {
        if let Some(job) = kept::find(&store, id)? {
            return kept::shell(&store, &job, environment);
        }
    }
    Err(Error::Outcome(format!(
        "no kept job is called {id}; `wakebox jobs` lists them, `--store` names another store"
    )))
}
