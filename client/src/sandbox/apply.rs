//! The system calls behind applying a plan that Rust cannot check.
//!
//! This is the only file of the client with `unsafe`. Each function wraps one call so that
//! its callers need none; what a caller has to keep is in the function's own text.

#![expect(
    unsafe_code,
    reason = "clone, exec and signal masks exist in no safe form"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use super::usage::{Ended, Usage};

/// Number of the kernel's signals, real-time ones included (`_NSIG`).
const KERNEL_SIGNALS: c_int = 64;
/// `SIOCSIFFLAGS`, typed as ioctl(2) wants it, and the flag that raises a network device.
const SET_FLAGS: libc::Ioctl = 0x8914;
const IFF_UP: i16 = 1;

/// A namespace that a process can be cloned into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    User,
    Mount,
    Pid,
    HostName,
    Network,
    Ipc,
}

impl Namespace {
    fn flag(self) -> c_int {
        match self {
            Self::User => libc::CLONE_NEWUSER,
            Self::Mount => libc::CLONE_NEWNS,
            Self::Pid => libc::CLONE_NEWPID,
            Self::HostName => libc::CLONE_NEWUTS,
            Self::Network => libc::CLONE_NEWNET,
            Self::Ipc => libc::CLONE_NEWIPC,
        }
    }
}

/// A null-terminated array of C strings, as execve(2) takes it.
#[derive(Debug)]
pub(super) struct CStrings {
    /// Owns what `pointers` point to; the strings' bytes are on the heap and never move.
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl CStrings {
    /// Keeps the strings and makes the array.
    pub(super) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings
            .iter()
            .map(|s| s.as_ptr())
            .chain([ptr::null()])
            .collect();
        Self {
            _strings: strings,
            pointers,
        }
    }
}

/// Ends the process if the code of a child unwinds: the stack above it is a copy of the
/// client's, whose destructors would remove the client's files.
struct NoUnwind;

impl Drop for NoUnwind {
    fn drop(&mut self) {
        exit_now(70)
    }
}

