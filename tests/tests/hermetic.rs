//! What a job of `wakebox run` sees of the host, and how that is opened.

use std::path::Path;

use serde_json::{Value, json};
use wakebox_tests::{Outcome, Place, needs_fuse, skip, wakebox};

fn told(place: &Place, options: &[&str], script: &str) -> String {
    let words = [options, &["--", "sh", "-c", script]].concat();
    place.run(&words).expect(0).stdout()
}

#[test]
fn a_job_sees_the_system_and_nothing_else_of_the_host() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "x");
    let root = place.root().display();
    let script = format!(
        "ls / | tr '\\n' ' '; ls {root} | tr '\\n' ' '; ls -A /tmp/.. /home /home/job >&2; cat in
        ls /dev | tr '\\n' ' '; ls -A /dev/shm $HOME; pwd"
    );
    let told = told(&place, &[], &script);
    let system = [
        "bin", "etc", "gnu", "lib", "lib32", "lib64", "libx32", "nix", "opt", "sbin", "usr",
    ];
    let there = |name: &&str| Path::new("/").join(name).exists();
    let own = ["dev", "home", "proc", "tmp", "var"];
    let mut names: Vec<_> = system.into_iter().filter(there).chain(own).collect();
    names.sort_unstable();
    let devices = "fd full fuse null ptmx pts random shm stderr stdin stdout tty urandom zero";
    let expected = format!(
        "{} workspace x{devices} /dev/shm:\n\n/home/job:\n{}\n",
        names.join(" "),
        place.workspace().canonicalize().expect("there").display()
    );
    assert_eq!(told, expected);
}

#[test]
fn what_a_job_writes_beside_its_workspace_is_refused_or_private() {
    needs_fuse!();
    let place = Place::new();
    let script = "for path in /x /usr/x /etc/x /var/x /dev/x; do
            (: >$path) 2>&1 | grep -q 'Read-only file system' || echo $path; done
        for path in /tmp/x /var/tmp/y /home/x $HOME/x /dev/shm/x; do : >$path || echo no $path; done
        : >/dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c
        chmod 0 /dev/null 2>/dev/null || echo kept; exec 3<>/dev/ptmx && echo a terminal";
    assert_eq!(told(&place, &[], script), "4\n4\nkept\na terminal\n");
    assert!(!Path::new("/tmp/y").exists());
}

#[test]
fn a_job_has_no_network_unless_it_is_given() {
    needs_fuse!();
    let place = Place::new();
    let devices = |text: &str| {
        let names = text.lines().filter_map(|line| line.split_once(':'));
        let mut names: Vec<_> = names.map(|(name, _)| name.trim().to_owned()).collect();
        names.sort();
        names
    };
    let script = "cat /proc/net/dev";
    assert_eq!(devices(&told(&place, &[], script)), ["lo"]);
    let host = std::fs::read_to_string("/proc/net/dev").expect("the host's");
    assert_eq!(
        devices(&told(&place, &["--network"], script)),
        devices(&host)
    );
}

#[test]
fn what_is_opened_is_seen() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "x");
    let home = place.flag("");
    std::fs::write(place.flag("f"), "shown").expect("a file");
    let home = home.to_str().expect("text").trim_end_matches('/');
    let file = format!("{home}/f");
    let shown = ["--bind", home, "--bind", &format!("{file}:/elsewhere/g")];
    let script = format!("cat {file} /elsewhere/g; (: >{home}/new) 2>/dev/null || echo no");
    assert_eq!(told(&place, &shown, &script), "shownshownno\n");
    let script = format!(
        "echo new >{home}/new; rm -r {home}/.cache/wakebox 2>/dev/null; ls -A {home}/.cache/wakebox"
    );
    assert_eq!(
        told(&place, &["--rw-bind", home], &script),
        "",
        "the store is hidden"
    );
    assert_eq!(std::fs::read(place.flag("new")).expect("made"), b"new\n");
    let below = [
        "--tmpfs",
        "/scratch",
        "--bind",
        &format!("{file}:/scratch/f"),
        "--tmpfs",
        &format!("{home}/t"),
    ];
    let script = format!(": >/scratch/x; ls /scratch | tr '\\n' ' '; ls {home}; cat in");
    assert_eq!(told(&place, &below, &script), "f x t\nx");
    let place_of_all = place.root().to_str().expect("text");
    assert_eq!(
        told(&place, &["--bind", place_of_all], "ls"),
        "in\n",
        "the view lies over it"
    );
}

