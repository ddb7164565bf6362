//! What a job of `wakebox run` sees of the host: its programs, and nothing else. A root of its own
//! that holds the system's directories, read-only, the few devices that programs take for granted,
//! empty directories for temporary files and a home, and the workspace at the path it has outside.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::mount_ops::Compiled;
use crate::sandbox::plan::Step;

/// The job's home: empty, and its own.
pub const HOME: &str = "/home/job";

/// Directories that make up the system, as far as they exist. Of package managers no more than what
/// they have installed: beside it are the sockets of their daemons.
const SYSTEM: [&str; 11] = [
    "/bin",
    "/etc",
    "/gnu/store",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/opt",
    "/sbin",
    "/usr",
];
/// Devices that any user of any machine may use. By the last one a job can sandbox in its turn.
const DEVICES: [&str; 7] = ["full", "null", "random", "tty", "urandom", "zero", "fuse"];
/// What programs expect beside them.
const LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/var/tmp", "../tmp"),
];
/// Empty file systems.
const EMPTY: [&str; 3] = ["/dev/shm", "/home", "/tmp"];
/// Where the caller's terminal is inside, as in containers: `/dev/pts` is the job's own.
const CONSOLE: &str = "/dev/console";

/// What else of the host a job is shown.
#[derive(Debug, Default)]
pub struct Opening {
    /// Whether it has the host's network.
    pub network: bool,
    /// Files and directories.
    pub binds: Vec<Bind>,
    /// Empty file systems in memory.
    pub tmpfs: Vec<PathBuf>,
    /// The terminal that it may read from.
    pub terminal: Option<PathBuf>,
}

/// A file or directory of the host that a job is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// What.
    pub source: PathBuf,
    /// Where.
    pub destination: PathBuf,
    /// Whether the job cannot change it.
    pub read_only: bool,
}

impl Bind {
    /// Reads `SOURCE[:DESTINATION]`; both may be relative to `here`. Without a destination it has
    /// the path that it has outside.
    ///
    /// # Errors
    /// A source that is not there; an empty path.
    pub fn parse(text: &OsStr, here: &Path, read_only: bool) -> Result<Self> {
        let mut parts = text.as_bytes().splitn(2, |&byte| byte == b':');
        let mut part = || {
            parts
                .next()
                .map(|part| PathBuf::from(OsString::from_vec(part.into())))
        };
        let source = part().unwrap_or_default();
        let place = part().unwrap_or_else(|| source.clone());
        if source.as_os_str().is_empty() || place.as_os_str().is_empty() {
            let text = text.display();
            return Err(Error::Usage(format!("'{text}' is no SOURCE[:DESTINATION]")));
        }
        let found = here.join(&source).canonicalize();
        Ok(Self {
            source: found.map_err(|error| Error::io("show the job", &source, error))?,
            destination: absolute(here, &place)?,
            read_only,
        })
    }
}

/// Makes a path absolute. `..` would mean something else inside.
///
/// # Errors
/// A path with `..`.
pub fn absolute(here: &Path, path: &Path) -> Result<PathBuf> {
    if path.components().any(|part| part.as_os_str() == "..") {
        let path = path.display();
        return Err(Error::Usage(format!(
            "a place in the sandbox has no '..': {path}"
        )));
    }
    Ok(here.join(path).components().collect())
}

/// The mounts of a job with this workspace.
///
/// # Errors
/// A workspace that would cover what every job needs.
pub fn mounts(workspace: &Path, opening: &Opening) -> Result<Compiled> {
    check(workspace)?;
    let mut steps = vec![tmpfs("/".into())];
    SYSTEM
        .iter()
        .for_each(|path| system(path.as_ref(), &mut steps));
    for path in EMPTY {
        steps.extend([directory(path.into()), tmpfs(path.into())]);
    }
    steps.extend(["/proc", "/var", HOME].map(|path| directory(path.into())));
    devices(opening.terminal.as_deref(), &mut steps);
    names(opening.network, &mut steps);
    // What lies above the workspace goes under it, everything else over it.
    let (above, rest) = opened(opening, workspace)?;
    steps.extend(above);
    steps.push(directory(workspace.into()));
    steps.push(Step::MountView {
        destinations: vec![workspace.into()],
        default_permissions: false,
        allow_other: false,
    });
    steps.extend(rest);
    steps.push(Step::SealRoot);
    Ok(Compiled {
        steps,
        run_directory: workspace.into(),
        new_root: true,
    })
}

