//! What must be there.

use std::collections::BTreeMap;

use super::seen::Content;
use super::step::bytes;
use super::{Seen, Step};

/// A directory with everything below it. Content, names, modes, attributes and which names are of
/// one inode are as the steps say; inode numbers as they were first seen.
#[derive(Clone, Debug, Default)]
pub struct Model {
    names: BTreeMap<String, u64>,
    nodes: BTreeMap<u64, Node>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Node {
    content: Content,
    mode: u32,
    attributes: BTreeMap<String, String>,
    inode: Option<u64>,
    backing: Backing,
}

/// Whether a file has a staging file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backing {
    /// It has, or is no file.
    Staged,
    /// An input that was never changed.
    Input,
    /// An input of which a change was begun.
    Unknown,
}

impl Model {
    /// What was declared: everything that is there.
    pub fn of(seen: &BTreeMap<String, Seen>) -> Self {
        let mut model = Self::default();
        for (path, seen) in seen {
            let node = Node {
                inode: Some(seen.inode),
                attributes: seen.attributes.clone(),
                backing: match seen.content {
                    Content::File(_) => Backing::Input,
                    _ => Backing::Staged,
                },
                ..Node::new(seen.content.clone(), seen.mode)
            };
            model.add(path, node);
        }
        model
    }

    fn add(&mut self, path: &str, node: Node) {
        self.next += 1;
        self.nodes.insert(self.next, node);
        self.names.insert(path.into(), self.next);
    }

    fn node(&mut self, path: &str) -> &mut Node {
        let id = self.names[path];
        self.nodes.get_mut(&id).expect("a name has a node")
    }

    fn file(&mut self, path: &str) -> &mut Vec<u8> {
        let node = self.node(path);
        node.backing = Backing::Staged;
        match &mut node.content {
            Content::File(bytes) => bytes,
            other => panic!("{path} is {other:?}"),
        }
    }

