//! What a sandbox shall be: an ordered, checked value without effects.
//!
//! A [`Draft`] is filled in freely; [`Draft::check`] makes the [`Plan`] that
//! [`crate::exec::start`] accepts, so nothing is found wrong half-way through the mounts.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use super::limits::{Limit, Limited};

/// The one user and the one group that exist inside, and who they are outside.
///
/// The kernel lets an unprivileged process map no ids but its own, so `outside_*` are the
/// client's effective ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// User id that the job sees as its own.
    pub inside_uid: u32,
    /// Group id that the job sees as its own.
    pub inside_gid: u32,
    /// Effective user id of the client.
    pub outside_uid: u32,
    /// Effective group id of the client.
    pub outside_gid: u32,
}

/// Namespaces besides those that every job gets (user, mount, pid).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// The name of the host, in a UTS namespace. A name that the kernel refuses is told on
    /// standard error, and the job keeps the host's.
    pub host_name: Option<OsString>,
    /// The NIS domain, likewise.
    pub domain_name: Option<OsString>,
    /// A network namespace; it holds nothing but a loopback device.
    pub network: bool,
    /// The process number after which the job's begin, where the kernel lets us choose. That it does
    /// not is told on standard error.
    pub last_pid: Option<u32>,
    /// A namespace for System V IPC and POSIX message queues.
    pub ipc: bool,
}

/// One step of the set-up. The order of steps is the order in which they are carried out.
///
/// A mount whose destination is `/` is the new root: it is the root of the job in the end, and
/// later destinations (and what is hidden later) lie in it. Sources never do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Mounts the daemon's view: one superblock, attached at every destination in turn.
    MountView {
        /// Absolute directories that exist by then.
        destinations: Vec<PathBuf>,
        /// Lets the kernel check permissions from the attributes. Off for a job's view: the
        /// daemon checks them itself.
        default_permissions: bool,
        /// Lets users other than the mounting one in. Needs nothing inside a user namespace,
        /// and a job has one user only: off for a job's view.
        allow_other: bool,
    },
    /// Attaches the view, which an earlier step has mounted, at one more place.
    AttachView {
        /// Absolute directory that exists by then.
        destination: PathBuf,
    },
    /// Attaches the view over a further name that the host has for its directory. A name that is
    /// covered by now is passed over.
    CoverAlias {
        /// Absolute directory.
        path: PathBuf,
    },
    /// Mounts a file or directory at one more place, with everything mounted below it.
    Bind {
        /// Absolute path.
        source: PathBuf,
        /// Absolute path of a file or directory, as the source, that exists by then.
        destination: PathBuf,
        /// Makes it read-only, with everything mounted below it.
        read_only: bool,
    },
    /// Mounts an empty file system in memory.
    Tmpfs {
        /// Absolute directory that exists by then.
        destination: PathBuf,
    },
    /// Creates a directory and those above it, where missing.
    CreateDir {
        /// Absolute path.
        destination: PathBuf,
    },
    /// Creates an empty file, where missing.
    CreateFile {
        /// Absolute path; the directory above exists by then.
        destination: PathBuf,
    },
    /// Creates a symbolic link, where nothing has that name.
    Symlink {
        /// What it says; need not exist.
        target: PathBuf,
        /// Absolute path; the directory above exists by then.
        destination: PathBuf,
    },
    /// Mounts pseudo-terminals of the job's own, as `/dev/pts` has them.
    Terminals {
        /// Absolute directory that exists by then.
        destination: PathBuf,
    },
    /// Mounts an image, served by [`Draft::squashfuse`].
    Squashfs {
        /// Absolute path.
        source: PathBuf,
        /// Absolute directory that exists by then.
        destination: PathBuf,
    },
    /// Mounts a `/proc` that shows the job's own processes only. Where the kernel does not
    /// allow it (a container with a masked `/proc`), the old one stays.
    FreshProc {
        /// Whether a root without `/proc` is an error.
        required: bool,
    },
    /// Makes the new root read-only, but not what is mounted below it: what a job writes there
    /// would be lost unnoticed.
    SealRoot,
    /// Covers a directory with an empty, read-only one. A path that does not exist or is no
    /// directory is passed over.
    Hide {
        /// Absolute directory.
        path: PathBuf,
    },
}

