//! Jobs, always as many at once, of which each result is checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use cas::{Digest, Store};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::Place;

/// How calls have ended, and what was found wrong.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Jobs that ended as they do when nothing happens.
    pub succeeded: u64,
    /// Calls that ended with 125 and one line.
    pub told: u64,
    /// Clients that were killed.
    pub killed: u64,
    /// Killed clients of which a result, whole, was there all the same.
    pub results_of_killed: u64,
    /// The line of calls that failed, and how often it came. Numbers are left out.
    pub lines: BTreeMap<String, u64>,
    /// When calls ended that failed, after they began, so that it can be told how long after a kill
    /// that was.
    pub failures: Vec<(Instant, Instant)>,
    /// Blobs that results have named.
    pub blobs: Vec<(Digest, u64)>,
    /// What must never be.
    pub wrong: Vec<String>,
}

/// Jobs that run in a place.
#[derive(Debug)]
pub struct Load<'p> {
    place: &'p Place,
    store: Store,
    /// What each of them declares.
    visible: Vec<Value>,
    /// The clients that run now, by the worker that has started them.
    running: Vec<Mutex<Option<Pid>>>,
    numbers: AtomicU64,
    seen: Mutex<Seen>,
    /// Whether jobs take a moment, so that they can be interrupted, or end at once.
    linger: bool,
    end: AtomicBool,
}

impl<'p> Load<'p> {
    /// Prepares jobs, so many at once.
    pub fn new(place: &'p Place, at_once: usize, linger: bool) -> Self {
        std::fs::create_dir_all(place.store()).expect("a store");
        let store = Store::open_own(&place.store()).expect("a store");
        let staging = store.new_staging("load").expect("room");
        let visible = (0..20).map(|n| {
            let content = format!("input {n}\n").repeat(50 * n + 1);
            let hash = store.put_bytes(content.as_bytes(), &staging).expect("room");
            json!({"path": format!("in/{n}"), "type": "file", "hash": hash, "mode": 0o644, "mtime": n})
        });
        Self {
            place,
            visible: visible.collect(),
            store,
            running: (0..at_once).map(|_| Mutex::default()).collect(),
            numbers: AtomicU64::new(0),
            seen: Mutex::default(),
            linger,
            end: AtomicBool::new(false),
        }
    }

    /// Runs jobs until `meanwhile` returns, and returns what was seen.
    pub fn run(&self, meanwhile: impl FnOnce()) -> Seen {
        std::thread::scope(|scope| {
            for worker in 0..self.running.len() {
                scope.spawn(move || {
                    while !self.end.load(Ordering::Relaxed) {
                        self.job(worker);
                    }
                });
            }
            meanwhile();
            self.end.store(true, Ordering::Relaxed);
        });
        self.seen().clone()
    }

    /// How many jobs have ended so far.
    pub fn ended(&self) -> u64 {
        let seen = self.seen();
        seen.succeeded + seen.told + seen.killed
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client of a worker, if it has one now.
    pub fn client(&self, worker: usize) -> Option<Pid> {
        *self.running[worker].lock().expect("no panic")
    }

    /// Kills the client of a worker, if it has one now: a number that was reaped may be another's.
    pub fn kill_client(&self, worker: usize) -> bool {
        let running = self.running[worker].lock().expect("no panic");
        running.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
    }

    /// One job, which says nothing itself: three outputs of which no other job makes the like, one of them in two names.
    fn job(&self, worker: usize) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let root = self.place.root();
        let (spec, result) = (
            root.join(format!("spec-{worker}.json")),
            root.join(format!("result-{number}.json")),
        );
        std::fs::write(&spec, self.spec(number).to_string()).expect("a spec");
        let begun = Instant::now();
        let child = self.start(&spec, &result);
        let pid = Pid::from_child(&child);
        *self.running[worker].lock().expect("no panic") = Some(pid);
        // Waited for, and not reaped, so that the number stays its own until nobody has it.
        let options =
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        let _ = rustix::process::waitid(rustix::process::WaitId::Pid(pid), options);
        *self.running[worker].lock().expect("no panic") = None;
        let output = child.wait_with_output().expect("it has ended");
        let ended = Instant::now();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        self.judge(
            number,
            output.status.code(),
            &stderr,
            &result,
            (begun, ended),
        );
        let _ = std::fs::remove_file(&result);
    }

    fn spec(&self, number: u64) -> Value {
        let pause = if self.linger { "sleep 0.05;" } else { "" };
        let script = format!(
            "exec 2> /dev/null; cat in/* > sum; echo {number} >> sum; mkdir d; echo made by {number} > d/a; ln d/a d/b; {pause} \
             head -c $((200000 + {number})) /dev/zero > big; echo end {number} >> big"
        );
        // A manifest of its own now and then: most jobs of a build are like others in that.
        let inputs = 1 + (number / 40 % 19) as usize;
        let mut spec = self.place.spec(&script);
        spec["cas-dir"] = json!(self.place.store().to_str());
        spec["visible"] = json!(self.visible[..inputs]);
        spec["staging"] = json!(if number.is_multiple_of(2) {
            "keep"
        } else {
            "discard"
        });
        spec
    }

