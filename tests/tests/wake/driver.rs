//! A stand-in for wake v50: writes specs, calls the runner and takes its results, all as it does.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use cas::Digest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use wakebox_tests::wakebox;

/// A job as wake has it.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) id: u32,
    pub(super) command: Vec<String>,
    pub(super) visible: Vec<String>,
    pub(super) environment: Vec<String>,
    pub(super) runner_environment: Vec<String>,
    pub(super) timeout: Option<u32>,
    pub(super) cas: String,
    /// Shell redirections, such as `4>errors`.
    pub(super) streams: String,
}

impl Job {
    pub(super) fn shell(id: u32, script: &str) -> Self {
        let path = "PATH=/usr/bin:/bin".to_owned();
        Self {
            id,
            command: ["sh", "-c", script].map(String::from).into(),
            visible: Vec::new(),
            environment: vec![path.clone()],
            runner_environment: vec![path],
            timeout: None,
            cas: ".build/cas".into(),
            streams: String::new(),
        }
    }

    /// The text of the spec: two blanks of indentation, keys in wake's order, absent options left
    /// out.
    fn spec(&self) -> String {
        let text = |text: &str| Value::from(text).to_string();
        let list = |items: &[String]| match items {
            [] => "[]".to_owned(),
            items => format!("[\n    {}\n  ]", items.join(",\n    ")),
        };
        let texts =
            |items: &[String]| list(&items.iter().map(|item| text(item)).collect::<Vec<_>>());
        let mut keys = vec![
            ("label", text("")),
            ("command", texts(&self.command)),
            ("environment", texts(&self.environment)),
            ("directory", text(".")),
            ("stdin", text("")),
            ("cas-dir", text(&self.cas)),
            ("isolate-network", "false".into()),
            ("isolate-pids", "false".into()),
        ];
        if let Some(seconds) = self.timeout {
            keys.push(("command-timeout", seconds.to_string()));
        }
        let workspace = "{\n      \"type\": \"workspace\",\n      \"destination\": \".\"\n    }";
        keys.extend([
            ("version", text("50.1.0")),
            ("runner", text("/opt/wake/bin/wakebox")),
            ("mount-ops", list(&[workspace.into()])),
            ("visible", list(&self.visible)),
        ]);
        let lines: Vec<_> = keys
            .iter()
            .map(|(key, value)| format!("  \"{key}\": {value}"))
            .collect();
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }
}

/// A workspace with wake in it.
#[derive(Clone, Debug)]
pub(super) struct Wake {
    pub(super) workspace: PathBuf,
}

/// What wake makes of a job.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
    pub(super) stderr: String,
    pub(super) result: Option<String>,
}

impl Wake {
    pub(super) fn new(workspace: PathBuf) -> Self {
        std::fs::create_dir_all(workspace.join(".build")).expect("a directory");
        Self { workspace }
    }

    /// Puts a file into the store and returns its entry of `visible`.
    pub(super) fn ingest(&self, path: &str, content: &[u8]) -> String {
        let store = cas::Store::open(&self.workspace.join(".build/cas")).expect("a store");
        let staging = store.new_staging("put").expect("a place");
        let stored = store.put_reader(&mut &content[..], &staging);
        let (hash, _) = stored.expect("a blob");
        visible(path, "file", Some(&hash.to_string()), 0o644)
    }

    pub(super) fn result(&self, job: &Job) -> PathBuf {
        self.workspace
            .join(format!(".build/result-{}.json", job.id))
    }

