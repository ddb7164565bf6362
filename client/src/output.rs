//! What a job left: hashed, taken into the store, and told.

mod changes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cas::changes::InputChanges;
use cas::copy::Copier;
use cas::recovery::Recovery;
use cas::report::{Output, StagingEntry};
use cas::staging::{StagingDirectory, is_quiet};
use cas::{Digest, Error, RelPath, Store, parallel, text::Text};
use rustix::fs::{AtFlags, Mode, OFlags};
use serde::Serialize;

/// What becomes of the staged files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposal {
    /// They become the store's blobs themselves, by rename.
    Move,
    /// They stay where they are for the caller, and the store gets copies.
    Copy,
    /// As [`Disposal::Copy`], and those that are no outputs stay, too: the report that lies with them
    /// names them, and is to be read again.
    Spare,
    /// They stay where they are, and the store gets nothing.
    HashOnly,
}

/// One output, hashed.
#[derive(Clone, Debug)]
pub struct Hashed {
    /// Where it is in the view.
    pub path: RelPath,
    /// What it is.
    pub entry: HashedEntry,
}

/// What an output is, as `hashed_files` of the result has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum HashedEntry {
    /// A regular file.
    File {
        /// Name of its content.
        hash: Digest,
        /// Length in bytes.
        size: u64,
        /// Permission bits.
        mode: u16,
        /// When it was last modified.
        #[serde(flatten)]
        mtime: Mtime,
        /// Whether the content is in the store; told only if it is not.
        #[serde(skip_serializing_if = "is_true")]
        adopted: bool,
        /// The same number for all names of one hard-linked file.
        #[serde(skip_serializing_if = "Option::is_none", rename = "link-group")]
        link_group: Option<u64>,
        /// Name of its staging file; none if the content is an input's.
        #[serde(skip)]
        staged: Option<u64>,
    },
    /// A symbolic link.
    Symlink {
        /// Its target.
        target: Text,
        /// When it was last modified.
        #[serde(flatten)]
        mtime: Mtime,
    },
    /// A directory.
    Directory {
        /// Permission bits.
        mode: u16,
        /// When it was last modified.
        #[serde(flatten)]
        mtime: Mtime,
    },
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the form that serde asks for"
)]
fn is_true(value: &bool) -> bool {
    *value
}

/// A modification time, as documents have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Mtime {
    /// Whole seconds since the epoch.
    #[serde(rename = "mtime_sec")]
    pub seconds: i64,
    /// Nanoseconds on top.
    #[serde(rename = "mtime_nsec")]
    pub nanoseconds: i64,
}

impl Mtime {
    /// Nanoseconds since the epoch, or as near to it as 64 bits come.
    pub fn in_nanoseconds(self) -> i64 {
        self.seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(self.nanoseconds)
    }
}

impl HashedEntry {
    /// The name of the staging file that the job has written it to, if it has.
    pub fn staged(&self) -> Option<u64> {
        match self {
            Self::File { staged, .. } => *staged,
            Self::Symlink { .. } | Self::Directory { .. } => None,
        }
    }
}

/// What all names of one file share: its staging file, or the number of an input that was never
/// written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Staged(u64),
    Input(u64),
}

impl Group {
    fn staged(self) -> Option<u64> {
        match self {
            Self::Staged(id) => Some(id),
            Self::Input(_) => None,
        }
    }
}

fn group(entry: &StagingEntry) -> Option<Group> {
    match entry {
        StagingEntry::File { staged, .. } => Some(Group::Staged(*staged)),
        StagingEntry::Input { inode, .. } => Some(Group::Input(*inode)),
        StagingEntry::Symlink { .. } | StagingEntry::Directory { .. } => None,
    }
}

/// A staged file that has been dealt with; all its names share it.
#[derive(Clone, Copy, Debug)]
struct Content {
    digest: Digest,
    size: u64,
    mtime: Mtime,
}

/// The staging directory of a job that has ended.
#[derive(Debug)]
pub struct Collector<'s> {
    store: &'s Store,
    directory: OwnedFd,
    name: String,
    copier: Copier,
    /// Whether the view outlived the job: whoever keeps it can open any file of it again.
    late_writer: bool,
    /// Where copies are made, once there is one to make: most jobs need none.
    copies: Mutex<Option<Arc<StagingDirectory>>>,
}

