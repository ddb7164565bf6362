//! The contract with wake, from wake's side: how it calls its runner, and what it insists on.
mod driver;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use driver::{Done, Job, Wake, check_required, visible};
use wakebox_tests::{Place, needs_fuse};

/// A workspace of its own; jobs find the place's sockets unless they are given nothing at all.
fn wake() -> (Place, Wake) {
    let place = Place::new();
    let wake = Wake::new(place.workspace());
    (place, wake)
}

fn job(place: &Place, id: u32, script: &str) -> Job {
    let mut job = Job::shell(id, script);
    let runtime = format!("XDG_RUNTIME_DIR={}", place.runtime().display());
    job.runner_environment.push(runtime);
    job
}

#[test]
fn a_job_is_run_and_its_outputs_are_taken() {
    needs_fuse!();
    let (place, wake) = wake();
    let script = "read line < src/in.txt; mkdir -p out/deep; echo \"$line!\" > out/a; ln out/a out/b; \
        ln -s a out/link; chmod 750 out/deep; printf x > x; chmod 755 x; ls; ulimit -n; umask >&2";
    let mut job = job(&place, 1, script);
    job.visible = vec![
        wake.ingest("src/in.txt", b"hello\n"),
        visible("empty", "directory", None, 0o755),
        wake.ingest("src/unread.txt", b"unread"),
    ];
    let done = wake.run(&job);
    done.expect(0);
    assert_eq!(done.stdout, "empty\nout\nsrc\nx\n1024\n", "{done:?}");
    assert!(done.stderr.contains("022"), "{done:?}");
    let result = done.document();
    assert_eq!(result["inputs"], serde_json::json!(["src/in.txt"]));
    let outputs = ["out", "out/a", "out/b", "out/deep", "out/link", "x"];
    assert_eq!(result["outputs"], serde_json::json!(outputs));
    let hashes = wake.finish(&done);
    assert_eq!(hashes["out/a"], cas::Digest::of(b"hello!\n"));
    assert_eq!(hashes["out/a"], hashes["out/b"]);
    assert_eq!(place.read("out/link"), b"hello!\n");
    let mode = |path: &str| place.workspace().join(path).metadata().unwrap().mode() & 0o7777;
    assert_eq!(
        (mode("x"), mode("out/deep"), mode("out/a")),
        (0o755, 0o750, 0o644)
    );
    assert_eq!(wake.debris(), [""; 0].map(Into::<std::path::PathBuf>::into));
}

/// What wake's staging-dir runner asks for: a private copy of the inputs, made by wake in the
/// staging area, in the place of the workspace.
#[test]
fn a_job_may_run_in_a_copy_of_its_inputs_in_the_staging_area() {
    needs_fuse!();
    let (place, wake) = wake();
    let copy = ".build/cas/staging/job-1.7.0";
    place.write("undeclared", "x");
    place.write(format!("{copy}/in.txt"), "copied\n");
    // Regression: the daemon that this starts took the copy for something left over.
    wake.finish(wake.run(&job(&place, 2, "true")).expect(0));
    let mut spec = place.spec("ls -a; cat in.txt > out.txt; ls .build/cas 2>&1; exit 3");
    spec["mount-ops"] = serde_json::json!([{"type": "bind", "source": copy, "destination": "."}]);
    let (outcome, result) = place.batch_call(&spec, &["-I"]);
    let told = outcome.expect(0).stdout();
    assert!(told.starts_with(".\n..\nin.txt\n"), "{told}");
    assert!(told.contains("No such file"), "{told}");
    let result = result.expect("a result");
    check_required(&result);
    assert_eq!(result["usage"]["status"], 3);
    for nothing in ["inputs", "outputs"] {
        assert_eq!(result[nothing], serde_json::json!([]), "{result}");
    }
    assert_eq!(place.read(format!("{copy}/out.txt")), b"copied\n");
}

