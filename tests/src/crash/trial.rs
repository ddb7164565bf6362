//! Kills, and what is there after them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};

use super::{Model, Random, Seen, Step, look};
use crate::job::comes_true;

/// Processes at work at once.
const WORKERS: usize = 3;
/// Inputs of each.
const INPUTS: usize = 12;
/// Kills of one state. Then another begins, with all its inputs.
const KILLS_PER_STATE: usize = 10;
/// No process of the load outlives its file system for longer.
const LIMIT: Duration = Duration::from_secs(60);
/// Has the log replaced whenever it has grown by a little, so that kills meet that, too:
/// milliseconds between looks, and bytes.
const BUSY: &str = "upkeep=2:2048";

type Result<T> = std::result::Result<T, String>;

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Processes that were killed while serving, each followed by a mount of the same state.
    pub kills: usize,
    /// Changes that were answered. All of them were found.
    pub answered: usize,
    /// `fsync(2)` among them.
    pub flushed: usize,
    /// Changes that were begun and not answered.
    pub unanswered: usize,
    /// Of these, those that had happened.
    pub happened: usize,
    /// Kills while a log was being replaced.
    pub replacing: usize,
    /// Names that were compared, with all that is behind them.
    pub compared: usize,
}

/// A place for mounts. It needs a mount namespace that nobody else uses.
#[derive(Debug)]
pub struct Trial {
    /// A directory that is empty at first.
    pub ground: PathBuf,
    /// The program under test.
    pub wakebox: PathBuf,
    /// Decides what is done, and when it is interrupted.
    pub random: Random,
}

/// A state that is mounted, and what must be in it.
struct Mounted {
    state: PathBuf,
    point: PathBuf,
    options: String,
    models: Vec<Model>,
}

impl Trial {
    /// Kills as often as is said.
    ///
    /// # Errors
    /// The first thing that is not as it should be.
    pub fn run(mut self, kills: usize) -> Result<Figures> {
        self.make_inputs().map_err(told("make inputs"))?;
        let mut figures = Figures::default();
        let mut number = 0;
        while figures.kills < kills {
            let mut mounted = self.begin(number)?;
            number += 1;
            for _ in 0..KILLS_PER_STATE.min(kills - figures.kills) {
                self.round(&mut mounted, &mut figures)
                    .map_err(|what| format!("after {} kills: {what}", figures.kills + 1))?;
                figures.kills += 1;
            }
            self.end(mounted)?;
        }
        Ok(figures)
    }

    fn make_inputs(&self) -> std::io::Result<()> {
        for worker in 0..WORKERS {
            let directory = self.ground.join(format!("inputs/{worker}/in"));
            std::fs::create_dir_all(&directory)?;
            for number in 0..INPUTS {
                let content = format!("input {number} of {worker}\n").repeat(400 * number);
                std::fs::write(directory.join(format!("f{number}")), content)?;
            }
        }
        std::fs::create_dir(self.ground.join("mount"))
    }

    fn begin(&self, number: usize) -> Result<Mounted> {
        let state = self.ground.join(format!("state-{number}"));
        // Every other state has its log replaced as seldom as mounts do.
        let upkeep = if number.is_multiple_of(2) { BUSY } else { "rw" };
        let inputs = self.ground.join("inputs");
        let mut mounted = Mounted {
            options: format!(
                "state={},inputs={},{upkeep}",
                state.display(),
                inputs.display()
            ),
            state,
            point: self.ground.join("mount"),
            models: Vec::new(),
        };
        self.mount(&mounted)?;
        let seen = (0..WORKERS).map(|worker| mounted.seen(worker));
        mounted.models = seen
            .map(|seen| Ok(Model::of(&seen?)))
            .collect::<Result<_>>()?;
        Ok(mounted)
    }

    fn mount(&self, mounted: &Mounted) -> Result<()> {
        let mut command = Command::new(&self.wakebox);
        command.args(["mount", "crash"]).arg(&mounted.point);
        command.args(["-o", &mounted.options]);
        let output = command.output().map_err(told("start the program"))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        match output.status.success() && complaint.is_empty() {
            true => Ok(()),
            false => Err(format!("{}: {complaint}", output.status)),
        }
    }

    /// One kill.
    fn round(&mut self, mounted: &mut Mounted, figures: &mut Figures) -> Result<()> {
        let mut journals = Vec::new();
        let mut workers = Vec::new();
        for worker in 0..WORKERS {
            let journal = self.ground.join(format!("journal-{worker}"));
            let _ = std::fs::remove_file(&journal);
            let seed = self.random.below(usize::MAX);
            workers.push(start(
                seed,
                &journal,
                &mounted.point.join(worker.to_string()),
            )?);
            journals.push(journal);
        }
        std::thread::sleep(Duration::from_millis(50 + self.random.below(400) as u64));
        let replaced_log = mounted.state.join("view.log.new");
        if mounted.options.ends_with(BUSY) && self.random.below(2) == 0 {
            comes_true_soon(|| replaced_log.exists());
        }
        kill_process(mounted.server()?, Signal::KILL).map_err(told("kill"))?;
        for (worker, journal) in workers.iter_mut().zip(&journals) {
            ended(worker, journal)?;
        }
        mounted.unmount()?;
        figures.replacing += usize::from(replaced_log.exists());
        self.mount(mounted)?;
        let mut unknown = Vec::new();
        for (worker, journal) in journals.iter().enumerate() {
            let begun = mounted.follow(worker, journal, figures)?;
            unknown.push(begun);
        }
        for (worker, begun) in unknown.iter().enumerate() {
            mounted.compare(worker, begun.as_ref(), figures)?;
        }
        mounted.check_staging()
    }

