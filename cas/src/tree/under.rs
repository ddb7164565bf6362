//! Entries laid over a tree.

use std::collections::HashSet;

use super::{Entry, EntryKind, NodeIndex, NodeKind, Tree, TreeError};
use crate::name::{Name, RelPath};

impl Tree {
    /// This tree under other entries, which win: a file or link takes the place of whatever is
    /// there, with all it holds; a directory takes over what the directory there holds; and what
    /// stands in the way of an entry, as a file where it needs a directory, goes. `taken` are
    /// entries that are to be no part of the tree, but whose places have to be free.
    ///
    /// Takes time and memory by the size of the whole: the outcome is a tree of its own.
    pub fn under(&self, over: Vec<Entry>, taken: &[Entry]) -> Result<Tree, TreeError> {
        let mut directories = HashSet::new();
        let mut replaced = HashSet::new();
        for entry in over.iter().chain(taken) {
            match entry.kind {
                EntryKind::Directory => directories.insert(entry.path.clone()),
                _ => replaced.insert(entry.path.clone()),
            };
        }
        let above: HashSet<_> = over.iter().chain(taken).flat_map(ancestors).collect();
        // The entries come first: an implied directory takes the time of the first that needs it.
        let mut entries = over;
        let mut pending = vec![(NodeIndex::ROOT, None::<RelPath>)];
        while let Some((directory, prefix)) = pending.pop() {
            for (index, path) in self.paths_in(directory, prefix.as_ref()) {
                let Some(node) = self.get(index) else {
                    continue;
                };
                let is_directory = matches!(node.kind, NodeKind::Directory { .. });
                let in_the_way =
                    !is_directory && (above.contains(&path) || directories.contains(&path));
                if in_the_way || replaced.contains(&path) {
                    continue;
                }
                if is_directory {
                    pending.push((index, Some(path.clone())));
                }
                if !directories.contains(&path) {
                    entries.push(Entry {
                        mode: node.mode,
                        mtime: node.mtime,
                        kind: node.kind.to_entry(),
                        path,
                    });
                }
            }
        }
        let root = self.0.rows[0];
        Ok(Tree::build(entries)?.with_root(root.mode, root.mtime))
    }

    fn paths_in<'a>(
        &'a self,
        directory: NodeIndex,
        prefix: Option<&'a RelPath>,
    ) -> impl Iterator<Item = (NodeIndex, RelPath)> + 'a {
        self.children(directory).filter_map(move |row| {
            let index = NodeIndex(row);
            let name = Name::new(self.get(index)?.name).ok()?;
            let path = match prefix {
                Some(prefix) => prefix.join(name),
                None => RelPath::from_names([name])?,
            };
            Some((index, path))
        })
    }
}

/// The directories that an entry lies in.
fn ancestors(entry: &Entry) -> impl Iterator<Item = RelPath> {
    let names: Vec<_> = entry.path.names().collect();
    (1..names.len()).filter_map(move |count| RelPath::from_names(names[..count].iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text.as_bytes()).unwrap()
    }

    fn file(at: &str, mtime: i64) -> Entry {
        let (digest, size) = (Digest::of(at.as_bytes()), 1);
        Entry {
            path: path(at),
            mode: 0o644,
            mtime,
            kind: EntryKind::File { digest, size },
        }
    }

    fn directory(at: &str, mtime: i64) -> Entry {
        Entry {
            mode: 0o700,
            kind: EntryKind::Directory,
            ..file(at, mtime)
        }
    }

    /// All paths with their times.
    fn listed(tree: &Tree) -> Vec<(String, i64)> {
        let nodes = (1..tree.len() as u32).map(NodeIndex);
        let mut all: Vec<_> = nodes
            .map(|node| {
                (
                    tree.path(node).unwrap().to_string(),
                    tree.get(node).unwrap().mtime,
                )
            })
            .collect();
        all.sort();
        all
    }

    #[track_caller]
    fn check(over: Vec<Entry>, taken: &[Entry], expected: &[(&str, i64)]) {
        let base = [
            directory("d", 1),
            file("d/a", 2),
            file("d/b", 3),
            file("f", 4),
        ];
        let base = Tree::build(base.into()).unwrap().with_root(0o711, 99);
        let tree = base.under(over, taken).unwrap();
        let expected: Vec<_> = expected.iter().map(|&(p, t)| (p.into(), t)).collect();
        assert_eq!(listed(&tree), expected);
        let root = tree.get(NodeIndex::ROOT).unwrap();
        assert_eq!((root.mode, root.mtime), (0o711, 99));
    }

    #[test]
    fn entries_win_and_directories_merge() {
        let rest = [("d", 1), ("d/a", 2), ("d/b", 3), ("f", 4)];
        check(vec![], &[], &rest);
        let replaced = [("d", 1), ("d/a", 20), ("d/b", 3), ("f", 4)];
        check(vec![file("d/a", 20)], &[], &replaced);
        check(vec![file("d", 20)], &[], &[("d", 20), ("f", 4)]);
        let merged = [("d", 20), ("d/a", 2), ("d/b", 3), ("f", 4)];
        check(vec![directory("d", 20)], &[], &merged);
        let added = [
            ("d", 1),
            ("d/a", 2),
            ("d/b", 3),
            ("d/n", 20),
            ("d/n/x", 20),
            ("f", 4),
        ];
        check(vec![file("d/n/x", 20)], &[], &added);
    }

    #[test]
    fn what_stands_in_the_way_goes() {
        let (kept, new) = ([("d", 1), ("d/a", 2), ("d/b", 3)], ("f", 20));
        check(
            vec![file("f/x", 20)],
            &[],
            &[&kept[..], &[new, ("f/x", 20)]].concat(),
        );
        check(vec![directory("f", 20)], &[], &[&kept[..], &[new]].concat());
        check(vec![], &[file("f", 20)], &kept);
        check(
            vec![],
            &[file("d/a/x", 20)],
            &[("d", 1), ("d/b", 3), ("f", 4)],
        );
        check(vec![], &[file("d", 20)], &[("f", 4)]);
    }
}
