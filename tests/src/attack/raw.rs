//! System calls with any arguments, as an attacker makes them.
#![expect(unsafe_code, reason = "an attacker makes calls that no library offers")]

use std::ffi::{CStr, CString, c_long};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// One argument of a system call.
#[derive(Debug)]
pub(super) enum Word<'a> {
    Number(i64),
    Text(&'a CStr),
    In(&'a [u8]),
    Out(&'a mut [u8]),
}

/// A number.
pub(super) fn number(value: impl TryInto<i64>) -> Word<'static> {
    Word::Number(value.try_into().unwrap_or(-1))
}

/// A descriptor.
pub(super) fn fd(file: &impl AsRawFd) -> Word<'static> {
    Word::Number(file.as_raw_fd().into())
}

/// A path for a call.
pub(super) fn text(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).unwrap_or_default()
}

/// Makes a call. The first argument is `number`; those that are missing are 0.
pub(super) fn call<const N: usize>(number: c_long, words: [Word<'_>; N]) -> io::Result<i64> {
    let mut arguments = [0_usize; 6];
    for (slot, word) in arguments.iter_mut().zip(words) {
        *slot = match word {
            Word::Number(value) => usize::from_ne_bytes(value.to_ne_bytes()),
            Word::Text(text) => text.as_ptr().addr(),
            Word::In(bytes) => bytes.as_ptr().addr(),
            Word::Out(bytes) => bytes.as_mut_ptr().addr(),
        };
    }
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: what the kernel writes to are buffers that the caller lends for the call, long enough
    // for what the call writes; calls that change memory otherwise are not made this way.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => Err(io::Error::last_os_error()),
        value => Ok(value),
    }
}

/// Maps the first page of a file, shared, and writes one byte to it.
pub(super) fn write_mapped(file: BorrowedFd<'_>, then_protect: bool) -> io::Result<()> {
    let read_write = libc::PROT_READ | libc::PROT_WRITE;
    let first = if then_protect {
        libc::PROT_READ
    } else {
        read_write
    };
    let (nowhere, size) = (std::ptr::null_mut(), 4096);
    // SAFETY: the kernel chooses a place that is free.
    let at = unsafe { libc::mmap(nowhere, size, first, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page was mapped just now and belongs to nobody else.
    if then_protect && unsafe { libc::mprotect(at, size, read_write) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: mapped and writable, and the file is not empty.
    unsafe { at.cast::<u8>().write_volatile(b'!') };
    Ok(())
}

/// The kernel's answer to a filter that was passed by a call of the other interface of this machine,
/// the one for programs of 32 bits: `None` where there is none.
#[cfg(target_arch = "x86_64")]
pub(super) fn call_of_32_bits(number: u32, a: u32, b: u32, c: u32) -> Option<i32> {
    let answer: i32;
    // SAFETY: the registers that the kernel changes are named; the numbers are no addresses.
    unsafe {
        std::arch::asm!(
            "push rbx", "mov ebx, {a:e}", "int 0x80", "pop rbx",
            a = in(reg) a,
            inlateout("eax") number.cast_signed() => answer,
            in("ecx") b, in("edx") c,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    Some(answer)
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn call_of_32_bits(_number: u32, _a: u32, _b: u32, _c: u32) -> Option<i32> {
    None
}
