//! In what a job's view and a mount's view differ.

use cas::tree::{NodeIndex, Tree};
use rustc_hash::FxHashSet;

use super::order::Order;

/// The rules of one view.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Which inputs may be changed.
    pub inputs: InputPolicy,
    /// Who checks permission bits.
    pub permissions: Permissions,
    /// When reading moves the access time of what the view answers for itself: directories, links
    /// and inputs. Staging files have those that the file system below gives them.
    pub atime: AtimePolicy,
    /// Whether extended attributes and inode flags are served. A job has none: tools ask for them
    /// with every file that they list, and one refusal saves all further requests.
    pub extended: bool,
    /// Whether a file keeps set-user-ID and set-group-ID when user 0 opens it with `O_TRUNC`. The
    /// kernel takes them unless the caller has CAP_FSETID in the first user namespace (fs/attr.c,
    /// `setattr_should_drop_suidgid`), which user 0 of any other one has not. It leaves an
    /// `O_TRUNC` to us without a word about that: truncating by a request of its own, which says
    /// it, made such an open twice as slow.
    pub root_keeps_privileges: bool,
    /// Whether reading a directory moves its access time where reading a file would.
    pub directory_atime: bool,
    /// In which order directories are listed.
    pub order: Order,
}

/// Which declared inputs a job may change.
#[derive(Clone, Debug, Default)]
pub enum InputPolicy {
    /// None.
    #[default]
    ReadOnly,
    /// All: content is copied when it first changes, and nothing is for attributes and names.
    CopyOnWrite,
    /// Those that are, or are declared below, one of these.
    CopyOnWriteBelow(FxHashSet<NodeIndex>),
}

/// Who checks permission bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Permissions {
    /// The view. Then `access(2)` tells the truth about read-only inputs, to root as well.
    #[default]
    View,
    /// The kernel (`default_permissions`), which knows all groups and capabilities of a caller.
    Kernel,
}

/// When reading moves an access time; as the options of mount(8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtimePolicy {
    /// Never (`noatime`).
    #[default]
    Never,
    /// If it is not after the last change, or a day old (`relatime`).
    Relative,
    /// Always (`strictatime`).
    Always,
}

impl InputPolicy {
    /// Whether a declared node may be changed.
    pub(super) fn may_change(&self, tree: &Tree, node: NodeIndex) -> bool {
        match self {
            InputPolicy::ReadOnly => false,
            InputPolicy::CopyOnWrite => true,
            InputPolicy::CopyOnWriteBelow(tops) => {
                let mut at = node;
                while !tops.contains(&at) {
                    match tree.get(at) {
                        Some(node) if at != NodeIndex::ROOT => at = node.parent,
                        _ => return false,
                    }
                }
                true
            }
        }
    }
}
