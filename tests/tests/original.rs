//! The command line that wake's own runner has, and the exit codes of its calls.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use wakebox_tests::{Outcome, Place, needs_fuse};

fn call_with_input(place: &Place, arguments: &[&str], input: &str) -> Outcome {
    let mut command = place.command(arguments);
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("somebody reads");
    drop(stdin);
    Outcome(child.wait_with_output().expect("an end"))
}

#[test]
fn help_and_version_are_answers_and_nothing_is_a_mistake() {
    let place = Place::new();
    for words in [&["-h"][..], &["--HELP"], &["-xh"], &["-p", "x", "-h"]] {
        let help = place.call(words).expect(0);
        assert!(help.stdout().contains("--isolate-retcode"), "{words:?}");
        assert_eq!(help.stderr(), "");
    }
    let nothing: [&str; 0] = [];
    assert!(place.call(nothing).expect(1).stdout().contains("Usage:"));
    assert!(place.call(["help"]).expect(0).stdout().contains("Usage:"));
    let version = place.call(["-V"]).expect(0).stdout();
    assert!(version.starts_with("wakebox "), "{version}");
}

#[test]
fn a_mistake_is_one_line_and_its_code_depends_on_who_made_it() {
    let place = Place::new();
    let cases: &[(&[&str], i32)] = &[
        (&["--no-such-option"], 1),
        (&["-q", "make"], 1),
        (&["-p"], 1),
        (&["-p", "spec", "make"], 1),
        (&["-p", "spec", "-x"], 1),
        (&["-I", "make"], 1),
        (&["-b", "nowhere", "make"], 1),
        (&["-p", "no-such-spec"], 1),
        (&["-I", "-p", "no-such-spec"], 1),
    ];
    for (words, code) in cases {
        let outcome = place.call(*words).expect(*code);
        let line = outcome.stderr();
        assert!(
            line.starts_with("wakebox: ") && line.lines().count() == 1,
            "{words:?}: {line}"
        );
        assert_eq!(outcome.stdout(), "");
    }
    for words in [&["run", "--timeout", "x", "true"][..], &["cas"], &["run"]] {
        place.call(words).expect(2);
    }
}

#[test]
fn a_command_runs_as_root_of_its_own_with_little_environment() {
    let place = Place::new();
    let script = "id -u; id -g; env | cut -d= -f1 | sort | tr '\\n' ' '; pwd";
    let outcome = place.call(["sh", "-c", script]).expect(0);
    let here = place.workspace();
    assert_eq!(
        outcome.stdout(),
        format!("0\n0\nHOME PWD {}\n", here.display())
    );

    let mut command = place.command(["--", "env"]);
    command
        .env("TERM", "dumb")
        .env("USER", "me")
        .env("LANG", "C");
    let output = Outcome(command.output().expect("an end"))
        .expect(0)
        .stdout();
    let mut lines: Vec<_> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 3, "{output}");
    assert_eq!(lines[1..], ["TERM=dumb", "USER=me"]);

    let mut command = place.command(["env"]);
    let output = command.env_clear().output().expect("an end");
    assert_eq!(Outcome(output).expect(0).stdout(), "");
}

#[test]
fn a_command_has_the_callers_streams() {
    let place = Place::new();
    let outcome = call_with_input(&place, &["sh", "-c", "cat; echo e >&2"], "input");
    assert_eq!(
        (outcome.stdout(), outcome.stderr()),
        ("input".into(), "e\n".into())
    );
}

#[test]
fn options_after_the_command_are_the_commands() {
    let place = Place::new();
    let outcome = place.call(["echo", "-p", "--", "--help"]).expect(0);
    assert_eq!(outcome.stdout(), "-p -- --help\n");
}

#[test]
fn a_program_with_the_name_of_a_subcommand_can_be_run() {
    let place = Place::new();
    place.write("status", "#!/bin/sh\necho here $1\n");
    let path = place.workspace().join("status");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("executable");
    // Without PATH, the current directory comes first.
    assert_eq!(
        place.call(["--", "status", "-x"]).expect(0).stdout(),
        "here -x\n"
    );
    assert_eq!(
        place.call(["./status", "-h"]).expect(0).stdout(),
        "here -h\n"
    );
}

#[test]
fn a_commands_end_is_the_calls() {
    let place = Place::new();
    let cases: &[(&[&str], i32)] = &[
        (&["true"], 0),
        (&["sh", "-c", "exit 255"], 255),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["sh", "-c", "kill -15 $$"], 143),
        (&["no-such-program"], 127),
        (&["/etc/passwd"], 126),
    ];
    for (words, code) in cases {
        place.call(*words).expect(*code);
    }
}