/// Regression: the daemon held on to the directories that were gone, and refused every job.
#[test]
fn a_store_may_be_emptied_between_jobs() {
    needs_fuse!();
    let (place, wake) = wake();
    let store = place.workspace().join(".build/cas");
    wake.finish(wake.run(&job(&place, 1, "echo > out")).expect(0));
    for (id, gone) in [(2, "staging"), (3, "blobs"), (4, "")] {
        std::fs::remove_dir_all(store.join(gone)).expect("removed");
        let mut job = job(&place, id, "cat in > out");
        job.visible = vec![wake.ingest("in", gone.as_bytes())];
        let done = wake.run(&job);
        let hashes = wake.finish(done.expect(0));
        assert_eq!(hashes["out"], cas::Digest::of(gone.as_bytes()));
    }
    assert_eq!(wake.debris(), [""; 0].map(Into::<std::path::PathBuf>::into));
}

#[test]
fn the_result_is_one_line_with_its_keys_in_order() {
    needs_fuse!();
    let (place, wake) = wake();
    let done = wake.run(&job(&place, 1, "echo > a"));
    let text = done.expect(0).result.clone().expect("a result");
    assert!(!text.contains('\n'));
    let keys = [
        "usage",
        "status",
        "membytes",
        "inbytes",
        "outbytes",
        "runtime",
        "cputime",
        "inputs",
        "outputs",
        "timed-out",
        "staging_files",
        "staging_root",
        "run-host",
    ];
    let places: Vec<_> = keys
        .iter()
        .map(|key| {
            text.find(&format!("\"{key}\":"))
                .unwrap_or_else(|| panic!("{key} in {text}"))
        })
        .collect();
    assert!(places.is_sorted(), "{text}");
    wake.finish(&done);
}

#[test]
fn the_result_has_the_mode_that_the_umask_leaves() {
    needs_fuse!();
    let (place, wake) = wake();
    let job = job(&place, 1, "true");
    let mut child = wake.start(&job);
    child.wait().expect("an end");
    let mode = wake
        .result(&job)
        .metadata()
        .expect("a result")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o644);
}

#[test]
fn the_runner_needs_no_environment_at_all() {
    needs_fuse!();
    let (_place, wake) = wake();
    let mut job = Job::shell(1, "/usr/bin/env; /bin/echo > out");
    job.command[0] = "/bin/sh".into();
    (job.runner_environment, job.environment) = (Vec::new(), Vec::new());
    let done = wake.run(&job);
    wake.stop_daemon();
    done.expect(0);
    assert!(!done.stdout.contains("PATH"), "{done:?}");
    assert_eq!(wake.finish(&done).len(), 1);
}

#[test]
fn what_became_of_the_job_is_in_the_result_and_nowhere_else() {
    needs_fuse!();
    let (place, wake) = wake();
    let cases = [
        ("exit 0", None, 0, false),
        ("exit 97", None, 97, false),
        ("exit 125", None, 125, false),
        ("kill -9 $$", None, -9, false),
        ("kill -15 $$", None, -15, false),
        ("(sleep 300 &); exit 2", Some(30), 2, false),
        ("echo > hello; sleep 300", Some(1), 124, true),
        ("exec /no/such", None, 127, false),
    ];
    for ((script, timeout, status, timed_out), id) in cases.into_iter().zip(1..) {
        let mut job = job(&place, id, script);
        job.timeout = timeout;
        let done = wake.run(&job);
        let result = done.expect(0).document();
        check_required(&result);
        let told = (&result["usage"]["status"], &result["timed-out"]);
        assert_eq!(told, (&status.into(), &timed_out.into()), "{script}");
        assert!(result.get("sandbox-error").is_none(), "{script}");
        wake.finish(&done);
    }
    assert!(
        place.workspace().join("hello").exists(),
        "what was made in time counts"
    );
    assert!(wake.debris().is_empty(), "{:?}", wake.debris());
}

#[test]
fn commands_that_cannot_be_run_have_the_codes_of_a_shell() {
    needs_fuse!();
    let (place, wake) = wake();
    for ((program, status), id) in [("no-such", 127), ("/etc/passwd", 126)]
        .into_iter()
        .zip(1..)
    {
        let mut job = job(&place, id, "");
        job.command = vec![program.into()];
        let done = wake.run(&job);
        let result = done.expect(0).document();
        assert_eq!(result["usage"]["status"], status, "{done:?}");
    }
}

