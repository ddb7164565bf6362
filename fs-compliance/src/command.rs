//! Runs one command to its end or its time limit, with its output in a file.

use crate::outcome::{At as _, Trouble};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How many characters of a command's output a message shows.
const SHOWN: usize = 250;

/// How a command ended.
#[derive(Debug)]
pub struct Done {
    /// Its status; `None` if it was killed at its time limit.
    pub status: Option<ExitStatus>,
    /// What it wrote, to both of its outputs.
    pub output: String,
}

impl Done {
    /// Did it end by itself, with status 0?
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// The exit code, if it ended by itself.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status?.code()
    }

    /// How it ended and the last lines that it wrote, for a message.
    #[must_use]
    pub fn said(&self) -> String {
        let lines: Vec<_> = self
            .output
            .lines()
            .filter(|line| !line.is_empty())
            .collect();
        let last = end(&lines[lines.len().saturating_sub(4)..].join(" / "));
        match self.status {
            Some(status) => format!("{status}: {last}"),
            None => format!("killed at its time limit: {last}"),
        }
    }
}

/// The end of a text, which says most about a failure.
fn end(text: &str) -> String {
    match text.char_indices().rev().nth(SHOWN) {
        Some((start, _)) => format!("…{}", &text[start..]),
        None => text.to_owned(),
    }
}

/// Runs the command in a process group of its own; its output is appended to the file `log`. At the
/// limit the whole group is killed.
///
/// # Errors
/// When the command cannot be started or the log cannot be written.
pub fn run(mut command: Command, limit: Duration, log: &Path) -> Result<Done, Trouble> {
    let shown = format!("{command:?}");
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(log)
        .at(log.display())?;
    writeln!(file, "\n$ {shown}").at(log.display())?;
    let start = file.seek(SeekFrom::End(0)).at(log.display())?;
    let child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone().at("a descriptor")?)
        .stderr(file.try_clone().at("a descriptor")?)
        .process_group(0)
        .spawn()
        .at(&shown)?;
    let status = wait(child, limit).at(&shown)?;
    Ok(Done {
        status,
        output: read_from(&mut file, start).at(log.display())?,
    })
}

fn read_from(file: &mut File, start: u64) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits for the child's end; kills its group at the limit.
fn wait(mut child: Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let pid = rustix::process::Pid::from_child(&child);
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let limit = Timespec::try_from(limit).map_err(std::io::Error::other)?;
    let mut ready = [PollFd::new(&handle, PollFlags::IN)];
    let ended = loop {
        match poll(&mut ready, Some(&limit)) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other? == 1,
        }
    };
    if ended {
        return child.wait().map(Some);
    }
    kill_process_group(pid, Signal::KILL)?;
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Done {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run(command, limit, &folder.path().join("log")).expect("a shell")
    }

    #[test]
    fn output_and_status_come_back() {
        let done = shell("echo one; echo two >&2; exit 3", Duration::from_secs(20));
        assert_eq!(done.output, "one\ntwo\n");
        assert_eq!(done.code(), Some(3));
        assert_eq!(done.said(), "exit status: 3: one / two");
    }

    #[test]
    fn the_limit_ends_it_with_its_children() {
        let done = shell("sleep 1000 & wait", Duration::from_millis(200));
        assert!(done.status.is_none() && !done.success());
        assert!(done.said().starts_with("killed at its time limit"));
    }
}
