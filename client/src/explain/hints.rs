//! Which undeclared file of the workspace did the job miss?

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cas::{Name, RelPath};

/// The most files that are looked at. Who is told of more has a directory to declare.
const FILES_MAX: usize = 1000;

/// How much of a file says whether it is text.
const HEAD: u64 = 1024;

/// Where to look for what a job was not shown, and what else is known.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// The directory that the view stood for.
    pub workspace: &'a Path,
    /// What the job printed, or nothing.
    pub log: &'a str,
    /// What it made, or was to make.
    pub made: &'a [RelPath],
    /// Device and inode of the store, which is no part of the workspace wherever it lies.
    pub store: Option<(u64, u64)>,
}

/// How likely it is that a file was missed: the least comes first.
///
/// A job mostly dies of the last thing that it did not find. What it named in its messages is even
/// more likely; what is no text, less: that is what earlier builds have left, of which tools look
/// whether it is there before they make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Likeliness {
    named: Named,
    is_binary: bool,
    /// 0 for what was looked for last.
    order: usize,
    /// Directories between what was looked for and this.
    distance: usize,
}

/// How the job's messages name a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    ByPath,
    ByName,
    Not,
}

impl Search<'_> {
    /// Undeclared files that exist and that a job has looked for, by name or by a directory above
    /// them; the likeliest first. `absent` are the names that it looked for in vain, in that order.
    pub fn hints(&self, absent: &[RelPath]) -> Vec<RelPath> {
        let mut found = Found {
            search: self,
            seen: BTreeSet::new(),
            files: Vec::new(),
        };
        for (order, path) in absent.iter().rev().enumerate() {
            found.look(path, order, 0);
        }
        let mut files = found.files;
        files.sort();
        files.into_iter().map(|(_, path)| path).collect()
    }

    fn named(&self, path: &RelPath) -> Named {
        let name = path.names().last().map(Name::as_bytes);
        let name = String::from_utf8_lossy(name.unwrap_or_default());
        match () {
            () if has_word(self.log, &path.to_string()) => Named::ByPath,
            () if has_word(self.log, &name) => Named::ByName,
            () => Named::Not,
        }
    }

    /// What the job makes is not what it misses. A repository is nobody's input by its files.
    fn is_no_input(&self, path: &RelPath) -> bool {
        let git = path.names().any(|name| name.as_bytes() == b".git");
        git || self.made.iter().any(|made| path.starts_with(made))
    }
}

/// What is found while looking.
struct Found<'s> {
    search: &'s Search<'s>,
    seen: BTreeSet<RelPath>,
    files: Vec<(Likeliness, RelPath)>,
}

impl Found<'_> {
    fn look(&mut self, path: &RelPath, order: usize, distance: usize) {
        let full = self.search.workspace.join(path.as_path());
        let Ok(is) = full.symlink_metadata() else {
            return;
        };
        let enough = self.seen.len() >= FILES_MAX;
        if enough || self.search.is_no_input(path) || !self.seen.insert(path.clone()) {
            return;
        }
        if !is.is_dir() {
            let likeliness = Likeliness {
                named: self.search.named(path),
                is_binary: is.is_file() && is_binary(&full),
                order,
                distance,
            };
            self.files.push((likeliness, path.clone()));
        } else if self.search.store != Some((is.dev(), is.ino())) && !is_store(&full) {
            for path in children(&full, path) {
                self.look(&path, order, distance + 1);
            }
        }
    }
}

fn children(full: &Path, path: &RelPath) -> Vec<RelPath> {
    let entries = std::fs::read_dir(full).into_iter().flatten().flatten();
    let child = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        Some(path.join(Name::new(name.as_encoded_bytes()).ok()?))
    };
    let mut children: Vec<_> = entries.filter_map(child).collect();
    children.sort();
    children
}

/// A store is recognised by its parts: the job's own may lie in the workspace.
fn is_store(directory: &Path) -> bool {
    directory.join("blobs").is_dir() && directory.join("staging").is_dir()
}

