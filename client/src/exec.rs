//! Running a plan: start the sandbox, wait for its end, stop it when asked to.
//!
//! Two promises. When [`Running::wait`] returns, no process of the job is left. And when the
//! client ends in any way at all, SIGKILL included, neither is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process, pidfd_send_signal};

use crate::error::say;
use crate::host;
use crate::sandbox::plan::{Draft, Plan};
use crate::sandbox::{
    Ends, GO, INTERRUPT, Prepared, QUIT, Reaped, Report, STOP, STOPPING, Terminal, Usage,
    default_child_signal, is_missing, open_signals, reap, receive, run_init, spawn,
};
pub use crate::sandbox::{SandboxError, Serve, SignalHold};

/// How long init may take to kill a job before it is killed together with it.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};

/// How long a killed job may take to end before its daemon is looked at.
const STOPPED_LIMIT: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// How the main process of a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It exited with this code.
    Exited(u8),
    /// A signal ended it.
    Signaled(i32),
    /// There was no such program.
    NotFound,
    /// The program could not be executed, for this errno.
    CannotRun(i32),
}

/// The end of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How its main process ended. `Signaled(9)` for a job that was stopped.
    pub status: Status,
    /// Whether it was killed for taking longer than the limit.
    pub timed_out: bool,
    /// User and system time of the main process and of the children it waited for; of all
    /// processes of the job when they were killed.
    pub cpu: Duration,
    /// The largest resident set of any one of these processes, in bytes. At least that of the
    /// client at its clone: the kernel counts what a process had before its exec.
    pub max_rss_bytes: u64,
    /// From [`start`] to the end of the last process, set-up included.
    pub wall: Duration,
    /// The last signal that told the client to stop. After SIGTERM and SIGHUP the job was
    /// killed; SIGINT and SIGQUIT reached the job, from the terminal or through us, and it chose for
    /// itself.
    pub interrupted: Option<i32>,
}

/// A job that was started. Dropping it kills all its processes.
#[derive(Debug)]
#[must_use = "a job that is not waited for is killed"]
pub struct Running {
    pid: Pid,
    pidfd: OwnedFd,
    report: OwnedFd,
    /// Its hang-up tells init that the client is gone, a byte that the job shall end.
    alive: OwnedFd,
    signals: OwnedFd,
    plan: Draft,
    started: Instant,
    /// Whether the command is in a process group of its own.
    own_group: bool,
    reaped: bool,
    /// The first report, if it was read before the job ended.
    early: Option<Report>,
    /// Taken back when all processes of the job are gone.
    _terminal: Option<Terminal>,
    /// Last, so that the signals come through only when everything else was cleaned up. It
    /// also keeps this value on its thread, with which the job dies (`PR_SET_PDEATHSIG`).
    _hold: SignalHold,
}

/// Starts a job; returns as soon as its first process exists. Errors of the set-up are
/// therefore those of [`Running::wait`].
///
/// The job dies with the calling thread, which should be the client's main one. SIGTERM,
/// SIGHUP, SIGINT and SIGQUIT are kept from that thread until the job was waited for, and
/// SIGCHLD gets its default disposition in this process.
///
/// # Errors
/// A plan with a view but no `serve`; no pipe; no namespaces.
pub fn start(plan: &Plan, serve: Option<Serve<'_>>) -> Result<Running, SandboxError> {
    let started = Instant::now();
    let hold = SignalHold::new();
    let terminal = Terminal::of_client();
    let prepared = Prepared::new(plan, serve)?;
    let signals = open_signals(&STOPPING).map_err(client("cannot listen for signals"))?;
    let (report, report_in) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
        .map_err(client("cannot make a pipe"))?;
    let (alive_in, alive) = control_pair().map_err(client("cannot make a socket pair"))?;
    default_child_signal();
    let ends = Ends {
        report: report_in,
        alive: alive_in,
    };
    let own_group = prepared.has_own_group();
    let (pid, pidfd) = spawn(prepared.namespaces(), move || {
        // Owned here, so that the client's copies are closed when this is dropped there.
        let ends = ends;
        run_init(&prepared, &ends)
    })
    .map_err(client("cannot make the namespaces of the job"))?;
    tracing::debug!(pid = pid.as_raw_pid(), "started");
    Ok(Running {
        pid,
        pidfd,
        report,
        alive,
        signals,
        plan: plan.contents().clone(),
        started,
        own_group,
        reaped: false,
        early: None,
        _terminal: terminal,
        _hold: hold,
    })
}

