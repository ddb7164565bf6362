//! Attacks on what is mounted: by the job as it is, and as root of a namespace that it makes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::raw::{Word, call, fd, number, text};
use super::{Ground, holds, is_hidden, is_secret, refused};

const DETACH: i64 = 2;
const BIND: i64 = 0x1000;
const REMOUNT: i64 = 0x20;
const CLONE: i64 = 1;
const EMPTY_PATH: i64 = 0x1000;
const RECURSIVE: i64 = 0x8000;

/// Becomes root of namespaces of its own, with all capabilities there.
fn nest(pid: bool) {
    let ids = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let more = if pid { libc::CLONE_NEWPID } else { 0 };
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | more;
    call(libc::SYS_unshare, [number(flags)]).expect("a job can make namespaces");
    for (file, content) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {} 1", ids.0)),
        ("gid_map", format!("0 {} 1", ids.1)),
    ] {
        fs::write(format!("/proc/self/{file}"), content).expect(file);
    }
}

fn mount(source: &str, target: &Path, kind: &str, flags: i64, data: &str) -> io::Result<i64> {
    let [source, kind, data] = [source, kind, data].map(text);
    let words = [
        Word::Text(&source),
        Word::Text(&text(target)),
        Word::Text(&kind),
        number(flags),
        Word::Text(&data),
    ];
    call(libc::SYS_mount, words)
}

/// Places that something lies over, or that are read-only.
fn places(ground: &Ground) -> Vec<PathBuf> {
    let mut places = vec![ground.workspace(), PathBuf::from("/proc")];
    places.extend([ground.store(), ground.sockets()]);
    places.extend(["/", "/usr", "/etc", "/dev/null", "/proc/sys", "/tmp"].map(PathBuf::from));
    places
}

fn attempts(ground: &Ground) {
    for place in places(ground) {
        let (at, way) = (text(&place), place.display());
        let umount = |flags| call(libc::SYS_umount2, [Word::Text(&at), number(flags)]);
        // What the job has made itself, or is its own copy of, lies over nothing.
        for flags in [0, 1, DETACH, 8] {
            if !is_callers_own(&place, ground) {
                refused(format!("umount {way} ({flags})"), umount(flags));
            }
        }
        let moved = [
            number(libc::AT_FDCWD),
            Word::Text(&at),
            number(libc::AT_FDCWD),
            Word::Text(c"/tmp"),
            number(0),
        ];
        refused(format!("move {way}"), call(libc::SYS_move_mount, moved));
    }
    for hidden in ground.hidden() {
        is_hidden(format!("{} after that", hidden.display()), &hidden);
    }
    ground
        .secrets()
        .iter()
        .for_each(|secret| is_secret(secret.display(), secret));
}

/// Whether there is no mount of ours.
fn is_callers_own(place: &Path, ground: &Ground) -> bool {
    ground.sees_host
        && ["/etc", "/usr", "/dev/null", "/tmp"]
            .iter()
            .any(|own| place == Path::new(own))
}

/// Takes mounts away, as the job is.
pub(super) fn unmount(ground: &Ground) {
    attempts(ground);
    let here = Path::new(".");
    refused("mount a tmpfs", mount("none", here, "tmpfs", 0, ""));
    refused("bind", mount("/", here, "", BIND | 0x4000, ""));
    refused(
        "fsopen",
        call(libc::SYS_fsopen, [Word::Text(c"tmpfs"), number(0)]),
    );
    refused(
        "open_tree",
        call(
            libc::SYS_open_tree,
            [number(libc::AT_FDCWD), Word::Text(c"/"), number(CLONE)],
        ),
    );
}

/// The same as root of namespaces of its own.
pub(super) fn unmount_nested(ground: &Ground) {
    nest(false);
    attempts(ground);
    for place in ["/", "/usr", "/etc", "/opt", "/dev/null", "/proc/sys"].map(Path::new) {
        if !place.exists() || ground.sees_host && !place.starts_with("/proc/sys") {
            continue;
        }
        let way = place.display();
        let attributes = [0_u64, 1, 0, 0].map(u64::to_ne_bytes).concat();
        let words = [
            number(libc::AT_FDCWD),
            Word::Text(&text(place)),
            number(0),
            Word::In(&attributes),
            number(32),
        ];
        let probe = format!("{}/attack", way);
        let made = call(libc::SYS_mount_setattr, words);
        let remounted = mount("none", place, "", REMOUNT | BIND, "");
        let wrote = File::create(&probe).or_else(|_| {
            File::options()
                .append(true)
                .open(place.join("kernel/core_pattern"))
        });
        let _ = fs::remove_file(&probe);
        // Whoever is no root of the machine may not write there anyway.
        refused(format!("write to {way} ({made:?}, {remounted:?})"), wrote);
    }
}

