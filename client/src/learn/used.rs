//! From the record of a job that saw everything to the least that it has to see.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use cas::RelPath;
use cas::record::{Class, Row};

use crate::ingest::{Found, FoundKind};

/// What the job could see, by path.
#[derive(Debug, Default)]
pub(super) struct Shown(BTreeMap<RelPath, Node>);

/// What is at a path.
#[derive(Clone, Copy, Debug)]
struct Node {
    kind: FoundKind,
    /// Whether it was found by itself. Other directories are there because of what they hold.
    declared: bool,
}

/// The directories above a path, the nearest first.
pub(super) fn above(path: &RelPath) -> impl Iterator<Item = RelPath> + '_ {
    let depth = path.names().count();
    let above = |names| RelPath::from_names(path.names().take(names));
    (1..depth).rev().filter_map(above)
}

impl Shown {
    /// Everything that was found.
    pub(super) fn new(found: &[Found]) -> Self {
        let mut nodes = BTreeMap::new();
        let implied = Node {
            kind: FoundKind::Directory,
            declared: false,
        };
        for found in found {
            for above in above(&found.path) {
                if nodes.contains_key(&above) {
                    break;
                }
                nodes.insert(above, implied);
            }
            let kind = found.attributes.kind;
            let declared = true;
            nodes.insert(found.path.clone(), Node { kind, declared });
        }
        Self(nodes)
    }

    /// Leaves out directories above a path that hold nothing.
    pub(super) fn forget_empty(&mut self, path: &RelPath) {
        for directory in above(path) {
            if self.is_directory(&directory) && self.entries(Some(&directory)).next().is_none() {
                self.0.remove(&directory);
            }
        }
    }

    /// Everything, without the directories that are there because of what they hold.
    pub(super) fn paths(&self) -> BTreeSet<RelPath> {
        let declared = self.0.iter().filter(|(_, node)| node.declared);
        declared.map(|(path, _)| path.clone()).collect()
    }

    /// Whether there is something at a path.
    pub(super) fn has(&self, path: &RelPath) -> bool {
        self.0.contains_key(path)
    }

    fn is_declared(&self, path: &RelPath) -> bool {
        self.0.get(path).is_some_and(|node| node.declared)
    }

    fn is_directory(&self, path: &RelPath) -> bool {
        let node = self.0.get(path);
        node.is_some_and(|node| node.kind == FoundKind::Directory)
    }

    /// What is directly in a directory, or in the workspace, sorted.
    pub(super) fn entries<'s>(
        &'s self,
        directory: Option<&'s RelPath>,
    ) -> impl Iterator<Item = (&'s RelPath, FoundKind)> {
        let depth = directory.map_or(0, |directory| directory.names().count());
        // Everything below a path is directly behind it.
        let from = directory.map_or(Bound::Unbounded, Bound::Excluded);
        let inside =
            move |path: &RelPath| directory.is_none_or(|directory| path.starts_with(directory));
        let below = self.0.range::<RelPath, _>((from, Bound::Unbounded));
        let below = below.take_while(move |(path, _)| inside(path));
        let direct = below.filter(move |(path, _)| path.names().count() == depth + 1);
        direct.map(|(path, node)| (path, node.kind))
    }

    /// The paths that a job needs that touched these: what it read, ran, followed, listed or looked at,
    /// and the directories on the way, which are there even where nothing in them is.
    pub(super) fn needed(&self, rows: &[Row]) -> BTreeSet<RelPath> {
        let mut needed = BTreeSet::new();
        let mut touched = BTreeSet::new();
        for row in rows {
            let Some(path) = &row.path else { continue };
            if self.has(path) && row.class != Class::ProbeAbsent {
                touched.insert(path);
                needed.insert(path.clone());
            }
            needed.extend(above(path).filter(|above| self.is_directory(above)));
        }
        self.without_implied(needed, |path| touched.contains(path))
    }

    /// With all entries of these directories.
    pub(super) fn with_entries(
        &self,
        mut needed: BTreeSet<RelPath>,
        listed: &BTreeSet<Option<RelPath>>,
    ) -> BTreeSet<RelPath> {
        let before = needed.clone();
        for directory in listed {
            let entries = self.entries(directory.as_ref());
            needed.extend(entries.map(|(path, _)| path.clone()));
        }
        self.without_implied(needed, |path| before.contains(path))
    }

    /// Leaves out directories that are there anyway, because of what they hold. One that was looked at
    /// has attributes of its own, if it is declared.
    fn without_implied(
        &self,
        needed: BTreeSet<RelPath>,
        looked_at: impl Fn(&RelPath) -> bool,
    ) -> BTreeSet<RelPath> {
        let holds: BTreeSet<RelPath> = needed.iter().flat_map(above).collect();
        let stays =
            |path: &RelPath| !holds.contains(path) || (self.is_declared(path) && looked_at(path));
        needed.into_iter().filter(stays).collect()
    }
}

