//! The files that git does not ignore.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Command;

use cas::name::InvalidPath;
use cas::{Name, RelPath};

use crate::ingest::attributes::FoundKind;
use crate::ingest::select::{Found, SelectError, examine_all};
use crate::ingest::walk::{Directories, Standing, Terrain};

/// Variables that make git look at another repository than that of its working directory; a git
/// hook that runs a job has them set. The list is that of `git rev-parse --local-env-vars`, less
/// those that only carry configuration.
const REPOSITORY_VARIABLES: [&str; 8] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_IMPLICIT_WORK_TREE",
];

/// Whether a directory lies in a git checkout.
pub(super) fn is_checkout(workspace: &Path) -> bool {
    let canonical = std::fs::canonicalize(workspace).unwrap_or_else(|_| workspace.into());
    canonical.ancestors().any(has_git)
}

fn has_git(directory: &Path) -> bool {
    directory.join(".git").symlink_metadata().is_ok()
}

/// All files that git knows or would offer to add, those of submodules and nested checkouts
/// included. Tracked files that are deleted on disk are passed over.
pub(super) fn find(terrain: Terrain<'_>) -> Result<Vec<Found>, SelectError> {
    let mut directories = Directories::new(terrain);
    let mut found = Vec::new();
    let mut checkouts = vec![None];
    while let Some(checkout) = checkouts.pop() {
        let mut paths = list(&terrain.full_path(checkout.as_ref()), checkout.as_ref())?;
        // A tracked file below what is now a link is deleted, though the link may lead to one
        // of its name.
        paths.retain(|path| directories.of_parent(path) == Standing::Directory);
        let part = examine_all(terrain, paths)?;
        for found in part.iter().filter(|found| is_directory(found)) {
            // Git lists a directory for a submodule, or for a checkout that is not one yet.
            let enters = directories.of(&found.path) == Standing::Directory;
            if enters && has_git(&terrain.full_path(Some(&found.path))) {
                checkouts.push(Some(found.path.clone()));
            }
        }
        found.extend(part);
    }
    found.retain(|found| !is_directory(found) || directories.of(&found.path) != Standing::Excluded);
    Ok(found)
}

fn is_directory(found: &Found) -> bool {
    found.attributes.kind == FoundKind::Directory
}

/// What git lists in a directory, as paths below `checkout`.
fn list(directory: &Path, checkout: Option<&RelPath>) -> Result<Vec<RelPath>, SelectError> {
    let output = run(directory)?;
    output
        .split(|&byte| byte == 0)
        .filter_map(|listed| match RelPath::parse(listed) {
            Ok(path) => Some(Ok(below(checkout, path))),
            Err(InvalidPath::Empty) => None,
            Err(reason) => Some(Err(SelectError::Name {
                path: OsString::from_vec(listed.into()).into(),
                reason,
            })),
        })
        .collect()
}

fn below(checkout: Option<&RelPath>, path: RelPath) -> RelPath {
    match checkout {
        Some(checkout) => path
            .names()
            .fold(checkout.clone(), |at, name: Name<'_>| at.join(name)),
        None => path,
    }
}

fn run(directory: &Path) -> Result<Vec<u8>, SelectError> {
    let mut git = Command::new("git");
    git.current_dir(directory)
        .args(["ls-files", "-z", "--cached", "--others"])
        .args(["--exclude-standard", "--deduplicate"])
        .stdin(std::process::Stdio::null());
    for variable in REPOSITORY_VARIABLES {
        git.env_remove(variable);
    }
    let failed = |reason| SelectError::Git {
        directory: directory.into(),
        reason,
    };
    let output = git.output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(failed(complaint(&output.stderr, output.status)))
    }
}

/// The first line that git wrote about its failure.
fn complaint(stderr: &[u8], status: std::process::ExitStatus) -> String {
    let text = String::from_utf8_lossy(stderr);
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .next()
        .map_or_else(|| format!("git: {status}"), Into::into)
}
