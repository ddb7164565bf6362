//! Specs with very many inputs: their manifests are kept, and known again.

use std::path::PathBuf;

use serde_json::{Value, json};
use wakebox_tests::job::{BATCH_STORE, kill};
use wakebox_tests::{Place, needs_fuse};

/// So many inputs make a manifest of more than a megabyte, and a text of more.
const COUNT: usize = 12_000;

/// A spec of a script and very many names of one blob.
fn spec(place: &Place, script: &str) -> Value {
    let mut spec = place.spec(script);
    let hash = place.put("x\n");
    let input = |i: usize| {
        let directory = format!("some/directory-with-a-long-name-{:03}", i / 100);
        let path = format!("{directory}/and-in-it-a-file-{i:05}");
        json!({"path": path, "type": "file", "hash": hash, "mode": 0o444, "mtime": i})
    };
    spec["visible"] = (0..COUNT).map(input).collect();
    spec
}

const SCRIPT: &str = "find . -type f | wc -l; cat some/*/*-04711 some/*/*-11999";

/// Runs the job of a spec, and says what it printed.
#[track_caller]
fn printed(place: &Place, spec: &Value) -> String {
    let (outcome, result) = place.batch(spec);
    let outcome = outcome.expect(0);
    assert_eq!(outcome.stderr(), "");
    let inputs = &result.expect("a result")["inputs"];
    assert!(!inputs.as_array().expect("a list").is_empty());
    outcome.stdout()
}

fn kept(place: &Place) -> Vec<PathBuf> {
    let directory = std::fs::read_dir(place.workspace().join(BATCH_STORE).join("index/manifests"));
    directory.map_or(Vec::new(), |entries| {
        entries.map(|entry| entry.expect("a file").path()).collect()
    })
}

#[test]
fn a_list_that_was_read_before_is_the_same_list() {
    needs_fuse!();
    let place = Place::new();
    let mut spec = spec(&place, SCRIPT);
    for _ in 0..3 {
        assert_eq!(printed(&place, &spec), "12000\nx\nx\n");
        assert_eq!(kept(&place).len(), 1);
    }
    assert_eq!(place.debris(), Vec::<PathBuf>::new());
    spec["command"][2] = json!("cat some/*/*-00000");
    assert_eq!(printed(&place, &spec), "x\n");
    assert_eq!(kept(&place).len(), 1);
    spec["visible"][4711]["hash"] = json!(place.put("y\n"));
    spec["command"][2] = json!(SCRIPT);
    for _ in 0..2 {
        assert_eq!(printed(&place, &spec), "12000\ny\nx\n");
        assert_eq!(kept(&place).len(), 2);
    }
}

#[test]
fn what_is_kept_of_it_may_be_lost() {
    needs_fuse!();
    let place = Place::new();
    let spec = spec(&place, SCRIPT);
    let check = || {
        assert_eq!(printed(&place, &spec), "12000\nx\nx\n");
        let [kept] = &kept(&place)[..] else {
            panic!("one is kept");
        };
        kept.clone()
    };
    let file = check();
    let whole = std::fs::read(&file).expect("a manifest");
    std::fs::write(&file, &whole[..1000]).expect("cut");
    assert_eq!(std::fs::read(check()).expect("a manifest"), whole);
    std::fs::remove_dir_all(place.workspace().join(BATCH_STORE).join("index")).expect("removed");
    check();
    std::fs::remove_dir_all(place.runtime().join("wakebox/specs")).expect("there are records");
    check();
    let records = std::fs::read_dir(place.runtime().join("wakebox/specs")).expect("records");
    for record in records {
        std::fs::write(record.expect("a record").path(), "0 0 0").expect("damaged");
    }
    check();
}

/// Whoever damages it on purpose is told, once. That it happens at all shows that it is used.
#[test]
fn what_is_kept_of_it_is_not_trusted() {
    needs_fuse!();
    let place = Place::new();
    let spec = spec(&place, SCRIPT);
    assert_eq!(printed(&place, &spec), "12000\nx\nx\n");
    let file = kept(&place).remove(0);
    let mut bytes = std::fs::read(&file).expect("a manifest");
    *bytes.last_mut().expect("it is long") ^= 1;
    std::fs::write(&file, bytes).expect("damaged");
    assert_eq!(
        printed(&place, &spec),
        "12000\nx\nx\n",
        "the daemon knows it"
    );
    place.daemons().into_iter().for_each(kill);
    let (outcome, _) = place.batch(&spec);
    let message = outcome.expect(125).stderr();
    assert!(
        message.contains("index/manifests of the store was damaged"),
        "{message}"
    );
    assert_eq!(message.lines().count(), 1);
    assert_eq!(printed(&place, &spec), "12000\nx\nx\n");
}

/// A list that nobody remembers is read anew, and what was kept of it need not be that.
#[test]
fn what_is_kept_of_it_is_no_other_list() {
    needs_fuse!();
    let place = Place::new();
    let spec = spec(&place, SCRIPT);
    assert_eq!(printed(&place, &spec), "12000\nx\nx\n");
    let file = kept(&place).remove(0);
    let whole = std::fs::read(&file).expect("a manifest");
    let mut other = whole.clone();
    let end_of_path = other.len() - 33;
    other[end_of_path] = b'z';
    std::fs::write(&file, other).expect("damaged");
    place.daemons().into_iter().for_each(kill);
    std::fs::remove_dir_all(place.runtime().join("wakebox/specs")).expect("there are records");
    assert_eq!(printed(&place, &spec), "12000\nx\nx\n");
    assert_eq!(std::fs::read(&file).expect("a manifest"), whole);
}
