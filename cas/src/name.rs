//! Valid names and paths. Parsed at the border; inside, a path cannot be wrong.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The longest name of a directory entry, in bytes (`NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// One component of a path, borrowed: not empty, not `.` or `..`, without `/` and NUL, at most
/// [`NAME_MAX`] bytes. Names are bytes; they need not be UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name<'a>(&'a [u8]);

/// An owned [`Name`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameBuf(Box<[u8]>);

/// Why some bytes are not a name or a path inside the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// Nothing at all, or nothing but `.` and `/`: that is the workspace itself.
    #[error("names no entry of the workspace")]
    Empty,
    /// Starts with `/`.
    #[error("is absolute; paths are relative to the workspace")]
    Absolute,
    /// Has a component `..`, which could leave the workspace.
    #[error("contains '..'")]
    Parent,
    /// Has a NUL byte, which no file name can have.
    #[error("contains a NUL byte")]
    Nul,
    /// Has a component of more than [`NAME_MAX`] bytes.
    #[error("has a component longer than {NAME_MAX} bytes")]
    TooLong,
    /// A name of one component was wanted, and this has a `/` or is `.` or `..`.
    #[error("is not a single name")]
    NotSingle,
}

impl<'a> Name<'a> {
    /// Checks bytes as they come from the kernel or a caller.
    pub fn new(bytes: &'a [u8]) -> Result<Self, InvalidPath> {
        match bytes {
            b"" => Err(InvalidPath::Empty),
            b"." | b".." => Err(InvalidPath::NotSingle),
            _ if bytes.contains(&b'/') => Err(InvalidPath::NotSingle),
            _ if bytes.contains(&0) => Err(InvalidPath::Nul),
            _ if bytes.len() > NAME_MAX => Err(InvalidPath::TooLong),
            _ => Ok(Self(bytes)),
        }
    }

    /// The bytes of the name.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Copies the name.
    pub fn to_owned(self) -> NameBuf {
        NameBuf(self.0.into())
    }
}

impl NameBuf {
    /// Borrows the name.
    pub fn as_name(&self) -> Name<'_> {
        Name(&self.0)
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for NameBuf {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// A path inside the workspace: one or more names joined by `/`. Never absolute, never with `.`,
/// `..`, an empty component or a trailing `/`, so equal paths have equal bytes.
///
/// Ordered by components: everything below `a` sorts directly behind `a`, before `a.b`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// Normalises `.`, `//` and trailing `/`; refuses what would leave the workspace.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidPath> {
        if bytes.first() == Some(&b'/') {
            return Err(InvalidPath::Absolute);
        }
        if Self::is_normal(bytes) {
            return Ok(Self(bytes.into()));
        }
        let mut path = Vec::with_capacity(bytes.len());
        for component in bytes.split(|&b| b == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(InvalidPath::Parent),
                _ => push(&mut path, Name::new(component)?),
            }
        }
        if path.is_empty() {
            Err(InvalidPath::Empty)
        } else {
            Ok(Self(path.into()))
        }
    }

    /// A path that is known to be written as this type has it.
    pub(crate) fn of_normal(bytes: &[u8]) -> Self {
        debug_assert!(Self::is_normal(bytes));
        Self(bytes.into())
    }

    /// Whether bytes are a path as this type has it, with nothing to be left out: as nearly all of the
    /// many paths of a large job are.
    pub fn is_normal(path: &[u8]) -> bool {
        let mut length = 0;
        let mut dots = 0;
        for &byte in path.iter().chain(b"/") {
            match byte {
                b'/' if length == dots && length <= 2 || length > NAME_MAX => return false,
                b'/' => (length, dots) = (0, 0),
                0 => return false,
                _ => (length, dots) = (length + 1, dots + usize::from(byte == b'.')),
            }
        }
        true
    }

    /// The order of paths, by their bytes; see [`RelPath`].
    pub(crate) fn order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
        // NUL occurs in no path, so '/' may take its place: below every byte of a name.
        let key = |path: &[u8], i: usize| path.get(i).map(|&b| if b == b'/' { 0 } else { b });
        let common = common_prefix(a, b);
        key(a, common).cmp(&key(b, common))
    }

    /// Joins names; `None` if there are none.
    pub fn from_names<'a>(names: impl IntoIterator<Item = Name<'a>>) -> Option<Self> {
        let mut path = Vec::new();
        names.into_iter().for_each(|name| push(&mut path, name));
        (!path.is_empty()).then(|| Self(path.into()))
    }

    /// This path with one more name.
    pub fn join(&self, name: Name<'_>) -> Self {
        let mut path = self.0.to_vec();
        push(&mut path, name);
        Self(path.into())
    }

    /// The bytes, with `/` between names.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path in the form that `std` takes, relative.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The names from the workspace downwards.
    pub fn names(&self) -> impl Iterator<Item = Name<'_>> {
        self.0.split(|&b| b == b'/').map(Name)
    }

    /// Whether this is `other` or lies below it.
    pub fn starts_with(&self, other: &RelPath) -> bool {
        match self.0.strip_prefix(&*other.0) {
            Some(rest) => rest.is_empty() || rest[0] == b'/',
            None => false,
        }
    }
}

