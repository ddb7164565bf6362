//! What the fuzzer has kept, and what it has found, passed on again.

use std::path::Path;

use wakebox_tests::fuzz::TARGETS;

#[test]
fn what_was_kept_of_fuzzing_goes_through() {
    for (name, target) in TARGETS {
        let corpus = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus")).join(name);
        let entries = std::fs::read_dir(&corpus).expect(name).flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            println!("{}", file.display());
            target(&std::fs::read(&file).expect("a file"));
        }
    }
}
