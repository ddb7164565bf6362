//! The suites: how each is started and what its words mean. A suite mounts what it needs, and what
//! it says becomes one [`Case`] for each case of its own.

mod fsx;
mod loads;
mod ltp;
mod pjd_fstest;
mod pjdfstest;
pub mod probes;
mod stress;
mod unionmount;
pub mod xfstests;

use crate::ground::Ground;
use crate::outcome::{Case, SuiteRun, Trouble};
use clap::builder::PossibleValuesParser;
use std::time::Instant;

/// A suite.
#[derive(Debug)]
pub struct Suite {
    /// Its name on the command line and in `expected.toml`.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    start: fn(&Ground) -> Result<Vec<Case>, Trouble>,
}

/// All suites, the quick ones that need no checkout first.
pub const ALL: &[Suite] = &[
    Suite {
        name: "pjdfstest",
        about: "POSIX system calls and their errors; the Rust rewrite, from the crate registry",
        start: pjdfstest::run,
    },
    Suite {
        name: "fsx",
        about: "random reads, writes, mappings, holes and copies of one file; from the crate registry",
        start: fsx::run,
    },
    Suite {
        name: "probes",
        about: "our own probes of single promises of POSIX and Linux",
        start: probes::run,
    },
    Suite {
        name: "stress",
        about: "stress-ng's file-system class with verification, dbench, fio; from Debian",
        start: stress::run,
    },
    Suite {
        name: "loads",
        about: "sqlite, git, a build, tar",
        start: loads::run,
    },
    Suite {
        name: "unionmount",
        about: "unionmount-testsuite, from UNIONMOUNT_DIR",
        start: unionmount::run,
    },
    Suite {
        name: "pjd-fstest",
        about: "the original pjdfstest, from PJDFSTEST_DIR",
        start: pjd_fstest::run,
    },
    Suite {
        name: "ltp",
        about: "the file-system tests of the Linux Test Project, from LTPROOT",
        start: ltp::run,
    },
    Suite {
        name: "xfstests",
        about: "xfstests, from XFSTESTS_DIR",
        start: xfstests::run,
    },
];

/// The names that the command line takes.
#[must_use]
pub fn names() -> PossibleValuesParser {
    let names = ALL.iter().map(|suite| suite.name);
    PossibleValuesParser::new(names.chain(["all"]))
}

/// Runs a suite to its end.
#[must_use]
pub fn run(suite: &Suite, ground: &Ground) -> SuiteRun {
    let start = Instant::now();
    let mut run = SuiteRun::named(suite.name);
    match (suite.start)(ground) {
        Ok(cases) => run.cases = cases,
        Err(Trouble::NotRun(why)) => run.not_run = Some(why),
        Err(Trouble::Broken(why)) => run.broken = Some(why),
    }
    run.seconds = start.elapsed();
    run
}