#[test]
fn what_cannot_be_shown_is_said() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "x");
    place.run(&["true"]).expect(0);
    let store = place.store();
    let store = store.to_str().expect("text");
    for (words, code, line) in [
        (
            &["--bind", "/does/not/exist"][..],
            125,
            "cannot show the job /does/not/exist",
        ),
        (&["--bind", ".:/"], 2, "nothing can be mounted at /"),
        (&["--tmpfs", "."], 2, "nothing can be mounted at"),
        (&["--tmpfs", "a/../b"], 2, "has no '..'"),
        (&["--bind", store], 2, "inside the store"),
        (&["--host", "--network"], 2, "cannot be used with"),
        (
            &["--tmpfs", "/usr/does/not/exist"],
            125,
            "cannot create directory /usr/does/not/exist",
        ),
    ] {
        let words = [words, &["--", "true"]].concat();
        let told = place.run(&words).expect(code).stderr();
        assert!(told.contains(line), "{told}");
    }
    let mut command = place.command(["run", "-q", "true"]);
    let output = command.current_dir("/tmp").output().expect("starts");
    let told = Outcome(output).expect(2).stderr();
    assert!(told.contains("the workspace cannot be /tmp"), "{told}");
}

#[test]
fn a_command_that_is_not_shown_is_told_of() {
    needs_fuse!();
    let place = Place::new();
    let bin = place.flag("bin");
    std::fs::create_dir(&bin).expect("a directory");
    std::os::unix::fs::symlink("/bin/echo", bin.join("mytool")).expect("a tool");
    let run = |command: &[&str]| {
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let words = ["run", "--quiet"].iter().chain(command);
        let output = place.command(words).env("PATH", path).output();
        Outcome(output.expect("starts"))
    };
    let told = run(&["mytool", "x"]).expect(127).stderr();
    let hint = format!(
        "the host has it in {0}, which the job is not shown: add --bind {0}",
        bin.display()
    );
    assert!(
        told.contains("mytool: command not found") && told.contains(&hint),
        "{told}"
    );
    let seen = "wakebox: of the host the job sees ";
    assert!(told.contains(seen) && told.contains("/usr"), "{told}");
    let shell = run(&["sh", "-c", "mytool x"]).expect(127).stderr();
    assert!(shell.contains(seen), "{shell}");
    let none = run(&["no-such-tool"]).expect(127).stderr();
    assert!(!none.contains("the host has it"), "{none}");
    let bind = bin.to_str().expect("text");
    assert_eq!(
        run(&["--bind", bind, "mytool", "x"]).expect(0).stdout(),
        "x\n"
    );
    assert_eq!(run(&["--host", "mytool", "x"]).expect(0).stdout(), "x\n");
}

#[test]
fn the_result_says_how_far_a_job_was_kept_from_the_host() {
    needs_fuse!();
    let place = Place::new();
    let file = place.flag("result.json");
    let json = file.to_str().expect("text");
    for (options, level) in [(&[][..], "hermetic"), (&["--host"], "host")] {
        let words = [options, &["--json", json, "true"]].concat();
        place.run(&words).expect(0);
        let result: Value =
            serde_json::from_slice(&std::fs::read(&file).expect("a result")).expect("JSON");
        assert_eq!(result["isolation"], level);
    }
    let mut spec = place.spec("true");
    assert_eq!(place.result_of(&spec)["isolation"], "host");
    let ops = json!([{"type": "bind", "source": "/", "destination": "/"}, {"type": "workspace", "destination": "."}]);
    spec["mount-ops"] = ops;
    assert_eq!(place.result_of(&spec)["isolation"], "root");
}

/// Namespaces, and a sandbox, inside a job.
const NESTED: &str = "unshare -Ur id -u && unshare -Urmpf true && echo nested
    cd $WORK; mkdir w; cd w; echo inner >in; HOME=$WORK $WAKEBOX run -q -- sh -c 'cat in; cat in >out'; cat out
    cd ..; $WAKEBOX run -q --host --store $WORK/s -i w -- sh -c 'cat w/out; ls /proc/self/fd >/dev/null && echo proc'";

