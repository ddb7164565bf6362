//! Inputs that a job may change: what it costs, what is told of it, and the next tree of it.

mod ccache;
mod mapped;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use wakebox_tests::job::{BATCH_STORE, strings};
use wakebox_tests::{Outcome, Place, needs_fuse};

/// A directory to begin with.
const BASE: &str = "mkdir -p d/sub gone/in dir/sub swap1 swap2; echo a > d/append; echo same > same
    echo same2 > same2; echo m > mode; echo t > time; echo g > gone/in/f; echo old > old
    for f in a b c sub/s; do echo $f > dir/$f; done; echo 1 > swap1/1; echo 2 > swap2/2
    echo l > linked; ln -s target symlink; ln -s target again; echo r > rdwr; echo x > replaced
    echo u > untouched; touch -d @1000000000 time d dir/c";

/// All kinds of changes.
const CHANGES: &str = "echo more >> d/append; echo same > same; echo same2 > t; mv t same2
    chmod 600 mode; touch -d @1100000000 time; rm -r gone; mv old new; mv dir moved
    rm moved/a; echo other > moved/b; mv moved/sub top; mv swap1 t; mv swap2 swap1; mv t swap2
    ln linked link2; ln -sf elsewhere symlink; ln -sf target again; exec 3<>rdwr; exec 3>&-
    rm replaced; mkdir replaced; echo in > replaced/in; mkdir made; mv moved/c made/c
    touch -d @1200000000 d";

#[track_caller]
fn sh(directory: &Path, script: &str) {
    let mut command = Command::new("sh");
    let done = command
        .args(["-ec", script])
        .current_dir(directory)
        .status();
    assert!(done.expect("a shell").success(), "{script}");
}

fn cas(place: &Place, arguments: &[&str]) -> String {
    let arguments = [&["cas", "--store", BATCH_STORE], arguments].concat();
    place
        .call(arguments)
        .expect(0)
        .stdout()
        .trim_end()
        .to_owned()
}

fn apply(place: &Place, base: &str, result: &Value, more: &[&str]) -> Outcome {
    let file = place.root().join("to-apply.json");
    std::fs::write(&file, result.to_string()).expect("a result");
    let file = file.to_str().expect("text");
    place.call([&["apply", "--store", BATCH_STORE, base, file], more].concat())
}

/// Writes a stored tree out to a directory that was not there.
fn export(place: &Place, tree: &str, name: &str) -> PathBuf {
    let directory = place.root().join(name);
    cas(place, &["export", tree, directory.to_str().expect("text")]);
    directory
}

#[track_caller]
fn same(a: &Path, b: &Path) {
    let mut command = Command::new("diff");
    let diff = command
        .args(["-r", "--no-dereference"])
        .args([a, b])
        .output();
    let diff = diff.expect("diff");
    assert!(
        diff.status.success(),
        "{}",
        String::from_utf8_lossy(&diff.stdout)
    );
}

/// All of a tree as `find` shows it: kind, mode, path and target, and for files the time.
fn shape(directory: &Path, times: &str) -> String {
    let script = format!("find . -mindepth 1 -printf '%y %m %P %l {times}\\n' | sort");
    let output = Command::new("sh")
        .args(["-ec", &script])
        .current_dir(directory)
        .output();
    String::from_utf8(output.expect("find").stdout).expect("text")
}

fn spec(place: &Place, script: &str, base: &str) -> Value {
    let mut spec = place.spec(script);
    spec["input-root"] = json!(base);
    spec["inputs"] = json!("copy-on-write");
    spec
}

#[test]
fn what_became_of_inputs_is_told_and_makes_the_next_tree() {
    needs_fuse!();
    let place = Place::new();
    let base = place.root().join("base");
    std::fs::create_dir(&base).expect("a directory");
    sh(&base, BASE);
    let tree = cas(&place, &["import", base.to_str().expect("text")]);
    for staging in ["keep", "discard"] {
        let mut spec = spec(&place, &format!("set -e; {CHANGES}"), &tree);
        spec["staging"] = json!(staging);
        let result = place.result_of(&spec);
        check_told(&result, staging);
        assert_eq!(result["input-root"], json!(tree));
        let next = apply(&place, &tree, &result, &[]).expect(0).stdout();
        let next = export(&place, next.trim_end(), &format!("next-{staging}"));
        let plain = place.root().join(format!("plain-{staging}"));
        sh(place.root(), &format!("cp -a base {}", plain.display()));
        sh(&plain, CHANGES);
        same(&plain, &next);
        assert_eq!(shape(&plain, ""), shape(&next, ""));
        for path in ["time", "d", "made/c"] {
            let time = |root: &Path| root.join(path).metadata().expect(path).modified().unwrap();
            assert_eq!(time(&plain), time(&next), "{path}");
        }
        if let Some(root) = result["staging_root"].as_str() {
            std::fs::remove_dir_all(place.workspace().join(root)).expect("staged files");
        }
    }
    place.expect_clean();
}

