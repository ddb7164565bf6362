//! What a record may tell, and what it must: kept beside the model, by all paths that a node ever
//! had, because the kernel may know a file by any of them.

use std::collections::{BTreeMap, BTreeSet};

use cas::record::{Class, Record, Row};

use super::super::reference::{Model, Number, join};
use super::{Verdict, ensure};

type Paths = BTreeSet<String>;

#[derive(Default)]
pub(super) struct Touched {
    declared: Paths,
    /// All paths of each node, past ones included.
    ever: BTreeMap<Number, Paths>,
    may: BTreeSet<(String, Class)>,
    /// One of the paths must have the class.
    must: BTreeSet<(Paths, Class)>,
}

impl Touched {
    pub(super) fn new(model: &Model) -> Self {
        let declared = model.paths.keys().cloned().collect();
        let mut touched = Self {
            declared,
            ..Self::default()
        };
        touched.follow(model);
        touched
    }

    /// Learns the paths of all nodes. Must be called after each step.
    pub(super) fn follow(&mut self, model: &Model) {
        for (path, number) in &model.paths {
            let paths = self.ever.entry(*number).or_default();
            if !paths.contains(path) {
                paths.insert(path.clone());
            }
        }
    }

    /// A node was touched, by whichever of its names. It must be told if it has one.
    pub(super) fn node(&mut self, number: Number, class: Class, there: bool) {
        let paths = self.ever.get(&number).cloned().unwrap_or_default();
        self.paths(paths, class, there);
    }

    /// A name was touched. It must be told if its directory has one.
    pub(super) fn name(&mut self, directory: Number, name: &str, class: Class, there: bool) {
        let above = self.ever.get(&directory).cloned().unwrap_or_default();
        self.paths(
            above.iter().map(|path| join(path, name)).collect(),
            class,
            there,
        );
    }

    fn paths(&mut self, paths: Paths, class: Class, there: bool) {
        self.may
            .extend(paths.iter().map(|path| (path.clone(), class)));
        if there {
            self.must.insert((paths, class));
        }
    }

    pub(super) fn compare(&self, record: &Record) -> Verdict {
        ensure(record.rows.is_sorted_by_key(|row| &row.path), || {
            "rows are not sorted".into()
        })?;
        let rows: BTreeMap<String, &Row> = record.rows.iter().map(|row| (path(row), row)).collect();
        ensure(rows.len() == record.rows.len(), || {
            "a path has two rows".into()
        })?;
        for (path, row) in &rows {
            let classes = [row.class].into_iter().chain(row.also.iter().copied());
            for class in classes {
                let known = self.may.contains(&(path.clone(), class));
                ensure(known, || format!("'{path}' never had {class:?}"))?;
            }
            let declared = self.declared.contains(path);
            ensure(row.declared == declared, || format!("'{path}': {row:?}"))?;
        }
        self.compare_must(&rows)?;
        self.compare_unused(record, &rows)
    }

    fn compare_must(&self, rows: &BTreeMap<String, &Row>) -> Verdict {
        for (paths, class) in &self.must {
            let mut had = paths.iter();
            let told = had.any(|path| {
                let walked = *class == Class::Stat && has_below(rows, path);
                walked || rows.get(path).is_some_and(|row| row.has(*class))
            });
            ensure(told, || format!("{class:?} of {paths:?} is not told"))?;
        }
        Ok(())
    }

    /// What is declared has a row, or leads to one, or is unused, and never two of these.
    fn compare_unused(&self, record: &Record, rows: &BTreeMap<String, &Row>) -> Verdict {
        let unused: Paths = record.unused.iter().map(ToString::to_string).collect();
        let is_unused = |path: &String| {
            let mut above = path.match_indices('/').map(|(at, _)| &path[..at]);
            unused.contains(path) || above.any(|above| unused.contains(above))
        };
        for path in self.declared.iter().filter(|path| !path.is_empty()) {
            let used = rows.contains_key(path) || has_below(rows, path);
            let told = is_unused(path);
            // What was renamed is under its new name in no tree: then only its directory counts.
            ensure(used != told, || {
                format!("'{path}': used {used}, unused {told}")
            })?;
        }
        Ok(())
    }
}

fn path(row: &Row) -> String {
    row.path
        .as_ref()
        .map_or_else(String::new, ToString::to_string)
}

fn has_below(rows: &BTreeMap<String, &Row>, path: &str) -> bool {
    let above = format!("{path}/");
    rows.keys().any(|row| row.starts_with(&above))
}
