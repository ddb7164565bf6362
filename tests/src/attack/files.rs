//! Attacks on files: what was declared, what was not, and the store.

use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::raw::{Word, call, fd, number, text, write_mapped};
use super::{DECLARED, Ground, SECRET, escaped, holds, is_hidden, is_secret, refused};

const INPUT: &str = "declared";

/// Changes a declared input, or the blob behind it.
pub(super) fn inputs(_ground: &Ground) {
    for (way, options) in writing() {
        refused(format!("open to {way}"), options.open(INPUT));
    }
    refused(
        "truncate",
        call(libc::SYS_truncate, [Word::Text(&text(INPUT)), number(0)]),
    );
    let file = File::open(INPUT).expect("it can be read");
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    for (way, options) in writing() {
        refused(format!("reopen by /proc to {way}"), options.open(&own));
    }
    refused("write to what is open to be read", (&file).write(b"!"));
    refused("write there at a place", file.write_at(b"!", 0));
    refused("truncate there", file.set_len(0));
    refused(
        "punch a hole",
        call(
            libc::SYS_fallocate,
            [fd(&file), number(3), number(0), number(1)],
        ),
    );
    refused("map for writing", write_mapped(file.as_fd(), false));
    refused("map and then protect", write_mapped(file.as_fd(), true));
    let other = scratch("other");
    let range = [
        fd(&other),
        number(0),
        fd(&file),
        number(0),
        number(5),
        number(0),
    ];
    refused(
        "copy a range into it",
        call(libc::SYS_copy_file_range, range),
    );
    let clone = [fd(&file), number(0x4004_9409), fd(&other)];
    refused("clone a file into it", call(libc::SYS_ioctl, clone));
    refused(
        "send a file into it",
        call(
            libc::SYS_sendfile,
            [fd(&file), fd(&other), number(0), number(5)],
        ),
    );
    renamed();
    holds("the input is what it was", unchanged());
}

fn unchanged() -> bool {
    let content = fs::read_to_string(INPUT);
    content.map_or_else(
        |error| error.kind() == io::ErrorKind::NotFound,
        |it| it == DECLARED,
    )
}

/// Other names of an input are as read-only as it is.
fn renamed() {
    if fs::hard_link(INPUT, "linked").is_ok() {
        refused(
            "write to a link of it",
            OpenOptions::new().write(true).open("linked"),
        );
        refused("truncate a link of it", File::create("linked"));
    }
    let at = [
        number(libc::AT_FDCWD),
        Word::Text(c"declared"),
        number(libc::AT_FDCWD),
        Word::Text(c"moved"),
    ];
    if call(libc::SYS_renameat2, at).is_ok() {
        let mode = fs::Permissions::from_mode(0o666);
        let _ = fs::set_permissions("moved", mode);
        refused(
            "write to it after a rename",
            OpenOptions::new().write(true).open("moved"),
        );
        let _ = fs::rename("moved", INPUT);
    }
}

fn writing() -> Vec<(&'static str, OpenOptions)> {
    let options = |set: fn(&mut OpenOptions) -> &mut OpenOptions| {
        let mut options = OpenOptions::new();
        set(&mut options);
        options
    };
    vec![
        ("write", options(|it| it.write(true))),
        ("read and write", options(|it| it.read(true).write(true))),
        ("append", options(|it| it.append(true))),
        ("truncate", options(|it| it.write(true).truncate(true))),
        ("create", options(|it| it.write(true).create(true))),
    ]
}

/// A file of the job's own.
fn scratch(name: &str) -> File {
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(name);
    let file = file.as_mut().expect("a job can make files");
    file.write_all(b"other").expect("written");
    file.try_clone().expect("a descriptor")
}

/// Reaches the store, other jobs' staging files or the daemon's sockets, by any path.
pub(super) fn store(ground: &Ground) {
    for directory in ground.hidden() {
        for prefix in prefixes() {
            let path = join(&prefix, &directory);
            let way = path.display();
            is_hidden(&way, &path);
            refused(
                format!("make a file in {way}"),
                File::create(path.join("evil")),
            );
            refused(
                format!("make a directory in {way}"),
                fs::create_dir(path.join("evil.d")),
            );
        }
        let link = Path::new("to-hidden");
        let _ = fs::remove_file(link);
        symlink(&directory, link).expect("a link");
        is_hidden(format!("a link to {}", directory.display()), link);
    }
    blobs(ground);
}

