//! Why a job could not be run, in the words of the client.

use std::io;
use std::path::{Path, PathBuf};

use super::plan::{Draft, PlanError, Stdin, Step};
use super::report::{Failure, Stage, Words};

/// Why a job could not be run to its end. None of these is the job's own failure.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A string of the plan is not one for the kernel.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The plan mounts a view and there is nobody to serve it.
    #[error("the plan mounts a view, but no daemon is there to serve it")]
    NoDaemon,
    /// The client's own part failed: "cannot make a pipe".
    #[error("{what}: {source}")]
    Client {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A step inside the sandbox failed: "cannot mount the view at /x".
    #[error("{what}: {source}")]
    SetUp {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The daemon does not serve this view, and says why.
    #[error("the daemon refuses to serve the job: {reason}")]
    Refused {
        /// The daemon's words.
        reason: String,
    },
    /// An image is not served (any more). All processes of the job are dead.
    #[error("{0}")]
    Image(String),
    /// The daemon hung up while the job needed it. All processes of the job are dead.
    #[error("the daemon is gone; the job was killed")]
    DaemonGone,
    /// The first process of the sandbox ended without a word.
    #[error(
        "the first process of the sandbox was lost (wait status {status:#x}); is there enough memory?"
    )]
    Lost {
        /// As of wait(2).
        status: i32,
    },
}

impl SandboxError {
    /// What a failure inside means, given what was planned.
    pub(crate) fn from_failure(failure: Failure, words: Words, plan: &Draft) -> Self {
        match failure.stage {
            Stage::DaemonGone => Self::DaemonGone,
            Stage::Refused => Self::Refused {
                reason: words.to_text(),
            },
            Stage::ImageNotServed => Self::Image(image(failure, plan)),
            _ => Self::SetUp {
                what: what(failure, plan),
                source: io::Error::from_raw_os_error(failure.errno),
            },
        }
    }
}

fn what(failure: Failure, plan: &Draft) -> String {
    let path = path_of(failure, plan).display().to_string();
    match failure.stage {
        Stage::OpenFuse => open_fuse(failure.errno),
        Stage::MountPoint | Stage::Attach => attach(failure, plan, &path),
        Stage::BindSource | Stage::ReadOnly => bind(failure, plan),
        Stage::FreshProc if failure.errno == libc::ENOENT => {
            "isolate-pids needs a directory /proc in the new root".into()
        }
        Stage::CreateDir => format!("cannot create directory {path}"),
        Stage::CreateFile => format!("cannot create file {path}"),
        Stage::CreateSymlink => format!("cannot create link {path}"),
        Stage::SetLimit => set_limit(failure, plan),
        Stage::Hide => format!("cannot hide {path}"),
        Stage::ChangeDirectory => format!("cannot change to directory {path}"),
        Stage::OpenStdin => format!("cannot open {path} as standard input"),
        stage => fixed(stage).to_owned(),
    }
}

fn attach(failure: Failure, plan: &Draft, place: &str) -> String {
    let missing = match (failure.stage, failure.errno) {
        (Stage::MountPoint, libc::ENOENT) => " (create-dir or create-file makes one)",
        (Stage::Attach, libc::ENOTDIR) => " (one is a directory, the other is not)",
        _ => "",
    };
    match plan.steps.get(failure.step) {
        Some(Step::Bind { source, .. } | Step::Squashfs { source, .. }) => {
            format!("cannot mount {} at {place}{missing}", source.display())
        }
        Some(Step::Tmpfs { .. }) => format!("cannot mount a tmpfs at {place}{missing}"),
        _ => format!("cannot mount the view at {place}"),
    }
}

fn source_of(failure: Failure, plan: &Draft) -> String {
    let source = plan.steps.get(failure.step).and_then(Step::source);
    source.unwrap_or(Path::new("/")).display().to_string()
}

fn bind(failure: Failure, plan: &Draft) -> String {
    let source = source_of(failure, plan);
    match failure.stage {
        Stage::ReadOnly => format!("cannot make the mount of {source} read-only"),
        _ => format!("cannot mount {source}"),
    }
}

fn image(failure: Failure, plan: &Draft) -> String {
    let program = plan
        .squashfuse
        .as_deref()
        .unwrap_or(Path::new("squashfuse"));
    let (source, program) = (source_of(failure, plan), program.display());
    match failure.errno {
        0 => format!("{program} stopped serving {source}; the job was killed"),
        code => format!(
            "{program} does not serve {source} (exit code {code}); is it a squashfs image, and squashfuse built with libfuse 3?"
        ),
    }
}

fn set_limit(failure: Failure, plan: &Draft) -> String {
    let limit = plan.limits.get(failure.item);
    let limit = limit.map_or_else(String::new, |limit| limit.describe());
    let reason = match failure.errno {
        libc::EPERM => ", more than the client's own hard limit",
        _ => "",
    };
    format!("cannot set the limit {limit}{reason}")
}

fn open_fuse(errno: i32) -> String {
    let reason = match errno {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => {
            ": the fuse kernel module or the device node is missing"
        }
        libc::EACCES | libc::EPERM => ": this user or container may not use the device",
        _ => "",
    };
    format!("cannot open /dev/fuse{reason}")
}

