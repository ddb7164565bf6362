//! Every operation on declared paths and on a job's own, by errno; and what counts as input and
//! output. `view` goes further into each; this is the whole table in one job.

#[path = "operations/sets.rs"]
mod sets;
#[path = "operations/table.rs"]
mod table;

use wakebox_tests::needs_fuse;
use wakebox_tests::operated::Job;

use crate::view::steps::{Done, Refused, Told, job};

fn declared(user: u32) -> Job {
    let mut job = Job { user, ..job() };
    job.declare("d/in", b"declared\n", 0o644, false);
    job.declare("d/run", b"#!/bin/sh\nexit 7\n", 0o755, false);
    job.declare_link("link", "d/in");
    job.declare_directory("vd", 0o755);
    job.declare_directory("sealed", 0o555);
    job
}

#[test]
fn every_operation_does_what_the_table_says() {
    needs_fuse!();
    let rows = table::rows();
    let steps = rows
        .iter()
        .flat_map(|(name, steps)| steps.iter().map(move |step| (name, step)));
    let operations: Vec<_> = steps
        .clone()
        .map(|(_, (operation, _))| operation.clone())
        .collect();
    for cached in [false, true] {
        let job = Job {
            cached,
            ..declared(1000)
        };
        let operated = job.run(&operations, None);
        let outcomes = steps.clone().zip(&operated.view);
        let wrong: Vec<_> = outcomes
            .filter(|((_, (_, expect)), outcome)| match (expect, outcome) {
                (Done, Ok(_)) => false,
                (Told(expected), Ok(told)) => expected != told,
                (Refused(expected), Err(errno)) => expected != errno,
                _ => true,
            })
            .map(|((name, (operation, expect)), outcome)| {
                format!("{name}: {operation:?}: {expect:?}, but {outcome:?}\n")
            })
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.concat());
    }
}
