//! What the processes of the sandbox tell the client, through one pipe.
//!
//! Every record has the same size, below `PIPE_BUF` (4,096), so each write is atomic
//! (pipe(7)) and needs no framing. At most three are ever written (that all is ready, a failed
//! command and its end), so the 64 KiB of a pipe never fill and no writer ever blocks.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use super::usage::{Ended, Usage};

/// Longest message of a refusal that is passed on, in bytes.
const WORDS: usize = 400;
const FIELDS: usize = 6;
const FIELD_BYTES: usize = size_of::<u64>();
const HEAD: usize = FIELDS * FIELD_BYTES;
const RECORD: usize = HEAD + WORDS;

const FAILED: u64 = 1;
const NOT_RUN: u64 = 2;
const ENDED: u64 = 3;
const STOPPED: u64 = 4;
const READY: u64 = 5;

/// What was being done when the set-up failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    DieWithClient,
    ClientGone,
    OwnProc,
    DenySetgroups,
    MapUser,
    MapGroup,
    PrivateMounts,
    OpenFuse,
    FuseContext,
    FuseOption,
    FuseCreate,
    FuseMount,
    SendView,
    AwaitDaemon,
    DaemonGone,
    Refused,
    Attach,
    MountPoint,
    BindSource,
    ReadOnly,
    MakeTmpfs,
    CreateDir,
    CreateFile,
    CreateSymlink,
    Terminals,
    ImageNotServed,
    FreshProc,
    GuardProc,
    Hide,
    Loopback,
    EnterRoot,
    Lock,
    LeaveDirectory,
    ProtectInit,
    Fork,
    DropCapabilities,
    OwnGroup,
    NoNewPrivileges,
    RefuseCalls,
    ChangeDirectory,
    OpenStdin,
    SetLimit,
    MarkDescriptors,
    WatchChildren,
}

impl Stage {
    /// All, in the order of their numbers: how a byte becomes a stage again.
    const ALL: [Self; 44] = [
        Self::DieWithClient,
        Self::ClientGone,
        Self::OwnProc,
        Self::DenySetgroups,
        Self::MapUser,
        Self::MapGroup,
        Self::PrivateMounts,
        Self::OpenFuse,
        Self::FuseContext,
        Self::FuseOption,
        Self::FuseCreate,
        Self::FuseMount,
        Self::SendView,
        Self::AwaitDaemon,
        Self::DaemonGone,
        Self::Refused,
        Self::Attach,
        Self::MountPoint,
        Self::BindSource,
        Self::ReadOnly,
        Self::MakeTmpfs,
        Self::CreateDir,
        Self::CreateFile,
        Self::CreateSymlink,
        Self::Terminals,
        Self::ImageNotServed,
        Self::FreshProc,
        Self::GuardProc,
        Self::Hide,
        Self::Loopback,
        Self::EnterRoot,
        Self::Lock,
        Self::LeaveDirectory,
        Self::ProtectInit,
        Self::Fork,
        Self::DropCapabilities,
        Self::OwnGroup,
        Self::NoNewPrivileges,
        Self::RefuseCalls,
        Self::ChangeDirectory,
        Self::OpenStdin,
        Self::SetLimit,
        Self::MarkDescriptors,
        Self::WatchChildren,
    ];
}

/// A system call that failed during the set-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What it was for.
    pub(crate) stage: Stage,
    /// Position in the plan's steps, for stages that belong to a step.
    pub(crate) step: usize,
    /// Position among the step's destinations.
    pub(crate) item: usize,
    /// The kernel's answer; 0 where it was not the kernel that refused.
    pub(crate) errno: i32,
}

impl Failure {
    /// The same failure, known to be that of a step.
    pub(crate) fn in_step(self, step: usize) -> Self {
        Self { step, ..self }
    }

    /// A failure that is no system call's.
    pub(crate) fn without_errno(stage: Stage) -> Self {
        Self {
            stage,
            step: 0,
            item: 0,
            errno: 0,
        }
    }
}

/// Says what a system call was for.
pub(crate) trait At<T> {
    /// Names the stage of an error.
    fn at(self, stage: Stage) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, stage: Stage) -> Result<T, Failure> {
        self.map_err(|errno| Failure {
            errno: errno.raw_os_error(),
            ..Failure::without_errno(stage)
        })
    }
}

/// The daemon's words, in a buffer that needs no allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Words {
    length: usize,
    bytes: [u8; WORDS],
}

impl Words {
    /// No words.
    pub(crate) const NONE: Self = Self {
        length: 0,
        bytes: [0; WORDS],
    };

    /// The beginning of `text`, as far as there is room.
    pub(crate) fn from_start_of(text: &[u8]) -> Self {
        let mut words = Self::NONE;
        for (slot, byte) in words.bytes.iter_mut().zip(text) {
            *slot = *byte;
        }
        words.length = text.len().min(WORDS);
        words
    }

    /// The words as text. Only the client may call this: it allocates.
    pub(crate) fn to_text(self) -> String {
        let bytes = self.bytes.get(..self.length).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    }
}

/// One record.
#[expect(
    clippy::large_enum_variant,
    reason = "a box allocates, which the child must not"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// The sandbox could not be set up.
    Failed(Failure, Words),
    /// The command could not be executed: an errno.
    NotRun(i32),
    /// The command ran and ended by itself.
    Ended(Ended),
    /// The client asked for an end, and everybody was killed; what they took together.
    Stopped(Usage),
    /// Everything is mounted, and the command waits for the client.
    Ready,
}

