//! Many short jobs of one daemon, whose memory and descriptors are to stay as they are.

use std::time::{Duration, Instant};

use super::load::Load;
use crate::Place;

/// What a daemon has at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Jobs that have ended.
    pub jobs: u64,
    /// Resident memory, in KiB.
    pub memory: u64,
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

/// A run of many jobs.
#[derive(Debug)]
pub struct Soak {
    /// After how many jobs to look; the last ends the run.
    pub looks: Vec<u64>,
    /// Jobs at once.
    pub jobs: usize,
}

impl Soak {
    /// Runs the jobs and returns what was seen of the daemon at each look.
    ///
    /// # Errors
    /// A job that failed, more than one daemon, or what a job has left.
    pub fn run(&self, place: &Place) -> Result<Vec<Sample>, String> {
        let load = Load::new(place, self.jobs, false);
        let mut samples = Vec::new();
        let seen = load.run(|| {
            let (begun, mut last) = (Instant::now(), 0);
            for &look in &self.looks {
                while load.ended() < look && begun.elapsed() < Duration::from_secs(7200) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                last = load.ended().max(last);
                samples.extend(sample(place, last));
            }
        });
        let mut wrong = seen.wrong;
        if seen.told > 0 || place.daemons().len() != 1 || samples.len() != self.looks.len() {
            wrong.push(format!("{:?}, daemons {:?}", seen.lines, place.daemons()));
        }
        place.expect_clean_within(Duration::from_secs(5));
        match wrong.is_empty() {
            true => Ok(samples),
            false => Err(format!("{wrong:#?}")),
        }
    }
}

fn sample(place: &Place, jobs: u64) -> Option<Sample> {
    let daemon = place.daemons().first()?.as_raw_pid();
    let of = |name: &str| format!("/proc/{daemon}/{name}");
    let status = std::fs::read_to_string(of("status")).ok()?;
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let count = |name| std::fs::read_dir(of(name)).map(Iterator::count).ok();
    Some(Sample {
        jobs,
        memory: memory.trim().trim_end_matches(" kB").parse().ok()?,
        descriptors: count("fd")?,
        threads: count("task")?,
    })
}
