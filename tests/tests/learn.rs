//! Specs that are learned: that they hold what a job needs, and that they say when they are outdated.

use std::process::Command;

use serde_json::{Value, json};
use wakebox_tests::job::strings;
use wakebox_tests::{Outcome, Place, needs_fuse, skip};

fn learn(place: &Place, arguments: &[&str]) -> Value {
    let outcome = place.call(["learn"].iter().chain(arguments)).expect(0);
    serde_json::from_str(&outcome.stdout()).expect("a spec")
}

fn script(place: &Place, script: &str) -> Value {
    learn(place, &["--", "sh", "-c", script])
}

fn check(place: &Place, spec: &Value) -> Outcome {
    place.write("spec.json", spec.to_string());
    place.call(["learn", "--check", "spec.json"])
}

/// What a job by a spec makes, by path: kinds, contents and modes, but no times.
fn made(result: &Value) -> Value {
    let mut files = result["hashed_files"].clone();
    for entry in files.as_object_mut().expect("outputs").values_mut() {
        let entry = entry.as_object_mut().expect("an output");
        entry.remove("mtime_sec");
        entry.remove("mtime_nsec");
    }
    files
}

#[test]
fn what_was_used_is_learned_and_nothing_else() {
    needs_fuse!();
    let place = Place::new();
    for name in ["read", "looked-at", "unused", "dir/a", "dir/b", "empty/x"] {
        place.write(name, name);
    }
    place.write("tool", "#!/bin/sh\ncat read\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.workspace().join("tool"), mode).expect("a mode");
    std::os::unix::fs::symlink("read", place.workspace().join("link")).expect("a link");
    let spec = script(
        &place,
        "./tool > out; test -s looked-at; cat link dir/a; test -e dir/none; test -e empty/none; \
         mkdir made; echo > made/x; test -e made/none; exit 0",
    );
    assert_eq!(
        strings(&spec["visible"]),
        ["dir/a", "empty", "link", "looked-at", "read", "tool"]
    );
    assert_eq!(strings(&spec["outputs"]), ["made", "made/x", "out"]);
    assert_eq!(strings(&spec["probes"]), ["dir/none", "empty/none"]);
    assert_eq!(spec["listed"], json!({}));
    assert_eq!(spec["command"][0], "sh");
    assert!(
        !place.workspace().join("out").exists(),
        "nothing is published"
    );
    let result = place.result_of(&spec);
    assert_eq!(strings(&result["outputs"]), ["made", "made/x", "out"]);
}

#[test]
fn a_file_that_is_only_looked_at_after_a_listing_is_learned() {
    needs_fuse!();
    let place = Place::new();
    for name in ["d/seen", "d/other", "else"] {
        place.write(name, "");
    }
    // The shell lists the directory, and asks for one of its files.
    let spec = script(
        &place,
        "for f in d/se*; do test -f $f && echo $f; done > out",
    );
    assert_eq!(strings(&spec["visible"]), ["d", "d/seen"]);
    let listed = spec["listed"].as_object().expect("listings");
    assert_eq!(listed.keys().collect::<Vec<_>>(), ["d"]);
}

#[test]
fn names_that_matter_by_themselves_are_found_out_by_a_second_run() {
    needs_fuse!();
    let place = Place::new();
    for name in ["d/one", "d/two", "else"] {
        place.write(name, name);
    }
    let spec = script(&place, "ls d > out");
    assert_eq!(strings(&spec["visible"]), ["d", "d/one", "d/two"]);
    let spec = script(&place, "ls d > /dev/null; echo > out");
    assert_eq!(strings(&spec["visible"]), ["d"]);
    let spec = learn(
        &place,
        &["--once", "--", "sh", "-c", "ls d > /dev/null; echo > out"],
    );
    assert_eq!(strings(&spec["visible"]), ["d", "d/one", "d/two"]);
}

#[test]
fn a_path_that_appears_and_a_listing_that_changes_are_named() {
    needs_fuse!();
    let place = Place::new();
    for name in ["in", "d/a", "other/b"] {
        place.write(name, name);
    }
    let spec = script(&place, "cat in > out; test -e no.h; ls d > list; exit 0");
    assert_eq!(check(&place, &spec).expect(0).stdout(), "");
    // What the job makes, what is in files, and what it has not looked at.
    for name in ["out", "list", "in", "other/c"] {
        place.write(name, "new");
    }
    check(&place, &spec).expect(0);
    place.write("no.h", "");
    let told = check(&place, &spec).expect(1).stdout();
    assert_eq!(
        told,
        "`no.h` exists now; the job has looked for it in vain\n"
    );
    place.write("d/c", "");
    let told = check(&place, &spec).expect(1).stdout();
    assert!(
        told.contains("`no.h`") && told.contains("`d` changed"),
        "{told}"
    );
    for gone in ["no.h", "d/c"] {
        std::fs::remove_file(place.workspace().join(gone)).expect(gone);
    }
    check(&place, &spec).expect(0);
    std::fs::remove_file(place.workspace().join("d/a")).expect("d/a");
    check(&place, &spec).expect(1);
}

#[test]
fn a_spec_that_is_written_into_a_listed_directory_does_not_change_it() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "");
    let arguments = ["learn", "--spec", "spec.json", "--", "sh", "-c", "ls > out"];
    for _ in 0..2 {
        assert_eq!(place.call(arguments).expect(0).stdout(), "");
        place.call(["learn", "--check", "spec.json"]).expect(0);
        let spec: Value = serde_json::from_slice(&place.read("spec.json")).expect("a spec");
        assert_eq!(strings(&spec["visible"]), ["in"]);
    }
    let mut command = place.command(["learn", "--", "sh", "-c", "ls > out"]);
    let file = std::fs::File::create(place.workspace().join("other.json")).expect("a file");
    assert!(command.stdout(file).status().expect("it runs").success());
    std::fs::remove_file(place.workspace().join("spec.json")).expect("a spec");
    place.call(["learn", "--check", "other.json"]).expect(1);
    let mut command = place.command(["learn", "--", "sh", "-c", "ls > out"]);
    let file = std::fs::File::create(place.workspace().join("other.json")).expect("a file");
    assert!(command.stdout(file).status().expect("it runs").success());
    place.call(["learn", "--check", "other.json"]).expect(0);
}

