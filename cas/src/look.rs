//! Looking inside a job that runs: what is asked of its daemon, and what it tells.
//!
//! To be looked at is no doing of the job: no input counts as used, and nothing is recorded.

use serde::{Deserialize, Serialize};

use crate::name::RelPath;
use crate::text::Text;

/// The most entries of one page. What there is beyond is asked for again, so that a job whose
/// directory has a million names waits for its view no longer than for one that has a thousand.
pub const PAGE_MAX: usize = 1000;

/// What of a job is to be seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Look {
    /// A page of what a directory holds now, or the one entry of anything else.
    At {
        /// Where; `None` is the view itself.
        path: Option<RelPath>,
        /// [`Page::next`] of the page before, or 0.
        from: u64,
    },
    /// A page of what the job has made or changed so far and not removed, sorted by path. Each page
    /// is of its own moment.
    Outputs {
        /// The last path of the page before.
        after: Option<RelPath>,
    },
    /// A file, to be read through a descriptor.
    File {
        /// Where.
        path: RelPath,
    },
}

/// Some entries, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// At most [`PAGE_MAX`].
    pub entries: Vec<Entry>,
    /// Where the next page begins, if there may be one. Of outputs, only that it is not 0 counts.
    pub next: Option<u64>,
}

/// One file, directory or link of a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name in the directory, or of outputs its path.
    pub name: Text,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u16,
    /// Length in bytes; of what is still being written, so far.
    pub size: u64,
    /// When it was last modified, whole seconds since the epoch.
    pub mtime_sec: i64,
    /// Where a link leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Text>,
    /// Whether it is as it was declared, the job's doing, or both.
    pub origin: Origin,
}

/// What something in a view is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A fifo, socket or device.
    Special,
}

/// Whose something in a view is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// It was declared, and its content is what it was.
    Input,
    /// It was declared, and the job has changed its content.
    Changed,
    /// The job has made it, or was given it as its own.
    Made,
}

/// One job that a daemon serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its name in the staging area, by which it is asked for.
    pub id: String,
    /// What it was called by whoever runs it.
    pub label: String,
    /// Milliseconds since it was registered.
    pub age_ms: u64,
    /// Descriptors of regular files in its view that are open.
    pub open_files: u64,
    /// Lengths of the files that it has written so far and not removed, added up.
    pub bytes_staged: u64,
}

/// The longest label that is kept, in bytes.
pub const LABEL_MAX: usize = 200;

/// A label as it is kept: one line, cut where it is too long.
pub fn label(text: &str) -> String {
    let mut label: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if label.len() > LABEL_MAX {
        let end = (0..=LABEL_MAX - 3)
            .rev()
            .find(|at| label.is_char_boundary(*at));
        label.truncate(end.unwrap_or(0));
        label.push('…');
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_one_short_line() {
        assert_eq!(label("cc -c\ta.c\n"), "cc -c a.c ");
        let long = label(&"ä".repeat(150));
        assert!(long.len() <= LABEL_MAX && long.ends_with("ä…"), "{long}");
        assert_eq!(label(&"x".repeat(LABEL_MAX)).len(), LABEL_MAX);
    }
}