/// Clones this process into new namespaces and runs `child` there; what it returns is its
/// exit code. Returns in the parent
/// only, where `child` is dropped unused, and with it the descriptors it owns.
///
/// In the child other threads do not exist and their locks stay locked: `child` must not
/// allocate, lock or panic.
///
/// # Errors
/// Those of clone(2): `EPERM` where user namespaces are forbidden, `ENOSPC` at their limit.
pub(crate) fn spawn(
    namespaces: impl Iterator<Item = Namespace>,
    child: impl FnOnce() -> c_int,
) -> Result<(Pid, OwnedFd), Errno> {
    let flags = namespaces.fold(libc::CLONE_PIDFD, |flags, namespace| {
        flags | namespace.flag()
    });
    let mut pidfd: c_int = -1;
    let pid = clone_or_run(flags, &mut pidfd, child)?;
    // SAFETY: CLONE_PIDFD has put a new descriptor there that nobody else owns.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Room for what a child does before it executes a program; as aligned as any call wants it.
#[repr(align(16))]
struct Stack(MaybeUninit<[u8; 64 << 10]>);

/// Runs `child` in a process that borrows our memory until it has executed a program or has ended; we
/// sleep as long. No page table is copied, and no page afterwards: 0.14 ms a job sooner than fork(2).
/// The duties are those of [`spawn`], and what the child writes stays written.
///
/// # Errors
/// Those of clone(2).
pub(super) fn vfork<F: FnOnce() -> c_int>(child: F) -> Result<Pid, Errno> {
    let mut stack = Stack(MaybeUninit::uninit());
    let mut child = Some(child);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack grows down from its end, which is aligned; it and `child` outlive the
    // borrower, because CLONE_VFORK returns only when the child uses this memory no more. No other
    // thread of this process uses either.
    let pid = unsafe {
        let end = stack.0.as_mut_ptr().add(1).cast();
        libc::clone(borrow::<F>, end, flags, (&raw mut child).cast())
    };
    cloned(pid.into())
}

/// The child of [`vfork`]; what it returns is its exit code.
extern "C" fn borrow<F: FnOnce() -> c_int>(child: *mut c_void) -> c_int {
    let _guard = NoUnwind;
    // SAFETY: it is the `Option<F>` of `vfork`, which sleeps.
    let child = unsafe { &mut *child.cast::<Option<F>>() };
    exit_now(child.take().map_or(0, |child| child()))
}

/// clone(2) rather than clone3(2): the flags fit, and container run-times whose filter
/// cannot read clone3's structure answer `ENOSYS` to it.
fn clone_or_run(
    flags: c_int,
    pidfd: &mut c_int,
    child: impl FnOnce() -> c_int,
) -> Result<Pid, Errno> {
    let flags = c_long::from(flags | libc::SIGCHLD);
    let (none, no_tls): (c_long, c_long) = (0, 0);
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of all memory, and
    // a null stack means it goes on with the copy of this one. x86-64 and aarch64 agree on
    // the first three arguments; the others are all 0. `pidfd` is written to only.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, none, &raw mut *pidfd, none, no_tls) };
    match pid {
        0 => {
            let _guard = NoUnwind;
            exit_now(child())
        }
        pid => cloned(pid),
    }
}

/// What clone(2) says to the parent. Not by way of a negative number, which `Pid` does not put up with.
fn cloned(pid: c_long) -> Result<Pid, Errno> {
    let pid = i32::try_from(pid.max(0)).ok().and_then(Pid::from_raw);
    pid.ok_or_else(last)
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

/// Ends this process at once: no destructor, no exit handler, no flushing of the copies of
/// the client's buffers.
fn exit_now(code: c_int) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Becomes another program; returns only on failure.
pub(super) fn execute(path: &CStr, argv: &CStrings, env: &CStrings) -> Errno {
    // SAFETY: the path is null-terminated; `CStrings` are null-terminated arrays of strings
    // that live as long as they do.
    unsafe { libc::execve(path.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    last()
}

/// Closes every descriptor from 3 up but those in `keep`, which is in ascending order.
///
/// Only for a child that will exit or exec: owners of these descriptors further up the
/// stack must never run again.
pub(super) fn close_all_but(keep: &[RawFd]) -> Result<(), Errno> {
    let mut first = 3;
    for fd in keep.iter().map(|fd| fd.cast_unsigned()) {
        if first < fd {
            close_range(first, fd.saturating_sub(1), 0)?;
        }
        first = first.max(fd.saturating_add(1));
    }
    close_range(first, u32::MAX, 0)
}

/// Closes one descriptor, with the duty of [`close_all_but`].
pub(super) fn close_in_child(fd: BorrowedFd<'_>) {
    // SAFETY: as for `close_all_but`: the owner's code never runs in this process.
    unsafe { rustix::io::close(fd.as_raw_fd()) };
}

/// Closes 0, 1 and 2, with the duty of [`close_all_but`].
pub(super) fn close_standard() -> Result<(), Errno> {
    close_range(0, 2, 0)
}

/// Has every descriptor from 3 up closed by the next exec.
pub(super) fn close_all_on_exec() -> Result<(), Errno> {
    close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// A descriptor that was open before this process opened any itself.
pub(crate) fn inherited(descriptor: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: asking for the flags of a descriptor that is not open is an error, not undefined.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFD) };
    // SAFETY: it is open, and nobody in this process knows its number to close it.
    (flags >= 0).then(|| unsafe { BorrowedFd::borrow_raw(descriptor) })
}

fn close_range(first: u32, last_fd: u32, flags: u32) -> Result<(), Errno> {
    // SAFETY: closing is the caller's business; see `close_all_but`.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last_fd, flags) };
    if done == 0 { Ok(()) } else { Err(last()) }
}

/// A new user namespace for this process.
pub(super) fn unshare_user() -> Result<(), Errno> {
    // SAFETY: unsafe only with `FILES`, which is not asked for.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }
}

/// How much of a tree of mounts is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// The mount alone.
    One,
    /// All mounts below it, too.
    All,
}

/// Makes a mount read-only. Unlike a remount it leaves its other flags alone, so it does not fail
/// over those that the kernel has locked.
pub(super) fn make_read_only(tree: BorrowedFd<'_>, depth: Depth) -> Result<(), Errno> {
    let flags = match depth {
        Depth::One => libc::AT_EMPTY_PATH,
        Depth::All => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
    };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let (fd, path, size) = (tree.as_raw_fd(), c"", size_of::<libc::mount_attr>());
    let path = path.as_ptr();
    // SAFETY: the path is null-terminated, the structure as long as it says.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            path,
            flags,
            &raw const attributes,
            size,
        )
    };
    if done == 0 { Ok(()) } else { Err(last()) }
}

/// Has the kernel ask a filter about every system call of this process and its children. A kernel
/// that was built without filters refuses nothing.
pub(super) fn refuse_calls(filter: &[libc::sock_filter]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_too_long| Errno::INVAL)?,
        filter: filter.as_ptr().cast_mut(),
    };
    let (mode, none) = (libc::SECCOMP_MODE_FILTER, 0_u64);
    // SAFETY: the program is as long as it says, and the kernel only reads it.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, none, none) };
    match done {
        0 => Ok(()),
        _ => match last() {
            Errno::INVAL => Ok(()),
            errno => Err(errno),
        },
    }
}

/// Raises the loopback device of this process's network namespace.
pub(super) fn raise_loopback(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: all-zero is a valid structure of this kind.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *slot = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = IFF_UP;
    // SAFETY: the request is the one that this call reads, with a null-terminated name.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SET_FLAGS, &raw const request) };
    if done == 0 { Ok(()) } else { Err(last()) }
}

