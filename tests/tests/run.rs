//! `wakebox run`, as at a shell: what goes in, what comes out, and what is said.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use cas::Digest;
use serde_json::Value;
use wakebox_tests::job::{strings, wait_for};
use wakebox_tests::{Outcome, Place, needs_fuse, skip};

/// A workspace with a few files.
fn place() -> Place {
    let place = Place::new();
    for (path, content) in [
        ("a.txt", "a"),
        ("b.txt", "b"),
        ("src/c.c", "c"),
        ("src/deep/d.h", "d"),
    ] {
        place.write(path, content);
    }
    place
}

const FIND: [&str; 4] = ["--", "sh", "-c", "find . -type f | sort"];

fn seen(place: &Place, arguments: &[&str]) -> String {
    let arguments: Vec<_> = arguments.iter().chain(&FIND).copied().collect();
    place.run(&arguments).expect(0).stdout().replace('\n', " ")
}

#[test]
fn inputs_are_files_directories_and_globs() {
    needs_fuse!();
    let place = place();
    assert_eq!(seen(&place, &["-i", "a.txt"]), "./a.txt ");
    assert_eq!(seen(&place, &["-i", "src"]), "./src/c.c ./src/deep/d.h ");
    assert_eq!(seen(&place, &["-i", "*.txt"]), "./a.txt ./b.txt ");
    assert_eq!(
        seen(&place, &["-i", "src/**/*.h", "-i", "b.txt"]),
        "./b.txt ./src/deep/d.h "
    );
    assert_eq!(
        seen(&place, &["-i", "."]),
        "./a.txt ./b.txt ./src/c.c ./src/deep/d.h "
    );
    assert_eq!(
        seen(&place, &[]),
        "./a.txt ./b.txt ./src/c.c ./src/deep/d.h "
    );
    let absolute = place.workspace().join("a.txt");
    assert_eq!(
        seen(&place, &["-i", absolute.to_str().expect("text")]),
        "./a.txt "
    );
}

#[test]
fn an_input_that_is_not_there_is_an_error() {
    let place = place();
    for (pattern, word) in [
        ("nothing", "does not exist"),
        ("*.nothing", "matches nothing"),
        ("../x", "'..'"),
        ("", ""),
    ] {
        let outcome = place.run(&["-i", pattern, "--", "touch", "ran"]).expect(2);
        let told = outcome.stderr();
        assert!(
            told.starts_with("wakebox: ") && told.lines().count() == 1,
            "{told}"
        );
        assert!(told.contains(pattern) && told.contains(word), "{told}");
    }
    assert!(!place.workspace().join("ran").exists());
}

#[test]
fn in_a_checkout_inputs_are_what_git_does_not_ignore() {
    needs_fuse!();
    let place = place();
    place.write(".gitignore", "b.txt\n");
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.args(arguments)
            .current_dir(place.workspace())
            .env("HOME", place.flag(""));
        git.output().is_ok_and(|output| output.status.success())
    };
    if !git(&["init", "-q"]) || !git(&["add", "a.txt"]) {
        skip!("there is no git");
    }
    assert_eq!(
        seen(&place, &[]),
        "./.gitignore ./a.txt ./src/c.c ./src/deep/d.h "
    );
}

#[test]
fn all_outputs_are_published_unless_some_are_wanted() {
    needs_fuse!();
    let place = Place::new();
    let script = "mkdir -p d/e; echo x > d/e/f; chmod 751 d/e/f; ln -s e d/l; echo y > y; touch -d @1234567890.5 y";
    place.run(&["-o", "y", "--", "sh", "-c", script]).expect(0);
    assert_eq!(seen(&place, &["-i", "."]), "./y ");
    let is = place.workspace().join("y").metadata().expect("published");
    assert_eq!((is.mtime(), is.mtime_nsec()), (1_234_567_890, 500_000_000));
    let place = Place::new();
    place.run(&["-o", "d", "--", "sh", "-c", script]).expect(0);
    assert_eq!(place.read("d/e/f"), b"x\n");
    let mode = place
        .workspace()
        .join("d/e/f")
        .metadata()
        .expect("published")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o751);
    assert_eq!(
        std::fs::read_link(place.workspace().join("d/l")).expect("a link"),
        OsStr::new("e")
    );
    place.expect_clean();
}

