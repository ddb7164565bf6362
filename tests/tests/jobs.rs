//! Looks into jobs: while they run, and when they have failed and were kept.

use std::io::Write;
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use wakebox_tests::job::{strings, wait_for};
use wakebox_tests::{Outcome, Place, needs_fuse};

/// A batch job that is running, and what lets it end.
struct Running {
    child: Child,
    result: std::path::PathBuf,
    go: std::path::PathBuf,
}

impl Running {
    /// Starts a job that does this, waits to be looked at, and ends.
    fn start(place: &Place, visible: &Value, script: &str, record: &str) -> Self {
        let (ready, go) = (place.flag("ready"), place.flag("go"));
        let (is_ready, may_go) = (ready.display(), go.display());
        let script =
            format!("{script}; : > {is_ready}; while ! [ -e {may_go} ]; do sleep 0.02; done");
        let mut spec = place.spec(&script);
        spec["visible"] = visible.clone();
        spec["record"] = json!(record);
        spec["label"] = json!("the job");
        let file = place.root().join("running.json");
        std::fs::write(&file, spec.to_string()).expect("a spec");
        let result = place.root().join("running-result.json");
        let mut command = place.command(["-p"]);
        command.arg(&file).arg("-o").arg(&result);
        let child = command.stdin(Stdio::null()).spawn().expect("starts");
        wait_for("the job", || ready.exists());
        Self { child, result, go }
    }

    fn end(mut self) -> Value {
        std::fs::write(&self.go, "").expect("a flag");
        assert!(self.child.wait().expect("it ends").success());
        let text = std::fs::read(&self.result).expect("a result");
        serde_json::from_slice(&text).expect("JSON")
    }
}

fn jobs(place: &Place, store: &str) -> Vec<Value> {
    let told = place.call(["jobs", "--json", "--store", store]).expect(0);
    let told: Value = serde_json::from_str(&told.stdout()).expect("JSON");
    told.as_array().expect("an array").clone()
}

#[test]
fn a_running_job_is_looked_into_by_the_names_of_its_files() {
    needs_fuse!();
    let place = Place::new();
    let visible = json!([
        place.visible("in/used", "used"),
        place.visible("in/looked-at", "only looked at"),
        {"path": "in/link", "type": "symlink", "hash": place.put("used"), "mode": 511, "mtime": 0},
    ]);
    let script = "cat in/used >/dev/null; mkdir out; printf 'so far' > out/made; \
                  chmod 640 out/made; exec 5>>out/open; printf 1234 >&5";
    let running = Running::start(&place, &visible, script, "full");
    let told = jobs(&place, ".build/cas");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (&told[0]["state"], &told[0]["label"]),
        (&json!("running"), &json!("the job"))
    );
    assert_eq!(
        (&told[0]["open-files"], &told[0]["bytes-staged"]),
        (&json!(1), &json!(10))
    );
    assert!(told[0]["age"].as_f64().is_some_and(|age| age < 60.0));
    let id = told[0]["id"].as_str().expect("an id");
    let call = |words: &[&str]| place.call([&["job"], words].concat());

    let root = call(&["ls", id]).expect(0).stdout();
    assert!(
        root.contains("made    out/\n") && root.contains("input   in/\n"),
        "{root}"
    );
    let inputs = call(&["ls", &id[..6], "in"]).expect(0).stdout();
    assert!(
        inputs.contains("0644           14 input   looked-at\n"),
        "{inputs}"
    );
    assert!(inputs.contains("input   link -> used\n"), "{inputs}");
    let made = call(&["ls", id, "--outputs"]).expect(0).stdout();
    let expected = "0755         4096 made    out/\n0640            6 made    out/made\n";
    assert!(
        made.starts_with(expected) && made.ends_with("4 made    out/open\n"),
        "{made}"
    );
    assert_eq!(call(&["cat", id, "out/made"]).expect(0).stdout(), "so far");
    assert_eq!(
        call(&["cat", id, "in/looked-at"]).expect(0).stdout(),
        "only looked at"
    );
    for (path, why) in [
        ("no", "such"),
        ("in", "directory"),
        ("in/used/x", "directory"),
    ] {
        let told = call(&["cat", id, path]).expect(125).stderr();
        assert!(
            told.contains(&format!("'{path}'")) && told.contains(why),
            "{told}"
        );
    }
    let told = call(&["ls", "zz"]).expect(125).stderr();
    assert!(told.contains("no running job is called zz"), "{told}");

    let result = running.end();
    assert_eq!(strings(&result["inputs"]), ["in/used"], "a look is no use");
    assert!(
        !result["record"].to_string().contains("looked-at"),
        "{result:#}"
    );
    assert_eq!(jobs(&place, ".build/cas"), Vec::<Value>::new());
}