/// By the name that anybody can compute.
fn blobs(ground: &Ground) {
    let hash = cas::Digest::of(DECLARED.as_bytes()).to_string();
    let (fan_out, rest) = hash.split_at(2);
    let blob = ground.store().join("blobs").join(fan_out).join(rest);
    for prefix in prefixes() {
        let path = join(&prefix, &blob);
        let way = path.display();
        refused(format!("open {way}"), File::open(&path));
        refused(
            format!("write {way}"),
            OpenOptions::new().write(true).open(&path),
        );
        refused(
            format!("chmod {way}"),
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)),
        );
        refused(format!("remove {way}"), fs::remove_file(&path));
        refused(format!("link {way}"), fs::hard_link(&path, "blob"));
        refused(format!("rename over {way}"), fs::rename("to-hidden", &path));
    }
}

/// Ways to say `/`.
fn prefixes() -> Vec<PathBuf> {
    let here = std::env::current_dir().expect("a directory");
    let up: PathBuf = here.components().map(|_| "..").collect();
    let prefixes = [
        "/",
        "/proc/self/root",
        "/proc/thread-self/root",
        "/proc/1/root",
        "/proc/self/cwd",
    ];
    let mut all: Vec<PathBuf> = prefixes.iter().map(PathBuf::from).collect();
    all[4].push(&up);
    all.push(up);
    all
}

fn join(prefix: &Path, path: &Path) -> PathBuf {
    prefix.join(path.strip_prefix("/").unwrap_or(path))
}

/// Reads what was not declared.
pub(super) fn undeclared(ground: &Ground) {
    for secret in ground.secrets() {
        for prefix in prefixes() {
            let path = join(&prefix, &secret);
            is_secret(path.display(), &path);
        }
        let link = Path::new("to-secret");
        let _ = fs::remove_file(link);
        symlink(&secret, link).expect("a link");
        is_secret(format!("a link to {}", secret.display()), link);
        refused("a hard link to it", fs::hard_link(&secret, "hard"));
    }
    let other = ground.root.join("workspace/other");
    is_secret("what another job makes", &other);
    beneath(ground);
}

/// By a directory's descriptor that was opened before something was mounted there, if any was.
fn beneath(ground: &Ground) {
    let workspace = File::open(ground.workspace()).expect("the view");
    let path = format!("/proc/self/fd/{}/secret", workspace.as_raw_fd());
    is_secret("the workspace's descriptor", path.as_ref());
    let up = [
        fd(&workspace),
        Word::Text(c"../workspace/secret"),
        number(0),
        number(0),
    ];
    refused("openat by ..", call(libc::SYS_openat, up));
}

/// Makes files of the names that we use ourselves.
pub(super) fn names(_ground: &Ground) {
    for directory in [
        ".wakebox",
        ".build/cas/blobs/00",
        ".build/cas/staging/0123456789abcdef",
        "staging",
        "blobs",
        ".cache/wakebox/staging",
    ] {
        fs::create_dir_all(directory).expect("a job can make directories");
    }
    for file in [
        ".wakebox/environment",
        ".wakebox/mounts",
        ".wakebox/mountpoint",
        ".build/cas/index",
        ".build/cas/lock",
        ".build/cas/blobs/00/evil",
        ".build/cas/staging/0123456789abcdef/1",
        "staging/manifest",
        "blobs/x",
        "inputs",
        "manifest",
        "recovery",
        "result.json",
        "result.json.tmp",
        ".fuse_hidden0001",
        "wakebox-put.1.0",
        "1",
        "2",
        "..evil",
        "\u{10FE2F}",
        "a\nb",
        " ",
    ] {
        fs::write(file, "evil").expect("a job can make files");
    }
    let long = "n".repeat(255);
    fs::write(&long, "evil").expect("a long name");
    for wrong in ["..", ".", "", "a/../../../evil"] {
        refused(
            format!("a file {wrong:?}"),
            File::create(Path::new("blobs").join(wrong)),
        );
    }
    holds(
        "what it made is its own",
        fs::read(&long).is_ok_and(|it| it == b"evil"),
    );
}

/// Swaps a directory for a link to the outside while it is passed through.
pub(super) fn races(ground: &Ground) {
    fs::create_dir_all("swap").expect("a directory");
    fs::write("swap/secret", "harmless").expect("a file");
    let _ = fs::remove_file("link");
    symlink(ground.workspace(), "link").expect("a link");
    symlink("../../../../../../../../", "up").expect("a link");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for other in [c"link", c"up"] {
            let done = &done;
            scope.spawn(move || swap(other, done));
        }
        let start = Instant::now();
        let mut read = 0;
        while start.elapsed() < Duration::from_millis(200) {
            for path in ["swap/secret", "swap/../swap/secret", "link/../swap/secret"] {
                read += u64::from(is_read(Path::new(path)));
            }
            let _ = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open("swap/secret");
            let _ = fs::remove_file("swap/evil");
            let _ = File::create("swap/evil");
        }
        done.store(true, Ordering::Relaxed);
        holds(
            format!("the secret was read {read} times in a race"),
            read == 0,
        );
    });
}

fn is_read(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|content| content.contains(SECRET))
}

