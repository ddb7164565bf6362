//! Whom inputs belong to, where they do not all belong to one user.
//!
//! No part of a manifest: a job's inputs belong to the job. A mount that lasts shows files to many
//! users, as the directories did that its inputs came from.

use serde::{Deserialize, Serialize};

use crate::RelPath;

/// The owner of one input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// Which; the root of the tree has no path.
    pub path: Option<RelPath>,
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}