#[test]
fn a_command_that_is_stopped_takes_its_tree_with_it() {
    let place = Place::new();
    let mark = format!("4{:09}", std::process::id());
    let script = format!("trap '' TERM; setsid sleep {mark} & echo; sleep {mark}");
    let mut command = place.command(["sh", "-c", &script]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("a child");
    let mut stdout = child.stdout.take().expect("a pipe");
    std::io::Read::read_exact(&mut stdout, &mut [0]).expect("the job runs");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("alive");
    assert_eq!(child.wait().expect("an end").code(), Some(143));
    // Whoever of the tree still lives has the pipe open.
    let start = Instant::now();
    std::io::copy(&mut stdout, &mut std::io::sink()).expect("the end");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_batch_call_ends_as_its_job_does() {
    needs_fuse!();
    let place = Place::new();
    let spec = |script: &str| {
        json!({ "command": ["sh", "-c", script], "environment": ["PATH=/usr/bin:/bin"],
            "mount-ops": [{ "type": "workspace", "destination": "." }], "command-timeout": 1 })
    };
    for (script, code) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 255", 255),
        ("kill -9 $$", 137),
        ("sleep 300", 124),
        ("exec no-such", 127),
    ] {
        let (outcome, result) = place.batch(&spec(script));
        outcome.expect(code);
        assert_eq!(
            result.expect("a result")["timed-out"],
            code == 124,
            "{script}"
        );
    }
    let mut unusable = spec("exit 0");
    unusable["mount-ops"][0]["destination"] = "no/such".into();
    let (outcome, result) = place.batch(&unusable);
    outcome.expect(125);
    assert_eq!(
        result.expect("a result")["sandbox-error"]["kind"],
        "sandbox"
    );
}

/// A spec whose standard input is a file, and the arguments that name it.
fn spec_with_stdin(place: &Place, command: &[&str]) -> [String; 2] {
    let spec = json!({ "command": command, "environment": ["PATH=/usr/bin:/bin", "WAKEBOX_CMD=x"],
        "stdin": "/etc/hostname" });
    place.write("spec.json", spec.to_string());
    ["-p".into(), "spec.json".into()]
}

#[test]
fn a_job_can_keep_the_callers_input() {
    let place = Place::new();
    let [p, spec] = spec_with_stdin(&place, &["cat"]);
    for flag in ["-i", "--interactive", "--allow-interactive"] {
        let outcome = call_with_input(&place, &[&p, &spec, flag], "typed").expect(0);
        assert_eq!(outcome.stdout(), "typed");
    }
    let mut command = place.command([&p, &spec]);
    let output = command.stdin(Stdio::null()).output().expect("an end");
    assert_ne!(Outcome(output).expect(0).stdout(), "");
}

#[test]
fn a_shell_can_be_had_in_place_of_the_command() {
    let place = Place::new();
    let [p, spec] = spec_with_stdin(&place, &["printf", "<%s>", "a  b", "it's", "", "$x *"]);
    for flag in ["-s", "--force"] {
        let script = "eval \"$WAKEBOX_CMD\"; exit 3";
        let outcome = call_with_input(&place, &[&p, &spec, flag], script).expect(3);
        assert_eq!(outcome.stdout(), "<a  b><it's><><$x *>");
        let lines = "To execute the original command:\n\teval $WAKEBOX_CMD\n";
        assert_eq!(outcome.stderr(), lines);
    }
    let script = "printf %s \"$WAKEBOX_CMD\"";
    let outcome = call_with_input(&place, &[&p, &spec, "-Is"], script).expect(0);
    assert_eq!(
        outcome.stdout(),
        r"printf '<%s>' 'a  b' 'it'\''s' '' '$x *'"
    );
}

#[test]
fn completions_and_the_manual_tell_of_every_option() {
    let place = Place::new();
    for words in [
        &["completions", "bash"][..],
        &["completions", "zsh"],
        &["completions", "fish"],
    ] {
        let script = place.call(words).expect(0).stdout();
        for name in ["params", "toolchain", "publish-on-failure"] {
            assert!(script.contains(name), "{words:?} lacks {name}");
        }
    }
    let page = place.call(["manual"]).expect(0).stdout();
    for name in ["params", "toolchain", "Exit codes"] {
        assert!(page.contains(name), "{name}");
    }
}
