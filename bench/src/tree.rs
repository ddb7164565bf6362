//! Declared inputs: a directory of files, and what is known of each.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cas::Digest;

use crate::Result;

/// One declared file.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) path: String,
    pub(crate) digest: Digest,
    pub(crate) mode: u32,
    /// Nanoseconds since 1970.
    pub(crate) mtime: i64,
}

/// A directory whose files are the inputs of jobs.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    pub(crate) files: Vec<Input>,
}

/// How many files a leaf directory of a made tree has.
pub(crate) const PER_DIRECTORY: usize = 25;

/// The directory of leaf number `leaf` in a made tree: four levels, as source trees have.
pub(crate) fn leaf(leaf: usize) -> String {
    format!(
        "src/m{:02}/p{:02}/d{}",
        leaf / 400,
        leaf / 20 % 20,
        leaf % 20
    )
}

/// The path of file `i` in a made tree.
pub(crate) fn path(i: usize) -> String {
    format!("{}/f{i}.txt", leaf(i / PER_DIRECTORY))
}

/// Sizes of source files: their logarithm is about normal, the median 3 KB, the mean 8 KB.
fn size(i: usize) -> usize {
    let mut state = i as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let mut sum = 0.0;
    for _ in 0..12 {
        state = scramble(state);
        sum += (state >> 11) as f64 / (1_u64 << 53) as f64;
    }
    ((3000_f64.ln() + 1.4 * (sum - 6.0)).exp() as usize).clamp(16, 1 << 20)
}

/// The next of a sequence of well spread numbers (splitmix64).
pub(crate) fn scramble(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// How the files of a made tree are filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// A line that names the file.
    Line,
    /// As much as a source file has.
    Source,
}

impl Tree {
    /// Makes `count` files under `root`.
    pub(crate) fn make(root: &Path, count: usize, fill: Fill) -> Result<Self> {
        for i in 0..count {
            let file = root.join(path(i));
            if i % PER_DIRECTORY == 0 {
                fs::create_dir_all(root.join(leaf(i / PER_DIRECTORY)))?;
            }
            let mut text = format!("line of file {i}\n");
            if fill == Fill::Source {
                let wanted = size(i);
                text = text.repeat(wanted / text.len() + 1);
                text.truncate(wanted);
            }
            fs::write(file, text)?;
        }
        Self::of(root)
    }

    /// All files below `root`, hashed, with a time in the past.
    pub(crate) fn of(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                match entry.file_type()? {
                    kind if kind.is_dir() => folders.push(entry.path()),
                    kind if kind.is_file() => files.push(input(root, &entry.path())?),
                    _ => {}
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let root = root.to_owned();
        Ok(Self { root, files })
    }

    /// The inputs that a job has: all, or those named.
    pub(crate) fn chosen<'t>(&'t self, names: Option<&HashSet<String>>) -> Vec<&'t Input> {
        let wanted = |input: &&Input| names.is_none_or(|names| names.contains(&input.path));
        self.files.iter().filter(wanted).collect()
    }
}

fn input(root: &Path, path: &Path) -> Result<Input> {
    let file = File::open(path)?;
    // Long ago, so that git does not take an entry of its index for racy.
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000))?;
    let metadata = file.metadata()?;
    let relative = path.strip_prefix(root)?.to_str().ok_or("a name in UTF-8")?;
    Ok(Input {
        path: relative.to_owned(),
        digest: Digest::of_file(&file)?.0,
        mode: metadata.permissions().mode() & 0o7777,
        mtime: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
    })
}

/// Copies these inputs to `target`, with mode and time.
pub(crate) fn copy(tree: &Tree, inputs: &[&Input], target: &Path) -> Result<()> {
    plant(inputs, target, |input, place| {
        fs::copy(tree.root.join(&input.path), place)?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(input.mtime as u64);
        File::open(place)?.set_modified(time)
    })
}

/// Makes the directories of these inputs under `target`, and lets `place` make each file.
pub(crate) fn plant(
    inputs: &[&Input],
    target: &Path,
    place: impl Fn(&Input, &Path) -> std::io::Result<()>,
) -> Result<()> {
    fs::create_dir_all(target)?;
    let mut made = HashSet::new();
    for input in inputs {
        let path = target.join(&input.path);
        let parent = path.parent().ok_or("a parent")?;
        if made.insert(parent.to_owned()) {
            fs::create_dir_all(parent)?;
        }
        place(input, &path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_sources() {
        let mut sizes: Vec<_> = (0..10_000).map(size).collect();
        sizes.sort_unstable();
        assert!((2_500..3_500).contains(&sizes[5_000]), "{}", sizes[5_000]);
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!((6_000..10_000).contains(&mean), "{mean}");
    }
}
