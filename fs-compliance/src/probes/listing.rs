//! Listings of directories.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Display;
use std::os::unix::ffi::OsStringExt;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, SeekFrom, mkfifoat, rmdir, seek, symlink, unlink,
    unlinkat,
};
use rustix::io::Errno;
use rustix::process::chdir;

use super::Ground;
use super::check::{Outcome, lstat, make, mkdir, must, open, refused, rewind, same};

probes! { "listing":
    dots_are_listed "A listing has '.' and '..' with the inodes of the directory and its parent",
    inodes_are_those_of_stat "The inode in a listing is that of stat",
    kinds_are_those_of_stat "The kind in a listing is that of stat, or is left unknown",
    offset_leads_back "Each offset of a listing leads to the entry after it, in any order",
    rewound_listing_is_new "A listing from its start has what was made and not what was removed",
    deletion_while_listing_loses_none "Of 3,000 files each is listed once while those listed are removed",
    creation_while_listing_repeats_none "Names that exist all the time are listed once while others come and go",
    directory_links_count_subdirectories "The links of a directory are 2 and one for each subdirectory, or always 1",
    removed_directory_is_dead "A directory that was removed while open can be neither listed nor added to",
    full_directory_is_not_removed "rmdir of a directory with an entry is ENOTEMPTY, and works when it is empty",
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    name: Vec<u8>,
    inode: u64,
    kind: FileType,
    /// The offset from which the listing goes on after this entry.
    next: u64,
}

