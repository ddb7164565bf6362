//! To whom new files belong, and what others may do.

use rustix::fs::{
    CWD, FileType, Mode, OFlags, chown, makedev, mkfifoat, mknodat, rename, symlink, unlink,
};
use rustix::io::Errno;
use rustix::process::umask;
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, set_capabilities, set_keep_capabilities,
};

use super::Ground;
use super::check::{
    Outcome, chmod, has_mode, holds, lstat, make, mkdir, must, not_supported, open, put, refused,
    same,
};
use super::ground::{OTHER_GROUP, STRANGER, become_stranger};
use super::process::in_child;
use super::raw::unshare_users;

probes! { "owners":
    new_file_belongs_to_caller "A new file belongs to the user and group that made it",
    new_directory_belongs_to_caller "A new directory belongs to the user and group that made it",
    new_link_belongs_to_caller "A new symbolic link belongs to the user and group that made it",
    new_fifo_belongs_to_caller "A new fifo belongs to the user and group that made it",
    new_device_belongs_to_caller "A new device belongs to the user who made it, if that user may",
    umask_is_applied "The umask is taken from the mode of new files, directories and fifos",
    setgid_directory_is_inherited "What is made in a set-group-ID directory has its group, directories the bit as well",
    setgid_is_not_given_to_outsiders "A file made in a directory of a group has no set-group-ID if its maker is not in the group",
    sticky_directory_protects "In a sticky directory only its owner and a file's owner remove or rename the file",
    supplementary_groups_count "A user may read what is readable to a supplementary group, and others may not",
    search_permission_is_needed "Nothing below a directory is found without permission to search it",
    mode_is_changed_by_owner_only "chmod and chown by anyone but the owner are EPERM",
    user_namespace_sees_mapped_owners "In a user namespace the mapped user owns what it makes, and others are nobody",
}

fn belongs(ground: &Ground, name: &str, make: impl FnOnce() -> Outcome) -> Outcome {
    ground.as_ordinary(|uid, gid| {
        make()?;
        let made = lstat(name)?;
        same("owner", made.st_uid, uid.as_raw())?;
        same("group", made.st_gid, gid.as_raw())
    })
}

fn new_file_belongs_to_caller(ground: &Ground) -> Outcome {
    belongs(ground, "a", || Ok(make("a", 0o644).map(drop)?))
}

fn new_directory_belongs_to_caller(ground: &Ground) -> Outcome {
    belongs(ground, "a", || Ok(mkdir("a")?))
}

fn new_link_belongs_to_caller(ground: &Ground) -> Outcome {
    belongs(ground, "a", || Ok(symlink("nowhere", "a")?))
}

fn new_fifo_belongs_to_caller(ground: &Ground) -> Outcome {
    belongs(ground, "a", || {
        Ok(mkfifoat(CWD, "a", Mode::from_raw_mode(0o644))?)
    })
}

fn new_device_belongs_to_caller(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    in_child(|| {
        set_keep_capabilities(true)?;
        become_stranger(&[])?;
        let only = CapabilitySet::MKNOD;
        let inheritable = CapabilitySet::empty();
        set_capabilities(
            None,
            CapabilitySets {
                effective: only,
                permitted: only,
                inheritable,
            },
        )?;
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, "a", FileType::CharacterDevice, mode, makedev(1, 3))?;
        let made = lstat("a")?;
        same("owner", made.st_uid, STRANGER)?;
        same("group", made.st_gid, STRANGER)
    })
}

fn umask_is_applied(_: &Ground) -> Outcome {
    umask(Mode::from_raw_mode(0o027));
    make("a", 0o666)?;
    mkdir("d")?;
    mkfifoat(CWD, "f", Mode::from_raw_mode(0o666))?;
    has_mode("a", 0o640)?;
    has_mode("d", 0o750)?;
    has_mode("f", 0o640)
}

fn group_directory(name: &str) -> Outcome {
    mkdir(name)?;
    chown(name, None, Some(Gid::from_raw(OTHER_GROUP)))?;
    Ok(chmod(name, 0o2777)?)
}

