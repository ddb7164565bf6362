//! Which files of a workspace are inputs.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use cas::RelPath;
use cas::name::InvalidPath;
use cas::parallel;
use globset::{GlobBuilder, GlobMatcher};
use rayon::slice::ParallelSliceMut;

use crate::ingest::attributes::Attributes;
use crate::ingest::git;
use crate::ingest::walk::{Directories, Standing, Terrain, is_absence};

/// An input: its path in the workspace, and what `lstat` said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: RelPath,
    /// What it is.
    pub attributes: Attributes,
}

/// Why inputs could not be selected. Every variant is one line and names the pattern or path.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A pattern that cannot be used.
    #[error("input '{}' {reason}", pattern.display())]
    Pattern {
        /// The pattern as it was given.
        pattern: OsString,
        /// What is wrong with it.
        reason: Unusable,
    },
    /// Git could not say what the files are.
    #[error("cannot ask git for the files in {}: {reason}; name the inputs with -i", directory.display())]
    Git {
        /// Where it was asked.
        directory: PathBuf,
        /// Its complaint.
        reason: String,
    },
    /// A file whose name cannot be declared.
    #[error("file '{}' {reason}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong with its name.
        reason: InvalidPath,
    },
    /// The operating system refused something.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb phrase.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
}

/// What is wrong with a pattern.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// An absolute path that is not below the workspace.
    #[error("is outside of the workspace")]
    Outside,
    /// Not a path in the workspace.
    #[error(transparent)]
    Path(InvalidPath),
    /// No glob, and no such path.
    #[error("does not exist")]
    Missing,
    /// A glob that matches no file, link or directory.
    #[error("matches nothing")]
    MatchesNothing,
    /// A socket, a fifo or a device.
    #[error("is a socket, a fifo or a device; only files, links and directories can be inputs")]
    Special,
    /// A directory that the caller excluded, such as the store.
    #[error("is the store, or lies in it")]
    Excluded,
    /// A path through a symbolic link: in the job's view the link would be a directory.
    #[error("lies behind the symbolic link '{0}'; name the link and what it points to")]
    BehindLink(RelPath),
    /// A glob that does not parse.
    #[error("is not a glob: {0}")]
    Glob(globset::ErrorKind),
    /// A glob with bytes that are no text.
    #[error("is a glob that is not UTF-8; only paths without * ? [ {{ may have other bytes")]
    GlobEncoding,
}

/// Finds the inputs, sorted by path, each once.
///
/// A pattern is a path, which stands for everything below it if it is a directory, or a glob,
/// whose matches count as if they had been named one by one; `.` stands for everything. Without
/// patterns, inputs are the files that git does not ignore, and outside of a git checkout all
/// files; then `.git` is left out.
///
/// Directories whose device and inode are in `exclude` are never walked.
pub fn select(
    workspace: &Path,
    patterns: &[OsString],
    exclude: &[(u64, u64)],
) -> Result<Vec<Found>, SelectError> {
    let terrain = Terrain { workspace, exclude };
    let mut found = if !patterns.is_empty() {
        Patterns::new(terrain).find(patterns)?
    } else if git::is_checkout(workspace) {
        git::find(terrain)?
    } else {
        let mut paths = Vec::new();
        let is_git = |name: &[u8]| name == b".git";
        terrain.walk(None, is_git, &mut |step| paths.push(step.path))?;
        examine_all(terrain, paths)?
    };
    found.par_sort_unstable_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
    Ok(found)
}

/// Finds everything, `.git` too, sorted by path, and names apart what can be no input: sockets, fifos
/// and devices.
///
/// Directories whose device and inode are in `exclude` are left out.
pub fn everything(
    workspace: &Path,
    exclude: &[(u64, u64)],
) -> Result<(Vec<Found>, Vec<RelPath>), SelectError> {
    let terrain = Terrain { workspace, exclude };
    let mut paths = Vec::new();
    terrain.walk(None, |_| false, &mut |step| paths.push(step.path))?;
    paths.par_sort_unstable();
    let examined = parallel::map(&paths, |path| examine(terrain, path));
    let (mut found, mut special) = (Vec::new(), Vec::new());
    for (path, examined) in paths.into_iter().zip(examined) {
        match examined? {
            Listed::Input(input) => found.push(input),
            Listed::Special => special.push(path),
            Listed::Vanished => {}
        }
    }
    Ok((found, special))
}

