//! Opening: unnamed files, descriptors without access, restricted look-ups, `access`.

use rustix::fs::{
    Access, AtFlags, CWD, Mode, OFlags, ResolveFlags, accessat, linkat, openat, openat2, readlink,
    symlink, unlink,
};
use rustix::io::{Errno, read};

use super::Ground;
use super::check::{
    Outcome, chmod, content, failed, holds, lstat, make, mkdir, must, offered, open, put, reads,
    refused, rewind, same, write_all, write_at,
};
use super::listing::lists;

probes! { "opening":
    unnamed_file_gets_a_name "A file made by O_TMPFILE has no link, and one after linkat of /proc/self/fd",
    unnamed_file_is_not_listed "A file made by O_TMPFILE is in no listing and its directory is empty",
    unnamed_exclusive_file_gets_no_name "A file made by O_TMPFILE with O_EXCL cannot be linked",
    linked_file_gets_another_name "linkat of /proc/self/fd makes another link of an open file with a name",
    unlinked_file_is_opened_anew "An open file without a name can be opened anew through /proc/self/fd",
    path_descriptor_is_only_a_place "A descriptor by O_PATH can be asked and opened, but not read",
    nofollow_refuses_a_link "O_NOFOLLOW refuses a symbolic link with ELOOP, and O_PATH opens the link itself",
    openat2_stays_beneath "openat2 refuses what leaves the directory, and RESOLVE_IN_ROOT keeps it in",
    openat2_follows_no_links "openat2 with RESOLVE_NO_SYMLINKS refuses a link in the middle of a path",
    access_is_by_mode "faccessat says for an ordinary user what the mode says",
    unreadable_new_file_is_usable "A file made with mode 0 is read and written through the descriptor that made it",
    exclusive_creation_follows_nothing "O_CREAT with O_EXCL refuses a dangling link, without O_EXCL makes its target",
    truncating_open_empties "O_TRUNC empties a file and keeps its inode",
}

fn unnamed() -> Outcome<rustix::fd::OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let made = openat(CWD, ".", flags, Mode::from_raw_mode(0o600));
    // A kernel or file system without it takes this for opening a directory for writing.
    offered("O_TMPFILE", made, &[Errno::ISDIR, Errno::INVAL])
}

/// `linkat` of what /proc says that a descriptor is: needs no capability.
fn link_open(file: &rustix::fd::OwnedFd, name: &str) -> rustix::io::Result<()> {
    use rustix::fd::AsRawFd;
    let old = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, old, CWD, name, AtFlags::SYMLINK_FOLLOW)
}

fn unnamed_file_gets_a_name(_: &Ground) -> Outcome {
    let file = unnamed()?;
    write_all(&file, b"content")?;
    let before = rustix::fs::fstat(&file)?;
    same("count of links before", before.st_nlink, 0)?;
    link_open(&file, "named")?;
    let after = lstat("named")?;
    same("count of links after", after.st_nlink, 1)?;
    same("inode", after.st_ino, before.st_ino)?;
    holds("named", b"content")
}

fn unnamed_file_is_not_listed(_: &Ground) -> Outcome {
    mkdir("d")?;
    rustix::process::chdir("d")?;
    let file = unnamed()?;
    write_all(&file, b"content")?;
    lists(".", &[])?;
    rustix::process::chdir("..")?;
    Ok(rustix::fs::rmdir("d")?)
}

fn unnamed_exclusive_file_gets_no_name(_: &Ground) -> Outcome {
    drop(unnamed()?);
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(CWD, ".", flags, Mode::from_raw_mode(0o600))?;
    refused("linking it", link_open(&file, "named"), Errno::NOENT)
}

fn linked_file_gets_another_name(_: &Ground) -> Outcome {
    let file = put("a", b"content")?;
    link_open(&file, "b")?;
    same("count of links", lstat("a")?.st_nlink, 2)?;
    same("inode", lstat("b")?.st_ino, lstat("a")?.st_ino)
}

fn unlinked_file_is_opened_anew(_: &Ground) -> Outcome {
    use rustix::fd::AsRawFd;
    let file = put("a", b"content")?;
    unlink("a")?;
    let again = open(&format!("/proc/self/fd/{}", file.as_raw_fd()), OFlags::RDWR)?;
    reads(&again, b"content")?;
    write_at(&again, b"CON", 0)?;
    reads(&file, b"CONtent")
}

