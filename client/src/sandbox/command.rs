//! The job's main process, from its fork to its exec.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, OFlags, open, stat};
use rustix::io::Errno;
use rustix::process::{chdir, setpgid, setrlimit};
use rustix::stdio::dup2_stdin;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::apply::{close_all_on_exec, default_signals, execute, refuse_calls};
use super::prepare::Command;
use super::report::{At, Failure, Report, Stage, Words, send};
use super::terminal;

/// What a job that is root inside may do there: Docker's default list. They hold in the
/// job's own user namespace only; `NET_RAW` is left out, `SYS_ADMIN` never was in.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// Exit codes of a shell for a command it did not find, or could not run.
pub(super) const NOT_FOUND: i32 = 127;
pub(super) const CANNOT_RUN: i32 = 126;

/// Becomes the command, or tells through `report` why not and returns the exit
/// code.
pub(super) fn run(command: &Command, report: BorrowedFd<'_>) -> i32 {
    if command.foreground {
        // With all signals blocked still: the terminal stops those who ask from the background.
        terminal::take();
    }
    default_signals();
    if let Err(failure) = make_ready(command) {
        send(report, &Report::Failed(failure, Words::NONE));
        return CANNOT_RUN;
    }
    let errno = search_and_execute(command);
    send(report, &Report::NotRun(errno.raw_os_error()));
    if is_missing(errno) {
        NOT_FOUND
    } else {
        CANNOT_RUN
    }
}

/// Whether an errno of execve(2) means that there is no such program.
pub(crate) fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR)
}

fn make_ready(command: &Command) -> Result<(), Failure> {
    if command.own_group {
        setpgid(None, None).at(Stage::OwnGroup)?;
    }
    set_no_new_privs(true).at(Stage::NoNewPrivileges)?;
    refuse_calls(&command.refused).at(Stage::RefuseCalls)?;
    drop_capabilities().at(Stage::DropCapabilities)?;
    chdir(&*command.cwd).at(Stage::ChangeDirectory)?;
    if let Some(path) = &command.stdin {
        open_stdin(path).at(Stage::OpenStdin)?;
    }
    close_all_on_exec().at(Stage::MarkDescriptors)?;
    set_limits(command)
}

/// Last, so that no limit stands in the way of getting here.
fn set_limits(command: &Command) -> Result<(), Failure> {
    for (item, limit) in command.limits.iter().enumerate() {
        let set = setrlimit(limit.what.resource(), limit.to_kernel());
        set.at(Stage::SetLimit)
            .map_err(|failure| Failure { item, ..failure })?;
    }
    Ok(())
}

/// The bounding set first: changing it takes a capability that may be dropped after.
pub(super) fn drop_capabilities() -> Result<(), Errno> {
    clear_ambient_capability_set()?;
    drop_bounding_set()?;
    let inheritable = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: KEPT,
            permitted: KEPT,
            inheritable,
        },
    )
}

/// Goes up until the kernel does not know the capability: it may know more than we do.
fn drop_bounding_set() -> Result<(), Errno> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if KEPT.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Err(Errno::INVAL) => break,
            other => other?,
        }
    }
    Ok(())
}

fn open_stdin(path: &CStr) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty())?;
    dup2_stdin(&file)
}

/// Tries the candidates in turn, as execvp(3) does; returns why none could be executed.
fn search_and_execute(command: &Command) -> Errno {
    let mut remembered = Errno::NOENT;
    for candidate in &command.candidates {
        if command.searched && is_directory(candidate) {
            continue;
        }
        match execute(candidate, &command.argv, &command.env) {
            errno if !command.searched => return errno,
            // "The header of a file isn't recognized, or permission is denied" -- execvp
            // goes on after the latter, and tells of it when nothing better was found.
            Errno::ACCESS => remembered = Errno::ACCESS,
            errno if is_missing(errno) => {}
            errno => return errno,
        }
    }
    remembered
}

fn is_directory(path: &CStr) -> bool {
    stat(path).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}
