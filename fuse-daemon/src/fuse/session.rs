//! Serving one mounted file system until it ends, or is ended.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::job::{Job, Refusal};

use super::JobFileSystem;
use super::abi::{self, init};
use super::device::Device;
use super::dispatch::Answered;
use super::errno::errno;
use super::interrupt::interrupt;
use super::passthrough::Backings;
use super::placement::Placement;
use super::reply::{MAX_IO, Reply};
use super::request::{Operation, Request};

/// What a session asks of the kernel where it offers it. Not `WRITEBACK_CACHE`: it excludes
/// passthrough and flushes at close. Not `AUTO_INVAL_DATA`: only this mount changes these files.
/// Not `HANDLE_KILLPRIV`, either version: the kernel then leaves it to the daemon to take
/// set-user-ID away when a file is written to, and with passthrough the daemon does not see the
/// write. Left alone, the kernel asks for it by a change of mode (`file_remove_privs`), which
/// passthrough writes do as well, because they do it on the file that the job has open.
/// Not `OVER_IO_URING`: it wants its queues made before the first request.
/// Not `CREATE_SUPP_GROUP`: it is for those who make files in the name of the caller. What a
/// caller's groups decide is decided before we are asked: whether a new file keeps set-group-ID
/// (fs/inode.c, `mode_strip_sgid`), and on a mount who may do what.
const WANTED: u64 = init::ASYNC_READ
    | init::ATOMIC_O_TRUNC
    | init::EXPORT_SUPPORT
    | init::BIG_WRITES
    | init::DO_READDIRPLUS
    | init::PARALLEL_DIROPS
    | init::MAX_PAGES
    | init::CACHE_SYMLINKS
    | init::EXPLICIT_INVAL_DATA
    | init::INIT_EXT
    | init::PASSTHROUGH;

/// What is asked for besides where extended attributes are served, and with them access control
/// lists. `POSIX_ACL` makes the kernel check permissions; then it is us who know whether a umask
/// counts, or the default list of a directory in its place.
const WANTED_EXTENDED: u64 = init::POSIX_ACL | init::DONT_MASK | init::SETXATTR_EXT;

/// How deep the kernel may stack file systems, files that pass through included
/// (`FILESYSTEM_MAX_STACK_DEPTH`). A view may be this high or lower than what lies below it.
const STACK_DEPTH: u32 = 2;

/// File systems that lie on others themselves, by their numbers in `statfs` (linux/magic.h):
/// overlayfs, FUSE, eCryptfs. On what lies on none, a view may carry another one.
const STACKED: [i64; 3] = [0x794c_7630, 0x6573_5546, 0xf15f];

/// How many requests that nobody waits for the kernel may have under way (read-ahead, releases).
const BACKGROUND: u16 = 16;

/// Room for the longest request, which is a write. The kernel refuses a `read` with less.
const BUFFER: usize = MAX_IO + 4096;

/// How long dropping a session waits for requests that are being answered.
const ABORT_LIMIT: Duration = Duration::from_secs(1);

/// How long a signal may take to reach a reader, before it is sent again.
const ROUND: Duration = Duration::from_millis(1);

/// A file system that is being served by threads of its own. Dropping it aborts it.
#[derive(Debug)]
pub struct Session {
    readers: Vec<JoinHandle<()>>,
    /// Nothing is ever sent: it ends with the last reader, each of which has a sender.
    ended: Receiver<Infallible>,
    state: Arc<State>,
}

/// What a session and its readers share.
#[derive(Debug)]
struct State {
    aborted: AtomicBool,
    counts: [AtomicU64; abi::OPERATIONS.len()],
    placement: Option<Placement>,
}

impl Session {
    /// Waits until the kernel has ended the file system: no process has a file of it open any
    /// more, so nothing can be written through it. `false` if that took longer than `limit`.
    ///
    /// After [`Session::abort`], waits until no request is being answered any more.
    pub fn wait(&self, limit: Duration) -> bool {
        // A dropped sender means the same: the threads are gone.
        !matches!(
            self.ended.recv_timeout(limit),
            Err(RecvTimeoutError::Timeout)
        )
    }

