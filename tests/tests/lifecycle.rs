//! Daemons and clients come and go, some of them by force.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use wakebox_tests::job::{comes_true, kill, wait_for};
use wakebox_tests::{Outcome, Place, needs_fuse};

/// Starts `wakebox run` of a script and returns once the script says that it runs.
fn start(place: &Place, script: &str) -> Child {
    let script = format!("touch $HOME/started; {script}");
    let mut command = place.command(["run", "--quiet", "--host", "--", "sh", "-c", &script]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().expect("starts");
    wait_for("the job to start", || place.flag("started").exists());
    child
}

fn finish(child: Child) -> Outcome {
    Outcome(child.wait_with_output().expect("ends"))
}

/// The sockets of a place's daemons.
fn sockets(place: &Place) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place.runtime().join("wakebox"))
        .into_iter()
        .flatten()
        .flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "sock")
        })
        .collect()
}

#[track_caller]
fn one_line(outcome: &Outcome) -> String {
    let told = outcome.stderr();
    assert!(
        told.starts_with("wakebox: ") && told.lines().count() == 1,
        "{told}"
    );
    told
}

#[test]
fn each_store_has_one_daemon_started_when_needed() {
    needs_fuse!();
    let place = Place::new();
    assert_eq!(
        place.call(["status"]).expect(0).stdout(),
        "no daemon is running\n"
    );
    place.run(&["true"]).expect(0);
    let first = place.daemons();
    assert_eq!(first.len(), 1);
    place.run(&["true"]).expect(0);
    assert_eq!(place.daemons(), first, "it is used again");
    let other = place.root().join("other");
    place
        .run(&["--store", other.to_str().expect("text"), "true"])
        .expect(0);
    assert_eq!((place.daemons().len(), sockets(&place).len()), (2, 2));

    let text = place.call(["status"]).expect(0).stdout();
    for store in [place.store(), other] {
        let store = store.canonicalize().expect("a path");
        assert!(
            text.contains(&format!("store {}\n", store.display())),
            "{text}"
        );
    }
    let json: Value =
        serde_json::from_str(&place.call(["status", "--json"]).expect(0).stdout()).expect("JSON");
    let rows = json.as_array().expect("an array");
    let mut served: Vec<_> = rows
        .iter()
        .map(|row| row["daemon"]["jobs_served"].as_u64())
        .collect();
    served.sort();
    assert_eq!(served, [Some(1), Some(2)], "{json}");
    let asked = |row: &Value| row["daemon"]["fuse_ops"]["getattr"].as_u64();
    assert!(rows.iter().all(|row| asked(row) > Some(0)), "{json}");
    let mut pids: Vec<_> = rows
        .iter()
        .filter_map(|row| row["daemon"]["pid"].as_i64())
        .collect();
    pids.sort_unstable();
    let mut daemons: Vec<_> = place
        .daemons()
        .iter()
        .map(|pid| i64::from(pid.as_raw_pid()))
        .collect();
    daemons.sort_unstable();
    assert_eq!(pids, daemons);
}

#[test]
fn many_clients_at_once_start_one_daemon() {
    needs_fuse!();
    let place = Place::new();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            place
                .command(["run", "--quiet", "true"])
                .spawn()
                .expect("starts")
        })
        .collect();
    for client in clients {
        finish(client).expect(0);
    }
    assert_eq!(place.daemons().len(), 1);
}

#[test]
fn an_idle_daemon_ends_and_leaves_no_socket() {
    needs_fuse!();
    let place = Place::new();
    let mut command = place.command(["run", "--quiet", "--", "sleep", "1.5"]);
    Outcome(command.env("WAKEBOX_IDLE", "1").output().expect("starts")).expect(0);
    assert_eq!(place.daemons().len(), 1, "a job is no idleness");
    wait_for("the daemon to end", || place.daemons().is_empty());
    assert_eq!(sockets(&place), Vec::<PathBuf>::new());
    place.run(&["true"]).expect(0);
}

