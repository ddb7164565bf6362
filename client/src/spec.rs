//! The spec of a batch job: as typed (JSON5), and as meant.

pub mod changeable;
mod first_wins;
pub mod learned;
mod plain;
mod seen;
mod visible;

pub use plain::Plain;
pub use seen::Seen;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use cas::directory::Root;
use cas::manifest::Declared;
use cas::protocol::CopyOnWrite;
use cas::record::Level;
use cas::{RelPath, text};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use changeable::InputsChoice;
use first_wins::FirstWins;
use visible::Meant;

use crate::mount_ops::{self, MountOp, TypedOp};
use crate::sandbox::plan::{Limit, Limited, Namespaces};

/// Where blobs are if the spec does not say.
pub(crate) const DEFAULT_STORE: &str = ".build/cas";

/// A spec, as meant.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The command and its arguments; the first is not empty.
    pub command: Vec<OsString>,
    /// The whole environment.
    pub environment: Vec<OsString>,
    /// A stored tree that lies under the declared inputs.
    pub input_root: Option<Root>,
    /// Declared inputs, by content or by name, in the order of the spec.
    pub visible: Vec<Input>,
    /// Which of them the job may change.
    pub copy_on_write: CopyOnWrite,
    /// The store, relative to where the client was started, or absolute.
    pub store: PathBuf,
    /// Where the command starts, relative to the workspace.
    pub directory: PathBuf,
    /// Standard input, relative to `directory`; `None` is `/dev/null`.
    pub stdin: Option<PathBuf>,
    /// Wall time that the job may take.
    pub limit: Option<Duration>,
    /// The user and group that the job sees itself as, where given.
    pub user: (Option<u32>, Option<u32>),
    /// What is mounted, in order.
    pub mount_ops: Vec<MountOp>,
    /// Names and network of the job's own.
    pub namespaces: Namespaces,
    /// Whether the job asks for a `/proc` of its own, which a new root then has to have.
    pub isolate_pids: bool,
    /// Resource limits.
    pub limits: Vec<Limit>,
    /// Whether staged files stay for the caller.
    pub keep_staging: bool,
    /// Whether staged files are put into the store.
    pub adopt: bool,
    /// Whether the result, and all that it names, is to be on disk at the end.
    pub durable: bool,
    /// How much is recorded of what the job touches.
    pub record: Level,
    /// How long the job is kept if it fails, if at all.
    pub keep_failed: Option<Duration>,
    /// What people are to call it, if not by its command.
    pub label: Option<String>,
}

/// One declared input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Known by content.
    Declared(Declared),
    /// A file of the workspace, yet to be hashed.
    Named(RelPath),
}

/// A spec, as typed. Unknown keys are accepted: callers write notes for others into it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Document<V> {
    command: Vec<String>,
    environment: Vec<String>,
    input_root: Option<String>,
    visible: V,
    inputs: InputsChoice,
    copy_on_write: Vec<String>,
    cas_dir: String,
    directory: String,
    stdin: String,
    command_timeout: Option<serde_json::Value>,
    isolate_network: bool,
    isolate_pids: bool,
    hostname: String,
    domainname: String,
    user_id: Option<Id>,
    group_id: Option<Id>,
    mount_ops: Vec<TypedOp>,
    limits: BTreeMap<String, TypedLimit>,
    staging: StagingChoice,
    adopt: bool,
    durable: bool,
    record: Level,
    keep_failed: Option<KeepChoice>,
    /// Of any type: callers have always been free to write notes.
    label: Option<serde_json::Value>,
}

impl<V: Default> Default for Document<V> {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            environment: Vec::new(),
            input_root: None,
            visible: V::default(),
            inputs: InputsChoice::default(),
            copy_on_write: Vec::new(),
            cas_dir: DEFAULT_STORE.into(),
            directory: String::new(),
            stdin: String::new(),
            command_timeout: None,
            isolate_network: false,
            isolate_pids: false,
            hostname: String::new(),
            domainname: String::new(),
            user_id: None,
            group_id: None,
            mount_ops: Vec::new(),
            limits: BTreeMap::new(),
            staging: StagingChoice::Keep,
            adopt: true,
            durable: false,
            record: Level::None,
            keep_failed: None,
            label: None,
        }
    }
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum StagingChoice {
    Keep,
    Discard,
}

/// Whether and how long a failed job is kept.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected true, false, or a time as \"12h\"")]
enum KeepChoice {
    Whether(bool),
    Time(String),
}

impl KeepChoice {
    fn mean(self) -> Result<Option<Duration>, String> {
        match self {
            Self::Whether(keep) => Ok(keep.then(crate::cli::kept_by_default)),
            Self::Time(text) => match crate::cli::parse_age(&text) {
                Ok(time) => Ok(Some(time)),
                Err(problem) => Err(format!("keep-failed: {problem}")),
            },
        }
    }
}