#[test]
fn a_job_that_fails_teaches_nothing() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "");
    let outcome = place.call(["learn", "--", "sh", "-c", "echo printed; exit 3"]);
    let outcome = outcome.expect(3);
    assert_eq!(outcome.stdout(), "", "what the job prints is no spec");
    assert!(outcome.stderr().contains("printed"), "{}", outcome.stderr());
    assert!(
        outcome.stderr().contains("failed with exit code 3"),
        "{}",
        outcome.stderr()
    );
    let outcome = place.call(["learn", "-o", "out", "--", "true"]).expect(1);
    assert!(outcome.stderr().contains("'out'"), "{}", outcome.stderr());
    place.call(["learn"]).expect(2);
    place
        .call(["learn", "--check", "spec.json", "--", "true"])
        .expect(2);
    place.expect_clean();
}

#[test]
fn a_job_that_makes_something_else_each_time_is_told() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "");
    let outcome = place.call([
        "learn",
        "--",
        "sh",
        "-c",
        "cat /proc/sys/kernel/random/uuid > out",
    ]);
    let told = outcome.expect(0).stderr();
    assert!(
        told.contains("`out` differs") && told.contains("wakebox check"),
        "{told}"
    );
}

#[test]
fn the_choice_of_inputs_and_outputs_is_as_with_run() {
    needs_fuse!();
    let place = Place::new();
    for name in ["a", "b", "old"] {
        place.write(name, name);
    }
    let script = ["sh", "-c", "cat a > old; cat b; exit 0"];
    let arguments = [&["-i", "a", "-o", "old", "--"][..], &script].concat();
    let spec = learn(&place, &arguments);
    assert_eq!(strings(&spec["visible"]), ["a"]);
    // It is there, and was not shown: no path that could appear.
    assert_eq!(spec["probes"], json!([]));
    let arguments = [&["-o", "old", "--"][..], &script].concat();
    let spec = learn(&place, &arguments);
    assert_eq!(strings(&spec["visible"]), ["a", "b"]);
    let keep = learn(
        &place,
        &["--env", "X=1", "--store", "../store", "--", "true"],
    );
    assert!(strings(&keep["environment"]).contains(&"X=1"));
    assert_eq!(keep["cas-dir"], "../store");
}