/// Sockets rather than a pipe: writing to one whose reader has just died raises no SIGPIPE.
fn control_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Why the client stopped watching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    TreeEnded,
    TimedOut,
    DaemonGone,
    Told,
}

impl Running {
    /// Waits for the end of the whole tree.
    ///
    /// `limit` is wall time since [`start`]; a job that takes longer is killed. `daemon` is a
    /// socket whose hang-up kills it; nothing is read from it.
    ///
    /// # Errors
    /// A set-up that failed, a daemon that refused or hung up, a first process that was lost.
    /// In each case all processes of the job are dead.
    pub fn wait(
        self,
        limit: Option<Duration>,
        daemon: Option<BorrowedFd<'_>>,
    ) -> Result<Ended, SandboxError> {
        self.wait_watching(limit, daemon, None)
    }

    /// As [`Running::wait`]. With a `host`, which needs a plan whose command waits, what the job
    /// opens beside its view is looked at from the start.
    ///
    /// # Errors
    /// As of [`Running::wait`].
    pub fn wait_watching(
        mut self,
        limit: Option<Duration>,
        daemon: Option<BorrowedFd<'_>>,
        host: Option<&mut host::Watch>,
    ) -> Result<Ended, SandboxError> {
        let deadline = limit.and_then(|limit| self.started.checked_add(limit));
        let mut interrupted = None;
        let stop = self
            .watch(deadline, daemon, &mut interrupted, host)
            .map_err(client("cannot watch the job"))?;
        match stop {
            Stop::TreeEnded => {}
            Stop::DaemonGone => self.kill(),
            Stop::TimedOut | Stop::Told => self.ask_then_kill(),
        }
        if let Some(daemon) = daemon {
            self.kill_stopped(daemon);
        }
        let init = self.reap()?;
        let wall = self.started.elapsed();
        let end = self.judge(stop, init)?;
        tracing::debug!(?stop, ?end, ?wall, "ended");
        Ok(Ended {
            wall,
            interrupted,
            ..end
        })
    }

    /// Sleeps until something has to be done about the job.
    fn watch(
        &mut self,
        deadline: Option<Instant>,
        daemon: Option<BorrowedFd<'_>>,
        interrupted: &mut Option<i32>,
        mut host: Option<&mut host::Watch>,
    ) -> Result<Stop, Errno> {
        loop {
            let seen = self.sleep(deadline, daemon, host.is_some())?;
            if seen.reported
                && let Some(host) = host.take()
            {
                self.let_begin(host)?;
            }
            if seen.signal {
                let signal = read_signals(self.signals.as_fd())?;
                self.pass_on(signal);
                *interrupted = signal.or(*interrupted);
            }
            if let Some(stop) = decide(seen, deadline, *interrupted) {
                return Ok(stop);
            }
        }
    }

    /// Ctrl-C and its like come to the client's process group, which the command may have left.
    fn pass_on(&self, signal: Option<i32>) {
        let word = match signal {
            Some(libc::SIGINT) if self.own_group => INTERRUPT,
            Some(libc::SIGQUIT) if self.own_group => QUIT,
            _ => return,
        };
        let _ended = send(&self.alive, &word, SendFlags::NOSIGNAL);
    }

    /// Has the mounts of a job looked at that is ready, and lets it begin. Another report is left for
    /// later.
    fn let_begin(&mut self, host: &mut host::Watch) -> Result<(), Errno> {
        self.early = receive(self.report.as_fd())?;
        if self.early == Some(Report::Ready) {
            if let Err(error) = host.begin(self.pid.as_raw_pid()) {
                tracing::warn!("files of the host are not recorded: {error}");
            }
            let _ended = send(&self.alive, &GO, SendFlags::NOSIGNAL);
        }
        Ok(())
    }

