//! `wakebox fsck`: what is corrupt is found, moved away, and brought home to who needs it.

use std::path::PathBuf;

use cas::Digest;
use wakebox_tests::Place;

/// Puts content and returns its hash and where the blob is.
fn put(place: &Place, content: &str) -> (String, PathBuf) {
    place.write("put", content);
    place.call(["cas", "put", "put"]).expect(0);
    let hash = Digest::of(content.as_bytes()).to_string();
    let path = place
        .store()
        .join("blobs")
        .join(&hash[..2])
        .join(&hash[2..]);
    (hash, path)
}

fn spoil(path: &PathBuf) {
    std::fs::remove_file(path).expect("removed");
    std::fs::write(path, "something else").expect("spoilt");
}

#[test]
fn a_sound_store_is_sound() {
    let place = Place::new();
    for content in ["", "a", "b"] {
        put(&place, content);
    }
    let outcome = place.call(["fsck"]).expect(0);
    assert_eq!(outcome.stdout(), "3 blobs (2 B) are sound, 0 are not\n");
    assert_eq!(outcome.stderr(), "", "no progress where nobody looks");
    assert!(!place.store().join("quarantine").exists());
}

#[test]
fn what_is_corrupt_is_moved_away_and_can_be_put_again() {
    let place = Place::new();
    let (sound, _) = put(&place, "sound");
    let (bad, path) = put(&place, "bad");
    spoil(&path);
    place.call(["fsck", "--dry-run"]).expect(1);
    assert!(path.exists(), "to look is not to move");
    let told = place.call(["fsck"]).expect(1).stdout();
    let moved = place.store().join("quarantine").join(&bad);
    assert!(told.contains(&format!("blob {bad} is corrupt")), "{told}");
    assert!(
        told.contains(&format!("moved to {}", moved.display())),
        "{told}"
    );
    assert!(
        told.ends_with("1 blobs (5 B) are sound, 1 are not\n"),
        "{told}"
    );
    assert!(!path.exists() && !told.contains(&sound));
    assert_eq!(std::fs::read(moved).expect("kept"), b"something else");
    place.call(["fsck"]).expect(0);
    put(&place, "bad");
    place.call(["cas", "verify", &bad]).expect(0);
}

#[test]
fn documents_that_need_it_are_named() {
    let place = Place::new();
    let (bad, path) = put(&place, "bad");
    let (good, _) = put(&place, "good");
    let gone = Digest::of(b"gone").to_string();
    place.write("tree/bad", "bad");
    let tree = place.call(["cas", "import", "tree"]).expect(0).stdout();
    spoil(&path);
    for (name, text) in [
        (
            "one.json",
            format!("{{\"hashed_files\": {{\"x\": {{\"hash\": \"{bad}\"}}}}}}"),
        ),
        ("two.txt", good),
        ("three.txt", gone.clone()),
        ("four", tree),
    ] {
        place.write(PathBuf::from("roots").join(name), text);
    }
    let told = place.call(["fsck", "--root", "roots"]).expect(1).stdout();
    for line in [
        format!("roots/one.json: blob {bad}, which it names, is corrupt\n"),
        format!("roots/three.txt: blob {gone}, which it names, is missing\n"),
        format!("roots/four: blob {bad}, which it names, is corrupt\n"),
    ] {
        assert!(told.contains(&line), "{line:?} is not in {told}");
    }
    assert!(!told.contains("two.txt"), "{told}");
}

#[test]
fn a_store_of_somebody_else_is_looked_at_only() {
    let place = Place::new();
    for name in ["blobs", "staging"] {
        std::fs::create_dir_all(place.store().join(name)).expect(name);
    }
    let (_, path) = put(&place, "theirs");
    spoil(&path);
    place.call(["fsck"]).expect(1);
    assert!(path.exists());
    place.call(["fsck", "--foreign"]).expect(1);
    assert!(!path.exists());
    let refused = place.call(["fsck", "--store", "no-such"]).expect(2);
    assert!(refused.stderr().contains("no store at no-such"));
}
