//! A saved view across the end of its process, orderly or not.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cas::staging::{StagedFile, StagingDirectory};
use cas::tree::{Entry, EntryKind, NodeIndex, Tree};
use cas::{Digest, Name, RelPath};
use fuse_daemon::log::{Error, Header, Log, Saved, numbers, reopen};
use fuse_daemon::view::{
    Caller, Fact, InodeId, InputPolicy, NewNode, Policy, RenameMode, SetMode, Time, View,
};
use rustix::fs::OFlags;

type Staged = Arc<StagedFile>;

const OWNER: Caller = Caller { uid: 0, gid: 0 };
const BORN: Time = Time {
    seconds: 1000,
    nanoseconds: 5,
};

fn header() -> Header {
    Header {
        inputs: Digest::of(b"inputs"),
        owner: OWNER,
        born: BORN,
    }
}

fn open(state: &Path) -> Result<(Log, Saved), Error> {
    Log::open(File::open(state).unwrap().as_fd(), header())
}

fn fact(number: u64) -> Fact<u64> {
    Fact::Gone(InodeId(number))
}

/// Between two flushes, and between two replacements.
const PER_FLUSH: u64 = 8;
const PER_REPLACEMENT: u64 = 60;

/// Not a test: what [`what_was_answered_is_there_after_sigkill`] runs and kills. It has the state
/// directory as its own and a socket as its standard input, to tell how many facts are written.
#[test]
#[ignore = "the child of another test"]
fn child() {
    let Ok(socket) = rustix::io::dup(rustix::stdio::stdin()) else {
        return;
    };
    let mut socket = UnixStream::from(socket);
    if socket.local_addr().is_err() {
        return;
    }
    let (log, saved) = open(Path::new(".")).unwrap();
    let log = Arc::new(log);
    let mut facts = saved.facts;
    for next in facts.len() as u64.. {
        facts.push(fact(next));
        log.append(&facts[next as usize..], |number| *number);
        if next % PER_REPLACEMENT == PER_REPLACEMENT - 1 {
            let replacement = log.begin_replacement().unwrap();
            replacement.finish(&facts, |number| *number).unwrap();
        } else if next % PER_FLUSH == 0 {
            log.sync().unwrap();
        } else {
            log.write().unwrap();
        }
        socket.write_all(&(next + 1).to_le_bytes()).unwrap();
    }
}

/// Runs the child on a state directory, kills it some time after its first answer, and returns
/// its last.
fn run_and_kill(state: &Path, after: Duration) -> u64 {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored"])
        .current_dir(state)
        .stdin(OwnedFd::from(theirs))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let (mut answers, mut answer) = (Vec::new(), [0; 8]);
    ours.read_exact(&mut answer).unwrap();
    let begin = Instant::now();
    while begin.elapsed() < after {
        ours.read_exact(&mut answer).unwrap();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    ours.read_to_end(&mut answers).unwrap();
    answers
        .chunks_exact(8)
        .for_each(|last| answer = last.try_into().unwrap());
    u64::from_le_bytes(answer)
}

#[test]
fn what_was_answered_is_there_after_sigkill() {
    const ROUNDS: u32 = 50;
    let state = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..ROUNDS {
        // Some prime, so that the child is killed at ever other places.
        let after = Duration::from_micros(u64::from(round * 7919 % 20_000));
        let answered = run_and_kill(state.path(), after);
        let (_, saved) = open(state.path()).unwrap();
        let told = saved.facts.len() as u64;
        assert!(told >= answered, "{told} of {answered} are there");
        assert!(told > before, "the child did nothing");
        assert!(saved.facts.into_iter().eq((0..told).map(fact)));
        before = told;
    }
    println!("{before} changes in {ROUNDS} rounds");
}

/// A view with its log and its files, as a mount has them.
struct Standing {
    tree: Tree,
    staging: Arc<StagingDirectory>,
    log: Log,
    view: View<Staged>,
    lost: Vec<u64>,
}

fn tree() -> Tree {
    let file = |path: &[u8]| Entry {
        path: RelPath::parse(path).unwrap(),
        mode: 0o644,
        mtime: 77,
        kind: EntryKind::File {
            digest: Digest::of(path),
            size: 9,
        },
    };
    Tree::build(vec![file(b"d/one"), file(b"d/two"), file(b"three")]).unwrap()
}

fn name(name: &str) -> Name<'_> {
    Name::new(name.as_bytes()).unwrap()
}

impl Standing {
    fn mount(state: &Path) -> Self {
        let directory = File::open(state).unwrap();
        // A child of another test has our descriptors between its fork and its exec.
        let patience = Duration::from_secs(10);
        let staging = StagingDirectory::open_standing(directory.as_fd(), "files", patience);
        let staging = Arc::new(staging.unwrap());
        let (log, saved) = Log::open(directory.as_fd(), header()).unwrap();
        let policy = Policy {
            inputs: InputPolicy::CopyOnWrite,
            ..Policy::default()
        };
        let facts = reopen(saved.facts, &staging);
        let Header { owner, born, .. } = saved.header;
        let mut view = View::restore(tree(), owner, born, policy, facts).unwrap();
        view.keep_facts();
        let lost = staging.retain(&numbers(&view.snapshot())).unwrap();
        Self {
            tree: tree(),
            staging,
            log,
            view,
            lost,
        }
    }

