//! Between the nodes of a message and the children of a directory.

use super::{Child, ChildKind, Malformed, message};
use crate::digest::Digest;
use crate::name::{Name, NameBuf};
use crate::text;

/// Longest link target that `symlink(2)` accepts.
const TARGET_MAX: usize = 4095;

const NANOSECONDS: i64 = 1_000_000_000;

impl Child {
    pub(super) fn add_to(&self, message: &mut message::Directory) {
        let name = written(&self.name);
        match &self.kind {
            ChildKind::File {
                digest,
                size,
                mode,
                mtime,
            } => message.files.push(message::FileNode {
                name,
                digest: Some(written_digest(*digest, *size)),
                is_executable: mode & 0o111 != 0,
                node_properties: Some(properties(*mode, *mtime)),
            }),
            ChildKind::Symlink {
                target,
                mode,
                mtime,
            } => message.symlinks.push(message::SymlinkNode {
                name,
                target: text::encode(target).into_owned(),
                node_properties: Some(properties(*mode, *mtime)),
            }),
            ChildKind::Directory { digest, size } => {
                message.directories.push(message::DirectoryNode {
                    name,
                    digest: Some(written_digest(*digest, *size)),
                });
            }
        }
    }

    pub(super) fn from_file(node: message::FileNode) -> Result<Self, Malformed> {
        let default = if node.is_executable { 0o555 } else { 0o444 };
        let (mode, mtime) = attributes(&node.name, node.node_properties, default)?;
        let (digest, size) = read_digest(&node.name, node.digest)?;
        let kind = ChildKind::File {
            digest,
            size,
            mode,
            mtime,
        };
        let name = read_name(node.name)?;
        Ok(Self { name, kind })
    }

    pub(super) fn from_directory(node: message::DirectoryNode) -> Result<Self, Malformed> {
        let (digest, size) = read_digest(&node.name, node.digest)?;
        let kind = ChildKind::Directory { digest, size };
        let name = read_name(node.name)?;
        Ok(Self { name, kind })
    }

    pub(super) fn from_symlink(node: message::SymlinkNode) -> Result<Self, Malformed> {
        let (mode, mtime) = attributes(&node.name, node.node_properties, 0o777)?;
        let target: Box<[u8]> = text::decode(&node.target).into();
        if target.is_empty() || target.len() > TARGET_MAX || target.contains(&0) {
            return Err(Malformed::Target(node.name));
        }
        let kind = ChildKind::Symlink {
            target,
            mode,
            mtime,
        };
        let name = read_name(node.name)?;
        Ok(Self { name, kind })
    }
}

pub(super) fn written(name: &NameBuf) -> String {
    text::encode(name.as_bytes()).into_owned()
}

fn read_name(name: String) -> Result<NameBuf, Malformed> {
    match Name::new(&text::decode(&name)) {
        Ok(valid) => Ok(valid.to_owned()),
        Err(reason) => Err(Malformed::Name { name, reason }),
    }
}

pub(super) fn written_digest(digest: Digest, size: u64) -> message::Digest {
    message::Digest {
        hash: digest.to_string(),
        size_bytes: i64::try_from(size).unwrap_or(i64::MAX),
    }
}

fn read_digest(name: &str, digest: Option<message::Digest>) -> Result<(Digest, u64), Malformed> {
    let read = digest.and_then(|digest| {
        let size = u64::try_from(digest.size_bytes).ok()?;
        Some((digest.hash.parse().ok()?, size))
    });
    read.ok_or_else(|| Malformed::Digest(name.into()))
}

pub(super) fn properties(mode: u16, mtime: i64) -> message::NodeProperties {
    message::NodeProperties {
        mtime: Some(message::Timestamp {
            seconds: mtime.div_euclid(NANOSECONDS),
            nanos: mtime.rem_euclid(NANOSECONDS) as i32,
        }),
        unix_mode: Some(message::UInt32Value { value: mode.into() }),
    }
}

/// Mode and time of an entry, with what holds if the properties do not say.
pub(super) fn attributes(
    name: &str,
    properties: Option<message::NodeProperties>,
    default: u16,
) -> Result<(u16, i64), Malformed> {
    let properties = properties.unwrap_or_default();
    let mode = properties
        .unix_mode
        .map(|mode| (mode.value & 0o7777) as u16);
    let time = properties.mtime.unwrap_or_default();
    let valid = (0..NANOSECONDS).contains(&time.nanos.into());
    // In 128 bits: the seconds of the earliest time that fits do not fit by themselves.
    let mtime = i128::from(time.seconds) * i128::from(NANOSECONDS) + i128::from(time.nanos);
    match i64::try_from(mtime) {
        Ok(mtime) if valid => Ok((mode.unwrap_or(default), mtime)),
        _ => Err(Malformed::Time(name.into())),
    }
}