fn check(workspace: &Path) -> Result<()> {
    let needed = SYSTEM.iter().chain(&EMPTY).chain(&["/dev", "/proc"]);
    if needed.map(Path::new).any(|path| path == workspace) {
        return Err(Error::Usage(format!(
            "the workspace cannot be {}, which every job has for itself; move it, or run with --host",
            workspace.display()
        )));
    }
    Ok(())
}

/// A directory of the system is shown as it is, be it a link (`/bin`, mostly).
fn system(path: &Path, steps: &mut Vec<Step>) {
    if let Ok(target) = path.read_link() {
        steps.push(link(target, path));
    } else if path.is_dir() {
        steps.push(directory(path.into()));
        steps.push(bind(path.into(), path.into(), true));
    }
}

fn devices(terminal: Option<&Path>, steps: &mut Vec<Step>) {
    for device in DEVICES.map(|name| Path::new("/dev").join(name)) {
        if device.exists() {
            steps.push(file(device.clone()));
            // Read-only mounts do not keep a device from being written to, but its mode from change.
            steps.push(bind(device.clone(), device, true));
        }
    }
    if let Some(terminal) = terminal {
        steps.push(file(CONSOLE.into()));
        steps.push(bind(terminal.into(), CONSOLE.into(), true));
    }
    let place = PathBuf::from("/dev/pts");
    steps.push(directory(place.clone()));
    steps.push(Step::Terminals { destination: place });
    let links = LINKS.iter();
    steps.extend(links.map(|(path, target)| link((*target).into(), path.as_ref())));
}

/// Who knows the names of hosts is often told by a link out of `/etc`, into `/run`.
fn names(network: bool, steps: &mut Vec<Step>) {
    let real = Path::new("/etc/resolv.conf").canonicalize();
    let outside = |path: &PathBuf| !SYSTEM.iter().any(|system| path.starts_with(system));
    if let Some(path) = real.ok().filter(|path| network && outside(path)) {
        steps.extend(path.parent().map(|above| directory(above.into())));
        steps.push(file(path.clone()));
        steps.push(bind(path.clone(), path, true));
    }
}

/// What the caller opens, in the order of depth, so that nothing covers what lies in it: what goes
/// under the workspace, and the rest.
fn opened(opening: &Opening, workspace: &Path) -> Result<(Vec<Step>, Vec<Step>)> {
    let binds = opening.binds.iter().map(|it| (&it.destination, Some(it)));
    let tmpfs = opening.tmpfs.iter().map(|place| (place, None));
    let mut all: Vec<_> = tmpfs.chain(binds).collect();
    all.sort_by_key(|(place, _)| place.components().count());
    let (mut above, mut rest) = (Vec::new(), Vec::new());
    for (place, bind) in all {
        if place == workspace || place == Path::new("/") {
            let place = place.display();
            return Err(Error::Usage(format!(
                "nothing can be mounted at {place}: run with --host, or choose a place below"
            )));
        }
        let steps = if workspace.starts_with(place) {
            &mut above
        } else {
            &mut rest
        };
        steps.extend(open(place, bind));
    }
    Ok((above, rest))
}

fn open(place: &Path, shown: Option<&Bind>) -> Vec<Step> {
    let Some(shown) = shown else {
        return vec![directory(place.into()), tmpfs(place.into())];
    };
    let mut steps = Vec::new();
    if shown.source.is_dir() {
        steps.push(directory(place.into()));
    } else {
        steps.extend(place.parent().map(|above| directory(above.into())));
        steps.push(file(place.into()));
    }
    steps.push(bind(shown.source.clone(), place.into(), shown.read_only));
    steps
}

fn directory(destination: PathBuf) -> Step {
    Step::CreateDir { destination }
}

