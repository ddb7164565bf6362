//! Which files of the current directory a job gets, and their way into the store.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::Path;

use cas::manifest::{Declared, DeclaredKind};
use cas::{RelPath, Store};

use super::{cow, identity};
use crate::cli::RunArguments;
use crate::error::Result;
use crate::ingest::{self, Coverage, Found, Index, Ingested, Ingestion, Progress};
use crate::sandbox;

/// Puts the inputs into the store, and shows how far it is where someone can see it.
pub(super) fn ingest(
    arguments: &RunArguments,
    workspace: &Path,
    wanted: &[RelPath],
    store: &Store,
    now_ns: i64,
) -> Result<Ingested> {
    sandbox::start_hashing_threads();
    store.sweep_imports();
    let (found, writable) = select(arguments, workspace, wanted, store)?;
    let index = Index::load(store.root(), workspace);
    let shown = !arguments.quiet && std::io::stderr().is_terminal();
    let progress = if shown {
        Progress::on_terminal()
    } else {
        Progress::silent()
    };
    let is_writable = |path: &RelPath| writable.contains(path);
    let job = Ingestion {
        store,
        workspace,
        index: &index,
        writable: &is_writable,
        now_ns,
        progress: &progress,
    };
    let ingested = ingest::ingest(&job, &found)?;
    drop(progress);
    let coverage = if arguments.inputs.is_empty() {
        Coverage::Everything
    } else {
        Coverage::Part
    };
    if let Err(error) = index.save(store, coverage) {
        tracing::warn!("the index of unchanged files is not saved: {error}");
    }
    Ok(ingested)
}

/// Finds the inputs, and which of them the job may rewrite.
fn select(
    arguments: &RunArguments,
    workspace: &Path,
    wanted: &[RelPath],
    store: &Store,
) -> Result<(Vec<Found>, BTreeSet<RelPath>)> {
    let exclude = [identity(store)?];
    let mut found = ingest::select(workspace, &arguments.inputs, &exclude)?;
    if arguments.inputs.is_empty() {
        // What the job shall make is no input just because an earlier run has made it already:
        // it would be read-only, and every second run would fail.
        found.retain(|file| !wanted.iter().any(|path| file.path.starts_with(path)));
    }
    let mut writable = BTreeSet::new();
    let changeable = cow::existing(workspace, &arguments.cow);
    if !changeable.is_empty() {
        let changeable = ingest::select(workspace, &changeable, &exclude)?;
        add(&mut found, changeable);
    }
    if !arguments.rw.is_empty() {
        let rewritten = ingest::select(workspace, &arguments.rw, &exclude)?;
        writable.extend(rewritten.iter().map(|file| file.path.clone()));
        add(&mut found, rewritten);
    }
    Ok((found, writable))
}

/// Adds what is not among the inputs yet.
fn add(found: &mut Vec<Found>, more: Vec<Found>) {
    found.extend(more);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
}

/// Files that the job may rewrite, as they were.
pub(super) fn writable(entries: &[Declared]) -> BTreeMap<RelPath, Declared> {
    let writable = entries
        .iter()
        .filter(|e| matches!(e.kind, DeclaredKind::WritableFile(_)));
    writable
        .map(|entry| (entry.path.clone(), entry.clone()))
        .collect()
}