#[test]
fn a_wanted_output_that_is_not_made_is_named() {
    needs_fuse!();
    let place = place();
    let outcome = place
        .run(&[
            "-o",
            "out/wanted",
            "-o",
            "a",
            "--",
            "sh",
            "-c",
            "echo x > a",
        ])
        .expect(1);
    assert!(
        outcome.stderr().contains("'out/wanted'"),
        "{}",
        outcome.stderr()
    );
    assert_eq!(outcome.stderr().lines().count(), 1);
    // A job that fails says so itself.
    let outcome = place
        .run(&["-o", "out/wanted", "--", "sh", "-c", "exit 9"])
        .expect(9);
    assert_eq!(outcome.stderr(), "");
}

#[test]
fn a_failed_job_publishes_only_on_request() {
    needs_fuse!();
    let place = Place::new();
    let fails = ["--", "sh", "-c", "echo x > out; exit 7"];
    place.run(&fails).expect(7);
    assert!(!place.workspace().join("out").exists());
    let arguments: Vec<_> = ["--publish-on-failure"]
        .iter()
        .chain(&fails)
        .copied()
        .collect();
    place.run(&arguments).expect(7);
    assert_eq!(place.read("out"), b"x\n");
}

#[test]
fn a_writable_input_is_published_if_it_changed() {
    needs_fuse!();
    let place = place();
    let before = |name: &str| {
        place
            .workspace()
            .join(name)
            .metadata()
            .expect("there")
            .ino()
    };
    let (a, b) = (before("a.txt"), before("b.txt"));
    let script = "echo more >> a.txt; : >> b.txt; rm src/c.c";
    let result = place.flag("r.json");
    let json = result.to_str().expect("text");
    place
        .run(&[
            "--rw", "*.txt", "--rw", "src/c.c", "--json", json, "--", "sh", "-c", script,
        ])
        .expect(0);
    assert_eq!(place.read("a.txt"), b"amore\n");
    assert_ne!(before("a.txt"), a, "replaced, not rewritten");
    assert_eq!(
        (before("b.txt"), place.read("b.txt")),
        (b, b"b".to_vec()),
        "not touched"
    );
    assert_eq!(
        place.read("src/c.c"),
        b"c",
        "only outputs are published, not removals"
    );
    let text = std::fs::read_to_string(&result).expect("a result");
    let result: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(strings(&result["outputs"]), ["a.txt"]);
    let refused = place.run(&["-i", "a.txt", "--", "sh", "-c", "echo no >> a.txt"]);
    assert_ne!(refused.code(), 0);
}

