//! The first process of a sandbox: process 1 of the job's pid namespace.
//!
//! It sets the sandbox up, starts the command and waits for it. When it ends, the kernel
//! kills whatever is left in the namespace and lets its parent, the client, see its end only
//! when all of them are gone (`zap_pid_ns_processes`).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::{Errno, read, write};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{
    DumpableBehavior, Pid, Signal, chdir, kill_process_group, set_dumpable_behavior,
    set_parent_process_death_signal,
};
use rustix::stdio::stderr;
use rustix::system::{setdomainname, sethostname};

use super::apply::{
    SignalSet, close_all_but, close_standard, kill_all_others, open_signals, raise_loopback, reap,
    reap_ended, unshare_user, vfork,
};
use super::mounts::Root;
use super::prepare::{Action, IdMaps, Prepared};
use super::report::{At, Failure, Report, Stage, Words, send};
use super::usage::{Ended, Usage};
use super::{GO, INTERRUPT, QUIT};
use super::{command, mounts, squashfs, view};

/// The child's ends of what connects it to the client.
#[derive(Debug)]
pub(crate) struct Ends {
    /// Where reports are written.
    pub(crate) report: OwnedFd,
    /// Hangs up when the client is gone, which holds the only other end; a byte asks for the
    /// end of the job, or for a signal to it.
    pub(crate) alive: OwnedFd,
}

/// Sets the sandbox up and lives until the command has ended. Returns its own exit code: 0 when
/// it has reported how the command ended.
pub(crate) fn run(prepared: &Prepared<'_>, ends: &Ends) -> i32 {
    // Process 1 is deaf by nature to what its namespace sends; this adds the terminal's keys
    // and keeps handlers that the client installed from running here.
    SignalSet::all().set();
    let mut refusal = Words::NONE;
    match set_up(prepared, ends, &mut refusal).and_then(|()| run_command(prepared, ends)) {
        Ok(()) => 0,
        Err(failure) => {
            send(&ends.report, &Report::Failed(failure, refusal));
            1
        }
    }
}

fn set_up(prepared: &Prepared<'_>, ends: &Ends, refusal: &mut Words) -> Result<(), Failure> {
    close_inherited(prepared, ends)?;
    die_with_client(ends)?;
    // Kept open because a later step may take this /proc out of sight.
    let own = open(
        c"/proc/self",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let own = own.at(Stage::OwnProc)?;
    write_to(own.as_fd(), c"setgroups", b"deny").at(Stage::DenySetgroups)?;
    map_ids(own.as_fd(), &prepared.maps)?;
    // Private, not slave: a slave would still receive what the host mounts meanwhile.
    mount_change(
        c"/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .at(Stage::PrivateMounts)?;
    isolate(prepared)?;
    mount_all(prepared, refusal)?;
    lock(own.as_fd(), prepared)?;
    protect(ends)
}

/// Closes what the client had open, first of all our copy of the client's end of `alive`.
fn close_inherited(prepared: &Prepared<'_>, ends: &Ends) -> Result<(), Failure> {
    let socket = prepared.serve.map_or(-1, |serve| serve.socket.as_raw_fd());
    let mut keep: [RawFd; 3] = [ends.report.as_raw_fd(), ends.alive.as_raw_fd(), socket];
    keep.sort_unstable();
    let known = keep.iter().position(|fd| *fd >= 0).unwrap_or(0);
    close_all_but(keep.get(known..).unwrap_or_default()).at(Stage::MarkDescriptors)
}

/// Asks to be killed when the client ends, then looks whether it ended before that.
fn die_with_client(ends: &Ends) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).at(Stage::DieWithClient)?;
    let mut alive = [PollFd::new(&ends.alive, PollFlags::empty())];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut alive, Some(&at_once)).at(Stage::DieWithClient)?;
    if alive
        .iter()
        .any(|pipe| pipe.revents().contains(PollFlags::HUP))
    {
        return Err(Failure::without_errno(Stage::ClientGone));
    }
    Ok(())
}

/// User first: a map of groups is accepted only once setgroups is denied, in any order.
fn map_ids(own: BorrowedFd<'_>, maps: &IdMaps) -> Result<(), Failure> {
    write_to(own, c"uid_map", &maps.user).at(Stage::MapUser)?;
    write_to(own, c"gid_map", &maps.group).at(Stage::MapGroup)
}