    /// Ends the file system, whoever has it open: what is asked of it from now on fails with
    /// ENOTCONN, except that files which the kernel itself reads and writes stay open.
    ///
    /// Readers finish the request that they are at. `false` if one takes longer than `limit` for
    /// that; it ends nevertheless.
    pub fn abort(&self, limit: Duration) -> bool {
        self.state.aborted.store(true, Ordering::Release);
        let begin = Instant::now();
        loop {
            // A reader that is between looking at the mark and waiting for a request misses this
            // one, but not the next.
            self.readers.iter().for_each(interrupt);
            if self.wait(ROUND) {
                return true;
            }
            if begin.elapsed() >= limit {
                return false;
            }
        }
    }

    /// How many requests of each kind have come, by the kernel's names for them. Only kinds that
    /// did come.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = self.state.counts.iter();
        let named = abi::OPERATIONS.iter().zip(counts);
        named
            .map(|((_, name), count)| (*name, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

impl Session {
    fn read(
        &mut self,
        readers: usize,
        file_system: Arc<JobFileSystem>,
        ended: Sender<Infallible>,
    ) -> io::Result<()> {
        for number in 0..readers {
            let reader = Reader::new(number, &file_system, &self.state, &ended);
            let thread = std::thread::Builder::new().name("session".into());
            self.readers.push(thread.spawn(move || reader.run())?);
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.wait(Duration::ZERO) {
            self.abort(ABORT_LIMIT);
        }
    }
}

impl State {
    fn new(placement: Option<Placement>) -> Self {
        Self {
            aborted: AtomicBool::new(false),
            counts: [const { AtomicU64::new(0) }; abi::OPERATIONS.len()],
            placement,
        }
    }

    fn follow(&self, caller: u32) {
        if let Some(placement) = &self.placement {
            placement.follow(caller);
        }
    }

    fn count(&self, opcode: u32) {
        // Sorted by number (a test says so), and short.
        let place = abi::OPERATIONS.binary_search_by_key(&opcode, |(number, _)| *number);
        if let Ok(place) = place {
            self.counts[place].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Serves a job on a mounted `/dev/fuse`. Returns when the kernel's first request, which
/// negotiates, has been answered; the rest is done by new threads, which end with the mount.
///
/// `processes` is the `/proc` of the job, if its callers are to be followed from CPU to CPU.
///
/// `passthrough` allows the kernel to open backing files itself. Only for a store whose blobs are
/// reached through a read-only mount: the kernel opens them with the job's flags.
pub fn serve(
    job: Arc<Job>,
    device: OwnedFd,
    processes: Option<OwnedFd>,
    passthrough: bool,
) -> io::Result<Session> {
    let device = Arc::new(Device::new(device));
    let backings = Backings::default();
    let wanted = match job.serves_extended() {
        true => WANTED | WANTED_EXTENDED,
        false => WANTED,
    };
    let wanted = match job.lists_names_only() {
        true => wanted & !init::DO_READDIRPLUS,
        false => wanted,
    };
    let stacked = STACKED.contains(&job.file_system_type()?);
    let depth = if stacked {
        STACK_DEPTH
    } else {
        STACK_DEPTH - 1
    };
    if !greet(&device, wanted, depth)? || !passthrough {
        backings.without_passthrough();
    }
    let readers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .clamp(1, 8);
    let (sender, ended) = channel();
    let mut session = Session {
        readers: Vec::with_capacity(readers),
        ended,
        state: Arc::new(State::new(processes.and_then(Placement::new))),
    };
    let file_system = Arc::new(JobFileSystem {
        job,
        device,
        backings,
    });
    session.read(readers, file_system, sender)?;
    Ok(session)
}

/// Answers requests of any bytes one by one, on the caller's thread and without a kernel: what a
/// session does between reading a request and writing the reply.
pub struct Answerer {
    reader: Reader,
    reply: Reply,
}

impl std::fmt::Debug for Answerer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answerer")
    }
}

impl Answerer {
    /// Answers for a job.
    ///
    /// # Errors
    /// There is no `/dev/null`, which gets what the kernel would be told unasked.
    pub fn new(job: Arc<Job>) -> io::Result<Self> {
        let mut options = std::fs::File::options();
        let nobody = options.read(true).write(true).open("/dev/null")?;
        let backings = Backings::default();
        backings.without_passthrough();
        let file_system = Arc::new(JobFileSystem {
            job,
            device: Arc::new(Device::new(nobody.into())),
            backings,
        });
        let state = Arc::new(State::new(None));
        let reader = Reader::new(0, &file_system, &state, &channel().0);
        let reply = Reply::new();
        Ok(Self { reader, reply })
    }

    /// The reply to a request; `None` to one that gets none.
    pub fn answer(&mut self, request: &[u8]) -> Option<&[u8]> {
        self.reader.answer(request, &mut self.reply)
    }
}

/// Answers the kernel's first request. Tells whether files may be passed through.
fn greet(device: &Device, wanted: u64, depth: u32) -> io::Result<bool> {
    let mut buffer = vec![0; BUFFER];
    let length = device.read(&mut buffer)?;
    let request = Request::decode(&buffer[..length]).map_err(io::Error::other)?;
    let Operation::Init { offer, flags } = request.operation else {
        return Err(io::Error::other("the kernel does not begin by negotiating"));
    };
    let mut reply = Reply::new();
    let unique = request.header.unique;
    match negotiate(&offer, flags, wanted) {
        Some((mut agreed, passthrough)) => {
            agreed.max_stack_depth = depth;
            reply.push_bytes(agreed.as_bytes());
            device.write(reply.finish(unique))?;
            Ok(passthrough)
        }
        None => {
            device.write(reply.refuse(unique, Errno::PROTO))?;
            let (major, minor) = (offer.major, offer.minor);
            Err(io::Error::other(format!(
                "the kernel speaks FUSE {major}.{minor}; 7.{} (Linux 5.4) or newer is needed, for \
                 extended attributes Linux 5.14",
                abi::MINOR_MIN
            )))
        }
    }
}

/// Chooses among what the kernel offers; `None` if it is too old. Also tells whether files may be
/// passed through.
fn negotiate(offer: &abi::InitIn, offered: u64, wanted: u64) -> Option<(abi::InitOut, bool)> {
    if offer.major != abi::MAJOR || offer.minor < abi::MINOR_MIN {
        return None;
    }
    let flags = wanted & offered;
    if WANTED_EXTENDED & wanted & !flags != 0 {
        return None;
    }
    let agreed = abi::InitOut {
        major: abi::MAJOR,
        minor: offer.minor.min(abi::MINOR),
        max_readahead: offer.max_readahead,
        flags: flags as u32,
        max_background: BACKGROUND,
        congestion_threshold: BACKGROUND * 3 / 4,
        max_write: MAX_IO as u32,
        time_gran: 1,
        max_pages: (MAX_IO / 4096) as u16,
        flags2: (flags >> 32) as u32,
        ..Default::default()
    };
    Some((agreed, flags & init::PASSTHROUGH != 0))
}

/// One thread of a session. The members are dropped in this order: who waits for the session's
/// end is told when nothing of the job is held any more.
struct Reader {
    device: Arc<Device>,
    file_system: Arc<JobFileSystem>,
    state: Arc<State>,
    _ended: Sender<Infallible>,
}

impl Reader {
    /// The first reads the device that was mounted, the others open ones of their own.
    fn new(
        number: usize,
        file_system: &Arc<JobFileSystem>,
        state: &Arc<State>,
        ended: &Sender<Infallible>,
    ) -> Self {
        let mounted = &file_system.device;
        let own = (number > 0).then(|| mounted.another());
        let device = match own {
            Some(Ok(own)) => Arc::new(own),
            Some(Err(error)) => {
                tracing::debug!("a reader shares the device: {error}");
                mounted.clone()
            }
            None => mounted.clone(),
        };
        Self {
            device,
            file_system: file_system.clone(),
            state: state.clone(),
            _ended: ended.clone(),
        }
    }

    fn run(self) {
        let (mut buffer, mut reply) = (vec![0; BUFFER], Reply::new());
        if let Some(placement) = &self.state.placement {
            placement.join();
        }
        while let Some(length) = self.next(&mut buffer) {
            let Some(answer) = self.answer(&buffer[..length], &mut reply) else {
                continue;
            };
            // NOENT: the connection was aborted meanwhile, or an interrupt came too late.
            match self.device.write(answer) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => tracing::debug!("a reply is not taken: {error}"),
            }
        }
    }

    /// The length of the next request, or `None` at the end.
    fn next(&self, buffer: &mut [u8]) -> Option<usize> {
        while !self.state.aborted.load(Ordering::Acquire) {
            match self.device.read(buffer) {
                // No device says so, but what stands in for one in tests does, at its end.
                Ok(0) => return None,
                Ok(length) => return Some(length),
                // NOENT: whoever asked was killed before this was read.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
                Err(Errno::NODEV) => return None,
                Err(error) => {
                    tracing::error!("a session ended with an error: {error}");
                    return None;
                }
            }
        }
        None
    }

    fn answer<'r>(&self, bytes: &[u8], reply: &'r mut Reply) -> Option<&'r [u8]> {
        let request = match Request::decode(bytes) {
            Ok(request) => request,
            Err(malformed) => {
                tracing::error!("{malformed}");
                return Some(reply.refuse(malformed.unique, Errno::IO));
            }
        };
        let (opcode, unique) = (request.header.opcode, request.header.unique);
        self.state.count(opcode);
        self.state.follow(request.header.pid);
        reply.clear();
        let answered = caught(|| self.file_system.answer(&request, reply)).unwrap_or_else(|| {
            self.file_system.job.broke(format!(
                "a bug in wakebox: it panicked at a request of the kernel (operation {opcode})"
            ));
            Err(Refusal::Broken)
        });
        match answered {
            Ok(Answered::Reply) => Some(reply.finish(unique)),
            Ok(Answered::Nothing) => None,
            Err(refusal) => Some(reply.refuse(unique, errno(&refusal))),
        }
    }
}

/// `None` if it panicked. That costs its job the view, but not this thread, which others of the
/// job wait for.
fn caught<T>(answer: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(answer)).ok()
}

#[cfg(test)]
#[path = "panic_tests.rs"]
mod panics;

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(minor: u32) -> abi::InitIn {
        abi::InitIn {
            major: abi::MAJOR,
            minor,
            max_readahead: 131_072,
            flags: 0,
        }
    }

