//! Ingestion of whole workspaces.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

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

impl Fixture {
    fn put(&self, path: impl AsRef<Path>, content: &[u8]) -> PathBuf {
        let path = self.workspace.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(&path).unwrap().write_all(content).unwrap();
        path
    }

    fn job<T>(&self, now_ns: i64, run: impl FnOnce(&Ingestion<'_>) -> T) -> T {
        let index = Index::load(self.root.path(), self.workspace.path());
        let result = run(&Ingestion {
            store: &self.store,
            workspace: self.workspace.path(),
            index: &index,
            writable: &|path| path.as_bytes().starts_with(b"rw"),
            now_ns,
            progress: &Progress::silent(),
        });
        index.save(&self.store, Coverage::Part).unwrap();
        result
    }

    fn ingest_all(&self, now_ns: i64) -> Ingested {
        let found = select(self.workspace.path(), &[".".into()], &[]).unwrap();
        self.job(now_ns, |job| ingest(job, &found)).unwrap()
    }
}

fn now() -> i64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "the files of a test are as old as it is"
    )]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_nanos() as i64
}

fn later() -> i64 {
    now() + 10_000_000_000
}

fn rel(path: &[u8]) -> RelPath {
    RelPath::parse(path).unwrap()
}

#[test]
fn every_kind_of_input_is_declared_with_its_attributes() {
    let fixture = fixture();
    let name = OsStr::from_bytes(b"d/\xff\xfe");
    let path = fixture.put(name, b"bytes");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4751)).unwrap();
    let before_the_epoch = SystemTime::UNIX_EPOCH - Duration::from_nanos(5);
    File::open(&path)
        .unwrap()
        .set_modified(before_the_epoch)
        .unwrap();
    fixture.put("rw", b"mine");
    symlink("nowhere/\u{e9}", fixture.workspace.path().join("link")).unwrap();
    let ingested = fixture.ingest_all(now());
    assert_eq!((ingested.files, ingested.bytes, ingested.hashed), (2, 9, 2));
    let entries = ingested.manifest.entries;
    let kinds: Vec<_> = entries.iter().map(|entry| entry.kind).collect();
    let target = Digest::of("nowhere/\u{e9}".as_bytes());
    let expected = [
        DeclaredKind::Directory,
        DeclaredKind::File(Digest::of(b"bytes")),
        DeclaredKind::Symlink(target),
        DeclaredKind::WritableFile(Digest::of(b"mine")),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(entries[1].path, rel(b"d/\xff\xfe"));
    assert_eq!((entries[1].mode, entries[1].mtime), (0o4751, -5));
    let manifest = Manifest {
        input_root: None,
        entries,
    };
    manifest.resolve(&fixture.store).unwrap();
}

#[test]
fn the_second_run_reads_nothing_unless_the_file_or_its_blob_changed() {
    let fixture = fixture();
    let path = fixture.put("a", b"one");
    fixture.put("b", b"two");
    let first = fixture.ingest_all(later());
    let second = fixture.ingest_all(later());
    assert_eq!((first.hashed, second.hashed), (2, 0));
    assert_eq!(first.manifest, second.manifest);
    assert_eq!((second.files, second.bytes), (2, 6));
    File::create(&path).unwrap().write_all(b"new").unwrap();
    std::fs::remove_file(fixture.store.path(Digest::of(b"two"))).unwrap();
    let third = fixture.ingest_all(later());
    assert_eq!(third.hashed, 2);
    assert_eq!(fixture.store.read(Digest::of(b"new")).unwrap(), b"new");
    assert_eq!(fixture.store.read(Digest::of(b"two")).unwrap(), b"two");
}

#[test]
fn a_file_as_young_as_the_run_is_read_again_the_next_time() {
    let fixture = fixture();
    fixture.put("a", b"one");
    assert_eq!(fixture.ingest_all(now()).hashed, 1);
    assert_eq!(fixture.ingest_all(later()).hashed, 1);
    assert_eq!(fixture.ingest_all(later()).hashed, 0);
}

#[test]
fn named_paths_keep_their_order_count_once_and_directories_stand_for_themselves() {
    let fixture = fixture();
    fixture.put("z/inside", b"1");
    fixture.put("a", b"2");
    let paths = [rel(b"z"), rel(b"a"), rel(b"z")];
    let ingested = fixture.job(now(), |job| ingest_named(job, &paths)).unwrap();
    let found: Vec<_> = ingested.manifest.entries.into_iter().collect();
    let names: Vec<_> = found.iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(names, ["z", "a"]);
    assert_eq!(found[0].kind, DeclaredKind::Directory);
}

#[test]
fn a_named_path_that_is_missing_or_a_socket_is_an_error_that_names_it() {
    let fixture = fixture();
    let _socket =
        std::os::unix::net::UnixListener::bind(fixture.workspace.path().join("s")).unwrap();
    fixture.put("file", b"");
    let message = |path: &[u8]| {
        let result = fixture.job(now(), |job| ingest_named(job, &[rel(path)]));
        result.unwrap_err().to_string()
    };
    assert_eq!(message(b"gone/x"), "input 'gone/x' does not exist");
    assert_eq!(message(b"file/x"), "input 'file/x' does not exist");
    assert!(message(b"s").starts_with("input 's' is a socket"));
}

#[test]
fn a_full_store_is_one_line_that_names_input_and_store() {
    let fixture = fixture();
    let small = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "none"].map(OsString::from))
        .arg(small.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: this user may not mount a tmpfs");
        return;
    }
    fixture.put("big", &vec![7; 1 << 20]);
    let result = {
        let store = Store::open(small.path()).unwrap();
        fixture.job(now(), |job| {
            let job = Ingestion {
                store: &store,
                ..*job
            };
            ingest_named(&job, &[rel(b"big")])
        })
    };
    let debris = std::fs::read_dir(small.path().join("staging")).unwrap();
    let debris = debris.count();
    std::process::Command::new("umount")
        .arg(small.path())
        .status()
        .unwrap();
    let message = result.unwrap_err().to_string();
    assert!(message.starts_with("input 'big': "), "{message}");
    assert!(
        message.contains(small.path().to_str().unwrap()),
        "{message}"
    );
    assert!(message.contains("No space left"), "{message}");
    assert_eq!(debris, 0);
}
