//! Directories, read by `getdents64(2)` itself: offsets, types and numbers are part of the answer.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use super::{Answer, content, describe};

struct Entry {
    name: Vec<u8>,
    kind: FileType,
    number: u64,
    next: u64,
}

fn open(directory: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::empty())
}

/// Calls back for every entry from where the descriptor stands.
fn each(
    fd: &OwnedFd,
    mut act: impl FnMut(&Entry) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    let mut entries = RawDir::new(fd, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        act(&Entry {
            name: entry.file_name().to_bytes().to_vec(),
            kind: entry.file_type(),
            number: entry.ino(),
            next: entry.next_entry_cookie(),
        })?;
    }
    Ok(())
}

fn read(fd: &OwnedFd) -> rustix::io::Result<Vec<Entry>> {
    let mut all = Vec::new();
    each(fd, |entry| {
        let Entry {
            ref name,
            kind,
            number,
            next,
        } = *entry;
        all.push(Entry {
            name: name.clone(),
            kind,
            number,
            next,
        });
        Ok(())
    })?;
    Ok(all)
}

fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

/// Names and types, sorted. An entry whose number is not that of its inode says so.
pub(super) fn sorted(directory: &Path) -> rustix::io::Result<Vec<String>> {
    let fd = open(directory)?;
    let mut lines = Vec::new();
    for entry in read(&fd)? {
        let stat = rustix::fs::statat(&fd, &*entry.name, AtFlags::SYMLINK_NOFOLLOW)?;
        // The `..` of a mount point is listed as the file system has it, not as the kernel walks.
        let agrees = entry.name == b".." || stat.st_ino == entry.number;
        let note = if agrees { "" } else { "!ino" };
        lines.push(format!(
            "{}:{:?}{note}",
            cas::text::encode(&entry.name),
            entry.kind
        ));
    }
    lines.sort();
    Ok(lines)
}

/// Removes each file as it is listed; tells how many were listed and what is left.
pub(super) fn and_remove(directory: &Path) -> Answer {
    let fd = open(directory)?;
    let mut seen = 0;
    each(&fd, |entry| {
        if is_dot(&entry.name) {
            return Ok(());
        }
        seen += 1;
        rustix::fs::unlinkat(&fd, &*entry.name, AtFlags::empty())
    })?;
    rustix::fs::seek(&fd, SeekFrom::Start(0))?;
    Ok(format!("{seen} removed, {} left", read(&fd)?.len()))
}

/// Checks that a listing is the same after a rewind, and goes on properly from every offset.
pub(super) fn again(directory: &Path) -> Answer {
    let fd = open(directory)?;
    let all = read(&fd)?;
    rustix::fs::seek(&fd, SeekFrom::Start(0))?;
    let names = |entries: &[Entry]| entries.iter().map(|e| e.name.clone()).collect::<Vec<_>>();
    let mut wrong = usize::from(names(&read(&fd)?) != names(&all));
    for (at, entry) in all.iter().enumerate() {
        rustix::fs::seek(&fd, SeekFrom::Start(entry.next))?;
        wrong += usize::from(names(&read(&fd)?) != names(&all[at + 1..]));
    }
    Ok(format!("{} entries, {wrong} wrong", all.len()))
}

/// Everything below the current directory, in the order of names.
pub(super) fn tree() -> Answer {
    let mut lines = Vec::new();
    let mut numbers = BTreeMap::new();
    below(Path::new("."), &mut lines, &mut numbers)?;
    Ok(lines.join("\n"))
}

fn below(
    directory: &Path,
    lines: &mut Vec<String>,
    numbers: &mut BTreeMap<u64, usize>,
) -> rustix::io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let fd = match open(directory) {
        Err(errno @ (Errno::ACCESS | Errno::PERM)) => {
            lines.push(format!("{}: {errno}", directory.display()));
            return Ok(());
        }
        other => other?,
    };
    let mut entries = read(&fd)?;
    entries.retain(|entry| !is_dot(&entry.name));
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    for entry in entries {
        let path = directory.join(std::ffi::OsStr::from_bytes(&entry.name));
        let shown = cas::text::encode(path.as_os_str().as_bytes()).into_owned();
        // A directory that may be listed but not searched shows names and nothing else.
        let stat = match rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Err(errno) => {
                lines.push(format!("{shown}: {errno}"));
                continue;
            }
            Ok(stat) => stat,
        };
        let next = numbers.len();
        let number = *numbers.entry(stat.st_ino).or_insert(next);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let more = match kind {
            FileType::RegularFile => {
                std::fs::read(&path).map_or_else(|e| e.to_string(), |b| content(&b))
            }
            FileType::Symlink => std::fs::read_link(&path).map_or_else(
                |e| e.to_string(),
                |t| cas::text::encode(t.as_os_str().as_bytes()).into_owned(),
            ),
            _ => String::new(),
        };
        lines.push(format!("{shown} #{number} {} {more}", describe(&stat)));
        if kind == FileType::Directory {
            below(&path, lines, numbers)?;
        }
    }
    Ok(())
}