#[test]
fn a_daemon_is_asked_to_stop_and_ends_after_its_jobs() {
    needs_fuse!();
    let place = Place::new();
    let told = one_line(&place.call(["daemon", "--stop"]).expect(125));
    assert!(told.contains("no daemon serves"), "{told}");
    let job = start(
        &place,
        "while ! test -e $HOME/go; do sleep 0.02; done; echo x > out",
    );
    place.call(["daemon", "--stop"]).expect(0);
    std::fs::write(place.flag("go"), "").expect("a flag");
    finish(job).expect(0);
    assert_eq!(place.read("out"), b"x\n");
    wait_for("the daemon to end", || place.daemons().is_empty());
    assert_eq!(sockets(&place), Vec::<PathBuf>::new());
    place.run(&["-i", "out", "cat", "out"]).expect(0);
}

#[test]
fn a_daemon_in_the_foreground_serves_and_is_stopped() {
    needs_fuse!();
    let place = Place::new();
    let mut command = place.command(["daemon", "--foreground"]);
    let mut daemon = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    wait_for("the socket", || sockets(&place).len() == 1);
    place.run(&["true"]).expect(0);
    assert!(place.daemons().is_empty(), "no other was started");
    let told = one_line(&place.call(["daemon", "--foreground"]).expect(125));
    assert!(told.contains(&daemon.id().to_string()), "{told}");
    place.call(["daemon", "--stop"]).expect(0);
    let ended = comes_true(Duration::from_secs(5), || {
        daemon.try_wait().expect("waits").is_some()
    });
    if !ended {
        let _ = daemon.kill();
    }
    let outcome = finish(daemon);
    assert!(ended, "it does not end: {}", outcome.stderr());
    assert!(outcome.expect(0).stderr().starts_with("wakebox: serving "));
    assert_eq!(sockets(&place), Vec::<PathBuf>::new());
}

#[test]
fn a_job_dies_with_its_daemon_and_the_next_one_works() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "x");
    let job = start(&place, "setsid sleep 300 & sleep 300");
    let daemon = place.daemons()[0];
    let killed = Instant::now();
    kill(daemon);
    let outcome = finish(job).expect(125);
    assert!(
        killed.elapsed() < Duration::from_secs(2),
        "{:?}",
        killed.elapsed()
    );
    let told = one_line(&outcome);
    assert!(told.contains("daemon is gone"), "{told}");
    assert!(
        comes_true(Duration::from_secs(1), || place.processes().is_empty()),
        "{:?}",
        place.processes()
    );
    assert_eq!(place.mounts(), Vec::<String>::new());

    assert_eq!(place.run(&["cat", "in"]).expect(0).stdout(), "x");
    assert_ne!(place.daemons(), [daemon]);
    // What the killed one had staged is of no use to anybody, and the next daemon knows it.
    assert_eq!(place.debris(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_staging_directory_says_what_it_is_until_the_result_does() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "x");
    let job = start(&place, "sleep 300");
    let [directory] = &place.debris()[..] else {
        panic!("{:?}", place.debris());
    };
    let directory = std::fs::File::open(directory).expect("the staging directory");
    let manifest = cas::recovery::Recovery::read(std::os::fd::AsFd::as_fd(&directory));
    let running = cas::recovery::Recovery::new(cas::recovery::JobState::Running);
    assert_eq!(manifest, Some(running));
    drop(job);

    let (outcome, result) = place.batch(&serde_json::json!({
        "command": ["/bin/sh", "-c", "echo made > out"],
        "mount-ops": [{"type": "workspace", "destination": "."}],
    }));
    outcome.expect(0);
    let root = result.expect("a result")["staging_root"].clone();
    let root = place.workspace().join(root.as_str().expect("a directory"));
    let names: Vec<_> = std::fs::read_dir(root).expect("kept").flatten().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn nothing_is_left_of_a_killed_client() {
    needs_fuse!();
    let place = Place::new();
    let script = "setsid sleep 300 & (trap '' TERM HUP INT; sleep 300) & head -c 100000 /dev/zero > big; sleep 300";
    let mut job = start(&place, script);
    wait_for("the mount", || {
        !place.mounts().is_empty() && !place.debris().is_empty()
    });
    job.kill().expect("killed");
    job.wait().expect("waited for");
    place.expect_clean_within(Duration::from_secs(2));
    assert_eq!(place.daemons().len(), 1, "the daemon does not mind");
    place.run(&["true"]).expect(0);
}

#[test]
fn a_client_that_is_told_to_end_ends_its_job() {
    needs_fuse!();
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let place = Place::new();
        let job = start(&place, "echo x > out; setsid sleep 300 & sleep 300");
        kill_process(Pid::from_child(&job), signal).expect("it is there");
        let told = Instant::now();
        finish(job).expect(code);
        assert!(
            told.elapsed() < Duration::from_secs(2),
            "{:?}",
            told.elapsed()
        );
        assert!(
            !place.workspace().join("out").exists(),
            "nothing is published"
        );
        place.expect_clean();
    }
}

