//! A shell inside, and a person at its terminal.

use serde_json::json;
use wakebox_tests::{Place, needs_fuse};

use super::pty::Session;

/// A shell in the view of a job, and one without.
fn sessions() -> Vec<(Place, Session)> {
    let spec = Place::new();
    let mut document = spec.spec_of(&["false"]);
    document["visible"] = json!([spec.visible("in", "declared\n")]);
    std::fs::write(spec.root().join("spec"), document.to_string()).expect("a spec");
    let in_view = Session::start(&spec, "exec $WAKEBOX -s -p $ROOT/spec");
    let plain = Place::new();
    let session = Session::start(&plain, "exec $WAKEBOX -x sh -i");
    vec![(spec, in_view), (plain, session)]
}

/// Sets a prompt that the echo of a line cannot be taken for.
fn prompt(session: &mut Session) {
    session.line("PS1='rea''dy '");
    session.expect("ready ");
}

#[test]
fn what_is_typed_is_shown_and_done() {
    needs_fuse!();
    for (_place, mut session) in sessions() {
        prompt(&mut session);
        session.line("echo a'b'c");
        session.expect("echo a'b'c\r\n");
        session.expect("abc\r\n");
        session.line("exit 7");
        session.end();
    }
}

#[test]
fn a_shell_that_controls_jobs_ends_with_its_own_status() {
    needs_fuse!();
    let (_place, mut session) = sessions().swap_remove(0);
    prompt(&mut session);
    session.line("sh -c 'exit 5'; exit $?");
    assert_eq!(session.end().code(), Some(5));
}

#[test]
fn an_interrupt_ends_the_command_and_not_the_shell() {
    needs_fuse!();
    for (_place, mut session) in sessions() {
        prompt(&mut session);
        session.line("echo be''gun; sleep 100; echo go''ne");
        session.expect("begun");
        // The shell must have handed the terminal over.
        std::thread::sleep(std::time::Duration::from_millis(200));
        session.keys("\x03");
        session.expect("ready ");
        session.line("echo $? al''ive");
        session.expect("130 alive");
        session.keys("\x04");
        session.end();
    }
}

#[test]
fn jobs_can_be_stopped_and_fetched_back() {
    needs_fuse!();
    for (_place, mut session) in sessions() {
        prompt(&mut session);
        session.line("sleep 100 &");
        session.expect("ready ");
        session.line("jobs");
        session.expect("Running");
        session.line("fg");
        session.expect("sleep 100\r\n");
        std::thread::sleep(std::time::Duration::from_millis(200));
        session.keys("\x1a");
        session.expect("Stopped");
        session.expect("ready ");
        session.line("fg");
        session.expect("sleep 100\r\n");
        std::thread::sleep(std::time::Duration::from_millis(200));
        session.keys("\x03");
        session.expect("ready ");
        session.line("exit 0");
        session.end();
    }
}

#[test]
fn the_size_of_the_terminal_is_known_inside() {
    needs_fuse!();
    for (_place, mut session) in sessions() {
        prompt(&mut session);
        for (rows, columns) in [(33, 111), (44, 77)] {
            session.resize(rows, columns);
            session.line("stty size");
            session.expect(&format!("{rows} {columns}\r\nready "));
        }
        session.line("trap 'echo res''ized' WINCH");
        session.expect("ready ");
        session.resize(20, 30);
        session.line(":");
        session.expect("resized");
        session.line("exit 0");
        session.end();
    }
}

#[test]
fn a_caller_has_its_terminal_back() {
    needs_fuse!();
    let place = Place::new();
    let spec = place.spec("").to_string();
    std::fs::write(place.root().join("spec"), spec).expect("a spec");
    for call in ["$WAKEBOX -s -p $ROOT/spec", "$WAKEBOX -x sh -i"] {
        let script = format!("{call}; echo caller; read answer; echo \"got $answer\"");
        let mut session = Session::start(&place, &script);
        prompt(&mut session);
        session.line("exit 0");
        session.expect("caller\r\n");
        session.line("an answer");
        session.expect("got an answer");
        assert_eq!(session.end().code(), Some(0));
    }
}

#[test]
fn a_call_in_the_background_leaves_the_terminal_alone() {
    needs_fuse!();
    let place = Place::new();
    let spec = place.spec("").to_string();
    std::fs::write(place.root().join("spec"), spec).expect("a spec");
    let script = "set -m; $WAKEBOX -p $ROOT/spec -i & wait; $WAKEBOX true & wait
        read answer; echo \"got $answer\"";
    let mut session = Session::start(&place, script);
    session.line("an answer");
    session.expect("got an answer");
    assert_eq!(session.end().code(), Some(0));
}

/// A job may read what is typed, on its standard input and as `/dev/tty`, in every sandbox.
#[test]
fn a_job_reads_its_terminal() {
    needs_fuse!();
    for options in ["", "--host"] {
        let place = Place::new();
        let script = format!(
            "$WAKEBOX run -q {options} -- sh -c 'read a; echo got $a; read b </dev/tty; echo and $b; tty'"
        );
        let mut session = Session::start(&place, &script);
        session.line("one");
        session.expect("got one");
        session.line("two");
        session.expect("and two");
        session.expect(if options.is_empty() {
            "/dev/console"
        } else {
            "/dev/pts/"
        });
        assert_eq!(session.end().code(), Some(0));
    }
}

/// Regression: a job could type into its caller's terminal, whose shell then did what it said.
#[test]
fn nothing_is_typed_for_the_caller() {
    needs_fuse!();
    let attack = wakebox_tests::wakebox().with_file_name("attack");
    let attack = format!("{} terminal $ROOT host 1 1 1", attack.display());
    let calls = [
        format!(
            "$WAKEBOX run -q --bind {0} -- {attack}",
            attack.split(' ').next().unwrap_or_default()
        ),
        format!("$WAKEBOX run -q --host -- {attack}"),
        format!("$WAKEBOX {attack}"),
        "$WAKEBOX -i -p $ROOT/spec".into(),
        "$WAKEBOX -p $ROOT/spec".into(),
    ];
    for call in calls {
        let place = Place::new();
        let words: Vec<_> = attack.split(' ').collect();
        std::fs::write(place.root().join("spec"), place.spec_of(&words).to_string())
            .expect("a spec");
        let script = format!("{call} >$ROOT/told; read answer; echo \"got $answer\"");
        let mut session = Session::start(&place, &script);
        session.line("an answer");
        session.expect("got an answer");
        session.end();
        let told = std::fs::read_to_string(place.root().join("told")).expect("what it said");
        assert!(
            told.contains("refused paste") && !told.contains("ESCAPED"),
            "{call}: {told}"
        );
    }
}

/// Where the kernel lets anybody type, the attack works without a sandbox.
#[test]
fn without_a_sandbox_it_is_typed() {
    let setting = std::fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti");
    if setting.is_ok_and(|setting| setting.trim() != "1") {
        wakebox_tests::skip!("this kernel lets nobody type");
    }
    let attack = wakebox_tests::wakebox().with_file_name("attack");
    let place = Place::new();
    let mut session = Session::start(
        &place,
        &format!("{} terminal / host 1 1 1", attack.display()),
    );
    session.expect("ESCAPED type into 0");
    session.end();
}
