//! Order, errors and replacement while the log is in use.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[test]
fn what_is_appended_while_a_snapshot_is_written_comes_behind_it() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = open(root.path()).unwrap();
    append(&log, &[fact(1)]);
    log.sync().unwrap();
    append(&log, &[fact(2)]);
    let replacement = log.begin_replacement().unwrap();
    assert!(log.begin_replacement().is_none(), "one at a time");
    append(&log, &[fact(3)]);
    log.write().unwrap();
    append(&log, &[fact(4)]);
    let snapshot: Vec<_> = (100..2000).map(fact).collect();
    replacement.finish(&snapshot, |number| *number).unwrap();
    append(&log, &[fact(5)]);
    log.sync().unwrap();
    drop(log);
    let expected = [snapshot, (3..6).map(fact).collect()].concat();
    assert_eq!(facts_of(root.path()), expected);
    assert!(!root.path().join(NEW).exists());
}

#[test]
fn a_replacement_that_fails_or_is_dropped_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = open(root.path()).unwrap();
    append(&log, &[fact(1)]);
    drop(log.begin_replacement().unwrap());
    append(&log, &[fact(2)]);
    let replacement = log.begin_replacement().unwrap();
    append(&log, &[fact(3)]);
    // In the way of the new file.
    std::fs::create_dir(root.path().join(NEW)).unwrap();
    let error = replacement.finish(&[], |n: &u64| *n).unwrap_err();
    assert!(error.to_string().contains("create a new log"), "{error}");
    std::fs::remove_dir(root.path().join(NEW)).unwrap();
    log.write().unwrap();
    assert_eq!(facts_of(root.path()), [fact(1), fact(2), fact(3)]);
}

/// Threads that change what stands for a view, and write, until `done` and a little longer.
/// Returns all changes in order.
fn change_until_done(log: &Log, meanwhile: impl FnOnce(&Mutex<Vec<Fact<u64>>>)) -> Vec<Fact<u64>> {
    let (view, done) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let run = |thread: u64| {
        let mut left = 20;
        for i in 0.. {
            let change = [fact(thread << 32 | i), fact(thread << 32 | i)];
            {
                let mut view = view.lock().unwrap();
                view.extend(change.clone());
                append(log, &change);
            }
            // It may be told of a failure of the test's own making.
            let _ = if i % 50 == 0 { log.sync() } else { log.write() };
            left -= i32::from(done.load(Ordering::Relaxed));
            if left == 0 {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let run = &run;
            scope.spawn(move || run(thread));
        }
        meanwhile(&view);
        done.store(true, Ordering::Relaxed);
    });
    view.into_inner().unwrap()
}

#[test]
fn frames_are_neither_lost_nor_mixed_up_by_threads_and_replacements() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = open(root.path()).unwrap();
    let all = change_until_done(&log, |view| {
        for _ in 0..20 {
            let (replacement, snapshot) = {
                let view = view.lock().unwrap();
                (log.begin_replacement().unwrap(), view.clone())
            };
            replacement.finish(&snapshot, |number| *number).unwrap();
        }
    });
    log.write().unwrap();
    assert!(facts_of(root.path()) == all);
}

#[test]
fn frames_stay_in_order_when_writes_fail_now_and_then() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = open(root.path()).unwrap();
    let bad = Arc::new(File::open(root.path().join(FILE)).unwrap());
    let good = locked(&log.tail).unwrap().file.clone();
    let put = |file: &Arc<File>| locked(&log.tail).unwrap().file = file.clone();
    let all = change_until_done(&log, |_| {
        for _ in 0..200 {
            put(&bad);
            std::thread::yield_now();
            put(&good);
        }
    });
    // A flush fails on no file, only writing does.
    assert_eq!(*locked(&log.syncing).unwrap(), None);
    log.sync().unwrap();
    assert!(facts_of(root.path()) == all);
}

#[test]
fn a_failed_write_is_told_to_all_who_need_it_and_made_up_for() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = open(root.path()).unwrap();
    append(&log, &[fact(1)]);
    log.write().unwrap();
    let read_only = Arc::new(File::open(root.path().join(FILE)).unwrap());
    let good = std::mem::replace(&mut locked(&log.tail).unwrap().file, read_only);
    append(&log, &[fact(2)]);
    assert_eq!(log.write(), Err(Errno::BADF));
    append(&log, &[fact(3)]);
    assert_eq!(log.sync(), Err(Errno::BADF));
    assert_eq!(facts_of(root.path()), [fact(1)]);
    locked(&log.tail).unwrap().file = good;
    append(&log, &[fact(4)]);
    log.write().unwrap();
    let expected: Vec<_> = (1..5).map(fact).collect();
    assert_eq!(facts_of(root.path()), expected);
}