/// Asks for the attributes of paths that were listed. What has vanished since, and what cannot be
/// an input, is left out.
pub(super) fn examine_all(
    terrain: Terrain<'_>,
    paths: Vec<RelPath>,
) -> Result<Vec<Found>, SelectError> {
    let examined = parallel::map(&paths, |path| examine(terrain, path));
    let inputs = examined.into_iter().filter_map(|examined| match examined {
        Ok(Listed::Input(found)) => Some(Ok(found)),
        Ok(Listed::Special | Listed::Vanished) => None,
        Err(error) => Some(Err(error)),
    });
    inputs.collect()
}

/// What a path is that was listed.
enum Listed {
    Input(Found),
    /// A socket, a fifo or a device.
    Special,
    /// Gone since.
    Vanished,
}

fn examine(terrain: Terrain<'_>, path: &RelPath) -> Result<Listed, SelectError> {
    match lstat(terrain, path) {
        Ok(Some(attributes)) => Ok(Listed::Input(Found {
            path: path.clone(),
            attributes,
        })),
        Ok(None) => Ok(Listed::Special),
        Err(error) if is_absence(&error) => Ok(Listed::Vanished),
        Err(source) => Err(SelectError::Io {
            what: "examine",
            path: terrain.full_path(Some(path)),
            source,
        }),
    }
}

fn lstat(terrain: Terrain<'_>, path: &RelPath) -> io::Result<Option<Attributes>> {
    let metadata = terrain.full_path(Some(path)).symlink_metadata()?;
    Ok(Attributes::of(&metadata))
}

/// Turns patterns into paths.
struct Patterns<'a> {
    terrain: Terrain<'a>,
    directories: Directories<'a>,
    paths: Vec<RelPath>,
}

impl<'a> Patterns<'a> {
    fn new(terrain: Terrain<'a>) -> Self {
        Self {
            terrain,
            directories: Directories::new(terrain),
            paths: Vec::new(),
        }
    }

    fn find(mut self, patterns: &[OsString]) -> Result<Vec<Found>, SelectError> {
        for pattern in patterns {
            self.add(pattern)?;
        }
        // Overlapping patterns name many paths twice, and each would be examined twice.
        self.paths.par_sort_unstable();
        self.paths.dedup();
        examine_all(self.terrain, self.paths)
    }

    fn add(&mut self, pattern: &OsStr) -> Result<(), SelectError> {
        let refuse = |reason| SelectError::Pattern {
            pattern: pattern.into(),
            reason,
        };
        let Some(path) = self.relative(pattern).map_err(refuse)? else {
            return self.add_below(None);
        };
        match lstat(self.terrain, &path) {
            Ok(None) => Err(refuse(Unusable::Special)),
            Ok(Some(_)) => self.add_named(path, refuse),
            Err(error) if is_absence(&error) && is_glob(path.as_bytes()) => {
                self.add_glob(&path, refuse)
            }
            Err(error) if is_absence(&error) => Err(refuse(Unusable::Missing)),
            Err(source) => Err(SelectError::Io {
                what: "examine",
                path: self.terrain.full_path(Some(&path)),
                source,
            }),
        }
    }

