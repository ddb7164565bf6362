//! What is in a directory, as system calls tell it.

use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// One name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `st_ino`.
    pub inode: u64,
    /// Permission bits.
    pub mode: u32,
    /// `st_nlink`.
    pub links: u64,
    /// Extended attributes of the user's, with their values.
    pub attributes: BTreeMap<String, String>,
    /// Kind and content.
    pub content: Content,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A regular file with its bytes.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A link with its target.
    Symlink(String),
}

/// Everything below a directory, by path. Reads all of it.
///
/// # Errors
/// Whatever cannot be listed, examined or read, with its path.
pub fn look(root: &Path) -> Result<BTreeMap<String, Seen>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        let place = root.join(&directory);
        for entry in std::fs::read_dir(&place).map_err(|error| at(&place, &error))? {
            let entry = entry.map_err(|error| at(&place, &error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = match directory.as_str() {
                "" => name,
                above => format!("{above}/{name}"),
            };
            let seen = examine(&entry.path()).map_err(|error| at(&entry.path(), &error))?;
            if seen.content == Content::Directory {
                directories.push(path.clone());
            }
            if found.insert(path, seen).is_some() {
                return Err(at(&entry.path(), &Error::other("listed twice")));
            }
        }
    }
    Ok(found)
}

fn at(path: &Path, error: &Error) -> Error {
    Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn examine(path: &Path) -> Result<Seen> {
    let is = path.symlink_metadata()?;
    let kind = is.file_type();
    let content = if kind.is_dir() {
        Content::Directory
    } else if kind.is_symlink() {
        let target = std::fs::read_link(path)?;
        Content::Symlink(target.to_string_lossy().into_owned())
    } else if kind.is_char_device() {
        return Err(Error::other("a device, which nobody made"));
    } else {
        let bytes = std::fs::read(path)?;
        if bytes.len() as u64 != is.len() {
            let (read, size) = (bytes.len(), is.len());
            return Err(Error::other(format!("{read} bytes are read of {size}")));
        }
        Content::File(bytes)
    };
    Ok(Seen {
        inode: is.ino(),
        mode: is.mode() & 0o7777,
        links: is.nlink(),
        attributes: attributes(path)?,
        content,
    })
}

fn attributes(path: &Path) -> Result<BTreeMap<String, String>> {
    let mut names = vec![0; 1 << 14];
    let length = rustix::fs::llistxattr(path, &mut names[..])?;
    let mut found = BTreeMap::new();
    for name in names[..length].split(|&byte| byte == 0) {
        let Some(name) = std::str::from_utf8(name)
            .ok()
            .filter(|name| name.starts_with("user."))
        else {
            continue;
        };
        let mut value = vec![0; 1 << 12];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        let value = String::from_utf8_lossy(&value[..length]).into_owned();
        found.insert(name.to_owned(), value);
    }
    Ok(found)
}
