//! `docs/security.md` promises nothing that no test proves.

use std::collections::BTreeSet;

use crate::compatibility::tests;
use crate::semantics::rows;

fn document() -> &'static str {
    include_str!("../../docs/security.md")
}

#[test]
fn every_promise_names_tests_that_exist() {
    let known = tests();
    let rows = rows(document());
    assert!(rows.len() > 20, "only {} rows", rows.len());
    for row in rows {
        let proofs = row.last().expect("a last cell");
        let names: Vec<_> = proofs.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test is named in {row:?}");
        for name in names {
            assert!(known.contains(name), "no test is called {name}, in {row:?}");
        }
    }
}

/// An attack that nobody relies on is either superfluous or a promise that was forgotten.
#[test]
fn every_attack_proves_a_promise() {
    let attacks = include_str!("attack.rs").lines();
    let names = attacks.filter_map(|line| line.trim().split_once(" \""));
    let names: BTreeSet<_> = names
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("attack_"))
        .collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(document().contains(&format!("`{name}`")), "{name}");
    }
}
