//! The view against a model that is too simple to be wrong: random operations on both, every
//! answer and everything that can be seen compared after each.
//!
//! Each run has a fresh seed and prints it. To repeat one: `PROPTEST_RNG_SEED=<seed>`. What failed
//! once is kept in `model.proptest-regressions` and is tried first.

#[path = "model/harness.rs"]
mod harness;
#[path = "model/operation.rs"]
mod operation;
#[path = "model/reference.rs"]
mod reference;
#[path = "model/regressions.rs"]
mod regressions;

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use proptest::test_runner::{
    Config, FileFailurePersistence, RngSeed, TestCaseError, TestError, TestRunner,
};

use harness::World;

const SEQUENCES: u32 = 1000;
const STEPS: usize = 120;

/// Past the capture of the test harness: a seed that nobody sees is of no use.
fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

fn config() -> Config {
    let kept = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/model.proptest-regressions"
    );
    // The default has the seed of the environment, if there is one.
    let default = Config::default();
    let seed = match default.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one("model"),
    };
    say(&format!("model: PROPTEST_RNG_SEED={seed}"));
    Config {
        cases: SEQUENCES.max(default.cases),
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_time: 30_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        ..default
    }
}

#[test]
fn the_view_does_what_the_model_does() {
    let (begin, operations) = (Instant::now(), AtomicUsize::new(0));
    let strategy = (
        operation::entries(),
        operation::changeable(),
        operation::steps(STEPS),
    );
    let outcome = TestRunner::new(config()).run(&strategy, |(entries, changeable, steps)| {
        let mut world = World::new(entries, &changeable).map_err(TestCaseError::fail)?;
        for (at, step) in steps.iter().enumerate() {
            let verdict = world.run(step);
            verdict.map_err(|e| TestCaseError::fail(format!("step {at}, {step:?}: {e}")))?;
        }
        operations.fetch_add(steps.len(), Ordering::Relaxed);
        world.end().map_err(TestCaseError::fail)
    });
    let operations = operations.into_inner();
    say(&format!(
        "model: {operations} operations in {:.1?}",
        begin.elapsed()
    ));
    match outcome {
        Ok(()) => assert!(operations >= 100_000, "only {operations} operations"),
        Err(TestError::Fail(reason, (entries, changeable, steps))) => {
            let lines = |all: Vec<String>| all.join("\n  ");
            let entries = entries.iter().map(|entry| format!("{entry:?}"));
            let steps = steps.iter().map(|step| format!("{step:?}"));
            let (entries, steps) = (lines(entries.collect()), lines(steps.collect()));
            panic!("{reason}\ndeclared:\n  {entries}\nto change: {changeable:?}\nsteps:\n  {steps}")
        }
        Err(error) => panic!("{error}"),
    }
}
