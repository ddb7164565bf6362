//! From a command to its spec: run it with everything visible, look what it used, and run it again
//! with no more than that.

mod used;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cas::record::{Level, Recording, Row};
use cas::text::Text;
use cas::{Digest, RelPath, Store};
use serde::Serialize;

use crate::check::{self, Difference};
use crate::cli::{Environment, LearnArguments};
use crate::commands::print;
use crate::daemon::Daemons;
use crate::error::{Error, Result, say};
use crate::exit_code;
use crate::explain;
use crate::ingest;
use crate::mount_ops;
use crate::output::Hashed;
use crate::pending::Pending;
use crate::spec::Spec;
use crate::spec::learned::Learned;
use crate::trial::{Conditions, Ground, Trial, read_spec};
use crate::workspace;

use used::Shown;
pub use watched::{Identity, Surroundings, identity};

/// A learned spec, in the order in which it is written.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    command: Vec<Text>,
    environment: Vec<Text>,
    cas_dir: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command_timeout: Option<u64>,
    mount_ops: Vec<mount_ops::View>,
    visible: Vec<RelPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outputs: Option<Vec<RelPath>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probes: Option<BTreeSet<RelPath>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listed: Option<BTreeMap<String, Digest>>,
}

impl Document {
    fn spec(&self) -> Result<Spec> {
        let text = serde_json::to_string(self).map_err(|error| Error::Usage(error.to_string()))?;
        Spec::parse(&text).map_err(Error::Usage)
    }

    /// The same job with other inputs.
    fn showing(&self, visible: &BTreeSet<RelPath>) -> Self {
        let visible = visible.iter().cloned().collect();
        Self {
            visible,
            ..self.clone()
        }
    }
}

/// What learning takes: a job that sees everything, and what everything is.
struct Lesson<'a> {
    arguments: &'a LearnArguments,
    workspace: PathBuf,
    ground: Ground<'a>,
    /// The store, which is no part of the workspace wherever it lies.
    exclude: [Identity; 1],
    /// Where the spec goes, if that is a file already.
    target: Option<Identity>,
}

/// `wakebox learn`.
pub fn run(arguments: &LearnArguments, environment: &Environment) -> Result<u8> {
    if let Some(spec) = &arguments.check {
        return check_surroundings(spec);
    }
    let workspace = std::env::current_dir().and_then(|here| here.canonicalize());
    let workspace = workspace.map_err(|e| Error::io("find", "the current directory", e))?;
    let place = arguments.store.resolve(environment)?;
    workspace::check_place(&workspace, &place)?;
    let store = Store::open_own(&place)?;
    let daemons = Daemons::from_environment(environment)?;
    let lesson = Lesson {
        arguments,
        workspace,
        ground: Ground {
            store: &store,
            daemons: &daemons,
            environment,
        },
        exclude: [workspace::identity(&store)?],
        target: target(arguments.spec.as_deref())?,
    };
    lesson.learn(&place, environment)
}

/// What the spec will be written to, if it exists: it is no input, and in no listing.
fn target(spec: Option<&Path>) -> Result<Option<Identity>> {
    match spec {
        Some(spec) if spec.exists() => identity(spec).map(Some),
        Some(_) => Ok(None),
        None => {
            let output = rustix::fs::fstat(rustix::stdio::stdout());
            Ok(output.ok().map(|stat| (stat.st_dev, stat.st_ino)))
        }
    }
}

