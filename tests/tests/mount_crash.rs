//! A mount whose serving process is killed loses nothing that was answered.

use wakebox_tests::{Place, needs_fuse, skip};

/// How often it is killed, unless `WAKEBOX_KILLS` says so: enough for two states, one of which
/// has its log replaced all the time.
const KILLS: usize = 15;

#[test]
fn whatever_was_answered_is_there_after_a_kill() {
    needs_fuse!();
    let set = |name: &str| std::env::var(name).ok().and_then(|set| set.parse().ok());
    let kills = set("WAKEBOX_KILLS").unwrap_or(KILLS);
    let seed = set("WAKEBOX_SEED").unwrap_or(1);
    let place = Place::new();
    let program = env!("CARGO_BIN_EXE_mount_crash");
    let script = format!("exec '{program}' \"$WAKEBOX\" {kills} {seed} \"$ROOT/home\"");
    let Some(outcome) = place.in_mount_namespace(&script) else {
        skip!("cannot mount here");
    };
    let told = outcome.expect(0).stdout();
    assert!(told.contains(&format!("kills: {kills},")), "{told}");
    assert!(!told.contains("answered: 0,"), "{told}");
    println!("{told}");
}
