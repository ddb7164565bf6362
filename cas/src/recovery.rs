//! What a job's staging directory holds, written in it: for when nobody is left to tell.
//!
//! Staged files have numbers for names. While a job runs, only its daemon knows what they are; when
//! that is killed, nothing can be recovered and the directory is swept away. From the end of the
//! job until its result is in place, this manifest says it. Whoever wants to keep staged files
//! removes it with the result in hand, so the directory holds nothing but files from then on.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::{Context, Result};
use crate::manifest::Manifest;
use crate::report::Report;

/// The manifest's name in the staging directory. Staged files have numbers, so nothing collides.
pub const FILE: &str = "manifest.json";

/// The name of the manifest of what the job uses.
pub const INPUTS: &str = "inputs";

/// The name of what says which manifest that is, where it is a file that others use, too, and that was
/// there before: what it says now need not be what the job uses.
pub(crate) const INPUTS_HASH: &str = "inputs.hash";

/// The version of the document that is written and understood here.
pub const VERSION: u32 = 1;

/// A recovery manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// [`VERSION`]; another one is for another program to understand.
    pub version: u32,
    /// How far the job is.
    pub job: JobState,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// It runs: what the files are is known to the daemon only.
    Running,
    /// It has ended, and this is what it made.
    Ended(Box<Report>),
}

impl Recovery {
    /// A manifest of the current version.
    pub fn new(job: JobState) -> Self {
        let version = VERSION;
        Self { version, job }
    }

    /// Writes the manifest into a staging directory; the one that was there is replaced whole.
    ///
    /// By exchange: ext4 writes a file out at once that is renamed over another (`auto_da_alloc`),
    /// which is a request to the disk for each job, for a file that lives as long as the job.
    pub fn write(&self, directory: BorrowedFd<'_>) -> Result<()> {
        let what = "write the recovery manifest";
        let temporary = "manifest.new";
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let bytes = serde_json::to_vec(self).context(what, FILE)?;
        let file = rustix::fs::openat(directory, temporary, flags, mode).context(what, FILE)?;
        File::from(file).write_all(&bytes).context(what, FILE)?;
        let rename =
            |flags| rustix::fs::renameat_with(directory, temporary, directory, FILE, flags);
        match rename(RenameFlags::EXCHANGE) {
            Ok(()) => rustix::fs::unlinkat(directory, temporary, AtFlags::empty()),
            // The first of this directory, or a file system that cannot exchange.
            Err(Errno::NOENT | Errno::INVAL) => rename(RenameFlags::empty()),
            Err(errno) => Err(errno),
        }
        .context(what, FILE)
    }

    /// Reads the manifest of a staging directory, if it has one that can be understood.
    pub fn read(directory: BorrowedFd<'_>) -> Option<Self> {
        let manifest: Self = serde_json::from_slice(&read(directory, FILE)?).ok()?;
        (manifest.version == VERSION).then_some(manifest)
    }

    /// Removes the manifest, and what is said of the inputs: the result is in place.
    pub fn remove(directory: BorrowedFd<'_>) -> Result<()> {
        for name in [INPUTS, INPUTS_HASH, FILE] {
            match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
                Err(Errno::NOENT) => {}
                other => other.context("remove the recovery manifest", name)?,
            }
        }
        Ok(())
    }
}

/// Writes into a staging directory what its owner uses of the store: the bytes of a manifest. As
/// long as the directory is locked, no collector removes any of it. To be called with the
/// [`Hold`](crate::hold::Hold) under which the blobs were found.
pub fn write_inputs(directory: BorrowedFd<'_>, manifest: &[u8]) -> Result<()> {
    write(directory, INPUTS, manifest, "say what the job uses in")
}

pub(crate) fn write(
    directory: BorrowedFd<'_>,
    name: &str,
    bytes: &[u8],
    what: &'static str,
) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = rustix::fs::openat(directory, name, flags, mode).context(what, name)?;
    File::from(file).write_all(bytes).context(what, name)
}

/// What the owner of a staging directory uses, if that can be told.
pub fn read_inputs(directory: BorrowedFd<'_>) -> Option<Manifest> {
    let bytes = read(directory, INPUTS)?;
    if let Some(hash) = read(directory, INPUTS_HASH)
        && hash != Digest::of_large(&bytes).to_string().as_bytes()
    {
        return None;
    }
    Manifest::decode(&bytes).ok()
}

pub(crate) fn read(directory: BorrowedFd<'_>, name: &str) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty()).ok()?;
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_manifest_is_read_back_and_strangers_are_not_understood() {
        let root = tempfile::tempdir().unwrap();
        let directory = File::open(root.path()).unwrap();
        assert_eq!(Recovery::read(directory.as_fd()), None);
        for state in [JobState::Running, JobState::Ended(Box::default())] {
            let manifest = Recovery::new(state);
            manifest.write(directory.as_fd()).unwrap();
            assert_eq!(Recovery::read(directory.as_fd()), Some(manifest));
        }
        let newer = Recovery {
            version: 2,
            job: JobState::Running,
        };
        newer.write(directory.as_fd()).unwrap();
        assert_eq!(Recovery::read(directory.as_fd()), None);
        Recovery::remove(directory.as_fd()).unwrap();
        Recovery::remove(directory.as_fd()).unwrap();
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }
}
