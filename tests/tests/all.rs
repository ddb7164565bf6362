//! One binary for all tests of the whole; each file is a room of it.
#![allow(clippy::disallowed_methods, reason = "tests write plain files")]

mod architecture;
mod attack;
mod bad_input;
mod batch;
mod check;
mod compatibility;
mod compile;
mod control;
mod cow;
mod crash;
mod differential;
mod doctor;
mod explain;
mod faults;
mod fsck;
mod fuzz;
mod gc;
mod hermetic;
mod input_root;
mod jobs;
mod kept;
mod key;
mod large_spec;
mod learn;
mod lifecycle;
mod mount;
mod mount_crash;
mod mounts;
mod operations;
mod original;
mod parallel;
mod placement;
mod reckless;
mod record;
mod recover;
mod reference;
mod requirements;
mod run;
mod schemas;
mod security;
mod semantics;
mod smoke;
mod staging;
mod store;
mod terminal;
mod view;
mod wake;

/// A file that is not listed would never be compiled, let alone run.
#[test]
fn every_file_is_listed_in_order() {
    let listed: Vec<_> = include_str!("all.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    assert!(listed.is_sorted(), "{listed:?}");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect(folder)
        .map(|entry| entry.expect(folder).path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .filter(|name| name != "all")
        .collect();
    files.sort();
    assert_eq!(listed, files);
}
