//! The kernel's side: a request is decoded, makes one call on the [`Job`], and is replied to.
//!
//! ```text
//! session ─► device (read) ─► request ─► dispatch ─► job
//!               ▲                           │
//!               └────────── reply ◄─────────┘
//! ```
//!
//! - `abi` is the protocol: words, numbers, flags.
//! - `request` and `reply` decode and encode: pure, and total.
//! - `device` is `/dev/fuse`: one `read` and one `write` per request, nothing else.
//! - `session` negotiates, runs the threads, counts, and ends; `interrupt` is how. `placement` is
//!   where the threads run.
//! - `dispatch` and `extended` are one short method per operation; `convert` and `errno` translate
//!   for them.
//! - `listing` lists directories; `passthrough` is what backs opened files.
//!
//! # What the kernel may keep, and why
//!
//! Only this mount changes this view, so whatever the kernel was told stays true until the kernel
//! itself changes it. Names (present and absent) and attributes are therefore valid for ever, and
//! listings are cached with their directory. The exceptions are attributes of a file that may still
//! be written through a mapping (see [`Stat::settled`](crate::job::Stat)), and listings that the
//! kernel would take for whole although they are not (`listing`).
//!
//! # What is not here
//!
//! What no view of a job has (extended attributes, inode flags), and what nothing needs (flushing
//! at close, opening a directory that nobody is refused) is answered ENOSYS, which ends each kind
//! of request for good: the kernel then says EOPNOTSUPP or ENOTTY by itself, or that all is well.

mod abi;
mod convert;
mod descriptors;
mod device;
mod dispatch;
mod errno;
mod extended;
mod interrupt;
mod listing;
mod passthrough;
mod placement;
mod reply;
mod request;
mod session;

use std::sync::Arc;

use crate::job::Job;

use device::Device;
use passthrough::Backings;
pub use session::{Answerer, Session, serve};

/// A job as the kernel sees it.
#[derive(Debug)]
struct JobFileSystem {
    job: Arc<Job>,
    /// Before the backing files: when it is closed, they are let go of all at once.
    device: Arc<Device>,
    backings: Backings,
}
