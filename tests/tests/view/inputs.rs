//! Declared inputs: read-only by every route, and exactly as declared.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use libc::{EACCES, EBADF, EEXIST, EINVAL, EISDIR, ENOENT, EOPNOTSUPP, EPERM};
use wakebox_tests::needs_fuse;
use wakebox_tests::operated::Job;
use wakebox_tests::operation::{Operation, text};

use super::steps::*;

const CONTENT: &[u8] = b"declared\n";

/// A job with one input of each kind, and where the file's blob is.
fn declared() -> (Job, PathBuf) {
    let mut job = job();
    let blob = job.declare("d/in", CONTENT, 0o644, false);
    job.declare("d/twin", CONTENT, 0o444, false);
    job.declare("d/run", b"#!/bin/sh\nexit 7\n", 0o755, false);
    job.declare_link("link", "d/in");
    job.declare_directory("empty", 0o750);
    (job, blob)
}

fn refused_changes() -> Vec<(Operation, Expect)> {
    let exclusive = libc::O_CREAT | libc::O_EXCL | BOTH;
    let reopen = |flags: i32| Operation::Reopen {
        slot: 2,
        from: 0,
        flags: flags as u32,
    };
    let exchange = libc::RENAME_EXCHANGE;
    vec![
        (open(0, "d/in", READ), Done),
        (create(1, "d/new", CREATE, 0o644), Done),
        (open(2, "d/in", WRITE), Refused(EACCES)),
        (open(2, "d/in", BOTH), Refused(EACCES)),
        (open(2, "d/in", WRITE | libc::O_APPEND), Refused(EACCES)),
        (
            open(2, "d/in", WRITE | libc::O_CREAT | libc::O_TRUNC),
            Refused(EACCES),
        ),
        (open(2, "d/in", READ | libc::O_TRUNC), Refused(EACCES)),
        (open(2, "d/in", exclusive), Refused(EEXIST)),
        (open(2, "link", WRITE), Refused(EACCES)),
        (reopen(WRITE), Refused(EACCES)),
        (reopen(BOTH), Refused(EACCES)),
        (truncate("d/in"), Refused(EACCES)),
        (chmod("d/in", 0o777), Refused(EACCES)),
        (
            Operation::ChmodOpen {
                slot: 0,
                mode: 0o777,
            },
            Refused(EACCES),
        ),
        (chown("d/in"), Refused(EACCES)),
        (set_times("d/in", 1), Refused(EACCES)),
        (Operation::Touch { slot: 0 }, Refused(EACCES)),
        (unlink("d/in"), Refused(EACCES)),
        (rename("d/in", "d/gone", 0), Refused(EACCES)),
        (rename("d/new", "d/in", 0), Refused(EACCES)),
        (rename("d/new", "d/in", exchange), Refused(EACCES)),
        (rename("d/in", "d/new", exchange), Refused(EACCES)),
        (link("d/in", "d/second"), Refused(EPERM)),
        (stat("d/second"), Refused(ENOENT)),
        (map(0, 0, true), Refused(EACCES)),
        (write(0, 1), Refused(EBADF)),
        (Operation::Resize { slot: 0, size: 0 }, Refused(EINVAL)),
        (
            Operation::Allocate {
                slot: 0,
                flags: 0,
                offset: 0,
                length: 99,
            },
            Refused(EBADF),
        ),
        (attribute("d/in"), Refused(EOPNOTSUPP)),
        (access("d/in", libc::W_OK), Refused(EACCES)),
        (access("d/in", libc::R_OK), Done),
    ]
}

#[test]
fn every_route_to_changing_an_input_is_refused() {
    needs_fuse!();
    for (user, cached) in [(1000, false), (0, false), (1000, true), (0, true)] {
        let (mut job, blob) = declared();
        (job.user, job.cached) = (user, cached);
        let before = std::fs::metadata(&blob)
            .expect("a blob")
            .permissions()
            .mode();
        let operated = check(&job, &refused_changes());
        assert_eq!(operated.outputs(), ["d/new"]);
        assert_eq!(std::fs::read(&blob).expect("a blob"), CONTENT);
        assert_eq!(
            std::fs::metadata(&blob)
                .expect("a blob")
                .permissions()
                .mode(),
            before
        );
    }
}

