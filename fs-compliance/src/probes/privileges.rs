//! What a change takes away from programs, and the running of programs.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::fd::OwnedFd;
use rustix::fs::{
    FallocateFlags, Gid, OFlags, Uid, XattrFlags, chown, fallocate, ftruncate, getxattr, setxattr,
};
use rustix::io::Errno;

use super::Ground;
use super::check::{
    Outcome, chmod, content, failed, has_mode, make, not_supported, offered, open, put, refused,
    same, write_all, write_at,
};
use super::ground::STRANGER;
use super::process::in_child;

probes! { "privileges":
    write_drops_set_ids "A write by an ordinary user takes set-user-ID and set-group-ID away",
    truncation_drops_set_ids "A truncation by an ordinary user takes set-user-ID and set-group-ID away",
    truncating_open_drops_set_ids "An open with O_TRUNC by an ordinary user takes set-user-ID away",
    fallocate_drops_set_ids "A fallocate by an ordinary user takes set-user-ID away",
    chown_drops_set_ids "A chown of a program takes set-user-ID and set-group-ID away, for root as well",
    late_write_drops_set_ids "A write drops set-user-ID that was set after the writer had opened and written",
    root_keeps_set_ids "A write by root keeps set-user-ID",
    lock_bit_is_kept "A write keeps set-group-ID where the group may not execute",
    write_drops_capabilities "A write takes security.capability away",
    running_program_is_not_written "Opening a program that runs for writing is ETXTBSY",
    file_being_written_is_not_run "Running a file that is open for writing is ETXTBSY",
    program_just_written_runs "A program that another process has just written can be run",
    program_renamed_into_place_runs "A program written under another name and renamed over a running one can be run",
    set_user_id_program_runs_as_owner "A set-user-ID program runs as its owner, unless the mount is nosuid",
}

/// As an ordinary user, who may write but not own the file if there is another user to own it.
fn set_ids_after(ground: &Ground, change: impl FnOnce() -> Outcome) -> Outcome {
    put("a", b"content")?;
    chmod("a", 0o6777)?;
    has_mode("a", 0o6777)?;
    ground.as_ordinary(|_, _| change())?;
    has_mode("a", 0o777)
}

fn writer() -> rustix::io::Result<OwnedFd> {
    open("a", OFlags::WRONLY)
}

fn write_drops_set_ids(ground: &Ground) -> Outcome {
    set_ids_after(ground, || write_at(writer()?, b"x", 0))
}

fn truncation_drops_set_ids(ground: &Ground) -> Outcome {
    set_ids_after(ground, || Ok(ftruncate(writer()?, 3)?))
}

fn truncating_open_drops_set_ids(ground: &Ground) -> Outcome {
    set_ids_after(ground, || {
        Ok(open("a", OFlags::WRONLY | OFlags::TRUNC).map(drop)?)
    })
}

fn fallocate_drops_set_ids(ground: &Ground) -> Outcome {
    set_ids_after(ground, || {
        let result = fallocate(writer()?, FallocateFlags::empty(), 0, 100_000);
        offered("fallocate", result, &[])
    })
}

fn chown_drops_set_ids(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    put("a", b"content")?;
    chmod("a", 0o6755)?;
    chown("a", Some(Uid::from_raw(STRANGER)), None)?;
    has_mode("a", 0o755)?;
    chmod("a", 0o6755)?;
    chown("a", None, Some(Gid::from_raw(STRANGER)))?;
    has_mode("a", 0o755)
}

fn late_write_drops_set_ids(ground: &Ground) -> Outcome {
    ground.as_ordinary(|_, _| {
        let file = make("a", 0o755)?;
        write_all(&file, b"content")?;
        chmod("a", 0o4755)?;
        has_mode("a", 0o4755)?;
        write_all(&file, b"more")?;
        has_mode("a", 0o755)
    })
}

fn root_keeps_set_ids(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    let file = put("a", b"content")?;
    chmod("a", 0o6755)?;
    write_at(&file, b"x", 0)?;
    has_mode("a", 0o6755)
}