fn path_descriptor_is_only_a_place(_: &Ground) -> Outcome {
    use rustix::fd::AsRawFd;
    put("a", b"content")?;
    chmod("a", 0o400)?;
    let place = open("a", OFlags::PATH)?;
    refused("reading it", read(&place, &mut [0_u8; 8]), Errno::BADF)?;
    same(
        "inode",
        rustix::fs::fstat(&place)?.st_ino,
        lstat("a")?.st_ino,
    )?;
    let file = open(
        &format!("/proc/self/fd/{}", place.as_raw_fd()),
        OFlags::RDONLY,
    )?;
    reads(file, b"content")
}

fn nofollow_refuses_a_link(_: &Ground) -> Outcome {
    put("a", b"")?;
    symlink("a", "l")?;
    refused(
        "opening it",
        open("l", OFlags::RDONLY | OFlags::NOFOLLOW),
        Errno::LOOP,
    )?;
    let link = open("l", OFlags::PATH | OFlags::NOFOLLOW)?;
    same(
        "inode",
        rustix::fs::fstat(&link)?.st_ino,
        lstat("l")?.st_ino,
    )?;
    let target = rustix::fs::readlinkat(&link, "", Vec::new())?;
    same("target", target.as_bytes(), b"a")
}

fn resolve(name: &str, how: ResolveFlags) -> rustix::io::Result<rustix::fd::OwnedFd> {
    let directory = open("d", OFlags::PATH | OFlags::DIRECTORY)?;
    openat2(
        directory,
        name,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
        how,
    )
}

fn openat2_stays_beneath(_: &Ground) -> Outcome {
    mkdir("d")?;
    put("d/a", b"inner")?;
    put("a", b"outer")?;
    symlink("../a", "d/l")?;
    refused("..", resolve("../a", ResolveFlags::BENEATH), Errno::XDEV)?;
    refused(
        "a link out",
        resolve("l", ResolveFlags::BENEATH),
        Errno::XDEV,
    )?;
    let kept = content(resolve("l", ResolveFlags::IN_ROOT)?)?;
    same("content in the root", kept, b"inner".to_vec())
}

fn openat2_follows_no_links(_: &Ground) -> Outcome {
    mkdir("d")?;
    mkdir("d/e")?;
    put("d/e/a", b"")?;
    symlink("e", "d/l")?;
    refused(
        "l/a",
        resolve("l/a", ResolveFlags::NO_SYMLINKS),
        Errno::LOOP,
    )?;
    resolve("e/a", ResolveFlags::NO_SYMLINKS)?;
    resolve("l/a", ResolveFlags::empty())?;
    Ok(())
}

fn access_is_by_mode(ground: &Ground) -> Outcome {
    ground.as_ordinary(|_, _| {
        put("a", b"")?;
        chmod("a", 0o500)?;
        let may = |access| accessat(CWD, "a", access, AtFlags::EACCESS);
        may(Access::EXISTS)?;
        may(Access::READ_OK | Access::EXEC_OK)?;
        refused("access to write", may(Access::WRITE_OK), Errno::ACCESS)?;
        chmod("a", 0o200)?;
        may(Access::WRITE_OK)?;
        refused("access to read", may(Access::READ_OK), Errno::ACCESS)
    })
}

fn unreadable_new_file_is_usable(ground: &Ground) -> Outcome {
    ground.as_ordinary(|_, _| {
        let file = make("a", 0)?;
        write_all(&file, b"content")?;
        rewind(&file)?;
        reads(&file, b"content")?;
        refused("opening it again", open("a", OFlags::RDONLY), Errno::ACCESS)
    })
}

fn exclusive_creation_follows_nothing(_: &Ground) -> Outcome {
    symlink("target", "l")?;
    refused("creating over a link", make("l", 0o600), Errno::EXIST)?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    openat(CWD, "l", flags, Mode::from_raw_mode(0o600))?;
    same(
        "target of the link",
        readlink("l", Vec::new())?.as_bytes(),
        b"target",
    )?;
    lstat("target")?;
    Ok(())
}

fn truncating_open_empties(_: &Ground) -> Outcome {
    let old = put("a", b"content")?;
    let inode = lstat("a")?.st_ino;
    let new = open("a", OFlags::WRONLY | OFlags::TRUNC)?;
    same(
        "size through the old descriptor",
        super::check::size(&old)?,
        0,
    )?;
    write_all(&new, b"new")?;
    let seen = content(&old)?;
    must(
        seen == b"new",
        format_args!("the old descriptor reads {seen:?}"),
    )?;
    match lstat("a")?.st_ino {
        now if now == inode => Ok(()),
        now => failed(format_args!("the inode changed from {inode} to {now}")),
    }
}
