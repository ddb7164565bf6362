//! Where the daemon answers: on the CPU of whoever asks.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use wakebox_tests::job::wait_for;
use wakebox_tests::{Place, needs_fuse};

/// Asks for many names, and stays.
const ASK: &str = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); test -e absent$i; done; read wait";

/// The CPUs of those threads of a place's daemon that answer the kernel.
fn reader_cpus(place: &Place) -> Vec<String> {
    let tasks = place
        .daemons()
        .into_iter()
        .filter_map(|daemon| std::fs::read_dir(format!("/proc/{daemon}/task")).ok());
    let status = tasks
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    let word = |status: &str, key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.map(|word| word.trim().to_owned()).unwrap_or_default()
    };
    status
        .filter(|status| word(status, "Name:") == "session")
        .map(|status| word(&status, "Cpus_allowed_list:"))
        .collect()
}

/// One with the highest number, of those that there are.
fn last_cpu() -> usize {
    let cpus = sched_getaffinity(None).expect("affinity");
    let last = (0..CpuSet::MAX_CPU).rfind(|cpu| cpus.is_set(*cpu));
    last.expect("a CPU")
}

/// Starts a job that lives until its standard input ends.
fn start(mut wakebox: Command) -> Child {
    wakebox.stdin(Stdio::piped()).spawn().expect("starts")
}

fn end(mut job: Child) {
    drop(job.stdin.take());
    assert!(job.wait().is_ok(), "ends");
}

fn batch(place: &Place, script: &str) -> Command {
    let spec = place.flag("spec.json");
    std::fs::write(&spec, place.spec(script).to_string()).expect("a spec");
    place.command([Path::new("-p"), &spec, Path::new("-i")])
}

#[test]
fn a_job_that_is_bound_to_a_cpu_is_served_on_it_by_a_daemon_that_is_not() {
    needs_fuse!();
    let place = Place::new();
    place.batch_call(&place.spec("true"), &[]).0.expect(0);
    let last = last_cpu();
    let mut one = CpuSet::new();
    one.set(last);
    let wakebox = batch(&place, "read wait");
    // Only this thread, of which the job inherits it.
    sched_setaffinity(None, &one).expect("affinity");
    let job = start(wakebox);
    wait_for("the job to be served", || !reader_cpus(&place).is_empty());
    let readers = reader_cpus(&place);
    end(job);
    // One is enough for one CPU.
    assert_eq!(readers, [last.to_string()]);
    place.expect_clean();
}

/// Starts what asks for many names on one CPU, and waits until it is answered on that CPU.
fn expect_followed(place: &Place, wakebox: Command, cpu: usize) {
    let job = start(wakebox);
    wait_for("the readers to follow the job", || {
        let readers = reader_cpus(place);
        !readers.is_empty() && readers.iter().all(|cpus| *cpus == cpu.to_string())
    });
    end(job);
    place.expect_clean();
}

#[test]
fn readers_follow_a_job_to_the_cpu_that_it_asks_from() {
    needs_fuse!();
    let (place, last) = (Place::new(), last_cpu());
    for cpu in [last, 0] {
        let script = format!("taskset -c {cpu} sh -c '{ASK}'");
        expect_followed(&place, batch(&place, &script), cpu);
    }
}

#[test]
fn readers_follow_a_job_with_a_root_of_its_own() {
    needs_fuse!();
    let (place, last) = (Place::new(), last_cpu());
    let cpu = last.to_string();
    let words = [
        "run", "--quiet", "--", "taskset", "-c", &cpu, "sh", "-c", ASK,
    ];
    expect_followed(&place, place.command(words), last);
}
