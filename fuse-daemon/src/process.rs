//! What every serving process sets for itself, and its clock.

use std::ffi::CStr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::view::Time;

/// Prepares a process that will serve. Must be called before it has a second thread.
pub fn prepare(name: &CStr) {
    let _ = rustix::thread::set_name(name);
    crate::memory::map_large_buffers();
    raise_descriptor_limit();
}

/// As many descriptors as the system allows: the process serves everyone who uses its mounts, and
/// its limit must never become theirs.
fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    let _ = setrlimit(Resource::Nofile, all);
}

/// Whether user 0 here is the machine's root: the user namespace is the first one.
pub fn is_in_first_user_namespace() -> bool {
    // `USER_NS_INIT_INO` of linux/nsfs.h; it has been this number since Linux 3.8.
    const FIRST: u64 = 0xefff_fffd;
    rustix::fs::stat("/proc/self/ns/user").is_ok_and(|is| is.st_ino == FIRST)
}

/// The clock for times that users of a view see: the one by which file systems stamp changes.
pub fn now() -> Time {
    read(ClockId::RealtimeCoarse)
}

/// The clock for records, where what is a microsecond later shall be seen to be: the other one
/// stands still for some milliseconds at a time.
pub fn precise_now() -> Time {
    read(ClockId::Realtime)
}

fn read(clock: ClockId) -> Time {
    let now = clock_gettime(clock);
    Time {
        seconds: now.tv_sec,
        nanoseconds: now.tv_nsec as u32,
    }
}
