//! What must hold after every call, checked.

use rustc_hash::FxHashMap;

use super::View;
use super::inode::{FileKind, Inode, InodeId, Kind};

impl<S: Clone> View<S> {
    /// Checks the invariants of the module's documentation and names the first that is broken.
    /// For tests: it visits everything.
    pub fn check_invariants(&self) -> std::result::Result<(), String> {
        let mut names: FxHashMap<InodeId, u32> = FxHashMap::default();
        for (&id, inode) in &self.table {
            if id.0 >= self.next {
                return Err(format!("{id:?} is beyond the next number"));
            }
            if let Kind::Directory(_) = &inode.kind {
                self.check_directory(id, inode, &mut names)?;
            }
        }
        for (&id, inode) in self.table.iter().filter(|(id, _)| !self.is_declared(**id)) {
            let counted = names.get(&id).copied().unwrap_or(0);
            if inode.links != counted {
                return Err(format!(
                    "{id:?} has {} links and {counted} names",
                    inode.links
                ));
            }
            if counted == 0 && inode.lookups == 0 {
                return Err(format!("{id:?} is kept although nobody knows it"));
            }
        }
        Ok(())
    }

    fn check_directory(
        &self,
        id: InodeId,
        inode: &Inode<S>,
        names: &mut FxHashMap<InodeId, u32>,
    ) -> std::result::Result<(), String> {
        let Kind::Directory(directory) = &inode.kind else {
            return Ok(());
        };
        if !directory.made.agree() {
            return Err(format!("the entries of {id:?} disagree"));
        }
        if inode.links == 0 && !directory.made.is_empty() {
            return Err(format!("{id:?} was removed and still holds names"));
        }
        let node = self.node_of(id);
        let declared = node.map_or(0..0, |node| self.tree.children(node));
        let is_directory = |child| self.kind_of(child) == Ok(FileKind::Directory);
        let mut subdirectories = declared
            .filter(|&child| is_directory(Self::id_of(cas::tree::NodeIndex(child))))
            .count();
        for (name, child) in directory.made.iter() {
            if node.is_some_and(|node| self.tree.child(node, name).is_some()) {
                return Err(format!("{name:?} is both declared and made in {id:?}"));
            }
            *names.entry(child).or_default() += 1;
            if is_directory(child) {
                subdirectories += 1;
                if self.parent_of(child) != id
                    || self.directory_name(child).as_ref().map(|n| n.as_name()) != Some(name)
                {
                    return Err(format!(
                        "{child:?} does not know that it is {name:?} in {id:?}"
                    ));
                }
            }
        }
        if subdirectories != directory.subdirectories as usize {
            return Err(format!(
                "{id:?} counts {} directories of {subdirectories}",
                directory.subdirectories
            ));
        }
        Ok(())
    }
}
