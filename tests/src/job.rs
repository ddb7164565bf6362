//! Batch jobs for tests, and looks at what jobs leave behind.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde_json::{Value, json};

use crate::{Outcome, Place};

/// Longer than anything takes on a loaded machine, and short enough to wait for a failure.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Whether something comes true within a time.
pub fn comes_true(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Insists that something comes true.
#[track_caller]
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    assert!(comes_true(PATIENCE, condition), "waited in vain for {what}");
}

/// Kills a process and waits until it has let go of all it had, which is later than the moment
/// when its memory is gone and with it its command line.
#[track_caller]
pub fn kill(pid: Pid) {
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is there");
    let state = format!("/proc/{}/stat", pid.as_raw_pid());
    wait_for("a process to end", || {
        // "pid (name) state ..."; a zombie has nothing but its status.
        let stat = std::fs::read_to_string(&state).unwrap_or_default();
        stat.rsplit(')')
            .next()
            .is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z"))
    });
}

/// The strings of a JSON array.
pub fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .expect("an array")
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

/// The store of batch jobs, as their specs have it.
pub const BATCH_STORE: &str = ".build/cas";

impl Place {
    /// The directory that everything of this place is in.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A file in this place's home, which jobs can reach outside of their view.
    pub fn flag(&self, name: &str) -> PathBuf {
        self.root().join("home").join(name)
    }

    /// A spec of a job that runs a shell script in a view of the workspace.
    pub fn spec(&self, script: &str) -> Value {
        self.spec_of(&["/bin/sh", "-c", script])
    }

    /// A spec of a job that runs a command in a view of the workspace. Its environment names this
    /// place, so that [`Place::processes`] finds it.
    pub fn spec_of(&self, command: &[&str]) -> Value {
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".into());
        let home = self.root().join("home");
        json!({
            "command": command,
            "environment": [format!("PATH={path}"), format!("HOME={}", home.display())],
            "mount-ops": [{"type": "workspace", "destination": "."}],
        })
    }

    /// Puts content into the store of batch jobs, with the program, and returns its hash.
    pub fn put(&self, content: impl AsRef<[u8]>) -> String {
        let file = self.root().join(format!("put-{}", unique()));
        std::fs::write(&file, content).expect("a file to put");
        let arguments = [
            Path::new("cas"),
            "--store".as_ref(),
            BATCH_STORE.as_ref(),
            "put".as_ref(),
            &file,
        ];
        let outcome = self.call(arguments).expect(0);
        outcome
            .stdout()
            .split_whitespace()
            .next()
            .expect("a hash")
            .to_owned()
    }

    /// An entry of `visible` for a file with this content.
    pub fn visible(&self, path: &str, content: impl AsRef<[u8]>) -> Value {
        self.visible_mode(path, content, 0o644)
    }

    /// An entry of `visible` for a file with this content and mode.
    pub fn visible_mode(&self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Value {
        let hash = self.put(content);
        json!({"path": path, "type": "file", "hash": hash, "mode": mode, "mtime": 1_700_000_000_000_000_005_i64})
    }

    /// A batch call with files of its own, so that many can run at once.
    pub fn batch_call(&self, spec: &Value, arguments: &[&str]) -> (Outcome, Option<Value>) {
        let id = unique();
        let spec_file = self.root().join(format!("spec-{id}.json"));
        let result = self.root().join(format!("result-{id}.json"));
        std::fs::write(&spec_file, spec.to_string()).expect("a spec");
        let mut command = self.command(arguments);
        command
            .arg("-p")
            .arg(spec_file)
            .arg("-o")
            .arg(&result)
            .stdin(Stdio::null());
        let outcome = Outcome(command.output().expect("the program starts"));
        let text = std::fs::read(&result).ok();
        (
            outcome,
            text.map(|text| serde_json::from_slice(&text).expect("the result is JSON")),
        )
    }

    /// A batch job that must succeed, and its result.
    #[track_caller]
    pub fn result_of(&self, spec: &Value) -> Value {
        let (outcome, result) = self.batch_call(spec, &[]);
        outcome.expect(0);
        result.expect("a result")
    }

    /// Where a staged file is.
    pub fn staged(&self, entry: &Value) -> PathBuf {
        self.workspace()
            .join(entry["staging_path"].as_str().expect("a staging_path"))
    }

    /// `cas verify` of a store; true if all of it is sound.
    pub fn verifies(&self, store: &Path) -> bool {
        self.call([
            Path::new("cas"),
            "--store".as_ref(),
            store,
            "verify".as_ref(),
        ])
        .code()
            == 0
    }

    /// Clients and processes of jobs: all whose environment names this place.
    pub fn processes(&self) -> Vec<Pid> {
        let needle = self.root().as_os_str().as_encoded_bytes();
        let of_this_place = |pid: &i32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment
                .windows(needle.len())
                .any(|window| window == needle)
        };
        pids()
            .filter(of_this_place)
            .filter_map(Pid::from_raw)
            .collect()
    }

    /// Mounts of this place's directories that any process of the machine has.
    pub fn mounts(&self) -> Vec<String> {
        let needle = self.root().to_string_lossy().into_owned();
        let tables =
            pids().filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok());
        let of_this_place = |line: &&str| line.contains(" - fuse") && line.contains(&needle);
        let lines = tables.flat_map(|table| {
            table
                .lines()
                .filter(of_this_place)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        });
        lines.collect()
    }

    /// Insists that jobs have left neither processes nor mounts nor staged files, or that all
    /// are gone within a time.
    #[track_caller]
    pub fn expect_clean_within(&self, limit: Duration) {
        let clean =
            || self.processes().is_empty() && self.mounts().is_empty() && self.debris().is_empty();
        let (processes, mounts) = (|| self.processes(), || self.mounts());
        assert!(
            comes_true(limit, clean),
            "left: processes {:?}, mounts {:?}, staging {:?}",
            processes(),
            mounts(),
            self.debris()
        );
    }

    /// Insists that a job that has ended has left nothing. A process that was killed may take a
    /// moment to leave the process table.
    #[track_caller]
    pub fn expect_clean(&self) {
        self.expect_clean_within(Duration::from_millis(500));
    }
}

/// All processes of the machine.
fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
