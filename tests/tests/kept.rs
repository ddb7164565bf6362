//! What a mount keeps from one time to the next, where a job keeps nothing and may change no
//! input.

use wakebox_tests::{Place, needs_fuse, skip};

/// Runs a script between mounts of one state: `again` unmounts and mounts.
macro_rules! run {
    ($place:expr, $script:expr) => {{
        needs_fuse!();
        let words = "cd \"$ROOT/home\"; mkdir m in in/d; echo declared >in/f; echo below >in/d/g
            ln -s f in/l; chmod 640 in/f; chown 7:8 in/d/g; touch -d '2001-02-03 04:05:06.789Z' in/f
            again() { umount m; $WAKEBOX mount w m -o state=s,inputs=in; }
            $WAKEBOX mount w m -o state=s,inputs=in
            cd m
        ";
        let script = format!("{words}{}\ncd ..; umount m", $script);
        let Some(outcome) = $place.in_mount_namespace(&script) else {
            skip!("cannot mount here");
        };
        outcome.expect(0).stdout()
    }};
}

#[test]
fn inputs_of_a_mount_are_changed_as_copies() {
    let place = Place::new();
    let script = "
        exec 5<f; echo more >>f; cat <&5 | tr '\\n' ' '; cat f | tr '\\n' ' '; exec 5<&-
        chmod 600 d/g; mv d/g d/h; ln d/h other; rm l; echo new >l; mv d e
        cd ..; again; cd m
        find . | sort | tr '\\n' ' '; cat f e/h other l | tr '\\n' ' '; stat -c '%a %h %u:%g' e/h
        rm -r e f l; cd ..; again; cd m; ls | tr '\\n' ' '
        cd ../in; find . | sort | tr '\\n' ' '; cat f d/g; stat -c %a f; cd ../m";
    let told = run!(place, script);
    let expected = "declared more declared more \
        . ./e ./e/h ./f ./l ./other declared more below below new 600 2 7:8\n\
        other . ./d ./d/g ./f ./l declared\nbelow\n640\n";
    assert_eq!(told, expected);
}

#[test]
fn attributes_lists_and_flags_outlive_the_mount() {
    let place = Place::new();
    let script = "
        for word in setfattr getfattr setfacl getfacl chattr lsattr; do
            command -v $word >/dev/null || { echo no $word; exit; }
        done
        setfattr -n user.a -v b f; setfacl -m u:7:r d; chattr +d e 2>/dev/null || chattr +d f
        touch -d '1969-12-31 23:59:58.25Z' d/g; mkfifo p; mknod n c 1 3; chown 7:8 p; chmod 4711 d/g
        stat -c '%n %i %a %u:%g %.9Y %W %F' f d d/g l p n >../before
        cd ..; again; cd m
        stat -c '%n %i %a %u:%g %.9Y %W %F' f d d/g l p n | diff - ../before && echo the same
        getfattr -n user.a --only-values f; echo; getfacl -nc d | grep user:7; lsattr f | cut -c7
        ";
    let told = run!(place, script);
    if told.starts_with("no ") {
        skip!(told);
    }
    assert_eq!(told, "the same\nb\nuser:7:r--\nd\n");
}

#[test]
fn a_job_has_no_attributes_and_keeps_times_of_access() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "x");
    let script = "stat -c %X in . >1; sleep 1.1; cat in >/dev/null; ls >/dev/null
        stat -c %X in . >2; diff 1 2
        if setfattr -n user.a -v b 2; then exit 1; fi
        if chattr +d 2; then exit 1; fi";
    let outcome = place.run(&["-i", "in", "--", "/bin/sh", "-ec", script]);
    outcome.expect(0);
}
