//! The subcommands around the store and the daemon.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cas::protocol::{self, Reply, Request};
use cas::{Digest, RelPath, Store};

use crate::BUILD_ID;
use crate::cli::{
    ApplyArguments, CasArguments, CasCommand, DaemonArguments, Environment, Shell, StatusArguments,
    VERSION,
};
use crate::daemon::{DaemonError, Daemons, Lease, READY};
use crate::delta;
use crate::error::{Error, Result, say};
use crate::exit_code::NO;
use crate::stored_tree;

/// `wakebox cas`.
pub fn cas(arguments: &CasArguments, environment: &Environment) -> Result<u8> {
    let root = arguments.store.resolve(environment)?;
    match &arguments.command {
        CasCommand::Put { files } => put(&Store::open_own(&root)?, files),
        CasCommand::Cat { hash } => {
            let hash = digest(hash)?;
            cat(&existing(&root)?, hash)
        }
        CasCommand::Has { hashes } => {
            let hashes = digests(hashes)?;
            has(&existing(&root)?, &hashes)
        }
        CasCommand::Ls => list(&existing(&root)?),
        CasCommand::Path { hash } => {
            let hash = digest(hash)?;
            print_path(&existing(&root)?, hash)
        }
        CasCommand::Import { directory } => stored_tree::import(&root, directory),
        CasCommand::Tree { root: tree, json } => {
            let tree = stored_tree::root(tree)?;
            stored_tree::list(&existing(&root)?, &tree, *json)
        }
        CasCommand::Export {
            root: tree,
            directory,
        } => {
            let tree = stored_tree::root(tree)?;
            stored_tree::export(&existing(&root)?, &tree, directory)
        }
        CasCommand::Verify { hashes } => {
            let hashes = digests(hashes)?;
            verify(&existing(&root)?, hashes)
        }
    }
}

/// `wakebox apply`.
pub fn apply(arguments: &ApplyArguments, environment: &Environment) -> Result<u8> {
    let base = stored_tree::root(&arguments.base)?;
    let only = arguments.only.as_ref().map(|path| {
        let parsed = RelPath::parse(path.as_bytes());
        let path = path.to_string_lossy();
        parsed.map_err(|reason| Error::Usage(format!("--only '{path}' {reason}")))
    });
    let only = only.transpose()?;
    let store = existing(&arguments.store.resolve(environment)?)?;
    let _hold = store.hold()?;
    delta::apply(&store, &base, &arguments.result, only.as_ref())
}

/// A store to look into. To make one there would hide a mistyped path.
pub(crate) fn existing(root: &Path) -> Result<Store> {
    if root.join("blobs").is_dir() {
        Ok(Store::open(root)?)
    } else {
        Err(Error::Usage(format!(
            "there is no store at {}",
            root.display()
        )))
    }
}

fn digest(text: &str) -> Result<Digest> {
    text.parse()
        .map_err(|error: cas::digest::InvalidDigest| Error::Usage(error.to_string()))
}

fn digests(texts: &[String]) -> Result<Vec<Digest>> {
    texts.iter().map(|text| digest(text)).collect()
}

/// A reader that goes away, `head` say, is no failure.
pub(crate) fn print(line: std::fmt::Arguments<'_>) -> Result<()> {
    match writeln!(io::stdout(), "{line}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("write to", "standard output", error))
        }
        _ => Ok(()),
    }
}

/// `wakebox --help`.
pub fn help() -> Result<()> {
    // Clap knows whether colours are wanted.
    match crate::cli::command().print_help() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("write to", "standard output", error))
        }
        _ => Ok(()),
    }
}

/// `wakebox --version`.
pub fn version() -> Result<u8> {
    print(format_args!("wakebox {VERSION}"))?;
    Ok(0)
}

/// `wakebox completions`.
pub fn completions(shell: Shell) -> Result<u8> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::cli::command(), "wakebox", &mut script);
    write_out(&script)
}

/// `wakebox man`.
pub fn manual() -> Result<u8> {
    let mut page = Vec::new();
    clap_mangen::Man::new(crate::cli::command())
        .render(&mut page)
        .map_err(|error| Error::io("make", "the manual page", error))?;
    write_out(&page)
}

pub(crate) fn write_out(bytes: &[u8]) -> Result<u8> {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("write to", "standard output", error))
        }
        _ => Ok(0),
    }
}

fn put(store: &Store, files: &[impl AsRef<Path>]) -> Result<u8> {
    let _hold = store.hold()?;
    let staging = store.new_staging("put")?;
    for path in files {
        let path = path.as_ref();
        let (digest, _) = if path == Path::new("-") {
            store.put_reader(&mut io::stdin().lock(), &staging)?
        } else {
            let file = std::fs::File::open(path).map_err(|e| Error::io("open", path, e))?;
            store.put_reader(&mut &file, &staging)?
        };
        print(format_args!("{digest}  {}", path.display()))?;
    }
    Ok(0)
}

