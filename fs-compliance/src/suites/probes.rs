//! Our own probes, each one promise of POSIX or Linux; see [`crate::probes`].
//!
//! They run in a process of their own: a probe forks, which wants a single thread, and an ordinary
//! user's probes belong into the user namespace in which we are that user.

use crate::ground::Ground;
use crate::outcome::{At as _, Case, Outcome, Trouble};
use crate::probes::{self, LIMIT, Shortfall};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SUITE: &str = "probes";

pub(super) fn run(ground: &Ground) -> Result<Vec<Case>, Trouble> {
    let mounted = ground.mount(SUITE)?;
    let folder = mounted.folder("here")?;
    let small = ground.mount_small("probes-small")?;
    let mut command = Command::new(std::env::current_exe().at("the place of this program")?);
    command.arg("--probe-here").arg(&folder);
    command.arg("--probe-elsewhere").arg(ground.elsewhere());
    command.arg("--probe-small").arg(small.folder("here")?);
    let done = ground.run(SUITE, command, Duration::from_secs(900))?;
    let cases: Vec<_> = done.output.lines().filter_map(read).collect();
    match done.success() && cases.len() == probes::all().len() {
        true => Ok(cases),
        false => Err(Trouble::Broken(format!(
            "{} of {} probes spoke: {}",
            cases.len(),
            probes::all().len(),
            done.said()
        ))),
    }
}

/// Runs the probes and writes one line for each, for `read`.
///
/// # Errors
/// When the directory cannot be reached.
pub fn try_all(here: &Path, elsewhere: Option<&Path>, small: Option<&Path>) -> Result<(), Trouble> {
    let mut ground = probes::Ground::survey(here).at(here.display())?;
    ground.elsewhere = elsewhere.map(Path::to_owned);
    ground.small = small.map(Path::to_owned);
    for probe in probes::all() {
        let (outcome, said) = match probe.run(&ground, LIMIT) {
            Ok(()) => ("pass", String::new()),
            Err(Shortfall::NotSupported(why)) => ("not-run", why),
            Err(Shortfall::Failed(what)) => ("fail", format!("{} — {what}", probe.holds)),
        };
        let said = crate::outcome::one_line(&said);
        println!("{outcome} {}/{} {said}", probe.theme, probe.name);
    }
    Ok(())
}

fn read(line: &str) -> Option<Case> {
    let mut parts = line.splitn(3, ' ');
    let outcome = match parts.next()? {
        "pass" => Outcome::Pass,
        "fail" => Outcome::Fail,
        "not-run" => Outcome::NotRun,
        _ => return None,
    };
    let name = parts.next().filter(|name| name.contains('/'))?;
    Some(Case::new(name, outcome, parts.next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_probes_write_is_read() {
        assert_eq!(
            read("pass locks/flock_excludes "),
            Some(Case::pass("locks/flock_excludes"))
        );
        let failed = Case::fail("times/now", "a b — seen 1");
        assert_eq!(read("fail times/now a b — seen 1"), Some(failed));
        assert_eq!(read("failed to do something"), None);
    }
}