#[test]
fn large_directories_come_whole() {
    needs_fuse!();
    let place = Place::new();
    let hash = place.put("x");
    let input = |i| json!({"path": format!("d/in{i}"), "hash": hash});
    let visible: Vec<_> = (0..1500).map(input).collect();
    let script = "i=0; while [ $i -lt 1200 ]; do : > d/out$i; i=$((i+1)); done";
    let running = Running::start(&place, &json!(visible), script, "none");
    let id = jobs(&place, ".build/cas")[0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let listed = place.call(["job", "ls", &id, "d"]).expect(0).stdout();
    let names: std::collections::BTreeSet<_> = listed.lines().collect();
    assert_eq!((listed.lines().count(), names.len()), (2700, 2700));
    let outputs = place
        .call(["job", "ls", &id, "--outputs", "--json"])
        .expect(0)
        .stdout();
    assert_eq!(outputs.lines().count(), 1200);
    assert!(
        outputs
            .lines()
            .next()
            .is_some_and(|line| line.contains("\"d/out0\""))
    );
    running.end();
}

/// Runs words in the shell of a kept job.
fn in_shell(place: &Place, id: &str, store: &str, words: &str) -> Outcome {
    let mut command = place.command(["job", "shell", "--job", id, "--store", store]);
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(words.as_bytes()).expect("it reads");
    drop(stdin);
    Outcome(child.wait_with_output().expect("it ends"))
}

#[test]
fn a_failed_run_is_kept_and_mounted_anew_as_it_was_left() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "input");
    place.write("rw", "before");
    let script = "mkdir d; echo made > d/out; ln -s d/out link; echo after > rw; exit 3";
    let words = [
        "--keep-failed=1h",
        "--rw",
        "rw",
        "-i",
        "in",
        "--",
        "sh",
        "-c",
        script,
    ];
    let told = place.run(&words).expect(3).stderr();
    let store = place.store();
    let store = store.to_str().expect("text");
    let kept = jobs(&place, store);
    assert_eq!(kept.len(), 1);
    assert_eq!(
        (&kept[0]["state"], &kept[0]["status"]),
        (&json!("kept"), &json!(3))
    );
    assert_eq!(kept[0]["kept-for"], 3600);
    let id = kept[0]["id"].as_str().expect("an id");
    assert!(
        told.contains(&format!("wakebox job shell --job {id}")),
        "{told}"
    );

    // Its inputs are nobody's but its own now, and the collector leaves them.
    place.call(["gc", "--max-size", "0"]).expect(0);
    let look = "cat in rw d/out link; echo changed > in; cat in; rm -r d; ls; eval $WAKEBOX_CMD";
    for _ in 0..2 {
        let outcome = in_shell(&place, id, store, look).expect(3);
        assert_eq!(
            outcome.stdout(),
            "inputafter\nmade\nmade\nchanged\nin\nlink\nrw\n"
        );
    }
    assert_eq!(place.read("in"), b"input");

    let told = place
        .call(["recover", id, "--to", "there"])
        .expect(0)
        .stdout();
    assert!(told.contains("recovered"), "{told}");
    assert_eq!(place.read("there/d/out"), b"made\n");
    assert_eq!(jobs(&place, store), Vec::<Value>::new());
    let told = in_shell(&place, id, store, "").expect(125).stderr();
    assert!(told.contains("no kept job is called"), "{told}");
}

#[test]
fn a_job_that_succeeds_or_is_not_to_be_kept_is_not() {
    needs_fuse!();
    let place = Place::new();
    place.write("in", "input");
    place.run(&["--keep-failed", "-i", "in", "true"]).expect(0);
    place.run(&["-i", "in", "false"]).expect(1);
    assert_eq!(place.debris(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_failed_batch_job_is_kept_with_what_it_did_to_its_inputs_until_its_time_is_over() {
    needs_fuse!();
    let place = Place::new();
    let mut spec = place.spec("rm gone; mv old new; echo more >> changed; echo x > made; exit 1");
    spec["visible"] = json!([
        place.visible("gone", "gone"),
        place.visible("old/a", "in old"),
        place.visible("changed", "some\n"),
    ]);
    spec["inputs"] = json!("copy-on-write");
    spec["keep-failed"] = json!("2h");
    let (outcome, result) = place.batch_call(&spec, &[]);
    outcome.expect(1);
    let result = result.expect("a result");
    assert_eq!(result.get("staging_files"), None, "{result:#}");
    assert_eq!(result["hashed_files"]["made"]["size"], 2);
    let id = result["kept"].as_str().expect("an id");
    let look = "ls; cat new/a changed made; echo; pwd";
    let shown = in_shell(&place, id, ".build/cas", look).expect(0).stdout();
    let here = place.workspace().canonicalize().expect("a place");
    let expected = format!(
        "changed\nmade\nnew\nin oldsome\nmore\nx\n\n{}\n",
        here.display()
    );
    assert_eq!(shown, expected);

    let gc = |age| {
        place.call([
            "gc",
            "--foreign",
            "--store",
            ".build/cas",
            "--older-than",
            age,
        ])
    };
    let told = gc("1h").expect(0).stdout();
    assert!(told.contains("1 failed jobs are kept"), "{told}");
    assert_eq!(jobs(&place, ".build/cas").len(), 1);
    gc("0s").expect(0);
    assert_eq!(jobs(&place, ".build/cas"), Vec::<Value>::new());
    assert_eq!(place.debris(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_spec_is_opened_in_a_shell_of_its_view() {
    needs_fuse!();
    let place = Place::new();
    let mut spec = place.spec("echo the job itself");
    spec["visible"] = json!([place.visible_mode("in", "declared", 0o600)]);
    place.write("spec.json", spec.to_string());
    let mut command = place.command(["job", "shell", "spec.json"]);
    let pipes = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = pipes.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin
        .write_all(b"cat in; echo; eval $WAKEBOX_CMD; echo kept > out")
        .expect("it reads");
    drop(stdin);
    let outcome = Outcome(child.wait_with_output().expect("it ends")).expect(0);
    assert_eq!(outcome.stdout(), "declared\nthe job itself\n");
    assert!(!place.workspace().join("out").exists());
    assert_eq!(place.debris(), Vec::<std::path::PathBuf>::new());
}
