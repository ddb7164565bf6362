//! Extended attributes and inode flags. A job has none, and says so once: ENOSYS ends each kind of
//! request for good.

use rustix::io::Errno;
use zerocopy::FromBytes;

use crate::job::{Refusal, Result};
use crate::view::{AtimePolicy, Caller, InodeFlags, InodeId, SetMode};

use super::JobFileSystem;
use super::abi::{self, ioctl};
use super::convert::now;
use super::reply::Reply;
use super::request::Extended;

impl JobFileSystem {
    pub(super) fn extended(
        &self,
        id: InodeId,
        extended: &Extended<'_>,
        by: Caller,
        reply: &mut Reply,
    ) -> Result<()> {
        if !self.job.serves_extended() {
            return Err(Refusal::Os(Errno::NOSYS));
        }
        match *extended {
            Extended::Set {
                name: ATIME_CONTROL,
                value,
                ..
            } if id == InodeId::ROOT => self.set_atime(value, reply),
            Extended::Set {
                name,
                value,
                flags,
                drop_set_group,
            } => {
                let mode = set_mode(flags)?;
                self.job.set_extended(id, name, value, mode, now())?;
                match drop_set_group {
                    true => self.job.drop_set_group(id),
                    false => Ok(()),
                }
            }
            Extended::Get { name, size } => {
                let value = self.job.extended(id, name)?;
                sized(&value, size, reply)
            }
            Extended::List { size } => {
                let names = self.job.list_extended(id, by)?;
                sized(&names, size, reply)
            }
            Extended::Remove(name) => self.job.remove_extended(id, name, now()),
            Extended::Control(ref control, data) => self.control(id, control, data, by, reply),
        }
    }

    fn control(
        &self,
        id: InodeId,
        control: &abi::IoctlIn,
        data: &[u8],
        by: Caller,
        reply: &mut Reply,
    ) -> Result<()> {
        match control.cmd {
            ioctl::GET_FLAGS => {
                let InodeFlags(flags) = self.job.flags(id)?;
                reply.push(&abi::IoctlOut::default());
                reply.push(&flags);
            }
            ioctl::SET_FLAGS => {
                let word = data.first_chunk().ok_or(Refusal::Os(Errno::INVAL))?;
                let flags = InodeFlags(u32::from_ne_bytes(*word));
                self.set_flags(id, flags, by, reply)?;
            }
            ioctl::GET_XFLAGS => {
                let xflags = swapped(self.job.flags(id)?.0, &XFLAGS, |(flag, x)| (flag, x));
                reply.push(&abi::IoctlOut::default());
                reply.push(&abi::FsXattr {
                    xflags,
                    ..Default::default()
                });
            }
            ioctl::SET_XFLAGS => {
                let (x, _) =
                    abi::FsXattr::read_from_prefix(data).map_err(|_| Refusal::Os(Errno::INVAL))?;
                let flags = swapped(x.xflags, &XFLAGS, |(flag, x)| (x, flag));
                let kept = swapped(flags, &XFLAGS, |(flag, x)| (flag, x));
                if (kept, 0, 0, 0) != (x.xflags, x.extsize, x.projid, x.cowextsize) {
                    return Err(Refusal::Os(Errno::OPNOTSUPP));
                }
                self.set_flags(id, InodeFlags(flags), by, reply)?;
            }
            _ => return Err(Refusal::Os(Errno::NOTTY)),
        }
        Ok(())
    }

    /// The kernel does not know that this moves the time of change (fs/fuse/ioctl.c,
    /// `fuse_fileattr_set`).
    fn set_flags(
        &self,
        id: InodeId,
        flags: InodeFlags,
        by: Caller,
        reply: &mut Reply,
    ) -> Result<()> {
        self.job.set_flags(id, flags, by, now())?;
        self.forget_attributes(id, reply);
        reply.push(&abi::IoctlOut::default());
        Ok(())
    }

    /// Takes what a remount says of access times: the kernel keeps such options to itself.
    fn set_atime(&self, options: &[u8], reply: &mut Reply) -> Result<()> {
        let words = || options.split(|byte| *byte == b',');
        let files = match words().next() {
            Some(b"noatime") => AtimePolicy::Never,
            Some(b"strictatime") => AtimePolicy::Always,
            Some(b"relatime") => AtimePolicy::Relative,
            _ => return Err(Refusal::Os(Errno::INVAL)),
        };
        let directories = words().all(|word| word != b"nodiratime");
        self.job.set_atime(files, directories)?;
        if !self.job.may_cache_listings() {
            let known = self.job.known_directories()?;
            known
                .into_iter()
                .for_each(|id| self.forget_content(id, reply));
        }
        Ok(())
    }
}

/// What a mount is told of its own options by, at its root; only root may set it.
const ATIME_CONTROL: &[u8] = b"trusted.wakebox.atime";

/// Flags that are kept, as `FS_IOC_GETFLAGS` has them and as `FS_IOC_FSGETXATTR` has them.
const XFLAGS: [(u32, u32); 6] = [
    (0x10, 0x08),
    (0x20, 0x10),
    (0x08, 0x20),
    (0x80, 0x40),
    (0x40, 0x80),
    (0x0200_0000, 0x8000),
];

/// Flags in other words; those that have none are left out.
fn swapped(flags: u32, table: &[(u32, u32)], way: impl Fn((u32, u32)) -> (u32, u32)) -> u32 {
    let pairs = table.iter().map(|pair| way(*pair));
    pairs.fold(0, |all, (from, to)| {
        all | if flags & from != 0 { to } else { 0 }
    })
}

fn set_mode(flags: u32) -> Result<SetMode> {
    match flags as i32 {
        0 => Ok(SetMode::Any),
        libc::XATTR_CREATE => Ok(SetMode::Create),
        libc::XATTR_REPLACE => Ok(SetMode::Replace),
        _ => Err(Refusal::Os(Errno::INVAL)),
    }
}

/// Bytes for a buffer of `size`; if that is 0, their number is asked for.
fn sized(bytes: &[u8], size: u32, reply: &mut Reply) -> Result<()> {
    match size as usize {
        0 => reply.push(&abi::GetXattrOut {
            size: bytes.len() as u32,
            padding: 0,
        }),
        size if size < bytes.len() => return Err(Refusal::Os(Errno::RANGE)),
        _ => reply.push_bytes(bytes),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_told_whole_by_its_size_or_not_at_all() {
        let mut reply = Reply::new();
        sized(b"value", 0, &mut reply).expect("the size");
        assert_eq!(&reply.finish(1)[16..], 5_u64.to_ne_bytes());
        reply.clear();
        sized(b"value", 5, &mut reply).expect("the value");
        assert_eq!(&reply.finish(1)[16..], b"value");
        let refused = sized(b"value", 4, &mut reply);
        assert!(matches!(refused, Err(Refusal::Os(Errno::RANGE))));
    }

    #[test]
    fn contradicting_flags_are_refused() {
        assert_eq!(set_mode(2).expect("a mode"), SetMode::Replace);
        assert!(set_mode(3).is_err());
    }
}
