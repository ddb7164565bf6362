//! No sandbox at all: the job runs in the directory of its inputs.

use std::path::{Path, PathBuf};

use super::{Contender, Outputs, Stage, command, hash_below, remove, succeed};
use crate::Result;
use crate::disk::Disk;
use crate::tree;
use crate::workload::{Job, Task};

#[derive(Debug)]
pub(super) struct Native {
    place: PathBuf,
}

impl Native {
    pub(super) fn new(disk: &Disk) -> Result<Self> {
        let place = disk.make("native")?;
        Ok(Self { place })
    }
}

impl Contender for Native {
    fn name(&self) -> &str {
        crate::row::NATIVE
    }

    fn begin<'a>(&'a self, task: &'a Task, _round: usize) -> Result<Box<dyn Stage + 'a>> {
        Ok(Box::new(Ready(workplace(task, &self.place.join("copy"))?)))
    }
}

/// A directory with the inputs of a task in which jobs may write.
#[derive(Debug)]
pub(super) struct Workplace {
    pub(super) directory: PathBuf,
    copied: bool,
}

/// The tree itself, or a copy if the task's jobs write.
pub(super) fn workplace(task: &Task, copy: &Path) -> Result<Workplace> {
    if !task.writes {
        let directory = task.tree.root.clone();
        return Ok(Workplace {
            directory,
            copied: false,
        });
    }
    remove(copy)?;
    tree::copy(&task.tree, &task.tree.chosen(None), copy)?;
    Ok(Workplace {
        directory: copy.to_owned(),
        copied: true,
    })
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if self.copied {
            let _ = remove(&self.directory);
        }
    }
}

struct Ready(Workplace);

impl Stage for Ready {
    fn run(&self, _number: usize, job: &Job, stdout: &Path) -> Result<()> {
        succeed(command(job, &self.0.directory, stdout)?, stdout)
    }

    fn outputs(&self, _number: usize, job: &Job) -> Result<Outputs> {
        let mut all = Outputs::new();
        for output in &job.outputs {
            hash_below(&self.0.directory.join(output), output, &mut all)?;
        }
        Ok(all)
    }
}
