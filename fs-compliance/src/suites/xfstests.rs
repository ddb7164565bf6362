//! xfstests, from the caller's own built checkout, with the configuration written for it.

use crate::ground::{Ground, Subject};
use crate::outcome::{At as _, Case, Outcome, Trouble, one_line};
use crate::work::place;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(6 * 3600);
const SUITE: &str = "xfstests";
const TEST: &str = "wbtest";
const SCRATCH: &str = "wbscratch";
/// Three million appends of four bytes, and ten minutes of them on the slowest FUSE file systems.
const SLOW: &str = "generic/069\ngeneric/615\n";

pub(super) fn run(ground: &Ground) -> Result<Vec<Case>, Trouble> {
    ground.demand_root()?;
    ground.demand_view("a native run needs block devices to format; run xfstests by itself")?;
    let checkout = ground.cli.xfstests_dir.as_ref().ok_or_else(|| {
        Trouble::NotRun("set XFSTESTS_DIR to a built checkout of xfstests".into())
    })?;
    let checkout = checkout.canonicalize().at(checkout.display())?;
    if !checkout.join("ltp/fsstress").is_file() {
        let shown = checkout.display();
        return Err(Trouble::NotRun(format!(
            "{shown}: not built (no program ltp/fsstress in it)"
        )));
    }
    let results = ground.logs.join("xfstests");
    let command = command(ground, &checkout, &results)?;
    let done = ground.run(SUITE, command, LIMIT)?;
    let cases = parse(&done.output, &results);
    match cases.is_empty() {
        true => Err(Trouble::Broken(format!("no test was run: {}", done.said()))),
        false => Ok(cases),
    }
}

fn command(ground: &Ground, checkout: &Path, results: &Path) -> Result<Command, Trouble> {
    let config = ground.work.join("xfstests.config");
    let points = [
        ground.work.join("mnt/test"),
        ground.work.join("mnt/scratch"),
    ];
    for folder in points.iter().chain([&results.to_owned()]) {
        fs::create_dir_all(folder).at(folder.display())?;
    }
    place(&config, &configuration(ground, &points, results))?;
    let excluded = ground.work.join("xfstests.exclude");
    place(&excluded, if ground.cli.quick { SLOW } else { "" })?;
    let mut command = Command::new("./check");
    command.current_dir(checkout).env("HOST_OPTIONS", &config);
    // /proc/locks shows no lock of a process that has ended but in the first PID namespace; tests
    // that look there then take the /proc below ours.
    command.env("FSTESTS_ISOL", "privatens");
    command.arg("-fuse").arg("-E").arg(&excluded);
    command.args(ground.cli.xfstests.split_whitespace());
    Ok(command)
}

/// The two devices are plain words: the suite compares them with /proc/mounts and unmounts by
/// them. FUSE_SUBTYP only picks mount's helper, which knows the options of either device.
fn configuration(ground: &Ground, points: &[std::path::PathBuf; 2], results: &Path) -> String {
    let [test, scratch] = points;
    debug_assert!(matches!(ground.subject, Subject::View(_)));
    format!(
        "export FSTYP=fuse\nexport FUSE_SUBTYP=.wakebox\n\
         export TEST_DEV={TEST}\nexport TEST_DIR={}\n\
         export SCRATCH_DEV={SCRATCH}\nexport SCRATCH_MNT={}\n\
         export RESULT_BASE={}\n",
        test.display(),
        scratch.display(),
        results.display(),
    )
}

