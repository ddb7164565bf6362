//! Names, network, groups and limits of a job.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use client::exec::Status;
use client::sandbox::plan::{Limit, Limited, Namespaces};
use rustix::process::{Resource, getrlimit};

use crate::harness::{Script, file, run, skipped};

#[test]
fn a_host_and_a_domain_of_its_own() {
    let script = || Script::new("uname -n; cat /proc/sys/kernel/domainname");
    let ours = script().run().1;
    let mut named = script();
    named.draft.namespaces = Namespaces {
        host_name: Some("box".into()),
        domain_name: Some("wake".into()),
        network: false,
        last_pid: None,
        ipc: false,
    };
    named.draft.ids.inside_uid = 1000;
    assert_eq!(named.run().1, "box\nwake\n");
    named.draft.namespaces.domain_name = None;
    assert!(named.run().1.starts_with("box\n"));
    // Too long for the kernel: told, not fatal.
    named.draft.namespaces.host_name = Some(OsString::from("x".repeat(65)));
    assert_eq!(named.run().1, ours);
    assert_eq!(script().run().1, ours, "the host keeps its name");
}

#[test]
fn the_loopback_device_of_an_isolated_network_is_up() {
    for uid in [0, 1000] {
        let mut script = Script::new(
            "grep -c : /proc/net/dev; unshare -Ur true; python3 -c '
import socket
server = socket.create_server((\"127.0.0.1\", 0))
client = socket.create_connection(server.getsockname(), 5)
client.sendall(b\"hello\")
print(server.accept()[0].recv(5).decode())
try: socket.create_connection((\"192.0.2.1\", 80), 5)
except OSError as error: print(error.strerror)'",
        );
        script.draft.namespaces.network = true;
        script.draft.ids.inside_uid = uid;
        let (ended, output) = script.run();
        assert_eq!(ended.status, Status::Exited(0), "{output}");
        assert!(
            output.ends_with("hello\nNetwork is unreachable\n"),
            "{output}"
        );
    }
}

/// The kernel keeps them as long as nobody may change them (`setgroups` is denied).
#[test]
fn files_of_a_supplementary_group_stay_readable() {
    let own = rustix::process::geteuid().as_raw();
    if own != 0 {
        skipped("only root can give itself a group");
        return;
    }
    let script = Script::new("");
    let shared = script.path("shared");
    file(&shared, "for the group");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o040)).unwrap();
    std::os::unix::fs::chown(&shared, Some(0), Some(54321)).unwrap();
    fs::set_permissions(script.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = std::env::current_exe().unwrap();
    let me = ["--reuid=65534", "--regid=65534"];
    let client = |groups: &str| {
        let output = std::process::Command::new("setpriv")
            .args(me)
            .arg(groups)
            .arg(&program)
            .args([
                "--exact",
                "namespaces::a_reader",
                "--ignored",
                "--nocapture",
            ])
            .env(SHARED, &shared)
            .env("TMPDIR", script.dir.path())
            .output()
            .unwrap();
        let told = format!("{output:?}");
        String::from_utf8(output.stdout).unwrap() + &told
    };
    // The test program itself may lie where nobody else may look.
    if client("--clear-groups").contains("Permission denied") && !program_is_open(&program) {
        skipped("another user cannot run this test program");
        return;
    }
    assert!(client("--groups=54321").contains("read: for the group"));
    assert!(!client("--clear-groups").contains("read: for the group"));
}

fn program_is_open(program: &std::path::Path) -> bool {
    let open = |path: &std::path::Path| {
        fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
    };
    program.ancestors().all(open)
}

const SHARED: &str = "WAKEBOX_TEST_SHARED";

#[test]
#[ignore = "stands for a client; run by the test above"]
fn a_reader() {
    let shared = std::env::var(SHARED).expect("a file");
    let script = Script::new(&format!("cat {shared}"));
    println!("read: {}", script.run().1);
}

fn limited(script: &str, limits: &[(Limited, Option<u64>, Option<u64>)]) -> Script {
    let mut script = Script::new(script);
    let limit = |(what, soft, hard): &(Limited, _, _)| Limit {
        what: *what,
        soft: *soft,
        hard: *hard,
    };
    script.draft.limits = limits.iter().map(limit).collect();
    script
}

#[test]
fn limits_hold() {
    let text =
        "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -s; ulimit -f; ulimit -t; ulimit -v; ulimit -l";
    let script = limited(
        text,
        &[
            (Limited::Nofile, Some(64), Some(100)),
            (Limited::Core, Some(0), Some(0)),
            (Limited::Stack, Some(1 << 20), Some(1 << 20)),
            (Limited::Fsize, Some(1 << 20), Some(1 << 20)),
            (Limited::Cpu, Some(33), Some(44)),
            (Limited::As, Some(1 << 30), Some(1 << 30)),
            (Limited::Memlock, Some(4096), Some(4096)),
            (Limited::Nproc, Some(10_000), Some(10_000)),
        ],
    );
    // In blocks of 512 bytes, and in KiB.
    assert_eq!(script.run().1, "64\n100\n0\n1024\n2048\n33\n1048576\n4\n");
}

#[test]
fn a_limit_above_the_hard_one_is_refused() {
    let hard = getrlimit(Resource::Nofile)
        .maximum
        .expect("the kernel has one");
    let script = limited("true", &[(Limited::Nofile, Some(1), Some(hard + 1))]);
    let told = run(script.draft.clone()).unwrap_err().to_string();
    let expected = format!(
        "cannot set the limit nofile to 1 (soft) and {} (hard), more than the client's own hard limit",
        hard + 1
    );
    assert!(told.starts_with(&expected), "{told}");
}

#[test]
fn a_job_has_the_limits_of_its_client() {
    let ours = getrlimit(Resource::Nofile).current.unwrap();
    assert_eq!(Script::new("ulimit -n").run().1, format!("{ours}\n"));
}
