//! fsx, the Rust rewrite: random operations on one file, each read compared with what was written.
//!
//! On a new file, and on files that are inputs of the mount and get copied up by the first write
//! (fsx's block mode keeps the file and overwrites it; its usual mode truncates it).

use crate::ground::Ground;
use crate::outcome::{At as _, Case, Trouble};
use crate::tools;
use crate::work::place;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// 20,000 operations take five to ten seconds.
const LIMIT: Duration = Duration::from_secs(90);
const SUITE: &str = "fsx";
/// What an input holds before fsx: not zeros, and not of a whole number of pages.
const INPUT_LENGTH: usize = 200_001;

/// Every operation that fsx knows; the default leaves out most of those below `truncate`.
const WEIGHTS: &str = "[weights]\nclose_open = 1\ninvalidate = 1\nmapread = 1\nmapwrite = 1\n\
    read = 1\nwrite = 1\ntruncate = 1\nfsync = 0.5\nfdatasync = 0.5\nposix_fallocate = 1\n\
    punch_hole = 1\nsendfile = 1\nposix_fadvise = 1\ncopy_file_range = 1\n";

/// In block mode what would change the size is not allowed.
const BLOCK_WEIGHTS: &str = "blockmode = true\n\n[weights]\nclose_open = 0\ninvalidate = 1\n\
    mapread = 1\nmapwrite = 1\nread = 1\nwrite = 1\ntruncate = 0\nfsync = 0.5\nfdatasync = 0.5\n\
    posix_fallocate = 0\npunch_hole = 1\nsendfile = 1\nposix_fadvise = 1\ncopy_file_range = 1\n";

pub(super) fn run(ground: &Ground) -> Result<Vec<Case>, Trouble> {
    let given = ground.cli.fsx.as_deref();
    let program = tools::find(&tools::FSX, given, &ground.cli.tools_folder()?)?;
    let (seeds, operations) = if ground.cli.quick {
        (2, 3_000)
    } else {
        (5, 20_000)
    };
    let mut cases = Vec::new();
    let mounted = ground.mount(SUITE)?;
    for seed in 1..=seeds {
        let file = mounted.path().join(format!("file-{seed}"));
        let exercise = Exercise {
            program: &program,
            weights: WEIGHTS,
            seed,
            operations,
        };
        cases.push(exercise.run(ground, &format!("new-file/{seed}"), &file)?);
    }
    drop(mounted);
    for seed in 1..=seeds {
        cases.extend(inputs(ground, &program, seed, operations)?);
    }
    Ok(cases)
}

/// Two inputs, one for each mode, and a look at the originals afterwards.
fn inputs(
    ground: &Ground,
    program: &Path,
    seed: u32,
    operations: u32,
) -> Result<Vec<Case>, Trouble> {
    let lower = ground.work.join(format!("fsx-inputs-{seed}"));
    fs::create_dir(&lower).at(lower.display())?;
    let content = "an input ".repeat(INPUT_LENGTH / 9 + 1);
    let names = [("overwritten", BLOCK_WEIGHTS), ("truncated", WEIGHTS)];
    for (name, _) in names {
        place(&lower.join(name), &content[..INPUT_LENGTH])?;
    }
    let mounted = ground.mount_over(&format!("fsx-inputs-{seed}"), &lower)?;
    let mut cases = Vec::new();
    for (name, weights) in names {
        let file = mounted.path().join(name);
        let case = format!("input-{name}/{seed}");
        if fs::read(&file).at(file.display())? != content.as_bytes()[..INPUT_LENGTH] {
            cases.push(Case::fail(case, "the input is not what was declared"));
            continue;
        }
        let exercise = Exercise {
            program,
            weights,
            seed,
            operations,
        };
        cases.push(exercise.run(ground, &case, &file)?);
        let original = fs::read(lower.join(name)).at(lower.display())?;
        let untouched = original == content.as_bytes()[..INPUT_LENGTH];
        cases.push(match untouched {
            true => Case::pass(format!("original-{name}/{seed}")),
            false => Case::fail(
                format!("original-{name}/{seed}"),
                "the original was changed",
            ),
        });
    }
    Ok(cases)
}

struct Exercise<'a> {
    program: &'a Path,
    weights: &'a str,
    seed: u32,
    operations: u32,
}

impl Exercise<'_> {
    fn run(&self, ground: &Ground, case: &str, file: &Path) -> Result<Case, Trouble> {
        let config = ground.work.join("fsx.toml");
        place(&config, self.weights)?;
        let mut command = Command::new(self.program);
        command.args(["-N", &self.operations.to_string()]);
        command.args(["-S", &self.seed.to_string()]);
        command.arg("-f").arg(&config);
        command.arg("-P").arg(&ground.logs).arg(file);
        let done = ground.run(SUITE, command, LIMIT)?;
        // It says so at the end of its last operation; a file system that refuses an operation
        // makes it panic, a mismatch makes it end with status 1.
        Ok(
            match done.success() && done.output.contains("All operations completed") {
                true => Case::pass(case),
                false => Case::fail(case, done.said()),
            },
        )
    }
}
