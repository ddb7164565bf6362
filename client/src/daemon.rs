//! Finding the daemon or starting it, and the lease of one job.

mod look;

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cas::Store;
use cas::hold::{Hold, lock_within};
use cas::protocol::{self, CopyOnWrite, Registration, Reply, Request, Status};
use cas::record::Recording;
use cas::report::Report;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred, socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::declaration::Declaration;
use crate::runtime::RuntimeDirectory;

/// A daemon may be ending at the moment we connect. Each try starts a new one if need be.
const TRIES: u32 = 5;

/// How long the daemon may take over an answer that no job depends on.
const PATIENCE: Duration = Duration::from_secs(3);

/// After so long without an answer that a job depends on, the daemon is asked how it is. One that
/// reads a tree of a million files from a cold disk says so; one that was stopped says nothing.
const DOUBT: Duration = Duration::from_secs(2);

/// How long another client may take to start the daemon.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Why there is no daemon to talk to, or what it refuses.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It could not be started.
    #[error("cannot start the daemon: {source}; its log is {}", log.display())]
    Start {
        /// What went wrong.
        source: io::Error,
        /// Where it logs to.
        log: PathBuf,
    },
    /// The conversation broke off.
    #[error("lost the daemon while trying to {what}: {source}")]
    Lost {
        /// What was being done, as a verb phrase.
        what: &'static str,
        /// How it broke off.
        source: io::Error,
    },
    /// It is there and does nothing.
    #[error(
        "the daemon (process {pid}) did not answer while trying to {what}; it was stopped, or is \
         stuck: `kill -CONT {pid}` lets it go on, `kill -KILL {pid}` makes room for another"
    )]
    Stuck {
        /// Its process number.
        pid: u32,
        /// What was being done, as a verb phrase.
        what: &'static str,
    },
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// How daemons are started and found.
#[derive(Clone, Debug)]
pub struct Daemons {
    /// Where their sockets are.
    pub runtime: RuntimeDirectory,
    /// How long a new one lives without a connection.
    pub idle: Duration,
    /// Its log filter (`WAKEBOX_LOG`).
    pub log: Option<std::ffi::OsString>,
}

/// How a job's view is to be, besides what it shows.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Which inputs the job may change.
    pub copy_on_write: &'a CopyOnWrite,
    /// The user and group that everything belongs to.
    pub user: (u32, u32),
    /// What is recorded.
    pub record: Recording,
    /// Shuffles what directories list.
    pub listing_seed: Option<u64>,
    /// What people are to call it.
    pub label: &'a str,
}

impl Daemons {
    /// Connects to the daemon of a store, and starts it if there is none.
    fn lease(&self, store: &Path) -> crate::error::Result<Lease> {
        let socket = self.runtime.socket(store)?;
        for _ in 0..TRIES {
            if let Ok(lease) = Lease::connect(&socket) {
                return Ok(lease);
            }
            self.start(store, &socket)?;
        }
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        Err(DaemonError::Lost {
            what: "connect",
            source,
        }
        .into())
    }