fn directory(name: &str) -> rustix::io::Result<OwnedFd> {
    open(name, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// What is left of a listing; `each` is called between the entries.
fn walk(file: impl AsFd, mut each: impl FnMut(&Entry) -> Outcome) -> Outcome<Vec<Entry>> {
    // Small, so that the kernel is asked often.
    let mut buffer = Vec::with_capacity(2048);
    let mut entries = Vec::new();
    let mut listing = RawDir::new(file, buffer.spare_capacity_mut());
    while let Some(entry) = listing.next() {
        let entry = entry?;
        entries.push(Entry {
            name: entry.file_name().to_bytes().to_vec(),
            inode: entry.ino(),
            kind: entry.file_type(),
            next: entry.next_entry_cookie(),
        });
        each(&entries[entries.len() - 1])?;
    }
    Ok(entries)
}

fn entries(file: impl AsFd) -> Outcome<Vec<Entry>> {
    walk(file, |_| Ok(()))
}

fn is_dot(name: &[u8]) -> bool {
    name == b"." || name == b".."
}

/// The names in a directory without '.' and '..', sorted.
pub(super) fn names_in(name: &str) -> Outcome<Vec<OsString>> {
    let names = entries(directory(name)?)?
        .into_iter()
        .map(|entry| entry.name);
    let names = names.filter(|name| !is_dot(name));
    let mut names: Vec<OsString> = names.map(OsString::from_vec).collect();
    names.sort();
    Ok(names)
}

/// Fails unless these are the names in a directory, besides '.' and '..'.
pub(super) fn lists(name: &str, wanted: &[&str]) -> Outcome {
    let seen = names_in(name)?;
    must(
        seen == wanted,
        format_args!("{name} lists {seen:?}, not {wanted:?}"),
    )
}

fn make_many(prefix: impl Display, count: usize) -> Outcome {
    for number in 0..count {
        make(&format!("{prefix}{number}"), 0o600)?;
    }
    Ok(())
}

/// Fails unless each of `count` names with this prefix was listed once.
fn each_once(seen: &[Entry], prefix: &str, count: usize) -> Outcome {
    let ours = seen
        .iter()
        .filter(|entry| entry.name.starts_with(prefix.as_bytes()));
    let names: Vec<&[u8]> = ours.map(|entry| entry.name.as_slice()).collect();
    let different: BTreeSet<&[u8]> = names.iter().copied().collect();
    same(
        "number of names listed twice",
        names.len() - different.len(),
        0,
    )?;
    same("number of names listed", different.len(), count)
}

fn dots_are_listed(_: &Ground) -> Outcome {
    mkdir("d")?;
    let listed = entries(directory("d")?)?;
    for (name, place) in [(".", "d"), ("..", ".")] {
        let found = listed.iter().find(|entry| entry.name == name.as_bytes());
        let inode = found.map(|entry| entry.inode);
        same(name, inode, Some(lstat(place)?.st_ino))?;
    }
    Ok(())
}

fn make_kinds() -> Outcome {
    make("file", 0o600)?;
    mkdir("directory")?;
    symlink("nowhere", "link")?;
    Ok(mkfifoat(CWD, "fifo", Mode::from_raw_mode(0o600))?)
}

fn each_named(check: impl Fn(&Entry, &str) -> Outcome) -> Outcome {
    for entry in entries(directory(".")?)?
        .iter()
        .filter(|entry| !is_dot(&entry.name))
    {
        check(entry, &String::from_utf8_lossy(&entry.name))?;
    }
    Ok(())
}

fn inodes_are_those_of_stat(_: &Ground) -> Outcome {
    make_kinds()?;
    each_named(|entry, name| same(name, entry.inode, lstat(name)?.st_ino))
}

fn kinds_are_those_of_stat(_: &Ground) -> Outcome {
    make_kinds()?;
    each_named(|entry, name| {
        let kind = FileType::from_raw_mode(lstat(name)?.st_mode);
        must(
            entry.kind == kind || entry.kind == FileType::Unknown,
            format_args!("{name} is listed as {:?} and is {kind:?}", entry.kind),
        )
    })
}

fn offset_leads_back(_: &Ground) -> Outcome {
    make_many("file-", 300)?;
    let listing = directory(".")?;
    let all = entries(&listing)?;
    same("number of entries", all.len(), 302)?;
    // Backwards, so that no step is where the listing already is.
    for (number, entry) in all.iter().enumerate().rev() {
        seek(&listing, SeekFrom::Start(entry.next))?;
        let rest = entries(&listing)?;
        same("rest of the listing", &rest[..], &all[number + 1..])?;
    }
    Ok(())
}

fn rewound_listing_is_new(_: &Ground) -> Outcome {
    make_many("old-", 3)?;
    let listing = directory(".")?;
    same("number of entries", entries(&listing)?.len(), 5)?;
    unlink("old-1")?;
    make("new", 0o600)?;
    rewind(&listing)?;
    let mut names: Vec<_> = entries(&listing)?
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    names.sort();
    same(
        "names",
        names,
        [".", "..", "new", "old-0", "old-2"].map(Vec::from).to_vec(),
    )
}

fn deletion_while_listing_loses_none(_: &Ground) -> Outcome {
    make_many("file-", 3_000)?;
    let listing = directory(".")?;
    let seen = walk(&listing, |entry| {
        if is_dot(&entry.name) {
            return Ok(());
        }
        Ok(unlinkat(CWD, entry.name.as_slice(), AtFlags::empty())?)
    })?;
    each_once(&seen, "file-", 3_000)?;
    lists(".", &[])
}

fn creation_while_listing_repeats_none(_: &Ground) -> Outcome {
    make_many("stays-", 300)?;
    make_many("goes-", 300)?;
    let mut count = 0;
    let seen = walk(directory(".")?, |_| {
        count += 1;
        if count <= 300 {
            make(&format!("comes-{count}"), 0o600)?;
            unlink(format!("goes-{}", count - 1).as_str())?;
        }
        Ok(())
    })?;
    each_once(&seen, "stays-", 300)
}

fn directory_links_count_subdirectories(_: &Ground) -> Outcome {
    mkdir("d")?;
    let links = || Ok::<_, Errno>(lstat("d")?.st_nlink);
    let empty = links()?;
    if empty == 1 {
        mkdir("d/e")?;
        return same("links with a subdirectory", links()?, 1);
    }
    same("links of an empty directory", empty, 2)?;
    mkdir("d/e")?;
    make("d/a", 0o600)?;
    same("links with a subdirectory", links()?, 3)?;
    rustix::fs::rename("d/e", "e")?;
    same("links after it was moved away", links()?, 2)
}

fn removed_directory_is_dead(_: &Ground) -> Outcome {
    mkdir("d")?;
    let listing = directory("d")?;
    chdir("d")?;
    rmdir("../d")?;
    let mut buffer = Vec::with_capacity(2048);
    let next = RawDir::new(&listing, buffer.spare_capacity_mut())
        .next()
        .transpose()
        .map(drop);
    refused("listing", next, Errno::NOENT)?;
    refused("making a file", make("a", 0o600), Errno::NOENT)?;
    refused("making a directory", mkdir("e"), Errno::NOENT)?;
    refused("getcwd", rustix::process::getcwd(Vec::new()), Errno::NOENT)
}

fn full_directory_is_not_removed(_: &Ground) -> Outcome {
    mkdir("d")?;
    make("d/a", 0o600)?;
    refused("rmdir", rmdir("d"), Errno::NOTEMPTY)?;
    unlink("d/a")?;
    Ok(rmdir("d")?)
}
