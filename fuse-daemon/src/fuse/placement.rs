//! Where the readers of a session run: on the CPU of the process that asks.
//!
//! A round trip whose two sides share a CPU takes 9 µs, one between two CPUs of a virtual machine 35
//! to 70: the other one has to be woken. The scheduler does not know that the asking process is about
//! to sleep, because FUSE does not say so (`wake_up` without `WF_SYNC` in fs/fuse/dev.c,
//! `fuse_dev_wake_and_unlock`), and puts every second wake-up on the other CPU even where both are
//! busy. So the readers are bound to where the caller was seen last. Of 200 headers that a compiler
//! opens, each cost 55 µs of processor time without this, and costs 35 with it.
//!
//! A job that asks from several CPUs at a time is better off with readers that run anywhere.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::process::Pid;
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

/// How many requests of one caller pass between two looks at where it runs. A look takes as long as
/// a round trip.
const EVERY: u32 = 16;
/// How many do at least, whoever asks.
const AT_LEAST: u32 = 4;
/// How many pass without a look when callers turned out to be in several places.
const REST: u32 = 512;
/// What a caller in another place than the last adds to [`Trail::unrest`], of which one in the same
/// place takes 1 away; and from where on looking is given up for a while.
const MOVE: u32 = 2;
const TOO_MUCH: u32 = 8;

/// Binds the readers of one session.
#[derive(Debug)]
pub(super) struct Placement {
    /// The `/proc` of the job, in whose numbers the kernel says who asks.
    processes: OwnedFd,
    anywhere: CpuSet,
    readers: Mutex<Vec<Pid>>,
    trail: Mutex<Trail>,
}

/// Where callers were seen.
#[derive(Debug, Default)]
struct Trail {
    caller: u32,
    cpu: Option<usize>,
    /// Requests since the last look.
    passed: u32,
    /// Requests that need no look yet.
    rest: u32,
    unrest: u32,
}

/// Where readers are to run from now on.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    On(usize),
    Anywhere,
}

impl Placement {
    /// For readers that run where this thread may as long as their callers are in many places or
    /// none was seen. `None` if that cannot be known.
    pub(super) fn new(processes: OwnedFd) -> Option<Self> {
        Some(Self {
            processes,
            anywhere: sched_getaffinity(None).ok()?,
            readers: Mutex::default(),
            trail: Mutex::default(),
        })
    }

    /// This thread is one of the readers.
    pub(super) fn join(&self) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.push(gettid());
    }

    /// Has the readers run where the caller does, now and then. Where that fails, only time is lost.
    pub(super) fn follow(&self, caller: u32) {
        if !self.trail(|trail| trail.is_due(caller)).unwrap_or(false) {
            return;
        }
        let Some(cpu) = self.cpu(caller) else { return };
        match self.trail(|trail| trail.seen(cpu)).flatten() {
            None => {}
            Some(Place::Anywhere) => self.bind(&self.anywhere),
            Some(Place::On(cpu)) => {
                let mut one = CpuSet::new();
                one.set(cpu);
                self.bind(&one);
            }
        }
    }

    /// `None` if another reader is at it.
    fn trail<T>(&self, act: impl FnOnce(&mut Trail) -> T) -> Option<T> {
        self.trail.try_lock().ok().map(|mut trail| act(&mut trail))
    }

    fn bind(&self, cpus: &CpuSet) {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        for reader in readers.iter() {
            let _lost = sched_setaffinity(Some(*reader), cpus);
        }
    }

    /// The CPU that a thread of the job is on, or was last. Never asks a file system that is mounted
    /// below `/proc`: it might be ours.
    fn cpu(&self, caller: u32) -> Option<usize> {
        let (flags, inside) = (OFlags::RDONLY | OFlags::CLOEXEC, ResolveFlags::NO_XDEV);
        let name = format!("{caller}/stat");
        let file = openat2(&self.processes, name, flags, Mode::empty(), inside).ok()?;
        let mut line = [0; 1024];
        let length = rustix::io::read(&file, &mut line).ok()?;
        processor(&line[..length])
    }
}

/// The 39th field of a line of `/proc/PID/stat`, whose second may hold anything and ends at the last
/// parenthesis.
fn processor(line: &[u8]) -> Option<usize> {
    let fields = line.rsplit(|byte| *byte == b')').next()?;
    let mut fields = std::str::from_utf8(fields).ok()?.split_ascii_whitespace();
    let cpu = fields.nth(36)?.parse().ok()?;
    (cpu < CpuSet::MAX_CPU).then_some(cpu)
}

impl Trail {
    /// Whether to look where this caller runs.
    fn is_due(&mut self, caller: u32) -> bool {
        self.passed = self.passed.saturating_add(1);
        let enough = if caller == self.caller {
            EVERY
        } else {
            AT_LEAST
        };
        // Without a number: nobody asks, or somebody outside of the job.
        if caller == 0 || self.passed < enough.max(self.rest) {
            return false;
        }
        (self.caller, self.passed, self.rest) = (caller, 0, 0);
        true
    }

    /// What follows from a caller's being there.
    fn seen(&mut self, cpu: usize) -> Option<Place> {
        if self.cpu == Some(cpu) {
            self.unrest = self.unrest.saturating_sub(1);
            return None;
        }
        self.unrest += MOVE;
        if self.unrest > TOO_MUCH {
            *self = Self {
                rest: REST,
                ..Self::default()
            };
            return Some(Place::Anywhere);
        }
        self.cpu = Some(cpu);
        Some(Place::On(cpu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of requests from callers on CPUs, one after the other.
    fn placed(requests: impl IntoIterator<Item = (u32, usize)>) -> (Vec<Place>, usize) {
        let (mut trail, mut looks) = (Trail::default(), 0);
        let mut answer = |(caller, cpu)| {
            let due = trail.is_due(caller);
            looks += usize::from(due);
            due.then(|| trail.seen(cpu)).flatten()
        };
        let places = requests.into_iter().filter_map(&mut answer).collect();
        (places, looks)
    }

    #[test]
    fn one_caller_is_looked_at_now_and_then_and_followed() {
        let there = std::iter::repeat_n((7, 3), 160);
        let here = std::iter::repeat_n((7, 1), 160);
        let (places, looks) = placed(there.chain(here));
        assert_eq!(places, [Place::On(3), Place::On(1)]);
        assert_eq!(looks, 320 / EVERY as usize);
    }

    #[test]
    fn a_new_caller_is_looked_at_soon() {
        let (places, looks) = placed((0..10).map(|request| (8 + request / 5, 2)));
        assert_eq!((places, looks), (vec![Place::On(2)], 2));
    }

    #[test]
    fn callers_in_many_places_are_left_alone_for_a_while() {
        let both = (0..4000).map(|request| (7 + request % 2, request as usize / 4 % 2));
        let (places, looks) = placed(both);
        assert!(places.contains(&Place::Anywhere), "{places:?}");
        assert!(looks < 4000 / 64, "{looks}");
    }

    #[test]
    fn requests_of_nobody_say_nothing() {
        assert_eq!(placed(std::iter::repeat_n((0, 1), 100)), (vec![], 0));
    }

    #[test]
    fn the_processor_is_found_behind_any_name() {
        let zeros = "0 ".repeat(35);
        let line = format!("12 (a ) 9 (b) R {zeros}5 0 0\n");
        assert_eq!(processor(line.as_bytes()), Some(5));
        assert_eq!(processor(b"12 (cat) R 1 2"), None);
        assert_eq!(processor(b""), None);
        let own = std::fs::read("/proc/thread-self/stat").expect("our own");
        assert!(processor(&own).is_some());
    }
}
