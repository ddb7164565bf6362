//! Work done in a forked process.
#![expect(unsafe_code, reason = "fork, and _exit in the forked process")]

use std::fs::File;
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, setsid, waitpid};

use super::check::{Outcome, Shortfall, failed};

/// A forked process and the pipe through which it tells its outcome.
#[derive(Debug)]
pub(super) struct Child {
    pid: Pid,
    answer: File,
}

impl Child {
    /// Forks. The process has only the calling thread, so `work` must not wait for another one;
    /// glibc makes its allocator usable there.
    pub(super) fn start(work: impl FnOnce() -> Outcome) -> Outcome<Self> {
        let (answer, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        // SAFETY: the new process runs `work`, which takes no lock that another thread of this one
        // may have held, and ends in `_exit`: it never returns into the caller's frames.
        match unsafe { libc::fork() } {
            0 => {
                drop(answer);
                finish(writer, work)
            }
            pid => Ok(Self {
                pid: Pid::from_raw(pid.max(0)).ok_or_else(std::io::Error::last_os_error)?,
                answer: answer.into(),
            }),
        }
    }

    /// What the process found. One that takes longer than `limit` is killed with its group.
    pub(super) fn wait(mut self, limit: Option<Duration>) -> Outcome {
        match self.read_answer(limit)? {
            Some(answer) => decode(&answer, self.reap()?),
            None => {
                self.end();
                failed(format_args!(
                    "no answer in {} s",
                    limit.unwrap_or_default().as_secs()
                ))
            }
        }
    }

    /// Nothing if time is up before the process has said all or ended. What is said states its length:
    /// another thread may have forked while the pipe was open, and keep it open.
    fn read_answer(&mut self, limit: Option<Duration>) -> Outcome<Option<Vec<u8>>> {
        let start = Instant::now();
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
            let left = left.and_then(|left| Timespec::try_from(left).ok());
            match poll(
                &mut [PollFd::new(&self.answer, PollFlags::IN)],
                left.as_ref(),
            ) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            match self.answer.read(&mut buffer)? {
                0 => return Ok(Some(answer)),
                count => answer.extend_from_slice(&buffer[..count]),
            }
            if said(&answer).is_some() {
                return Ok(Some(answer));
            }
        }
    }

    fn reap(&self) -> Outcome<Option<WaitStatus>> {
        Ok(waitpid(Some(self.pid), WaitOptions::empty())?.map(|(_, status)| status))
    }

    /// Kills the group. A process that hangs in the kernel does not die: it is not waited for.
    fn end(&self) {
        // Nothing can be done about a group that is gone already.
        let _ = kill_process_group(self.pid, Signal::KILL);
        for _ in 0..50 {
            if !matches!(waitpid(Some(self.pid), WaitOptions::NOHANG), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Does `work` in a forked process and waits for it.
pub(super) fn in_child(work: impl FnOnce() -> Outcome) -> Outcome {
    Child::start(work)?.wait(None)
}

/// The signal that ended a forked process which did `work`, if one did.
pub(super) fn signal_of(work: impl FnOnce()) -> Outcome<Option<i32>> {
    let child = Child::start(|| {
        work();
        Ok(())
    })?;
    Ok(child.reap()?.and_then(WaitStatus::terminating_signal))
}

/// Makes this process the leader of a session and group, so that it can be ended with all that it
/// starts, and then does `work`.
pub(super) fn in_own_session(work: impl FnOnce() -> Outcome) -> Outcome {
    setsid()?;
    work()
}

fn finish(writer: OwnedFd, work: impl FnOnce() -> Outcome) -> ! {
    let panicked = || Err(Shortfall::Failed("the probe panicked".to_owned()));
    let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| panicked());
    // If nobody listens any more, nobody needs it.
    let _ = File::from(writer).write_all(&encode(&outcome));
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(0) }
}

fn encode(outcome: &Outcome) -> Vec<u8> {
    let (kind, text) = match outcome {
        Ok(()) => (b'o', ""),
        Err(Shortfall::NotSupported(reason)) => (b'n', reason.as_str()),
        Err(Shortfall::Failed(what)) => (b'f', what.as_str()),
    };
    let length = (1 + text.len() as u32).to_le_bytes();
    [&length[..], &[kind], text.as_bytes()].concat()
}

/// What was said, if it is there as a whole.
fn said(answer: &[u8]) -> Option<&[u8]> {
    let (length, said) = answer.split_first_chunk()?;
    said.get(..u32::from_le_bytes(*length) as usize)
}

fn decode(answer: &[u8], status: Option<WaitStatus>) -> Outcome {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    match said(answer) {
        Some([b'o']) => Ok(()),
        Some([b'n', reason @ ..]) => Err(Shortfall::NotSupported(text(reason))),
        Some([b'f', what @ ..]) => failed(text(what)),
        _ => match status.and_then(WaitStatus::terminating_signal) {
            Some(signal) => failed(format_args!("ended by signal {signal}")),
            None => failed("ended without an answer"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_comes_back_as_it_was() {
        let not = || Err(Shortfall::NotSupported("no such thing".to_owned()));
        assert_eq!(in_child(|| Ok(())), Ok(()));
        assert_eq!(in_child(not), not());
        assert_eq!(
            in_child(|| failed("x".repeat(100_000))),
            failed("x".repeat(100_000))
        );
    }

    #[test]
    fn a_process_that_is_killed_or_panics_is_a_failure() {
        assert_eq!(
            in_child(|| std::process::abort()),
            failed("ended by signal 6")
        );
        assert_eq!(signal_of(|| std::process::abort()), Ok(Some(6)));
        assert_eq!(
            in_child(|| panic!("on purpose")),
            failed("the probe panicked")
        );
    }

    #[test]
    fn a_process_that_hangs_ends_with_all_that_it_started() {
        let dir = tempfile::tempdir().expect("a directory");
        let lock = dir.path().join("held");
        let hang = || {
            let file = File::create(&lock)?;
            file.lock()?;
            in_child(|| {
                loop {
                    std::thread::park();
                }
            })
        };
        let child = Child::start(|| in_own_session(hang)).expect("a process");
        let found = child.wait(Some(Duration::from_secs(1)));
        assert_eq!(found, failed("no answer in 1 s"));
        // The lock belongs to the open file, which the inner process had as well.
        let file = File::open(&lock).expect("the file");
        let free = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            file.try_lock().is_ok()
        });
        assert!(free, "a process lives on");
    }
}
