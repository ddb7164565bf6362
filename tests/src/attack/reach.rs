//! Attacks on what else connects a job with the world: sockets, memory, the terminal.

use std::fs::{self, OpenOptions};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::time::Duration;

use super::raw::{Word, call, call_of_32_bits, number};
use super::{Ground, escaped, holds, refused};

/// Talks to the daemon, or to anybody outside.
pub(super) fn sockets(ground: &Ground) {
    let name = |entry: fs::DirEntry| entry.path();
    let listed = fs::read_dir(ground.sockets())
        .into_iter()
        .flatten()
        .flatten()
        .map(name);
    let guessed = ground.root.join("run/wakebox/0123456789abcdef.sock");
    for path in listed.chain([guessed]) {
        refused(
            format!("connect to {}", path.display()),
            UnixStream::connect(&path),
        );
        refused(
            format!("send to {}", path.display()),
            UnixDatagram::unbound().and_then(|own| own.send_to(b"x", &path)),
        );
    }
    for path in known(ground) {
        refused(format!("connect to {path}"), seqpacket(&path));
    }
    if ground.sees_host {
        return;
    }
    let address = SocketAddr::from_abstract_name(ground.root.as_os_str().as_encoded_bytes());
    refused(
        "connect to a socket without a file",
        address.and_then(|to| UnixStream::connect_addr(&to)),
    );
    for to in [
        "127.0.0.1:22",
        "127.0.0.1:631",
        "1.1.1.1:53",
        "[::1]:22",
        "169.254.169.254:80",
    ] {
        let parsed = to.parse().expect("an address");
        refused(
            format!("connect to {to}"),
            TcpStream::connect_timeout(&parsed, Duration::from_millis(300)),
        );
    }
    let sent = UdpSocket::bind("0.0.0.0:0").and_then(|own| own.send_to(b"x", "1.1.1.1:53"));
    refused("send a datagram", sent);
    let raw = [
        number(libc::AF_INET),
        number(libc::SOCK_RAW),
        number(libc::IPPROTO_ICMP),
    ];
    refused("a raw socket", call(libc::SYS_socket, raw));
    let packet = [number(libc::AF_PACKET), number(libc::SOCK_RAW), number(0)];
    refused("a packet socket", call(libc::SYS_socket, packet));
    let machine = [number(libc::AF_VSOCK), number(libc::SOCK_STREAM), number(0)];
    let to_host = call(libc::SYS_socket, machine).and_then(|socket| {
        let address = [
            &40_u16.to_ne_bytes()[..],
            &[0; 2],
            &22_u32.to_ne_bytes(),
            &2_u32.to_ne_bytes(),
            &[0; 4],
        ]
        .concat();
        call(
            libc::SYS_connect,
            [number(socket), Word::In(&address), number(16)],
        )
    });
    refused("connect to the machine around a virtual one", to_host);
}

/// Sockets of the daemon that this kernel tells of.
fn known(ground: &Ground) -> Vec<String> {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let sockets = ground.sockets();
    let sockets = sockets.to_string_lossy();
    let paths = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7));
    paths
        .filter(|path| path.starts_with(&*sockets))
        .map(str::to_owned)
        .collect()
}

fn seqpacket(path: &str) -> std::io::Result<i64> {
    let socket = call(
        libc::SYS_socket,
        [
            number(libc::AF_UNIX),
            number(libc::SOCK_SEQPACKET),
            number(0),
        ],
    )?;
    let address = [&1_u16.to_ne_bytes()[..], path.as_bytes(), &[0]].concat();
    call(
        libc::SYS_connect,
        [number(socket), Word::In(&address), number(address.len())],
    )
}

/// Finds memory that processes outside share.
pub(super) fn memory(ground: &Ground) {
    if ground.sees_host {
        println!("refused memory: a job that sees the host shares it");
        return;
    }
    for kind in ["shm", "sem", "msg"] {
        let table = fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
        holds(
            format!("no {kind} of anybody else"),
            table.lines().count() == 1,
        );
    }
    let key = number(0x5741_4B45);
    refused(
        "memory by its key",
        call(libc::SYS_shmget, [key, number(0), number(0)]),
    );
    let shared = fs::read_dir("/dev/shm").into_iter().flatten().count();
    holds("/dev/shm is empty", shared == 0);
    refused(
        "a message queue",
        call(
            libc::SYS_mq_open,
            [
                Word::Text(c"wakebox-attack"),
                number(0),
                number(0),
                number(0),
            ],
        ),
    );
}

/// Types into the terminal of the caller, whose shell would obey.
pub(super) fn terminal(_ground: &Ground) {
    let open = OpenOptions::new().read(true).write(true).open("/dev/tty");
    let files = [0, 1, 2]
        .into_iter()
        .chain(open.as_ref().ok().map(AsRawFd::as_raw_fd));
    for file in files {
        for byte in *b"echo ESCAPED\n" {
            for request in [0x5412_i64, 0x5412 | 1 << 32, 0x5412 | 1 << 63] {
                if call(
                    libc::SYS_ioctl,
                    [number(file), number(request), Word::In(&[byte])],
                )
                .is_ok()
                {
                    escaped(format!("type into {file}"), byte);
                    return;
                }
            }
            let pointer = u32::try_from([byte].as_ptr().addr() & 0xFFFF_FFFF).unwrap_or(0);
            // 54 is ioctl(2) there; the address is wrong, which the kernel would say if it looked.
            let other = call_of_32_bits(54, file.cast_unsigned(), 0x5412, pointer);
            holds(
                "by a call of 32 bits",
                other.is_none_or(|answer| answer == -libc::EPERM),
            );
        }
        let mut paste = [3_u8; 16];
        refused(
            format!("paste into {file}"),
            call(
                libc::SYS_ioctl,
                [number(file), number(0x541C), Word::Out(&mut paste)],
            ),
        );
        // TIOCSCTTY, by force; TIOCCONS.
        refused(
            format!("take {file}"),
            call(libc::SYS_ioctl, [number(file), number(0x540E), number(1)]),
        );
        refused(
            format!("console of {file}"),
            call(libc::SYS_ioctl, [number(file), number(0x541D), number(0)]),
        );
    }
}