    /// One change, as a request of the kernel makes it.
    fn change<T>(&mut self, change: impl FnOnce(&mut View<Staged>) -> T) -> T {
        let changed = change(&mut self.view);
        let facts = self.view.take_facts();
        self.log.append(&facts, |staged| staged.id());
        self.log.write().unwrap();
        changed
    }

    fn create(&mut self, at: &str, content: &[u8]) -> InodeId {
        let (staged, mut file) = self.staging.create_file(OFlags::RDWR).unwrap();
        file.write_all(content).unwrap();
        let node = NewNode::File(Arc::new(staged));
        let made =
            self.change(|view| view.make(InodeId::ROOT, name(at), node, 0o600.into(), OWNER, BORN));
        let id = made.unwrap().id;
        // Or it would stay, for the kernel, when it has lost its name.
        assert!(self.view.forget(id, 1).0.is_empty());
        id
    }

    fn rename(&mut self, from: &str, to: &str) {
        let (root, mode) = (InodeId::ROOT, RenameMode::Replace);
        let released = self.change(|view| {
            view.rename(root, name(from), root, name(to), mode, OWNER, BORN)
                .unwrap()
        });
        self.log.doom(released.0);
    }

    fn content(&mut self, at: &str) -> Vec<u8> {
        let (found, staged) = self.view.lookup(InodeId::ROOT, name(at), OWNER).unwrap();
        drop(self.view.forget(found.id, 1));
        let mut bytes = Vec::new();
        let mut file = staged.unwrap().open(OFlags::RDONLY).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn replace_log(&self) {
        let replacement = self.log.begin_replacement().unwrap();
        let snapshot = self.view.snapshot();
        replacement.finish(&snapshot, |staged| staged.id()).unwrap();
    }
}

fn files(state: &Path) -> usize {
    std::fs::read_dir(state.join("files")).unwrap().count()
}

#[test]
fn a_view_is_the_same_after_unmount_and_mount() {
    let state = tempfile::tempdir().unwrap();
    let mut one = Standing::mount(state.path());
    let made = one.create("made", b"made");
    one.create("new", b"new");
    one.create("old", b"old");
    // Open when it is replaced, and still when the mount ends.
    one.view.lookup(InodeId::ROOT, name("old"), OWNER).unwrap();
    one.rename("new", "old");
    let set =
        |view: &mut View<Staged>| view.set_extended(made, b"user.a", b"value", SetMode::Any, BORN);
    one.change(set).unwrap();
    let input = NodeIndex(one.tree.len() as u32 - 1);
    let input = one.tree.path(input).unwrap().to_string();
    assert!(input.starts_with("d/"), "{input}");
    let directory = one
        .view
        .lookup(InodeId::ROOT, name("d"), OWNER)
        .unwrap()
        .0
        .id;
    let released = one.change(|view| view.unlink(directory, name("one"), OWNER, BORN));
    one.log.doom(released.unwrap().0);
    let told = numbers(&one.view.snapshot());
    one.log.close().unwrap();
    drop(one);

    for replace in [true, false] {
        let mut two = Standing::mount(state.path());
        assert!(two.lost.is_empty());
        assert_eq!(two.content("made"), b"made");
        assert_eq!(two.content("old"), b"new");
        assert_eq!(
            two.view.extended(made, b"user.a").unwrap(),
            (*b"value").into()
        );
        assert!(two.view.lookup(directory, name("one"), OWNER).is_err());
        assert!(two.view.lookup(directory, name("two"), OWNER).is_ok());
        assert_eq!(numbers(&two.view.snapshot()), told);
        assert_eq!(files(state.path()), 2, "what was replaced is gone");
        two.view.check_invariants().unwrap();
        if replace {
            two.replace_log();
        }
        two.log.close().unwrap();
    }
}

/// A rename over a file, and then a power failure: the old name has the old file or the new one.
#[test]
fn a_replaced_file_is_there_until_the_rename_is_on_disk() {
    let state = tempfile::tempdir().unwrap();
    let mut one = Standing::mount(state.path());
    one.create("old", b"old");
    one.log.settle().unwrap();
    let before = std::fs::read(state.path().join("view.log")).unwrap();
    one.create("new", b"new");
    one.rename("new", "old");
    assert_eq!(one.content("old"), b"new");
    assert_eq!(files(state.path()), 2, "the rename may not be on disk");
    // The log as the disk has it, if none of the rest was flushed.
    let length = before.len() as u64;
    drop(one);
    let log = File::options()
        .write(true)
        .open(state.path().join("view.log"));
    log.unwrap().set_len(length).unwrap();
    let mut two = Standing::mount(state.path());
    assert_eq!(two.content("old"), b"old");
    assert_eq!((files(state.path()), two.lost.len()), (1, 0));
}

#[test]
fn a_replaced_file_is_gone_when_the_rename_is_on_disk() {
    let state = tempfile::tempdir().unwrap();
    let mut one = Standing::mount(state.path());
    one.create("old", b"old");
    one.create("new", b"new");
    one.rename("new", "old");
    one.log.settle().unwrap();
    assert_eq!(files(state.path()), 1);
    assert_eq!(one.content("old"), b"new");
}