/// D9: the runner fails although it is told to isolate the job's code, and says why in three
/// places.
#[track_caller]
fn check_failure(wake: &Wake, done: &Done, code: i32, kind: &str, words: &str) {
    let result = done.expect(code).document();
    check_required(&result);
    assert_eq!(result["usage"]["status"], 125);
    for figure in ["membytes", "inbytes", "outbytes", "runtime", "cputime"] {
        assert_eq!(result["usage"][figure].as_f64(), Some(0.0), "{figure}");
    }
    assert_eq!(result["inputs"].as_array().map(Vec::len), Some(0));
    assert_eq!(result["outputs"].as_array().map(Vec::len), Some(0));
    let told = &result["sandbox-error"];
    assert_eq!(told["kind"], kind, "{told}");
    let message = told["message"].as_str().expect("a message");
    assert!(message.contains(words), "{message}");
    let line = format!("wakebox: {message}\n");
    assert!(done.stderr.contains(&line), "{done:?}");
    let errors = std::fs::read_to_string(wake.workspace.join("errors"));
    assert_eq!(errors.expect("descriptor 4"), line);
}

#[test]
fn a_failure_of_the_sandbox_is_no_status_of_the_job() {
    needs_fuse!();
    let (place, wake) = wake();
    let missing = "a".repeat(64);
    place.write("file", "");
    let prepare = |id: u32| {
        let mut job = job(&place, id, "exit 0");
        job.streams = "3>output 4>errors".into();
        job
    };

    let mut job = prepare(1);
    job.visible = vec![visible("f", "file", Some(&missing), 0o644)];
    check_failure(&wake, &wake.run(&job), 125, "input", &missing);

    let mut job = prepare(2);
    job.cas = "file".into();
    check_failure(&wake, &wake.run(&job), 125, "store", "file");

    let mut job = prepare(3);
    job.command = vec![String::new()];
    check_failure(&wake, &wake.run(&job), 1, "spec", "command");

    let mut job = prepare(4);
    job.visible = vec![visible("../f", "file", Some(&missing), 0o644)];
    check_failure(&wake, &wake.run(&job), 1, "spec", "visible[0]");

    let mut job = prepare(5);
    job.runner_environment = vec!["XDG_RUNTIME_DIR=/proc/1".into()];
    wake.run(&job).expect(0); // another directory serves as well
    wake.stop_daemon();
    assert_eq!(place.read("output"), b"");
}

#[test]
fn a_callers_descriptors_reach_neither_the_job_nor_the_daemon() {
    needs_fuse!();
    let (place, wake) = wake();
    let mut job = job(&place, 1, "ls /proc/self/fd; : >&4");
    job.streams = "3>output 4>errors 9>other".into();
    let done = wake.run(&job);
    assert_eq!(done.expect(0).stdout, "0\n1\n2\n3\n"); // 3 is the directory that ls reads
    assert_ne!(done.document()["usage"]["status"], 0);
    for daemon in place.daemons() {
        let folder = format!("/proc/{}/fd", daemon.as_raw_pid());
        for entry in std::fs::read_dir(folder)
            .expect("its descriptors")
            .flatten()
        {
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            assert_ne!(
                target.parent(),
                Some(&*wake.workspace),
                "{}",
                target.display()
            );
        }
    }
}

#[test]
fn a_job_server_gets_no_words_for_tokens() {
    let (place, wake) = wake();
    let mut job = job(&place, 1, "");
    job.command = vec![String::new()];
    job.streams = "3</dev/null 4>errors".into();
    wake.run(&job).expect(1);
    assert_eq!(place.read("errors"), b"");
}

fn is_running(argument: &str) -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| {
        line.split(|&byte| byte == 0)
            .any(|word| word == argument.as_bytes())
    })
}

