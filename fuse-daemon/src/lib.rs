//! The daemon: per job, a view of declared inputs, served over FUSE.
//!
//! # The map
//!
//! ```text
//! daemon (wiring)
//!   ├─► fuse ────┐
//!   └─► control ─┴─► registry → job → { files → cas (bytes)
//!                                     { log   → view, cas (staging)
//!                                     { view  → cas (values)
//! ```
//!
//! - [`view`] is what one job sees and has made: pure, no I/O, no clock, no threads, no FUSE.
//! - [`job`] adds the bytes (blobs and staging files) and the one lock.
//! - [`log`] keeps a view that outlives the daemon: what differs from its inputs, on disk.
//! - [`fuse`] is the kernel's side and the only place that speaks its protocol: decode, one call, reply.
//! - [`control`] is the client's side: requests in, replies out, descriptors passed.
//! - [`registry`] knows the jobs, and by [`known`] the manifests and stored trees that were seen.
//! - [`mounts`] is how the daemon reaches the store: blobs through a read-only mount.
//! - [`memory`] is a setting of the allocator, [`process`] what else a serving process sets.
//! - [`daemon`] wires them up, listens, and ends when it has been idle.
//! - [`standing`] serves one view that outlives jobs: `wakebox mount`; [`origin`] is how it finds
//!   back to the mount table that it was started from.
//!
//! Arrows never turn back; `fuse` and `control` do not know each other.
//!
//! # The flows
//!
//! *Register:* manifest digest → known tree, or bytes → tree → [`job::Job`]; a stored tree that a
//! manifest names is loaded once and shared. *Serve:* the client's
//! child mounts and sends `/dev/fuse`; threads serve it until the kernel ends it, which is when
//! the last process of the job is gone. *Lookup:* view, under the lock, to a reply that is valid
//! for ever. *Open:* the view decides, the blob or staging file is opened without the lock and
//! handed to the kernel as a backing file, or read here where the kernel does not allow that.
//! *Finish:* the file system has ended, so nothing can be written any more; the view reports.
//!
//! # Locks, whole and complete
//!
//! 1. The registry's maps and a job's maps of open files (dashmap): held to read or change one
//!    entry. No guard escapes, and none is held while another lock is taken.
//! 2. A job's view (mutex): never held over I/O, never two at once. What a change lets go of is
//!    dropped after it, because that may unlink files.
//! 3. A session's list of idle backing files, the table of what is known: leaves.
//! 4. A log's three, in the order that [`log`] says; only a leaf of them under a view's lock.
//! 5. One mutex per stored tree that is being loaded: held over that I/O, for nobody but those who
//!    want the same tree. Of the others only leaves are taken under it.
//!
//! A poisoned view is a bug in pure code: that job answers EIO and its result says so; the daemon
//! and all other jobs live.

pub mod control;
pub mod daemon;
pub mod found;
pub mod fuse;
pub mod job;
pub mod known;
pub mod log;
pub mod memory;
pub mod mounts;
pub mod origin;
pub mod process;
pub mod registry;
pub mod standing;
pub mod view;
