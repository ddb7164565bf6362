//! Faults, injected: daemons and clients that are killed, a store whose file system is full or
//! answers with errors, and the same job again and again.
//!
//! [`Load`] keeps jobs running, and checks all that each of them says as soon as it has said it.
//! [`Kills`] kills at random moments under it, and [`Soak`] watches the daemon under it. [`Disk`] is
//! a file system that fails when told to, and knows what was flushed; [`Errors`] and [`Durable`] put
//! stores on it.

mod disk;
mod durable;
mod errors;
mod kills;
mod load;
mod soak;

pub use disk::{Disk, Fault, Unflushed};
pub use durable::Durable;
pub use errors::Errors;
pub use kills::{Kills, Victim};
pub use load::{Load, Seen};
pub use soak::{Sample, Soak};
