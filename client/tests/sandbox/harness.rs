//! A job that is a shell script whose output is kept.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use client::exec::{Ended, SandboxError, start};
use client::sandbox::plan::{Draft, Ids, Namespaces, Plan, Stdin, Step};
use tempfile::TempDir;

/// Effective ids outside, root inside.
pub(crate) fn ids() -> Ids {
    Ids {
        inside_uid: 0,
        inside_gid: 0,
        outside_uid: rustix::process::geteuid().as_raw(),
        outside_gid: rustix::process::getegid().as_raw(),
    }
}

/// A draft of a command.
pub(crate) fn draft(argv: &[&str]) -> Draft {
    Draft {
        ids: ids(),
        namespaces: Namespaces::default(),
        steps: vec![],
        squashfuse: None,
        limits: vec![],
        cwd: "/".into(),
        stdin: Stdin::Inherit,
        argv: argv.iter().map(OsString::from).collect(),
        env: vec!["PATH=/usr/bin:/bin:/usr/sbin:/sbin".into()],
    }
}

/// Runs a draft to its end.
pub(crate) fn run(draft: Draft) -> Result<Ended, SandboxError> {
    start(&plan(draft), None)?.wait(Some(Duration::from_secs(30)), None)
}

pub(crate) fn plan(draft: Draft) -> Plan {
    draft.check().expect("the draft is sound")
}

/// A temporary directory, and a script whose output goes to a file in it.
pub(crate) struct Script {
    pub(crate) dir: TempDir,
    pub(crate) draft: Draft,
}

impl Script {
    pub(crate) fn new(script: &str) -> Self {
        let dir = TempDir::new().expect("temporary directory");
        let out = dir.path().join("out");
        let script = format!("exec >{} 2>&1; {script}", out.display());
        let mut draft = draft(&["/bin/sh", "-c", &script]);
        draft.cwd = dir.path().into();
        Self { dir, draft }
    }

    pub(crate) fn steps(mut self, steps: Vec<Step>) -> Self {
        self.draft.steps = steps;
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.path("out")).unwrap_or_default()
    }

    pub(crate) fn run(&self) -> (Ended, String) {
        let ended = run(self.draft.clone()).expect("the job runs");
        (ended, self.output())
    }
}

/// A number of seconds that no other process sleeps: its sleepers can be found.
pub(crate) fn marker(test: u32) -> String {
    format!("9{}{test}", rustix::process::getpid().as_raw_pid())
}

/// Number of processes on this machine that sleep for the marker's time.
pub(crate) fn sleepers(marker: &str) -> usize {
    let wanted = format!("sleep\0{marker}\0").into_bytes();
    let processes = fs::read_dir("/proc").expect("proc").flatten();
    let cmdline = |path: PathBuf| fs::read(path.join("cmdline")).ok();
    processes
        .filter(|entry| cmdline(entry.path()).is_some_and(|line| line == wanted))
        .count()
}

/// Waits for something that another process brings about.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Says that a test cannot be run here; heard even when all succeed.
pub(crate) fn skipped(reason: &str) {
    let _unheard = std::io::stderr().write_all(format!("SKIPPED {reason}\n").as_bytes());
}

/// A file with contents.
pub(crate) fn file(path: &Path, text: &str) {
    fs::write(path, text).expect("write a file");
}
