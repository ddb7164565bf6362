//! How processes end, and what they took.

use std::ffi::c_int;

/// Processor time and memory of a process and the children it waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time, in microseconds.
    pub(crate) cpu_micros: u64,
    /// The largest resident set of any one process, in bytes.
    pub(crate) max_rss_bytes: u64,
}

impl Usage {
    /// What the kernel counted.
    pub(super) fn of(usage: &libc::rusage) -> Self {
        let kib = u64::try_from(usage.ru_maxrss).unwrap_or(0);
        Self {
            cpu_micros: micros(usage.ru_utime).saturating_add(micros(usage.ru_stime)),
            max_rss_bytes: kib.saturating_mul(1024),
        }
    }

    /// Of both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            cpu_micros: self.cpu_micros.saturating_add(other.cpu_micros),
            max_rss_bytes: self.max_rss_bytes.max(other.max_rss_bytes),
        }
    }
}

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Whose, as seen by who waited.
    pub(crate) pid: c_int,
    /// As of wait(2).
    pub(crate) status: c_int,
    /// What it took.
    pub(crate) usage: Usage,
}

fn micros(time: libc::timeval) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_usec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(rest)
}
