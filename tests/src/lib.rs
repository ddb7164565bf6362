//! What the tests of the whole share: a workspace and store of their own, the binary, and looks
//! at what it leaves behind.
#![expect(
    clippy::disallowed_methods,
    reason = "tests read their environment and write plain files"
)]

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub mod attack;
pub mod crash;
mod elsewhere;
pub mod faults;
pub mod fuzz;
pub mod job;
pub mod limits;
pub mod operated;
pub mod operation;

/// The program under test, built by the same cargo call.
///
/// Cargo tells only tests of the package itself where a binary is; this package is another one,
/// so the binary is found beside the test's own.
pub fn wakebox() -> PathBuf {
    let own = std::env::current_exe().expect("a test has a path");
    let folder = own.parent().expect("a folder");
    // Tests are one folder below it, in target/<profile>/deps.
    let folder = match folder.ends_with("deps") {
        true => folder.parent().expect("target/<profile>"),
        false => folder,
    };
    let binary = folder.join("wakebox");
    assert!(
        binary.exists(),
        "{} is missing: run `cargo build` first",
        binary.display()
    );
    binary
}

/// The sources of zstd, which a crate carries that is built here anyway: `lib` with its Makefile.
pub fn zstd() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--offline"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let metadata = command.output().expect("cargo metadata").stdout;
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).expect("metadata");
    let packages = metadata["packages"].as_array().expect("packages");
    let package = packages
        .iter()
        .find(|package| package["name"] == "zstd-sys");
    let manifest = package.expect("zstd-sys")["manifest_path"].as_str();
    Path::new(manifest.expect("a path")).with_file_name("zstd")
}

/// Why no view can be mounted here, if none can.
pub fn cannot_mount() -> Option<String> {
    match std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
    {
        Ok(_) => None,
        Err(error) => Some(format!("/dev/fuse: {error}")),
    }
}

/// Says that a test cannot run here. Not by `eprintln`, of which the test harness shows nothing
/// as long as tests succeed.
pub fn say_skipped(file: &str, line: u32, reason: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {file}:{line}: {reason}");
}

/// Skips a test aloud, for a reason.
#[macro_export]
macro_rules! skip {
    ($reason:expr) => {{
        $crate::say_skipped(file!(), line!(), $reason);
        return;
    }};
}

/// Skips a test aloud on a machine that cannot mount.
#[macro_export]
macro_rules! needs_fuse {
    () => {
        if let Some(reason) = $crate::cannot_mount() {
            $crate::skip!(reason);
        }
    };
}

/// A directory of its own for a test: workspace, store, home and sockets. When it goes, so do the
/// daemons that were started in it.
#[derive(Debug)]
pub struct Place {
    root: tempfile::TempDir,
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Place {
    /// Makes an empty workspace.
    pub fn new() -> Self {
        let root = tempfile::Builder::new()
            .prefix("wakebox-test-")
            .tempdir()
            .expect("a directory");
        for name in ["workspace", "home", "run"] {
            std::fs::create_dir(root.path().join(name)).expect(name);
        }
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(root.path().join("run"), private).expect("private");
        Self { root }
    }

    /// The workspace.
    pub fn workspace(&self) -> PathBuf {
        self.root.path().join("workspace")
    }

    /// The store that `run` uses.
    pub fn store(&self) -> PathBuf {
        self.root.path().join("home/.cache/wakebox")
    }

    /// The directory that sockets are in.
    pub fn runtime(&self) -> PathBuf {
        self.root.path().join("run")
    }

    /// Writes a file of the workspace, with the directories above it.
    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.workspace().join(path);
        std::fs::create_dir_all(path.parent().expect("below the workspace")).expect("directories");
        std::fs::write(path, content).expect("a file");
    }

    /// Reads a file of the workspace.
    pub fn read(&self, path: impl AsRef<Path>) -> Vec<u8> {
        let path = self.workspace().join(path);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// A call of the program in the workspace, with an environment that holds what it needs.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(wakebox());
        command
            .args(arguments)
            .current_dir(self.workspace())
            .env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.root.path().join("home"));
        command.env("XDG_RUNTIME_DIR", self.runtime());
        command.env("WAKEBOX_IDLE", "5");
        command
    }

    /// Runs the program to its end.
    pub fn call(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome {
        Outcome(
            self.command(arguments)
                .output()
                .expect("the program starts"),
        )
    }

    /// `wakebox run --quiet <arguments>`.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        self.call(["run", "--quiet"].iter().chain(arguments))
    }

    /// Runs a batch job and reads its result.
    pub fn batch(&self, spec: &serde_json::Value) -> (Outcome, Option<serde_json::Value>) {
        let (spec_file, result) = (
            self.root.path().join("spec.json"),
            self.root.path().join("result.json"),
        );
        let _ = std::fs::remove_file(&result);
        std::fs::write(&spec_file, spec.to_string()).expect("a spec");
        let arguments = [
            OsStr::new("-p"),
            spec_file.as_os_str(),
            OsStr::new("-o"),
            result.as_os_str(),
        ];
        let outcome = self.call(arguments);
        let text = std::fs::read(&result).ok();
        (
            outcome,
            text.map(|text| serde_json::from_slice(&text).expect("the result is JSON")),
        )
    }

    /// What is below the staging areas of the stores: nothing, after most calls.
    pub fn debris(&self) -> Vec<PathBuf> {
        let stores = [self.store(), self.workspace().join(".build/cas")];
        let staging = stores
            .iter()
            .filter_map(|store| std::fs::read_dir(store.join("staging")).ok());
        staging
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for daemon in self.daemons() {
            let _ = rustix::process::kill_process(daemon, rustix::process::Signal::KILL);
        }
    }
}

impl Place {
    /// The daemons that serve this place: processes with its socket among their arguments.
    pub fn daemons(&self) -> Vec<rustix::process::Pid> {
        let needle = self.runtime().into_os_string().into_encoded_bytes();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            arguments.starts_with(b"wakebox-daemon")
                && arguments
                    .windows(needle.len())
                    .any(|window| window == needle)
        })
        .filter_map(rustix::process::Pid::from_raw)
        .collect()
    }
}

/// What a call printed and how it ended.
#[derive(Debug)]
pub struct Outcome(pub Output);

impl Outcome {
    /// The exit code; -1 if a signal ended it.
    pub fn code(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }

    /// Standard output.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    /// Standard error.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// Insists on an exit code, and shows everything otherwise.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            code,
            "\nstdout: {}\nstderr: {}",
            self.stdout(),
            self.stderr()
        );
        self
    }
}