    /// The pattern as a path in the workspace; `None` if it is the workspace itself.
    fn relative(&self, pattern: &OsStr) -> Result<Option<RelPath>, Unusable> {
        let path = Path::new(pattern);
        // Before any prefix is stripped: '/workspace/../other' is not inside.
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(Unusable::Path(InvalidPath::Parent));
        }
        let below = if path.is_absolute() {
            self.strip_workspace(path).ok_or(Unusable::Outside)?
        } else {
            path.into()
        };
        match RelPath::parse(below.as_os_str().as_bytes()) {
            Ok(path) => Ok(Some(path)),
            // An empty argument is a variable that was not set, and not a wish for everything.
            Err(InvalidPath::Empty) if !pattern.is_empty() => Ok(None),
            Err(reason) => Err(Unusable::Path(reason)),
        }
    }

    /// A workspace that is named through links has two absolute paths.
    fn strip_workspace(&self, path: &Path) -> Option<PathBuf> {
        let workspace = self.terrain.workspace;
        if let Ok(below) = path.strip_prefix(workspace) {
            return Some(below.into());
        }
        let canonical = std::fs::canonicalize(workspace).ok()?;
        path.strip_prefix(canonical).ok().map(Into::into)
    }

    /// Adds a path that exists, and everything below it.
    fn add_named(
        &mut self,
        path: RelPath,
        refuse: impl Fn(Unusable) -> SelectError,
    ) -> Result<(), SelectError> {
        match self.directories.of(&path) {
            Standing::Directory => self.add_below(Some(&path))?,
            Standing::Excluded => return Err(refuse(Unusable::Excluded)),
            Standing::Link(link) if link != path => {
                return Err(refuse(Unusable::BehindLink(link)));
            }
            // The link itself, or a file.
            Standing::Link(_) | Standing::Absent => {}
        }
        self.paths.push(path);
        Ok(())
    }

    fn add_below(&mut self, start: Option<&RelPath>) -> Result<(), SelectError> {
        let paths = &mut self.paths;
        let nothing = |_: &[u8]| false;
        self.terrain
            .walk(start, nothing, &mut |step| paths.push(step.path))
    }

    /// Adds what a glob matches, with everything below the directories among it.
    fn add_glob(
        &mut self,
        pattern: &RelPath,
        refuse: impl Fn(Unusable) -> SelectError,
    ) -> Result<(), SelectError> {
        let glob = glob(pattern).map_err(&refuse)?;
        let start = literal_prefix(pattern);
        let standing = start.as_ref().map(|start| self.directories.of(start));
        match standing.unwrap_or(Standing::Directory) {
            Standing::Directory => {}
            Standing::Link(link) => return Err(refuse(Unusable::BehindLink(link))),
            Standing::Excluded => return Err(refuse(Unusable::Excluded)),
            Standing::Absent => return Err(refuse(Unusable::MatchesNothing)),
        }
        let before = self.paths.len();
        self.add_matches(start.as_ref(), &glob)?;
        if self.paths.len() == before {
            return Err(refuse(Unusable::MatchesNothing));
        }
        Ok(())
    }

    fn add_matches(
        &mut self,
        start: Option<&RelPath>,
        glob: &GlobMatcher,
    ) -> Result<(), SelectError> {
        let paths = &mut self.paths;
        // The depth of the matching directory that the walk is in.
        let mut inside = None;
        let nothing = |_: &[u8]| false;
        self.terrain.walk(start, nothing, &mut |step| {
            inside = inside.filter(|&depth| step.depth > depth);
            if inside.is_none() && glob.is_match(step.path.as_path()) {
                inside = Some(step.depth);
            }
            if inside.is_some() {
                paths.push(step.path);
            }
        })
    }
}

/// Whether a pattern has characters that mean something in a glob. A backslash alone does not
/// make one: it only takes the meaning from others.
fn is_glob(pattern: &[u8]) -> bool {
    pattern.iter().any(|byte| b"*?[{".contains(byte))
}

fn glob(pattern: &RelPath) -> Result<GlobMatcher, Unusable> {
    let text = std::str::from_utf8(pattern.as_bytes()).map_err(|_| Unusable::GlobEncoding)?;
    let glob = GlobBuilder::new(text).literal_separator(true).build();
    let glob = glob.map_err(|error| Unusable::Glob(error.kind().clone()))?;
    Ok(glob.compile_matcher())
}

/// The longest part of a pattern that is a path: all its names before the first that is not
/// literal. `None` if there is no such part, so that a walk starts at the workspace.
fn literal_prefix(pattern: &RelPath) -> Option<RelPath> {
    let is_literal = |name: &cas::Name<'_>| {
        let name = name.as_bytes();
        !is_glob(name) && !name.contains(&b'\\')
    };
    RelPath::from_names(pattern.names().take_while(is_literal))
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
