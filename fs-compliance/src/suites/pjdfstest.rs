//! The Rust rewrite of pjdfstest.
//!
//! Two passes: the cases that need a read-only file system remount it, and in one full run some of
//! them meet a file that an earlier case left open for writing (EBUSY; so on ext4 too).

use crate::ground::Ground;
use crate::outcome::{Case, Outcome, Trouble};
use crate::tools;
use crate::work::place;
use crate::{accounts, ground::Subject};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The suite binds sockets two random directories deeper, by their whole names, and sun_path has 108
/// bytes; with 54 bytes here all its socket cases end with ENAMETOOLONG, with 46 none.
const LONGEST: usize = 46;
const LIMIT: Duration = Duration::from_secs(900);

pub(super) fn run(ground: &Ground) -> Result<Vec<Case>, Trouble> {
    let given = ground.cli.pjdfstest.as_deref();
    let program = tools::find(&tools::PJDFSTEST, given, &ground.cli.tools_folder()?)?;
    let mut cases = pass(ground, &program, Pass::Main)?;
    // A remount of a plain directory's file system is one of the caller's.
    if ground.is_root() && matches!(ground.subject, Subject::View(_)) {
        let again = pass(ground, &program, Pass::ReadOnly)?;
        cases.retain(|case| again.iter().all(|other| other.name != case.name));
        cases.extend(again);
    }
    Ok(cases)
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Pass {
    Main,
    ReadOnly,
}

fn pass(ground: &Ground, program: &Path, pass: Pass) -> Result<Vec<Case>, Trouble> {
    let config = ground.work.join("pjdfstest.toml");
    let mounted = ground.mount("pjdfstest")?;
    let folder = mounted.folder(if pass == Pass::Main { "a" } else { "b" })?;
    if folder.as_os_str().len() > LONGEST {
        let shown = folder.display();
        return Err(Trouble::Broken(format!(
            "{shown}: too long for the suite's sockets; choose a shorter --work, --native or TMPDIR"
        )));
    }
    place(&config, &configuration(ground, pass))?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&config).arg("-p").arg(&folder);
    if pass == Pass::ReadOnly {
        command.arg("erofs");
    }
    let done = ground.run("pjdfstest", command, LIMIT)?;
    let (cases, summed) = parse(&done.output);
    if summed && !cases.is_empty() {
        Ok(cases)
    } else {
        Err(Trouble::Broken(format!("no summary: {}", done.said())))
    }
}

fn configuration(ground: &Ground, pass: Pass) -> String {
    let [first, second, _] = accounts::NAMES;
    // Switching needs root; without it the suite only demands that both exist.
    let entries = match ground.is_root() {
        true => format!("[[\"{first}\", \"{first}\"], [\"{second}\", \"{second}\"]]"),
        false => "[[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]".to_owned(),
    };
    format!(
        "[features]\nposix_fallocate = {{}}\nrename_ctime = {{}}\nstat_st_birthtime = {{}}\n\
         utime_now = {{}}\nutimensat = {{}}\nsecondary_fs = {:?}\n\n\
         [settings]\nnaptime = 0.02\nallow_remount = {}\n\n[dummy_auth]\nentries = {entries}\n",
        ground.elsewhere(),
        pass == Pass::ReadOnly,
    )
}

/// Lines of the form `NAME   ok|skipped|FAILED`, each followed by indented remarks; then a summary.
fn parse(output: &str) -> (Vec<Case>, bool) {
    let mut cases: Vec<Case> = Vec::new();
    let mut summed = false;
    for line in output.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let outcome = match words[..] {
            [_, "ok"] => Some(Outcome::Pass),
            [_, "skipped"] => Some(Outcome::NotRun),
            [_, "FAILED"] => Some(Outcome::Fail),
            _ => None,
        };
        summed |= line.starts_with("Summary:");
        match (outcome, cases.last_mut()) {
            (Some(outcome), _) if !line.starts_with('\t') => {
                cases.push(Case::new(words[0], outcome, ""));
            }
            (_, Some(case)) if line.starts_with('\t') && case.said.is_empty() => {
                case.said = crate::outcome::one_line(line);
            }
            _ => {}
        }
    }
    (cases, summed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_prints_is_understood() {
        let (cases, summed) = parse(
            "chmod::errno     ok\nlink::count    skipped\n\tLINK_MAX is unknown\n\
             open::umask  FAILED\n\tleft: 1\n\tright: 2\n\nSummary: 1 failed, 1 skipped\n",
        );
        let expected = [
            Case::pass("chmod::errno"),
            Case::not_run("link::count", "LINK_MAX is unknown"),
            Case::fail("open::umask", "left: 1"),
        ];
        assert_eq!(cases, expected);
        assert!(summed);
        assert!(!parse("chmod::errno   ok\n").1, "cut short");
    }
}
