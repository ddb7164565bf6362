//! How many requests the kernel sends for what programs do. Each costs a program two changes of
//! process, so one more for everything that is opened is felt in any build.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cas::staging::StagingDirectory;
use cas::tree::{Entry, EntryKind, Tree};
use cas::{Digest, RelPath, Store};
use fuse_daemon::fuse::{Session, serve};
use fuse_daemon::job::{Job, Standing};
use fuse_daemon::log::{Header, Log};
use fuse_daemon::mounts;
use fuse_daemon::view::{AtimePolicy, Caller, InputPolicy, Order, Permissions, Policy, Time};
use rustix::fs::{AtFlags, Mode, OFlags};

const OWNER: Caller = Caller { uid: 0, gid: 0 };
/// No new request for this long: what nobody waits for (a release) has come, too.
const QUIET: Duration = Duration::from_millis(30);
/// How often a program may cost too much before it does.
const TRIES: usize = 3;

/// A view with inputs, served on a detached mount.
pub(super) struct Counted {
    mount: OwnedFd,
    session: Session,
    _place: tempfile::TempDir,
}

pub(super) type Counts = BTreeMap<&'static str, u64>;

/// What a mount of `wakebox mount` has.
pub(super) fn mounts_policy() -> Policy {
    Policy {
        inputs: InputPolicy::CopyOnWrite,
        permissions: Permissions::Kernel,
        atime: AtimePolicy::Relative,
        extended: true,
        directory_atime: true,
        root_keeps_privileges: true,
        order: Order::Plain,
    }
}

/// `in/0` to `in/9`.
fn inputs(store: &Store) -> Tree {
    let staging = store.new_staging("inputs").expect("a directory");
    let digest = store.put_bytes(b"content\n", &staging).expect("a blob");
    let file = |number: usize| Entry {
        path: RelPath::parse(format!("in/{number}").as_bytes()).expect("a path"),
        mode: 0o644,
        mtime: 1_700_000_000_000_000_000,
        kind: EntryKind::File { digest, size: 8 },
    };
    Tree::build((0..10).map(file).collect()).expect("a tree")
}

impl Counted {
    pub(super) fn start(policy: Option<Policy>) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let tree = inputs(&Store::open(place.path()).expect("a store"));
        let root = rustix::fs::open(place.path(), flags, Mode::empty()).expect("the store");
        let blobs = mounts::read_only_clone(root.as_fd()).expect("a mount");
        let store = Arc::new(Store::from_descriptors(blobs, &root).expect("a store"));
        let (device, mount) = super::mount_with(if policy.is_some() {
            &["default_permissions", "allow_other"]
        } else {
            &[]
        });
        let job = match policy {
            None => {
                let staging = store.new_staging("session").expect("a directory");
                let writable = Vec::new();
                let inputs = cas::manifest::Resolved { tree, writable };
                let read_only = InputPolicy::ReadOnly;
                Job::new(
                    store,
                    staging,
                    &inputs,
                    read_only,
                    OWNER,
                    Time::from_nanoseconds(0),
                )
            }
            Some(policy) => standing(store, root, tree, policy),
        };
        let session = serve(Arc::new(job.expect("a job")), device, None, true).expect("served");
        Self {
            mount,
            session,
            _place: place,
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}/{name}", self.mount.as_raw_fd())
    }

    fn counts(&self) -> Counts {
        self.session.counts().into_iter().collect()
    }

    fn settled(&self) -> Counts {
        let (mut counts, mut since) = (self.counts(), Instant::now());
        while since.elapsed() < QUIET {
            std::thread::sleep(Duration::from_millis(2));
            let now = self.counts();
            if now != counts {
                (counts, since) = (now, Instant::now());
            }
        }
        counts
    }

    /// What the kernel asks meanwhile, but for taking references back, for which it never waits.
    pub(super) fn asked(&self, operation: impl FnOnce()) -> Counts {
        let before = self.settled();
        operation();
        let after = self.settled();
        let grown = after.into_iter().map(|(name, count)| {
            let before = before.get(name).copied().unwrap_or(0);
            (name, count - before)
        });
        grown
            .filter(|(name, count)| *count > 0 && !name.contains("forget"))
            .collect()
    }
}

fn standing(store: Arc<Store>, state: OwnedFd, tree: Tree, policy: Policy) -> cas::Result<Job> {
    let staging = StagingDirectory::open_standing(state.as_fd(), "files", Duration::ZERO)?;
    let header = Header {
        inputs: Digest::of(b"inputs"),
        owner: OWNER,
        born: Time::from_nanoseconds(0),
    };
    let (log, saved) = Log::open(state.as_fd(), header).expect("a log");
    let standing = Standing {
        log: Arc::new(log),
        mount: state,
    };
    Job::restored(store, Arc::new(staging), tree, policy, standing, saved)
}

fn stat(path: &str) {
    let _ = rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW);
}

/// Without a look at the size, which most programs do without.
fn born(path: &str) {
    std::fs::symlink_metadata(path).expect("it is there");
}

fn read(path: &str) {
    let mut file = File::open(path).expect(path);
    let (mut total, mut buffer) = (0, [0; 64]);
    loop {
        match file.read(&mut buffer).expect(path) {
            0 => break,
            count => total += count,
        }
    }
    assert!(total > 0, "{path}");
}

fn append(path: &str, times: usize) {
    let mut file = File::options()
        .append(true)
        .create(true)
        .open(path)
        .expect(path);
    for _ in 0..times {
        file.write_all(b"line\n").expect(path);
    }
}

