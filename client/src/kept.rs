//! Jobs that failed and are kept: put away with all that they had, and mounted anew.
//!
//! What is kept is the staging directory, and no namespace: as long as one lives, so does the mount
//! in it, and nobody could tell that what the job wrote is final.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cas::changes::InputChanges;
use cas::delta::Delta;
use cas::directory::{self, Root};
use cas::gc::Dead;
use cas::kept::{Call as Asked, Kept, VERSION};
use cas::manifest::{DeclaredKind, Manifest};
use cas::protocol::CopyOnWrite;
use cas::record::Recording;
use cas::recovery::{self, JobState};
use cas::staging::FLAGS;
use cas::text::Text;
use cas::tree::{Entry, EntryKind};
use cas::{RelPath, Store};
use indicatif::HumanDuration;
use rustix::fs::Mode;

use crate::cli::{Call, Command, Environment};
use crate::daemon::{Daemons, Lease};
use crate::error::{Error, Result, say};
use crate::output::{Collector, Disposal, Hashed, HashedEntry};
use crate::run::{self, Job};
use crate::sandbox::plan::Stdin;
use crate::{batch, exit_code, sandbox, shell, workspace};

/// How long a directory may stay locked that has just been given away: its daemon lets go of it a
/// moment after it has answered.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is to be said of a job if it fails.
#[derive(Debug)]
pub struct Keeping {
    /// How long it is kept.
    pub time: Duration,
    /// What people call it.
    pub label: String,
    /// How it was asked for.
    pub call: Asked,
}

impl Keeping {
    /// Of a job that was asked for by these words, and a spec if there is one.
    ///
    /// # Errors
    /// The current directory cannot be found.
    pub fn new(
        time: Duration,
        job: &Job,
        environment: &Environment,
        spec: Option<String>,
    ) -> Result<Self> {
        let here = std::env::current_dir().map_err(|error| Error::io("find", ".", error))?;
        let text = |word: &OsString| Text(word.as_bytes().into());
        let call = Asked {
            directory: Text(here.into_os_string().into_vec()),
            words: environment.words.iter().map(text).collect(),
            spec,
            environment: job.environment.iter().map(text).collect(),
        };
        let label = job.label.clone();
        Ok(Self { time, label, call })
    }

    /// Takes a failed job's directory over from its daemon and leaves it in the store.
    ///
    /// # Errors
    /// The directory cannot be written to, or the daemon is gone.
    pub fn keep(&self, store: &Store, staging: &str, status: i32, lease: Lease) -> Result<()> {
        let directory = rustix::fs::openat(store.staging(), staging, FLAGS, Mode::empty());
        let directory = directory.map_err(|errno| Error::io("keep the job", staging, errno))?;
        let kept = Kept {
            version: VERSION,
            since: workspace::now() / 1_000_000_000,
            seconds: self.time.as_secs(),
            label: self.label.clone(),
            status,
            call: self.call.clone(),
        };
        kept.write(directory.as_fd())?;
        lease.take()?;
        let time = HumanDuration(self.time);
        say(format_args!(
            "the failed job is kept for {time}; `wakebox job shell --job {staging}` shows what it left"
        ));
        Ok(())
    }
}

/// A kept job.
#[derive(Debug)]
pub struct KeptJob {
    /// Its name in the staging area.
    pub id: String,
    /// The root of the store that it is in.
    pub store: PathBuf,
    /// Sizes of the files in its directory, added up.
    pub bytes: u64,
    /// What is said of it.
    pub kept: Kept,
}

/// All kept jobs of a store that nobody has open, the oldest first.
///
/// # Errors
/// A staging area that cannot be listed.
pub fn all(store: &Store) -> Result<Vec<KeptJob>> {
    let kept = Dead::all(store)?.into_iter().filter_map(|dead| {
        Some(KeptJob {
            id: dead.name().to_owned(),
            store: store.root().to_owned(),
            bytes: dead.size(),
            kept: dead.kept()?,
        })
    });
    let mut kept: Vec<_> = kept.collect();
    kept.sort_by_key(|job| job.kept.since);
    Ok(kept)
}

/// The kept job whose id is this, or the only one whose id begins so.
///
/// # Errors
/// A staging area that cannot be listed; more than one job that is called so.
pub fn find(store: &Store, id: &str) -> Result<Option<KeptJob>> {
    let mut named: Vec<_> = all(store)?;
    named.retain(|job| job.id.starts_with(id));
    match named.len() {
        0 | 1 => Ok(named.pop()),
        _ => Err(Error::Outcome(format!(
            "more than one kept job is called {id}; give more of its id"
        ))),
    }
}

/// Opens a shell in the view that a kept job left, and returns its exit code. What is done in it is
/// forgotten, so that it can be opened again.
///
/// # Errors
/// The job's directory is in use, or does not say what it was; its inputs are gone.
pub fn shell(store: &Store, job: &KeptJob, environment: &Environment) -> Result<u8> {
    let dead = claim(store, &job.id)?;
    let hold = store.hold()?;
    sandbox::start_hashing_threads();
    let manifest = left(store, &dead)?;
    let daemons = Daemons::from_environment(environment)?;
    let mut again = again(&job.kept.call, manifest, store, environment)?;
    become_shell(&mut again);
    let hint = "To execute the original command:\n\teval $WAKEBOX_CMD";
    let _ = writeln!(std::io::stderr(), "{hint}");
    let finished = run::run(again, store, &daemons, hold)?;
    Ok(exit_code::of_job(&finished.ended))
}

