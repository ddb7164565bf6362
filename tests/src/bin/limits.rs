//! Runs the jobs of `wakebox_tests::limits`, or those whose name has a word: `limits [WORD]`. Exits
//! with 1 if one is not as it should be.

use std::process::ExitCode;
use std::time::Instant;

use wakebox_tests::limits::LIMITS;
use wakebox_tests::{Place, cannot_mount};

fn main() -> ExitCode {
    if let Some(reason) = cannot_mount() {
        println!("SKIPPED limits: {reason}");
        return ExitCode::SUCCESS;
    }
    let word = std::env::args().nth(1).unwrap_or_default();
    let mut failed = false;
    for limit in LIMITS.iter().filter(|limit| limit.name.contains(&word)) {
        let begun = Instant::now();
        let outcome = (limit.try_it)(&Place::new());
        failed |= outcome.is_err();
        let (verdict, told) = match outcome {
            Ok(figures) => ("ok", figures),
            Err(wrong) => ("FAILED", wrong.chars().take(600).collect()),
        };
        println!(
            "{verdict}: {}: {told} ({:.0} s)",
            limit.name,
            begun.elapsed().as_secs_f64()
        );
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