fn write_to(own: BorrowedFd<'_>, name: &CStr, text: &[u8]) -> Result<(), Errno> {
    let file = openat(own, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write(&file, text).map(drop)
}

/// Names, which a job can do without, and the loopback device, which it cannot.
fn isolate(prepared: &Prepared<'_>) -> Result<(), Failure> {
    let name = |name: &Option<CString>, set: fn(&[u8]) -> Result<(), Errno>| match name {
        Some(name) => set(name.to_bytes()),
        None => Ok(()),
    };
    if name(&prepared.host_name, sethostname).is_err() {
        tell(b"wakebox: cannot set the host name\n");
    }
    if name(&prepared.domain_name, setdomainname).is_err() {
        tell(b"wakebox: cannot set the domain name\n");
    }
    if let Some(pid) = &prepared.last_pid
        && choose_pids(pid).is_err()
    {
        tell(b"wakebox: cannot choose the process numbers of the job\n");
    }
    if prepared.network {
        let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None);
        let raised = socket.and_then(|socket| raise_loopback(socket.as_fd()));
        raised.at(Stage::Loopback)?;
    }
    Ok(())
}

/// Which namespace it is about is a matter of who writes (kernel/pid_namespace.c,
/// `pid_ns_ctl_handler`), and its file is open to everyone: that of the host will do.
fn choose_pids(last: &[u8]) -> Result<(), Errno> {
    let path = c"/proc/sys/kernel/ns_last_pid";
    let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    write(&file, last).map(drop)
}

fn tell(line: &[u8]) {
    let _unheard = write(stderr(), line);
}

fn mount_all(prepared: &Prepared<'_>, refusal: &mut Words) -> Result<(), Failure> {
    let (mut root, mut view) = (Root::default(), None);
    for (index, action) in prepared.actions.iter().enumerate() {
        if action.begins_root() {
            copy_early(prepared.actions.get(index..).unwrap_or_default());
        }
        carry_out(action, prepared, &mut root, &mut view, refusal)
            .map_err(|failure| failure.in_step(index))?;
    }
    root.enter().at(Stage::EnterRoot)
}

/// Copies what is bound later: the new root lies over the old one, so that a later copy of `/`
/// would have it too. What cannot be copied yet is copied, or refused, in its turn.
fn copy_early(actions: &[Action<'_>]) {
    for action in actions {
        if let Action::Bind(bind) = action {
            let early = bind.early.take().or_else(|| mounts::copy(bind).ok());
            bind.early.set(early);
        }
    }
}

fn carry_out(
    action: &Action<'_>,
    prepared: &Prepared<'_>,
    root: &mut Root,
    view: &mut Option<OwnedFd>,
    refusal: &mut Words,
) -> Result<(), Failure> {
    match action {
        Action::MountView(planned) => *view = Some(view::mount(planned, root, refusal)?),
        Action::AttachView(target) => {
            if let Some(mount) = view {
                view::attach_again(mount, target, root)?;
            }
        }
        Action::CoverAlias(target) => {
            if let Some(mount) = view.as_ref().filter(|_| root.has(&target.path)) {
                view::attach_again(mount, target, root)?;
            }
        }
        Action::Bind(bind) => root.attach(&mounts::copy(bind)?, &bind.target)?,
        Action::Tmpfs(target) => {
            let mount = mounts::tmpfs(target.is_root).at(Stage::MakeTmpfs)?;
            root.attach(&mount, target)?;
        }
        Action::CreateDir(path) => root.create_directories(path).at(Stage::CreateDir)?,
        Action::CreateFile(entry) => root.create_file(entry).at(Stage::CreateFile)?,
        Action::Squashfs(image) => root.attach(&squashfs::mount(image)?, &image.target)?,
        Action::Symlink { target, entry } => {
            root.create_symlink(target, entry)
                .at(Stage::CreateSymlink)?;
        }
        Action::Terminals(target) => {
            root.attach(&mounts::terminals().at(Stage::Terminals)?, target)?;
        }
        Action::FreshProc { required } => {
            let mounted = root.mount_proc(*required).at(Stage::FreshProc)?;
            if let Some(proc) = mounted.filter(|_| prepared.guards_proc) {
                mounts::guard_proc(proc.as_fd()).at(Stage::GuardProc)?;
            }
        }
        Action::SealRoot => root.seal().at(Stage::ReadOnly)?,
        Action::Hide(path) => root.hide(path).at(Stage::Hide)?,
    }
    Ok(())
}

/// A second user namespace, below the one that owns the mounts: not even root inside has a right
/// over them (`may_mount` asks for the owner's). A mount namespace of its own, which it may make,
/// gets them locked together (`copy_mnt_ns`, `lock_mnt_tree`), so what is under one never shows.
/// Making that namespace here would add a copy of every mount, and an end of them with a grace
/// period, to each job. That setgroups is denied is inherited.
fn lock(own: BorrowedFd<'_>, prepared: &Prepared<'_>) -> Result<(), Failure> {
    unshare_user().at(Stage::Lock)?;
    map_ids(own, &prepared.lock_maps)
}

/// Leaves nothing for the job to find in `/proc/1`.
fn protect(ends: &Ends) -> Result<(), Failure> {
    // The working directory is the client's: the workspace under the view.
    chdir(c"/").at(Stage::LeaveDirectory)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Stage::ProtectInit)?;
    // A change of credentials may clear it (commit_creds).
    die_with_client(ends)
}

