//! Names that come and go.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{Job, Task};
use crate::Result;
use crate::cli::Options;
use crate::tree::Tree;

pub(super) fn tasks(options: &Options, place: &Path) -> Result<Vec<Task>> {
    let root = place.join("empty");
    fs::create_dir_all(&root)?;
    let tree = Arc::new(Tree::of(&root)?);
    let files = options.scaled(5_000, 20).to_string();
    Ok(vec![Task::writing(
        "create",
        &tree,
        Job::inner(&["create", &files])?,
    )])
}
