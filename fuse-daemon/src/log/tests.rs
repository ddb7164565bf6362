//! The log by itself, without a view. `tests/log.rs` has the rest.

mod format;
mod running;

use std::path::Path;

use cas::Digest;

use super::*;
use crate::view::{Caller, InodeId, Time};

fn header() -> Header {
    Header {
        inputs: Digest::of(b"inputs"),
        owner: Caller { uid: 7, gid: 8 },
        born: Time {
            seconds: -9,
            nanoseconds: 10,
        },
    }
}

fn open(root: &Path) -> std::result::Result<(Log, Saved), Error> {
    Log::open(File::open(root).unwrap().as_fd(), header())
}

fn facts_of(root: &Path) -> Vec<Fact<u64>> {
    open(root).unwrap().1.facts
}

fn append(log: &Log, facts: &[Fact<u64>]) {
    log.append(facts, |number| *number);
}

/// Any fact with a number in it will do where only order matters.
fn fact(number: u64) -> Fact<u64> {
    Fact::Gone(InodeId(number))
}