    /// Registers a job with the daemon of a store, and returns the name of the job's directory in the
    /// staging area. A daemon that ends before it has answered is no failure: nothing has happened yet,
    /// and the next one will do.
    pub fn register(
        &self,
        store: &Store,
        manifest: &Declaration,
        hold: &Hold,
        terms: &Terms<'_>,
    ) -> crate::error::Result<(Lease, String)> {
        let mut tries = TRIES;
        loop {
            let mut lease = self.lease(store.root())?;
            tries -= 1;
            match lease.register(manifest, store, hold.generation(), terms) {
                Ok(staging) => return Ok((lease, staging)),
                Err(DaemonError::Lost { .. }) if tries > 0 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Starts a daemon, unless another client does. Returns when one accepts connections.
    fn start(&self, store: &Path, socket: &Path) -> Result<(), DaemonError> {
        let log = socket.with_extension("log");
        let failed = |error: io::Error| DaemonError::Start {
            source: error,
            log: log.clone(),
        };
        let _lock = lock(&socket.with_extension("sock.lock")).map_err(failed)?;
        if Lease::connect(socket).is_ok() {
            return Ok(());
        }
        // Nobody answers and we have the lock: the name is left over from a daemon that died.
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let output = log_file(&log).map_err(failed)?;
        let store = std::fs::File::open(store).map_err(failed)?;
        let mut command = self.command(socket);
        // The store travels as standard input and readiness as the end of standard output, so
        // there is no descriptor number to agree on and no sleep.
        command.stdin(store).stdout(Stdio::piped()).stderr(output);
        let mut child = command.spawn().map_err(failed)?;
        let mut ready = String::new();
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_string(&mut ready).map_err(failed)?;
        }
        if ready == READY {
            return Ok(());
        }
        let ended = child.wait().map_err(failed)?;
        Err(failed(io::Error::other(format!(
            "it ended at once ({ended})"
        ))))
    }

    fn command(&self, socket: &Path) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("wakebox-daemon")
            .arg("daemon")
            .arg("--socket")
            .arg(socket);
        command.arg("--idle").arg(self.idle.as_secs().to_string());
        command.env_clear().current_dir("/");
        if let Some(filter) = &self.log {
            command.env("WAKEBOX_LOG", filter);
        }
        command
    }
}

/// What a daemon writes to its standard output once it accepts connections.
pub const READY: &str = "ready\n";

fn lock(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(CWD, path, flags, Mode::RUSR | Mode::WUSR)?;
    let exclusive = FlockOperation::NonBlockingLockExclusive;
    match lock_within(file.as_fd(), exclusive, START_LIMIT) {
        Err(Errno::WOULDBLOCK) => Err(io::Error::other(
            "another client has been starting it for too long",
        )),
        other => Ok(other.map(|()| file)?),
    }
}

fn log_file(path: &Path) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
}

/// A connection to the daemon, and the one job that it is for. Dropping it ends the job.
#[derive(Debug)]
pub struct Lease {
    socket: OwnedFd,
    path: PathBuf,
    registered: bool,
}

