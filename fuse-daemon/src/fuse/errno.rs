//! One total table from refusals to errno. A new refusal must be given its number here.

use fuser::Errno;

use crate::job::Refusal;
use crate::view::Fault;

pub(super) fn errno(refusal: &Refusal) -> Errno {
    match refusal {
        Refusal::Fault(fault) => {
            tracing::trace!("{fault}");
            of_fault(*fault)
        }
        Refusal::Os(errno) => Errno::from_i32(errno.raw_os_error()),
        Refusal::Broken => Errno::EIO,
    }
}

fn of_fault(fault: Fault) -> Errno {
    match fault {
        Fault::NotFound => Errno::ENOENT,
        Fault::Stale => Errno::ESTALE,
        Fault::Exists => Errno::EEXIST,
        Fault::NotADirectory => Errno::ENOTDIR,
        Fault::IsADirectory => Errno::EISDIR,
        Fault::NotEmpty => Errno::ENOTEMPTY,
        // Not EROFS: the mount is writable, this file is not. It is what the original answers.
        Fault::ReadOnlyInput | Fault::Denied => Errno::EACCES,
        Fault::NotPermitted => Errno::EPERM,
        Fault::IntoItself | Fault::WrongKind | Fault::InvalidName => Errno::EINVAL,
        Fault::TooManyLinks => Errno::EMLINK,
        Fault::NameTooLong => Errno::ENAMETOOLONG,
        Fault::NoAttribute => Errno::ENODATA,
        Fault::AttributeRange => Errno::ERANGE,
        Fault::AttributeTooBig => Errno::E2BIG,
        Fault::Unsupported => Errno::EOPNOTSUPP,
    }
}
