//! `wakebox cas`: a store, looked at and fed.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;

use cas::Digest;
use wakebox_tests::{Outcome, Place};

fn cas(place: &Place, arguments: &[&str]) -> Outcome {
    place.call(["cas"].iter().chain(arguments))
}

/// One line of the program's own, and the exit code.
#[track_caller]
fn told(outcome: Outcome, code: i32) -> String {
    let line = outcome.expect(code).stderr();
    assert!(
        line.starts_with("wakebox: ") && line.lines().count() == 1,
        "{line}"
    );
    line
}

fn hash(content: &[u8]) -> String {
    Digest::of(content).to_string()
}

/// Puts content and returns where the blob is.
fn put(place: &Place, content: &str) -> PathBuf {
    place.write("file", content);
    cas(place, &["put", "file"]).expect(0);
    let path = cas(place, &["path", &hash(content.as_bytes())])
        .expect(0)
        .stdout();
    path.trim_end().into()
}

#[test]
fn what_is_put_can_be_found_again() {
    let place = Place::new();
    place.write("a", "hello");
    place.write("b", "");
    let (a, b) = (hash(b"hello"), hash(b""));
    assert_eq!(
        cas(&place, &["put", "a", "b"]).expect(0).stdout(),
        format!("{a}  a\n{b}  b\n")
    );
    assert_eq!(cas(&place, &["cat", &a]).expect(0).stdout(), "hello");
    assert_eq!(cas(&place, &["cat", &b]).expect(0).stdout(), "");
    assert_eq!(cas(&place, &["has", &a, &b]).expect(0).stdout(), "");
    let mut lines = [format!("{a} 5"), format!("{b} 0")];
    lines.sort();
    assert_eq!(
        cas(&place, &["ls"]).expect(0).stdout(),
        lines.join("\n") + "\n"
    );
    assert_eq!(
        cas(&place, &["verify"]).expect(0).stdout(),
        "2 blobs, 5 bytes, 0 bad\n"
    );
    assert!(place.debris().is_empty());
    // The store is elsewhere when told so.
    cas(&place, &["--store", "other", "put", "/dev/null"]).expect(0);
    let listed = cas(&place, &["--store", "other", "ls"]).expect(0).stdout();
    assert_eq!(listed, format!("{} 0\n", Digest::of(b"")));
}

#[test]
fn standard_input_can_be_put_whatever_its_bytes() {
    let place = Place::new();
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|n| (n.wrapping_mul(n) % 251) as u8)
        .collect();
    let mut command = place.command(["cas", "put", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(&bytes)
        .expect("all is read");
    let output = Outcome(child.wait_with_output().expect("ends"));
    assert_eq!(output.expect(0).stdout(), format!("{}  -\n", hash(&bytes)));
    assert!(cas(&place, &["cat", &hash(&bytes)]).expect(0).0.stdout == bytes);
}

#[test]
fn a_blob_is_stored_once_and_cannot_be_written() {
    let place = Place::new();
    let first = put(&place, "same");
    assert_eq!(put(&place, "same"), first);
    assert_eq!(
        cas(&place, &["verify"]).expect(0).stdout(),
        "1 blobs, 4 bytes, 0 bad\n"
    );
    let permissions = first.metadata().expect("a blob").permissions();
    assert!(permissions.readonly(), "{permissions:?}");
    // What was put is a copy: an edit of the file does not reach the store.
    place.write("file", "edited");
    assert_eq!(cas(&place, &["verify"]).code(), 0);
}

#[test]
fn a_corrupt_blob_is_found_and_named() {
    let place = Place::new();
    let (bad, good) = (put(&place, "to be spoilt"), put(&place, "sound"));
    std::fs::remove_file(&bad).expect("removed");
    std::fs::write(&bad, "To be spoilt").expect("spoilt");
    let outcome = cas(&place, &["verify"]).expect(1);
    let named = hash(b"to be spoilt");
    assert!(
        outcome.stdout().contains(&named) && outcome.stdout().contains("corrupt"),
        "{}",
        outcome.stdout()
    );
    assert!(
        outcome.stdout().ends_with("2 blobs, 17 bytes, 1 bad\n")
            || outcome.stdout().ends_with(", 1 bad\n")
    );
    cas(&place, &["verify", &named]).expect(1);
    cas(&place, &["verify", &hash(b"sound")]).expect(0);
    assert!(good.exists() && bad.exists(), "to look is not to remove");
}

#[test]
fn a_missing_blob_is_named() {
    let place = Place::new();
    let (here, gone) = (hash(b"here"), hash(b"gone"));
    put(&place, "here");
    for command in ["cat", "path"] {
        let outcome = cas(&place, &[command, &gone]);
        assert_eq!(outcome.stdout(), "");
        assert!(told(outcome, 125).contains(&gone));
    }
    assert_eq!(
        cas(&place, &["has", &here, &gone]).expect(1).stdout(),
        format!("{gone} is missing\n")
    );
    assert!(
        cas(&place, &["verify", &gone])
            .expect(1)
            .stdout()
            .contains(&gone)
    );
}

#[test]
fn a_wrong_call_is_told() {
    let place = Place::new();
    for hash in [
        "",
        "12",
        "../../../etc/passwd",
        &"g".repeat(64),
        &"A".repeat(65),
    ] {
        for command in ["cat", "has", "path", "verify"] {
            assert!(
                told(cas(&place, &[command, hash]), 2).contains("hash"),
                "{command} {hash}"
            );
        }
    }
    assert!(told(cas(&place, &["put", "no-such-file"]), 125).contains("no-such-file"));
    assert!(told(cas(&place, &["put", "."]), 125).contains('.'));
    place.write("occupied", "");
    assert!(told(cas(&place, &["--store", "occupied", "ls"]), 2).contains("occupied"));
    let put = ["--store", "occupied", "put", "occupied"];
    assert!(told(cas(&place, &put), 125).contains("occupied"));
    assert!(
        told(
            place
                .command(["cas", "ls"])
                .env_remove("HOME")
                .output()
                .map(Outcome)
                .expect("starts"),
            2
        )
        .contains("HOME")
    );
    for wrong in [&["frobnicate"][..], &[], &["cat"], &["put"]] {
        cas(&place, wrong).expect(2);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    let long = "x".repeat(1 << 20);
    put(&place, &long);
    let mut child = place.command(["cas", "cat", &hash(long.as_bytes())]);
    let mut child = child
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    let outcome = Outcome(child.wait_with_output().expect("ends"));
    assert_eq!(outcome.expect(0).stderr(), "");
}
