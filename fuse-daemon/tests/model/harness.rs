//! Does every step to the view and to the model, and compares all that can be seen.

#[path = "delta.rs"]
mod delta;
#[path = "listing.rs"]
mod listing;
#[path = "touched.rs"]
mod touched;

use std::collections::BTreeSet;

use cas::Name;
use cas::record::{Class, Level, Recording};
use cas::tree::{Entry, NodeIndex, Tree};
use fuse_daemon::view::{
    Access, Attributes, Caller, Fact, Fault, InodeId, InputPolicy, Meta, NewNode, OpenIntent,
    Opened, Policy, Released, RenameMode, SpecialKind, Time, View,
};

use listing::Cursor;
use touched::Touched;

use super::operation::{OWNER, Operation, Pick, Place, ROOT, Step, What, constant};
use super::reference::{Answer, Content, Model, Number};

pub(crate) type Verdict<T = ()> = Result<T, String>;

const BORN: Time = Time {
    seconds: 500,
    nanoseconds: 0,
};

pub(crate) struct World {
    view: View<u32>,
    tree: Tree,
    policy: Policy,
    /// All that the view ever told.
    facts: Vec<Fact<u32>>,
    model: Model,
    /// The model as it was when all was as declared.
    base: Model,
    touched: Touched,
    /// Link counts of the model after the last step.
    links: Vec<u32>,
    cursors: [Cursor; 3],
    clock: i64,
    handles: u32,
    released: Vec<u32>,
}

fn policy(tree: &Tree, changeable: &[String]) -> Policy {
    let find = |path: &String| {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        names.try_fold(NodeIndex::ROOT, |at, name| tree.child(at, valid(name)))
    };
    let tops = changeable.iter().filter_map(find).collect();
    let inputs = match changeable {
        [] => InputPolicy::ReadOnly,
        [all] if all.is_empty() => InputPolicy::CopyOnWrite,
        _ => InputPolicy::CopyOnWriteBelow(tops),
    };
    Policy {
        inputs,
        ..Policy::default()
    }
}

fn valid(name: &str) -> Name<'_> {
    Name::new(name.as_bytes()).expect("a name of the tests")
}

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(message()) }
}

/// Both succeed, or the view refuses for a reason that the model has too.
fn agree<V: std::fmt::Debug, M: std::fmt::Debug>(
    view: Result<V, Fault>,
    model: Answer<M>,
) -> Verdict<Option<(V, M)>> {
    match (view, model) {
        (Ok(view), Ok(model)) => Ok(Some((view, model))),
        (Err(fault), Err(right)) if right.contains(&fault) => Ok(None),
        (view, model) => Err(format!("the view says {view:?}, the model {model:?}")),
    }
}

impl World {
    pub(crate) fn new(entries: Vec<Entry>, changeable: &[String]) -> Verdict<Self> {
        let model = Model::new(&entries, changeable.to_vec(), OWNER, BORN);
        let tree = Tree::build(entries).map_err(|error| error.to_string())?;
        let policy = policy(&tree, changeable);
        let mut view = View::new(tree.clone(), OWNER, BORN, policy.clone());
        view.keep_facts();
        let mut world = Self {
            view,
            tree,
            policy,
            facts: Vec::new(),
            base: model.clone(),
            touched: Touched::default(),
            model,
            links: Vec::new(),
            cursors: Default::default(),
            clock: 1000,
            handles: 0,
            released: Vec::new(),
        };
        world.model.nodes[0].id = Some(InodeId::ROOT);
        let paths: Vec<_> = world.model.paths.keys().cloned().collect();
        for path in paths.iter().filter(|path| !path.is_empty()) {
            let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
            let parent = world.id_of(world.model.paths[above])?;
            world.lookup(parent, name, ROOT)?;
        }
        world.links = world.model.links();
        // From here on, so that there is something that was not used.
        world.touched = Touched::new(&world.model);
        world.view.keep_record(Recording {
            level: Level::Full,
            absent: true,
            each_look: false,
        });
        world.audit()?;
        Ok(world)
    }

