//! A small C program, built by jobs: what a build tool lives on.

use std::path::Path;

use cas::Digest;
use serde_json::{Value, json};
use wakebox_tests::job::{BATCH_STORE, strings};
use wakebox_tests::{Place, needs_fuse, skip};

const MAKEFILE: &str = "prog: main.o lib/sum.o\n\tcc -o prog main.o lib/sum.o\n\
%.o: %.c\n\tcc -Iinclude -c -o $@ $<\n\
main.o: include/sum.h\nlib/sum.o: include/sum.h include/detail.h\n";

const SOURCES: [(&str, &str); 7] = [
    ("Makefile", MAKEFILE),
    (
        "main.c",
        "#include <stdio.h>\n#include \"sum.h\"\nint main(void) { printf(\"%d\\n\", sum(20, 22)); return 0; }\n",
    ),
    (
        "lib/sum.c",
        "#include \"sum.h\"\n#include \"detail.h\"\nint sum(int a, int b) { return a + b + ZERO; }\n",
    ),
    ("include/sum.h", "int sum(int a, int b);\n"),
    ("include/detail.h", "#define ZERO 0\n"),
    ("include/unused.h", "#error never read\n"),
    ("notes.txt", "never read\n"),
];

/// Why nothing can be compiled here, if nothing can.
fn cannot_compile() -> Option<&'static str> {
    let works = |tool: &str| {
        let output = std::process::Command::new(tool).arg("--version").output();
        output.is_ok_and(|output| output.status.success())
    };
    ["cc", "make"].into_iter().find(|tool| !works(tool))
}

macro_rules! needs_compiler {
    () => {
        needs_fuse!();
        if let Some(tool) = cannot_compile() {
            skip!(format!("there is no {tool}"));
        }
    };
}

fn sources(place: &Place, names: &[&str]) -> Value {
    let wanted = SOURCES
        .iter()
        .filter(|(name, _)| names.is_empty() || names.contains(name));
    wanted
        .map(|(name, text)| place.visible(name, text))
        .collect()
}

fn content(place: &Place, hash: &Value) -> Vec<u8> {
    let hash = hash.as_str().expect("a hash");
    place
        .call(["cas", "--store", BATCH_STORE, "cat", hash])
        .expect(0)
        .0
        .stdout
}

#[test]
fn a_program_is_made_and_its_inputs_and_outputs_are_told_exactly() {
    needs_compiler!();
    let place = Place::new();
    let mut build = place.spec_of(&["make", "--no-print-directory"]);
    build["visible"] = sources(&place, &[]);
    let result = place.result_of(&build);
    let read = [
        "Makefile",
        "include/detail.h",
        "include/sum.h",
        "lib/sum.c",
        "main.c",
    ];
    assert_eq!(strings(&result["inputs"]), read);
    assert_eq!(strings(&result["outputs"]), ["lib/sum.o", "main.o", "prog"]);
    let hashed = result["hashed_files"].as_object().expect("an object");
    assert_eq!(hashed.len(), 3);
    for (path, entry) in hashed {
        let staged = std::fs::read(place.staged(&result["staging_files"][path])).expect(path);
        assert_eq!(entry["hash"], Digest::of(&staged).to_string(), "{path}");
        assert_eq!(entry["size"], staged.len(), "{path}");
        assert_eq!(content(&place, &entry["hash"]), staged, "{path}");
    }

    let prog = &hashed["prog"];
    let mut run = place.spec_of(&["./prog"]);
    run["visible"] = json!([{
        "path": "prog", "type": "file", "hash": prog["hash"], "mode": prog["mode"], "mtime": 0,
    }]);
    let (outcome, result) = place.batch_call(&run, &[]);
    assert_eq!(outcome.expect(0).stdout(), "42\n");
    assert_eq!(strings(&result.expect("a result")["inputs"]), ["prog"]);
}

#[test]
fn what_is_not_declared_is_missing_to_a_compiler_too() {
    needs_compiler!();
    let place = Place::new();
    // It is in the workspace all right.
    place.write("include/detail.h", "#define ZERO 0\n");
    let mut spec = place.spec_of(&["cc", "-Iinclude", "-c", "-o", "sum.o", "lib/sum.c"]);
    spec["visible"] = sources(&place, &["lib/sum.c", "include/sum.h"]);
    let (outcome, result) = place.batch_call(&spec, &[]);
    let outcome = outcome.expect(1);
    assert!(
        outcome
            .stderr()
            .contains("detail.h: No such file or directory"),
        "{}",
        outcome.stderr()
    );
    let result = result.expect("a result");
    assert_eq!(result["usage"]["status"], 1);
    assert_eq!(result["outputs"], json!([]));
    assert_eq!(
        std::fs::read_dir(place.workspace())
            .expect("a directory")
            .count(),
        2
    );
    assert!(
        Path::new(&place.workspace())
            .join("include/detail.h")
            .exists()
    );
}
