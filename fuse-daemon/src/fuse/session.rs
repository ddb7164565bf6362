//! Serving one mounted file system until it ends.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use fuser::{Config, InitFlags, KernelConfig, SessionACL};

use crate::job::Job;

use super::JobFileSystem;
use super::passthrough::Backings;

/// What a session asks of the kernel where it offers it. Not `WRITEBACK_CACHE`: it excludes
/// passthrough and flushes at close. Not `AUTO_INVAL_DATA`: only this mount changes these files.
/// Not `HANDLE_KILLPRIV`, either version: the kernel then leaves it to the daemon to take
/// set-user-ID away when a file is written to, and with passthrough the daemon does not see the
/// write. Left alone, the kernel asks for it by a change of mode (`file_remove_privs`), which
/// passthrough writes do as well, because they do it on the file that the job has open.
const WANTED: [InitFlags; 5] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
];

/// How deep the kernel may stack file systems: 2 admits a store on overlayfs or in another
/// wakebox, at the price that nothing can be stacked on a job's view in turn.
const STACK_DEPTH: u32 = 2;

/// A file system that is being served by threads of its own.
#[derive(Debug)]
pub struct Session {
    ended: Receiver<()>,
}

impl Session {
    /// Waits until the kernel has ended the file system: no process has a file of it open any
    /// more, so nothing can be written through it. `false` if that took longer than `limit`.
    pub fn wait(&self, limit: Duration) -> bool {
        // A dropped sender means the same: the threads are gone.
        !matches!(
            self.ended.recv_timeout(limit),
            Err(RecvTimeoutError::Timeout)
        )
    }
}

/// Serves a job on a mounted `/dev/fuse`. Returns when the kernel's first request, which
/// negotiates, has been answered; the rest is done by new threads, which end with the mount.
///
/// `passthrough` allows the kernel to open backing files itself. Only for a store whose blobs are
/// reached through a read-only mount: the kernel opens them with the job's flags.
pub fn serve(job: Arc<Job>, device: OwnedFd, passthrough: bool) -> std::io::Result<Session> {
    let mut config = Config::default();
    // Requests carry ids of the job's user namespace; the mount itself admits its owner only.
    config.acl = SessionACL::All;
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .clamp(1, 8);
    // Each thread reads its own queue by a cloned descriptor, for which /dev/fuse must be there.
    config.clone_fd = threads > 1 && std::path::Path::new("/dev/fuse").exists();
    config.n_threads = Some(threads);
    let file_system = JobFileSystem::new(job);
    if !passthrough {
        file_system.backings.without_passthrough();
    }
    let session = fuser::Session::from_fd(file_system, device, config.acl, config)?;
    let (sender, ended) = sync_channel(1);
    std::thread::Builder::new()
        .name("session".into())
        .spawn(move || {
            if let Err(error) = session.run() {
                tracing::error!("a session ended with an error: {error}");
            }
            let _ = sender.send(());
        })?;
    Ok(Session { ended })
}

/// Chooses among what the kernel offers.
pub(super) fn negotiate(config: &mut KernelConfig, backings: &Backings) {
    for flag in WANTED {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!("the kernel does not offer {flag:?}");
        }
    }
    let passthrough = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok()
        && config.set_max_stack_depth(STACK_DEPTH).is_ok();
    if !passthrough {
        backings.without_passthrough();
    }
}
