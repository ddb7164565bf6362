//! One more mount of a file system that is mounted here already, as disks can have several.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::mount::{MountFlags, OpenTreeFlags, open_tree};

use super::kernel::{attach, cannot};
use super::options::Options;
use crate::error::Result;

/// A detached copy of a mount of the file system with this source and device number, if this mount
/// table has one.
pub(super) fn find(source: &OsStr, number: (u32, u32)) -> Option<OwnedFd> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    let lines = table.split(|&byte| byte == b'\n');
    let points = lines.filter_map(|line| mount_point(line, source, number));
    points.filter_map(|path| copy(&path, number)).next_back()
}

/// Attaches it, with flags of its own; those of the file system stay.
pub(super) fn mount(
    copy: OwnedFd,
    directory: OwnedFd,
    path: &Path,
    options: &Options,
) -> Result<()> {
    attach(copy, directory, path)?;
    let flags = options.flags() | MountFlags::BIND;
    let set = rustix::mount::mount_remount(path, flags, c"");
    set.map_err(|errno| {
        let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::NOFOLLOW);
        cannot("set the flags of the mount on", path, errno)
    })
}

/// Where a line of the table has the root of a file system.
fn mount_point(line: &[u8], source: &OsStr, (major, minor): (u32, u32)) -> Option<OsString> {
    let fields: Vec<_> = line.split(|&byte| byte == b' ').collect();
    let device = format!("{major}:{minor}").into_bytes();
    let &[_, _, is, b"/", path, ..] = &fields[..] else {
        return None;
    };
    let named = fields.iter().position(|field| *field == b"-")? + 2;
    let is_it = is == device && unescape(fields.get(named)?) == source;
    is_it.then(|| unescape(path))
}

/// Another file system may lie on it by now.
fn copy(path: &OsStr, number: (u32, u32)) -> Option<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, path, flags).ok()?;
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let is = rustix::fs::statx(&mount, "", flags, StatxFlags::empty()).ok()?;
    ((is.stx_dev_major, is.stx_dev_minor) == number).then_some(mount)
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut parts = field.split(|&byte| byte == b'\\');
    let mut bytes = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let digits = part
            .get(..3)
            .and_then(|code| std::str::from_utf8(code).ok());
        let code = digits.and_then(|code| u8::from_str_radix(code, 8).ok());
        bytes.push(code.unwrap_or(b'\\'));
        bytes.extend(&part[if code.is_some() { 3 } else { 0 }..]);
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_found_by_number_and_source_whatever_its_path() {
        let line =
            b"30 21 0:42 / /mnt/a\\040b\\134c rw shared:1 - fuse.wakebox w\\040x rw,user_id=0";
        let find = |source: &str, number| mount_point(line, OsStr::new(source), number);
        assert_eq!(find("w x", (0, 42)), Some("/mnt/a b\\c".into()));
        assert_eq!(find("w", (0, 42)), None);
        assert_eq!(find("w x", (0, 4)), None);
        let part = b"32 30 0:42 /sub /bound rw - fuse.wakebox w rw";
        assert_eq!(mount_point(part, OsStr::new("w"), (0, 42)), None);
        assert_eq!(mount_point(b"", OsStr::new("w"), (0, 42)), None);
    }
}
