//! Names and attributes, one kind of access per job, so that its round trips can be counted.

use std::path::Path;
use std::sync::Arc;

use super::{Job, Task};
use crate::Result;
use crate::cli::Options;
use crate::tree::{Fill, Tree};

pub(super) fn tasks(options: &Options, place: &Path) -> Result<Vec<Task>> {
    let count = options.scaled(10_000, 50);
    let tree = Arc::new(Tree::make(&place.join("names"), count, Fill::Source)?);
    let files = count.to_string();
    let mut tasks = vec![Task::reading("walk", &tree, Job::inner(&["walk"])?)];
    for name in ["stat", "stat-after-read", "open", "absent"] {
        tasks.push(Task::reading(name, &tree, Job::inner(&[name, &files])?));
    }
    Ok(tasks)
}
