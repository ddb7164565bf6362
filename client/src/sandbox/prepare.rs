//! A plan in the form the kernel takes: everything allocated before the clone.

use std::cell::Cell;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::process::Pid;

use super::apply::{CStrings, Namespace};
use super::error::SandboxError;
use super::plan::{
    Draft, Limit, Plan, PlanError, Stdin, Step, argument_strings, c_string, environment_strings,
};
use super::terminal::Terminal;
use super::{Serve, calls};

/// What execvp(3) of glibc used to search when there is no `PATH`, and the original still does.
const DEFAULT_PATH: &str = ".:/bin:/usr/bin";

/// The contents of `/proc/self/uid_map` and `gid_map` for one namespace.
#[derive(Debug)]
pub(super) struct IdMaps {
    pub(super) user: Vec<u8>,
    pub(super) group: Vec<u8>,
}

/// A step, ready to be carried out.
#[derive(Debug)]
pub(super) enum Action<'a> {
    MountView(View<'a>),
    AttachView(Target),
    CoverAlias(Target),
    Bind(Bind),
    Tmpfs(Target),
    CreateDir(Vec<Entry>),
    CreateFile(Entry),
    Symlink { target: CString, entry: Entry },
    Terminals(Target),
    Squashfs(Image),
    FreshProc { required: bool },
    SealRoot,
    Hide(CString),
}

impl Action<'_> {
    /// Whether it mounts something that is the root from then on.
    pub(super) fn begins_root(&self) -> bool {
        match self {
            Self::MountView(view) => view.destinations.iter().any(|target| target.is_root),
            Self::AttachView(target) | Self::Tmpfs(target) => target.is_root,
            Self::Bind(bind) => bind.target.is_root,
            Self::Squashfs(image) => image.target.is_root,
            _ => false,
        }
    }
}

/// The mount of a copy.
pub(super) struct Bind {
    pub(super) source: CString,
    pub(super) target: Target,
    pub(super) read_only: bool,
    /// The copy, if it was made before its turn.
    pub(super) early: Cell<Option<OwnedFd>>,
}

impl fmt::Debug for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &mut f.debug_struct("Bind");
        shown.field("source", &self.source);
        shown.field("target", &self.target).finish_non_exhaustive()
    }
}

/// Where something is mounted.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) path: CString,
    /// It is the new root.
    pub(super) is_root: bool,
}

/// Something that is to be created.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) parent: CString,
    pub(super) name: CString,
    pub(super) path: CString,
}

/// The mount of an image.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) user_id: CString,
    pub(super) group_id: CString,
    pub(super) program: CString,
    pub(super) argv: CStrings,
    pub(super) env: CStrings,
    pub(super) target: Target,
    /// Known once it is served.
    pub(super) served_by: Cell<Option<Pid>>,
}

/// The mount of the daemon's view.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) user_id: CString,
    pub(super) group_id: CString,
    pub(super) default_permissions: bool,
    pub(super) allow_other: bool,
    pub(super) destinations: Vec<Target>,
    pub(super) serve: Serve<'a>,
}

/// The job's main process.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) cwd: CString,
    pub(super) stdin: Option<CString>,
    /// Whether it gets the terminal.
    pub(super) foreground: bool,
    pub(super) limits: Vec<Limit>,
    /// Whether it leaves the client's process group for one of its own.
    pub(super) own_group: bool,
    /// Files to try, in order.
    pub(super) candidates: Vec<CString>,
    /// Whether the candidates come from `PATH`, so that what cannot be run is passed over.
    pub(super) searched: bool,
    pub(super) argv: CStrings,
    pub(super) env: CStrings,
    /// The filter that refuses them.
    pub(super) refused: Vec<libc::sock_filter>,
}

/// Everything the child needs.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    pub(super) maps: IdMaps,
    pub(super) lock_maps: IdMaps,
    pub(super) actions: Vec<Action<'a>>,
    pub(super) command: Command,
    pub(super) serve: Option<Serve<'a>>,
    pub(super) host_name: Option<CString>,
    pub(super) domain_name: Option<CString>,
    pub(super) network: bool,
    /// In decimal.
    pub(super) last_pid: Option<Vec<u8>>,
    ipc: bool,
    /// Whether what is not of processes in a `/proc` has to be kept from writes.
    pub(super) guards_proc: bool,
}

impl<'a> Prepared<'a> {
    /// Whether signals to the client's process group have to be passed on to the command.
    pub(crate) fn has_own_group(&self) -> bool {
        self.command.own_group
    }

