//! The mounted view against a plain directory of the same file system: random operations in both,
//! by the same program in the same job, and every outcome compared.
//!
//! Each run has a fresh seed and prints it. To repeat one: `PROPTEST_RNG_SEED=<seed>`.

#[path = "differential/generate.rs"]
mod generate;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngSeed, TestRunner};
use wakebox_tests::needs_fuse;
use wakebox_tests::operated::Job;
use wakebox_tests::operation::{Operation, Outcome, text};

const SEQUENCES: usize = 40;
const STEPS: usize = 200;

const PROGRAM: &str = env!("CARGO_BIN_EXE_operate");

/// The file that every sequence begins with: an input that the job may rewrite.
const BEGIN: &[u8] = &[b'x'; 10_000];

/// Past the capture of the test harness: a seed that nobody sees is of no use.
fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Sequences, each for a directory of its own, from a seed that is told.
fn sequences(name: &str, count: usize) -> Vec<Vec<Operation>> {
    let mut config = Config::default();
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(std::hash::BuildHasher::hash_one(
            &std::hash::RandomState::new(),
            name,
        ));
    }
    if let RngSeed::Fixed(seed) = config.rng_seed {
        say(&format!("differential, {name}: PROPTEST_RNG_SEED={seed}"));
    }
    let mut runner = TestRunner::new(config);
    let strategy = proptest::collection::vec(generate::operation(), STEPS);
    let mut sequence = || {
        strategy
            .new_tree(&mut runner)
            .expect("a sequence")
            .current()
    };
    (0..count)
        .map(|_| [generate::beginning(), sequence()].concat())
        .collect()
}

/// Runs sequences in one job, and returns operations with both outcomes, by sequence.
fn run(sequences: &[Vec<Operation>], cached: bool) -> Vec<Vec<(Operation, Outcome, Outcome)>> {
    let plain = tempfile::tempdir().expect("a directory");
    let mut job = Job {
        cached,
        ..Job::new(PROGRAM)
    };
    let mut operations = Vec::new();
    for (number, sequence) in sequences.iter().enumerate() {
        let directory = format!("s{number:02}");
        job.declare_directory(&directory, 0o755);
        job.declare(&format!("{directory}/a"), BEGIN, 0o644, true);
        begin_plain(&plain.path().join(&directory));
        operations.push(Operation::Enter {
            path: text(directory),
        });
        operations.extend(sequence.iter().cloned());
        operations.push(Operation::Tree);
    }
    let operated = job.run(&operations, Some(plain.path()));
    let expected = if cached { "cached" } else { "passthrough" };
    if operated.result["data-path"] != expected {
        say(&format!(
            "SKIPPED {expected}: data path is {}",
            operated.result["data-path"]
        ));
    }
    assert_eq!(
        (operated.view.len(), operated.plain.len()),
        (operations.len(), operations.len())
    );
    let outcomes = operated.view.into_iter().zip(operated.plain);
    let mut all = operations
        .into_iter()
        .zip(outcomes)
        .map(|(o, (v, p))| (o, v, p));
    sequences
        .iter()
        .map(|one| all.by_ref().take(one.len() + 2).collect())
        .collect()
}

/// Whether two outcomes are the same. Of two reasons to refuse, the view may tell another one when
/// permission is among them: the kernel leaves that to the file system, and finds the rest first.
fn agree(view: &Outcome, plain: &Outcome) -> bool {
    match (view, plain) {
        (Err(view), Err(plain)) => view == plain || [*view, *plain].contains(&libc::EACCES),
        _ => view == plain,
    }
}

fn begin_plain(directory: &Path) {
    std::fs::create_dir(directory).expect("a directory");
    let file = directory.join("a");
    std::fs::write(&file, BEGIN).expect("a file");
    let mtime = std::time::UNIX_EPOCH
        + std::time::Duration::from_nanos(wakebox_tests::operated::MTIME as u64);
    let opened = std::fs::File::options()
        .write(true)
        .open(&file)
        .expect("a file");
    opened.set_modified(mtime).expect("a time");
    for path in [directory, &file] {
        let mode = if path == file { 0o644 } else { 0o755 };
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("a mode");
    }
}

/// Leaves out what is not needed for two outcomes to differ.
fn minimise(mut sequence: Vec<Operation>, cached: bool) -> Vec<(Operation, Outcome, Outcome)> {
    let differ =
        |outcomes: &[(Operation, Outcome, Outcome)]| outcomes.iter().any(|(_, v, p)| !agree(v, p));
    let mut size = sequence.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < sequence.len() {
            let end = (at + size).min(sequence.len());
            let without = [&sequence[..at], &sequence[end..]].concat();
            if differ(&run(std::slice::from_ref(&without), cached)[0]) {
                sequence = without;
            } else {
                at = end;
            }
        }
        size /= 2;
    }
    run(std::slice::from_ref(&sequence), cached).remove(0)
}

fn compare(name: &str, count: usize, cached: bool) {
    let sequences = sequences(name, count);
    let outcomes = run(&sequences, cached);
    let all = || outcomes.iter().flatten();
    let worked = all().filter(|(_, view, _)| view.is_ok()).count();
    say(&format!(
        "differential, {name}: {} operations, {worked} worked",
        all().count()
    ));
    for (sequence, outcomes) in sequences.into_iter().zip(&outcomes) {
        let Some(first) = outcomes
            .iter()
            .position(|(_, view, plain)| !agree(view, plain))
        else {
            continue;
        };
        let smallest = minimise(sequence[..first.min(sequence.len())].to_vec(), cached);
        let lines = smallest.iter().map(|(operation, view, plain)| {
            let mark = if agree(view, plain) { "  " } else { "! " };
            format!("{mark}{operation:?}\n      view  {view:?}\n      plain {plain:?}")
        });
        panic!(
            "the view is not like a directory:\n{}",
            lines.collect::<Vec<_>>().join("\n")
        );
    }
    assert!(
        worked > count * STEPS / 3,
        "too little works for the comparison to mean much"
    );
}

#[test]
fn the_view_does_what_a_directory_does() {
    needs_fuse!();
    compare("passthrough", SEQUENCES, false);
}

#[test]
fn the_view_without_passthrough_does_what_a_directory_does() {
    needs_fuse!();
    compare("cached", SEQUENCES, true);
}
