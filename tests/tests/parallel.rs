//! Many jobs at once: none sees another's files, and none leaves anything.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::process::Stdio;

use cas::Digest;
use serde_json::{Value, json};
use wakebox_tests::job::BATCH_STORE;
use wakebox_tests::{Outcome, Place, needs_fuse};

const JOBS: usize = 32;

/// Reads its own input under a name that all jobs have, lists all it sees, and writes its output
/// under a name that all jobs have, bit by bit so that jobs overlap.
const SCRIPT: &str = "cat same/in; ls -R . | grep -c in; for i in 1 2 3 4; do cat same/in >> same/out; sleep 0.02; done; cat same/out";

fn content(n: usize) -> String {
    format!("content of job {n}\n")
}

fn expected(n: usize) -> String {
    let content = content(n);
    format!("{content}1\n{}", content.repeat(4))
}

#[test]
fn jobs_in_one_workspace_do_not_see_each_other() {
    needs_fuse!();
    let place = Place::new();
    place.write("same/in", "the workspace's own");
    let before = Tree::of(&place.workspace());
    let spec = |n: usize| {
        let mut spec = place.spec(SCRIPT);
        let cas_dir = place.store();
        spec["cas-dir"] = json!(cas_dir.to_str());
        spec["visible"] = json!([{
            "path": "same/in", "type": "file", "hash": put(&place, &content(n)), "mode": 0o644, "mtime": n,
        }]);
        spec
    };
    let specs: Vec<Value> = (0..JOBS).map(spec).collect();
    let ended: Vec<(Outcome, Option<Value>)> = std::thread::scope(|scope| {
        let place = &place;
        let run = |spec| scope.spawn(move || place.batch_call(spec, &["-I"]));
        let running: Vec<_> = specs.iter().map(run).collect();
        running
            .into_iter()
            .map(|job| job.join().expect("joins"))
            .collect()
    });
    for (n, (outcome, result)) in ended.into_iter().enumerate() {
        assert_eq!(outcome.expect(0).stdout(), expected(n));
        let result = result.expect("a result");
        assert_eq!(result["outputs"], json!(["same/out"]));
        let made = content(n).repeat(4);
        assert_eq!(
            result["hashed_files"]["same/out"]["hash"],
            Digest::of(made.as_bytes()).to_string()
        );
        let staged = place.staged(&result["staging_files"]["same/out"]);
        assert_eq!(std::fs::read_to_string(&staged).expect("staged"), made);
        std::fs::remove_file(&staged).expect("removed");
        std::fs::remove_dir(staged.parent().expect("a directory")).expect("empty");
    }
    assert_eq!(
        Tree::of(&place.workspace()),
        before,
        "the workspace is not touched"
    );
    assert_eq!(place.daemons().len(), 1, "one store, one daemon");
    place.expect_clean();
    assert!(place.verifies(&place.store()));
}

#[test]
fn jobs_in_many_workspaces_share_a_store() {
    needs_fuse!();
    let place = Place::new();
    let workspaces: Vec<PathBuf> = (0..JOBS)
        .map(|n| place.root().join(format!("workspace-{n}")))
        .collect();
    for (n, workspace) in workspaces.iter().enumerate() {
        std::fs::create_dir_all(workspace.join("same")).expect("a directory");
        std::fs::write(workspace.join("same/in"), content(n)).expect("a file");
        std::fs::write(workspace.join("undeclared-in"), "never seen").expect("a file");
    }
    let start = |workspace: &PathBuf| {
        let mut command =
            place.command(["run", "--quiet", "-i", "same/in", "--", "sh", "-c", SCRIPT]);
        command
            .current_dir(workspace)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("starts")
    };
    let running: Vec<Child> = workspaces.iter().map(start).collect();
    for (n, (child, workspace)) in running.into_iter().zip(&workspaces).enumerate() {
        let outcome = Outcome(child.wait_with_output().expect("ends")).expect(0);
        assert_eq!(outcome.stdout(), expected(n));
        let files = [
            ("same/in".into(), content(n)),
            ("same/out".into(), content(n).repeat(4)),
            ("undeclared-in".into(), "never seen".into()),
        ];
        assert_eq!(Tree::of(workspace).0, files);
    }
    assert_eq!(place.daemons().len(), 1, "one store, one daemon");
    place.expect_clean();
    assert!(place.verifies(&place.store()));
}

#[test]
fn runs_in_one_workspace_publish_their_own_outputs() {
    needs_fuse!();
    let place = Place::new();
    let script = "ls; cat in-* | tee \"out-$N\"";
    for n in 0..JOBS {
        place.write(format!("in-{n}"), content(n));
    }
    let running = (0..JOBS).map(|n| {
        let (input, env) = (format!("in-{n}"), format!("N={n}"));
        let mut command = place.command([
            "run", "--quiet", "-i", &input, "-e", &env, "--", "sh", "-c", script,
        ]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("starts")
    });
    for (n, child) in running.collect::<Vec<_>>().into_iter().enumerate() {
        let outcome = Outcome(child.wait_with_output().expect("ends")).expect(0);
        assert_eq!(outcome.stdout(), format!("in-{n}\n{}", content(n)));
        assert_eq!(place.read(format!("out-{n}")), content(n).as_bytes());
    }
    let names = std::fs::read_dir(place.workspace())
        .expect("a directory")
        .count();
    assert_eq!(names, 2 * JOBS, "inputs and outputs, and no temporary file");
    place.expect_clean();
    assert!(place.verifies(&place.store()));
    assert_ne!(place.store(), Path::new(BATCH_STORE));
}

fn put(place: &Place, content: &str) -> String {
    let file = place.flag("to-put");
    std::fs::write(&file, content).expect("a file");
    place
        .call([Path::new("cas"), "put".as_ref(), &file])
        .expect(0);
    Digest::of(content.as_bytes()).to_string()
}

/// All files below a directory with what they hold.
#[derive(Debug, PartialEq)]
struct Tree(Vec<(PathBuf, String)>);

impl Tree {
    fn of(root: &Path) -> Self {
        let mut files = Vec::new();
        let mut left = vec![root.to_path_buf()];
        while let Some(directory) = left.pop() {
            for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
                if entry.file_type().expect("a type").is_dir() {
                    left.push(entry.path());
                    continue;
                }
                let path = entry
                    .path()
                    .strip_prefix(root)
                    .expect("below")
                    .to_path_buf();
                files.push((path, std::fs::read_to_string(entry.path()).expect("text")));
            }
        }
        files.sort();
        Self(files)
    }
}
