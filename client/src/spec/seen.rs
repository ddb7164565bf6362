//! Lists of inputs that were read before. To know 17 MB of JSON again takes a hash of them, and the
//! manifest that they became has been kept: 15 ms of processor time for a call with 100,000, not 45.
//!
//! What is hashed is the text from the list of inputs to the end, because where the list ends is not
//! known before: jobs that differ in what comes first, their commands mostly, know each other's lists.
//! So the same bytes are the same list, and what is before and behind it is read in any case. In the
//! runtime directory, which only this user can write to and which mostly ends with the boot, there is a small
//! file for each: it may be deleted at any time.

use std::io::Write;
use std::path::{Path, PathBuf};

use cas::Digest;

use super::{Spec, plain};
use crate::BUILD_ID;
use crate::declaration::Declaration;
use crate::runtime::RuntimeDirectory;

/// Shorter texts, in bytes, are sooner read than known: 6,000 inputs or so.
const WORTH_IT: usize = 1 << 20;

/// How many lists are known. When there are more, all are forgotten.
const COUNT_MAX: usize = 1000;

/// What a spec's list of inputs is known by.
#[derive(Debug)]
pub struct Seen {
    start: usize,
    path: PathBuf,
}

/// What is known of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    /// How many bytes it has.
    length: usize,
    /// Its manifest, and the size of that in bytes.
    manifest: Digest,
    size: u64,
}

impl Seen {
    /// Of the text of a spec, if that is large enough. Another build may read it in another way.
    pub fn new(text: &[u8], runtime: impl FnOnce() -> Option<RuntimeDirectory>) -> Option<Self> {
        if text.len() < WORTH_IT {
            return None;
        }
        let start = plain::find_inputs(text)?;
        crate::sandbox::start_hashing_threads();
        let list = Digest::of_large(&text[start..]);
        let name = Digest::of(format!("{list} {BUILD_ID}").as_bytes());
        let path = runtime()?.path().join("specs").join(name.to_string());
        Some(Self { start, path })
    }

    /// The spec and its inputs, if they are known.
    pub fn read(&self, text: &[u8]) -> Option<(Spec, Declaration)> {
        let record: Record = std::fs::read_to_string(&self.path).ok()?.parse().ok()?;
        let end = self.start.checked_add(record.length)?;
        let before = std::str::from_utf8(&text[..self.start]).ok()?;
        let behind = std::str::from_utf8(text.get(end..)?).ok()?;
        let spec = plain::read_around(before, behind)?;
        let declaration = Declaration::kept(record.manifest, record.size, &spec.store)?;
        Some((spec, declaration))
    }

    /// Remembers what the list, of so many bytes, has become. If that cannot be, it is read again.
    pub fn remember(&self, length: usize, declaration: &Declaration, size: u64) {
        let record = Record {
            length,
            manifest: declaration.digest(),
            size,
        };
        if let Err(error) = self.write(record) {
            tracing::debug!("the list of inputs is not remembered: {error}");
        }
    }

    fn write(&self, record: Record) -> std::io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let count = std::fs::read_dir(directory).map_or(0, Iterator::count);
        if count > COUNT_MAX {
            std::fs::remove_dir_all(directory)?;
        }
        std::fs::create_dir_all(directory)?;
        let new = self.path.with_extension(std::process::id().to_string());
        let mut file = std::fs::File::create(&new)?;
        file.write_all(record.to_string().as_bytes())?;
        std::fs::rename(new, &self.path)
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.length, self.manifest, self.size)
    }
}

impl std::str::FromStr for Record {
    type Err = Box<dyn std::error::Error>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<_> = text.split(' ').collect();
        let [length, manifest, size] = words[..] else {
            return Err("not three words".into());
        };
        Ok(Self {
            length: length.parse()?,
            manifest: manifest.parse()?,
            size: size.parse()?,
        })
    }
}