    pub(crate) fn run(&mut self, step: &Step) -> Verdict {
        self.clock += 1;
        let released = self.apply(step)?;
        self.touched.follow(&self.model);
        self.facts.extend(self.view.take_facts());
        self.links = self.model.links();
        let mut expected = self.model.sweep(&self.links);
        let mut given = released.0;
        given.sort_unstable();
        expected.sort_unstable();
        ensure(given == expected, || {
            format!("released {given:?} and not {expected:?}")
        })?;
        self.released.extend(given);
        self.follow_cursors();
        self.audit()
    }

    fn now(&self) -> Time {
        Time {
            seconds: self.clock,
            nanoseconds: 1,
        }
    }

    fn id_of(&self, number: Number) -> Verdict<InodeId> {
        let id = self.model.nodes[number].id;
        id.ok_or(format!("node {number} was never seen"))
    }

    fn resolve(&self, pick: Pick) -> InodeId {
        let model = &self.model;
        let named = |n: &Number| self.links[*n] > 0;
        let all = 0..model.nodes.len();
        let (numbers, which): (Vec<Number>, u8) = match pick {
            Pick::Directory(which) => {
                let fits = |n: &Number| model.nodes[*n].is_directory() && named(n);
                (all.filter(fits).collect(), which)
            }
            Pick::Named(which) | Pick::Existing(which) => (all.filter(named).collect(), which),
            Pick::Removed(which) => {
                let fits = |n: &Number| !model.nodes[*n].gone && !named(n);
                (all.filter(fits).collect(), which)
            }
            Pick::Ever(which) => (all.collect(), which),
            Pick::Invented(which) => return self.invented(which),
        };
        match numbers.len() {
            0 => InodeId::ROOT,
            len => {
                let number = numbers[usize::from(which) % len];
                model.nodes[number].id.unwrap_or(InodeId::ROOT)
            }
        }
    }

    fn place(&self, place: Place) -> (InodeId, &'static str) {
        let paths = self.model.paths.keys();
        let paths: Vec<_> = paths.filter(|path| !path.is_empty()).collect();
        match place.directory {
            Pick::Existing(which) if !paths.is_empty() => {
                let path = paths[usize::from(which) % paths.len()];
                let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
                let id = self.model.nodes[self.model.paths[above]].id;
                (id.unwrap_or(InodeId::ROOT), constant(name))
            }
            pick => (self.resolve(pick), place.name),
        }
    }

    fn invented(&self, which: u8) -> InodeId {
        let highest = self.model.nodes.iter().filter_map(|node| node.id).max();
        let highest = highest.unwrap_or(InodeId::ROOT).0;
        let ids = [
            0,
            highest + 1,
            u64::MAX,
            highest + 1000,
            1 << 32,
            u64::MAX - 1,
        ];
        InodeId(ids[usize::from(which) % ids.len()])
    }