/// Directories of the view that were listed and that the job has not made; `None` is the view itself.
pub(super) fn listed(rows: &[Row]) -> BTreeSet<Option<RelPath>> {
    let listed = rows
        .iter()
        .filter(|row| row.has(Class::List) && row.declared);
    listed.map(|row| row.path.clone()).collect()
}

/// Paths that were looked for in vain, and not made since, nor are in what was made.
pub(super) fn probes(rows: &[Row]) -> BTreeSet<RelPath> {
    let of = |classes: &'static [Class]| {
        let rows = rows.iter().filter(|row| classes.contains(&row.class));
        rows.filter_map(|row| row.path.as_ref())
    };
    let made: BTreeSet<_> = of(&[Class::Create, Class::Rename]).collect();
    let probed = of(&[Class::ProbeAbsent]);
    let outside = |path: &&RelPath| !above(path).any(|above| made.contains(&above));
    probed.filter(outside).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{Attributes, Stamp};

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).expect("a path")
    }

    fn paths(texts: &[&str]) -> BTreeSet<RelPath> {
        texts.iter().map(|text| path(text)).collect()
    }

    /// Directories end with a slash.
    fn shown(texts: &[&str]) -> Shown {
        let found = texts.iter().map(|text| Found {
            path: path(text),
            attributes: Attributes {
                kind: match text.ends_with('/') {
                    true => FoundKind::Directory,
                    false => FoundKind::File,
                },
                mode: 0o644,
                stamp: Stamp {
                    device: 0,
                    inode: 0,
                    size: 0,
                    mtime: 0,
                    ctime: 0,
                },
            },
        });
        Shown::new(&found.collect::<Vec<_>>())
    }

    fn row(text: &str, class: Class) -> Row {
        Row {
            path: (text != ".").then(|| path(text)),
            class,
            also: Vec::new(),
            declared: class != Class::ProbeAbsent && class != Class::Create,
            bytes: None,
            bytes_kind: None,
            first: 0,
        }
    }

    #[test]
    fn what_was_touched_is_needed_and_nothing_else() {
        let shown = shown(&["a", "b", "d/c", "d/e", "x/y"]);
        let rows = [
            row("a", Class::Read),
            row("b", Class::Stat),
            row("d/c", Class::Exec),
        ];
        assert_eq!(shown.needed(&rows), paths(&["a", "b", "d/c"]));
    }

    #[test]
    fn directories_on_the_way_to_nothing_are_needed() {
        let shown = shown(&["include/a.h", "out/old", "d/c"]);
        let rows = [
            row("include/b.h", Class::ProbeAbsent),
            row("out/new", Class::Create),
            row("d/c", Class::Read),
        ];
        assert_eq!(shown.needed(&rows), paths(&["d/c", "include", "out"]));
    }

    #[test]
    fn a_declared_directory_that_was_looked_at_stays_beside_what_it_holds() {
        let rows = [row("d", Class::List), row("d/c", Class::Read)];
        assert_eq!(shown(&["d/c"]).needed(&rows), paths(&["d/c"]));
        assert_eq!(shown(&["d/", "d/c"]).needed(&rows), paths(&["d", "d/c"]));
    }

    #[test]
    fn entries_are_direct_and_come_with_their_kinds() {
        let shown = shown(&["a", "d/b", "d/e/f", "g/"]);
        let names = |directory: Option<&str>| {
            let directory = directory.map(path);
            let entries = shown.entries(directory.as_ref());
            entries
                .map(|(path, _)| path.clone())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(names(None), paths(&["a", "d", "g"]));
        assert_eq!(names(Some("d")), paths(&["d/b", "d/e"]));
        let wide = shown.with_entries(paths(&["a"]), &[None, Some(path("d"))].into());
        assert_eq!(wide, paths(&["a", "d/b", "d/e", "g"]));
    }

    #[test]
    fn a_directory_that_holds_nothing_but_the_store_is_left_out() {
        let mut one = shown(&["a", ".build/"]);
        one.forget_empty(&path(".build/deep/cas"));
        assert_eq!(one.paths(), paths(&["a"]));
        let mut other = shown(&["a", ".build/", ".build/note"]);
        other.forget_empty(&path(".build/cas"));
        assert_eq!(other.paths(), paths(&["a", ".build", ".build/note"]));
    }

    #[test]
    fn what_the_job_makes_is_no_probe() {
        let rows = [
            row("new", Class::Create),
            row("new/x", Class::ProbeAbsent),
            row("no.h", Class::ProbeAbsent),
        ];
        assert_eq!(probes(&rows), paths(&["no.h"]));
    }
}
