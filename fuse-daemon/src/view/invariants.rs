//! What must hold after every call, checked.

use cas::NameBuf;
use rustc_hash::FxHashMap;

use super::View;
use super::inode::{Directory, FileKind, InodeId, Kind};
use super::names::{Entry, Place};

impl<S: Clone> View<S> {
    /// Checks the invariants of the module's documentation and names the first that is broken.
    /// For tests: it visits everything.
    pub fn check_invariants(&self) -> std::result::Result<(), String> {
        let mut names: FxHashMap<InodeId, u32> = FxHashMap::default();
        for (&id, inode) in &self.table {
            if id.0 >= self.next {
                return Err(format!("{id:?} is beyond the next number"));
            }
            if let Kind::Directory(directory) = &inode.kind {
                self.check_directory(id, inode.links, directory, &mut names)?;
            }
        }
        for (&id, inode) in &self.table {
            let counted = names.get(&id).copied().unwrap_or(0) + u32::from(self.is_elsewhere(id));
            if inode.links != counted {
                return Err(format!(
                    "{id:?} has {} links and {counted} names",
                    inode.links
                ));
            }
            if counted == 0 && !self.references.contains_key(&id) {
                return Err(format!("{id:?} is kept although nobody knows it"));
            }
        }
        match self
            .gone
            .iter()
            .find(|node| self.table.contains_key(&Self::id_of(**node)))
        {
            Some(node) => Err(format!("{node:?} is gone and in the table")),
            None => Ok(()),
        }
    }

    /// Whether an inode has a name that no directory of the table holds: the root, and what is
    /// declared in a directory that is as declared.
    fn is_elsewhere(&self, id: InodeId) -> bool {
        let parent = self.declared(id).map(|(_, node)| Self::id_of(node.parent));
        id == InodeId::ROOT
            || parent.is_ok_and(|parent| {
                self.declared(parent).is_ok() && !self.table.contains_key(&parent)
            })
    }

    fn check_directory(
        &self,
        id: InodeId,
        links: u32,
        directory: &Directory,
        names: &mut FxHashMap<InodeId, u32>,
    ) -> std::result::Result<(), String> {
        if !directory.made.agree() {
            return Err(format!("the entries of {id:?} disagree"));
        }
        if links == 0 && !self.directory_is_empty(id) {
            return Err(format!("{id:?} was removed and still holds names"));
        }
        let node = self.node_of(id);
        let mut subdirectories = 0;
        for Entry {
            name,
            id: child,
            place,
        } in self.all_names(id)
        {
            let declared = node.is_some_and(|node| self.tree.child(node, name).is_some());
            if declared == matches!(place, Place::Made(_)) {
                return Err(format!("{name:?} is both declared and made in {id:?}"));
            }
            *names.entry(child).or_default() += 1;
            if self.kind_of(child) == Ok(FileKind::Directory) {
                subdirectories += 1;
                let known_as = self.directory_name(child);
                if self.parent_of(child) != id
                    || known_as.as_ref().map(NameBuf::as_name) != Some(name)
                {
                    return Err(format!(
                        "{child:?} does not know that it is {name:?} in {id:?}"
                    ));
                }
            }
        }
        if subdirectories != directory.subdirectories {
            return Err(format!(
                "{id:?} counts {} directories of {subdirectories}",
                directory.subdirectories
            ));
        }
        Ok(())
    }
}