    fn apply(&mut self, step: &Step) -> Verdict<Released<u32>> {
        let caller = step.caller;
        match step.operation {
            Operation::Lookup(place) => {
                let parent = self.resolve(place.directory);
                self.lookup(parent, place.name, caller)?;
            }
            Operation::Make(place, what, perm) => self.make(place, what, perm, caller)?,
            Operation::Preload(place, perm) => self.preload(place, perm, caller)?,
            Operation::Link(pick, place) => self.link(pick, place, caller)?,
            Operation::Remove { place, directory } => {
                return self.remove(place, directory, caller);
            }
            Operation::Rename(from, to, mode) => {
                let ((old, a), (new, b), now) = (self.place(from), self.place(to), self.now());
                let moves = self.moves((old, a), (new, b));
                let view = self
                    .view
                    .rename(old, valid(a), new, valid(b), mode, caller, now);
                let model = self.model.rename(old, a, new, b, mode, caller, now);
                let done = agree(view, model)?;
                if done.is_some() && moves {
                    self.touch_name(old, a, Class::Rename);
                    self.touch_name(new, b, Class::Rename);
                }
                if done.is_some() && mode == RenameMode::Whiteout {
                    self.lookup(old, a, ROOT)?;
                }
                return Ok(done.map_or_else(Released::default, |(r, ())| r));
            }
            Operation::SetAttributes(pick, change) => {
                let (id, now) = (self.resolve(pick), self.now());
                let view = self.view.set_attributes(id, change, caller, now);
                self.touch_if(view.is_ok(), id, Class::Write);
                let model = self.model.set_attributes(id, change, caller, now);
                self.same(view, model)?;
            }
            Operation::List {
                cursor,
                from,
                limit,
            } => self.list(cursor, from, limit)?,
            Operation::Forget(pick, count) => return Ok(self.forget(pick, count)),
            Operation::MakeUnnamed(directory, perm) => {
                self.make_unnamed(directory, perm, caller)?;
            }
            Operation::CopyUp(pick) => return self.copy_up(pick),
            Operation::SetExtended(pick, name, ref value, mode) => {
                let (id, now, bytes) = (self.resolve(pick), self.now(), name.as_bytes());
                let view = match value {
                    Some(value) => self.view.set_extended(id, bytes, value, mode, now),
                    None => self.view.remove_extended(id, bytes, now),
                };
                let model = self.model.set_extended(id, name, value.clone(), mode, now);
                self.same(view, model)?;
            }
            _ => self.ask(step)?,
        }
        Ok(Released::default())
    }

    /// Operations that change at most what counts as used.
    fn ask(&mut self, step: &Step) -> Verdict {
        let caller = step.caller;
        match step.operation {
            Operation::Open(pick, intent) => {
                let id = self.resolve(pick);
                let view = self.view.open(id, caller, intent);
                self.touch_opened(id, intent, &view);
                let view = view.map(|opened| match opened {
                    Opened::Input { digest, size, .. } => Content::Input(digest, size),
                    Opened::Staged(handle) => Content::Staged(handle),
                });
                let model = self.model.open(id, caller, intent);
                self.same(view, model)
            }
            Operation::OpenDirectory(pick) => {
                let id = self.resolve(pick);
                let view = self.view.open_directory(id, caller);
                self.same(view, self.model.open_directory(id, caller))
            }
            Operation::Access(pick, wanted) => {
                let id = self.resolve(pick);
                let view = self.view.access(id, caller, Access(wanted));
                self.same(view, self.model.access(id, caller, wanted))
            }
            Operation::ReadLink(pick) => {
                let id = self.resolve(pick);
                let view = self.view.read_link(id).map(Vec::from);
                self.touch_if(view.is_ok(), id, Class::Readlink);
                let model = self.model.read_link(id);
                self.same(view, model)
            }
            _ => Err(format!("{step:?} is not handled")),
        }
    }

    fn same<T: PartialEq + std::fmt::Debug>(
        &self,
        view: Result<T, Fault>,
        model: Answer<T>,
    ) -> Verdict {
        match agree(view, model)? {
            Some((view, model)) => ensure(view == model, || {
                format!("the view says {view:?}, the model {model:?}")
            }),
            None => Ok(()),
        }
    }

    /// Compares what the view shows of a node, and learns its number.
    fn met(&mut self, number: Number, shown: &(Attributes, Option<u32>)) -> Verdict {
        let id = shown.0.id;
        if self.model.nodes[number].id.is_none() {
            let taken = self.model.nodes.iter().any(|node| node.id == Some(id));
            ensure(!taken, || format!("{id:?} is used again"))?;
            self.model.nodes[number].id = Some(id);
        }
        let expected = self.model.attributes(number);
        ensure(*shown == expected, || {
            format!("the view shows {shown:?}, the model {expected:?}")
        })
    }

    fn lookup(&mut self, parent: InodeId, name: &str, caller: Caller) -> Verdict {
        let view = self.view.lookup(parent, valid(name), caller);
        match &view {
            Ok(_) => self.touch_name(parent, name, Class::Stat),
            // Whether there is such a directory is said by the model, which knows no other.
            Err(Fault::NotFound) => self.touch_name(parent, name, Class::ProbeAbsent),
            Err(_) => {}
        }
        let model = self.model.lookup(parent, name, caller);
        match agree(view, model)? {
            Some((shown, number)) => self.met(number, &shown),
            None => Ok(()),
        }
    }

