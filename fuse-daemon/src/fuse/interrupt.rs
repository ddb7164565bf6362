//! Getting a thread out of a system call that waits.
#![expect(
    unsafe_code,
    reason = "no crate offers pthread_kill(3) and sigaction(2)"
)]

use std::os::unix::thread::JoinHandleExt;
use std::sync::Once;
use std::thread::JoinHandle;

/// Makes the system call that a thread waits in fail with EINTR. Means nothing to a thread that is
/// not in one, nor to one that has ended.
///
/// There is no other way to end a `read` of /dev/fuse from outside: closing the descriptor does
/// not, and the one message that the kernel answers by a request, `NOTIFY_RETRIEVE`, is refused
/// for anything but a regular file that it has in memory (fs/fuse/dev.c). A `poll` before each
/// `read` would, at the price of two system calls more for each request.
pub(super) fn interrupt<T>(thread: &JoinHandle<T>) {
    static HANDLED: Once = Once::new();
    HANDLED.call_once(handle);
    // SAFETY: while there is a handle, the thread is not joined, so its identifier is its own,
    // even if it has ended.
    unsafe { libc::pthread_kill(thread.as_pthread_t() as libc::pthread_t, signal()) };
}

/// One that nothing else here uses, and that no terminal or kernel sends.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 4
}

extern "C" fn nothing(_: libc::c_int) {}

/// Without `SA_RESTART`: a call that began anew would not have been interrupted.
fn handle() {
    // SAFETY: all-zero is a valid `sigaction` with no flags and an empty mask; the handler does
    // nothing, which is safe in whatever it interrupts.
    let failed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(signal(), &action, std::ptr::null_mut()) != 0
    };
    assert!(!failed, "a real-time signal can always be handled");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_thread_that_waits_goes_on() {
        let (reader, _writer) = rustix::pipe::pipe().expect("a pipe");
        let thread = std::thread::spawn(move || rustix::io::read(reader, &mut [0; 1]));
        while !thread.is_finished() {
            interrupt(&thread);
            std::thread::sleep(Duration::from_millis(1));
        }
        interrupt(&thread);
        assert_eq!(thread.join().expect("no panic"), Err(Errno::INTR));
    }
}
