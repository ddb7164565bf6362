//! Further names of a directory: what other mounts show of the same file system. Who hides a
//! directory has to hide it under each of them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cas::text::unmangle;

/// A line of `/proc/self/mountinfo`.
#[derive(Debug)]
struct Mount {
    device: String,
    /// Which part of the file system it shows.
    root: PathBuf,
    point: PathBuf,
}

/// Another name of a directory, or of something in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The name.
    pub path: PathBuf,
    /// What it names, relative to the directory; empty for the directory itself.
    pub part: PathBuf,
}

/// The mounts of this process's namespace. Reading them takes the kernel's lock of all mounts, so a
/// job reads them once.
#[derive(Debug)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// As they are now.
    pub fn read() -> Self {
        let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        let lines = table.split(|&byte| byte == b'\n');
        Self(lines.filter_map(read).collect())
    }

    /// All further names of a directory that is there. Links are none, but for the last part of a
    /// `directory` that is one itself, which the caller has to resolve.
    pub fn aliases(&self, directory: &Path) -> Vec<Alias> {
        let mut aliases = candidates(&self.0, directory);
        // Something else may be mounted over it, or not all of it be mounted.
        let identity = |path: &Path| {
            let found = path.metadata().ok()?;
            Some((found.dev(), found.ino()))
        };
        aliases.retain(|alias| {
            let found = identity(&alias.path);
            found.is_some() && found == identity(&directory.join(&alias.part))
        });
        aliases
    }
}

fn candidates(mounts: &[Mount], directory: &Path) -> Vec<Alias> {
    // Of mounts at the same place the last counts.
    let depth = |mount: &&Mount| mount.point.components().count();
    let around = mounts
        .iter()
        .filter(|mount| directory.starts_with(&mount.point));
    let Some(own) = around.max_by_key(depth) else {
        return Vec::new();
    };
    let rest = directory.strip_prefix(&own.point).unwrap_or(directory);
    let inside: PathBuf = own.root.join(rest).components().collect();
    let same = mounts.iter().filter(|mount| mount.device == own.device);
    let alias = |mount: &Mount| {
        let (below, part) = match inside.strip_prefix(&mount.root) {
            Ok(below) => (below, Path::new("")),
            Err(_) => (Path::new(""), mount.root.strip_prefix(&inside).ok()?),
        };
        let path: PathBuf = mount.point.join(below).components().collect();
        let part = part.to_owned();
        (path != directory.join(&part)).then_some(Alias { path, part })
    };
    same.filter_map(alias).collect()
}

/// `36 35 98:0 /root /point options - type source options`
fn read(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|&byte| byte == b' ').skip(2);
    let device = String::from_utf8_lossy(words.next()?).into_owned();
    let mut path = || Some(PathBuf::from(OsString::from_vec(unmangle(words.next()?))));
    Some(Mount {
        device,
        root: path()?,
        point: path()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r"20 1 8:1 / / rw - ext4 /dev/a rw
21 20 8:2 / /data rw - ext4 /dev/b rw
22 20 8:1 /srv/x /mnt/x rw - ext4 /dev/a rw
23 20 8:1 / /mnt/all\040of\040it rw - ext4 /dev/a rw
24 20 8:1 /srv/x/store/blobs /mnt/b rw - ext4 /dev/a rw
25 20 8:1 /other /mnt/o rw - ext4 /dev/a rw";

    fn names(directory: &str) -> Vec<(String, String)> {
        let mounts: Vec<_> = TABLE
            .lines()
            .filter_map(|line| read(line.as_bytes()))
            .collect();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let found = candidates(&mounts, directory.as_ref()).into_iter();
        found
            .map(|alias| (text(alias.path), text(alias.part)))
            .collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(a, b)| ((*a).into(), (*b).into()))
            .collect()
    }

    #[test]
    fn mounts_of_what_is_above_and_below_are_further_names() {
        let expected = [
            ("/mnt/x/store", ""),
            ("/mnt/all of it/srv/x/store", ""),
            ("/mnt/b", "blobs"),
        ];
        assert_eq!(names("/srv/x/store"), pairs(&expected));
        let expected = [
            ("/srv/x/store", ""),
            ("/mnt/all of it/srv/x/store", ""),
            ("/mnt/b", "blobs"),
        ];
        assert_eq!(names("/mnt/x/store"), pairs(&expected));
        assert!(names("/data/store").is_empty());
    }
}
