//! What a view's report says of changes, against the model: it is exact, and applied to what was
//! declared it makes what is there.

use std::collections::{BTreeMap, BTreeSet};

use cas::RelPath;
use cas::changes::{Change, ChangedInput, InputChanges, RootAttributes};
use fuse_daemon::view::{Meta, OutputKind, Time, ViewReport};

use super::super::operation;
use super::super::reference::{Content, Model, Node, Number, join};
use super::{Verdict, ensure};

/// What a path is. A file that the job wrote has the time that its staging file has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shape {
    content: Content,
    perm: u16,
    mtime: Option<Time>,
}

type Shapes = BTreeMap<String, Shape>;

/// Checks a report of a job that began with `base` and came to `end`.
pub(super) fn check(report: &ViewReport<u32>, base: &Model, end: &Model) -> Verdict {
    let expected = expected_changes(base, end);
    ensure(report.changes == expected, || {
        format!("changes {:#?} and not {expected:#?}", report.changes)
    })?;
    let mut tree = shapes(base, base);
    apply(report, &mut tree)?;
    let wanted = shapes(end, base);
    ensure(tree == wanted, || {
        let differs = |(path, shape): &(&String, &Shape)| wanted.get(*path) != Some(shape);
        let wrong: Vec<_> = tree.iter().filter(differs).collect();
        let missing = wanted.iter().filter(|(path, _)| !tree.contains_key(*path));
        let missing: Vec<_> = missing.collect();
        format!("applied, the report makes {wrong:#?} and lacks {missing:#?}")
    })
}

/// All paths but those of special files. The times of directories that stay as they were declared
/// are not told.
fn shapes(model: &Model, base: &Model) -> Shapes {
    let shape = |number: Number, node: &Node| match &node.content {
        Content::Special(..) => None,
        Content::Staged(_) => Some((node.meta.perm, None)),
        // The kernel changes no mode of a link, and documents have none.
        Content::Link(_) => Some((0o777, Some(node.meta.mtime))),
        _ if node.read_only => Some((node.meta.perm, Some(base.nodes[number].meta.mtime))),
        _ => Some((node.meta.perm, Some(node.meta.mtime))),
    };
    let shapes = model.paths.iter().filter_map(|(path, &number)| {
        let node = &model.nodes[number];
        let (perm, mtime) = shape(number, node)?;
        let content = node.content.clone();
        Some((
            path.clone(),
            Shape {
                content,
                perm,
                mtime,
            },
        ))
    });
    shapes.collect()
}

/// Applies a report in the documented order: cut, deepest first; then put and write, from the root
/// downwards.
fn apply(report: &ViewReport<u32>, tree: &mut Shapes) -> Verdict {
    let changes = &report.changes;
    let moved = changes.changed.iter();
    let moved = moved.filter_map(|row| Some((row.renamed_from.clone()?, row.path.clone())));
    let moved: BTreeMap<RelPath, RelPath> = moved.collect();
    let mut cuts: Vec<_> = changes.deleted.iter().chain(moved.keys()).collect();
    cuts.sort_by_key(|path| std::cmp::Reverse(path.names().count()));
    let mut kept: BTreeMap<RelPath, Shapes> = BTreeMap::new();
    for path in cuts {
        let cut = cut(tree, &path.to_string())?;
        if let Some(to) = moved.get(path) {
            kept.insert(to.clone(), cut);
        }
    }
    let outputs: BTreeMap<_, _> = report.outputs.iter().map(|(p, o)| (p.clone(), o)).collect();
    let paths: BTreeSet<_> = kept.keys().chain(outputs.keys()).cloned().collect();
    for path in paths {
        let place = path.to_string();
        let above = place.rsplit_once('/').map_or("", |(above, _)| above);
        let inside = tree.get(above).is_some_and(is_directory);
        ensure(inside, || format!("{above} is no directory"))?;
        if let Some(subtree) = kept.remove(&path) {
            let free = !tree.contains_key(&place);
            ensure(free, || format!("{place} is taken"))?;
            tree.extend(
                subtree
                    .into_iter()
                    .map(|(at, shape)| (place.clone() + &at, shape)),
            );
        }
        if let Some(output) = outputs.get(&path) {
            let shape = output_shape(output);
            let fits = tree.get(&place);
            let fits = fits.is_none_or(|there| is_directory(there) == is_directory(&shape));
            ensure(fits, || format!("{place} is of another kind"))?;
            tree.insert(place, shape);
        }
    }
    if let Some(root) = changes.root {
        let shape = tree.get_mut("").ok_or("no root")?;
        shape.perm = root.mode;
        shape.mtime = Some(Time {
            seconds: root.mtime_sec,
            nanoseconds: root.mtime_nsec,
        });
    }
    Ok(())
}

fn is_directory(shape: &Shape) -> bool {
    shape.content == Content::Directory
}