fn cat(store: &Store, digest: Digest) -> Result<u8> {
    let mut blob = store.open_blob(digest)?.file;
    match io::copy(&mut blob, &mut io::stdout()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("write to", "standard output", error))
        }
        _ => Ok(0),
    }
}

fn has(store: &Store, digests: &[Digest]) -> Result<u8> {
    let mut code = 0;
    for &digest in digests {
        if store.stat(digest)?.is_none() {
            print(format_args!("{digest} is missing"))?;
            code = NO;
        }
    }
    Ok(code)
}

fn list(store: &Store) -> Result<u8> {
    let mut all = store.list()?;
    all.sort();
    for digest in all {
        if let Some(stat) = store.stat(digest)? {
            print(format_args!("{digest} {}", stat.size))?;
        }
    }
    Ok(0)
}

fn print_path(store: &Store, digest: Digest) -> Result<u8> {
    if store.stat(digest)?.is_none() {
        return Err(cas::Error::Missing(digest).into());
    }
    let path = store.path(digest);
    print(format_args!(
        "{}",
        path.canonicalize().unwrap_or(path).display()
    ))?;
    Ok(0)
}

fn verify(store: &Store, digests: Vec<Digest>) -> Result<u8> {
    let digests = if digests.is_empty() {
        store.list()?
    } else {
        digests
    };
    let checked = cas::fsck::check(store, &digests, &|_| ())?;
    for error in &checked.bad {
        print(format_args!("{error}"))?;
    }
    let (bytes, bad) = (checked.bytes, checked.bad.len());
    print(format_args!(
        "{} blobs, {bytes} bytes, {bad} bad",
        digests.len()
    ))?;
    Ok(if bad == 0 { 0 } else { NO })
}

/// `wakebox status`.
pub fn status(arguments: &StatusArguments, environment: &Environment) -> Result<u8> {
    let daemons = Daemons::from_environment(environment)?;
    let mut all = Vec::new();
    for socket in daemons.runtime.sockets()? {
        let Some(lease) = Lease::at(&socket) else {
            continue;
        };
        let status = match lease.status() {
            Err(DaemonError::Lost { source, .. }) => {
                if source.kind() == io::ErrorKind::WouldBlock {
                    say(format_args!(
                        "the daemon at {} does not answer",
                        socket.display()
                    ));
                }
                continue; // else it is just ending
            }
            other => other?,
        };
        let size = store_size(Path::new(&status.store));
        all.push((status, size));
    }
    if arguments.json {
        let rows = all.iter().map(|(status, (blobs, bytes))| {
            serde_json::json!({ "daemon": status, "blobs": blobs, "bytes": bytes })
        });
        print(format_args!("{}", serde_json::Value::from_iter(rows)))?;
        return Ok(0);
    }
    if all.is_empty() {
        print(format_args!("no daemon is running"))?;
    }
    for (status, (blobs, bytes)) in all {
        print(format_args!("store {}", status.store))?;
        print(format_args!("  {blobs} blobs, {bytes} bytes"))?;
        print(format_args!(
            "  daemon {} (build {}), up {} s",
            status.pid, status.build, status.uptime
        ))?;
        print(format_args!(
            "  {} jobs running, {} served",
            status.jobs_running, status.jobs_served
        ))?;
    }
    Ok(0)
}

fn store_size(root: &Path) -> (u64, u64) {
    let files = walkdir::WalkDir::new(root.join("blobs"))
        .into_iter()
        .flatten();
    let sizes = files
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|e| e.metadata().ok());
    sizes.fold((0, 0), |(blobs, bytes), file| {
        (blobs + 1, bytes + file.len())
    })
}

/// `wakebox daemon`.
pub fn daemon(arguments: &DaemonArguments, environment: &Environment) -> Result<u8> {
    let idle = arguments.idle.unwrap_or(environment.idle);
    if let Some(socket) = &arguments.socket {
        return background(socket, idle);
    }
    let root = arguments.store.resolve(environment)?;
    Store::open(&root)?;
    let daemons = Daemons::from_environment(environment)?;
    let socket = daemons.runtime.socket(&root)?;
    if arguments.stop {
        return match Lease::at(&socket) {
            Some(lease) => lease.stop().map(|()| 0).map_err(Error::from),
            None => Err(Error::Outcome(format!(
                "no daemon serves {}",
                root.display()
            ))),
        };
    }
    if let Some(lease) = Lease::at(&socket) {
        let pid = lease.status()?.pid;
        return Err(Error::Outcome(format!(
            "daemon {pid} serves {} already",
            root.display()
        )));
    }
    let _ = std::fs::remove_file(&socket); // left over from a daemon that died
    let store = std::fs::File::open(&root).map_err(|e| Error::io("open the store", &root, e))?;
    let settings = settings(store.into(), &socket, idle);
    say(format_args!(
        "serving {} at {}",
        settings.store_name,
        socket.display()
    ));
    fuse_daemon::daemon::run(settings, || {})?;
    Ok(0)
}

