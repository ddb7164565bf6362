//! Jobs that are run to find something out: what they make goes into the store, and nothing is
//! published, staged or written down.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cas::Store;
use cas::record::Recording;
use cas::report::Report;

use crate::batch;
use crate::cli::Environment;
use crate::daemon::Daemons;
use crate::error::{Error, Result, say};
use crate::exec::Ended;
use crate::exit_code;
use crate::output::Hashed;
use crate::run;
use crate::spec::Spec;
use crate::workspace;

/// Where jobs are tried.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// Has the inputs, and takes the outputs.
    pub store: &'a Store,
    /// Serve the views.
    pub daemons: &'a Daemons,
    /// The caller's.
    pub environment: &'a Environment,
}

/// What about a job is not a matter of its spec.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// What is recorded.
    pub record: Recording,
    /// Shuffles what directories list.
    pub listing_seed: Option<u64>,
    /// The process number after which the job's begin.
    pub last_pid: Option<u32>,
    /// The host's name, if the spec gives none.
    pub host_name: Option<OsString>,
    /// Further variables, which win over those of the spec.
    pub variables: Vec<OsString>,
}

/// A job that was tried.
#[derive(Debug)]
pub struct Trial {
    /// How it ended.
    pub ended: Ended,
    /// What it did.
    pub report: Report,
    /// What it made; the content is in the store.
    pub outputs: Vec<Hashed>,
}

impl Ground<'_> {
    /// Runs the job of a spec. What it prints goes to standard error. Must be called on the process's
    /// main thread, as [`run::run`].
    ///
    /// # Errors
    /// A failure that is not the job's. A signal to stop. A spec without a view: nothing of it could
    /// be known.
    pub fn run(&self, mut spec: Spec, conditions: &Conditions) -> Result<Trial> {
        spec.namespaces.last_pid = conditions.last_pid;
        let host_name = spec.namespaces.host_name.take();
        spec.namespaces.host_name = host_name.or_else(|| conditions.host_name.clone());
        set(&mut spec.environment, &conditions.variables);
        let (command, hold) = (spec.command[0].clone(), self.store.hold()?);
        let mut job = batch::mean(spec, self.store, self.environment)?;
        job.record = conditions.record;
        job.listing_seed = conditions.listing_seed;
        let aside = Aside::new()?;
        let finished = run::run(job, self.store, self.daemons, hold)?;
        drop(aside);
        if let Some(signal) = exit_code::stopped(&finished.ended) {
            return Err(Error::Stopped(signal));
        }
        if let Some(line) = run::explain(&finished.ended, &command) {
            say(line);
        }
        let _hold = self.store.hold()?;
        let view = finished.view.ok_or_else(|| {
            Error::Usage("the spec has no workspace among its mount-ops: nothing is tracked".into())
        })?;
        let (report, outputs, _) = workspace::collect(view, self.store, None)?;
        if report.late_writer {
            say("a process outside the sandbox has a file of the job open and may go on writing");
        }
        Ok(Trial {
            ended: finished.ended,
            report,
            outputs,
        })
    }
}

impl Trial {
    /// The exit code, unless the job ended well. Says what it was.
    pub fn failure(&self, which: &str) -> Option<u8> {
        let code = exit_code::of_job(&self.ended);
        if code == 0 {
            return None;
        }
        let how = match self.ended.timed_out {
            true => "exceeded its time limit".into(),
            false => format!("failed with exit code {code}"),
        };
        say(format_args!("the job {how}{which}"));
        Some(code)
    }
}

/// Reads a spec, and its text.
///
/// # Errors
/// It cannot be read, or makes no sense.
pub fn read_spec(path: &Path) -> Result<(Spec, String)> {
    spec_of(path, &read_bytes(path)?)
}

/// The bytes of a spec: they may come from a pipe, and be read only once.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| wrong(path, format!("cannot be read: {error}")))
}

/// The spec that is in a file, by the bytes of that, and its text.
pub(crate) fn spec_of(path: &Path, bytes: &[u8]) -> Result<(Spec, String)> {
    let text = std::io::read_to_string(bytes);
    let text = text.map_err(|error| wrong(path, format!("cannot be read: {error}")))?;
    let spec = Spec::parse(&text).map_err(|message| wrong(path, message))?;
    Ok((spec, text))
}

fn wrong(path: &Path, message: String) -> Error {
    let path = path.into();
    Error::Spec { path, message }
}

/// Sets variables in an environment.
fn set(environment: &mut Vec<OsString>, variables: &[OsString]) {
    fn name(variable: &OsString) -> Option<&[u8]> {
        variable.as_bytes().split(|byte| *byte == b'=').next()
    }
    environment.retain(|old| !variables.iter().any(|new| name(new) == name(old)));
    environment.extend_from_slice(variables);
}

/// While this is there, standard output is standard error: what a job prints is not mixed with what
/// is told of it.
#[derive(Debug)]
struct Aside(OwnedFd);

impl Aside {
    fn new() -> Result<Self> {
        let failed = |errno| Error::io("set aside", "standard output", errno);
        let own = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map_err(failed)?;
        rustix::stdio::dup2_stdout(rustix::stdio::stderr()).map_err(failed)?;
        Ok(Self(own))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = rustix::stdio::dup2_stdout(&self.0);
    }
}
