//! Directories as the kernel lists them, out of its own cache as well.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use std::time::Duration;

use fuse_daemon::view::{AtimePolicy, Caller, Policy};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, XattrFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::round_trips::{Counted, Counts, mounts_policy};
use super::{Served, impossible, in_both_ways, start_for};

/// One page, by which the kernel caches listings (fs/fuse/readdir.c, `fuse_add_dirent_to_cache`).
const PAGE: usize = 4096;
/// What an entry with a name of up to eight bytes takes there (`FUSE_DIRENT_SIZE`).
const ENTRY: usize = 32;

fn open(parent: impl AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// What one `getdents64` tells: nothing at the end.
fn part(directory: &OwnedFd, bytes: usize) -> Vec<String> {
    let mut buffer = Vec::with_capacity(bytes);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry.expect("an entry");
        names.push(entry.file_name().to_str().expect("text").to_owned());
        if entries.is_buffer_empty() {
            break;
        }
    }
    names
}

fn whole(directory: &OwnedFd) -> Vec<String> {
    let parts = std::iter::repeat_with(|| part(directory, 1024));
    parts
        .take_while(|part| !part.is_empty())
        .flatten()
        .collect()
}

/// A reader stands behind an entry that is removed, and another one fills the kernel's cache anew:
/// now the first does not find its place there. It has to go on nevertheless, also where the cache
/// ends with a page.
#[test]
fn a_listing_goes_on_from_a_removed_entry_beside_one_from_the_cache() {
    in_both_ways(|served| {
        let full = PAGE / ENTRY - 2;
        for count in [
            full - 1,
            full,
            full + 1,
            full + 2,
            2 * full + 3,
            2 * full + 4,
        ] {
            let name = format!("d{count}");
            rustix::fs::mkdirat(&served.mount, &*name, Mode::RWXU).expect("a directory");
            let all: BTreeSet<_> = (0..count).map(|number| format!("f{number}")).collect();
            for file in &all {
                drop(served.create(&format!("{name}/{file}")));
            }
            // Completed, the cache is thrown away by whoever begins to list what has changed.
            let first = open(&served.mount, &name).expect("open");
            assert_eq!(
                whole(&open(&served.mount, &name).expect("open")).len(),
                count + 2
            );
            let mut seen = part(&first, 1024);
            let removed = seen.last().expect("an entry").clone();
            rustix::fs::unlinkat(&first, &*removed, AtFlags::empty()).expect("removed");
            let second = open(&served.mount, &name).expect("open");
            assert_eq!(
                whole(&second).len(),
                count + 1,
                "the other one sees the rest"
            );
            seen.extend(whole(&first));
            seen.retain(|name| !name.starts_with('.'));
            assert_eq!(seen.len(), all.len(), "none twice, of {count}");
            assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), all);
        }
    });
}

/// A reader begins and leaves, names are made, and two readers list at once, of whom one comes to the
/// end: now the kernel has a cache that was begun before they were made. The other one, who began
/// later, has to see them nevertheless.
#[test]
fn a_listing_that_was_left_is_not_taken_for_a_later_one() {
    in_both_ways(|served| {
        rustix::fs::mkdirat(&served.mount, "d", Mode::RWXU).expect("a directory");
        make(&served, "old", 200);
        let left = part(&open(&served.mount, "d").expect("open"), 2048);
        make(&served, "new", 200);
        expect_all_for_both(&served, &left, 402);
    });
}

/// As above, and beside them there is one who began much earlier and comes to his end when the one
/// who leaves has begun: that says nothing of what was begun later.
#[test]
fn the_end_of_an_earlier_listing_is_not_that_of_a_later_one() {
    in_both_ways(|served| {
        rustix::fs::mkdirat(&served.mount, "d", Mode::RWXU).expect("a directory");
        make(&served, "old", 200);
        let early = open(&served.mount, "d").expect("open");
        // Far behind where the other one leaves.
        let mut told = 0;
        while told < 120 {
            told += part(&early, 1024).len();
        }
        // Now there is a cache, and the next who begins throws it away.
        assert_eq!(whole(&open(&served.mount, "d").expect("open")).len(), 202);
        make(&served, "between", 1);
        let left = part(&open(&served.mount, "d").expect("open"), 2048);
        assert!(!whole(&early).is_empty());
        make(&served, "new", 200);
        expect_all_for_both(&served, &left, 403);
    });
}

