//! Names and attributes: what a walk, a stat, an open and a missing name cost.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags};

use super::Findings;
use crate::Result;
use crate::tree::{PER_DIRECTORY, leaf, path};

/// lstat by path: no std, which would use statx.
fn lstat(path: &str) -> Result<i64> {
    let found = rustix::fs::lstat(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(found.st_size)
}

fn paths(files: usize) -> Vec<String> {
    (0..files).map(path).collect()
}

pub(super) fn stat(found: &mut Findings, files: usize) -> Result<()> {
    let paths = paths(files);
    for name in ["stat, first touch", "stat, warm"] {
        let sum: i64 = found.time(name, files, || paths.iter().map(|path| lstat(path)).sum())?;
        found.saw(sum);
    }
    Ok(())
}

/// While this waits, its daemon's memory can be looked at.
pub(super) fn hold(files: usize, paper: &Path) -> Result<()> {
    let mut buffer = [0; 4096];
    for path in paths(files) {
        lstat(&path)?;
        open_and_read(&path, &mut buffer)?;
    }
    fs::write(paper.with_extension("ready"), "")?;
    wait_for(&paper.with_extension("enough"))
}

/// Waits until a file is there; an error after a minute.
pub(crate) fn wait_for(path: &Path) -> Result<()> {
    for _ in 0..6_000 {
        if path.exists() {
            return Ok(());
        }
        sleep(Duration::from_millis(10));
    }
    Err(format!("{}: has not come", path.display()).into())
}

pub(super) fn absent(found: &mut Findings, files: usize) -> Result<()> {
    let folders = files / PER_DIRECTORY;
    let names: Vec<_> = (0..files)
        .map(|i| format!("{}/absent{i}.h", leaf(i % folders.max(1))))
        .collect();
    for what in ["absent name, first", "absent name, known"] {
        let there = found.time(what, files, || {
            let there = names
                .iter()
                .filter(|name| rustix::fs::lstat(name.as_str()).is_ok());
            Ok(there.count())
        })?;
        found.saw(there);
    }
    Ok(())
}

pub(super) fn walk(found: &mut Findings) -> Result<()> {
    // The first walk also counts, so its time is divided afterwards.
    for name in ["walk with lstat, first touch", "walk with lstat, warm"] {
        let entries = found.time(name, 1, || walk_below(Path::new(".")))?;
        if let Some((_, time)) = found.figures.last_mut() {
            *time /= entries.max(1) as f64;
        }
        found.saw(entries);
    }
    Ok(())
}

fn walk_below(folder: &Path) -> Result<usize> {
    let mut entries = 0;
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        entries += 1;
        if metadata.is_dir() {
            folders.push(entry.path());
        }
    }
    for folder in folders {
        entries += walk_below(&folder)?;
    }
    Ok(entries)
}

/// Opens, reads at most 4 KB, and closes.
fn open_and_read(path: &str, buffer: &mut [u8]) -> Result<usize> {
    let mut file = File::open(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(file.read(buffer)?)
}

pub(super) fn open(found: &mut Findings, files: usize) -> Result<()> {
    let paths = paths(files);
    let mut buffer = [0; 4096];
    for name in [
        "open, read 4 KB, close, first touch",
        "open, read 4 KB, close, warm",
    ] {
        let bytes: usize = found.time(name, files, || {
            let reads = paths.iter().map(|path| open_and_read(path, &mut buffer));
            reads.sum()
        })?;
        found.saw(bytes);
    }
    found.time("open, close, warm", files, || {
        for path in &paths {
            rustix::fs::openat(
                CWD,
                path.as_str(),
                OFlags::RDONLY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
        }
        Ok(())
    })
}

pub(super) fn stat_after_read(found: &mut Findings, files: usize) -> Result<()> {
    let paths = paths(files);
    let mut buffer = [0; 4096];
    // Inodes are known before: what a read invalidates is in the figure, and nothing else.
    for path in &paths {
        lstat(path)?;
        open_and_read(path, &mut buffer)?;
    }
    let sum: i64 = found.time("stat after read", files, || {
        paths.iter().map(|path| lstat(path)).sum()
    })?;
    found.saw(sum);
    Ok(())
}
