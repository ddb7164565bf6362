//! What the kernel asks: requests decoded from bytes. Pure, and total: whatever the bytes are,
//! they are a request or [`Malformed`].

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::abi::{self, opcode};

/// One request of the kernel.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) header: abi::InHeader,
    pub(super) operation: Operation<'a>,
}

/// Bytes that are no request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a request of the kernel (operation {opcode}) is cut short or has no end to a name")]
pub(super) struct Malformed {
    /// What to answer to, if that much could be read.
    pub(super) unique: u64,
    pub(super) opcode: u32,
}

/// What is asked for. Names are as the kernel sends them, and not checked.
#[derive(Debug)]
pub(super) enum Operation<'a> {
    Lookup(&'a [u8]),
    Forget(abi::ForgetIn),
    BatchForget(Forgotten<'a>),
    GetAttr(#[expect(dead_code, reason = "no file handles")] abi::GetAttrIn),
    SetAttr(abi::SetAttrIn),
    ReadLink,
    Symlink {
        name: &'a [u8],
        target: &'a [u8],
    },
    MakeNode(abi::MknodIn, &'a [u8]),
    MakeDirectory(abi::MkdirIn, &'a [u8]),
    Unlink(&'a [u8]),
    RemoveDirectory(&'a [u8]),
    Rename {
        name: &'a [u8],
        new_parent: u64,
        new_name: &'a [u8],
        /// As renameat2(2) has them.
        flags: u32,
    },
    Link(abi::LinkIn, &'a [u8]),
    Open(abi::OpenIn),
    Create(abi::CreateIn, &'a [u8]),
    Read(abi::ReadIn),
    Write(abi::WriteIn, &'a [u8]),
    Release(abi::ReleaseIn),
    Sync(abi::FsyncIn),
    SyncDirectory,
    SyncFileSystem,
    OpenDirectory,
    ReadDirectory(abi::ReadIn),
    ReadDirectoryPlus(abi::ReadIn),
    ReleaseDirectory,
    FileSystem,
    Access(abi::AccessIn),
    Allocate(abi::FallocateIn),
    Seek(abi::LseekIn),
    Init {
        offer: abi::InitIn,
        /// All 64 bits of what the kernel offers.
        flags: u64,
    },
    Destroy,
    CreateUnnamed(abi::CreateIn),
    Statx(#[allow(dead_code, reason = "all that there is is told")] abi::StatxIn),
    /// Answered by the number of bytes, in 64 bits if `wide`, in 32 otherwise.
    CopyRange {
        copy: abi::CopyFileRangeIn,
        wide: bool,
    },
    Extended(Extended<'a>),
    /// Nothing that is known here, or nothing that is ever served.
    Other,
}

/// What is asked of extended attributes and inode flags.
#[derive(Debug)]
pub(super) enum Extended<'a> {
    Set {
        name: &'a [u8],
        value: &'a [u8],
        /// As setxattr(2) has them.
        flags: u32,
        /// Whether an access control list is set by someone who is not in the file's group.
        drop_set_group: bool,
    },
    /// Size 0 asks for the size.
    Get {
        name: &'a [u8],
        size: u32,
    },
    List {
        size: u32,
    },
    Remove(&'a [u8]),
    /// An ioctl(2) with its operand.
    Control(abi::IoctlIn, &'a [u8]),
}

/// Inodes that the kernel has dropped references to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forgotten<'a>(&'a [u8]);

impl Iterator for Forgotten<'_> {
    type Item = abi::ForgetOne;

    fn next(&mut self) -> Option<abi::ForgetOne> {
        let (one, rest) = abi::ForgetOne::read_from_prefix(self.0).ok()?;
        self.0 = rest;
        Some(one)
    }
}

impl<'a> Request<'a> {
    /// Decodes what one `read` of the device gave.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let unknown = Malformed {
            unique: 0,
            opcode: 0,
        };
        let (header, _) = abi::InHeader::read_from_prefix(bytes).map_err(|_| unknown)?;
        Self::body(&header, bytes)
            .and_then(|body| {
                let operation = Operation::decode(header.opcode, &mut Cursor(body))?;
                Some(Self { header, operation })
            })
            .ok_or(Malformed {
                unique: header.unique,
                opcode: header.opcode,
            })
    }

    /// What follows the header, without the extensions behind it, of which none is asked for.
    fn body(header: &abi::InHeader, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let whole = bytes.get(size_of::<abi::InHeader>()..header.len as usize)?;
        let extended = usize::from(header.total_extlen) * 8;
        whole.get(..whole.len().checked_sub(extended)?)
    }
}

impl<'a> Operation<'a> {
    fn decode(number: u32, body: &mut Cursor<'a>) -> Option<Self> {
        Some(match number {
            opcode::LOOKUP => Self::Lookup(body.name()?),
            opcode::FORGET => Self::Forget(body.take()?),
            opcode::BATCH_FORGET => Self::BatchForget(body.forgotten()?),
            opcode::GETATTR => Self::GetAttr(body.take()?),
            opcode::SETATTR => Self::SetAttr(body.take()?),
            opcode::READLINK => Self::ReadLink,
            opcode::UNLINK => Self::Unlink(body.name()?),
            opcode::RMDIR => Self::RemoveDirectory(body.name()?),
            opcode::OPEN => Self::Open(body.take()?),
            opcode::READ => Self::Read(body.take()?),
            opcode::WRITE => {
                let write: abi::WriteIn = body.take()?;
                Self::Write(write, body.bytes(write.size)?)
            }
            opcode::RELEASE => Self::Release(body.take()?),
            opcode::FSYNC => Self::Sync(body.take()?),
            opcode::FSYNCDIR => Self::SyncDirectory,
            opcode::SYNCFS => Self::SyncFileSystem,
            opcode::OPENDIR => Self::OpenDirectory,
            opcode::READDIR => Self::ReadDirectory(body.take()?),
            opcode::READDIRPLUS => Self::ReadDirectoryPlus(body.take()?),
            opcode::RELEASEDIR => Self::ReleaseDirectory,
            opcode::STATFS => Self::FileSystem,
            opcode::ACCESS => Self::Access(body.take()?),
            opcode::FALLOCATE => Self::Allocate(body.take()?),
            opcode::LSEEK => Self::Seek(body.take()?),
            opcode::INIT => body.init()?,
            opcode::DESTROY => Self::Destroy,
            _ => return Self::decode_making(number, body),
        })
    }

    /// Operations that make a name.
    fn decode_making(number: u32, body: &mut Cursor<'a>) -> Option<Self> {
        Some(match number {
            opcode::SYMLINK => Self::Symlink {
                name: body.name()?,
                target: body.name()?,
            },
            opcode::MKNOD => Self::MakeNode(body.take()?, body.name()?),
            opcode::MKDIR => Self::MakeDirectory(body.take()?, body.name()?),
            opcode::RENAME => {
                body.rename(|body| Some((body.take::<abi::RenameIn>()?.newdir, 0)))?
            }
            opcode::RENAME2 => body.rename(|body| {
                let rename: abi::Rename2In = body.take()?;
                Some((rename.newdir, rename.flags))
            })?,
            opcode::LINK => Self::Link(body.take()?, body.name()?),
            opcode::CREATE => Self::Create(body.take()?, body.name()?),
            opcode::TMPFILE => Self::CreateUnnamed(body.take()?),
            _ => return Self::decode_rare(number, body),
        })
    }

    fn decode_rare(number: u32, body: &mut Cursor<'a>) -> Option<Self> {
        Some(match number {
            opcode::STATX => Self::Statx(body.take()?),
            opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => Self::CopyRange {
                copy: body.take()?,
                wide: number == opcode::COPY_FILE_RANGE_64,
            },
            opcode::IOCTL => Self::Extended(body.control()?),
            opcode::SETXATTR => Self::Extended(body.set_xattr()?),
            opcode::GETXATTR => Self::Extended(body.get_xattr()?),
            opcode::LISTXATTR => Self::Extended(Extended::List {
                size: body.take::<abi::GetXattrIn>()?.size,
            }),
            opcode::REMOVEXATTR => Self::Extended(Extended::Remove(body.name()?)),
            _ => Self::Other,
        })
    }
}

/// What of a request is still to be decoded.
#[derive(Debug)]
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Option<T> {
        let (taken, rest) = T::read_from_prefix(self.0).ok()?;
        self.0 = rest;
        Some(taken)
    }

    fn bytes(&mut self, length: u32) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length as usize)?;
        self.0 = rest;
        Some(taken)
    }

    /// A name up to its NUL.
    fn name(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let name = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(name)
    }

    fn forgotten(&mut self) -> Option<Forgotten<'a>> {
        let count = self.take::<abi::BatchForgetIn>()?.count;
        let length = count.checked_mul(size_of::<abi::ForgetOne>() as u32)?;
        Some(Forgotten(self.bytes(length)?))
    }

    fn rename(
        &mut self,
        to: impl FnOnce(&mut Self) -> Option<(u64, u32)>,
    ) -> Option<Operation<'a>> {
        let (new_parent, flags) = to(self)?;
        let (name, new_name) = (self.name()?, self.name()?);
        Some(Operation::Rename {
            name,
            new_parent,
            new_name,
            flags,
        })
    }

    fn init(&mut self) -> Option<Operation<'a>> {
        let offer: abi::InitIn = self.take()?;
        let more = u64::from(offer.flags) & abi::init::INIT_EXT != 0;
        let high = if more { self.take::<u32>()? } else { 0 };
        let flags = u64::from(high) << 32 | u64::from(offer.flags);
        Some(Operation::Init { offer, flags })
    }

    fn control(&mut self) -> Option<Extended<'a>> {
        let control: abi::IoctlIn = self.take()?;
        Some(Extended::Control(control, self.bytes(control.in_size)?))
    }

    fn set_xattr(&mut self) -> Option<Extended<'a>> {
        let set: abi::SetXattrIn = self.take()?;
        let name = self.name()?;
        Some(Extended::Set {
            name,
            value: self.bytes(set.size)?,
            flags: set.flags,
            drop_set_group: set.setxattr_flags & abi::SETXATTR_ACL_KILL_SGID != 0,
        })
    }

    fn get_xattr(&mut self) -> Option<Extended<'a>> {
        let get: abi::GetXattrIn = self.take()?;
        let name = self.name()?;
        Some(Extended::Get {
            name,
            size: get.size,
        })
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