    /// Allocates all that carrying the plan out takes.
    ///
    /// # Errors
    /// A view to mount without a daemon to serve it.
    pub(crate) fn new(plan: &Plan, serve: Option<Serve<'a>>) -> Result<Self, SandboxError> {
        let draft = plan.contents();
        let ids = draft.ids;
        let actions = draft.steps.iter().map(|step| action(step, draft, serve));
        let name = |what, name: &Option<OsString>| {
            let name = name.as_deref();
            name.map(|name| c_string(what, name)).transpose()
        };
        Ok(Self {
            maps: id_maps(
                ids.inside_uid,
                ids.outside_uid,
                ids.inside_gid,
                ids.outside_gid,
            ),
            lock_maps: id_maps(
                ids.inside_uid,
                ids.inside_uid,
                ids.inside_gid,
                ids.inside_gid,
            ),
            actions: actions.collect::<Result<_, _>>()?,
            command: command(draft)?,
            // Without a view the socket would stay open in the sandbox until the job's end.
            serve: serve.filter(|_| plan.mounts_view()),
            host_name: name("host name", &draft.namespaces.host_name)?,
            domain_name: name("domain name", &draft.namespaces.domain_name)?,
            network: draft.namespaces.network,
            last_pid: draft
                .namespaces
                .last_pid
                .map(|pid| pid.to_string().into_bytes()),
            ipc: draft.namespaces.ipc,
            guards_proc: is_global_root(ids.outside_uid),
        })
    }

    /// The namespaces that the first process of the sandbox is cloned into.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = Namespace> + use<> {
        let host_name = self.host_name.is_some() || self.domain_name.is_some();
        let always = [Namespace::User, Namespace::Mount, Namespace::Pid].into_iter();
        let extra = [
            (host_name, Namespace::HostName),
            (self.network, Namespace::Network),
            (self.ipc, Namespace::Ipc),
        ]
        .into_iter();
        always.chain(extra.filter_map(|(wanted, namespace)| wanted.then_some(namespace)))
    }
}

/// Whether a user may be root of the whole machine, who owns what is in `/proc` and needs no
/// capability to write there: `test_perm` of fs/proc/proc_sysctl.c compares the user only. Inside a
/// user namespace of somebody else's, the map says who it is outside.
fn is_global_root(user: u32) -> bool {
    let map = || std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let maps_root = |line: &str| line.split_whitespace().take(2).eq(["0", "0"]);
    user == 0 && map().lines().any(maps_root)
}

fn id_maps(uid: u32, outside_uid: u32, gid: u32, outside_gid: u32) -> IdMaps {
    let line = |inside, outside| format!("{inside} {outside} 1\n").into_bytes();
    IdMaps {
        user: line(uid, outside_uid),
        group: line(gid, outside_gid),
    }
}

fn action<'a>(
    step: &Step,
    draft: &Draft,
    serve: Option<Serve<'a>>,
) -> Result<Action<'a>, SandboxError> {
    Ok(match step {
        Step::MountView {
            destinations,
            default_permissions,
            allow_other,
        } => Action::MountView(View {
            user_id: number(draft.ids.inside_uid)?,
            group_id: number(draft.ids.inside_gid)?,
            default_permissions: *default_permissions,
            allow_other: *allow_other,
            destinations: destinations
                .iter()
                .map(|path| target(path))
                .collect::<Result<_, _>>()?,
            serve: serve.ok_or(SandboxError::NoDaemon)?,
        }),
        Step::AttachView { destination } => Action::AttachView(target(destination)?),
        Step::CoverAlias { path } => Action::CoverAlias(target(path)?),
        Step::Bind {
            source,
            destination,
            read_only,
        } => Action::Bind(Bind {
            source: c_string("source", source.as_os_str())?,
            target: target(destination)?,
            read_only: *read_only,
            early: Cell::new(None),
        }),
        Step::Tmpfs { destination } => Action::Tmpfs(target(destination)?),
        Step::CreateDir { destination } => Action::CreateDir(entries(destination)?),
        Step::CreateFile { destination } => Action::CreateFile(file_entry(destination)?),
        Step::Symlink {
            target,
            destination,
        } => Action::Symlink {
            target: c_string("target", target.as_os_str())?,
            entry: file_entry(destination)?,
        },
        Step::Terminals { destination } => Action::Terminals(target(destination)?),
        Step::Squashfs {
            source,
            destination,
        } => Action::Squashfs(image(source, destination, draft)?),
        Step::FreshProc { required } => Action::FreshProc {
            required: *required,
        },
        Step::SealRoot => Action::SealRoot,
        Step::Hide { path } => Action::Hide(c_string("hidden path", path.as_os_str())?),
    })
}

fn target(path: &Path) -> Result<Target, PlanError> {
    Ok(Target {
        path: c_string("destination", path.as_os_str())?,
        is_root: path.as_os_str() == "/",
    })
}

/// A directory and those above it, the uppermost first.
fn entries(path: &Path) -> Result<Vec<Entry>, PlanError> {
    let above = path.ancestors().collect::<Vec<_>>().into_iter().rev();
    above.filter_map(|path| entry(path).transpose()).collect()
}

