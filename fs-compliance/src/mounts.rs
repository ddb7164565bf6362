//! What is mounted for a run, all of it in the run's mount namespace.

use crate::outcome::{At as _, Trouble};
use crate::work::place;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// FUSE_SUPER_MAGIC, fs/fuse/inode.c.
const FUSE_MAGIC: i64 = 0x6573_5546;

/// mount(8) looks for its helpers in /sbin only (libmount's FS_SEARCH_PATH), so a directory with
/// ours is laid over it, in this mount namespace. It adds options to those of mounts of some
/// sources, as fstab(5) has them for devices: suites mount with no options, too.
pub(crate) fn install_mount_program(
    work: &Path,
    wakebox: &Path,
    options: &[(&str, String)],
) -> Result<(), Trouble> {
    const NAME: &str = "mount.fuse.wakebox";
    let (ours, real) = (work.join("sbin"), work.join("helper"));
    for folder in [&ours, &real] {
        fs::create_dir_all(folder).at(folder.display())?;
    }
    let link = real.join(NAME);
    symlink(wakebox, &link).at(link.display())?;
    let script = ours.join(NAME);
    place(&script, &mount_script(&link, options))?;
    open(&script, 0o755)?;
    let sbin = Path::new("/sbin").canonicalize().at("/sbin")?;
    let layers = format!("lowerdir={}:{}", ours.display(), sbin.display());
    let layers = CString::new(layers).at("/sbin")?;
    mount("sbin", &sbin, "overlay", MountFlags::empty(), &*layers)
        .at("an overlay over /sbin, for mount.fuse.wakebox")
}

fn mount_script(real: &Path, options: &[(&str, String)]) -> String {
    let case = |(source, words): &(&str, String)| {
        let words = words.replace('\'', "'\\''");
        format!("{source}) set -- \"$@\" -o '{words}';;\n")
    };
    let cases: String = options.iter().map(case).collect();
    let real = real.display();
    format!("#!/bin/sh\ncase $1 in\n{cases}esac\nexec '{real}' \"$@\"\n")
}

/// A file system under test; unmounted when dropped.
#[derive(Debug)]
pub struct Mounted {
    pub(crate) path: PathBuf,
    pub(crate) mounted: bool,
}

impl Mounted {
    /// Its root.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A new directory in it, which everyone may pass.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, Trouble> {
        let folder = self.path.join(name);
        fs::create_dir(&folder).at(folder.display())?;
        open(&folder, 0o755)?;
        Ok(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What a suite left running may still hold it; the namespace ends that.
        if self.mounted && unmount(&self.path, UnmountFlags::empty()).is_err() {
            let _ = unmount(&self.path, UnmountFlags::DETACH);
        }
    }
}

/// Says that nothing can be mounted, if FUSE is not for us.
pub(crate) fn demand_device() -> Result<(), Trouble> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    device.map(drop).map_err(|error| {
        let way = "mounts need it, with mode 0666 for ordinary users";
        Trouble::NotRun(format!("/dev/fuse: {error}; {way}"))
    })
}

/// A mount that is said to be there and is not would let the file system below pass for it.
pub(crate) fn demand_fuse(point: &Path) -> Result<(), Trouble> {
    let kind = rustix::fs::statfs(point).at(point.display())?.f_type;
    match kind == FUSE_MAGIC {
        true => Ok(()),
        false => Err(Trouble::Broken(format!(
            "{}: wakebox mount succeeded, but no FUSE file system is there",
            point.display()
        ))),
    }
}

/// A small file system in memory, which everyone may write to.
pub(crate) fn memory(point: &Path) -> Result<(), Trouble> {
    fs::create_dir_all(point).at(point.display())?;
    mount(
        "memory",
        point,
        "tmpfs",
        MountFlags::empty(),
        c"size=64m,mode=1777",
    )
    .at(format_args!("a tmpfs on {}", point.display()))
}

/// Sets permission bits.
pub(crate) fn open(path: &Path, mode: u32) -> Result<(), Trouble> {
    fs::set_permissions(path, Permissions::from_mode(mode)).at(path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_added_for_the_sources_that_have_some() {
        let script = mount_script(Path::new("/bin/echo"), &[("one", "state=/a'b,c".into())]);
        let run = |source: &str| {
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", &script, "mount", source, "/d", "-o", "rw"]);
            String::from_utf8(shell.output().expect("sh").stdout).expect("text")
        };
        assert_eq!(run("one"), "one /d -o rw -o state=/a'b,c\n");
        assert_eq!(run("two"), "two /d -o rw\n");
    }
}