fn file(destination: PathBuf) -> Step {
    Step::CreateFile { destination }
}

fn tmpfs(destination: PathBuf) -> Step {
    Step::Tmpfs { destination }
}

fn link(target: PathBuf, place: &Path) -> Step {
    Step::Symlink {
        target,
        destination: place.into(),
    }
}

fn bind(source: PathBuf, destination: PathBuf, read_only: bool) -> Step {
    Step::Bind {
        source,
        destination,
        read_only,
    }
}

/// Why a command that the caller may well have is not found inside. `path` is the job's `PATH`.
pub fn not_found(command: &OsStr, path: Option<&OsStr>, opening: &Opening) -> String {
    let places = std::env::split_paths(path.unwrap_or_default());
    let found = if command.as_bytes().contains(&b'/') {
        Some(PathBuf::from(command))
    } else {
        places
            .map(|place| place.join(command))
            .find(|path| path.is_file())
    };
    let found = found.filter(|path| path.is_absolute() && path.exists());
    let mut line = format!("{}: command not found", command.display());
    if let Some(place) = found.as_deref().and_then(Path::parent) {
        let place = place.display();
        let _ = write!(
            line,
            "; the host has it in {place}, which the job is not shown: add --bind {place}"
        );
    }
    line + "\nwakebox: " + &visible(opening)
}

/// One line about what a job sees of the host.
pub fn visible(opening: &Opening) -> String {
    let system = SYSTEM.iter().map(Path::new).filter(|path| path.exists());
    let shown = opening.binds.iter().map(|bind| bind.destination.as_path());
    let names: Vec<_> = system
        .chain(shown)
        .map(|path| path.display().to_string())
        .collect();
    let network = if opening.network { "" } else { "no network, " };
    format!(
        "of the host the job sees {} only ({network}no home directory); --bind shows more, --host all",
        names.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(steps: &[Step], wanted: &Step) -> usize {
        steps
            .iter()
            .position(|step| step == wanted)
            .expect("planned")
    }

    #[test]
    fn what_is_above_the_workspace_is_mounted_under_it() {
        let shown = |text: &str| Bind {
            source: "/usr".into(),
            destination: text.into(),
            read_only: true,
        };
        let opening = Opening {
            binds: vec![shown("/w/x/inside"), shown("/w"), shown("/other")],
            tmpfs: vec!["/w/y".into()],
            ..Opening::default()
        };
        let steps = mounts("/w/x".as_ref(), &opening).unwrap().steps;
        let at = |place: &str| position(&steps, &bind("/usr".into(), place.into(), true));
        let is_view = |step: &Step| matches!(step, Step::MountView { .. });
        let view = steps.iter().position(is_view).unwrap();
        assert!(at("/w") < view && view < at("/w/x/inside") && view < at("/other"));
        assert!(at("/w") < position(&steps, &tmpfs("/w/y".into())));
        assert_eq!(steps.last(), Some(&Step::SealRoot));
    }

    #[test]
    fn what_every_job_needs_is_no_workspace() {
        for path in ["/tmp", "/usr", "/dev", "/home"] {
            let refused = mounts(path.as_ref(), &Opening::default()).unwrap_err();
            assert!(refused.to_string().contains("--host"), "{refused}");
        }
        let opening = Opening {
            tmpfs: vec!["/w".into()],
            ..Opening::default()
        };
        assert!(mounts("/w".as_ref(), &opening).is_err());
        assert!(mounts("/w/x".as_ref(), &opening).is_ok());
    }

    #[test]
    fn binds_have_the_path_they_have_outside_unless_told_otherwise() {
        let parse = |text: &str| Bind::parse(text.as_ref(), "/usr".as_ref(), true);
        let place = |text: &str| parse(text).unwrap().destination;
        assert_eq!(place("/usr"), Path::new("/usr"));
        assert_eq!(place("/usr:/x:y"), Path::new("/x:y"));
        assert_eq!(place(".:x"), Path::new("/usr/x"));
        for wrong in ["", ":/x", "/usr:", "/usr:/x/../y", "/does/not/exist"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