fn file_entry(path: &Path) -> Result<Entry, PlanError> {
    entry(path)?.ok_or_else(|| PlanError::NoFile(path.into()))
}

/// `None` for the root, and for `..`, which need not be created.
fn entry(path: &Path) -> Result<Option<Entry>, PlanError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(None);
    };
    let string = |part: &OsStr| c_string("destination", part);
    Ok(Some(Entry {
        parent: string(parent.as_os_str())?,
        name: string(name)?,
        path: string(path.as_os_str())?,
    }))
}

fn number(id: u32) -> Result<CString, PlanError> {
    c_string("id", id.to_string().as_ref())
}

/// In the foreground, with the device as standard input.
fn image(source: &Path, destination: &Path, draft: &Draft) -> Result<Image, PlanError> {
    let program = draft.squashfuse.as_deref();
    let program = program.ok_or(PlanError::NoSquashfuse)?.as_os_str();
    let words = ["-f".as_ref(), source.as_os_str(), "/dev/fd/0".as_ref()];
    let argv: Vec<OsString> = [program].into_iter().chain(words).map(Into::into).collect();
    Ok(Image {
        user_id: number(draft.ids.inside_uid)?,
        group_id: number(draft.ids.inside_gid)?,
        program: c_string("squashfuse", program)?,
        argv: CStrings::new(argument_strings(&argv)?),
        env: CStrings::new(Vec::new()),
        target: target(destination)?,
        served_by: Cell::new(None),
    })
}

fn command(draft: &Draft) -> Result<Command, PlanError> {
    let program = draft.argv.first().ok_or(PlanError::NoCommand)?;
    let searched = !program.as_bytes().contains(&b'/');
    let stdin = match &draft.stdin {
        Stdin::Inherit | Stdin::Terminal => None,
        Stdin::Open(path) => Some(c_string("standard input", path.as_os_str())?),
    };
    let foreground = draft.stdin == Stdin::Terminal && Terminal::of_client().is_some();
    Ok(Command {
        cwd: c_string("working directory", draft.cwd.as_os_str())?,
        stdin,
        foreground,
        candidates: candidates(program, searched, &draft.env)?,
        searched,
        limits: draft.limits.clone(),
        own_group: foreground || !reads_terminal(&draft.stdin),
        argv: CStrings::new(argument_strings(&draft.argv)?),
        env: CStrings::new(environment_strings(&draft.env)?),
        refused: calls::refused(),
    })
}

/// Whether the command may read from a terminal. Then, unless it is given the terminal, it has to
/// stay in the group that the terminal listens to; any other group is stopped when it reads.
///
/// Otherwise it gets a group of its own, because a process group reaches across PID namespaces:
/// `kill 0`, common in traps, would take the client and whoever else is in its group, such as make.
fn reads_terminal(stdin: &Stdin) -> bool {
    matches!(stdin, Stdin::Inherit | Stdin::Terminal)
        && rustix::termios::isatty(rustix::stdio::stdin())
}

fn candidates(
    program: &OsStr,
    searched: bool,
    env: &[OsString],
) -> Result<Vec<CString>, PlanError> {
    if !searched {
        return Ok(vec![c_string("argument 1", program)?]);
    }
    let directories = search_path(env).split(|byte| *byte == b':');
    directories
        .filter(|directory| !directory.is_empty())
        .map(|directory| [directory, program.as_bytes()].join(&b'/'))
        .map(|path| c_string("PATH", &OsString::from_vec(path)))
        .collect()
}

/// The first `PATH` counts, as in getenv(3).
fn search_path(env: &[OsString]) -> &[u8] {
    env.iter()
        .find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="))
        .unwrap_or(DEFAULT_PATH.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(program: &str, env: &[&str]) -> Vec<String> {
        let env: Vec<OsString> = env.iter().map(OsString::from).collect();
        let searched = !program.contains('/');
        let list = candidates(program.as_ref(), searched, &env).unwrap();
        list.into_iter()
            .map(|path| path.into_string().unwrap())
            .collect()
    }

    #[test]
    fn programs_are_searched_in_the_given_path_only() {
        assert_eq!(found("x", &["PATH=/a::b/:", "PATH=/c"]), ["/a/x", "b//x"]);
        assert_eq!(found("x", &["XPATH=/a"]), ["./x", "/bin/x", "/usr/bin/x"]);
        assert_eq!(found("./x", &["PATH=/a"]), ["./x"]);
        assert!(found("x", &["PATH="]).is_empty());
    }

    #[test]
    fn maps_are_one_line() {
        let maps = id_maps(1000, 0, 100, 5);
        assert_eq!(
            (maps.user, maps.group),
            (b"1000 0 1\n".to_vec(), b"100 5 1\n".to_vec())
        );
    }
}
