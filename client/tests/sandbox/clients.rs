//! What becomes of a job when its client is told to stop, or is killed.
//!
//! The client is this test program again, running one ignored test that stands for it. Its
//! threads all start with the signals blocked, as those of a client that takes a
//! `SignalHold` in `main`. SIGCHLD is ignored, as careless callers leave it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use client::exec::start;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{draft, eventually, marker, plan, sleepers};

const SLEEP: &str = "WAKEBOX_TEST_SLEEP";

#[test]
#[ignore = "stands for a client; run by the tests below"]
fn a_client() {
    let sleep = std::env::var(SLEEP).expect("seconds to sleep");
    let script = format!("setsid sleep {sleep} & sleep {sleep}");
    let running = start(&plan(draft(&["sh", "-c", &script])), None).unwrap();
    let ended = running.wait(Some(Duration::from_secs(60)), None).unwrap();
    println!("{:?} {:?}", ended.status, ended.interrupted);
}

fn client(sleep: &str) -> Child {
    let program = std::env::current_exe().unwrap();
    let arguments = [
        "--exact",
        "clients::a_client",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ];
    let child = Command::new("env")
        .args(["--block-signal=TERM,HUP,INT,QUIT", "--ignore-signal=CHLD"])
        .arg(program)
        .args(arguments)
        .env(SLEEP, sleep)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("both sleep", || sleepers(sleep) == 2);
    child
}

fn told(sleep: &str, signal: Signal) -> String {
    let child = client(sleep);
    kill_process(Pid::from_child(&child), signal).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(sleepers(sleep), 0);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_killed_client_takes_its_job_along() {
    let marker = marker(10);
    let mut child = client(&marker);
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("nobody sleeps", || sleepers(&marker) == 0);
}

#[test]
fn sigterm_and_sighup_kill_the_job() {
    let output = told(&marker(11), Signal::TERM);
    assert!(output.contains("Signaled(9) Some(15)"), "{output}");
    let output = told(&marker(12), Signal::HUP);
    assert!(output.contains("Signaled(9) Some(1)"), "{output}");
}

#[test]
fn sigint_and_sigquit_are_passed_on_to_a_job_that_reads_no_terminal() {
    // It is in a process group of its own, so a terminal's Ctrl-C comes to the client only.
    let output = told(&marker(13), Signal::INT);
    assert!(output.contains("Signaled(2) Some(2)"), "{output}");
    let output = told(&marker(14), Signal::QUIT);
    assert!(output.contains("Signaled(3) Some(3)"), "{output}");
}
