//! Real programs: each load is a script that runs in an empty directory and ends with 0 if all is
//! right.

use crate::ground::Ground;
use crate::outcome::{Case, Trouble};
use crate::tools;
use crate::work::place;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const SUITE: &str = "loads";
const LIMIT: Duration = Duration::from_secs(600);

struct Load {
    name: &'static str,
    script: &'static str,
    programs: &'static [&'static str],
}

const LOADS: [Load; 4] = [
    Load {
        name: "sqlite",
        script: include_str!("../../loads/sqlite.sh"),
        programs: &["sqlite3"],
    },
    Load {
        name: "git",
        script: include_str!("../../loads/git.sh"),
        programs: &["git"],
    },
    Load {
        name: "build",
        script: include_str!("../../loads/build.sh"),
        programs: &["cmake", "ninja", "cc"],
    },
    Load {
        name: "tar",
        script: include_str!("../../loads/tar.sh"),
        programs: &["tar"],
    },
];

pub(super) fn run(ground: &Ground) -> Result<Vec<Case>, Trouble> {
    let mounted = ground.mount(SUITE)?;
    let mut cases = Vec::new();
    for load in &LOADS {
        if let Err(why) = tools::demand(load.programs) {
            cases.push(Case::not_run(load.name, why.to_string()));
            continue;
        }
        let script = ground.work.join(format!("{}.sh", load.name));
        place(&script, load.script)?;
        let mut command = Command::new("sh");
        command
            .arg("-eu")
            .arg(&script)
            .current_dir(mounted.folder(load.name)?);
        command.env("ROUNDS", if ground.cli.quick { "1" } else { "5" });
        command.env("C_SOURCES", c_sources(ground).unwrap_or_default());
        let done = ground.run(SUITE, command, LIMIT)?;
        cases.push(match done.code() {
            Some(0) => Case::pass(load.name),
            // The script's own way to say that something is missing.
            Some(77) => Case::not_run(load.name, done.said()),
            _ => Case::fail(load.name, done.said()),
        });
    }
    Ok(cases)
}

/// The sources of bzip2, which a test of this workspace depends on, where cargo unpacked them.
fn c_sources(ground: &Ground) -> Option<PathBuf> {
    let indices = std::fs::read_dir(ground.cli.registry()?).ok()?;
    let crates = indices
        .flatten()
        .filter_map(|index| std::fs::read_dir(index.path()).ok());
    let bzip2 = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("bzip2-sys-")
    };
    let found = crates
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .find(bzip2)?;
    let inner = std::fs::read_dir(found)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    inner
        .into_iter()
        .find(|path| path.join("bzlib.c").is_file())
}
