//! Looks into a job from outside, while it runs.

use std::fs::File;
use std::sync::atomic::Ordering;

use cas::RelPath;
use cas::look::{PAGE_MAX, Page, Running};
use rustix::fs::OFlags;

use super::files::open_staged;
use super::{Job, Result, Staged};
use crate::view::{Opened, OutputKind, Peeked};

impl Job {
    /// A page of what a directory holds, or what else is at a path.
    ///
    /// # Errors
    /// There is nothing at that path.
    pub fn look_at(&self, path: Option<&RelPath>, from: u64) -> Result<Page> {
        let (peeked, next) = self.view()?.peek_at(path, from, PAGE_MAX)?;
        let entries = peeked.into_iter().map(complete).collect();
        Ok(Page { entries, next })
    }

    /// A page of what the job owns so far, sorted by path.
    ///
    /// # Errors
    /// A view that is broken.
    pub fn look_at_outputs(&self, after: Option<&RelPath>) -> Result<Page> {
        let view = self.view()?;
        let outputs = view.report().outputs.into_iter().map(|(path, _)| path);
        let mut paths: Vec<_> = outputs.filter(|path| Some(path) > after).collect();
        let next = (paths.len() > PAGE_MAX).then_some(1);
        paths.truncate(PAGE_MAX);
        let peeked = paths.iter().map(|path| view.peek_path(path));
        let peeked: crate::view::Result<Vec<_>> = peeked.collect();
        drop(view);
        let entries = peeked?.into_iter().map(complete).collect();
        Ok(Page { entries, next })
    }

    /// A file, opened for reading. What the job writes to it later is seen through the descriptor.
    ///
    /// # Errors
    /// There is no such file, or what backs it cannot be opened.
    pub fn look_into(&self, path: &RelPath) -> Result<File> {
        let view = self.view()?;
        let opened = view.peek_file(path)?;
        drop(view);
        match opened {
            Opened::Staged(staged) => open_staged(&staged, OFlags::RDONLY),
            // A blob that is missing is the job's misfortune only when the job opens it.
            Opened::Input { digest, .. } => {
                let blob = self.store.open_blob(digest);
                blob.map(|blob| blob.file)
                    .map_err(|error| self.os_error(&error))
            }
        }
    }

    /// What a list of jobs has of this one.
    ///
    /// # Errors
    /// A view that is broken.
    pub fn running(&self) -> Result<Running> {
        let outputs = self.view()?.report().outputs;
        let staged = outputs.into_iter().filter_map(|(_, kind)| match kind {
            OutputKind::File(staged, _) => Some(staged),
            _ => None,
        });
        let mut staged: Vec<Staged> = staged.collect();
        staged.sort_by_key(|staged| staged.id());
        staged.dedup_by_key(|staged| staged.id());
        let sizes = staged.iter().filter_map(|staged| staged.stat().ok());
        Ok(Running {
            id: self.staging_name().to_owned(),
            label: self.label.clone(),
            age_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            open_files: self.open.load(Ordering::Relaxed),
            bytes_staged: sizes.map(|is| is.st_size as u64).sum(),
        })
    }
}

/// Adds what only the backing file knows. One that has just gone is told as it was.
fn complete(Peeked { mut entry, staged }: Peeked<Staged>) -> cas::look::Entry {
    if let Some(is) = staged.and_then(|staged| staged.stat().ok()) {
        (entry.size, entry.mtime_sec) = (is.st_size as u64, is.st_mtime);
    }
    entry
}