impl Report {
    fn fields(&self) -> [u64; FIELDS] {
        match *self {
            Self::Failed(
                Failure {
                    stage,
                    step,
                    item,
                    errno,
                },
                words,
            ) => {
                let length = words.length as u64;
                [
                    FAILED,
                    stage as u64,
                    step as u64,
                    item as u64,
                    from_signed(errno),
                    length,
                ]
            }
            Self::NotRun(errno) => [NOT_RUN, from_signed(errno), 0, 0, 0, 0],
            Self::Ended(Ended { pid, status, usage }) => {
                let (pid, status) = (from_signed(pid), from_signed(status));
                [ENDED, pid, status, usage.cpu_micros, usage.max_rss_bytes, 0]
            }
            Self::Stopped(usage) => [STOPPED, usage.cpu_micros, usage.max_rss_bytes, 0, 0, 0],
            Self::Ready => [READY, 0, 0, 0, 0, 0],
        }
    }

    fn encode(&self) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        let (head, tail) = record.split_at_mut(HEAD);
        for (slot, field) in head.chunks_exact_mut(FIELD_BYTES).zip(self.fields()) {
            slot.copy_from_slice(&field.to_ne_bytes());
        }
        if let Self::Failed(_, words) = self {
            tail.copy_from_slice(&words.bytes);
        }
        record
    }

    fn decode(record: &[u8; RECORD]) -> Option<Self> {
        let (head, tail) = record.split_at(HEAD);
        let (fields, _rest) = head.as_chunks::<FIELD_BYTES>();
        let fields: [u64; FIELDS] = <[_; FIELDS]>::try_from(fields)
            .ok()?
            .map(u64::from_ne_bytes);
        match fields {
            [FAILED, stage, step, item, errno, length] => {
                let stage = *Stage::ALL.get(to_usize(stage)?)?;
                let errno = to_signed(errno)?;
                let failure = Failure {
                    stage,
                    step: to_usize(step)?,
                    item: to_usize(item)?,
                    errno,
                };
                let words = Words::from_start_of(tail.get(..to_usize(length)?)?);
                Some(Self::Failed(failure, words))
            }
            [NOT_RUN, errno, ..] => Some(Self::NotRun(to_signed(errno)?)),
            [ENDED, pid, status, cpu_micros, max_rss_bytes, _] => {
                let usage = Usage {
                    cpu_micros,
                    max_rss_bytes,
                };
                let (pid, status) = (to_signed(pid)?, to_signed(status)?);
                Some(Self::Ended(Ended { pid, status, usage }))
            }
            [STOPPED, cpu_micros, max_rss_bytes, ..] => Some(Self::Stopped(Usage {
                cpu_micros,
                max_rss_bytes,
            })),
            [READY, ..] => Some(Self::Ready),
            _ => None,
        }
    }
}

fn from_signed(number: i32) -> u64 {
    u64::from(number.cast_unsigned())
}

fn to_signed(field: u64) -> Option<i32> {
    u32::try_from(field).ok().map(u32::cast_signed)
}

fn to_usize(field: u64) -> Option<usize> {
    usize::try_from(field).ok()
}

/// Writes one record. Nobody is left to hear of an error, so there is none.
pub(crate) fn send(pipe: impl AsFd, report: &Report) {
    let _unheard = rustix::io::write(pipe, &report.encode());
}

/// Reads one record from a non-blocking pipe; `None` when there is none (any more).
///
/// # Errors
/// Those of read(2).
pub(crate) fn receive(pipe: BorrowedFd<'_>) -> Result<Option<Report>, Errno> {
    let mut record = [0; RECORD];
    match rustix::io::read(pipe, &mut record) {
        Ok(RECORD) => Ok(Report::decode(&record)),
        Ok(_) | Err(Errno::AGAIN) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_stages_are_their_places() {
        for (place, stage) in Stage::ALL.iter().enumerate() {
            assert_eq!(*stage as usize, place);
        }
        assert_eq!(Stage::ALL.last(), Some(&Stage::WatchChildren));
    }

    #[test]
    fn records_survive_the_pipe() {
        let failure = Failure {
            stage: Stage::Refused,
            step: 3,
            item: 2,
            errno: -5,
        };
        let usage = Usage {
            cpu_micros: 1 << 40,
            max_rss_bytes: u64::MAX,
        };
        let words = Words::from_start_of(&[b'w'; 500]);
        assert_eq!(words.to_text().len(), WORDS);
        let (read, write) = rustix::pipe::pipe().unwrap();
        for report in [
            Report::Failed(failure, words),
            Report::Failed(Failure::without_errno(Stage::ClientGone), Words::NONE),
            Report::NotRun(2),
            Report::Ended(Ended {
                pid: 2,
                status: 9,
                usage,
            }),
            Report::Stopped(usage),
            Report::Ready,
        ] {
            send(&write, &report);
            assert_eq!(receive(read.as_fd()), Ok(Some(report)));
        }
        drop(write);
        assert_eq!(receive(read.as_fd()), Ok(None));
    }

    #[test]
    fn garbage_is_no_record() {
        assert_eq!(Report::decode(&[0xff; RECORD]), None);
        assert_eq!(Report::decode(&[0; RECORD]), None);
    }
}
