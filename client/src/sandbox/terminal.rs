//! Whose turn it is at the terminal: the client's before and after, meanwhile perhaps a job's.

use rustix::io::Errno;
use rustix::process::{Pid, getpid, setpgid, test_kill_process_group};
use rustix::stdio::stdin;
use rustix::termios::{tcgetpgrp, tcsetpgrp};

use super::apply::{SignalSet, own_group};

/// The terminal that the client has in its foreground, and has again when this goes.
#[derive(Debug)]
pub(crate) struct Terminal {
    group: Pid,
}

impl Terminal {
    /// That on standard input, if it is the client's turn.
    pub(crate) fn of_client() -> Option<Self> {
        let group = own_group()?;
        let is_ours = tcgetpgrp(stdin()).ok()? == group;
        is_ours.then_some(Self { group })
    }
}

impl Drop for Terminal {
    /// Somebody alive has got it from whoever started us, and keeps it.
    fn drop(&mut self) {
        let is_gone = |group| test_kill_process_group(group) == Err(Errno::SRCH);
        let free = tcgetpgrp(stdin()).is_ok_and(is_gone);
        if free {
            // Whoever asks for it from the background is stopped, but for this.
            let before = SignalSet::of(&[libc::SIGTTOU]).block();
            let _lost = tcsetpgrp(stdin(), self.group);
            before.set();
        }
    }
}

/// Gives the terminal to the calling process, in a group of its own. A shell that controls jobs
/// gives it back to the group that it found, which must have a number in its pid namespace.
pub(super) fn take() {
    let _only_without_terminal = setpgid(None, None).and_then(|()| tcsetpgrp(stdin(), getpid()));
}
