//! What build tools without a file system of their own do: a directory with exactly the declared
//! inputs, made before the job and removed after it, and bubblewrap around the job.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Contender, Outputs, Stage, find, harvest, harvested, plain, remove, succeed};
use crate::Result;
use crate::disk::Disk;
use crate::tree;
use crate::workload::{Job, Task};

/// What the forest's trees are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Symlinks,
    HardLinks,
    Copies,
}

pub(super) const KINDS: [Kind; 3] = [Kind::Symlinks, Kind::HardLinks, Kind::Copies];

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Symlinks => "bwrap, symlinks",
            Self::HardLinks => "bwrap, hard links",
            Self::Copies => "bwrap, copy",
        }
    }
}

#[derive(Debug)]
pub(super) struct Forest {
    kind: Kind,
    place: PathBuf,
}

impl Forest {
    pub(super) fn new(kind: Kind, disk: &Disk) -> Result<Self> {
        let place = disk.make(&kind.name().replace(", ", "-").replace(' ', "-"))?;
        Ok(Self { kind, place })
    }
}

impl Contender for Forest {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn begin<'a>(&'a self, task: &'a Task, _round: usize) -> Result<Box<dyn Stage + 'a>> {
        let ready = Ready {
            kind: self.kind,
            place: self.place.join("jobs"),
            task,
        };
        remove(&ready.place)?;
        Ok(Box::new(ready))
    }
}

struct Ready<'a> {
    kind: Kind,
    place: PathBuf,
    task: &'a Task,
}

impl Ready<'_> {
    fn plant(&self, job: &Job, forest: &Path) -> Result<()> {
        let tree = &self.task.tree;
        let inputs = tree.chosen(job.inputs.as_ref());
        match self.kind {
            Kind::Symlinks => tree::plant(&inputs, forest, |input, place| {
                symlink(tree.root.join(&input.path), place)
            }),
            Kind::HardLinks => tree::plant(&inputs, forest, |input, place| {
                fs::hard_link(tree.root.join(&input.path), place)
            }),
            Kind::Copies => tree::copy(tree, &inputs, forest),
        }
    }
}

impl Stage for Ready<'_> {
    fn run(&self, number: usize, job: &Job, stdout: &Path) -> Result<()> {
        let own = self.place.join(number.to_string());
        let forest = own.join("forest");
        self.plant(job, &forest)?;
        let mut command = Command::new(find("bwrap").ok_or("no bwrap")?);
        command.args([
            "--dev-bind",
            "/",
            "/",
            "--unshare-pid",
            "--proc",
            "/proc",
            "--chdir",
        ]);
        command.arg(&forest).arg("--").args(&job.command);
        plain(&mut command, stdout)?;
        succeed(command, stdout)?;
        harvest(job, &forest, &own.join("harvest"))?;
        remove(&forest)
    }

    fn outputs(&self, number: usize, job: &Job) -> Result<Outputs> {
        harvested(job, &self.place.join(number.to_string()).join("harvest"))
    }
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        let _ = remove(&self.place);
    }
}
