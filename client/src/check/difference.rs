//! In what two runs of a job differ.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read};

use cas::{Digest, RelPath, Store};

use super::position;
use crate::error::{Error, Result};
use crate::exit_code;
use crate::output::{Hashed, HashedEntry};
use crate::trial::Trial;

/// The longest output that is looked into. Of a longer one the place is told by its offset only.
const LENGTH_MAX: u64 = 256 << 20;

/// One difference. Times of outputs are none: they are never the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Exit codes.
    Ended(u8, u8),
    /// An output that one run made: the first, or else the second.
    Made(RelPath, bool),
    /// A file in one run and a link or directory in the other.
    Kind(RelPath),
    /// Permission bits.
    Mode(RelPath, u16, u16),
    /// Targets of links.
    Target(RelPath),
    /// Contents of files.
    Content(RelPath, Digest, Digest),
}

/// All differences, in the order of paths.
pub fn differences(one: &Trial, two: &Trial) -> Vec<Difference> {
    let codes = (exit_code::of_job(&one.ended), exit_code::of_job(&two.ended));
    let mut found = Vec::new();
    if codes.0 != codes.1 {
        found.push(Difference::Ended(codes.0, codes.1));
    }
    found.extend(of_outputs(&one.outputs, &two.outputs));
    found
}

fn of_outputs(one: &[Hashed], two: &[Hashed]) -> Vec<Difference> {
    let mut pairs: BTreeMap<&RelPath, [Option<&HashedEntry>; 2]> = BTreeMap::new();
    for (run, outputs) in [one, two].into_iter().enumerate() {
        for output in outputs {
            pairs.entry(&output.path).or_default()[run] = Some(&output.entry);
        }
    }
    let compared = pairs.into_iter().filter_map(|(path, pair)| match pair {
        [Some(a), Some(b)] => of_pair(path, a, b),
        [a, _] => Some(Difference::Made(path.clone(), a.is_some())),
    });
    compared.collect()
}

fn of_pair(path: &RelPath, one: &HashedEntry, two: &HashedEntry) -> Option<Difference> {
    use HashedEntry::{Directory, File, Symlink};
    let path = path.clone();
    match (one, two) {
        (File { hash: a, .. }, File { hash: b, .. }) if a != b => {
            Some(Difference::Content(path, *a, *b))
        }
        (File { mode: a, .. }, File { mode: b, .. })
        | (Directory { mode: a, .. }, Directory { mode: b, .. }) => {
            (a != b).then_some(Difference::Mode(path, *a, *b))
        }
        (Symlink { target: a, .. }, Symlink { target: b, .. }) => {
            (a != b).then_some(Difference::Target(path))
        }
        _ => Some(Difference::Kind(path)),
    }
}

impl Difference {
    /// Where two contents differ first, in words.
    ///
    /// # Errors
    /// They are not in the store.
    pub fn position(&self, store: &Store) -> Result<Option<String>> {
        let Self::Content(_, one, two) = self else {
            return Ok(None);
        };
        let failed = |error| Error::io("read", store.root(), error);
        let open = |digest: &Digest| -> Result<(File, u64)> {
            let file = store.open_blob(*digest)?.file;
            let length = file.metadata().map_err(failed)?.len();
            Ok((file, length))
        };
        let ((first, length), (second, other)) = (open(one)?, open(two)?);
        let at = first_difference(&first, &second).map_err(failed)?;
        let inside = match length <= LENGTH_MAX {
            true => position::describe(&store.read(*one)?, at),
            false => None,
        };
        let inside = inside.map_or(String::new(), |inside| format!(", {inside}"));
        Ok(Some(match at >= length.min(other) {
            true => format!("one ends at byte {at}, the lengths are {length} and {other}{inside}"),
            false => format!("first at byte {at} of {length}{inside}"),
        }))
    }
}

/// How many bytes two files have in common from their start.
fn first_difference(one: &File, two: &File) -> std::io::Result<u64> {
    let mut other = BufReader::with_capacity(1 << 16, two).bytes();
    let mut at = 0;
    for byte in BufReader::with_capacity(1 << 16, one).bytes() {
        let same = match other.next() {
            Some(other) => byte? == other?,
            None => false,
        };
        if !same {
            return Ok(at);
        }
        at += 1;
    }
    Ok(at)
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(one, two) => {
                write!(f, "the exit code is {one} in one run, {two} in the other")
            }
            Self::Made(path, true) => write!(f, "`{path}` is made by the first run only"),
            Self::Made(path, false) => write!(f, "`{path}` is made by the second run only"),
            Self::Kind(path) => write!(f, "`{path}` is not the same kind of file"),
            Self::Mode(path, one, two) => write!(f, "`{path}` has mode {one:04o} or {two:04o}"),
            Self::Target(path) => write!(f, "`{path}` is a link to different targets"),
            Self::Content(path, ..) => write!(f, "`{path}` differs"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Mtime;

    fn file(path: &str, content: &str, mode: u16, seconds: i64) -> Hashed {
        let mtime = Mtime {
            seconds,
            nanoseconds: 0,
        };
        Hashed {
            path: RelPath::parse(path.as_bytes()).expect("a path"),
            entry: HashedEntry::File {
                hash: Digest::of(content.as_bytes()),
                size: content.len() as u64,
                mode,
                mtime,
                adopted: true,
                link_group: None,
                staged: None,
            },
        }
    }

    #[test]
    fn content_modes_and_names_differ_and_times_do_not() {
        let one = [
            file("a", "x", 0o644, 1),
            file("b", "x", 0o644, 1),
            file("c", "x", 0o644, 1),
            file("d", "x", 0o644, 1),
        ];
        let two = [
            file("a", "x", 0o644, 2),
            file("b", "y", 0o644, 1),
            file("c", "x", 0o755, 1),
            file("e", "x", 0o644, 1),
        ];
        let told: Vec<_> = of_outputs(&one, &two)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            told,
            [
                "`b` differs",
                "`c` has mode 0644 or 0755",
                "`d` is made by the first run only",
                "`e` is made by the second run only"
            ]
        );
    }
}
