//! The reference: full paths in one map, nodes in one list, rules as POSIX words them.
//!
//! Dumb on purpose. Nothing is indexed and nothing is kept that can be counted; every question is
//! answered by looking at all paths.
//!
//! POSIX leaves open which of several errors is reported, so a refusal here is the list of all
//! that would be right. Only what decides whether a caller may know is asked in order.

#[path = "naming.rs"]
mod naming;

use std::collections::BTreeMap;

use cas::Digest;
use cas::tree::{Entry, EntryKind};
use fuse_daemon::view::{
    AttributeChange, Attributes, Caller, Fault, FileKind, InodeId, Meta, OpenIntent, SetMode,
    SetTime, SpecialKind, Time,
};

/// What was asked for, or every refusal that would be right.
pub(crate) type Answer<T> = Result<T, Vec<Fault>>;

/// The number of a node in the model, its place in the list.
pub(crate) type Number = usize;

const ROOT: Number = 0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Input(Digest, u64),
    Staged(u32),
    Link(Vec<u8>),
    Directory,
    Special(SpecialKind, u32),
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The number that the view gave it, as soon as it is seen.
    pub(crate) id: Option<InodeId>,
    /// Where it was declared, if it was.
    pub(crate) declared: Option<String>,
    /// How large the content was when it was declared.
    size_declared: u64,
    /// Declared, and to stay so.
    pub(crate) read_only: bool,
    pub(crate) extended: BTreeMap<&'static str, Vec<u8>>,
    pub(crate) content: Content,
    pub(crate) meta: Meta,
    /// References of the kernel.
    pub(crate) references: u64,
    /// Nobody can reach it any more.
    pub(crate) gone: bool,
    /// Its content was asked for.
    pub(crate) used: bool,
    /// When it came to be.
    pub(crate) born: Time,
    /// Made without a name, and never given one yet.
    pub(crate) unnamed: bool,
}

impl Node {
    pub(crate) fn is_directory(&self) -> bool {
        self.content == Content::Directory
    }

    fn handle(&self) -> Option<u32> {
        match self.content {
            Content::Staged(handle) => Some(handle),
            _ => None,
        }
    }

    /// The permission check of POSIX: the first class that fits decides.
    fn permits(&self, caller: Caller, wanted: u16) -> bool {
        let Meta { perm, uid, gid, .. } = self.meta;
        if caller.uid == 0 {
            let nobody_runs_it = !self.is_directory() && perm & 0o111 == 0;
            return !(wanted & 1 == 1 && nobody_runs_it);
        }
        let class = match caller {
            _ if caller.uid == uid => perm / 0o100 % 0o10,
            _ if caller.gid == gid => perm / 0o10 % 0o10,
            _ => perm % 0o10,
        };
        [1, 2, 4]
            .iter()
            .all(|bit| wanted & bit == 0 || class & bit != 0)
    }

