//! Files beside the view, of which the kernel tells root.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wakebox_tests::{Place, needs_fuse, skip};

use super::recorded;

/// Rows of the host by path.
fn host(result: &Value) -> BTreeMap<&str, &Value> {
    let rows = result["record"].as_array().expect("a record").iter();
    let rows = rows.filter(|row| row["class"] == "host");
    rows.map(|row| (row["path"].as_str().expect("a path"), row))
        .collect()
}

/// A result whose record has files of the host, or `None` where only its absence can be told.
fn told(place: &Place, script: &str, visible: &Value) -> Option<Value> {
    let result = recorded(place, "full", script, visible);
    if result["record-missing"] == json!(["host"]) {
        assert!(host(&result).is_empty(), "{result:#}");
        assert!(!rustix::process::geteuid().is_root(), "root is told");
        return None;
    }
    assert_eq!(result.get("record-missing"), None, "{result:#}");
    Some(result)
}

#[test]
fn what_a_job_opens_beside_its_view_is_told_to_root() {
    needs_fuse!();
    let place = Place::new();
    let beside = place.flag("beside");
    std::fs::write(&beside, "seven b").expect("a file");
    let (unread, fifo) = (place.flag("unread"), place.flag("fifo"));
    std::fs::write(&unread, "").expect("a file");
    let script = format!(
        "cat in {0} >/dev/null; test -e {1}; (cd {2} && ls >/dev/null); cat /proc/self/maps >/dev/null; \
         mkfifo {3}; (echo x > {3} &); cat {3} >/dev/null",
        beside.display(),
        unread.display(),
        place.root().join("home").display(),
        fifo.display(),
    );
    let visible = json!([place.visible("in", "declared")]);
    let Some(result) = told(&place, &script, &visible) else {
        skip!("only root is told of files of the host");
    };
    let host = host(&result);
    let row = host[beside.to_str().expect("text")];
    assert_eq!(
        (&row["bytes"], &row["declared"]),
        (&json!(7), &json!(false))
    );
    assert!(
        row["first"]
            .as_f64()
            .is_some_and(|first| (0.0..60.0).contains(&first))
    );
    let shell = std::fs::canonicalize("/bin/sh").expect("a shell");
    let shell = host[shell.to_str().expect("text")];
    assert_eq!(shell["also"], json!(["exec"]));
    let libc = host.keys().filter(|path| path.contains("/libc.so"));
    assert_eq!(libc.count(), 1, "{host:#?}");
    let workspace = place.workspace().canonicalize().expect("a place");
    let workspace = workspace.to_str().expect("text");
    for path in host.keys() {
        let wrong =
            path.starts_with(workspace) || path.starts_with("/proc") || path.starts_with("/dev");
        assert!(!wrong && **path != *fifo.to_str().expect("text"), "{path}");
    }
    assert!(!host.contains_key(unread.to_str().expect("text")));
}

#[test]
fn nothing_of_the_end_is_lost_and_nothing_of_others_is_told() {
    needs_fuse!();
    let place = Place::new();
    for i in 0..2000 {
        std::fs::write(place.flag(&format!("f{i}")), "").expect("a file");
    }
    let home = place.root().join("home");
    // Others are busy meanwhile: they are none of the job.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = std::fs::read(home.join("../not-the-jobs"));
            }
        });
        std::fs::write(home.join("../not-the-jobs"), "").expect("a file");
        let result = told(
            &place,
            &format!("exec cat {}/f*", home.display()),
            &json!([]),
        );
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        result
    });
    let Some(result) = result else {
        skip!("only root is told of files of the host");
    };
    let host = host(&result);
    let files = host
        .keys()
        .filter(|path| path.starts_with(&format!("{}/f", home.display())));
    assert_eq!(files.count(), 2000);
    assert!(!host.keys().any(|path| path.ends_with("not-the-jobs")));
}

#[test]
fn a_level_below_full_tells_nothing_of_the_host() {
    needs_fuse!();
    let place = Place::new();
    let visible = json!([place.visible("in", "x")]);
    let result = recorded(&place, "inputs", "cat in", &visible);
    assert!(host(&result).is_empty());
    assert_eq!(result.get("record-missing"), None);
}
