//! The list of what each suite is expected to say, and the comparison with it.

use crate::ground::{Ground, Subject};
use crate::outcome::{At as _, Case, Outcome, SuiteRun, Trouble};
use serde::Deserialize;

/// The list that this program was built with.
const LIST: &str = include_str!("../expected.toml");

/// On what an expectation holds.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum On {
    View,
    Native,
}

/// Whose runs an expectation holds for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum As {
    Root,
    User,
}

/// One expected failure or skip, or a group of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expectation {
    suite: String,
    /// The case; a `*` stands for any text.
    case: String,
    outcome: Outcome,
    reason: String,
    /// What the suite's own words must contain.
    said: Option<String>,
    /// Only on a view, or only on a plain directory.
    on: Option<On>,
    /// Only in runs of root, or only in runs of an ordinary user.
    #[serde(rename = "as")]
    by: Option<As>,
    /// It depends on the machine, so that a pass is no surprise either.
    #[serde(default)]
    sometimes: bool,
}

/// How many cases of a full run must pass: it catches a suite that ends early or finds fewer cases.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Floor {
    suite: String,
    passes: usize,
    on: Option<On>,
    #[serde(rename = "as")]
    by: Option<As>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    floor: Vec<Floor>,
    #[serde(default)]
    expect: Vec<Expectation>,
}

/// What is expected of this run.
#[derive(Debug)]
pub struct Expectations {
    list: List,
    full: bool,
}

/// A suite's run and where it differs from what is expected.
#[derive(Debug, serde::Serialize)]
pub struct Judged {
    /// What the suite said; expected cases carry their reason.
    #[serde(flatten)]
    pub run: SuiteRun,
    /// Each difference, in one line.
    pub surprises: Vec<String>,
}

impl Expectations {
    /// Reads the list, as far as it is about this ground.
    ///
    /// # Errors
    /// When the list is not valid.
    pub fn load(ground: &Ground) -> Result<Self, Trouble> {
        let on = match ground.subject {
            Subject::Native => On::Native,
            Subject::View(_) => On::View,
        };
        let by = if ground.is_root() { As::Root } else { As::User };
        Self::of(LIST, on, by, ground.cli.is_full())
    }

    fn of(list: &str, on: On, by: As, full: bool) -> Result<Self, Trouble> {
        let mut list: List = toml::from_str(list).at("expected.toml")?;
        let applies = |its_on: Option<On>, its_by: Option<As>| {
            its_on.is_none_or(|its| its == on) && its_by.is_none_or(|its| its == by)
        };
        list.expect.retain(|entry| applies(entry.on, entry.by));
        list.floor.retain(|floor| applies(floor.on, floor.by));
        Ok(Self { list, full })
    }

    /// Compares a run with what is expected of it.
    #[must_use]
    pub fn judge(&self, mut run: SuiteRun) -> Judged {
        let mut surprises: Vec<_> = run
            .broken
            .iter()
            .map(|why| format!("broken: {why}"))
            .collect();
        let suite = run.suite;
        for case in &mut run.cases {
            surprises.extend(self.surprise(suite, case));
        }
        if run.not_run.is_none() && self.full {
            surprises.extend(self.too_few(&run));
            surprises.extend(self.stale(&run));
        }
        Judged { run, surprises }
    }

    fn surprise(&self, suite: &str, case: &mut Case) -> Option<String> {
        let entries = self.list.expect.iter().filter(|entry| entry.suite == suite);
        let mut named = entries.filter(|entry| matches(&entry.case, &case.name));
        let Case { name, said, .. } = &*case;
        match case.outcome {
            Outcome::Pass => {
                // A group says what may be left out, a single name what must be.
                let broken = named.find(|entry| entry.is_strict())?;
                Some(format!(
                    "{name}: passed, but is expected not to: {}",
                    broken.reason
                ))
            }
            outcome => {
                let expected = named.find(|entry| entry.outcome == outcome && entry.is_said(said));
                let Some(entry) = expected else {
                    let what = if outcome == Outcome::Fail {
                        "failed"
                    } else {
                        "was not run"
                    };
                    return Some(format!("{name}: {what}: {said}"));
                };
                case.expected = Some(entry.reason.clone());
                None
            }
        }
    }

    fn too_few(&self, run: &SuiteRun) -> Option<String> {
        let passes = run.count(Outcome::Pass);
        let floor = self
            .list
            .floor
            .iter()
            .find(|floor| floor.suite == run.suite)?;
        let least = floor.passes;
        (passes < least).then(|| format!("{passes} cases passed, at least {least} must"))
    }

