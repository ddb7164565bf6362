//! Looking in from outside. Nothing here changes a view, so nothing here is the job's doing: no
//! reference of the kernel is counted, no input becomes a used one, no record is kept.

use cas::look::{Entry, EntryKind, Origin};
use cas::text::Text;
use cas::tree::NodeKind;
use cas::{Name, RelPath};

use super::inode::{FileKind, InodeId, Kind};
use super::read::FIRST_CHILD;
use super::{Fault, Opened, Result, View};

/// Something that was seen.
#[derive(Debug)]
pub struct Peeked<S> {
    /// What is known of it. Length and time of what the job wrote are those of what backs it.
    pub entry: Entry,
    /// What backs it, if the job wrote it.
    pub staged: Option<S>,
}

impl<S: Clone> View<S> {
    /// Where a path leads; `None` is the root. Links are not followed.
    ///
    /// # Errors
    /// [`Fault::NotFound`] and [`Fault::NotADirectory`], as lookups have them.
    pub fn peek(&self, path: Option<&RelPath>) -> Result<InodeId> {
        let names = path.into_iter().flat_map(RelPath::names);
        names.into_iter().try_fold(InodeId::ROOT, |at, name| {
            self.directory_state(at)?;
            self.child(at, name).ok_or(Fault::NotFound)
        })
    }

    /// Up to `limit` entries of a directory from an offset on, which is 0 or was returned with the
    /// page before; with them the offset of the next page, if this one is full. Anything but a
    /// directory is its only entry, by the name that it is asked for.
    ///
    /// # Errors
    /// As of [`View::peek`].
    pub fn peek_at(
        &self,
        path: Option<&RelPath>,
        from: u64,
        limit: usize,
    ) -> Result<(Vec<Peeked<S>>, Option<u64>)> {
        let id = self.peek(path)?;
        if self.kind_of(id)? != FileKind::Directory {
            let name = path.and_then(|path| path.names().last());
            let name = name.map_or(&[][..], Name::as_bytes);
            return Ok((vec![self.peeked(name, id)?], None));
        }
        let found = self.listing(id, from.max(FIRST_CHILD), limit)?;
        let next = found.last().map(|last| last.next);
        let next = next.filter(|_| found.len() == limit);
        let entries = found.iter().map(|found| self.peeked(&found.name, found.id));
        Ok((entries.collect::<Result<_>>()?, next))
    }

    /// What a path is, by that path.
    ///
    /// # Errors
    /// As of [`View::peek`].
    pub fn peek_path(&self, path: &RelPath) -> Result<Peeked<S>> {
        self.peeked(path.as_bytes(), self.peek(Some(path))?)
    }

    /// What backs the file at a path.
    ///
    /// # Errors
    /// As of [`View::peek`], and of what is no regular file.
    pub fn peek_file(&self, path: &RelPath) -> Result<Opened<S>> {
        let id = self.peek(Some(path))?;
        match self.kind_of(id)? {
            FileKind::Regular => self.backing(id),
            FileKind::Directory => Err(Fault::IsADirectory),
            FileKind::Symlink | FileKind::Special(_) => Err(Fault::WrongKind),
        }
    }

    fn peeked(&self, name: &[u8], id: InodeId) -> Result<Peeked<S>> {
        let (attributes, staged) = self.attributes(id)?;
        let kind = match attributes.kind {
            FileKind::Regular => EntryKind::File,
            FileKind::Directory => EntryKind::Directory,
            FileKind::Symlink => EntryKind::Symlink,
            FileKind::Special(_) => EntryKind::Special,
        };
        let origin = match (self.is_declared(id), &staged) {
            (true, None) => Origin::Input,
            (true, Some(_)) => Origin::Changed,
            (false, _) => Origin::Made,
        };
        let entry = Entry {
            name: Text(name.into()),
            kind,
            mode: attributes.meta.perm,
            size: attributes.size,
            mtime_sec: attributes.meta.mtime.seconds,
            target: self.target_of(id),
            origin,
        };
        Ok(Peeked { entry, staged })
    }

    fn target_of(&self, id: InodeId) -> Option<Text> {
        let target = match self.table.get(&id).map(|inode| &inode.kind) {
            Some(Kind::Symlink(target)) => target.to_vec(),
            Some(_) => return None,
            None => match self.declared(id).ok()?.1.kind {
                NodeKind::Symlink { target } => target.to_vec(),
                _ => return None,
            },
        };
        Some(Text(target))
    }
}
