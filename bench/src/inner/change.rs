//! Names that come and go.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::{Findings, data};
use crate::Result;

/// As many names as a source directory has at most.
const PER_FOLDER: usize = 500;

pub(super) fn create(found: &mut Findings, files: usize) -> Result<()> {
    let folders: Vec<_> = (0..files.div_ceil(PER_FOLDER))
        .map(|i| format!("made{i}"))
        .collect();
    for folder in &folders {
        fs::create_dir(folder)?;
    }
    let name = |i: usize, what: &str| format!("{}/{what}{i}", folders[i / PER_FOLDER]);
    let page = [3; 4096];
    found.time("create, write 4 KB, close", files, || {
        each(files, |i| File::create(name(i, "f"))?.write_all(&page))
    })?;
    found.time("rename", files, || {
        each(files, |i| fs::rename(name(i, "f"), name(i, "g")))
    })?;
    found.time("mkdir", files, || {
        each(files, |i| fs::create_dir(name(i, "d")))
    })?;
    let mut entries = 0;
    for folder in &folders {
        entries += fs::read_dir(folder)?.count();
    }
    found.saw(entries);
    found.time("unlink", files, || {
        each(files, |i| fs::remove_file(name(i, "g")))
    })?;
    found.time("rmdir", files, || {
        each(files, |i| fs::remove_dir(name(i, "d")))
    })?;
    for folder in &folders {
        fs::remove_dir(folder)?;
    }
    Ok(())
}

fn each(times: usize, work: impl Fn(usize) -> std::io::Result<()>) -> Result<()> {
    (0..times).try_for_each(work)?;
    Ok(())
}

pub(super) fn outputs(files: usize, bytes: usize) -> Result<()> {
    fs::create_dir("out")?;
    for i in 0..files {
        if i % PER_FOLDER == 0 {
            fs::create_dir(format!("out/{}", i / PER_FOLDER))?;
        }
        let path = format!("out/{}/f{i}", i / PER_FOLDER);
        data::fill(Path::new(&path), bytes, i as u64)?;
    }
    Ok(())
}