    fn sleep(
        &self,
        deadline: Option<Instant>,
        daemon: Option<BorrowedFd<'_>>,
        awaits_report: bool,
    ) -> Result<Seen, Errno> {
        // Without a daemon, the place is taken by a second look at the job.
        let other = daemon.unwrap_or(self.pidfd.as_fd());
        let mut watched = [
            PollFd::new(&self.pidfd, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::from_borrowed_fd(other, PollFlags::RDHUP),
            PollFd::new(
                if awaits_report {
                    &self.report
                } else {
                    &self.pidfd
                },
                PollFlags::IN,
            ),
        ];
        match poll(&mut watched, remaining(deadline).as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Seen::default()),
            Err(errno) => return Err(errno),
        }
        let [job, signals, socket, report] = watched.map(|fd| fd.revents());
        Ok(Seen {
            ended: job.contains(PollFlags::IN),
            signal: signals.contains(PollFlags::IN),
            hung_up: daemon.is_some() && !socket.is_empty(),
            reported: awaits_report && !report.is_empty(),
        })
    }

    /// Lets init kill the job, which can count what the job took, and does so itself when
    /// init has no time for it: during the set-up it waits for daemons and file systems.
    fn ask_then_kill(&self) {
        let _deaf = send(&self.alive, &STOP, SendFlags::NOSIGNAL);
        let mut job = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let _in_any_case = poll(&mut job, Some(&PATIENCE));
        self.kill();
    }

    fn kill(&self) {
        // The only error is that it has ended already. Nobody else reaps our child, so the
        // descriptor can mean no other process.
        let _ended = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// A process that waits for an answer of its view cannot be killed once the daemon has read the
    /// question (fs/fuse/dev.c, `request_wait_answer`). If the daemon was stopped, by SIGSTOP or a
    /// debugger, its end is the only answer that can come, and it serves nobody else either.
    fn kill_stopped(&self, daemon: BorrowedFd<'_>) {
        let mut job = [PollFd::new(&self.pidfd, PollFlags::IN)];
        while poll(&mut job, Some(&STOPPED_LIMIT)) == Ok(0) {
            let Ok(peer) = socket_peercred(daemon) else {
                return;
            };
            let pid = peer.pid.as_raw_pid();
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // "pid (name) state ..."
            let state = state.rsplit(')').next().unwrap_or_default().trim_start();
            if state.starts_with(['T', 't']) {
                say(format_args!(
                    "the daemon (process {pid}) is stopped and keeps the job from ending; killing it"
                ));
                let _gone = kill_process(peer.pid, Signal::KILL);
            }
        }
    }

    fn reap(&mut self) -> Result<Reaped, SandboxError> {
        let init = reap(Some(self.pid)).map_err(client("cannot wait for the job"))?;
        self.reaped = true;
        Ok(init)
    }

    /// What the reports mean, once nobody is left to write any.
    fn judge(&self, stop: Stop, init: Reaped) -> Result<Ended, SandboxError> {
        let mut not_run = None;
        let mut end = None;
        let mut stopped = None;
        let mut next = self.early;
        loop {
            let read = || receive(self.report.as_fd());
            let report = next.take().map_or_else(read, |early| Ok(Some(early)));
            let report = report.map_err(client("cannot read the sandbox's report"))?;
            let Some(report) = report else { break };
            match report {
                Report::Failed(failure, words) => {
                    return Err(SandboxError::from_failure(failure, words, &self.plan));
                }
                Report::NotRun(errno) => not_run = Some(errno),
                Report::Ended(ended) => end = Some(ended),
                Report::Stopped(usage) => stopped = Some(usage),
                Report::Ready => {}
            }
        }
        conclude(
            stop,
            end,
            not_run,
            Reaped {
                usage: stopped.unwrap_or(init.usage),
                ..init
            },
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _lost = reap(Some(self.pid));
        }
    }
}

/// What woke the client.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    ended: bool,
    signal: bool,
    hung_up: bool,
    reported: bool,
}

/// The daemon comes first: a job that ended because its view died has no result.
fn decide(seen: Seen, deadline: Option<Instant>, interrupted: Option<i32>) -> Option<Stop> {
    if seen.hung_up {
        return Some(Stop::DaemonGone);
    }
    if seen.ended {
        return Some(Stop::TreeEnded);
    }
    if seen.signal && matches!(interrupted, Some(libc::SIGTERM | libc::SIGHUP)) {
        return Some(Stop::Told);
    }
    let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
    late.then_some(Stop::TimedOut)
}

