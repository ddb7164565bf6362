//! Single-purpose probes of what POSIX and Linux promise about a file system.
//!
//! Each probe is one small function that makes real system calls in an empty directory of its own,
//! with one sentence that says what must hold. [`Probe::run`] runs it in a process of its own, in
//! that directory and with a time limit, so that a probe may change its user, its limits and its
//! directory, and one that hangs or is killed is an answer too.
//!
//! What was measured with them is in `README.md` next to this file.

#[macro_use]
mod check;
mod ground;
mod process;
mod raw;

mod around;
mod attributes;
mod data;
mod links;
mod listing;
mod locks;
mod mapping;
mod names;
mod opening;
mod owners;
mod privileges;
mod renaming;
mod space;
mod times;

pub use check::{Outcome, Shortfall};
pub use ground::{Atime, Ground};

use std::time::Duration;

/// One promise and the function that tries it.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Unique; also the name of the directory in which it works.
    pub name: &'static str,
    /// What it belongs to, such as `locks`.
    pub theme: &'static str,
    /// What must hold, as a sentence without its full stop.
    pub holds: &'static str,
    attempt: fn(&Ground) -> Outcome,
}

/// How long a probe may take. The slowest takes seconds on a slow disk, so this means that it hangs.
pub const LIMIT: Duration = Duration::from_secs(20);

impl Probe {
    /// Tries the promise in a new directory of `ground`, which is removed afterwards.
    ///
    /// # Errors
    /// [`Shortfall::NotSupported`] where the file system says honestly that it does not offer this
    /// or the caller lacks what the probe needs; [`Shortfall::Failed`] with what was seen instead,
    /// also where the probe was killed, took longer than `limit` or left what cannot be removed.
    pub fn run(&self, ground: &Ground, limit: Duration) -> Outcome {
        let work = || ground.on_plot(self.name, || (self.attempt)(ground));
        process::Child::start(|| process::in_own_session(work))?.wait(Some(limit))
    }
}

/// All probes, by theme; that of the swap file is the last.
#[must_use]
pub fn all() -> Vec<Probe> {
    let themes = [
        opening::PROBES,
        owners::PROBES,
        names::PROBES,
        listing::PROBES,
        renaming::PROBES,
        links::PROBES,
        data::PROBES,
        mapping::PROBES,
        locks::PROBES,
        privileges::PROBES,
        attributes::PROBES,
        times::PROBES,
        around::PROBES,
        space::PROBES,
    ];
    themes.concat()
}