impl<'s> Collector<'s> {
    /// Opens a job's staging directory. `late_writer` is what the report says.
    pub fn open(store: &'s Store, name: &str, late_writer: bool) -> cas::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = rustix::fs::openat(store.staging(), name, flags, Mode::empty())
            .map_err(|errno| Error::io("open the staging directory", name, errno))?;
        Ok(Self {
            store,
            directory,
            name: name.into(),
            copier: Copier::default(),
            late_writer,
            copies: Mutex::default(),
        })
    }

    /// Hashes all staged files in parallel and does with them as told. What the job has written
    /// without changing it is no output; it is only told in the changes that are returned. Any
    /// failure is the whole job's: a result that leaves an output out would be a lie.
    pub fn collect(
        &self,
        outputs: Vec<Output>,
        changes: InputChanges,
        disposal: Disposal,
    ) -> cas::Result<(Vec<Hashed>, InputChanges)> {
        let mut names: BTreeMap<Group, u32> = BTreeMap::new();
        for group in outputs.iter().filter_map(|output| group(&output.entry)) {
            *names.entry(group).or_default() += 1;
        }
        let staged = names.keys().filter_map(|group| group.staged());
        let staged: Vec<u64> = staged.collect();
        let contents = parallel::try_map(&staged, |&id| Ok((id, self.take_in(id, disposal)?)))?;
        let contents: BTreeMap<u64, Content> = contents.into_iter().collect();
        let adopted = disposal != Disposal::HashOnly;
        let hashed = outputs.into_iter().filter_map(|output| {
            let entry = hashed_entry(output.entry, &contents, &names, adopted)?;
            Some(Hashed {
                path: output.path,
                entry,
            })
        });
        let (hashed, changes) = changes::settle(hashed.collect(), changes);
        if matches!(disposal, Disposal::Copy | Disposal::HashOnly) {
            self.remove_unused(&staged, &hashed)?;
        }
        Ok((hashed, changes))
    }

    /// Removes staged files that are no outputs after all: nobody else will.
    fn remove_unused(&self, staged: &[u64], hashed: &[Hashed]) -> cas::Result<()> {
        let used = hashed.iter().filter_map(|output| output.entry.staged());
        let used: BTreeSet<u64> = used.collect();
        for &id in staged.iter().filter(|id| !used.contains(id)) {
            rustix::fs::unlinkat(&self.directory, id.to_string(), AtFlags::empty())
                .map_err(|errno| Error::io("remove the staged file", self.path(id), errno))?;
        }
        Ok(())
    }

    fn copies(&self) -> cas::Result<Arc<StagingDirectory>> {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*copies {
            return Ok(made.clone());
        }
        let made = self.store.new_staging("adopt")?;
        *copies = Some(made.clone());
        Ok(made)
    }

    fn path(&self, id: u64) -> PathBuf {
        self.store
            .root()
            .join("staging")
            .join(&self.name)
            .join(id.to_string())
    }

