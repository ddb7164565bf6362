//! One program for all targets, of which `WAKEBOX_FUZZ` names one; see `fuzz/run`.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use wakebox_tests::fuzz::TARGETS;

static TARGET: OnceLock<fn(&[u8])> = OnceLock::new();

fn choose() -> fn(&[u8]) {
    let name = std::env::var("WAKEBOX_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|(its, _)| *its == name);
    let names = TARGETS.map(|(its, _)| its).join(", ");
    found.unwrap_or_else(|| panic!("WAKEBOX_FUZZ={name}: one of {names}")).1
}

fuzz_target!(|data: &[u8]| TARGET.get_or_init(choose)(data));
