//! Extended attributes, access control lists, flags and handles.

use rustix::fs::{
    AtFlags, CWD, IFlags, OFlags, StatxFlags, XattrFlags, getxattr, ioctl_getflags, ioctl_setflags,
    listxattr, lsetxattr, removexattr, setxattr, statx, symlink, unlink,
};
use rustix::io::Errno;

use super::Ground;
use super::check::{
    Outcome, chmod, has_mode, holds, lstat, make, mkdir, must, not_supported, offered, open, put,
    reads, refused, same, tick,
};
use super::ground::STRANGER;
use super::raw::Handle;

probes! { "attributes":
    user_attributes_are_kept "user.* attributes are set, read, listed, replaced and removed",
    attribute_flags_are_obeyed "XATTR_CREATE is EEXIST for what exists, XATTR_REPLACE ENODATA for what does not",
    large_attribute_is_kept "A value of 65,536 bytes is kept, or refused with ENOSPC or E2BIG, and more is E2BIG",
    attributes_follow_the_inode "Attributes are seen through every hard link and after a rename",
    trusted_attributes_are_for_root "trusted.* attributes are root's, and no one else sees them listed",
    security_attributes_are_kept "security.* attributes that no module knows are kept for root",
    links_take_no_user_attributes "user.* attributes of symbolic links are EPERM",
    access_list_grants "An access control list lets in the user whom it names and shows in the mode",
    default_list_is_inherited "New files take the default access control list of their directory",
    inode_flags_are_kept "FS_IOC_SETFLAGS sets FS_NODUMP_FL and FS_IOC_GETFLAGS reads it",
    inode_flags_move_the_change_time "Setting inode flags moves the ctime, also where it was known before",
    immutable_file_is_not_changed "A file with FS_IMMUTABLE_FL is neither written nor removed",
    handle_leads_back_to_a_file "open_by_handle_at finds a file again after the kernel forgot its name",
    handle_of_a_removed_file_is_stale "open_by_handle_at is ESTALE for a file that is gone",
}

fn set(name: &str, value: &[u8]) -> rustix::io::Result<()> {
    setxattr("a", name, value, XattrFlags::empty())
}