fn list(path: &str) {
    assert!(Path::new(path).read_dir().expect(path).count() > 0);
}

fn sync(path: &str) {
    let opened = File::open(path).expect(path);
    opened.sync_all().expect(path);
}

/// A program, what it may cost in a job and on a mount, and what was done before.
struct Row {
    what: &'static str,
    before: fn(&Counted),
    program: fn(&Counted),
    limits: [u64; 2],
}

/// Rows of the table: `name [job, mount]: before; program`.
macro_rules! rows {
    ($on:ident, $($what:literal $limits:expr => $before:expr; $program:expr)*) => {
        [$(Row {
            what: $what,
            limits: $limits,
            before: |$on| {
                let _: &Counted = $on;
                $before
            },
            program: |$on| $program,
        }),*]
    };
}

/// What is new at a name, or renamed to it, costs a lookup even where the kernel knows that nothing
/// is there (`fuse_dentry_revalidate` does not trust that with `LOOKUP_EXCL` and
/// `LOOKUP_RENAME_TARGET`).
///
/// Where a mount costs more than a job: its inputs are read through the daemon, since another file
/// may come to back them; and the kernel asks for `security.capability` at every write(2), because
/// attributes are served (`file_remove_privs`; it remembers that there is none only for file
/// systems with `SB_NOSEC`, which FUSE has with HANDLE_KILLPRIV_V2 alone). And it checks permissions itself, for which it
/// asks for the attributes of a directory again that was changed (`fuse_dir_changed`).
///
/// To read a file or a directory makes the kernel forget its time of access
/// (`fuse_invalidate_atime`), so the next look is one request; opendir(3) is such a look. What it
/// tells of a listed directory out of its cache is no such reading. That a listing is over it has to
/// be told by a reply of its own: only then it takes what it has for all of it.
fn rows() -> Vec<Row> {
    let rows = rows! { on,
        "stat, unknown" [1, 1] => (); stat(&on.path("in/0"))
        "stat" [0, 0] => stat(&on.path("in/0")); stat(&on.path("in/0"))
    "stat with time of birth, unknown" [1, 2] => born(&on.path("in/1")); born(&on.path("in/0"))
        "stat of what is absent, unknown" [1, 1] => (); stat(&on.path("in/x"))
        "stat of what is absent" [0, 0] => stat(&on.path("in/x")); stat(&on.path("in/x"))
        "open, read, close, unknown" [3, 4] => (); read(&on.path("in/1"))
        "open, read, close" [2, 3] => stat(&on.path("in/1")); read(&on.path("in/1"))
        "open, read, close again" [2, 2] => read(&on.path("in/1")); read(&on.path("in/1"))
        "stat after a read" [1, 1] => read(&on.path("in/1")); stat(&on.path("in/1"))
        "create, write, close" [3, 4] => (); append(&on.path("new"), 1)
        "open, append, close" [2, 4] => append(&on.path("new"), 1); append(&on.path("new"), 1)
        "ten more writes" [2, 13] => append(&on.path("new"), 1); append(&on.path("new"), 10)
        "list" [2, 2] => (); list(&on.path("in"))
        "list again" [1, 1] => list(&on.path("in")); list(&on.path("in"))
        "list once more" [0, 0] => for _ in 0..2 {
            list(&on.path("in"));
        }; list(&on.path("in"))
        "fsync of a directory" [0, 1] => sync(&on.path("in")); sync(&on.path("in"))
        "rename" [2, 2] => {
            append(&on.path("new"), 1);
            stat(&on.path("other"));
        }; std::fs::rename(on.path("new"), on.path("other")).expect("renamed")
        "unlink" [1, 2] => append(&on.path("new"), 1);
            std::fs::remove_file(on.path("new")).expect("removed")
        "mkdir" [2, 2] => stat(&on.path("d")); std::fs::create_dir(on.path("d")).expect("made")
        "symlink" [2, 2] => stat(&on.path("l"));
            std::os::unix::fs::symlink("to", on.path("l")).expect("made")
        "link" [2, 2] => {
            append(&on.path("new"), 1);
            stat(&on.path("l"));
        }; std::fs::hard_link(on.path("new"), on.path("l")).expect("made")
    };
    rows.into()
}

/// What the kernel asks in a fresh view. The least of a few times: when memory is wanted elsewhere
/// on the machine, the kernel forgets names and asks again.
fn asked(row: &Row, policy: Option<&Policy>, limit: u64) -> Counts {
    let once = || {
        let on = Counted::start(policy.cloned());
        // What is asked once: whether there are extended attributes, and whether directories are to
        // be opened.
        append(&on.path("first"), 1);
        drop(File::open(on.path("in")));
        stat(&on.path("in"));
        (row.before)(&on);
        on.asked(|| (row.program)(&on))
    };
    let cheap = |counts: &Counts| counts.values().sum::<u64>() <= limit;
    let mut tries = (0..TRIES).map(|_| once());
    tries.find(cheap).unwrap_or_else(once)
}

#[test]
fn programs_cost_few_requests() {
    if let Some(reason) = super::impossible() {
        eprintln!("SKIPPED {}: {reason}", file!());
        return;
    }
    let mut wrong = Vec::new();
    for (which, policy) in [None, Some(mounts_policy())].into_iter().enumerate() {
        for row in rows() {
            let limit = row.limits[which];
            let asked = asked(&row, policy.as_ref(), limit);
            let told = format!(
                "{}: {}: {asked:?}, of {limit}",
                ["job", "mount"][which],
                row.what
            );
            println!("{told}");
            if asked.values().sum::<u64>() > limit {
                wrong.push(told);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
