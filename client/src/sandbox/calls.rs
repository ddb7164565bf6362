//! System calls that no job may make, because what they reach is bounded by no namespace:
//!
//! * `TIOCSTI` types into the terminal that a job shares with its caller, where the caller's shell
//!   takes it for a command; `TIOCLINUX` does so on consoles, by its selection.
//! * Keys of the kernel's key rings (add_key(2) and its like) are had by who inherits the session
//!   of whoever has them, whatever its namespaces. A job finds a kernel without them.
//!
//! Everything else passes, and costs what the kernel's table of calls that always pass costs
//! (`seccomp_cache_check_allow`): 8 to 14 ns beside the 98 ns of getppid(2), measured on Linux 6.18.

use libc::sock_filter;

const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541C;

/// Offsets in what the kernel shows a filter, `struct seccomp_data`. Of the second argument, an
/// ioctl's request, the kernel takes the lower half, so this must look at no more.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const REQUEST: u32 = if cfg!(target_endian = "big") { 28 } else { 24 };

/// One way to call the kernel, and the numbers that calls have there.
struct Interface {
    architecture: u32,
    ioctl: &'static [u32],
    keys: &'static [u32],
}

/// All that a machine's kernel may know. A number of the x32 interface has bit 30 set.
const INTERFACES: &[Interface] = &[
    #[cfg(target_arch = "x86_64")]
    Interface {
        architecture: 0xC000_003E,
        ioctl: &[16, 0x4000_0000 | 514],
        keys: &[
            248,
            249,
            250,
            0x4000_0000 | 248,
            0x4000_0000 | 249,
            0x4000_0000 | 250,
        ],
    },
    #[cfg(target_arch = "x86_64")]
    Interface {
        architecture: 0x4000_0003,
        ioctl: &[54],
        keys: &[286, 287, 288],
    },
    #[cfg(target_arch = "aarch64")]
    Interface {
        architecture: 0xC000_00B7,
        ioctl: &[29],
        keys: &[217, 218, 219],
    },
    #[cfg(target_arch = "aarch64")]
    Interface {
        architecture: 0x4000_0028,
        ioctl: &[54],
        keys: &[309, 310, 311],
    },
];

/// The filter that refuses them, as a program for the kernel.
pub(super) fn refused() -> Vec<sock_filter> {
    let mut program = Vec::new();
    for interface in INTERFACES {
        let block = block(interface);
        program.push(load(ARCHITECTURE));
        // No block is near the 255 instructions that a jump can pass.
        let length = u8::try_from(block.len()).unwrap_or(u8::MAX);
        program.push(unless(interface.architecture, length));
        program.extend(block);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

fn block(interface: &Interface) -> Vec<sock_filter> {
    let refuse = |errno: i32| answer(libc::SECCOMP_RET_ERRNO | errno.cast_unsigned());
    let mut block = vec![load(NUMBER)];
    for number in interface.keys {
        block.extend([unless(*number, 1), refuse(libc::ENOSYS)]);
    }
    for number in interface.ioctl {
        block.extend([
            unless(*number, 6),
            load(REQUEST),
            unless(TIOCSTI, 1),
            refuse(libc::EPERM),
            unless(TIOCLINUX, 1),
            refuse(libc::EPERM),
            answer(libc::SECCOMP_RET_ALLOW),
        ]);
    }
    block.push(answer(libc::SECCOMP_RET_ALLOW));
    block
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, offset)
}

/// Passes over so many instructions unless what was loaded is this.
fn unless(value: u32, skipped: u8) -> sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skipped, value)
}

fn answer(what: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, what)
}

fn instruction(code: u32, if_not: u8, value: u32) -> sock_filter {
    sock_filter {
        // The codes have 8 bits.
        code: u16::try_from(code).unwrap_or(u16::MAX),
        jt: 0,
        jf: if_not,
        k: value,
    }
}
