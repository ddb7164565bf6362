//! Kills at random moments under load.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::load::{Load, Seen};
use crate::Place;
use crate::crash::Random;
use crate::job::comes_true;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The daemon, with all its jobs.
    Daemon,
    /// One client of many.
    Client,
}

/// A run of kills.
#[derive(Debug)]
pub struct Kills {
    /// Who.
    pub victim: Victim,
    /// How often.
    pub count: usize,
    /// Jobs at once.
    pub jobs: usize,
    /// Where the random moments come from.
    pub seed: u64,
}

impl Kills {
    /// Kills under load, looks at all that is left, and returns figures in one line.
    ///
    /// # Errors
    /// What must not be: a lost or corrupt blob, half a result, a mount, a process, debris.
    pub fn run(&self, place: &Place) -> Result<String, String> {
        let load = Load::new(place, self.jobs, true);
        let mut random = Random::new(self.seed);
        let mut kills = Vec::new();
        let seen = load.run(|| {
            let begun = Instant::now();
            while kills.len() < self.count && begun.elapsed() < Duration::from_secs(3600) {
                // So that jobs get as far as to their end now and then.
                let longest = match self.victim {
                    Victim::Daemon => 500,
                    Victim::Client => 120,
                };
                std::thread::sleep(Duration::from_millis(random.below(longest) as u64));
                if self.kill(place, &load, &mut random) {
                    kills.push(Instant::now());
                }
            }
        });
        let mut wrong = seen.wrong.clone();
        wrong.extend(self.left(place, &seen));
        match wrong.is_empty() && kills.len() == self.count {
            true => Ok(figures(self, &kills, &seen)),
            false => Err(format!("after {} kills: {wrong:#?}", kills.len())),
        }
    }

    fn kill(&self, place: &Place, load: &Load<'_>, random: &mut Random) -> bool {
        match self.victim {
            Victim::Client => load.kill_client(random.below(self.jobs)),
            Victim::Daemon => {
                let daemons = place.daemons();
                let daemon = random.pick(&daemons);
                daemon.is_some_and(|daemon| kill_process(*daemon, Signal::KILL).is_ok())
            }
        }
    }

    /// What is wrong when all is over.
    fn left(&self, place: &Place, seen: &Seen) -> Vec<String> {
        let mut wrong = Vec::new();
        let gone = || place.processes().is_empty() && place.mounts().is_empty();
        if !comes_true(Duration::from_secs(5), gone) {
            let (processes, mounts) = (place.processes(), place.mounts());
            wrong.push(format!("left: {processes:?} {mounts:?}"));
        }
        let store = cas::Store::open(&place.store()).expect("the store");
        for (digest, size) in &seen.blobs {
            match store.verify(*digest) {
                Ok(found) if found == *size => {}
                other => wrong.push(format!("blob {digest}: {other:?}")),
            }
        }
        let fsck = place.call(["fsck", "--quiet"]);
        if fsck.code() != 0 {
            wrong.push(format!("fsck: {}{}", fsck.stdout(), fsck.stderr()));
        }
        // Outputs of jobs that had ended wait for `recover`, unless told otherwise.
        std::thread::sleep(Duration::from_millis(1100));
        let gc = place.call(["gc", "--older-than", "1s"]);
        if gc.code() != 0 || !place.debris().is_empty() {
            wrong.push(format!("gc: {}{:?}", gc.stderr(), place.debris()));
        }
        wrong
    }
}

fn figures(kills: &Kills, at: &[Instant], seen: &Seen) -> String {
    let delays: Vec<_> = seen
        .failures
        .iter()
        .filter_map(|failure| delay(at, *failure))
        .collect();
    let worst = delays.iter().max().copied().unwrap_or_default();
    let lines = seen
        .lines
        .iter()
        .map(|(line, count)| format!("\n  {count} x {line}"));
    format!(
        "{:?}: {} kills, {} jobs at once: {} succeeded, {} told 125, {} clients killed ({} of them with a \
         whole result); {} blobs of results verified; from a kill to the end of a call that it ended: \
         worst {} ms, mean {} ms{}",
        kills.victim,
        at.len(),
        kills.jobs,
        seen.succeeded,
        seen.told,
        seen.killed,
        seen.results_of_killed,
        seen.blobs.len(),
        worst.as_millis(),
        delays.iter().sum::<Duration>().as_millis() / delays.len().max(1) as u128,
        lines.collect::<String>()
    )
}

/// From the last kill that a call has lived to see, to its end.
fn delay(kills: &[Instant], (begun, ended): (Instant, Instant)) -> Option<Duration> {
    let seen = kills.iter().filter(|kill| (begun..ended).contains(*kill));
    seen.max().map(|kill| ended - *kill)
}
