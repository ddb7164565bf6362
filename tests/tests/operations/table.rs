//! The table: by operation, what it does to a declared path and to one of the job's own.

use libc::{
    EACCES, EBADF, EEXIST, EINVAL, EISDIR, ELOOP, ENOENT, ENOTDIR, ENOTEMPTY, ENXIO, EOPNOTSUPP,
    EPERM,
};
use wakebox_tests::operation::{Operation, text};

use crate::view::steps::*;

/// An operation by name, and steps that show what it does.
pub(super) type Row = (&'static str, Vec<(Operation, Expect)>);

pub(super) fn rows() -> Vec<Row> {
    [
        looking(),
        opening(),
        moving(),
        removing(),
        making(),
        changing(),
        writing(),
        sharing(),
    ]
    .concat()
}

fn own(path: &str) -> (Operation, Expect) {
    (create(9, path, CREATE, 0o644), Done)
}

fn special(path: &str, socket: bool) -> Operation {
    let path = text(path);
    Operation::MakeSpecial {
        path,
        socket,
        mode: 0o600,
    }
}

fn regular(path: &str) -> Operation {
    let (path, mode) = (text(path), 0o640);
    Operation::MakeRegular { path, mode }
}

fn readlink(path: &str) -> Operation {
    Operation::ReadLink { path: text(path) }
}

fn looking() -> Vec<Row> {
    let told = |text| Told(text);
    vec![
        (
            "getattr",
            vec![
                (
                    stat("d/in"),
                    told("RegularFile 644 links 1 size 9 mtime 1234567890.123456789"),
                ),
                (stat("undeclared"), Refused(ENOENT)),
                (stat("d/in/x"), Refused(ENOTDIR)),
                (create(0, "look", CREATE, 0o640), Done),
                (write(0, 3), Done),
                (
                    stat("look"),
                    told("RegularFile 640 links 1 size 3 mtime now"),
                ),
            ],
        ),
        (
            "access",
            vec![
                (access("d/in", libc::W_OK), Refused(EACCES)),
                (access("d/in", libc::X_OK), Refused(EACCES)),
                (access("d/run", libc::X_OK), Done),
                (access("vd", libc::W_OK), Done),
                (access("sealed", libc::W_OK), Refused(EACCES)),
                (access("undeclared", libc::F_OK), Refused(ENOENT)),
                (create(0, "acc", CREATE, 0o500), Done),
                (access("acc", libc::W_OK), Refused(EACCES)),
                (access("acc", libc::R_OK | libc::X_OK), Done),
            ],
        ),
        (
            "readlink",
            vec![
                (readlink("link"), told("d/in")),
                (readlink("d/in"), Refused(EINVAL)),
                (symlink("to", "rl"), Done),
                (readlink("rl"), told("to")),
                (readlink("d"), Refused(EINVAL)),
            ],
        ),
        (
            "readdir",
            vec![
                (
                    list("d"),
                    told("..:Directory .:Directory in:RegularFile run:RegularFile"),
                ),
                (mkdir("ls"), Done),
                (special("ls/fifo", false), Done),
                (symlink("x", "ls/link"), Done),
                (
                    list("ls"),
                    told("..:Directory .:Directory fifo:Fifo link:Symlink"),
                ),
                (list("d/in"), Refused(ENOTDIR)),
            ],
        ),
        (
            "statfs",
            vec![(Operation::NameMax { path: text("d/in") }, told("255"))],
        ),
    ]
}

fn opening() -> Vec<Row> {
    let nonblocking = libc::O_NONBLOCK;
    vec![
        (
            "create",
            vec![
                (create(0, "d/in", CREATE, 0o644), Refused(EEXIST)),
                (create(0, "vd", CREATE, 0o644), Refused(EEXIST)),
                own("cr"),
                (write(9, 5), Done),
                (create(0, "cr", CREATE, 0o644), Refused(EEXIST)),
                (open(0, "cr", WRITE | libc::O_CREAT | libc::O_TRUNC), Done),
                (stat("cr"), Told("RegularFile 644 links 1 size 0 mtime now")),
            ],
        ),
        (
            "open (D5: at once)",
            vec![
                (open(0, "d/in", READ), Done),
                (open(0, "d/in", WRITE), Refused(EACCES)),
                (open(0, "d/in", BOTH), Refused(EACCES)),
                (open(0, "d/in", WRITE | libc::O_APPEND), Refused(EACCES)),
                (open(0, "d/in", WRITE | libc::O_TRUNC), Refused(EACCES)),
                (open(0, "vd", WRITE), Refused(EISDIR)),
                (open(0, "link", READ | libc::O_NOFOLLOW), Refused(ELOOP)),
                (open(0, "undeclared", READ), Refused(ENOENT)),
                own("op"),
                (open(0, "op", WRITE | libc::O_APPEND), Done),
                (special("op-fifo", false), Done),
                (open(0, "op-fifo", WRITE | nonblocking), Refused(ENXIO)),
                (special("op-socket", true), Done),
                (open(0, "op-socket", READ), Refused(ENXIO)),
                (mkdir("op-dir"), Done),
                (open(0, "op-dir", BOTH), Refused(EISDIR)),
            ],
        ),
        (
            "O_TMPFILE",
            vec![
                (open(0, "vd", BOTH | libc::O_TMPFILE), Done),
                (close(0), Done),
                (open(0, ".", BOTH | libc::O_TMPFILE), Done),
                (close(0), Done),
            ],
        ),
    ]
}

fn moving() -> Vec<Row> {
    let (exchange, keep) = (libc::RENAME_EXCHANGE, libc::RENAME_NOREPLACE);
    vec![
        (
            "rename",
            vec![
                own("mv"),
                (rename("d/in", "mv2", 0), Refused(EACCES)),
                (rename("d", "mv2", 0), Refused(EACCES)),
                (rename("mv", "d/in", 0), Refused(EACCES)),
                (rename("mv", "d/in", keep), Refused(EEXIST)),
                (rename("undeclared", "mv2", 0), Refused(ENOENT)),
                (rename("mv", "vd/moved", 0), Done),
                (rename("vd/moved", "mv", 0), Done),
                (mkdir("mv-dir"), Done),
                own("mv-dir/file"),
                (rename("mv-dir", "mv-dir2", 0), Done),
                (stat("mv-dir2/file"), Done),
                (stat("mv-dir/file"), Refused(ENOENT)),
                (rename("mv", "mv-dir2", 0), Refused(EISDIR)),
                (rename("mv-dir2", "mv", 0), Refused(ENOTDIR)),
                (rename("mv-dir2", "mv-dir2/in", 0), Refused(EINVAL)),
                (rename("mv", "mv-dir2", keep), Refused(EEXIST)),
            ],
        ),
        (
            "rename of a directory (D11: no merging)",
            vec![
                (mkdir("a"), Done),
                own("a/x"),
                (mkdir("b"), Done),
                own("b/y"),
                (rename("a", "b", 0), Refused(ENOTEMPTY)),
                (rename("a", "d", 0), Refused(EACCES)),
                (unlink("b/y"), Done),
                (rename("a", "b", 0), Done),
                (list("b"), Told("..:Directory .:Directory x:RegularFile")),
            ],
        ),
        (
            "renameat2 (D21: exchange)",
            vec![
                own("ex"),
                (symlink("x", "ex2"), Done),
                (rename("ex", "ex2", exchange), Done),
                (readlink("ex"), Told("x")),
                (rename("ex", "link", exchange), Refused(EACCES)),
                (rename("ex", "ex3", libc::RENAME_WHITEOUT), Done),
                (readlink("ex3"), Told("x")),
                (readlink("ex"), Refused(EINVAL)), // a device is there now
                (
                    rename("link", "ex4", libc::RENAME_WHITEOUT),
                    Refused(EACCES),
                ),
            ],
        ),
    ]
}

fn removing() -> Vec<Row> {
    vec![
        (
            "unlink",
            vec![
                (unlink("d/in"), Refused(EACCES)),
                (unlink("link"), Refused(EACCES)),
                (mkdir("rm"), Done),
                own("rm/a"),
                (unlink("rm/a"), Done),
                // Open and yet without any name, hidden ones included.
                (list("rm"), Told("..:Directory .:Directory")),
                (write(9, 3), Told("3")),
                (unlink("rm"), Refused(EISDIR)),
                (unlink("undeclared"), Refused(ENOENT)),
            ],
        ),
        (
            "rmdir",
            vec![
                (rmdir("vd"), Refused(EACCES)),
                (mkdir("rd"), Done),
                (mkdir("rd/sub"), Done),
                (rmdir("rd"), Refused(ENOTEMPTY)),
                (rmdir("rd/sub"), Done),
                (rmdir("rd"), Done),
                own("rd"),
                (rmdir("rd"), Refused(ENOTDIR)),
            ],
        ),
    ]
}

fn making() -> Vec<Row> {
    vec![
        (
            "mkdir",
            vec![
                (mkdir("vd"), Refused(EEXIST)),
                (mkdir("d/in"), Refused(EEXIST)),
                (mkdir("vd/sub"), Done),
                (mkdir("vd/sub"), Refused(EEXIST)),
                (mkdir("d/in/sub"), Refused(ENOTDIR)),
            ],
        ),
        (
            "symlink",
            vec![
                (symlink("x", "d/in"), Refused(EEXIST)),
                (symlink("x", "sl"), Done),
                (symlink("x", "sl"), Refused(EEXIST)),
            ],
        ),
        (
            "mknod",
            vec![
                (regular("d/in"), Refused(EEXIST)),
                (regular("mk"), Done),
                (stat("mk"), Told("RegularFile 640 links 1 size 0 mtime now")),
                (open(0, "mk", BOTH), Done),
                (write(0, 2), Told("2")),
                (special("mk", false), Refused(EEXIST)),
                (special("mk-fifo", false), Done),
                (special("mk-socket", true), Done),
                (
                    stat("mk-socket"),
                    Told("Socket 600 links 1 size 0 mtime now"),
                ),
            ],
        ),
        (
            "link (D12: one inode; D21: of a symlink)",
            vec![
                (link("d/in", "ln"), Refused(EPERM)),
                own("ln"),
                (link("ln", "d/in"), Refused(EEXIST)),
                (link("ln", "ln2"), Done),
                (link("ln2", "ln3"), Done),
                (same("ln", "ln3"), Told("true")),
                (chmod("ln3", 0o600), Done),
                (stat("ln"), Told("RegularFile 600 links 3 size 0 mtime now")),
                (mkdir("ln-dir"), Done),
                (link("ln-dir", "ln-dir2"), Refused(EPERM)),
                (symlink("x", "ln-link"), Done),
                (link("ln-link", "ln-link2"), Done),
                (
                    stat("ln-link2"),
                    Told("Symlink 777 links 2 size 1 mtime now"),
                ),
            ],
        ),
    ]
}

fn changing() -> Vec<Row> {
    vec![
        (
            "truncate",
            vec![
                (truncate("d/in"), Refused(EACCES)),
                (truncate("vd"), Refused(EISDIR)),
                own("tr"),
                (write(9, 3), Done),
                (truncate("tr"), Done),
                (stat("tr"), Told("RegularFile 644 links 1 size 0 mtime now")),
            ],
        ),
        (
            "chmod",
            vec![
                (chmod("d/in", 0o777), Refused(EACCES)),
                (chmod("vd", 0o777), Refused(EACCES)),
                own("ch"),
                (chmod("ch", 0o200), Done),
                (stat("ch"), Told("RegularFile 200 links 1 size 0 mtime now")),
                (special("ch-fifo", false), Done),
                (chmod("ch-fifo", 0o640), Done),
                (stat("ch-fifo"), Told("Fifo 640 links 1 size 0 mtime now")),
            ],
        ),
        (
            "chown",
            vec![
                (chown("d/in"), Refused(EACCES)),
                own("co"),
                (chown("co"), Done),
            ],
        ),
        (
            "utimens",
            vec![
                (set_times("d/in", 5), Refused(EACCES)),
                (set_times("link", 5), Refused(EACCES)),
                own("ut"),
                (set_times("ut", 5), Done),
                (close(9), Done),
                (
                    stat("ut"),
                    Told("RegularFile 644 links 1 size 0 mtime 5.123456789"),
                ),
                (special("ut-fifo", false), Done),
                (set_times("ut-fifo", 7), Done),
                (
                    stat("ut-fifo"),
                    Told("Fifo 600 links 1 size 0 mtime 7.123456789"),
                ),
            ],
        ),
        (
            "xattr (D21: says so)",
            vec![
                (attribute("d/in"), Refused(EOPNOTSUPP)),
                own("xa"),
                (attribute("xa"), Refused(EOPNOTSUPP)),
            ],
        ),
    ]
}

fn writing() -> Vec<Row> {
    let allocate = |slot, flags| Operation::Allocate {
        slot,
        flags,
        offset: 0,
        length: 4096,
    };
    let punch = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;
    vec![
        (
            "write",
            vec![
                (open(0, "d/in", READ), Done),
                (write(0, 1), Refused(EBADF)),
                own("wr"),
                (write(9, 4), Told("4")),
            ],
        ),
        (
            "fallocate (D6: offered)",
            vec![
                (open(0, "d/in", READ), Done),
                (allocate(0, 0), Refused(EBADF)),
                own("fa"),
                (write(9, 4), Done),
                (allocate(9, 0), Done),
                (
                    stat("fa"),
                    Told("RegularFile 644 links 1 size 4096 mtime now"),
                ),
                (allocate(9, punch), Done),
                (
                    Operation::Probe {
                        slot: 9,
                        offset: 0,
                        hole: true,
                    },
                    Done,
                ),
                (
                    stat("fa"),
                    Told("RegularFile 644 links 1 size 4096 mtime now"),
                ),
            ],
        ),
    ]
}

fn sharing() -> Vec<Row> {
    let copy = |slot, from| Operation::CopyRange {
        slot,
        offset: 0,
        from,
        from_offset: 0,
        length: 9,
    };
    let sync = |slot| Operation::Sync {
        slot,
        data_only: false,
    };
    vec![
        (
            "mmap, shared (D5, D12)",
            vec![
                (open(0, "d/in", READ), Done),
                (map(0, 0, true), Refused(EACCES)),
                own("mm"),
                (write(9, 4), Done),
                (link("mm", "mm2"), Done),
                (open(1, "mm2", BOTH), Done),
                (map(1, 0, true), Told("true")),
            ],
        ),
        (
            "copy_file_range",
            vec![
                (open(0, "d/in", READ), Done),
                own("cp"),
                (copy(9, 0), Told("9")),
                (copy(0, 9), Refused(EBADF)),
            ],
        ),
        (
            "fsync",
            vec![
                (open(0, "d/in", READ), Done),
                (sync(0), Done),
                own("fs"),
                (sync(9), Done),
            ],
        ),
        (
            "locks",
            vec![
                (open(0, "d/in", READ), Done),
                (Operation::Lock { slot: 0 }, Done),
                own("lo"),
                (Operation::Lock { slot: 9 }, Done),
                (Operation::LockRange { slot: 9 }, Done),
            ],
        ),
    ]
}