/// What the suite's two devices are mounted with. Not by the suite's own variables for options,
/// which tests clear (generic/607). The type in /proc/mounts must be `fuse`, hence `nosubtype`.
pub(crate) fn mount_options(ground: &Ground) -> [(&'static str, String); 2] {
    let more = ground.cli.mount_options.as_ref();
    let more = more.map(|more| format!(",{more}")).unwrap_or_default();
    [(TEST, "xfstests-test"), (SCRATCH, "xfstests-scratch")].map(|(device, name)| {
        let state = ground.state(name);
        let options = format!("state={},nosubtype{more}", state.display());
        (device, options)
    })
}

/// One line for each test as it ends, and what it wrote beside its results.
fn parse(output: &str, results: &Path) -> Vec<Case> {
    let mut cases: BTreeMap<String, Case> = BTreeMap::new();
    let mut last: Option<String> = None;
    for line in output.lines() {
        if let Some(case) = last.as_ref().and_then(|name| cases.get_mut(name)) {
            add_difference(case, line);
        }
        let Some((name, said)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        if is_test(name)
            && let Some(case) = case(name, said, results)
        {
            last = Some(name.to_owned());
            cases.insert(name.to_owned(), case);
        }
    }
    // Decisive where a test ended well and its file system was found wrong afterwards.
    let failed = output
        .lines()
        .filter_map(|line| line.strip_prefix("Failures: "))
        .next_back();
    for name in failed.into_iter().flat_map(str::split_whitespace) {
        let case = cases.entry(name.to_owned());
        let case = case.or_insert_with(|| Case::fail(name, "listed under Failures"));
        case.outcome = Outcome::Fail;
    }
    cases.into_values().collect()
}

/// Under a failure it shows how the output differs; the first added lines tell what was seen.
fn add_difference(case: &mut Case, line: &str) {
    let added = line
        .strip_prefix("    +")
        .filter(|added| !added.starts_with("++"));
    if let Some(added) = added.filter(|_| case.outcome == Outcome::Fail && case.said.len() < 200) {
        case.said = one_line(&format!("{} / {added}", case.said));
    }
}

fn is_test(name: &str) -> bool {
    let parts = name.split_once('/');
    parts.is_some_and(|(group, number)| {
        !group.is_empty() && number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// `4s ...  3s`, `[not run] …`, `[failed, exit status 1]- output mismatch …`, `[expunged]`; the
/// first number is how long it took the last time.
fn case(name: &str, said: &str, results: &Path) -> Option<Case> {
    let last = said.split_whitespace().next_back().unwrap_or("");
    let beside = |ending| fs::read_to_string(results.join(format!("{name}.{ending}"))).ok();
    if said.contains("[not run]") {
        let why = beside("notrun").unwrap_or_else(|| said.replace("[not run]", ""));
        Some(Case::not_run(name, why))
    } else if said.contains("[expunged]") {
        Some(Case::not_run(name, "left out by us: too slow"))
    } else if said.contains("[failed") || said.contains("mismatch") || said.contains('[') {
        Some(Case::fail(name, said))
    } else if is_seconds(last) {
        Some(Case::pass(name))
    } else {
        // It was started and never ended; or this is no result line.
        said.contains("...")
            .then(|| Case::fail(name, format!("no result: {said}")))
    }
}

fn is_seconds(word: &str) -> bool {
    let number = word.strip_suffix('s').unwrap_or("");
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Fail, NotRun, Pass};

    #[test]
    fn what_check_says_is_understood() {
        let said = "FSTYP         -- fuse\n\
            generic/001 4s ...  5s\n\
            generic/002        [not run] no such thing\n\
            generic/003 1s ... - output mismatch (see /r/generic/003.out.bad)\n\
                --- tests/generic/003.out\n    +++ /r/generic/003.out.bad\n    +seen\n\
            generic/004  9s\n\
            generic/005        [expunged]\n\
            generic/006 1s ...  2s\n\
            Ran: generic/001\nNot run: generic/002\nFailures: generic/003 generic/006\n";
        let folder = tempfile::tempdir().expect("a folder");
        let cases = parse(said, folder.path());
        let outcomes: Vec<_> = cases
            .iter()
            .map(|case| (&*case.name, case.outcome))
            .collect();
        let expected = [
            ("generic/001", Pass),
            ("generic/002", NotRun),
            ("generic/003", Fail),
            ("generic/004", Pass),
            ("generic/005", NotRun),
            ("generic/006", Fail),
        ];
        assert_eq!(outcomes, expected);
        assert!(
            cases[2].said.ends_with("003.out.bad) / seen"),
            "{}",
            cases[2].said
        );
    }
}