    #[test]
    fn nothing_is_agreed_on_that_was_not_offered() {
        let (agreed, passthrough) = negotiate(&offer(45), 0, WANTED).expect("new enough");
        assert_eq!((agreed.flags, agreed.flags2, passthrough), (0, 0, false));
        let (agreed, passthrough) = negotiate(&offer(99), u64::MAX, WANTED).expect("new enough");
        assert_eq!((agreed.minor, agreed.max_readahead), (abi::MINOR, 131_072));
        let flags = u64::from(agreed.flags2) << 32 | u64::from(agreed.flags);
        assert_eq!((flags, passthrough), (WANTED, true));
    }

    #[test]
    fn what_would_break_the_view_is_never_wanted() {
        let (auto_inval_data, writeback_cache) = (1 << 12, 1 << 16);
        let (kill_privileges, over_io_uring) = (1 << 19 | 1 << 28, 1 << 41);
        let unwanted = auto_inval_data | writeback_cache | kill_privileges | over_io_uring;
        assert_eq!(WANTED & unwanted, 0);
    }

    #[test]
    fn an_old_kernel_is_refused() {
        assert!(negotiate(&offer(abi::MINOR_MIN), 0, WANTED).is_some());
        assert!(negotiate(&offer(abi::MINOR_MIN - 1), 0, WANTED).is_none());
        let extended = WANTED | WANTED_EXTENDED;
        assert!(negotiate(&offer(abi::MINOR), WANTED, extended).is_none());
        assert!(negotiate(&offer(abi::MINOR), extended, extended).is_some());
    }

    #[test]
    fn operations_are_counted_each_by_its_own() {
        let state = State::new(None);
        for (times, (number, _)) in abi::OPERATIONS.iter().enumerate() {
            (0..times).for_each(|_| state.count(*number));
        }
        state.count(4000);
        for (times, count) in state.counts.iter().enumerate() {
            assert_eq!(count.load(Ordering::Relaxed), times as u64);
        }
    }

    #[test]
    fn a_panic_is_caught() {
        assert_eq!(caught(|| 5), Some(5));
        assert_eq!(caught(|| -> u8 { panic!("on purpose") }), None);
    }
}
