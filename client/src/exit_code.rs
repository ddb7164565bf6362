//! Exit codes: an interface that scripts rely on.
//!
//! | code | means |
//! |---|---|
//! | the job's | the job ran; with `-I` it is 0 instead, and the result tells |
//! | 1 | `-p` or a bare command: wrong usage or an invalid spec; nothing ran. No arguments at all |
//! | 1 | `run`: the job ended with 0 and did not make an output that was asked for |
//! | 1 | `check`: outputs differ. `learn --check`: a path that was absent exists, or a listing changed |
//! | 1 | `cas has`, `cas verify`: a blob is missing or corrupt |
//! | 1 | `fsck`: a blob is corrupt, or one that a root names is missing |
//! | 1 | `doctor`: jobs cannot run here |
//! | 2 | subcommand: wrong usage; nothing ran |
//! | 1 | `mount`: wrong usage; nothing was done |
//! | 2 | `mount`: a system error: the state, the store or the inputs cannot be had |
//! | 32 | `mount`: the mount failed |
//! | 124 | the time limit passed and the job was killed (with `-I`: 0) |
//! | 125 | the sandbox, the daemon or the store failed; with `-I`, too |
//! | 126 | the command exists and cannot be run |
//! | 127 | there is no such command |
//! | 128 + n | the job was killed by signal n, or the call itself was told to stop by it (with `-I`, too, and no result is written) |
//!
//! The codes of `mount` are those that mount(8) expects of its helpers. Codes 126 and 127 say what a shell would say. With `-I` they are the job's, so the call's own
//! code is 0 and `usage.status` has them.

use crate::exec::{Ended, Status};

/// Wrong usage of the original's command line, or an invalid spec.
pub const ORIGINAL_USAGE: u8 = 1;
/// Wrong usage of a subcommand.
pub const USAGE: u8 = 2;
/// The job did not make an output that was asked for.
pub const NOT_MADE: u8 = 1;
/// A question that was answered with no: `cas has`, `cas verify`, `check`, `doctor`, `fsck`,
/// `learn --check`.
pub const NO: u8 = 1;
/// `mount`: wrong usage.
pub const MOUNT_USAGE: u8 = 1;
/// `mount`: the system refused something before the mount.
pub const MOUNT_SYSTEM: u8 = 2;
/// `mount`: the mount failed.
pub const MOUNT_FAILED: u8 = 32;
/// The time limit passed.
pub const TIMED_OUT: u8 = 124;
/// The sandbox, the daemon or the store failed. Never the job's own doing.
pub const SANDBOX: u8 = 125;
/// The command cannot be run.
pub const CANNOT_RUN: u8 = 126;
/// There is no such command.
pub const NOT_FOUND: u8 = 127;

/// The exit code for a job that has run, or has failed to start its command.
pub fn of_job(ended: &Ended) -> u8 {
    match (stopped(ended), &ended.status) {
        (Some(signal), _) => of_signal(signal),
        _ if ended.timed_out => TIMED_OUT,
        (None, Status::Exited(code)) => *code,
        (None, Status::Signaled(signal)) => of_signal(*signal),
        (None, Status::NotFound) => NOT_FOUND,
        (None, Status::CannotRun(_)) => CANNOT_RUN,
    }
}

/// The signal that made us kill the job. SIGINT and SIGQUIT are none: the job had them, from the
/// terminal or through us, and what it made of them is its status.
pub fn stopped(ended: &Ended) -> Option<i32> {
    ended
        .interrupted
        .filter(|signal| [libc::SIGTERM, libc::SIGHUP].contains(signal))
}

/// `usage.status` of the result: the exit code, or minus the signal.
pub fn result_status(ended: &Ended) -> i32 {
    match &ended.status {
        _ if ended.timed_out => TIMED_OUT.into(),
        Status::Exited(code) => (*code).into(),
        Status::Signaled(signal) => -signal,
        Status::NotFound => NOT_FOUND.into(),
        Status::CannotRun(_) => CANNOT_RUN.into(),
    }
}

/// The exit code for a signal, of the job or of the call itself.
pub fn of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(SANDBOX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn ended(status: Status) -> Ended {
        let (cpu, wall) = (Duration::ZERO, Duration::ZERO);
        Ended {
            status,
            timed_out: false,
            cpu,
            max_rss_bytes: 0,
            wall,
            interrupted: None,
        }
    }

    #[test]
    fn every_end_has_its_documented_code() {
        let cases = [
            (ended(Status::Exited(0)), 0, 0),
            (ended(Status::Exited(255)), 255, 255),
            (ended(Status::Signaled(9)), 137, -9),
            (ended(Status::NotFound), 127, 127),
            (ended(Status::CannotRun(13)), 126, 126),
            (
                Ended {
                    timed_out: true,
                    ..ended(Status::Signaled(9))
                },
                124,
                124,
            ),
            (
                Ended {
                    interrupted: Some(2),
                    ..ended(Status::Exited(3))
                },
                3,
                3,
            ),
            (
                Ended {
                    interrupted: Some(15),
                    ..ended(Status::Signaled(9))
                },
                143,
                -9,
            ),
        ];
        for (ended, code, status) in cases {
            assert_eq!(
                (of_job(&ended), result_status(&ended)),
                (code, status),
                "{ended:?}"
            );
        }
    }
}
