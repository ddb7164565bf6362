//! What a run shows: a table, each case that did not pass with its reason, and each surprise.

use crate::expected::Judged;
use crate::ground::{Ground, Identity, Subject};
use crate::outcome::{At as _, Outcome, SuiteRun, Trouble};
use crate::work::place;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// One suite in one line.
#[must_use]
pub fn summary(run: &SuiteRun) -> String {
    if let Some(why) = &run.not_run {
        return format!("not run: {why}");
    }
    if let Some(why) = &run.broken {
        return format!("broken: {why}");
    }
    let [pass, fail, not_run] = counts(run);
    let seconds = run.seconds.as_secs();
    format!("{pass} pass, {fail} fail, {not_run} not run, {seconds} s")
}

fn counts(run: &SuiteRun) -> [usize; 3] {
    [Outcome::Pass, Outcome::Fail, Outcome::NotRun].map(|outcome| run.count(outcome))
}

/// What was tested, by whom, where.
fn setting(ground: &Ground) -> BTreeMap<&'static str, String> {
    let subject = match &ground.subject {
        Subject::Native => "a plain directory (the baseline)".to_owned(),
        Subject::View(wakebox) => first_line(Command::new(wakebox).arg("--version")),
    };
    let user = match &ground.identity {
        Identity::Root => "root".to_owned(),
        Identity::Ordinary(ids) => format!("{ids}, in a user namespace"),
    };
    BTreeMap::from([
        ("subject", subject),
        ("backing", ground.backing_type()),
        ("kernel", first_line(Command::new("uname").arg("-r"))),
        ("user", user),
        ("quick", ground.cli.quick.to_string()),
        (
            "mount-options",
            ground.cli.mount_options.clone().unwrap_or_default(),
        ),
    ])
}

fn first_line(command: &mut Command) -> String {
    let output = command
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&output).into_owned();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// The whole report, for people.
#[must_use]
pub fn text(ground: &Ground, runs: &[Judged]) -> String {
    let mut text = String::from("Conformance\n\n");
    for (name, value) in setting(ground)
        .iter()
        .filter(|(_, value)| !value.is_empty())
    {
        let _ = writeln!(text, "{name:14} {value}");
    }
    let heads = ["run", "pass", "fail", "not run"];
    let _ = write!(text, "\n{:12}", "suite");
    for head in heads {
        let _ = write!(text, " {head:>8}");
    }
    let _ = writeln!(text, " {:>8}  as expected", "seconds");
    for judged in runs {
        text.push_str(&row(judged));
    }
    for judged in runs {
        text.push_str(&details(judged));
    }
    text
}

fn row(Judged { run, surprises }: &Judged) -> String {
    if let Some(why) = &run.not_run {
        return format!("{:12} not run: {why}\n", run.suite);
    }
    let [pass, fail, not_run] = counts(run);
    let seconds = run.seconds.as_secs();
    let as_expected = match surprises.len() {
        0 => "yes".to_owned(),
        count => format!("NO, {count} differ"),
    };
    let ran = run.count_run();
    format!(
        "{:12} {ran:>8} {pass:>8} {fail:>8} {not_run:>8} {seconds:>8}  {as_expected}\n",
        run.suite
    )
}

/// Surprises first; then what is expected, one line for each reason.
fn details(Judged { run, surprises }: &Judged) -> String {
    let mut text = String::new();
    if !surprises.is_empty() {
        let _ = writeln!(text, "\n{}: not as expected", run.suite);
        for surprise in surprises {
            let _ = writeln!(text, "  {surprise}");
        }
    }
    let mut reasons: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for case in &run.cases {
        let what = if case.outcome == Outcome::Fail {
            "fail"
        } else {
            "not run"
        };
        if let Some(reason) = &case.expected {
            reasons.entry((what, reason)).or_default().push(&case.name);
        }
    }
    if !reasons.is_empty() {
        let _ = writeln!(text, "\n{}: expected", run.suite);
    }
    for ((what, reason), names) in reasons {
        let _ = writeln!(
            text,
            "  {what}, {}: {reason}\n    {}",
            names.len(),
            names.join(" ")
        );
    }
    text
}

/// Writes report.txt and report.json, if a directory was named.
///
/// # Errors
/// When they cannot be written.
pub fn write(
    folder: Option<&Path>,
    ground: &Ground,
    runs: &[Judged],
    text: &str,
) -> Result<(), Trouble> {
    let Some(folder) = folder else {
        return Ok(());
    };
    let all = serde_json::json!({ "setting": setting(ground), "suites": runs });
    let json = serde_json::to_string_pretty(&all).at("report.json")?;
    place(&folder.join("report.txt"), text)?;
    place(&folder.join("report.json"), &format!("{json}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Case;

    #[test]
    fn a_suite_shows_its_figures_and_reasons() {
        let expected = Case {
            expected: Some("no such operation".into()),
            ..Case::not_run("b", "x")
        };
        let run = SuiteRun {
            cases: vec![Case::pass("a"), expected, Case::fail("c", "EIO")],
            ..SuiteRun::named("s")
        };
        assert_eq!(summary(&run), "1 pass, 1 fail, 1 not run, 0 s");
        let surprises = vec!["c: failed: EIO".to_owned()];
        let judged = Judged { run, surprises };
        assert!(row(&judged).ends_with("NO, 1 differ\n"));
        let shown = details(&judged);
        assert!(shown.contains("  c: failed: EIO\n"));
        assert!(shown.contains("  not run, 1: no such operation\n    b\n"));
    }
}
