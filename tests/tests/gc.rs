//! `wakebox gc`: what nobody needs goes, and what somebody needs stays, whoever runs meanwhile.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cas::Digest;
use serde_json::json;
use wakebox_tests::job::{BATCH_STORE, kill, wait_for};
use wakebox_tests::{Outcome, Place, needs_fuse};

fn hash(content: &[u8]) -> String {
    Digest::of(content).to_string()
}

/// The blobs of the store that `run` uses.
fn blobs(place: &Place) -> Vec<String> {
    let listed = place.call(["cas", "ls"]).expect(0).stdout();
    let hashes = listed.lines().filter_map(|line| line.split(' ').next());
    hashes.map(str::to_owned).collect()
}

fn put(place: &Place, content: &str) -> String {
    place.write("put", content);
    place.call(["cas", "put", "put"]).expect(0);
    hash(content.as_bytes())
}

/// Makes a blob look as if it had last been used so long ago.
fn age(place: &Place, hash: &str, ago: &str) {
    let path = place
        .store()
        .join("blobs")
        .join(&hash[..2])
        .join(&hash[2..]);
    let mut touch = Command::new("touch");
    let touched = touch.args(["-a", "-d", ago]).arg(path).status();
    assert!(touched.expect("touch runs").success());
}

/// Starts `wakebox run` of a script and returns once the script says that it runs.
fn start(place: &Place, script: &str) -> Child {
    let script = format!("touch $HOME/started; {script}");
    let mut command = place.command(["run", "--quiet", "--host", "--", "sh", "-c", &script]);
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let child = command.stdout(Stdio::piped()).spawn().expect("starts");
    wait_for("the job to start", || place.flag("started").exists());
    child
}

fn finish(child: Child) -> Outcome {
    Outcome(child.wait_with_output().expect("ends"))
}

#[test]
fn what_was_not_used_for_long_goes_and_it_is_said() {
    let place = Place::new();
    let (old, new) = (put(&place, "old"), put(&place, "newer"));
    age(&place, &old, "2 days ago");
    let told = place.call(["gc"]).expect(0).stdout();
    let nothing = "freed 0 blobs (0 B) and 0 staging directories (0 B)\n2 blobs (8 B) stay\n";
    assert_eq!(told, nothing);
    let told = place
        .call(["gc", "-n", "--older-than", "1d"])
        .expect(0)
        .stdout();
    assert!(told.starts_with("would free 1 blobs (3 B) and"), "{told}");
    assert_eq!(blobs(&place).len(), 2, "a dry run removes nothing");
    let told = place.call(["gc", "--older-than", "1d"]).expect(0).stdout();
    assert!(told.starts_with("freed 1 blobs (3 B) and 0"), "{told}");
    assert!(told.ends_with("1 blobs (5 B) stay\n"), "{told}");
    assert_eq!(blobs(&place), [new]);
    place.call(["cas", "verify"]).expect(0);
}

#[test]
fn the_least_recently_used_go_until_the_rest_fits() {
    let place = Place::new();
    let hashes = ["aaaa", "bbbb", "cccc"].map(|text| put(&place, text));
    for (hash, ago) in hashes.iter().zip(["3 days ago", "1 day ago", "2 days ago"]) {
        age(&place, hash, ago);
    }
    place.call(["gc", "--max-size", "8"]).expect(0);
    assert_eq!(blobs(&place).len(), 2);
    assert!(!blobs(&place).contains(&hashes[0]));
    // What is put again is used again.
    put(&place, "cccc");
    place.call(["gc", "--max-size", "7"]).expect(0);
    assert_eq!(blobs(&place), [hashes[2].clone()]);
}

#[test]
fn what_a_job_declares_counts_as_used() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "declared");
    place.run(&["-i", "in", "true"]).expect(0);
    let declared = hash(b"declared");
    age(&place, &declared, "2 days ago");
    place.run(&["-i", "in", "true"]).expect(0);
    place.call(["gc", "--older-than", "1d"]).expect(0);
    assert!(blobs(&place).contains(&declared));
}

#[test]
fn a_store_of_somebody_else_is_left_alone_unless_told() {
    let place = Place::new();
    for name in ["blobs", "staging"] {
        std::fs::create_dir_all(place.store().join(name)).expect(name);
    }
    let theirs = put(&place, "theirs");
    let refused = place.call(["gc", "--older-than", "0"]).expect(125);
    let line = refused.stderr();
    assert!(
        line.contains("not made by wakebox") && line.contains("--foreign"),
        "{line}"
    );
    assert_eq!((line.lines().count(), refused.stdout()), (1, String::new()));
    place.call(["gc", "-n", "--older-than", "0"]).expect(0);
    assert_eq!(blobs(&place), [theirs]);
    place
        .call(["gc", "--foreign", "--older-than", "0"])
        .expect(0);
    assert_eq!(blobs(&place), [""; 0]);
}

