//! One process of the load.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Error, Result, Write};
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;

use super::{Random, Step};

/// With this many names more are removed than made.
const MANY: usize = 50;
/// How many unlinked files are kept open.
const HELD: usize = 8;
/// Content is changed within this many bytes.
const SIZE: usize = 12_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Directory,
    Symlink,
}

/// Changes the current directory at random until its file system is gone. The journal gets each
/// step before it is begun and the word `done` after it was answered.
///
/// # Errors
/// A refusal of a file system that is still there.
pub fn work(seed: u64, journal: &Path) -> Result<()> {
    rustix::process::umask(Mode::empty());
    let mut journal = File::options().append(true).create(true).open(journal)?;
    let mut worker = match Worker::new(seed) {
        Err(_) if is_gone() => return Ok(()), // before anything was done
        worker => worker?,
    };
    let mut held = Vec::new();
    loop {
        let Some(step) = worker.choose() else {
            continue;
        };
        journal.write_all(format!("{}\n", serde_json::to_string(&step)?).as_bytes())?;
        match step.perform(&mut held) {
            Ok(()) => journal.write_all(b"done\n")?,
            Err(_) if is_gone() => return Ok(()),
            Err(errno) => return Err(Error::other(format!("{step:?}: {errno}"))),
        }
        match worker.note(&step) {
            Err(_) if is_gone() => return Ok(()),
            noted => noted?,
        }
        if held.len() > HELD {
            held.remove(0);
        }
    }
}

/// Whether nobody answers any more: numbers of a file system are never cached.
fn is_gone() -> bool {
    matches!(
        rustix::fs::statfs("."),
        Err(Errno::NOTCONN | Errno::CONNABORTED)
    )
}

/// All names below the current directory.
fn names() -> Result<BTreeMap<String, Kind>> {
    let mut names = BTreeMap::new();
    let mut directories = vec![String::new()];
    while let Some(directory) = directories.pop() {
        for entry in Path::new(".").join(&directory).read_dir()? {
            let entry = entry?;
            let path = format!("{directory}{}", entry.file_name().to_string_lossy());
            let kind = match entry.file_type()? {
                kind if kind.is_dir() => Kind::Directory,
                kind if kind.is_symlink() => Kind::Symlink,
                _ => Kind::File,
            };
            if kind == Kind::Directory {
                directories.push(format!("{path}/"));
            }
            names.insert(path, kind);
        }
    }
    Ok(names)
}

#[derive(Debug)]
struct Worker {
    random: Random,
    names: BTreeMap<String, Kind>,
}

impl Worker {
    fn new(seed: u64) -> Result<Self> {
        Ok(Self {
            random: Random::new(seed),
            names: names()?,
        })
    }

    fn any(&mut self, of: &[Kind]) -> Option<String> {
        let names = self.names.iter().filter(|(_, kind)| of.contains(kind));
        let names: Vec<_> = names.map(|(name, _)| name.clone()).collect();
        self.random.pick(&names).cloned()
    }

    fn fresh(&mut self) -> String {
        let mut directories: Vec<_> = vec![String::new()];
        let is_shallow = |name: &str| name.matches('/').count() < 4;
        let names = self
            .names
            .iter()
            .filter(|(_, kind)| **kind == Kind::Directory);
        directories.extend(
            names
                .filter(|(name, _)| is_shallow(name))
                .map(|(name, _)| format!("{name}/")),
        );
        loop {
            let directory = &directories[self.random.below(directories.len())];
            let name = format!("{directory}n{}", self.random.below(10_000));
            if !self.names.contains_key(&name) {
                return name;
            }
        }
    }

