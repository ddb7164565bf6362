//! The file-system tests of the Linux Test Project, from the caller's own installation. Each is a
//! program that says by its exit code how it ended, so no runner is needed.

use crate::ground::Ground;
use crate::outcome::{At as _, Case, Trouble};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Beyond the limits that the tests have of their own.
const LIMIT: Duration = Duration::from_secs(300);
const SUITE: &str = "ltp";

/// System calls on files and names: a test of runtest/syscalls is ours if its name is one of these
/// and a number.
const CALLS: &[&str] = &[
    "access",
    "chdir",
    "chmod",
    "chown",
    "chroot",
    "close",
    "close_range",
    "copy_file_range",
    "creat",
    "dup",
    "dup2",
    "dup3",
    "execve",
    "execveat",
    "faccessat",
    "fallocate",
    "fchdir",
    "fchmod",
    "fchmodat",
    "fchown",
    "fchownat",
    "fcntl",
    "fdatasync",
    "fgetxattr",
    "file_attr",
    "flistxattr",
    "flock",
    "fpathconf",
    "fremovexattr",
    "fsetxattr",
    "fstat",
    "fstatat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "futimesat",
    "getcwd",
    "getdents",
    "getxattr",
    "inotify",
    "inotify_init",
    "lchown",
    "lgetxattr",
    "link",
    "linkat",
    "listxattr",
    "llistxattr",
    "llseek",
    "lremovexattr",
    "lseek",
    "lstat",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "mmap",
    "msync",
    "name_to_handle_at",
    "newuname",
    "open",
    "open_by_handle_at",
    "openat",
    "openat2_",
    "pathconf",
    "posix_fadvise",
    "pread",
    "preadv",
    "pwrite",
    "pwritev",
    "read",
    "readahead",
    "readdir",
    "readlink",
    "readlinkat",
    "readv",
    "removexattr",
    "rename",
    "renameat",
    "rmdir",
    "sendfile",
    "setxattr",
    "splice",
    "stat",
    "statfs",
    "statvfs",
    "statx",
    "symlink",
    "symlinkat",
    "sync",
    "sync_file_range",
    "syncfs",
    "tee",
    "truncate",
    "umask",
    "unlink",
    "unlinkat",
    "utime",
    "utimensat",
    "utimes",
    "vmsplice",
    "write",
    "writev",
];

/// The tests of runtest/fs that work on TMPDIR.
const LOADS: &[&str] = &[
    "gf",
    "rwtest",
    "iogen",
    "inode",
    "stream",
    "ftest",
    "lftest",
    "writetest",
    "fs_inod",
    "linker",
    "openfile",
    "fs_di",
];

/// What a test asks for that leaves our mount out: it formats and mounts a file system of its own.
const ELSEWHERE: [&str; 5] = [
    "needs_device",
    "format_device",
    "mount_device",
    "all_filesystems",
    "needs_overlay",
];

pub(super) fn run(ground: &Ground) -> Result<Vec<Case>, Trouble> {
    ground.demand_root()?;
    let root =
        ground.cli.ltproot.as_ref().ok_or_else(|| {
            Trouble::NotRun("set LTPROOT to an installed Linux Test Project".into())
        })?;
    let root = root.canonicalize().at(root.display())?;
    let tests = tests(&root)?;
    let mounted = ground.mount(SUITE)?;
    let folder = mounted.folder("tmp")?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).at(folder.display())?;
    let step = if ground.cli.quick { 20 } else { 1 };
    let run = |(name, line): (&String, &String)| {
        let done = ground.run(SUITE, command(&root, &folder, line), LIMIT)?;
        Ok(judge(name, done.code(), &done.output, &done.said()))
    };
    tests.iter().step_by(step).map(run).collect()
}

