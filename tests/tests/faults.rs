//! Short runs of faults; the program `faults` has long ones.

use wakebox_tests::faults::{Kills, Soak, Victim};
use wakebox_tests::{Place, needs_fuse, skip};

fn kill(victim: Victim) {
    let (count, jobs, seed) = (10, 16, 7);
    let kills = Kills {
        victim,
        count,
        jobs,
        seed,
    };
    match kills.run(&Place::new()) {
        Ok(figures) => println!("{figures}"),
        Err(wrong) => panic!("{wrong}"),
    }
}

#[test]
fn nothing_is_lost_or_left_when_daemons_are_killed() {
    needs_fuse!();
    kill(Victim::Daemon);
}

#[test]
fn nothing_is_lost_or_left_when_clients_are_killed() {
    needs_fuse!();
    kill(Victim::Client);
}

/// What a job costs once, such as its tree that is kept for the next with the same inputs, is there
/// after the first look.
#[test]
fn a_daemon_stays_as_it_is_over_many_jobs() {
    needs_fuse!();
    let soak = Soak {
        looks: vec![100, 400],
        jobs: 8,
    };
    let samples = soak.run(&Place::new()).expect("all jobs succeed");
    let [early, late] = samples[..] else {
        panic!("{samples:?}");
    };
    assert!(late.memory < early.memory + 4096, "{samples:?}");
    // Jobs that run at the moment have some, never more than what eight need.
    assert!(late.descriptors < 120 && late.threads < 60, "{samples:?}");
}

/// Calls the program `faults` in a mount namespace of its own.
fn faults(arguments: &str) {
    let place = Place::new();
    let program = env!("CARGO_BIN_EXE_faults");
    let script = format!("TMPDIR=$ROOT/home exec '{program}' {arguments}");
    match place.in_mount_namespace(&script) {
        Some(outcome) => println!("{}", outcome.expect(0).stdout()),
        None => skip!("cannot mount here"),
    }
}

#[test]
fn a_store_that_fails_at_any_operation_is_told_of_and_stays_sound() {
    needs_fuse!();
    faults("errors 29");
}

#[test]
fn a_store_that_is_full_at_any_level_is_told_of_and_stays_sound() {
    needs_fuse!();
    faults("full 6");
}

#[test]
fn what_a_durable_result_names_is_flushed_before_it() {
    needs_fuse!();
    faults("durable");
}
