//! Load with verification: stress-ng's file-system class, dbench and fio, as Debian has them.

use crate::ground::Ground;
use crate::outcome::{Case, Trouble};
use crate::tools;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SUITE: &str = "stress";
/// Stressors of the class that do not use the file system under test: binderfs and binds make
/// mounts of their own, eventfd and procfs use no files of it, and io syncs every mount there is.
const ELSEWHERE: [&str; 5] = ["binderfs", "bind-mount", "eventfd", "io", "procfs"];

pub(super) fn run(ground: &Ground) -> Result<Vec<Case>, Trouble> {
    let mounted = ground.mount(SUITE)?;
    let folder = mounted.folder("stress")?;
    let mut cases = Vec::new();
    match tools::demand(&["stress-ng"]) {
        Ok(()) => cases.extend(stressors(ground, &folder)?),
        Err(why) => cases.push(Case::not_run("stress-ng", why.to_string())),
    }
    for (program, start) in [("dbench", dbench as fn(&_, &_) -> _), ("fio", fio)] {
        match tools::demand(&[program]) {
            Ok(()) => cases.extend(start(ground, &folder)?),
            Err(why) => cases.push(Case::not_run(program, why.to_string())),
        }
    }
    Ok(cases)
}

/// Each stressor by itself, so that each has an exit code.
fn stressors(ground: &Ground, folder: &Path) -> Result<Vec<Case>, Trouble> {
    let mut cases = Vec::new();
    for name in class()? {
        let mut command = Command::new("stress-ng");
        command.args([&format!("--{name}"), "1", "--verify", "--timeout"]);
        command.arg(if ground.cli.quick { "1s" } else { "2s" });
        command.arg("--temp-path").arg(folder).current_dir(folder);
        let done = ground.run(SUITE, command, Duration::from_secs(120))?;
        cases.push(judge(&name, done.code(), &done.output, &done.said()));
    }
    Ok(cases)
}

/// The names that this version of stress-ng has in the class.
fn class() -> Result<Vec<String>, Trouble> {
    let output = Command::new("stress-ng")
        .args(["--class", "filesystem?"])
        .output();
    let output = output.map_err(|error| Trouble::NotRun(format!("stress-ng: {error}")))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let names = said.split_once("stressors:").map_or("", |(_, names)| names);
    let names = names
        .split_whitespace()
        .filter(|name| !ELSEWHERE.contains(name));
    let names: Vec<_> = names.map(str::to_owned).collect();
    match names.is_empty() {
        true => Err(Trouble::Broken(format!(
            "stress-ng lists no stressors: {said}"
        ))),
        false => Ok(names),
    }
}

/// stress-ng(1), EXIT STATUS: 3 is "not enough resources", 4 "not implemented here"; a stressor
/// that is skipped ends with 0 and says so.
fn judge(name: &str, code: Option<i32>, output: &str, said: &str) -> Case {
    let marks = ["skipping", "skipped", "aborted early"];
    let skips = |line: &&str| marks.iter().any(|mark| line.contains(mark));
    let skipped = output.lines().find(skips);
    let case = format!("stress-ng/{name}");
    match (code, skipped) {
        (Some(0), Some(line)) => Case::not_run(case, after_program(line)),
        (Some(3 | 4), _) => Case::not_run(case, after_program(skipped.unwrap_or(said))),
        (Some(0), None) => Case::pass(case),
        _ => Case::fail(case, said),
    }
}

/// Without `stress-ng: info:  [123] `.
fn after_program(line: &str) -> &str {
    line.split_once("] ").map_or(line, |(_, rest)| rest)
}

fn dbench(ground: &Ground, folder: &Path) -> Result<Vec<Case>, Trouble> {
    let mut command = Command::new("dbench");
    command.args(["-t", if ground.cli.quick { "3" } else { "10" }, "-D"]);
    command.arg(folder).arg("2");
    let done = ground.run(SUITE, command, Duration::from_secs(120))?;
    let well = done.success() && done.output.contains("Throughput");
    Ok(vec![match well {
        true => Case::pass("dbench"),
        false => Case::fail("dbench", done.said()),
    }])
}

fn fio(ground: &Ground, folder: &Path) -> Result<Vec<Case>, Trouble> {
    let jobs = [("psync", "crc32c"), ("mmap", "sha256")];
    let mut cases = Vec::new();
    for (engine, sum) in jobs {
        let mut command = Command::new("fio");
        command.arg(format!("--directory={}", folder.display()));
        command
            .arg(format!("--ioengine={engine}"))
            .arg(format!("--verify={sum}"));
        command.args(["--name=verify", "--rw=randrw", "--bs=1k-64k", "--size=16m"]);
        command.args(["--do_verify=1", "--verify_fatal=1", "--fallocate=none"]);
        command.current_dir(&ground.work);
        let done = ground.run(SUITE, command, Duration::from_secs(120))?;
        cases.push(match done.success() {
            true => Case::pass(format!("fio/{engine}-{sum}")),
            false => Case::fail(format!("fio/{engine}-{sum}"), done.said()),
        });
    }
    Ok(cases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_stressor_is_not_a_pass() {
        let line = "stress-ng: info:  [7] verity: skipping stressor, not supported";
        let skipped = Case::not_run(
            "stress-ng/verity",
            "verity: skipping stressor, not supported",
        );
        assert_eq!(judge("verity", Some(0), line, ""), skipped);
        assert_eq!(judge("verity", Some(4), line, ""), skipped);
        assert_eq!(
            judge("dir", Some(0), "done", ""),
            Case::pass("stress-ng/dir")
        );
        assert_eq!(
            judge("dir", Some(2), "", "x"),
            Case::fail("stress-ng/dir", "x")
        );
    }
}
