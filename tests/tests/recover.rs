//! `wakebox recover`: what a job has made survives those who ran it.

use std::os::fd::AsFd;
use std::path::PathBuf;

use cas::recovery::{JobState, Recovery};
use cas::report::{Output, Report, StagingEntry};
use cas::{RelPath, Store};
use rustix::fs::OFlags;
use serde_json::Value;
use wakebox_tests::{Place, needs_fuse};

/// Leaves what a client leaves that is killed between the end of its job and its result.
fn leave(place: &Place, name: &str, job: impl FnOnce(u64) -> JobState) -> PathBuf {
    let store = Store::open_own(&place.store()).expect("a store");
    let staging = cas::staging::StagingDirectory::create(store.staging(), name).expect("new");
    let staging = std::sync::Arc::new(staging);
    let (staged, mut file) = staging.create_file(OFlags::RDWR).expect("a file");
    std::io::Write::write_all(&mut file, b"rescued").expect("written");
    Recovery::new(job(staged.id()))
        .write(staging.as_fd())
        .expect("written");
    staged.keep();
    staging.keep();
    place.store().join("staging").join(name)
}

fn ended(staged: u64) -> JobState {
    let path = |text: &str| RelPath::parse(text.as_bytes()).expect("a path");
    let directory = StagingEntry::Directory {
        mode: 0o750,
        mtime_sec: 1_700_000_000,
        mtime_nsec: 0,
    };
    let file = |path| Output {
        path,
        entry: StagingEntry::File {
            staged,
            mode: 0o640,
        },
    };
    let outputs = vec![
        Output {
            path: path("dir"),
            entry: directory,
        },
        file(path("dir/out")),
        file(path("link")),
    ];
    JobState::Ended(Box::new(Report {
        inputs: vec![path("in")],
        outputs,
        ..Report::default()
    }))
}

const NAME: &str = "0123456789abcdef";

#[test]
fn outputs_are_listed_and_written_out_once() {
    let place = Place::new();
    let left = leave(&place, NAME, ended);
    let listed = place.call(["recover", "--list"]).expect(0).stdout();
    assert!(listed.starts_with(&format!("{NAME}  ")), "{listed}");
    assert!(listed.ends_with("ended with 3 outputs\n"), "{listed}");
    let result = place.root().join("result.json");
    let json = result.to_str().expect("text");
    let told = place.call(["recover", NAME, "--to", "there", "--result", json]);
    assert_eq!(told.expect(0).stdout(), "3 outputs (7 B) recovered\n");
    assert_eq!(place.read("there/dir/out"), b"rescued");
    assert_eq!(place.read("there/link"), b"rescued");
    let is = place
        .workspace()
        .join("there/dir")
        .metadata()
        .expect("a directory");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&is.permissions()) & 0o777,
        0o750
    );
    let document: Value =
        serde_json::from_slice(&std::fs::read(result).expect("written")).expect("JSON");
    assert_eq!(
        document["usage"]["status"], 125,
        "how it ended is not known"
    );
    assert_eq!(document["inputs"], serde_json::json!(["in"]));
    let hash = cas::Digest::of(b"rescued").to_string();
    assert_eq!(document["hashed_files"]["dir/out"]["hash"], hash.as_str());
    place.call(["cas", "has", &hash]).expect(0);
    assert!(!left.exists());
    assert_eq!(place.call(["recover"]).expect(0).stdout(), "");
}

#[test]
fn what_is_in_the_way_is_not_replaced_and_nothing_is_lost() {
    let place = Place::new();
    let left = leave(&place, NAME, ended);
    place.write("there/link", "mine");
    let refused = place.call(["recover", NAME, "--to", "there"]).expect(125);
    assert!(refused.stderr().contains("link"), "{}", refused.stderr());
    assert_eq!(place.read("there/link"), b"mine");
    assert!(left.exists());
    place.call(["recover", NAME, "--to", "elsewhere"]).expect(0);
    assert_eq!(place.read("elsewhere/link"), b"rescued");
}

#[test]
fn a_collector_gives_time_to_recover() {
    let place = Place::new();
    let left = leave(&place, NAME, ended);
    let told = place.call(["gc"]).expect(0).stdout();
    assert!(told.contains("1 jobs died before their results"), "{told}");
    assert!(left.exists());
    place.call(["gc", "--older-than", "0"]).expect(0);
    assert!(!left.exists());
}

#[test]
fn what_cannot_be_recovered_is_told() {
    needs_fuse!();
    let place = Place::new();
    let left = leave(&place, NAME, |_| JobState::Running);
    for (name, words) in [
        (NAME, "died while the job ran"),
        ("0000000000000000", "no such staging directory"),
        ("../blobs", "no such staging directory"),
        ("", "no such staging directory"),
    ] {
        let refused = place.call(["recover", name, "--to", "there"]).expect(125);
        let line = refused.stderr();
        assert!(line.contains(words) && line.lines().count() == 1, "{line}");
    }
    assert!(left.exists() && !place.workspace().join("there").exists());
    place.call(["recover", NAME]).expect(2);
    place.call(["recover", "--to", "there"]).expect(2);
    place.call(["recover", NAME, "--list"]).expect(2);
}
