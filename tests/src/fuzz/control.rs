//! Conversations with a daemon: packets of any bytes, with any descriptor attached, in any order.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::LazyLock;
use std::time::Instant;

use cas::protocol::{self, CopyOnWrite, Registration, Request};
use cas::record::Recording;
use cas::{Digest, Store};
use fuse_daemon::control::{self, Context, Stop};
use fuse_daemon::registry::Registry;
use fuse_daemon::view::Time;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::Bytes;

struct Daemon {
    context: Context,
    _place: tempfile::TempDir,
}

static DAEMON: LazyLock<Daemon> = LazyLock::new(|| {
    let place = super::kernel::place();
    let store = Store::open(place.path()).expect("a store");
    let staging = store.new_staging("fuzz").expect("room");
    store.put_bytes(b"", &staging).expect("room");
    let context = Context {
        registry: Registry::new(store),
        passthrough: false,
        build: "fuzz".into(),
        store: "fuzz".into(),
        started: Instant::now(),
        stop: Stop(Box::new(|| ())),
        now: || Time {
            seconds: 0,
            nanoseconds: 0,
        },
    };
    Daemon {
        context,
        _place: place,
    }
});

static SILENT: LazyLock<(OwnedFd, OwnedFd)> =
    LazyLock::new(|| rustix::pipe::pipe().expect("a pipe"));

/// Says all that the bytes tell to say, hangs up, and lets the daemon answer all of it.
pub(super) fn conversation(bytes: &[u8]) {
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("a pair");
    let mut bytes = Bytes(bytes);
    for _ in 0..8 {
        if bytes.0.is_empty() {
            break;
        }
        say(&ours, &mut bytes);
    }
    rustix::net::shutdown(&ours, rustix::net::Shutdown::Write).expect("hangs up");
    let context = &DAEMON.context;
    control::serve(context, theirs);
    assert_eq!(
        context.registry.counts().0,
        0,
        "the job ends with its connection"
    );
}

fn say(socket: &OwnedFd, bytes: &mut Bytes<'_>) {
    let document = [b"wakebox manifest 1\n", bytes.some()].concat();
    let request = |request: &Request| serde_json::to_vec(request).expect("JSON");
    let packet = match bytes.byte() % 9 {
        0 => request(&Request::Register(Registration {
            manifest: Digest::of(&document),
            generation: bytes.byte().into(),
            uid: 0,
            gid: 0,
            copy_on_write: CopyOnWrite::Everything,
            record: Recording::default(),
            listing_seed: None,
            label: Default::default(),
        })),
        1 => request(&Request::Manifest),
        2 => request(&Request::Serve),
        3 => request(&Request::Finish),
        4 => request(&Request::Taken),
        5 => request(&Request::Discard),
        6 => request(&Request::Status),
        7 => request(&Request::Stop),
        _ => bytes.some().to_vec(),
    };
    let attached: Option<OwnedFd> = match bytes.byte() % 4 {
        0 => protocol::write_document(&document).ok(),
        1 => std::fs::File::open("/dev/null").ok().map(OwnedFd::from),
        // Nothing ever comes out of it.
        2 => Some(SILENT.0.try_clone().expect("a descriptor")),
        _ => None,
    };
    let fds: Vec<_> = attached.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = rustix::net::sendmsg(socket, &[IoSlice::new(&packet)], &mut control, flags);
}
