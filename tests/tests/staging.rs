//! What becomes of the files that a batch job makes.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use cas::Digest;
use serde_json::{Value, json};
use wakebox_tests::job::BATCH_STORE;
use wakebox_tests::{Place, needs_fuse};

/// Whether the store of batch jobs has a blob.
fn has(place: &Place, content: &[u8]) -> bool {
    let hash = Digest::of(content).to_string();
    place
        .call(["cas", "--store", BATCH_STORE, "has", &hash])
        .code()
        == 0
}

/// Takes the staged files as wake does: reads and unlinks each, then removes the directory.
fn take_over(place: &Place, result: &Value) -> Vec<(String, Vec<u8>)> {
    let mut taken = Vec::new();
    for (path, entry) in result["staging_files"].as_object().expect("an object") {
        if entry["type"] == "file" {
            let staged = place.staged(entry);
            taken.push((path.clone(), std::fs::read(&staged).expect(path)));
            std::fs::remove_file(staged).expect(path);
        }
    }
    let root = result["staging_root"].as_str().expect("a staging_root");
    std::fs::remove_dir(place.workspace().join(root)).expect("nothing else is in it");
    taken
}

#[test]
fn kept_files_are_taken_over_one_by_one() {
    needs_fuse!();
    let place = Place::new();
    let script =
        "mkdir -p d/e; echo a > a; echo b > d/e/b; ln a d/a2; ln a a3; ln -s a link; : > empty";
    let result = place.result_of(&place.spec(script));
    let staged = &result["staging_files"];
    let paths: Vec<_> = ["a", "a3", "d/a2"]
        .iter()
        .map(|name| place.staged(&staged[*name]))
        .collect();
    assert!(
        paths[0] != paths[1] && paths[1] != paths[2] && paths[0] != paths[2],
        "{paths:?}"
    );
    let inodes: Vec<_> = paths
        .iter()
        .map(|path| path.metadata().expect("staged").ino())
        .collect();
    assert!(
        inodes.iter().all(|inode| *inode == inodes[0]),
        "names of one file stay one file"
    );
    // An edit of what was handed out must not reach the store.
    let same = Digest::of(b"a\n").to_string();
    let blob = place
        .call(["cas", "--store", BATCH_STORE, "path", &same])
        .expect(0)
        .stdout();
    assert_ne!(
        Path::new(blob.trim_end()).metadata().expect("a blob").ino(),
        inodes[0]
    );

    let hashed = &result["hashed_files"];
    assert!(hashed["a"]["link-group"].is_u64(), "{hashed}");
    assert_eq!(hashed["a"]["link-group"], hashed["d/a2"]["link-group"]);
    assert_eq!(hashed["a"]["link-group"], hashed["a3"]["link-group"]);
    assert!(hashed["empty"].get("link-group").is_none());
    assert_eq!(
        result["usage"]["outbytes"], 4,
        "a hard-linked file counts once"
    );

    let taken = take_over(&place, &result);
    let of = |path: &str| {
        taken
            .iter()
            .find(|(name, _)| name == path)
            .map(|(_, bytes)| &bytes[..])
    };
    assert_eq!(of("a"), Some(&b"a\n"[..]));
    assert_eq!(of("d/a2"), Some(&b"a\n"[..]));
    assert_eq!(of("d/e/b"), Some(&b"b\n"[..]));
    assert_eq!(of("empty"), Some(&b""[..]));
    assert!(has(&place, b"a\n") && has(&place, b"b\n"), "adopted, too");
    place.expect_clean();
}

