//! What is mounted for a job, and the root it gets.

use std::fs;
use std::path::{Path, PathBuf};

use client::exec::Status;
use client::hidden;
use client::mount_ops::{MountOp, compile};
use client::sandbox::plan::Step;

use crate::harness::{Script, file, run};

fn bind(source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> MountOp {
    MountOp::Bind {
        source: source.into(),
        destination: destination.into(),
        read_only: false,
    }
}

fn read_only(source: impl Into<PathBuf>, destination: impl Into<PathBuf>) -> MountOp {
    MountOp::Bind {
        source: source.into(),
        destination: destination.into(),
        read_only: true,
    }
}

fn tmpfs(destination: impl Into<PathBuf>) -> MountOp {
    MountOp::Tmpfs {
        destination: destination.into(),
    }
}

pub(crate) fn create_dir(destination: impl Into<PathBuf>) -> MountOp {
    MountOp::CreateDir {
        destination: destination.into(),
    }
}

fn create_file(destination: impl Into<PathBuf>) -> MountOp {
    MountOp::CreateFile {
        destination: destination.into(),
    }
}

impl Script {
    /// The steps of a real job with these operations; paths are relative to the directory.
    pub(crate) fn ops(self, ops: &[MountOp]) -> Self {
        self.ops_hiding(ops, &[])
    }

    fn ops_hiding(mut self, ops: &[MountOp], secrets: &[PathBuf]) -> Self {
        let compiled = compile(ops, self.dir.path()).unwrap();
        let mut steps = vec![Step::FreshProc { required: false }];
        steps.extend(compiled.steps);
        if compiled.new_root {
            steps.push(Step::FreshProc { required: false });
        }
        let hidden = hidden::aliases(&steps, secrets);
        steps.extend(hidden.into_iter().map(|path| Step::Hide { path }));
        self.draft.steps = steps;
        self
    }

    /// Why the job cannot be run.
    pub(crate) fn refusal(&self) -> String {
        run(self.draft.clone()).expect_err("no job").to_string()
    }
}

/// A root of the host's programs; the script's directory is at `/job`.
pub(crate) fn host_root(script: &Script) -> Vec<MountOp> {
    let mut ops = vec![tmpfs("/")];
    for name in ["bin", "lib", "lib64", "usr"] {
        let path = Path::new("/").join(name);
        if path.is_dir() {
            ops.extend([create_dir(&path), read_only(&path, &path)]);
        }
    }
    ops.extend([create_dir("/job"), bind(script.dir.path(), "/job")]);
    ops
}

/// A job in a root of its own: `out` and the directory are elsewhere then.
pub(crate) fn rooted(text: &str) -> Script {
    let mut script = Script::new("");
    script.draft.argv[2] = format!("exec >/job/out 2>&1; {text}").into();
    script.draft.cwd = "/job".into();
    script
}

#[test]
fn every_operation_does_its_work_in_order() {
    let script = Script::new(
        "cat bound/f data; ls -A empty; echo x >empty/x && echo y >>bound/f && cat there/in;
         stat -c '%a %s' made/deep made/file; stat -f -c %T empty",
    );
    fs::create_dir(script.path("src")).unwrap();
    file(&script.path("src/f"), "f\n");
    file(&script.path("other"), "data\n");
    file(&script.path("there"), "keep");
    fs::remove_file(script.path("there")).unwrap();
    let ops = [
        create_dir("bound"),
        bind("src", "bound"),
        create_file("data"),
        bind("other", "data"),
        create_dir("empty"),
        tmpfs("empty"),
        create_dir("made/deep/"),
        create_dir("made/deep"),
        create_file("made/file"),
        create_dir("there"),
        tmpfs("there"),
        create_file("there/in"),
    ];
    let script = script.ops(&ops);
    let (ended, output) = script.run();
    assert_eq!(ended.status, Status::Exited(0), "{output}");
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    let mode = format!("{:o}", 0o777 & !mask.as_raw_mode());
    let size = fs::metadata(script.path("made/deep")).unwrap();
    let size = std::os::unix::fs::MetadataExt::size(&size);
    assert_eq!(output, format!("f\ndata\n{mode} {size}\n{mode} 0\ntmpfs\n"));
    assert_eq!(fs::read_to_string(script.path("src/f")).unwrap(), "f\ny\n");
    assert_eq!(fs::read_dir(script.path("empty")).unwrap().count(), 0);
}

#[test]
fn a_file_that_exists_is_not_emptied() {
    let script = Script::new("cat f");
    file(&script.path("f"), "kept");
    let script = script.ops(&[create_file("f"), create_file("f")]);
    assert_eq!(script.run().1, "kept");
}

#[test]
fn read_only_reaches_what_is_mounted_below() {
    let script = Script::new(
        "touch ro/a || echo top; touch ro/sub/a || echo below; touch src/sub/a && echo source;
         unshare -Urm sh -c 'mount -o remount,bind,rw ro && touch ro/a' 2>/dev/null || echo fast;
         umount ro/sub || umount -l ro || echo locked",
    );
    fs::create_dir_all(script.path("src/sub")).unwrap();
    let ops = [tmpfs("src/sub"), create_dir("ro"), read_only("src", "ro")];
    let (_, output) = script.ops(&ops).run();
    let told: Vec<&str> = output.lines().filter(|line| !line.contains(": ")).collect();
    assert_eq!(
        told,
        ["top", "below", "source", "fast", "locked"],
        "{output}"
    );
}

/// A remount would have to give `nosuid` and `nodev` too, and to know of them.
#[test]
fn locked_flags_do_not_hinder_read_only() {
    let script = Script::new("cat p/self/comm; touch d/x || echo no; echo >d/null && echo device");
    let ops = [
        create_dir("p"),
        create_dir("d"),
        read_only("/proc", "p"),
        read_only("/dev", "d"),
    ];
    let (_, output) = script.ops(&ops).run();
    assert!(
        output.starts_with("cat\n") && output.ends_with("no\ndevice\n"),
        "{output}"
    );
}

#[test]
fn what_cannot_be_mounted_is_named() {
    let refusal = |op: MountOp| {
        let script = Script::new("true").ops(&[op]);
        file(&script.path("file"), "");
        fs::create_dir(script.path("dir")).unwrap();
        let place = format!("{}/", script.dir.path().display());
        let told = script.refusal().replace(&place, "");
        let (told, _number) = told.rsplit_once(" (os error").unwrap();
        told.to_owned()
    };
    let missing = "No such file or directory";
    let maker = "(create-dir or create-file makes one)";
    let kinds = "(one is a directory, the other is not): Not a directory";
    let cases = [
        (
            bind("dir", "none"),
            format!("dir at none {maker}: {missing}"),
        ),
        (tmpfs("none"), format!("a tmpfs at none {maker}: {missing}")),
        (bind("none", "dir"), format!("none: {missing}")),
        (bind("dir", "file"), format!("dir at file {kinds}")),
        (bind("file", "dir"), format!("file at dir {kinds}")),
    ];
    for (op, expected) in cases {
        assert_eq!(refusal(op), format!("cannot mount {expected}"));
    }
    let cases = [
        (create_dir("file/x"), "directory file/x: Not a directory"),
        (create_dir("file"), "directory file: Not a directory"),
        (create_file("dir"), "file dir: Is a directory"),
        (
            create_file("none/x"),
            "file none/x: No such file or directory",
        ),
    ];
    for (op, expected) in cases {
        assert_eq!(refusal(op), format!("cannot create {expected}"));
    }
}

#[test]
fn a_new_root_shows_what_is_mounted_in_it() {
    let script = rooted(
        "ls / >/job/ls; pwd; touch /x /usr/x; ls /..; cat /proc/1/comm >/job/null && echo proc",
    );
    let mut ops = host_root(&script);
    ops.push(create_dir("/proc"));
    let script = script.ops(&ops);
    let (ended, output) = script.run();
    assert_eq!(ended.status, Status::Exited(0), "{output}");
    let listed = fs::read_to_string(script.path("ls")).unwrap();
    let expected: Vec<&str> = ["bin", "job", "lib", "lib64", "proc", "usr"]
        .into_iter()
        .filter(|name| *name == "job" || Path::new("/").join(name).is_dir())
        .collect();
    assert_eq!(listed.lines().collect::<Vec<_>>(), expected);
    let told: Vec<&str> = output
        .lines()
        .filter(|line| !line.contains("Read-only"))
        .collect();
    let after = expected.into_iter().chain(["x", "proc"]);
    let all: Vec<&str> = ["/job"].into_iter().chain(after).collect();
    assert_eq!(told, all, "{output}");
}

#[test]
fn the_old_root_is_gone() {
    let script = rooted(
        "grep -c ' / / ' /proc/self/mountinfo; umount -l / 2>&- && echo unmounted;
         unshare -Urm sh -c 'umount -l /; ls /etc' 2>&- && echo uncovered;
         mkdir hole; python3 -c '
import os
os.chroot(\"hole\")
for _ in range(9): os.chdir(\"..\")
os.chroot(\".\")
print(os.path.exists(\"/usr\"), os.path.exists(\"/etc\"))';
         ls /proc/1/root/etc /proc/self/root/etc 2>&-; echo end",
    );
    let mut ops = host_root(&script);
    ops.push(create_dir("/proc"));
    let (ended, output) = script.ops(&ops).run();
    assert_eq!(
        (ended.status, output.as_str()),
        (Status::Exited(0), "1\nTrue False\nend\n")
    );
}

#[test]
fn a_directory_of_the_host_can_be_the_root() {
    let script =
        rooted("ls -d /etc/passwd /host/etc/passwd; cat link/f; mkdir /job/in && echo made");
    fs::create_dir_all(script.path("root/inner")).unwrap();
    // Followed in the new root, of course.
    std::os::unix::fs::symlink("/inner", script.path("root/out")).unwrap();
    for name in ["bin", "lib", "lib64", "usr", "job", "host"] {
        fs::create_dir(script.path("root").join(name)).unwrap();
    }
    let mut ops = host_root(&script);
    ops[0] = bind("root", "/");
    ops.extend([
        bind("/", "/host"),
        create_dir("/out/made"),
        create_file("/out/file"),
    ]);
    let script = script.ops(&ops);
    let (_, output) = script.run();
    assert!(
        output.contains("/host/etc/passwd\n") && output.ends_with("made\n"),
        "{output}"
    );
    assert!(output.contains("'/etc/passwd'"), "{output}");
    for name in ["made", "file"] {
        assert!(script.path("root/inner").join(name).exists(), "{name}");
    }
}

#[test]
fn isolated_pids_need_a_place_for_proc() {
    let mut script = rooted("true");
    let ops = host_root(&script);
    script = script.ops(&ops);
    assert_eq!(script.run().0.status, Status::Exited(0));
    for step in &mut script.draft.steps {
        if let Step::FreshProc { required } = step {
            *required = true;
        }
    }
    let told = script.refusal();
    assert!(
        told.starts_with("isolate-pids needs a directory /proc in the new root"),
        "{told}"
    );
}

#[test]
fn secrets_stay_hidden_under_other_names() {
    let look =
        "for d in secrets a/secrets b/a/secrets c c/d; do ls -A $d 2>/dev/null; done; echo end";
    let script = Script::new(look);
    fs::create_dir(script.path("secrets")).unwrap();
    file(&script.path("secrets/key"), "42");
    for name in ["a", "b"] {
        fs::create_dir(script.path(name)).unwrap();
    }
    std::os::unix::fs::symlink(script.dir.path(), script.path("me")).unwrap();
    let secret = [client::hidden::real(&script.path("me/secrets"))];
    let ops = [bind(".", "a"), bind("me", "b")];
    let script = script.ops_hiding(&ops, &secret);
    assert_eq!(script.run().1, "end\n");

    let script = rooted("ls -A /job/secrets /all/job* /all$WHERE/secrets; echo end");
    fs::create_dir(script.path("secrets")).unwrap();
    file(&script.path("secrets/key"), "42");
    let secret = [script.path("secrets")];
    let mut ops = host_root(&script);
    // `..` is a trap: the new root lies over the old one.
    ops.extend([create_dir("/all"), bind("/usr/..", "/all")]);
    let place = format!("WHERE={}", script.dir.path().display());
    let mut script = script.ops_hiding(&ops, &secret);
    script.draft.env.push(place.into());
    let output = script.run().1;
    let empty = format!("/all{}:\n", script.path("secrets").display());
    assert!(output.contains(&empty), "{output}");
    assert!(
        !output.contains("key") && output.ends_with("end\n"),
        "{output}"
    );
    assert!(output.contains("secrets:"), "{output}");
}
