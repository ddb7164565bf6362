//! Times.

use rustix::fs::{
    AtFlags, CWD, OFlags, Stat, StatxFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens,
    link, rename, statx, symlink, unlink, utimensat,
};
use rustix::io::Errno;

use super::check::{
    Outcome, chmod, get, lstat, make, mkdir, must, not_supported, open, put, refused, same, tick,
    write_at,
};
use super::{Atime, Ground};

probes! { "times":
    reading_moves_the_access_time "Reading moves the time of last access as the options of the mount say",
    birth_time_is_known "statx gives a birth time, which writing and linking do not move",
    nanoseconds_are_kept "Times are kept to the nanosecond",
    times_before_1970_are_kept "Times before 1970 are kept, with nanoseconds",
    times_after_2038_are_kept "Times after 2038 are kept",
    time_of_now_and_omitted_time "UTIME_NOW sets the present, UTIME_OMIT keeps the nanosecond",
    times_of_links_are_their_own "utimensat sets the times of a symbolic link itself",
    times_are_set_by_the_owner "Who may only write a file may set its times to now, and not to another time",
    changed_entries_move_the_parent "Making, renaming and removing an entry moves mtime and ctime of its directory",
    writing_moves_the_times "A write moves mtime and ctime, a chmod or a set time only ctime",
    renaming_moves_the_change_time "A rename moves the ctime of what is renamed",
    directory_reading_moves_nothing_else "Listing and reading move neither mtime nor ctime",
}

const fn at(tv_sec: i64, tv_nsec: i64) -> Timespec {
    Timespec { tv_sec, tv_nsec }
}

fn set(name: &str, access: Timespec, change: Timespec) -> rustix::io::Result<()> {
    let times = Timestamps {
        last_access: access,
        last_modification: change,
    };
    utimensat(CWD, name, &times, AtFlags::SYMLINK_NOFOLLOW)
}

type Time = (i64, i64);

type Change = fn() -> rustix::io::Result<()>;

fn access(seen: &Stat) -> Time {
    (seen.st_atime, seen.st_atime_nsec as i64)
}

fn modification(seen: &Stat) -> Time {
    (seen.st_mtime, seen.st_mtime_nsec as i64)
}

fn change(seen: &Stat) -> Time {
    (seen.st_ctime, seen.st_ctime_nsec as i64)
}

fn reading_moves_the_access_time(ground: &Ground) -> Outcome {
    put("a", b"content")?;
    let long_ago = at(1_000_000, 0);
    set("a", long_ago, long_ago)?;
    get("a")?;
    let moved = access(&lstat("a")?) != (1_000_000, 0);
    same("whether it moved", moved, ground.atime != Atime::Never)?;
    // Later than the last change of the inode, which is this call itself.
    let later = at(lstat("a")?.st_ctime + 100, 0);
    set("a", later, long_ago)?;
    get("a")?;
    let moved = access(&lstat("a")?).0 != later.tv_sec;
    same(
        "whether a recent one moved",
        moved,
        ground.atime == Atime::Always,
    )
}

fn birth_time_is_known(_: &Ground) -> Outcome {
    let file = put("a", b"content")?;
    let birth = || {
        let seen = statx(CWD, "a", AtFlags::empty(), StatxFlags::BTIME)?;
        let known = seen.stx_mask & StatxFlags::BTIME.bits() != 0;
        Ok::<_, Errno>(known.then_some((seen.stx_btime.tv_sec, seen.stx_btime.tv_nsec)))
    };
    let Some(first) = birth()? else {
        return not_supported("statx gives no birth time");
    };
    must(
        (first.0 - lstat("a")?.st_mtime as i64).abs() < 10,
        "it is not the time of birth",
    )?;
    tick();
    write_at(&file, b"x", 0)?;
    link("a", "b")?;
    set("a", at(1, 0), at(1, 0))?;
    same("birth time afterwards", birth()?, Some(first))
}

/// Sets both times of a file and a directory and sees that they are kept.
fn kept(access_time: Timespec, change_time: Timespec) -> Outcome {
    put("a", b"")?;
    mkdir("d")?;
    for name in ["a", "d"] {
        set(name, access_time, change_time)?;
        let seen = lstat(name)?;
        same(
            "atime",
            access(&seen),
            (access_time.tv_sec, access_time.tv_nsec),
        )?;
        same(
            "mtime",
            modification(&seen),
            (change_time.tv_sec, change_time.tv_nsec),
        )?;
    }
    Ok(())
}

