//! The sandbox of one job: what it shall be, and how it comes to be.
//!
//! ```text
//! client --clone(user, mount, pid namespace)--> init --vfork--> command
//! ```
//!
//! * [`plan`] says everything that is to be done, as a pure value that has been checked.
//! * `prepare` turns it into C strings and arrays, while allocating is still allowed.
//! * `init` (process 1 of the job's pid namespace) carries the steps out, `view` the one
//!   that mounts the workspace, `mounts` the other mounts, `squashfs` those of images;
//!   `command` becomes the job's main process.
//! * `calls` says which system calls no job may make.
//! * `report` is what both tell the client, through one pipe.
//! * `apply` holds the system calls that Rust cannot check: the only `unsafe` here.
//!
//! Between the clone and the exec nothing may allocate, lock or panic: the client may have
//! other threads, and a lock that one of them held at the clone stays locked for ever in the
//! child. Every function that runs there takes prepared values and returns plain ones.
//!
//! Running a plan is the business of [`crate::exec`].

mod apply;
mod calls;
mod command;
mod error;
mod init;
pub mod limits;
mod mounts;
pub mod plan;
mod prepare;
mod report;
mod signals;
mod squashfs;
mod terminal;
mod usage;
mod view;

pub use error::SandboxError;
pub use signals::{SignalHold, start_hashing_threads};

pub(crate) use apply::{Namespace, default_child_signal, inherited, open_signals, reap, spawn};
pub(crate) use command::is_missing;
pub(crate) use init::{Ends, run as run_init};
pub(crate) use prepare::Prepared;
pub(crate) use report::{Report, receive};
pub(crate) use signals::STOPPING;
pub(crate) use terminal::Terminal;
pub(crate) use usage::{Ended as Reaped, Usage};

/// What the client says to init by the socket whose hang-up means that it is gone: a signal for the
/// command's process group, or that the job shall end.
pub(crate) const INTERRUPT: [u8; 1] = *b"i";
pub(crate) const QUIT: [u8; 1] = *b"q";
pub(crate) const STOP: [u8; 1] = *b"x";
/// The command may begin.
pub(crate) const GO: [u8; 1] = *b"g";

/// Has every descriptor but standard input, output and error closed by the next exec: what a
/// caller left open reaches neither a job nor the daemon.
pub fn close_inherited_on_exec() {
    // Without close_range(2), which is older than the mount calls that we need anyway, nothing
    // is lost but this tidiness.
    let _ = apply::close_all_on_exec();
}

/// What the sandbox needs to hand the mounted view to the daemon.
#[derive(Debug, Clone, Copy)]
pub struct Serve<'a> {
    /// Connected `SOCK_SEQPACKET` socket of the daemon; the job itself never has it.
    pub socket: std::os::fd::BorrowedFd<'a>,
    /// The one packet to send; the `/dev/fuse` descriptor travels with it.
    pub request: &'a [u8],
    /// The one packet that means "served". Any other answer is the daemon's reason to refuse.
    pub ack: &'a [u8],
    /// Whether the command waits for the client, when everything is mounted, to look at the mounts.
    pub waits: bool,
}
