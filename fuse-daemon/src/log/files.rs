//! From the numbers in facts to staging files, and back.

use std::collections::HashSet;
use std::sync::Arc;

use cas::staging::{StagedFile, StagingDirectory};

use crate::view::{Content, Fact};

/// Facts with owners of the staging files that they name.
pub fn reopen(
    facts: Vec<Fact<u64>>,
    staging: &Arc<StagingDirectory>,
) -> impl Iterator<Item = Fact<Arc<StagedFile>>> {
    facts.into_iter().map(|fact| match fact {
        Fact::Inode {
            id,
            meta,
            born,
            flags,
            content,
        } => Fact::Inode {
            id,
            meta,
            born,
            flags,
            content: match content {
                Content::Staged(number) => Content::Staged(Arc::new(staging.reopen(number))),
                Content::Input => Content::Input,
                Content::Symlink(target) => Content::Symlink(target),
                Content::Special(kind, rdev) => Content::Special(kind, rdev),
                Content::Directory => Content::Directory,
            },
        },
        Fact::Gone(id) => Fact::Gone(id),
        Fact::Name {
            directory,
            name,
            id,
        } => Fact::Name {
            directory,
            name,
            id,
        },
        Fact::Extended { id, name, value } => Fact::Extended { id, name, value },
        Fact::Next(next) => Fact::Next(next),
    })
}

/// The numbers of the staging files that a snapshot names. All others are orphans: a log also
/// names files that were released since.
pub fn numbers(snapshot: &[Fact<Arc<StagedFile>>]) -> HashSet<u64> {
    let staged = snapshot.iter().filter_map(|fact| match fact {
        Fact::Inode {
            content: Content::Staged(staged),
            ..
        } => Some(staged.id()),
        _ => None,
    });
    staged.collect()
}