/// The directory, which is ours from now on.
fn claim(store: &Store, id: &str) -> Result<Dead> {
    let start = std::time::Instant::now();
    loop {
        match Dead::find(store, id) {
            Some(dead) => return Ok(dead),
            None if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(10)),
            None => {
                return Err(Error::Outcome(format!(
                    "the kept job {id} is in use, or gone; is there another shell in it?"
                )));
            }
        }
    }
}

/// What the job left, as inputs: a tree that was made of its inputs and of what it did to them.
fn left(store: &Store, dead: &Dead) -> Result<Manifest> {
    let refuse = |why: &str| Error::Outcome(format!("the kept job {}: {why}", dead.name()));
    let manifest = recovery::read_inputs(dead.as_fd());
    let mut manifest = manifest.ok_or_else(|| refuse("it does not say what it used"))?;
    let Some(JobState::Ended(report)) = dead.recovery().map(|recovery| recovery.job) else {
        return Err(refuse("it does not say what it made"));
    };
    for entry in &mut manifest.entries {
        if let DeclaredKind::WritableFile(digest) = entry.kind {
            entry.kind = DeclaredKind::File(digest);
        }
    }
    let inputs = manifest.resolve(store);
    let inputs = inputs.map_err(|error| refuse(&error.to_string()))?;
    let base = directory::store(&inputs.tree, store)?;
    let collector = Collector::open(store, dead.name(), report.late_writer)?;
    let (hashed, changes) = collector.collect(report.outputs, report.changes, Disposal::Spare)?;
    let next = delta(&hashed, changes).apply(&base, store);
    let next: Root = next.map_err(|error| refuse(&error.to_string()))?;
    Ok(Manifest {
        input_root: Some(next),
        entries: Vec::new(),
    })
}

fn delta(hashed: &[Hashed], changes: InputChanges) -> Delta {
    let renamed = changes.changed.into_iter();
    let renamed = renamed.filter_map(|row| Some((row.path, row.renamed_from?)));
    let entries = hashed
        .iter()
        .map(|output| (output.path.clone(), entry(output)));
    let root = changes.root.map(|root| {
        let seconds = root.mtime_sec.saturating_mul(1_000_000_000);
        (
            root.mode & 0o7777,
            seconds.saturating_add(root.mtime_nsec.into()),
        )
    });
    Delta {
        deleted: changes.deleted.into_iter().collect(),
        renamed: renamed.collect(),
        entries: entries.collect(),
        root,
    }
}

fn entry(output: &Hashed) -> Entry {
    let path: RelPath = output.path.clone();
    let (mode, mtime, kind) = match &output.entry {
        HashedEntry::File {
            hash,
            size,
            mode,
            mtime,
            ..
        } => {
            let (digest, size) = (*hash, *size);
            (*mode, mtime, EntryKind::File { digest, size })
        }
        HashedEntry::Symlink { target, mtime } => {
            let target = target.0.clone().into();
            (0o777, mtime, EntryKind::Symlink { target })
        }
        HashedEntry::Directory { mode, mtime } => (*mode, mtime, EntryKind::Directory),
    };
    Entry {
        path,
        mode: mode & 0o7777,
        mtime: mtime.in_nanoseconds(),
        kind,
    }
}

/// The job as it was asked for, but on what it left, all of which it may change.
fn again(
    asked: &Asked,
    manifest: Manifest,
    store: &Store,
    environment: &Environment,
) -> Result<Job> {
    let directory = Path::new(OsStr::from_bytes(&asked.directory.0));
    std::env::set_current_dir(directory).map_err(|e| Error::io("go to", directory, e))?;
    let words = asked
        .words
        .iter()
        .map(|word| OsString::from_vec(word.0.clone()));
    let words: Vec<_> = std::iter::once("wakebox".into()).chain(words).collect();
    let refuse = || Error::Outcome("it is not known how the job was asked for".into());
    let mut job = match (Call::read(&words), &asked.spec) {
        (Ok(Call::Batch(call)), Some(spec)) => {
            batch::again(&call, spec, manifest, store, environment)?
        }
        (Ok(Call::Command(Command::Run(call))), None) => {
            workspace::again(&call, environment, manifest)?
        }
        _ => return Err(refuse()),
    };
    let variables = asked.environment.iter();
    job.environment = variables
        .map(|text| OsString::from_vec(text.0.clone()))
        .collect();
    job.copy_on_write = CopyOnWrite::Everything;
    job.record = Recording::default();
    job.limit = None;
    Ok(job)
}

/// A shell in place of the command, which knows how to run that.
fn become_shell(job: &mut Job) {
    let name = b"WAKEBOX_CMD=";
    job.environment
        .retain(|variable| !variable.as_bytes().starts_with(name));
    let mut variable = OsString::from("WAKEBOX_CMD=");
    variable.push(shell::quote(&job.command));
    job.environment.push(variable);
    job.command = vec!["/bin/sh".into()];
    job.stdin = Stdin::Terminal;
}
