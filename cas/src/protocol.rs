//! The words that client and daemon exchange, and how they travel.
//!
//! One connection is one job: it is registered by the first words and let go by the hang-up.
//! Each packet is one small JSON document on a `SOCK_SEQPACKET` socket, with at most one
//! descriptor. Documents of any size (reports, manifests) travel as a sealed memory file; a large manifest as the
//! file that it is kept in.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::look::Look;
use crate::name::RelPath;
use crate::record::Recording;

/// The longest packet. Only error messages come near it.
const PACKET_MAX: usize = 64 << 10;

/// How many descriptors come with a packet at most.
const FDS_MAX: usize = 2;

/// The largest document that is accepted: ten times a manifest of 300,000 long paths.
const DOCUMENT_MAX: u64 = 1 << 30;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// A new job with the manifest of this digest. Answered by `Registered` or `SendManifest`.
    Register(Registration),
    /// The manifest asked for, attached as a document. Answered by `Registered`.
    Manifest,
    /// The mounted file system's `/dev/fuse`, attached, and after it, if there is one, the job's
    /// `/proc`. Answered by `Serving`.
    Serve,
    /// The job has ended. Answered by `Report`, with the report attached.
    Finish,
    /// The client has taken over the staging directory; it is not the daemon's any more.
    /// Answered by `Released`.
    Taken,
    /// The job's staging directory is wanted no more. Answered by `Released` when it is gone.
    Discard,
    /// Which jobs run. Answered by `Jobs`, with a list of [`Running`](crate::look::Running) attached.
    Jobs,
    /// A look into a job, which the name of its staging directory names. Answered by `Seen`, with a
    /// [`Page`](crate::look::Page) or the file itself attached.
    Look {
        /// Which job.
        job: String,
        /// At what.
        at: Look,
    },
    /// How the daemon is. Answered by `Status`.
    Status,
    /// End when idle. Answered by `Stopping`.
    Stop,
}

/// A job to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The digest of the manifest's bytes.
    pub manifest: Digest,
    /// How often blobs were removed from the store: what the daemon found at another count it has
    /// to look for again.
    pub generation: u64,
    /// The user that owns everything in the view, as the job sees it.
    pub uid: u32,
    /// The group, likewise.
    pub gid: u32,
    /// Which inputs it may change.
    #[serde(default)]
    pub copy_on_write: CopyOnWrite,
    /// What is to be recorded.
    pub record: Recording,
    /// Shuffles what directories list.
    #[serde(default)]
    pub listing_seed: Option<u64>,
    /// What people are to call it; see [`look::label`](crate::look::label).
    #[serde(default)]
    pub label: String,
}

/// Which inputs a job may change: their content is copied when it first changes, and nothing is for
/// their names and attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyOnWrite {
    /// None.
    #[default]
    Nothing,
    /// All, and the root.
    Everything,
    /// Those that are declared at or below one of these paths. In a packet, all of them may have
    /// [`COPY_ON_WRITE_MAX`] bytes.
    Below(Vec<RelPath>),
}

/// The most bytes that the paths of [`CopyOnWrite::Below`] may have together: they are written as text,
/// in which a byte becomes four at worst, and have to fit into a packet with the rest.
pub const COPY_ON_WRITE_MAX: usize = 12 << 10;

impl CopyOnWrite {
    /// Whether a job with this rule can change any input.
    pub fn is_anything(&self) -> bool {
        *self != Self::Nothing
    }
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// The manifest is not known yet.
    SendManifest,
    /// The job exists.
    Registered {
        /// The name of its directory in the store's staging area.
        staging: String,
    },
    /// The mount is being served.
    Serving,
    /// The report is attached.
    Report,
    /// `Taken` or `Discard` is done.
    Released,
    /// The jobs are attached.
    Jobs,
    /// What was looked at is attached.
    Seen,
    /// How the daemon is.
    Status(Status),
    /// The daemon ends as soon as no job runs.
    Stopping,
    /// The request cannot be met; the text is for people.
    Refused(String),
}

/// How a daemon is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its process number.
    pub pid: u32,
    /// The build of its binary.
    pub build: String,
    /// The store it serves.
    pub store: String,
    /// Seconds since it started.
    pub uptime: u64,
    /// Jobs that are registered now.
    pub jobs_running: u64,
    /// Jobs that were ever registered.
    pub jobs_served: u64,
    /// Requests of the kernel by their kinds, over all jobs that have ended.
    pub fuse_ops: BTreeMap<String, u64>,
}

