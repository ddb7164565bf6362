//! From the end of a job's work to its result: outputs are hashed and put into the store.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{Job, Measure, Task};
use crate::Result;
use crate::cli::Options;
use crate::tree::Tree;

pub(super) fn tasks(options: &Options, place: &Path) -> Result<Vec<Task>> {
    let root = place.join("empty");
    fs::create_dir_all(&root)?;
    let tree = Arc::new(Tree::of(&root)?);
    let small = options.scaled(20_000, 20);
    let big = options.scaled(2 << 30, 1 << 20);
    let hash = Job::inner(&["hash", &big.to_string()])?;
    Ok(vec![
        outputs(
            "20000 small outputs, each, after the job",
            &tree,
            small,
            8 << 10,
        )?,
        outputs("one output of 2 GB, after the job", &tree, 1, big)?,
        Task::writing("hash", &tree, hash),
    ])
}

fn outputs(name: &str, tree: &Arc<Tree>, files: usize, bytes: usize) -> Result<Task> {
    let job = Job::inner(&["outputs", &files.to_string(), &bytes.to_string()])?;
    let job = Job {
        outputs: vec!["out".to_owned()],
        ..job
    };
    let measure = Measure::AfterEnd { items: files };
    Ok(Task {
        measure,
        ..Task::writing(name, tree, job)
    })
}