/// A daemon whose client was killed cleans up by itself, soon.
fn wait_for_no_debris(wake: &Wake) {
    let start = Instant::now();
    while !wake.debris().is_empty() {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            wake.debris()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_cancelled_job_leaves_nothing() {
    needs_fuse!();
    let (place, wake) = wake();
    // The whole tree is deaf to what can be ignored.
    let mark = format!("3{:09}", std::process::id());
    let script = format!("trap '' TERM INT HUP; echo > made; setsid sleep {mark} & sleep {mark}");
    let job = job(&place, 1, &script);
    std::fs::write(wake.result(&job), "of an earlier job").expect("a file");
    let mut child = wake.start(&job);
    wait_for("the job runs", || is_running(&mark));
    let signals = wake.cancel(&mut child);
    let done = wake.collect(&job, child);
    done.expect(143);
    assert!(signals < 5, "{signals} signals");
    assert_eq!(done.result, None);
    assert!(!is_running(&mark));
    wait_for_no_debris(&wake);
}

#[test]
fn a_job_can_be_cancelled_at_any_moment() {
    needs_fuse!();
    let (place, wake) = wake();
    for id in 0..40 {
        let job = job(&place, id, "for n in 1 2 3 4; do echo $n > $n; done");
        let mut child = wake.start(&job);
        std::thread::sleep(Duration::from_millis(u64::from(id)));
        wake.cancel(&mut child);
        let done = wake.collect(&job, child);
        // Before the sandbox is there, and after it is gone, the signal itself ends the runner.
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&done.status) == Some(15);
        match (done.status.code(), &done.result) {
            (Some(0), Some(_)) => drop(wake.finish(&done)),
            (Some(143), None) => {}
            (None, None) if by_signal => {}
            // It came between the result and the end.
            (None, Some(_)) if by_signal => drop(wake.finish(&done)),
            _ => panic!("{done:?}"),
        }
    }
    wait_for_no_debris(&wake);
}

const WORKSPACE: &str = "WAKEBOX_TEST_WORKSPACE";
const FIRST: &str = "WAKEBOX_TEST_FIRST_JOB";
const EACH: u32 = 32;

/// One wake process with all its jobs at once. Started by the test below.
#[test]
#[ignore = "a part of the test below"]
fn one_of_two_drivers() {
    let (Some(workspace), Ok(first)) = (std::env::var_os(WORKSPACE), std::env::var(FIRST)) else {
        return;
    };
    let wake = Wake::new(workspace.into());
    let first: u32 = first.parse().expect("a number");
    let input = wake.ingest("in", b"shared");
    let jobs = (first..first + EACH).map(|id| {
        let mut job = Job::shell(id, &format!("cat in > out-{id}; echo {id} >> out-{id}"));
        job.runner_environment = vec![format!("XDG_RUNTIME_DIR={}/run", workspace_root(&wake))];
        job.visible = vec![input.clone()];
        job
    });
    let running: Vec<_> = jobs.map(|job| (wake.start(&job), job)).collect();
    for (child, job) in running {
        let done = wake.collect(&job, child);
        done.expect(0);
        let hashes = wake.finish(&done);
        let name = format!("out-{}", job.id);
        let wanted = cas::Digest::of(format!("shared{}\n", job.id).as_bytes());
        assert_eq!(hashes.into_iter().collect::<Vec<_>>(), [(name, wanted)]);
    }
}

fn workspace_root(wake: &Wake) -> String {
    let root = wake.workspace.parent().unwrap_or(Path::new("/"));
    root.display().to_string()
}

#[test]
fn two_wakes_run_sixty_four_jobs_at_once_in_one_workspace() {
    needs_fuse!();
    let (place, wake) = wake();
    let test = std::env::current_exe().expect("a test has a path");
    let driver = |first: u32| {
        let mut command = Command::new(&test);
        command.args(["--ignored", "--exact", "wake::one_of_two_drivers"]);
        command.env(WORKSPACE, place.workspace());
        command.env(FIRST, first.to_string());
        command.stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped());
        command.spawn().expect("a driver")
    };
    for driver in [driver(100), driver(200)] {
        let output = driver.wait_with_output().expect("an end");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && told.contains("1 passed"),
            "{told}"
        );
    }
    assert!(wake.debris().is_empty(), "{:?}", wake.debris());
    assert_eq!(place.daemons().len(), 1);
    assert_eq!(place.read("out-231"), b"shared231\n");
}