/// Sends one packet, with a descriptor if one is given.
pub fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > PACKET_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the message is too long",
        ));
    }
    let fds: Vec<_> = fd.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let flags = SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags)
    })?;
    Ok(())
}

/// Receives one packet and the descriptors that came with it; `None` when the other side is gone.
/// A packet that is too long, or is not the document expected, is an error.
pub fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let Some(length) = next_length(socket)? else {
        return Ok(None);
    };
    let mut bytes = vec![0; length.min(PACKET_MAX)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut buffer = [IoSliceMut::new(&mut bytes)];
        rustix::net::recvmsg(socket, &mut buffer, &mut control, RecvFlags::CMSG_CLOEXEC)
    });
    let received = match received {
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    let fds = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
        _ => Vec::new(),
    });
    let fds = fds.collect();
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the message is too long",
        ));
    }
    Ok(Some((
        serde_json::from_slice(&bytes[..received.bytes])?,
        fds,
    )))
}

/// Waits for a packet and says how long it is; `None` when the other side is gone. Nearly all are
/// short, and room for the longest would be 16 pages to be found and cleared for each of them, in a
/// process that has just begun: 0.1 ms of a job that takes 4.
fn next_length(socket: BorrowedFd<'_>) -> io::Result<Option<usize>> {
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
    let peek = || rustix::net::recv(socket, &mut [0; 0], flags);
    match rustix::io::retry_on_intr(peek) {
        Ok((_, 0)) | Err(rustix::io::Errno::CONNRESET) => Ok(None),
        other => Ok(Some(other?.1)),
    }
}

/// Puts a document into a sealed memory file, to be passed as a descriptor.
pub fn write_document(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create(c"wakebox-document", flags)?);
    file.write_all(bytes)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Reads a document that was passed as a descriptor.
pub fn read_document(fd: impl AsFd) -> io::Result<Vec<u8>> {
    let file = File::from(fd.as_fd().try_clone_to_owned()?);
    // Only a memory file that can no longer shrink: anything else could block or change.
    let sealed = rustix::fs::fcntl_get_seals(&file).unwrap_or(SealFlags::empty());
    if !sealed.contains(SealFlags::WRITE | SealFlags::SHRINK) {
        return Err(unfit("the attached document is not sealed"));
    }
    read_whole(file)
}

/// As [`read_document`], of a manifest, which may also be a file of the store. That could change, but
/// the digest of what was read says what it was.
pub fn read_manifest(fd: impl AsFd) -> io::Result<Vec<u8>> {
    let file = File::from(fd.as_fd().try_clone_to_owned()?);
    if !file.metadata()?.is_file() {
        return Err(unfit("the attached manifest is not a file"));
    }
    read_whole(file)
}

fn read_whole(mut file: File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    if length > DOCUMENT_MAX {
        return Err(unfit("the attached document is too long"));
    }
    io::Seek::rewind(&mut file)?;
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(DOCUMENT_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unfit(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap()
    }

    #[test]
    fn packets_carry_a_message_and_a_document_and_then_the_end() {
        let (a, b) = pair();
        let document = write_document(b"long").unwrap();
        send(a.as_fd(), &Request::Manifest, Some(document.as_fd())).unwrap();
        drop(a);
        let (message, fds) = receive::<Request>(b.as_fd()).unwrap().unwrap();
        assert_eq!((message, fds.len()), (Request::Manifest, 1));
        assert_eq!(read_document(&fds[0]).unwrap(), b"long");
        assert!(receive::<Request>(b.as_fd()).unwrap().is_none());
    }

    #[test]
    fn the_longest_message_arrives_and_a_longer_one_is_refused() {
        let (a, b) = pair();
        let longest = Reply::Refused("x".repeat(PACKET_MAX - "{'refused':''}".len()));
        send(a.as_fd(), &longest, None).unwrap();
        assert_eq!(receive::<Reply>(b.as_fd()).unwrap().unwrap().0, longest);
        rustix::net::send(&a, &[b' '; PACKET_MAX + 1], SendFlags::empty()).unwrap();
        assert!(receive::<Reply>(b.as_fd()).is_err());
    }

    #[test]
    fn strangers_packets_and_unsealed_documents_are_refused() {
        let (a, b) = pair();
        rustix::net::send(&a, b"{\"nonsense\":1}", SendFlags::empty()).unwrap();
        assert!(receive::<Request>(b.as_fd()).is_err());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"could change").unwrap();
        assert!(read_document(&file).is_err());
        assert_eq!(read_manifest(&file).unwrap(), b"could change");
        assert!(read_manifest(&a).is_err());
        assert!(read_manifest(File::open("/dev/zero").unwrap()).is_err());
    }
}