fn setgid_directory_is_inherited(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    group_directory("d")?;
    ground.as_stranger(|| {
        make("d/a", 0o644)?;
        mkdir("d/e")?;
        same("group of the file", lstat("d/a")?.st_gid, OTHER_GROUP)?;
        has_mode("d/a", 0o644)?;
        same("group of the directory", lstat("d/e")?.st_gid, OTHER_GROUP)?;
        has_mode("d/e", 0o2755)
    })
}

fn setgid_is_not_given_to_outsiders(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    group_directory("d")?;
    ground.as_stranger_in(&[OTHER_GROUP], || {
        make("d/inside", 0o2755)?;
        has_mode("d/inside", 0o2755)
    })?;
    ground.as_stranger(|| {
        make("d/outside", 0o2755)?;
        has_mode("d/outside", 0o755)
    })
}

fn sticky_directory_protects(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    mkdir("t")?;
    chmod("t", 0o1777)?;
    put("t/theirs", b"")?;
    chmod("t/theirs", 0o666)?;
    ground.as_stranger(|| {
        refused("unlink", unlink("t/theirs"), Errno::PERM)?;
        refused("rename", rename("t/theirs", "t/mine"), Errno::PERM)?;
        put("t/mine", b"")?;
        refused("rename over", rename("t/mine", "t/theirs"), Errno::PERM)?;
        Ok(unlink("t/mine")?)
    })
}

fn supplementary_groups_count(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    put("a", b"content")?;
    chown("a", None, Some(Gid::from_raw(OTHER_GROUP)))?;
    chmod("a", 0o040)?;
    ground.as_stranger_in(&[1, OTHER_GROUP], || {
        holds("a", b"content")?;
        refused("opening to write", open("a", OFlags::WRONLY), Errno::ACCESS)
    })?;
    ground.as_stranger(|| {
        refused(
            "opening by others",
            open("a", OFlags::RDONLY),
            Errno::ACCESS,
        )
    })
}

fn search_permission_is_needed(ground: &Ground) -> Outcome {
    ground.as_ordinary(|_, _| {
        mkdir("d")?;
        put("d/a", b"")?;
        chmod("d", 0o600)?;
        let found = lstat("d/a");
        let listed = super::listing::names_in("d");
        chmod("d", 0o700)?;
        refused("stat", found, Errno::ACCESS)?;
        same("listing", listed?, vec!["a".into()])
    })
}

fn mode_is_changed_by_owner_only(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    put("a", b"")?;
    chmod("a", 0o666)?;
    ground.as_stranger(|| {
        refused("chmod", chmod("a", 0o777), Errno::PERM)?;
        let uid = Some(Uid::from_raw(STRANGER));
        refused("chown", chown("a", uid, None), Errno::PERM)?;
        must(
            open("a", OFlags::WRONLY).is_ok(),
            "a writable file cannot be opened",
        )
    })
}

fn user_namespace_sees_mapped_owners(ground: &Ground) -> Outcome {
    put("theirs", b"content")?;
    ground.as_ordinary(|uid, gid| {
        in_child(|| {
            if let Err(errno) = unshare_users() {
                return not_supported(format_args!("needs a user namespace: {errno}"));
            }
            map("uid_map", uid.as_raw())?;
            write("setgroups", "deny")?;
            map("gid_map", gid.as_raw())?;
            put("mine", b"")?;
            same("owner inside", lstat("mine")?.st_uid, 0)?;
            holds("theirs", b"content")?;
            if ground.root {
                same("owner of another's file", lstat("theirs")?.st_uid, 65_534)?;
            }
            let nobody = Some(Uid::from_raw(7));
            refused(
                "chown to an unmapped user",
                chown("mine", nobody, None),
                Errno::INVAL,
            )
        })?;
        same("owner outside", lstat("mine")?.st_uid, uid.as_raw())
    })
}

fn map(file: &str, id: u32) -> Outcome {
    Ok(write(file, &format!("0 {id} 1"))?)
}

fn write(file: &str, text: &str) -> rustix::io::Result<()> {
    let file = open(&format!("/proc/self/{file}"), OFlags::WRONLY)?;
    super::check::write_all(file, text.as_bytes())
}
