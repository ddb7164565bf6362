//! The daemon's socket, and what comes over it that no client of ours says.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cas::protocol::{self, Reply, Request};
use client::daemon::Lease;
use rustix::net::SendFlags;
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size_force, set_socket_timeout};
use wakebox_tests::job::wait_for;
use wakebox_tests::{Place, needs_fuse, skip};

/// More than an answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A place with a daemon, and the path of its socket.
fn with_daemon() -> (Place, PathBuf) {
    let place = Place::new();
    place.run(&["true"]).expect(0);
    let entries = std::fs::read_dir(place.runtime().join("wakebox")).expect("a directory");
    let mut paths = entries.flatten().map(|entry| entry.path());
    let socket = paths.find(|path| path.extension().is_some_and(|end| end == "sock"));
    (place, socket.expect("a socket"))
}

fn connect(socket: &Path) -> OwnedFd {
    let lease = Lease::at(socket).expect("a daemon");
    let fd = lease.socket().try_clone_to_owned().expect("a descriptor");
    set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE)).expect("a limit");
    fd
}

fn send(socket: &OwnedFd, packet: &[u8]) {
    rustix::net::send(socket, packet, SendFlags::NOSIGNAL).expect("sent");
}

/// Whether the daemon hangs up without an answer.
fn is_hung_up(socket: &OwnedFd) -> bool {
    matches!(protocol::receive::<Reply>(socket.as_fd()), Ok(None))
}

/// Insists that a job runs, soon, by the same daemon.
#[track_caller]
fn expect_served(place: &Place) {
    let (daemons, begun) = (place.daemons(), Instant::now());
    place.run(&["true"]).expect(0);
    assert_eq!((place.daemons(), daemons.len()), (daemons, 1));
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[test]
fn nonsense_ends_its_own_connection() {
    needs_fuse!();
    let (place, path) = with_daemon();
    let cases: [&[u8]; 7] = [
        b"{",
        b"null",
        b"[]",
        b"{\"register\":{}}",
        b"\"no-such-word\"",
        b"\xff\xfe",
        &[b' '; 60_000],
    ];
    for packet in cases {
        let socket = connect(&path);
        send(&socket, packet);
        assert!(is_hung_up(&socket), "{packet:?}");
    }
    expect_served(&place);
}

#[test]
fn a_packet_that_is_too_long_is_not_read() {
    needs_fuse!();
    let (place, path) = with_daemon();
    let socket = connect(&path);
    if set_socket_send_buffer_size_force(&socket, 4 << 20).is_err() {
        skip!("may not send a long packet");
    }
    let mut packet = b"\"status\"".to_vec();
    packet.resize(400_000, b' ');
    send(&socket, &packet);
    assert!(is_hung_up(&socket));
    expect_served(&place);
}

/// What should come with a descriptor of `/dev/fuse`, or a sealed document, comes with others.
#[test]
fn descriptors_of_other_things_are_refused_and_not_waited_for() {
    needs_fuse!();
    let (place, path) = with_daemon();
    let (silent, _kept) = rustix::pipe::pipe().expect("a pipe");
    let socket = connect(&path);
    for (request, attached) in [
        (Request::Manifest, Some(silent.as_fd())),
        (Request::Serve, Some(silent.as_fd())),
        (Request::Serve, None),
        (Request::Finish, None),
        (Request::Taken, None),
    ] {
        protocol::send(socket.as_fd(), &request, attached).expect("sent");
        let reply = protocol::receive::<Reply>(socket.as_fd()).expect("in time");
        let refused = matches!(&reply, Some((Reply::Refused(_), fds)) if fds.is_empty());
        assert!(refused, "{request:?}: {reply:?}");
    }
    expect_served(&place);
}

#[test]
fn clients_that_stall_keep_nobody_waiting() {
    needs_fuse!();
    let (place, path) = with_daemon();
    let silent: Vec<_> = (0..200).map(|_| connect(&path)).collect();
    // These ask, and read no answer until there is no room for one.
    let deaf: Vec<_> = (0..4).map(|_| connect(&path)).collect();
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    for socket in &deaf {
        let begun = Instant::now();
        let mut refused = 0;
        while refused < 50 && begun.elapsed() < PATIENCE {
            if rustix::net::send(socket, b"\"status\"", flags).is_err() {
                refused += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        assert_eq!(refused, 50, "there is always room");
    }
    expect_served(&place);
    drop((silent, deaf));
    // Their threads end with them.
    let daemon = place.daemons()[0].as_raw_pid();
    let threads = || std::fs::read_dir(format!("/proc/{daemon}/task")).map_or(0, Iterator::count);
    wait_for("the threads to end", || threads() < 20);
    expect_served(&place);
}

/// The directory keeps others out already; this is the second lock.
#[test]
fn another_user_is_refused() {
    needs_fuse!();
    let (place, path) = with_daemon();
    for path in [
        place.root(),
        &place.runtime(),
        path.parent().expect("it lies somewhere"),
    ] {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path, open).expect("it is ours");
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(&path, open).expect("it is ours");
    let ask = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); \
               s.settimeout(10); s.connect(sys.argv[1]); s.send(b'\"status\"'); \
               print('answered' if s.recv(65536) else 'hung up')";
    let asked = |uid: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", uid, "--clear-groups", "python3", "-c", ask]);
        let output = command.arg(&path).stdin(Stdio::null()).output();
        output.map_or(String::new(), |output| {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        })
    };
    let own = rustix::process::geteuid().as_raw().to_string();
    if asked(&own) != "answered" {
        skip!("cannot become a user, or there is no Python");
    }
    // A reset says the same as an end: there was something that nobody has read.
    let told = asked("65534");
    assert!(["hung up", ""].contains(&&*told), "{told}");
    // The runtime directory must be ours alone, or no client uses it.
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(path.parent().expect("as above"), closed).expect("it is ours");
    let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(place.runtime(), closed).expect("it is ours");
    expect_served(&place);
}