    /// The end of a state: an unmount in peace, and one more look.
    fn end(&self, mut mounted: Mounted) -> Result<()> {
        mounted.unmount()?;
        self.mount(&mounted)?;
        for worker in 0..WORKERS {
            mounted.compare(worker, None, &mut Figures::default())?;
        }
        mounted.check_staging()?;
        mounted.unmount()?;
        let log = std::fs::read_to_string(mounted.state.join("log")).map_err(told("read"))?;
        // A kill within the write of a frame leaves part of it, of a change that was not answered.
        match log
            .lines()
            .find(|line| !line.contains("were cut off by a crash"))
        {
            Some(line) => Err(format!("the process that serves said: {line}")),
            None => Ok(()),
        }
    }
}

impl Mounted {
    fn seen(&self, worker: usize) -> Result<BTreeMap<String, Seen>> {
        look(&self.point.join(worker.to_string())).map_err(told("look"))
    }

    /// The process that serves: it names the store, which is in the state.
    fn server(&self) -> Result<Pid> {
        let needle = format!("store={}/", self.state.display());
        let processes = std::fs::read_dir("/proc").map_err(told("list processes"))?;
        let mut pids = processes.flatten().filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let words = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let serves = words.starts_with("wakebox-mount") && words.contains(&needle);
            serves.then(|| Pid::from_raw(pid))?
        });
        pids.next().ok_or_else(|| "nobody serves the mount".into())
    }

    fn unmount(&self) -> Result<()> {
        rustix::mount::unmount(&self.point, UnmountFlags::NOFOLLOW).map_err(told("unmount"))
    }

    /// Does in the model what a journal says was answered; returns what was begun after that.
    fn follow(
        &mut self,
        worker: usize,
        journal: &Path,
        figures: &mut Figures,
    ) -> Result<Option<Step>> {
        let text = std::fs::read_to_string(journal).map_err(told("read a journal"))?;
        let mut begun: Option<Step> = None;
        for line in text.lines() {
            match begun.take() {
                Some(step) if line == "done" => {
                    self.models[worker].apply(&step);
                    figures.answered += 1;
                    figures.flushed += usize::from(matches!(step, Step::Sync { .. }));
                }
                _ => begun = Some(serde_json::from_str(line).map_err(told("read a step"))?),
            }
        }
        figures.unanswered += usize::from(begun.is_some());
        Ok(begun)
    }

    fn compare(
        &mut self,
        worker: usize,
        begun: Option<&Step>,
        figures: &mut Figures,
    ) -> Result<()> {
        let seen = self.seen(worker)?;
        figures.compared += seen.len();
        let model = &mut self.models[worker];
        if let Some(
            Step::Write { path, .. } | Step::Store { path, .. } | Step::Truncate { path, .. },
        ) = begun
        {
            model.may_be_staged(path);
        }
        let not_before = match (model.matching(&seen), begun) {
            (Ok(matched), _) => {
                *model = matched;
                return Ok(());
            }
            (Err(what), None) => return Err(format!("in {worker}: {what}")),
            (Err(what), Some(_)) => what,
        };
        let mut after = model.clone();
        let step = begun.expect("else it has returned");
        after.apply(step);
        if let Step::Write { path, .. } = step {
            let new = after.clone();
            after = std::mem::take(model);
            after.allow_torn(&new, path, &seen);
        }
        let matched = after.matching(&seen).map_err(|not_after| {
            format!("in {worker}: {not_before}; or, if {step:?} has happened: {not_after}")
        });
        *model = matched?;
        figures.happened += 1;
        Ok(())
    }

    /// There are as many staging files as there must be.
    fn check_staging(&self) -> Result<()> {
        let files = std::fs::read_dir(self.state.join("files")).map_err(told("list files"))?;
        let found = files.count();
        let bounds = self.models.iter().map(Model::staged);
        let (least, most) = bounds.fold((0, 0), |(a, b), (least, most)| (a + least, b + most));
        match (least..=most).contains(&found) {
            true => Ok(()),
            false => Err(format!(
                "{found} staging files instead of {least} to {most}"
            )),
        }
    }
}

/// Looks all the time, for a while, whether something is there that lasts milliseconds.
fn comes_true_soon(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() && start.elapsed() < Duration::from_secs(1) {
        std::thread::yield_now();
    }
}

fn start(seed: usize, journal: &Path, directory: &Path) -> Result<Child> {
    let own = std::env::current_exe().map_err(told("find myself"))?;
    let mut command = Command::new(own);
    command.arg("work").arg(seed.to_string()).arg(journal);
    command.current_dir(directory).stdin(Stdio::null());
    command.spawn().map_err(told("start a process of the load"))
}

/// Waits for the end of a process of the load. A page of a mapping that cannot be had any more is
/// a SIGBUS.
fn ended(worker: &mut Child, journal: &Path) -> Result<()> {
    let mut status = None;
    comes_true(LIMIT, || {
        status = worker.try_wait().ok().flatten();
        status.is_some()
    });
    let status = status.ok_or("a process of the load hangs")?;
    let last = || {
        let text = std::fs::read_to_string(journal).unwrap_or_default();
        text.lines().last().unwrap_or_default().to_owned()
    };
    let is_fault = status.signal() == Some(libc::SIGBUS) && last().contains("Store");
    match status.success() || is_fault {
        true => Ok(()),
        false => Err(format!(
            "a process of the load: {status}, last at {}",
            last()
        )),
    }
}

fn told<E: Display>(what: &str) -> impl Fn(E) -> String + use<'_, E> {
    move |error| format!("cannot {what}: {error}")
}
