//! What a suite says.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// How one case ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The case ran and its demands hold.
    Pass,
    /// The case ran, or could not be run to its end, and its demands do not hold.
    Fail,
    /// The suite left the case out; never to be counted as a pass.
    NotRun,
}

/// One case of a suite.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Case {
    /// The suite's own name for it.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What the suite said, one line; empty for a pass.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub said: String,
    /// Why this is expected, from the list of expected results.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
}

impl Case {
    /// A case that ended so, with what the suite said.
    pub fn new(name: impl Into<String>, outcome: Outcome, said: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            outcome,
            said: one_line(&said.into()),
            expected: None,
        }
    }

    /// A case that passed.
    pub fn pass(name: impl Into<String>) -> Self {
        Self::new(name, Outcome::Pass, "")
    }

    /// A case that failed, with what was seen.
    pub fn fail(name: impl Into<String>, said: impl Into<String>) -> Self {
        Self::new(name, Outcome::Fail, said)
    }

    /// A case that was left out, with the reason.
    pub fn not_run(name: impl Into<String>, said: impl Into<String>) -> Self {
        Self::new(name, Outcome::NotRun, said)
    }
}

/// Everything one suite said.
#[derive(Clone, Debug, Serialize)]
pub struct SuiteRun {
    /// The suite.
    pub suite: &'static str,
    /// Why the suite as a whole was not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_run: Option<String>,
    /// What ended the suite before its end; always a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// Its cases.
    pub cases: Vec<Case>,
    /// How long it took.
    #[serde(serialize_with = "seconds")]
    pub seconds: Duration,
}

impl SuiteRun {
    /// A suite that has said nothing yet.
    #[must_use]
    pub fn named(suite: &'static str) -> Self {
        Self {
            suite,
            not_run: None,
            broken: None,
            cases: Vec::new(),
            seconds: Duration::ZERO,
        }
    }

    /// How many cases ended so.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        let same = |case: &&Case| case.outcome == outcome;
        self.cases.iter().filter(same).count()
    }

    /// How many cases ran.
    #[must_use]
    pub fn count_run(&self) -> usize {
        self.count(Outcome::Pass) + self.count(Outcome::Fail)
    }
}

fn seconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((time.as_secs_f64() * 10.0).round() / 10.0)
}

/// Why a suite, or the whole run, stopped.
#[derive(Debug)]
pub enum Trouble {
    /// It cannot be run here: a tool, a checkout or a privilege is missing.
    NotRun(String),
    /// It should have run and did not.
    Broken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRun(why) | Self::Broken(why) => to.write_str(why),
        }
    }
}

/// Says where an I/O error happened.
pub trait At<T> {
    /// Names what was being done.
    ///
    /// # Errors
    /// The error of `self`, as [`Trouble::Broken`].
    fn at(self, what: impl fmt::Display) -> Result<T, Trouble>;
}

impl<T, E: fmt::Display> At<T> for Result<T, E> {
    fn at(self, what: impl fmt::Display) -> Result<T, Trouble> {
        self.map_err(|error| Trouble::Broken(format!("{what}: {error}")))
    }
}

/// The text without its line ends, cut to what a table can show.
#[must_use]
pub fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
