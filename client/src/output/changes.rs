//! What became of inputs, once their content is known.

use std::collections::{BTreeMap, BTreeSet};

use cas::RelPath;
use cas::changes::{Change, ChangedInput, InputChanges};

use super::{Hashed, HashedEntry};

/// Finds out what was really changed of what was written to, and takes out of the outputs what was
/// not. What was renamed stays: its path is the job's.
pub(super) fn settle(
    mut hashed: Vec<Hashed>,
    mut changes: InputChanges,
) -> (Vec<Hashed>, InputChanges) {
    let entries = hashed.iter().map(|output| (&output.path, &output.entry));
    let entries: BTreeMap<_, _> = entries.collect();
    for row in &mut changes.changed {
        row.change = settled(row.change, entries.get(&row.path).copied());
    }
    let stays = |row: &&ChangedInput| row.change != Change::Unchanged || row.renamed_from.is_some();
    let unchanged = changes.changed.iter().filter(|row| !stays(row));
    let unchanged: BTreeSet<RelPath> = unchanged.map(|row| row.path.clone()).collect();
    hashed.retain(|output| !unchanged.contains(&output.path));
    (hashed, changes)
}

fn settled(change: Change, entry: Option<&HashedEntry>) -> Change {
    let (
        Change::Written { digest, mode },
        Some(HashedEntry::File {
            hash, mode: now, ..
        }),
    ) = (change, entry)
    else {
        return change;
    };
    match () {
        () if *hash != digest => Change::Modified,
        () if *now != mode => Change::Metadata,
        () => Change::Unchanged,
    }
}
