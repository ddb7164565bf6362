//! Jobs with a view that a daemon serves: here, a thread of the test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, UNIX_EPOCH};

use client::exec::{Ended, SandboxError, Serve, Status, start};
use client::sandbox::plan::Step;
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEntry, Request, Session, SessionACL,
};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, send, socketpair,
};

use crate::harness::{Script, eventually, marker, plan, sleepers};

const REQUEST: &[u8] = b"serve this";
const ACK: &[u8] = b"served";
const TEXT: &str = "from the daemon\n";
const FOREVER: Duration = Duration::from_secs(3600);

/// A file system of one file.
struct OneFile;

/// Ids in replies, like those in requests, are those *inside* the user namespace of the mount.
fn attributes(ino: INodeNo, asking: &Request) -> FileAttr {
    let directory = ino == INodeNo::ROOT;
    FileAttr {
        ino,
        size: TEXT.len() as u64,
        blocks: 1,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if directory {
            FileType::Directory
        } else {
            FileType::RegularFile
        },
        perm: if directory { 0o755 } else { 0o644 },
        nlink: 1,
        uid: asking.uid(),
        gid: asking.gid(),
        rdev: 0,
        flags: 0,
        blksize: 4096,
    }
}

impl Filesystem for OneFile {
    fn lookup(&self, asking: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == "hello" {
            reply.entry(&FOREVER, &attributes(INodeNo(2), asking), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, asking: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &attributes(ino, asking));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        _: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(&TEXT.as_bytes()[usize::try_from(offset).unwrap().min(TEXT.len())..]);
    }
}

fn pair() -> (OwnedFd, OwnedFd) {
    let family = AddressFamily::UNIX;
    socketpair(family, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// The daemon's side of the hand-over: the packet and the device.
fn receive(socket: &OwnedFd) -> (Vec<u8>, OwnedFd) {
    let mut data = [0; 100];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut data)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let length = recvmsg(socket, &mut slices, &mut ancillary, flags)
        .unwrap()
        .bytes;
    let device = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    (
        data[..length].to_vec(),
        device.expect("a descriptor came along"),
    )
}

/// Serves one view until its session ends, then hands back its device.
fn daemon(socket: OwnedFd) -> JoinHandle<(OwnedFd, OwnedFd)> {
    thread::spawn(move || {
        let (request, device) = receive(&socket);
        assert_eq!(request, REQUEST);
        let copy = device.try_clone().unwrap();
        let session = Session::from_fd(OneFile, device, SessionACL::All, Config::default());
        let session = session.expect("the kernel says hello");
        send(&socket, ACK, SendFlags::empty()).unwrap();
        session.run().expect("the session ends in peace");
        (copy, socket)
    })
}

fn view(script: Script) -> Script {
    let destinations = vec![script.path("a"), script.path("b")];
    for destination in &destinations {
        fs::create_dir(destination).unwrap();
    }
    let (default_permissions, allow_other) = (false, false);
    script.steps(vec![
        Step::FreshProc { required: false },
        Step::MountView {
            destinations,
            default_permissions,
            allow_other,
        },
    ])
}

fn run(script: &Script, socket: &OwnedFd) -> Result<Ended, SandboxError> {
    let serve = Serve {
        socket: socket.as_fd(),
        request: REQUEST,
        ack: ACK,
        waits: false,
    };
    let running = start(&plan(script.draft.clone()), Some(serve))?;
    running.wait(Some(Duration::from_secs(20)), Some(socket.as_fd()))
}

#[test]
fn the_view_is_at_every_destination_and_ends_with_the_job() {
    let script = view(Script::new(
        "cat a/hello b/hello; stat -c %d a b | uniq | wc -l; grep -c ' - fuse.wakebox wakebox ' /proc/self/mountinfo",
    ));
    let (ours, theirs) = pair();
    let daemon = daemon(theirs);
    let ended = run(&script, &ours).unwrap();
    assert_eq!(ended.status, Status::Exited(0));
    assert_eq!(script.output(), format!("{TEXT}{TEXT}1\n2\n"));
    let (device, _socket) = daemon.join().unwrap();
    // Larger than any write the session agreed to, or the answer is EINVAL.
    let ended = File::from(device).read(&mut vec![0; 1 << 25]).unwrap_err();
    assert_eq!(ended.raw_os_error(), Some(libc::ENODEV));
}

#[test]
fn the_view_can_be_attached_by_a_later_step_and_be_the_root() {
    let mut script = view(Script::new(""));
    let (ours, theirs) = pair();
    let daemon = daemon(theirs);
    script.draft.steps = vec![
        Step::MountView {
            destinations: vec![script.path("a")],
            default_permissions: false,
            allow_other: false,
        },
        Step::Bind {
            source: script.path("a"),
            destination: script.path("b"),
            read_only: true,
        },
        Step::AttachView {
            destination: "/".into(),
        },
    ];
    // Nothing can be executed in this root: that its one file is found is the proof.
    script.draft.argv = vec!["/hello".into()];
    script.draft.cwd = "/".into();
    let refused = Status::CannotRun(libc::EACCES);
    assert_eq!(run(&script, &ours).unwrap().status, refused);
    daemon.join().unwrap();
}

#[test]
fn the_view_cannot_be_unmounted() {
    let script = view(Script::new(
        "umount a; umount -l b; unshare -Urm umount a; unshare -Urm umount -l b; cat a/hello b/hello",
    ));
    let (ours, theirs) = pair();
    let daemon = daemon(theirs);
    assert_eq!(run(&script, &ours).unwrap().status, Status::Exited(0));
    assert!(
        script.output().ends_with(&format!("{TEXT}{TEXT}")),
        "{}",
        script.output()
    );
    daemon.join().unwrap();
}

#[test]
fn a_job_with_other_ids_uses_the_view() {
    let mut script = view(Script::new("id -u; cat a/hello; stat -c %u a/hello"));
    (script.draft.ids.inside_uid, script.draft.ids.inside_gid) = (1000, 1000);
    let (ours, theirs) = pair();
    let daemon = daemon(theirs);
    assert_eq!(run(&script, &ours).unwrap().status, Status::Exited(0));
    assert_eq!(script.output(), format!("1000\n{TEXT}1000\n"));
    daemon.join().unwrap();
}

#[test]
fn a_daemon_that_hangs_up_ends_the_job() {
    let marker = marker(20);
    let script = view(Script::new(&format!(
        "cat a/hello; setsid sleep {marker} & sleep {marker}"
    )));
    let (ours, theirs) = pair();
    let (tell, heard) = mpsc::channel();
    let daemon = thread::spawn(move || {
        let (_, device) = receive(&theirs);
        let session = Session::from_fd(OneFile, device, SessionACL::All, Config::default());
        send(&theirs, ACK, SendFlags::empty()).unwrap();
        let session = thread::spawn(move || session.unwrap().run());
        heard.recv().unwrap();
        drop(theirs);
        session.join().unwrap().unwrap();
    });
    let watched = marker.clone();
    let killer = thread::spawn(move || {
        eventually("both sleep", || sleepers(&watched) == 2);
        tell.send(()).unwrap();
    });
    let begun = Instant::now();
    assert!(matches!(run(&script, &ours), Err(SandboxError::DaemonGone)));
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert_eq!(sleepers(&marker), 0);
    killer.join().unwrap();
    daemon.join().unwrap();
}

/// The daemon dies after its ack, without ever answering a request: whoever uses the mount
/// would wait for ever if anybody in the sandbox still held `/dev/fuse`.
#[test]
fn a_dead_daemon_leaves_nobody_waiting() {
    let script = view(Script::new("cat a/hello"));
    let (ours, theirs) = pair();
    let daemon = thread::spawn(move || {
        let (_, device) = receive(&theirs);
        send(&theirs, ACK, SendFlags::empty()).unwrap();
        thread::sleep(Duration::from_millis(100));
        drop(device);
        theirs
    });
    let serve = Serve {
        socket: ours.as_fd(),
        request: REQUEST,
        ack: ACK,
        waits: false,
    };
    let running = start(&plan(script.draft.clone()), Some(serve)).unwrap();
    // Not watching the socket: the job itself has to get the error.
    let ended = running.wait(Some(Duration::from_secs(10)), None).unwrap();
    assert!(!ended.timed_out);
    assert!(
        script.output().contains("not connected") || script.output().contains("abort"),
        "{}",
        script.output()
    );
    daemon.join().unwrap();
}

#[test]
fn a_refusal_is_passed_on() {
    let (ours, theirs) = pair();
    let daemon = thread::spawn(move || {
        let (_, device) = receive(&theirs);
        send(&theirs, b"the store is full", SendFlags::empty()).unwrap();
        (device, theirs)
    });
    let error = run(&view(Script::new("true")), &ours).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the daemon refuses to serve the job: the store is full"
    );
    daemon.join().unwrap();
}

#[test]
fn a_daemon_that_dies_unasked_or_unanswered_is_gone() {
    let (ours, theirs) = pair();
    let daemon = thread::spawn(move || drop(receive(&theirs)));
    let script = view(Script::new("true"));
    assert!(matches!(run(&script, &ours), Err(SandboxError::DaemonGone)));
    daemon.join().unwrap();
    assert!(matches!(run(&script, &ours), Err(SandboxError::DaemonGone)));
    let nobody = start(&plan(script.draft.clone()), None);
    assert!(matches!(nobody, Err(SandboxError::NoDaemon)));
}

#[test]
fn a_missing_destination_is_named() {
    let script = view(Script::new("true"));
    fs::remove_dir(script.path("b")).unwrap();
    let (ours, theirs) = pair();
    let daemon = daemon(theirs);
    let error = run(&script, &ours).unwrap_err().to_string();
    let path = script.path("b");
    let told = "No such file or directory (os error 2)";
    assert_eq!(
        error,
        format!("cannot mount the view at {}: {told}", path.display())
    );
    daemon.join().unwrap();
}
