//! What the kernel builds on a file system: pipes, sockets, devices, watches, mounts.

use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags, link, makedev, mkfifoat, mknodat, rename, unlink};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind};

use super::Ground;
use super::check::{
    Outcome, get, holds, lstat, make, mkdir, must, offered, open, put, refused, same, write_all,
};
use super::listing::{lists, names_in};
use super::process::Child;

probes! { "around":
    fifo_joins_two_processes "A fifo carries what one process writes to another",
    socket_joins_two_processes "A socket that is bound to a name is reached by it from another process",
    device_is_the_device "A device node has its numbers, and works unless the mount is nodev",
    watch_tells_of_changes "inotify tells of making, writing, renaming and removing in their order",
    bind_mount_shows_the_same "A directory bound elsewhere shows the same files, and links across are EXDEV",
    lower_layer_of_an_overlay "A directory can be the lower layer of an overlay, whose upper layer is elsewhere",
    upper_layer_of_an_overlay "A directory can be the upper layer of an overlay, with whiteouts and opaque directories",
}

fn fifo_joins_two_processes(_: &Ground) -> Outcome {
    mkfifoat(CWD, "f", Mode::from_raw_mode(0o600))?;
    let writer = Child::start(|| Ok(write_all(open("f", OFlags::WRONLY)?, b"content")?))?;
    let mut received = String::new();
    std::fs::File::open("f")?.read_to_string(&mut received)?;
    writer.wait(None)?;
    same("what arrived", received.as_str(), "content")?;
    same("size of the fifo", lstat("f")?.st_size, 0)
}

fn socket_joins_two_processes(_: &Ground) -> Outcome {
    let listener = UnixListener::bind("s")?;
    let kind = FileType::from_raw_mode(lstat("s")?.st_mode);
    same("kind", kind, FileType::Socket)?;
    let writer = Child::start(|| Ok(UnixStream::connect("s")?.write_all(b"content")?))?;
    let mut received = String::new();
    listener.accept()?.0.read_to_string(&mut received)?;
    writer.wait(None)?;
    same("what arrived", received.as_str(), "content")
}

fn device_is_the_device(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    let number = makedev(1, 5);
    let owner_only = Mode::from_raw_mode(0o600);
    let made = mknodat(CWD, "zero", FileType::CharacterDevice, owner_only, number);
    offered("a device", made, &[Errno::PERM])?;
    same("device", lstat("zero")?.st_rdev, number)?;
    let block = makedev(7, 200);
    mknodat(
        CWD,
        "block",
        FileType::BlockDevice,
        Mode::from_raw_mode(0o600),
        block,
    )?;
    same("block device", lstat("block")?.st_rdev, block)?;
    if !ground.dev {
        return refused("opening", open("zero", OFlags::RDONLY), Errno::ACCESS);
    }
    let mut bytes = [1; 16];
    let count = rustix::io::read(open("zero", OFlags::RDONLY)?, &mut bytes)?;
    same("what was read", (count, bytes), (16, [0; 16]))
}

fn watch_tells_of_changes(_: &Ground) -> Outcome {
    mkdir("d")?;
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let wanted =
        WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::MOVE | WatchFlags::DELETE;
    inotify::add_watch(&watch, "d", wanted)?;
    drop(put("d/a", b"content")?);
    rename("d/a", "d/b")?;
    unlink("d/b")?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(watch, &mut buffer);
    for (event, name) in [
        (ReadFlags::CREATE, "a"),
        (ReadFlags::CLOSE_WRITE, "a"),
        (ReadFlags::MOVED_FROM, "a"),
        (ReadFlags::MOVED_TO, "b"),
        (ReadFlags::DELETE, "b"),
    ] {
        let next = events.next()?;
        let told = next
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        same(
            "event",
            (next.events(), told),
            (event, Some(name.to_owned())),
        )?;
    }
    Ok(())
}

fn bind_mount_shows_the_same(ground: &Ground) -> Outcome {
    ground.with_own_mounts(|| {
        mkdir("d")?;
        mkdir("e")?;
        put("d/a", b"content")?;
        mount_bind("d", "e")?;
        same("inode", lstat("e/a")?.st_ino, lstat("d/a")?.st_ino)?;
        put("e/b", b"new")?;
        holds("d/b", b"new")?;
        refused("rename across", rename("d/a", "e/c"), Errno::XDEV)?;
        refused("link across", link("d/a", "e/c"), Errno::XDEV)
    })
}

/// Makes `a`, `gone` and `d/old` in what will be a lower layer.
fn make_lower(lower: &str) -> Outcome {
    mkdir(lower)?;
    mkdir(&format!("{lower}/d"))?;
    for name in ["a", "gone", "d/old"] {
        put(&format!("{lower}/{name}"), b"lower")?;
    }
    Ok(())
}

/// Mounts an overlay on `merged` and changes it in every way that an upper layer has to record.
fn use_overlay(lower: &str, upper: &str, work: &str) -> Outcome {
    mkdir("merged")?;
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let options = std::ffi::CString::new(options).map_err(std::io::Error::from)?;
    let mounted = mount(
        "overlay",
        "merged",
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    );
    offered("an overlay", mounted, &[Errno::INVAL, Errno::NODEV])?;
    holds("merged/a", b"lower")?;
    write_all(
        open("merged/a", OFlags::WRONLY | OFlags::APPEND)?,
        b" and upper",
    )?;
    unlink("merged/gone")?;
    unlink("merged/d/old")?;
    rustix::fs::rmdir("merged/d")?;
    mkdir("merged/d")?;
    make("merged/d/new", 0o600)?;
    holds("merged/a", b"lower and upper")?;
    refused("what was removed", lstat("merged/gone"), Errno::NOENT)?;
    lists("merged/d", &["new"])
}

fn lower_layer_of_an_overlay(ground: &Ground) -> Outcome {
    let elsewhere = ground.needs_elsewhere()?.join("layers");
    ground.with_own_mounts(|| {
        make_lower("lower")?;
        std::fs::create_dir(&elsewhere)?;
        let found = overlay_elsewhere(&elsewhere);
        std::fs::remove_dir_all(&elsewhere)?;
        found?;
        holds("lower/a", b"lower")?;
        same("names below", names_in("lower")?.len(), 3)
    })
}

fn overlay_elsewhere(elsewhere: &Path) -> Outcome {
    let named = |name: &str| elsewhere.join(name).to_string_lossy().into_owned();
    let (upper, work) = (named("upper"), named("work"));
    mkdir(&upper)?;
    mkdir(&work)?;
    use_overlay("lower", &upper, &work)
}

fn upper_layer_of_an_overlay(ground: &Ground) -> Outcome {
    ground.with_own_mounts(|| {
        make_lower("lower")?;
        mkdir("upper")?;
        mkdir("work")?;
        use_overlay("lower", "upper", "work")?;
        holds("upper/a", b"lower and upper")?;
        let whiteout = lstat("upper/gone")?;
        let kind = FileType::from_raw_mode(whiteout.st_mode);
        same(
            "whiteout",
            (kind, whiteout.st_rdev),
            (FileType::CharacterDevice, 0),
        )?;
        must(
            get("lower/gone")? == b"lower",
            "the lower layer was changed",
        )
    })
}