/// Lines of the form `NAME COMMAND LINE`, without those that the metadata sends elsewhere.
fn tests(root: &Path) -> Result<BTreeMap<String, String>, Trouble> {
    let metadata = root.join("metadata/ltp.json");
    let metadata: Metadata = serde_json::from_str(&text(&metadata)?).at(metadata.display())?;
    let mut tests = BTreeMap::new();
    for (list, names) in [("syscalls", CALLS), ("fs", LOADS)] {
        let list = text(&root.join("runtest").join(list))?;
        let entries = list
            .lines()
            .filter_map(|line| line.split_once(char::is_whitespace));
        let ours =
            entries.filter(|(name, line)| is_ours(name, names) && metadata.stays(name, line));
        tests.extend(ours.map(|(name, line)| (name.to_owned(), line.trim().to_owned())));
    }
    Ok(tests)
}

fn text(path: &Path) -> Result<String, Trouble> {
    let reason = |error| {
        let shown = path.display();
        Trouble::NotRun(format!(
            "{shown}: {error}; LTPROOT must be an installed LTP"
        ))
    };
    fs::read_to_string(path).map_err(reason)
}

fn is_ours(name: &str, stems: &[&str]) -> bool {
    let numbered = |rest: &str| {
        rest.chars()
            .all(|byte| byte.is_ascii_digit() || byte == '_')
    };
    let mut rests = stems.iter().filter_map(|stem| name.strip_prefix(stem));
    rests.any(|rest| !rest.is_empty() && numbered(rest))
}

#[derive(Deserialize)]
struct Metadata {
    tests: BTreeMap<String, BTreeMap<String, serde_json::Value>>,
}

impl Metadata {
    fn stays(&self, name: &str, line: &str) -> bool {
        let program = line.split_whitespace().next().unwrap_or(name);
        let entry = self.tests.get(program).or_else(|| self.tests.get(name));
        entry.is_none_or(|entry| ELSEWHERE.iter().all(|key| !entry.contains_key(*key)))
    }
}

fn command(root: &Path, folder: &Path, line: &str) -> Command {
    let programs = root.join("testcases/bin");
    let path = [
        programs.clone(),
        PathBuf::from("/usr/sbin:/usr/bin:/sbin:/bin"),
    ];
    let path = path.map(|part| part.display().to_string()).join(":");
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder);
    command
        .env("LTPROOT", root)
        .env("TMPDIR", folder)
        .env("PATH", path);
    command
}

/// The bits of an LTP test's exit code.
const TCONF: i32 = 32;

fn judge(name: &str, code: Option<i32>, output: &str, said: &str) -> Case {
    let first = |words: &[&str]| {
        let found = output
            .lines()
            .find(|line| words.iter().any(|word| line.contains(word)));
        found.unwrap_or(said).to_owned()
    };
    match code {
        Some(0) => Case::pass(name),
        // What the shell says of a program that this installation lacks.
        Some(127) => Case::not_run(name, said),
        Some(TCONF) => Case::not_run(name, first(&["TCONF"])),
        _ => Case::fail(name, first(&["TFAIL", "TBROK", "TWARN"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_chosen_by_call_and_place() {
        assert!(is_ours("fcntl12_64", CALLS) && is_ours("dup201", CALLS));
        assert!(!is_ours("fcntl", CALLS) && !is_ours("openpty01", CALLS));
        let text = r#"{"tests": {"open14": {"needs_device": true}, "open01": {}}}"#;
        let metadata: Metadata = serde_json::from_str(text).expect("metadata");
        assert!(!metadata.stays("open14", "open14") && metadata.stays("open01", "open01"));
        assert!(
            metadata.stays("old01", "old01 -x"),
            "tests without metadata stay"
        );
    }

    #[test]
    fn exit_codes_are_understood() {
        let said = "a.c:1: TINFO: x\na.c:9: TFAIL: seen EIO\n";
        assert_eq!(judge("a", Some(0), said, ""), Case::pass("a"));
        assert_eq!(
            judge("a", Some(1), said, ""),
            Case::fail("a", "a.c:9: TFAIL: seen EIO")
        );
        assert_eq!(
            judge("a", Some(32), "TCONF: no", ""),
            Case::not_run("a", "TCONF: no")
        );
        assert_eq!(judge("a", None, "", "killed"), Case::fail("a", "killed"));
    }
}
