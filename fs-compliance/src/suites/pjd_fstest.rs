//! The original pjdfstest, from the caller's own built checkout: one case for each of its files.

use crate::ground::Ground;
use crate::outcome::{At as _, Case, Trouble};
use crate::tools;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(3 * 3600);
const SUITE: &str = "pjd-fstest";

pub(super) fn run(ground: &Ground) -> Result<Vec<Case>, Trouble> {
    ground.demand_root()?;
    let checkout = ground.cli.pjdfstest_dir.as_ref().ok_or_else(|| {
        Trouble::NotRun("set PJDFSTEST_DIR to a built checkout of pjd/pjdfstest".into())
    })?;
    let checkout = checkout.canonicalize().at(checkout.display())?;
    if !checkout.join("pjdfstest").is_file() {
        let shown = checkout.display();
        return Err(Trouble::NotRun(format!(
            "{shown}: not built (no program pjdfstest in it)"
        )));
    }
    tools::demand(&["prove", "openssl"])?;
    let mounted = ground.mount(SUITE)?;
    let folder = mounted.folder("tests")?;
    let tests = files(&checkout.join("tests"), ground.cli.quick)?;
    let mut command = Command::new("prove");
    // Verbose: the plan line `1..N` of each file counts its assertions.
    command.arg("--verbose").args(&tests).current_dir(&folder);
    let done = ground.run(SUITE, command, LIMIT)?;
    let cases = parse(&done.output, &checkout.join("tests"));
    match cases.len() == tests.len() {
        true => Ok(cases),
        false => Err(Trouble::Broken(format!(
            "{} of {} files spoke: {}",
            cases.len(),
            tests.len(),
            done.said()
        ))),
    }
}

/// The files `tests/GROUP/NN.t`; a quick run takes the first of each group.
fn files(tests: &Path, quick: bool) -> Result<BTreeSet<PathBuf>, Trouble> {
    let mut found = BTreeSet::new();
    for group in std::fs::read_dir(tests).at(tests.display())?.flatten() {
        let Ok(inner) = std::fs::read_dir(group.path()) else {
            continue;
        };
        let is_test = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "t");
        let paths = inner.flatten().map(|entry| entry.path()).filter(is_test);
        let sorted: BTreeSet<_> = paths.collect();
        let count = if quick { 1 } else { sorted.len() };
        found.extend(sorted.into_iter().take(count));
    }
    Ok(found)
}

/// What prove says of one file: `PATH ..`, its lines, and then `ok`, `skipped: WHY` or
/// `Failed N/M subtests` (or `Dubious, test returned …`).
fn parse(output: &str, tests: &Path) -> Vec<Case> {
    let prefix = tests.display().to_string();
    let mut cases = Vec::new();
    let mut open: Option<Open> = None;
    for line in output
        .lines()
        .take_while(|line| *line != "Test Summary Report")
    {
        if let Some(rest) = line.strip_prefix(&prefix) {
            cases.extend(open.take().map(Open::close));
            let name = rest
                .trim_start_matches('/')
                .split(' ')
                .next()
                .unwrap_or(rest);
            open = Some(Open::named(name));
        }
        if let Some(open) = &mut open {
            open.read(line);
        }
    }
    cases.extend(open.map(Open::close));
    cases
}

struct Open {
    name: String,
    ok: bool,
    skipped: Option<String>,
    failed: Vec<String>,
}

impl Open {
    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ok: false,
            skipped: None,
            failed: Vec::new(),
        }
    }

    fn read(&mut self, line: &str) {
        let end = line.rsplit(".. ").next().unwrap_or(line);
        if line == "ok" || end == "ok" {
            self.ok = true;
        } else if let Some(why) = end.strip_prefix("skipped: ") {
            self.skipped = Some(why.to_owned());
        } else if is_complaint(line) {
            self.failed.push(line.to_owned());
        }
    }

    fn close(self) -> Case {
        match (self.skipped, self.ok && self.failed.is_empty()) {
            (Some(why), _) => Case::not_run(self.name, why),
            (None, true) => Case::pass(self.name),
            (None, false) => Case::fail(self.name, self.failed.join(" / ")),
        }
    }
}

/// A failed assertion that was not to be expected, or prove's own sum.
fn is_complaint(line: &str) -> bool {
    let failed = line.starts_with("not ok") && !line.contains("# TODO");
    failed || line.starts_with("Failed ") || line.starts_with("Dubious")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_prove_says_is_understood() {
        let said = "/c/tests/chmod/00.t ....... \n1..2\nok 1\nok 2\nok\n\
            /c/tests/chflags/00.t ..... \n1..0 # SKIP no\nskipped: (no reason given)\n\
            /c/tests/link/03.t ........ \n1..2\nok 1\nnot ok 2 - tried 'x', got EIO\n\
            Failed 1/2 subtests \n\
            Test Summary Report\n-------------------\n/c/tests/link/03.t (Wstat: 0)\n";
        let expected = [
            Case::pass("chmod/00.t"),
            Case::not_run("chflags/00.t", "(no reason given)"),
            Case::fail(
                "link/03.t",
                "not ok 2 - tried 'x', got EIO / Failed 1/2 subtests",
            ),
        ];
        assert_eq!(parse(said, Path::new("/c/tests")), expected);
    }
}
