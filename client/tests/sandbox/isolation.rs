//! What a job cannot see, keep or undo.

use std::fs;

use client::exec::Status;
use client::sandbox::plan::Step;

use crate::harness::{Script, file, run};

fn hiding(script: &str) -> Script {
    let script = Script::new(script);
    fs::create_dir(script.path("secrets")).unwrap();
    file(&script.path("secrets/key"), "42");
    let path = script.path("secrets");
    script.steps(vec![
        Step::FreshProc { required: false },
        Step::Hide { path },
    ])
}

#[test]
fn a_hidden_directory_is_empty_and_read_only() {
    let (ended, output) = hiding("ls -A secrets; touch secrets/x && echo written").run();
    assert_ne!(ended.status, Status::Exited(0));
    assert!(
        !output.contains("key") && !output.contains("written"),
        "{output}"
    );
}

#[test]
fn what_does_not_exist_needs_no_hiding() {
    let script = Script::new("true");
    file(&script.path("file"), "");
    let hide = |name: &str| Step::Hide {
        path: script.path(name),
    };
    let steps = vec![
        hide("none"),
        hide("none/sub"),
        hide("file"),
        hide("file/sub"),
    ];
    assert_eq!(script.steps(steps).run().0.status, Status::Exited(0));
}

#[test]
fn mounts_cannot_be_undone() {
    let attempts = "
        id -u
        umount secrets && echo plain
        umount -l secrets && echo lazy
        mount -t tmpfs none secrets && echo over
        mkdir other
        unshare -Urm umount secrets && echo nested
        unshare -Urm umount -l secrets && echo nested lazy
        unshare -Urm sh -c 'mount --bind . other && cat other/secrets/key' && echo bound
        unshare -Urm sh -c 'mount -o remount,rw secrets && touch secrets/x' && echo remounted
        unshare -Urmpf sh -c 'mount -t proc proc /proc; cat /proc/1/root/'$PWD'/secrets/key' && echo proc
        cat secrets/key && echo seen
        exit 0";
    let (ended, output) = hiding(attempts).run();
    assert_eq!(ended.status, Status::Exited(0));
    let successes = [
        "plain",
        "lazy",
        "over",
        "nested",
        "bound",
        "remounted",
        "proc",
        "seen",
        "42",
    ];
    let told: Vec<&str> = output
        .lines()
        .filter(|line| successes.contains(line))
        .collect();
    assert!(output.starts_with("0\n") && told.is_empty(), "{output}");
}

#[test]
fn sandboxes_nest() {
    let nested =
        "unshare -Urm true && unshare -Urmpf sh -c 'mount -t tmpfs none /mnt && echo deep'";
    let (ended, output) = Script::new(nested)
        .steps(vec![Step::FreshProc { required: false }])
        .run();
    assert_eq!(
        (ended.status, output.as_str()),
        (Status::Exited(0), "deep\n")
    );
}

#[test]
fn the_environment_is_exact() {
    let mut script = Script::new("");
    script.draft.env = vec!["B=2".into(), "A=1".into(), "EMPTY=".into()];
    let out = script.path("out");
    let words = format!("/usr/bin/env > {}", out.display());
    script.draft.argv = vec!["/bin/sh".into(), "-c".into(), words.into()];
    let (_, output) = script.run();
    let made_by_the_shell = |line: &&str| line.starts_with("PWD=") || line.starts_with("_=");
    let mut lines: Vec<_> = output
        .lines()
        .filter(|line| !made_by_the_shell(line))
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=1", "B=2", "EMPTY="]);
}

#[test]
fn no_descriptor_leaks() {
    // Without CLOEXEC, as a careless caller of the client might leave one.
    let leak = rustix::fs::open("/", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
    let (_, output) = Script::new("ls /proc/self/fd").run();
    assert_eq!(output, "0\n1\n2\n3\n", "3 is the directory that ls reads");
    drop(leak);
}

#[test]
fn signals_are_as_in_a_new_session() {
    let (_, output) = Script::new("grep -E '^Sig(Blk|Ign)' /proc/self/status").run();
    assert_eq!(
        output,
        "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n"
    );
}

#[test]
fn capabilities_are_few() {
    let (_, output) = Script::new("grep -E '^(Cap|NoNew)' /proc/self/status").run();
    let docker_without_raw = "00000000a80405fb";
    let value = |name: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    assert_eq!(value("CapInh:"), "0000000000000000");
    assert_eq!(value("CapAmb:"), "0000000000000000");
    assert_eq!(value("NoNewPrivs:"), "1");
    for name in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(value(name), docker_without_raw, "{name}");
    }
}

#[test]
fn nobody_but_root_inside_has_capabilities() {
    let mut script = Script::new("grep CapEff /proc/self/status");
    script.draft.ids.inside_uid = 1000;
    assert_eq!(script.run().1, "CapEff:\t0000000000000000\n");
}

#[test]
fn the_first_process_shows_nothing() {
    let script = "echo $$; for f in cwd root exe fd/0; do readlink /proc/1/$f; done;
        cat /proc/1/environ; cat /proc/1/maps; kill -9 1; kill -0 1; cat /proc/1/comm >/dev/null && echo alive";
    let (ended, output) = Script::new(script)
        .steps(vec![Step::FreshProc { required: false }])
        .run();
    assert_eq!(ended.status, Status::Exited(0), "{output}");
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| !line.contains("denied"))
        .collect();
    assert_eq!(lines, ["2", "alive"], "{output}");
}

#[test]
fn mounts_of_the_host_do_not_come_in() {
    let (_, output) = Script::new("grep -cE 'shared:|master:' /proc/self/mountinfo").run();
    assert_eq!(output, "0\n");
}

#[test]
fn the_client_keeps_its_own_signals() {
    let mask = || {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        status
            .lines()
            .find(|line| line.starts_with("SigBlk"))
            .unwrap()
            .to_owned()
    };
    let before = mask();
    run(crate::harness::draft(&["true"])).unwrap();
    assert_eq!(mask(), before);
}

/// What locks the mounts: the job is not in the user namespace that they were made in, but in
/// a child of it, which maps the id to itself. (Without it the tests above would still pass:
/// the capabilities are gone, and every nested namespace locks what it copies.)
#[test]
fn the_job_is_in_a_namespace_below_that_of_its_mounts() {
    let mut script = Script::new("cat /proc/self/uid_map");
    script.draft.ids.inside_uid = 4321;
    let words: Vec<String> = script
        .run()
        .1
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert_eq!(words, ["4321", "4321", "1"]);
}
