//! Programs that everybody uses, on a tree of 50,000 files.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::{Job, Task};
use crate::Result;
use crate::cli::Options;
use crate::disk::output;
use crate::tree::{Fill, Tree};

/// Sizes and times of directories differ between file systems: then only lines are counted.
const TOOLS: [(&str, &str, &[&str]); 7] = [
    ("find", "sorted", &["find", "."]),
    (
        "find -size",
        "sorted",
        &["find", ".", "-type", "f", "-size", "+8k"],
    ),
    ("ls -R", "sorted", &["ls", "-R"]),
    ("ls -lR", "lines", &["ls", "-lR"]),
    (
        "grep -r",
        "sorted",
        &["grep", "-r", "line of file 77$", "."],
    ),
    ("tar", "bytes", &["tar", "-cf", "-", "."]),
    ("du", "lines", &["du", "-a"]),
];

pub(super) fn tasks(options: &Options, place: &Path) -> Result<Vec<Task>> {
    let count = options.scaled(50_000, 50);
    let tree = Arc::new(Tree::make(&place.join("sources"), count, Fill::Source)?);
    let mut tasks = Vec::new();
    for (name, seen, command) in TOOLS {
        tasks.push(tool(name, seen, command, &tree)?);
    }
    let repository = place.join("repository");
    index(&tree, &repository)?;
    let folder = format!("--git-dir={}", repository.display());
    let safe = ["-c", "safe.directory=*"];
    let status = [
        &["git"],
        &safe[..],
        &[&folder, "--work-tree=.", "status", "--porcelain"],
    ]
    .concat();
    tasks.push(tool("git status", "sorted", &status, &tree)?);
    Ok(tasks)
}

fn tool(name: &str, seen: &str, command: &[&str], tree: &Arc<Tree>) -> Result<Task> {
    let words = [&["tool", "--name", name, "--seen", seen, "--"], command].concat();
    Ok(Task::reading(name, tree, Job::inner(&words)?))
}

/// A repository beside the tree whose index and commit hold all of it. It compares sizes and times
/// only: inode numbers are not the same for every contender.
fn index(tree: &Tree, repository: &Path) -> Result<()> {
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command
            .arg("--git-dir")
            .arg(repository)
            .arg("--work-tree=.")
            .args(words);
        command.current_dir(&tree.root);
        command
    };
    output(&mut git(&["init", "--quiet"]))?;
    for (key, value) in [("core.checkStat", "minimal"), ("core.trustctime", "false")] {
        output(&mut git(&["config", key, value]))?;
    }
    let names = tree
        .files
        .iter()
        .fold(String::new(), |all, file| all + &file.path + "\n");
    let ids = feed(git(&["hash-object", "--stdin-paths"]), &names)?;
    let mut entries = String::new();
    for (file, id) in tree.files.iter().zip(ids.lines()) {
        writeln!(entries, "100644 {id}\t{}", file.path)?;
    }
    feed(git(&["update-index", "--index-info"]), &entries)?;
    output(&mut git(&["update-index", "--refresh"]))?;
    // The objects are not there: status needs only their names.
    let root = output(&mut git(&["write-tree", "--missing-ok"]))?;
    let author = ["-c", "user.name=bench", "-c", "user.email=bench@localhost"];
    let commit = [&author[..], &["commit-tree", "-m", "all", root.trim()]].concat();
    let commit = output(&mut git(&commit))?;
    output(&mut git(&["update-ref", "HEAD", commit.trim()])).map(drop)
}

/// Runs a command with this on its standard input; what it prints.
fn feed(mut command: Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut pipe = child.stdin.take().ok_or("a pipe")?;
    let text = input.to_owned();
    let writer = std::thread::spawn(move || pipe.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| "a writer failed")??;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(format!("git: {}", output.status).into()),
    }
}
