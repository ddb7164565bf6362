//! The kernel's own file systems keep what the probes ask for, so what a probe finds elsewhere is
//! of that file system, not of the probe.

use std::collections::BTreeSet;
use std::path::Path;

use fs_compliance::probes::{Atime, Ground, LIMIT, Shortfall, all};
use tempfile::TempDir;

const EXT4: i64 = 0xef53;
const TMPFS: i64 = 0x0102_1994;

/// In memory on every Linux.
const MEMORY: &str = "/dev/shm";
/// Wherever this project is built.
const DISK: &str = env!("CARGO_TARGET_TMPDIR");

fn ground(directory: &TempDir, elsewhere: &TempDir) -> Ground {
    let mut ground = Ground::survey(directory.path()).expect("a directory");
    ground.elsewhere = Some(elsewhere.path().to_owned());
    ground
}

fn made_in(place: &str) -> TempDir {
    TempDir::new_in(place).expect("a directory")
}

/// The probes that found that something is not offered. None may have failed.
fn not_offered(ground: &Ground) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    for probe in all() {
        match probe.run(ground, LIMIT) {
            Ok(()) => {}
            Err(Shortfall::NotSupported(reason)) if reason.starts_with("needs ") => {}
            Err(Shortfall::NotSupported(_)) => drop(found.insert(probe.name)),
            Err(Shortfall::Failed(what)) => panic!("{}: {what}", probe.name),
        }
    }
    found
}

fn kind(place: &str) -> i64 {
    rustix::fs::statfs(Path::new(place))
        .expect("a file system")
        .f_type
}

#[test]
fn memory_keeps_what_it_offers() {
    assert_eq!(kind(MEMORY), TMPFS);
    let (here, elsewhere) = (made_in(MEMORY), made_in(DISK));
    let ground = ground(&here, &elsewhere);
    let mut expected = BTreeSet::from([
        "extents_are_told",
        "file_is_cloned",
        "range_is_collapsed",
        "range_is_inserted",
        "range_is_unshared",
        "range_is_zeroed",
    ]);
    if ground.root {
        expected.insert("file_takes_the_swap");
    }
    assert_eq!(not_offered(&ground), expected);
    assert_eq!(
        std::fs::read_dir(here.path()).expect("a listing").count(),
        0
    );
}

#[test]
fn ext4_keeps_what_it_offers() {
    if kind(DISK) != EXT4 {
        eprintln!("not run: {DISK} is not on ext4");
        return;
    }
    let (here, elsewhere) = (made_in(DISK), made_in(MEMORY));
    let expected = BTreeSet::from(["file_is_cloned", "range_is_unshared"]);
    assert_eq!(not_offered(&ground(&here, &elsewhere)), expected);
}

#[test]
fn a_promise_that_is_not_kept_is_a_failure_that_says_what_was_seen() {
    let (here, elsewhere) = (made_in(MEMORY), made_in(DISK));
    let mut ground = ground(&here, &elsewhere);
    let probes = all();
    let probe = probes
        .iter()
        .find(|probe| probe.name == "reading_moves_the_access_time");
    let probe = probe.expect("the probe");
    assert_eq!(probe.run(&ground, LIMIT), Ok(()));
    // The mount keeps another promise than is now expected of it.
    ground.atime = match ground.atime {
        Atime::Never => Atime::Always,
        Atime::Relative | Atime::Always => Atime::Never,
    };
    let moved = ground.atime == Atime::Never;
    let seen = format!("whether it moved is {moved}, not {}", !moved);
    assert_eq!(probe.run(&ground, LIMIT), Err(Shortfall::Failed(seen)));
}

#[test]
fn each_probe_has_a_name_of_its_own_and_says_what_must_hold() {
    let probes = all();
    let names: BTreeSet<&str> = probes.iter().map(|probe| probe.name).collect();
    assert_eq!(names.len(), probes.len());
    let sentences: BTreeSet<&str> = probes.iter().map(|probe| probe.holds).collect();
    assert_eq!(sentences.len(), probes.len());
    assert_eq!(
        probes.last().map(|probe| probe.name),
        Some("file_takes_the_swap")
    );
}
