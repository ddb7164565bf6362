//! The contract of a batch job: what it sees, how it ends, and what its result says.

use std::ffi::OsStr;
use std::process::Stdio;

use cas::Digest;
use serde_json::{Value, json};
use wakebox_tests::job::{BATCH_STORE, strings, wait_for};
use wakebox_tests::{Outcome, Place, needs_fuse};

#[test]
fn all_kinds_of_inputs_are_seen_and_nothing_else() {
    needs_fuse!();
    let place = Place::new();
    place.write("named.txt", "by name");
    place.write("secret.txt", "not declared");
    let target = place.put("by-hash.txt");
    let mut spec = place.spec("find . | sort; readlink link; cat by-hash.txt named.txt link; stat -c '%a %Y' by-hash.txt dir");
    spec["visible"] = json!([
        "named.txt",
        place.visible("by-hash.txt", "by hash"),
        {"path": "link", "type": "symlink", "hash": target, "mode": 0o777, "mtime": 0},
        {"path": "dir", "type": "directory", "mode": 0o750, "mtime": 7_000_000_000_i64},
        {"path": "deep/old-form", "hash": place.put("old")},
    ]);
    let (outcome, result) = place.batch_call(&spec, &[]);
    let expected = ".\n./by-hash.txt\n./deep\n./deep/old-form\n./dir\n./link\n./named.txt\nby-hash.txt\n\
                    by hashby nameby hash644 1700000000\n750 7\n";
    assert_eq!(outcome.expect(0).stdout(), expected);
    let result = result.expect("a result");
    assert_eq!(
        strings(&result["inputs"]),
        ["by-hash.txt", "link", "named.txt"]
    );
    assert_eq!(result["outputs"], json!([]));
    assert_eq!(result["staging_files"], json!({}));
    assert_eq!(result["view"], true);
    place.expect_clean();
}

#[test]
fn the_result_has_what_build_tools_require() {
    needs_fuse!();
    let place = Place::new();
    let mut spec =
        place.spec("cat in >/dev/null; printf 12345 > out; ln -s out link; mkdir d; exit 3");
    spec["visible"] = json!([place.visible("in", "abc")]);
    let (outcome, result) = place.batch_call(&spec, &["-I"]);
    assert_eq!(outcome.expect(0).stderr(), "");
    let result = result.expect("a result");
    let usage = &result["usage"];
    assert_eq!(usage["status"], 3);
    assert_eq!(
        (&usage["inbytes"], &usage["outbytes"]),
        (&json!(3), &json!(5))
    );
    assert!(
        usage["membytes"].as_u64().is_some_and(|bytes| bytes > 0),
        "{usage}"
    );
    assert!(
        usage["runtime"].is_number() && usage["cputime"].is_number(),
        "{usage}"
    );
    assert_eq!(result["timed-out"], false);
    assert!(
        result["run-host"]
            .as_str()
            .is_some_and(|host| !host.is_empty())
    );
    assert_eq!(strings(&result["outputs"]), ["d", "link", "out"]);
    for (path, entry) in result["staging_files"].as_object().expect("an object") {
        let kind = entry["type"].as_str().expect("a type");
        assert!(
            ["file", "symlink", "directory"].contains(&kind),
            "{path}: {entry}"
        );
        assert!(
            entry["mtime_sec"].is_i64() && entry["mtime_nsec"].is_i64(),
            "{path}: {entry}"
        );
    }
    assert_eq!(
        result["hashed_files"]["out"]["hash"],
        Digest::of(b"12345").to_string()
    );
    assert_eq!(result["hashed_files"]["link"]["target"], "out");
}

#[test]
fn a_time_limit_kills_and_tells_what_was_made_so_far() {
    needs_fuse!();
    let place = Place::new();
    let mut spec = place.spec("echo early > early; sleep 60; echo late > late");
    spec["command-timeout"] = json!(1);
    for (arguments, code) in [(&[][..], 124), (&["-I"][..], 0)] {
        let (outcome, result) = place.batch_call(&spec, arguments);
        outcome.expect(code);
        let result = result.expect("a result");
        assert_eq!(result["usage"]["status"], 124);
        assert_eq!(result["timed-out"], true);
        assert_eq!(strings(&result["outputs"]), ["early"]);
        assert_eq!(
            result["hashed_files"]["early"]["hash"],
            Digest::of(b"early\n").to_string()
        );
        assert!(place.processes().is_empty(), "{:?}", place.processes());
    }
}

