//! What a job must not reach under any name: the store, and the daemon's sockets.

use std::path::{Component, Path, PathBuf};

use cas::store::is_own_staging;

use crate::sandbox::plan::Step;

/// Every path under which the secrets can be reached once the steps are carried out: in the new
/// root, if there is one, else in the old. Binds show them again, and binds of binds.
///
/// A path too many is hidden rather than one too few: later mounts may cover some. The secrets are
/// [`real`] paths.
pub fn aliases(steps: &[Step], secrets: &[PathBuf]) -> Vec<PathBuf> {
    let mut outside = secrets.to_vec();
    let mut inside: Option<Vec<PathBuf>> = None;
    for step in steps {
        if begins_root(step) {
            inside.get_or_insert_default();
        }
        let Step::Bind {
            source,
            destination,
            ..
        } = step
        else {
            continue;
        };
        let source = real(source);
        let destination = match inside {
            Some(_) => destination.clone(),
            None => real(destination),
        };
        let shown = outside.iter().filter_map(|secret| {
            let rest = secret.strip_prefix(&source).ok()?;
            Some(destination.join(rest))
        });
        let shown: Vec<_> = shown.collect();
        inside.as_mut().unwrap_or(&mut outside).extend(shown);
    }
    let mut hidden = inside.unwrap_or(outside);
    hidden.sort_unstable();
    hidden.dedup();
    hidden
}

fn begins_root(step: &Step) -> bool {
    let is_root = |path: &Path| path.as_os_str() == "/";
    match step {
        Step::MountView { destinations, .. } => destinations.iter().any(|path| is_root(path)),
        Step::AttachView { destination }
        | Step::Bind { destination, .. }
        | Step::Tmpfs { destination }
        | Step::Squashfs { destination, .. } => is_root(destination),
        _ => false,
    }
}

/// A bind of a part of a secret, which could not be hidden without hiding the bind. The secrets are
/// [`real`] paths.
///
/// What the caller has made in the staging area is no secret: it is the caller's, and there
/// because outputs are taken over by rename.
pub fn revealing<'a>(steps: &'a [Step], secrets: &[PathBuf]) -> Option<&'a Path> {
    steps.iter().find_map(|step| match step {
        Step::Bind { source, .. } => {
            let place = real(source);
            let is_secret = |secret: &PathBuf| {
                let rest = place.strip_prefix(secret);
                rest.is_ok_and(|rest| !is_callers(rest))
            };
            secrets.iter().any(is_secret).then_some(source.as_path())
        }
        _ => None,
    })
}

/// Whether a path in a store leads into a staging directory that is not of our making.
fn is_callers(path: &Path) -> bool {
    let mut names = path.components();
    let is_staging = names.next() == Some(Component::Normal("staging".as_ref()));
    let mut names = names.map(|name| match name {
        Component::Normal(name) => name.to_str(),
        // The rest may not exist yet: nobody knows where `..` will lead.
        _ => None,
    });
    let is_theirs = |name: &str| !is_own_staging(name);
    is_staging && names.next().flatten().is_some_and(is_theirs) && names.all(|name| name.is_some())
}

/// Without symbolic links, as far as it exists (yet).
pub fn real(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|above| {
        let rest = path.strip_prefix(above).ok()?;
        let above = above.canonicalize().ok()?;
        Some(above.join(rest).components().collect())
    });
    found.unwrap_or_else(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &str, destination: &str) -> Step {
        Step::Bind {
            source: source.into(),
            destination: destination.into(),
            read_only: false,
        }
    }

    fn names(steps: &[Step]) -> Vec<String> {
        let found = aliases(steps, &["/none/store".into()]);
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        found.into_iter().map(text).collect()
    }

    #[test]
    fn binds_of_what_is_above_show_it_again() {
        assert_eq!(names(&[]), ["/none/store"]);
        let steps = [bind("/none", "/n1"), bind("/n1", "/n2"), bind("/n", "/n3")];
        assert_eq!(names(&steps), ["/n1/store", "/n2/store", "/none/store"]);
        let steps = [bind("/", "/none/host")];
        assert_eq!(names(&steps), ["/none/host/none/store", "/none/store"]);
    }

    #[test]
    fn a_new_root_shows_what_is_bound_into_it_only() {
        let root = Step::Tmpfs {
            destination: "/".into(),
        };
        assert!(names(std::slice::from_ref(&root)).is_empty());
        let steps = [bind("/none", "/n"), root.clone(), bind("/n", "/m")];
        assert_eq!(names(&steps), ["/m/store"]);
        assert_eq!(names(&[root, bind("/", "/")]), ["/none/store"]);
    }

    #[test]
    fn a_part_of_a_secret_is_revealed_by_its_bind_only() {
        let secrets = ["/none/store".into()];
        let found = |source| revealing(&[bind(source, "/x")], &secrets).is_some();
        assert!(found("/none/store") && found("/none/store/blobs"));
        assert!(!found("/none") && !found("/none/store2"));
        assert!(found("/none/store/staging") && found("/none/store/staging/0123456789abcdef/1"));
        assert!(found("/none/store/staging/wakebox-put.1.0"));
        assert!(found("/none/store/staging/job-1.2.0/../../blobs"));
        assert!(!found("/none/store/staging/job-1.2.0") && !found("/none/store/staging/a/b"));
    }
}
