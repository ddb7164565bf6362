//! How a probe says what it saw, and short forms of what nearly all of them do.

use std::fmt::{self, Debug, Display};
use std::panic::Location;
use std::time::Duration;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;

/// What a probe found: nothing amiss, or a [`Shortfall`].
pub type Outcome<T = ()> = Result<T, Shortfall>;

/// Why a promise was not seen to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shortfall {
    /// The file system says that it does not offer this, or what the probe needs is not there; with
    /// the reason. In the second case that begins with "needs".
    NotSupported(String),
    /// It does not hold; with what was seen instead.
    Failed(String),
}

impl Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported(reason) => write!(f, "not supported: {reason}"),
            Self::Failed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Shortfall {}

// A system call that fails where nothing was foreseen says where: `?` passes its own location on.
impl From<std::io::Error> for Shortfall {
    #[track_caller]
    fn from(error: std::io::Error) -> Self {
        let place = Location::caller();
        let file = place.file().rsplit('/').next().unwrap_or_default();
        Self::Failed(format!("{error}, at {file}:{}", place.line()))
    }
}

impl From<Errno> for Shortfall {
    #[track_caller]
    fn from(errno: Errno) -> Self {
        std::io::Error::from(errno).into()
    }
}

/// Declares the probes of a theme; each is named as its function.
macro_rules! probes {
    ($theme:literal: $($name:ident $holds:literal,)*) => {
        pub(super) const PROBES: &[crate::probes::Probe] = &[$(crate::probes::Probe {
            name: stringify!($name),
            theme: $theme,
            holds: $holds,
            attempt: $name,
        }),*];
    };
}

pub(super) fn failed<T>(what: impl Display) -> Outcome<T> {
    Err(Shortfall::Failed(what.to_string()))
}

pub(super) fn not_supported<T>(reason: impl Display) -> Outcome<T> {
    Err(Shortfall::NotSupported(reason.to_string()))
}

/// Fails with `otherwise` unless `holds`.
pub(super) fn must(holds: bool, otherwise: impl Display) -> Outcome {
    if holds { Ok(()) } else { failed(otherwise) }
}

/// Fails unless what was `seen` is what was `wanted`.
pub(super) fn same<T: PartialEq + Debug>(what: &str, seen: T, wanted: T) -> Outcome {
    must(
        seen == wanted,
        format_args!("{what} is {seen:?}, not {wanted:?}"),
    )
}

/// Fails unless the call was refused with `wanted`.
pub(super) fn refused<T>(what: &str, result: rustix::io::Result<T>, wanted: Errno) -> Outcome {
    match result {
        Ok(_) => failed(format_args!(
            "{what} was allowed, not refused with {}",
            said(wanted)
        )),
        Err(errno) if errno == wanted => Ok(()),
        Err(errno) => failed(format_args!(
            "{what}: {}, not {}",
            said(errno),
            said(wanted)
        )),
    }
}

/// Tells a refusal that means "this file system has no such thing" from a failure. `also` are
/// errors that mean it for this call, besides those that always do.
pub(super) fn offered<T>(what: &str, result: rustix::io::Result<T>, also: &[Errno]) -> Outcome<T> {
    result.or_else(|errno| match errno {
        Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY => {
            not_supported(format_args!("{what}: {}", said(errno)))
        }
        errno if also.contains(&errno) => not_supported(format_args!("{what}: {}", said(errno))),
        errno => failed(format_args!("{what}: {}", said(errno))),
    })
}

fn said(errno: Errno) -> std::io::Error {
    errno.into()
}

/// Makes a file, to be read and written, with exactly `mode` less the umask.
pub(super) fn make(name: &str, mode: u32) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    open_with(name, flags, mode)
}

pub(super) fn open(name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    open_with(name, flags, 0)
}

fn open_with(name: &str, flags: OFlags, mode: u32) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(
        CWD,
        name,
        flags | OFlags::CLOEXEC,
        Mode::from_raw_mode(mode),
    )
}

