//! How jobs end, and what is told of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use client::exec::{Status, start};
use client::sandbox::plan::{Namespaces, Stdin};

use crate::harness::{Script, draft, eventually, file, marker, plan, run, sleepers};

fn status(argv: &[&str]) -> Status {
    run(draft(argv)).expect("the job runs").status
}

#[test]
fn exit_codes() {
    assert_eq!(status(&["true"]), Status::Exited(0));
    assert_eq!(status(&["false"]), Status::Exited(1));
    assert_eq!(status(&["sh", "-c", "exit 200"]), Status::Exited(200));
    assert_eq!(status(&["sh", "-c", "exit 127"]), Status::Exited(127));
}

#[test]
fn signals_are_told_as_signals() {
    assert_eq!(status(&["sh", "-c", "kill -9 $$"]), Status::Signaled(9));
    assert_eq!(status(&["sh", "-c", "kill -15 $$"]), Status::Signaled(15));
}

#[test]
fn programs_that_cannot_be_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    file(&dir.path().join("data"), "not a program");
    file(&dir.path().join("text"), "no interpreter line");
    fs::set_permissions(path("text"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(status(&["no-such-program"]), Status::NotFound);
    assert_eq!(status(&[&path("none")]), Status::NotFound);
    assert_eq!(status(&[&path("data/x")]), Status::NotFound);
    assert_eq!(status(&[&path("data")]), Status::CannotRun(libc::EACCES));
    assert_eq!(status(&[&path("text")]), Status::CannotRun(libc::ENOEXEC));
    assert_eq!(status(&[&path("")]), Status::CannotRun(libc::EACCES));
}

#[test]
fn the_search_passes_over_what_it_cannot_run() {
    let dir = tempfile::tempdir().unwrap();
    for sub in ["a/true", "b", "c"] {
        fs::create_dir_all(dir.path().join(sub)).unwrap();
    }
    file(&dir.path().join("b/true"), "no program");
    let search = |path: String| {
        let mut draft = draft(&["true"]);
        draft.env = vec![format!("PATH={path}").into()];
        run(draft).unwrap().status
    };
    let root = dir.path().display();
    assert_eq!(
        search(format!("{root}/a::{root}/b:/bin:/usr/bin")),
        Status::Exited(0)
    );
    assert_eq!(
        search(format!("{root}/a:{root}/b:{root}/c")),
        Status::CannotRun(libc::EACCES)
    );
    assert_eq!(search(format!("{root}/a:{root}/c")), Status::NotFound);
    let mut relative = draft(&["sh"]);
    (relative.cwd, relative.env) = ("/bin".into(), vec![]);
    relative.stdin = Stdin::Open("/dev/null".into());
    assert_eq!(run(relative).unwrap().status, Status::Exited(0));
}

#[test]
fn standard_input_is_relative_to_the_directory() {
    let mut script = Script::new("cat");
    file(&script.path("words"), "hello");
    script.draft.stdin = Stdin::Open("words".into());
    assert_eq!(script.run().1, "hello");
    script.draft.stdin = Stdin::Open("none".into());
    let error = run(script.draft.clone()).unwrap_err().to_string();
    let told = "cannot open none as standard input: No such file or directory (os error 2)";
    assert_eq!(error, told);
}

#[test]
fn a_missing_directory_is_named() {
    let mut draft = draft(&["true"]);
    draft.cwd = "/no/such".into();
    let error = run(draft).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot change to directory /no/such: No such file or directory (os error 2)"
    );
}

#[test]
fn a_time_out_kills_what_has_detached_itself() {
    let marker = marker(1);
    let script = format!("(setsid sleep {marker} & ) ; exec sleep {marker}");
    let script = Script::new(&script);
    let begun = Instant::now();
    let running = start(&plan(script.draft.clone()), None).unwrap();
    eventually("both sleep", || sleepers(&marker) == 2);
    let ended = running.wait(Some(Duration::from_secs(2)), None).unwrap();
    assert_eq!(sleepers(&marker), 0);
    assert_eq!((ended.status, ended.timed_out), (Status::Signaled(9), true));
    assert!(ended.wall >= Duration::from_millis(300) && ended.wall <= begun.elapsed());
}

#[test]
fn the_job_ends_with_its_main_process() {
    let marker = marker(2);
    let script = format!(
        "setsid sleep {marker} & while ! pgrep -f 'sleep {marker}' >/dev/null; do :; done; exit 4"
    );
    let (ended, _) = Script::new(&script).run();
    assert_eq!((ended.status, ended.timed_out), (Status::Exited(4), false));
    assert_eq!(sleepers(&marker), 0);
}

#[test]
fn a_job_that_is_dropped_is_killed() {
    let marker = marker(3);
    let running = start(&plan(draft(&["sleep", &marker])), None).unwrap();
    eventually("it sleeps", || sleepers(&marker) == 1);
    drop(running);
    assert_eq!(sleepers(&marker), 0);
}

#[test]
fn time_and_memory_are_counted() {
    let burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
    let (ended, _) = Script::new(&format!("sh -c '{burn}'")).run();
    assert!(ended.cpu > Duration::from_millis(5), "{ended:?}");
    assert!(ended.wall >= ended.cpu / 2, "{ended:?}");
    assert!(ended.max_rss_bytes > 256 << 10, "{ended:?}");
    let script = Script::new(&format!(
        "(while :; do :; done) & {burn}; while :; do :; done"
    ));
    let running = start(&plan(script.draft.clone()), None).unwrap();
    let ended = running.wait(Some(Duration::from_secs(2)), None).unwrap();
    assert!(
        ended.timed_out && ended.cpu > Duration::from_millis(50),
        "{ended:?}"
    );
}

#[test]
fn ids_are_as_planned() {
    let mut script = Script::new("id -u; id -g; cat /proc/self/setgroups; touch mine");
    (script.draft.ids.inside_uid, script.draft.ids.inside_gid) = (1000, 100);
    assert_eq!(script.run().1, "1000\n100\ndeny\n");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(script.path("mine")).unwrap());
    assert_eq!(owner, script.draft.ids.outside_uid);
}

#[test]
fn extra_namespaces_are_made() {
    let look = "readlink /proc/self/ns/uts /proc/self/ns/net";
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    let host = format!("{}\n{}\n", own("uts").display(), own("net").display());
    let mut script = Script::new(look);
    assert_eq!(script.run().1, host);
    script.draft.namespaces = Namespaces {
        host_name: Some("box".into()),
        domain_name: None,
        network: true,
        last_pid: None,
        ipc: false,
    };
    let inside = script.run().1;
    assert!(
        inside
            .lines()
            .zip(host.lines())
            .all(|(inside, host)| inside != host),
        "{inside}"
    );
}
