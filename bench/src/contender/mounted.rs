//! A view made by one mount per job: a bind, an overlay, a FUSE file system of the system's.
//!
//! None of these hides inputs that a job did not declare.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use super::native::{Workplace, workplace};
use super::{Contender, Outputs, Stage, command, harvest, harvested, lacks, remove, succeed};
use crate::Result;
use crate::disk::{Disk, output};
use crate::workload::{Job, Task};

/// What is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bind,
    Overlay,
    FuseOverlay,
    Bindfs,
}

pub(super) const KINDS: [Kind; 4] = [Kind::Bind, Kind::Overlay, Kind::FuseOverlay, Kind::Bindfs];

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind mount",
            Self::Overlay => "overlayfs",
            Self::FuseOverlay => "fuse-overlayfs",
            Self::Bindfs => "bindfs",
        }
    }

    /// Why it cannot be used here.
    pub(super) fn missing(self) -> Option<String> {
        let root = rustix::process::geteuid().is_root();
        match self {
            Self::Bind | Self::Overlay => (!root).then(|| "needs root".to_owned()),
            Self::FuseOverlay => lacks("fuse-overlayfs", "fuse-overlayfs"),
            Self::Bindfs => lacks("bindfs", "bindfs"),
        }
    }

    /// Whether the job's writes go to a layer of its own.
    fn layered(self) -> bool {
        matches!(self, Self::Overlay | Self::FuseOverlay)
    }
}

#[derive(Debug)]
pub(super) struct Mounted {
    kind: Kind,
    place: PathBuf,
}

impl Mounted {
    pub(super) fn new(kind: Kind, disk: &Disk) -> Result<Self> {
        let place = disk.make(&kind.name().replace(' ', "-"))?;
        Ok(Self { kind, place })
    }
}

impl Contender for Mounted {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn begin<'a>(&'a self, task: &'a Task, _round: usize) -> Result<Box<dyn Stage + 'a>> {
        let lower = match self.kind.layered() {
            true => None,
            false => Some(workplace(task, &self.place.join("copy"))?),
        };
        let ready = Ready {
            kind: self.kind,
            place: self.place.join("jobs"),
            task,
            lower,
        };
        remove(&ready.place)?;
        Ok(Box::new(ready))
    }
}

struct Ready<'a> {
    kind: Kind,
    place: PathBuf,
    task: &'a Task,
    /// What is shown, unless layers are.
    lower: Option<Workplace>,
}

impl Ready<'_> {
    fn source(&self) -> &Path {
        self.lower
            .as_ref()
            .map_or(&self.task.tree.root, |lower| &lower.directory)
    }

    fn mount(&self, own: &Path, view: &Path) -> Result<()> {
        for part in ["view", "upper", "work"] {
            if part == "view" || self.kind.layered() {
                fs::create_dir_all(own.join(part))?;
            }
        }
        let source = self.source();
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            source.display(),
            own.join("upper").display(),
            own.join("work").display()
        );
        match self.kind {
            Kind::Bind => Ok(mount_bind(source, view)?),
            Kind::Overlay => {
                // Without "volatile" each unmount writes the whole disk's changes out.
                let text = std::ffi::CString::new(layers + ",volatile")?;
                Ok(mount(
                    "overlay",
                    view,
                    "overlay",
                    MountFlags::empty(),
                    text.as_c_str(),
                )?)
            }
            Kind::FuseOverlay => output(
                Command::new("fuse-overlayfs")
                    .args(["-o", &layers])
                    .arg(view),
            )
            .map(drop),
            Kind::Bindfs => {
                let mut command = Command::new("bindfs");
                // An ordinary user may not let others in, nor needs to.
                let alone = !rustix::process::geteuid().is_root();
                command.args(alone.then_some("--no-allow-other"));
                output(command.arg(source).arg(view)).map(drop)
            }
        }
    }
}

/// Unmounts, by fusermount for whoever may not himself.
fn unmount_view(view: &Path) -> Result<()> {
    for _ in 0..200 {
        match unmount(view, UnmountFlags::empty()) {
            Ok(()) => return Ok(()),
            Err(Errno::PERM) => {
                return output(Command::new("fusermount3").arg("-u").arg(view)).map(drop);
            }
            Err(Errno::BUSY) => sleep(Duration::from_millis(1)),
            Err(error) => return Err(format!("umount {}: {error}", view.display()).into()),
        }
    }
    Err(format!("umount {}: still busy", view.display()).into())
}

impl Stage for Ready<'_> {
    fn run(&self, number: usize, job: &Job, stdout: &Path) -> Result<()> {
        let own = self.place.join(number.to_string());
        let view = own.join("view");
        self.mount(&own, &view)?;
        let ran = command(job, &view, stdout).and_then(|command| succeed(command, stdout));
        unmount_view(&view)?;
        ran?;
        if self.kind.layered() {
            harvest(job, &own.join("upper"), &own.join("harvest"))?;
            remove(&own.join("upper"))?;
            remove(&own.join("work"))?;
        }
        Ok(())
    }

    fn outputs(&self, number: usize, job: &Job) -> Result<Outputs> {
        let to = self.place.join(number.to_string()).join("harvest");
        if !self.kind.layered() {
            harvest(job, self.source(), &to)?;
        }
        harvested(job, &to)
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        let _ = remove(&self.place);
    }
}
