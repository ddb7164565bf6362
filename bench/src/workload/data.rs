//! Big files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{Job, Task};
use crate::Result;
use crate::cli::Options;
use crate::inner;
use crate::tree::Tree;

pub(super) fn tasks(options: &Options, place: &Path) -> Result<Vec<Task>> {
    let bytes = options.scaled(1 << 30, 1 << 20);
    let root = place.join("big");
    fs::create_dir_all(&root)?;
    inner::fill(&root.join("big.bin"), bytes, 7)?;
    let tree = Arc::new(Tree::of(&root)?);
    let empty_root = place.join("empty");
    fs::create_dir_all(&empty_root)?;
    let empty = Arc::new(Tree::of(&empty_root)?);
    let reads = options.scaled(200_000, 1_000).to_string();
    let appends = options.scaled(20_000, 100).to_string();
    Ok(vec![
        Task::reading("read", &tree, Job::inner(&["read", "big.bin", &reads])?),
        Task::writing("write", &empty, Job::inner(&["write", &bytes.to_string()])?),
        Task::writing("append", &empty, Job::inner(&["append", &appends])?),
    ])
}