impl Lease {
    fn connect(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // By way of the directory's descriptor: a socket's path must fit into 108 bytes.
        let directory = rustix::fs::openat(
            CWD,
            path.parent().unwrap_or(Path::new("/")),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let name = path.file_name().unwrap_or(OsStr::new("")).to_string_lossy();
        let short = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        connect(&socket, &SocketAddrUnix::new(short)?)?;
        Ok(Self {
            socket,
            path: path.into(),
            registered: false,
        })
    }

    /// Connects to the daemon behind a socket, if there is one.
    pub fn at(socket: &Path) -> Option<Self> {
        Self::connect(socket).ok()
    }

    /// The socket: the sandbox hands the view over by it, and its hang-up means that the daemon
    /// is gone.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    fn ask(
        &self,
        what: &'static str,
        request: &Request,
        document: Option<BorrowedFd<'_>>,
    ) -> Result<(Reply, Option<OwnedFd>), DaemonError> {
        let lost = |source| DaemonError::Lost { what, source };
        protocol::send(self.socket(), request, document).map_err(lost)?;
        self.await_answer(what)?;
        match protocol::receive(self.socket()).map_err(lost)? {
            Some((Reply::Refused(reason), _)) => Err(DaemonError::Refused(reason)),
            Some((reply, fds)) => Ok((reply, fds.into_iter().next())),
            None => Err(lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Waits for an answer, or for a daemon that does not answer anybody.
    fn await_answer(&self, what: &'static str) -> Result<(), DaemonError> {
        let lost = |errno: Errno| DaemonError::Lost {
            what,
            source: errno.into(),
        };
        // Somebody has less patience, and gets the error of the receive.
        let is_limited = socket_timeout(&self.socket, Timeout::Recv).is_ok_and(|t| t.is_some());
        if is_limited {
            return Ok(());
        }
        loop {
            let mut socket = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut socket, Timespec::try_from(DOUBT).ok().as_ref()) {
                Ok(0) if self.is_stuck() => {
                    let pid = self.pid().unwrap_or(0);
                    return Err(DaemonError::Stuck { pid, what });
                }
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(lost(errno)),
            }
        }
    }

    /// Whether the daemon answers nobody, by a connection of its own: this one may wait for much.
    fn is_stuck(&self) -> bool {
        let status = Self::connect(&self.path).map(|other| other.status());
        match status {
            Ok(Err(DaemonError::Lost { source, .. })) => source.kind() == io::ErrorKind::WouldBlock,
            // It is gone, or answers: either way this connection will tell.
            _ => false,
        }
    }

    /// Whether the daemon has hung up.
    pub fn is_gone(&self) -> bool {
        let mut socket = [PollFd::new(&self.socket, PollFlags::empty())];
        let now = Timespec::default();
        let asked = poll(&mut socket, Some(&now));
        asked.is_ok() && socket[0].revents().contains(PollFlags::HUP)
    }

    /// The process number of the daemon, also of one that does not answer.
    pub fn pid(&self) -> Option<u32> {
        let peer = socket_peercred(&self.socket).ok()?;
        u32::try_from(peer.pid.as_raw_pid()).ok()
    }

    /// Registers a job and returns the name of its directory in the store's staging area. The
    /// manifest travels only if the daemon has not seen it.
    fn register(
        &mut self,
        manifest: &Declaration,
        store: &Store,
        generation: u64,
        terms: &Terms<'_>,
    ) -> Result<String, DaemonError> {
        let what = "register the job";
        let registration = Registration {
            manifest: manifest.digest(),
            generation,
            uid: terms.user.0,
            gid: terms.user.1,
            copy_on_write: terms.copy_on_write.clone(),
            record: terms.record,
            listing_seed: terms.listing_seed,
            label: cas::look::label(terms.label),
        };
        let mut answer = self.ask(what, &Request::Register(registration), None)?;
        if answer.0 == Reply::SendManifest {
            let document = manifest.document(store);
            let document = document.map_err(|error| DaemonError::Refused(error.to_string()))?;
            answer = self.ask(what, &Request::Manifest, Some(document.as_fd()))?;
        }
        match answer.0 {
            Reply::Registered { staging } => {
                self.registered = true;
                Ok(staging)
            }
            other => Err(unexpected(what, &other)),
        }
    }

    /// Asks what the job did, when it has ended.
    pub fn finish(&self) -> Result<Report, DaemonError> {
        let what = "collect the result";
        let lost = |source: io::Error| DaemonError::Lost { what, source };
        match self.ask(what, &Request::Finish, None)? {
            (Reply::Report, Some(document)) => {
                let bytes = protocol::read_document(document).map_err(lost)?;
                serde_json::from_slice(&bytes).map_err(|error| lost(error.into()))
            }
            (other, _) => Err(unexpected(what, &other)),
        }
    }

    /// Takes over the staging directory.
    pub fn take(mut self) -> Result<(), DaemonError> {
        self.ask("take over the staged files", &Request::Taken, None)?;
        self.registered = false;
        Ok(())
    }

    /// Asks how the daemon is. One that is stopped or stuck does not hold up whoever asks.
    pub fn status(&self) -> Result<Status, DaemonError> {
        self.limit_patience();
        match self.ask("ask for the status", &Request::Status, None)?.0 {
            Reply::Status(status) => Ok(status),
            other => Err(unexpected("ask for the status", &other)),
        }
    }

    fn limit_patience(&self) {
        let _ = set_socket_timeout(&self.socket, Timeout::Recv, Some(PATIENCE));
    }

    /// Asks the daemon to end when its jobs have.
    pub fn stop(&self) -> Result<(), DaemonError> {
        self.limit_patience();
        self.ask("stop the daemon", &Request::Stop, None).map(drop)
    }
}

impl Drop for Lease {
    /// Lets the job go, and waits until its staging directory is gone: what runs next in this
    /// store finds no debris.
    fn drop(&mut self) {
        if self.registered {
            self.limit_patience();
            let _ = self.ask("let the job go", &Request::Discard, None);
        }
    }
}

fn unexpected(what: &'static str, reply: &Reply) -> DaemonError {
    let source = io::Error::new(
        io::ErrorKind::InvalidData,
        format!("unexpected answer {reply:?}"),
    );
    DaemonError::Lost { what, source }
}

/// The packet that hands a mount over, and the one that acknowledges it, as bytes: between fork
/// and exec nothing may be allocated.
pub fn serve_packets() -> io::Result<(Vec<u8>, Vec<u8>)> {
    Ok((
        serde_json::to_vec(&Request::Serve)?,
        serde_json::to_vec(&Reply::Serving)?,
    ))
}
