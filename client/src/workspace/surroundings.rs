//! What a job of `wakebox run` has around its view: the sandbox's root and its environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::cli::{Environment, OpeningArguments, RunArguments};
use crate::error::{Error, Result, say};
use crate::exec::{Ended, Status};
use crate::exit_code;
use crate::hermetic::{self, Bind, Opening};
use crate::mount_ops::{Compiled, MountOp, compile};
use crate::result::Isolation;
use crate::run;
use crate::sandbox::plan::Namespaces;

/// What of the caller's environment a job gets that has the host around it.
const PASSED: [&str; 5] = ["PATH", "HOME", "LANG", "TERM", "TZ"];
/// What is left of that in a sandbox.
const PASSED_INSIDE: [&str; 2] = ["PATH", "LANG"];

/// What a job has around its view.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// Of what the host shows, if not all.
    opening: Option<Opening>,
    /// What is mounted.
    pub(super) mounts: Compiled,
    /// The whole environment.
    pub(super) environment: BTreeMap<OsString, OsString>,
}

impl Surroundings {
    /// As the caller wants them.
    ///
    /// # Errors
    /// What cannot be shown; an environment that makes no sense.
    pub(super) fn new(
        arguments: &RunArguments,
        environment: &Environment,
        workspace: &Path,
    ) -> Result<Self> {
        let asked = &arguments.opening;
        let opening = (!asked.host)
            .then(|| opening(asked, workspace))
            .transpose()?;
        let environment = chosen(&arguments.env, environment, opening.is_some())?;
        let mounts = mounts(opening.as_ref(), workspace)?;
        Ok(Self {
            opening,
            mounts,
            environment,
        })
    }

    /// How far the job is kept from the host.
    pub(super) fn isolation(&self) -> Isolation {
        match self.opening {
            Some(_) => Isolation::Hermetic,
            None => Isolation::Host,
        }
    }

    /// Namespaces that not every job has.
    pub(super) fn namespaces(&self) -> Namespaces {
        let opening = self.opening.as_ref();
        Namespaces {
            network: opening.is_some_and(|opening| !opening.network),
            ipc: opening.is_some(),
            ..Namespaces::default()
        }
    }

    /// Says why a command was not run, and what it could not see.
    pub(super) fn explain(&self, ended: &Ended, command: &OsStr) {
        let line = match (&self.opening, ended.status) {
            (Some(opening), Status::NotFound) => {
                let path = self.environment.get(OsStr::new("PATH"));
                Some(hermetic::not_found(
                    command,
                    path.map(OsString::as_os_str),
                    opening,
                ))
            }
            // As a shell has it that did not find a command.
            (Some(opening), Status::Exited(exit_code::NOT_FOUND)) => {
                Some(hermetic::visible(opening))
            }
            _ => run::explain(ended, command),
        };
        line.into_iter().for_each(say);
    }

    /// The environment, as the job gets it.
    pub(super) fn entries(&self) -> Vec<OsString> {
        entries(&self.environment)
    }
}

/// The environment of a job that has the host around it: what every such job gets of the caller's,
/// and what `--env` says.
///
/// # Errors
/// A setting without a name.
pub(crate) fn variables(settings: &[OsString], environment: &Environment) -> Result<Vec<OsString>> {
    Ok(entries(&chosen(settings, environment, false)?))
}

fn entries(variables: &BTreeMap<OsString, OsString>) -> Vec<OsString> {
    let join = |(name, value): (&OsString, &OsString)| {
        OsString::from_vec([name.as_bytes(), b"=", value.as_bytes()].concat())
    };
    variables.iter().map(join).collect()
}

fn mounts(opening: Option<&Opening>, workspace: &Path) -> Result<Compiled> {
    let view = MountOp::Workspace {
        destination: workspace.into(),
    };
    match opening {
        Some(opening) => hermetic::mounts(workspace, opening),
        None => compile(&[view], workspace).map_err(Error::Usage),
    }
}

fn opening(asked: &OpeningArguments, here: &Path) -> Result<Opening> {
    let parse = |read_only| move |text: &OsString| Bind::parse(text, here, read_only);
    let read = asked.binds.iter().map(parse(true));
    let write = asked.rw_binds.iter().map(parse(false));
    let tmpfs = asked.tmpfs.iter();
    let terminal = rustix::termios::ttyname(rustix::stdio::stdin(), Vec::new()).ok();
    Ok(Opening {
        network: asked.network,
        binds: read.chain(write).collect::<Result<_>>()?,
        tmpfs: tmpfs
            .map(|place| hermetic::absolute(here, place.as_ref()))
            .collect::<Result<_>>()?,
        terminal: terminal.map(|name| OsString::from_vec(name.into_bytes()).into()),
    })
}

fn chosen(
    settings: &[OsString],
    environment: &Environment,
    inside: bool,
) -> Result<BTreeMap<OsString, OsString>> {
    let passed: &[&str] = if inside { &PASSED_INSIDE } else { &PASSED };
    let value = |name: &OsStr| environment.variables.get(name).cloned();
    let passed = passed.iter().map(OsStr::new);
    let mut variables: BTreeMap<OsString, OsString> = passed
        .filter_map(|name| Some((name.into(), value(name)?)))
        .collect();
    if inside {
        variables.insert("HOME".into(), hermetic::HOME.into());
    }
    for setting in settings {
        let bytes = setting.as_bytes();
        let (name, value) = match bytes.iter().position(|&byte| byte == b'=') {
            Some(0) => return Err(Error::Usage(format!("--env {setting:?} has no name"))),
            Some(at) => (
                OsStr::from_bytes(&bytes[..at]),
                Some(OsStr::from_bytes(&bytes[at + 1..]).to_owned()),
            ),
            None => (setting.as_os_str(), value(setting)),
        };
        variables.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(variables)
}