    fn make(&mut self, place: Place, what: What, perm: u16, caller: Caller) -> Verdict {
        let (parent, now) = (self.resolve(place.directory), self.now());
        self.handles += 1;
        let target = format!("target {}", self.handles).into_bytes();
        let (node, content) = match what {
            What::File => (NewNode::File(self.handles), Content::Staged(self.handles)),
            What::Directory => (NewNode::Directory, Content::Directory),
            What::Symlink => (
                NewNode::Symlink(target.clone().into()),
                Content::Link(target),
            ),
            What::Fifo => (
                NewNode::Special(SpecialKind::Fifo, 0),
                Content::Special(SpecialKind::Fifo, 0),
            ),
            What::Device(n) => (
                NewNode::Special(SpecialKind::Character, n.into()),
                Content::Special(SpecialKind::Character, n.into()),
            ),
        };
        let name = place.name;
        let view = self
            .view
            .make(parent, valid(name), node, perm.into(), caller, now);
        if view.is_ok() {
            self.touch_name(parent, name, Class::Create);
        }
        let model = self.model.make(parent, name, content, perm, caller, now);
        match agree(view, model)? {
            Some((attributes, number)) => {
                let staged = self.model.attributes(number).1;
                self.met(number, &(attributes, staged))
            }
            None => Ok(()),
        }
    }

    fn make_unnamed(&mut self, directory: Pick, perm: u16, caller: Caller) -> Verdict {
        let (parent, now) = (self.resolve(directory), self.now());
        self.handles += 1;
        let handle = self.handles;
        let view = self
            .view
            .make_unnamed(parent, handle, perm.into(), caller, now);
        let model = self.model.make_unnamed(parent, handle, perm, caller, now);
        match agree(view, model)? {
            Some((attributes, number)) => {
                // The model counts links of a node that it has just added only now.
                self.met(number, &(attributes, Some(handle)))
            }
            None => Ok(()),
        }
    }

    fn copy_up(&mut self, pick: Pick) -> Verdict<Released<u32>> {
        let id = self.resolve(pick);
        self.handles += 1;
        let view = self.view.copy_up(id, self.handles);
        let handle = self.handles;
        let copied = matches!(&view, Ok((there, _)) if *there == handle);
        self.touch_if(copied, id, Class::Write);
        let model = self.model.copy_up(id, self.handles);
        let Some(((there, released), expected)) = agree(view, model)? else {
            return Ok(Released::default());
        };
        ensure(there == expected, || format!("{there} and not {expected}"))?;
        // The view gives back what it has no use for, which the model never had.
        let unused = if there == self.handles {
            vec![]
        } else {
            vec![self.handles]
        };
        ensure(released.0 == unused, || {
            format!("gave back {:?}", released.0)
        })?;
        Ok(Released::default())
    }

    fn preload(&mut self, place: Place, perm: u16, caller: Caller) -> Verdict {
        let (parent, time) = (self.resolve(place.directory), self.now());
        self.handles += 1;
        let meta = Meta {
            perm,
            uid: caller.uid,
            gid: caller.gid,
            atime: BORN,
            mtime: time,
            ctime: time,
        };
        let view = self
            .view
            .preload(parent, valid(place.name), self.handles, meta);
        let model = self.model.preload(parent, place.name, self.handles, meta);
        match agree(view, model)? {
            Some((id, number)) => {
                let shown = self.view.attributes(id).map_err(|e| e.to_string())?;
                self.met(number, &shown)
            }
            None => Ok(()),
        }
    }

    fn link(&mut self, pick: Pick, place: Place, caller: Caller) -> Verdict {
        let (id, parent) = (self.resolve(pick), self.resolve(place.directory));
        let (name, now) = (place.name, self.now());
        let view = self.view.link(id, parent, valid(name), caller, now);
        if view.is_ok() {
            self.touch_name(parent, name, Class::Create);
        }
        let model = self.model.link(id, parent, name, caller, now);
        match agree(view, model)? {
            Some((shown, number)) => self.met(number, &shown),
            None => Ok(()),
        }
    }