fn settings(
    store: OwnedFd,
    socket: &Path,
    idle: std::time::Duration,
) -> fuse_daemon::daemon::Settings {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", store.as_raw_fd());
    let store_name = std::fs::read_link(link)
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let socket = socket.into();
    fuse_daemon::daemon::Settings {
        store,
        store_name,
        socket,
        idle,
        build: BUILD_ID.into(),
    }
}

/// A daemon that a client has started: the store is standard input, and standard output is
/// waiting to be told that connections are accepted.
fn background(socket: &Path, idle: std::time::Duration) -> Result<u8> {
    let failed = |what| move |errno: rustix::io::Errno| Error::io(what, "the daemon", errno);
    let store = rustix::io::dup(rustix::stdio::stdin()).map_err(failed("find the store of"))?;
    rustix::io::fcntl_setfd(&store, rustix::io::FdFlags::CLOEXEC).map_err(failed("start"))?;
    rustix::process::setsid().map_err(failed("detach"))?;
    // Opened now: in the mount namespace that the daemon will live in there is no such file.
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null");
    let null = null.map_err(|error| Error::io("open", "/dev/null", error))?;
    let settings = settings(store, socket, idle);
    fuse_daemon::daemon::run(settings, || {
        let _ = io::stdout().write_all(READY.as_bytes());
        // The client reads to the end of our output, so both must lead nowhere from here on.
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
    })?;
    Ok(0)
}

/// What the process that serves a mount is told by its arguments.
#[derive(Debug)]
pub struct Serving {
    /// The root of the store.
    pub store: PathBuf,
    /// Device number of the file system, major and minor.
    pub number: (u32, u32),
    /// Ends with its parent.
    pub foreground: bool,
    /// When the view's log is looked after, if not as usual: milliseconds and bytes.
    pub upkeep: Option<(u64, u64)>,
}

/// The process that serves a mount: standard input is the state directory with its lock, standard
/// output the conversation with whoever mounts, by which the file system comes.
pub fn serve_mount(serving: &Serving) -> Result<()> {
    let failed = |errno: rustix::io::Errno| Error::io("start to serve", "the mount", errno);
    let state = own_copy(rustix::stdio::stdin()).map_err(failed)?;
    let socket = own_copy(rustix::stdio::stdout()).map_err(failed)?;
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null");
    let null = null.map_err(|error| Error::io("open", "/dev/null", error))?;
    rustix::stdio::dup2_stdin(&null).map_err(failed)?;
    rustix::stdio::dup2_stdout(&null).map_err(failed)?;
    if serving.foreground {
        // Without whoever waits for it, a mount in the foreground is none.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
            .map_err(failed)?;
    } else {
        rustix::process::setsid().map_err(failed)?;
    }
    crate::sandbox::SignalHold::new().keep();
    let stop = crate::sandbox::open_signals(&crate::sandbox::STOPPING).map_err(failed)?;
    let asked = protocol::receive(socket.as_fd())
        .map_err(|error| Error::io("listen to", "whoever mounts", error))?;
    let Some((Request::Serve, devices)) = asked else {
        return Ok(()); // it gave up
    };
    let Some(device) = devices.into_iter().next() else {
        return Ok(());
    };
    let store = &serving.store;
    let root = std::fs::File::open(store).map_err(|e| Error::io("open the store", store, e))?;
    let upkeep = serving
        .upkeep
        .map(|(period, small)| fuse_daemon::log::Upkeep {
            period: std::time::Duration::from_millis(period),
            small,
        });
    let owner = rustix::process::geteuid().as_raw();
    let settings = fuse_daemon::standing::Settings {
        state,
        store: root.into(),
        device,
        number: serving.number,
        owner: (owner, rustix::process::getegid().as_raw()),
        upkeep: upkeep.unwrap_or_default(),
        stop,
    };
    let mut socket = Some(socket);
    let served = fuse_daemon::standing::run(settings, || {
        // Closed with this: nobody is to wait for a process that lives as long as the mount.
        if let Some(socket) = socket.take() {
            let _ = protocol::send(socket.as_fd(), &Reply::Serving, None);
        }
    });
    match (served, socket) {
        (Err(error), Some(socket)) => {
            let refusal = Reply::Refused(error.to_string());
            let _ = protocol::send(socket.as_fd(), &refusal, None);
            Err(error.into())
        }
        (served, _) => Ok(served?),
    }
}

fn own_copy(descriptor: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(descriptor, 3)
}