#[track_caller]
fn check_told(result: &Value, staging: &str) {
    let changed = |path: &str| &result["changed"][path];
    let modified = ["d/append", "symlink", "moved/b"];
    assert!(
        modified
            .iter()
            .all(|path| *changed(path) == json!({"change": "modified"})),
        "{result}"
    );
    let outputs = strings(&result["outputs"]);
    for path in ["same", "same2", "again"] {
        assert_eq!(*changed(path), json!({"change": "unchanged"}), "{path}");
        assert!(!outputs.contains(&path), "{path} is an output");
    }
    for path in ["mode", "time", "d"] {
        assert_eq!(*changed(path), json!({"change": "metadata"}), "{path}");
        assert!(result["hashed_files"][path].is_object(), "{path}");
    }
    let renamed = |path: &str, from: &str| {
        assert_eq!(changed(path)["renamed-from"], from, "{path}");
    };
    renamed("new", "old");
    renamed("moved", "dir");
    renamed("top", "dir/sub");
    renamed("swap1", "swap2");
    renamed("swap2", "swap1");
    renamed("made/c", "dir/c");
    assert_eq!(result["deleted"], json!(["dir/a", "gone", "replaced"]));
    for path in ["rdwr", "untouched", "linked", "top/s", "swap1/2"] {
        assert!(
            changed(path).is_null() && !outputs.contains(&path),
            "{path}"
        );
    }
    assert!(outputs.contains(&"link2") && outputs.contains(&"replaced/in"));
    // What was never written to has no staging file.
    let staged = result["staging_files"].as_object();
    assert_eq!(staged.is_some(), staging == "keep");
    if let Some(staged) = staged {
        assert!(
            staged.contains_key("d/append") && !staged.contains_key("new"),
            "{result}"
        );
    }
}

#[test]
fn what_is_not_written_to_is_not_copied() {
    needs_fuse!();
    let place = Place::new();
    let base = place.root().join("base");
    std::fs::create_dir(&base).expect("a directory");
    sh(&base, "truncate -s 64M big; echo x > small");
    let tree = cas(&place, &["import", base.to_str().expect("text")]);
    let staged = format!("{BATCH_STORE}/staging");
    let staged = place.workspace().join(staged);
    // The store is hidden from the job, so it asks for free numbers by the only way there is.
    let script = "exec 3<>big; chmod 600 big; touch big; ln big big2; mv big big3; exec 3>&-
        ino=$(stat -c %i big3); test $ino = $(stat -c %i big2); echo $ino > ino; sleep 0.2";
    let mut spec = spec(&place, &format!("set -e; {script}"), &tree);
    spec["staging"] = json!("keep");
    let result = place.result_of(&spec);
    let root = place
        .workspace()
        .join(result["staging_root"].as_str().expect("a directory"));
    assert!(root.starts_with(&staged));
    let sizes = std::fs::read_dir(&root).expect("staged").flatten();
    let bytes: u64 = sizes
        .map(|entry| entry.metadata().expect("a file").len())
        .sum();
    assert!(bytes < 100, "{bytes} bytes are staged");
    assert_eq!(result["usage"]["outbytes"].as_u64(), Some(bytes));
    assert_eq!(
        result["changed"]["big2"],
        json!({"change": "metadata", "renamed-from": "big"})
    );
    let files = &result["hashed_files"];
    assert_eq!(files["big2"]["link-group"], files["big3"]["link-group"]);
    assert_eq!(files["big3"]["hash"], files["big2"]["hash"]);
    std::fs::remove_dir_all(root).expect("staged files");
}

#[test]
fn readers_see_what_is_written_later() {
    needs_fuse!();
    let place = Place::new();
    let mut spec = place.spec(
        "set -e; exec 3<in; head -c 4 <&3 > a; ino=$(stat -c %i in); echo changed >> in
         cat <&3 > b; test $ino = $(stat -c %i in); cat in > c",
    );
    spec["visible"] = json!([place.visible("in", "old\n"), place.visible("other/in", "x")]);
    spec["copy-on-write"] = json!(["in", "absent"]);
    let result = place.result_of(&spec);
    let content = |path: &str| {
        let hash = result["hashed_files"][path]["hash"].as_str().expect(path);
        cas(&place, &["cat", hash])
    };
    assert_eq!(content("a"), "old");
    assert_eq!(content("b"), "changed");
    assert_eq!(content("c"), "old\nchanged");
    assert_eq!(result["changed"], json!({"in": {"change": "modified"}}));
    assert_eq!(result["deleted"], json!([]));
}

