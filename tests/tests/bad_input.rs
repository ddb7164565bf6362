//! What is wrong is told in one line, with the code that is documented, and leaves nothing.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cas::Digest;
use serde_json::{Value, json};
use wakebox_tests::job::BATCH_STORE;
use wakebox_tests::{Outcome, Place, needs_fuse, skip};

/// Insists on one line of the program's own that has some words, and on the code.
#[track_caller]
fn refused(outcome: Outcome, code: i32, words: &[&str]) {
    let outcome = outcome.expect(code);
    let told = outcome.stderr();
    assert!(told.starts_with("wakebox: "), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    for word in words {
        assert!(told.contains(word), "{word:?} is not told: {told}");
    }
    assert_eq!(outcome.stdout(), "");
}

/// Calls with a spec that is this text.
fn with_spec(place: &Place, text: &str) -> Outcome {
    let spec = place.root().join("spec.json");
    std::fs::write(&spec, text).expect("a spec");
    let result = place.root().join("result.json");
    let arguments = [
        OsStr::new("-I"),
        "-p".as_ref(),
        spec.as_ref(),
        "-o".as_ref(),
        result.as_ref(),
    ];
    let outcome = place.call(arguments);
    expect_no_true_result(&result, &outcome);
    outcome
}

/// The result says that there is none, and why, in the words that the user reads.
#[track_caller]
fn expect_no_true_result(result: &Path, outcome: &Outcome) -> Value {
    let text = std::fs::read(result).expect("a result");
    let result: Value = serde_json::from_slice(&text).expect("the result is JSON");
    assert_eq!(result["usage"]["status"], 125, "{result}");
    assert_eq!(result["outputs"], json!([]), "{result}");
    let message = &result["sandbox-error"]["message"];
    let message = message.as_str().expect("a message");
    assert_eq!(outcome.stderr(), format!("wakebox: {message}\n"));
    result
}

/// Nothing ran and nothing is left but a store, if one was opened.
fn expect_untouched(place: &Place) {
    assert!(!place.workspace().join("ran").exists(), "the job ran");
    let entries = std::fs::read_dir(place.workspace())
        .expect("a directory")
        .flatten();
    let names: Vec<_> = entries
        .map(|entry| entry.file_name())
        .filter(|name| name != ".build")
        .collect();
    assert!(names.is_empty(), "left: {names:?}");
    let beside = std::fs::read_dir(place.root())
        .expect("a directory")
        .flatten();
    let temporary = beside.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"."));
    assert_eq!(temporary.count(), 0, "a temporary file is left");
    place.expect_clean();
}

const HASH: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

