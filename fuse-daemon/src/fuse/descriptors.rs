//! Descriptors that sessions hold for files that their users have open.
//!
//! A user may open as many files as the user's own limit allows, which is often the same number as
//! this process's. So only half of ours is for files that stay open. Who comes later gets one for
//! the time of a request, and the other half is for those, for devices, directories and logs.

use std::fs::File;
use std::ops::Deref;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Resource, getrlimit};

/// How many are held, in all sessions: the limit is the process's.
static HELD: AtomicU64 = AtomicU64::new(0);

/// How many may be.
static MOST: LazyLock<u64> = LazyLock::new(|| {
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(u64::MAX, |limit| limit / 2)
});

/// An open file, held for as long as someone has it open or for one request.
#[derive(Debug)]
pub(super) struct Descriptor {
    file: File,
    _place: Option<Place>,
}

impl Descriptor {
    /// One to hold; the file comes back if there are too many.
    pub(super) fn hold(file: File) -> Result<Self, File> {
        match Place::take(&HELD, *MOST) {
            Some(place) => Ok(Self {
                file,
                _place: Some(place),
            }),
            None => Err(file),
        }
    }
}

impl From<File> for Descriptor {
    /// One for a request.
    fn from(file: File) -> Self {
        Self { file, _place: None }
    }
}

impl Deref for Descriptor {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

/// One of those that are counted.
#[derive(Debug)]
struct Place(&'static AtomicU64);

impl Place {
    fn take(held: &'static AtomicU64, most: u64) -> Option<Self> {
        let more = |held| (held < most).then_some(held + 1);
        let taken = held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| Self(held))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_most_are_held_and_places_come_back() {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let take = || Place::take(&COUNT, 2);
        let (first, second) = (take(), take());
        assert!(first.is_some() && second.is_some() && take().is_none());
        drop(first);
        assert!(take().is_some_and(|_| take().is_none()));
    }
}
