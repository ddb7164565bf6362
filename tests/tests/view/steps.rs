//! Operations and what is expected of them.

use wakebox_tests::operated::{Job, Operated};
use wakebox_tests::operation::{Operation, text};

/// What an operation is to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    /// To work.
    Done,
    /// To work and tell exactly this.
    Told(&'static str),
    /// To fail with this errno.
    Refused(i32),
}

pub(super) use Expect::{Done, Refused, Told};

pub(super) const READ: i32 = libc::O_RDONLY;
pub(super) const WRITE: i32 = libc::O_WRONLY;
pub(super) const BOTH: i32 = libc::O_RDWR;
pub(super) const CREATE: i32 = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;

pub(super) fn job() -> Job {
    Job::new(env!("CARGO_BIN_EXE_operate"))
}

/// Runs steps in a job and insists on each.
#[track_caller]
pub(super) fn check(job: &Job, steps: &[(Operation, Expect)]) -> Operated {
    let operations: Vec<_> = steps
        .iter()
        .map(|(operation, _)| operation.clone())
        .collect();
    let operated = job.run(&operations, None);
    for ((operation, expect), outcome) in steps.iter().zip(&operated.view) {
        let met = match (expect, outcome) {
            (Done, Ok(_)) => true,
            (Told(expected), Ok(told)) => expected == told,
            (Refused(expected), Err(errno)) => expected == errno,
            _ => false,
        };
        assert!(
            met,
            "{operation:?}: {expect:?}, but {outcome:?}, as user {}",
            job.user
        );
    }
    operated
}

pub(super) fn open(slot: usize, path: &str, flags: i32) -> Operation {
    create(slot, path, flags, 0o644)
}

pub(super) fn create(slot: usize, path: &str, flags: i32, mode: u32) -> Operation {
    Operation::Open {
        slot,
        path: text(path),
        flags: flags as u32,
        mode,
    }
}

pub(super) fn close(slot: usize) -> Operation {
    Operation::Close { slot }
}

pub(super) fn write(slot: usize, length: usize) -> Operation {
    Operation::Write {
        slot,
        length,
        byte: b'w',
    }
}

pub(super) fn stat(path: &str) -> Operation {
    Operation::Stat {
        path: text(path),
        follow: false,
    }
}

pub(super) fn list(path: &str) -> Operation {
    Operation::List { path: text(path) }
}

pub(super) fn unlink(path: &str) -> Operation {
    Operation::Unlink { path: text(path) }
}

pub(super) fn mkdir(path: &str) -> Operation {
    Operation::MakeDirectory {
        path: text(path),
        mode: 0o755,
    }
}

pub(super) fn rmdir(path: &str) -> Operation {
    Operation::RemoveDirectory { path: text(path) }
}

pub(super) fn link(from: &str, to: &str) -> Operation {
    Operation::Link {
        from: text(from),
        to: text(to),
    }
}

pub(super) fn symlink(target: &str, path: &str) -> Operation {
    Operation::Symlink {
        target: text(target),
        path: text(path),
    }
}

pub(super) fn rename(from: &str, to: &str, flags: u32) -> Operation {
    Operation::Rename {
        from: text(from),
        to: text(to),
        flags,
    }
}

pub(super) fn same(path: &str, other: &str) -> Operation {
    Operation::Same {
        path: text(path),
        other: text(other),
    }
}

pub(super) fn chmod(path: &str, mode: u32) -> Operation {
    Operation::Chmod {
        path: text(path),
        mode,
    }
}

pub(super) fn chown(path: &str) -> Operation {
    Operation::Chown { path: text(path) }
}

pub(super) fn set_times(path: &str, mtime: i64) -> Operation {
    Operation::SetTimes {
        path: text(path),
        atime: Some(mtime),
        mtime: Some(mtime),
    }
}

pub(super) fn truncate(path: &str) -> Operation {
    Operation::Truncate {
        path: text(path),
        size: 0,
    }
}

pub(super) fn access(path: &str, mode: i32) -> Operation {
    Operation::Access {
        path: text(path),
        mode: mode as u32,
    }
}

pub(super) fn attribute(path: &str) -> Operation {
    Operation::Attribute { path: text(path) }
}

pub(super) fn execute(path: &str) -> Operation {
    Operation::Execute { path: text(path) }
}

pub(super) fn map(slot: usize, at: u64, sync: bool) -> Operation {
    Operation::Map {
        slot,
        at,
        byte: b'm',
        sync,
    }
}