impl Lesson<'_> {
    fn learn(&self, place: &Path, environment: &Environment) -> Result<u8> {
        let wanted = workspace::wanted(&self.workspace, &self.arguments.outputs)?;
        let shown = self.everything(&wanted)?;
        let plain = self.document(place, environment)?;
        let all = plain.showing(&shown.paths());
        let record = Recording {
            level: Level::Full,
            absent: true,
            each_look: true,
        };
        let conditions = Conditions {
            record,
            ..Conditions::default()
        };
        let mut trial = self.ground.run(all.spec()?, &conditions)?;
        if let Some(code) = trial.failure("; nothing is learned from it") {
            self.explain(&trial, &wanted);
            return Ok(code);
        }
        workspace::check_wanted(&wanted, trial.outputs.iter().map(|output| &output.path))?;
        let record = trial.report.record.take().unwrap_or_default();
        if record.overflow {
            return Err(Error::Outcome(
                "the job touched more paths than can be recorded; nothing is learned from it"
                    .into(),
            ));
        }
        let spec = self.strict(&plain, &shown, &record.rows, &trial)?;
        self.write(&self.with_surroundings(spec, &record.rows, &trial.outputs)?)?;
        Ok(0)
    }

    /// All that the job may see. What it shall make is no input just because an earlier run has made
    /// it already.
    fn everything(&self, wanted: &[RelPath]) -> Result<Shown> {
        let patterns = &self.arguments.inputs;
        let mut found = ingest::select(&self.workspace, patterns, &self.exclude)?;
        if patterns.is_empty() {
            found.retain(|file| !wanted.iter().any(|path| file.path.starts_with(path)));
        }
        found.retain(|file| {
            let stamp = file.attributes.stamp;
            self.target != Some((stamp.device, stamp.inode))
        });
        Ok(Shown::new(&found))
    }

    /// The job, without inputs.
    fn document(&self, place: &Path, environment: &Environment) -> Result<Document> {
        let arguments = self.arguments;
        let text = |word: &OsString| Text(word.as_bytes().into());
        let variables = workspace::variables(&arguments.env, environment)?;
        Ok(Document {
            command: arguments.command.iter().map(text).collect(),
            environment: variables.iter().map(text).collect(),
            cas_dir: Some(crate::result::path_text(place)),
            command_timeout: arguments.timeout.map(|limit| limit.as_secs().max(1)),
            mount_ops: vec![mount_ops::View::here()],
            ..Document::default()
        })
    }

    /// The spec with the least inputs by which the job makes the same. Names that were listed and
    /// nothing else may matter or not, so first it is tried without them.
    fn strict(
        &self,
        plain: &Document,
        shown: &Shown,
        rows: &[Row],
        whole: &Trial,
    ) -> Result<Document> {
        let needed = shown.needed(rows);
        let listed = used::listed(rows);
        let wide = shown.with_entries(needed.clone(), &listed);
        if self.arguments.once {
            return Ok(plain.showing(&wide));
        }
        let least = plain.showing(&needed);
        if self.differences(&least, whole)?.is_empty() {
            return Ok(least);
        }
        let wide = plain.showing(&wide);
        for difference in self.differences(&wide, whole)?.iter().take(3) {
            say(format_args!(
                "{difference} when the job runs by its spec: find out with `wakebox check` whether \
                 it does so every time"
            ));
        }
        Ok(wide)
    }

    /// What a job makes otherwise when it sees less.
    fn differences(&self, document: &Document, whole: &Trial) -> Result<Vec<Difference>> {
        let trial = self.ground.run(document.spec()?, &Conditions::default())?;
        Ok(check::differences(whole, &trial))
    }

    /// Adds what the job made, and what it has seen that is no input.
    fn with_surroundings(
        &self,
        document: Document,
        rows: &[Row],
        outputs: &[Hashed],
    ) -> Result<Document> {
        let outputs: Vec<_> = outputs.iter().map(|output| output.path.clone()).collect();
        let (mut probes, listed) = (used::probes(rows), used::listed(rows));
        let store = self.ground.store.root();
        let around = match probes.is_empty() && listed.is_empty() {
            true => Surroundings::default(),
            false => Surroundings::new(&self.workspace, store, self.target, &outputs)?,
        };
        // What is there and was not shown: the caller has chosen the inputs.
        probes.retain(|path| !around.has(path));
        let listed = around.listings(&listed).into_iter();
        let listed = listed.map(|(path, digest)| (watched::key(path.as_ref()), digest));
        Ok(Document {
            outputs: Some(outputs),
            probes: Some(probes),
            listed: Some(listed.collect()),
            ..document
        })
    }

    fn write(&self, document: &Document) -> Result<()> {
        let text = serde_json::to_string_pretty(document)
            .map_err(|error| Error::Usage(error.to_string()))?;
        match &self.arguments.spec {
            Some(path) => Pending::create(path)?.commit_bytes(format!("{text}\n").as_bytes()),
            None => print(format_args!("{text}")),
        }
    }

    /// Even with everything visible something may be missing: what git ignores, say.
    fn explain(&self, trial: &Trial, wanted: &[RelPath]) {
        let made = trial.outputs.iter().map(|output| output.path.clone());
        let made: Vec<_> = made.chain(wanted.iter().cloned()).collect();
        let search = explain::Search {
            workspace: &self.workspace,
            log: "",
            made: &made,
            store: Some(self.exclude[0]),
        };
        explain::unasked(&search, &trial.report.absent);
    }
}

/// `wakebox learn --check`: whether what the job has seen besides its inputs is as it was.
fn check_surroundings(path: &Path) -> Result<u8> {
    let (spec, learned) = read_learned(path)?;
    let around = surroundings(path, &spec, &learned)?;
    let changes = around.changes(&learned);
    for change in &changes {
        print(format_args!("{change}"))?;
    }
    Ok(match changes.is_empty() {
        true => 0,
        false => exit_code::NO,
    })
}

/// Reads a spec with the keys that [`run`] adds.
///
/// # Errors
/// It cannot be read, or makes no sense.
pub fn read_learned(path: &Path) -> Result<(Spec, Learned)> {
    let (spec, text) = read_spec(path)?;
    let learned = Learned::parse(&text).map_err(|message| Error::Spec {
        path: path.into(),
        message,
    })?;
    Ok((spec, learned))
}

/// What is around the job of a spec in the current directory. Not looked at for a job that has looked
/// at nothing there.
///
/// # Errors
/// The workspace cannot be read.
pub fn surroundings(path: &Path, spec: &Spec, learned: &Learned) -> Result<Surroundings> {
    if learned.probes.is_empty() && learned.listed.is_empty() {
        return Ok(Surroundings::default());
    }
    let workspace = std::env::current_dir();
    let workspace = workspace.map_err(|e| Error::io("find", "the current directory", e))?;
    let (store, spec) = (&spec.store, Some(identity(path)?));
    Surroundings::new(&workspace, store, spec, &learned.outputs)
}