    /// Does a step.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Create { path, mode } => {
                self.add(path, Node::new(Content::File(Vec::new()), *mode));
            }
            Step::MakeDirectory { path, mode } => {
                self.add(path, Node::new(Content::Directory, *mode));
            }
            Step::Symlink { target, path } => {
                self.add(path, Node::new(Content::Symlink(target.clone()), 0o777));
            }
            Step::Write {
                path,
                at,
                seed,
                length,
            } => {
                let (file, at) = (self.file(path), *at as usize);
                file.resize(file.len().max(at + length), 0);
                file[at..at + length].copy_from_slice(&bytes(*seed, *length));
            }
            Step::Truncate { path, size } => self.file(path).resize(*size as usize, 0),
            Step::Store { path, at, byte } => self.file(path)[*at as usize] = *byte,
            Step::Chmod { path, mode } => self.node(path).mode = *mode,
            Step::SetAttribute { path, name, value } => {
                let attributes = &mut self.node(path).attributes;
                attributes.insert(name.clone(), value.clone());
            }
            Step::Sync { .. } => {}
            naming => self.apply_naming(naming),
        }
        let named: std::collections::BTreeSet<_> = self.names.values().copied().collect();
        self.nodes.retain(|id, _| named.contains(id));
    }

    fn apply_naming(&mut self, step: &Step) {
        match step {
            Step::Unlink { path, .. } | Step::RemoveDirectory { path } => {
                self.names.remove(path);
            }
            Step::Link { from, to } => {
                self.names.insert(to.clone(), self.names[from]);
            }
            // Two names of one file: POSIX has rename do nothing.
            Step::Rename { from, to } if self.names.get(to) == self.names.get(from) => {}
            Step::Rename { from, to } => {
                let moved = self.take(from);
                self.names.remove(to);
                self.put(to, moved);
            }
            Step::Exchange { from, to } => {
                let (one, other) = (self.take(from), self.take(to));
                self.put(to, one);
                self.put(from, other);
            }
            _ => unreachable!("{step:?} is no matter of names"),
        }
    }

    /// Takes a name and all below it out; the rests of their paths stay.
    fn take(&mut self, path: &str) -> Vec<(String, u64)> {
        let below = format!("{path}/");
        let is_moved = |name: &String| name == path || name.starts_with(&below);
        let moved: Vec<_> = self
            .names
            .keys()
            .filter(|name| is_moved(name))
            .cloned()
            .collect();
        let rest = |name: String| (name[path.len()..].to_owned(), self.names.remove(&name));
        let rests = moved.into_iter().map(rest);
        rests.filter_map(|(rest, id)| Some((rest, id?))).collect()
    }

    fn put(&mut self, path: &str, moved: Vec<(String, u64)>) {
        let renamed = moved
            .into_iter()
            .map(|(rest, id)| (format!("{path}{rest}"), id));
        self.names.extend(renamed);
    }

    fn links(&self, path: &str, id: u64) -> u64 {
        if self.nodes[&id].content != Content::Directory {
            return self.names.values().filter(|other| **other == id).count() as u64;
        }
        let below = format!("{path}/");
        let directories = self.names.iter().filter(|(name, id)| {
            let rest = name.strip_prefix(&below);
            let is_here = rest.is_some_and(|rest| !rest.contains('/'));
            is_here && self.nodes[id].content == Content::Directory
        });
        2 + directories.count() as u64
    }

    /// This, with numbers of inodes that are new, if it is what is there.
    ///
    /// # Errors
    /// The first difference.
    pub fn matching(&self, seen: &BTreeMap<String, Seen>) -> Result<Self, String> {
        let mut matched = self.clone();
        matched.check(seen)?;
        Ok(matched)
    }

    fn check(&mut self, seen: &BTreeMap<String, Seen>) -> Result<(), String> {
        if let Some(extra) = seen.keys().find(|path| !self.names.contains_key(*path)) {
            return Err(format!("{extra} is there and should not be"));
        }
        let mut numbers = BTreeMap::new();
        for (path, &id) in &self.names {
            let Some(seen) = seen.get(path) else {
                return Err(format!("{path} is not there"));
            };
            if let Some(what) = self.nodes[&id].differs(seen, self.links(path, id)) {
                return Err(format!("{path}: {what}"));
            }
            if let Some(other) = numbers.insert(seen.inode, id).filter(|other| *other != id) {
                return Err(format!(
                    "{path} shares its inode with another file ({other})"
                ));
            }
            if let Some(node) = self.nodes.get_mut(&id)
                && *node.inode.get_or_insert(seen.inode) != seen.inode
            {
                return Err(format!("{path} has another inode number than before"));
            }
        }
        Ok(())
    }

    /// Takes over what is there of a write that was begun and not answered, if every byte is the
    /// old one or the new one.
    pub fn allow_torn(&mut self, after: &Self, path: &str, seen: &BTreeMap<String, Seen>) {
        let Some(Content::File(torn)) = seen.get(path).map(|seen| &seen.content) else {
            return;
        };
        let new = after.clone().file(path).clone();
        let old = self.file(path);
        let lengths = old.len().min(new.len())..=old.len().max(new.len());
        let byte = |bytes: &[u8], at: usize| bytes.get(at).copied().unwrap_or(0);
        let is_either = |at: usize| [byte(old, at), byte(&new, at)].contains(&torn[at]);
        if lengths.contains(&torn.len()) && (0..torn.len()).all(is_either) {
            old.clone_from(torn);
        }
    }

    /// Notes that a file may have got a staging file.
    pub fn may_be_staged(&mut self, path: &str) {
        let node = self.node(path);
        if node.backing == Backing::Input {
            node.backing = Backing::Unknown;
        }
    }

    /// How many staging files there must be: at least, and at most.
    pub fn staged(&self) -> (usize, usize) {
        let files = self
            .nodes
            .values()
            .filter(|node| matches!(node.content, Content::File(_)));
        let backings: Vec<_> = files.map(|node| node.backing).collect();
        let count = |of: Backing| backings.iter().filter(|backing| **backing == of).count();
        let least = count(Backing::Staged);
        (least, least + count(Backing::Unknown))
    }
}

impl Node {
    fn new(content: Content, mode: u32) -> Self {
        Self {
            content,
            mode,
            attributes: BTreeMap::new(),
            inode: None,
            backing: Backing::Staged,
        }
    }

    fn differs(&self, seen: &Seen, links: u64) -> Option<String> {
        let told = |what: &str, is: &dyn std::fmt::Debug, should: &dyn std::fmt::Debug| {
            Some(format!("{what} {is:?} instead of {should:?}"))
        };
        match (&self.content, &seen.content) {
            (Content::File(should), Content::File(is)) if should != is => {
                let place = is.iter().zip(should).position(|(is, should)| is != should);
                let (is, should) = (is.len(), should.len());
                return Some(format!(
                    "{is} bytes instead of {should}, the first difference at {place:?}"
                ));
            }
            (should, is) if should != is => return told("is", is, should),
            _ => {}
        }
        if self.mode != seen.mode {
            return told("mode", &seen.mode, &self.mode);
        }
        if links != seen.links {
            return told("links", &seen.links, &links);
        }
        if self.attributes != seen.attributes {
            return told("attributes", &seen.attributes, &self.attributes);
        }
        None
    }
}
