//! The measurement: every task by every contender, in turn.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::Result;
use crate::bars;
use crate::cache;
use crate::cli::Options;
use crate::contender::{self, Contender, Field, Stage};
use crate::disk::{self, Disk};
use crate::inner::{Findings, monotonic};
use crate::litter::Mounted;
use crate::machine::{self, Placement};
use crate::memory;
use crate::report;
use crate::row::{Cell, NATIVE, Row, Unit};
use crate::workload::{self, Measure, SUITES, Suite, Task};

/// Does what is asked.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    let options = options.clone().effective();
    let chosen = workload::chosen(&options)?;
    if options.list {
        return list();
    }
    if rustix::process::geteuid().is_root() && !options.in_namespace {
        disk::enter_namespace()?;
    }
    let mut rows = Vec::new();
    for path in &options.with {
        rows.extend(report::read(path)?);
    }
    let disk = Disk::open(&options)?;
    let Field {
        contenders,
        missing,
    } = contender::all(&options, &disk)?;
    let machine = machine::describe(&disk, &options)?;
    println!("{machine}");
    for line in &missing {
        println!("left out: {line}");
    }
    let mut bench = Bench {
        options: &options,
        disk: &disk,
        contenders: &contenders,
        rows,
    };
    for suite in chosen.suites {
        bench.suite(suite)?;
    }
    let mut rows = bench.rows;
    if chosen.cache {
        rows.extend(cache::measure(&options, &disk)?);
    }
    if chosen.memory {
        rows.extend(memory::measure(&options, &disk)?);
    }
    report::all(&options, &machine, &missing, &rows)?;
    verdict(&options, &rows)
}

fn list() -> Result<ExitCode> {
    for suite in SUITES {
        println!("{}", suite.name);
    }
    println!("{}\n{}", cache::SUITE, workload::MEMORY);
    Ok(ExitCode::SUCCESS)
}

