//! unionmount-testsuite, from the caller's own checkout: read-only lower content that gets copied
//! up, hidden and replaced. One case for each of its scripts, each in a run of its own, so that the
//! first failure does not hide the rest.

use crate::ground::{Ground, Subject};
use crate::outcome::{At as _, Case, Trouble};
use crate::tools;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);
const SUITE: &str = "unionmount";
/// What the suite runs only where directories cannot be renamed.
const XDEV_ONLY: &str = "rename-exdev";

pub(super) fn run(ground: &Ground) -> Result<Vec<Case>, Trouble> {
    ground.demand_root()?;
    let checkout = ground.cli.unionmount_dir.as_ref().ok_or_else(|| {
        Trouble::NotRun("set UNIONMOUNT_DIR to a checkout of unionmount-testsuite".into())
    })?;
    let checkout = checkout.canonicalize().at(checkout.display())?;
    tools::demand(&["python3"])?;
    let scripts = scripts(&checkout.join("tests"))?;
    // Its own layout for layers on one file system; it mounts and unmounts there itself.
    let base = ground.state("unionmount");
    fs::create_dir_all(&base).at(base.display())?;
    let test = |name: &String| {
        clean(&base)?;
        let done = ground.run(SUITE, command(ground, &checkout, &base, name), LIMIT)?;
        Ok(match done.success() {
            true => Case::pass(name),
            false => Case::fail(name, done.said()),
        })
    };
    let cases = scripts.iter().map(test).collect();
    let _ = clean(&base);
    cases
}

fn scripts(folder: &Path) -> Result<BTreeSet<String>, Trouble> {
    let names = fs::read_dir(folder).at(folder.display())?.flatten();
    let script = |path: PathBuf| -> Option<String> {
        let name = path.file_stem()?.to_str()?.to_owned();
        (path.extension()? == "py" && name != XDEV_ONLY && name != "__init__").then_some(name)
    };
    Ok(names.filter_map(|entry| script(entry.path())).collect())
}

fn command(ground: &Ground, checkout: &Path, base: &Path, script: &str) -> Command {
    let mut command = Command::new("python3");
    // Its compiled scripts would land in the caller's checkout.
    command.arg("-B").arg("./run").current_dir(checkout);
    match &ground.subject {
        Subject::View(_) => command.args(["--ov", "--fuse=wakebox"]),
        // The baseline of a union is the kernel's own.
        Subject::Native => command.arg("--ov"),
    };
    command.arg(script);
    command.env("UNIONMOUNT_BASEDIR", base);
    if let Some(options) = &ground.cli.mount_options {
        command.env("UNIONMOUNT_MNTOPTIONS", options);
    }
    command
}

/// The suite leaves its last union mounted.
fn clean(base: &Path) -> Result<(), Trouble> {
    let point = base.join("m");
    while rustix::mount::unmount(&point, rustix::mount::UnmountFlags::DETACH).is_ok() {}
    for entry in fs::read_dir(base).at(base.display())?.flatten() {
        fs::remove_dir_all(entry.path()).at(entry.path().display())?;
    }
    Ok(())
}
