//! Mounts whose serving process is killed under load, again and again.
//!
//! [`work`] is one process of the load: it changes a directory of the mount at random, and writes
//! to a journal outside what it begins and what was answered. [`Trial`] mounts, has several of
//! these at work, kills, mounts the same state again and compares what is there with a [`Model`]
//! that has done all that was answered. A change is answered after it was written to the view's
//! log, so not only what was flushed must be there; of what was begun and not answered, either all
//! or nothing.

mod model;
mod random;
mod seen;
mod step;
mod trial;
mod worker;

pub use model::Model;
pub use random::Random;
pub use seen::{Seen, look};
pub use step::Step;
pub use trial::{Figures, Trial};
pub use worker::work;
