//! Keys: what they depend on, and what not.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wakebox_tests::Place;

const HASH: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

/// What is changed, and how.
type Change = (&'static str, fn(&mut Value));

fn key_of_text(place: &Place, text: &str) -> String {
    place.write("spec.json", text);
    let key = place.call(["key", "spec.json"]).expect(0).stdout();
    let key = key.trim_end().to_owned();
    assert_eq!(key.len(), 64, "{key}");
    key
}

fn key(place: &Place, spec: &Value) -> String {
    key_of_text(place, &spec.to_string())
}

fn spec() -> Value {
    json!({
        "command": ["cc", "-c", "main.c"],
        "environment": ["A=1", "PATH=/usr/bin"],
        "directory": "sub",
        "cas-dir": "../one-store",
        "visible": [
            "named",
            {"path": "main.c", "type": "file", "hash": HASH, "mode": 420, "mtime": 5},
            {"path": "link", "type": "symlink", "hash": HASH, "mode": 511, "mtime": 5},
            {"path": "d", "type": "directory", "mode": 493, "mtime": 5},
        ],
        "probes": ["no.h", "sub/no.h"],
        "listed": {".": HASH, "dir": HASH},
        "mount-ops": [{"type": "workspace", "destination": "."}],
    })
}

fn place() -> Place {
    let place = Place::new();
    place.write("named", "content");
    place.write("dir/a", "");
    place
}

#[test]
fn a_key_depends_on_every_component() {
    let place = place();
    let changes: [Change; 25] = [
        ("nothing", |_| {}),
        ("an argument", |spec| spec["command"][2] = json!("other.c")),
        ("arguments together", |spec| {
            spec["command"] = json!(["cc", "-cmain.c"])
        }),
        ("a variable", |spec| spec["environment"][0] = json!("A=2")),
        ("no variable", |spec| spec["environment"] = json!([])),
        ("the directory", |spec| spec["directory"] = json!("")),
        ("standard input", |spec| spec["stdin"] = json!("main.c")),
        ("a path", |spec| {
            spec["visible"][1]["path"] = json!("other.c")
        }),
        ("content", |spec| {
            spec["visible"][1]["hash"] = json!(HASH.replace('a', "b"))
        }),
        ("a mode", |spec| spec["visible"][1]["mode"] = json!(493)),
        ("a kind", |spec| spec["visible"][2]["type"] = json!("file")),
        ("writable", |spec| {
            spec["visible"][1]["writable"] = json!(true)
        }),
        ("an input less", |spec| {
            drop(spec["visible"].as_array_mut().expect("inputs").pop())
        }),
        ("copy-on-write", |spec| {
            spec["inputs"] = json!("copy-on-write")
        }),
        ("copy-on-write of one", |spec| {
            spec["copy-on-write"] = json!(["d"])
        }),
        ("a tree", |spec| spec["input-root"] = json!(HASH)),
        ("a probe", |spec| spec["probes"][0] = json!("other.h")),
        ("no probes", |spec| spec["probes"] = json!([])),
        ("a listing", |spec| {
            spec["listed"]["dir"] = json!(HASH.replace('a', "b"))
        }),
        ("another listing", |spec| {
            spec["listed"] = json!({".": HASH})
        }),
        ("a mount", |spec| {
            spec["mount-ops"][0]["destination"] = json!("/w")
        }),
        ("the host's name", |spec| spec["hostname"] = json!("box")),
        ("the network", |spec| spec["isolate-network"] = json!(true)),
        ("the user", |spec| spec["user-id"] = json!(7)),
        ("a limit", |spec| spec["limits"] = json!({"nofile": 100})),
    ];
    let mut keys = BTreeMap::new();
    for (what, change) in changes {
        let mut spec = spec();
        change(&mut spec);
        let before = keys.insert(key(&place, &spec), what);
        assert_eq!(before, None, "the same key as with another {what}");
    }
}

#[test]
fn a_key_depends_on_what_is_in_the_workspace() {
    let place = place();
    let mut keys = vec![key(&place, &spec())];
    let mut expect_another = |what: &str| {
        let key = key(&place, &spec());
        assert!(!keys.contains(&key), "{what}");
        keys.push(key);
    };
    place.write("named", "another");
    expect_another("content of a file that is named");
    place.write("no.h", "");
    expect_another("a path that was absent");
    place.write("dir/b", "");
    expect_another("a name in a directory that was listed");
}

#[test]
fn a_key_does_not_depend_on_how_a_spec_is_written() {
    let place = place();
    let expected = key(&place, &spec());
    let reversed = {
        let spec = spec();
        let keys = spec.as_object().expect("an object").iter().rev();
        let keys: Vec<_> = keys
            .map(|(key, value)| format!("{}: {value}", json!(key)))
            .collect();
        format!("// JSON5\n{{{},}}", keys.join(", "))
    };
    assert_eq!(key_of_text(&place, &reversed), expected);
    let mut same = spec();
    let reverse =
        |spec: &mut Value, key: &str| spec[key].as_array_mut().expect("an array").reverse();
    for name in ["visible", "probes", "environment"] {
        reverse(&mut same, name);
    }
    same["visible"][0]["mtime"] = json!(6);
    for (name, value) in [
        ("cas-dir", json!("../other-store")),
        ("record", json!("full")),
        ("staging", json!("discard")),
        ("command-timeout", json!(5)),
        ("outputs", json!(["x"])),
        ("note", json!("for others")),
    ] {
        same[name] = value;
    }
    assert_eq!(key(&place, &same), expected);
}

#[test]
fn the_text_of_a_key_is_as_documented() {
    let place = place();
    place.write(
        "spec.json",
        json!({"command": ["a b", "c"], "environment": ["B=2", "A=1"], "visible": [
        {"path": "m", "type": "file", "hash": HASH, "mode": 420, "mtime": 5},
    ], "probes": ["no"]})
        .to_string(),
    );
    let text = place
        .call(["key", "--text", "spec.json"])
        .expect(0)
        .stdout();
    let expected = format!(
        "wakebox key 1\ncommand 3:a b\ncommand 1:c\nenvironment 3:A=1\nenvironment 3:B=2\n\
         directory 0:\ninput 73:f 0644 {HASH} m\nprobe 9:absent no\n"
    );
    assert_eq!(text, expected);
    let digest = place.put(&text);
    let key = place.call(["key", "spec.json"]).expect(0).stdout();
    assert_eq!(key.trim_end(), digest);
}

#[test]
fn what_is_no_spec_is_refused() {
    let place = place();
    for (text, word) in [
        ("{}", "command"),
        ("{command: ['x'], probes: ['/a']}", "probes[0]"),
        ("{command: ['x'], listed: {a: 'x'}}", "listed"),
    ] {
        place.write("spec.json", text);
        let told = place.call(["key", "spec.json"]).expect(2).stderr();
        assert!(told.contains(word), "{told}");
    }
    let told = place.call(["key", "none.json"]).expect(2).stderr();
    assert!(told.contains("none.json"), "{told}");
    place.write("spec.json", "{command: ['x'], visible: ['none']}");
    let told = place.call(["key", "spec.json"]).expect(125).stderr();
    assert!(told.contains("'none' does not exist"), "{told}");
}
