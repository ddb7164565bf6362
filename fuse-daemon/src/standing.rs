//! One view that stands for itself: `wakebox mount`.
//!
//! A process of its own serves it, from the first request of the kernel to the last unmount. The
//! view is the one that jobs get; what differs is that nobody registers it, collects from it or
//! publishes it. Its state directory holds what was declared (`manifest`), what was made
//! (`files/`) and, unless another is named, the store.
//!
//! The descriptor of the state directory carries the lock that its opener took (flock(2) belongs
//! to the open file description), so the next mount of the same state waits until this process
//! has let go of everything.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use cas::error::Context;
use cas::manifest::Listed;
use cas::owners::Owned;
use cas::staging::StagingDirectory;
use cas::{Digest, Error, Store, gc, recovery};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};

use crate::fuse::{self, Session};
use crate::job::{Job, Standing};
use crate::log::{self, Header, Log, Periodic, Upkeep};
use crate::origin::Origin;
use crate::view::{AtimePolicy, Caller, InputPolicy, Order, Permissions, Policy};
use crate::{mounts, process};

/// How long users may keep a file system that was told to end.
const END_LIMIT: Duration = Duration::from_secs(1);

/// What was declared, in the state directory.
const MANIFEST: &str = "manifest";

/// Whom inputs belong to that are not the mounting user's, in the state directory.
const OWNERS: &str = "owners";

/// How long the process that served this state before may take to end; the lock on the state
/// directory was waited for already.
const PATIENCE: Duration = Duration::from_secs(1);

/// The directory of what was made, in the state directory.
const FILES: &str = "files";

/// What a standing view is served with.
#[derive(Debug)]
pub struct Settings {
    /// The state directory, open and locked. The lock is held until [`run`] returns.
    pub state: OwnedFd,
    /// The root of the store.
    pub store: OwnedFd,
    /// The mounted file system's `/dev/fuse`, of which nobody else has a descriptor.
    pub device: OwnedFd,
    /// Device number of the file system, major and minor, by which its mounts are found.
    pub number: (u32, u32),
    /// User and group that inputs belong to.
    pub owner: (u32, u32),
    /// When the log is flushed and shortened.
    pub upkeep: Upkeep,
    /// Becomes readable when the process is told to end.
    pub stop: OwnedFd,
}

/// Serves until the file system has no mount any more and nobody has a file of it open, or until
/// told to stop; then it is detached wherever it is mounted, and who has files open gets
/// `ENOTCONN` after a second. Calls `ready` when requests are answered.
///
/// Must be called before the process has a second thread.
///
/// # Errors
/// Before `ready`: inputs that the store does not have, a store or state that cannot be used, a
/// kernel that breaks off. After it: only that the state cannot be flushed.
pub fn run(settings: Settings, ready: impl FnOnce()) -> cas::Result<()> {
    process::prepare(c"wakebox-mount");
    // Before the namespace is left.
    let origin = Origin::here().context("find", "/proc")?;
    let policy = policy();
    let state = settings.state.try_clone().context("keep", "the state")?;
    let (store, directory, passthrough) = mounts::settle(settings.store.as_fd(), state)?;
    let (job, _lease) = open(store, directory, settings.owner, policy, settings.upkeep)?;
    let job = Arc::new(job);
    let settling = {
        let job = job.clone();
        Periodic::start(settings.upkeep.period, move || {
            if let Err(refusal) = job.settle() {
                tracing::warn!("cannot flush the saved view: {refusal}");
            }
        })
    };
    let settling = settling.context("start the thread", "view-log")?;
    let session = fuse::serve(job.clone(), settings.device, None, passthrough);
    let session = session.context("serve", "the mount")?;
    ready();
    wait(session, origin, settings.number, settings.stop)?;
    drop(settling);
    let closed = job.close_log().map_err(std::io::Error::other);
    closed.context("flush", log::FILE)?;
    drop(job);
    rustix::fs::syncfs(&settings.state).context("flush", "the state")
}

