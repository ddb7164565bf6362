//! Where all files lie, and what is said of that place.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::Result;
use crate::cli::Options;

/// One directory on one file system, for all contenders.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: TempDir,
    /// What it is, in words.
    pub(crate) said: String,
}

/// What everything needs at scale 1.
const FULL_SIZE: u64 = 14 << 30;
/// A journal, inodes and a few files.
const LEAST_SIZE: u64 = 512 << 20;

impl Disk {
    /// What `--disk` says; for root an ext4 image with a journal; else a temporary directory.
    pub(crate) fn open(options: &Options) -> Result<Self> {
        if let Some(place) = &options.disk {
            fs::create_dir_all(place)?;
            return Self::below(place, "");
        }
        if rustix::process::geteuid().is_root() {
            match Self::image(options) {
                // A container may have no loop devices.
                Err(error) => println!("no image of our own ({error}): a directory"),
                made => return made,
            }
        }
        Self::below(&std::env::temp_dir(), "")
    }

    fn below(place: &Path, more: &str) -> Result<Self> {
        let prefix = ["wakebox-bench-"].concat();
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir_in(place)?;
        let kind = output(
            Command::new("stat")
                .args(["--file-system", "--format=%T"])
                .arg(place),
        )?;
        let said = format!("{} in {}{more}", kind.trim(), place.display());
        Ok(Self { directory, said })
    }

    /// An image whose file has no name any more once it is mounted, in a mount namespace that
    /// ends with us: whatever happens, nothing is left behind.
    fn image(options: &Options) -> Result<Self> {
        let wanted = (FULL_SIZE as f64 * options.scale.min(1.0)) as u64 + LEAST_SIZE;
        let (place, size) = roomy(wanted)?;
        let file = tempfile::Builder::new()
            .prefix("wakebox-bench-")
            .tempfile_in(&place)?;
        file.as_file().set_len(size)?;
        output(
            Command::new("mkfs.ext4")
                .args(["-q", "-F", "-i", "8192"])
                .arg(file.path()),
        )?;
        let directory = tempfile::Builder::new()
            .prefix("wakebox-bench-")
            .tempdir()?;
        let (from, to) = (file.path(), directory.path());
        output(
            Command::new("mount")
                .args(["-o", "loop,discard"])
                .arg(from)
                .arg(to),
        )?;
        let megabytes = size >> 20;
        let said = format!(
            "ext4 with a journal, an image of {megabytes} MiB in {}",
            place.display()
        );
        Ok(Self { directory, said })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A new directory of this name.
    pub(crate) fn make(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // An image's mount goes with its namespace; the directory below can only go after it.
        let _ = rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// A place with room for an image of about `wanted` bytes, and how large it may be there.
fn roomy(wanted: u64) -> Result<(PathBuf, u64)> {
    let free = |place: &Path| -> u64 {
        rustix::fs::statvfs(place).map_or(0, |found| found.f_bavail * found.f_frsize)
    };
    // What lies in memory takes the page cache's place: half of it at most.
    let memory = (free(Path::new("/dev/shm")) / 2).min(available_memory() / 2);
    let temporary = std::env::temp_dir();
    let on_disk = free(&temporary) / 2;
    if memory >= wanted || memory >= on_disk {
        return Ok((PathBuf::from("/dev/shm"), wanted.min(memory)));
    }
    if on_disk < LEAST_SIZE {
        return Err(
            "no room for an image in /dev/shm or $TMPDIR: name a directory with --disk".into(),
        );
    }
    Ok((temporary, wanted.min(on_disk)))
}

/// Bytes that can be used without swapping.
fn available_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// Runs us again in a mount namespace of our own, where mounts end when we do.
/// Returns only if that cannot be done.
pub(crate) fn enter_namespace() -> Result<()> {
    let own = std::env::current_exe()?;
    let error = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--"])
        .arg(own)
        .args(std::env::args_os().skip(1))
        .arg("--in-namespace")
        .exec();
    Err(format!("unshare (Debian package util-linux): {error}").into())
}

/// What a command prints; an error if it fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim().lines().last().unwrap_or("no word").to_owned();
    Err(format!(
        "{}: {}: {last}",
        command.get_program().display(),
        output.status
    )
    .into())
}
