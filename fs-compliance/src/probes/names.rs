//! Names, paths and symbolic links at their limits.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{OFlags, lstat, readlink, symlink};
use rustix::io::Errno;
use rustix::process::chdir;

use super::Ground;
use super::check::{Outcome, holds, make, mkdir, must, open, put, refused, same};
use super::listing::{lists, names_in};

probes! { "names":
    name_of_255_bytes "A name of 255 bytes can be made, listed, renamed and removed",
    longer_name_is_refused "A name of 256 bytes is ENAMETOOLONG, in a look-up as well",
    tree_deeper_than_a_path "A tree deeper than PATH_MAX can be made, read and left by relative steps",
    longer_path_is_refused "A path of 4,096 bytes is ENAMETOOLONG, one of 4,095 is not",
    link_of_4095_bytes "A symbolic link holds 4,095 bytes, and 4,096 are ENAMETOOLONG",
    names_are_bytes "Names that are not UTF-8 are kept byte for byte, and case and composition count",
    circular_links_end "Links that lead to each other are ELOOP",
    link_is_relative_to_its_directory "A relative link leads on from the directory that holds it, after a rename too",
}

fn name_of_255_bytes(_: &Ground) -> Outcome {
    let (old, new) = ("o".repeat(255), "n".repeat(255));
    put(&old, b"content")?;
    lists(".", &[&old])?;
    rustix::fs::rename(&old, &new)?;
    holds(&new, b"content")?;
    Ok(rustix::fs::unlink(&new)?)
}

fn longer_name_is_refused(_: &Ground) -> Outcome {
    let long = "x".repeat(256);
    refused("lookup", lstat(long.as_str()), Errno::NAMETOOLONG)?;
    refused("create", make(&long, 0o600), Errno::NAMETOOLONG)?;
    refused("mkdir", mkdir(&long), Errno::NAMETOOLONG)?;
    make("a", 0o600)?;
    refused(
        "rename",
        rustix::fs::rename("a", long.as_str()),
        Errno::NAMETOOLONG,
    )
}

fn tree_deeper_than_a_path(_: &Ground) -> Outcome {
    let name = "d".repeat(250);
    let top = lstat(".")?.st_ino;
    for _ in 0..20 {
        mkdir(&name)?;
        chdir(name.as_str())?;
    }
    put("a", b"content")?;
    holds("a", b"content")?;
    rustix::fs::rename("a", "b")?;
    lists(".", &["b"])?;
    for _ in 0..20 {
        chdir("..")?;
    }
    same("inode at the top", lstat(".")?.st_ino, top)
}

fn longer_path_is_refused(_: &Ground) -> Outcome {
    put("a", b"")?;
    let path = |length: usize| [&"./".repeat(length / 2 - 1), "a"].concat();
    same("length", path(4_096).len(), 4_095)?;
    lstat(path(4_096).as_str())?;
    let longer = format!(".{}", path(4_096).replacen("./", ".//", 1));
    refused("a longer path", lstat(longer.as_str()), Errno::NAMETOOLONG)
}

fn link_of_4095_bytes(_: &Ground) -> Outcome {
    let target = "t/".repeat(2_048);
    refused("4,096 bytes", symlink(&target, "l"), Errno::NAMETOOLONG)?;
    symlink(&target[..4_095], "l")?;
    let held = readlink("l", Vec::new())?;
    same("length of the target", held.as_bytes().len(), 4_095)?;
    same("target", held.as_bytes(), &target.as_bytes()[..4_095])?;
    same("size of the link", lstat("l")?.st_size, 4_095)
}

fn names_are_bytes(_: &Ground) -> Outcome {
    // Latin-1, control characters, two compositions of one letter, two cases.
    let names: [&[u8]; 6] = [
        b"\xe9\xff",
        b"\x01\n\\",
        "\u{e9}".as_bytes(),
        b"e\xcc\x81",
        b"x",
        b"X",
    ];
    let mut wanted = names.map(OsStr::from_bytes);
    for name in wanted {
        rustix::fs::mkdir(name, 0o700.into())?;
    }
    wanted.sort_unstable();
    let listed = names_in(".")?;
    must(
        listed == wanted,
        format_args!("listed are {listed:?}, not {wanted:?}"),
    )
}

fn circular_links_end(_: &Ground) -> Outcome {
    symlink("b", "a")?;
    symlink("a", "b")?;
    refused("opening", open("a", OFlags::RDONLY), Errno::LOOP)?;
    refused("stat through it", lstat("a/x"), Errno::LOOP)
}

fn link_is_relative_to_its_directory(_: &Ground) -> Outcome {
    mkdir("d")?;
    put("a", b"outer")?;
    put("d/a", b"inner")?;
    symlink("a", "d/l")?;
    holds("d/l", b"inner")?;
    rustix::fs::rename("d/l", "l")?;
    holds("l", b"outer")
}
