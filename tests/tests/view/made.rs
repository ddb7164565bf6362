//! What a job makes: ordinary files, with the few differences that are on purpose.

use libc::{EACCES, EAGAIN, EEXIST, ENAMETOOLONG, ENOENT, ENXIO, EOPNOTSUPP, ETXTBSY};
use wakebox_tests::needs_fuse;
use wakebox_tests::operation::{Operation, text};

use super::steps::*;

#[test]
fn the_first_thing_that_any_user_does_may_be_to_make_something() {
    needs_fuse!();
    for user in [0, 1, 1000] {
        let job = wakebox_tests::operated::Job { user, ..job() };
        check(&job, &[(mkdir("d"), Done)]);
    }
}

#[test]
fn hard_links_are_one_inode_with_a_live_count() {
    needs_fuse!();
    let steps = [
        (create(0, "a", CREATE, 0o644), Done),
        (link("a", "b"), Done),
        (same("a", "b"), Told("true")),
        (stat("a"), Told("RegularFile 644 links 2 size 0 mtime now")),
        (write(0, 5), Done),
        (chmod("a", 0o600), Done),
        (stat("b"), Told("RegularFile 600 links 2 size 5 mtime now")),
        (unlink("a"), Done),
        (stat("b"), Told("RegularFile 600 links 1 size 5 mtime now")),
        (symlink("t", "l"), Done),
        (link("l", "m"), Done),
        (stat("l"), Told("Symlink 777 links 2 size 1 mtime now")),
        (rename("l", "m", 0), Done),
        (same("l", "m"), Told("true")),
    ];
    assert_eq!(check(&job(), &steps).outputs(), ["b", "l", "m"]);
}

#[test]
fn an_unlinked_open_file_lives_on_and_is_no_output() {
    needs_fuse!();
    for cached in [false, true] {
        let job = wakebox_tests::operated::Job { cached, ..job() };
        let steps = [
            (mkdir("d"), Done),
            (create(0, "d/a", CREATE, 0o644), Done),
            (unlink("d/a"), Done),
            (list("d"), Told("..:Directory .:Directory")),
            (rmdir("d"), Done),
            (write(0, 9), Told("9")),
            (Operation::Resize { slot: 0, size: 4 }, Done),
            (
                Operation::ChmodOpen {
                    slot: 0,
                    mode: 0o600,
                },
                Done,
            ),
            (
                Operation::StatOpen { slot: 0 },
                Told("RegularFile 600 links 0 size 4 mtime now"),
            ),
            (
                Operation::Reopen {
                    slot: 1,
                    from: 0,
                    flags: BOTH as u32,
                },
                Done,
            ),
            (
                Operation::ReadAt {
                    slot: 1,
                    offset: 0,
                    length: 10,
                },
                Done,
            ),
        ];
        assert!(check(&job, &steps).outputs().is_empty());
    }
}

#[test]
fn an_absent_name_is_seen_as_soon_as_it_is_made() {
    needs_fuse!();
    let steps = [
        (stat("a"), Refused(ENOENT)),
        (create(0, "a", CREATE, 0o644), Done),
        (stat("a"), Done),
        (stat("b"), Refused(ENOENT)),
        (rename("a", "b", 0), Done),
        (stat("a"), Refused(ENOENT)),
        (stat("b"), Done),
        (unlink("b"), Done),
        (stat("b"), Refused(ENOENT)),
        (mkdir("b"), Done),
        (stat("b"), Told("Directory 755 links 2 mtime now")),
    ];
    check(&job(), &steps);
}

#[test]
fn special_files_work_and_are_no_outputs() {
    needs_fuse!();
    let special = |path, socket| Operation::MakeSpecial {
        path: text(path),
        socket,
        mode: 0o600,
    };
    let steps = [
        (special("fifo", false), Done),
        (special("socket", true), Done),
        (stat("fifo"), Told("Fifo 600 links 1 size 0 mtime now")),
        (open(0, "fifo", BOTH | libc::O_NONBLOCK), Done),
        (write(0, 3), Told("3")),
        (Operation::Read { slot: 0, length: 3 }, Done),
        (open(1, "socket", READ), Refused(ENXIO)),
        (link("fifo", "second"), Done),
        // The kernel serves it and asks nobody for permission to open it.
        (chmod("fifo", 0o000), Done),
        (open(1, "fifo", BOTH | libc::O_NONBLOCK), Done),
    ];
    assert!(check(&job(), &steps).outputs().is_empty());
}

