//! What contenders leave mounted.
//!
//! As root, wake's own runner leaves a `/proc` on top of `/proc` for each job. After a thousand jobs
//! every new mount namespace is a copy with a thousand mounts more, and whoever is measured next looks
//! four times as slow as he is.

use std::fs;

use rustix::mount::{UnmountFlags, unmount};

const PROC: &str = "/proc";

/// How many file systems are mounted on `/proc`, one over the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mounted(usize);

impl Mounted {
    pub(crate) fn now() -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self(on_proc(&table))
    }

    /// Unmounts what has come since.
    pub(crate) fn restore(self) {
        for _ in self.0..Self::now().0 {
            let _left = unmount(PROC, UnmountFlags::DETACH);
        }
    }
}

/// The fifth field of a line is where something is mounted.
fn on_proc(table: &str) -> usize {
    let places = table.lines().filter_map(|line| line.split(' ').nth(4));
    places.filter(|place| *place == PROC).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_on_proc_counts() {
        let table = "1 0 8:1 / / rw - ext4 /dev/sda rw\n\
                     2 1 0:5 / /proc rw - proc proc rw\n\
                     3 2 0:6 / /proc rw - proc proc rw\n\
                     4 2 0:7 / /proc/sys ro - proc proc rw\n";
        assert_eq!(on_proc(table), 2);
    }
}