/// Opens what was saved, or begins anew. The directory tells collectors, as long as it is there,
/// what the mount uses of the store.
fn open(
    store: Store,
    mount: OwnedFd,
    owner: (u32, u32),
    policy: Policy,
    upkeep: Upkeep,
) -> cas::Result<(Job, Arc<StagingDirectory>)> {
    // Opened anew: the descriptor of a detached mount is a mere place (O_PATH), and the mount's
    // attributes can be changed only as long as it is kept.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let state = rustix::fs::openat(&mount, c".", flags, Mode::empty());
    let state = state.context("open", "the state")?;
    let manifest = read(state.as_fd(), MANIFEST)?;
    let lease = store.new_staging(gc::MOUNT)?;
    recovery::write_inputs(lease.as_fd(), &manifest)?;
    let inputs = Listed::read(&manifest).and_then(|manifest| manifest.resolve(&store));
    let inputs = inputs.map_err(std::io::Error::other);
    let inputs = inputs.context("use", MANIFEST)?;
    let staging = StagingDirectory::open_standing(state.as_fd(), FILES, PATIENCE)?;
    let (uid, gid) = owner;
    let header = Header {
        inputs: Digest::of(&manifest),
        owner: Caller { uid, gid },
        born: process::now(),
    };
    let opened = Log::open(state.as_fd(), header).map_err(std::io::Error::other);
    let (mut log, saved) = opened.context("go on with", "the saved view")?;
    log.replace_above(upkeep.small);
    let is_new = saved.facts.is_empty();
    let owners = is_new.then(|| read(state.as_fd(), OWNERS)).transpose()?;
    let standing = Standing {
        log: Arc::new(log),
        mount,
    };
    let (store, staging, tree) = (Arc::new(store), Arc::new(staging), inputs.tree.clone());
    let job = Job::restored(store, staging, tree, policy, standing, saved)?;
    if let Some(owners) = owners {
        let owners: Vec<Owned> = serde_json::from_slice(&owners)
            .map_err(std::io::Error::other)
            .context("read", OWNERS)?;
        let owned = job.own(&owners).map_err(std::io::Error::other);
        owned.context("use", OWNERS)?;
    }
    Ok((job, lease))
}

/// In what a mount differs from a job's view.
fn policy() -> Policy {
    Policy {
        inputs: InputPolicy::CopyOnWrite,
        permissions: Permissions::Kernel,
        atime: AtimePolicy::Relative,
        extended: true,
        root_keeps_privileges: process::is_in_first_user_namespace(),
        directory_atime: true,
        order: Order::Plain,
    }
}

fn read(directory: BorrowedFd<'_>, name: &str) -> cas::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty());
    let mut bytes = Vec::new();
    let file = file.context("open", name)?;
    let read = std::fs::File::from(file).read_to_end(&mut bytes);
    read.context("read", name).map(|_| bytes)
}

/// Waits for the end of the session, or for the order to end and its time limit.
fn wait(session: Session, origin: Origin, number: (u32, u32), stop: OwnedFd) -> cas::Result<()> {
    let (sender, ended) = channel();
    let told = sender.clone();
    spawn("session-end", move || {
        session.wait(Duration::MAX);
        let _ = sender.send(());
    })?;
    spawn("stop", move || end_on_order(&origin, number, &stop, &told))?;
    let _ = ended.recv();
    Ok(())
}

fn end_on_order(origin: &Origin, number: (u32, u32), stop: &OwnedFd, told: &Sender<()>) {
    while poll(&mut [PollFd::new(stop, PollFlags::IN)], None).is_err() {}
    match origin.detach(number) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!("told to end, and cannot unmount: {error}"),
        Ok(()) => tracing::info!("told to end: unmounted"),
    }
    std::thread::sleep(END_LIMIT);
    tracing::warn!("told to end while files were open");
    let _ = told.send(());
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> cas::Result<()> {
    let thread = std::thread::Builder::new().name(name.into());
    let spawned = thread.spawn(body).map(drop);
    spawned.map_err(|error| Error::io("start the thread", name, error))
}
