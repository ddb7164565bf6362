//! The documents that are promised: schemas, checked against examples and against real results.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wakebox_tests::{Place, needs_fuse};

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(document(name)).expect(name)
}

fn schema(name: &str) -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(&text(name)).expect("the schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is one")
}

#[track_caller]
fn assert_valid(schema: &jsonschema::Validator, value: &Value) {
    let problems: Vec<_> = schema
        .iter_errors(value)
        .map(|e| format!("{}: {e}", e.instance_path))
        .collect();
    assert!(problems.is_empty(), "{problems:#?}\n{value:#}");
}

/// The fenced blocks of a language in a document.
fn examples(name: &str, language: &str) -> Vec<String> {
    let text = text(name);
    let blocks = text.split("```").skip(1).step_by(2);
    let mut found = Vec::new();
    for block in blocks {
        if let Some(body) = block.strip_prefix(&format!("{language}\n")) {
            found.push(body.to_owned());
        }
    }
    found
}

#[test]
fn every_spec_in_the_documentation_is_valid_and_understood() {
    let schema = schema("docs/spec.schema.json");
    let mut count = 0;
    for name in ["README.md", "docs/batch.md"] {
        for example in examples(name, "json5") {
            let value: Value = json5::from_str(&example).expect(&example);
            assert_valid(&schema, &value);
            client::spec::Spec::parse(&example).expect(&example);
            count += 1;
        }
    }
    assert!(count >= 2, "the documents have {count} examples");
}

#[test]
fn every_result_in_the_documentation_is_valid() {
    let schema = schema("docs/result.schema.json");
    let examples = examples("docs/batch.md", "json");
    assert!(!examples.is_empty());
    for example in examples {
        assert_valid(&schema, &serde_json::from_str(&example).expect(&example));
    }
}

#[test]
fn schema_and_parser_refuse_the_same_specs() {
    let schema = schema("docs/spec.schema.json");
    let wrong = [
        json!({}),
        json!({"command": []}),
        json!({"command": ["x"], "visible": ["/a"]}),
        json!({"command": ["x"], "visible": ["a/../b"]}),
        json!({"command": ["x"], "visible": [{"path": "a", "type": "file", "mode": 1, "mtime": 0}]}),
        json!({"command": ["x"], "visible": [{"path": "a", "hash": "12"}]}),
        json!({"command": ["x"], "command-timeout": 0}),
        json!({"command": ["x"], "mount-ops": [{"type": "nfs"}]}),
        json!({"command": ["x"], "mount-ops": [{"type": "tmpfs"}]}),
        json!({"command": ["x"], "mount-ops": [{"type": "bind", "destination": "/x"}]}),
        json!({"command": ["x"], "mount-ops": [{"type": "tmpfs", "source": "x", "destination": "/x"}]}),
        json!({"command": ["x"], "limits": {"files": 1}}),
        json!({"command": ["x"], "limits": {"nofile": "many"}}),
        json!({"command": ["x"], "limits": {"nofile": [1]}}),
        json!({"command": ["x"], "staging": "burn"}),
        json!({"command": ["x"], "inputs": "writable"}),
        json!({"command": ["x"], "copy-on-write": "a"}),
        json!({"command": ["x"], "copy-on-write": ["a", "/b"]}),
        json!({"command": ["x"], "copy-on-write": ["../a"]}),
        json!({"command": ["x"], "record": "everything"}),
        json!({"command": ["x"], "input-root": ""}),
        json!({"command": ["x"], "input-root": format!("{}/x", "0".repeat(64))}),
    ];
    for spec in wrong {
        assert!(!schema.is_valid(&spec), "{spec}");
        assert!(
            client::spec::Spec::parse(&spec.to_string()).is_err(),
            "{spec}"
        );
    }
}

#[test]
fn real_results_are_valid() {
    needs_fuse!();
    let schema = schema("docs/result.schema.json");
    let place = Place::new();
    place.write("in", "x");
    let script = "cat in; mkdir d; echo y > d/f; ln d/f d/g; ln -s f d/l; mkfifo p; kill -9 $$";
    for staging in ["keep", "discard"] {
        let (_, result) = place.batch(&json!({
            "command": ["sh", "-c", script],
            "environment": ["PATH=/usr/bin:/bin"],
            "visible": ["in"],
            "staging": staging,
            "record": "full",
            "mount-ops": [{"type": "workspace", "destination": "."}],
        }));
        let result = result.expect("a result");
        assert_eq!(result["usage"]["status"], -9);
        assert_valid(&schema, &result);
    }
    let (_, result) = place.batch(&json!({
        "command": ["sh", "-c", "mv in out; echo z > new; chmod 700 ."],
        "environment": ["PATH=/usr/bin:/bin"],
        "visible": ["in"],
        "inputs": "copy-on-write",
        "mount-ops": [{"type": "workspace", "destination": "."}],
    }));
    let result = result.expect("a result");
    assert_eq!(result["changed"]["out"]["renamed-from"], "in");
    assert_eq!(result["root"]["mode"], 0o700);
    assert_valid(&schema, &result);
    let (_, result) = place.batch(&json!({"command": ["/bin/true"]}));
    assert_valid(&schema, &result.expect("a result"));
    let (_, result) = place.batch(&json!({"command": [""]}));
    let result = result.expect("a result");
    assert_eq!(result["sandbox-error"]["kind"], "spec");
    assert_valid(&schema, &result);
}