impl Step {
    /// The paths inside that it is about.
    pub(super) fn places(&self) -> &[PathBuf] {
        match self {
            Self::MountView { destinations, .. } => destinations,
            Self::AttachView { destination }
            | Self::Bind { destination, .. }
            | Self::Tmpfs { destination }
            | Self::CreateDir { destination }
            | Self::CreateFile { destination }
            | Self::Symlink { destination, .. }
            | Self::Terminals { destination }
            | Self::Squashfs { destination, .. } => std::slice::from_ref(destination),
            Self::Hide { path } | Self::CoverAlias { path } => std::slice::from_ref(path),
            Self::FreshProc { .. } | Self::SealRoot => &[],
        }
    }

    /// The path outside that it takes.
    pub(super) fn source(&self) -> Option<&Path> {
        match self {
            Self::Bind { source, .. } | Self::Squashfs { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Where the job's standard input comes from. Output and error are always the client's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Stdin {
    /// The client's own.
    #[default]
    Inherit,
    /// The client's own, and while the client has that terminal in its foreground, the command has
    /// it instead: for shells that control jobs. Keys that stop or interrupt do not reach the client
    /// then, so this is not for commands that do not mind them.
    Terminal,
    /// A file opened read-only inside the sandbox; relative to the working directory.
    Open(PathBuf),
}

/// A plan before it was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// User and group.
    pub ids: Ids,
    /// Extra namespaces.
    pub namespaces: Namespaces,
    /// Set-up, in order.
    pub steps: Vec<Step>,
    /// The program that serves images; absolute.
    pub squashfuse: Option<PathBuf>,
    /// Resource limits of the command; others are the client's.
    pub limits: Vec<Limit>,
    /// Working directory of the command: absolute, as seen inside.
    pub cwd: PathBuf,
    /// Standard input of the command.
    pub stdin: Stdin,
    /// Program and arguments. A program without `/` is searched in `PATH` of `env`.
    pub argv: Vec<OsString>,
    /// The whole environment, as `NAME=value`; nothing is inherited.
    pub env: Vec<OsString>,
}

/// Why a draft cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// `argv` is empty or its first word is.
    #[error("there is no command to run")]
    NoCommand,
    /// A string that the kernel would cut short.
    #[error("{what} contains a NUL byte")]
    Nul {
        /// Which one, for a person: "argument 2".
        what: String,
    },
    /// A path that has to be absolute is not.
    #[error("{what} {path:?} is not an absolute path")]
    Relative {
        /// Which one, for a person: "destination".
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// A word of the environment without `=`.
    #[error("environment entry {index} ({entry:?}) has no '='")]
    NoEquals {
        /// Position in `env`, from 1.
        index: usize,
        /// The entry.
        entry: OsString,
    },
    /// A view that is mounted nowhere.
    #[error("the view has no destination")]
    NoDestination,
    /// More than one [`Step::MountView`]: a job has one superblock.
    #[error("the view is mounted by more than one step; attach it by the others")]
    ManyViews,
    /// A [`Step::AttachView`] before the [`Step::MountView`].
    #[error("the view is attached before it is mounted")]
    NoView,
    /// A file to create that has no name.
    #[error("{0:?} is no path of a file")]
    NoFile(PathBuf),
    /// An image without a program to serve it.
    #[error("an image is mounted, but there is no squashfuse to serve it")]
    NoSquashfuse,
}

/// A checked plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(Draft);

impl Plan {
    /// What was checked.
    pub fn contents(&self) -> &Draft {
        &self.0
    }

    /// Whether carrying the plan out needs the daemon.
    pub fn mounts_view(&self) -> bool {
        self.0
            .steps
            .iter()
            .any(|step| matches!(step, Step::MountView { .. }))
    }
}

impl Draft {
    /// Checks everything that can be checked without looking at the system.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn check(self) -> Result<Plan, PlanError> {
        check_argv(&self.argv)?;
        check_env(&self.env)?;
        check_path("working directory", &self.cwd)?;
        if let Stdin::Open(path) = &self.stdin {
            c_string("standard input", path.as_os_str())?;
        }
        check_names(&self.namespaces)?;
        check_steps(&self.steps)?;
        let image = |step: &Step| matches!(step, Step::Squashfs { .. });
        match &self.squashfuse {
            Some(program) => check_path("squashfuse", program)?,
            None if self.steps.iter().any(image) => return Err(PlanError::NoSquashfuse),
            None => {}
        }
        Ok(Plan(self))
    }
}

fn check_argv(argv: &[OsString]) -> Result<(), PlanError> {
    if argv.first().is_none_or(|program| program.is_empty()) {
        return Err(PlanError::NoCommand);
    }
    argument_strings(argv).map(drop)
}

fn check_env(env: &[OsString]) -> Result<(), PlanError> {
    for (entry, index) in env.iter().zip(1..) {
        if !entry.as_bytes().contains(&b'=') {
            return Err(PlanError::NoEquals {
                index,
                entry: entry.clone(),
            });
        }
    }
    environment_strings(env).map(drop)
}

fn check_steps(steps: &[Step]) -> Result<(), PlanError> {
    let mut views = 0;
    for step in steps {
        match step {
            Step::MountView { destinations, .. } if destinations.is_empty() => {
                return Err(PlanError::NoDestination);
            }
            Step::MountView { .. } => views += 1,
            Step::AttachView { .. } | Step::CoverAlias { .. } if views == 0 => {
                return Err(PlanError::NoView);
            }
            Step::CreateFile { destination } | Step::Symlink { destination, .. }
                if destination.file_name().is_none() =>
            {
                return Err(PlanError::NoFile(destination.clone()));
            }
            _ => {}
        }
        check_paths(step)?;
    }
    if views > 1 {
        Err(PlanError::ManyViews)
    } else {
        Ok(())
    }
}

fn check_paths(step: &Step) -> Result<(), PlanError> {
    let what = match step {
        Step::Hide { .. } => "hidden path",
        _ => "destination",
    };
    step.places()
        .iter()
        .try_for_each(|path| check_path(what, path))?;
    if let Step::Symlink { target, .. } = step {
        c_string("target", target.as_os_str())?;
    }
    step.source()
        .map_or(Ok(()), |path| check_path("source", path))
}

fn check_names(namespaces: &Namespaces) -> Result<(), PlanError> {
    let named = [
        ("host name", &namespaces.host_name),
        ("domain name", &namespaces.domain_name),
    ];
    for (what, name) in named {
        if let Some(name) = name {
            c_string(what, name)?;
        }
    }
    Ok(())
}

fn check_path(what: &'static str, path: &Path) -> Result<(), PlanError> {
    if !path.is_absolute() {
        return Err(PlanError::Relative {
            what,
            path: path.to_owned(),
        });
    }
    c_string(what, path.as_os_str()).map(drop)
}

/// The arguments as C strings.
pub(super) fn argument_strings(argv: &[OsString]) -> Result<Vec<CString>, PlanError> {
    numbered("argument", argv)
}

/// The environment as C strings.
pub(super) fn environment_strings(env: &[OsString]) -> Result<Vec<CString>, PlanError> {
    numbered("environment entry", env)
}

fn numbered(kind: &str, words: &[OsString]) -> Result<Vec<CString>, PlanError> {
    let strings = words.iter().zip(1..);
    strings
        .map(|(word, n)| c_string(&format!("{kind} {n}"), word))
        .collect()
}

/// One string for the kernel; `what` names it in the error.
pub(super) fn c_string(what: &str, value: &OsStr) -> Result<CString, PlanError> {
    CString::new(value.as_bytes()).map_err(|_nul| PlanError::Nul {
        what: what.to_owned(),
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