#[test]
fn a_running_job_keeps_its_inputs_and_nothing_else_is_kept() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "needed");
    let other = put(&place, "not needed");
    std::fs::remove_file(place.workspace().join("put")).expect("removed");
    let script = "while ! test -e $HOME/go; do sleep 0.02; done; cat in; echo made > out";
    let job = start(&place, script);
    let begun = Instant::now();
    place
        .call(["gc", "--older-than", "0", "--max-size", "0"])
        .expect(0);
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(blobs(&place), [hash(b"needed")]);
    assert!(!blobs(&place).contains(&other));
    std::fs::write(place.flag("go"), "").expect("a flag");
    assert_eq!(finish(job).expect(0).stdout(), "needed");
    assert_eq!(place.read("out"), b"made\n");
    place.call(["gc", "--older-than", "0"]).expect(0);
    assert_eq!(blobs(&place), [""; 0]);
    place.expect_clean();
}

/// A daemon remembers manifests; what it remembers of before a collection must not be believed.
#[test]
fn a_job_is_told_at_its_start_that_an_input_was_collected() {
    needs_fuse!();
    let place = Place::new();
    let mut spec = place.spec("cat in");
    spec["visible"] = json!([place.visible("in", "collected")]);
    place.result_of(&spec);
    let daemon = place.daemons();
    let gc = ["gc", "--store", BATCH_STORE, "--older-than", "0"];
    place.call(gc).expect(0);
    let (outcome, _) = place.batch_call(&spec, &[]);
    let line = outcome.expect(125).stderr();
    assert!(
        line.contains("input 'in'") && line.contains(&hash(b"collected")),
        "{line}"
    );
    place.visible("in", "collected");
    place.result_of(&spec);
    assert_eq!(place.daemons(), daemon, "by the same daemon");
}

#[test]
fn what_roots_and_pins_name_stays() {
    needs_fuse!();
    let place = Place::new();
    let (pinned, listed) = (put(&place, "pinned"), put(&place, "listed"));
    place.write("tree/a/b", "in a tree");
    let tree = place.call(["cas", "import", "tree"]).expect(0).stdout();
    let result = place.root().join("r.json");
    let json = result.to_str().expect("text");
    place
        .run(&[
            "--json",
            json,
            "-i",
            "put",
            "--",
            "sh",
            "-c",
            "echo made > out",
        ])
        .expect(0);
    std::fs::create_dir(place.store().join("pins")).expect("a directory");
    std::fs::write(place.store().join("pins/mine"), &pinned).expect("a pin");
    std::os::unix::fs::symlink("/no/such", place.store().join("pins/gone")).expect("a link");
    let roots = place.root().join("roots");
    std::fs::create_dir(&roots).expect("a directory");
    std::fs::write(roots.join("list"), format!("{listed}  listed\n")).expect("a root");
    std::fs::write(roots.join("trees"), tree.trim()).expect("a root");
    let roots = roots.to_str().expect("text");
    place
        .call(["gc", "--older-than", "0", "--root", json, "--root", roots])
        .expect(0);
    let left = blobs(&place);
    for content in ["pinned", "listed", "in a tree", "made\n"] {
        assert!(
            left.contains(&hash(content.as_bytes())),
            "{content}: {left:?}"
        );
    }
    assert_eq!(left.len(), 6, "and the two directories of the tree");
    let back = place.root().join("back");
    let back = back.to_str().expect("text");
    place.call(["cas", "export", tree.trim(), back]).expect(0);
}

#[test]
fn with_a_root_that_cannot_be_read_nothing_goes() {
    let place = Place::new();
    let blob = put(&place, "blob");
    place.write("broken", format!("{}/7", hash(b"no such tree")));
    place.write("manifest", "wakebox manifest 1\nbroken");
    for (root, words) in [
        ("no-such", "no-such"),
        ("broken", "is not known"),
        ("manifest", "manifest"),
    ] {
        let outcome = place
            .call(["gc", "--older-than", "0", "--root", root])
            .expect(125);
        let line = outcome.stderr();
        assert!(line.contains(words) && line.lines().count() == 1, "{line}");
    }
    assert_eq!(blobs(&place), [blob]);
}

#[test]
fn what_dead_jobs_have_left_goes() {
    needs_fuse!();
    let place = Place::new();
    let mut job = start(
        &place,
        "head -c 70000 /dev/zero > out; touch $HOME/made; sleep 300",
    );
    wait_for("the output", || place.flag("made").exists());
    kill(place.daemons()[0]);
    job.kill().expect("it is there");
    job.wait().expect("it ends");
    assert_eq!(place.debris().len(), 1);
    let told = place.call(["gc", "-n"]).expect(0).stdout();
    assert!(told.contains("1 staging directories (6"), "{told}");
    assert_eq!(place.debris().len(), 1);
    place.call(["gc"]).expect(0);
    assert_eq!(place.debris(), Vec::<PathBuf>::new());
    place.run(&["true"]).expect(0);
}

