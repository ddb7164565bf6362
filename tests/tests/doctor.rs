//! `wakebox doctor`: what works here and what does not, found out by doing it.

use std::process::Command;

use serde_json::Value;
use wakebox_tests::{Outcome, Place, needs_fuse, skip, wakebox};

/// The findings of a call by their names, and whether jobs can run.
fn findings(outcome: &Outcome) -> (Value, bool) {
    let document: Value = serde_json::from_str(&outcome.stdout()).expect("JSON");
    (document["findings"].clone(), document["able"] == true)
}

fn finding<'f>(findings: &'f Value, what: &str) -> &'f Value {
    let mut rows = findings.as_array().expect("an array").iter();
    rows.find(|row| row["what"] == what)
        .unwrap_or_else(|| panic!("{what} in {findings}"))
}

/// The doctor, where a shell script has taken something away first.
fn after(place: &Place, script: &str) -> Outcome {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    command
        .arg(format!("{script}\nexec \"$@\""))
        .arg("sh")
        .arg(wakebox());
    command
        .args(["doctor", "--json"])
        .current_dir(place.workspace())
        .env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.env("HOME", place.root().join("home"));
    command
        .env("XDG_RUNTIME_DIR", place.runtime())
        .env("WAKEBOX_IDLE", "1");
    Outcome(command.output().expect("unshare runs"))
}

#[test]
fn where_jobs_run_it_says_so_and_leaves_nothing() {
    needs_fuse!();
    let place = Place::new();
    let outcome = place.call(["doctor", "--json"]).expect(0);
    let (found, able) = findings(&outcome);
    assert!(able);
    for what in [
        "user namespaces",
        "pid namespaces",
        "fuse device",
        "fuse mount",
        "trial job",
    ] {
        assert_eq!(finding(&found, what)["ok"], true, "{found}");
    }
    // What it says of passthrough is what a job's result says.
    let json = place.root().join("result.json");
    let options = [
        "--json",
        json.to_str().expect("text"),
        "--",
        "sh",
        "-c",
        "echo > out; cat out",
    ];
    place.run(&options).expect(0);
    let result: Value =
        serde_json::from_slice(&std::fs::read(json).expect("written")).expect("JSON");
    let passes = result["data-path"] == "passthrough";
    assert_eq!(finding(&found, "passthrough")["ok"], passes);
    place.expect_clean_within(std::time::Duration::from_millis(500));
    let text = place.call(["doctor"]).expect(0).stdout();
    assert_eq!(
        text.lines().count(),
        found.as_array().expect("rows").len() + 1
    );
    assert!(text.ends_with("jobs can run here\n"), "{text}");
}

#[test]
fn without_the_device_it_says_why_and_how_to_get_it() {
    needs_fuse!();
    let place = Place::new();
    let probe = Command::new("unshare").args(["--mount", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        skip!("unshare --mount needs privilege");
    }
    let outcome = after(
        &place,
        "mount -t tmpfs none /dev; mknod -m 666 /dev/null c 1 3",
    )
    .expect(1);
    let (found, able) = findings(&outcome);
    assert!(!able);
    for what in ["fuse device", "fuse mount", "trial job"] {
        let row = finding(&found, what);
        assert_eq!(
            (&row["ok"], &row["needed"]),
            (&false.into(), &true.into()),
            "{row}"
        );
    }
    let row = finding(&found, "fuse device");
    assert!(
        row["advice"]
            .as_str()
            .expect("advice")
            .contains("--device /dev/fuse"),
        "{row}"
    );
    assert_eq!(finding(&found, "user namespaces")["ok"], true);
}

#[test]
fn without_user_namespaces_it_names_the_setting() {
    needs_fuse!();
    let place = Place::new();
    // A limit of the user namespace that we are in, which is one of our own for that.
    let mut command = Command::new("unshare");
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"";
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-ec",
        script,
        "sh",
    ]);
    command
        .arg(wakebox())
        .args(["doctor", "--json"])
        .current_dir(place.workspace());
    command
        .env("HOME", place.root().join("home"))
        .env("XDG_RUNTIME_DIR", place.runtime());
    let outcome = Outcome(command.output().expect("unshare runs"));
    if outcome.stdout().is_empty() {
        skip!(outcome.stderr());
    }
    let (found, able) = findings(&outcome);
    let row = finding(&found, "user namespaces");
    assert!(!able && row["ok"] == false, "{found}");
    let why = row["found"].as_str().expect("text");
    assert!(why.contains("user.max_user_namespaces is 0"), "{why}");
    outcome.expect(1);
}

#[test]
fn a_stopped_daemon_and_a_stale_socket_are_found() {
    needs_fuse!();
    let place = Place::new();
    place.run(&["true"]).expect(0);
    let daemon = place.daemons()[0];
    let other = place.root().join("other");
    let other = other.to_str().expect("text");
    rustix::process::kill_process(daemon, rustix::process::Signal::STOP).expect("it is there");
    let (found, _) = findings(&place.call(["doctor", "--json", "--store", other]).expect(0));
    let row = finding(&found, "daemons");
    let why = row["found"].as_str().expect("text");
    assert!(why.contains(&daemon.as_raw_pid().to_string()), "{row}");
    wakebox_tests::job::kill(daemon);
    let (found, _) = findings(&place.call(["doctor", "--json", "--store", other]).expect(0));
    assert_eq!(finding(&found, "daemons")["ok"], true);
    assert_eq!(finding(&found, "stale sockets")["ok"], false);
}