    fn remove(&mut self, place: Place, directory: bool, caller: Caller) -> Verdict<Released<u32>> {
        let ((parent, name), now) = (self.place(place), self.now());
        let view = match directory {
            true => self.view.remove_directory(parent, valid(name), caller, now),
            false => self.view.unlink(parent, valid(name), caller, now),
        };
        if view.is_ok() {
            self.touch_name(parent, name, Class::Delete);
        }
        let model = self.model.remove(parent, name, directory, caller, now);
        Ok(agree(view, model)?.map_or_else(Released::default, |(released, ())| released))
    }

    /// Forgets some references, or all of them.
    fn forget(&mut self, pick: Pick, count: u8) -> Released<u32> {
        let id = self.resolve(pick);
        let count = if count < 128 {
            u64::MAX
        } else {
            u64::from(count % 4)
        };
        if let Ok(number) = self.model.at(id) {
            let references = &mut self.model.nodes[number].references;
            *references = references.saturating_sub(count);
        }
        self.view.forget(id, count)
    }
}

// What the record is to tell.
impl World {
    fn touch_name(&mut self, parent: InodeId, name: &str, class: Class) {
        if let Ok(number) = self.model.at(parent) {
            let there = self.model.path_of(number).is_some();
            self.touched.name(number, name, class, there);
        }
    }

    fn touch_if(&mut self, done: bool, id: InodeId, class: Class) {
        if let Ok(number) = self.model.at(id)
            && done
        {
            let there = self.model.path_of(number).is_some();
            self.touched.node(number, class, there);
        }
    }

    fn touch_opened(&mut self, id: InodeId, intent: OpenIntent, view: &Result<Opened<u32>, Fault>) {
        let staged = matches!(view, Ok(Opened::Staged(_)));
        let read = intent.read && !intent.execute;
        self.touch_if(view.is_ok() && intent.execute, id, Class::Exec);
        self.touch_if(view.is_ok() && read, id, Class::Read);
        self.touch_if(staged && intent.write, id, Class::Write);
    }

    /// Whether a rename that succeeds does anything: not between two names of one file.
    fn moves(&self, from: (InodeId, &str), to: (InodeId, &str)) -> bool {
        let find = |(parent, name): (InodeId, &str)| {
            let above = self.model.path_of(self.model.at(parent).ok()?)?;
            self.model.paths.get(&super::reference::join(above, name))
        };
        find(from).is_none() || find(from) != find(to)
    }
}

// What must hold after every step.
impl World {
    fn audit(&self) -> Verdict {
        self.view.check_invariants()?;
        for (number, &links) in self.links.iter().enumerate() {
            let id = self.id_of(number)?;
            let shown = self.view.attributes(id);
            let expected = match self.model.nodes[number].gone {
                true => Err(Fault::Stale),
                false => Ok(self.model.attributes_with(number, links)),
            };
            ensure(shown == expected, || {
                format!("node {number}: the view shows {shown:?}, the model {expected:?}")
            })?;
        }
        // Costs as much as all the rest, and what it misses now it finds later.
        if self.clock % 8 == 0 {
            self.compare_reports()?;
            self.compare_paths(&self.view)?;
            self.compare_extended(&self.view)?;
        }
        if self.clock % 32 == 0 {
            self.compare_restored(self.facts.clone())?;
            self.compare_restored(self.view.snapshot())?;
            let record = self.view.record().ok_or("no record")?;
            self.touched.compare(&record)?;
        }
        Ok(())
    }

    /// What was told of the view makes the same view again, but for what has no name.
    fn compare_restored(&self, facts: Vec<Fact<u32>>) -> Verdict {
        let (tree, policy) = (self.tree.clone(), self.policy.clone());
        let view = View::restore(tree, OWNER, BORN, policy, facts).map_err(|e| e.to_string())?;
        view.check_invariants()?;
        for (number, &links) in self
            .links
            .iter()
            .enumerate()
            .filter(|(_, links)| **links > 0)
        {
            let shown = view.attributes(self.id_of(number)?);
            let expected = Ok(self.model.attributes_with(number, links));
            ensure(shown == expected, || {
                format!("node {number}: restored {shown:?}, the model {expected:?}")
            })?;
        }
        self.compare_paths(&view)?;
        self.compare_extended(&view)
    }

