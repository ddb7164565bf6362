//! Daemons that are killed or stopped at the worst moment.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use wakebox_tests::job::{kill, wait_for};
use wakebox_tests::{Outcome, Place, needs_fuse};

fn spawn(place: &Place, arguments: &[&str]) -> Child {
    let mut command = place.command(["run", "--quiet", "--host"].iter().chain(arguments));
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    command.stdout(Stdio::piped()).spawn().expect("starts")
}

/// Starts a script with some options, and returns once it says that it runs.
fn start(place: &Place, options: &[&str], script: &str) -> Child {
    let script = format!("touch $HOME/started; {script}");
    let child = spawn(place, &[options, &["--", "sh", "-c", &script]].concat());
    wait_for("the job to start", || place.flag("started").exists());
    child
}

/// Waits for the end, and insists that it comes within a time, with one line at most.
#[track_caller]
fn ends_within(child: Child, limit: Duration, code: i32) -> String {
    let begun = Instant::now();
    let outcome = Outcome(child.wait_with_output().expect("ends")).expect(code);
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
    let told = outcome.stderr();
    assert!(told.lines().count() <= 1, "{told}");
    told
}

#[test]
fn a_job_ends_within_a_second_of_its_daemon_and_the_next_starts_at_once() {
    needs_fuse!();
    let place = Place::new();
    let script = "(trap '' TERM HUP INT; sleep 300) & head -c 100000 /dev/zero > big
        touch $HOME/made; sleep 300";
    let job = start(&place, &[], script);
    wait_for("the output", || place.flag("made").exists());
    kill(place.daemons()[0]);
    let told = ends_within(job, Duration::from_secs(1), 125);
    assert_eq!(told, "wakebox: the daemon is gone; the job was killed\n");
    let begun = Instant::now();
    place.run(&["true"]).expect(0);
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    place.expect_clean();
}

#[test]
fn a_stopped_daemon_does_not_hold_up_who_registers_for_ever() {
    needs_fuse!();
    let place = Place::new();
    place.run(&["true"]).expect(0);
    let daemon = place.daemons()[0];
    kill_process(daemon, Signal::STOP).expect("it is there");
    let told = ends_within(spawn(&place, &["true"]), Duration::from_secs(9), 125);
    let pid = daemon.as_raw_pid();
    assert!(told.contains(&format!("kill -CONT {pid}")), "{told}");
    kill_process(daemon, Signal::CONT).expect("it is there");
    place.run(&["true"]).expect(0);
    assert_eq!(place.daemons(), [daemon]);
    place.expect_clean();
}

#[test]
fn a_stopped_daemon_does_not_defeat_the_time_limit() {
    needs_fuse!();
    let place = Place::new();
    let script = "while ! test -e $HOME/go; do :; done; echo x > out; ls; sleep 300";
    let job = start(&place, &["--timeout", "1"], script);
    kill_process(place.daemons()[0], Signal::STOP).expect("it is there");
    std::fs::write(place.flag("go"), "").expect("a flag");
    let begun = Instant::now();
    let outcome = Outcome(job.wait_with_output().expect("ends"));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert!([124, 125].contains(&outcome.code()), "{outcome:?}");
    assert!(outcome.stderr().contains("daemon"), "{}", outcome.stderr());
    for daemon in place.daemons() {
        kill(daemon);
    }
    place.run(&["true"]).expect(0);
    place.expect_clean();
}

/// What was written of a result must be whole, whatever else was lost.
#[test]
fn daemons_killed_at_random_moments_cost_their_jobs_and_nothing_else() {
    needs_fuse!();
    let place = Place::new();
    let spec = place.spec("for i in 1 2 3 4 5 6 7 8; do head -c 70000 /dev/urandom > $i; done");
    let mut outcomes = [0, 0];
    for round in 0..12u64 {
        std::thread::scope(|scope| {
            let jobs: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| place.batch_call(&spec, &[])))
                .collect();
            std::thread::sleep(Duration::from_millis(10 + round * 37 % 150));
            for daemon in place.daemons() {
                let _gone = kill_process(daemon, Signal::KILL);
            }
            for job in jobs {
                let (outcome, result) = job.join().expect("it ends");
                let result = result.expect("a result in any case");
                match outcome.code() {
                    0 => check(&place, &result),
                    125 => assert!(result["sandbox-error"]["message"].is_string(), "{result}"),
                    _ => panic!("{outcome:?}"),
                }
                outcomes[usize::from(outcome.code() == 0)] += 1;
            }
        });
    }
    assert!(
        outcomes.iter().all(|&count| count > 0),
        "[killed, done]: {outcomes:?}"
    );
    assert_eq!(place.mounts(), Vec::<String>::new());
    let gc = [
        "gc",
        "--foreign",
        "--older-than",
        "0",
        "--store",
        ".build/cas",
    ];
    place.call(gc).expect(0);
    place.expect_clean_within(Duration::from_secs(1));
}

/// Every blob that a result names is there and sound, and so is every staged file, which is taken.
fn check(place: &Place, result: &serde_json::Value) {
    let staged = result["staging_files"].as_object().expect("an object");
    assert_eq!(staged.len(), 8, "{result}");
    for (path, entry) in staged {
        let bytes = std::fs::read(place.staged(entry)).expect("staged");
        let hash = cas::Digest::of(&bytes).to_string();
        assert_eq!(result["hashed_files"][path]["hash"], hash.as_str());
        let blob = place.workspace().join(".build/cas/blobs").join(&hash[..2]);
        assert_eq!(std::fs::read(blob.join(&hash[2..])).expect("a blob"), bytes);
    }
    let root = result["staging_root"].as_str().expect("a directory");
    std::fs::remove_dir_all(place.workspace().join(root)).expect("ours to remove");
}
