//! Why a view refuses something: a closed set, mapped to errno in one place at the edge.

/// A refusal. Each is an expected answer to a job, never trouble of the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No such name, or the directory is gone.
    #[error("no such file or directory")]
    NotFound,
    /// A number that the view never gave out, or of an inode that is gone.
    #[error("no such inode")]
    Stale,
    /// The name is taken.
    #[error("already exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotADirectory,
    /// A directory cannot be used that way.
    #[error("is a directory")]
    IsADirectory,
    /// A directory still holds names.
    #[error("directory is not empty")]
    NotEmpty,
    /// A declared input cannot be changed, removed or replaced.
    #[error("a declared input is read-only")]
    ReadOnlyInput,
    /// Permission bits forbid it.
    #[error("permission denied")]
    Denied,
    /// Only the owner, or nobody, may do it: hard links of directories and of inputs, say.
    #[error("operation not permitted")]
    NotPermitted,
    /// A directory cannot be moved into itself.
    #[error("cannot move a directory into itself")]
    IntoItself,
    /// The call makes no sense on this kind of inode.
    #[error("invalid for this kind of file")]
    WrongKind,
    /// More hard links than can be counted.
    #[error("too many links")]
    TooManyLinks,
    /// There is no such extended attribute.
    #[error("no such extended attribute")]
    NoAttribute,
    /// A name that no extended attribute can have.
    #[error("not the name of an extended attribute")]
    AttributeRange,
    /// An extended attribute, or all of an inode's, would be larger than the kernel allows.
    #[error("extended attributes too large")]
    AttributeTooBig,
    /// What is asked for is not kept.
    #[error("not supported")]
    Unsupported,
    /// A name that no directory entry can have.
    #[error("file name too long")]
    NameTooLong,
    /// A name with a slash or NUL, or none at all. The kernel never sends one.
    #[error("not a file name")]
    InvalidName,
}

impl From<cas::name::InvalidPath> for Fault {
    fn from(error: cas::name::InvalidPath) -> Self {
        match error {
            cas::name::InvalidPath::TooLong => Fault::NameTooLong,
            _ => Fault::InvalidName,
        }
    }
}
