//! What reviewers asked of the design, and defects of the original: those that no other file is
//! about. `docs/compatibility.md` is the list of all.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wakebox_tests::job::{BATCH_STORE, strings, wait_for};
use wakebox_tests::{Outcome, Place, needs_fuse, skip};

/// What a script prints, and its result.
#[track_caller]
fn job(place: &Place, script: &str, visible: Vec<Value>) -> (String, Value) {
    let mut spec = place.spec(&format!("set -e; {script}"));
    spec["visible"] = visible.into();
    let (outcome, result) = place.batch_call(&spec, &[]);
    (outcome.expect(0).stdout(), result.expect("a result"))
}

#[test]
fn chains_and_groups_of_hard_links_are_one_file() {
    needs_fuse!();
    let place = Place::new();
    let script = "echo a > a; ln a b; ln b c; ln a d; echo b >> b; echo c >> c; cat a d
        chmod 640 d; stat -c '%a %h' a b c d | uniq -c | tr -s ' '
        rm a; echo d >> d; cat b; stat -c %h c";
    let (told, result) = job(&place, script, vec![]);
    assert_eq!(told, "a\nb\nc\na\nb\nc\n 4 640 4\na\nb\nc\nd\n3\n");
    for path in ["b", "c", "d"] {
        let staged = place.staged(&result["staging_files"][path]);
        assert_eq!(std::fs::read(staged).expect("staged"), b"a\nb\nc\nd\n");
        assert_eq!(result["staging_files"][path]["mode"], 0o640);
    }
}

#[test]
fn a_hard_link_outlives_the_first_name() {
    needs_fuse!();
    let place = Place::new();
    let (told, result) = job(
        &place,
        "touch s; ln s t; rm s; echo pass > t; cat t",
        vec![],
    );
    assert_eq!(told, "pass\n");
    assert_eq!(strings(&result["outputs"]), ["t"]);
}

#[test]
fn inputs_of_one_content_have_attributes_of_their_own() {
    needs_fuse!();
    let place = Place::new();
    let hash = place.put("same");
    let file = |path: &str, mode: u32, mtime: i64| json!({"path": path, "type": "file", "hash": hash, "mode": mode, "mtime": mtime});
    let visible = vec![
        file("a", 0o644, 1_000_000_000_000_000_001),
        file("b", 0o755, 2_000_000_000_999_999_999),
    ];
    let script = "stat -c '%a %Y %y' a b | cut -d' ' -f1,2,4; cat a b";
    let (told, _) = job(&place, script, visible);
    let lines = "644 1000000000 01:46:40.000000001\n755 2000000000 03:33:20.999999999\nsamesame";
    assert_eq!(told, lines);
}

#[test]
fn a_time_that_was_set_survives_opening_again() {
    needs_fuse!();
    let place = Place::new();
    let script = "echo >> f; echo >> f; touch -d @1234567890.25 f; cat f > /dev/null
        stat -c %.9Y f";
    let (told, result) = job(&place, script, vec![]);
    assert_eq!(told, "1234567890.250000000\n");
    let staged = &result["staging_files"]["f"];
    assert_eq!(staged["mtime_sec"], 1_234_567_890);
    assert_eq!(staged["mtime_nsec"], 250_000_000);
    let metadata = place.staged(staged).metadata().expect("a staged file");
    assert_eq!(
        (metadata.mtime(), metadata.mtime_nsec()),
        (1_234_567_890, 250_000_000)
    );
}

#[test]
fn numbers_are_never_zero_and_listings_tell_the_same() {
    needs_fuse!();
    let place = Place::new();
    let visible = vec![place.visible("d/in", "x"), place.visible("d/twin", "x")];
    let script = "echo x > d/made; mkdir d/sub; ln -s x d/link; ls -i d | sort > listed
        (cd d; stat -c '%i %n' *) | sort > told
        tr -s ' ' < listed | sed 's/^ //' | diff - told; cut -d' ' -f1 told | sort -u | wc -l
        ! grep -q '^0 ' told";
    // A compiler may take what is the same number for the same file: each has its own.
    assert_eq!(job(&place, script, visible).0, "5\n");
}

#[test]
fn a_directory_has_a_size_like_others() {
    needs_fuse!();
    let place = Place::new();
    let visible = vec![place.visible("implied/in", "x")];
    let (told, _) = job(
        &place,
        "mkdir made; stat -c '%s %F' made implied .",
        visible,
    );
    for line in told.lines() {
        assert_eq!(line, "4096 directory");
    }
}

#[test]
fn a_call_without_standard_streams_works() {
    needs_fuse!();
    let place = Place::new();
    let mut spec = place.spec("cat in > out; readlink /proc/self/fd/0 >> out");
    spec["visible"] = json!([place.visible("in", "x\n")]);
    std::fs::write(place.root().join("spec"), spec.to_string()).expect("a spec");
    let script = "exec $WAKEBOX -p $ROOT/spec -o $ROOT/result <&- >&- 2>&-";
    let output = place.other("sh").args(["-c", script]).output();
    Outcome(output.expect("a shell")).expect(0);
    let result = std::fs::read(place.root().join("result")).expect("a result");
    let result: Value = serde_json::from_slice(&result).expect("JSON");
    let staged = place.staged(&result["staging_files"]["out"]);
    assert_eq!(
        std::fs::read_to_string(staged).expect("staged"),
        "x\n/dev/null\n"
    );
}

