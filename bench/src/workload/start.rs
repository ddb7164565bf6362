//! What it costs to begin: a job that does nothing, with ever more inputs.

use std::path::Path;
use std::sync::Arc;

use super::{Job, Measure, Task};
use crate::Result;
use crate::cli::Options;
use crate::tree::{Fill, Tree};

const COUNTS: [usize; 5] = [10, 1_000, 10_000, 100_000, 300_000];

pub(super) fn tasks(options: &Options, place: &Path) -> Result<Vec<Task>> {
    let mut tasks = Vec::new();
    for full in COUNTS {
        let count = options.scaled(full, 10);
        let root = place.join(format!("inputs-{full}"));
        let tree = Arc::new(Tree::make(&root, count, Fill::Line)?);
        for (when, fresh) in [("first time", true), ("again", false)] {
            let name = format!("true, {full} inputs, {when}");
            tasks.push(Task {
                fresh,
                ..nothing(&name, &tree)
            });
        }
        if full == COUNTS[0] || full == COUNTS[COUNTS.len() - 1] {
            let name = format!("true, {full} inputs by digest");
            tasks.push(Task {
                by_digest: true,
                ..nothing(&name, &tree)
            });
        }
    }
    Ok(tasks)
}

fn nothing(name: &str, tree: &Arc<Tree>) -> Task {
    let task = Task::reading(name, tree, Job::new(&["true"]));
    Task {
        measure: Measure::PerJob,
        ..task
    }
}
