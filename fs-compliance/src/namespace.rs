//! The namespaces that a run lives in. Suites mount, fork daemons and hang; what they leave behind
//! goes with the last process of the PID namespace, whatever happens to us.

use crate::outcome::{At as _, Trouble};
use crate::work::Work;
use rustix::process::{Pid, Signal, getegid, geteuid, kill_process};
use std::path::Path;
use std::process::{Command, ExitStatus};

/// Starts this program again in mount and PID namespaces of its own, as an ordinary user in a user
/// namespace as well, and gives its exit code.
///
/// # Errors
/// When the namespaces cannot be made.
pub fn enter(work: &Work, wakebox: Option<&Path>) -> Result<u8, Trouble> {
    let root = geteuid().is_root();
    probe(root)?;
    let mut command = unshare(root);
    command
        .arg("--")
        .arg(std::env::current_exe().at("the place of this program")?);
    command.args(std::env::args_os().skip(1));
    command.arg("--inside").arg(work.path());
    command.arg("--state").arg(work.state());
    if let Some(wakebox) = wakebox {
        command.arg("--wakebox").arg(wakebox);
    }
    if !root {
        let ids = format!("{}:{}", geteuid().as_raw(), getegid().as_raw());
        command.args(["--ordinary", &ids]);
    }
    let status = to_its_end(command)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.ok_or_else(|| Trouble::Broken(format!("the run ended by {status}")))
}

/// An interrupt ends the namespaces, and so leaves it to us to remove the work directory.
fn to_its_end(mut command: Command) -> Result<ExitStatus, Trouble> {
    let mut child = command.spawn().at("setpriv")?;
    let pid = Pid::from_child(&child);
    let kill = move || {
        // It may have ended just now.
        let _ = kill_process(pid, Signal::KILL);
    };
    ctrlc::set_handler(kill).at("a signal handler")?;
    child.wait().at("setpriv")
}

/// setpriv, so that unshare and with it the PID namespace go when we are killed.
fn unshare(root: bool) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    if !root {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--propagation", "private"]);
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
}

fn probe(root: bool) -> Result<(), Trouble> {
    let tried = unshare(root)
        .arg("true")
        .output()
        .at("setpriv and unshare (util-linux)")?;
    if tried.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&tried.stderr);
    let who = if root {
        "root needs CAP_SYS_ADMIN for them"
    } else {
        "an ordinary user needs user namespaces"
    };
    Err(Trouble::Broken(format!(
        "mount and PID namespaces cannot be made; {who}: {}",
        said.trim()
    )))
}