fn read(path: &str, name: &str) -> rustix::io::Result<Vec<u8>> {
    let mut value = vec![0_u8; 65_536];
    let length = getxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

fn listed() -> rustix::io::Result<Vec<String>> {
    let mut names = vec![0_u8; 65_536];
    let length = listxattr("a", &mut names[..])?;
    let names = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    Ok(names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect())
}

fn user_attributes_are_kept(_: &Ground) -> Outcome {
    put("a", b"")?;
    offered("user.one", set("user.one", b"1"), &[])?;
    set("user.two", b"")?;
    set("user.one", b"new \0 value")?;
    same("value", read("a", "user.one")?, b"new \0 value".to_vec())?;
    same("empty value", read("a", "user.two")?, Vec::new())?;
    let mut names = listed()?;
    names.retain(|name| name.starts_with("user."));
    names.sort();
    same(
        "names",
        names,
        vec!["user.one".to_owned(), "user.two".to_owned()],
    )?;
    removexattr("a", "user.one")?;
    refused(
        "reading what was removed",
        read("a", "user.one"),
        Errno::NODATA,
    )?;
    refused(
        "removing it again",
        removexattr("a", "user.one"),
        Errno::NODATA,
    )
}

fn attribute_flags_are_obeyed(_: &Ground) -> Outcome {
    put("a", b"")?;
    let with = |flags| setxattr("a", "user.one", b"1", flags);
    let missing = with(XattrFlags::REPLACE);
    offered(
        "user.one",
        missing.or_else(|errno| match errno {
            Errno::NODATA => Ok(()),
            errno => Err(errno),
        }),
        &[],
    )?;
    refused("replacing", with(XattrFlags::REPLACE), Errno::NODATA)?;
    with(XattrFlags::CREATE)?;
    refused("creating again", with(XattrFlags::CREATE), Errno::EXIST)?;
    Ok(with(XattrFlags::REPLACE)?)
}

fn large_attribute_is_kept(_: &Ground) -> Outcome {
    put("a", b"")?;
    offered("user.small", set("user.small", b"1"), &[])?;
    let large = vec![b'x'; 65_536];
    match set("user.large", &large) {
        Ok(()) => must(read("a", "user.large")? == large, "the value read differs")?,
        Err(Errno::NOSPC | Errno::TOOBIG) => {
            refused("reading it", read("a", "user.large"), Errno::NODATA)?;
        }
        result => result?,
    }
    refused(
        "65,537 bytes",
        set("user.larger", &vec![0; 65_537]),
        Errno::TOOBIG,
    )
}

fn attributes_follow_the_inode(_: &Ground) -> Outcome {
    put("a", b"")?;
    offered("user.one", set("user.one", b"1"), &[])?;
    rustix::fs::link("a", "b")?;
    set("user.one", b"2")?;
    same(
        "value by the other name",
        read("b", "user.one")?,
        b"2".to_vec(),
    )?;
    rustix::fs::rename("b", "c")?;
    unlink("a")?;
    same(
        "value after a rename",
        read("c", "user.one")?,
        b"2".to_vec(),
    )
}

fn trusted_attributes_are_for_root(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    put("a", b"")?;
    chmod("a", 0o666)?;
    offered("trusted.one", set("trusted.one", b"1"), &[Errno::PERM])?;
    same("value", read("a", "trusted.one")?, b"1".to_vec())?;
    ground.as_stranger(|| {
        refused("setting by a user", set("trusted.one", b"2"), Errno::PERM)?;
        refused("reading by a user", read("a", "trusted.one"), Errno::NODATA)?;
        let names = listed()?;
        let seen = names.iter().any(|name| name.starts_with("trusted."));
        must(!seen, format_args!("a user sees {names:?}"))
    })
}

fn security_attributes_are_kept(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    put("a", b"")?;
    offered(
        "security.probe",
        set("security.probe", b"1"),
        &[Errno::PERM],
    )?;
    same("value", read("a", "security.probe")?, b"1".to_vec())
}

fn links_take_no_user_attributes(_: &Ground) -> Outcome {
    symlink("a", "l")?;
    let result = lsetxattr("l", "user.one", b"1", XattrFlags::empty());
    refused("setting it", result, Errno::PERM)
}

/// The kernel's form of an access control list: version 2, then tag, permissions and id of each.
fn list(named: u16, mask: u16) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let entries: [(u16, u16, u32); 5] = [
        (0x01, 6, NOBODY),
        (0x02, named, STRANGER),
        (0x04, 0, NOBODY),
        (0x10, mask, NOBODY),
        (0x20, 0, NOBODY),
    ];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

fn access_list_grants(ground: &Ground) -> Outcome {
    put("a", b"content")?;
    let name = "system.posix_acl_access";
    offered(name, set(name, &list(6, 4)), &[])?;
    has_mode("a", 0o640)?;
    must(read("a", name)? == list(6, 4), "the list read differs")?;
    chmod("a", 0o660)?;
    must(
        read("a", name)? == list(6, 6),
        "chmod did not change the mask",
    )?;
    if !ground.root {
        return Ok(());
    }
    ground.as_stranger(|| holds("a", b"content"))?;
    chmod("a", 0o600)?;
    ground.as_stranger(|| refused("opening", open("a", OFlags::RDONLY), Errno::ACCESS))
}

fn default_list_is_inherited(_: &Ground) -> Outcome {
    mkdir("d")?;
    let flags = XattrFlags::empty();
    let result = setxattr("d", "system.posix_acl_default", &list(6, 6), flags);
    offered("system.posix_acl_default", result, &[])?;
    make("d/a", 0o666)?;
    has_mode("d/a", 0o660)?;
    must(
        read("d/a", "system.posix_acl_access")? == list(6, 6),
        "the file has another list",
    )?;
    mkdir("d/e")?;
    let inherited = read("d/e", "system.posix_acl_default")?;
    must(
        inherited == list(6, 6),
        "the directory has another default list",
    )
}

fn inode_flags_are_kept(_: &Ground) -> Outcome {
    let file = put("a", b"")?;
    let flags = offered("FS_IOC_GETFLAGS", ioctl_getflags(&file), &[Errno::INVAL])?;
    let set = ioctl_setflags(&file, flags | IFlags::NODUMP);
    offered("FS_IOC_SETFLAGS", set, &[])?;
    let again = open("a", OFlags::RDONLY)?;
    must(
        ioctl_getflags(&again)?.contains(IFlags::NODUMP),
        "the flag is not set",
    )?;
    ioctl_setflags(&file, flags)?;
    same("flags afterwards", ioctl_getflags(&again)?, flags)
}

fn inode_flags_move_the_change_time(_: &Ground) -> Outcome {
    let file = put("a", b"")?;
    let flags = offered("FS_IOC_GETFLAGS", ioctl_getflags(&file), &[Errno::INVAL])?;
    let time = || {
        let seen = statx(CWD, "a", AtFlags::empty(), StatxFlags::CTIME)?;
        Ok::<_, Errno>((seen.stx_ctime.tv_sec, seen.stx_ctime.tv_nsec))
    };
    drop(file);
    let first = time()?;
    tick();
    let set = ioctl_setflags(open("a", OFlags::RDONLY)?, flags | IFlags::NODUMP);
    offered("FS_IOC_SETFLAGS", set, &[])?;
    must(time()? > first, "it did not move")
}

fn immutable_file_is_not_changed(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    let file = put("a", b"")?;
    let flags = offered("FS_IOC_GETFLAGS", ioctl_getflags(&file), &[Errno::INVAL])?;
    let set = ioctl_setflags(&file, flags | IFlags::IMMUTABLE);
    offered("FS_IMMUTABLE_FL", set, &[Errno::PERM, Errno::INVAL])?;
    let (write, removal) = (open("a", OFlags::WRONLY), unlink("a"));
    ioctl_setflags(&file, flags)?;
    refused("opening to write", write, Errno::PERM)?;
    refused("unlink", removal, Errno::PERM)
}

/// Asks the kernel to drop names and inodes that nobody uses, of every file system. Those that are
/// not yet written stay.
fn forget_names() -> Outcome {
    rustix::fs::syncfs(open(".", OFlags::RDONLY)?)?;
    match open("/proc/sys/vm/drop_caches", OFlags::WRONLY) {
        Ok(file) => Ok(super::check::write_all(file, b"2")?),
        Err(errno) => not_supported(format_args!("needs to drop names: {errno}")),
    }
}

fn handle(name: &str) -> Outcome<Handle> {
    let directory = open(".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    offered("name_to_handle_at", Handle::of(directory, name), &[])
}

fn handle_leads_back_to_a_file(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    mkdir("d")?;
    put("d/a", b"content")?;
    let inode = lstat("d/a")?.st_ino;
    let mut handle = handle("d/a")?;
    forget_names()?;
    let mount = open(".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let file = match handle.open(mount) {
        Err(Errno::OPNOTSUPP | Errno::PERM) => {
            return not_supported("open_by_handle_at is refused");
        }
        result => result?,
    };
    same("inode", rustix::fs::fstat(&file)?.st_ino, inode)?;
    reads(&file, b"content")
}

fn handle_of_a_removed_file_is_stale(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    put("a", b"content")?;
    let mut handle = handle("a")?;
    unlink("a")?;
    forget_names()?;
    let mount = open(".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    refused("opening it", handle.open(mount), Errno::STALE)
}
