//! Who runs jobs: natively, in a view made by mounts or by forests, in a box.

mod boxed;
mod forest;
mod mounted;
mod native;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cas::Digest;

use crate::Result;
use crate::cli::Options;
use crate::disk::Disk;
use crate::workload::{Job, Task};

pub(crate) use boxed::Boxed;

/// Paths of outputs, and what is in them.
pub(crate) type Outputs = BTreeMap<String, Digest>;

/// A way to run jobs.
pub(crate) trait Contender: Sync {
    /// What the tables call it.
    fn name(&self) -> &str;
    /// All that need not be done again for each job. Untimed.
    fn begin<'a>(&'a self, task: &'a Task, round: usize) -> Result<Box<dyn Stage + 'a>>;
    /// Ends what it has started to serve jobs.
    fn stop(&self) {}
}

/// A contender that is ready to run the jobs of a task. What drops is taken away, untimed.
pub(crate) trait Stage: Sync {
    /// Sets up, runs, takes down: all that a job costs. What it prints goes to `stdout`.
    fn run(&self, number: usize, job: &Job, stdout: &Path) -> Result<()>;
    /// What the job made. Untimed.
    fn outputs(&self, number: usize, job: &Job) -> Result<Outputs>;
    /// What is told of requests by the kernel.
    fn round_trips(&self, _number: usize) -> Option<serde_json::Value> {
        None
    }
}

/// The environment of every job, whoever runs it. What a compiler puts aside goes to memory: it is
/// no part of the view, and /tmp may be on any disk.
pub(crate) const ENVIRONMENT: [(&str, &str); 5] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"),
    ("LC_ALL", "C"),
    ("HOME", "/"),
    ("TMPDIR", "/dev/shm"),
    ("GIT_OPTIONAL_LOCKS", "0"),
];

/// Who can run jobs here.
pub(crate) struct Field {
    /// Native first.
    pub(crate) contenders: Vec<Box<dyn Contender>>,
    /// A line for each that cannot run.
    pub(crate) missing: Vec<String>,
}

/// Finds all contenders.
pub(crate) fn all(options: &Options, disk: &Disk) -> Result<Field> {
    let wanted =
        |name: &str| options.only.is_empty() || options.only.iter().any(|only| only == name);
    let mut found: Vec<Box<dyn Contender>> = vec![Box::new(native::Native::new(disk)?)];
    let mut missing = Vec::new();
    for kind in mounted::KINDS
        .into_iter()
        .filter(|kind| wanted(kind.name()))
    {
        match kind.missing() {
            Some(why) => missing.push(format!("{}: {why}", kind.name())),
            None => found.push(Box::new(mounted::Mounted::new(kind, disk)?)),
        }
    }
    for kind in forest::KINDS.into_iter().filter(|kind| wanted(kind.name())) {
        match lacks("bwrap", "bubblewrap") {
            Some(why) => missing.push(format!("{}: {why}", kind.name())),
            None => found.push(Box::new(forest::Forest::new(kind, disk)?)),
        }
    }
    for (name, path) in boxes(options)? {
        match path.exists() {
            _ if !wanted(&name) => {}
            false => missing.push(format!(
                "{name}: no {}: cargo build --release",
                path.display()
            )),
            true => found.push(Box::new(Boxed::new(name, path, disk)?)),
        }
    }
    Ok(Field {
        contenders: found,
        missing,
    })
}

/// wakebox, and whatever else keeps its contract.
pub(crate) fn boxes(options: &Options) -> Result<Vec<(String, PathBuf)>> {
    let own = std::env::current_exe()?.with_file_name("wakebox");
    let wakebox = match &options.wakebox {
        Some(path) => path
            .canonicalize()
            .map_err(|error| format!("{}: {error}", path.display()))?,
        None => own,
    };
    let mut all = vec![("wakebox".to_owned(), wakebox)];
    all.extend(options.boxes.iter().cloned());
    Ok(all)
}

/// Why a program cannot be used: it is not installed.
pub(crate) fn lacks(program: &str, package: &str) -> Option<String> {
    let said = || format!("not installed: apt-get install {package}");
    find(program).is_none().then(said)
}

/// Where a program is: jobs have a `PATH` of their own.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all = std::env::split_paths(&path).map(|folder| folder.join(program));
    all.find(|path| path.is_file())
}

/// A command as every contender starts it.
fn command(job: &Job, directory: &Path, stdout: &Path) -> Result<Command> {
    let mut command = Command::new(&job.command[0]);
    command.args(&job.command[1..]).current_dir(directory);
    plain(&mut command, stdout)?;
    Ok(command)
}

/// Gives a command the environment of jobs, and its output to a file.
fn plain(command: &mut Command, stdout: &Path) -> Result<()> {
    command.env_clear().envs(ENVIRONMENT);
    silent(command, stdout)
}

/// All that a command says goes to a file: a pipe would not end before a daemon that kept it.
fn silent(command: &mut Command, said: &Path) -> Result<()> {
    let file = fs::File::create(said)?;
    command
        .stderr(file.try_clone()?)
        .stdout(file)
        .stdin(Stdio::null());
    Ok(())
}

/// Runs it; an error, with the last that it said, unless it succeeds.
fn succeed(mut command: Command, said: &Path) -> Result<()> {
    let program = command.get_program().to_owned();
    let program = program.display();
    let status = command
        .status()
        .map_err(|error| format!("{program}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    let said = fs::read_to_string(said).unwrap_or_default();
    let last = said.trim().lines().last().unwrap_or("no word");
    Err(format!("{program}: {status}: {last}").into())
}

/// Moves what a job was to make from `from` to `to`, on the same file system.
fn harvest(job: &Job, from: &Path, to: &Path) -> Result<()> {
    if job.outputs.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for output in &job.outputs {
        let flat = output.replace('/', "_");
        fs::rename(from.join(output), to.join(flat))
            .map_err(|error| format!("{output}: {error}"))?;
    }
    Ok(())
}

/// Hashes what was harvested, under the names that it had.
fn harvested(job: &Job, to: &Path) -> Result<Outputs> {
    let mut all = Outputs::new();
    for output in &job.outputs {
        hash_below(&to.join(output.replace('/', "_")), output, &mut all)?;
    }
    Ok(all)
}

/// Hashes the file at `path`, or all below it, under `name`.
pub(crate) fn hash_below(path: &Path, name: &str, all: &mut Outputs) -> Result<()> {
    let kind = fs::symlink_metadata(path).map_err(|error| format!("{name}: {error}"))?;
    if kind.is_file() {
        let file = fs::File::open(path).map_err(|error| format!("{name}: {error}"))?;
        all.insert(name.to_owned(), Digest::of_file(&file)?.0);
        return Ok(());
    }
    if !kind.is_dir() {
        // A layer's mark of what was removed.
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let child = String::from_utf8_lossy(entry.file_name().as_bytes()).into_owned();
        // What fuse-overlayfs marks its layers with.
        if child.starts_with(".wh.") {
            continue;
        }
        hash_below(&entry.path(), &format!("{name}/{child}"), all)?;
    }
    Ok(())
}

/// Removes a directory if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", path.display()).into())
        }
        _ => Ok(()),
    }
}
