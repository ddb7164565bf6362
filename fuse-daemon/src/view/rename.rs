//! Moving names.

use cas::Name;
use cas::record::Class;

use super::access::{Access, Caller};
use super::inode::{FileKind, Inode, InodeId, Kind, Meta, SpecialKind, Time};
use super::{Fault, Released, Result, View};

/// What happens to a name that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// It is replaced.
    Replace,
    /// The rename is refused (`RENAME_NOREPLACE`).
    NoReplace,
    /// The two change places (`RENAME_EXCHANGE`).
    Exchange,
    /// It is replaced, and what stays behind is what a union of file systems takes for "removed":
    /// a character device 0:0 (`RENAME_WHITEOUT`).
    Whiteout,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
struct Spot<'a> {
    parent: InodeId,
    name: Name<'a>,
}

impl<S: Clone> View<S> {
    /// Renames, within a directory or from one to another.
    #[expect(
        clippy::too_many_arguments,
        reason = "the operands of renameat2(2), who asks, and when"
    )]
    pub fn rename(
        &mut self,
        parent: InodeId,
        name: Name<'_>,
        new_parent: InodeId,
        new_name: Name<'_>,
        mode: RenameMode,
        caller: Caller,
        now: Time,
    ) -> Result<Released<S>> {
        let (from, to) = (
            Spot { parent, name },
            Spot {
                parent: new_parent,
                name: new_name,
            },
        );
        self.may_change_names(from.parent, caller)?;
        self.may_change_names(to.parent, caller)?;
        let source = self.child(from.parent, from.name).ok_or(Fault::NotFound)?;
        let target = self.child(to.parent, to.name);
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => Err(Fault::Exists),
            (RenameMode::Exchange, None) => Err(Fault::NotFound),
            // rename(2): two names of one file stay as they are.
            (_, Some(target)) if target == source => Ok(Released::default()),
            (RenameMode::Exchange, Some(target)) => {
                self.exchange(from, source, to, target, caller, now)
            }
            (mode, target) => {
                self.may_move(source, from.parent, to.parent, caller)?;
                if let Some(target) = target {
                    self.may_replace(source, to.parent, target, caller)?;
                }
                let whiteout = mode == RenameMode::Whiteout;
                let behind = whiteout.then(|| self.whiteout(caller, now));
                self.replace(from, behind, source, to, target, now)
            }
        }
    }

    fn replace(
        &mut self,
        from: Spot<'_>,
        behind: Option<InodeId>,
        source: InodeId,
        to: Spot<'_>,
        target: Option<InodeId>,
        now: Time,
    ) -> Result<Released<S>> {
        self.note_name(from.parent, from.name, Class::Rename);
        self.set_name(from.parent, from.name, behind, now)?;
        self.place(source, to, now)?;
        Ok(target.map_or_else(Released::default, |target| self.unname(target, now)))
    }

    fn whiteout(&mut self, caller: Caller, now: Time) -> InodeId {
        let meta = Meta {
            perm: 0,
            uid: caller.uid,
            gid: caller.gid,
            atime: now,
            mtime: now,
            ctime: now,
        };
        let kind = Kind::Special(SpecialKind::Character, 0);
        self.insert(Inode {
            links: 1,
            ..Inode::new(meta, now, kind)
        })
    }

    fn exchange(
        &mut self,
        from: Spot<'_>,
        source: InodeId,
        to: Spot<'_>,
        target: InodeId,
        caller: Caller,
        now: Time,
    ) -> Result<Released<S>> {
        self.may_move(source, from.parent, to.parent, caller)?;
        self.may_move(target, to.parent, from.parent, caller)?;
        self.place(source, to, now)?;
        self.place(target, from, now)?;
        Ok(Released::default())
    }

    /// Gives a moved inode its new name, in place of what had it, and a moved directory its new parent.
    fn place(&mut self, id: InodeId, spot: Spot<'_>, now: Time) -> Result<()> {
        self.set_name(spot.parent, spot.name, Some(id), now)?;
        let inode = self.inode_mut(id)?;
        inode.meta.ctime = now;
        if let Kind::Directory(directory) = &mut inode.kind {
            directory.parent = spot.parent;
            directory.name = Some(spot.name.to_owned());
        }
        self.note_name(spot.parent, spot.name, Class::Rename);
        Ok(())
    }

    /// Checks that an entry may leave its directory for another, or for another name.
    fn may_move(&self, id: InodeId, from: InodeId, to: InodeId, caller: Caller) -> Result<()> {
        self.may_remove(from, id, caller)?;
        self.may_move_below(id, to)?;
        // rename(2): a new parent changes the directory's `..`, which is to write to it.
        match self.kind_of(id)? {
            FileKind::Directory if from != to => self.access(id, caller, Access::WRITE),
            _ => Ok(()),
        }
    }

    /// A directory cannot move below itself.
    fn may_move_below(&self, id: InodeId, mut directory: InodeId) -> Result<()> {
        while directory != InodeId::ROOT {
            if directory == id {
                return Err(Fault::IntoItself);
            }
            directory = self.parent_of(directory);
        }
        Ok(())
    }

    fn may_replace(
        &self,
        source: InodeId,
        parent: InodeId,
        target: InodeId,
        caller: Caller,
    ) -> Result<()> {
        self.may_remove(parent, target, caller)?;
        let is_directory = |kind| kind == FileKind::Directory;
        match (
            is_directory(self.kind_of(source)?),
            is_directory(self.kind_of(target)?),
        ) {
            (true, false) => Err(Fault::NotADirectory),
            (false, true) => Err(Fault::IsADirectory),
            (true, true) if !self.directory_is_empty(target) => Err(Fault::NotEmpty),
            _ => Ok(()),
        }
    }
}