    /// A name that the suite no longer has would hide a failure of another by the same name.
    fn stale(&self, run: &SuiteRun) -> Vec<String> {
        let entries = self
            .list
            .expect
            .iter()
            .filter(|entry| entry.suite == run.suite);
        let absent = |entry: &&Expectation| {
            entry.is_strict() && run.cases.iter().all(|case| case.name != entry.case)
        };
        let line =
            |entry: &Expectation| format!("{}: expected, but there is no such case", entry.case);
        entries.filter(absent).map(line).collect()
    }
}

impl Expectation {
    fn is_strict(&self) -> bool {
        !self.sometimes && self.said.is_none() && !self.case.contains('*')
    }

    fn is_said(&self, said: &str) -> bool {
        self.said.as_ref().is_none_or(|part| said.contains(part))
    }
}

/// Does the name match a pattern in which `*` stands for any text?
fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(start) else {
        return false;
    };
    loop {
        if matches(rest, left) {
            return true;
        }
        let mut chars = left.chars();
        if chars.next().is_none() {
            return false;
        }
        left = chars.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"
        [[floor]]
        suite = "s"
        passes = 1
        [[expect]]
        suite = "s"
        case = "known"
        outcome = "fail"
        reason = "a bug below"
        [[expect]]
        suite = "s"
        case = "g/*"
        outcome = "not-run"
        said = "fiemap"
        reason = "no such operation"
        [[expect]]
        suite = "s"
        case = "elsewhere"
        on = "native"
        outcome = "fail"
        reason = "not here"
        [[expect]]
        suite = "s"
        case = "weather"
        sometimes = true
        outcome = "fail"
        reason = "the machine"
    "#;

    fn surprises(cases: Vec<Case>) -> Vec<String> {
        let run = SuiteRun {
            cases,
            ..SuiteRun::named("s")
        };
        let list = Expectations::of(SAMPLE, On::View, As::Root, true).expect("a list");
        list.judge(run).surprises
    }

    #[test]
    fn what_is_expected_is_no_surprise() {
        let known = Case::fail("known", "EIO");
        let cases = vec![
            known.clone(),
            Case::pass("a"),
            Case::not_run("g/1", "needs fiemap"),
            Case::fail("weather", "x"),
        ];
        assert!(surprises(cases).is_empty());
        assert!(surprises(vec![known, Case::pass("a"), Case::pass("weather")]).is_empty());
    }

    #[test]
    fn all_else_is_a_surprise() {
        let known = Case::fail("known", "EIO");
        let with = |case| surprises(vec![known.clone(), Case::pass("a"), case]);
        assert_eq!(with(Case::fail("b", "x")), ["b: failed: x"]);
        assert_eq!(with(Case::not_run("b", "x")), ["b: was not run: x"]);
        assert_eq!(
            with(Case::not_run("g/2", "other")),
            ["g/2: was not run: other"]
        );
        assert_eq!(with(Case::fail("g/2", "fiemap")), ["g/2: failed: fiemap"]);
        assert_eq!(with(Case::fail("elsewhere", "x")), ["elsewhere: failed: x"]);
        let passed = surprises(vec![Case::pass("known")]);
        assert_eq!(
            passed,
            ["known: passed, but is expected not to: a bug below"]
        );
    }

    #[test]
    fn a_suite_cut_short_is_a_surprise() {
        let said = surprises(vec![Case::fail("known", "x")]);
        assert_eq!(said, ["0 cases passed, at least 1 must"]);
        let said = surprises(vec![Case::pass("a")]);
        assert_eq!(said, ["known: expected, but there is no such case"]);
    }

    #[test]
    fn patterns_match_like_in_a_shell() {
        assert!(matches("a*c", "abbc") && matches("*", "") && matches("a", "a"));
        assert!(!matches("a*c", "abcd") && !matches("a", "ab") && !matches("a*b*c", "acb"));
    }

    #[test]
    fn the_list_itself_is_valid_and_names_known_suites() {
        let list: List = toml::from_str(LIST).expect("a valid list");
        let named = list.expect.iter().map(|entry| &entry.suite);
        for name in named.chain(list.floor.iter().map(|floor| &floor.suite)) {
            let known = crate::suites::ALL.iter().any(|suite| suite.name == name);
            assert!(known, "{name}: no such suite");
        }
        assert!(list.expect.iter().all(|entry| entry.reason.len() > 10));
    }
}