    fn compare_extended(&self, view: &View<u32>) -> Verdict {
        for (number, node) in self.model.nodes.iter().enumerate() {
            if self.links[number] == 0 {
                continue;
            }
            let id = self.id_of(number)?;
            let names: Vec<u8> = node
                .extended
                .keys()
                .flat_map(|name| [name, "\0"].concat().into_bytes())
                .collect();
            let shown = view.list_extended(id);
            ensure(shown == Ok(names), || {
                format!("node {number}: attributes {shown:?}")
            })?;
            for (name, value) in &node.extended {
                let shown = view.extended(id, name.as_bytes());
                let same = shown.as_deref() == Ok(value);
                ensure(same, || format!("node {number}: {name} is {shown:?}"))?;
            }
        }
        Ok(())
    }

    fn compare_paths(&self, view: &View<u32>) -> Verdict {
        for (path, number) in &self.model.paths {
            let names = path.split('/').filter(|name| !name.is_empty());
            let found = view.resolve_directory(names.map(valid));
            let (node, id) = (&self.model.nodes[*number], self.id_of(*number)?);
            let expected = match node.is_directory() {
                true => Ok(id),
                false => Err(Fault::NotADirectory),
            };
            ensure(found == expected, || format!("{path} is {found:?}"))?;
            let declared = view.is_declared(id);
            ensure(declared == node.declared.is_some(), || {
                format!("{path}: declared")
            })?;
        }
        Ok(())
    }

    fn compare_reports(&self) -> Verdict {
        let report = self.view.report();
        let (inputs, bytes, made) = self.model.report();
        let mut given: Vec<_> = report.inputs.iter().map(|p| p.to_string()).collect();
        given.sort_unstable();
        ensure(given == inputs, || format!("inputs {given:?}, {inputs:?}"))?;
        ensure(report.in_bytes == bytes, || "bytes of inputs".into())?;
        ensure(report.outputs.is_sorted_by_key(|(path, _)| path), || {
            "outputs are not sorted".into()
        })?;
        let given = report.outputs.iter().map(|(path, _)| path.to_string());
        let (given, made): (BTreeSet<_>, BTreeSet<_>) =
            (given.collect(), made.into_iter().collect());
        ensure(given.is_superset(&made), || {
            format!("outputs {given:?} without {made:?}")
        })?;
        let changeable = self
            .model
            .nodes
            .iter()
            .any(|node| node.declared.is_some() && !node.read_only);
        ensure(changeable || given == made, || {
            format!("outputs {given:?} and not {made:?}")
        })?;
        delta::check(&report, &self.base, &self.model)
    }

    /// Ends the job: the kernel forgets all, and the handle of everything without a name has come
    /// back exactly once.
    pub(crate) fn end(mut self) -> Verdict {
        for number in 0..self.model.nodes.len() {
            let id = self.id_of(number)?;
            self.model.nodes[number].references = 0;
            self.released.extend(self.view.forget(id, u64::MAX).0);
            self.model.sweep(&self.links);
        }
        let kept = self.model.nodes.iter().filter(|node| !node.gone);
        let kept = kept.filter(|node| matches!(node.content, Content::Staged(_)));
        let made = self.model.nodes.iter();
        let made = made.filter(|node| matches!(node.content, Content::Staged(_)));
        let expected = made.count() - kept.count();
        let mut released = std::mem::take(&mut self.released);
        let count = released.len();
        released.sort_unstable();
        released.dedup();
        ensure(released.len() == count && count == expected, || {
            format!("{count} handles came back and not {expected}: {released:?}")
        })?;
        self.audit()?;
        let record = self.view.record().ok_or("no record")?;
        self.touched.compare(&record)?;
        self.compare_reports()
    }
}
