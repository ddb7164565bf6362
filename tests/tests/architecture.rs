//! Who may know whom: the doors of the house, kept shut by a test.

use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(folder);
    let mut files = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)
            .expect("a source folder")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                files.push((path, text));
            }
        }
    }
    files
}

#[track_caller]
fn forbid(folder: &str, words: &[&str], except: &[&str]) {
    for (path, text) in sources(folder) {
        let allowed = except
            .iter()
            .any(|part| path.to_string_lossy().contains(part));
        // Only code: documentation may speak of anything.
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for word in words.iter().filter(|_| !allowed) {
            let found = code.clone().find(|line| line.contains(word));
            assert!(found.is_none(), "{}: {word:?} in {found:?}", path.display());
        }
    }
}

#[test]
fn only_the_fuse_folder_speaks_the_kernels_protocol() {
    let protocol = ["zerocopy", "InHeader", "OutHeader", "opcode::"];
    for folder in ["cas/src", "fuse-daemon/src", "client/src"] {
        forbid(folder, &protocol, &["src/fuse/"]);
        forbid(folder, &["fuser::"], &[]);
    }
}

#[test]
fn the_protocol_is_decoded_and_encoded_without_io() {
    let io = ["std::fs", "std::os", "rustix::fs", "libc", "crate::job"];
    let others = [
        "convert",
        "descriptors",
        "device",
        "dispatch",
        "errno",
        "extended",
        "interrupt",
        "listing",
        "mod",
        "panic_tests",
        "passthrough",
        "placement",
        "session",
    ]
    .map(|name| format!("src/fuse/{name}.rs"));
    forbid(
        "fuse-daemon/src/fuse",
        &io,
        &others.each_ref().map(String::as_str),
    );
}

#[test]
fn the_view_is_pure() {
    let io = [
        "std::fs",
        "std::io",
        "std::time",
        "std::thread",
        "std::sync",
        "rustix",
        "libc",
        "tracing",
    ];
    forbid("fuse-daemon/src/view", &io, &[]);
    forbid(
        "fuse-daemon/src/view",
        &["crate::job", "crate::fuse", "cas::store", "cas::Store"],
        &[],
    );
}

#[test]
fn a_log_knows_views_and_staging_files_only() {
    let others = [
        "crate::job",
        "crate::fuse",
        "crate::control",
        "crate::registry",
        "crate::daemon",
        "cas::Store",
        "cas::store",
    ];
    forbid("fuse-daemon/src/log", &others, &[]);
}

#[test]
fn fuse_and_control_do_not_know_each_other_but_for_serving() {
    forbid(
        "fuse-daemon/src/fuse",
        &["crate::control", "crate::registry", "crate::daemon"],
        &[],
    );
    forbid("fuse-daemon/src", &["crate::daemon"], &[]);
}

#[test]
fn the_store_knows_nothing_of_those_who_use_it() {
    forbid("cas/src", &["fuse_daemon", "client::"], &[]);
    forbid("fuse-daemon/src", &["client::"], &[]);
}

#[test]
fn the_client_starts_the_daemon_in_one_place_and_knows_no_more_of_it() {
    forbid("client/src", &["fuse_daemon"], &["commands.rs"]);
}

#[test]
fn conformance_is_tested_through_the_program_only() {
    let crates = ["cas::", "fuse_daemon", "client::"];
    forbid("fs-compliance/src", &crates, &[]);
}

#[test]
fn unsafe_code_lives_in_the_files_that_say_so() {
    let named = [
        "cas/src/staging.rs",
        "fuse-daemon/src/fuse/device.rs",
        "fuse-daemon/src/fuse/interrupt.rs",
        "fuse-daemon/src/memory.rs",
        "fuse-daemon/src/mounts.rs",
        "fuse-daemon/src/origin.rs",
        "client/src/sandbox/apply.rs",
    ];
    for folder in ["cas/src", "fuse-daemon/src", "client/src"] {
        forbid(folder, &["unsafe {", "unsafe fn", "unsafe impl"], &named);
    }
}
