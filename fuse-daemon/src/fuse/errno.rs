//! One total table from refusals to errno. A new refusal must be given its number here.

use rustix::io::Errno;

use crate::job::Refusal;
use crate::view::Fault;

pub(super) fn errno(refusal: &Refusal) -> Errno {
    match refusal {
        Refusal::Fault(fault) => {
            tracing::trace!("{fault}");
            of_fault(*fault)
        }
        Refusal::Os(errno) => *errno,
        Refusal::Broken => Errno::IO,
    }
}

fn of_fault(fault: Fault) -> Errno {
    match fault {
        Fault::NotFound => Errno::NOENT,
        Fault::Stale => Errno::STALE,
        Fault::Exists => Errno::EXIST,
        Fault::NotADirectory => Errno::NOTDIR,
        Fault::IsADirectory => Errno::ISDIR,
        Fault::NotEmpty => Errno::NOTEMPTY,
        // Not EROFS: the mount is writable, this file is not. It is what the original answers.
        Fault::ReadOnlyInput | Fault::Denied => Errno::ACCESS,
        Fault::NotPermitted => Errno::PERM,
        Fault::IntoItself | Fault::WrongKind | Fault::InvalidName => Errno::INVAL,
        Fault::TooManyLinks => Errno::MLINK,
        Fault::NameTooLong => Errno::NAMETOOLONG,
        Fault::NoAttribute => Errno::NODATA,
        Fault::AttributeRange => Errno::RANGE,
        Fault::AttributeTooBig => Errno::TOOBIG,
        Fault::Unsupported => Errno::OPNOTSUPP,
    }
}
