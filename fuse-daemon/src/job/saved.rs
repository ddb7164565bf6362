//! A view that outlives the process that serves it: its changes are told to a log.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use cas::owners::Owned;
use cas::staging::StagingDirectory;
use cas::tree::Tree;
use cas::{RelPath, Store};
use rustix::io::Errno;

use super::{Job, Refusal, Result, Staged};
use crate::log::{self, Log, Saved};
use crate::view::{AtimePolicy, Caller, Policy, Released, View};

/// What a view has that is to outlive the process that serves it.
#[derive(Debug)]
pub struct Standing {
    /// Where changes are told to.
    pub log: Arc<Log>,
    /// The mount by which the staging directory is reached.
    pub mount: OwnedFd,
}

/// Looks for contradictions in a view that was saved, where that is worth the time: it visits
/// everything.
fn check(view: &View<Staged>) -> cas::Result<()> {
    if !cfg!(debug_assertions) && !tracing::enabled!(tracing::Level::DEBUG) {
        return Ok(());
    }
    let consistent = view.check_invariants().map_err(std::io::Error::other);
    consistent.map_err(|error| cas::Error::io("trust", log::FILE, error))?;
    tracing::debug!("the saved view is consistent");
    Ok(())
}

impl Job {
    fn log(&self) -> Option<&Arc<Log>> {
        self.standing.as_ref().map(|standing| &standing.log)
    }

    /// A job that goes on where a log says that it was left.
    ///
    /// # Errors
    /// Facts that are of another tree, and a staging directory that cannot be used.
    pub fn restored(
        store: Arc<Store>,
        staging: Arc<StagingDirectory>,
        tree: Tree,
        policy: Policy,
        standing: Standing,
        saved: Saved,
    ) -> cas::Result<Self> {
        let facts = log::reopen(saved.facts, &staging);
        let Saved { header, .. } = saved;
        let mut view = View::restore(tree.clone(), header.owner, header.born, policy, facts)
            .map_err(|fault| cas::Error::io("restore", log::FILE, std::io::Error::other(fault)))?;
        check(&view)?;
        view.keep_facts();
        for missing in staging.retain(&log::numbers(&view.snapshot()))? {
            tracing::warn!("staging file {missing} was lost in a crash and is empty now");
        }
        Ok(Self {
            standing: Some(standing),
            ..Self::with(store, staging, tree, view)
        })
    }

    /// Makes one change of the view, tells it to the log, and lets go of the view before it waits
    /// for the log's file.
    pub(super) fn commit<T>(
        &self,
        change: impl FnOnce(&mut View<Staged>) -> crate::view::Result<T>,
    ) -> Result<T> {
        let mut view = self.view()?;
        let changed = change(&mut view);
        let Some(log) = self.log() else {
            return Ok(changed?);
        };
        let facts = view.take_facts();
        log.append(&facts, |staged| staged.id());
        drop(view);
        // A log that cannot be written to is no reason to refuse what changes nothing.
        if !facts.is_empty() {
            log.write()?;
        }
        Ok(changed?)
    }

    /// As [`Job::commit`], for what needs room: refused before it is begun where there is none.
    pub(super) fn change<T>(
        &self,
        change: impl FnOnce(&mut View<Staged>) -> crate::view::Result<T>,
    ) -> Result<T> {
        if let Some(log) = self.log()
            && !log.has_room()
        {
            // Removed files give their space back only when the log is on disk.
            log.settle()?;
            if !log.has_room() {
                return Err(Refusal::Os(Errno::NOSPC));
            }
        }
        self.commit(change)
    }

    /// Lets go of what a change released, which may unlink files. The view's lock is released by
    /// now. What a log may still name after a power failure waits for the log.
    pub(super) fn dispose(&self, released: Released<Staged>) {
        match self.log() {
            Some(log) if !released.0.is_empty() => log.doom(released.0),
            _ => drop(released),
        }
    }

    /// Flushes all names and attributes, after the content that `flush` is to flush.
    pub(super) fn flush_log(&self) -> Result<()> {
        let Some(log) = self.log() else { return Ok(()) };
        self.staging.sync()?;
        Ok(log.sync()?)
    }

    /// Whether this view outlives the process that serves it.
    pub fn is_standing(&self) -> bool {
        self.standing.is_some()
    }

    /// Flushes the names and attributes of a directory.
    pub fn sync_directory(&self) -> Result<()> {
        self.flush_log()
    }

    /// Flushes everything.
    pub fn sync_all(&self) -> Result<()> {
        if let Some(log) = self.log() {
            log.write()?;
            rustix::fs::syncfs(&*self.staging)?;
            log.sync()?;
        }
        Ok(())
    }

    /// What is to be done every few seconds: flush the log, give back the space of removed files,
    /// and shorten the log when it has grown.
    pub fn settle(&self) -> Result<()> {
        let Some(log) = self.log() else { return Ok(()) };
        let settled = log.settle();
        // After a failed flush only a new log heals: the kernel forgets what it could not write.
        if !log.wants_replacement() {
            return Ok(settled?);
        }
        let mut view = self.view()?;
        log.append(&view.take_facts(), |staged| staged.id());
        let begun = log.begin_replacement();
        let snapshot = view.snapshot();
        drop(view);
        if let Some(replacement) = begun
            && let Err(error) = replacement.finish(&snapshot, |staged| staged.id())
        {
            tracing::warn!("the log of the view stays as long as it is: {error}");
        }
        Ok(())
    }

    /// Gives back the space of removed files, before someone is told how much there is.
    pub(super) fn free_removed(&self) {
        if let Some(log) = self.log()
            && log.owes_space()
            && let Err(errno) = log.settle()
        {
            tracing::warn!("cannot flush the saved view: {errno}");
        }
    }

    /// Flushes everything for the last time.
    pub fn close_log(&self) -> Result<()> {
        let Some(log) = self.log() else { return Ok(()) };
        rustix::fs::syncfs(&*self.staging)?;
        Ok(log.close()?)
    }

    /// Changes when reading moves access times; for files as well, where the file system below
    /// lets that be told by mount.
    pub fn set_atime(&self, files: AtimePolicy, directories: bool) -> Result<()> {
        self.view()?.set_atime_policy(files, directories);
        if let Some(standing) = &self.standing
            && let Err(error) = crate::mounts::set_atime(&standing.mount, files)
        {
            tracing::debug!("access times of staging files are kept as before: {error}");
        }
        Ok(())
    }

    /// Gives declared inputs the owners that they have where they came from.
    pub fn own(&self, owners: &[Owned]) -> Result<()> {
        self.commit(|view| {
            for Owned { path, uid, gid } in owners {
                let (uid, gid) = (*uid, *gid);
                view.own(path.iter().flat_map(RelPath::names), Caller { uid, gid })?;
            }
            Ok(())
        })
    }
}