/// Runs a spec with and without `-I` and returns the exit codes and `usage.status`.
fn ends(place: &Place, spec: &Value) -> (i32, i32, i64) {
    let (plain, result) = place.batch_call(spec, &[]);
    let (isolated, again) = place.batch_call(spec, &["-I"]);
    let (result, again) = (result.expect("a result"), again.expect("a result"));
    assert_eq!(result["usage"]["status"], again["usage"]["status"]);
    assert_eq!(plain.stderr(), isolated.stderr());
    let lines = plain.stderr();
    assert!(
        lines.lines().all(|line| line.starts_with("wakebox: ")),
        "{lines}"
    );
    (
        plain.code(),
        isolated.code(),
        result["usage"]["status"].as_i64().expect("a number"),
    )
}

#[test]
fn every_end_of_a_job_has_its_code() {
    needs_fuse!();
    let place = Place::new();
    let cases = [
        (place.spec("exit 0"), (0, 0, 0)),
        (place.spec("exit 77"), (77, 0, 77)),
        (place.spec("kill -9 $$"), (137, 0, -9)),
        (place.spec("kill -TERM $$"), (143, 0, -15)),
        (place.spec_of(&["no-such-program"]), (127, 0, 127)),
        (place.spec_of(&["./nothing/here"]), (127, 0, 127)),
        (place.spec_of(&["./plain"]), (126, 0, 126)),
        (place.spec_of(&["./dir"]), (126, 0, 126)),
    ];
    let visible = json!([
        place.visible("plain", "#!/bin/sh\n"),
        {"path": "dir", "type": "directory", "mode": 0o755, "mtime": 0},
    ]);
    for (mut spec, expected) in cases {
        spec["visible"] = visible.clone();
        // Of directories that may not be searched a command might be in any.
        spec["environment"] = json!([
            "PATH=/usr/bin:/bin",
            format!("HOME={}", place.flag("").display())
        ]);
        assert_eq!(ends(&place, &spec), expected, "{}", spec["command"]);
    }
    place.expect_clean();
}

#[test]
fn a_result_counts_the_requests_of_the_kernel() {
    needs_fuse!();
    let place = Place::new();
    let result = place.result_of(&place.spec(": > out; cat out; rm out"));
    let counts = result["fuse-ops"].as_object().expect("an object");
    let count = |name: &str| counts.get(name).and_then(serde_json::Value::as_u64);
    assert_eq!(count("create"), Some(1), "{result}");
    assert_eq!(count("open"), Some(1), "{result}");
    assert_eq!(count("unlink"), Some(1), "{result}");
    assert!(count("lookup") >= Some(1), "{result}");
    assert_eq!(count("rename"), None, "{result}");
}

#[test]
fn without_a_workspace_there_is_no_view() {
    let place = Place::new();
    place.write("there.txt", "real");
    let mut spec = place.spec("cat there.txt > copy.txt");
    spec["mount-ops"] = json!([]);
    let result = place.result_of(&spec);
    assert_eq!(place.read("copy.txt"), b"real");
    assert_eq!(result["view"], false);
    assert_eq!(
        (&result["inputs"], &result["outputs"]),
        (&json!([]), &json!([]))
    );
    let absent = [
        "staging_files",
        "hashed_files",
        "staging_root",
        "data-path",
        "fuse-ops",
    ];
    for absent in absent {
        assert!(result.get(absent).is_none(), "{absent}: {result}");
    }
    assert_eq!(
        ends(&place, &{
            spec["command"] = json!(["sh", "-c", "kill -9 $$"]);
            spec
        }),
        (137, 0, -9)
    );
    assert!(
        place.daemons().is_empty(),
        "a job without a view needs no daemon"
    );
}

#[test]
fn several_places_show_one_view() {
    needs_fuse!();
    let place = Place::new();
    let second = place.root().join("second");
    std::fs::create_dir(&second).expect("a directory");
    std::fs::write(second.join("real"), "hidden").expect("a file");
    let script = format!(
        "echo x > a; cat {0}/a; ls {0}; echo y > {0}/b; cat b; pwd",
        second.display()
    );
    let mut spec = place.spec(&script);
    spec["mount-ops"] = json!([
        {"type": "workspace", "destination": "."},
        {"type": "workspace", "destination": second.to_str()},
    ]);
    let (outcome, result) = place.batch_call(&spec, &[]);
    let workspace = place.workspace().canonicalize().expect("a path");
    assert_eq!(
        outcome.expect(0).stdout(),
        format!("x\na\ny\n{}\n", workspace.display())
    );
    assert_eq!(strings(&result.expect("a result")["outputs"]), ["a", "b"]);
    assert_eq!(
        std::fs::read_dir(&second).expect("a directory").count(),
        1,
        "nothing is written outside"
    );
}