#[test]
fn clients_of_one_number_do_not_collide() {
    needs_fuse!();
    let place = Place::new();
    // Starts the daemon, outside of the namespaces that end with the clients.
    job(&place, "true", vec![]);
    let mut children = Vec::new();
    for n in ["a", "b"] {
        let script = format!("echo {n} > out; sleep 0.3; cat out");
        std::fs::write(place.root().join(n), place.spec(&script).to_string()).expect("a spec");
        let mut command = place.other("unshare");
        // Each client is process 1 of its own namespace.
        command.args(["-rpf", "sh", "-c", "exec $WAKEBOX -p $0 -o $0.result"]);
        command
            .arg(place.root().join(n))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        children.push((n, command.spawn().expect("unshare")));
    }
    let mut roots = Vec::new();
    for (n, child) in children {
        let outcome = Outcome(child.wait_with_output().expect("an end"));
        if outcome.stderr().contains("unshare") {
            skip!(outcome.stderr());
        }
        assert_eq!(outcome.expect(0).stdout(), format!("{n}\n"));
        let result = std::fs::read(place.root().join(format!("{n}.result"))).expect("a result");
        let result: Value = serde_json::from_slice(&result).expect("JSON");
        let root = result["staging_root"].as_str().expect("a root").to_owned();
        let id = root.rsplit('/').next().expect("a name");
        assert!(
            id.len() == 16 && u64::from_str_radix(id, 16).is_ok(),
            "{id} is 64 bits"
        );
        roots.push(root);
    }
    assert_ne!(roots[0], roots[1]);
}

/// A job that says that it runs and goes on when it is told to.
fn paused(place: &Place, name: &str, script: &str) -> std::process::Child {
    let script = format!(
        "{script}; touch $HOME/{name}; until test -e $HOME/go; do sleep 0.02; done; echo end >> out"
    );
    let spec = place.root().join(name);
    std::fs::write(&spec, place.spec(&script).to_string()).expect("a spec");
    let mut command = place.command(["-p"]);
    command
        .arg(&spec)
        .arg("-o")
        .arg(spec.with_extension("result"));
    command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0);
    command.spawn().expect("starts")
}

#[test]
fn what_is_done_to_one_jobs_files_is_that_jobs_failure_alone() {
    needs_fuse!();
    let place = Place::new();
    let victim = paused(&place, "victim", "echo begin > out; echo x > gone");
    wait_for("the victim", || place.flag("victim").exists());
    let staged = place.debris();
    let other = paused(&place, "other", "echo begin > out");
    wait_for("the other", || place.flag("other").exists());
    for directory in staged {
        std::fs::remove_dir_all(directory).expect("removed");
    }
    std::fs::write(place.flag("go"), "").expect("a flag");
    let victim = Outcome(victim.wait_with_output().expect("an end"));
    assert_eq!(victim.code(), 125, "{}", victim.stderr());
    assert_eq!(victim.stderr().lines().count(), 1, "{}", victim.stderr());
    Outcome(other.wait_with_output().expect("an end")).expect(0);
    assert_eq!(place.daemons().len(), 1, "it has survived");
    job(&place, "echo x > out", vec![]);
}

#[test]
fn every_call_has_the_store_that_it_names_from_where_it_is() {
    needs_fuse!();
    let place = Place::new();
    let call = |folder: &str, store: &str| -> Command {
        let mut spec = place.spec(&format!("echo {folder} {store} > out; sleep 0.2"));
        spec["cas-dir"] = json!(store);
        let name = format!("{folder}-{}", store.replace('/', "-"));
        let file = place.root().join(name);
        std::fs::write(&file, spec.to_string()).expect("a spec");
        let workspace = place.workspace().join(folder);
        std::fs::create_dir_all(&workspace).expect("a workspace");
        let mut command = place.command(["-p"]);
        command.arg(&file).current_dir(workspace);
        command
    };
    let all = [
        ("one", "a"),
        ("one", "b/c"),
        ("two", "a"),
        ("two", "../shared"),
    ];
    let children: Vec<_> = all
        .iter()
        .map(|(folder, store)| call(folder, store).spawn().expect("starts"))
        .collect();
    for child in children {
        Outcome(child.wait_with_output().expect("an end")).expect(0);
    }
    for (folder, store) in all {
        let path = place.workspace().join(folder).join(store);
        let store_there = cas::Store::open(&path).expect("a store");
        let holds = |folder: &str, store: &str| {
            let content = format!("{folder} {store}\n");
            store_there
                .read(cas::Digest::of(content.as_bytes()))
                .is_ok()
        };
        for (other_folder, other_store) in all {
            let own = (folder, store) == (other_folder, other_store);
            assert_eq!(holds(other_folder, other_store), own, "{}", path.display());
        }
    }
    assert!(!place.workspace().join(BATCH_STORE).exists());
}
