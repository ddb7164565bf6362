//! Jobs that run twice: what is not the same is told, and where.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use wakebox_tests::{Outcome, Place, needs_fuse, skip};

fn check(place: &Place, spec: &Value) -> Outcome {
    check_with(place, spec, &[])
}

fn check_with(place: &Place, spec: &Value, arguments: &[&str]) -> Outcome {
    place.write("spec.json", spec.to_string());
    place.call(["check", "spec.json"].iter().chain(arguments))
}

/// What a check of a script tells. It has to find a difference.
fn differences(place: &Place, script: &str, visible: Value) -> String {
    let mut spec = place.spec(script);
    spec["visible"] = visible;
    check(place, &spec).expect(1).stdout()
}

fn works(tool: &str) -> bool {
    let output = Command::new(tool).arg("--version").output();
    output.is_ok_and(|output| output.status.success())
}

macro_rules! needs {
    ($($tool:expr),+) => {
        needs_fuse!();
        if let Some(tool) = [$($tool),+].into_iter().find(|tool| !works(tool)) {
            skip!(format!("there is no {tool}"));
        }
    };
}

#[test]
fn a_compiler_with_fixed_inputs_makes_the_same() {
    needs!("cc", "ar");
    let place = Place::new();
    place.write("main.c", "#include \"u.h\"\nint main(void) { return U; }\n");
    place.write("u.h", "#define U 0\n");
    let script = "cc -g -c -o main.o main.c && cc -o main main.o && ar crD lib.a main.o";
    let mut spec = place.spec(script);
    spec["visible"] = json!(["main.c", "u.h"]);
    let begin = Instant::now();
    let outcome = check(&place, &spec).expect(0);
    assert!(
        begin.elapsed().as_secs() >= 2,
        "the runs are two seconds apart"
    );
    assert_eq!(outcome.stdout(), "");
    assert!(
        outcome.stderr().contains("3 outputs, identical"),
        "{}",
        outcome.stderr()
    );
    place.expect_clean();
}

#[test]
fn the_time_in_a_program_is_found_with_its_section() {
    needs!("cc");
    let place = Place::new();
    place.write(
        "time.c",
        "const char when[] = __TIME__;\nint main(void) { return when[0] == 0; }\n",
    );
    let told = differences(
        &place,
        "cc -c -o time.o time.c; cc -o time time.o",
        json!(["time.c"]),
    );
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines.len(), 2, "{told}");
    for (line, name) in lines.iter().zip(["time", "time.o"]) {
        assert!(
            line.starts_with(&format!("`{name}` differs: first at byte ")),
            "{line}"
        );
    }
    assert!(lines[1].ends_with("in section `.rodata`"), "{told}");
}

