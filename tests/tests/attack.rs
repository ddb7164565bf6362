//! Hostile jobs. Each test runs one attack in every kind of sandbox, as root and as an ordinary
//! user, and looks at the world from outside after each: store, files, processes, mounts, kernel.

#[path = "attack/world.rs"]
mod world;

use std::collections::BTreeSet;

use wakebox_tests::attack::ATTACKS;

use world::{Sandbox, User, World};

/// Every sandbox for every user.
fn everywhere(attack: &str) {
    wakebox_tests::needs_fuse!();
    for sandbox in Sandbox::ALL {
        World::new(User::Own, sandbox).survives(attack);
    }
    for sandbox in [Sandbox::Hermetic, Sandbox::BatchAsRoot] {
        World::new(User::Ordinary, sandbox).survives(attack);
    }
}

macro_rules! attacks {
    ($($test:ident $attack:literal)*) => {
        $(#[test]
        fn $test() {
            everywhere($attack);
        })*

        /// Every attack that the program knows is made.
        #[test]
        fn no_attack_is_left_out() {
            let made = BTreeSet::from([$($attack),*]);
            let known: BTreeSet<_> = ATTACKS.iter().map(|(name, _)| *name).collect();
            assert_eq!(made, known);
        }
    };
}

attacks! {
    attack_declared_inputs_cannot_be_changed "inputs"
    attack_store_staging_and_sockets_cannot_be_reached "store"
    attack_undeclared_files_cannot_be_read "undeclared"
    attack_names_like_ours_are_just_names "names"
    attack_swapping_links_wins_no_race "races"
    attack_nobody_becomes_somebody_else "privileges"
    attack_devices_cannot_be_made_or_changed "devices"
    attack_proc_shows_no_other_process "proc"
    attack_no_other_process_can_be_traced "trace"
    attack_no_other_process_can_be_signalled "signals"
    attack_nothing_is_inherited "descriptors"
    attack_passed_descriptors_gain_nothing "passing"
    attack_mounts_cannot_be_taken_away "unmount"
    attack_mounts_cannot_be_taken_away_as_nested_root "unmount-nested"
    attack_what_is_covered_cannot_be_uncovered "uncover-nested"
    attack_the_root_cannot_be_left "roots"
    attack_no_other_namespace_can_be_joined "namespaces"
    attack_handles_open_nothing_hidden "handles"
    attack_handles_open_nothing_hidden_as_nested_root "handles-nested"
    attack_nobody_outside_can_be_talked_to "sockets"
    attack_no_memory_is_shared "memory"
    attack_nothing_is_typed_into_the_terminal "terminal"
    attack_the_kernel_obeys_no_job "kernel"
}

/// Where there is no sandbox, these succeed: in one they are not refused for other reasons. The others
/// would do harm there, or have not been tried.
#[test]
fn attacks_succeed_without_a_sandbox() {
    let mut attacks = vec!["undeclared", "store", "inputs", "uncover-nested"];
    if rustix::process::geteuid().is_root() {
        attacks.push("handles");
    }
    for attack in attacks {
        let world = World::new(User::Own, Sandbox::None);
        let told = world.attempt(attack);
        assert!(told.contains("ESCAPED"), "{attack}: {told}");
    }
}

/// The look from outside finds what it is for.
#[test]
fn a_changed_world_is_noticed() {
    let world = World::new(User::Own, Sandbox::Hermetic);
    let before = world.look();
    assert_eq!(world.look(), before);
    world.place.write("secret", "changed");
    assert_ne!(world.look(), before);
}