/// One number for both, or a pair.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number, \"unlimited\", or a pair of them: soft and hard"
)]
enum TypedLimit {
    Both(Amount),
    Each(Amount, Amount),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Amount {
    Number(u64),
    Word(Unlimited),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Unlimited {
    Unlimited,
}

/// A numeric id; some callers write it as a string.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number")]
enum Id {
    Number(u32),
    Text(String),
}

impl Spec {
    /// Reads a spec. The message of a refusal names the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse_document(text)?.mean_all()
    }

    /// As [`Spec::parse`], of a spec that is quickly read: its declared inputs are a manifest, and not in
    /// `visible`. `None` of any other, be it for a mistake, for inputs that are known by name or for an
    /// unusual form.
    pub fn parse_plain(text: &str) -> Option<Plain> {
        plain::read(text)
    }
}

/// Strict JSON is read directly. Anything else, be it JSON5, a repeated key or a mistake, goes the
/// slow way, which also knows where a mistake is.
fn parse_document(text: &str) -> Result<Document<Vec<Meant>>, String> {
    match serde_json::from_str(text) {
        Ok(document) => Ok(document),
        Err(_) => parse_slowly(text),
    }
}

fn parse_slowly<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let FirstWins(value) = json5::from_str(text).map_err(|error| error.to_string())?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        if path == "." {
            error.inner().to_string()
        } else {
            format!("{path}: {}", error.inner())
        }
    })
}

impl Document<Vec<Meant>> {
    fn mean_all(mut self) -> Result<Spec, String> {
        let visible = std::mem::take(&mut self.visible);
        let visible = visible.into_iter().enumerate();
        let meant = |(i, Meant(entry)): (usize, Meant)| {
            entry.map_err(|problem| format!("visible[{i}]: {problem}"))
        };
        let visible = || visible.map(meant).collect();
        self.mean(visible)
    }
}

impl<V> Document<V> {
    /// What all but `visible` means, and what that means in its place: the first mistake is told.
    fn mean(self, visible: impl FnOnce() -> Result<Vec<Input>, String>) -> Result<Spec, String> {
        if self.staging == StagingChoice::Discard && !self.adopt {
            return Err("adopt: with staging 'discard' the outputs would be lost".into());
        }
        if self.command.first().is_none_or(String::is_empty) {
            return Err("command: no command was provided".into());
        }
        let limit = timeout(self.command_timeout.as_ref())?;
        Ok(Spec {
            command: self.command.iter().map(|text| os_string(text)).collect(),
            environment: self
                .environment
                .iter()
                .map(|text| os_string(text))
                .collect(),
            input_root: input_root(self.input_root.as_deref())?,
            visible: visible()?,
            copy_on_write: changeable::mean(self.inputs, &self.copy_on_write)?,
            store: os_string(&self.cas_dir).into(),
            directory: os_string(&self.directory).into(),
            stdin: (!self.stdin.is_empty()).then(|| os_string(&self.stdin).into()),
            limit,
            user: (
                number("user-id", self.user_id)?,
                number("group-id", self.group_id)?,
            ),
            mount_ops: mount_ops::read(&self.mount_ops)?,
            namespaces: Namespaces {
                host_name: name(&self.hostname),
                domain_name: name(&self.domainname),
                network: self.isolate_network,
                last_pid: None,
                ipc: false,
            },
            isolate_pids: self.isolate_pids,
            limits: limits(&self.limits)?,
            keep_staging: self.staging == StagingChoice::Keep,
            adopt: self.adopt,
            durable: self.durable,
            record: self.record,
            keep_failed: self.keep_failed.map_or(Ok(None), KeepChoice::mean)?,
            label: self
                .label
                .and_then(|label| Some(label.as_str()?.to_owned())),
        })
    }
}

fn input_root(text: Option<&str>) -> Result<Option<Root>, String> {
    let root = text.map(str::parse).transpose();
    root.map_err(|error| format!("input-root: {error}"))
}

fn timeout(value: Option<&serde_json::Value>) -> Result<Option<Duration>, String> {
    let Some(value) = value else { return Ok(None) };
    match value.as_u64() {
        Some(seconds) if seconds > 0 => Ok(Some(Duration::from_secs(seconds))),
        _ => Err("command-timeout: must be an integer value greater than 0".into()),
    }
}

fn number(key: &str, id: Option<Id>) -> Result<Option<u32>, String> {
    match id {
        None => Ok(None),
        Some(Id::Number(number)) => Ok(Some(number)),
        Some(Id::Text(text)) => match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("{key}: {text:?} is not a number")),
        },
    }
}

fn name(text: &str) -> Option<OsString> {
    (!text.is_empty()).then(|| os_string(text))
}

fn limits(typed: &BTreeMap<String, TypedLimit>) -> Result<Vec<Limit>, String> {
    let limits = typed.iter();
    limits
        .map(|(key, typed)| {
            limit(key, *typed).map_err(|problem| format!("limits.{key}: {problem}"))
        })
        .collect()
}

fn limit(key: &str, typed: TypedLimit) -> Result<Limit, String> {
    let what = Limited::ALL.into_iter().find(|what| what.name() == key);
    let what = what.ok_or_else(|| {
        let names = Limited::ALL.map(Limited::name).join(", ");
        format!("is no limit; these are: {names}")
    })?;
    let amount = |amount| match amount {
        Amount::Number(number) => Some(number),
        Amount::Word(Unlimited::Unlimited) => None,
    };
    let (soft, hard) = match typed {
        TypedLimit::Both(both) => (amount(both), amount(both)),
        TypedLimit::Each(soft, hard) => (amount(soft), amount(hard)),
    };
    if hard.is_some_and(|hard| soft.is_none_or(|soft| soft > hard)) {
        return Err("the soft limit is above the hard one".into());
    }
    Ok(Limit { what, soft, hard })
}

fn os_string(text: &str) -> OsString {
    OsString::from_vec(text::decode(text).into_owned())
}

#[cfg(test)]
mod tests;
