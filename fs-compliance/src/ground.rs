//! What a run stands on: its work directory, the file system under test, and who it is.

use crate::accounts;
use crate::cli::Cli;
use crate::command::{self, Done};
use crate::mounts::{Mounted, demand_device, demand_fuse, install_mount_program, memory, open};
use crate::outcome::{At as _, Trouble};
use crate::suites::xfstests;
use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A mount that takes longer than this has failed.
const MOUNT_LIMIT: Duration = Duration::from_secs(60);

/// Who the suites run as.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Identity {
    /// The machine's root, or one with its capabilities.
    Root,
    /// A user and a group number, in a user namespace.
    Ordinary(String),
}

/// What the suites run on.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A directory of the file system that the state would lie on.
    Native,
    /// A view that this wakebox program mounts.
    View(PathBuf),
}

/// What a run stands on.
#[derive(Debug)]
pub struct Ground {
    /// The command line.
    pub cli: Cli,
    /// Who the suites run as.
    pub identity: Identity,
    /// What they run on.
    pub subject: Subject,
    /// The work directory.
    pub work: PathBuf,
    /// Where the suites' output is kept.
    pub logs: PathBuf,
    backing: PathBuf,
    mounted: Cell<u32>,
}

impl Ground {
    /// Makes the ground, in the namespaces of the run.
    ///
    /// # Errors
    /// When a directory, an account or the mount helper cannot be provided.
    pub fn prepare(cli: &Cli) -> Result<Self, Trouble> {
        let work = cli.inside.clone().unwrap_or_default();
        let logs = cli.report.clone().unwrap_or_else(|| work.join("logs"));
        for folder in [&logs, &work.join("mnt"), &work.join("tmp")] {
            fs::create_dir_all(folder).at(folder.display())?;
        }
        let backing = cli.state.clone().unwrap_or_default();
        let ground = Self {
            identity: cli
                .ordinary
                .clone()
                .map_or(Identity::Root, Identity::Ordinary),
            subject: match &cli.wakebox {
                Some(wakebox) if cli.native.is_none() => Subject::View(wakebox.clone()),
                _ => Subject::Native,
            },
            logs: logs.canonicalize().at(logs.display())?,
            cli: cli.clone(),
            work,
            backing,
            mounted: Cell::new(0),
        };
        ground.open_to_all()?;
        memory(&ground.elsewhere())?;
        ground.as_root()?;
        Ok(ground)
    }

    /// Other users must get here.
    fn open_to_all(&self) -> Result<(), Trouble> {
        open(&self.work, 0o755)?;
        open(&self.work.join("tmp"), 0o1777)?;
        open(&self.backing, 0o755)?;
        for path in [&self.work, &self.backing] {
            for above in path.ancestors().skip(1) {
                if fs::metadata(above).at(above.display())?.mode() & 0o001 == 0 {
                    let shown = above.display();
                    return Err(Trouble::Broken(format!(
                        "{shown}: other users may not pass, and suites switch to some; choose another --work, --backing or --native directory"
                    )));
                }
            }
        }
        Ok(())
    }

    fn as_root(&self) -> Result<(), Trouble> {
        if self.identity != Identity::Root {
            return Ok(());
        }
        accounts::provide(&self.work)?;
        match &self.subject {
            Subject::View(wakebox) => {
                let options = xfstests::mount_options(self);
                install_mount_program(&self.work, wakebox, &options)
            }
            Subject::Native => Ok(()),
        }
    }

