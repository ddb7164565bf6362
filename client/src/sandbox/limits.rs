//! Resource limits of a job.

use rustix::process::{Resource, Rlimit};

/// A resource that can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// Size of the address space, in bytes.
    As,
    /// Size of a core dump, in bytes.
    Core,
    /// Processor time of a process, in seconds.
    Cpu,
    /// Size of a file that is written, in bytes.
    Fsize,
    /// Locked memory, in bytes.
    Memlock,
    /// One more than the highest descriptor.
    Nofile,
    /// Processes and threads of the user.
    Nproc,
    /// Size of the main thread's stack, in bytes.
    Stack,
}

impl Limited {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::As,
        Self::Core,
        Self::Cpu,
        Self::Fsize,
        Self::Memlock,
        Self::Nofile,
        Self::Nproc,
        Self::Stack,
    ];

    /// As in a spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::As => "as",
            Self::Core => "core",
            Self::Cpu => "cpu",
            Self::Fsize => "fsize",
            Self::Memlock => "memlock",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Stack => "stack",
        }
    }

    pub(super) fn resource(self) -> Resource {
        match self {
            Self::As => Resource::As,
            Self::Core => Resource::Core,
            Self::Cpu => Resource::Cpu,
            Self::Fsize => Resource::Fsize,
            Self::Memlock => Resource::Memlock,
            Self::Nofile => Resource::Nofile,
            Self::Nproc => Resource::Nproc,
            Self::Stack => Resource::Stack,
        }
    }
}

/// How much of one resource a job may have; `None` is as much as it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Of what.
    pub what: Limited,
    /// What holds; the job may raise it up to `hard`.
    pub soft: Option<u64>,
    /// Can only be lowered, by whoever: not even root may raise it in a user namespace.
    pub hard: Option<u64>,
}

impl Limit {
    pub(super) fn to_kernel(self) -> Rlimit {
        Rlimit {
            current: self.soft,
            maximum: self.hard,
        }
    }

    /// For a person.
    pub(super) fn describe(self) -> String {
        let text = |value: Option<u64>| value.map_or("unlimited".into(), |value| value.to_string());
        let (soft, hard) = (text(self.soft), text(self.hard));
        format!("{} to {soft} (soft) and {hard} (hard)", self.what.name())
    }
}
