//! Publishing into real directories.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::SystemTime;

use super::*;

/// A workspace and a store in temporary directories.
struct Fixture {
    workspace: tempfile::TempDir,
    root: tempfile::TempDir,
    store: Store,
}

fn fixture() -> Fixture {
    let root = tempfile::tempdir().unwrap();
    Fixture {
        workspace: tempfile::tempdir().unwrap(),
        store: Store::open(root.path()).unwrap(),
        root,
    }
}

/// Nanoseconds since the epoch, later than any change that this test has made.
fn after_all() -> i64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "files of a test are as old as it is"
    )]
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since.as_nanos() as i64 + 10_000_000_000
}

fn rel(path: &[u8]) -> RelPath {
    RelPath::parse(path).unwrap()
}

impl Fixture {
    fn path(&self, path: &str) -> PathBuf {
        self.workspace.path().join(path)
    }

    fn put(&self, path: &str, content: &[u8]) {
        let mut file = File::create(self.path(path)).unwrap();
        file.write_all(content).unwrap();
    }

    fn file(&self, path: &[u8], content: &[u8]) -> Publish {
        let staging = self.store.new_staging("test").unwrap();
        let digest = self.store.put_bytes(content, &staging).unwrap();
        let (mode, mtime) = (0o640, 1_000_000_007);
        let kind = PublishKind::File {
            digest,
            mode,
            mtime,
        };
        Publish {
            path: rel(path),
            kind,
        }
    }

    fn missing(&self, path: &[u8]) -> Publish {
        let kind = PublishKind::File {
            digest: Digest::of(b"never stored"),
            mode: 0o644,
            mtime: 0,
        };
        Publish {
            path: rel(path),
            kind,
        }
    }

    fn publish(&self, outputs: &[Publish]) -> Result<Published, PublishError> {
        publish(
            self.workspace.path(),
            &self.store,
            outputs,
            after_all(),
            "7",
        )
    }

    fn refusal(&self, outputs: &[Publish]) -> String {
        let before = self.listing();
        let error = self.publish(outputs).unwrap_err();
        assert!(matches!(error, PublishError::Refused { .. }), "{error:?}");
        assert_eq!(self.listing(), before, "debris");
        error.to_string()
    }

    fn listing(&self) -> Vec<PathBuf> {
        let walk = walkdir::WalkDir::new(self.workspace.path()).sort_by_file_name();
        walk.into_iter()
            .map(|entry| entry.unwrap().into_path())
            .collect()
    }

    fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.path(path)).unwrap()
    }
}

fn link(path: &[u8], target: &[u8]) -> Publish {
    let (target, mtime) = (target.into(), -1);
    let kind = PublishKind::Symlink { target, mtime };
    Publish {
        path: rel(path),
        kind,
    }
}

fn directory(path: &[u8], mode: u16) -> Publish {
    let kind = PublishKind::Directory { mode, mtime: 5 };
    Publish {
        path: rel(path),
        kind,
    }
}

fn nanoseconds(path: &std::path::Path) -> i64 {
    let metadata = path.symlink_metadata().unwrap();
    metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec()
}

