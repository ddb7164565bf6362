//! The harness itself: every workload runs under every contender that is here, with tiny sizes.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The wakebox of the same build, if there is one.
fn wakebox() -> Option<&'static Path> {
    let beside = Path::new(env!("CARGO_BIN_EXE_bench"));
    let path = beside.with_file_name("wakebox");
    path.exists().then(|| &*Box::leak(path.into_boxed_path()))
}

fn run(arguments: &[&str]) -> (bool, String) {
    let place = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .env("TMPDIR", place.path())
        .args(arguments)
        .output()
        .expect("bench runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let left = std::fs::read_dir(place.path()).expect("the disk").count();
    assert_eq!(left, 0, "files are left behind: {said}");
    (output.status.success(), said.into_owned())
}

#[test]
fn every_suite_measures_native_and_wakebox_and_finds_the_same_outputs() {
    let json = tempfile::NamedTempFile::new().expect("a file");
    let path = json.path().to_str().expect("UTF-8");
    let (succeeded, said) = run(&["--quick", "--json", path]);
    assert!(succeeded, "{said}");
    let text = std::fs::read_to_string(json.path()).expect("written");
    let found: Value = serde_json::from_str(&text).expect("JSON");
    let rows = found["rows"].as_array().expect("rows");
    let suites = [
        "start", "tools", "metadata", "data", "change", "jobs", "ingest",
    ];
    for suite in suites {
        let mut mine = rows.iter().filter(|row| row["suite"] == suite);
        let measured = |row: &Value| row["cells"][0]["summary"]["median"].as_f64() > Some(0.0);
        let first = mine.next().unwrap_or_else(|| panic!("{suite}: {said}"));
        assert!(measured(first) && mine.all(measured), "{suite}: {said}");
    }
    let Some(_) = wakebox() else {
        println!("SKIPPED: wakebox is not built beside the harness");
        return;
    };
    let ours = |row: &Value| {
        let cells = row["cells"].as_array().expect("cells");
        cells
            .iter()
            .find(|cell| cell["contender"] == "wakebox")
            .cloned()
    };
    let row = rows
        .iter()
        .find(|row| row["name"] == "find, warm")
        .expect("find");
    assert!(
        ours(row).expect("wakebox")["ratio"].as_f64() > Some(0.0),
        "{said}"
    );
}

#[test]
fn pinned_rows_are_rows_of_their_own() {
    let (succeeded, said) = run(&["--quick", "change", "--pin", "0", "--only", "none"]);
    assert!(succeeded && said.contains("\nrename\n"), "{said}");
    assert!(said.contains("\nrename, same CPU\n"), "{said}");
}

#[test]
fn a_contender_that_makes_something_else_is_found_out() {
    use std::os::unix::fs::PermissionsExt;
    let liar = tempfile::NamedTempFile::new().expect("a file");
    let script =
        "#!/bin/sh\nshift 3\necho '{\"usage\":{\"status\":0},\"hashed_files\":{}}' > \"$1\"\n";
    std::io::Write::write_all(&mut liar.as_file(), script.as_bytes()).expect("written");
    liar.as_file()
        .set_permissions(PermissionsExt::from_mode(0o755))
        .expect("executable");
    let path = liar.into_temp_path();
    let path = path.to_str().expect("UTF-8").to_owned();
    let arguments = ["--quick", "change", "--only", "wakebox", "--wakebox", &path];
    let (succeeded, said) = run(&arguments);
    assert!(
        !succeeded && said.contains("something else than native"),
        "{said}"
    );
}

#[test]
fn bars_that_nothing_was_measured_for_are_not_met() {
    let (succeeded, said) = run(&[
        "--scale", "0.002", "--rounds", "1", "--check", "change", "--only", "none",
    ]);
    assert!(
        !succeeded && said.contains("NOT MET: rename: not measured for wakebox"),
        "{said}"
    );
}
