//! The reference: making, linking, removing and moving names.

use fuse_daemon::view::{Caller, Fault, InodeId, Meta, RenameMode, SpecialKind, Time};

use super::{Answer, Content, Model, Number, ROOT, below, join, refuse, split};

// Changing names.
impl Model {
    /// The path of a directory in which a caller may add and remove names.
    fn changeable(&self, id: InodeId, caller: Caller) -> Answer<String> {
        let directory = self.directory(id)?;
        let path = self.path_of(directory).ok_or(vec![Fault::NotFound])?;
        match self.nodes[directory].permits(caller, 3) {
            true => Ok(path.to_owned()),
            false => Err(vec![Fault::Denied]),
        }
    }

    fn touch(&mut self, directory: &str, now: Time) {
        let number = self.paths[directory];
        let meta = &mut self.nodes[number].meta;
        (meta.mtime, meta.ctime) = (now, now);
    }

    pub(crate) fn make(
        &mut self,
        parent: InodeId,
        name: &str,
        content: Content,
        perm: u16,
        caller: Caller,
        now: Time,
    ) -> Answer<Number> {
        let directory = self.changeable(parent, caller)?;
        if self.child(&directory, name).is_some() {
            return Err(vec![Fault::Exists]);
        }
        let above = self.nodes[self.paths[&directory]].meta;
        let mut meta = Meta {
            perm,
            uid: caller.uid,
            gid: caller.gid,
            atime: now,
            mtime: now,
            ctime: now,
        };
        if above.perm & 0o2000 != 0 {
            meta.gid = above.gid;
            if content == Content::Directory {
                meta.perm |= 0o2000;
            }
        }
        if matches!(content, Content::Link(_)) {
            meta.perm = 0o777;
        }
        let number = self.add(content, meta, now);
        self.nodes[number].references = 1;
        self.paths.insert(join(&directory, name), number);
        self.touch(&directory, now);
        Ok(number)
    }

    pub(crate) fn make_unnamed(
        &mut self,
        parent: InodeId,
        handle: u32,
        perm: u16,
        caller: Caller,
        now: Time,
    ) -> Answer<Number> {
        let directory = self.changeable(parent, caller)?;
        let above = self.nodes[self.paths[&directory]].meta;
        let inherits = above.perm & 0o2000 != 0;
        let meta = Meta {
            perm,
            uid: caller.uid,
            gid: if inherits { above.gid } else { caller.gid },
            atime: now,
            mtime: now,
            ctime: now,
        };
        let number = self.add(Content::Staged(handle), meta, now);
        (self.nodes[number].references, self.nodes[number].unnamed) = (1, true);
        Ok(number)
    }

    pub(crate) fn preload(
        &mut self,
        parent: InodeId,
        name: &str,
        handle: u32,
        meta: Meta,
    ) -> Answer<Number> {
        let directory = self.list(parent)?;
        if self.children(directory).contains_key(name) {
            return Err(vec![Fault::Exists]);
        }
        let path = join(self.path_of(directory).unwrap_or_default(), name);
        let number = self.add(Content::Staged(handle), meta, meta.ctime);
        self.paths.insert(path, number);
        Ok(number)
    }

    pub(crate) fn link(
        &mut self,
        id: InodeId,
        parent: InodeId,
        name: &str,
        caller: Caller,
        now: Time,
    ) -> Answer<Number> {
        let mut faults = Vec::new();
        let number = self.at(id).unwrap_or_else(|stale| {
            faults.extend(stale);
            ROOT
        });
        let node = &self.nodes[number];
        if node.is_directory() || node.read_only {
            faults.push(Fault::NotPermitted);
        }
        if self.path_of(number).is_none() && !node.unnamed {
            // link(2): what lost its last name does not come back.
            faults.push(Fault::NotFound);
        }
        let directory = match self.changeable(parent, caller) {
            Ok(directory) => directory,
            Err(refused) => return Err([faults, refused].concat()),
        };
        if self.child(&directory, name).is_some() {
            faults.push(Fault::Exists);
        }
        refuse((), faults)?;
        self.paths.insert(join(&directory, name), number);
        self.touch(&directory, now);
        let node = &mut self.nodes[number];
        node.meta.ctime = now;
        node.unnamed = false;
        node.references += 1;
        Ok(number)
    }

    /// Why an entry may not be taken out of a directory.
    fn removal_faults(&self, directory: &str, number: Number, caller: Caller) -> Vec<Fault> {
        let (above, node) = (&self.nodes[self.paths[directory]], &self.nodes[number]);
        let mut faults = Vec::new();
        if node.read_only {
            faults.push(Fault::ReadOnlyInput);
        }
        let sticky = above.meta.perm & 0o1000 != 0;
        if sticky && !above.belongs_to(caller) && !node.belongs_to(caller) {
            faults.push(Fault::NotPermitted);
        }
        faults
    }

