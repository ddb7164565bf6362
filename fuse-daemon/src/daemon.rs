//! Wiring: the store, the jobs, the socket, and when to end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cas::Error;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
    sockopt::socket_peercred,
};

use crate::control::{self, Context, Stop};
use crate::mounts;
use crate::registry::Registry;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// What a daemon is started with.
#[derive(Debug)]
pub struct Settings {
    /// The root of the store. A descriptor, not a path: what it names cannot be swapped.
    pub store: OwnedFd,
    /// How the store is called in messages.
    pub store_name: String,
    /// Where to listen. Its directory must exist and belong to this user alone.
    pub socket: PathBuf,
    /// How long to live without a connection.
    pub idle: Duration,
    /// Build of the binary.
    pub build: String,
}

/// A running daemon.
struct Daemon {
    context: Context,
    listener: OwnedFd,
    /// Woken when a connection ends, and when the daemon is asked to end.
    wake: Arc<OwnedFd>,
    connections: AtomicUsize,
    stopping: Arc<AtomicBool>,
    runtime: OwnedFd,
    socket_name: String,
    idle: Duration,
}

/// Runs a daemon until it has been idle for long enough or is asked to end. `ready` is called
/// once connections are accepted. Must be called before the process has a second thread.
pub fn run(settings: Settings, ready: impl FnOnce()) -> cas::Result<()> {
    crate::process::prepare(c"wakebox-daemon");
    let daemon = Daemon::start(settings)?;
    ready();
    std::thread::scope(|scope| daemon.accept(scope))
}

impl Daemon {
    fn start(settings: Settings) -> cas::Result<Self> {
        let (directory, name) = split(&settings.socket)?;
        let failed = |source: io::Error| Error::io("listen on", &settings.socket, source);
        let runtime = open_directory(&directory).map_err(failed)?;
        let listener = listen_at(runtime.as_fd(), &name).map_err(failed)?;
        let (store, runtime, passthrough) = mounts::settle(settings.store.as_fd(), runtime)?;
        let wake = Arc::new(
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(|errno| failed(errno.into()))?,
        );
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = {
            let (wake, stopping) = (wake.clone(), stopping.clone());
            Stop(Box::new(move || {
                stopping.store(true, Ordering::Relaxed);
                ring(wake.as_fd());
            }))
        };
        let context = Context {
            registry: Registry::new(store),
            passthrough,
            build: settings.build,
            store: settings.store_name,
            started: Instant::now(),
            stop,
            now: crate::process::now,
        };
        let connections = AtomicUsize::new(0);
        let idle = settings.idle;
        Ok(Self {
            context,
            listener,
            wake,
            connections,
            stopping,
            runtime,
            socket_name: name,
            idle,
        })
    }

    /// Accepts connections and gives each a thread, so that a client that stalls keeps nobody
    /// waiting.
    fn accept<'s>(&'s self, scope: &'s std::thread::Scope<'s, '_>) -> cas::Result<()> {
        let mut idle_since = Instant::now();
        let mut leaving = false;
        loop {
            if let Some(socket) = self.next_connection() {
                self.connections.fetch_add(1, Ordering::Relaxed);
                let thread = std::thread::Builder::new().name("control".into());
                let spawned = thread.spawn_scoped(scope, move || self.serve(socket));
                if let Err(error) = spawned {
                    self.connections.fetch_sub(1, Ordering::Relaxed);
                    tracing::error!("cannot serve a connection: {error}");
                }
                continue;
            }
            if self.connections.load(Ordering::Relaxed) > 0 {
                idle_since = Instant::now();
            } else if leaving {
                return Ok(());
            }
            let stopping = self.stopping.load(Ordering::Relaxed);
            let patience = self.idle.saturating_sub(idle_since.elapsed());
            if (patience.is_zero() || stopping) && !leaving {
                leaving = self.unlisten();
                idle_since = Instant::now();
                continue; // what connected before the name was gone is still served
            }
            self.wait(patience.max(Duration::from_millis(1)));
        }
    }

    fn serve(&self, socket: OwnedFd) {
        // A bug that one job brings out is no reason to take the others down, nor to lose count.
        let served = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            if is_own_user(socket.as_fd()) {
                control::serve(&self.context, socket);
            }
        }));
        if served.is_err() {
            tracing::error!("a bug in wakebox: the thread of a connection panicked");
        }
        self.connections.fetch_sub(1, Ordering::Relaxed);
        ring(self.wake.as_fd());
    }

    fn next_connection(&self) -> Option<OwnedFd> {
        match accept_with(&self.listener, SocketFlags::CLOEXEC) {
            Ok(socket) => Some(socket),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => None,
            Err(error) => {
                tracing::error!("cannot accept a connection: {error}");
                None
            }
        }
    }

    /// Sleeps until a connection comes or ends, at most for `patience`.
    fn wait(&self, patience: Duration) {
        let mut fds = [
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::new(&*self.wake, PollFlags::IN),
        ];
        let timeout = Timespec {
            tv_sec: patience.as_secs() as i64,
            tv_nsec: patience.subsec_nanos().into(),
        };
        let _ = poll(&mut fds, Some(&timeout));
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
    }

    /// Takes the socket's name away, so that clients start a new daemon. Not while a client holds
    /// the lock, because it is about to connect.
    fn unlisten(&self) -> bool {
        let lock = format!("{}.lock", self.socket_name);
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let Ok(lock) = rustix::fs::openat(&self.runtime, lock, flags, Mode::RUSR | Mode::WUSR)
        else {
            return true; // the directory is gone, and with it the name
        };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return false;
        }
        let _ = rustix::fs::unlinkat(&self.runtime, &self.socket_name, AtFlags::empty());
        self.remove_empty_log();
        true
    }

    /// A log that says nothing is no loss, and every store has one.
    fn remove_empty_log(&self) {
        let log = self.socket_name.replace(".sock", ".log");
        let is = rustix::fs::statat(&self.runtime, &log, AtFlags::SYMLINK_NOFOLLOW);
        if is.is_ok_and(|is| is.st_size == 0) {
            let _ = rustix::fs::unlinkat(&self.runtime, &log, AtFlags::empty());
        }
    }
}

fn split(socket: &std::path::Path) -> cas::Result<(PathBuf, String)> {
    let name = socket.file_name().and_then(|name| name.to_str());
    match (socket.parent(), name) {
        (Some(directory), Some(name)) => Ok((directory.into(), name.into())),
        _ => Err(Error::io("listen on", socket, Errno::INVAL)),
    }
}

fn open_directory(path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// Binds through the directory's descriptor, because a socket's path must fit into 108 bytes.
fn listen_at(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn is_own_user(socket: BorrowedFd<'_>) -> bool {
    let peer = socket_peercred(socket).map(|credentials| credentials.uid);
    let own = peer == Ok(rustix::process::geteuid());
    if !own {
        tracing::warn!(?peer, "a connection of another user is refused");
    }
    own
}

fn ring(wake: BorrowedFd<'_>) {
    let _ = rustix::io::write(wake, &1u64.to_ne_bytes());
}