/// The kernel drops pages that it could not write, and calls the next flush a success.
#[test]
fn a_failed_flush_stays_failed_until_all_is_written_anew() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = open(root.path()).unwrap();
    append(&log, &[fact(1)]);
    log.sync().unwrap();
    *locked(&log.syncing).unwrap() = Some(Errno::IO);
    assert_eq!(log.sync(), Err(Errno::IO));
    assert!(log.wants_replacement());
    let replacement = log.begin_replacement().unwrap();
    replacement.finish(&[fact(1)], |number| *number).unwrap();
    log.sync().unwrap();
    assert!(!log.wants_replacement());
}

#[test]
fn a_log_wants_to_be_replaced_when_it_is_long_for_what_it_says() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = open(root.path()).unwrap();
    let value = vec![0; 1 << 16].into_boxed_slice();
    let large = Fact::Extended {
        id: InodeId(1),
        name: (*b"user.a").into(),
        value: Some(value),
    };
    let grow = |times| {
        for _ in 0..times {
            append(&log, std::slice::from_ref(&large));
        }
        log.write().unwrap();
    };
    grow(15);
    assert!(!log.wants_replacement());
    grow(1);
    assert!(log.wants_replacement());
    let snapshot = vec![large.clone(); 8];
    let replacement = log.begin_replacement().unwrap();
    replacement.finish(&snapshot, |number| *number).unwrap();
    grow(23);
    assert!(!log.wants_replacement());
    grow(1);
    assert!(log.wants_replacement(), "four times eight");
}

#[test]
fn released_files_go_when_the_change_is_on_disk_and_not_before() {
    let root = tempfile::tempdir().unwrap();
    let (log, _) = open(root.path()).unwrap();
    let parent = File::open(root.path()).unwrap();
    let staging = cas::staging::StagingDirectory::open_standing(
        parent.as_fd(),
        "files",
        std::time::Duration::ZERO,
    );
    let (staged, _) = Arc::new(staging.unwrap())
        .create_file(OFlags::RDWR)
        .unwrap();
    let path = root.path().join("files").join(staged.id().to_string());
    append(&log, &[fact(1)]);
    log.write().unwrap();
    log.doom(vec![Arc::new(staged)]);
    log.write().unwrap();
    assert!(path.exists());
    *locked(&log.syncing).unwrap() = Some(Errno::IO);
    assert_eq!(log.settle(), Err(Errno::IO));
    assert!(path.exists(), "not on disk for certain");
    *locked(&log.syncing).unwrap() = None;
    log.settle().unwrap();
    assert!(!path.exists());
}

/// A file system in memory of a given size, seen by this descriptor only. `None` for who may not
/// mount.
fn small_file_system(size: &str) -> Option<OwnedFd> {
    use rustix::mount::*;
    let context = match fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(Errno::PERM) => return None,
        context => context.unwrap(),
    };
    fsconfig_set_string(context.as_fd(), "size", size).unwrap();
    fsconfig_create(context.as_fd()).unwrap();
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let root = fsmount(context.as_fd(), flags, MountAttrFlags::empty()).unwrap();
    Some(
        rustix::fs::openat(
            &root,
            ".",
            OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .unwrap(),
    )
}

/// To remove a file is to write to the log, so a full disk must leave room for that.
#[test]
fn on_a_full_disk_there_is_room_for_removals_and_nothing_is_lost() {
    let Some(root) = small_file_system("4M") else {
        eprintln!("not run: needs the right to mount");
        return;
    };
    let (log, _) = Log::open(root.as_fd(), header()).unwrap();
    append(&log, &[fact(0)]);
    log.write().unwrap();
    assert!(log.has_room());
    let flags = OFlags::CREATE | OFlags::WRONLY;
    let filler = rustix::fs::openat(&root, "filler", flags, Mode::RUSR).unwrap();
    let filler = File::from(filler);
    let zeros = [0; 4096];
    let mut size = 0;
    while filler.write_all_at(&zeros, size).is_ok() {
        size += 4096;
    }
    let mut next = 1;
    while log.has_room() {
        append(&log, &[fact(next)]);
        log.write().unwrap();
        next += 1;
    }
    let written = next;
    let mut error = Ok(());
    while error.is_ok() {
        append(&log, &[fact(next)]);
        error = log.write();
        next += 1;
    }
    assert_eq!(error, Err(Errno::NOSPC));
    assert!(next > written + 5000, "{next} - {written}");
    let (_, saved) = Log::open(root.as_fd(), header()).unwrap();
    assert_eq!(saved.facts, (0..next - 1).map(fact).collect::<Vec<_>>());
    filler.set_len(0).unwrap();
    assert!(log.has_room());
    log.sync().unwrap();
    let (_, saved) = Log::open(root.as_fd(), header()).unwrap();
    assert_eq!(saved.facts, (0..next).map(fact).collect::<Vec<_>>());
}
