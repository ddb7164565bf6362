//! `fuse-daemon/SEMANTICS.md` promises nothing that no test proves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The functions that carry `#[test]` below a folder.
pub(crate) fn tests_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let bodies = text.split("#[test]").skip(1);
            let names = bodies.filter_map(|body| body.split_once("fn ")?.1.split_once('('));
            found.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

/// The probes of `fs-compliance`, as the list names them: `probes! {` has a line for each, its name
/// and the promise.
fn probes(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("the probes").flatten() {
        let text = std::fs::read_to_string(entry.path()).expect("a source file");
        let list = text.split("probes! {").nth(1).unwrap_or_default();
        let list = list.split("\n}").next().unwrap_or_default();
        let names = list
            .lines()
            .filter_map(|line| line.trim().split_once(" \""));
        found.extend(names.map(|(name, _)| format!("probes::{name}")));
    }
}

/// The rows of all tables, cell by cell, without headings.
pub(crate) fn rows(document: &str) -> Vec<Vec<&str>> {
    let lines: Vec<_> = document.lines().collect();
    let is_rule = |line: &str| line.starts_with("|--") || line.starts_with("| --");
    let heads_table = |at: usize| lines.get(at + 1).is_some_and(|next| is_rule(next));
    let of_table = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| line.starts_with('|'));
    of_table
        .filter(|(at, line)| !is_rule(line) && !heads_table(*at))
        .map(|(_, line)| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn every_row_names_a_test_that_exists() {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document =
        std::fs::read_to_string(root.join("fuse-daemon/SEMANTICS.md")).expect("the list");
    let mut known = BTreeSet::new();
    for folder in [
        "cas/src",
        "fuse-daemon/src",
        "fuse-daemon/tests",
        "tests/tests",
    ] {
        tests_below(&root.join(folder), &mut known);
    }
    probes(&root.join("fs-compliance/src/probes"), &mut known);
    let rows = rows(&document);
    assert!(
        rows.len() > 30,
        "only {} rows: are they still tables?",
        rows.len()
    );
    for row in rows {
        let proofs = row.last().expect("a last cell");
        let names: Vec<_> = proofs.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test is named in {row:?}");
        for name in names {
            assert!(known.contains(name), "no test is called {name}, in {row:?}");
        }
    }
}