/// Regression: of a time before 1970 with a fraction, the fraction was subtracted.
#[test]
fn modes_and_times_are_told_to_the_bit() {
    needs_fuse!();
    let place = Place::new();
    let script = "mkdir d; echo x > d/f; chmod 0640 d/f; ln -s f d/l; echo s > s
        touch -h -d '2001-02-03 04:05:06.700000008 UTC' d/l
        touch -d '1969-12-31 23:59:58.250000000 UTC' s; chmod 4755 s
        touch -d '2020-01-02 03:04:05.123456789 UTC' d/f; chmod 0711 d
        touch -d '2010-01-01 00:00:00.000000001 UTC' d
        stat -c %.9Y d/f s";
    let (outcome, result) = place.batch_call(&place.spec(script), &[]);
    assert_eq!(
        outcome.expect(0).stdout(),
        "1577934245.123456789\n-1.750000000\n"
    );
    let result = result.expect("a result");
    let expected = [
        ("d/f", Some(0o640), 1_577_934_245_i64, 123_456_789),
        ("d/l", None, 981_173_106, 700_000_008),
        ("d", Some(0o711), 1_262_304_000, 1),
        ("s", Some(0o4755), -2, 250_000_000),
    ];
    for (path, mode, seconds, nanoseconds) in expected {
        for list in ["hashed_files", "staging_files"] {
            let entry = &result[list][path];
            assert_eq!(entry["mtime_sec"], seconds, "{list} {path}: {entry}");
            assert_eq!(entry["mtime_nsec"], nanoseconds, "{list} {path}: {entry}");
            assert_eq!(
                entry.get("mode"),
                mode.map(Value::from).as_ref(),
                "{list} {path}: {entry}"
            );
        }
    }
    let staged = place
        .staged(&result["staging_files"]["d/f"])
        .metadata()
        .expect("staged");
    assert_eq!(
        (staged.mtime(), staged.mtime_nsec()),
        (1_577_934_245, 123_456_789)
    );
}

#[test]
fn a_file_that_its_owner_cannot_read_is_still_handed_out() {
    needs_fuse!();
    let place = Place::new();
    let result = place.result_of(&place.spec("echo x > f; chmod 0200 f; echo y > g; chmod 0 g"));
    for (path, mode, content) in [("f", 0o200, "x\n"), ("g", 0, "y\n")] {
        assert_eq!(result["staging_files"][path]["mode"], mode, "{path}");
        assert_eq!(result["hashed_files"][path]["mode"], mode, "{path}");
        let staged = place.staged(&result["staging_files"][path]);
        assert_eq!(
            staged.metadata().expect(path).permissions().mode() & 0o400,
            0o400,
            "{path}"
        );
        assert_eq!(std::fs::read_to_string(staged).expect(path), content);
    }
    take_over(&place, &result);
}

#[test]
fn discarded_files_are_in_the_store_and_nowhere_else() {
    needs_fuse!();
    let place = Place::new();
    let mut spec = place.spec("echo kept > a; ln a b; mkdir d; ln -s a l");
    spec["staging"] = json!("discard");
    let result = place.result_of(&spec);
    assert!(
        result.get("staging_files").is_none() && result.get("staging_root").is_none(),
        "{result}"
    );
    assert_eq!(
        result["hashed_files"]["a"]["hash"],
        Digest::of(b"kept\n").to_string()
    );
    assert_eq!(
        result["hashed_files"]["a"]["hash"],
        result["hashed_files"]["b"]["hash"]
    );
    assert!(has(&place, b"kept\n"));
    assert!(place.verifies(BATCH_STORE.as_ref()));
    place.expect_clean();
}

#[test]
fn without_adoption_the_store_gets_nothing() {
    needs_fuse!();
    let place = Place::new();
    let mut spec = place.spec("echo mine > a");
    spec["adopt"] = json!(false);
    let result = place.result_of(&spec);
    assert_eq!(
        result["hashed_files"]["a"]["hash"],
        Digest::of(b"mine\n").to_string()
    );
    assert_eq!(result["hashed_files"]["a"]["adopted"], false);
    assert!(!has(&place, b"mine\n"));
    assert_eq!(
        take_over(&place, &result),
        [("a".to_owned(), b"mine\n".to_vec())]
    );
    place.expect_clean();
}

#[test]
fn without_a_result_nothing_is_kept() {
    needs_fuse!();
    let place = Place::new();
    let spec_file = place.root().join("spec.json");
    std::fs::write(&spec_file, place.spec("echo x > out").to_string()).expect("a spec");
    place.call([Path::new("-p"), &spec_file]).expect(0);
    place.expect_clean();
}

#[test]
fn only_files_links_and_directories_are_outputs() {
    needs_fuse!();
    let place = Place::new();
    let script =
        "mkfifo fifo; echo x > gone; exec 3< gone; rm gone; echo y > moved; mv moved to; cat <&3";
    let (outcome, result) = place.batch_call(&place.spec(script), &[]);
    assert_eq!(outcome.expect(0).stdout(), "x\n");
    let result = result.expect("a result");
    assert_eq!(result["outputs"], json!(["to"]));
    assert_eq!(
        take_over(&place, &result),
        [("to".to_owned(), b"y\n".to_vec())]
    );
}