/// The path that a failure is about; the root for those that are about none.
fn path_of(failure: Failure, plan: &Draft) -> PathBuf {
    let found = match (failure.stage, plan.steps.get(failure.step)) {
        (Stage::ChangeDirectory, _) => Some(plan.cwd.as_path()),
        (Stage::OpenStdin, _) => stdin_path(&plan.stdin),
        (_, step) => step
            .and_then(|step| step.places().get(failure.item))
            .map(PathBuf::as_path),
    };
    found.unwrap_or(Path::new("/")).to_owned()
}

fn stdin_path(stdin: &Stdin) -> Option<&Path> {
    match stdin {
        Stdin::Open(path) => Some(path),
        Stdin::Inherit | Stdin::Terminal => None,
    }
}

fn fixed(stage: Stage) -> &'static str {
    match stage {
        Stage::DieWithClient => "cannot tie the sandbox to its client",
        Stage::ClientGone => "the client ended before its sandbox began",
        Stage::OwnProc => "cannot open /proc/self",
        Stage::DenySetgroups => "cannot deny setgroups in the user namespace",
        Stage::MapUser => "cannot map the user id",
        Stage::MapGroup => "cannot map the group id",
        Stage::PrivateMounts => "cannot make the mounts private",
        Stage::OpenFuse => "cannot open /dev/fuse",
        Stage::FuseContext => "cannot begin a fuse mount",
        Stage::FuseOption => "cannot set an option of the fuse mount",
        Stage::FuseCreate => "cannot make the fuse file system",
        Stage::FuseMount => "cannot make the fuse mount",
        Stage::SendView => "cannot hand the view to the daemon",
        Stage::AwaitDaemon => "cannot hear from the daemon",
        Stage::DaemonGone => "the daemon is gone",
        Stage::Refused => "the daemon refuses",
        Stage::Attach => "cannot mount the view",
        Stage::MountPoint => "cannot find the mount point",
        Stage::BindSource => "cannot mount the source",
        Stage::ReadOnly => "cannot make a mount read-only",
        Stage::MakeTmpfs => "cannot make a tmpfs",
        Stage::CreateDir => "cannot create a directory",
        Stage::CreateFile => "cannot create a file",
        Stage::CreateSymlink => "cannot create a link",
        Stage::Terminals => "cannot make terminals in /dev/pts",
        Stage::GuardProc => "cannot make /proc/sys and its like read-only",
        Stage::ImageNotServed => "the image is not served",
        Stage::Loopback => "cannot raise the loopback device",
        Stage::EnterRoot => "cannot make the new root the only one",
        Stage::SetLimit => "cannot set a limit",
        Stage::FreshProc => "cannot mount /proc",
        Stage::Hide => "cannot hide a directory",
        Stage::Lock => "cannot lock the mounts in a second user namespace",
        Stage::LeaveDirectory => "cannot change to directory /",
        Stage::ProtectInit => "cannot protect the first process of the sandbox",
        Stage::Fork => "cannot fork the command",
        Stage::DropCapabilities => "cannot drop capabilities",
        Stage::OwnGroup => "cannot make a process group of its own",
        Stage::NoNewPrivileges => "cannot give up new privileges",
        Stage::RefuseCalls => "cannot set a filter for system calls",
        Stage::ChangeDirectory => "cannot change the directory",
        Stage::OpenStdin => "cannot open standard input",
        Stage::MarkDescriptors => "cannot close inherited descriptors",
        Stage::WatchChildren => "cannot watch the command",
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Ids, Namespaces};
    use super::*;

    fn plan() -> Draft {
        Draft {
            ids: Ids {
                inside_uid: 0,
                inside_gid: 0,
                outside_uid: 1,
                outside_gid: 1,
            },
            namespaces: Namespaces::default(),
            steps: vec![
                Step::Hide { path: "/h".into() },
                Step::MountView {
                    destinations: vec!["/x".into(), "/y".into()],
                    default_permissions: false,
                    allow_other: false,
                },
            ],
            squashfuse: None,
            limits: vec![],
            cwd: "/w".into(),
            stdin: Stdin::Open("in".into()),
            argv: vec!["true".into()],
            env: vec![],
        }
    }

    fn message(stage: Stage, step: usize, item: usize, errno: i32) -> String {
        let failure = Failure {
            stage,
            step,
            item,
            errno,
        };
        SandboxError::from_failure(failure, Words::from_start_of(b"busy"), &plan()).to_string()
    }

    #[test]
    fn messages_name_what_they_are_about() {
        let denied = "Permission denied (os error 13)";
        let told = |stage, step, item| message(stage, step, item, libc::EACCES);
        assert_eq!(
            told(Stage::Attach, 1, 1),
            format!("cannot mount the view at /y: {denied}")
        );
        assert_eq!(told(Stage::Hide, 0, 0), format!("cannot hide /h: {denied}"));
        assert_eq!(
            told(Stage::ChangeDirectory, 0, 0),
            format!("cannot change to directory /w: {denied}")
        );
        assert_eq!(
            told(Stage::OpenStdin, 0, 0),
            format!("cannot open in as standard input: {denied}")
        );
        assert_eq!(
            told(Stage::Refused, 1, 0),
            "the daemon refuses to serve the job: busy"
        );
    }

    #[test]
    fn a_missing_fuse_is_told_as_such() {
        let text = message(Stage::OpenFuse, 1, 0, libc::ENOENT);
        assert!(text.starts_with("cannot open /dev/fuse: the fuse kernel module or the device"));
        assert!(
            text.ends_with("No such file or directory (os error 2)"),
            "{text}"
        );
    }
}
