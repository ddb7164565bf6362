//! `wakebox gc`: what nobody needs goes. The work is done by [`cas::gc`].

use cas::Store;
use cas::gc::{Freed, Plan};
use indicatif::HumanBytes;

use crate::cli::{Environment, GcArguments};
use crate::commands::{existing, print};
use crate::error::{Error, Result};
use crate::{roots, sandbox};

/// Collects, and says what was freed.
///
/// # Errors
/// A store that is not ours; a root that cannot be read, or names a tree that is not whole: then
/// it is not known what to keep, and nothing is removed.
pub fn run(arguments: &GcArguments, environment: &Environment) -> Result<u8> {
    let store = existing(&arguments.store.resolve(environment)?)?;
    sandbox::start_hashing_threads();
    if !arguments.foreign && !arguments.dry_run {
        check_owner(&store)?;
    }
    let mut plan = Plan {
        older_than: arguments.older_than,
        max_size: arguments.max_size,
        dry_run: arguments.dry_run,
        ..Plan::default()
    };
    for root in roots::read(&arguments.roots, &store)? {
        if let Some(broken) = root.broken {
            let path = root.path.display();
            return Err(Error::Outcome(format!("root {path}: {broken}")));
        }
        plan.keep.extend(root.names);
    }
    let freed = cas::gc::collect(&store, &plan)?;
    tell(&freed, arguments.dry_run)?;
    Ok(0)
}

/// Refuses a store whose blobs may be in another program's books, or in use where we cannot see.
fn check_owner(store: &Store) -> Result<()> {
    let root = store.root().display();
    if !store.is_own() {
        return Err(Error::Outcome(format!(
            "the store {root} was not made by wakebox, and another program may count on its blobs; \
             --foreign removes from it all the same"
        )));
    }
    match store.network() {
        Some(kind) => Err(Error::Outcome(format!(
            "the store {root} is on a network file system ({kind}), where jobs of other hosts are \
             not seen; --foreign removes from it all the same, when none runs"
        ))),
        None => Ok(()),
    }
}

fn tell(freed: &Freed, dry_run: bool) -> Result<()> {
    let verb = if dry_run { "would free" } else { "freed" };
    print(format_args!(
        "{verb} {} blobs ({}) and {} staging directories ({})",
        freed.blobs,
        HumanBytes(freed.bytes),
        freed.staging,
        HumanBytes(freed.staging_bytes),
    ))?;
    print(format_args!(
        "{} blobs ({}) stay",
        freed.kept,
        HumanBytes(freed.kept_bytes)
    ))?;
    if freed.kept_jobs > 0 {
        let jobs = freed.kept_jobs;
        print(format_args!(
            "{jobs} failed jobs are kept; see `wakebox jobs`"
        ))?;
    }
    if freed.recoverable > 0 {
        print(format_args!(
            "{} jobs died before their results were written; see `wakebox recover --list`",
            freed.recoverable
        ))?;
    }
    Ok(())
}
