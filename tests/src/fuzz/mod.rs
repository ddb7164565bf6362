//! Everything that reads what others have written, as functions of bytes that must never panic.
//!
//! The fuzzer (`fuzz/`) makes up bytes, guided by what they reach; an ordinary test passes those on
//! that it has kept. Each function insists on more than not to panic where there is more to say: a
//! document that is read is written as it was, a job that was asked nonsense is sound.

mod control;
mod documents;
mod kernel;
mod log;

/// A function of bytes, by the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("spec", documents::spec),
    ("manifest", documents::manifest),
    ("directory", documents::directory),
    ("documents", documents::others),
    ("control", control::conversation),
    ("request", kernel::packets),
    ("operations", kernel::operations),
    ("log", log::saved),
];

/// Takes made-up bytes apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'b>(pub(crate) &'b [u8]);

impl<'b> Bytes<'b> {
    /// The next byte; 0 when there is none.
    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// The next number.
    pub(crate) fn number(&mut self) -> u64 {
        let mut number = [0; 8];
        let taken = self.take(8);
        number[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(number)
    }

    /// So many bytes, or what is left.
    pub(crate) fn take(&mut self, count: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Some bytes, as many as the first of them says.
    pub(crate) fn some(&mut self) -> &'b [u8] {
        let count = usize::from(self.byte());
        self.take(count)
    }
}
