//! Attacks on what belongs to the whole machine.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::raw::{Word, call, number};
use super::{Ground, mounts, refused};

/// Files that rule the machine, and what may be written there without harm if it succeeds.
const KNOBS: [(&str, &str); 9] = [
    ("sys/kernel/core_pattern", "|/tmp/evil"),
    ("sys/kernel/hostname", "evil"),
    ("sys/kernel/modprobe", "/tmp/evil"),
    ("sys/kernel/hotplug", "/tmp/evil"),
    ("sys/kernel/randomize_va_space", "2"),
    ("sys/vm/drop_caches", "1"),
    ("sys/fs/suid_dumpable", "0"),
    ("sysrq-trigger", "h"),
    ("irq/default_smp_affinity", "f"),
];

/// Writes to knobs of the kernel, and asks for what only root of the machine may.
pub(super) fn kernel(ground: &Ground) {
    knobs(Path::new("/proc"));
    calls();
    if !ground.sees_host {
        refused(
            "open /sys/power/state",
            write("/sys/power/state".as_ref(), "evil"),
        );
        refused(
            "open /sys/kernel/uevent_helper",
            write("/sys/kernel/uevent_helper".as_ref(), ""),
        );
    }
    nested(ground);
}

fn knobs(proc: &Path) {
    for (knob, value) in KNOBS {
        let path = proc.join(knob);
        refused(format!("write {}", path.display()), write(&path, value));
    }
    let entries = fs::read_dir(proc.join("irq"))
        .into_iter()
        .flatten()
        .flatten();
    for entry in entries.take(3) {
        let path = entry.path().join("smp_affinity");
        refused(format!("write {}", path.display()), write(&path, "f"));
    }
}

fn write(path: &Path, value: &str) -> io::Result<usize> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write(value.as_bytes())
}

fn calls() {
    let evil = || Word::In(b"evil");
    let calls = [
        (
            "sethostname",
            call(libc::SYS_sethostname, [evil(), number(4)]),
        ),
        (
            "setdomainname",
            call(libc::SYS_setdomainname, [evil(), number(4)]),
        ),
        (
            "reboot",
            call(
                libc::SYS_reboot,
                [
                    number(0xFEE1_DEAD_u32),
                    number(672_274_793),
                    number(0),
                    number(0),
                ],
            ),
        ),
        (
            "swapon",
            call(libc::SYS_swapon, [Word::Text(c"declared"), number(0)]),
        ),
        ("acct", call(libc::SYS_acct, [Word::Text(c"declared")])),
        (
            "init_module",
            call(libc::SYS_init_module, [evil(), number(4), Word::Text(c"")]),
        ),
        (
            "kexec_load",
            call(
                libc::SYS_kexec_load,
                [number(0), number(0), number(0), number(0)],
            ),
        ),
        (
            "syslog",
            call(libc::SYS_syslog, [number(5), number(0), number(0)]),
        ),
        (
            "bpf",
            call(libc::SYS_bpf, [number(0), Word::In(&[2; 72]), number(72)]),
        ),
        (
            "clock_settime",
            call(libc::SYS_clock_settime, [number(0), Word::In(&[0xFF; 16])]),
        ),
        ("vhangup", call(libc::SYS_vhangup, [])),
        (
            "quotactl",
            call(
                libc::SYS_quotactl,
                [number(0x80_0001), Word::Text(c""), number(0), number(0)],
            ),
        ),
    ];
    for (name, done) in calls {
        refused(name, done);
    }
}

/// With a `/proc` of a namespace that it makes itself. The first child of it is in the new one.
fn nested(ground: &Ground) {
    mounts::nest_processes();
    let own = ground.scratch().join("attack-proc");
    fs::create_dir_all(&own).expect("a directory");
    let shell = std::process::Command::new(std::env::current_exe().expect("a name"))
        .arg("knobs")
        .arg(own)
        .status();
    if let Err(error) = shell {
        println!("refused a process in namespaces of its own: {error}");
    }
}

/// What that child does.
pub fn nested_knobs(proc: &Path) {
    match mounts::mount_proc(proc) {
        Ok(_) => knobs(proc),
        Err(error) => println!("refused a /proc of its own: {error}"),
    }
}
