//! The command line, and all that is read from the environment.

use crate::outcome::{At as _, Trouble};
use crate::suites::{self, Suite};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tests of xfstests that the expected results are for.
const XFSTESTS: &str = "-g generic/quick";

/// Runs file-system conformance suites on a mounted view of wakebox, in namespaces of its own, and
/// compares with the list of expected results.
///
/// Exit codes: 0 as expected; 1 something else than expected (or, with --require, a suite that was
/// not run); 2 a wrong command line; 3 the run could not be set up; 4 not one case was run.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// The suites to run
    #[arg(value_name = "SUITE", default_value = "all", value_parser = suites::names())]
    suites: Vec<String>,
    /// Run on an ordinary directory made in DIR instead of on a view: the baseline
    #[arg(long, value_name = "DIR")]
    pub native: Option<PathBuf>,
    /// The wakebox program [default: the one built beside this one]
    #[arg(long, value_name = "PROGRAM", overrides_with = "wakebox")]
    pub wakebox: Option<PathBuf>,
    /// Work in DIR, which must be absent, empty or of an earlier run; its content is removed
    /// [default: a fresh one in the directory for temporary files]
    #[arg(long, value_name = "DIR")]
    pub work: Option<PathBuf>,
    /// Let the state of the mounts lie in a directory made in DIR [default: the work directory]
    #[arg(long, value_name = "DIR")]
    pub backing: Option<PathBuf>,
    /// More options for every mount, separated by commas
    #[arg(long, value_name = "OPTIONS")]
    pub mount_options: Option<String>,
    /// Write report.txt, report.json and the suites' own output to DIR
    #[arg(long, value_name = "DIR")]
    pub report: Option<PathBuf>,
    /// Fewer seeds and shorter times
    #[arg(long)]
    pub quick: bool,
    /// A suite that is not run is a failure
    #[arg(long)]
    pub require: bool,
    /// Install missing Debian packages with apt-get first
    #[arg(long)]
    pub install: bool,
    /// Only print the line that installs missing Debian packages
    #[arg(long)]
    pub missing_packages: bool,
    /// Leave the work directory as it is at the end
    #[arg(long)]
    pub keep: bool,
    /// Where tools from the crate registry are installed [default: beside this program]
    #[arg(long, value_name = "DIR")]
    pub tools: Option<PathBuf>,
    /// The tests of xfstests to run, as its check takes them
    #[arg(
        long,
        value_name = "ARGUMENTS",
        default_value = XFSTESTS,
        allow_hyphen_values = true
    )]
    pub xfstests: String,
    /// The Rust program pjdfstest
    #[arg(long, value_name = "PROGRAM", env = "PJDFSTEST")]
    pub pjdfstest: Option<PathBuf>,
    /// The Rust program fsx
    #[arg(long, value_name = "PROGRAM", env = "FSX")]
    pub fsx: Option<PathBuf>,
    /// A built checkout of the original pjdfstest
    #[arg(long, value_name = "DIR", env = "PJDFSTEST_DIR")]
    pub pjdfstest_dir: Option<PathBuf>,
    /// A built checkout of xfstests
    #[arg(long, value_name = "DIR", env = "XFSTESTS_DIR")]
    pub xfstests_dir: Option<PathBuf>,
    /// A checkout of unionmount-testsuite
    #[arg(long, value_name = "DIR", env = "UNIONMOUNT_DIR")]
    pub unionmount_dir: Option<PathBuf>,
    /// An installed Linux Test Project
    #[arg(long, value_name = "DIR", env = "LTPROOT")]
    pub ltproot: Option<PathBuf>,
    /// Where cargo keeps what it fetched
    #[arg(long, value_name = "DIR", env = "CARGO_HOME", hide = true)]
    pub cargo_home: Option<PathBuf>,
    #[arg(long, value_name = "DIR", env = "HOME", hide = true)]
    home: Option<PathBuf>,
    /// Set by `cargo run`
    #[arg(long, env = "CARGO_MANIFEST_DIR", hide = true)]
    manifest: Option<PathBuf>,
    /// The work directory, for the program that runs in the namespaces
    #[arg(long, hide = true)]
    pub inside: Option<PathBuf>,
    /// Where the state of mounts lies, likewise
    #[arg(long, hide = true)]
    pub state: Option<PathBuf>,
    /// The user and group number to be, when not root, for the program in the namespaces
    #[arg(long, hide = true)]
    pub ordinary: Option<String>,
    /// Run the probes here, in this very process
    #[arg(long, hide = true)]
    pub probe_here: Option<PathBuf>,
    /// A directory of another file system, for probes
    #[arg(long, hide = true)]
    pub probe_elsewhere: Option<PathBuf>,
    /// A directory of a small file system of the tried kind, for probes
    #[arg(long, hide = true)]
    pub probe_small: Option<PathBuf>,
}

