//! The spec of a batch job: as typed (JSON5), and as meant.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cas::manifest::{Declared, DeclaredKind};
use cas::{Digest, RelPath, text};
use serde::de::{self, DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Where blobs are if the spec does not say.
const DEFAULT_STORE: &str = ".build/cas";

/// A spec, as meant.
#[derive(Debug)]
pub struct Spec {
    /// The command and its arguments; the first is not empty.
    pub command: Vec<OsString>,
    /// The whole environment.
    pub environment: Vec<OsString>,
    /// Declared inputs, by content or by name, in the order of the spec.
    pub visible: Vec<Input>,
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
    /// Where views of the workspace are mounted.
    pub workspaces: Vec<PathBuf>,
    /// Whether staged files stay for the caller.
    pub keep_staging: bool,
    /// Whether staged files are put into the store.
    pub adopt: bool,
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
struct Document {
    command: Vec<String>,
    environment: Vec<String>,
    visible: Vec<Visible>,
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
    mount_ops: Vec<MountOp>,
    staging: StagingChoice,
    adopt: bool,
}

impl Default for Document {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            environment: Vec::new(),
            visible: Vec::new(),
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
            staging: StagingChoice::Keep,
            adopt: true,
        }
    }
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum StagingChoice {
    Keep,
    Discard,
}

#[derive(Debug, Deserialize)]
struct MountOp {
    r#type: String,
    source: Option<String>,
    #[serde(default)]
    destination: String,
}

/// A numeric id; some callers write it as a string.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number")]
enum Id {
    Number(u32),
    Text(String),
}

#[derive(Debug)]
enum Visible {
    Name(String),
    Object(VisibleObject),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VisibleObject {
    path: Option<String>,
    r#type: Option<String>,
    hash: Option<String>,
    mode: Option<u32>,
    mtime: Option<i64>,
    writable: bool,
}

/// By hand, because an untagged enum would copy every entry before it looks at it, and would say
/// only that nothing matched.
impl<'de> Deserialize<'de> for Visible {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Visible;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or an object with path and hash")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Visible, E> {
                Ok(Visible::Name(text.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Visible, A::Error> {
                let object = de::value::MapAccessDeserializer::new(map);
                VisibleObject::deserialize(object).map(Visible::Object)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Spec {
    /// Reads a spec. The message of a refusal names the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse_document(text)?.mean()
    }
}

/// Strict JSON is read directly. Anything else, be it JSON5, a repeated key or a mistake, goes the
/// slow way, which also knows where a mistake is.
fn parse_document(text: &str) -> Result<Document, String> {
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

/// A JSON value of which the first occurrence of each key counts, as with the original.
struct FirstWins(serde_json::Value);

impl<'de> Deserialize<'de> for FirstWins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(FirstWinsVisitor)
            .map(FirstWins)
    }
}

struct FirstWinsVisitor;

impl<'de> Visitor<'de> for FirstWinsVisitor {
    type Value = serde_json::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(serde_json::Value::Null)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(serde_json::Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(FirstWins(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = serde_json::Map::new();
        while let Some((key, FirstWins(value))) = entries.next_entry::<String, FirstWins>()? {
            map.entry(key).or_insert(value);
        }
        Ok(map.into())
    }
}

impl Document {
    fn mean(self) -> Result<Spec, String> {
        self.refuse_what_is_not_supported()?;
        if self.command.first().is_none_or(String::is_empty) {
            return Err("command: no command was provided".into());
        }
        let limit = timeout(self.command_timeout.as_ref())?;
        let visible = self.visible.into_iter().enumerate();
        let meant = |(i, entry): (usize, Visible)| {
            entry
                .mean()
                .map_err(|problem| format!("visible[{i}]: {problem}"))
        };
        Ok(Spec {
            command: self.command.iter().map(|text| os_string(text)).collect(),
            environment: self
                .environment
                .iter()
                .map(|text| os_string(text))
                .collect(),
            visible: visible.map(meant).collect::<Result<_, String>>()?,
            store: os_string(&self.cas_dir).into(),
            directory: os_string(&self.directory).into(),
            stdin: (!self.stdin.is_empty()).then(|| os_string(&self.stdin).into()),
            limit,
            user: (
                number("user-id", self.user_id)?,
                number("group-id", self.group_id)?,
            ),
            workspaces: workspaces(&self.mount_ops)?,
            keep_staging: self.staging == StagingChoice::Keep,
            adopt: self.adopt,
        })
    }

    /// A key that asks for something must never be passed over in silence.
    fn refuse_what_is_not_supported(&self) -> Result<(), String> {
        let asked = [
            ("isolate-network", self.isolate_network),
            ("hostname", !self.hostname.is_empty()),
            ("domainname", !self.domainname.is_empty()),
        ];
        // isolate-pids needs no question: a PID namespace with its own /proc is always made.
        match asked.iter().find(|(_, asked)| *asked) {
            Some((key, _)) => Err(format!("{key}: not supported yet")),
            None if self.staging == StagingChoice::Discard && !self.adopt => {
                Err("adopt: with staging 'discard' the outputs would be lost".into())
            }
            None => Ok(()),
        }
    }
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

fn workspaces(ops: &[MountOp]) -> Result<Vec<PathBuf>, String> {
    let mut destinations = Vec::new();
    for (i, op) in ops.iter().enumerate() {
        match op.r#type.as_str() {
            "workspace" if op.source.is_some() => {
                return Err(format!("mount-ops[{i}].source: a workspace has none"));
            }
            "workspace" if op.destination.is_empty() => {
                return Err(format!("mount-ops[{i}].destination: is missing"));
            }
            "workspace" => destinations.push(Path::new(&os_string(&op.destination)).into()),
            "bind" | "tmpfs" | "create-dir" | "create-file" | "squashfs" => {
                return Err(format!(
                    "mount-ops[{i}].type: '{}' is not supported yet",
                    op.r#type
                ));
            }
            unknown => {
                return Err(format!(
                    "mount-ops[{i}].type: unknown mount type: '{unknown}'"
                ));
            }
        }
    }
    Ok(destinations)
}

impl Visible {
    fn mean(self) -> Result<Input, String> {
        match self {
            Self::Name(name) => Ok(Input::Named(path(&name)?)),
            Self::Object(object) => object.mean().map(Input::Declared),
        }
    }
}

impl VisibleObject {
    fn mean(self) -> Result<Declared, String> {
        let path = path(self.path.as_deref().ok_or("path: is missing")?)?;
        // The oldest form has a hash and nothing else. Any further key means the newer form,
        // of which every key is required.
        let oldest = self.r#type.is_none() && self.mode.is_none() && self.mtime.is_none();
        let missing = |key| format!("'{path}': {key}: is missing");
        let r#type = match self.r#type.as_deref() {
            None if oldest => "file",
            other => other.ok_or_else(|| missing("type"))?,
        };
        let mode = self
            .mode
            .or(oldest.then_some(0o444))
            .ok_or_else(|| missing("mode"))?;
        let mtime = self
            .mtime
            .or(oldest.then_some(0))
            .ok_or_else(|| missing("mtime"))?;
        let digest = || -> Result<Digest, String> {
            let hash = self.hash.as_deref().ok_or_else(|| missing("hash"))?;
            hash.parse()
                .map_err(|error| format!("'{path}': hash: {error}"))
        };
        let kind = match r#type {
            "file" if self.writable => DeclaredKind::WritableFile(digest()?),
            _ if self.writable => return Err(format!("'{path}': writable: is for files only")),
            "file" => DeclaredKind::File(digest()?),
            "symlink" => DeclaredKind::Symlink(digest()?),
            "directory" => DeclaredKind::Directory,
            other => return Err(format!("'{path}': type: unknown type {other:?}")),
        };
        Ok(Declared {
            mode: (mode & 0o7777) as u16,
            mtime,
            kind,
            path,
        })
    }
}

fn path(text: &str) -> Result<RelPath, String> {
    RelPath::parse(&text::decode(text)).map_err(|reason| format!("path {text:?} {reason}"))
}

fn os_string(text: &str) -> OsString {
    OsString::from_vec(text::decode(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    fn refusal(text: &str) -> String {
        Spec::parse(text).expect_err(text)
    }

    #[test]
    fn json5_and_the_first_of_equal_keys_count() {
        let spec =
            Spec::parse("{ // note\n command: ['a', 'b',], command: ['c'], unknown: {x: 1}, }");
        assert_eq!(spec.unwrap().command, ["a", "b"]);
    }

    #[test]
    fn all_three_forms_of_an_input_are_understood() {
        let spec = Spec::parse(&format!(
            r#"{{"command":["x"],"visible":["./a//b",
                {{"path":"p","hash":"{HASH}"}},
                {{"path":"q","type":"symlink","hash":"{HASH}","mode":511,"mtime":-1}},
                {{"path":"d","type":"directory","mode":33261,"mtime":5}}]}}"#
        ))
        .unwrap();
        let digest: Digest = HASH.parse().unwrap();
        let declared = |path: &str, mode, mtime, kind| {
            let path = RelPath::parse(path.as_bytes()).unwrap();
            Input::Declared(Declared {
                path,
                mode,
                mtime,
                kind,
            })
        };
        assert_eq!(
            spec.visible,
            [
                Input::Named(RelPath::parse(b"a/b").unwrap()),
                declared("p", 0o444, 0, DeclaredKind::File(digest)),
                declared("q", 0o777, -1, DeclaredKind::Symlink(digest)),
                declared("d", 0o755, 5, DeclaredKind::Directory),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let cases = [
            (
                r#"{"command":[]}"#.into(),
                "command: no command was provided",
            ),
            (
                r#"{"command":[""]}"#.into(),
                "command: no command was provided",
            ),
            (
                r#"{"command":["x"],"command-timeout":0}"#.into(),
                "command-timeout: must be an integer",
            ),
            (
                r#"{"command":["x"],"command-timeout":"5"}"#.into(),
                "command-timeout: must be an integer",
            ),
            (
                r#"{"command":["x"],"visible":["a/../b"]}"#.into(),
                "visible[0]: path \"a/../b\" contains '..'",
            ),
            (
                r#"{"command":["x"],"visible":["ok","/etc"]}"#.into(),
                "visible[1]: path \"/etc\" is absolute",
            ),
            (
                r#"{"command":["x"],"visible":["a\u0000"]}"#.into(),
                "contains a NUL byte",
            ),
            (
                r#"{"command":["x"],"visible":[""]}"#.into(),
                "names no entry",
            ),
            (
                r#"{"command":["x"],"visible":[7]}"#.into(),
                "visible[0]: invalid type: integer `7`, expected a path",
            ),
            (
                format!(
                    r#"{{"command":["x"],"visible":[{{"path":"a","hash":"{HASH}","mode":4}}]}}"#
                ),
                "'a': type: is missing",
            ),
            (
                r#"{"command":["x"],"visible":[{"path":"a","hash":"12"}]}"#.into(),
                "'a': hash: \"12\" is not a BLAKE3 hash",
            ),
            (
                format!(
                    r#"{{"command":["x"],"visible":[{{"path":"a","type":"fifo","hash":"{HASH}","mode":4,"mtime":0}}]}}"#
                ),
                "unknown type \"fifo\"",
            ),
            (
                r#"{"command":["x"],"mount-ops":[{"type":"nfs"}]}"#.into(),
                "mount-ops[0].type: unknown mount type: 'nfs'",
            ),
            (
                r#"{"command":["x"],"mount-ops":[{"type":"tmpfs","destination":"/t"}]}"#.into(),
                "not supported yet",
            ),
            (
                r#"{"command":["x"],"isolate-network":true}"#.into(),
                "isolate-network: not supported yet",
            ),
            (r#"{"command":"x"}"#.into(), "command: invalid type: string"),
            (
                r#"{"command":["x"],"user-id":"me"}"#.into(),
                "user-id: \"me\" is not a number",
            ),
        ];
        for (text, expected) in cases {
            let message = refusal(&text);
            assert!(
                message.contains(expected),
                "{text}\n  {message}\n  {expected}"
            );
        }
        assert!(!refusal("{").is_empty());
    }
}
