//! `docs/compatibility.md` leaves nothing out and promises nothing that no test proves.

use std::collections::BTreeSet;
use std::path::Path;

use crate::semantics::{rows, tests_below};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    std::fs::read_to_string(path).expect("the list")
}

/// The functions that are tests, of all packages.
pub(crate) fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeSet::new();
    for folder in [
        "cas/src",
        "client/src",
        "client/tests",
        "fuse-daemon/src",
        "fuse-daemon/tests",
        "tests/tests",
    ] {
        tests_below(&root.join(folder), &mut found);
    }
    // Made by a macro, one line for each: `name "attack"`.
    let attacks = include_str!("attack.rs").lines();
    let named = attacks.filter_map(|line| line.trim().split_once(" \""));
    found.extend(named.map(|(name, _)| name.to_owned()));
    found
}

/// What is wrong with a document, row by row.
fn faults(document: &str, known: &BTreeSet<String>) -> Vec<String> {
    let mut faults = Vec::new();
    for row in rows(document) {
        let (what, proofs) = (row[0], row[row.len() - 1]);
        let excused = row.iter().any(|cell| cell.starts_with("not here: "));
        let names: Vec<_> = proofs.split('`').skip(1).step_by(2).collect();
        let unknown = names.iter().filter(|name| !known.contains(**name));
        faults.extend(unknown.map(|name| format!("{what}: no test is called {name}")));
        if names.is_empty() && !excused {
            faults.push(format!("{what}: no test, and no reason"));
        }
        let is_numbered = what.len() < 4 && what.starts_with(['R', 'D']);
        let has_state = ["done", "partly: ", "not here: "]
            .iter()
            .any(|state| row.get(2).is_some_and(|cell| cell.starts_with(state)));
        if is_numbered && !has_state {
            faults.push(format!("{what}: no state"));
        }
    }
    faults
}

#[test]
fn every_requirement_and_defect_has_a_row() {
    let document = document();
    let listed: Vec<_> = rows(&document)
        .iter()
        .map(|row| row[0].to_owned())
        .collect();
    let numbers = |letter: char, last: usize| (1..=last).map(move |n| format!("{letter}{n}"));
    let wanted: Vec<_> = numbers('R', 31).chain(numbers('D', 25)).collect();
    assert_eq!(listed[..wanted.len()], wanted);
}

#[test]
fn every_row_of_the_list_has_its_tests() {
    let faults = faults(&document(), &tests());
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The check itself finds what it is for.
#[test]
fn a_row_without_a_test_is_found() {
    let document = "| id | what | state | tests |\n|---|---|---|---|\n\
        | R1 | fine | done | `a` |\n| R2 | gone | done | `a` `b` |\n| R3 | none | done | |\n\
        | R4 | excused | not here: no | |\n| D5 | odd | perhaps | `a` |\n";
    let found = faults(document, &BTreeSet::from(["a".to_owned()]));
    assert_eq!(
        found,
        [
            "R2: no test is called b",
            "R3: no test, and no reason",
            "D5: no state"
        ]
    );
}
