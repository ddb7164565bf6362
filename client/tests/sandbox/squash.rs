//! Images: mounted, served, and asked for what they want.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use client::exec::{SandboxError, Status};
use client::images::expand;
use client::mount_ops::MountOp;

use crate::harness::{Script, file, run, skipped};
use crate::mounts::{create_dir, host_root, rooted};

fn search_path() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// Whether these tests can be run; says so if not.
fn tools() -> bool {
    let here = ["squashfuse", "mksquashfs"]
        .iter()
        .all(|tool| std::env::split_paths(&search_path()).any(|path| path.join(tool).exists()));
    if !here {
        skipped("squashfuse and mksquashfs are needed");
    }
    here
}

/// Makes `NAME.squashfs` of files that are given with their text.
fn image(script: &Script, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let root = script.path(&format!("{name}.d"));
    for (path, text) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        file(&path, text);
    }
    let image = script.path(&format!("{name}.squashfs"));
    let made = Command::new("mksquashfs")
        .args([&root, &image])
        .args(["-quiet", "-no-progress", "-all-root"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    image
}

fn squashfs(source: impl Into<PathBuf>, destination: Option<&str>) -> MountOp {
    MountOp::Squashfs {
        source: source.into(),
        destination: destination.map(Into::into),
    }
}

/// As a batch job does it.
fn with(mut script: Script, ops: Vec<MountOp>) -> Script {
    let expanded = expand(ops, script.dir.path(), Some(&search_path())).unwrap();
    script.draft.argv = expanded.command(script.draft.argv);
    script.draft.squashfuse.clone_from(&expanded.squashfuse);
    script.ops(&expanded.ops)
}

#[test]
fn an_image_is_mounted_read_only() {
    if !tools() {
        return;
    }
    let look =
        "cat i/a/f; touch i/x || echo no; umount i || umount -l i || echo locked; stat -f -c %T i";
    for uid in [0, 1000] {
        let mut script = Script::new(look);
        script.draft.ids.inside_uid = uid;
        fs::create_dir(script.path("i")).unwrap();
        let source = image(&script, "one", &[("a/f", "inside\n")]);
        let (ended, output) = with(script, vec![squashfs(source, Some("i"))]).run();
        assert_eq!(ended.status, Status::Exited(0), "{output}");
        let told: Vec<&str> = output.lines().filter(|line| !line.contains(": ")).collect();
        assert_eq!(told, ["inside", "no", "locked", "fuseblk"], "{output}");
    }
}

#[test]
fn an_image_says_what_it_wants() {
    if !tools() {
        return;
    }
    let script = rooted("cat /opt/tool/f /opt/beside/g; ls -A /opt/scratch; echo $TOOL $ARGUMENT");
    file(&script.path("g"), "beside\n");
    let beside = format!(
        r#"{{"mount-ops":[{{"type":"create-dir","destination":"/opt/beside"}},
        {{"type":"bind","source":"{}","destination":"/opt/beside"}},
        {{"type":"create-dir","destination":"/opt/scratch"}},
        {{"type":"tmpfs","destination":"/opt/scratch"}}]}}"#,
        script.dir.path().display()
    );
    let files = [
        ("f", "tool\n"),
        (".wakebox/mountpoint", "/opt/tool\n"),
        (".wakebox/mounts", beside.as_str()),
        (".wakebox/environment", "TOOL=at-hand\nexport TOOL\n"),
    ];
    let tool = image(&script, "tool", &files);
    let other = image(
        &script,
        "other",
        &[(".wakebox/environment", "ARGUMENT=\"it's\"")],
    );
    let mut ops = host_root(&script);
    // Unexported, it reaches a command in the same shell only.
    ops.extend([
        squashfs(tool, None),
        create_dir("/other"),
        squashfs(other, Some("/other")),
    ]);
    let (ended, output) = with(script, ops).run();
    assert_eq!(ended.status, Status::Exited(0), "{output}");
    assert_eq!(output, "tool\nbeside\nat-hand\n");
}

#[test]
fn an_image_can_be_the_root() {
    if !tools() {
        return;
    }
    let script = rooted("cat /f");
    let mut files = vec![("f".to_owned(), "root\n")];
    files.extend(["bin", "lib", "lib64", "usr", "job"].map(|name| (format!("{name}/x"), "")));
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, text)| (path.as_str(), *text))
        .collect();
    let root = image(&script, "root", &files);
    let mut ops: Vec<MountOp> = vec![squashfs(root, Some("/"))];
    ops.extend(host_root(&script).into_iter().skip(1));
    let (ended, output) = with(script, ops).run();
    assert_eq!(
        (ended.status, output.as_str()),
        (Status::Exited(0), "root\n")
    );
}

#[test]
fn what_is_no_image_is_told() {
    if !tools() {
        return;
    }
    let script = Script::new("true");
    let refusal = |op: MountOp, path: &OsStr| {
        let refused = expand(vec![op], script.dir.path(), Some(path));
        refused.unwrap_err().to_string()
    };
    let path = search_path();
    file(&script.path("no.squashfs"), "no image");
    let told = refusal(squashfs("no.squashfs", Some("/x")), &path);
    assert!(
        told.contains("does not serve") && told.contains("no.squashfs"),
        "{told}"
    );
    let told = refusal(squashfs("none", Some("/x")), &path);
    assert!(told.starts_with("cannot read the squashfs image"), "{told}");
    let told = refusal(squashfs("no.squashfs", Some("/x")), OsStr::new("/none"));
    assert!(told.contains("squashfuse, which is not in PATH"), "{told}");
    let source = image(&script, "plain", &[("f", "")]);
    let told = refusal(squashfs(source, None), &path);
    assert!(
        told.ends_with(".wakebox/mountpoint: is missing, and so is a destination"),
        "{told}"
    );
}

/// What a job does without its image proves nothing.
#[test]
fn the_death_of_a_server_ends_the_job() {
    if !tools() {
        return;
    }
    let script = Script::new("cat i/f; kill -9 $(pidof squashfuse); sleep 20");
    fs::create_dir(script.path("i")).unwrap();
    let source = image(&script, "mortal", &[("f", "alive\n")]);
    let script = with(script, vec![squashfs(source, Some("i"))]);
    let told = run(script.draft.clone()).unwrap_err();
    assert!(matches!(told, SandboxError::Image(_)), "{told}");
    assert!(told.to_string().contains("stopped serving"), "{told}");
    assert_eq!(script.output(), "alive\n");
}