#[test]
fn what_was_staged_for_callers_stays() {
    needs_fuse!();
    let place = Place::new();
    let result = place.result_of(&place.spec("echo made > out"));
    let gc = [
        "gc",
        "--store",
        BATCH_STORE,
        "--foreign",
        "--older-than",
        "0",
    ];
    place.call(gc).expect(0);
    let staged = place.staged(&result["staging_files"]["out"]);
    assert_eq!(std::fs::read(staged).expect("it is there"), b"made\n");
}

/// The three things that could go wrong: an input that vanishes under a job, an output that
/// vanishes before it is published, and a collector that waits for ever.
#[test]
fn jobs_and_collectors_at_once_do_each_other_no_harm() {
    needs_fuse!();
    let place = Place::new();
    put(&place, "the first makes the store");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collectors: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut turns = 0;
                    while !over.load(Ordering::Relaxed) {
                        place.call(["gc", "--older-than", "0"]).expect(0);
                        turns += 1;
                    }
                    turns
                })
            })
            .collect();
        let round = |n: u32, round: u32| {
            let (input, output) = (format!("in{n}"), format!("out{n}"));
            place.write(&input, format!("{n} {round}"));
            let script = format!("sleep 0.01; cat {input} > {output}");
            let words = ["-i", &input, "-o", &output, "sh", "-c", &script];
            place.run(&words).expect(0);
            assert_eq!(place.read(&output), format!("{n} {round}").as_bytes());
        };
        let running: Vec<_> = (0..4)
            .map(|n| scope.spawn(move || (0..15).for_each(|number| round(n, number))))
            .collect();
        for caller in running {
            caller.join().expect("all its jobs succeed");
        }
        over.store(true, Ordering::Relaxed);
        for collector in collectors {
            assert!(collector.join().expect("it goes on") > 1);
        }
    });
    place.call(["cas", "verify"]).expect(0);
    place.expect_clean();
}

#[test]
fn a_mount_keeps_its_inputs_mounted_or_not() {
    needs_fuse!();
    let place = Place::new();
    place.write("source/file", "mounted");
    let (source, to) = (place.workspace().join("source"), place.root().join("to"));
    std::fs::create_dir(&to).expect("a directory");
    let (state, store) = (place.root().join("state"), place.store());
    let options = format!(
        "state={},store={},inputs={}",
        state.display(),
        store.display(),
        source.display()
    );
    let call = || {
        let options: &Path = options.as_ref();
        let words = [
            "mount".as_ref(),
            "-o".as_ref(),
            options,
            "w".as_ref(),
            to.as_path(),
        ];
        place.call(words)
    };
    if call().code() != 0 {
        wakebox_tests::skip!("nothing can be mounted here");
    }
    let gc = ["gc", "--older-than", "0"];
    let unmount = || {
        Command::new("umount")
            .arg(&to)
            .status()
            .expect("umount runs")
    };
    let first = place.call(gc);
    let read = std::fs::read(to.join("file"));
    assert!(unmount().success());
    first.expect(0);
    assert_eq!(read.expect("readable"), b"mounted");
    place.call(gc).expect(0);
    assert_eq!(blobs(&place), [hash(b"mounted")], "the state is pinned");
    call().expect(0);
    assert!(unmount().success());
    wait_for("the process behind the mount to end", || {
        place.processes().is_empty()
    });
    std::fs::remove_dir_all(&state).expect("removed");
    // A process that is as good as gone has its lock for a moment more.
    wait_for("a collector that finds it needed by nobody", || {
        place.call(gc).expect(0);
        blobs(&place).is_empty()
    });
}

#[test]
fn a_wrong_call_is_told() {
    let place = Place::new();
    for wrong in [
        &["gc", "--max-size", "lots"][..],
        &["gc", "--older-than", "yesterday"],
        &["gc", "--older-than", "-1d"],
        &["gc", "extra"],
        &["gc", "--store", "no-such-store"],
        &["gc"],
    ] {
        let outcome = place.call(wrong).expect(2);
        assert_eq!(outcome.stdout(), "", "{wrong:?}");
        assert!(!outcome.stderr().is_empty(), "{wrong:?}");
    }
    assert!(!place.store().exists(), "to look is not to make");
}

/// Regression: a daemon that was killed while it made or removed a staging directory left one that
/// said nothing, which was then taken for that of a result's reader, for ever.
#[test]
fn what_says_nothing_and_has_nothing_goes_after_a_while() {
    let place = Place::new();
    put(&place, "a store");
    let staging = place.store().join("staging");
    for (name, file) in [
        ("00000000000000aa", "manifest.new"),
        ("00000000000000bb", "1"),
    ] {
        std::fs::create_dir(staging.join(name)).expect(name);
        std::fs::write(staging.join(name).join(file), "").expect(file);
    }
    place.call(["gc"]).expect(0);
    assert_eq!(
        place.debris().len(),
        2,
        "its reader may be about to remove it"
    );
    std::thread::sleep(Duration::from_millis(1100));
    place.call(["gc", "--older-than", "1s"]).expect(0);
    assert_eq!(place.debris(), [staging.join("00000000000000bb")]);
}
