//! Attacks on processes: those outside, the sandbox's first one, and what was left open.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::raw::{Word, call, call_of_32_bits, fd, number, text, write_mapped};
use super::{Ground, holds, is_hidden, is_secret, refused};

/// `PTRACE_ATTACH`, `PTRACE_SEIZE`.
const TRACE: [i64; 2] = [16, 0x4206];

/// Processes that must not be touched: the first one inside, and all outside.
fn others(ground: &Ground) -> Vec<i32> {
    ground.outside.iter().copied().chain([1]).collect()
}

/// Looks at processes by /proc.
pub(super) fn proc(ground: &Ground) {
    for pid in others(ground) {
        let of = |name: &str| format!("/proc/{pid}/{name}");
        for directory in ["root", "cwd", "map_files"] {
            let path = of(directory);
            is_hidden(&path, path.as_ref());
        }
        // Root of the machine may count what the first process has open, and no more.
        for entry in fs::read_dir(of("fd")).into_iter().flatten().flatten() {
            let path = entry.path();
            refused(format!("open {}", path.display()), File::open(&path));
            refused(format!("follow {}", path.display()), fs::read_link(&path));
        }
        for secret in ground.secrets() {
            let path = format!("{}{}", of("root"), secret.display());
            is_secret(&path, path.as_ref());
        }
        is_secret(of("cwd/secret"), of("cwd/secret").as_ref());
        for file in [
            "mem", "environ", "maps", "auxv", "stack", "syscall", "pagemap", "exe",
        ] {
            let read = File::open(of(file)).and_then(|mut file| {
                let mut some = [0; 64];
                match io::Read::read(&mut file, &mut some)? {
                    0 => Err(io::Error::other("it is empty")),
                    count => Ok(count),
                }
            });
            refused(of(file), read);
        }
        for file in ["mem", "uid_map", "attr/current", "clear_refs", "comm"] {
            let write = OpenOptions::new().write(true).open(of(file));
            refused(
                format!("write {}", of(file)),
                write.and_then(|mut file| io::Write::write(&mut file, b"0")),
            );
        }
    }
    let seen = fs::read_dir("/proc").into_iter().flatten().flatten();
    let seen: Vec<i32> = seen
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    holds(
        format!("only processes of its own: {seen:?}"),
        seen.len() <= 4,
    );
}

/// Takes processes over.
pub(super) fn trace(ground: &Ground) {
    for pid in others(ground)
        .into_iter()
        .chain([rustix::process::getppid().map_or(0, rustix::process::Pid::as_raw_pid)])
    {
        for request in TRACE {
            refused(
                format!("ptrace {request} of {pid}"),
                call(
                    libc::SYS_ptrace,
                    [number(request), number(pid), number(0), number(0)],
                ),
            );
        }
        let mut memory = [0; 16];
        let local = [memory.as_mut_ptr().addr(), 16]
            .map(usize::to_ne_bytes)
            .concat();
        let remote = [0x40_0000_usize, 16].map(usize::to_ne_bytes).concat();
        for (way, nr) in [
            ("read", libc::SYS_process_vm_readv),
            ("write", libc::SYS_process_vm_writev),
        ] {
            let words = [
                number(pid),
                Word::In(&local),
                number(1),
                Word::In(&remote),
                number(1),
                number(0),
            ];
            refused(format!("{way} memory of {pid}"), call(nr, words));
        }
        let opened = call(libc::SYS_pidfd_open, [number(pid), number(0)]);
        if let Ok(pidfd) = opened {
            for target in 0..16 {
                let got = call(
                    libc::SYS_pidfd_getfd,
                    [number(pidfd), number(target), number(0)],
                );
                refused(format!("descriptor {target} of {pid}"), got);
            }
        }
        let compare = [
            number(pid),
            number(std::process::id()),
            number(0),
            number(0),
            number(0),
        ];
        refused(format!("compare with {pid}"), call(libc::SYS_kcmp, compare));
    }
}

/// Ends or slows processes outside.
pub(super) fn signals(ground: &Ground) {
    for &pid in &ground.outside {
        for signal in [0, libc::SIGKILL, libc::SIGSTOP, libc::SIGTERM] {
            refused(
                format!("kill -{signal} {pid}"),
                call(libc::SYS_kill, [number(pid), number(signal)]),
            );
            refused(
                format!("kill -{signal} -{pid}"),
                call(libc::SYS_kill, [number(-pid), number(signal)]),
            );
            refused(
                format!("tkill -{signal} {pid}"),
                call(libc::SYS_tkill, [number(pid), number(signal)]),
            );
        }
        refused(
            format!("pidfd of {pid}"),
            call(libc::SYS_pidfd_open, [number(pid), number(0)]),
        );
        refused(
            format!("priority of {pid}"),
            call(libc::SYS_setpriority, [number(0), number(pid), number(19)]),
        );
        refused(
            format!("limits of {pid}"),
            call(
                libc::SYS_prlimit64,
                [number(pid), number(7), number(0), number(0)],
            ),
        );
        refused(
            format!("processors of {pid}"),
            call(
                libc::SYS_sched_setaffinity,
                [number(pid), number(8), Word::In(&1_u64.to_ne_bytes())],
            ),
        );
        refused(
            format!("session of {pid}"),
            call(libc::SYS_getsid, [number(pid)]),
        );
        let pipe = io::pipe().expect("a pipe").0;
        refused(
            format!("signal by a pipe to {pid}"),
            call(
                libc::SYS_fcntl,
                [fd(&pipe), number(libc::F_SETOWN), number(pid)],
            ),
        );
    }
    // To everybody, and to the first process: neither reaches anybody outside, or ends the sandbox.
    let _ = call(libc::SYS_kill, [number(-1), number(libc::SIGKILL)]);
    let _ = call(libc::SYS_kill, [number(1), number(libc::SIGKILL)]);
    holds("the sandbox lives", Path::new("/proc/1").exists());
}