pub(super) fn mkdir(name: &str) -> rustix::io::Result<()> {
    rustix::fs::mkdir(name, Mode::from_raw_mode(0o777))
}

pub(super) fn chmod(name: &str, mode: u32) -> rustix::io::Result<()> {
    rustix::fs::chmod(name, Mode::from_raw_mode(mode))
}

pub(super) fn lstat(name: &str) -> rustix::io::Result<Stat> {
    rustix::fs::lstat(name)
}

/// Fails unless these are the permission bits, with set-ID and sticky bits.
pub(super) fn has_mode(name: &str, wanted: u32) -> Outcome {
    let seen = lstat(name).or_else(|errno| failed(format_args!("{name}: {}", said(errno))))?;
    let seen = seen.st_mode & 0o7777;
    must(
        seen == wanted,
        format_args!("the mode of {name} is {seen:04o}, not {wanted:04o}"),
    )
}

/// Fails unless the file of this name has this content.
pub(super) fn holds(name: &str, wanted: &[u8]) -> Outcome {
    let seen = get(name).or_else(|errno| failed(format_args!("{name}: {}", said(errno))))?;
    same_bytes(name, &seen, wanted)
}

/// Fails unless the open file has this content.
pub(super) fn reads(file: impl AsFd, wanted: &[u8]) -> Outcome {
    let seen = content(file).or_else(|errno| failed(format_args!("reading: {}", said(errno))))?;
    same_bytes("the open file", &seen, wanted)
}

fn same_bytes(what: &str, seen: &[u8], wanted: &[u8]) -> Outcome {
    let (start, length) = (&seen[..seen.len().min(40)], seen.len());
    must(
        seen == wanted,
        format_args!(
            "{what} has {length} bytes, \"{}\", not \"{}\"",
            start.escape_ascii(),
            wanted.escape_ascii()
        ),
    )
}

/// Makes a file with this content, mode 0644, and gives its descriptor.
pub(super) fn put(name: &str, content: &[u8]) -> rustix::io::Result<OwnedFd> {
    let file = make(name, 0o644)?;
    write_all(&file, content)?;
    Ok(file)
}

/// The content of a file, by its name.
pub(super) fn get(name: &str) -> rustix::io::Result<Vec<u8>> {
    content(open(name, OFlags::RDONLY)?)
}

/// The content of an open file from its start.
pub(super) fn content(file: impl AsFd) -> rustix::io::Result<Vec<u8>> {
    let mut bytes = vec![0; 64 << 10];
    let mut length = 0;
    loop {
        if length == bytes.len() {
            bytes.resize(2 * length, 0);
        }
        match rustix::io::pread(&file, &mut bytes[length..], length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

pub(super) fn write_all(file: impl AsFd, mut content: &[u8]) -> rustix::io::Result<()> {
    while !content.is_empty() {
        let count = rustix::io::write(&file, content)?;
        content = &content[count..];
    }
    Ok(())
}

/// Writes at an offset, all in one call.
pub(super) fn write_at(file: impl AsFd, content: &[u8], offset: u64) -> Outcome {
    let count = rustix::io::pwrite(file, content, offset)?;
    same("count of bytes written", count, content.len())
}

/// Reads exactly `length` bytes at an offset.
pub(super) fn read_at(file: impl AsFd, length: usize, offset: u64) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; length];
    let count = rustix::io::pread(file, &mut bytes, offset)?;
    same("count of bytes read", count, length)?;
    Ok(bytes)
}

pub(super) fn size(file: impl AsFd) -> rustix::io::Result<i64> {
    Ok(rustix::fs::fstat(file)?.st_size)
}

pub(super) fn rewind(file: impl AsFd) -> rustix::io::Result<u64> {
    rustix::fs::seek(file, SeekFrom::Start(0))
}

/// Waits until the kernel's coarse clock, of at least 100 Hz, has moved on.
pub(super) fn tick() {
    std::thread::sleep(Duration::from_millis(25));
}
