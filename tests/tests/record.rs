//! The record of real jobs: what programs do with a view, as its result tells it.

mod complete;
mod host;
mod trace;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wakebox_tests::job::strings;
use wakebox_tests::{Place, needs_fuse};

fn recorded(place: &Place, level: &str, script: &str, visible: &Value) -> Value {
    let mut spec = place.spec(script);
    spec["visible"] = visible.clone();
    spec["record"] = json!(level);
    place.result_of(&spec)
}

/// Rows of the view by path.
fn rows(result: &Value) -> BTreeMap<&str, &Value> {
    let rows = result["record"].as_array().expect("a record").iter();
    let rows = rows.filter(|row| row["class"] != "host");
    rows.map(|row| (row["path"].as_str().expect("a path"), row))
        .collect()
}

fn has(row: &Value, class: &str) -> bool {
    let also = row["also"].as_array().into_iter().flatten();
    row["class"] == class || also.into_iter().any(|other| other == class)
}

#[test]
fn a_job_is_told_class_by_class() {
    needs_fuse!();
    let place = Place::new();
    let visible = json!([
        place.visible("in/read", "four"),
        place.visible("in/empty", ""),
        place.visible("in/unread", "never"),
        place.visible_mode("tool", "#!/bin/sh\necho run\n", 0o755),
        {"path": "to-read", "type": "symlink", "hash": place.put("in/read"), "mode": 511, "mtime": 0},
        place.visible("list/a", "a"),
        place.visible("looked-at", "x"),
    ]);
    let script = "cat in/read in/empty; ./tool; cat to-read; ls list; test -e looked-at; \
                  test -e no/such; echo made > made; mv made moved; mkdir d; rmdir d";
    let result = recorded(&place, "full", script, &visible);
    let rows = rows(&result);
    let told = |path: &str, class: &str, declared: bool| {
        let row = rows
            .get(path)
            .unwrap_or_else(|| panic!("no {path}: {result:#}"));
        assert!(has(row, class), "{row}");
        assert_eq!(row["declared"], declared, "{row}");
        assert!(
            row["first"]
                .as_f64()
                .is_some_and(|first| (0.0..60.0).contains(&first)),
            "{row}"
        );
    };
    told("in/read", "read", true);
    told("in/empty", "read", true);
    told("tool", "exec", true);
    told("to-read", "readlink", true);
    told("list", "list", true);
    told("looked-at", "stat", true);
    told("no", "probe-absent", false);
    told("made", "create", false);
    told("made", "rename", false);
    told("moved", "rename", false);
    told("d", "delete", false);
    assert_eq!(rows["in/read"]["bytes"], 4);
    assert_eq!(rows["in/read"]["bytes_kind"], "size");
    assert_eq!(rows["in/empty"]["bytes"], 0);
    assert_eq!(rows["moved"]["bytes"], 5);
    assert!(
        !rows.contains_key("in") && !rows.contains_key("in/unread"),
        "{result:#}"
    );
    assert_eq!(strings(&result["unused"]), ["in/unread", "list/a"]);
}

#[test]
fn what_the_sandbox_looks_for_is_not_the_jobs_doing() {
    needs_fuse!();
    let place = Place::new();
    let result = recorded(&place, "full", "true", &json!([]));
    assert_eq!(rows(&result).len(), 0);
    // The store is in the workspace, where the sandbox has looked for it to hide it.
    let result = recorded(&place, "full", "test ! -e .build", &json!([]));
    assert_eq!(rows(&result).into_keys().collect::<Vec<_>>(), [".build"]);
}

#[test]
fn a_level_of_inputs_tells_inputs_and_none_nothing() {
    needs_fuse!();
    let place = Place::new();
    let visible = json!([place.visible("a", "a"), place.visible("b", "b")]);
    let script = "cat a; test -e b; test -e no; echo made > made";
    let result = recorded(&place, "inputs", script, &visible);
    assert_eq!(rows(&result).into_keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(result.get("record-missing"), None);
    assert_eq!(strings(&result["inputs"]), ["a"]);
    let result = recorded(&place, "none", script, &visible);
    for key in [
        "record",
        "record-file",
        "record-missing",
        "unused",
        "absent",
    ] {
        assert_eq!(result.get(key), None, "{key}");
    }
}

#[test]
fn a_level_that_is_none_of_these_is_refused_by_name() {
    let place = Place::new();
    let mut spec = place.spec("true");
    spec["record"] = json!("everything");
    let (outcome, _) = place.batch_call(&spec, &[]);
    let told = outcome.expect(1).stderr();
    assert!(
        told.contains("record") && told.contains("everything"),
        "{told}"
    );
}

#[test]
fn a_long_record_is_lines_of_a_file_beside_the_result() {
    needs_fuse!();
    let place = Place::new();
    let mut spec = place.spec("i=0; while [ $i -lt 10050 ]; do [ -e n$i ]; i=$((i+1)); done");
    spec["record"] = json!("full");
    let (outcome, result) = place.batch(&spec);
    outcome.expect(0);
    let result = result.expect("a result");
    assert_eq!(result.get("record"), None);
    let file = place
        .root()
        .join(result["record-file"].as_str().expect("a file"));
    let text = std::fs::read_to_string(file).expect("the record");
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a row"))
        .collect();
    assert!(rows.len() >= 10_050, "{} rows", rows.len());
    let absent = |row: &&Value| row["class"] == "probe-absent";
    assert_eq!(rows.iter().filter(absent).count(), 10_050);
}

#[test]
fn a_writable_input_is_declared() {
    needs_fuse!();
    let place = Place::new();
    let mut input = place.visible("rw", "before");
    input["writable"] = json!(true);
    let unused = json!([input, place.visible("unused", "x")]);
    let result = recorded(&place, "full", "echo more >> rw", &unused);
    let rows = rows(&result);
    assert_eq!(rows["rw"]["class"], "write");
    assert_eq!(rows["rw"]["declared"], true);
    assert_eq!(rows["rw"]["bytes"], 11);
    assert_eq!(strings(&result["unused"]), ["unused"]);
}
