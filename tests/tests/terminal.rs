//! Jobs at a terminal, and unchanged files that are not read again.

#[path = "terminal/pty.rs"]
mod pty;
#[path = "terminal/session.rs"]
mod session;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::inotify;
use rustix::process::{Pid, Signal, kill_process_group};
use wakebox_tests::job::wait_for;
use wakebox_tests::{Outcome, Place, needs_fuse, skip, wakebox};

/// Starts a job in a process group of its own, as a shell does, and interrupts the group once
/// the job runs.
fn interrupted(place: &Place, script: &str) -> Outcome {
    let mut command = place.command(["run", "--quiet", "--host", "--", "sh", "-c", script]);
    command
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("starts");
    wait_for("the job to start", || place.flag("started").exists());
    let group = Pid::from_child(&child);
    kill_process_group(group, Signal::INT).expect("the group is there");
    Outcome(child.wait_with_output().expect("ends"))
}

#[test]
fn an_interrupt_reaches_the_job() {
    needs_fuse!();
    let place = Place::new();
    let script = "trap 'echo x > out; touch $HOME/told; exit 3' INT; touch $HOME/started; while :; do sleep 0.05; done";
    // What the job makes of it is its status.
    interrupted(&place, script).expect(3);
    assert!(place.flag("told").exists(), "the job could clean up");
    assert!(
        !place.workspace().join("out").exists(),
        "a job that failed publishes nothing"
    );
    place.expect_clean();
}

#[test]
fn an_interrupt_ends_a_job_that_does_not_mind_it() {
    needs_fuse!();
    let place = Place::new();
    interrupted(&place, "touch $HOME/started; sleep 60").expect(130);
    place.expect_clean();
}

#[test]
fn a_terminal_is_passed_through() {
    needs_fuse!();
    let place = Place::new();
    let line = format!(
        "{} run --quiet -- sh -c 'tty; test -t 0 && test -t 1 && test -t 2 && echo all'",
        wakebox().display()
    );
    let Ok(output) = place
        .other("script")
        .args(["-qec", &line, "/dev/null"])
        .output()
    else {
        skip!("there is no script(1)");
    };
    let stdout = Outcome(output).expect(0).stdout();
    assert!(
        stdout.starts_with("/dev/console") && stdout.ends_with("all\r\n"),
        "{stdout:?}"
    );
}

/// How often a file was opened while something happened.
fn opens(file: &Path, act: impl FnOnce()) -> usize {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .expect("inotify");
    inotify::add_watch(&watch, file, inotify::WatchFlags::OPEN).expect("a watch");
    act();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(&watch, &mut buffer);
    let mut count = 0;
    while reader.next().is_ok() {
        count += 1;
    }
    count
}

#[test]
fn an_unchanged_file_is_not_read_again() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "old");
    let file = place.workspace().join("in");
    // A file that has just changed might change again within the same tick of its clock.
    std::thread::sleep(Duration::from_millis(2100));
    let run = |expected: &str| {
        let arguments = ["run", "--quiet", "--", "cat", "in"];
        assert_eq!(place.call(arguments).expect(0).stdout(), expected);
    };
    assert!(opens(&file, || run("old")) > 0, "the first time it is read");
    assert_eq!(opens(&file, || run("old")), 0, "the second time it is not");
    // Of equal size, and with its old time.
    let before = file.metadata().expect("there").modified().expect("a time");
    place.write("in", "new");
    let times = std::fs::FileTimes::new().set_modified(before);
    std::fs::File::options()
        .write(true)
        .open(&file)
        .expect("there")
        .set_times(times)
        .expect("set");
    assert!(
        opens(&file, || run("new")) > 0,
        "a change is noticed by ctime"
    );
}
