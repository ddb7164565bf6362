//! Files of the host that a job opens beside its view: the toolchain, mostly. The kernel tells of
//! them, by fanotify(7), if we are root; the view sees nothing of it.
//!
//! Marked are the mounts of the job's own mount namespace, so nothing is told of other processes,
//! but for a job that makes yet another namespace, whose mounts are others. What can be told apart
//! from files is left out: directories, devices, `/proc` and its like.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use cas::record::{BytesKind, Class, HostClass, HostRow};
use cas::text::{Text, unmangle};
use nix::errno::Errno;
use nix::sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, InitFlags, MarkFlags, MaskFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

/// The most files of one record.
const ROWS_MAX: usize = 1 << 20;

/// File systems whose files are no files of the host: the view, which has a record of its own, and
/// what the kernel makes up. To open a device does something, and to look at an event is to open it.
const PASSED_OVER: [&str; 12] = [
    "fuse.wakebox",
    "proc",
    "sysfs",
    "devtmpfs",
    "devpts",
    "mqueue",
    "cgroup",
    "cgroup2",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
];

/// What was opened.
#[derive(Debug, Default)]
pub struct Opened {
    /// One row per file, sorted by path.
    pub rows: Vec<HostRow>,
    /// Whether there was more than could be told.
    pub overflow: bool,
}

/// A job that is watched, from before its command begins.
#[derive(Debug)]
pub struct Watch {
    group: Arc<Fanotify>,
    stop: Arc<rustix::fd::OwnedFd>,
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    /// The job's mount namespace. While it lives, paths can be told of what was opened in it; and as
    /// long, the job's view does not end.
    namespace: File,
    reader: JoinHandle<Opened>,
}

impl Watch {
    /// Prepares; `None` where the kernel does not let us: only root may look at whole mounts.
    pub fn new() -> Option<Self> {
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_QUEUE
            | InitFlags::FAN_UNLIMITED_MARKS;
        // Non-blocking, because a fifo is opened, too, and its other end may be nobody.
        let opened = EventFFlags::O_RDONLY
            | EventFFlags::O_NONBLOCK
            | EventFFlags::O_LARGEFILE
            | EventFFlags::O_CLOEXEC;
        let group = Fanotify::init(flags, opened);
        let group = group.inspect_err(|errno| tracing::info!("no fanotify: {errno}"));
        let stop = eventfd(0, EventfdFlags::CLOEXEC).ok()?;
        Some(Self {
            group: Arc::new(group.ok()?),
            stop: Arc::new(stop),
            begun: None,
        })
    }

    /// Marks all mounts of a process that is about to become the job, and begins to read.
    ///
    /// # Errors
    /// The process or one of its mounts cannot be looked at: then nothing is told.
    pub fn begin(&mut self, process: i32) -> std::io::Result<()> {
        let of = PathBuf::from(format!("/proc/{process}"));
        let namespace = File::open(of.join("ns/mnt"))?;
        let table = std::fs::read(of.join("mountinfo"))?;
        for place in watched(&table) {
            let place = of
                .join("root")
                .join(place.strip_prefix("/").unwrap_or(&place));
            self.mark(&place)?;
        }
        let (group, stop, since) = (self.group.clone(), self.stop.clone(), Instant::now());
        let thread = std::thread::Builder::new().name("host".into());
        let reader = thread.spawn(move || Reader::new(since).read(&group, stop.as_fd()))?;
        self.begun = Some(Begun { namespace, reader });
        Ok(())
    }

    fn mark(&self, place: &Path) -> std::io::Result<()> {
        let flags =
            MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_MOUNT | MarkFlags::FAN_MARK_DONT_FOLLOW;
        let mask = MaskFlags::FAN_OPEN | MaskFlags::FAN_OPEN_EXEC;
        match self.group.mark(flags, mask, rustix::fs::CWD, Some(place)) {
            // It is covered by another mount, which the job cannot look behind either.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => Ok(()),
            other => Ok(other?),
        }
    }

    /// What was opened, when all processes of the job have ended; `None` if nothing can be told.
    pub fn finish(mut self) -> Option<Opened> {
        let Begun { namespace, reader } = self.begun.take()?;
        self.ring();
        let opened = reader.join().ok();
        drop(namespace);
        opened
    }

    fn ring(&self) {
        let _always = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.ring();
    }
}

