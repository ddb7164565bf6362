//! What counts as an input and as an output, and that nothing else is touched.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wakebox_tests::job::strings;
use wakebox_tests::{Place, needs_fuse};

use crate::view::steps::{BOTH, Done, READ, Refused, check, create, list, open};

fn declared(place: &Place) -> Vec<Value> {
    let program = std::fs::read("/bin/true").expect("a program");
    let link = place.put("in");
    vec![
        place.visible("in", "content\n"),
        place.visible("void", ""),
        place.visible("sub/in", "below\n"),
        place.visible_mode("program", program, 0o755),
        json!({"path": "link", "type": "symlink", "hash": link, "mode": 0o777, "mtime": 5}),
        json!({"path": "vd", "type": "directory", "mode": 0o755, "mtime": 5}),
    ]
}

/// Inputs and outputs of a script.
#[track_caller]
fn sets(script: &str) -> (Vec<String>, Vec<String>) {
    let place = Place::new();
    let mut spec = place.spec(&format!("set -e; {script}"));
    spec["visible"] = declared(&place).into();
    let result = place.result_of(&spec);
    let set = |key: &str| {
        strings(&result[key])
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    (set("inputs"), set("outputs"))
}

#[test]
fn looks_are_no_reads_and_reads_are() {
    needs_fuse!();
    for (script, inputs) in [
        (
            "test -f in; test -x program; find . -newer void; ls vd sub",
            &[][..],
        ),
        ("test ! -e undeclared", &[]),
        // The one look that is a read: of what a link points to.
        ("ls -l", &["link"]),
        ("cat void", &["void"]),
        ("./program", &["program"]),
        ("cat link", &["in", "link"]),
        ("cat < in; cat sub/in", &["in", "sub/in"]),
    ] {
        let script = format!("{{ {script}; }} > /dev/null");
        assert_eq!(sets(&script).0, inputs, "{script}");
    }
}

#[test]
fn outputs_are_what_is_there_in_the_end() {
    needs_fuse!();
    for (script, inputs, outputs) in [
        (
            "echo x > a; rm a; mkdir d; rmdir d; ln -s x l; rm l",
            &[][..],
            &[][..],
        ),
        ("echo x > a; cat a > b; rm a", &[], &["b"]),
        (
            "mkdir a; cat in > a/x; mkdir a/b; cat a/x > a/b/y; mv a c",
            &["in"],
            &["c", "c/b", "c/b/y", "c/x"],
        ),
        (
            "mkdir vd/a; echo x > vd/a/x; mv vd/a vd/b; mv vd/b/x .",
            &[],
            &["vd/b", "x"],
        ),
        ("echo x > a; ln a b; ln b c; rm a", &[], &["b", "c"]),
        ("echo old > a; echo new > b; mv b a", &[], &["a"]),
        ("mkfifo p; mkdir d; mv p d/p", &[], &["d"]),
    ] {
        let (read, made) = sets(script);
        assert_eq!(read, inputs, "{script}");
        assert_eq!(made, outputs, "{script}");
    }
}

#[test]
fn what_fails_is_no_input_and_counts_no_bytes() {
    needs_fuse!();
    let mut job = crate::view::steps::job();
    job.declare("secret", b"no one reads this", 0o000, false);
    job.declare("d/in", b"nor this", 0o644, false);
    let steps = [
        (open(0, "secret", READ), Refused(libc::EACCES)),
        (open(0, "d/in", BOTH), Refused(libc::EACCES)),
        (
            create(0, "d/in", libc::O_CREAT | libc::O_EXCL, 0),
            Refused(libc::EEXIST),
        ),
        (open(0, "d", READ), Done),
        (
            wakebox_tests::operation::Operation::Read { slot: 0, length: 9 },
            Refused(libc::EISDIR),
        ),
        (list("d"), Done),
    ];
    let operated = check(&job, &steps);
    assert!(operated.inputs().is_empty());
    assert_eq!(operated.result["usage"]["inbytes"], 0);
}

/// Mode, time, inode and content.
type Seen = (u32, i64, u64, Option<Vec<u8>>);

/// All that a user could notice of a tree.
fn tree(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let (path, metadata) = (entry.path(), entry.metadata().expect("there"));
            if entry.file_name() == ".build" {
                continue;
            }
            if metadata.is_dir() {
                folders.push(path.clone());
            }
            let content = metadata
                .is_file()
                .then(|| std::fs::read(&path).expect("a file"));
            let time = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
            found.insert(path, (metadata.mode(), time, metadata.ino(), content));
        }
    }
    found
}

/// What the original does to files that a job cannot see and that are in its way, ours does not;
/// what the job sees is the same.
#[test]
fn no_operation_of_a_job_reaches_the_workspace() {
    needs_fuse!();
    let hidden = |script: &str, outputs: &[&str]| {
        let place = Place::new();
        for path in ["hidden", "hd/sub/p", "f"] {
            place.write(path, "precious");
        }
        let before = tree(&place.workspace());
        let mut spec = place.spec(&format!("set -e; {script}"));
        spec["visible"] = json!(["f"]);
        let result = place.result_of(&spec);
        assert_eq!(strings(&result["outputs"]), outputs, "{script}");
        assert_eq!(tree(&place.workspace()), before, "{script}");
    };
    for (script, outputs) in [
        (
            "echo x > hidden; chmod 777 hidden; touch -d @5 hidden",
            &["hidden"][..],
        ),
        ("mkdir hd; test -z \"$(ls -A hd)\"; rmdir hd", &[]),
        ("mkdir -m 700 hd; echo x > hd/x; rm -r hd", &[]),
        ("ln -s a hd", &["hd"]),
        ("echo x > n; mv n hd", &["hd"]),
        ("mkdir n; mv -T n hd", &["hd"]),
        (
            "! ln f h; ! rm -f f; ! chmod 777 f; ! touch f; ! mv f g; ! sh -c 'echo x >> f'",
            &[],
        ),
    ] {
        hidden(script, outputs);
    }
}