impl Cli {
    /// The suites that were asked for, in the order in which they are known.
    pub fn suites(&self) -> impl Iterator<Item = &'static Suite> {
        let named = |suite: &&Suite| self.suites.iter().any(|name| name == suite.name);
        let all = self.suites.iter().any(|name| name == "all");
        suites::ALL.iter().filter(move |suite| all || named(suite))
    }

    /// Do the suites run as a whole, so that what they lack can be told?
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.quick && self.xfstests == XFSTESTS
    }

    /// The wakebox program: the one that was named, or the one beside this one, which is built
    /// first if `cargo run` started us. `None` if no view is asked for.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn wakebox_binary(&self) -> Result<Option<PathBuf>, Trouble> {
        if self.native.is_some() {
            return Ok(None);
        }
        let program = match (&self.wakebox, &self.manifest) {
            (Some(program), _) => program.clone(),
            (None, Some(manifest)) => build_wakebox(manifest)?,
            (None, None) => beside_us("wakebox")?,
        };
        let found = program.canonicalize();
        found.map(Some).map_err(|error| {
            let way = "build it (cargo build -p wakebox) or name it with --wakebox";
            Trouble::Broken(format!("{}: {error}; {way}", program.display()))
        })
    }

    /// Where cargo keeps what it fetched.
    #[must_use]
    pub fn registry(&self) -> Option<PathBuf> {
        let home = || self.home.as_ref().map(|home| home.join(".cargo"));
        Some(self.cargo_home.clone().or_else(home)?.join("registry/src"))
    }

    /// Where tools are installed.
    ///
    /// # Errors
    /// When our own place is unknown.
    pub fn tools_folder(&self) -> Result<PathBuf, Trouble> {
        match &self.tools {
            Some(folder) => std::path::absolute(folder).at(folder.display()),
            None => beside_us("fs-compliance-tools"),
        }
    }
}

/// A run by cargo builds only this program, and an old `wakebox` beside it would be tested.
fn build_wakebox(manifest: &Path) -> Result<PathBuf, Trouble> {
    let mut build = Command::new("cargo");
    build.current_dir(manifest);
    build.args(["build", "--quiet", "-p", "wakebox"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    if build.status().at("cargo")?.success() {
        beside_us("wakebox")
    } else {
        Err(Trouble::Broken("cargo could not build wakebox".into()))
    }
}

fn beside_us(name: &str) -> Result<PathBuf, Trouble> {
    Ok(std::env::current_exe()
        .at("the place of this program")?
        .with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_come_in_their_own_order_and_once() {
        let cli = Cli::parse_from(["fs-compliance", "loads", "fsx", "loads"]);
        let names: Vec<_> = cli.suites().map(|suite| suite.name).collect();
        assert_eq!(names, ["fsx", "loads"]);
        let all = Cli::parse_from(["fs-compliance"]);
        assert_eq!(all.suites().count(), suites::ALL.len());
        assert!(Cli::try_parse_from(["fs-compliance", "nonsense"]).is_err());
    }
}
