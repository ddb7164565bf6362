//! Shared writable mappings of inputs that a job may change: FUSE announces none, so that the first
//! thing known of a store to memory is the page that is written back.

use serde_json::json;
use wakebox_tests::{Place, needs_fuse, skip};

use super::cas;

/// Maps, stores, and looks by every other way: an older descriptor, an older mapping, another process.
const MAPS: &str = r#"
import mmap, os, subprocess
before = os.open("stored", os.O_RDONLY)
seen = mmap.mmap(before, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
number = os.fstat(before).st_ino
writer = os.open("stored", os.O_RDWR)
mapping = mmap.mmap(writer, 0, flags=mmap.MAP_SHARED)
os.close(writer)
other = lambda: subprocess.run(["cat", "stored"], capture_output=True, check=True).stdout
assert other() == b"first, as declared" + b"." * 9000
mapping[0:5] = b"later"
mapping[8500:8503] = b"end"
mapping.flush()
assert seen[0:5] == b"later" and seen[8500:8503] == b"end"
assert os.pread(before, 5, 0) == b"later"
assert other()[:18] == b"later, as declared" and other()[8500:8503] == b"end"
assert os.stat("stored").st_ino == number and os.fstat(before).st_size == 9018
# Nobody flushes this one: it is written back when it goes.
mapping[0:5] = b"final"

quiet = os.open("only-mapped", os.O_RDWR)
idle = mmap.mmap(quiet, 0, flags=mmap.MAP_SHARED)
assert idle[0:4] == b"kept"

private = os.open("private", os.O_RDWR)
own = mmap.mmap(private, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
own[0:4] = b"mine"
assert os.pread(private, 4, 0) == b"kept"
"#;

#[test]
fn a_shared_mapping_of_an_input_is_copied_at_write_back_and_everybody_sees_it() {
    needs_fuse!();
    let python = std::process::Command::new("python3")
        .arg("--version")
        .output();
    if !python.is_ok_and(|output| output.status.success()) {
        skip!("there is no python3");
    }
    let place = Place::new();
    let before = format!("first, as declared{}", ".".repeat(9000));
    let blob = place.put(&before);
    let mut spec = place.spec_of(&["python3", "-c", MAPS]);
    spec["visible"] = json!([
        place.visible("stored", &before),
        place.visible("only-mapped", "kept"),
        place.visible("private", "kept"),
    ]);
    spec["inputs"] = json!("copy-on-write");
    let result = place.result_of(&spec);
    assert_eq!(result["outputs"], json!(["stored"]), "{result:#}");
    assert_eq!(result["changed"], json!({"stored": {"change": "modified"}}));
    let staged = std::fs::read(place.staged(&result["staging_files"]["stored"])).expect("staged");
    let mut after = before.clone().into_bytes();
    after[..5].copy_from_slice(b"final");
    after[8500..8503].copy_from_slice(b"end");
    assert!(
        staged == after,
        "{:?}",
        String::from_utf8_lossy(&staged[..40])
    );
    assert_eq!(cas(&place, &["cat", &blob]), before);
}