#[test]
fn a_whiteout_stays_behind_and_is_no_output() {
    needs_fuse!();
    let steps = [
        (mkdir("d"), Done),
        (create(0, "d/a", CREATE, 0o644), Done),
        (rename("d/a", "d/b", libc::RENAME_WHITEOUT), Done),
        (
            list("d"),
            Told("..:Directory .:Directory a:CharacterDevice b:RegularFile"),
        ),
        (create(1, "d/a", CREATE, 0o644), Refused(EEXIST)),
    ];
    assert_eq!(check(&job(), &steps).outputs(), ["d", "d/b"]);
}

#[test]
fn what_is_not_offered_says_so() {
    needs_fuse!();
    let steps = [
        (create(0, "a", CREATE, 0o644), Done),
        (attribute("a"), Refused(EOPNOTSUPP)),
        (stat(&"n".repeat(256)), Refused(ENAMETOOLONG)),
        (create(1, &"n".repeat(255), CREATE, 0o644), Done),
        (Operation::NameMax { path: text(".") }, Told("255")),
        (
            Operation::Deep {
                name: text([b'd'; 200]),
                levels: 30,
            },
            Done,
        ),
    ];
    check(&job(), &steps);
}

#[test]
fn locks_exclude() {
    needs_fuse!();
    let steps = [
        (create(0, "a", CREATE, 0o644), Done),
        (open(1, "a", BOTH), Done),
        (Operation::Lock { slot: 0 }, Done),
        (Operation::Lock { slot: 1 }, Refused(EAGAIN)),
        (Operation::LockRange { slot: 1 }, Done),
        (Operation::LockRange { slot: 0 }, Refused(EAGAIN)),
        (close(0), Done),
        (Operation::Lock { slot: 1 }, Done),
    ];
    check(&job(), &steps);
}

#[test]
fn a_program_just_written_runs_and_not_before() {
    needs_fuse!();
    for cached in [false, true] {
        let mut job = wakebox_tests::operated::Job { cached, ..job() };
        let script = b"#!/bin/sh\nexit 7\n";
        job.declare("in", script, 0o644, false);
        let length = script.len();
        let copy = Operation::CopyRange {
            slot: 1,
            offset: 0,
            from: 0,
            from_offset: 0,
            length,
        };
        let steps = [
            (open(0, "in", READ), Done),
            (create(1, "out", CREATE, 0o755), Done),
            (copy, Told("17")),
            (execute("out"), Refused(ETXTBSY)),
            (close(1), Done),
            (execute("out"), Told("7")),
            (rename("out", "moved", 0), Done),
            (execute("moved"), Told("7")),
            (chmod("moved", 0o644), Done),
            (execute("moved"), Refused(EACCES)),
        ];
        check(&job, &steps);
    }
}

#[test]
fn a_mapped_store_is_in_the_output_and_moves_the_time() {
    needs_fuse!();
    for cached in [false, true] {
        let job = wakebox_tests::operated::Job { cached, ..job() };
        let steps = [
            (create(0, "a", CREATE, 0o644), Done),
            (write(0, 8), Done),
            (close(0), Done),
            (set_times("a", 5), Done),
            (
                stat("a"),
                Told("RegularFile 644 links 1 size 8 mtime 5.123456789"),
            ),
            (open(0, "a", BOTH), Done),
            (map(0, 3, true), Told("true")),
            (stat("a"), Told("RegularFile 644 links 1 size 8 mtime now")),
            (map(0, 4, false), Told("true")),
        ];
        assert_eq!(check(&job, &steps).content(&job, "a"), b"wwwmmwww");
    }
}

#[test]
fn a_large_file_is_whole() {
    needs_fuse!();
    const MEGABYTE: usize = 1 << 20;
    let mut steps = vec![(create(0, "a", CREATE, 0o644), Done)];
    steps.extend((0..64).map(|_| (write(0, MEGABYTE), Told("1048576"))));
    let offset = 63 * MEGABYTE as u64;
    steps.push((
        Operation::ReadAt {
            slot: 0,
            offset,
            length: MEGABYTE,
        },
        Done,
    ));
    steps.push((
        stat("a"),
        Told("RegularFile 644 links 1 size 67108864 mtime now"),
    ));
    let job = job();
    let content = check(&job, &steps).content(&job, "a");
    assert!(content.len() == 64 * MEGABYTE && content.iter().all(|&byte| byte == b'w'));
}

#[test]
fn a_listing_is_stable_while_names_come_and_go() {
    needs_fuse!();
    let names = |count| (0..count).map(|n| (create(0, &format!("d/{n}"), CREATE, 0o644), Done));
    let mut steps = vec![(mkdir("d"), Done)];
    steps.extend(names(100));
    steps.push((
        Operation::ListAgain { path: text("d") },
        Told("102 entries, 0 wrong"),
    ));
    steps.push((
        Operation::ListAndRemove { path: text("d") },
        Told("100 removed, 2 left"),
    ));
    steps.extend(names(5000));
    steps.push((
        Operation::ListAndRemove { path: text("d") },
        Told("5000 removed, 2 left"),
    ));
    steps.push((rmdir("d"), Done));
    assert!(check(&job(), &steps).outputs().is_empty());
}