/// The variables that a job has.
fn variables(place: &Place, options: &[&str]) -> BTreeMap<String, String> {
    let options = ["run", "--quiet"].iter().chain(options);
    let mut command = place.command(options.chain(&["--", "env"]));
    command
        .env("PASSED", "yes")
        .env("HIDDEN", "no")
        .env("TERM", "dumb");
    let stdout = Outcome(command.output().expect("starts"))
        .expect(0)
        .stdout();
    let pairs = stdout.lines().filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn the_environment_is_passed_as_asked() {
    needs_fuse!();
    let place = Place::new();
    let asked = [
        "--env", "PASSED", "-e", "SET=a=b", "-e", "ABSENT", "-e", "LANG=x",
    ];
    let inside = variables(&place, &asked);
    let names: Vec<_> = inside.keys().collect();
    assert_eq!(names, ["HOME", "LANG", "PASSED", "PATH", "SET"]);
    let values = ["HOME", "LANG", "PASSED", "SET"].map(|name| inside[name].as_str());
    assert_eq!(values, ["/home/job", "x", "yes", "a=b"]);
    let host = variables(&place, &["--host"]);
    let names: Vec<_> = host.keys().collect();
    assert_eq!(names, ["HOME", "PATH", "TERM"]);
    assert_eq!(
        host["HOME"],
        place.flag("").to_str().expect("text").trim_end_matches('/')
    );
}

#[test]
fn every_end_has_its_code() {
    needs_fuse!();
    let place = place();
    for (arguments, code) in [
        (&["--", "true"][..], 0),
        (&["--", "sh", "-c", "exit 33"], 33),
        (&["--", "sh", "-c", "kill -9 $$"], 137),
        (&["--", "no-such-program"], 127),
        (&["-i", "a.txt", "--", "./a.txt"], 126),
        (&["--timeout", "0.2", "--", "sleep", "60"], 124),
        (&["--timeout", "0", "--", "true"], 2),
        // Options after the command are its own; before it, a mistyped one is no command.
        (&["sh", "-c", "exit 5", "--quiet"], 5),
        (&["--no-such-option", "--", "true"], 2),
        (&[], 2),
    ] {
        // Of directories that may not be searched a command might be in any.
        let mut command = place.command(["run", "--quiet"].iter().chain(arguments));
        let output = command.env("PATH", "/usr/bin:/bin").output();
        let outcome = Outcome(output.expect("starts"));
        assert_eq!(outcome.code(), code, "{arguments:?}: {}", outcome.stderr());
    }
    place.expect_clean();
}

#[test]
fn bytes_pass_through_unaltered() {
    needs_fuse!();
    let place = Place::new();
    let mut command = place.command(["run", "--quiet", "--", "sh", "-c", "tee /dev/stderr"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let bytes: Vec<u8> = (0..40_000_u32).map(|n| (n * 7 % 256) as u8).collect();
    let mut child = command.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let output = child.wait_with_output().expect("ends");
    writer.join().expect("joins").expect("all is read");
    assert!(
        output.stdout == bytes && output.stderr == bytes,
        "bytes were lost or added"
    );
}

#[test]
fn a_summary_is_one_line_and_can_be_left_out() {
    needs_fuse!();
    let place = place();
    let job = [
        "--",
        "sh",
        "-c",
        "cat a.txt; echo job >&2; echo 12345 > out",
    ];
    let loud = place
        .call(["run", "-i", "a.txt", "-i", "b.txt"].iter().chain(&job))
        .expect(0);
    assert_eq!(loud.stdout(), "a");
    let stderr = loud.stderr();
    let told = stderr.strip_prefix("job\n").expect("the job comes first");
    assert!(
        told.starts_with("wakebox: ") && told.lines().count() == 1,
        "{told}"
    );
    for part in [
        "2 inputs declared",
        "1 used",
        "1 outputs",
        "1 published",
        "6 B",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(
        place
            .run(&["-o", "out", "--", "sh", "-c", job[3]])
            .expect(0)
            .stderr(),
        "job\n"
    );
}

#[test]
fn a_result_document_is_written_on_request() {
    needs_fuse!();
    let place = place();
    let file = place.flag("result.json");
    let json = file.to_str().expect("text");
    place
        .run(&[
            "--json",
            json,
            "--",
            "sh",
            "-c",
            "cat src/c.c > out; exit 4",
        ])
        .expect(4);
    let text = std::fs::read_to_string(&file).expect("a result");
    let result: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(result["usage"]["status"], 4);
    assert_eq!(strings(&result["inputs"]), ["src/c.c"]);
    assert_eq!(
        result["hashed_files"]["out"]["hash"],
        Digest::of(b"c").to_string()
    );
    assert!(result.get("staging_files").is_none());
}

/// Starts a job that says when it runs and waits to be let on, and acts in between.
fn while_a_job_waits(place: &Place, script: &str, act: impl FnOnce()) -> Outcome {
    let script =
        format!("touch $HOME/started; while ! test -e $HOME/go; do sleep 0.02; done; {script}");
    let mut command = place.command(["run", "--quiet", "--host", "--", "sh", "-c", &script]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    wait_for("the job to start", || place.flag("started").exists());
    act();
    std::fs::write(place.flag("go"), "").expect("a flag");
    Outcome(child.wait_with_output().expect("ends"))
}

#[test]
fn a_destination_that_changed_meanwhile_is_not_overwritten() {
    needs_fuse!();
    let place = Place::new();
    place.write("old", "");
    let script = "echo job > aa; echo job > out.txt; echo job > zz";
    let outcome = while_a_job_waits(&place, script, || {
        place.write("out.txt", "edited meanwhile")
    });
    let outcome = outcome.expect(125);
    let told = outcome.stderr();
    assert!(
        told.starts_with("wakebox: ") && told.lines().count() == 1,
        "{told}"
    );
    assert!(
        told.contains("out.txt") && told.contains("nothing was published"),
        "{told}"
    );
    assert_eq!(place.read("out.txt"), b"edited meanwhile");
    assert_eq!(
        std::fs::read_dir(place.workspace())
            .expect("a directory")
            .count(),
        2
    );
    place.expect_clean();
}

/// Regression: a file written in the moment before the start was taken for one that had been
/// changed after it, for the start was read from a clock that runs behind.
#[test]
fn what_is_not_declared_is_not_seen_but_may_be_replaced() {
    needs_fuse!();
    let place = place();
    let script = "test ! -e b.txt && cat a.txt && echo new > b.txt";
    place
        .run(&["-i", "a.txt", "--", "sh", "-c", script])
        .expect(0);
    assert_eq!(place.read("b.txt"), b"new\n");
}

#[test]
fn names_that_are_no_text_pass_without_loss() {
    needs_fuse!();
    let place = Place::new();
    let name = OsStr::from_bytes(b"caf\xe9 \xf0\x9f\n\"x");
    place.write(name, "content");
    let file = place.flag("result.json");
    let script = r#"for f in *; do cp "$f" "$f.out"; done; ln -s "$f" link"#;
    place
        .run(&[
            "--json",
            file.to_str().expect("text"),
            "--",
            "sh",
            "-c",
            script,
        ])
        .expect(0);
    let mut made = name.to_owned();
    made.push(".out");
    assert_eq!(place.read(&made), b"content");
    assert_eq!(
        std::fs::read_link(place.workspace().join("link")).expect("a link"),
        name
    );
    let result: Value =
        serde_json::from_slice(&std::fs::read(file).expect("a result")).expect("JSON");
    let decoded = |list: &str| -> Vec<Vec<u8>> {
        let list = strings(&result[list]);
        list.into_iter()
            .map(|text| cas::text::decode(text).into_owned())
            .collect()
    };
    assert_eq!(decoded("inputs"), [name.as_bytes()]);
    assert_eq!(decoded("outputs"), [made.as_bytes(), b"link"]);
    let target = result["hashed_files"]["link"]["target"]
        .as_str()
        .expect("a target");
    assert_eq!(&*cas::text::decode(target), name.as_bytes());
}

#[test]
fn an_edit_of_an_output_does_not_reach_the_store() {
    needs_fuse!();
    let place = Place::new();
    place.run(&["--", "sh", "-c", "echo made > out"]).expect(0);
    let path = place.workspace().join("out");
    let mut file = std::fs::File::options()
        .append(true)
        .open(&path)
        .expect("writable");
    file.write_all(b"edited").expect("written");
    assert_eq!(place.read("out"), b"made\nedited");
    assert!(place.verifies(&place.store()));
}

/// Regression: as any user but root, a job that made a file first thing was denied.
#[test]
fn an_ordinary_user_can_run_jobs() {
    needs_fuse!();
    let place = place();
    let script = "$WAKEBOX run --quiet -- sh -c 'echo made > out'; cat out
        $WAKEBOX run --quiet -i a.txt -- sh -c 'id -u; stat -c %u a.txt; cat a.txt'";
    match place.as_ordinary_user_with_fuse(script) {
        Some(outcome) => assert_eq!(outcome.expect(0).stdout(), "made\n65534\n65534\na"),
        None => skip!("cannot become an ordinary user"),
    }
}

/// Regression: with the store in the workspace, where it is not seen by the job, an output of a
/// blob's name was published over the blob.
#[test]
fn nothing_is_published_into_the_store() {
    needs_fuse!();
    let place = place();
    let store = place.workspace().join(".build/cas");
    let run = |script: &str| {
        let arguments = ["--store", ".build/cas", "-i", "a.txt", "--", "sh", "-c"];
        place.run(&[arguments.as_slice(), &[script]].concat())
    };
    run("cat a.txt").expect(0);
    let hash = Digest::of(b"a").to_string();
    let (fan_out, rest) = hash.split_at(2);
    let blobs = format!(".build/cas/blobs/{fan_out}");
    for script in [
        format!("mkdir -p {blobs}; echo evil > {blobs}/{rest}"),
        "mkdir -p .build/cas/blobs/new".into(),
        "mkdir -p .build/cas; echo evil > .build/cas/index".into(),
    ] {
        let told = run(&format!("{script}; echo x > x")).expect(125).stderr();
        assert!(told.contains("the store is there"), "{told}");
        assert!(place.verifies(&store));
        assert!(!place.workspace().join("x").exists(), "all or nothing");
    }
    run("echo y > .build; rm .build; mkdir .build; echo y > .build/y").expect(0);
    assert_eq!(place.read(".build/y"), b"y\n");
}

/// Regression: a line that could not be written ended the program with a panic, before the job's
/// outputs were published, and with the panic's exit code.
#[test]
fn messages_that_nobody_can_read_change_nothing() {
    needs_fuse!();
    let place = place();
    for (script, code) in [("echo x > out", 0), ("exec nothing", 127)] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
        let mut command = place.command(["run", "--", "sh", "-c", script]);
        let output = command.stderr(full.expect("a device")).output();
        Outcome(output.expect("starts")).expect(code);
    }
    assert_eq!(place.read("out"), b"x\n");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = place.command(["run", "--", "nothing"]);
    let output = command.stderr(writer).output();
    Outcome(output.expect("starts")).expect(127);
    place.expect_clean();
}