/// Takes a path out with all below it; what is returned is named from there on.
fn cut(tree: &mut Shapes, path: &str) -> Verdict<Shapes> {
    ensure(tree.contains_key(path), || format!("{path} is not there"))?;
    let inside = |at: &str| at == path || at.starts_with(&format!("{path}/"));
    let (cut, rest) = std::mem::take(tree)
        .into_iter()
        .partition::<Shapes, _>(|(at, _)| inside(at));
    *tree = rest;
    let cut = cut.into_iter();
    Ok(cut
        .map(|(at, shape)| (at[path.len()..].to_owned(), shape))
        .collect())
}

fn output_shape(output: &OutputKind<u32>) -> Shape {
    let (content, perm, mtime) = match output {
        OutputKind::File(handle, perm) => (Content::Staged(*handle), *perm, None),
        OutputKind::Input(_, digest, size, perm, mtime) => {
            (Content::Input(*digest, *size), *perm, Some(*mtime))
        }
        OutputKind::Symlink(target, mtime) => (Content::Link(target.to_vec()), 0o777, Some(*mtime)),
        OutputKind::Directory(perm, mtime) => (Content::Directory, *perm, Some(*mtime)),
    };
    Shape {
        content,
        perm,
        mtime,
    }
}

/// What a report should say, found by looking at every declared node.
fn expected_changes(base: &Model, end: &Model) -> InputChanges {
    let mut changes = InputChanges::default();
    for (number, was) in base.nodes.iter().enumerate() {
        let (is, declared) = (&end.nodes[number], was.declared.clone().unwrap_or_default());
        if is.read_only {
            continue;
        }
        if declared.is_empty() {
            changes.root = change(was, is).map(|_| root(&is.meta));
            continue;
        }
        let names = end.paths.iter().filter(|(_, n)| **n == number);
        let mut names: Vec<_> = names.map(|(path, _)| operation::path(path)).collect();
        names.sort();
        let home = home(base, end, &declared);
        let at_home = home.as_ref().filter(|home| names.contains(home));
        match (at_home, names.into_iter().next()) {
            (Some(path), _) => changes
                .changed
                .extend(change(was, is).map(|change| ChangedInput {
                    path: path.clone(),
                    renamed_from: None,
                    change,
                })),
            (None, Some(path)) => changes.changed.push(ChangedInput {
                path,
                renamed_from: Some(operation::path(&declared)),
                change: change(was, is).unwrap_or(Change::Unchanged),
            }),
            (None, None) => {
                let now = home
                    .clone()
                    .and_then(|home| end.paths.get(&home.to_string()));
                let now = now
                    .map(|n| &end.nodes[*n])
                    .filter(|node| node.declared.is_none());
                match (now.and_then(|now| rewritten(was, now)), home) {
                    (Some(change), Some(path)) => changes.changed.push(ChangedInput {
                        path,
                        renamed_from: None,
                        change,
                    }),
                    (None, Some(_)) => changes.deleted.push(operation::path(&declared)),
                    // It went with the directory that it was in.
                    (_, None) => {}
                }
            }
        }
    }
    changes.changed.sort_by(|a, b| a.path.cmp(&b.path));
    changes.deleted.sort();
    changes
}

/// Where a declared path is now, if its directory still is somewhere.
fn home(base: &Model, end: &Model, declared: &str) -> Option<RelPath> {
    let (above, name) = declared.rsplit_once('/').unwrap_or(("", declared));
    let above = end.path_of(base.paths[above])?;
    Some(operation::path(&join(above, name)))
}

fn change(was: &Node, is: &Node) -> Option<Change> {
    let of = |meta: &Meta| (meta.perm, meta.uid, meta.gid, meta.mtime);
    match (&was.content, &is.content) {
        (Content::Input(digest, _), Content::Staged(_)) => Some(Change::Written {
            digest: *digest,
            mode: was.meta.perm,
        }),
        _ if of(&was.meta) != of(&is.meta) => Some(Change::Metadata),
        _ => None,
    }
}

fn rewritten(was: &Node, by: &Node) -> Option<Change> {
    let leaf = |content: &Content| !matches!(content, Content::Directory | Content::Special(..));
    match (&was.content, &by.content) {
        (a, b) if !leaf(a) || !leaf(b) => None,
        (Content::Input(digest, _), Content::Staged(_)) => Some(Change::Written {
            digest: *digest,
            mode: was.meta.perm,
        }),
        (Content::Link(a), Content::Link(b)) if a == b => Some(Change::Unchanged),
        _ => Some(Change::Modified),
    }
}

fn root(meta: &Meta) -> RootAttributes {
    RootAttributes {
        mode: meta.perm,
        mtime_sec: meta.mtime.seconds,
        mtime_nsec: meta.mtime.nanoseconds,
    }
}
