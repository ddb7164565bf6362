//! Conformance of the mounted view: runs file-system suites on it and compares what they say with
//! `expected.toml`, where each failure and each skip that we accept has its reason.
//!
//! The program first starts itself again in mount and PID namespaces of its own ([`namespace`]), so
//! that no mount and no process can outlive it; there it makes its ground ([`ground`]), runs the
//! suites ([`suites`]), and judges and reports what they said ([`expected`], [`report`]).

pub mod accounts;
pub mod cli;
pub mod command;
pub mod expected;
pub mod ground;
pub mod mounts;
pub mod namespace;
pub mod outcome;
pub mod probes;
pub mod report;
pub mod suites;
pub mod tools;
pub mod work;

use cli::Cli;
use expected::Expectations;
use ground::Ground;
use outcome::Trouble;
use std::process::ExitCode;

/// As expected: nothing failed, passed or stayed out that was not expected to.
const EXPECTED: u8 = 0;
/// A result differs from what is expected.
const DIFFERENT: u8 = 1;
/// The run could not be set up. (2 is clap's, for a wrong command line.)
const BROKEN: u8 = 3;
/// Not one case was run.
const NOTHING_RUN: u8 = 4;

/// Runs what the command line asks for and says how it ended.
pub fn main(cli: &Cli) -> ExitCode {
    let result = if let Some(here) = &cli.probe_here {
        let (elsewhere, small) = (cli.probe_elsewhere.as_deref(), cli.probe_small.as_deref());
        suites::probes::try_all(here, elsewhere, small).map(|()| EXPECTED)
    } else if cli.inside.is_some() {
        inside(cli)
    } else {
        outside(cli)
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(trouble) => {
            eprintln!("fs-compliance: {trouble}");
            ExitCode::from(BROKEN)
        }
    }
}

/// Before the namespaces: what needs the network or the user's own files.
fn outside(cli: &Cli) -> Result<u8, Trouble> {
    if cli.missing_packages {
        println!("{}", tools::install_line(&tools::missing_packages()));
        return Ok(EXPECTED);
    }
    if cli.install {
        tools::install_packages()?;
    }
    let wakebox = cli.wakebox_binary()?;
    tools::prepare(cli)?;
    let backing = cli.native.as_deref().or(cli.backing.as_deref());
    let work = work::Work::make(cli.work.as_deref(), backing, cli.keep)?;
    namespace::enter(&work, wakebox.as_deref())
}

/// Inside the namespaces: the suites.
fn inside(cli: &Cli) -> Result<u8, Trouble> {
    let ground = Ground::prepare(cli)?;
    let expectations = Expectations::load(&ground)?;
    let mut runs = Vec::new();
    for suite in cli.suites() {
        eprintln!("== {}: {}", suite.name, suite.about);
        let run = suites::run(suite, &ground);
        eprintln!("   {}", report::summary(&run));
        runs.push(expectations.judge(run));
    }
    let text = report::text(&ground, &runs);
    println!("{text}");
    report::write(cli.report.as_deref(), &ground, &runs, &text)?;
    Ok(verdict(&runs, cli.require))
}

fn verdict(runs: &[expected::Judged], require: bool) -> u8 {
    let ran = runs.iter().any(|judged| judged.run.count_run() > 0);
    let absent = runs.iter().any(|judged| judged.run.not_run.is_some());
    if runs.iter().any(|judged| !judged.surprises.is_empty()) || (require && absent) {
        DIFFERENT
    } else if ran {
        EXPECTED
    } else {
        NOTHING_RUN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expected::Judged;
    use outcome::SuiteRun;

    fn judged(surprises: Vec<String>, not_run: Option<&str>) -> Judged {
        let cases = match not_run {
            None => vec![outcome::Case::pass("a")],
            Some(_) => Vec::new(),
        };
        let run = SuiteRun {
            not_run: not_run.map(str::to_owned),
            cases,
            ..SuiteRun::named("s")
        };
        Judged { run, surprises }
    }

    #[test]
    fn what_is_not_run_is_no_pass() {
        let passed = || judged(Vec::new(), None);
        let absent = || judged(Vec::new(), Some("no such tool"));
        assert_eq!(verdict(&[passed()], true), EXPECTED);
        assert_eq!(verdict(&[passed(), absent()], false), EXPECTED);
        assert_eq!(verdict(&[passed(), absent()], true), DIFFERENT);
        assert_eq!(verdict(&[absent()], false), NOTHING_RUN);
        let surprised = judged(vec!["x".into()], None);
        assert_eq!(verdict(&[passed(), surprised], false), DIFFERENT);
    }
}
