//! Bytes and their names: the content-addressed store of wakebox, and the documents that name
//! what is in it.
//!
//! # On disk
//!
//! ```text
//! <root>/
//!   blobs/<2 hex>/<62 hex>   one file per content, named by its BLAKE3 hash, mode 0444
//!   staging/<job>/<number>   files being written, flat, one directory per job or import
//!   staging/<job>/manifest.json   what those are, until the result says it
//!   staging/<job>/inputs     the manifest of a job that runs, for garbage collectors
//!   staging/<job>/inputs.hash     which manifest, where that is one of the index
//!   index/<workspace>        what was hashed before, by device, inode, size and times
//!   index/manifests/<hash>   the inputs of large jobs
//!   pins/<name>              files that name blobs to be kept, or links to such files
//!   wakebox-store            says that the store is wakebox's own, and may be collected
//!   generation               how often blobs were removed
//! ```
//!
//! # What may be relied on
//!
//! - **A blob never changes.** It appears under its name by `rename` when it is whole, and from
//!   then on nobody writes to it. No other path ever shares its inode: nothing is hard-linked in
//!   or out, because an edit of the other name would change the blob.
//! - **Processes coexist without locks.** Two that insert the same content race for one rename;
//!   the first wins and the second removes its copy. Staging directories have names of their own.
//! - **Nobody deletes blobs but a garbage collector.** What is used meanwhile it leaves alone, see
//!   [`hold`]. A job whose input vanished all the same is told which.
//!
//! # The map
//!
//! [`store`] finds and inserts [`blob`]s, by way of [`staging`] files and [`copy`]. [`digest`] and
//! [`name`] are the two values that everything else is made of. A [`manifest`] is what a job
//! declares; with the sizes of its blobs it becomes a [`tree`], which the store can hold, too, as
//! objects of its [`directory`]s. A [`report`] is what the job did, and [`changes`] the part of it that is
//! about inputs. A [`delta`] is what makes the next stored tree of the one that the job started from.
//! A [`record`] is all that the job touched, if that was asked for.
//! [`owners`] is what a mount that lasts is told besides.
//! [`recovery`] is the report left in the staging directory for when nobody is left to read it.
//! [`protocol`] is how the two travel between client and daemon, and [`text`] how file names that
//! are no text stand in JSON.
//!
//! [`kept`] is what is said of a failed job that stays, and [`look`] is how a job is looked into while it runs.
//!
//! [`hold`] keeps users of a store and its collector apart, and [`gc`] is the collector.
//!
//! [`durable`] is what is to be on disk before somebody relies on it.
//! [`parallel`] is how many files are dealt with at once.
//!
//! This crate knows nothing of jobs' lives, of FUSE or of processes.

pub mod blob;
pub mod changes;
pub mod copy;
pub mod delta;
pub mod digest;
pub mod directory;
pub mod durable;
pub mod error;
pub mod fsck;
pub mod gc;
pub mod hold;
pub mod kept;
pub mod look;
pub mod manifest;
pub mod name;
mod own;
pub mod owners;
pub mod parallel;
pub mod protocol;
pub mod record;
pub mod recovery;
pub mod report;
pub mod staging;
pub mod store;
pub mod text;
pub mod tree;

pub use digest::Digest;
pub use error::{Error, Result};
pub use name::{Name, NameBuf, RelPath};
pub use store::Store;