#[test]
fn every_kind_of_output_appears_with_its_attributes() {
    let fixture = fixture();
    let outputs = [
        fixture.file(b"d/e/\xff\xfe", b"bytes"),
        directory(b"d", 0o2550),
        link(b"d/link", b"no\xffwhere"),
        directory(b"d/empty", 0o700),
    ];
    let published = fixture.publish(&outputs).unwrap();
    assert_eq!(published, Published { files: 2, bytes: 5 });
    let file = fixture.path("d/e").join(OsStr::from_bytes(b"\xff\xfe"));
    assert_eq!(std::fs::read(&file).unwrap(), b"bytes");
    let mode =
        |path: &std::path::Path| path.symlink_metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&file), nanoseconds(&file)), (0o640, 1_000_000_007));
    let d = fixture.path("d");
    assert_eq!((mode(&d), nanoseconds(&d)), (0o2550, 5));
    let target = std::fs::read_link(d.join("link")).unwrap();
    assert_eq!(target.as_os_str().as_bytes(), b"no\xffwhere");
    assert_eq!(nanoseconds(&d.join("link")), -1);
    assert_eq!(nanoseconds(&d.join("empty")), 5);
    std::fs::set_permissions(d, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn old_files_and_links_are_replaced_and_share_nothing_with_the_store() {
    let fixture = fixture();
    fixture.put("file", b"old");
    symlink("old", fixture.path("link")).unwrap();
    std::fs::create_dir(fixture.path("kept")).unwrap();
    let kept = nanoseconds(&fixture.path("kept"));
    let outputs = [
        fixture.file(b"file", b"new"),
        fixture.file(b"link", b"no link any more"),
        directory(b"kept", 0o700),
    ];
    fixture.publish(&outputs).unwrap();
    assert_eq!(fixture.read("file"), b"new");
    assert_eq!(fixture.read("link"), b"no link any more");
    assert_eq!(nanoseconds(&fixture.path("kept")), kept);
    assert_eq!(fixture.path("file").metadata().unwrap().nlink(), 1);
    fixture.put("file", b"edited");
    assert_eq!(fixture.store.read(Digest::of(b"new")).unwrap(), b"new");
}

#[test]
fn a_file_or_link_that_changed_since_the_start_is_not_replaced_and_nothing_is_published() {
    let fixture = fixture();
    fixture.put("z", b"theirs");
    let started = {
        let stat = fixture.path("z").metadata().unwrap();
        stat.ctime() * 1_000_000_000 + stat.ctime_nsec()
    };
    let outputs = [fixture.file(b"new/a", b"1"), fixture.file(b"z", b"2")];
    let publish = |started| {
        publish(
            fixture.workspace.path(),
            &fixture.store,
            &outputs,
            started,
            "7",
        )
    };
    let before = fixture.listing();
    let message = publish(started - 1).unwrap_err().to_string();
    let expected = "cannot publish 'z': it was changed in the workspace since the job started; \
                    nothing was published";
    assert_eq!(message, expected);
    assert_eq!(fixture.listing(), before);
    publish(started).unwrap();
}

#[test]
fn what_is_in_the_way_is_named_and_nothing_is_left_behind() {
    let fixture = fixture();
    std::fs::create_dir(fixture.path("dir")).unwrap();
    fixture.put("file", b"");
    symlink("dir", fixture.path("link")).unwrap();
    let good = || fixture.file(b"a/b/c", b"content");
    let refusal = |bad: Publish| {
        let message = fixture.refusal(&[good(), bad]);
        let end = "; nothing was published";
        let message = message.strip_prefix("cannot publish ").unwrap();
        message.strip_suffix(end).unwrap().to_owned()
    };
    assert_eq!(
        refusal(fixture.file(b"dir", b"")),
        "'dir': a directory is in the way"
    );
    assert_eq!(
        refusal(link(b"dir", b"x")),
        "'dir': a directory is in the way"
    );
    let in_the_way = "'file': it is to be a directory, but a file is in the way";
    assert_eq!(refusal(directory(b"file", 0o755)), in_the_way);
    assert_eq!(refusal(fixture.file(b"file/below", b"")), in_the_way);
    let is_link =
        "'link': it is to be a directory, but is a symbolic link, and links are not followed";
    assert_eq!(refusal(fixture.file(b"link/below", b"")), is_link);
    assert_eq!(refusal(directory(b"link", 0o755)), is_link);
    assert_eq!(refusal(directory(b"link/below", 0o755)), is_link);
    let missing = refusal(fixture.missing(b"x/y"));
    let expected = format!(
        "'x/y': blob {} is not in the store",
        Digest::of(b"never stored")
    );
    assert_eq!(missing, expected);
}

#[test]
fn many_outputs_are_published_by_many_threads_or_not_at_all() {
    let fixture = fixture();
    let path = |i: usize| format!("{}/{}/{i}", i % 7, i % 3).into_bytes();
    let mut outputs: Vec<_> = (0..300).map(|i| fixture.file(&path(i), &path(i))).collect();
    outputs.push(fixture.missing(b"0/missing"));
    fixture.refusal(&outputs);
    outputs.pop();
    assert_eq!(fixture.publish(&outputs).unwrap().files, 300);
    for i in 0..300 {
        let path = path(i);
        assert_eq!(fixture.read(std::str::from_utf8(&path).unwrap()), path);
    }
    let temporary = |path: &PathBuf| path.to_string_lossy().contains(".wakebox-");
    assert!(!fixture.listing().iter().any(temporary));
}

#[test]
fn a_destination_that_changes_between_the_phases_is_not_replaced() {
    let fixture = fixture();
    fixture.put("old", b"old");
    let outputs = [fixture.file(b"new", b"1"), fixture.file(b"old", b"2")];
    let root = Root::open(fixture.workspace.path()).unwrap();
    let stat = fixture.path("old").metadata().unwrap();
    let job = Job {
        root: &root,
        store: &fixture.store,
        copier: Copier::default(),
        started: stat.ctime() * 1_000_000_000 + stat.ctime_nsec(),
        id: "7",
    };
    let mut staged = stage_all(&job, &outputs).unwrap();
    // Longer than a tick of the kernel's coarse clock, so that the change shows in the ctime.
    std::thread::sleep(std::time::Duration::from_millis(20));
    fixture.put("old", b"theirs");
    fixture.put("new", b"theirs");
    for temporary in &mut staged {
        assert!(matches!(temporary.check_again(), Err(Obstacle::Changed)));
        assert!(matches!(temporary.rename(), Err(Obstacle::Changed)));
    }
    drop(staged);
    assert_eq!(fixture.listing().len(), 3);
    assert_eq!(fixture.read("old"), b"theirs");
    assert_eq!(fixture.read("new"), b"theirs");
}

#[test]
fn a_failure_among_the_renames_says_which_outputs_are_published() {
    let fixture = fixture();
    let outputs = [
        fixture.file(b"a", b"1"),
        fixture.file(b"b", b"2"),
        fixture.file(b"empty/c", b"3"),
        directory(b"made", 0o700),
    ];
    let root = Root::open(fixture.workspace.path()).unwrap();
    let job = Job {
        root: &root,
        store: &fixture.store,
        copier: Copier::default(),
        started: after_all(),
        id: "7",
    };
    let created = Created::make(&root, &fixture.store, &outputs[..3]).unwrap();
    let mut staged = stage_all(&job, &outputs).unwrap();
    std::fs::create_dir(fixture.path("b")).unwrap();
    let failure = rename_all(&mut staged).unwrap_err();
    let error = give_up(failure, &outputs, staged, created);
    let PublishError::Partial(partial) = error else {
        panic!("{error}");
    };
    assert_eq!(
        (partial.path, partial.published),
        (rel(b"b"), vec![rel(b"a")])
    );
    assert_eq!(
        partial.unpublished,
        [rel(b"b"), rel(b"empty/c"), rel(b"made")]
    );
    assert!(!fixture.path("empty").exists());
    assert_eq!(fixture.listing().len(), 3);
}

#[test]
fn a_temporary_name_that_is_taken_is_refused_and_left_alone() {
    let fixture = fixture();
    fixture.put(".wakebox-7-0", b"another job's");
    fixture.refusal(&[fixture.file(b"a", b"1")]);
    assert_eq!(fixture.read(".wakebox-7-0"), b"another job's");
}

#[test]
fn ids_with_a_slash_and_outputs_given_twice_are_refused() {
    let fixture = fixture();
    let workspace = fixture.workspace.path();
    let id = publish(workspace, &fixture.store, &[], 0, "../x");
    assert!(matches!(id, Err(PublishError::Id { .. })));
    let twice = [link(b"a", b"1"), link(b"a", b"2")];
    let error = fixture.publish(&twice).unwrap_err().to_string();
    assert_eq!(error, "output 'a' is given twice");
}

#[test]
fn a_full_workspace_is_one_line_and_leaves_no_debris() {
    let fixture = fixture();
    let small = tempfile::tempdir().unwrap();
    let mount = |program: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(program);
        let output = command.args(arguments).arg(small.path()).output();
        output.is_ok_and(|output| output.status.success())
    };
    if !mount("mount", &["-t", "tmpfs", "-o", "size=256k", "none"]) {
        eprintln!("skipped: this user may not mount a tmpfs");
        return;
    }
    let outputs = [
        fixture.file(b"d/small", b"1"),
        fixture.file(b"d/big", &vec![7; 1 << 20]),
    ];
    let result = publish(small.path(), &fixture.store, &outputs, after_all(), "7");
    let left = std::fs::read_dir(small.path()).unwrap().count();
    mount("umount", &[]);
    let message = result.unwrap_err().to_string();
    let start = "cannot publish 'd/big': cannot copy its content out of the store: No space left";
    assert!(message.starts_with(start), "{message}");
    assert_eq!(left, 0);
    assert!(fixture.root.path().exists());
}