#[test]
fn a_stale_socket_is_replaced() {
    needs_fuse!();
    let place = Place::new();
    place.run(&["true"]).expect(0);
    let socket = sockets(&place).remove(0);
    kill(place.daemons()[0]);
    assert!(socket.exists(), "it had no chance to remove it");
    assert_eq!(
        place.call(["status"]).expect(0).stdout(),
        "no daemon is running\n"
    );
    place.run(&["true"]).expect(0);
    assert_eq!(sockets(&place), std::slice::from_ref(&socket));
    // So is a socket that nobody made by way of the daemon.
    kill(place.daemons()[0]);
    std::fs::remove_file(&socket).expect("removed");
    drop(UnixListener::bind(&socket).expect("bound"));
    place.run(&["true"]).expect(0);
    assert_eq!(place.daemons().len(), 1);
}

#[test]
fn the_daemon_keeps_nothing_of_its_caller() {
    needs_fuse!();
    let place = Place::new();
    let mut shell = place.other("sh");
    shell.args(["-c", "exec 7>&1 8>&2; $WAKEBOX run --quiet echo told"]);
    let begun = Instant::now();
    // Reads to the end of both pipes, which comes only when nobody has them open.
    let output = shell.stdin(Stdio::piped()).output().expect("starts");
    assert_eq!(Outcome(output).expect(0).stdout(), "told\n");
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    let daemon = place.daemons()[0].as_raw_pid();
    let of = |name: &str| PathBuf::from(format!("/proc/{daemon}/{name}"));
    assert_eq!(
        std::fs::read_link(of("cwd")).expect("a link"),
        Path::new("/")
    );
    assert_eq!(std::fs::read(of("environ")).expect("readable"), b"");
    let open = std::fs::read_dir(of("fd")).expect("readable").flatten();
    let targets: Vec<_> = open
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .collect();
    let pipe = targets
        .iter()
        .find(|target| target.to_string_lossy().starts_with("pipe:"));
    assert!(pipe.is_none(), "{targets:?}");
}

/// Opens a file of a job's view from outside of the sandbox.
fn from_outside(place: &Place, name: &str) -> std::fs::File {
    let processes = place.processes().into_iter();
    let mut paths = processes.map(|pid| format!("/proc/{}/cwd/{name}", pid.as_raw_pid()));
    let file = paths.find_map(|path| std::fs::File::open(path).ok());
    file.expect("the job has made it")
}

/// Regression: what was staged became the blob itself, which the view could still open for
/// writing, because nobody did so at the moment of the check.
#[test]
fn whoever_keeps_the_view_cannot_write_to_a_blob() {
    needs_fuse!();
    let place = Place::new();
    let script = "echo made > out; touch $HOME/made; until test -e $HOME/go; do sleep 0.01; done";
    let child = start(&place, script);
    wait_for("the output", || place.flag("made").exists());
    let kept = from_outside(&place, "out");
    std::fs::write(place.flag("go"), "").expect("a flag");
    finish(child).expect(0);
    assert_eq!(place.read("out"), b"made\n");
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&kept));
    let written = std::fs::OpenOptions::new()
        .write(true)
        .open(again)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"evil"));
    assert!(place.verifies(&place.store()), "after {written:?}");
    drop(kept);
    place.expect_clean();
}