    pub(crate) fn remove(
        &mut self,
        parent: InodeId,
        name: &str,
        want_directory: bool,
        caller: Caller,
        now: Time,
    ) -> Answer<()> {
        let directory = self.changeable(parent, caller)?;
        let found = self.child(&directory, name);
        let number = found.ok_or(vec![Fault::NotFound])?;
        let mut faults = self.removal_faults(&directory, number, caller);
        match (want_directory, self.nodes[number].is_directory()) {
            (true, false) => faults.push(Fault::NotADirectory),
            (false, true) => faults.push(Fault::IsADirectory),
            _ => {}
        }
        if want_directory && !self.children(number).is_empty() {
            faults.push(Fault::NotEmpty);
        }
        refuse((), faults)?;
        self.paths.remove(&join(&directory, name));
        self.nodes[number].meta.ctime = now;
        self.touch(&directory, now);
        Ok(())
    }
}

/// A rename whose directories have been found.
struct Move {
    from: String,
    to: String,
    mode: RenameMode,
    caller: Caller,
}

impl Move {
    fn parents(&self) -> (&str, &str) {
        (split(&self.from).0, split(&self.to).0)
    }
}

// Renaming.
impl Model {
    #[expect(clippy::too_many_arguments, reason = "the operands of the view")]
    pub(crate) fn rename(
        &mut self,
        parent: InodeId,
        name: &str,
        new_parent: InodeId,
        new_name: &str,
        mode: RenameMode,
        caller: Caller,
        now: Time,
    ) -> Answer<()> {
        let (old, new) = (
            self.changeable(parent, caller),
            self.changeable(new_parent, caller),
        );
        let (old, new) = match (old, new) {
            (Ok(old), Ok(new)) => (old, new),
            (Err(a), Err(b)) => return Err([a, b].concat()),
            (Err(faults), _) | (_, Err(faults)) => return Err(faults),
        };
        let (from, to) = (join(&old, name), join(&new, new_name));
        let source = *self.paths.get(&from).ok_or(vec![Fault::NotFound])?;
        let target = self.paths.get(&to).copied();
        if target == Some(source) && mode != RenameMode::NoReplace {
            return Ok(());
        }
        let step = Move {
            from,
            to,
            mode,
            caller,
        };
        refuse((), self.rename_faults(&step, source, target))?;
        self.apply_rename(&step);
        if mode == RenameMode::Whiteout {
            let meta = Meta {
                perm: 0,
                uid: caller.uid,
                gid: caller.gid,
                atime: now,
                mtime: now,
                ctime: now,
            };
            let whiteout = Content::Special(SpecialKind::Character, 0);
            let number = self.add(whiteout, meta, now);
            self.paths.insert(step.from.clone(), number);
        }
        for moved in [Some(source), target].into_iter().flatten() {
            self.nodes[moved].meta.ctime = now;
        }
        self.touch(&old, now);
        self.touch(&new, now);
        Ok(())
    }

    fn rename_faults(&self, step: &Move, source: Number, target: Option<Number>) -> Vec<Fault> {
        let (old, new) = step.parents();
        let mut faults = self.removal_faults(old, source, step.caller);
        faults.extend(self.move_faults(source, &step.from, old, new, step.caller));
        match (step.mode, target) {
            (RenameMode::NoReplace, Some(_)) => faults.push(Fault::Exists),
            (RenameMode::Exchange, None) => faults.push(Fault::NotFound),
            (RenameMode::Exchange, Some(target)) => {
                faults.extend(self.removal_faults(new, target, step.caller));
                faults.extend(self.move_faults(target, &step.to, new, old, step.caller));
            }
            (RenameMode::Replace | RenameMode::Whiteout, Some(target)) => {
                faults.extend(self.removal_faults(new, target, step.caller));
                faults.extend(self.replace_faults(source, target));
            }
            (_, None) => {}
        }
        faults
    }

    /// A directory does not go below itself, and its `..` is changed only by who may write to it.
    fn move_faults(
        &self,
        number: Number,
        path: &str,
        old: &str,
        new: &str,
        caller: Caller,
    ) -> Vec<Fault> {
        let mut faults = Vec::new();
        let node = &self.nodes[number];
        if node.is_directory() && below(new, path) {
            faults.push(Fault::IntoItself);
        }
        if node.is_directory() && old != new && !node.permits(caller, 2) {
            faults.push(Fault::Denied);
        }
        faults
    }

    fn replace_faults(&self, source: Number, target: Number) -> Vec<Fault> {
        let mut faults = Vec::new();
        match (
            self.nodes[source].is_directory(),
            self.nodes[target].is_directory(),
        ) {
            (true, false) => faults.push(Fault::NotADirectory),
            (false, true) => faults.push(Fault::IsADirectory),
            _ => {}
        }
        if !self.children(target).is_empty() {
            faults.push(Fault::NotEmpty);
        }
        faults
    }

    fn apply_rename(&mut self, step: &Move) {
        let moved = self.take(&step.from);
        let other = self.take(&step.to);
        self.put(&step.to, moved);
        if step.mode == RenameMode::Exchange {
            self.put(&step.from, other);
        }
    }

    /// Takes out a path and all below it; what is left of each path begins at the moved name.
    fn take(&mut self, path: &str) -> Vec<(String, Number)> {
        let all = self.paths.iter().filter(|(p, _)| below(p, path));
        let taken: Vec<_> = all.map(|(p, n)| (p[path.len()..].to_owned(), *n)).collect();
        self.paths.retain(|p, _| !below(p, path));
        taken
    }

    fn put(&mut self, path: &str, taken: Vec<(String, Number)>) {
        for (rest, number) in taken {
            self.paths.insert(format!("{path}{rest}"), number);
        }
    }
}
