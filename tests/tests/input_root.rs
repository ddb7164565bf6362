//! Jobs on stored trees, and the commands that make and show them.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use cas::Store;
use cas::directory::{ChildKind, Directory, Root};
use serde_json::{Value, json};
use wakebox_tests::job::{BATCH_STORE, strings};
use wakebox_tests::{Outcome, Place, needs_fuse};

fn cas(place: &Place, arguments: &[&str]) -> Outcome {
    place.call(["cas", "--store", BATCH_STORE].iter().chain(arguments))
}

/// Imports a directory of the workspace and returns what was printed.
#[track_caller]
fn import(place: &Place, directory: &str) -> String {
    let outcome = cas(place, &["import", directory]).expect(0);
    assert_eq!(outcome.stderr(), "");
    outcome.stdout().trim_end().to_owned()
}

fn set_time(path: &Path, nanoseconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanoseconds);
    let file = std::fs::File::open(path).expect("it is there");
    file.set_modified(time).expect("its time is set");
}

/// A directory `tree` with one of everything.
fn plant(place: &Place) {
    let tree = place.workspace().join("tree");
    place.write("tree/a.txt", "text");
    place.write("tree/sub/tool", "#!/bin/sh\necho tool\n");
    std::fs::create_dir(tree.join("empty")).expect("a directory");
    symlink("sub/tool", tree.join("link")).expect("a link");
    let mode = |path: &str, mode| {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(tree.join(path), permissions).expect("a mode");
    };
    mode("a.txt", 0o640);
    mode("sub/tool", 0o755);
    mode("sub", 0o750);
    mode("empty", 0o700);
    for (i, path) in ["a.txt", "sub/tool", "sub", "empty", "."]
        .iter()
        .enumerate()
    {
        set_time(&tree.join(path), 1_600_000_000_000_000_001 + i as u64);
    }
}

/// A spec of a job that runs a shell script on a stored tree.
fn spec(place: &Place, root: &str, script: &str) -> Value {
    let mut spec = place.spec(script);
    spec["input-root"] = json!(root);
    spec
}

/// What a script prints on a stored tree, by way of an output.
#[track_caller]
fn printed(place: &Place, spec: &Value) -> (String, Value) {
    let result = place.result_of(spec);
    let output = place.staged(&result["staging_files"]["out"]);
    let text = std::fs::read_to_string(&output).expect("the job wrote it");
    let root = result["staging_root"].as_str().expect("a staging root");
    std::fs::remove_dir_all(place.workspace().join(root)).expect("it is the caller's");
    (text, result)
}

const LIST: &str = "find . -not -name out -printf '%p %M %T@ %l\\n' | LC_ALL=C sort";

#[test]
fn a_job_sees_exactly_the_tree() {
    needs_fuse!();
    let place = Place::new();
    plant(&place);
    place.write("undeclared", "x");
    let root = import(&place, "tree");
    let script = format!(
        "{{ {LIST}; }} > \"$HOME/list\"; cat \"$HOME/list\" > out; cat a.txt link > /dev/null; ! test -e undeclared"
    );
    let (seen, result) = printed(&place, &spec(&place, &root, &script));
    let native = std::process::Command::new("sh")
        .args(["-c", LIST])
        .current_dir(place.workspace().join("tree"))
        .output()
        .expect("find runs");
    let native = String::from_utf8(native.stdout).expect("text");
    // A link's own time cannot be set by the standard library; all others are to the nanosecond.
    assert_eq!(seen, native);
    assert!(seen.contains("1600000000.0000000010"), "{seen}");
    assert_eq!(strings(&result["inputs"]), ["a.txt", "link", "sub/tool"]);
    assert_eq!(strings(&result["outputs"]), ["out"]);
    // The size is no part of the name.
    let hash = root.split('/').next().expect("a hash");
    place.result_of(&spec(&place, hash, "test -x sub/tool"));
    place.expect_clean();
}

#[test]
fn what_is_visible_lies_over_the_tree() {
    needs_fuse!();
    let place = Place::new();
    plant(&place);
    let root = import(&place, "tree");
    let script = "{ cat a.txt sub/new sub/tool; stat -c '%a %Y' sub; test -f empty && echo file; echo more >> sub/rw; } > out";
    let mut over = spec(&place, &root, script);
    let mut writable = place.visible("sub/rw", "rw");
    writable["writable"] = json!(true);
    over["visible"] = json!([
        place.visible("a.txt", "other\n"),
        place.visible("sub/new", "new\n"),
        place.visible("empty", "now a file"),
        {"path": "sub", "type": "directory", "mode": 0o711, "mtime": 5_000_000_000_i64},
        writable,
    ]);
    let expected = "other\nnew\n#!/bin/sh\necho tool\n711 5\nfile\n";
    for _ in 0..2 {
        let (seen, result) = printed(&place, &over);
        assert_eq!(seen, expected);
        assert_eq!(strings(&result["inputs"]), ["a.txt", "sub/new", "sub/tool"]);
    }
    place.expect_clean();
}

