//! The work directory. Suites run as root and remove trees, so they get only what we made.

use crate::outcome::{At as _, Trouble};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// The file that says that a directory is ours to empty.
const MARKER: &str = ".fs-compliance-made-this";
/// The work directory; emptied when dropped, and removed if it was made for this run only.
#[derive(Debug)]
pub struct Work {
    path: PathBuf,
    state: TempDir,
    fresh: bool,
    keep: bool,
}

impl Work {
    /// Makes the directory that was named, or takes it again if an earlier run made it, or makes a
    /// fresh one; and one for the state of mounts, in `backing` if that is named.
    ///
    /// # Errors
    /// When the directory is neither absent, empty nor marked as ours, or something is mounted in it.
    pub fn make(named: Option<&Path>, backing: Option<&Path>, keep: bool) -> Result<Self, Trouble> {
        let path = match named {
            Some(path) => {
                fs::create_dir_all(path).at(path.display())?;
                path.canonicalize().at(path.display())?
            }
            None => tempfile::Builder::new()
                .prefix("fs-compliance-")
                .tempdir()
                .at("a work directory")?
                .keep(),
        };
        refuse_if_not_ours(&path)?;
        empty(&path)?;
        place(
            &path.join(MARKER),
            "fs-compliance made this directory and may empty it.\n",
        )?;
        let fresh = named.is_none();
        let mut state = state(backing.unwrap_or(&path))?;
        state.disable_cleanup(keep);
        Ok(Self {
            path,
            state,
            fresh,
            keep,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the state of mounts lies.
    #[must_use]
    pub fn state(&self) -> &Path {
        self.state.path()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("left as it is: {}", self.path.display());
            return;
        }
        let remove = || match self.fresh {
            true => fs::remove_dir_all(&self.path).at(self.path.display()),
            false => empty(&self.path),
        };
        // After an interrupt the last processes of the namespace may still be ending.
        let gone = remove().or_else(|_| {
            std::thread::sleep(Duration::from_secs(1));
            remove()
        });
        if let Err(trouble) = gone {
            eprintln!("not removed: {trouble}");
        }
    }
}

fn state(folder: &Path) -> Result<TempDir, Trouble> {
    let folder = folder.canonicalize().at(folder.display())?;
    let made = tempfile::Builder::new()
        .prefix("fsc-state-")
        .tempdir_in(&folder);
    made.at(folder.display())
}

fn refuse_if_not_ours(path: &Path) -> Result<(), Trouble> {
    let refuse = |why: &str| Err(Trouble::Broken(format!("{}: {why}", path.display())));
    let is_empty = fs::read_dir(path).at(path.display())?.next().is_none();
    if !is_empty && !path.join(MARKER).is_file() {
        return refuse("fs-compliance did not make this directory; it removes nothing there");
    }
    if path
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|byte| b",:\\ \t\n".contains(byte))
    {
        return refuse("a work directory's path may have no space, comma, colon or backslash");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").at("/proc/self/mountinfo")?;
    let inside = |line: &str| {
        let point = line.split(' ').nth(4).map(Path::new);
        point.is_some_and(|point| point != path && point.starts_with(path))
    };
    if mounts.lines().any(inside) {
        return refuse("something is mounted in it; unmount that first");
    }
    Ok(())
}

/// Removes all in the directory but the marker.
fn empty(path: &Path) -> Result<(), Trouble> {
    for entry in fs::read_dir(path).at(path.display())? {
        let entry = entry.at(path.display())?;
        let inner = entry.path();
        if entry.file_name() == MARKER {
            continue;
        }
        let gone = match entry.file_type().at(inner.display())?.is_dir() {
            true => fs::remove_dir_all(&inner),
            false => fs::remove_file(&inner),
        };
        gone.at(inner.display())?;
    }
    Ok(())
}

/// Writes a file that is seen whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn place(path: &Path, text: &str) -> Result<(), Trouble> {
    let new = path.with_extension("new");
    let write = || {
        File::create(&new)?.write_all(text.as_bytes())?;
        fs::rename(&new, path)
    };
    write().at(path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_others_is_refused_and_left_alone() {
        let other = tempfile::tempdir().expect("a folder");
        place(&other.path().join("theirs"), "x").expect("a file");
        let refused = Work::make(Some(other.path()), None, false).expect_err("refused");
        assert!(refused.to_string().contains("did not make this directory"));
        assert!(other.path().join("theirs").exists());
    }

    #[test]
    fn our_own_directory_is_taken_again_and_emptied() {
        let outer = tempfile::tempdir().expect("a folder");
        let named = outer.path().join("work");
        for _ in 0..2 {
            let work = Work::make(Some(&named), None, false).expect("a work directory");
            place(&work.path().join("left"), "x").expect("a file");
        }
        assert!(named.join(MARKER).exists() && !named.join("left").exists());
    }
}
