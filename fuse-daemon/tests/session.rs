//! Sessions of a real mount, with and without passthrough: what arrives at the job, and how a
//! session ends.

#[path = "session/listing.rs"]
mod listing;
#[path = "session/round_trips.rs"]
mod round_trips;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cas::Store;
use cas::manifest::Resolved;
use cas::tree::Tree;
use fuse_daemon::fuse::{Session, serve};
use fuse_daemon::job::Job;
use fuse_daemon::mounts;
use fuse_daemon::view::{Caller, InputPolicy, Time};
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

const ROOT: Caller = Caller { uid: 0, gid: 0 };
/// More than any end takes, even on a busy machine.
const LONG: Duration = Duration::from_secs(20);
/// Enough to see that something does not end.
const SHORT: Duration = Duration::from_millis(100);

/// A job without inputs, served on a detached mount that the descriptor alone keeps.
struct Served {
    mount: OwnedFd,
    session: Session,
    staging: PathBuf,
    _store: tempfile::TempDir,
}

/// Why nothing can be mounted here, if so.
fn impossible() -> Option<String> {
    let root = rustix::process::geteuid().is_root();
    match rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) if root => None,
        Ok(_) => Some("not root".into()),
        Err(errno) => Some(format!("/dev/fuse: {errno}")),
    }
}

/// Runs a test on a session that may pass files through, and on one that may not.
fn in_both_ways(test: impl Fn(Served)) {
    if let Some(reason) = impossible() {
        eprintln!("SKIPPED {}: {reason}", file!());
        return;
    }
    for passthrough in [true, false] {
        test(start(passthrough));
    }
}

fn mount_with(words: &[&str]) -> (OwnedFd, OwnedFd) {
    mount_for(ROOT, words)
}

/// A mount that is of one user, and all others are kept out.
fn mount_for(user: Caller, words: &[&str]) -> (OwnedFd, OwnedFd) {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/fuse", flags, Mode::empty()).expect("/dev/fuse");
    let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).expect("fsopen");
    let set = |key: &str, value: &str| {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value).expect("an option");
    };
    set("fd", &device.as_raw_fd().to_string());
    set("rootmode", "40755");
    set("user_id", &user.uid.to_string());
    set("group_id", &user.gid.to_string());
    for word in words {
        rustix::mount::fsconfig_set_flag(context.as_fd(), *word).expect("an option");
    }
    rustix::mount::fsconfig_create(context.as_fd()).expect("a file system");
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let mount = rustix::mount::fsmount(context.as_fd(), flags, MountAttrFlags::empty());
    (device, mount.expect("a mount"))
}

fn start(passthrough: bool) -> Served {
    start_for(ROOT, passthrough)
}

fn start_for(owner: Caller, passthrough: bool) -> Served {
    let directory = tempfile::tempdir().expect("a directory");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    drop(Store::open(directory.path()).expect("a store"));
    let root = rustix::fs::open(directory.path(), flags, Mode::empty()).expect("the store");
    let blobs = mounts::read_only_clone(root.as_fd()).expect("a mount");
    let store = Store::from_descriptors(blobs, root).expect("a store");
    let staging = store.new_staging("session").expect("a directory");
    let path = std::fs::read_link(format!("/proc/self/fd/{}", staging.as_fd().as_raw_fd()));
    let inputs = Resolved {
        tree: Tree::build(Vec::new()).expect("nothing"),
        writable: Vec::new(),
    };
    let now = Time::from_nanoseconds(0);
    let job = Job::new(
        Arc::new(store),
        staging,
        &inputs,
        InputPolicy::ReadOnly,
        owner,
        now,
    )
    .expect("a job");
    let (device, mount) = mount_for(owner, &[]);
    let session = serve(Arc::new(job), device, None, passthrough).expect("the kernel agrees");
    Served {
        mount,
        session,
        staging: path.expect("a path"),
        _store: directory,
    }
}

impl Served {
    fn open(&self, name: &str, flags: OFlags) -> rustix::io::Result<File> {
        let flags = flags | OFlags::CLOEXEC;
        rustix::fs::openat(&self.mount, name, flags, Mode::from_raw_mode(0o644)).map(File::from)
    }

    fn create(&self, name: &str) -> File {
        self.open(name, OFlags::CREATE | OFlags::RDWR)
            .expect("a new file")
    }

    fn count(&self, operation: &str) -> u64 {
        let counts = self.session.counts();
        let found = counts.iter().find(|(name, _)| *name == operation);
        found.map_or(0, |(_, count)| *count)
    }
}

#[test]
fn contents_arrive_whole_whatever_their_size() {
    in_both_ways(|served| {
        let content: Vec<u8> = (0..3_000_001_u32).map(|place| (place / 7) as u8).collect();
        let file = served.create("large");
        file.write_all_at(&content, 5).expect("written");
        let mut read = vec![1; content.len() + 5];
        file.read_exact_at(&mut read, 0).expect("read");
        assert!(read[..5] == [0; 5] && read[5..] == content);
        assert_eq!(file.read_at(&mut [0], 3_000_006).expect("read"), 0);
    });
}