#[test]
fn the_client_reads_no_object_and_a_known_tree_is_not_read_again() {
    needs_fuse!();
    let place = Place::new();
    plant(&place);
    let root = import(&place, "tree");
    place.result_of(&spec(&place, &root, "cat a.txt"));
    let parsed: Root = root.parse().expect("a root");
    let store = Store::open(&place.workspace().join(BATCH_STORE)).expect("a store");
    let top = Directory::read(parsed.digest, parsed.size, &store).expect("the root");
    let below = top.children.iter().find_map(|child| match child.kind {
        ChildKind::Directory { digest, .. } => Some(digest),
        _ => None,
    });
    std::fs::remove_file(store.path(parsed.digest)).expect("the root's object");
    std::fs::remove_file(store.path(below.expect("a directory"))).expect("an object");
    place.result_of(&spec(&place, &root, "cat a.txt sub/tool"));
}

#[test]
fn what_is_missing_is_named_before_anything_runs() {
    needs_fuse!();
    let place = Place::new();
    plant(&place);
    let root = import(&place, "tree");
    let store = Store::open(&place.workspace().join(BATCH_STORE)).expect("a store");
    let remove = |content: &[u8]| {
        let digest = cas::Digest::of(content);
        std::fs::remove_file(store.path(digest)).expect("a blob");
        digest
    };
    let refused = |root: &str, expected: &str| {
        let script = format!("touch {}", place.flag("ran").display());
        let (outcome, result) = place.batch_call(&spec(&place, root, &script), &[]);
        let told = outcome.expect(125).stderr();
        assert_eq!(told, format!("wakebox: {expected}\n"));
        let result = result.expect("a result");
        assert_eq!(result["sandbox-error"]["kind"], "input");
        assert!(!place.flag("ran").exists());
    };
    let gone = remove(b"#!/bin/sh\necho tool\n");
    let missing = format!("input 'sub/tool': blob {gone} is not in the store");
    refused(&root, &missing);
    let (hash, size) = root.split_once('/').expect("a size");
    let wrong = format!("input root: blob {hash} has {size} bytes, and not 1");
    refused(&format!("{hash}/1"), &wrong);
    let text = place.put("no directory");
    let told = place
        .batch_call(&spec(&place, &text, "true"), &[])
        .0
        .expect(125)
        .stderr();
    let expected =
        format!("wakebox: input root: directory object {text} is no Directory message: ");
    assert!(
        told.starts_with(&expected) && told.lines().count() == 1,
        "{told}"
    );
    let nothing = cas::Digest::of(b"never stored").to_string();
    refused(
        &nothing,
        &format!("input root: blob {nothing} is not in the store"),
    );
    place.put("#!/bin/sh\necho tool\n");
    place.result_of(&spec(&place, &root, "cat sub/tool"));
    place.expect_clean();
}

#[test]
fn a_digest_of_the_wrong_form_is_wrong_usage() {
    let place = Place::new();
    let hash = cas::Digest::of(b"").to_string();
    for root in [
        "",
        "12",
        &hash[1..],
        &format!("{hash}/"),
        &format!("{hash}/x"),
        &format!("b3:{hash}"),
    ] {
        let (outcome, result) = place.batch_call(&spec(&place, root, "true"), &["-I"]);
        let told = outcome.expect(1).stderr();
        assert!(
            told.starts_with("wakebox: ") && told.lines().count() == 1,
            "{told}"
        );
        assert!(told.contains("input-root: "), "{told}");
        assert_eq!(result.expect("a result")["sandbox-error"]["kind"], "spec");
        for command in [&["tree", root][..], &["export", root, "to"]] {
            let told = cas(&place, command).expect(2).stderr();
            assert!(
                told.starts_with("wakebox: ") && told.lines().count() == 1,
                "{told}"
            );
        }
    }
    let told = cas(&place, &["import", "nowhere"]).expect(125).stderr();
    assert!(told.starts_with("wakebox: cannot open nowhere: "), "{told}");
    place.write("file", "");
    let told = cas(&place, &["import", "file"]).expect(2).stderr();
    assert_eq!(told, "wakebox: file is not a directory\n");
}

