//! Jobs that fail for what they were not shown, and what is said about it.

use serde_json::{Value, json};
use wakebox_tests::{Outcome, Place, needs_fuse, skip};

const MAIN: &str = "#include \"util.h\"\nint main(void) { return UTIL; }\n";

fn has_compiler() -> bool {
    let output = std::process::Command::new("cc").arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

macro_rules! needs_compiler {
    () => {
        needs_fuse!();
        if !has_compiler() {
            skip!("there is no cc");
        }
    };
}

/// A workspace with all that the program needs, and more.
fn place() -> Place {
    let place = Place::new();
    place.write("main.c", MAIN);
    place.write("include/util.h", "#define UTIL 0\n");
    place.write("include/other.h", "#define OTHER 0\n");
    place.write("notes.txt", "nobody looks for this\n");
    place
}

fn hints(outcome: &Outcome) -> Vec<String> {
    let told = outcome.stderr();
    let hint = |line: &&str| line.starts_with("wakebox: `");
    told.lines().filter(hint).map(str::to_owned).collect()
}

fn hint(path: &str) -> String {
    format!(
        "wakebox: `{path}` exists in the workspace but is not declared; add it to visible: -i {path}"
    )
}

fn compile(place: &Place, inputs: &[&str]) -> Outcome {
    let inputs = inputs.iter().flat_map(|input| ["-i", input]);
    let command = ["--", "cc", "-Iinclude", "-o", "main", "main.c"];
    let arguments: Vec<_> = inputs.chain(command).collect();
    place.run(&arguments)
}

#[test]
fn a_header_that_was_not_declared_is_named_unasked() {
    needs_compiler!();
    let place = place();
    let outcome = compile(&place, &["main.c", "include/other.h"]).expect(1);
    assert_eq!(hints(&outcome), [hint("include/util.h")]);
    compile(&place, &["main.c", "include/util.h"]).expect(0);
}

#[test]
fn what_earlier_builds_have_left_does_not_come_first() {
    needs_compiler!();
    let place = place();
    compile(&place, &["."]).expect(0);
    assert!(place.workspace().join("main").exists());
    let outcome = compile(&place, &["main.c", "include/other.h"]).expect(1);
    assert_eq!(hints(&outcome)[0], hint("include/util.h"));
}

#[test]
fn a_directory_that_was_not_declared_is_named_by_its_files() {
    needs_compiler!();
    let place = place();
    let outcome = compile(&place, &["main.c"]).expect(1);
    assert_eq!(
        hints(&outcome),
        [hint("include/other.h"), hint("include/util.h")]
    );
}

#[test]
fn three_lines_are_enough_and_say_that_there_are_more() {
    needs_fuse!();
    let place = Place::new();
    for number in 0..5 {
        place.write(format!("d/{number}"), "");
    }
    place.write("in", "");
    let outcome = place.run(&["-i", "in", "--", "cat", "d/x"]).expect(1);
    let hints = hints(&outcome);
    assert_eq!(hints.len(), 3);
    assert_eq!(hints[0], hint("d/0"));
    assert!(hints[2].ends_with("-i d/2 (and 2 more)"), "{}", hints[2]);
}

#[test]
fn a_typo_gives_no_hint_and_neither_does_success() {
    needs_compiler!();
    let place = place();
    place.write("main.c", "#include \"utli.h\"\n");
    let outcome = compile(&place, &["main.c", "include"]).expect(1);
    assert!(hints(&outcome).is_empty(), "{}", outcome.stderr());
    let outcome = place.run(&["-i", "main.c", "--", "sh", "-c", "cat notes.txt; true"]);
    assert!(hints(&outcome.expect(0)).is_empty());
}

#[test]
fn a_program_that_was_not_declared_is_named() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "");
    place.write("tools/run", "#!/bin/sh\n");
    let outcome = place.run(&["-i", "in", "--", "tools/run"]).expect(127);
    assert_eq!(hints(&outcome), [hint("tools/run")]);
}