#[test]
fn a_long_directory_is_listed_once_each() {
    in_both_ways(|served| {
        let names: Vec<_> = (0..1500)
            .map(|n| format!("{n:0width$}", width = 4 + n % 200))
            .collect();
        for name in &names {
            drop(served.create(name));
        }
        let root = served.open(".", OFlags::DIRECTORY).expect("the root");
        let listing = rustix::fs::Dir::read_from(&root).expect("a directory");
        let found = listing.map(|entry| {
            let entry = entry.expect("an entry");
            entry.file_name().to_str().expect("text").to_owned()
        });
        let mut found: Vec<_> = found.filter(|name| !name.starts_with('.')).collect();
        let mut names = names;
        found.sort();
        names.sort();
        assert!(found == names, "{} of {}", found.len(), names.len());
    });
}

#[test]
fn times_before_the_epoch_are_kept() {
    in_both_ways(|served| {
        let file = served.create("old");
        let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
        let times = Timestamps {
            last_access: time(-86_400, 1),
            last_modification: time(-1, 999_999_999),
        };
        rustix::fs::futimens(&file, &times).expect("times");
        let stat = rustix::fs::statat(&served.mount, "old", AtFlags::empty()).expect("a file");
        assert_eq!((stat.st_atime, stat.st_atime_nsec), (-86_400, 1));
        assert_eq!((stat.st_mtime, stat.st_mtime_nsec), (-1, 999_999_999));
    });
}

#[test]
fn requests_are_counted() {
    in_both_ways(|served| {
        for number in 0..10 {
            let name = format!("absent-{number}");
            let found = served.open(&name, OFlags::RDONLY);
            assert_eq!(found.expect_err("it is absent"), Errno::NOENT);
            let again = served.open(&name, OFlags::RDONLY);
            assert_eq!(again.expect_err("the kernel knows"), Errno::NOENT);
        }
        assert_eq!((served.count("lookup"), served.count("unlink")), (10, 0));
        drop(served.create("file"));
        assert_eq!(served.count("create"), 1);
    });
}

/// The kernel gives each operation up for good when it is told that there is none.
#[test]
fn what_is_not_served_is_asked_for_once() {
    in_both_ways(|served| {
        let file = served.create("file");
        for _ in 0..3 {
            let found = rustix::fs::fgetxattr(&file, "user.x", &mut [0; 8][..]);
            assert_eq!(found.expect_err("not served"), Errno::OPNOTSUPP);
        }
        assert_eq!(served.count("getxattr"), 1);
    });
}

#[test]
fn a_session_ends_with_its_mount() {
    in_both_ways(|served| {
        drop(served.create("file"));
        assert!(!served.session.wait(SHORT), "the mount is there");
        assert!(served.staging.exists());
        drop(served.mount);
        assert!(served.session.wait(LONG), "nothing holds the mount");
        assert!(!served.staging.exists(), "the job is gone");
    });
}

#[test]
fn an_aborted_session_ends_whoever_holds_its_mount() {
    in_both_ways(|served| {
        let file = served.create("file");
        file.write_all_at(b"content", 0).expect("written");
        assert!(!served.session.wait(SHORT), "the mount is there");
        assert!(served.session.abort(LONG), "the readers are gone");
        assert!(!served.staging.exists(), "the job is gone");
        let found = served.open("other", OFlags::RDONLY);
        assert_eq!(found.expect_err("nobody answers"), Errno::NOTCONN);
        assert!(served.session.abort(SHORT), "a second time means nothing");
    });
}

#[test]
fn a_session_is_aborted_under_load() {
    in_both_ways(|served| {
        let Served {
            mount,
            session,
            staging,
            _store,
        } = served;
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let mount = &mount;
                scope.spawn(move || {
                    let names = (0..).map(|number| format!("{thread}-{number}"));
                    let mut found = names.map(|name| {
                        rustix::fs::openat(mount, name, OFlags::CLOEXEC, Mode::empty())
                    });
                    found.find(|found| !matches!(found, Err(Errno::NOENT)))
                });
            }
            std::thread::sleep(SHORT);
            assert!(session.abort(LONG), "the readers are gone");
        });
        assert!(!staging.exists(), "the job is gone");
    });
}

#[test]
fn a_session_that_is_dropped_is_aborted() {
    in_both_ways(|served| {
        let Served {
            mount,
            session,
            staging,
            _store,
        } = served;
        drop(session);
        let open = || rustix::fs::openat(&mount, "file", OFlags::CLOEXEC, Mode::empty());
        // It ends at once, but nobody waits for it.
        while !matches!(open(), Err(Errno::NOTCONN | Errno::CONNABORTED)) {
            std::thread::yield_now();
        }
        let gone = (0..200).any(|_| {
            std::thread::sleep(SHORT);
            !staging.exists()
        });
        assert!(gone, "the job is gone");
    });
}