/// Shows what a mount of ours lies over, by a mount that does not have it.
pub(super) fn uncover_nested(ground: &Ground) {
    nest(false);
    let own = ground.scratch().join("attack");
    fs::create_dir_all(&own).expect("a directory");
    mount("none", &own, "tmpfs", 0, "").expect("root may mount what is its own");
    let seen = &own.join("seen");
    for (above, rest) in above(ground) {
        let way = above.display();
        fs::create_dir_all(seen).expect("a directory");
        let found = seen.join(&rest);
        let look = |how: &str| {
            is_hidden(format!("{how} {way}"), &found);
            is_secret(format!("{how} {way} for a file"), &found);
            let _ = call(libc::SYS_umount2, [Word::Text(&text(seen)), number(DETACH)]);
        };
        let _ = mount(&above.display().to_string(), seen, "", BIND, "");
        look("bind");
        let tree = call(
            libc::SYS_open_tree,
            [
                number(libc::AT_FDCWD),
                Word::Text(&text(&above)),
                number(CLONE),
            ],
        );
        if let Ok(tree) = tree {
            let own = PathBuf::from(format!("/proc/self/fd/{tree}")).join(&rest);
            is_hidden(format!("open_tree of {way}"), &own);
            is_secret(format!("open_tree of {way} for a file"), &own);
        }
        for directory in ["lower", "upper", "work"] {
            fs::create_dir_all(own.join(directory)).expect("a directory");
        }
        let layers = format!("lowerdir={way}:{}/lower", own.display());
        let _ = mount("overlay", seen, "overlay", 0, &layers);
        look("overlay over");
        let layers = format!(
            "lowerdir={way},upperdir={0}/upper,workdir={0}/work",
            own.display()
        );
        let _ = mount("overlay", seen, "overlay", 0, &layers);
        look("overlay under");
    }
}

/// What lies above something that is hidden, and the rest of its path.
fn above(ground: &Ground) -> Vec<(PathBuf, PathBuf)> {
    let secrets = ground.hidden().into_iter().chain(ground.secrets());
    let pairs = secrets.flat_map(|secret| {
        let up = secret.ancestors().skip(1).map(Path::to_path_buf);
        let pairs: Vec<_> = up
            .filter_map(|above| Some((above.clone(), secret.strip_prefix(&above).ok()?.to_owned())))
            .collect();
        pairs
    });
    pairs.collect()
}

/// Changes the root, and climbs out of it.
pub(super) fn roots(ground: &Ground) {
    refused(
        "pivot_root",
        call(libc::SYS_pivot_root, [Word::Text(c"."), Word::Text(c".")]),
    );
    fs::create_dir_all("jail").expect("a directory");
    let outer = File::open("/").expect("the root");
    let jailed = call(libc::SYS_chroot, [Word::Text(c"jail")]);
    println!("refused chroot, maybe: {jailed:?}");
    for _ in 0..64 {
        let _ = call(libc::SYS_chdir, [Word::Text(c"..")]);
    }
    let _ = call(libc::SYS_chroot, [Word::Text(c".")]);
    climbed(ground, "by chroot");
    let _ = call(libc::SYS_fchdir, [fd(&outer)]);
    let _ = call(libc::SYS_chroot, [Word::Text(c".")]);
    climbed(ground, "by a descriptor");
    nest(false);
    let _ = call(libc::SYS_chdir, [Word::Text(c"/")]);
    let pivoted = call(libc::SYS_pivot_root, [Word::Text(c"."), Word::Text(c".")]);
    let _ = call(libc::SYS_umount2, [Word::Text(c"."), number(DETACH)]);
    climbed(ground, &format!("by pivot_root ({pivoted:?})"));
}

fn climbed(ground: &Ground, how: &str) {
    for secret in ground.secrets() {
        is_secret(format!("{} {how}", secret.display()), &secret);
    }
    for hidden in ground.hidden() {
        is_hidden(format!("{} {how}", hidden.display()), &hidden);
    }
}

/// Joins namespaces of somebody else.
pub(super) fn namespaces(ground: &Ground) {
    let pids = ground.outside.iter().copied().chain([1]);
    for pid in pids {
        for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
            let path = format!("/proc/{pid}/ns/{kind}");
            let joined =
                File::open(&path).and_then(|file| call(libc::SYS_setns, [fd(&file), number(0)]));
            refused(format!("setns {path}"), joined);
        }
        if let Ok(pidfd) = call(libc::SYS_pidfd_open, [number(pid), number(0)]) {
            let flags = libc::CLONE_NEWNS | libc::CLONE_NEWUSER | libc::CLONE_NEWPID;
            refused(
                format!("setns by a pidfd of {pid}"),
                call(libc::SYS_setns, [number(pidfd), number(flags)]),
            );
        }
    }
    let requests = [("NS_GET_USERNS", 0xB701), ("NS_GET_PARENT", 0xB702)];
    for kind in ["user", "pid", "mnt", "net"] {
        let own = File::open(format!("/proc/self/ns/{kind}")).expect("its own");
        for (name, request) in requests {
            // The owner of its own mounts is its own, and so is what it is in.
            let got = call(libc::SYS_ioctl, [fd(&own), number(request)]);
            let joined = got.and_then(|other| call(libc::SYS_setns, [number(other), number(0)]));
            refused(format!("{name} of its {kind}, and setns"), joined);
        }
    }
    let mounts = File::open("/proc/self/ns/mnt").expect("its own");
    for (name, request) in [
        ("NS_MNT_GET_NEXT", 0x8010_B70B_u32),
        ("NS_MNT_GET_PREV", 0x8010_B70C),
    ] {
        let mut info = [0; 16];
        info[0] = 16;
        refused(
            name,
            call(
                libc::SYS_ioctl,
                [fd(&mounts), number(request), Word::Out(&mut info)],
            ),
        );
    }
    refused(
        "unshare mounts only",
        call(libc::SYS_unshare, [number(libc::CLONE_NEWNS)]),
    );
}