    fn take_in(&self, id: u64, disposal: Disposal) -> cas::Result<Content> {
        let failed = |what, error: std::io::Error| Error::io(what, self.path(id), error);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&self.directory, id.to_string(), flags, Mode::empty())
            .map_err(|errno| failed("open the staged file", errno.into()))?;
        let file = File::from(file);
        let is = file
            .metadata()
            .map_err(|e| failed("examine the staged file", e))?;
        let mtime = Mtime {
            seconds: is.mtime(),
            nanoseconds: is.mtime_nsec(),
        };
        // A descriptor that leaked out of the sandbox may still write. Then only a copy can be
        // trusted to have the hash that it is given. As long as the view is there, that nobody
        // writes now says nothing of the next moment.
        let quiet = !self.late_writer && is_quiet(&file);
        let (digest, size) = match disposal {
            Disposal::HashOnly => {
                Digest::of_file(&file).map_err(|e| failed("hash the staged file", e))?
            }
            _ if !quiet => self.store.put_file(&file, &self.copies()?)?,
            Disposal::Move => self.move_in(id, &file)?,
            Disposal::Copy | Disposal::Spare => self.copy_in(id, &file)?,
        };
        Ok(Content {
            digest,
            size,
            mtime,
        })
    }

    fn move_in(&self, id: u64, file: &File) -> cas::Result<(Digest, u64)> {
        let failed = |error| Error::io("hash the staged file", self.path(id), error);
        let (digest, size) = Digest::of_file(file).map_err(failed)?;
        self.store
            .adopt(self.directory.as_fd(), &id.to_string(), digest)?;
        Ok((digest, size))
    }

    /// The file is quiet, so what was hashed is what is copied.
    fn copy_in(&self, id: u64, file: &File) -> cas::Result<(Digest, u64)> {
        let failed = |what, error: std::io::Error| Error::io(what, self.path(id), error);
        let (digest, size) =
            Digest::of_file(file).map_err(|e| failed("hash the staged file", e))?;
        // One that is there and is cut is replaced.
        let there = self.store.claim(digest)?;
        if there.is_none_or(|blob| blob.size != size) {
            let copies = self.copies()?;
            let (copy, to) = copies.create_file(OFlags::WRONLY)?;
            self.copier
                .copy(file, &to)
                .map_err(|e| failed("copy the staged file", e))?;
            drop(to);
            self.store
                .adopt(copies.as_fd(), &copy.id().to_string(), digest)?;
            copy.keep();
        }
        Ok((digest, size))
    }

    /// Prepares the staged files for a caller that takes each name by itself: every name has a
    /// file of its own to unlink (names of one file are hard links among themselves, never with a
    /// blob), readable by its owner. Returns the file for each output that is one.
    pub fn names_of_their_own(&self, hashed: &[Hashed]) -> cas::Result<BTreeMap<RelPath, String>> {
        let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
        let mut names = BTreeMap::new();
        for output in hashed {
            let HashedEntry::File {
                staged: Some(staged),
                mode,
                ..
            } = &output.entry
            else {
                continue;
            };
            let count = seen.entry(*staged).or_default();
            let name = match *count {
                0 => staged.to_string(),
                nth => format!("{staged}.{nth}"),
            };
            if *count == 0 {
                self.set_mode(*staged, *mode)?;
            } else {
                self.link(*staged, &name)?;
            }
            *count += 1;
            names.insert(output.path.clone(), name);
        }
        Ok(names)
    }

    /// Removes the recovery manifest: the result is in place.
    pub fn remove_manifest(&self) -> cas::Result<()> {
        Recovery::remove(self.directory.as_fd())
    }

    fn set_mode(&self, id: u64, mode: u16) -> cas::Result<()> {
        let mode = Mode::from_raw_mode(u32::from(mode) | 0o400);
        rustix::fs::chmodat(&self.directory, id.to_string(), mode, AtFlags::empty())
            .map_err(|errno| Error::io("set the mode of", self.path(id), errno))
    }

    fn link(&self, id: u64, name: &str) -> cas::Result<()> {
        let (from, to) = (&self.directory, &self.directory);
        rustix::fs::linkat(from, id.to_string(), to, name, AtFlags::empty())
            .map_err(|errno| Error::io("link the staged file", self.path(id), errno))
    }
}

fn hashed_entry(
    entry: StagingEntry,
    contents: &BTreeMap<u64, Content>,
    names: &BTreeMap<Group, u32>,
    adopted: bool,
) -> Option<HashedEntry> {
    let time = |seconds, nanoseconds: u32| Mtime {
        seconds,
        nanoseconds: nanoseconds.into(),
    };
    let link_group = link_group(&entry, names);
    Some(match entry {
        StagingEntry::File { staged, mode } => {
            let content = contents.get(&staged)?;
            HashedEntry::File {
                hash: content.digest,
                size: content.size,
                mode,
                mtime: content.mtime,
                adopted,
                link_group,
                staged: Some(staged),
            }
        }
        StagingEntry::Input {
            digest,
            size,
            mode,
            mtime_sec,
            mtime_nsec,
            ..
        } => HashedEntry::File {
            hash: digest,
            size,
            mode,
            mtime: time(mtime_sec, mtime_nsec),
            adopted: true,
            link_group,
            staged: None,
        },
        StagingEntry::Symlink {
            target,
            mtime_sec,
            mtime_nsec,
        } => HashedEntry::Symlink {
            target,
            mtime: time(mtime_sec, mtime_nsec),
        },
        StagingEntry::Directory {
            mode,
            mtime_sec,
            mtime_nsec,
        } => HashedEntry::Directory {
            mode,
            mtime: time(mtime_sec, mtime_nsec),
        },
    })
}

/// The number that all names of one file get, if there are more than one. Those of inputs come
/// behind those of staging files.
fn link_group(entry: &StagingEntry, names: &BTreeMap<Group, u32>) -> Option<u64> {
    let group = group(entry)?;
    if names.get(&group).is_none_or(|&count| count < 2) {
        return None;
    }
    let last_staged = names.keys().filter_map(|group| group.staged()).max();
    Some(match group {
        Group::Staged(id) => id,
        Group::Input(inode) => last_staged.unwrap_or(0) + inode,
    })
}
