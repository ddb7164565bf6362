//! Listings that go on while names come and go: nothing that stays is missed or comes twice.

use std::collections::BTreeSet;

use cas::record::Class;
use fuse_daemon::view::InodeId;

use super::super::operation::Pick;
use super::super::reference::Number;
use super::{Verdict, World, agree, ensure};

/// A listing under way.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// Where it lists; `None` before the first and after the last entry.
    directory: Option<InodeId>,
    offset: u64,
    /// Names that were there ever since it began.
    always: BTreeSet<String>,
    /// Names that it has delivered and that were there ever since.
    seen: BTreeSet<String>,
}

impl World {
    /// Goes on with a listing, or begins one.
    pub(super) fn list(&mut self, cursor: u8, from: Pick, limit: u8) -> Verdict {
        let cursor = usize::from(cursor);
        let directory = match self.cursors[cursor].directory {
            Some(directory) => directory,
            None => self.begin(cursor, self.resolve(from)),
        };
        let offset = self.cursors[cursor].offset;
        let listed = self.view.list(directory, offset, limit.into());
        self.touch_if(listed.is_ok(), directory, Class::List);
        let Some((listed, number)) = agree(listed, self.model.list(directory))? else {
            self.cursors[cursor] = Cursor::default();
            return Ok(());
        };
        ensure(listed.len() <= limit.into(), || "above the limit".into())?;
        let ended = listed.is_empty() && limit > 0;
        for entry in listed {
            let name = String::from_utf8_lossy(&entry.name).into_owned();
            let (node, counted) = self.entry(number, &name)?;
            ensure(entry.counted == counted, || format!("{name}: counted"))?;
            self.model.nodes[node].references += u64::from(counted);
            self.met(node, &(entry.attributes, entry.staged))?;
            let cursor = &mut self.cursors[cursor];
            ensure(entry.next > cursor.offset, || format!("{name}: backwards"))?;
            cursor.offset = entry.next;
            ensure(cursor.seen.insert(name.clone()), || {
                format!("{name} is listed twice")
            })?;
        }
        if ended {
            let Cursor { always, seen, .. } = std::mem::take(&mut self.cursors[cursor]);
            let missed: Vec<_> = always.difference(&seen).collect();
            ensure(missed.is_empty(), || format!("{missed:?} are not listed"))?;
        }
        Ok(())
    }

    fn begin(&mut self, cursor: usize, directory: InodeId) -> InodeId {
        self.cursors[cursor] = Cursor {
            directory: Some(directory),
            always: self.names(directory),
            ..Cursor::default()
        };
        directory
    }

    fn names(&self, directory: InodeId) -> BTreeSet<String> {
        let number = self.model.at(directory);
        let children = number.map(|number| self.model.children(number));
        let names = children.unwrap_or_default().into_keys().map(str::to_owned);
        names.chain([".".into(), "..".into()]).collect()
    }

    /// What an entry must be, and whether the kernel counts it.
    fn entry(&self, directory: Number, name: &str) -> Verdict<(Number, bool)> {
        let found = match name {
            "." => Some((directory, false)),
            ".." => self.model.parent(directory).map(|parent| (parent, false)),
            _ => {
                let children = self.model.children(directory);
                children.get(name).map(|node| (*node, true))
            }
        };
        found.ok_or(format!("{name} is listed and is not there"))
    }

    /// Takes out of every listing's books what is no longer there.
    pub(super) fn follow_cursors(&mut self) {
        for at in 0..self.cursors.len() {
            if let Some(directory) = self.cursors[at].directory {
                let number = self.model.at(directory);
                let names = number.map(|number| self.model.children(number));
                let names = names.unwrap_or_default();
                let there = |name: &String| {
                    name == "." || name == ".." || names.contains_key(name.as_str())
                };
                self.cursors[at].always.retain(there);
                self.cursors[at].seen.retain(there);
            }
        }
    }
}