/// The result of a compilation as a batch job, in a file of the workspace.
fn batch(place: &Place, visible: &Value, record: &str) -> Outcome {
    let mut spec = place.spec_of(&["cc", "-Iinclude", "-c", "-o", "main.o", "main.c"]);
    spec["visible"] = visible.clone();
    spec["record"] = json!(record);
    place.write("spec.json", spec.to_string());
    place.call(["-p", "spec.json", "-o", "result.json"])
}

fn explain(place: &Place, arguments: &[&str]) -> Outcome {
    place.call(["explain", "result.json"].iter().chain(arguments))
}

#[test]
fn the_result_of_a_batch_job_is_explained_when_asked() {
    needs_compiler!();
    let place = place();
    let outcome = batch(&place, &json!(["main.c", "include/other.h"]), "full").expect(1);
    assert!(hints(&outcome).is_empty(), "{}", outcome.stderr());
    let told = explain(&place, &[]).expect(0).stdout();
    let expected =
        "`include/util.h` exists in the workspace but is not declared; add it to visible\n";
    assert_eq!(told, expected);
    // What the job said tells one file of a directory from another.
    let outcome = batch(&place, &json!(["main.c"]), "full").expect(1);
    place.write("log", outcome.stderr());
    let told = explain(&place, &["--log", "log"]).expect(0).stdout();
    assert!(told.starts_with("`include/util.h` exists"), "{told}");
    assert_eq!(told.lines().count(), 2, "{told}");
}

#[test]
fn inputs_that_were_not_used_are_listed() {
    needs_compiler!();
    let place = place();
    batch(
        &place,
        &json!(["main.c", "include/util.h", "include/other.h", "notes.txt"]),
        "full",
    )
    .expect(0);
    let told = explain(&place, &["--unused"]).expect(0).stdout();
    let lines: Vec<_> = told.lines().collect();
    assert!(
        lines.contains(&"`include/other.h` is declared but was not used"),
        "{told}"
    );
    assert!(
        lines.contains(&"`notes.txt` is declared but was not used"),
        "{told}"
    );
    assert!(
        !told.contains("util.h") && !told.contains("`main.c`"),
        "{told}"
    );
}

#[test]
fn outputs_that_were_made_or_wanted_in_vain_are_listed() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "");
    let options = [
        "-o",
        "out",
        "-o",
        "missing",
        "--record",
        "full",
        "--json",
        "result.json",
    ];
    let command = ["--", "sh", "-c", "echo > out; echo > extra"];
    let outcome = place.run(&[&options[..], &command].concat());
    assert_ne!(outcome.code(), 0);
    let told = explain(&place, &["--unused"]).expect(0).stdout();
    for line in [
        "`in` is declared but was not used",
        "`extra` was made but is not wanted",
        "`missing` is wanted but was not made",
    ] {
        assert!(told.lines().any(|told| told == line), "{told}");
    }
    assert!(!told.contains("`out`"), "{told}");
}

#[test]
fn the_result_of_a_failed_run_can_be_explained_without_a_record() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "");
    place.write("missed", "");
    let run = ["-i", "in", "--json", "result.json", "--", "cat", "missed"];
    place.run(&run).expect(1);
    let told = explain(&place, &[]).expect(0).stdout();
    assert!(
        told.starts_with("`missed` exists in the workspace"),
        "{told}"
    );
}

#[test]
fn a_result_that_cannot_be_explained_says_what_to_do() {
    needs_compiler!();
    let place = place();
    batch(&place, &json!(["main.c"]), "none").expect(1);
    let told = explain(&place, &[]).expect(2).stderr();
    assert!(told.contains("result.json has no record"), "{told}");
    assert!(told.contains("\"record\": \"full\""), "{told}");
    place.write("result.json", "no result");
    let told = explain(&place, &[]).expect(2).stderr();
    assert!(told.contains("result.json is no result of a job"), "{told}");
    let told = place.call(["explain", "nowhere.json"]).expect(125).stderr();
    assert!(told.contains("cannot read nowhere.json"), "{told}");
}
