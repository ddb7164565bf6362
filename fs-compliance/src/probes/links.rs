//! Hard links, and files whose last name is gone.

use rustix::fs::{
    AtFlags, CWD, Mode, Timespec, Timestamps, fchmod, fstat, ftruncate, futimens, link, linkat,
    rmdir, symlink, unlink,
};
use rustix::io::Errno;

use super::Ground;
use super::check::{
    Outcome, has_mode, holds, lstat, make, mkdir, must, open, put, reads, refused, same, tick,
    write_at,
};
use super::listing::lists;
use super::process::in_child;

probes! { "links":
    hard_link_is_one_inode "Two names of a file are one inode, whose links are right through both at once",
    hard_link_shares_attributes "A change of mode, size and times through one name is seen through the other",
    linking_moves_the_change_time "link and unlink move the ctime of the inode, seen through the other name",
    symbolic_link_can_be_linked "linkat makes a hard link of a symbolic link itself",
    directory_cannot_be_linked "A hard link of a directory is EPERM",
    unlinked_file_has_no_links "An open file whose last name is gone has 0 links and is still read and written",
    unlinked_file_can_be_changed "ftruncate, fchmod and futimens work on an open file without a name",
    unlinked_file_leaves_no_name "A directory whose only file was removed while open is empty and can be removed",
    unlinked_name_is_free "A name that was removed while its file is open can be made anew as another file",
    other_process_sees_removal "A name that one process removed is gone for another that knew it",
}

fn hard_link_is_one_inode(_: &Ground) -> Outcome {
    put("a", b"content")?;
    same("links at first", lstat("a")?.st_nlink, 1)?;
    mkdir("d")?;
    link("a", "d/b")?;
    same("inode", lstat("d/b")?.st_ino, lstat("a")?.st_ino)?;
    same("links of the old name", lstat("a")?.st_nlink, 2)?;
    same("links of the new name", lstat("d/b")?.st_nlink, 2)?;
    unlink("a")?;
    same("links after removal", lstat("d/b")?.st_nlink, 1)?;
    holds("d/b", b"content")
}

fn hard_link_shares_attributes(_: &Ground) -> Outcome {
    let file = put("a", b"content")?;
    link("a", "b")?;
    lstat("b")?;
    super::check::chmod("a", 0o640)?;
    has_mode("b", 0o640)?;
    write_at(&file, b"longer content", 0)?;
    same("size", lstat("b")?.st_size, 14)?;
    futimens(&file, &at_one())?;
    same("time", lstat("b")?.st_mtime, 1)
}

fn at_one() -> Timestamps {
    let one = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: one,
        last_modification: one,
    }
}

fn change_time(name: &str) -> Outcome<(i64, i64)> {
    let seen = lstat(name)?;
    Ok((seen.st_ctime, seen.st_ctime_nsec as i64))
}

fn linking_moves_the_change_time(_: &Ground) -> Outcome {
    make("a", 0o600)?;
    let at_first = change_time("a")?;
    tick();
    link("a", "b")?;
    let linked = change_time("a")?;
    must(linked > at_first, "link did not move it")?;
    same("ctime by the new name", change_time("b")?, linked)?;
    tick();
    unlink("b")?;
    must(change_time("a")? > linked, "unlink did not move it")
}

fn symbolic_link_can_be_linked(_: &Ground) -> Outcome {
    symlink("nowhere", "a")?;
    linkat(CWD, "a", CWD, "b", AtFlags::empty())?;
    same("inode", lstat("b")?.st_ino, lstat("a")?.st_ino)?;
    same("links", lstat("a")?.st_nlink, 2)?;
    let target = rustix::fs::readlink("b", Vec::new())?;
    same("target", target.as_bytes(), b"nowhere")
}

fn directory_cannot_be_linked(_: &Ground) -> Outcome {
    mkdir("d")?;
    refused("link", link("d", "e"), Errno::PERM)
}

fn unlinked_file_has_no_links(_: &Ground) -> Outcome {
    let file = put("a", b"content")?;
    unlink("a")?;
    same("links", fstat(&file)?.st_nlink, 0)?;
    write_at(&file, b"CON", 0)?;
    reads(&file, b"CONtent")
}

fn unlinked_file_can_be_changed(_: &Ground) -> Outcome {
    let file = put("a", b"content")?;
    unlink("a")?;
    ftruncate(&file, 3)?;
    fchmod(&file, Mode::from_raw_mode(0o600))?;
    futimens(&file, &at_one())?;
    let seen = fstat(&file)?;
    same("size", seen.st_size, 3)?;
    same("mode", seen.st_mode & 0o7777, 0o600)?;
    same("time", seen.st_mtime, 1)
}

fn unlinked_file_leaves_no_name(_: &Ground) -> Outcome {
    mkdir("d")?;
    let file = put("d/a", b"content")?;
    unlink("d/a")?;
    lists("d", &[])?;
    rmdir("d")?;
    reads(&file, b"content")
}

fn unlinked_name_is_free(_: &Ground) -> Outcome {
    let old = put("a", b"old")?;
    unlink("a")?;
    let new = put("a", b"new")?;
    must(
        fstat(&old)?.st_ino != fstat(&new)?.st_ino,
        "both files are one inode",
    )?;
    reads(&old, b"old")?;
    holds("a", b"new")
}

fn other_process_sees_removal(_: &Ground) -> Outcome {
    make("a", 0o600)?;
    lstat("a")?;
    in_child(|| Ok(unlink("a")?))?;
    refused("stat", lstat("a"), Errno::NOENT)?;
    in_child(|| Ok(make("a", 0o600).map(drop)?))?;
    open("a", rustix::fs::OFlags::RDONLY)?;
    Ok(())
}