#[test]
fn a_random_build_id_is_found() {
    needs!("cc");
    let place = Place::new();
    place.write("main.c", "int main(void) { return 0; }\n");
    let script = "cc -Wl,--build-id=uuid -o main main.c";
    let told = differences(&place, script, json!(["main.c"]));
    assert!(
        told.ends_with("in section `.note.gnu.build-id`\n"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn each_condition_is_another_in_the_second_run() {
    needs_fuse!();
    let place = Place::new();
    let visible = json!([
        place.visible("d/a", ""),
        place.visible("d/b", ""),
        place.visible("d/c", "")
    ]);
    let sources = [
        ("order", "ls -U d > out"),
        (
            "order of what is made",
            "mkdir e; touch e/a e/b e/c; ls -U e > out",
        ),
        ("host", "cat /proc/sys/kernel/hostname > out"),
        ("process", "echo $$ > out"),
        ("time", "date +%s > out"),
    ];
    for (what, script) in sources {
        let told = differences(&place, script, visible.clone());
        assert!(told.starts_with("`out` differs: "), "{what}: {told}");
        assert_eq!(told.lines().count(), 1, "{what}: {told}");
    }
    // What a spec says holds for both.
    let mut spec = place.spec("cat /proc/sys/kernel/hostname > out; ls d > list");
    spec["hostname"] = json!("box");
    spec["visible"] = visible;
    check(&place, &spec).expect(0);
}

#[test]
fn every_kind_of_difference_is_told() {
    needs_fuse!();
    let place = Place::new();
    let script = "echo > mode; printf same > tail\n\
        case $(cat /proc/sys/kernel/hostname) in\n\
        not-*) echo > second; chmod 600 mode; ln -s b link; mkdir kind; printf more >> tail;;\n\
        *) echo > first; ln -s a link; echo > kind;; esac";
    let told = differences(&place, script, json!([]));
    let expected = "`first` is made by the first run only\n\
        `kind` is not the same kind of file\n\
        `link` is a link to different targets\n\
        `mode` has mode 0644 or 0600\n\
        `second` is made by the second run only\n\
        `tail` differs: one ends at byte 4, the lengths are 4 and 8\n";
    assert_eq!(told, expected);
}

#[test]
fn members_of_archives_are_named() {
    needs!("ar", "zip", "python3");
    let place = Place::new();
    let member = "date +%s > when; echo fixed > fixed";
    let told = differences(
        &place,
        &format!("{member}; ar crD lib.a fixed when; rm when"),
        json!([]),
    );
    assert!(told.ends_with("in member `when`\n"), "{told}");
    let told = differences(
        &place,
        &format!("{member}; ar crU lib.a fixed; rm fixed when"),
        json!([]),
    );
    assert!(
        told.ends_with("in the header of member `fixed`\n"),
        "{told}"
    );
    let zip = "python3 -c 'import zipfile, time\n\
        z = zipfile.ZipFile(\"x.zip\", \"w\")\n\
        z.writestr(zipfile.ZipInfo(\"fixed\"), \"fixed\")\n\
        z.writestr(zipfile.ZipInfo(\"when\"), str(time.time()))\n\
        z.close()'";
    let told = differences(&place, zip, json!([]));
    // Its checksum differs, too, and comes first.
    assert!(told.ends_with("in the header of member `when`\n"), "{told}");
    let told = differences(
        &place,
        &format!("{member}; zip -q x.zip fixed; rm fixed when"),
        json!([]),
    );
    assert!(
        told.ends_with("in the header of member `fixed`\n"),
        "{told}"
    );
    let told = differences(&place, "echo x > f; gzip f", json!([]));
    assert!(told.ends_with("in the time of the gzip header\n"), "{told}");
}

#[test]
fn inputs_in_every_form_are_there_in_both_runs() {
    needs_fuse!();
    let place = Place::new();
    place.write("named", "named");
    place.write("tree/rooted", "rooted");
    let store = ["--store", ".build/cas", "import", "tree"];
    let tree = place.call(["cas"].iter().chain(&store)).expect(0).stdout();
    let mut rewritten = place.visible("rewritten", "before");
    rewritten["writable"] = json!(true);
    let mut spec =
        place.spec("cat named plain oldest rooted link; echo x >> rewritten; test -d dir");
    spec["input-root"] = json!(tree.trim_end());
    spec["visible"] = json!([
        "named",
        place.visible("plain", "plain"),
        {"path": "oldest", "hash": place.put("oldest")},
        {"path": "link", "type": "symlink", "hash": place.put("plain"), "mode": 511, "mtime": 0},
        {"path": "dir", "type": "directory", "mode": 493, "mtime": 0},
        rewritten,
    ]);
    let outcome = check(&place, &spec).expect(0);
    assert!(
        outcome.stderr().contains("1 outputs, identical"),
        "{}",
        outcome.stderr()
    );
    assert_eq!(outcome.stdout(), "", "what the job prints is no finding");
}

#[test]
fn a_job_that_fails_is_told_and_gives_its_code() {
    needs_fuse!();
    let place = Place::new();
    let outcome = check(&place, &place.spec("echo x > out; exit 7")).expect(7);
    assert!(
        outcome.stderr().contains("failed with exit code 7"),
        "{}",
        outcome.stderr()
    );
    let script = "case $(cat /proc/sys/kernel/hostname) in not-*) exit 4;; esac";
    let outcome = check(&place, &place.spec(script)).expect(1);
    assert_eq!(
        outcome.stdout(),
        "the exit code is 0 in one run, 4 in the other\n"
    );
    let outcome = check(&place, &json!({"command": ["true"]})).expect(2);
    assert!(
        outcome.stderr().contains("no workspace"),
        "{}",
        outcome.stderr()
    );
    place.call(["check", "none.json"]).expect(2);
    place.expect_clean();
}

#[test]
fn dates_are_faked_or_it_is_said_that_they_are_not() {
    needs_fuse!();
    let place = Place::new();
    let spec = place.spec("date +%Y > out");
    let outcome = check_with(&place, &spec, &["--fake-time"]);
    if outcome.stderr().contains("libfaketime is missing") {
        outcome.expect(0);
        skip!("there is no libfaketime");
    }
    assert!(outcome.expect(1).stdout().starts_with("`out` differs"));
}

#[test]
fn diffoscope_shows_what_differs_if_it_is_there() {
    needs_fuse!();
    let place = Place::new();
    let program = place.root().join("bin/diffoscope");
    std::fs::create_dir(place.root().join("bin")).expect("a directory");
    std::fs::write(
        &program,
        "#!/bin/sh\nfor f; do basename $f; cat $f; done\nexit 1\n",
    )
    .expect("a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let script = "cut -c1-4 /proc/sys/kernel/hostname | tr -d '\\n' > name; echo same > same";
    place.write("spec.json", place.spec(script).to_string());
    let mut command = place.command(["check", "spec.json"]);
    let path = std::env::var("PATH").expect("a path");
    let bin = place.root().join("bin");
    command.env("PATH", format!("{}:{path}", bin.display()));
    let outcome = Outcome(command.output().expect("it runs")).expect(1);
    let told = outcome.stdout();
    assert_eq!(told.matches("name\n").count(), 2, "{told}");
    assert!(told.contains("not-") && !told.contains("same"), "{told}");
}
