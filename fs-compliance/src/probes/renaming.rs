//! Renames.

use std::os::unix::fs::FileTypeExt;

use rustix::fs::{CWD, OFlags, RenameFlags, link, rename, renameat_with};
use rustix::io::Errno;
use rustix::process::{chdir, getcwd};

use super::Ground;
use super::check::{
    Outcome, holds, lstat, make, mkdir, must, offered, open, put, reads, refused, same, write_all,
};
use super::listing::lists;

probes! { "renaming":
    rename_spares_what_exists "RENAME_NOREPLACE is EEXIST where something has the new name, and renames else",
    rename_exchanges "RENAME_EXCHANGE swaps a file and a directory with what it holds",
    rename_leaves_a_whiteout "RENAME_WHITEOUT leaves a character device 0:0 under the old name",
    rename_over_an_open_file "What is renamed over stays readable through its descriptor, without links",
    renamed_open_file_keeps_its_descriptor "A file renamed while open is written through the same descriptor",
    renamed_directory_keeps_open_children "A directory can be renamed while a file in it is open and being written",
    renamed_directory_keeps_its_users "A process whose directory is renamed works on in it",
    rename_of_one_inode_does_nothing "A rename between two names of one inode keeps both",
    rename_into_itself_is_refused "A directory renamed into its own child is EINVAL",
    rename_minds_kinds "A file over a directory is EISDIR, the other way ENOTDIR, over a full directory ENOTEMPTY",
    rename_over_an_empty_directory "A directory takes the place of an empty one, with what it holds",
    rename_keeps_the_inode "A rename changes neither inode nor time of last change of the content",
    rename_between_directories_moves_parent "The '..' of a directory that was moved leads to its new parent",
}

fn with(old: &str, new: &str, flags: RenameFlags) -> rustix::io::Result<()> {
    renameat_with(CWD, old, CWD, new, flags)
}

fn rename_spares_what_exists(_: &Ground) -> Outcome {
    put("a", b"a")?;
    put("b", b"b")?;
    let result = with("a", "c", RenameFlags::NOREPLACE);
    offered("RENAME_NOREPLACE", result, &[Errno::INVAL])?;
    refused(
        "over a file",
        with("c", "b", RenameFlags::NOREPLACE),
        Errno::EXIST,
    )?;
    holds("b", b"b")
}

fn rename_exchanges(_: &Ground) -> Outcome {
    put("a", b"content")?;
    mkdir("d")?;
    put("d/x", b"inner")?;
    let file = lstat("a")?.st_ino;
    offered(
        "RENAME_EXCHANGE",
        with("a", "d", RenameFlags::EXCHANGE),
        &[Errno::INVAL],
    )?;
    same("inode", lstat("d")?.st_ino, file)?;
    holds("d", b"content")?;
    holds("a/x", b"inner")?;
    refused(
        "with nothing",
        with("a", "none", RenameFlags::EXCHANGE),
        Errno::NOENT,
    )
}

fn rename_leaves_a_whiteout(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    put("a", b"content")?;
    offered(
        "RENAME_WHITEOUT",
        with("a", "b", RenameFlags::WHITEOUT),
        &[Errno::INVAL],
    )?;
    holds("b", b"content")?;
    let left = std::fs::symlink_metadata("a")?;
    must(
        left.file_type().is_char_device(),
        "the old name is no character device",
    )?;
    same("device", lstat("a")?.st_rdev, 0)
}

fn rename_over_an_open_file(_: &Ground) -> Outcome {
    let old = put("old", b"old")?;
    put("new", b"new")?;
    rename("new", "old")?;
    holds("old", b"new")?;
    reads(&old, b"old")?;
    same("links by descriptor", rustix::fs::fstat(&old)?.st_nlink, 0)
}

fn renamed_open_file_keeps_its_descriptor(_: &Ground) -> Outcome {
    let file = put("a", b"one ")?;
    mkdir("d")?;
    rename("a", "d/b")?;
    write_all(&file, b"two")?;
    holds("d/b", b"one two")?;
    same(
        "inode",
        rustix::fs::fstat(&file)?.st_ino,
        lstat("d/b")?.st_ino,
    )
}

fn renamed_directory_keeps_open_children(_: &Ground) -> Outcome {
    mkdir("d")?;
    mkdir("d/e")?;
    let file = put("d/e/a", b"one ")?;
    rename("d", "f")?;
    write_all(&file, b"two")?;
    holds("f/e/a", b"one two")?;
    refused("the old path", lstat("d/e/a"), Errno::NOENT)
}

fn renamed_directory_keeps_its_users(_: &Ground) -> Outcome {
    mkdir("d")?;
    mkdir("e")?;
    chdir("d")?;
    rename("../d", "../e/f")?;
    put("a", b"content")?;
    let here = getcwd(Vec::new())?;
    let shown = String::from_utf8_lossy(here.as_bytes());
    must(shown.ends_with("/e/f"), format_args!("getcwd says {shown}"))?;
    chdir("../..")?;
    holds("e/f/a", b"content")
}

fn rename_of_one_inode_does_nothing(_: &Ground) -> Outcome {
    put("a", b"content")?;
    link("a", "b")?;
    rename("a", "b")?;
    same("links", lstat("a")?.st_nlink, 2)?;
    same("inode", lstat("a")?.st_ino, lstat("b")?.st_ino)
}

fn rename_into_itself_is_refused(_: &Ground) -> Outcome {
    mkdir("d")?;
    mkdir("d/e")?;
    refused("rename into itself", rename("d", "d/x"), Errno::INVAL)?;
    refused(
        "rename into a grandchild",
        rename("d", "d/e/x"),
        Errno::INVAL,
    )
}

fn rename_minds_kinds(_: &Ground) -> Outcome {
    make("a", 0o600)?;
    mkdir("d")?;
    mkdir("full")?;
    make("full/a", 0o600)?;
    refused("a file over a directory", rename("a", "d"), Errno::ISDIR)?;
    refused("a directory over a file", rename("d", "a"), Errno::NOTDIR)?;
    refused(
        "a directory over a full one",
        rename("d", "full"),
        Errno::NOTEMPTY,
    )
}

fn rename_over_an_empty_directory(_: &Ground) -> Outcome {
    mkdir("d")?;
    put("d/a", b"content")?;
    mkdir("e")?;
    rename("d", "e")?;
    lists(".", &["e"])?;
    holds("e/a", b"content")
}

fn rename_keeps_the_inode(_: &Ground) -> Outcome {
    put("a", b"content")?;
    let before = lstat("a")?;
    super::check::tick();
    rename("a", "b")?;
    let after = lstat("b")?;
    same("inode", after.st_ino, before.st_ino)?;
    let moved = (after.st_mtime, after.st_mtime_nsec) != (before.st_mtime, before.st_mtime_nsec);
    must(!moved, "the time of last change of the content moved")
}

fn rename_between_directories_moves_parent(_: &Ground) -> Outcome {
    mkdir("d")?;
    mkdir("e")?;
    mkdir("d/x")?;
    let moved = open("d/x", OFlags::RDONLY | OFlags::DIRECTORY)?;
    rename("d/x", "e/x")?;
    let parent = rustix::fs::statat(&moved, "..", rustix::fs::AtFlags::empty())?;
    same("inode of '..'", parent.st_ino, lstat("e")?.st_ino)
}