fn is_binary(path: &Path) -> bool {
    let mut head = Vec::new();
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(HEAD).read_to_end(&mut head));
    read.is_ok() && head.contains(&0)
}

/// Whether a text has a word, and not just a longer one that contains it.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    // A full stop may end a sentence, and a colon always ends a name.
    let ends = |rest: &str| {
        let mut rest = rest.chars();
        match rest.next() {
            Some('.') => rest.next().is_none_or(|c| !is_part(c)),
            next => next.is_none_or(|c| !is_part(c)),
        }
    };
    let begins = |before: &str| before.chars().next_back().is_none_or(|c| !is_part(c));
    let mut found = text.match_indices(word).filter(|_| !word.is_empty());
    found.any(|(at, word)| begins(&text[..at]) && ends(&text[at + word.len()..]))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests play workspaces")]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn workspace(files: &[(&str, &str)]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = place.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        place
    }

    fn hints(place: &tempfile::TempDir, log: &str, made: &[&str], absent: &[&str]) -> Vec<String> {
        let made: Vec<_> = made.iter().map(|made| path(made)).collect();
        let search = Search {
            workspace: place.path(),
            log,
            made: &made,
            store: None,
        };
        let absent: Vec<_> = absent.iter().map(|absent| path(absent)).collect();
        let hints = search.hints(&absent);
        hints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_last_that_was_missed_comes_first_and_what_is_nowhere_is_no_hint() {
        let place = workspace(&[("a.h", ""), ("b.h", ""), ("c.h", "")]);
        let absent = ["a.h", "typo.h", "b.h", "a.h"];
        assert_eq!(hints(&place, "", &[], &absent), ["a.h", "b.h"]);
        assert!(hints(&place, "", &[], &["typo.h", "d/typo.h"]).is_empty());
    }

    #[test]
    fn a_directory_stands_for_its_files_the_nearest_first() {
        let place = workspace(&[("d/e/far", ""), ("d/near", ""), ("x", "")]);
        let all = hints(&place, "", &[], &["x", "d"]);
        assert_eq!(all, ["d/near", "d/e/far", "x"]);
    }

    #[test]
    fn what_the_job_names_comes_before_what_it_missed_later() {
        let place = workspace(&[
            ("d/one.h", ""),
            ("d/two.h", ""),
            ("late", ""),
            ("e/late", ""),
        ]);
        let log = "main.c:1: fatal error: two.h: No such file";
        let absent = ["d", "late"];
        assert_eq!(hints(&place, log, &[], &absent)[0], "d/two.h");
        let log = "cannot open two.h, nor e/late.";
        let absent = ["d", "e", "late"];
        assert_eq!(hints(&place, log, &[], &absent)[..2], ["e/late", "d/two.h"]);
    }

    #[test]
    fn what_builds_leave_comes_last_and_what_the_job_makes_not_at_all() {
        let place = workspace(&[
            ("main.o", "\0"),
            ("util.h", ""),
            ("prog", "\0"),
            ("old", ""),
        ]);
        let absent = ["util.h", "main.o", "prog"];
        assert_eq!(hints(&place, "", &["prog"], &absent), ["util.h", "main.o"]);
    }

    #[test]
    fn stores_and_repositories_are_no_inputs() {
        let place = workspace(&[(".git/HEAD", ""), (".b/cas/staging/x", ""), ("z", "")]);
        std::fs::create_dir(place.path().join(".b/cas/blobs")).unwrap();
        assert_eq!(hints(&place, "", &[], &["z", ".git", ".b"]), ["z"]);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("a: util.h: missing", "util.h"));
        assert!(has_word("no 'd/util.h'.", "d/util.h"));
        assert!(has_word("see util.h.", "util.h"));
        assert!(!has_word("myutil.h", "util.h"));
        assert!(!has_word("util.hpp", "util.h"));
        assert!(!has_word("d/util.h", "util.h.in"));
        assert!(!has_word("anything", ""));
    }
}