#[test]
fn declared_links_and_directories_cannot_be_changed() {
    needs_fuse!();
    for user in [1000, 0] {
        let (mut job, _) = declared();
        job.user = user;
        let mut steps = vec![(symlink("x", "mine"), Done), (mkdir("dir"), Done)];
        for path in ["link", "empty", "d"] {
            steps.push((rename(path, "gone", 0), Refused(EACCES)));
            steps.push((set_times(path, 1), Refused(EACCES)));
            steps.push((chown(path), Refused(EACCES)));
        }
        steps.extend([
            (unlink("link"), Refused(EACCES)),
            (link("link", "second"), Refused(EPERM)),
            (rename("mine", "link", 0), Refused(EACCES)),
            (rmdir("empty"), Refused(EACCES)),
            (unlink("empty"), Refused(EISDIR)),
            (chmod("empty", 0o777), Refused(EACCES)),
            (rename("dir", "empty", 0), Refused(EACCES)),
        ]);
        check(&job, &steps);
    }
}

#[test]
fn inputs_look_as_declared() {
    needs_fuse!();
    let (job, _) = declared();
    check(
        &job,
        &[
            (
                stat("d/in"),
                Told("RegularFile 644 links 1 size 9 mtime 1234567890.123456789"),
            ),
            (
                stat("d/twin"),
                Told("RegularFile 444 links 1 size 9 mtime 1234567890.123456789"),
            ),
            (
                stat("link"),
                Told("Symlink 777 links 1 size 4 mtime 1234567890.123456789"),
            ),
            (
                stat("empty"),
                Told("Directory 750 links 2 mtime 1234567890.123456789"),
            ),
            (Operation::ReadLink { path: text("link") }, Told("d/in")),
            (same("d/in", "d/twin"), Told("false")),
            (same("d/in", "d/../d/in"), Told("true")),
            (
                list("d"),
                Told("..:Directory .:Directory in:RegularFile run:RegularFile twin:RegularFile"),
            ),
            (execute("d/run"), Told("7")),
            (execute("d/in"), Refused(EACCES)),
            (access("d/in", libc::X_OK), Refused(EACCES)),
            (access("d/run", libc::X_OK), Done),
        ],
    );
}

#[test]
fn only_what_is_declared_is_there() {
    needs_fuse!();
    let (job, _) = declared();
    job.place.write("secret", "not declared");
    job.place.write("d/secret", "not declared");
    check(
        &job,
        &[
            (stat("secret"), Refused(ENOENT)),
            (open(0, "d/secret", READ), Refused(ENOENT)),
            (
                list("."),
                Told("..:Directory .:Directory d:Directory empty:Directory link:Symlink"),
            ),
            (create(0, "secret", CREATE, 0o600), Done),
            (
                stat("secret"),
                Told("RegularFile 600 links 1 size 0 mtime now"),
            ),
        ],
    );
    assert_eq!(job.place.read("secret"), b"not declared");
}

#[test]
fn declared_directories_can_be_written_into() {
    needs_fuse!();
    let (job, _) = declared();
    let operated = check(
        &job,
        &[
            (create(0, "empty/file", CREATE, 0o640), Done),
            (mkdir("empty/sub"), Done),
            (stat("empty"), Told("Directory 750 links 3 mtime now")),
            (symlink("x", "d/link"), Done),
            (stat("d"), Told("Directory 755 links 2 mtime now")),
            (
                list("empty"),
                Told("..:Directory .:Directory file:RegularFile sub:Directory"),
            ),
        ],
    );
    assert_eq!(operated.outputs(), ["d/link", "empty/file", "empty/sub"]);
}

#[test]
fn inputs_count_when_their_content_is_asked_for() {
    needs_fuse!();
    let (mut job, _) = declared();
    job.declare("void", b"", 0o644, false);
    let looks = [
        (stat("d/in"), Done),
        (access("d/in", 4), Done),
        (list("d"), Done),
    ];
    assert!(check(&job, &looks).inputs().is_empty());
    let reads = [
        (open(0, "link", READ), Done),
        (open(1, "void", READ), Done),
        (execute("d/run"), Done),
    ];
    assert_eq!(
        check(&job, &reads).inputs(),
        ["d/in", "d/run", "link", "void"]
    );
}

#[test]
fn a_writable_input_is_a_copy() {
    needs_fuse!();
    let mut job = job();
    let blob = job.declare("rw", CONTENT, 0o600, true);
    let operated = check(
        &job,
        &[
            (
                stat("rw"),
                Told("RegularFile 600 links 1 size 9 mtime 1234567890.123456789"),
            ),
            (open(0, "rw", BOTH), Done),
            (write(0, 2), Told("2")),
            (stat("rw"), Told("RegularFile 600 links 1 size 9 mtime now")),
        ],
    );
    assert_eq!(operated.content(&job, "rw"), b"wwclared\n");
    assert_eq!(std::fs::read(blob).expect("a blob"), CONTENT);
}
