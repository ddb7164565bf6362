//! A plan in the form the kernel takes: everything allocated before the clone.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::Serve;
use super::apply::{CStrings, Namespace};
use super::error::SandboxError;
use super::plan::{
    Draft, Ids, Namespaces, Plan, PlanError, Stdin, Step, argument_strings, c_string,
    environment_strings,
};

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
    FreshProc,
    Hide(CString),
}

/// The mount of the daemon's view.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) user_id: CString,
    pub(super) group_id: CString,
    pub(super) default_permissions: bool,
    pub(super) allow_other: bool,
    pub(super) destinations: Vec<CString>,
    pub(super) serve: Serve<'a>,
}

/// The job's main process.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) cwd: CString,
    pub(super) stdin: Option<CString>,
    /// Files to try, in order.
    pub(super) candidates: Vec<CString>,
    /// Whether the candidates come from `PATH`, so that what cannot be run is passed over.
    pub(super) searched: bool,
    pub(super) argv: CStrings,
    pub(super) env: CStrings,
}

/// Everything the child needs.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    pub(super) maps: IdMaps,
    pub(super) lock_maps: IdMaps,
    pub(super) actions: Vec<Action<'a>>,
    pub(super) command: Command,
    pub(super) serve: Option<Serve<'a>>,
    namespaces: Namespaces,
}

impl<'a> Prepared<'a> {
    /// Allocates all that carrying the plan out takes.
    ///
    /// # Errors
    /// A view to mount without a daemon to serve it.
    pub(crate) fn new(plan: &Plan, serve: Option<Serve<'a>>) -> Result<Self, SandboxError> {
        let draft = plan.contents();
        let ids = draft.ids;
        let actions = draft.steps.iter().map(|step| action(step, ids, serve));
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
            namespaces: draft.namespaces,
        })
    }

    /// The namespaces that the first process of the sandbox is cloned into.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = Namespace> + use<> {
        let Namespaces { host_name, network } = self.namespaces;
        let always = [Namespace::User, Namespace::Mount, Namespace::Pid].into_iter();
        let extra = [
            (host_name, Namespace::HostName),
            (network, Namespace::Network),
        ]
        .into_iter();
        always.chain(extra.filter_map(|(wanted, namespace)| wanted.then_some(namespace)))
    }
}

fn id_maps(uid: u32, outside_uid: u32, gid: u32, outside_gid: u32) -> IdMaps {
    let line = |inside, outside| format!("{inside} {outside} 1\n").into_bytes();
    IdMaps {
        user: line(uid, outside_uid),
        group: line(gid, outside_gid),
    }
}

fn action<'a>(step: &Step, ids: Ids, serve: Option<Serve<'a>>) -> Result<Action<'a>, SandboxError> {
    Ok(match step {
        Step::MountView {
            destinations,
            default_permissions,
            allow_other,
        } => Action::MountView(View {
            user_id: c_string("user id", ids.inside_uid.to_string().as_ref())?,
            group_id: c_string("group id", ids.inside_gid.to_string().as_ref())?,
            default_permissions: *default_permissions,
            allow_other: *allow_other,
            destinations: paths(destinations)?,
            serve: serve.ok_or(SandboxError::NoDaemon)?,
        }),
        Step::FreshProc => Action::FreshProc,
        Step::Hide { path } => Action::Hide(c_string("hidden path", path.as_os_str())?),
    })
}

fn paths(paths: &[PathBuf]) -> Result<Vec<CString>, PlanError> {
    paths
        .iter()
        .map(|path| c_string("destination", path.as_os_str()))
        .collect()
}

fn command(draft: &Draft) -> Result<Command, PlanError> {
    let program = draft.argv.first().ok_or(PlanError::NoCommand)?;
    let searched = !program.as_bytes().contains(&b'/');
    let stdin = match &draft.stdin {
        Stdin::Inherit => None,
        Stdin::Open(path) => Some(c_string("standard input", path.as_os_str())?),
    };
    Ok(Command {
        cwd: c_string("working directory", draft.cwd.as_os_str())?,
        stdin,
        candidates: candidates(program, searched, &draft.env)?,
        searched,
        argv: CStrings::new(argument_strings(&draft.argv)?),
        env: CStrings::new(environment_strings(&draft.env)?),
    })
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
