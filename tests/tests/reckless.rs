//! Calls that would do harm, and are refused in time.

use std::process::Command;

use wakebox_tests::{Place, needs_fuse};

fn git(place: &Place, arguments: &[&str]) -> String {
    let identity = [
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@example.invalid",
    ];
    let mut command = Command::new("git");
    command
        .args(identity)
        .args(arguments)
        .current_dir(place.workspace());
    let output = command.output().expect("git");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Regression: a job's own `git init` and commit went over the workspace's history.
#[test]
fn a_job_that_makes_a_repository_does_not_replace_the_workspaces() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "x");
    git(&place, &["init", "-q"]);
    git(&place, &["add", "in"]);
    git(&place, &["commit", "-qm", "history"]);
    let before = git(&place, &["log", "--format=%H"]);
    let script = "git init -q . && git add in && git -c user.name=a -c user.email=a@b commit -qm new; echo y > out";
    let told = place.run(&["sh", "-c", script]).expect(125).stderr();
    assert!(
        told.contains("'.git'") && told.contains("name it with -o"),
        "{told}"
    );
    assert_eq!(git(&place, &["log", "--format=%H"]), before);
    assert!(!place.workspace().join("out").exists(), "all or nothing");

    place
        .run(&["-o", "out", "--", "sh", "-c", script])
        .expect(0);
    assert_eq!(git(&place, &["log", "--format=%H"]), before);
    place
        .run(&["-o", ".git", "-o", "out", "--", "sh", "-c", script])
        .expect(0);
    assert_ne!(git(&place, &["log", "--format=%H"]), before);
}

/// Regression: a job of root could leave a program in the workspace that made anybody root.
#[test]
fn no_program_is_published_that_lends_its_publishers_rights() {
    needs_fuse!();
    let place = Place::new();
    let script =
        "for mode in 4755 2755 6711 755; do cp /bin/true p$mode; chmod $mode p$mode; done; mkdir d";
    let told = place.run(&["sh", "-c", script]).expect(0).stderr();
    for (name, mode, lent) in [
        ("p4755", 0o755, true),
        ("p2755", 0o755, true),
        ("p6711", 0o711, true),
        ("p755", 0o755, false),
    ] {
        let is = place.workspace().join(name).metadata().expect("published");
        let mode_now = std::os::unix::fs::MetadataExt::mode(&is) & 0o7777;
        assert_eq!(mode_now, mode, "{name}");
        let line = format!("'{name}' is published without its set-user-ID");
        assert_eq!(told.contains(&line), lent, "{told}");
    }
}

#[test]
fn a_store_around_the_workspace_is_refused_before_it_is_made() {
    let place = Place::new();
    for store in [".", ".."] {
        let told = place.run(&["--store", store, "true"]).expect(2).stderr();
        assert!(told.contains("lies inside the store"), "{told}");
    }
    let left = std::fs::read_dir(place.workspace())
        .expect("the workspace")
        .count();
    assert_eq!(left, 0);
}

#[test]
fn the_root_directory_is_no_workspace() {
    let place = Place::new();
    let mut command = place.command(["run", "-i", "etc/passwd", "true"]);
    let output = command.current_dir("/").output().expect("starts");
    let told = wakebox_tests::Outcome(output).expect(2).stderr();
    assert!(told.contains("the workspace cannot be /"), "{told}");
}

/// Regression: looking into a store that is not there made it, and found it empty.
#[test]
fn a_store_that_is_not_there_is_not_made_by_looking() {
    let place = Place::new();
    for look in ["ls", "verify"] {
        let told = place
            .call(["cas", "--store", "nowhere", look])
            .expect(2)
            .stderr();
        assert!(told.contains("there is no store at nowhere"), "{told}");
    }
    assert!(!place.workspace().join("nowhere").exists());
}

/// Regression: a process group reaches across PID namespaces, so `kill 0`, common in traps, took
/// the client, and whoever had started it.
#[test]
fn a_job_that_kills_its_group_kills_nobody_else() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "x");
    for (signal, number) in [("INT", 2), ("KILL", 9), ("TERM", 15)] {
        let script = format!("echo made > out; kill -{signal} 0; sleep 10");
        let mut command = place.command(["run", "--quiet", "--publish-on-failure", "--"]);
        command
            .args(["sh", "-c", &script])
            .stdin(std::process::Stdio::null());
        let output = command.output().expect("starts");
        wakebox_tests::Outcome(output).expect(128 + number);
        assert_eq!(place.read("out"), b"made\n", "{signal}");
        std::fs::remove_file(place.workspace().join("out")).expect("published");
    }
}