#[test]
fn directory_stdin_and_environment_are_as_given() {
    needs_fuse!();
    let place = Place::new();
    let mut spec = place.spec_of(&["/usr/bin/env"]);
    spec["environment"] = json!(["B=2", "A=with space=and more"]);
    let (outcome, _) = place.batch_call(&spec, &[]);
    let stdout = outcome.expect(0).stdout();
    let mut lines: Vec<_> = stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=with space=and more", "B=2"]);

    let mut spec = place.spec("cat; pwd; cat ../top");
    spec["directory"] = json!("sub/dir");
    spec["stdin"] = json!("in.txt");
    spec["visible"] = json!([
        place.visible("sub/dir/in.txt", "from stdin\n"),
        place.visible("sub/top", "top")
    ]);
    let (outcome, result) = place.batch_call(&spec, &[]);
    let directory = place
        .workspace()
        .canonicalize()
        .expect("a path")
        .join("sub/dir");
    assert_eq!(
        outcome.expect(0).stdout(),
        format!("from stdin\n{}\ntop", directory.display())
    );
    assert_eq!(
        strings(&result.expect("a result")["inputs"]),
        ["sub/dir/in.txt", "sub/top"]
    );
    // Without one, standard input is empty.
    assert_eq!(
        place
            .batch_call(&place.spec("cat; echo end"), &[])
            .0
            .expect(0)
            .stdout(),
        "end\n"
    );
}

/// Regression: when the first thing a job did was to make a file, and its user was not 0, it was
/// denied, since the kernel took the root of the view for a directory of user 0.
#[test]
fn a_job_sees_itself_as_the_user_of_the_spec() {
    needs_fuse!();
    let place = Place::new();
    let mut spec = place.spec("id -u; id -g; touch made; stat -c '%u %g' made in");
    spec["user-id"] = json!(1234);
    spec["group-id"] = json!("2345");
    spec["visible"] = json!([place.visible("in", "")]);
    let (outcome, _) = place.batch_call(&spec, &[]);
    assert_eq!(
        outcome.expect(0).stdout(),
        "1234\n2345\n1234 2345\n1234 2345\n"
    );
}

#[test]
fn only_a_writable_input_can_be_rewritten() {
    needs_fuse!();
    let place = Place::new();
    let mut writable = place.visible("log", "old\n");
    writable["writable"] = json!(true);
    let mut spec =
        place.spec("echo new >> log; cat log; (echo no >> fixed) 2>/dev/null || echo refused");
    spec["visible"] = json!([writable, place.visible("fixed", "fixed")]);
    let (outcome, result) = place.batch_call(&spec, &[]);
    assert_eq!(outcome.expect(0).stdout(), "old\nnew\nrefused\n");
    let result = result.expect("a result");
    assert_eq!(strings(&result["outputs"]), ["log"]);
    assert_eq!(
        result["hashed_files"]["log"]["hash"],
        Digest::of(b"old\nnew\n").to_string()
    );
    // The blob that it was made from is what it was.
    assert!(place.verifies(BATCH_STORE.as_ref()));
}

#[test]
fn background_processes_end_with_the_job() {
    needs_fuse!();
    let place = Place::new();
    let script = "(sleep 0.2; echo late > late) & setsid sleep 300 & (trap '' TERM HUP; sleep 300) & echo done > done";
    let result = place.result_of(&place.spec(script));
    assert_eq!(strings(&result["outputs"]), ["done"]);
    assert!(place.processes().is_empty(), "{:?}", place.processes());
    assert!(place.mounts().is_empty(), "{:?}", place.mounts());
}

#[test]
fn a_result_that_cannot_be_written_is_told_before_the_job_runs() {
    let place = Place::new();
    let mut spec = place.spec("touch ran");
    spec["mount-ops"] = json!([]);
    let spec_file = place.root().join("spec.json");
    std::fs::write(&spec_file, spec.to_string()).expect("a spec");
    let readonly_name = if rustix::process::geteuid().is_root() {
        "/proc/r.json"
    } else {
        "/r.json"
    };
    std::fs::create_dir(place.workspace().join("a-directory")).expect("a directory");
    for result in ["missing/dir/r.json", readonly_name, "a-directory"] {
        let outcome = place.call([
            OsStr::new("-p"),
            spec_file.as_os_str(),
            "-o".as_ref(),
            result.as_ref(),
        ]);
        let outcome = outcome.expect(125);
        let line = outcome.stderr();
        assert!(
            line.starts_with("wakebox: ") && line.lines().count() == 1,
            "{line}"
        );
        assert!(line.contains(result), "{line}");
        assert!(
            !place.workspace().join("ran").exists(),
            "{result}: the job ran"
        );
    }
}