fn make(served: &Served, kind: &str, count: usize) {
    for number in 0..count {
        drop(served.create(&format!("d/{kind}{number}")));
    }
}

/// Lists at once by two, of whom one comes to the end when the other is where somebody has left.
fn expect_all_for_both(served: &Served, left: &[String], count: usize) {
    let first = open(&served.mount, "d").expect("open");
    // To where the one who left has been, too, and not to what he had last.
    let mut seen = part(&first, 64);
    while !left[4..20].contains(seen.last().expect("an entry")) {
        seen.extend(part(&first, 64));
    }
    assert_eq!(whole(&open(&served.mount, "d").expect("open")).len(), count);
    seen.extend(whole(&first));
    assert_eq!(seen.len(), count, "none twice");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>().len(), count);
}

/// In a job of another user than 0 the view checks who may list what, and it has to do so before a
/// listing begins.
#[test]
fn a_directory_that_may_not_be_listed_cannot_be_opened() {
    if let Some(reason) = impossible() {
        eprintln!("SKIPPED {}: {reason}", file!());
        return;
    }
    let user = Caller {
        uid: 1000,
        gid: 1000,
    };
    let served = start_for(user, true);
    let asked = std::thread::spawn(move || as_user(served, user));
    let served = asked.join().expect("done");
    // What nobody waits for may come late.
    while served.count("releasedir") < 3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(
        (served.count("opendir"), served.count("releasedir")),
        (4, 3)
    );
}

/// On a thread of its own, which stays that user.
fn as_user(served: Served, user: Caller) -> Served {
    rustix::thread::set_thread_gid(Gid::from_raw(user.gid)).expect("another group");
    rustix::thread::set_thread_uid(Uid::from_raw(user.uid)).expect("another user");
    let d = |mode| rustix::fs::chmodat(&served.mount, "d", mode, AtFlags::empty());
    rustix::fs::mkdirat(&served.mount, "d", Mode::RWXU).expect("a directory");
    drop(served.create("d/file"));
    for again in [false, true] {
        let listed = served.count("readdirplus");
        assert_eq!(whole(&open(&served.mount, "d").expect("open")).len(), 3);
        let asked = served.count("readdirplus") - listed;
        assert_eq!(
            asked,
            if again { 0 } else { 2 },
            "it is known the second time"
        );
    }
    let before = open(&served.mount, "d").expect("open");
    d(Mode::WUSR).expect("mode");
    assert_eq!(
        open(&served.mount, "d").expect_err("no permission"),
        Errno::ACCESS
    );
    assert_eq!(whole(&before).len(), 3, "what is open can be listed");
    served
}

fn listings(on: &Counted) -> u64 {
    let counted: Counts = on.asked(|| {
        let opened = std::fs::File::open(on.path("in")).expect("open");
        assert_eq!(whole(&opened.into()).len(), 12);
    });
    counted.get("readdirplus").copied().unwrap_or(0)
}

/// Where each listing moves a time, each is asked for, also from the moment on when this is wanted.
#[test]
fn a_listing_that_moves_a_time_is_asked_for_again() {
    if let Some(reason) = impossible() {
        eprintln!("SKIPPED {}: {reason}", file!());
        return;
    }
    let policy = |atime| Policy {
        atime,
        ..mounts_policy()
    };
    let strict = Counted::start(Some(policy(AtimePolicy::Always)));
    assert_eq!([listings(&strict), listings(&strict)], [2, 2]);
    let on = Counted::start(Some(policy(AtimePolicy::Relative)));
    assert_eq!([listings(&on), listings(&on)], [2, 0]);
    let (name, none) = ("trusted.wakebox.atime", XattrFlags::empty());
    rustix::fs::setxattr(on.path(""), name, b"strictatime", none).expect("a remount");
    assert_eq!([listings(&on), listings(&on)], [2, 2]);
    rustix::fs::setxattr(on.path(""), name, b"strictatime,nodiratime", none).expect("a remount");
    assert_eq!([listings(&on), listings(&on)], [2, 0]);
}
