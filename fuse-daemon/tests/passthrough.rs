//! The wrong reply on purpose: an open with write intent is answered by passthrough to a blob.
//! Only the read-only clone of the store's mount stands between the job and the blob then.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, UNIX_EPOCH};

use fuse_daemon::mounts;
use fuser::{
    BackingId, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, OpenFlags, ReplyAttr, ReplyEntry, ReplyOpen, Request, Session,
    SessionACL,
};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

const FOREVER: Duration = Duration::from_secs(3600);
const CONTENT: &[u8] = b"what was declared";

/// A file system of one file, which hands out a backing file to whoever asks, for whatever.
struct Careless {
    backing: File,
    kept: Mutex<Vec<BackingId>>,
}

fn attributes(ino: INodeNo) -> FileAttr {
    let directory = ino == INodeNo::ROOT;
    FileAttr {
        ino,
        size: CONTENT.len() as u64,
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
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: 4096,
    }
}

impl Filesystem for Careless {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let offered = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH);
        offered.map_err(|_| Errno::OPNOTSUPP)?;
        config.set_max_stack_depth(2).map_err(|_| Errno::INVAL)?;
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.entry(&FOREVER, &attributes(INodeNo(2)), Generation(0));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &attributes(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let id = reply.open_backing(&self.backing).expect("a backing id");
        reply.opened_passthrough(FileHandle(0), FopenFlags::empty(), &id);
        self.kept.lock().expect("no panic").push(id);
    }
}

/// A detached mount of a careless file system: reachable through the descriptor alone.
fn mount(backing: File) -> OwnedFd {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/fuse", flags, Mode::empty()).expect("/dev/fuse");
    let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).expect("fsopen");
    let set = |key: &str, value: &str| {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value).expect("an option");
    };
    set("fd", &device.as_raw_fd().to_string());
    set("rootmode", "40755");
    set("user_id", "0");
    set("group_id", "0");
    rustix::mount::fsconfig_create(context.as_fd()).expect("a file system");
    let mount = rustix::mount::fsmount(
        context.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    );
    let kept = Mutex::default();
    let careless = Careless { backing, kept };
    let session = Session::from_fd(careless, device, SessionACL::All, Config::default());
    let session = session.expect("the kernel agrees to passthrough");
    std::thread::spawn(move || session.run());
    mount.expect("a mount")
}

/// What came of attempts to write.
#[derive(Debug, PartialEq, Eq)]
struct Attempt {
    /// To the blob itself, in the way that the kernel opens what backs a file.
    directly: rustix::io::Result<()>,
    /// To the file in the mount.
    mounted: rustix::io::Result<()>,
}

fn write(directory: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    rustix::io::write(file, b"HACKED").map(drop)
}

/// Tries to write, and returns how that went and what the blob holds then.
fn attempt(reach: impl FnOnce(OwnedFd) -> std::io::Result<OwnedFd>) -> (Attempt, Vec<u8>) {
    let store = tempfile::tempdir().expect("a directory");
    let blob = store.path().join("blob");
    let mut file = File::create(&blob).expect("a blob");
    file.write_all(CONTENT).expect("content");
    drop(file);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let store_fd = rustix::fs::open(store.path(), flags, Mode::empty()).expect("the store");
    let reached = reach(store_fd).expect("the store, some way");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let backing = rustix::fs::openat(&reached, "blob", flags, Mode::empty()).expect("the blob");
    let mount = mount(File::from(backing));
    let read = rustix::fs::openat(&mount, "file", flags, Mode::empty());
    let mut bytes = [0; CONTENT.len()];
    let count = rustix::io::read(read.expect("reading is allowed"), &mut bytes[..]);
    assert_eq!((count, &bytes[..]), (Ok(CONTENT.len()), CONTENT));
    let mounted = write(&mount, "file");
    let content = std::fs::read(&blob).expect("the blob");
    let directly = write(&reached, "blob");
    (Attempt { directly, mounted }, content)
}

/// Why the test cannot be done here, if it cannot.
fn impossible() -> Option<String> {
    let root = rustix::process::geteuid().is_root();
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open("/dev/fuse", flags, Mode::empty()) {
        Ok(_) if root => None,
        Ok(_) => Some("not root".into()),
        Err(errno) => Some(format!("/dev/fuse: {errno}")),
    }
}

#[test]
fn a_wrong_passthrough_reply_cannot_hand_out_a_writable_blob() {
    if let Some(reason) = impossible() {
        eprintln!("SKIPPED {}:{}: {reason}", file!(), line!());
        return;
    }
    let (attempt, content) = attempt(|store| mounts::read_only_clone(store.as_fd()));
    // The kernel tells the job EIO, whatever the reason why it could not open a backing file.
    let (directly, mounted) = (Err(Errno::ROFS), Err(Errno::IO));
    assert_eq!(attempt, Attempt { directly, mounted });
    assert_eq!(content, CONTENT);
}

/// The other test means something only if the reply is as dangerous as it is said to be.
#[test]
fn without_the_clone_the_same_reply_would_change_the_blob() {
    if let Some(reason) = impossible() {
        eprintln!("SKIPPED {}:{}: {reason}", file!(), line!());
        return;
    }
    let (attempt, content) = attempt(Ok);
    let (directly, mounted) = (Ok(()), Ok(()));
    assert_eq!(attempt, Attempt { directly, mounted });
    assert!(content.starts_with(b"HACKED"));
}