/// A Makefile for the library that decompresses: one object for each source, and an archive.
const MAKEFILE: &str = "\
DIRS = common decompress
SOURCES = $(foreach d,$(DIRS),$(wildcard lib/$(d)/*.c))
OBJECTS = $(patsubst lib/%.c,out/%.o,$(SOURCES))
libzstd.a: $(OBJECTS)
\tar crD $@ $^
out/%.o: lib/%.c
\t@mkdir -p $(dir $@)
\tcc -O0 -DZSTD_DISABLE_ASM=1 -c -o $@ $<
";

#[test]
fn a_library_is_built_by_what_was_learned_and_fails_without_one_header() {
    needs_fuse!();
    let works = |tool: &&str| {
        let output = Command::new(tool).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    if let Some(tool) = ["cc", "make", "ar"].into_iter().find(|tool| !works(tool)) {
        skip!(format!("there is no {tool}"));
    }
    let place = Place::new();
    place.write("Makefile", MAKEFILE);
    place.write("README", "nobody reads this\n");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(wakebox_tests::zstd().join("lib"))
        .arg(place.workspace())
        .status();
    assert!(copied.expect("cp").success());
    let whole = place.run(&["--json", "../whole.json", "--", "make", "-j2"]);
    whole.expect(0);
    let whole = std::fs::read(place.root().join("whole.json")).expect("a result");
    let whole: Value = serde_json::from_slice(&whole).expect("a result");
    for built in ["out", "libzstd.a"] {
        let removed = Command::new("rm")
            .arg("-r")
            .arg(place.workspace().join(built))
            .status();
        assert!(removed.expect("rm").success());
    }
    let mut spec = learn(&place, &["--", "make", "-j2"]);
    let visible = strings(&spec["visible"]);
    assert!(visible.contains(&"lib/common/mem.h") && visible.contains(&"Makefile"));
    assert!(!visible.contains(&"README"), "{visible:?}");
    assert!(
        !visible.iter().any(|path| path.contains("/compress/")),
        "{visible:?}"
    );
    check(&place, &spec).expect(0);
    let strict = place.result_of(&spec);
    assert_eq!(made(&strict), made(&whole), "the same, byte for byte");
    assert_eq!(strings(&spec["outputs"]), strings(&strict["outputs"]));

    let headers: Vec<_> = visible.iter().filter(|path| path.ends_with(".h")).collect();
    assert!(headers.len() > 20, "{headers:?}");
    for header in [
        "lib/common/mem.h",
        "lib/decompress/zstd_ddict.h",
        "lib/zstd.h",
    ] {
        let mut less = spec.clone();
        let visible = less["visible"].as_array_mut().expect("inputs");
        visible.retain(|path| path != header);
        less["record"] = json!("full");
        place.write("less.json", less.to_string());
        let outcome = place.call(["-p", "less.json", "-o", "less-result.json"]);
        assert_ne!(outcome.code(), 0, "without {header}");
        let told = place
            .call(["explain", "less-result.json"])
            .expect(0)
            .stdout();
        let first = told.lines().next().unwrap_or_default();
        assert!(
            first.starts_with(&format!("`{header}` ")),
            "{header}: {told}"
        );
    }
    spec["visible"] = json!([]);
    place.batch(&spec).0.expect(2);
}

#[test]
fn what_git_ignores_is_not_there() {
    needs_fuse!();
    let place = Place::new();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(arguments).current_dir(place.workspace());
        git.env("HOME", place.root())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !git(&["init", "-q"]) {
        skip!("there is no git");
    }
    place.write(".gitignore", "*.o\n");
    for name in ["in", "old.o", "d/a"] {
        place.write(name, "");
    }
    let spec = script(
        &place,
        "cat in; ls . d > list; test -e new.o; test -e no; exit 0",
    );
    assert_eq!(strings(&spec["visible"]), [".gitignore", "d/a", "in"]);
    assert_eq!(strings(&spec["probes"]), ["new.o", "no"]);
    place.write("new.o", "");
    place.write("d/b.o", "");
    check(&place, &spec).expect(0);
    place.write("d/b", "");
    let told = check(&place, &spec).expect(1).stdout();
    assert_eq!(told, "the entries of `d` changed; the job has listed it\n");
}
