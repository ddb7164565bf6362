//! The process that serves a mount: started here, and asked once.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cas::protocol::{self, Reply, Request};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::state::State;
use crate::cli::{Environment, MountArguments};
use crate::commands::Serving;
use crate::error::{Error, Result};
use crate::sandbox::{STOPPING, SignalHold, open_signals};

/// A process that is to serve a mount. It ends with the file system, or at once if this is
/// dropped before it was given one.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    socket: OwnedFd,
    log: Option<PathBuf>,
}

impl Server {
    /// Starts it: this program, under another name, with nothing of ours but the state directory
    /// (standard input), a conversation (standard output) and a log. The name of the mount is
    /// among its arguments for whoever looks at a list of processes.
    pub(super) fn start(
        arguments: &MountArguments,
        environment: &Environment,
        state: &State,
        serving: &Serving,
    ) -> Result<Self> {
        let failed = |error: io::Error| cannot_start(error);
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (socket, theirs) = pair.map_err(|errno| failed(errno.into()))?;
        let directory = state.directory().try_clone_to_owned().map_err(failed)?;
        let mut command = command(arguments, environment, serving);
        command.stdin(directory).stdout(theirs);
        let log = if arguments.foreground {
            command.stderr(Stdio::inherit());
            None
        } else {
            let (file, path) = state.log()?;
            command.stderr(file);
            Some(path)
        };
        let child = command.spawn().map_err(failed)?;
        Ok(Self { child, socket, log })
    }

    /// Gives it the file system to serve, and waits until it answers requests.
    pub(super) fn serve(&self, device: OwnedFd) -> Result<()> {
        let lost = |error: io::Error| Error::Mount(self.lost(&error));
        let sent = protocol::send(self.socket.as_fd(), &Request::Serve, Some(device.as_fd()));
        sent.map_err(lost)?;
        drop(device);
        match protocol::receive(self.socket.as_fd()).map_err(lost)? {
            Some((Reply::Serving, _)) => Ok(()),
            Some((Reply::Refused(reason), _)) => Err(Error::Mount(reason)),
            _ => Err(lost(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn lost(&self, error: &io::Error) -> String {
        let log = self
            .log
            .as_ref()
            .map(|log| format!("; its log is {}", log.display()));
        let log = log.unwrap_or_default();
        format!("lost the process that was to serve the mount: {error}{log}")
    }

    /// Waits for its end, and passes on what tells this process to stop: signals that are held, or
    /// they would end it. Returns whether it ended well.
    pub(super) fn wait(mut self, _hold: &SignalHold) -> Result<bool> {
        let pid = Pid::from_child(&self.child);
        let failed = |errno: rustix::io::Errno| cannot_start(errno.into());
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(failed)?;
        let signals = open_signals(&STOPPING).map_err(failed)?;
        loop {
            let mut fds = [
                PollFd::new(&process, PollFlags::IN),
                PollFd::new(&signals, PollFlags::IN),
            ];
            let _ = poll(&mut fds, None);
            if !fds[0].revents().is_empty() {
                break;
            }
            if rustix::io::read(&signals, &mut [0; 128]).is_ok() {
                let _ = kill_process(pid, Signal::TERM);
            }
        }
        let status = self.child.wait().map_err(cannot_start)?;
        Ok(status.success())
    }
}

fn cannot_start(error: io::Error) -> Error {
    Error::Mount(format!(
        "cannot start the process that serves the mount: {error}"
    ))
}

fn command(arguments: &MountArguments, environment: &Environment, serving: &Serving) -> Command {
    let (major, minor) = serving.number;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("wakebox-mount").arg("mount");
    command.arg(format!("--serve={major}:{minor}"));
    if serving.foreground {
        command.arg("--foreground");
    }
    let mut option = OsStr::new("store=").to_owned();
    option.push(escaped(&serving.store));
    if let Some((period, size)) = serving.upkeep {
        option.push(format!(",upkeep={period}:{size}"));
    }
    command.arg("-o").arg(option).arg("--");
    command.arg(&arguments.source).arg(&arguments.directory);
    command.env_clear().current_dir("/");
    if let Some(filter) = &environment.log {
        command.env("WAKEBOX_LOG", filter);
    }
    command
}

/// A path as a mount option has it.
fn escaped(path: &Path) -> std::ffi::OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = path.as_os_str().as_bytes().iter();
    let bytes = bytes.flat_map(|&byte| match byte {
        b',' | b'\\' => vec![b'\\', byte],
        _ => vec![byte],
    });
    std::ffi::OsString::from_vec(bytes.collect())
}