#[test]
fn only_what_the_spec_names_may_be_changed() {
    needs_fuse!();
    let place = Place::new();
    let script = "echo x >> free/a && ! echo x >> kept/a && ! rm kept/a && ! mv freed elsewhere
        rm free/b && echo new > kept/new";
    let mut spec = place.spec(script);
    let paths = ["free/a", "free/b", "kept/a", "freed"];
    spec["visible"] = paths.iter().map(|path| place.visible(path, path)).collect();
    spec["copy-on-write"] = json!(["free"]);
    let result = place.result_of(&spec);
    assert_eq!(result["changed"]["free/a"], json!({"change": "modified"}));
    assert_eq!(result["deleted"], json!(["free/b"]));
    // The time of a directory that may not be changed is not told.
    assert!(result["changed"]["kept"].is_null(), "{result}");
    spec["copy-on-write"] = json!([]);
    let (outcome, result) = place.batch_call(&spec, &[]);
    assert_ne!(outcome.code(), 0);
    let result = result.expect("a result");
    assert!(
        result["changed"].is_null() && result["deleted"].is_null(),
        "{result}"
    );
}

#[test]
fn what_cannot_be_applied_is_told_in_one_line() {
    needs_fuse!();
    let place = Place::new();
    let base = place.root().join("base");
    std::fs::create_dir(&base).expect("a directory");
    sh(&base, "mkdir d e; echo 1 > d/f; echo 2 > e/f");
    let import = |directory: &Path| cas(&place, &["import", directory.to_str().expect("text")]);
    let tree = import(&base);
    let result = place.result_of(&spec(&place, "rm d/f; echo new > e/f", &tree));
    let empty = place.root().join("empty");
    std::fs::create_dir(&empty).expect("a directory");
    let other = import(&empty);
    let refused = |base: &str, result: &Value, more: &[&str], code: i32, words: &str| {
        let told = apply(&place, base, result, more).expect(code).stderr();
        assert!(
            told.starts_with("wakebox: ") && told.lines().count() == 1,
            "{told}"
        );
        assert!(told.contains(words), "{words:?} is not told: {told}");
    };
    refused(&other, &result, &[], 125, "another tree");
    let mut loose = result.clone();
    loose
        .as_object_mut()
        .expect("an object")
        .remove("input-root");
    refused(
        &other,
        &loose,
        &[],
        125,
        "'d/f' is deleted or renamed, but the tree does not have it",
    );
    let absent = "0".repeat(64);
    refused(&absent, &loose, &[], 125, &absent);
    let mut lost = result.clone();
    lost["hashed_files"]["e/f"]["hash"] = json!(absent);
    refused(&tree, &lost, &[], 125, "'e/f'");
    refused(&tree, &json!({"view": false}), &[], 125, "no true result");
    refused(&tree, &json!([]), &[], 2, "is no result of a job");
    refused("12", &result, &[], 2, "12");
    refused(&tree, &result, &["--only", "/d"], 2, "--only '/d'");
    let part = apply(&place, &tree, &result, &["--only", "e"])
        .expect(0)
        .stdout();
    let part = export(&place, part.trim_end(), "part");
    assert!(part.join("d/f").exists(), "what is not wanted stays");
    assert_eq!(std::fs::read(part.join("e/f")).expect("a file"), b"new\n");
}

#[test]
fn run_publishes_what_was_changed_and_keeps_what_was_deleted() {
    needs_fuse!();
    let place = Place::new();
    for path in ["c/a", "c/b", "c/dir/x", "c/dir/y", "src"] {
        place.write(path, path);
    }
    let script =
        "echo new > c/a && rm c/b && mv c/dir c/moved && echo z > c/moved/y && ! echo x > src";
    let json = place.root().join("result.json");
    let json = json.to_str().expect("text");
    let run = [
        "--json", json, "--cow", "c", "--cow", "later", "--", "sh", "-c", script,
    ];
    let told = place.run(&run).expect(0).stderr();
    assert!(told.contains("deleted 1 inputs and renamed 1"), "{told}");
    assert_eq!(place.read("c/a"), b"new\n");
    assert_eq!(place.read("c/moved/x"), b"c/dir/x");
    assert_eq!(place.read("c/moved/y"), b"z\n");
    assert_eq!(place.read("c/b"), b"c/b");
    assert_eq!(place.read("src"), b"src");
    let result: Value = serde_json::from_slice(&std::fs::read(json).expect("a result")).unwrap();
    assert_eq!(result["deleted"], json!(["c/b"]));
    assert_eq!(result["changed"]["c/moved"]["renamed-from"], "c/dir");
}
