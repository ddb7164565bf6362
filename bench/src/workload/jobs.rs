//! Many jobs that do nothing: what a build of tiny steps pays.

use std::path::Path;
use std::sync::Arc;

use super::{Job, Measure, Task};
use crate::Result;
use crate::cli::Options;
use crate::tree::{Fill, Tree};

pub(super) fn tasks(options: &Options, place: &Path) -> Result<Vec<Task>> {
    let tree = Arc::new(Tree::make(&place.join("ten"), 10, Fill::Line)?);
    let jobs = vec![Job::new(&["true"]); options.scaled(1_000, 4)];
    let task = |name: &str, at_once| Task {
        name: name.to_owned(),
        jobs: jobs.clone(),
        at_once,
        measure: Measure::PerJob,
        ..Task::reading("", &tree, jobs[0].clone())
    };
    Ok(vec![
        task("1000 jobs of true, in a row, per job", 1),
        task("1000 jobs of true, 16 at once, per job", 16),
    ])
}