    fn belongs_to(&self, caller: Caller) -> bool {
        caller.uid == 0 || caller.uid == self.meta.uid
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// Every name there is, by its full path; the root is the empty path.
    pub(crate) paths: BTreeMap<String, Number>,
    pub(crate) nodes: Vec<Node>,
    /// What is declared below these may be changed.
    changeable: Vec<String>,
}

pub(crate) fn join(directory: &str, name: &str) -> String {
    match directory {
        "" => name.to_owned(),
        _ => format!("{directory}/{name}"),
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn below(path: &str, directory: &str) -> bool {
    path == directory || directory.is_empty() || path.starts_with(&format!("{directory}/"))
}

fn refuse<T>(value: T, faults: Vec<Fault>) -> Answer<T> {
    if faults.is_empty() {
        Ok(value)
    } else {
        Err(faults)
    }
}

// Building and asking.
impl Model {
    pub(crate) fn new(
        entries: &[Entry],
        changeable: Vec<String>,
        owner: Caller,
        born: Time,
    ) -> Self {
        let mut model = Self {
            paths: BTreeMap::new(),
            nodes: Vec::new(),
            changeable,
        };
        let Caller { uid, gid } = owner;
        let meta = |perm, mtime| Meta {
            perm,
            uid,
            gid,
            atime: Time::from_nanoseconds(mtime),
            mtime: Time::from_nanoseconds(mtime),
            ctime: born,
        };
        let first = entries.first().map_or(0, |entry| entry.mtime);
        model.declare(String::new(), Content::Directory, meta(0o755, first));
        let explicit: Vec<String> = entries.iter().map(|e| e.path.to_string()).collect();
        for entry in entries {
            let path = entry.path.to_string();
            for (at, _) in path.match_indices('/') {
                let above = path[..at].to_owned();
                if !explicit.contains(&above) && !model.paths.contains_key(&above) {
                    model.declare(above, Content::Directory, meta(0o755, entry.mtime));
                }
            }
            let (content, perm) = match &entry.kind {
                EntryKind::File { digest, size } => (Content::Input(*digest, *size), entry.mode),
                EntryKind::Symlink { target } => (Content::Link(target.to_vec()), 0o777),
                EntryKind::Directory => (Content::Directory, entry.mode),
            };
            model.declare(path, content, meta(perm, entry.mtime));
        }
        model
    }

    fn declare(&mut self, path: String, content: Content, meta: Meta) {
        let number = self.add(content, meta, meta.ctime);
        self.nodes[number].declared = Some(path.clone());
        self.nodes[number].read_only = !self.changeable.iter().any(|top| below(&path, top));
        self.paths.insert(path, number);
    }

    pub(crate) fn add(&mut self, content: Content, meta: Meta, born: Time) -> Number {
        let size_declared = match content {
            Content::Input(_, size) => size,
            _ => 0,
        };
        self.nodes.push(Node {
            id: None,
            size_declared,
            declared: None,
            read_only: false,
            extended: BTreeMap::new(),
            content,
            meta,
            references: 0,
            gone: false,
            used: false,
            born,
            unnamed: false,
        });
        self.nodes.len() - 1
    }

    pub(crate) fn at(&self, id: InodeId) -> Answer<Number> {
        let known = |node: &Node| node.id == Some(id) && !node.gone;
        self.nodes.iter().position(known).ok_or(vec![Fault::Stale])
    }

    pub(crate) fn path_of(&self, number: Number) -> Option<&str> {
        let found = self.paths.iter().find(|(_, n)| **n == number);
        found.map(|(path, _)| path.as_str())
    }

    fn child(&self, directory: &str, name: &str) -> Option<Number> {
        self.paths.get(&join(directory, name)).copied()
    }

    /// The names in a directory. One that was removed has none.
    pub(crate) fn children(&self, directory: Number) -> BTreeMap<&str, Number> {
        let Some(directory) = self.path_of(directory) else {
            return BTreeMap::new();
        };
        let mut children = BTreeMap::new();
        for (path, number) in &self.paths {
            let (above, name) = split(path);
            if above == directory && *number != ROOT {
                children.insert(name, *number);
            }
        }
        children
    }

    pub(crate) fn parent(&self, directory: Number) -> Option<Number> {
        let path = self.path_of(directory)?;
        self.paths.get(split(path).0).copied()
    }

    /// The link count of every node, counted by walking all paths: one for each name, and for a
    /// directory one for its `.` and one for each `..` that means it.
    pub(crate) fn links(&self) -> Vec<u32> {
        let mut links = vec![0; self.nodes.len()];
        for (path, number) in &self.paths {
            links[*number] += 1;
            if *number != ROOT && self.nodes[*number].is_directory() {
                links[*number] += 1;
                links[self.paths[split(path).0]] += 1;
            }
        }
        links[ROOT] += 1;
        links
    }

    pub(crate) fn attributes(&self, number: Number) -> (Attributes, Option<u32>) {
        self.attributes_with(number, self.links()[number])
    }

    pub(crate) fn attributes_with(&self, number: Number, links: u32) -> (Attributes, Option<u32>) {
        let node = &self.nodes[number];
        let (kind, size, rdev) = match &node.content {
            Content::Input(_, size) => (FileKind::Regular, *size, 0),
            Content::Staged(_) => (FileKind::Regular, 0, 0),
            Content::Link(target) => (FileKind::Symlink, target.len() as u64, 0),
            Content::Special(kind, rdev) => (FileKind::Special(*kind), 0, *rdev),
            Content::Directory => (FileKind::Directory, 4096, 0),
        };
        let attributes = Attributes {
            id: node.id.unwrap_or(InodeId(0)),
            kind,
            meta: node.meta,
            links,
            size,
            rdev,
            born: node.born,
        };
        (attributes, node.handle())
    }

    /// Paths of inputs, their bytes, and paths of what was made.
    pub(crate) fn report(&self) -> (Vec<String>, u64, Vec<String>) {
        let named = || self.paths.iter().map(|(p, n)| (p.clone(), &self.nodes[*n]));
        let used = self.nodes.iter().filter(|node| node.used);
        let used = used.filter_map(|node| Some((node.declared.clone()?, node.size_declared)));
        let mut used: Vec<_> = used.collect();
        used.sort_unstable();
        let bytes = used.iter().map(|(_, size)| size).sum();
        let output =
            |node: &Node| node.declared.is_none() && !matches!(node.content, Content::Special(..));
        let outputs = named().filter(|(_, node)| output(node));
        let outputs = outputs.map(|(path, _)| path).collect();
        (
            used.into_iter().map(|(path, _)| path).collect(),
            bytes,
            outputs,
        )
    }

    /// Marks what nobody can reach any more, and tells the handles that this lets go of.
    pub(crate) fn sweep(&mut self, links: &[u32]) -> Vec<u32> {
        let mut handles = Vec::new();
        for (node, links) in self.nodes.iter_mut().zip(links) {
            if *links == 0 && node.references == 0 && !node.gone {
                node.gone = true;
                handles.extend(node.handle());
            }
        }
        handles
    }
}

// Looking.
impl Model {
    fn directory(&self, id: InodeId) -> Answer<Number> {
        let number = self.at(id)?;
        match self.nodes[number].is_directory() {
            true => Ok(number),
            false => Err(vec![Fault::NotADirectory]),
        }
    }

    pub(crate) fn lookup(&mut self, id: InodeId, name: &str, caller: Caller) -> Answer<Number> {
        let directory = self.directory(id)?;
        if !self.nodes[directory].permits(caller, 1) {
            return Err(vec![Fault::Denied]);
        }
        let found = self.children(directory).get(name).copied();
        let number = found.ok_or(vec![Fault::NotFound])?;
        self.nodes[number].references += 1;
        Ok(number)
    }

    pub(crate) fn list(&self, id: InodeId) -> Answer<Number> {
        let directory = self.directory(id)?;
        match self.path_of(directory) {
            Some(_) => Ok(directory),
            None => Err(vec![Fault::NotFound]),
        }
    }

    pub(crate) fn open_directory(&self, id: InodeId, caller: Caller) -> Answer<()> {
        let directory = self.directory(id)?;
        match self.nodes[directory].permits(caller, 4) {
            true => Ok(()),
            false => Err(vec![Fault::Denied]),
        }
    }

    pub(crate) fn read_link(&mut self, id: InodeId) -> Answer<Vec<u8>> {
        let number = self.at(id)?;
        let node = &mut self.nodes[number];
        let Content::Link(target) = &node.content else {
            return Err(vec![Fault::WrongKind]);
        };
        node.used |= node.declared.is_some();
        Ok(target.clone())
    }

    pub(crate) fn access(&self, id: InodeId, caller: Caller, wanted: u16) -> Answer<()> {
        let node = &self.nodes[self.at(id)?];
        let mut faults = Vec::new();
        if node.read_only && !node.is_directory() && wanted & 2 != 0 {
            faults.push(Fault::ReadOnlyInput);
        }
        if !node.permits(caller, wanted) {
            faults.push(Fault::Denied);
        }
        refuse((), faults)
    }

    pub(crate) fn open(
        &mut self,
        id: InodeId,
        caller: Caller,
        intent: OpenIntent,
    ) -> Answer<Content> {
        let number = self.at(id)?;
        match self.nodes[number].content {
            Content::Directory => return Err(vec![Fault::IsADirectory]),
            Content::Link(_) | Content::Special(..) => return Err(vec![Fault::WrongKind]),
            Content::Input(..) | Content::Staged(_) => {}
        }
        // exec(2) asks for execute permission instead of read permission.
        let read = if intent.read && !intent.execute { 4 } else { 0 };
        let write = if intent.write { 2 } else { 0 };
        let execute = u16::from(intent.execute);
        self.access(id, caller, read + write + execute)?;
        let node = &mut self.nodes[number];
        node.used |= node.declared.is_some();
        if intent.truncate {
            drop_privileges(&mut node.meta);
        }
        Ok(node.content.clone())
    }
}

/// A write or a change of owner takes set-user-ID away, and set-group-ID if the group may run it.
fn drop_privileges(meta: &mut Meta) {
    if meta.perm & 0o10 != 0 {
        meta.perm &= !0o2000;
    }
    meta.perm &= !0o4000;
}

// Changing attributes.
impl Model {
    pub(crate) fn set_attributes(
        &mut self,
        id: InodeId,
        change: AttributeChange,
        caller: Caller,
        now: Time,
    ) -> Answer<Option<u32>> {
        let number = self.at(id)?;
        let node = &mut self.nodes[number];
        if node.read_only {
            return Err(vec![Fault::ReadOnlyInput]);
        }
        refuse((), change_faults(node, &change, caller))?;
        let regular = matches!(node.content, Content::Staged(_) | Content::Input(..));
        let meta = &mut node.meta;
        if change.uid.is_some() || change.gid.is_some() {
            (meta.uid, meta.gid) = (
                change.uid.unwrap_or(meta.uid),
                change.gid.unwrap_or(meta.gid),
            );
            if regular {
                drop_privileges(meta);
            }
        }
        if let Some(perm) = change.perm {
            let foreign = caller.uid != 0 && caller.gid != meta.gid;
            meta.perm = if regular && foreign {
                perm & !0o2000
            } else {
                perm
            };
        }
        for (time, set) in [
            (&mut meta.atime, change.atime),
            (&mut meta.mtime, change.mtime),
        ] {
            match set {
                Some(SetTime::Now) => *time = now,
                Some(SetTime::To(to)) => *time = to,
                None => {}
            }
        }
        meta.ctime = now;
        Ok(node.handle())
    }
}

fn change_faults(node: &Node, change: &AttributeChange, caller: Caller) -> Vec<Fault> {
    let mut faults = Vec::new();
    let (owner, writer) = (node.belongs_to(caller), node.permits(caller, 2));
    if change.size.is_some() {
        match node.content {
            Content::Staged(_) | Content::Input(..) if writer => {}
            Content::Staged(_) | Content::Input(..) => faults.push(Fault::Denied),
            Content::Directory => faults.push(Fault::IsADirectory),
            _ => faults.push(Fault::WrongKind),
        }
    }
    // A write takes set-user-ID away, by a request in the name of the writer.
    let mut least = node.meta;
    drop_privileges(&mut least);
    let regular = matches!(node.content, Content::Staged(_) | Content::Input(..));
    let between = |perm: u16| {
        let highest = perm | node.meta.perm == node.meta.perm;
        regular && writer && highest && perm & least.perm == least.perm
    };
    if change.perm.is_some_and(|perm| !owner && !between(perm)) {
        faults.push(Fault::NotPermitted);
    }
    // chown(2): only root gives away; the owner chooses among own groups; nobody else anything.
    let to_other = change.uid.is_some_and(|uid| uid != node.meta.uid);
    let own_group = |gid| gid == node.meta.gid || gid == caller.gid;
    let to_foreign = change.gid.is_some_and(|gid| !own_group(gid));
    let chown = change.uid.is_some() || change.gid.is_some();
    if caller.uid != 0 && (to_other || to_foreign || (chown && !owner)) {
        faults.push(Fault::NotPermitted);
    }
    // utimensat(2): a writer may set both times to now, and a truncation sets `mtime` with the
    // size. All else is for the owner.
    let now = Some(SetTime::Now);
    match (change.atime, change.mtime) {
        (None, None) => {}
        _ if owner => {}
        (atime, mtime) if atime == now && mtime == now => {
            if !writer {
                faults.push(Fault::Denied);
            }
        }
        (None, mtime) if mtime == now && change.size.is_some() => {}
        _ => faults.push(Fault::NotPermitted),
    }
    faults
}

// Content and extended attributes.
impl Model {
    /// Gives an input a handle, or tells that it has one.
    pub(crate) fn copy_up(&mut self, id: InodeId, handle: u32) -> Answer<u32> {
        let number = self.at(id)?;
        let node = &mut self.nodes[number];
        if node.read_only {
            return Err(vec![Fault::ReadOnlyInput]);
        }
        match node.content {
            Content::Staged(there) => Ok(there),
            Content::Input(..) => {
                node.content = Content::Staged(handle);
                Ok(handle)
            }
            _ => Err(vec![Fault::WrongKind]),
        }
    }

    /// Sets an extended attribute, or removes it.
    pub(crate) fn set_extended(
        &mut self,
        id: InodeId,
        name: &'static str,
        value: Option<Vec<u8>>,
        mode: SetMode,
        now: Time,
    ) -> Answer<()> {
        let number = self.at(id)?;
        let node = &mut self.nodes[number];
        let mut faults = Vec::new();
        if node.read_only {
            faults.push(Fault::ReadOnlyInput);
        }
        let there = node.extended.contains_key(name);
        match (&value, mode) {
            (None, _) | (Some(_), SetMode::Replace) if !there => faults.push(Fault::NoAttribute),
            (Some(_), SetMode::Create) if there => faults.push(Fault::Exists),
            _ => {}
        }
        refuse((), faults)?;
        match value {
            Some(value) => drop(node.extended.insert(name, value)),
            None => drop(node.extended.remove(name)),
        }
        node.meta.ctime = now;
        Ok(())
    }
}
