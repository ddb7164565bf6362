//! A terminal of a test's own, with somebody who types.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use wakebox_tests::Place;

const PATIENCE: Duration = Duration::from_secs(10);

/// A program at a terminal that is its controlling one.
#[derive(Debug)]
pub(super) struct Session {
    keyboard: std::fs::File,
    screen: Vec<u8>,
    seen: usize,
    child: Child,
}

impl Session {
    /// Starts a shell script in the workspace, which finds the program in `$WAKEBOX`.
    pub(super) fn start(place: &Place, script: &str) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let master = master.expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("a name");
        let open = || -> OwnedFd {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::fs::open(&*name, flags, Mode::empty()).expect("the other side")
        };
        let mut command = place.other("setsid");
        command.args(["--ctty", "sh", "-c", script]);
        command.env("TERM", "dumb").env("PS1", "$ ").env("ENV", "");
        command.stdin(open()).stdout(open()).stderr(open());
        let child = command.spawn().expect("setsid");
        Self {
            keyboard: master.into(),
            screen: Vec::new(),
            seen: 0,
            child,
        }
    }

    pub(super) fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.keyboard, size).expect("resized");
    }

    pub(super) fn keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("typed");
    }

    /// Types a line.
    pub(super) fn line(&mut self, line: &str) {
        self.keys(&format!("{line}\r"));
    }

    /// Waits until the screen shows this, past what was waited for before.
    #[track_caller]
    pub(super) fn expect(&mut self, wanted: &str) {
        let start = Instant::now();
        loop {
            let new = String::from_utf8_lossy(&self.screen[self.seen..]).into_owned();
            if let Some(at) = new.find(wanted) {
                self.seen += at + wanted.len();
                return;
            }
            assert!(
                start.elapsed() < PATIENCE && self.more(),
                "waited for {wanted:?} on {:?}",
                String::from_utf8_lossy(&self.screen)
            );
        }
    }

    /// Reads what there is; false at the end.
    fn more(&mut self) -> bool {
        let soon = Timespec {
            tv_sec: 0,
            tv_nsec: 100_000_000,
        };
        let mut ready = [PollFd::new(&self.keyboard, PollFlags::IN)];
        if poll(&mut ready, Some(&soon)) == Ok(0) {
            return true;
        }
        let mut bytes = [0; 4096];
        // The other side of a terminal that nobody has open any more is an error.
        let count = rustix::io::read(&self.keyboard, &mut bytes).unwrap_or(0);
        self.screen.extend_from_slice(&bytes[..count]);
        count > 0
    }

    /// Waits for the end.
    #[track_caller]
    pub(super) fn end(mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            let screen = String::from_utf8_lossy(&self.screen).into_owned();
            assert!(start.elapsed() < PATIENCE, "no end: {screen:?}");
            if !self.more() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
