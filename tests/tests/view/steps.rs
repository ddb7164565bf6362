//! Operations and what is expected of them.

use wakebox_tests::operated::{Job, Operated};
use wakebox_tests::operation::{Operation, text};

/// What an operation is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// To work.
    Done,
    /// To work and tell exactly this.
    Told(&'static str),
    /// To fail with this errno.
    Refused(i32),
}

pub(crate) use Expect::{Done, Refused, Told};

pub(crate) const READ: i32 = libc::O_RDONLY;
pub(crate) const WRITE: i32 = libc::O_WRONLY;
pub(crate) const BOTH: i32 = libc::O_RDWR;
pub(crate) const CREATE: i32 = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;

pub(crate) fn job() -> Job {
    Job::new(env!("CARGO_BIN_EXE_operate"))
}

/// Runs steps in a job and insists on each.
#[track_caller]
pub(crate) fn check(job: &Job, steps: &[(Operation, Expect)]) -> Operated {
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

pub(crate) fn open(slot: usize, path: &str, flags: i32) -> Operation {
    create(slot, path, flags, 0o644)
}

pub(crate) fn create(slot: usize, path: &str, flags: i32, mode: u32) -> Operation {
    Operation::Open {
        slot,
        path: text(path),
        flags: flags as u32,
        mode,
    }
}

pub(crate) fn close(slot: usize) -> Operation {
    Operation::Close { slot }
}

pub(crate) fn write(slot: usize, length: usize) -> Operation {
    Operation::Write {
        slot,
        length,
        byte: b'w',
    }
}

pub(crate) fn stat(path: &str) -> Operation {
    Operation::Stat {
        path: text(path),
        follow: false,
    }
}

pub(crate) fn list(path: &str) -> Operation {
    Operation::List { path: text(path) }
}

pub(crate) fn unlink(path: &str) -> Operation {
    Operation::Unlink { path: text(path) }
}

pub(crate) fn mkdir(path: &str) -> Operation {
    Operation::MakeDirectory {
        path: text(path),
        mode: 0o755,
    }
}

pub(crate) fn rmdir(path: &str) -> Operation {
    Operation::RemoveDirectory { path: text(path) }
}

pub(crate) fn link(from: &str, to: &str) -> Operation {
    Operation::Link {
        from: text(from),
        to: text(to),
    }
}

pub(crate) fn symlink(target: &str, path: &str) -> Operation {
    Operation::Symlink {
        target: text(target),
        path: text(path),
    }
}

pub(crate) fn rename(from: &str, to: &str, flags: u32) -> Operation {
    Operation::Rename {
        from: text(from),
        to: text(to),
        flags,
    }
}

pub(crate) fn same(path: &str, other: &str) -> Operation {
    Operation::Same {
        path: text(path),
        other: text(other),
    }
}

pub(crate) fn chmod(path: &str, mode: u32) -> Operation {
    Operation::Chmod {
        path: text(path),
        mode,
    }
}

pub(crate) fn chown(path: &str) -> Operation {
    Operation::Chown { path: text(path) }
}

pub(crate) fn set_times(path: &str, mtime: i64) -> Operation {
    Operation::SetTimes {
        path: text(path),
        atime: Some(mtime),
        mtime: Some(mtime),
    }
}

pub(crate) fn truncate(path: &str) -> Operation {
    Operation::Truncate {
        path: text(path),
        size: 0,
    }
}

pub(crate) fn access(path: &str, mode: i32) -> Operation {
    Operation::Access {
        path: text(path),
        mode: mode as u32,
    }
}

pub(crate) fn attribute(path: &str) -> Operation {
    Operation::Attribute { path: text(path) }
}

pub(crate) fn execute(path: &str) -> Operation {
    Operation::Execute { path: text(path) }
}

pub(crate) fn map(slot: usize, at: u64, sync: bool) -> Operation {
    Operation::Map {
        slot,
        at,
        byte: b'm',
        sync,
    }
}