/// The own process group, unless it is one of an outer pid namespace and has no number here,
/// of which rustix does not think.
pub(super) fn own_group() -> Option<Pid> {
    // SAFETY: takes nothing and cannot fail.
    Pid::from_raw(unsafe { libc::getpgrp() })
}

/// A set of signals.
#[derive(Clone, Copy)]
pub(super) struct SignalSet(libc::sigset_t);

impl std::fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SignalSet")
    }
}

impl SignalSet {
    /// Exactly these.
    pub(super) fn of(signals: &[c_int]) -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the whole set, sigaddset changes an initialised one.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(set.as_mut_ptr(), *signal);
            }
            Self(set.assume_init())
        }
    }

    /// Every signal.
    pub(super) fn all() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigfillset initialises the whole set.
        unsafe {
            libc::sigfillset(set.as_mut_ptr());
            Self(set.assume_init())
        }
    }

    /// Blocks these too in the calling thread; returns what was blocked before.
    pub(super) fn block(self) -> Self {
        self.change(libc::SIG_BLOCK)
    }

    /// Blocks exactly these in the calling thread.
    pub(super) fn set(self) {
        self.change(libc::SIG_SETMASK);
    }

    /// Those that were raised and are blocked in the calling thread.
    pub(super) fn pending() -> Self {
        let mut raised = Self::of(&[]);
        // SAFETY: the set is initialised; the call fails for a bad address only.
        unsafe { libc::sigpending(&raw mut raised.0) };
        raised
    }

    /// Whether a signal is one of these.
    pub(super) fn has(&self, signal: c_int) -> bool {
        // SAFETY: the set is initialised.
        unsafe { libc::sigismember(&raw const self.0, signal) == 1 }
    }

    fn change(self, how: c_int) -> Self {
        let mut previous = Self::of(&[]);
        // SAFETY: both sets are initialised; the call fails for an unknown `how` only.
        unsafe { libc::pthread_sigmask(how, &raw const self.0, &raw mut previous.0) };
        previous
    }
}

/// A non-blocking descriptor from which blocked signals are read.
///
/// # Errors
/// Those of signalfd(2).
pub(crate) fn open_signals(signals: &[c_int]) -> Result<OwnedFd, Errno> {
    let set = SignalSet::of(signals);
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let fd =
        unsafe { libc::signalfd(-1, &raw const set.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(last());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Undoes what the client and its callers did to the handling of signals: Rust ignores
/// SIGPIPE, nohup ignores SIGHUP, and what is ignored stays so over exec.
///
/// By the bare call: glibc's refuses signals 32 and 33, which it uses for threads, and a
/// caller may have had them ignored none the less.
pub(super) fn default_signals() {
    (1..=KERNEL_SIGNALS).for_each(default_signal);
    SignalSet::of(&[]).set();
}

/// Lets this process, and the init it clones, wait for children: whoever inherits SIGCHLD
/// ignored (some callers leave it so) finds that they are gone without a status (wait(2)).
pub(crate) fn default_child_signal() {
    default_signal(libc::SIGCHLD);
}

fn default_signal(signal: c_int) {
    // The kernel's structure in its default: no handler, flags, restorer or mask.
    let default = [0_u64; 4];
    let (old, size) = (ptr::null::<u64>(), size_of::<u64>());
    // SAFETY: `default` is at least as long as the structure on every 64-bit machine; SIG_DFL
    // is valid for every signal, and a failure (SIGKILL, SIGSTOP) changes nothing.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, size) };
}

/// Kills every process of this pid namespace but this one, which has to be its first: for
/// any other the same call would reach everything its user runs.
pub(super) fn kill_all_others() {
    if rustix::process::getpid().is_init() {
        // SAFETY: kill has no preconditions for memory.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}

/// Waits for one child, or for any when `pid` is `None`.
///
/// # Errors
/// `ECHILD` when there is none.
pub(crate) fn reap(pid: Option<Pid>) -> Result<Ended, Errno> {
    let which = pid.map_or(-1, Pid::as_raw_pid);
    loop {
        match wait_for(which, 0) {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The next child that has ended; `None` when none has (yet).
///
/// # Errors
/// `ECHILD` when there is no child at all.
pub(super) fn reap_ended() -> Result<Option<Ended>, Errno> {
    wait_for(-1, libc::WNOHANG).map(|ended| (ended.pid != 0).then_some(ended))
}

fn wait_for(which: c_int, options: c_int) -> Result<Ended, Errno> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to variables of the types the call fills in.
    let pid = unsafe { libc::wait4(which, &raw mut status, options, usage.as_mut_ptr()) };
    if pid < 0 {
        return Err(last());
    }
    // SAFETY: all-zero is a valid rusage, and if there was a child the call has filled it in.
    let usage = Usage::of(unsafe { usage.assume_init_ref() });
    Ok(Ended { pid, status, usage })
}
