//! The two ends of a job: files that are there before it starts, and the report when it is over.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cas::recovery::{JobState, Recovery};
use cas::report::{DataPath, Output, Report, StagingEntry};
use cas::staging::StagingDirectory;
use cas::tree::{Entry, EntryKind};
use cas::{Store, text};
use rustix::fs::{OFlags, Timestamps};

use super::{Job, Result, Staged, timespec};
use crate::view::{Caller, Fault, Meta, OutputKind, Time, View};

impl Job {
    /// Everything that is known now that the job has ended. The staging files are left to the
    /// reader of the report. The session tells what `requests` there were.
    pub fn report(&self, late_writer: bool, requests: BTreeMap<String, u64>) -> Result<Report> {
        let report = self.view()?.report();
        let outputs = report.outputs.into_iter().map(|(path, kind)| Output {
            path,
            entry: staging_entry(kind),
        });
        let passthrough = self.passthrough.load(Ordering::Relaxed);
        let report = Report {
            inputs: report.inputs,
            in_bytes: report.in_bytes,
            outputs: outputs.collect(),
            changes: report.changes,
            data_path: if passthrough {
                DataPath::Passthrough
            } else {
                DataPath::Cached
            },
            late_writer,
            requests,
            failure: self.failure.get().cloned(),
            record: None,
            absent: Vec::new(),
        };
        // For when we or the client are killed before the result is in place. Without it the
        // result is as good, so a full disk is no reason to refuse it.
        let manifest = Recovery::new(JobState::Ended(Box::new(report.clone())));
        if let Err(error) = manifest.write(self.staging.as_fd()) {
            tracing::warn!("{error}");
        }
        let view = self.view()?;
        Ok(Report {
            record: view.record(),
            absent: view.absent(),
            ..report
        })
    }

    /// Leaves the staging directory, with the files that have names, to someone else.
    pub fn give_away(&self) -> Result<()> {
        let report = self.view()?.report();
        for (_, kind) in report.outputs {
            if let OutputKind::File(staged, _) = kind {
                staged.keep();
            }
        }
        self.staging.keep();
        Ok(())
    }
}

/// Copies a declared file that the job may rewrite, and puts the copy in its place.
pub(super) fn preload(
    view: &mut View<Staged>,
    store: &Store,
    staging: &Arc<StagingDirectory>,
    entry: &Entry,
    owner: Caller,
    now: Time,
) -> cas::Result<()> {
    let EntryKind::File { digest, .. } = entry.kind else {
        return Ok(());
    };
    let (staged, copy) = staging.create_file(OFlags::RDWR)?;
    let refused = |source: std::io::Error| {
        cas::Error::io("prepare the writable input", entry.path.as_path(), source)
    };
    cas::copy::Copier::default()
        .copy(&store.open_blob(digest)?.file, &copy)
        .map_err(refused)?;
    let mtime = Time::from_nanoseconds(entry.mtime);
    let times = Timestamps {
        last_access: timespec(mtime),
        last_modification: timespec(mtime),
    };
    staged
        .set_times(&times)
        .map_err(|errno| refused(errno.into()))?;
    let meta = Meta {
        perm: entry.mode,
        uid: owner.uid,
        gid: owner.gid,
        atime: mtime,
        mtime,
        ctime: now,
    };
    let names: Vec<_> = entry.path.names().collect();
    let placed = names
        .split_last()
        .ok_or(Fault::InvalidName)
        .and_then(|(name, parents)| {
            let parent = view.resolve_directory(parents.iter().copied())?;
            view.preload(parent, *name, Arc::new(staged), meta)
        });
    placed
        .map_err(|fault| refused(std::io::Error::other(fault)))
        .map(drop)
}

fn staging_entry(kind: OutputKind<Staged>) -> StagingEntry {
    match kind {
        OutputKind::File(staged, mode) => StagingEntry::File {
            staged: staged.id(),
            mode,
        },
        OutputKind::Input(id, digest, size, mode, mtime) => StagingEntry::Input {
            digest,
            size,
            mode,
            mtime_sec: mtime.seconds,
            mtime_nsec: mtime.nanoseconds,
            inode: id.0,
        },
        OutputKind::Symlink(target, mtime) => StagingEntry::Symlink {
            target: text::Text(target.into()),
            mtime_sec: mtime.seconds,
            mtime_nsec: mtime.nanoseconds,
        },
        OutputKind::Directory(mode, mtime) => StagingEntry::Directory {
            mode,
            mtime_sec: mtime.seconds,
            mtime_nsec: mtime.nanoseconds,
        },
    }
}