#[test]
fn a_job_can_sandbox_in_its_turn() {
    needs_fuse!();
    let program = wakebox();
    let program = program.to_str().expect("text");
    let script = |place: &Place| {
        std::fs::create_dir(place.flag("work")).expect("a directory");
        let spec = json!({
            "command": ["sh", "-c", NESTED],
            "environment": ["PATH=/usr/bin:/bin", format!("WAKEBOX={program}"), format!("WORK={}", place.flag("work").display())],
            "mount-ops": [{"type": "workspace", "destination": "."}],
        });
        std::fs::write(place.root().join("spec"), spec.to_string()).expect("a spec");
        format!(
            "$WAKEBOX run -q --bind {program} -e WAKEBOX -e WORK=/tmp -- sh -c '{}'
            $WAKEBOX -p $ROOT/spec",
            NESTED.replace('\'', "'\\''")
        )
    };
    let expected = "0\nnested\ninner\ninner\ninner\nproc\n".repeat(2);
    let place = Place::new();
    let output = place.other("sh").args(["-ec", &script(&place)]).output();
    assert_eq!(
        Outcome(output.expect("a shell")).expect(0).stdout(),
        expected
    );
    let place = Place::new();
    match place.as_ordinary_user_with_fuse(&script(&place)) {
        Some(outcome) => assert_eq!(outcome.expect(0).stdout(), expected),
        None => skip!("cannot become an ordinary user"),
    }
}

/// As in a container that covers a part of `/proc`: the kernel lets nobody mount a new one.
#[test]
fn a_job_has_a_proc_where_no_new_one_can_be_mounted() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "x");
    let script = "cd $ROOT/workspace; mount -t tmpfs none /proc/driver
        for mode in --tmpfs=/x --host; do
            $WAKEBOX run -q $mode -- sh -c 'readlink /proc/self >/dev/null && ls -A /proc/driver && cat in
                (echo x >/proc/sys/kernel/modprobe) 2>/dev/null || echo kept
                ls /proc/[0-9]*/root/root >/dev/null 2>&1; cat /proc/1/root/etc/shadow 2>/dev/null; echo'
        done";
    let before = std::fs::read("/proc/sys/kernel/modprobe").unwrap_or_default();
    let Some(outcome) = place.in_mount_namespace(script) else {
        skip!("cannot mount here");
    };
    let after = std::fs::read("/proc/sys/kernel/modprobe").unwrap_or_default();
    assert_eq!(outcome.expect(0).stdout(), "xkept\n\n".repeat(2));
    assert_eq!(before, after);
}

/// Regression: a mount of the host's that shows the workspace or the store again gave a job what
/// its view hides.
#[test]
fn further_names_of_store_and_workspace_are_covered() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "x");
    place.write("secret", "undeclared");
    let script = "cd $ROOT/workspace; $WAKEBOX run -q true; mkdir $ROOT/w $ROOT/s $ROOT/b $ROOT/all
        mount --bind $ROOT/workspace $ROOT/w; mount --bind $ROOT/home/.cache/wakebox $ROOT/s
        mount --bind $ROOT/home/.cache/wakebox/blobs $ROOT/b; mount --bind $ROOT $ROOT/all
        look='ls . $ROOT/w $ROOT/all/workspace; ls -A $ROOT/s $ROOT/b $ROOT/all/home/.cache/wakebox; echo out >$ROOT/w/out'
        $WAKEBOX run -q --host -e ROOT -i in -- sh -ec \"$look\"; cat out; echo --
        $WAKEBOX run -q -e ROOT -i in --bind $ROOT/w:/w -- sh -ec 'ls $ROOT; ls /w'";
    let Some(outcome) = place.in_mount_namespace(script) else {
        skip!("cannot mount here");
    };
    let root = place.root().display();
    let views = [".", &format!("{root}/w"), &format!("{root}/all/workspace")]
        .map(|path| format!("{path}:\nin\n"));
    let mut views = views.to_vec();
    views.sort();
    let stores = ["all/home/.cache/wakebox", "b", "s"].map(|path| format!("{root}/{path}:\n"));
    let expected = format!(
        "{}{}out\n--\nworkspace\nin\nout\nsecret\n",
        views.join("\n"),
        stores.join("\n")
    );
    assert_eq!(outcome.expect(0).stdout(), expected);
}