#[test]
fn a_result_appears_whole_and_replaces_an_old_one() {
    let place = Place::new();
    let mut spec = place.spec(r#"cat "$HOME/r.json"; ls -A "$HOME" | wc -l"#);
    spec["mount-ops"] = json!([]);
    let (spec_file, result) = (place.root().join("spec.json"), place.flag("r.json"));
    std::fs::write(&spec_file, spec.to_string()).expect("a spec");
    std::fs::write(&result, "old").expect("a file");
    let outcome = place.call([
        OsStr::new("-p"),
        spec_file.as_os_str(),
        "-o".as_ref(),
        result.as_os_str(),
    ]);
    // While the job runs the old one is there, and the new one has no name yet.
    assert_eq!(outcome.expect(0).stdout(), "old1\n");
    let text = std::fs::read_to_string(&result).expect("a result");
    assert!(
        serde_json::from_str::<Value>(&text).is_ok() && !text.contains('\n'),
        "{text}"
    );
    let names = std::fs::read_dir(place.flag(""))
        .expect("a directory")
        .flatten();
    assert_eq!(
        names.filter(|entry| entry.file_name() != ".cache").count(),
        1,
        "the temporary file is gone"
    );
}

#[test]
fn a_result_may_go_to_a_pipe() {
    let place = Place::new();
    let mut spec = place.spec("echo told");
    spec["mount-ops"] = json!([]);
    let spec_file = place.root().join("spec.json");
    std::fs::write(&spec_file, spec.to_string()).expect("a spec");
    let outcome = place.call([
        OsStr::new("-p"),
        spec_file.as_os_str(),
        "-o".as_ref(),
        "/dev/stdout".as_ref(),
    ]);
    let stdout = outcome.expect(0).stdout();
    let document = stdout
        .strip_prefix("told\n")
        .expect("the job's output comes first");
    assert_eq!(
        serde_json::from_str::<Value>(document).expect("JSON")["usage"]["status"],
        0
    );
}

/// Regression: `/dev/stdout` is a link, and when standard output was a file, a temporary file was
/// made in `/dev` and the link replaced by it.
#[test]
fn a_result_goes_where_a_link_points() {
    let place = Place::new();
    let mut spec = place.spec("echo told");
    spec["mount-ops"] = json!([]);
    let spec_file = place.root().join("spec.json");
    std::fs::write(&spec_file, spec.to_string()).expect("a spec");
    let links = [("to-stdout", "/proc/self/fd/1"), ("to-file", "file.json")];
    for (link, target) in links {
        std::os::unix::fs::symlink(target, place.flag(link)).expect("a link");
    }
    std::fs::write(place.flag("file.json"), "a long old content that must go").expect("a file");
    let out = std::fs::File::create(place.flag("out")).expect("a file");
    for (link, stdout) in [("to-stdout", Stdio::from(out)), ("to-file", Stdio::null())] {
        let mut command = place.command([OsStr::new("-p"), spec_file.as_os_str(), "-o".as_ref()]);
        let output = command
            .arg(place.flag(link))
            .stdout(stdout)
            .output()
            .expect("starts");
        Outcome(output).expect(0);
        assert!(place.flag(link).is_symlink(), "{link} was replaced");
    }
    let out = std::fs::read_to_string(place.flag("out")).expect("a file");
    let document = out
        .strip_prefix("told\n")
        .expect("the job's output comes first");
    let file = std::fs::read_to_string(place.flag("file.json")).expect("a file");
    for document in [document, &file] {
        assert!(
            serde_json::from_str::<Value>(document).is_ok(),
            "{document}"
        );
    }
}

#[test]
fn a_blob_that_went_since_an_equal_job_fails_the_next() {
    needs_fuse!();
    let place = Place::new();
    let mut spec = place.spec("cat sub/in");
    spec["visible"] = json!([place.visible("sub/in", "soon gone")]);
    place.result_of(&spec);
    let hash = spec["visible"][0]["hash"].as_str().expect("a hash");
    let blob = place
        .call(["cas", "--store", BATCH_STORE, "path", hash])
        .expect(0)
        .stdout();
    std::fs::remove_file(blob.trim_end()).expect("the blob is removed");
    wait_for("the blob to go", || {
        !std::path::Path::new(blob.trim_end()).exists()
    });
    let (outcome, result) = place.batch_call(&spec, &["-I"]);
    let outcome = outcome.expect(125);
    let told = outcome.stderr();
    let line = told.lines().last().expect("a line");
    assert!(
        line.starts_with("wakebox: ") && line.contains(hash) && line.contains("sub/in"),
        "{told}"
    );
    let result = result.expect("a result of a job that was not served");
    assert_eq!(result["sandbox-error"]["kind"], "daemon");
    place.expect_clean();
}