/// Forks the command and lives until it has ended or the client asks for an end.
fn run_command(prepared: &Prepared<'_>, ends: &Ends) -> Result<(), Failure> {
    if prepared.serve.is_some_and(|serve| serve.waits) && !may_begin(ends)? {
        send(&ends.report, &Report::Stopped(kill_and_count()));
        return Ok(());
    }
    let children = open_signals(&[libc::SIGCHLD]).at(Stage::WatchChildren)?;
    let main = vfork(|| command::run(&prepared.command, ends.report.as_fd())).at(Stage::Fork)?;
    // So that a pipe the client's caller reads from ends with the job's last holder of it.
    close_standard().at(Stage::MarkDescriptors)?;
    loop {
        let word = sleep(&children, &ends.alive).at(Stage::WatchChildren)?;
        if let Some(ended) = reap_until(main, prepared)? {
            send(&ends.report, &Report::Ended(ended));
            return Ok(());
        }
        match word {
            Word::None => {}
            // The only error is that the group has ended already.
            Word::Signal(signal) => drop(kill_process_group(main, signal)),
            Word::Stop => {
                send(&ends.report, &Report::Stopped(kill_and_count()));
                return Ok(());
            }
        }
    }
}

/// Waits for the client; `false` if it wants no command any more.
fn may_begin(ends: &Ends) -> Result<bool, Failure> {
    send(&ends.report, &Report::Ready);
    let word = hear(&ends.alive).at(Stage::WatchChildren)?;
    Ok(matches!(word, Word::None))
}

/// What the client says.
enum Word {
    None,
    /// A signal to its process group, which the command has left.
    Signal(Signal),
    /// The job shall end; a hang-up means the same.
    Stop,
}

/// Sleeps until a child ends or the client says or hangs up something; returns what it said.
fn sleep(children: &OwnedFd, alive: &OwnedFd) -> Result<Word, Errno> {
    let mut watched = [
        PollFd::new(children, PollFlags::IN),
        PollFd::new(alive, PollFlags::IN),
    ];
    poll(&mut watched, None)?;
    let [child, client] = watched.map(|fd| !fd.revents().is_empty());
    if child {
        // Several ends may share one record; `reap_until` does not count them.
        read(children, &mut [0; size_of::<libc::signalfd_siginfo>()])?;
    }
    if client { hear(alive) } else { Ok(Word::None) }
}

fn hear(alive: &OwnedFd) -> Result<Word, Errno> {
    let mut word = [0];
    read(alive, &mut word)?;
    Ok(match word {
        INTERRUPT => Word::Signal(Signal::INT),
        QUIT => Word::Signal(Signal::QUIT),
        GO => Word::None,
        _ => Word::Stop,
    })
}

/// Reaps whoever has ended; stops at the main process.
///
/// # Errors
/// Also the end of a process that serves an image: what the job does without proves nothing.
fn reap_until(main: Pid, prepared: &Prepared<'_>) -> Result<Option<Ended>, Failure> {
    while let Some(ended) = reap_ended().at(Stage::WatchChildren)? {
        if ended.pid == main.as_raw_pid() {
            return Ok(Some(ended));
        }
        let served = |action: &Action<'_>| match action {
            Action::Squashfs(image) => {
                image.served_by.get().map(Pid::as_raw_pid) == Some(ended.pid)
            }
            _ => false,
        };
        if let Some(step) = prepared.actions.iter().position(served) {
            return Err(Failure::without_errno(Stage::ImageNotServed).in_step(step));
        }
    }
    Ok(None)
}

/// Kills the job and adds up what it took. Left to the kernel, it would not be known: what it
/// kills at the end of a pid namespace is reaped without being counted, because it has
/// SIGCHLD ignored meanwhile (`zap_pid_ns_processes`).
fn kill_and_count() -> Usage {
    kill_all_others();
    let mut total = Usage::default();
    while let Ok(ended) = reap(None) {
        total = total.and(ended.usage);
    }
    total
}