/// Uses what was open in the caller, and devices of FUSE.
pub(super) fn descriptors(_ground: &Ground) {
    let open = fs::read_dir("/proc/self/fd").expect("its own").flatten();
    let open: Vec<i32> = open
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let beyond: Vec<_> = open.iter().filter(|fd| **fd > 3).collect();
    holds(
        format!("nothing was left open: {open:?}"),
        beyond.is_empty(),
    );
    let Ok(device) = OpenOptions::new().read(true).write(true).open("/dev/fuse") else {
        return;
    };
    for old in (0..64_i32).chain([i32::MAX]) {
        let clone = call(
            libc::SYS_ioctl,
            [
                fd(&device),
                number(0x8004_E500_u32),
                Word::In(&old.to_ne_bytes()),
            ],
        );
        refused(format!("FUSE_DEV_IOC_CLONE of {old}"), clone);
    }
    let input = File::open("declared").expect("the input");
    let map = [input.as_raw_fd().to_ne_bytes(), [0; 4], [0; 4], [0; 4]].concat();
    refused(
        "FUSE_DEV_IOC_BACKING_OPEN",
        call(
            libc::SYS_ioctl,
            [fd(&device), number(0x4010_E501_u32), Word::In(&map)],
        ),
    );
    refused(
        "FUSE_DEV_IOC_BACKING_CLOSE",
        call(
            libc::SYS_ioctl,
            [
                fd(&device),
                number(0x4004_E502_u32),
                Word::In(&1_u32.to_ne_bytes()),
            ],
        ),
    );
    let mut some = [0; 8192];
    refused(
        "read of a device without a mount",
        call(
            libc::SYS_read,
            [fd(&device), Word::Out(&mut some), number(8192)],
        ),
    );
    keys();
}

/// What the kernel keeps for a session, which no namespace divides.
fn keys() {
    let (user, name) = (text("user"), text("evil"));
    for ring in [-1, -2, -3, -4, -5] {
        let add = [
            Word::Text(&user),
            Word::Text(&name),
            Word::In(b"evil"),
            number(4),
            number(ring),
        ];
        refused(format!("add a key to {ring}"), call(libc::SYS_add_key, add));
        let ask = [
            Word::Text(&user),
            Word::Text(&name),
            number(0),
            number(ring),
        ];
        refused(
            format!("request a key of {ring}"),
            call(libc::SYS_request_key, ask),
        );
        for operation in [0, 1, 11, 7] {
            let control = [
                number(operation),
                number(ring),
                number(0),
                number(0),
                number(0),
            ];
            refused(
                format!("keyctl {operation} {ring}"),
                call(libc::SYS_keyctl, control),
            );
        }
    }
    // 288 is keyctl(2) there.
    if let Some(answer) = call_of_32_bits(288, 0, u32::MAX - 2, 0) {
        holds(format!("keyctl of 32 bits: {answer}"), answer < 0);
    }
}

/// Passes descriptors to a process with other rights, and back.
pub(super) fn passing(_ground: &Ground) {
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("sockets");
    let input = File::open("declared").expect("the input");
    let path = rustix::fs::open(
        "declared",
        rustix::fs::OFlags::PATH,
        rustix::fs::Mode::empty(),
    )
    .expect("a name");
    let sent = [input.as_fd(), path.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    message.push(SendAncillaryMessage::ScmRights(&sent));
    sendmsg(
        &ours,
        &[io::IoSlice::new(b"x")],
        &mut message,
        SendFlags::empty(),
    )
    .expect("sent");
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(
        &theirs,
        &mut [io::IoSliceMut::new(&mut byte)],
        &mut message,
        RecvFlags::empty(),
    )
    .expect("received");
    for received in message.drain() {
        let RecvAncillaryMessage::ScmRights(files) = received else {
            continue;
        };
        for file in files {
            let name = format!("/proc/self/fd/{}", file.as_raw_fd());
            refused(
                "reopen what was passed for writing",
                OpenOptions::new().write(true).open(&name),
            );
            refused("map what was passed", write_mapped(file.as_fd(), false));
            refused(
                "chmod and write what was passed",
                call(libc::SYS_ftruncate, [fd(&file), number(0)]),
            );
        }
    }
}