fn lock_bit_is_kept(ground: &Ground) -> Outcome {
    // Without execution by the group the bit means something else (mandatory locks, once).
    ground.as_ordinary(|_, _| {
        let file = put("a", b"content")?;
        chmod("a", 0o2644)?;
        write_at(&file, b"x", 0)?;
        has_mode("a", 0o2644)
    })
}

fn write_drops_capabilities(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    let file = put("a", b"content")?;
    // struct vfs_cap_data, revision 2, effective: CAP_NET_RAW.
    let capability = [1_u32 | 0x0200_0000, 1 << 13, 0, 0, 0]
        .map(u32::to_le_bytes)
        .concat();
    let name = "security.capability";
    offered(
        name,
        setxattr("a", name, &capability, XattrFlags::empty()),
        &[],
    )?;
    let mut buffer = [0_u8; 64];
    same(
        "size at first",
        getxattr("a", name, &mut buffer[..])?,
        capability.len(),
    )?;
    write_at(&file, b"x", 0)?;
    refused(
        "reading it afterwards",
        getxattr("a", name, &mut buffer[..]),
        Errno::NODATA,
    )
}

/// Copies a program into the file.
fn copy_program(program: &str, file: &OwnedFd) -> rustix::io::Result<()> {
    let source = open(program, OFlags::RDONLY)?;
    write_all(file, &content(source)?)
}

fn run(name: &str, argument: &str) -> io::Result<Child> {
    Command::new(name).arg(argument).spawn()
}

fn runs(name: &str) -> Outcome {
    match run(name, "0").and_then(|mut child| child.wait()) {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => failed(format_args!("it ran with {status}")),
        Err(error) if is(&error, Errno::ACCESS) => not_supported("needs a mount without noexec"),
        Err(error) => failed(format_args!("it does not run: {error}")),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn install(name: &str) -> Outcome {
    Ok(copy_program("/bin/sleep", &make(name, 0o755)?)?)
}

fn running_program_is_not_written(_: &Ground) -> Outcome {
    install("a")?;
    runs("./a")?;
    let mut child = run("./a", "100")?;
    let result = open("a", OFlags::WRONLY);
    child.kill()?;
    child.wait()?;
    refused("opening it", result, Errno::TXTBSY)?;
    open("a", OFlags::WRONLY)?;
    Ok(())
}

fn file_being_written_is_not_run(_: &Ground) -> Outcome {
    install("a")?;
    let writer = open("a", OFlags::WRONLY)?;
    match run("./a", "0") {
        Err(error) if is(&error, Errno::TXTBSY) => {}
        Err(error) => return failed(format_args!("running it: {error}")),
        Ok(mut child) => {
            child.wait()?;
            return failed("it ran");
        }
    }
    drop(writer);
    runs("./a")
}

fn program_just_written_runs(_: &Ground) -> Outcome {
    for number in 0..20 {
        let name = format!("a{number}");
        in_child(|| install(&name))?;
        runs(&format!("./{name}"))?;
    }
    Ok(())
}

fn program_renamed_into_place_runs(_: &Ground) -> Outcome {
    install("a")?;
    runs("./a")?;
    let mut old = run("./a", "100")?;
    let replaced = install("b").and_then(|()| Ok(rustix::fs::rename("b", "a")?));
    let found = replaced.and_then(|()| runs("./a"));
    old.kill()?;
    old.wait()?;
    found
}

fn set_user_id_program_runs_as_owner(ground: &Ground) -> Outcome {
    ground.needs_root()?;
    copy_program("/usr/bin/id", &make("a", 0o755)?)?;
    chmod("a", 0o4755)?;
    let mut program = Command::new("./a");
    let output = program.arg("-u").uid(STRANGER).gid(STRANGER).output()?;
    let shown = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let wanted = if ground.suid { 0 } else { STRANGER };
    same("effective user", shown, wanted.to_string())
}
