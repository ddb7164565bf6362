//! A batch job that does [operations](crate::operation) in its view.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::Place;
use crate::operation::{Operation, Outcome};

/// A job to be run in a place of its own.
#[derive(Debug)]
pub struct Job {
    /// Where it runs.
    pub place: Place,
    /// The program that does operations.
    pub program: PathBuf,
    /// Declared inputs, as a spec has them.
    pub visible: Vec<Value>,
    /// The user that the job is inside.
    pub user: u32,
    /// Whether to run all of wakebox without the privilege that passthrough takes.
    pub cached: bool,
}

/// What a job did.
#[derive(Debug)]
pub struct Operated {
    /// The outcome of each operation in the view.
    pub view: Vec<Outcome>,
    /// The same, in the plain directory; empty without one.
    pub plain: Vec<Outcome>,
    /// The result document.
    pub result: Value,
}

impl Job {
    /// A job without inputs, as an ordinary user.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            place: Place::new(),
            program: program.into(),
            visible: Vec::new(),
            user: 1000,
            cached: false,
        }
    }

    /// The store of batch jobs.
    pub fn store(&self) -> cas::Store {
        cas::Store::open(&self.place.workspace().join(".build/cas")).expect("a store")
    }

    /// Declares a file; `writable` ones are copies that the job may change.
    pub fn declare(&mut self, path: &str, content: &[u8], mode: u32, writable: bool) -> PathBuf {
        let digest = self.put(content);
        self.visible.push(json!({
            "path": path, "type": "file", "hash": digest.to_string(), "mode": mode,
            "mtime": MTIME, "writable": writable,
        }));
        self.store().path(digest)
    }

    /// Declares a symbolic link.
    pub fn declare_link(&mut self, path: &str, target: &str) {
        let hash = self.put(target.as_bytes()).to_string();
        let mtime = MTIME;
        self.visible.push(
            json!({"path": path, "type": "symlink", "hash": hash, "mode": 0o777, "mtime": mtime}),
        );
    }

    /// Declares a directory.
    pub fn declare_directory(&mut self, path: &str, mode: u32) {
        self.visible
            .push(json!({"path": path, "type": "directory", "mode": mode, "mtime": MTIME}));
    }

    fn put(&self, content: &[u8]) -> cas::Digest {
        let store = self.store();
        let staging = store.new_staging("test").expect("a staging directory");
        store.put_bytes(content, &staging).expect("a blob")
    }

    /// Runs the operations in the view, and then in `plain`.
    pub fn run(&self, operations: &[Operation], plain: Option<&Path>) -> Operated {
        let files = tempfile::tempdir().expect("a directory");
        let (list, spec, result) = (
            files.path().join("list"),
            files.path().join("spec"),
            files.path().join("result"),
        );
        let mut lines = std::io::BufWriter::new(std::fs::File::create(&list).expect("a list"));
        for operation in operations {
            let line = serde_json::to_string(operation).expect("JSON");
            writeln!(lines, "{line}").expect("a line");
        }
        drop(lines);
        let script = r#""$0" "$1" && if [ -n "$2" ]; then cd "$2" && "$0" "$1"; fi"#;
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let document = json!({
            "command": ["/bin/sh", "-c", script, text(&self.program), text(&list),
                        plain.map_or_else(String::new, text)],
            "environment": ["PATH=/usr/bin:/bin"],
            "visible": self.visible,
            "user-id": self.user,
            "group-id": self.user,
            "mount-ops": [{"type": "workspace", "destination": "."}],
            "staging": "discard",
            "command-timeout": 60,
        });
        std::fs::write(&spec, document.to_string()).expect("a spec");
        let arguments = [
            OsStr::new("-p"),
            spec.as_os_str(),
            OsStr::new("-o"),
            result.as_os_str(),
        ];
        let output = self
            .command(&arguments)
            .output()
            .expect("the program starts");
        let outcome = crate::Outcome(output).expect(0);
        let printed = outcome.stdout();
        let read = |line: &str| serde_json::from_str(line).expect("an outcome");
        let mut view: Vec<Outcome> = printed.lines().map(read).collect();
        let plain = view.split_off(operations.len());
        let result = std::fs::read(&result).expect("a result");
        Operated {
            view,
            plain,
            result: serde_json::from_slice(&result).expect("JSON"),
        }
    }

    fn command(&self, arguments: &[&OsStr]) -> Command {
        let direct = self.place.command(arguments);
        if !self.cached {
            return direct;
        }
        // In a user namespace nobody has the privilege over the first one that it takes.
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user"])
            .arg(direct.get_program());
        command
            .args(direct.get_args())
            .env_clear()
            .current_dir(self.place.workspace());
        command.envs(
            direct
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        command
    }
}

/// When every declared input was last changed: nanoseconds since the epoch.
pub const MTIME: i64 = 1_234_567_890_123_456_789;

impl Operated {
    /// The paths of the outputs.
    pub fn outputs(&self) -> Vec<&str> {
        self.paths("outputs")
    }

    /// The paths of the inputs that were used.
    pub fn inputs(&self) -> Vec<&str> {
        self.paths("inputs")
    }

    fn paths(&self, key: &str) -> Vec<&str> {
        let paths = self.result[key].as_array().expect("a list");
        paths
            .iter()
            .map(|path| path.as_str().expect("text"))
            .collect()
    }

    /// The content of an output, which the job left to the store.
    pub fn content(&self, job: &Job, output: &str) -> Vec<u8> {
        let hash = self.result["hashed_files"][output]["hash"].as_str();
        let digest = hash
            .expect("an output with a hash")
            .parse()
            .expect("a hash");
        job.store().read(digest).expect("a blob")
    }
}
