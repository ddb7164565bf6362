//! The programs that suites use: where they are and how they get here.

use crate::cli::Cli;
use crate::outcome::{At as _, Trouble};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that suites use, with the Debian package that has each.
const PACKAGES: [(&str, &str); 12] = [
    ("stress-ng", "stress-ng"),
    ("dbench", "dbench"),
    ("fio", "fio"),
    ("sqlite3", "sqlite3"),
    ("git", "git"),
    ("cc", "gcc"),
    ("cmake", "cmake"),
    ("ninja", "ninja-build"),
    ("tar", "tar"),
    ("prove", "perl"),
    ("openssl", "openssl"),
    ("python3", "python3"),
];

/// A suite that the crate registry has as a program.
#[derive(Debug)]
pub struct Crate {
    /// The name of the crate and of its program.
    pub name: &'static str,
    /// The version that the expected results are for.
    pub version: &'static str,
}

/// The Rust rewrite of pjdfstest.
pub const PJDFSTEST: Crate = Crate {
    name: "pjdfstest",
    version: "0.2.2",
};
/// The Rust rewrite of fsx. Its licence lets us run it, but not link it.
pub const FSX: Crate = Crate {
    name: "fsx",
    version: "0.3.2",
};

/// Is there such a program in PATH?
#[must_use]
pub fn in_path(program: &str) -> bool {
    // `command -v` is what a shell would find, without starting it.
    let mut shell = Command::new("sh");
    let found = shell
        .args(["-c", "command -v \"$1\"", "sh", program])
        .output();
    found.is_ok_and(|output| output.status.success())
}

/// Says that the suite cannot be run without these programs, if one is missing.
///
/// # Errors
/// [`Trouble::NotRun`] with the line that installs what is missing.
pub fn demand(programs: &[&str]) -> Result<(), Trouble> {
    let is_missing = |(program, _): &&(&str, &str)| programs.contains(program) && !in_path(program);
    let missing: Vec<_> = PACKAGES.iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    Err(Trouble::NotRun(format!(
        "no {}; {}, or --install",
        names.join(", "),
        install_line(&packages)
    )))
}

/// The Debian packages that some suite would use and that are not here.
#[must_use]
pub fn missing_packages() -> Vec<&'static str> {
    let missing = PACKAGES.iter().filter(|(program, _)| !in_path(program));
    missing.map(|(_, package)| *package).collect()
}

/// The command that installs the packages.
#[must_use]
pub fn install_line(packages: &[&str]) -> String {
    format!(
        "apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    )
}

/// Installs the Debian packages that are missing.
///
/// # Errors
/// When apt-get fails.
pub fn install_packages() -> Result<(), Trouble> {
    let missing = missing_packages();
    if missing.is_empty() {
        return Ok(());
    }
    let line = install_line(&missing);
    let status = Command::new("sh").args(["-c", &line]).status().at("sh")?;
    if status.success() {
        Ok(())
    } else {
        Err(Trouble::Broken(format!("`{line}` failed: {status}")))
    }
}

/// Installs the tools from the crate registry that the chosen suites need. A failure (no network) is
/// said when the suite is to run, so that it stops no other.
///
/// # Errors
/// When our own place is unknown.
pub fn prepare(cli: &Cli) -> Result<(), Trouble> {
    for (tool, given) in [(&PJDFSTEST, &cli.pjdfstest), (&FSX, &cli.fsx)] {
        let wanted = cli.suites().any(|suite| suite.name == tool.name);
        if wanted && find(tool, given.as_deref(), &cli.tools_folder()?).is_err() {
            install_crate(tool, &cli.tools_folder()?);
        }
    }
    Ok(())
}

fn install_crate(tool: &Crate, folder: &Path) {
    eprintln!(
        "installing {} {} in {}",
        tool.name,
        tool.version,
        folder.display()
    );
    let mut cargo = Command::new("cargo");
    cargo.args(["install", "--quiet", "--locked", tool.name]);
    cargo
        .args(["--version", tool.version, "--root"])
        .arg(folder);
    if !cargo.status().is_ok_and(|status| status.success()) {
        eprintln!(
            "cargo could not install {}; its suite is not run",
            tool.name
        );
    }
}

/// The program of a tool from the crate registry: the one given, the one in PATH if it is of our
/// version, or the one that we installed.
///
/// # Errors
/// [`Trouble::NotRun`] when there is none.
pub fn find(tool: &Crate, given: Option<&Path>, folder: &Path) -> Result<PathBuf, Trouble> {
    if let Some(program) = given {
        return right_version(tool, program)
            .then(|| program.to_owned())
            .ok_or_else(|| absent(tool, &program.display().to_string()));
    }
    let places = [PathBuf::from(tool.name), folder.join("bin").join(tool.name)];
    let found = places
        .into_iter()
        .find(|program| right_version(tool, program));
    found.ok_or_else(|| absent(tool, "not found"))
}

/// The original pjdfstest is a program of the same name, so the name alone says nothing.
fn right_version(tool: &Crate, program: &Path) -> bool {
    let wanted = format!("{} {}", tool.name, tool.version);
    let said = Command::new(program).arg("--version").output();
    said.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == wanted)
}

fn absent(tool: &Crate, what: &str) -> Trouble {
    let Crate { name, version } = tool;
    Trouble::NotRun(format!(
        "{name} {version}: {what}; cargo install {name} --version {version}"
    ))
}
