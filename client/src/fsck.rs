//! `wakebox fsck`: whether a store is what its names say. The work is done by [`cas::fsck`].

use std::collections::HashSet;
use std::io::IsTerminal;

use cas::{Digest, Store};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::{Environment, FsckArguments};
use crate::commands::{existing, print};
use crate::error::Result;
use crate::exit_code::NO;
use crate::roots::{self, Root};
use crate::sandbox;

/// Hashes everything anew, moves what is corrupt out of the way, and names the documents that
/// need it. 0 if all is sound, and all that the roots name is there; else 1.
///
/// # Errors
/// Blobs and roots that cannot be read; a store that cannot be written to.
pub fn run(arguments: &FsckArguments, environment: &Environment) -> Result<u8> {
    let store = existing(&arguments.store.resolve(environment)?)?;
    sandbox::start_hashing_threads();
    // What trees name is found out before their objects are moved away.
    let roots = roots::read(&arguments.roots, &store)?;
    let all = store.list()?;
    let bar = bar(all.len() as u64, arguments.quiet);
    let checked = cas::fsck::check(&store, &all, &|_| bar.inc(1))?;
    bar.finish_and_clear();
    let moves = !arguments.dry_run && (store.is_own() || arguments.foreign);
    let mut bad = HashSet::new();
    for error in &checked.bad {
        let digest = match error {
            cas::Error::Missing(_) => continue, // removed meanwhile
            cas::Error::Corrupt { expected, .. } => Some(*expected),
            cas::Error::Io { path, .. } => name_of(path),
        };
        let moved = digest.filter(|_| moves);
        let moved = moved.map(|digest| cas::fsck::quarantine(&store, digest));
        match moved.transpose()?.flatten() {
            Some(path) => print(format_args!("{error}; moved to {}", path.display()))?,
            None => print(format_args!("{error}"))?,
        }
        bad.extend(digest);
    }
    let lacking = tell_roots(&roots, &bad, &store)?;
    print(format_args!(
        "{} blobs ({}) are sound, {} are not",
        all.len() - checked.bad.len(),
        HumanBytes(checked.bytes),
        bad.len(),
    ))?;
    Ok(if bad.is_empty() && !lacking { 0 } else { NO })
}

/// Says of each document what of it cannot be had, and whether there was any.
fn tell_roots(roots: &[Root], bad: &HashSet<Digest>, store: &Store) -> Result<bool> {
    let mut lacking = false;
    for root in roots {
        let path = root.path.display();
        let mut names: Vec<_> = root.names.iter().copied().collect();
        names.sort();
        for digest in names {
            let what = match bad.contains(&digest) {
                true => "is corrupt",
                false if store.stat(digest)?.is_none() => "is missing",
                false => continue,
            };
            print(format_args!(
                "{path}: blob {digest}, which it names, {what}"
            ))?;
            lacking = true;
        }
        if let Some(broken) = &root.broken {
            print(format_args!("{path}: {broken}"))?;
            lacking = true;
        }
    }
    Ok(lacking)
}

/// The digest that a blob's path stands for.
fn name_of(path: &std::path::Path) -> Option<Digest> {
    let rest = path.file_name()?.to_str()?;
    let first = path.parent()?.file_name()?.to_str()?;
    format!("{first}{rest}").parse().ok()
}

fn bar(blobs: u64, quiet: bool) -> ProgressBar {
    let target = match !quiet && std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let bar = ProgressBar::with_draw_target(Some(blobs), target);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} blobs, {eta} left");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