    fn start(&self, spec: &Path, result: &Path) -> Child {
        let mut command = self.place.command(["-p"]);
        command.arg(spec).arg("-o").arg(result);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command.spawn().expect("starts")
    }

    fn judge(
        &self,
        number: u64,
        code: Option<i32>,
        stderr: &str,
        result: &Path,
        (begun, ended): (Instant, Instant),
    ) {
        let text = std::fs::read(result).ok();
        let document = text
            .as_ref()
            .map(|text| serde_json::from_slice::<Value>(text));
        let mut now = Seen::default();
        match (code, &document) {
            (_, Some(Err(error))) => now.wrong.push(format!("half a result: {error}")),
            (Some(0), Some(Ok(document))) => {
                now.succeeded = 1;
                self.check(number, document, &mut now);
            }
            (Some(125), Some(Ok(document))) if document["sandbox-error"].is_object() => {
                now.told = 1;
                now.failures.push((begun, ended));
                if stderr.lines().count() != 1 || !stderr.starts_with("wakebox: ") {
                    now.wrong.push(format!("not one line: {stderr:?}"));
                }
                now.lines.insert(without_numbers(stderr), 1);
            }
            (None, None) => now.killed = 1,
            (None, Some(Ok(document))) => {
                (now.killed, now.results_of_killed) = (1, 1);
                self.check(number, document, &mut now);
            }
            (code, document) => {
                let wrong = format!("code {code:?}, result {document:?}, said {stderr:?}");
                now.wrong.push(wrong);
            }
        }
        self.add(now);
    }

    fn add(&self, now: Seen) {
        let mut seen = self.seen();
        seen.succeeded += now.succeeded;
        seen.told += now.told;
        seen.killed += now.killed;
        seen.results_of_killed += now.results_of_killed;
        for line in now.lines.into_keys() {
            *seen.lines.entry(line).or_default() += 1;
        }
        seen.failures.extend(now.failures);
        seen.blobs.extend(now.blobs);
        seen.wrong.extend(now.wrong);
    }

    /// Everything that a result names is there and is what it says, and it names all.
    fn check(&self, number: u64, document: &Value, now: &mut Seen) {
        let empty = serde_json::Map::new();
        let hashed = document["hashed_files"].as_object().unwrap_or(&empty);
        let names: Vec<_> = hashed.keys().map(String::as_str).collect();
        if names != ["big", "d", "d/a", "d/b", "sum"] {
            now.wrong.push(format!("outputs of {number}: {names:?}"));
        }
        for (path, entry) in hashed.iter().filter(|(_, entry)| entry["type"] == "file") {
            let hash = entry["hash"].as_str().unwrap_or_default();
            let found = hash.parse::<Digest>().map_err(|error| error.to_string());
            let blob = found.and_then(|digest| {
                let size = self
                    .store
                    .verify(digest)
                    .map_err(|error| error.to_string())?;
                Ok((digest, size))
            });
            match blob {
                Ok(blob) if Some(blob.1) == entry["size"].as_u64() => now.blobs.push(blob),
                other => now.wrong.push(format!("{path} of {number}: {other:?}")),
            }
        }
        let said = Digest::of(format!("made by {number}\n").as_bytes()).to_string();
        if hashed
            .get("d/a")
            .is_none_or(|entry| entry["hash"] != said.as_str())
        {
            now.wrong.push(format!("d/a of {number} is another's"));
        }
        self.take_staged(document, now);
    }

    /// Does what a build tool does with staged files: takes each, and then the directory.
    fn take_staged(&self, document: &Value, now: &mut Seen) {
        let Some(files) = document["staging_files"].as_object() else {
            return;
        };
        let here = self.place.workspace();
        let staged = files
            .values()
            .filter_map(|entry| entry["staging_path"].as_str());
        let staged: Vec<PathBuf> = staged.map(|path| here.join(path)).collect();
        for file in &staged {
            if let Err(error) = std::fs::remove_file(file) {
                now.wrong
                    .push(format!("staged {}: {error}", file.display()));
            }
        }
        if let Some(root) = document["staging_root"].as_str() {
            // A client that was killed may have left its manifest there, for `gc`.
            let _ = std::fs::remove_dir(here.join(root));
        }
    }
}

fn without_numbers(line: &str) -> String {
    let mut kept: String = line
        .trim_end()
        .chars()
        .map(|c| if c.is_ascii_digit() { '#' } else { c })
        .collect();
    while kept.contains("##") {
        kept = kept.replace("##", "#");
    }
    kept
}