fn conclude(
    stop: Stop,
    end: Option<Reaped>,
    not_run: Option<i32>,
    init: Reaped,
) -> Result<Ended, SandboxError> {
    match (stop, end) {
        (Stop::DaemonGone, _) => Err(SandboxError::DaemonGone),
        // Also when the limit passed while init was on its way out: the job was in time.
        (_, Some(end)) => Ok(ended(status(end.status, not_run), end.usage, false)),
        (Stop::TreeEnded, None) => Err(SandboxError::Lost {
            status: init.status,
        }),
        (Stop::TimedOut | Stop::Told, None) => Ok(ended(
            Status::Signaled(libc::SIGKILL),
            init.usage,
            stop == Stop::TimedOut,
        )),
    }
}

fn ended(status: Status, usage: Usage, timed_out: bool) -> Ended {
    Ended {
        status,
        timed_out,
        cpu: Duration::from_micros(usage.cpu_micros),
        max_rss_bytes: usage.max_rss_bytes,
        wall: Duration::ZERO,
        interrupted: None,
    }
}

fn status(wait_status: i32, not_run: Option<i32>) -> Status {
    match not_run {
        Some(errno) if is_missing(Errno::from_raw_os_error(errno)) => Status::NotFound,
        Some(errno) => Status::CannotRun(errno),
        None if libc::WIFSIGNALED(wait_status) => Status::Signaled(libc::WTERMSIG(wait_status)),
        None => Status::Exited(libc::WEXITSTATUS(wait_status).to_le_bytes()[0]),
    }
}

/// Time to the deadline; `None` sleeps for ever.
fn remaining(deadline: Option<Instant>) -> Option<Timespec> {
    let left = deadline?.saturating_duration_since(Instant::now());
    // A limit beyond what the kernel can count is none.
    Timespec::try_from(left).ok()
}

/// Reads all signals that came; the last one that ends the job wins over those that do not.
fn read_signals(signals: BorrowedFd<'_>) -> Result<Option<i32>, Errno> {
    let mut told = None;
    while let Some(signal) = read_signal(signals)? {
        if !matches!(told, Some(libc::SIGTERM | libc::SIGHUP)) {
            told = Some(signal);
        }
    }
    Ok(told)
}

fn read_signal(signals: BorrowedFd<'_>) -> Result<Option<i32>, Errno> {
    let mut record = [0; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(signals, &mut record) {
        Ok(_) => {
            // `ssi_signo` is the first member.
            let [a, b, c, d, ..] = record;
            Ok(Some(i32::from_ne_bytes([a, b, c, d])))
        }
        Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn client(what: &'static str) -> impl FnOnce(Errno) -> SandboxError {
    move |errno| SandboxError::Client {
        what,
        source: io::Error::from(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INIT: Reaped = Reaped {
        pid: 2,
        status: 9,
        usage: Usage {
            cpu_micros: 1,
            max_rss_bytes: 2,
        },
    };

    #[test]
    fn a_job_that_ended_in_time_is_not_late() {
        let end = Reaped {
            pid: 2,
            status: 3 << 8,
            usage: Usage::default(),
        };
        let ended = conclude(Stop::TimedOut, Some(end), None, INIT).unwrap();
        assert_eq!((ended.status, ended.timed_out), (Status::Exited(3), false));
        let ended = conclude(Stop::TimedOut, None, None, INIT).unwrap();
        assert_eq!((ended.status, ended.timed_out), (Status::Signaled(9), true));
        assert_eq!(ended.cpu, Duration::from_micros(1));
    }

    #[test]
    fn an_end_without_a_word_is_an_error() {
        let lost = conclude(Stop::TreeEnded, None, None, INIT);
        assert!(matches!(lost, Err(SandboxError::Lost { status: 9 })));
    }

    #[test]
    fn a_dead_daemon_outweighs_the_end() {
        let seen = Seen {
            ended: true,
            signal: true,
            hung_up: true,
            reported: false,
        };
        assert_eq!(
            decide(seen, None, Some(libc::SIGTERM)),
            Some(Stop::DaemonGone)
        );
        let seen = Seen {
            hung_up: false,
            ..seen
        };
        assert_eq!(
            decide(seen, None, Some(libc::SIGTERM)),
            Some(Stop::TreeEnded)
        );
        let seen = Seen {
            ended: false,
            ..seen
        };
        assert_eq!(decide(seen, None, Some(libc::SIGTERM)), Some(Stop::Told));
        assert_eq!(decide(seen, None, Some(libc::SIGINT)), None);
        assert_eq!(
            decide(Seen::default(), Some(Instant::now()), None),
            Some(Stop::TimedOut)
        );
    }
}
