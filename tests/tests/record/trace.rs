//! What strace shows of a job, read from the files of `strace -ff -y`: one per process.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The system calls that are traced: those that take names, and those that lead to other places,
/// files or processes.
pub(super) const CALLS: &str = "trace=%file,%process,getdents64,chdir,fchdir";

/// What a system call did with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Did {
    Read,
    Exec,
    List,
    Readlink,
    /// The path was not there.
    Missed,
    /// The path was named in some other way: looked at, made, removed.
    Named,
}

/// All that the processes of a job did below a directory: paths as they were given, from there, with
/// `.` taken out and links left in.
#[derive(Debug, Default)]
pub(super) struct Trace {
    pub(super) did: BTreeSet<(String, Did)>,
}

impl Trace {
    /// Reads the files that begin with a name. `root` is where the job began.
    pub(super) fn read(files: &Path, root: &str) -> Self {
        let folder = files.parent().expect("a directory");
        let name = files
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned()
            + ".";
        let mut logs = BTreeMap::new();
        for entry in std::fs::read_dir(folder).expect("traces").flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            let process: Option<u32> = file.strip_prefix(&name).and_then(|pid| pid.parse().ok());
            let text = String::from_utf8_lossy(&std::fs::read(entry.path()).expect("a trace"))
                .into_owned();
            logs.extend(process.map(|process| (process, text)));
        }
        let mut reader = Reader {
            root: root.to_owned(),
            logs,
            trace: Self::default(),
        };
        // Who is nobody's child is the first.
        let children: BTreeSet<u32> = reader
            .logs
            .values()
            .flat_map(|log| log.lines())
            .filter_map(child)
            .collect();
        let first = reader
            .logs
            .keys()
            .copied()
            .find(|process| !children.contains(process));
        reader.follow(first.expect("a first process"), root.to_owned());
        assert!(
            reader.logs.is_empty(),
            "whose are these? {:?}",
            reader.logs.keys()
        );
        reader.trace
    }

    pub(super) fn has(&self, path: &str, did: Did) -> bool {
        self.did.contains(&(path.to_owned(), did))
    }
}

struct Reader {
    root: String,
    logs: BTreeMap<u32, String>,
    trace: Trace,
}

/// The process that a call made.
fn child(line: &str) -> Option<u32> {
    let makes = ["clone", "fork", "vfork"]
        .iter()
        .any(|call| line.starts_with(call));
    let (_, result) = line.rsplit_once(" = ").filter(|_| makes)?;
    result.split_whitespace().next()?.parse().ok()
}

/// One call: its name, its arguments, and what it returned.
struct Call<'l> {
    name: &'l str,
    arguments: &'l str,
    result: &'l str,
}

impl<'l> Call<'l> {
    fn parse(line: &'l str) -> Option<Self> {
        let (name, rest) = line.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(" = ")?;
        Some(Self {
            name,
            arguments,
            result,
        })
    }

    fn ok(&self) -> bool {
        !self.result.starts_with('-')
    }

    /// The paths among the arguments, each made absolute by the descriptor before it, or by where
    /// the process is.
    fn paths(&self, here: &str) -> Vec<String> {
        let mut paths = Vec::new();
        let pieces: Vec<&str> = self.arguments.split('"').collect();
        for (before, path) in pieces
            .iter()
            .step_by(2)
            .zip(pieces.iter().skip(1).step_by(2))
        {
            // What a link says, or the words of a program, are no paths.
            let is_target = self.name == "readlink" && !paths.is_empty()
                || self.name == "readlinkat" && !paths.is_empty()
                || self.name.starts_with("symlink") && paths.is_empty() && before.trim().is_empty();
            let is_word = self.name.starts_with("execve") && !paths.is_empty();
            if is_word || is_target {
                if self.name.starts_with("symlink") {
                    paths.push(String::new());
                }
                continue;
            }
            let base = described(before).unwrap_or(here);
            paths.push(if path.starts_with('/') {
                (*path).to_owned()
            } else {
                format!("{base}/{path}")
            });
        }
        paths.retain(|path| !path.is_empty());
        paths
    }
}

/// The path that `-y` gives with the last descriptor of some arguments.
fn described(arguments: &str) -> Option<&str> {
    let begin = arguments.rfind('<')? + 1;
    let end = arguments.rfind('>')?;
    arguments
        .get(begin..end)
        .filter(|path| path.starts_with('/'))
}

impl Reader {
    fn follow(&mut self, process: u32, mut here: String) {
        let log = self.logs.remove(&process).unwrap_or_default();
        for line in log.lines() {
            if let Some(child) = child(line) {
                self.follow(child, here.clone());
            }
            let Some(call) = Call::parse(line) else {
                continue;
            };
            if call.name == "chdir" && call.ok() {
                here = call.paths(&here).pop().unwrap_or(here);
            } else if call.name == "fchdir" && call.ok() {
                here = described(call.arguments).unwrap_or(&here).to_owned();
            }
            self.note(&call, &here);
        }
    }

    fn note(&mut self, call: &Call<'_>, here: &str) {
        if call.name == "getdents64" {
            let listed = described(call.arguments).unwrap_or_default().to_owned();
            return self.add(&listed, Did::List);
        }
        let missed = call.result.contains("ENOENT");
        let opens = call.name.starts_with("open") && !call.arguments.contains("O_PATH");
        let reads = opens
            && !call.arguments.contains("O_WRONLY")
            && !call.arguments.contains("O_DIRECTORY");
        let did = match call.name {
            _ if missed => Did::Missed,
            _ if !call.ok() => Did::Named,
            "execve" | "execveat" => Did::Exec,
            "readlink" | "readlinkat" => Did::Readlink,
            _ if reads => Did::Read,
            _ => Did::Named,
        };
        for path in call.paths(here) {
            self.add(&path, Did::Named);
            self.add(&path, did);
        }
        // Where a link led to.
        if let (true, Some(opened)) = (call.ok() && opens, described(call.result)) {
            self.add(opened, did);
        }
    }

    fn add(&mut self, path: &str, did: Did) {
        let Some(below) = path.strip_prefix(&self.root) else {
            return;
        };
        let mut names: Vec<&str> = Vec::new();
        for name in below.split('/') {
            match name {
                "" | "." => {}
                ".." => drop(names.pop()),
                name => names.push(name),
            }
        }
        let path = match names.is_empty() {
            true => ".".to_owned(),
            false => names.join("/"),
        };
        self.trace.did.insert((path, did));
    }
}