    /// Is the run one of root?
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.identity == Identity::Root
    }

    /// Says that the suite cannot be run by an ordinary user, if this is one.
    ///
    /// # Errors
    /// [`Trouble::NotRun`], saying so.
    pub fn demand_root(&self) -> Result<(), Trouble> {
        match self.is_root() {
            true => Ok(()),
            false => Err(Trouble::NotRun("needs root".into())),
        }
    }

    /// Says that the suite cannot be run on a plain directory, if the subject is one.
    ///
    /// # Errors
    /// [`Trouble::NotRun`] with the reason.
    pub fn demand_view(&self, why: &str) -> Result<(), Trouble> {
        match self.subject {
            Subject::View(_) => Ok(()),
            Subject::Native => Err(Trouble::NotRun(why.into())),
        }
    }

    /// Where state may be kept under a name, on the backing file system; nothing is there yet.
    #[must_use]
    pub fn state(&self, name: &str) -> PathBuf {
        self.backing.join(name)
    }

    /// Mounts a file system with state of its own.
    ///
    /// # Errors
    /// When the mount fails.
    pub fn mount(&self, name: &str) -> Result<Mounted, Trouble> {
        let state = self.state(name);
        self.mount_with(name, &format!("state={}", state.display()))
    }

    /// Mounts a file system whose inputs are what lies in the directory `lower`; a plain directory
    /// gets a copy.
    ///
    /// # Errors
    /// When the mount or the copy fails.
    pub fn mount_over(&self, name: &str, lower: &Path) -> Result<Mounted, Trouble> {
        let state = self.state(name);
        if let Subject::Native = self.subject {
            let mounted = self.mount(name)?;
            let mut copy = Command::new("cp");
            copy.arg("-a").arg(lower.join(".")).arg(mounted.path());
            return self.plainly(copy).map(|()| mounted);
        }
        let (upper, work) = (state.join("upper"), state.join("work"));
        for folder in [&upper, &work] {
            fs::create_dir_all(folder).at(folder.display())?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        self.mount_with(name, &options)
    }

    /// Mounts a file system with little space: its state lies in a file system in memory.
    ///
    /// # Errors
    /// When one of the mounts fails.
    pub fn mount_small(&self, name: &str) -> Result<Mounted, Trouble> {
        let small = self.work.join(name);
        memory(&small)?;
        if let Subject::Native = self.subject {
            return Ok(Mounted {
                path: small,
                mounted: true,
            });
        }
        self.mount_with(name, &format!("state={}", small.join("state").display()))
    }

    /// A directory of another file system, which everyone may write to.
    #[must_use]
    pub fn elsewhere(&self) -> PathBuf {
        self.work.join("elsewhere")
    }

    fn mount_with(&self, name: &str, options: &str) -> Result<Mounted, Trouble> {
        let Subject::View(wakebox) = &self.subject else {
            let folder = self.state(name);
            fs::create_dir_all(&folder).at(folder.display())?;
            open(&folder, 0o755)?;
            return Ok(Mounted {
                path: folder,
                mounted: false,
            });
        };
        demand_device()?;
        self.mounted.set(self.mounted.get() + 1);
        let point = self
            .work
            .join("mnt")
            .join(format!("{name}-{}", self.mounted.get()));
        fs::create_dir_all(&point).at(point.display())?;
        let more = self.cli.mount_options.iter().map(|more| format!(",{more}"));
        let options = std::iter::once(options.to_owned())
            .chain(more)
            .collect::<String>();
        let mut command = Command::new(wakebox);
        command
            .arg("mount")
            .arg(name)
            .arg(&point)
            .args(["-o", &options]);
        self.plainly(command)?;
        let mounted = Mounted {
            path: point,
            mounted: true,
        };
        demand_fuse(mounted.path()).map(|()| mounted)
    }

    fn plainly(&self, command: Command) -> Result<(), Trouble> {
        let done = command::run(command, MOUNT_LIMIT, &self.logs.join("mounts.log"))?;
        match done.success() {
            true => Ok(()),
            false => Err(Trouble::Broken(format!("a mount failed: {}", done.said()))),
        }
    }

    /// Runs a command of a suite as the suites' user, with its output in the suite's log.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub fn run(&self, suite: &str, command: Command, limit: Duration) -> Result<Done, Trouble> {
        let mut command = self.as_user(command);
        // A Rust program's backtrace would hide what it said.
        command.env("LC_ALL", "C").env("RUST_BACKTRACE", "0");
        if command.get_envs().all(|(name, _)| name != "TMPDIR") {
            command.env("TMPDIR", self.work.join("tmp"));
        }
        command::run(command, limit, &self.logs.join(format!("{suite}.log")))
    }

    /// In the user namespace that mounts we are its root; a second one makes us a user again.
    fn as_user(&self, command: Command) -> Command {
        let Identity::Ordinary(ids) = &self.identity else {
            return command;
        };
        let (user, group) = ids.split_once(':').unwrap_or((ids, ids));
        let mut wrapped = Command::new("unshare");
        wrapped.args(["--user", "--map-user", user, "--map-group", group, "--"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            wrapped.current_dir(folder);
        }
        wrapped
    }

    /// The type of the file system that the state lies on.
    #[must_use]
    pub fn backing_type(&self) -> String {
        let mut command = Command::new("findmnt");
        command.args(["-no", "FSTYPE", "-T"]).arg(&self.backing);
        let said = command
            .output()
            .map(|output| output.stdout)
            .unwrap_or_default();
        let name = String::from_utf8_lossy(&said).trim().to_owned();
        if name.is_empty() {
            "unknown".into()
        } else {
            name
        }
    }
}