fn nanoseconds_are_kept(_: &Ground) -> Outcome {
    kept(
        at(1_000_000_001, 123_456_789),
        at(1_000_000_002, 987_654_321),
    )
}

fn times_before_1970_are_kept(_: &Ground) -> Outcome {
    kept(at(-1, 999_999_999), at(-1_000_000_000, 1))
}

fn times_after_2038_are_kept(_: &Ground) -> Outcome {
    kept(at(1 << 31, 1), at(5_000_000_000, 999_999_999))
}

fn time_of_now_and_omitted_time(_: &Ground) -> Outcome {
    put("a", b"")?;
    set("a", at(1_000, 1), at(2_000, 2))?;
    set("a", at(0, UTIME_OMIT), at(3_000, 3))?;
    same("atime that was omitted", access(&lstat("a")?), (1_000, 1))?;
    set("a", at(0, UTIME_NOW), at(0, UTIME_OMIT))?;
    let seen = lstat("a")?;
    same("mtime that was omitted", modification(&seen), (3_000, 3))?;
    must(access(&seen).0 > 1_000_000_000, "atime is not the present")
}

fn times_of_links_are_their_own(_: &Ground) -> Outcome {
    put("a", b"")?;
    set("a", at(1_000, 0), at(1_000, 0))?;
    symlink("a", "l")?;
    set("l", at(5_000, 5), at(6_000, 6))?;
    same("mtime of the link", modification(&lstat("l")?), (6_000, 6))?;
    same("mtime of the file", modification(&lstat("a")?), (1_000, 0))
}

fn times_are_set_by_the_owner(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    put("a", b"")?;
    chmod("a", 0o666)?;
    ground.as_stranger(|| {
        refused("another time", set("a", at(1, 0), at(1, 0)), Errno::PERM)?;
        Ok(set("a", at(0, UTIME_NOW), at(0, UTIME_NOW))?)
    })
}

fn changed_entries_move_the_parent(_: &Ground) -> Outcome {
    mkdir("d")?;
    let changes: [(&str, Change); 6] = [
        ("creat", || make("d/a", 0o600).map(drop)),
        ("link", || link("d/a", "d/b")),
        ("rename", || rename("d/b", "d/c")),
        ("unlink", || unlink("d/c")),
        ("mkdir", || mkdir("d/e")),
        ("rmdir", || rustix::fs::rmdir("d/e")),
    ];
    for (what, make_change) in changes {
        let before = lstat("d")?;
        tick();
        make_change()?;
        let after = lstat("d")?;
        let moved =
            modification(&after) > modification(&before) && change(&after) > change(&before);
        must(moved, format_args!("{what} did not move both"))?;
    }
    Ok(())
}

fn writing_moves_the_times(_: &Ground) -> Outcome {
    let file = put("a", b"content")?;
    let first = lstat("a")?;
    tick();
    write_at(&file, b"x", 0)?;
    let written = lstat("a")?;
    must(
        modification(&written) > modification(&first),
        "a write did not move mtime",
    )?;
    must(
        change(&written) > change(&first),
        "a write did not move ctime",
    )?;
    tick();
    chmod("a", 0o600)?;
    let changed = lstat("a")?;
    same(
        "mtime after chmod",
        modification(&changed),
        modification(&written),
    )?;
    must(
        change(&changed) > change(&written),
        "chmod did not move ctime",
    )?;
    tick();
    futimens(
        &file,
        &Timestamps {
            last_access: at(1, 0),
            last_modification: at(1, 0),
        },
    )?;
    must(
        change(&lstat("a")?) > change(&changed),
        "futimens did not move ctime",
    )
}

fn renaming_moves_the_change_time(_: &Ground) -> Outcome {
    put("a", b"")?;
    let before = lstat("a")?;
    tick();
    rename("a", "b")?;
    must(change(&lstat("b")?) > change(&before), "it did not move")
}

fn directory_reading_moves_nothing_else(_: &Ground) -> Outcome {
    put("a", b"content")?;
    let before = [lstat(".")?, lstat("a")?].map(|seen| (modification(&seen), change(&seen)));
    tick();
    get("a")?;
    super::listing::names_in(".")?;
    drop(open("a", OFlags::RDWR)?);
    let after = [lstat(".")?, lstat("a")?].map(|seen| (modification(&seen), change(&seen)));
    same("mtime and ctime", after, before)
}