/// How many bytes two paths have in common at their beginning. By eight, because neighbours in a large
/// tree share most of theirs.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let (eights_a, _) = a.as_chunks::<8>();
    let (eights_b, _) = b.as_chunks::<8>();
    let equal = |(a, b): &(&[u8; 8], &[u8; 8])| a == b;
    let sure = 8 * eights_a.iter().zip(eights_b).take_while(equal).count();
    let rest = a[sure..].iter().zip(&b[sure..]);
    sure + rest.take_while(|(a, b)| a == b).count()
}

/// Looks at many paths whether they are [normal](RelPath::is_normal). Neighbours mostly lie in one
/// directory, which is looked at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct NormalPaths<'p> {
    /// Where the last path lies, with the `/` behind it.
    directory: &'p [u8],
}

impl<'p> NormalPaths<'p> {
    /// Whether the next path is one.
    pub fn is_next(&mut self, path: &'p [u8]) -> bool {
        let inside = path.strip_prefix(self.directory);
        let rest = inside.unwrap_or(path);
        if inside.is_none() || rest.contains(&b'/') {
            let slash = path.iter().rposition(|byte| *byte == b'/');
            self.directory = slash.map_or(&[], |slash| &path[..=slash]);
        }
        let is_normal = RelPath::is_normal(rest);
        if !is_normal {
            self.directory = &[];
        }
        is_normal
    }
}

fn push(path: &mut Vec<u8>, name: Name<'_>) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.0);
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        Self::order(&self.0, &other.0)
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(OsStr::from_bytes(self.0), f)
    }
}

impl fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.as_name(), f)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_path(), f)
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.as_path().display(), f)
    }
}

impl serde::Serialize for RelPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::text::encode(&self.0))
    }
}

impl<'de> serde::Deserialize<'de> for RelPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let refuse = |error| serde::de::Error::custom(format!("path {text:?} {error}"));
        Self::parse(&crate::text::decode(&text)).map_err(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, InvalidPath> {
        RelPath::parse(text.as_bytes()).map(|path| path.to_string())
    }

    #[test]
    fn paths_are_normalised_or_refused_by_reason() {
        assert_eq!(parsed("./a//b/./c/"), Ok("a/b/c".into()));
        assert_eq!(parsed("/a"), Err(InvalidPath::Absolute));
        assert_eq!(parsed("a/../b"), Err(InvalidPath::Parent));
        assert_eq!(parsed("a\0b"), Err(InvalidPath::Nul));
        assert_eq!(parsed(&"x".repeat(255)), Ok("x".repeat(255)));
        assert_eq!(parsed(&"x".repeat(256)), Err(InvalidPath::TooLong));
        for empty in ["", ".", "./", ".//."] {
            assert_eq!(parsed(empty), Err(InvalidPath::Empty), "{empty:?}");
        }
    }

    #[test]
    fn a_path_is_normal_if_nothing_of_it_is_left_out() {
        let long = "x".repeat(255);
        for normal in [
            "a",
            "a/b.c/d",
            "...",
            "a/.b",
            ".../..c",
            &format!("a/{long}"),
        ] {
            assert!(RelPath::is_normal(normal.as_bytes()), "{normal:?}");
            assert_eq!(parsed(normal), Ok(normal.into()));
        }
        let longer = format!("{long}y/b");
        for not in [
            "", ".", "..", "/a", "a/", "a//b", "./a", "a/..", "a\0", &longer,
        ] {
            assert!(!RelPath::is_normal(not.as_bytes()), "{not:?}");
            assert_ne!(parsed(not), Ok(not.into()));
        }
    }

    #[test]
    fn paths_are_as_normal_among_others_as_alone() {
        let all = [
            "a/b", "a/c", "a/", "a/c/d", "a//d", "a/b", "a", "a/../b", "a/c", "/a", "a/c/", "..",
            "b",
        ];
        for first in all {
            for second in all {
                for third in all {
                    let mut paths = NormalPaths::default();
                    for path in [first, second, third] {
                        let path = path.as_bytes();
                        assert_eq!(paths.is_next(path), RelPath::is_normal(path), "{path:?}");
                    }
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn the_order_is_that_of_the_names(a in "[a./-]{1,20}", b in "[a./-]{1,20}") {
            let names = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
            let expected = names(&a).cmp(&names(&b));
            proptest::prop_assert_eq!(RelPath::order(a.as_bytes(), b.as_bytes()), expected);
        }
    }

    #[test]
    fn a_directory_sorts_directly_before_what_it_holds() {
        let mut paths: Vec<_> = ["a.b", "a/z", "a", "a/b/c", "a-b", "b"]
            .iter()
            .map(|text| RelPath::parse(text.as_bytes()).unwrap())
            .collect();
        paths.sort();
        let sorted: Vec<_> = paths.iter().map(|path| path.to_string()).collect();
        assert_eq!(sorted, ["a", "a/b/c", "a/z", "a-b", "a.b", "b"]);
    }

    #[test]
    fn below_means_by_component_and_not_by_prefix() {
        let path = |text: &str| RelPath::parse(text.as_bytes()).unwrap();
        assert!(path("a/b").starts_with(&path("a")));
        assert!(path("a").starts_with(&path("a")));
        assert!(!path("ab").starts_with(&path("a")));
    }
}