fn swap(other: &CStr, done: &AtomicBool) {
    let here = || number(libc::AT_FDCWD);
    while !done.load(Ordering::Relaxed) {
        let exchange = [
            here(),
            Word::Text(c"swap"),
            here(),
            Word::Text(other),
            number(libc::RENAME_EXCHANGE),
        ];
        let _ = call(libc::SYS_renameat2, exchange);
    }
}

/// Becomes somebody else, or gets rights, by programs of another user's.
pub(super) fn privileges(ground: &Ground) {
    let status = fs::read_to_string("/proc/self/status").expect("a status");
    let is = |key: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(str::trim)
    };
    holds("no new privileges", is("NoNewPrivs:") == Some("1"));
    let bounding = is("CapBnd:")
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .unwrap_or(u64::MAX);
    for (name, bit) in [
        ("NET_ADMIN", 12),
        ("SYS_MODULE", 16),
        ("SYS_RAWIO", 17),
        ("SYS_PTRACE", 19),
        ("SYS_ADMIN", 21),
        ("SYS_BOOT", 22),
        ("NET_RAW", 13),
        ("DAC_READ_SEARCH", 2),
        ("BPF", 39),
    ] {
        holds(format!("no CAP_{name}"), bounding & (1 << bit) == 0);
    }
    for other in [1, 12345] {
        refused(
            format!("setuid {other}"),
            call(libc::SYS_setuid, [number(other)]),
        );
        refused(
            format!("setgid {other}"),
            call(libc::SYS_setgid, [number(other)]),
        );
    }
    refused(
        "setgroups",
        call(libc::SYS_setgroups, [number(0), number(0)]),
    );
    let own = ground.scratch().join("suid");
    for place in [Path::new("suid"), &own, "/dev/shm/attack-suid".as_ref()] {
        set_user(place);
    }
    for program in [
        "/usr/bin/su",
        "/usr/bin/mount",
        "/usr/bin/passwd",
        "/usr/bin/newgrp",
    ] {
        holds(
            format!("{program} makes nobody root"),
            !gains(Command::new(program).arg("--help")),
        );
    }
}

/// A program with the set-user-ID bit runs as who started it.
fn set_user(place: &Path) {
    let made = fs::copy("/bin/sleep", place);
    let chmod = made.and_then(|_| fs::set_permissions(place, fs::Permissions::from_mode(0o6755)));
    let mut command = Command::new(place);
    command.arg("0.05");
    holds(
        format!("{} {chmod:?} gives no rights", place.display()),
        !gains(&mut command),
    );
    let _ = fs::remove_file(place);
}

/// Whether a program has another effective user than its real one.
fn gains(command: &mut Command) -> bool {
    let Ok(mut child) = command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
    else {
        return false;
    };
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let _ = child.wait();
    let ids = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .unwrap_or_default();
    let mut ids = ids.split_whitespace();
    ids.next() != ids.next()
}

/// Makes device nodes, and opens those of the host.
pub(super) fn devices(ground: &Ground) {
    let nodes = [
        ("disk", libc::S_IFBLK, 254, 0),
        ("memory", libc::S_IFCHR, 1, 1),
        ("fuse", libc::S_IFCHR, 10, 229),
    ];
    for directory in [".", "/tmp", "/dev/shm", "/dev", "/home/job"] {
        for (name, kind, major, minor) in nodes {
            let path = Path::new(directory).join(format!("node-{name}"));
            let device = libc::makedev(major, minor);
            let made = call(
                libc::SYS_mknod,
                [
                    Word::Text(&text(&path)),
                    number(kind | 0o666),
                    number(device),
                ],
            );
            let made = made.and_then(|_| File::open(&path));
            refused(format!("make and open {}", path.display()), made);
            let _ = fs::remove_file(&path);
        }
    }
    for name in ["null", "zero", "tty"].iter().filter(|_| !ground.sees_host) {
        let path = Path::new("/dev").join(name);
        refused(
            format!("chmod {}", path.display()),
            fs::set_permissions(&path, fs::Permissions::from_mode(0o0)),
        );
        refused(format!("remove {}", path.display()), fs::remove_file(&path));
    }
    if !ground.sees_host {
        for name in [
            "mem",
            "kmsg",
            "vda",
            "sda",
            "kvm",
            "loop-control",
            "net/tun",
            "mapper/control",
            "uinput",
            "port",
        ] {
            let path = Path::new("/dev").join(name);
            refused(format!("open {}", path.display()), File::open(&path));
        }
        let own = fs::read_dir("/dev/pts").map_or(0, |entries| {
            entries
                .flatten()
                .filter(|entry| entry.file_name() != "ptmx")
                .count()
        });
        holds("no terminal of anybody else", own == 0);
    }
    if fs::metadata("/dev/fuse").is_err() {
        escaped("/dev/fuse", "a job cannot sandbox in its turn");
    }
}
