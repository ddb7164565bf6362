//! Locks and leases, between processes.

use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::Ground;
use super::check::{Outcome, make, open, refused};
use super::process::in_child;
use super::raw::{Hold, ignore, lease, lock_bytes, lock_description};

probes! { "locks":
    process_locks_exclude "fcntl locks of two processes exclude each other where their bytes overlap",
    process_locks_end_with_a_close "A process loses its fcntl locks when it closes any descriptor of the file",
    description_locks_exclude "OFD locks of two descriptions exclude each other, in one process as well",
    whole_file_locks_exclude "flock excludes another description until the descriptor is closed",
    shared_locks_are_shared "Two processes may hold read locks of each kind, and then neither a write lock",
    locks_end_with_their_process "The locks of a process that has ended are free",
    lease_holds_off_writers "A read lease makes an open to write wait, and cannot be had while a writer is there",
}

fn shared() -> rustix::io::Result<OwnedFd> {
    open("a", OFlags::RDWR)
}

fn process_locks_exclude(_: &Ground) -> Outcome {
    let file = make("a", 0o600)?;
    lock_bytes(&file, Hold::Write, 10, 10)?;
    in_child(|| {
        let file = shared()?;
        refused(
            "the same bytes",
            lock_bytes(&file, Hold::Write, 15, 1),
            Errno::AGAIN,
        )?;
        refused(
            "reading them",
            lock_bytes(&file, Hold::Read, 0, 0),
            Errno::AGAIN,
        )?;
        Ok(lock_bytes(&file, Hold::Write, 20, 10)?)
    })?;
    lock_bytes(&file, Hold::None, 0, 0)?;
    in_child(|| Ok(lock_bytes(shared()?, Hold::Write, 0, 0)?))
}

fn process_locks_end_with_a_close(_: &Ground) -> Outcome {
    let file = make("a", 0o600)?;
    lock_bytes(&file, Hold::Write, 0, 0)?;
    drop(shared()?);
    in_child(|| Ok(lock_bytes(shared()?, Hold::Write, 0, 0)?))
}

fn description_locks_exclude(_: &Ground) -> Outcome {
    let file = make("a", 0o600)?;
    lock_description(&file, Hold::Write)?;
    let result = lock_description(shared()?, Hold::Write);
    refused("another description's", result, Errno::AGAIN)?;
    in_child(|| {
        let result = lock_description(shared()?, Hold::Read);
        refused("another process'", result, Errno::AGAIN)
    })?;
    lock_description(&file, Hold::None)?;
    in_child(|| Ok(lock_description(shared()?, Hold::Write)?))
}

fn whole_file_locks_exclude(_: &Ground) -> Outcome {
    let file = make("a", 0o600)?;
    flock(&file, FlockOperation::LockExclusive)?;
    let take = || flock(shared()?, FlockOperation::NonBlockingLockExclusive);
    refused("another description's", take(), Errno::AGAIN)?;
    in_child(|| refused("another process'", take(), Errno::AGAIN))?;
    drop(file);
    in_child(|| Ok(take()?))
}

fn shared_locks_are_shared(_: &Ground) -> Outcome {
    let file = make("a", 0o600)?;
    lock_bytes(&file, Hold::Read, 0, 0)?;
    flock(&file, FlockOperation::LockShared)?;
    in_child(|| {
        let file = shared()?;
        lock_bytes(&file, Hold::Read, 0, 0)?;
        refused(
            "a write lock",
            lock_bytes(&file, Hold::Write, 0, 0),
            Errno::AGAIN,
        )?;
        flock(&file, FlockOperation::NonBlockingLockShared)?;
        let result = flock(&file, FlockOperation::NonBlockingLockExclusive);
        refused("an exclusive flock", result, Errno::AGAIN)
    })
}

fn locks_end_with_their_process(_: &Ground) -> Outcome {
    make("a", 0o600)?;
    in_child(|| {
        let file = shared()?;
        lock_bytes(&file, Hold::Write, 0, 0)?;
        flock(&file, FlockOperation::LockExclusive)?;
        // The process ends with its descriptor open.
        std::mem::forget(file);
        Ok(())
    })?;
    let file = shared()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    Ok(lock_description(&file, Hold::Write)?)
}

fn lease_holds_off_writers(_: &Ground) -> Outcome {
    // The holder is told by a signal, which would end it.
    ignore(libc::SIGIO);
    drop(make("a", 0o600)?);
    let file = open("a", OFlags::RDONLY)?;
    super::check::offered("F_SETLEASE", lease(&file, Hold::Read), &[Errno::INVAL])?;
    let write = || open("a", OFlags::WRONLY | OFlags::NONBLOCK);
    in_child(|| refused("opening to write", write(), Errno::AGAIN))?;
    lease(&file, Hold::None)?;
    let _writer = write()?;
    refused(
        "a lease while a writer is there",
        lease(&file, Hold::Read),
        Errno::AGAIN,
    )
}
