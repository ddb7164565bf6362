//! Listing a stored tree.

use std::io::{self, BufWriter, Write};

use cas::directory::{ChildKind, Directory, LoadError, Root};
use cas::{RelPath, Store, text};
use serde::Serialize;

use crate::error::{Error, Result};

const NANOSECONDS: i64 = 1_000_000_000;

/// One line of a listing. In this order it is a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    r#type: &'static str,
    mode: u16,
    /// Nanoseconds since the epoch.
    mtime: i64,
    /// Of the content; of a directory's object; none for a link.
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    /// Of what the hash names, in bytes; of a link, the length of its target.
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
}

/// A directory that is still to be listed, and what its parent says of it.
struct Pending {
    path: Option<RelPath>,
    object: Root,
}

/// Prints all entries of a stored tree, the root first, each directory before what it holds. The
/// blobs of its files need not be there.
pub(crate) fn list(store: &Store, root: &Root, json: bool) -> Result<u8> {
    let mut listing = Listing {
        store,
        json,
        out: BufWriter::new(io::stdout().lock()),
    };
    match listing.print_all(root).and_then(|()| listing.flush()) {
        // A reader that goes away, `head` say, is no failure.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        other => other.map(|()| 0),
    }
}

struct Listing<'s> {
    store: &'s Store,
    json: bool,
    out: BufWriter<io::StdoutLock<'static>>,
}

/// What is to be printed next.
enum Step {
    Directory(Pending),
    Leaf(RelPath, ChildKind),
}

impl Listing<'_> {
    fn print_all(&mut self, root: &Root) -> Result<()> {
        let size = self.store.stat(root.digest)?.map(|stat| stat.size);
        let object = Root {
            size: root.size.or(size),
            ..*root
        };
        let mut steps = vec![Step::Directory(Pending { path: None, object })];
        while let Some(step) = steps.pop() {
            match step {
                Step::Directory(directory) => steps.extend(self.enter(directory)?),
                Step::Leaf(path, kind) => self.print_leaf(&path, &kind)?,
            }
        }
        Ok(())
    }

    /// Prints the line of a directory and returns what is in it, the last entry first.
    fn enter(&mut self, pending: Pending) -> Result<Vec<Step>> {
        let Pending { path, object } = pending;
        let Root { digest, size } = object;
        let directory = Directory::read(digest, size, self.store);
        let directory = directory.map_err(|source| LoadError::of(path.clone(), source))?;
        self.print(&Line {
            path: &path
                .as_ref()
                .map_or(".".into(), |path| text::encode(path.as_bytes())),
            r#type: "directory",
            mode: directory.mode,
            mtime: directory.mtime,
            hash: Some(digest.to_string()),
            size: size.unwrap_or_default(),
            target: None,
        })?;
        let steps = directory.children.into_iter().rev().filter_map(|child| {
            let path = match &path {
                Some(path) => path.join(child.name.as_name()),
                None => RelPath::from_names([child.name.as_name()])?,
            };
            Some(match child.kind {
                ChildKind::Directory { digest, size } => {
                    let (path, size) = (Some(path), Some(size));
                    let object = Root { digest, size };
                    Step::Directory(Pending { path, object })
                }
                leaf => Step::Leaf(path, leaf),
            })
        });
        Ok(steps.collect())
    }

    fn print_leaf(&mut self, path: &RelPath, kind: &ChildKind) -> Result<()> {
        let path = &text::encode(path.as_bytes());
        match kind {
            ChildKind::File {
                digest,
                size,
                mode,
                mtime,
            } => self.print(&Line {
                path,
                r#type: "file",
                mode: *mode,
                mtime: *mtime,
                hash: Some(digest.to_string()),
                size: *size,
                target: None,
            }),
            ChildKind::Symlink {
                target,
                mode,
                mtime,
            } => self.print(&Line {
                path,
                r#type: "symlink",
                mode: *mode,
                mtime: *mtime,
                hash: None,
                size: target.len() as u64,
                target: Some(&text::encode(target)),
            }),
            ChildKind::Directory { .. } => Ok(()),
        }
    }

    fn print(&mut self, line: &Line<'_>) -> Result<()> {
        let printed = if self.json {
            serde_json::to_writer(&mut self.out, line)
                .map_err(io::Error::from)
                .and_then(|()| self.out.write_all(b"\n"))
        } else {
            writeln!(self.out, "{line}")
        };
        printed.map_err(|error| Error::io("write to", "standard output", error))
    }

    fn flush(&mut self) -> Result<()> {
        let flushed = self.out.flush();
        flushed.map_err(|error| Error::io("write to", "standard output", error))
    }
}

/// As `find -ls` has it, with the hash in place of the inode number. Names that would break the
/// line are quoted.
impl std::fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.r#type {
            "directory" => 'd',
            "symlink" => 'l',
            _ => '-',
        };
        let hash = self.hash.as_deref().unwrap_or("-");
        let (mode, size) = (permissions(self.mode), self.size);
        let seconds = self.mtime.div_euclid(NANOSECONDS);
        let nanoseconds = self.mtime.rem_euclid(NANOSECONDS);
        write!(f, "{kind}{mode} {size:>10} {seconds}.{nanoseconds:09} ")?;
        write!(f, "{hash:<64} {}", quoted(self.path))?;
        match self.target {
            Some(target) => write!(f, " -> {}", quoted(target)),
            None => Ok(()),
        }
    }
}

fn quoted(text: &str) -> String {
    if text.contains(char::is_control) {
        format!("{text:?}")
    } else {
        text.into()
    }
}

/// `rwxr-xr-x`, with the bits for set-id and sticky where `ls` has them.
fn permissions(mode: u16) -> String {
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    let mut text = String::with_capacity(9);
    for (shift, (bit, set, alone)) in [6, 3, 0].into_iter().zip(special) {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (mode & bit != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => alone,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_look_as_with_ls() {
        let cases = [
            (0o644, "rw-r--r--"),
            (0o4755, "rwsr-xr-x"),
            (0o2640, "rw-r-S---"),
            (0o1777, "rwxrwxrwt"),
            (0o1000, "--------T"),
        ];
        for (mode, text) in cases {
            assert_eq!(permissions(mode), text);
        }
    }

    #[test]
    fn a_name_cannot_break_its_line_and_times_before_the_epoch_count_down() {
        let line = Line {
            path: "a\nb",
            r#type: "symlink",
            mode: 0o777,
            mtime: -1,
            hash: None,
            size: 1,
            target: Some("x"),
        };
        let text = line.to_string();
        assert!(text.ends_with("\"a\\nb\" -> x"), "{text}");
        assert!(text.contains(" -1.999999999 "), "{text}");
    }
}
