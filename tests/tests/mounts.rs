//! Mount operations of batch jobs: roots of their own, and what they must not lead to.

use serde_json::{Value, json};
use wakebox_tests::job::strings;
use wakebox_tests::{Place, needs_fuse};

/// A root of the host's programs, empty but for them.
fn root() -> Vec<Value> {
    let mut ops = vec![json!({"type": "tmpfs", "destination": "/"})];
    for path in ["/bin", "/lib", "/lib64", "/usr"] {
        if std::path::Path::new(path).is_dir() {
            ops.push(json!({"type": "create-dir", "destination": path}));
            ops.push(
                json!({"type": "bind", "source": path, "destination": path, "read_only": true}),
            );
        }
    }
    ops.push(json!({"type": "create-dir", "destination": "/dev"}));
    ops.push(json!({"type": "create-file", "destination": "/dev/null"}));
    ops.push(json!({"type": "bind", "source": "/dev/null", "destination": "/dev/null"}));
    ops
}

#[test]
fn a_job_in_a_root_of_its_own_has_a_view() {
    needs_fuse!();
    let place = Place::new();
    place.write("sub/in", "declared");
    let mut ops = root();
    for path in ["/proc", "/view", "/again", "/host"] {
        ops.push(json!({"type": "create-dir", "destination": path}));
    }
    ops.push(json!({"type": "bind", "source": "/", "destination": "/host"}));
    ops.push(json!({"type": "workspace", "destination": "/view"}));
    ops.push(json!({"type": "workspace", "destination": "/again"}));
    let mut spec = place.spec(
        "pwd; cat in; echo; ls / | tr '\\n' ' '; echo made >/again/sub/out; cat out; uname -n
         ulimit -n; id -u; ls -A \"$STORE/..\" \"$STORE\"",
    );
    spec["visible"] = json!(["sub/in"]);
    spec["directory"] = json!("sub");
    spec["staging"] = json!("discard");
    spec["mount-ops"] = ops.into();
    spec["hostname"] = json!("elsewhere");
    spec["isolate-network"] = json!(true);
    spec["isolate-pids"] = json!(true);
    spec["user-id"] = json!(4321);
    spec["limits"] = json!({"nofile": [77, 88]});
    // The first job makes the store, which the second must not find.
    let environment = spec["environment"].as_array_mut().expect("an environment");
    let store = place.workspace().join(".build/cas");
    environment.push(format!("STORE=/host{}", store.display()).into());
    let (outcome, _) = place.batch_call(&spec, &[]);
    outcome.expect(0);
    let (outcome, result) = place.batch_call(&spec, &[]);
    let told = outcome.expect(0).stdout();
    let result = result.expect("a result");
    assert!(told.starts_with("/view/sub\ndeclared\nagain "), "{told}");
    assert!(told.contains(" view made\nelsewhere\n77\n4321\n"), "{told}");
    let store = format!("/host{}", store.display());
    assert!(
        told.ends_with(&format!("{store}:\n\n{store}/..:\ncas\n")),
        "{told}"
    );
    assert_eq!(strings(&result["inputs"]), ["sub/in"]);
    assert_eq!(strings(&result["outputs"]), ["sub/out"]);
    place.expect_clean();
}

#[test]
fn a_part_of_the_store_cannot_be_bound() {
    needs_fuse!();
    let place = Place::new();
    place.put("content");
    let mut spec = place.spec("touch ran");
    spec["mount-ops"] =
        json!([{"type": "bind", "source": ".build/cas/blobs", "destination": "/mnt"}]);
    let (outcome, result) = place.batch_call(&spec, &[]);
    outcome.expect(1);
    let result = result.expect("a result of the failure");
    assert_eq!(result["sandbox-error"]["kind"], "spec", "{result}");
}

#[test]
fn binds_of_the_command_line_are_mounted() {
    let place = Place::new();
    place.write("from/f", "bound");
    place.write("to/hidden", "");
    let told = place.call(["--bind", "from:to", "--", "/bin/ls", "to"]);
    assert_eq!(told.expect(0).stdout(), "f\n");
    let mut spec = place.spec("ls to");
    spec["mount-ops"] = json!([]);
    place.write("spec.json", spec.to_string());
    let told = place.call(["-p", "spec.json", "-b", "from:to"]);
    assert_eq!(told.expect(0).stdout(), "f\n");
}