#[test]
fn a_spec_that_makes_no_sense_is_refused_with_the_place() {
    let place = Place::new();
    let cases = [
        ("", ""),
        ("{", "spec.json"),
        ("[]", "spec.json"),
        ("null", "spec.json"),
        (r#"{"command": ["touch", "ran"]"#, "spec.json"),
        (
            "{\"command\": [\"touch\", \"ran\"],\n\n \"visible\": [}",
            "spec.json",
        ),
        ("{\u{0}}", "spec.json"),
        ("{}", "command"),
        (r#"{"command": []}"#, "command"),
        (r#"{"command": [""]}"#, "command"),
        (r#"{"command": "touch ran"}"#, "command"),
        (r#"{"command": [1]}"#, "command"),
        (r#"{"command": {"a": 1}}"#, "command"),
    ];
    for (text, words) in cases {
        refused(with_spec(&place, text), 1, &[words]);
        expect_untouched(&place);
    }
}

#[test]
fn a_key_that_makes_no_sense_is_refused_by_name() {
    let place = Place::new();
    let cases = [
        (r#""environment": "A=1""#, "environment"),
        (r#""environment": [7]"#, "environment"),
        (r#""directory": 7"#, "directory"),
        (r#""input-root": 7"#, "input-root"),
        (r#""input-root": "12""#, "input-root"),
        (r#""inputs": "writable""#, "inputs"),
        (r#""copy-on-write": "ccache""#, "copy-on-write"),
        (r#""copy-on-write": ["a", ""]"#, "copy-on-write[1]"),
        (r#""copy-on-write": ["/a"]"#, "copy-on-write[0]"),
        (r#""stdin": []"#, "stdin"),
        (r#""cas-dir": null"#, "cas-dir"),
        (r#""command-timeout": 0"#, "command-timeout"),
        (r#""command-timeout": -1"#, "command-timeout"),
        (r#""command-timeout": 1.5"#, "command-timeout"),
        (r#""command-timeout": "5""#, "command-timeout"),
        (r#""user-id": "me""#, "user-id"),
        (r#""group-id": -1"#, "group-id"),
        (r#""isolate-network": "yes""#, "isolate-network"),
        (r#""hostname": 7"#, "hostname"),
        (r#""limits": {"files": 7}"#, "limits.files"),
        (r#""staging": "burn""#, "staging"),
        (r#""staging": "discard", "adopt": false"#, "adopt"),
        (
            r#""mount-ops": [{"type": "nfs", "destination": "."}]"#,
            "mount-ops[0]",
        ),
        (r#""mount-ops": [{"type": "workspace"}]"#, "mount-ops[0]"),
        (
            r#""mount-ops": [{"type": "workspace", "destination": ".", "source": "x"}]"#,
            "mount-ops[0]",
        ),
        (r#""mount-ops": [{"destination": "."}]"#, "mount-ops"),
        (r#""mount-ops": {}"#, "mount-ops"),
    ];
    for (key, words) in cases {
        let text = format!(r#"{{"command": ["touch", "ran"], {key}}}"#);
        refused(with_spec(&place, &text), 1, &["spec.json", words]);
    }
    expect_untouched(&place);
}

#[test]
fn an_input_that_makes_no_sense_is_refused_by_its_number() {
    let place = Place::new();
    let object =
        |path: &str, rest: &str| format!(r#"{{"path": "{path}", "hash": "{HASH}"{rest}}}"#);
    let newer = r#", "mode": 4, "mtime": 0"#;
    let cases = [
        (r#""../up""#.to_owned(), "'..'"),
        (r#""a/../b""#.into(), "'..'"),
        (r#""..""#.into(), "'..'"),
        (r#""/etc/passwd""#.into(), "absolute"),
        (r#""""#.into(), "names no entry"),
        (r#"".""#.into(), "names no entry"),
        (r#""a\u0000b""#.into(), "NUL"),
        ("7".into(), "visible[1]"),
        ("null".into(), "visible[1]"),
        ("{}".into(), "path"),
        (object("../up", ""), "'..'"),
        (object("/abs", ""), "absolute"),
        (object("", ""), "names no entry"),
        (object(r"a\u0000", ""), "NUL"),
        (object("a", newer), "type"),
        (object("a", r#", "type": "file", "mtime": 0"#), "mode"),
        (object("a", r#", "type": "file", "mode": 4"#), "mtime"),
        (object("a", &format!(r#", "type": "fifo"{newer}"#)), "fifo"),
        (
            object("a", r#", "type": "file", "mode": "rw", "mtime": 0"#),
            "visible[1]",
        ),
        (
            r#"{"path": "a", "type": "file", "mode": 4, "mtime": 0}"#.into(),
            "hash",
        ),
        (r#"{"path": "a", "hash": "abc"}"#.into(), "hash"),
        (
            r#"{"path": "a", "type": "directory", "mode": 4, "mtime": 0, "writable": true}"#.into(),
            "writable",
        ),
    ];
    for (entry, words) in cases {
        let first = object("fine", "");
        let text = format!(r#"{{"command": ["touch", "ran"], "visible": [{first}, {entry}]}}"#);
        refused(with_spec(&place, &text), 1, &["spec.json", words]);
    }
    expect_untouched(&place);
}

#[test]
fn inputs_that_contradict_each_other_are_refused() {
    needs_fuse!();
    let place = Place::new();
    let (a, b) = (place.put("a"), place.put("b"));
    let file = |path: &str, hash: &str| json!({"path": path, "hash": hash});
    for visible in [
        json!([file("x", &a), file("x", &b)]),
        json!([file("x", &a), file("x/y", &b)]),
    ] {
        let mut spec = place.spec("touch ran");
        spec["visible"] = visible;
        let outcome = with_spec(&place, &spec.to_string());
        assert!([1, 125].contains(&outcome.code()), "{}", outcome.code());
        let code = outcome.code();
        refused(outcome, code, &["x"]);
    }
}

#[test]
fn a_spec_file_that_cannot_be_read_is_named() {
    let place = Place::new();
    std::fs::create_dir(place.root().join("directory")).expect("a directory");
    std::fs::write(place.root().join("bytes"), b"{\"command\": [\"\xff\"]}").expect("a file");
    for name in ["missing.json", "directory", "bytes"] {
        let spec = place.root().join(name);
        refused(
            place.call([OsStr::new("-I"), "-p".as_ref(), spec.as_ref()]),
            1,
            &[name],
        );
    }
    expect_untouched(&place);
}

#[test]
fn a_blob_that_is_missing_is_named_with_its_path() {
    needs_fuse!();
    let place = Place::new();
    for kind in ["file", "symlink"] {
        let mut spec = place.spec("touch $HOME/ran");
        spec["visible"] = json!([
            place.visible("there", "there"),
            {"path": "sub/gone", "type": kind, "hash": HASH, "mode": 0o644, "mtime": 0},
        ]);
        refused(
            with_spec(&place, &spec.to_string()),
            125,
            &[HASH, "sub/gone"],
        );
        assert!(!place.flag("ran").exists(), "the job ran");
    }
    let mut spec = place.spec("touch $HOME/ran");
    spec["visible"] = json!(["not/here"]);
    refused(with_spec(&place, &spec.to_string()), 125, &["not/here"]);
    assert!(!place.flag("ran").exists(), "the job ran");
    expect_untouched(&place);
}

#[test]
fn a_place_or_stdin_that_is_not_there_is_named() {
    needs_fuse!();
    let place = Place::new();
    let changes = [
        ("directory", json!("no/such/directory")),
        ("stdin", json!("no-such-stdin")),
        (
            "mount-ops",
            json!([{"type": "workspace", "destination": "no-such-place"}]),
        ),
    ];
    for (key, value) in changes {
        let mut spec = place.spec("touch $HOME/ran");
        spec[key] = value.clone();
        let name = if key == "mount-ops" {
            "no-such-place"
        } else {
            value.as_str().expect("text")
        };
        refused(with_spec(&place, &spec.to_string()), 125, &[name]);
        assert!(!place.flag("ran").exists(), "the job ran");
    }
    expect_untouched(&place);
}

#[test]
fn a_store_that_is_none_is_named() {
    let place = Place::new();
    std::fs::write(place.flag("file"), "").expect("a file");
    let file = place.flag("file");
    let below = file.join("store");
    let readonly = Path::new("/proc/store");
    for store in [&*file, &below, readonly] {
        let name = store.to_str().expect("text");
        let mut spec = place.spec("touch $HOME/ran");
        spec["cas-dir"] = json!(name);
        refused(with_spec(&place, &spec.to_string()), 125, &[name]);
        refused(place.run(&["--store", name, "--", "true"]), 125, &[name]);
    }
    assert!(!place.flag("ran").exists(), "the job ran");
    expect_untouched(&place);
}

#[test]
fn a_workspace_in_the_store_is_refused() {
    needs_fuse!();
    let place = Place::new();
    let outer = place.root().to_str().expect("text").to_owned();
    refused(
        place.run(&["--store", &outer, "--", "true"]),
        2,
        &["inside the store"],
    );
    let mut spec = place.spec("touch $HOME/ran");
    spec["cas-dir"] = json!(outer);
    refused(
        with_spec(&place, &spec.to_string()),
        1,
        &["inside the store"],
    );
    assert!(!place.flag("ran").exists(), "the job ran");
}

#[test]
fn a_machine_without_fuse_is_told() {
    let place = Place::new();
    let script = "mkdir $ROOT/dev; mount -t tmpfs none $ROOT/dev; touch $ROOT/dev/null
        mount --bind /dev/null $ROOT/dev/null; mount --rbind $ROOT/dev /dev
        exec $WAKEBOX run --quiet -- touch ran";
    match place.in_mount_namespace(script) {
        Some(outcome) => refused(outcome, 125, &["/dev/fuse"]),
        None => skip!("may not mount"),
    }
    std::fs::remove_dir(place.root().join("dev")).expect("the namespace is gone");
    expect_untouched(&place);
}

/// With a store of 1 MB.
fn with_small_store(place: &Place, call: &str) -> Option<Outcome> {
    let script = format!(
        "mkdir $ROOT/small; mount -t tmpfs -o size=1m none $ROOT/small; set +e
         {call}; code=$?; ls -A $ROOT/small/staging >&1; exit $code"
    );
    place.in_mount_namespace(&script)
}

#[test]
fn a_full_store_is_told_when_inputs_are_hashed() {
    let place = Place::new();
    place.write("big", vec![7; 4 << 20]);
    let call = "$WAKEBOX run --quiet --store $ROOT/small -- touch ran";
    match with_small_store(&place, call) {
        Some(outcome) => refused(outcome, 125, &["big", "No space left"]),
        None => skip!("may not mount"),
    }
}

#[test]
fn a_full_store_is_told_when_outputs_are_adopted() {
    needs_fuse!();
    let place = Place::new();
    // There is room for the staged file, but not for a copy of it.
    let mut spec = place.spec("head -c 700000 /dev/zero > big");
    spec["cas-dir"] = json!(place.root().join("small").to_str());
    std::fs::write(place.root().join("spec.json"), spec.to_string()).expect("a spec");
    let call = "$WAKEBOX -I -p $ROOT/spec.json -o $ROOT/result.json";
    let Some(outcome) = with_small_store(&place, call) else {
        skip!("may not mount")
    };
    let result = expect_no_true_result(&place.root().join("result.json"), &outcome);
    assert_eq!(result["sandbox-error"]["kind"], "store");
    refused(outcome, 125, &["No space left"]);
    expect_untouched(&place);
}

#[test]
fn a_full_store_is_the_jobs_to_notice() {
    needs_fuse!();
    let place = Place::new();
    let call = "$WAKEBOX run --quiet --store $ROOT/small -- sh -c \
                'head -c 4000000 /dev/zero > big 2>/dev/null || exit 9'";
    match with_small_store(&place, call) {
        Some(outcome) => assert_eq!(outcome.expect(9).stdout(), ""),
        None => skip!("may not mount"),
    }
    expect_untouched(&place);
}

#[test]
fn a_blob_that_may_not_be_read_is_named() {
    let place = Place::new();
    let mut spec: Value = place.spec("touch $HOME/ran");
    spec["visible"] = json!([place.visible("sub/in", "secret")]);
    let hash = Digest::of(b"secret").to_string();
    let blob = place
        .call(["cas", "--store", BATCH_STORE, "path", &hash])
        .expect(0)
        .stdout();
    let closed = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(blob.trim_end(), closed).expect("closed");
    let spec_file = place.root().join("spec.json");
    std::fs::write(&spec_file, spec.to_string()).expect("a spec");
    match place.as_ordinary_user(&["-I".as_ref(), "-p".as_ref(), spec_file.as_ref()]) {
        Some(outcome) => refused(outcome, 125, &[&hash[2..], "sub/in"]),
        None => {
            skip!("cannot become an ordinary user")
        }
    }
    assert!(!place.flag("ran").exists(), "the job ran");
}

#[test]
fn a_store_of_somebody_else_is_named() {
    let place = Place::new();
    let store = place.root().join("closed");
    std::fs::create_dir(&store).expect("a directory");
    let arguments = ["run", "--quiet", "--store"].map(OsStr::new);
    let arguments = [
        &arguments[..],
        &[store.as_ref(), "--".as_ref(), "true".as_ref()],
    ]
    .concat();
    let closed = std::fs::Permissions::from_mode(0o555);
    std::fs::set_permissions(&store, closed).expect("closed");
    match place.as_ordinary_user(&arguments) {
        Some(outcome) => refused(outcome, 125, &["closed", "Permission denied"]),
        None => skip!("cannot become an ordinary user"),
    }
}
