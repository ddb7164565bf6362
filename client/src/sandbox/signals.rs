//! The signals that a client handles by reading them, while a job runs.

use std::ffi::c_int;
use std::marker::PhantomData;

use super::apply::SignalSet;

/// The signals that ask a client to stop.
pub(crate) const STOPPING: [c_int; 4] = [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT];

/// Keeps SIGTERM, SIGHUP, SIGINT and SIGQUIT from the calling thread until it is dropped.
///
/// [`crate::exec::start`] takes one for itself. A client with other threads takes one in
/// `main` before it starts them: threads inherit the mask, and a signal to the process goes
/// to any thread that does not block it and would end the client without a result.
#[derive(Debug)]
#[must_use = "the signals are let in again when this is dropped"]
pub struct SignalHold {
    previous: SignalSet,
    /// A mask belongs to a thread.
    _thread: PhantomData<*const ()>,
}

impl SignalHold {
    /// Blocks the signals.
    pub fn new() -> Self {
        Self {
            previous: SignalSet::of(&STOPPING).block(),
            _thread: PhantomData,
        }
    }

    /// SIGTERM or SIGHUP, if it was raised and has been kept so far. The others come from a
    /// terminal, and are for the job to judge.
    pub fn kept(&self) -> Option<i32> {
        let raised = SignalSet::pending();
        let told = [libc::SIGTERM, libc::SIGHUP];
        told.into_iter().find(|signal| raised.has(*signal))
    }

    /// Lets none of them in any more: the process has nothing left to do but to end.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

/// Starts the threads that hash in parallel. They keep the stopping signals from themselves, so
/// that such a signal always reaches the main thread, which knows what to do with it.
pub fn start_hashing_threads() {
    let hold = |_| std::mem::forget(SignalHold::new());
    // An error means that the threads run already.
    let _ = rayon::ThreadPoolBuilder::new()
        .start_handler(hold)
        .build_global();
}

impl Default for SignalHold {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for SignalHold {
    fn drop(&mut self) {
        self.previous.set();
    }
}