#[test]
fn an_imported_directory_is_listed_and_written_out_as_it_was() {
    let place = Place::new();
    plant(&place);
    let root = import(&place, "tree");
    assert_eq!(
        import(&place, "tree"),
        root,
        "the same directory has the same name"
    );
    let hash = root.split('/').next().expect("a hash");
    let listing = cas(&place, &["tree", hash]).expect(0).stdout();
    let lines: Vec<_> = listing.lines().collect();
    let size = root.split('/').nth(1).expect("a size");
    assert_eq!(lines.len(), 6);
    let expected = format!("drwxr-xr-x {size:>10} 1600000000.000000005 {hash} .");
    assert_eq!(lines[0], expected);
    let text = cas::Digest::of(b"text");
    assert_eq!(
        lines[1],
        format!("-rw-r-----          4 1600000000.000000001 {text} a.txt")
    );
    assert!(
        lines[3].ends_with(&format!(" {:<64} link -> sub/tool", "-")),
        "{listing}"
    );
    assert!(
        lines[5].ends_with(" sub/tool") && lines[5].starts_with("-rwxr-xr-x "),
        "{listing}"
    );

    let json = cas(&place, &["tree", &root, "--json"]).expect(0).stdout();
    let entries: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    assert_eq!(entries[0]["path"], ".");
    assert_eq!(
        entries[1],
        json!({
            "path": "a.txt", "type": "file", "mode": 0o640, "mtime": 1_600_000_000_000_000_001_i64,
            "hash": text.to_string(), "size": 4,
        })
    );
    assert_eq!(
        (&entries[3]["target"], &entries[3]["size"]),
        (&json!("sub/tool"), &json!(8))
    );

    assert_eq!(
        cas(&place, &["export", &root, "copy"]).expect(0).stdout(),
        ""
    );
    assert_eq!(import(&place, "copy"), root);
    let copy = place.workspace().join("copy");
    assert_eq!(
        copy.join("sub/tool").metadata().expect("a file").mode() & 0o7777,
        0o755
    );
    let told = cas(&place, &["export", &root, "copy"]).expect(2).stderr();
    assert_eq!(told, "wakebox: copy is not empty\n");
    assert!(place.debris().is_empty());
}

#[test]
fn what_cannot_be_stored_is_named_and_the_store_is_left_out() {
    let place = Place::new();
    place.write("file", "x");
    let fifo = place.workspace().join("fifo");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a fifo");
    let latin = std::ffi::OsStr::from_bytes(b"caf\xe9");
    std::fs::create_dir(place.workspace().join(latin)).expect("a directory");
    let outcome = cas(&place, &["import", "."]).expect(0);
    let told = "wakebox: 'fifo' is left out: it is a socket, a fifo or a device\n";
    assert_eq!(outcome.stderr(), told);
    let root = outcome.stdout();
    let listing = cas(&place, &["tree", "--json", root.trim_end()])
        .expect(0)
        .stdout();
    let paths: Vec<_> = listing
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect(line)["path"].clone())
        .collect();
    assert_eq!(paths, [".", ".build", "caf\u{10FEE9}", "file"]);
}

/// Prints what a job of `true` costs on stored trees of two sizes. Timing is nothing to assert; run
/// it with `cargo test --release -- --ignored --nocapture what_a_job_costs`.
#[test]
#[ignore = "a measurement, not a test; makes 300,000 blobs"]
fn what_a_job_costs_on_trees_of_two_sizes() {
    needs_fuse!();
    let place = Place::new();
    let roots = [100, 300_000].map(|files| (files, plant_objects(&place, files)));
    let specs = roots.map(|(files, root)| (files, spec(&place, &root.to_string(), "true")));
    place.result_of(&place.spec("true"));
    let time = |spec: &Value| {
        let started = std::time::Instant::now();
        place.result_of(spec);
        started.elapsed().as_secs_f64() * 1e3
    };
    for (files, spec) in &specs {
        println!(
            "{files} files: first {:.1} ms, daemon {} KiB",
            time(spec),
            daemon_memory(&place)
        );
    }
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..40 {
        for ((_, spec), times) in specs.iter().zip(&mut times) {
            times.push(time(spec));
        }
    }
    for ((files, _), mut times) in specs.iter().zip(times) {
        times.sort_by(f64::total_cmp);
        println!(
            "{files} files: again, median {:.2} ms, least {:.2} ms",
            times[20], times[0]
        );
    }
}

/// Puts a tree of so many small files into the store, without a directory of the host.
fn plant_objects(place: &Place, files: u32) -> Root {
    use cas::tree::{Entry, EntryKind, Tree};
    let store = Store::open(&place.workspace().join(BATCH_STORE)).expect("a store");
    let staging = store.new_staging("plant").expect("a directory");
    let numbers: Vec<_> = (0..files).collect();
    let entries = cas::parallel::map(&numbers, |i| {
        let path = format!("d{:02}/e{:02}/some_source_file_{i}.h", i % 30, i / 30 % 100);
        let content = i.to_string();
        let digest = store
            .put_bytes(content.as_bytes(), &staging)
            .expect("a blob");
        let size = content.len() as u64;
        Entry {
            path: cas::RelPath::parse(path.as_bytes()).expect("a path"),
            mode: 0o644,
            mtime: 1,
            kind: EntryKind::File { digest, size },
        }
    });
    let tree = Tree::build(entries).expect("a tree");
    cas::directory::store(&tree, &store).expect("its objects")
}

/// Resident memory of the daemon, in KiB.
fn daemon_memory(place: &Place) -> String {
    let daemon = place.daemons()[0].as_raw_pid();
    let status = std::fs::read_to_string(format!("/proc/{daemon}/status")).expect("it is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.expect("it has memory")
        .trim()
        .trim_end_matches(" kB")
        .into()
}