/// What is wrong: a contender that made something else than native, a bar that is not met.
fn verdict(options: &Options, rows: &[Row]) -> Result<ExitCode> {
    let mut wrong = Vec::new();
    for row in rows {
        let remarked = row.cell(OURS).and_then(|cell| cell.remark.as_deref());
        // What is not built yet is a row without figures, which the bars then miss.
        let remarked = remarked.filter(|remark| !remark.starts_with(NOT_SUPPORTED));
        wrong.extend(remarked.map(|remark| format!("{}, {}: {remark}", row.name, OURS)));
    }
    if options.check {
        wrong.extend(unmet_bars(options, rows)?);
    }
    for line in &wrong {
        println!("NOT MET: {line}");
    }
    Ok(if wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// All bars count, unless only some suites were asked for.
fn unmet_bars(options: &Options, rows: &[Row]) -> Result<Vec<String>> {
    let all = bars::read(rustix::process::geteuid().is_root())?;
    let (before, mut judged) = (all.len(), all);
    if !options.suites.is_empty() {
        judged = bars::of_rows(judged, rows);
    }
    println!("{} of {before} bars are looked at", judged.len());
    if options.scale < 1.0 {
        println!(
            "the bars are for --scale 1: met at {} is not met",
            options.scale
        );
    }
    Ok(bars::unmet(&judged, rows))
}

/// The contender for which bars are set.
pub(crate) const OURS: &str = "wakebox";
/// How an error begins that says that a program cannot do this.
pub(crate) const NOT_SUPPORTED: &str = "trees by digest";

struct Bench<'a> {
    options: &'a Options,
    disk: &'a Disk,
    contenders: &'a [Box<dyn Contender>],
    rows: Vec<Row>,
}

/// What one contender has shown in one task so far.
#[derive(Default)]
struct Shown {
    figures: Vec<(String, f64)>,
    fingerprint: Option<String>,
    round_trips: Option<serde_json::Value>,
    failure: Option<String>,
    /// Seconds.
    spent: f64,
}

impl Bench<'_> {
    fn suite(&mut self, suite: Suite) -> Result<()> {
        let place = self.disk.make(&format!("suite-{}", suite.name))?;
        let tasks = (suite.tasks)(self.options, &place)?;
        for placement in self.placements(suite) {
            placement.apply()?;
            for task in &tasks {
                eprintln!("{}: {}{}", suite.name, task.name, placement.label());
                self.task(suite.name, task, placement)?;
            }
            // A daemon keeps the CPUs that it was started with.
            self.contenders
                .iter()
                .for_each(|contender| contender.stop());
        }
        Placement::Anywhere.apply()?;
        drop(tasks);
        Ok(fs::remove_dir_all(place)?)
    }

    fn placements(&self, suite: Suite) -> Vec<Placement> {
        let pinned = self
            .options
            .pin
            .filter(|_| suite.pinnable)
            .map(Placement::Pinned);
        [Placement::Anywhere].into_iter().chain(pinned).collect()
    }

    fn task(&mut self, suite: &str, task: &Task, placement: Placement) -> Result<()> {
        let mut shown: Vec<_> = self.contenders.iter().map(|_| Shown::default()).collect();
        // Once for nothing: the first to touch files and programs pays for all who follow.
        self.pass(self.contenders[0].as_ref(), task, 0, &mut Shown::default());
        for round in 0..self.options.rounds {
            for (contender, shown) in self.contenders.iter().zip(&mut shown) {
                if shown.failure.is_none() && shown.spent < self.options.budget {
                    self.pass(contender.as_ref(), task, round, shown);
                }
            }
        }
        if let Some(failure) = &shown[0].failure {
            return Err(format!("{}, {NATIVE}: {failure}", task.name).into());
        }
        self.record(suite, task, placement, &shown);
        Ok(())
    }

    fn pass(&self, contender: &dyn Contender, task: &Task, round: usize, shown: &mut Shown) {
        let (mounted, started) = (Mounted::now(), Instant::now());
        match Pass::run(contender, task, round, self.disk) {
            Ok(pass) => {
                shown.figures.extend(pass.figures);
                shown.round_trips = pass.round_trips;
                shown.fingerprint = Some(pass.fingerprint);
            }
            Err(error) => shown.failure = Some(error.to_string()),
        }
        shown.spent += started.elapsed().as_secs_f64();
        mounted.restore();
    }

    /// Turns what contenders have shown into rows: one for each figure that native has.
    fn record(&mut self, suite: &str, task: &Task, placement: Placement, shown: &[Shown]) {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in &shown[0].figures {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        for (number, name) in names.into_iter().enumerate() {
            let cells = self.contenders.iter().zip(shown);
            let cells =
                cells.map(|(who, what)| what.cell(who.name(), name, &shown[0], number == 0));
            self.rows.push(Row {
                suite: suite.to_owned(),
                name: format!("{name}{}", placement.label()),
                unit: Unit::Ns,
                cells: cells.collect(),
            });
        }
        let failed = self.contenders.iter().zip(shown).filter_map(|(who, what)| {
            Some(format!(
                "{}, {}: {}",
                task.name,
                who.name(),
                what.failure.as_ref()?
            ))
        });
        failed.for_each(|line| eprintln!("  {line}"));
    }
}

impl Shown {
    fn cell(&self, contender: &str, name: &str, native: &Self, first: bool) -> Cell {
        let mine = self.figures.iter().filter(|(figure, _)| figure == name);
        let differs = self.fingerprint != native.fingerprint;
        let remark = self.failure.clone();
        Cell {
            contender: contender.to_owned(),
            samples: mine.map(|(_, value)| *value).collect(),
            remark: remark
                .or_else(|| differs.then(|| "made or saw something else than native".to_owned())),
            round_trips: self.round_trips.clone().filter(|_| first),
        }
    }
}

/// One run of all jobs of a task by one contender.
struct Pass {
    figures: Vec<(String, f64)>,
    /// What was made and seen.
    fingerprint: String,
    round_trips: Option<serde_json::Value>,
}

impl Pass {
    fn run(contender: &dyn Contender, task: &Task, round: usize, disk: &Disk) -> Result<Self> {
        let papers = disk.make("printed")?;
        let printed = |number: usize| -> PathBuf { papers.join(number.to_string()) };
        let stage = contender.begin(task, round)?;
        // What was made before is not to be written to the disk during this, nor by an unmount.
        rustix::fs::syncfs(fs::File::open(disk.path())?)?;
        let started = Instant::now();
        run_all(stage.as_ref(), task, &printed)?;
        let (taken, ended) = (started.elapsed().as_nanos() as f64, monotonic());
        let mut made = HashMap::new();
        for (number, job) in task.jobs.iter().enumerate() {
            made.insert(number, stage.outputs(number, job)?);
        }
        let found = findings(&fs::read_to_string(printed(0))?)?;
        let figures = match task.measure {
            Measure::Inside => found.figures,
            Measure::PerJob => vec![(task.name.clone(), taken / task.jobs.len() as f64)],
            Measure::AfterEnd { items } => {
                vec![(
                    task.name.clone(),
                    ended.saturating_sub(found.ended) as f64 / items as f64,
                )]
            }
        };
        let mut all: Vec<_> = made.into_iter().collect();
        all.sort_by_key(|(number, _)| *number);
        let outputs = blake3::hash(format!("{all:?}").as_bytes());
        let fingerprint = format!("{} {outputs}", found.seen);
        let round_trips = stage.round_trips(0);
        Ok(Self {
            figures,
            fingerprint,
            round_trips,
        })
    }
}

/// What a loop printed; nothing if the job was none.
fn findings(printed: &str) -> Result<Findings> {
    let mut lines = printed.lines().rev();
    match lines.find(|line| line.starts_with("{\"figures\"")) {
        Some(line) => Ok(serde_json::from_str(line)?),
        None => Ok(Findings::default()),
    }
}

/// Runs the jobs, as many at once as the task says.
fn run_all(
    stage: &dyn Stage,
    task: &Task,
    printed: &(dyn Fn(usize) -> PathBuf + Sync),
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = task.jobs.get(number) else {
                return Ok(());
            };
            stage.run(number, job, &printed(number))?;
        }
    };
    if task.at_once == 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..task.at_once).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| "a worker failed")?)
    })
}