    /// A step that must succeed, or nothing if what it would need is not there.
    fn choose(&mut self) -> Option<Step> {
        let mode = 0o600 | self.random.below(0o100) as u32;
        if self.names.len() > MANY && self.random.below(2) == 0 {
            return self.removal();
        }
        Some(match self.random.below(20) {
            0..=2 => Step::Create {
                path: self.fresh(),
                mode,
            },
            3..=6 => Step::Write {
                path: self.any(&[Kind::File])?,
                at: self.random.below(SIZE) as u64,
                seed: self.random.below(usize::MAX) as u64,
                length: 1 + self.random.below(SIZE),
            },
            7 => Step::Truncate {
                path: self.any(&[Kind::File])?,
                size: self.random.below(SIZE) as u64,
            },
            8..=9 => self.store()?,
            10 => Step::Link {
                from: self.any(&[Kind::File, Kind::Symlink])?,
                to: self.fresh(),
            },
            11 => Step::MakeDirectory {
                path: self.fresh(),
                mode: mode | 0o100,
            },
            12 => Step::Symlink {
                target: format!("to-{mode}"),
                path: self.fresh(),
            },
            13 => Step::Chmod {
                path: self.any(&[Kind::File, Kind::Directory])?,
                mode: mode | 0o100,
            },
            14 => Step::SetAttribute {
                path: self.any(&[Kind::File, Kind::Directory])?,
                name: format!("user.{}", self.random.below(3)),
                value: "v".repeat(self.random.below(300)),
            },
            15 => Step::Sync {
                path: self.any(&[Kind::File, Kind::Directory])?,
            },
            16 => return self.removal(),
            _ => return self.renaming(),
        })
    }

    fn store(&mut self) -> Option<Step> {
        let path = self.any(&[Kind::File])?;
        let size = Path::new(&path).symlink_metadata().ok()?.len() as usize;
        let at = (size > 0).then(|| self.random.below(size))? as u64;
        let byte = self.random.below(256) as u8;
        Some(Step::Store { path, at, byte })
    }

    fn removal(&mut self) -> Option<Step> {
        let path = self.any(&[Kind::File, Kind::Directory, Kind::Symlink])?;
        match self.names[&path] {
            Kind::Directory if self.is_empty(&path) => Some(Step::RemoveDirectory { path }),
            Kind::Directory => None,
            kind => {
                let held = kind == Kind::File && self.random.below(2) == 0;
                Some(Step::Unlink { path, held })
            }
        }
    }

    fn renaming(&mut self) -> Option<Step> {
        let any = [Kind::File, Kind::Directory, Kind::Symlink];
        let (from, over) = (self.any(&any)?, self.any(&any)?);
        let to_new = Step::Rename {
            from: from.clone(),
            to: self.fresh(),
        };
        let apart = |one: &str, other: &str| {
            one != other
                && !one.starts_with(&format!("{other}/"))
                && !other.starts_with(&format!("{one}/"))
        };
        match self.random.below(3) {
            0 if apart(&from, &over) => Some(Step::Exchange { from, to: over }),
            1 if apart(&from, &over) => {
                let directories = [&from, &over].map(|name| self.names[name] == Kind::Directory);
                let may = match directories {
                    [true, true] => self.is_empty(&over),
                    [one, other] => one == other,
                };
                may.then_some(Step::Rename { from, to: over })
            }
            _ => {
                let Step::Rename { to, .. } = &to_new else {
                    return None;
                };
                (!to.starts_with(&format!("{from}/"))).then_some(to_new)
            }
        }
    }

    fn is_empty(&self, directory: &str) -> bool {
        let below = format!("{directory}/");
        !self.names.keys().any(|name| name.starts_with(&below))
    }

    /// Keeps the names up to date.
    fn note(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Create { path, .. } => self.names.insert(path.clone(), Kind::File),
            Step::MakeDirectory { path, .. } => self.names.insert(path.clone(), Kind::Directory),
            Step::Symlink { path, .. } => self.names.insert(path.clone(), Kind::Symlink),
            Step::Link { from, to } => self.names.insert(to.clone(), self.names[from]),
            Step::Unlink { path, .. } | Step::RemoveDirectory { path } => self.names.remove(path),
            // What is where after a rename of hard links and of trees is best seen.
            Step::Rename { .. } | Step::Exchange { .. } => {
                self.names = names()?;
                None
            }
            _ => None,
        };
        Ok(())
    }
}
