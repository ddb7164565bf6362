//! What a sandbox costs: the same job natively and in wakebox, in turn, as ratios.
//!
//! Absolute times of a noisy machine mean little, so each workload runs natively and sandboxed
//! alternately (A B A B ...) and the medians are compared. Run it with
//! `cargo run --release -p bench`, after `cargo build --release`.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads its own path and writes plain files"
)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How often each side of a workload runs.
const ROUNDS: usize = 15;

/// A job, and the inputs that it is given.
struct Workload {
    name: &'static str,
    inputs: usize,
    command: [&'static str; 3],
}

const WORKLOADS: [Workload; 6] = [
    Workload {
        name: "true, 10 inputs",
        inputs: 10,
        command: ["true", "", ""],
    },
    Workload {
        name: "true, 10,000 inputs",
        inputs: 10_000,
        command: ["true", "", ""],
    },
    Workload {
        name: "read 1,000 files",
        inputs: 1_000,
        command: ["sh", "-c", "cat */* > /dev/null"],
    },
    Workload {
        name: "find twice in 10,000 files",
        inputs: 10_000,
        command: ["sh", "-c", "find . > /dev/null; find . > /dev/null"],
    },
    Workload {
        name: "write and read 512 MB",
        inputs: 10,
        command: [
            "sh",
            "-c",
            "head -c 512M /dev/zero > big; cat big > /dev/null; rm big",
        ],
    },
    Workload {
        name: "make and remove 2,000 files",
        inputs: 10,
        command: [
            "sh",
            "-c",
            "i=0; while [ $i -lt 2000 ]; do echo x > f$i; i=$((i+1)); done; rm f*",
        ],
    },
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let wakebox = std::env::current_exe()?.with_file_name("wakebox");
    if !wakebox.exists() {
        return Err(format!(
            "{} is missing: run `cargo build --release`",
            wakebox.display()
        )
        .into());
    }
    println!(
        "{:<30} {:>10} {:>10} {:>8}",
        "median of 15", "native ms", "wakebox ms", "ratio"
    );
    for workload in WORKLOADS {
        let place = Place::new(&workload)?;
        let (native, boxed) = place.measure(&workload, &wakebox)?;
        let ratio = boxed.as_secs_f64() / native.as_secs_f64();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let (a, b) = (milliseconds(native), milliseconds(boxed));
        println!("{:<30} {a:>10.2} {b:>10.2} {ratio:>8.2}", workload.name);
    }
    Ok(())
}

/// A workspace with its inputs, and the spec that names them by hash.
struct Place {
    root: tempfile::TempDir,
    spec: PathBuf,
}

impl Place {
    fn new(workload: &Workload) -> Result<Self> {
        let root = tempfile::Builder::new()
            .prefix("wakebox-bench-")
            .tempdir()?;
        let workspace = root.path().join("workspace");
        let mut visible = Vec::new();
        for i in 0..workload.inputs {
            let name = format!("d{}/f{i}.txt", i % 100);
            let path = workspace.join(&name);
            std::fs::create_dir_all(path.parent().ok_or("a parent")?)?;
            std::fs::write(path, format!("content of {i}\n").repeat(100))?;
            visible.push(name);
        }
        let command: Vec<_> = workload
            .command
            .iter()
            .filter(|word| !word.is_empty())
            .collect();
        let spec = root.path().join("spec.json");
        let document = serde_json::json!({
            "command": command,
            "environment": ["PATH=/usr/bin:/bin"],
            "visible": visible,
            "cas-dir": root.path().join("cas"),
            "staging": "discard",
            "mount-ops": [{"type": "workspace", "destination": "."}],
        });
        std::fs::write(&spec, document.to_string())?;
        Ok(Self { root, spec })
    }

    fn measure(&self, workload: &Workload, wakebox: &Path) -> Result<(Duration, Duration)> {
        let mut native = Vec::new();
        let mut boxed = Vec::new();
        // One round of each first: it starts the daemon and fills the store.
        for round in 0..=ROUNDS {
            let a = self.time(Command::new(workload.command[0]).args(arguments(workload)))?;
            let b = self.time(Command::new(wakebox).arg("-p").arg(&self.spec))?;
            if round > 0 {
                native.push(a);
                boxed.push(b);
            }
        }
        Ok((median(native), median(boxed)))
    }

    fn time(&self, command: &mut Command) -> Result<Duration> {
        command
            .current_dir(self.root.path().join("workspace"))
            .stdin(Stdio::null());
        let started = Instant::now();
        let status = command.status()?;
        let taken = started.elapsed();
        if status.success() {
            Ok(taken)
        } else {
            Err(format!("{command:?}: {status}").into())
        }
    }
}

fn arguments(workload: &Workload) -> impl Iterator<Item = &&'static str> {
    workload.command[1..].iter().filter(|word| !word.is_empty())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