/// Opens files by handles, which need no path.
pub(super) fn handles(ground: &Ground) {
    // A file's number in its file system: the first is the root's on ext4, then xfs, btrfs, tmpfs.
    let guesses: Vec<[u8; 8]> = [2_u64, 128, 256, 1, 11, 12, 13]
        .map(u64::to_ne_bytes)
        .into();
    let tops = ["/", "/usr", "/etc", "/tmp", "/dev/shm", "."].map(Path::new);
    for top in tops.into_iter().filter(|top| top.exists()) {
        let mount = File::open(top).expect("it is there");
        for guess in &guesses {
            for kind in [1_i32, 2, 0x81] {
                let handle = [&8_u32.to_ne_bytes()[..], &kind.to_ne_bytes(), guess].concat();
                opened(
                    ground,
                    &format!("{} {kind} {guess:?}", top.display()),
                    &mount,
                    &handle,
                );
            }
        }
        known(ground, top, &mount);
    }
}

/// By the handle of something that can be named.
fn known(ground: &Ground, top: &Path, mount: &File) {
    for named in [
        top.to_path_buf(),
        ground.root.clone(),
        ground.workspace(),
        ground.store(),
    ] {
        let mut handle = [0; 136];
        handle[0] = 128;
        let mut id = [0; 8];
        let words = [
            number(libc::AT_FDCWD),
            Word::Text(&text(&named)),
            Word::Out(&mut handle),
            Word::Out(&mut id),
            number(0),
        ];
        if call(libc::SYS_name_to_handle_at, words).is_ok() {
            opened(
                ground,
                &format!("{} of {}", named.display(), top.display()),
                mount,
                &handle,
            );
        }
    }
}

/// What lies behind a handle must not be what is hidden, or above it.
fn opened(ground: &Ground, way: &str, mount: &File, handle: &[u8]) {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let words = [fd(mount), Word::In(handle), number(flags)];
    match call(libc::SYS_open_by_handle_at, words) {
        Err(error) => println!("refused handle {way}: {error}"),
        Ok(file) => {
            let behind = PathBuf::from(format!("/proc/self/fd/{file}"));
            for secret in ground.secrets().iter().chain(&ground.hidden()) {
                for above in secret.ancestors().skip(1) {
                    let rest = secret.strip_prefix(above).unwrap_or(secret);
                    let path = behind.join(rest);
                    is_secret(format!("handle {way}: {}", rest.display()), &path);
                    let lists = path.is_dir() && ground.hidden().contains(secret);
                    holds(
                        format!("handle {way}: no {}", rest.display()),
                        !lists || is_empty(&path),
                    );
                }
            }
            let _ = call(libc::SYS_close, [number(file)]);
        }
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

/// The same as root of namespaces of its own: the kernel lets whoever has all rights over the mounts
/// of a namespace use handles there.
pub(super) fn handles_nested(ground: &Ground) {
    nest(false);
    handles(ground);
    let copies = ["/usr", ".", "/tmp"].map(Path::new);
    for top in copies {
        let tree = call(
            libc::SYS_open_tree,
            [
                number(libc::AT_FDCWD),
                Word::Text(&text(top)),
                number(CLONE | RECURSIVE),
            ],
        );
        if let Ok(tree) = tree {
            let same = format!("/proc/self/fd/{tree}");
            let words = [number(tree), Word::Text(c""), number(EMPTY_PATH)];
            println!(
                "refused copy of {}, maybe: {:?}",
                top.display(),
                call(libc::SYS_fstat, words).is_ok()
            );
            if let Ok(mount) = File::open(same) {
                known(ground, top, &mount);
            }
        }
    }
}

/// Makes namespaces of all kinds, for [`super::kernel`].
pub(super) fn nest_processes() {
    nest(true);
}

pub(super) fn mount_proc(target: &Path) -> io::Result<i64> {
    mount("proc", target, "proc", 0, "")
}
