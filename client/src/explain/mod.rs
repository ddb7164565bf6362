//! Why a job failed, as far as its record can tell: what it looked for and was not shown. And what
//! it was shown and did not use.

mod hints;
mod told;

use std::path::Path;

use cas::RelPath;

use crate::cli::ExplainArguments;
use crate::commands::print;
use crate::error::{Error, Result, say};
use crate::shell;

pub use hints::Search;
use told::Told;

/// Hints that are given to someone who has not asked.
const UNASKED_MAX: usize = 3;

/// `wakebox explain`.
pub fn run(arguments: &ExplainArguments) -> Result<u8> {
    let told = Told::read(&arguments.result)?;
    let log = match &arguments.log {
        Some(path) => std::fs::read(path).map_err(|error| Error::io("read", path, error))?,
        None => Vec::new(),
    };
    if let Some(absent) = told.absent() {
        let search = Search {
            workspace: &arguments.workspace,
            log: &String::from_utf8_lossy(&log),
            made: &told.outputs,
            store: None,
        };
        explain(&search, &absent)?;
    } else if !arguments.unused {
        return Err(Error::Usage(format!(
            "{} has no record; run the job with \"record\": \"full\" in its spec, or with \
             `wakebox run --record full --json FILE`",
            arguments.result.display()
        )));
    }
    if arguments.unused {
        tell_unused(&told, &arguments.result)?;
    }
    Ok(0)
}

fn explain(search: &Search<'_>, absent: &[RelPath]) -> Result<()> {
    let hints = search.hints(absent);
    for path in &hints {
        print(format_args!("{}", undeclared(path)))?;
    }
    if hints.is_empty() {
        print(format_args!(
            "nothing that the job looked for in vain exists in the workspace"
        ))?;
    }
    Ok(())
}

fn undeclared(path: &RelPath) -> String {
    format!("`{path}` exists in the workspace but is not declared; add it to visible")
}

fn tell_unused(told: &Told, result: &Path) -> Result<()> {
    let Some(unused) = &told.unused else {
        return Err(Error::Usage(format!(
            "{} does not say which inputs were unused; run the job with \"record\": \"full\"",
            result.display()
        )));
    };
    for path in unused {
        print(format_args!("`{path}` is declared but was not used"))?;
    }
    let covered = |path: &RelPath| told.wanted.iter().any(|wanted| path.starts_with(wanted));
    if !told.wanted.is_empty() {
        for path in told.outputs.iter().filter(|path| !covered(path)) {
            print(format_args!("`{path}` was made but is not wanted"))?;
        }
    }
    let made = |wanted: &RelPath| told.outputs.iter().any(|path| path.starts_with(wanted));
    for path in told.wanted.iter().filter(|path| !made(path)) {
        print(format_args!("`{path}` is wanted but was not made"))?;
    }
    Ok(())
}

/// Tells the user of `run`, in few lines, what a job that failed has probably missed.
pub fn unasked(search: &Search<'_>, absent: &[RelPath]) {
    let hints = search.hints(absent);
    let more = hints.len().saturating_sub(UNASKED_MAX);
    for (at, path) in hints.iter().take(UNASKED_MAX).enumerate() {
        let quoted = shell::quote([&path.as_path().into()]);
        let quoted = quoted.to_string_lossy();
        let rest = match more {
            more if more > 0 && at + 1 == UNASKED_MAX => format!(" (and {more} more)"),
            _ => String::new(),
        };
        say(format_args!("{}: -i {quoted}{rest}", undeclared(path)));
    }
}