#[test]
fn directories_count_their_subdirectories() {
    needs_fuse!();
    let steps = [
        (mkdir("d"), Done),
        (mkdir("d/a"), Done),
        (mkdir("d/b"), Done),
        (stat("d"), Told("Directory 755 links 4 mtime now")),
        (rename("d/a", "a", 0), Done),
        (stat("d"), Told("Directory 755 links 3 mtime now")),
        (rename("a", "d/b", 0), Done),
        (stat("d"), Told("Directory 755 links 3 mtime now")),
        (rename("d", "d/b/c", 0), Refused(libc::EINVAL)),
    ];
    assert_eq!(check(&job(), &steps).outputs(), ["d", "d/b"]);
}

#[test]
fn a_descriptor_may_truncate_whatever_the_mode() {
    needs_fuse!();
    let steps = [
        (create(0, "a", CREATE, 0o444), Done),
        (Operation::Resize { slot: 0, size: 7 }, Done),
        (write(0, 2), Told("2")),
        (stat("a"), Told("RegularFile 444 links 1 size 7 mtime now")),
        (truncate("a"), Refused(EACCES)),
    ];
    check(&job(), &steps);
}

#[test]
fn a_write_takes_set_user_id_away() {
    needs_fuse!();
    let steps = [
        (create(0, "a", CREATE, 0o755), Done),
        (chmod("a", 0o4755), Done),
        (stat("a"), Told("RegularFile 4755 links 1 size 0 mtime now")),
        (open(1, "a", WRITE), Done),
        (stat("a"), Told("RegularFile 4755 links 1 size 0 mtime now")),
        (write(1, 1), Done),
        (stat("a"), Told("RegularFile 755 links 1 size 1 mtime now")),
        // Also if it was set while the writer was there.
        (chmod("a", 0o4755), Done),
        (write(1, 1), Done),
        (stat("a"), Told("RegularFile 755 links 1 size 2 mtime now")),
        (chmod("a", 0o4755), Done),
        (truncate("a"), Done),
        (stat("a"), Told("RegularFile 755 links 1 size 0 mtime now")),
        (chmod("a", 0o4755), Done),
        (open(2, "a", WRITE | libc::O_TRUNC), Done),
        (stat("a"), Told("RegularFile 755 links 1 size 0 mtime now")),
    ];
    check(&job(), &steps);
}

#[test]
fn names_and_targets_that_are_not_utf8_come_back_in_documents() {
    needs_fuse!();
    let (path, flags) = (text(b"caf\xe9"), CREATE as u32);
    let steps = [
        (
            Operation::Open {
                slot: 0,
                path,
                flags,
                mode: 0o644,
            },
            Done,
        ),
        (
            Operation::Symlink {
                target: text(b"\xff"),
                path: text("link"),
            },
            Done,
        ),
        (
            Operation::ReadLink { path: text("link") },
            Told("\u{10FEFF}"),
        ),
    ];
    assert_eq!(check(&job(), &steps).outputs(), ["caf\u{10FEE9}", "link"]);
}

#[test]
fn holes_are_found() {
    needs_fuse!();
    for cached in [false, true] {
        let job = wakebox_tests::operated::Job { cached, ..job() };
        let seek = |offset, whence| Operation::Seek {
            slot: 0,
            offset,
            whence,
        };
        let at = Operation::WriteAt {
            slot: 0,
            offset: 1 << 20,
            length: 4096,
            byte: 1,
        };
        let steps = [
            (create(0, "a", CREATE, 0o644), Done),
            (at, Told("4096")),
            (seek(0, libc::SEEK_HOLE), Told("0")),
            (seek(0, libc::SEEK_DATA), Told("1048576")),
            (seek(1 << 20, libc::SEEK_HOLE), Told("1052672")),
        ];
        check(&job, &steps);
    }
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    needs_fuse!();
    let mut steps = vec![
        (create(0, "file", CREATE, 0o644), Done),
        (mkdir("dir"), Done),
    ];
    steps.push((symlink("x", "link"), Done));
    for path in ["file", "dir", "link"] {
        steps.push((set_times(path, -1000), Done));
    }
    steps.push((
        stat("file"),
        Told("RegularFile 644 links 1 size 0 mtime -1000.123456789"),
    ));
    steps.push((
        stat("dir"),
        Told("Directory 755 links 2 mtime -1000.123456789"),
    ));
    steps.push((
        stat("link"),
        Told("Symlink 777 links 1 size 1 mtime -1000.123456789"),
    ));
    check(&job(), &steps);
}
