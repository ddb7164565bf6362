//! What the figures were measured on, and on which CPUs.

use std::fs;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;
use crate::cli::Options;
use crate::disk::Disk;

/// Where jobs and daemons may run: they inherit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// On all CPUs.
    Anywhere,
    /// On this one.
    Pinned(usize),
}

impl Placement {
    pub(crate) fn apply(self) -> Result<()> {
        let mut set = CpuSet::new();
        match self {
            Self::Anywhere => (0..CpuSet::MAX_CPU).for_each(|cpu| set.set(cpu)),
            Self::Pinned(cpu) if cpu < CpuSet::MAX_CPU => set.set(cpu),
            Self::Pinned(cpu) => return Err(format!("--pin {cpu}: no such CPU").into()),
        }
        sched_setaffinity(None, &set).map_err(|error| format!("CPU affinity {self:?}: {error}"))?;
        Ok(())
    }

    /// What follows the names of rows.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Anywhere => "",
            Self::Pinned(_) => ", same CPU",
        }
    }
}

/// One paragraph.
pub(crate) fn describe(disk: &Disk, options: &Options) -> Result<String> {
    let line = |path: &str, key: &str| -> String {
        let text = fs::read_to_string(path).unwrap_or_default();
        let found = text
            .lines()
            .find_map(|line| Some(line.strip_prefix(key)?.split_once(':')?.1));
        found.unwrap_or("unknown").trim().to_owned()
    };
    let kernel = rustix::system::uname();
    let memory = line("/proc/meminfo", "MemTotal")
        .replace(" kB", "")
        .parse::<f64>()
        .unwrap_or(0.0);
    let user = if rustix::process::geteuid().is_root() {
        "root"
    } else {
        "an ordinary user"
    };
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    Ok(format!(
        "{} CPUs ({}), {:.0} GiB, Linux {}, as {user}, load {load} at the start. All on one disk: {}. \
         Sizes × {}, at most {} rounds. {}",
        sched_getaffinity(None)?.count(),
        line("/proc/cpuinfo", "model name"),
        memory / f64::from(1 << 20),
        kernel.release().to_string_lossy(),
        disk.said,
        options.scale,
        options.rounds,
        wake()?,
    ))
}

/// What it costs to wake a thread on another CPU, which is most of what a request to a daemon there
/// costs: nothing differs more between machines. Virtual ones whose idle CPUs halt at once
/// (`haltpoll.guest_halt_poll_ns=0`) take ten times as long as others.
fn wake() -> Result<String> {
    const TIMES: u32 = 2_000;
    let cpus = sched_getaffinity(None)?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| cpus.is_set(*cpu));
    let (Some(here), Some(there)) = (cpus.next(), cpus.next()) else {
        return Ok(String::new());
    };
    let (there_in, here_out) = rustix::pipe::pipe()?;
    let (here_in, there_out) = rustix::pipe::pipe()?;
    let other = std::thread::spawn(move || -> Result<()> {
        Placement::Pinned(there).apply()?;
        while rustix::io::read(&there_in, &mut [0; 1])? > 0 {
            rustix::io::write(&there_out, b"x")?;
        }
        Ok(())
    });
    // A thread of its own, which leaves this one where it is.
    let asker = std::thread::spawn(move || -> Result<f64> {
        Placement::Pinned(here).apply()?;
        let started = Instant::now();
        for _ in 0..TIMES {
            rustix::io::write(&here_out, b"x")?;
            rustix::io::read(&here_in, &mut [0; 1])?;
        }
        Ok(started.elapsed().as_nanos() as f64 / f64::from(2 * TIMES))
    });
    let took = asker.join().map_err(|_| "a thread failed")??;
    other.join().map_err(|_| "a thread failed")??;
    Ok(format!(
        "Waking a thread on another CPU takes {:.1} µs.",
        took / 1e3
    ))
}
