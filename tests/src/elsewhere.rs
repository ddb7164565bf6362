//! Calls of the program in other circumstances than the test's own: with other mounts, or as
//! another user. Both need rights that only root has as a rule.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use crate::{Outcome, Place, wakebox};

/// User and group `nobody`, of which every machine knows at least the number.
const NOBODY: &str = "65534";

impl Place {
    /// Runs another program in the workspace, with the environment that the program under test
    /// gets.
    pub fn other(&self, program: &str) -> Command {
        let like = self.command(["--version"]);
        let mut command = Command::new(program);
        command.current_dir(self.workspace()).env_clear();
        command.envs(
            like.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        command.env("WAKEBOX", wakebox()).env("ROOT", self.root());
        command.stdin(Stdio::null());
        command
    }

    /// A shell in a mount namespace of its own, which finds the program in `$WAKEBOX` and this
    /// place in `$ROOT`; `None` without the right to mount.
    pub fn in_mount_namespace(&self, script: &str) -> Option<Outcome> {
        let unshare = |script: &str| {
            let output = self
                .other("unshare")
                .args(["-m", "sh", "-ec", script])
                .output();
            output.map(Outcome).ok()
        };
        let probe = unshare("mount -t tmpfs none \"$ROOT/home\"")?;
        (probe.code() == 0).then(|| unshare(script))?
    }

    /// Gives all of this place to an ordinary user; false without the right to.
    fn give_away(&self) -> bool {
        let status = Command::new("chown")
            .args(["-R", NOBODY])
            .arg(self.root())
            .status();
        status.is_ok_and(|status| status.success())
    }

    /// Calls the program as an ordinary user, who owns all of this place; `None` without the
    /// right to become one.
    pub fn as_ordinary_user(&self, arguments: &[&OsStr]) -> Option<Outcome> {
        if !rustix::process::geteuid().is_root() {
            return Some(self.call(arguments));
        }
        let call = |arguments: &[&OsStr]| {
            let mut command = self.other("setpriv");
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]);
            let output = command.arg(wakebox()).args(arguments).output();
            output.map(Outcome).ok()
        };
        let probe = call(&["--version".as_ref()])?;
        (self.give_away() && probe.code() == 0).then(|| call(arguments))?
    }

    /// The same where everybody may use FUSE, as on most machines: `script` is run by a shell of
    /// that user.
    pub fn as_ordinary_user_with_fuse(&self, script: &str) -> Option<Outcome> {
        std::fs::write(self.root().join("script"), script).ok()?;
        if !self.give_away() {
            return None;
        }
        let device = "mkdir $ROOT/dev; mount -t tmpfs -o dev,mode=755 none $ROOT/dev
            mknod $ROOT/dev/fuse c 10 229 && mknod $ROOT/dev/null c 1 3
            chmod 666 $ROOT/dev/*; mount --rbind $ROOT/dev /dev; : < /dev/fuse";
        self.in_mount_namespace(device)
            .filter(|outcome| outcome.code() == 0)?;
        std::fs::remove_dir(self.root().join("dev")).ok()?;
        let call = format!(
            "{device}; exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups -- sh -e $ROOT/script"
        );
        self.in_mount_namespace(&call)
    }
}