/// The mount points of a mount table whose files are to be told of.
fn watched(table: &[u8]) -> Vec<PathBuf> {
    let place = |line: &[u8]| {
        // id, parent, device, root, mount point, ... - type, ...
        let mut words = line.split(|byte| *byte == b' ');
        let place = words.nth(4)?;
        let kind = words.skip_while(|word| *word != b"-").nth(1)?;
        let is_passed_over = PASSED_OVER.iter().any(|name| name.as_bytes() == kind);
        (!is_passed_over).then(|| PathBuf::from(OsString::from_vec(unmangle(place))))
    };
    table
        .split(|byte| *byte == b'\n')
        .filter_map(place)
        .collect()
}

/// The thread that reads events.
struct Reader {
    since: Instant,
    rows: HashMap<Vec<u8>, HostRow>,
    overflow: bool,
}

impl Reader {
    fn new(since: Instant) -> Self {
        Self {
            since,
            rows: HashMap::new(),
            overflow: false,
        }
    }

    /// Reads until it is told to stop, and then what there still is.
    fn read(mut self, group: &Fanotify, stop: BorrowedFd<'_>) -> Opened {
        let mut stopping = false;
        loop {
            match group.read_events() {
                Ok(events) => events.iter().for_each(|event| self.note(event)),
                Err(Errno::EAGAIN) if stopping => break,
                Err(Errno::EAGAIN) => stopping = wait(group.as_fd(), stop),
                Err(Errno::EINTR) => {}
                // A file that cannot be opened any more: its event is gone.
                Err(errno) => {
                    tracing::debug!("an event is lost: {errno}");
                    self.overflow = true;
                }
            }
        }
        let mut rows: Vec<_> = self.rows.into_values().collect();
        rows.sort_by(|a, b| a.path.cmp(&b.path));
        let overflow = self.overflow;
        Opened { rows, overflow }
    }

    fn note(&mut self, event: &FanotifyEvent) {
        let Some(file) = event.fd() else {
            self.overflow = true; // FAN_Q_OVERFLOW, the only one without
            return;
        };
        let Ok(path) = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())) else {
            self.overflow = true;
            return;
        };
        let path = path.into_os_string().into_vec();
        let path = path.strip_suffix(b" (deleted)").unwrap_or(&path);
        if !self.rows.contains_key(path) && !self.add(path, file) {
            return;
        }
        let executed = event.mask().contains(MaskFlags::FAN_OPEN_EXEC);
        if let Some(row) = self.rows.get_mut(path).filter(|_| executed) {
            row.also = vec![Class::Exec];
        }
    }

    /// Adds a file that was not seen before, if there is room and it is a regular one.
    fn add(&mut self, path: &[u8], file: BorrowedFd<'_>) -> bool {
        let Ok(is) = rustix::fs::fstat(file) else {
            return false;
        };
        if !rustix::fs::FileType::from_raw_mode(is.st_mode).is_file() {
            return false;
        }
        if self.rows.len() >= ROWS_MAX {
            self.overflow = true;
            return false;
        }
        let first = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let row = HostRow {
            path: Text(path.into()),
            class: HostClass::Host,
            also: Vec::new(),
            declared: false,
            bytes: is.st_size as u64,
            bytes_kind: BytesKind::Size,
            first,
        };
        self.rows.insert(path.into(), row);
        true
    }
}

/// Sleeps until there are events or it is told to stop; `true` if that.
fn wait(group: BorrowedFd<'_>, stop: BorrowedFd<'_>) -> bool {
    let mut watched = [
        PollFd::from_borrowed_fd(group, PollFlags::IN),
        PollFd::from_borrowed_fd(stop, PollFlags::IN),
    ];
    let _interrupted = poll(&mut watched, None);
    !watched[1].revents().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_tables_are_read() {
        let table = b"36 35 98:0 / / rw shared:1 - ext4 /dev/root rw\n\
            37 36 0:5 / /proc rw - proc proc rw\n\
            38 36 0:6 /a /with\\040blank\\134 ro master:1 x:2 - tmpfs none rw\n\
            39 36 0:7 / /w rw - fuse.wakebox wakebox rw\n";
        let expected = ["/", "/with blank\\"].map(PathBuf::from);
        assert_eq!(watched(table), expected);
        assert!(watched(b"nonsense\n\n36 35 - x").is_empty());
    }
}
