//! What a job changed of its inputs, as the result has it, and how the next stored tree is made of
//! that: `wakebox apply`.

mod read;

use std::collections::BTreeMap;

use cas::changes::{Change, ChangedInput, InputChanges, RootAttributes};
use cas::directory::Root;
use cas::{RelPath, text};
use serde::Serialize;

use crate::output::Mtime;

pub(crate) use read::apply;

/// The part of a result that tells of inputs which the job was free to change.
#[derive(Debug, Serialize)]
pub struct DeltaDocument {
    /// The stored tree that the job started from, if it did.
    #[serde(rename = "input-root", skip_serializing_if = "Option::is_none")]
    pub input_root: Option<String>,
    /// Inputs that were written to, given other attributes or renamed, by where they are.
    pub changed: BTreeMap<String, Changed>,
    /// Inputs that are no more, by where they were.
    pub deleted: Vec<RelPath>,
    /// The attributes of the root, if they changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<RootEntry>,
}

/// One input that was changed.
#[derive(Debug, Serialize)]
pub struct Changed {
    /// What became of it, wherever it is.
    pub change: Became,
    /// Where it was, if its name there is gone.
    #[serde(rename = "renamed-from", skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<RelPath>,
}

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Became {
    /// Nothing; it was written to or renamed, but is what it was.
    Unchanged,
    /// It has another mode, owner or time.
    Metadata,
    /// It has other content.
    Modified,
}

/// The attributes of the root.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RootEntry {
    /// Permission bits.
    pub mode: u16,
    /// When it was last modified.
    #[serde(flatten)]
    pub mtime: Mtime,
}

impl DeltaDocument {
    /// Of changes that are settled: what was written to has been hashed.
    pub fn new(changes: InputChanges, input_root: Option<&Root>) -> Self {
        let changed = changes.changed.into_iter().map(|row| {
            let path = text::encode(row.path.as_bytes()).into_owned();
            (path, Changed::from(row))
        });
        Self {
            input_root: input_root.map(Root::to_string),
            changed: changed.collect(),
            deleted: changes.deleted,
            root: changes.root.map(RootEntry::from),
        }
    }
}

impl From<ChangedInput> for Changed {
    fn from(row: ChangedInput) -> Self {
        let change = match row.change {
            Change::Unchanged => Became::Unchanged,
            Change::Metadata => Became::Metadata,
            // Nobody has shown that it is the same.
            Change::Modified | Change::Written { .. } => Became::Modified,
        };
        let renamed_from = row.renamed_from;
        Self {
            change,
            renamed_from,
        }
    }
}

impl From<RootAttributes> for RootEntry {
    fn from(root: RootAttributes) -> Self {
        let mtime = Mtime {
            seconds: root.mtime_sec,
            nanoseconds: root.mtime_nsec.into(),
        };
        Self {
            mode: root.mode,
            mtime,
        }
    }
}