    /// Starts the runner: standard input empty, output into pipes, few descriptors, its own umask.
    pub(super) fn start(&self, job: &Job) -> Child {
        let id = job.id;
        let spec = format!(".build/spec-{id}.json");
        std::fs::write(self.workspace.join(&spec), job.spec()).expect("a spec");
        let script = format!(
            "umask 022; ulimit -S -n 1024; exec env -i \"$@\" {}",
            job.streams
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]);
        command.args(&job.runner_environment).arg(wakebox());
        command.args(["-I", "-p", &spec, "-o", &format!(".build/result-{id}.json")]);
        command.current_dir(&self.workspace).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("a shell")
    }

    /// Waits for the runner, and reads and removes what it wrote.
    pub(super) fn collect(&self, job: &Job, child: Child) -> Done {
        let output = child.wait_with_output().expect("an end");
        let path = self.result(job);
        let result = std::fs::read_to_string(&path).ok();
        let _ = std::fs::remove_file(&path);
        Done {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into(),
            stderr: String::from_utf8_lossy(&output.stderr).into(),
            result,
        }
    }

    pub(super) fn run(&self, job: &Job) -> Done {
        let child = self.start(job);
        self.collect(job, child)
    }

    /// Cancels as wake does: SIGTERM up to six times with growing gaps, then SIGKILL. Returns how
    /// many signals it took.
    pub(super) fn cancel(&self, child: &mut Child) -> u32 {
        let pid = Pid::from_child(child);
        for round in 0..6 {
            let _ = kill_process(pid, Signal::TERM);
            let gap = Duration::from_millis(100 << round);
            for _ in 0..20 {
                std::thread::sleep(gap / 20);
                if child.try_wait().expect("a child").is_some() {
                    return round + 1;
                }
            }
        }
        let _ = child.kill();
        7
    }

    /// Takes the result over: insists on what wake insists on, hashes each staged file, unlinks
    /// it, puts everything in its place, and removes the staging directory. Returns the hashes.
    pub(super) fn finish(&self, done: &Done) -> BTreeMap<String, Digest> {
        let result = done.document();
        check_required(&result);
        let mut hashes = BTreeMap::new();
        let items = result["staging_files"].as_object().expect("staging_files");
        for (path, item) in items {
            let place = self.workspace.join(path);
            if let Some(parent) = place.parent() {
                std::fs::create_dir_all(parent).expect("parents");
            }
            match item["type"].as_str().expect("a type") {
                "file" => {
                    let staged = item["staging_path"].as_str().expect("staging_path");
                    let staged = self.workspace.join(staged);
                    let content = std::fs::read(&staged).expect("a staged file");
                    std::fs::remove_file(&staged).expect("unlinked");
                    std::fs::write(&place, &content).expect("materialized");
                    set_mode(&place, item);
                    for time in ["mtime_sec", "mtime_nsec"] {
                        assert!(item[time].is_i64(), "{time} of {item}");
                    }
                    hashes.insert(path.clone(), Digest::of(&content));
                }
                "symlink" => {
                    let target = item["target"].as_str().expect("target");
                    let _ = std::fs::remove_file(&place);
                    std::os::unix::fs::symlink(target, &place).expect("a link");
                }
                "directory" => {
                    std::fs::create_dir_all(&place).expect("a directory");
                    set_mode(&place, item);
                }
                unknown => panic!("Unknown staging item type {unknown}"),
            }
        }
        if let Some(root) = result["staging_root"].as_str() {
            std::fs::remove_dir(self.workspace.join(root)).expect("an empty directory");
        }
        hashes
    }

    /// What nobody takes away: staging directories, temporary files.
    pub(super) fn debris(&self) -> Vec<PathBuf> {
        let staging = entries(&self.workspace.join(".build/cas/staging"));
        let temporary = [".", ".build"].map(|folder| entries(&self.workspace.join(folder)));
        let temporary = temporary.into_iter().flatten().filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(".wakebox") || name.starts_with("result-")
        });
        staging.into_iter().chain(temporary).collect()
    }

    /// Ends the daemon that an empty environment has put where no test looks.
    pub(super) fn stop_daemon(&self) {
        let mut command = Command::new(wakebox());
        command.args(["daemon", "--stop", "--store", ".build/cas"]);
        let ended = command.env_clear().current_dir(&self.workspace).output();
        ended.expect("an end");
    }
}

impl Done {
    pub(super) fn document(&self) -> Value {
        let text = self
            .result
            .as_deref()
            .unwrap_or_else(|| panic!("no result: {self:?}"));
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    #[track_caller]
    pub(super) fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        self
    }
}

pub(super) fn visible(path: &str, kind: &str, hash: Option<&str>, mode: u32) -> String {
    let mut keys = vec![
        format!("\"path\": {}", Value::from(path)),
        format!("\"type\": \"{kind}\""),
    ];
    keys.extend(hash.map(|hash| format!("\"hash\": \"{hash}\"")));
    keys.extend([
        format!("\"mode\": {mode}"),
        "\"mtime\": 1700000000000000000".into(),
    ]);
    format!("{{\n      {}\n    }}", keys.join(",\n      "))
}

/// The keys that a job fails without, by type.
pub(super) fn check_required(result: &Value) {
    let usage = &result["usage"];
    for key in ["status", "membytes", "inbytes", "outbytes"] {
        assert!(usage[key].is_i64(), "usage/{key} of {usage}");
    }
    for key in ["runtime", "cputime"] {
        assert!(usage[key].is_number(), "usage/{key} of {usage}");
    }
    for key in ["inputs", "outputs"] {
        let all_texts = |list: &Vec<Value>| list.iter().all(Value::is_string);
        assert!(
            result[key].as_array().is_some_and(all_texts),
            "{key} of {result}"
        );
    }
    assert!(result["timed-out"].is_boolean());
    assert!(result["run-host"].is_string());
}

fn set_mode(place: &Path, item: &Value) {
    let mode = item["mode"]
        .as_i64()
        .and_then(|mode| u32::try_from(mode).ok());
    let mode = PermissionsExt::from_mode(mode.expect("a mode"));
    std::fs::set_permissions(place, mode).expect("a mode");
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
