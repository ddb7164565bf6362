//! What a job touched, path by path: asked for with the job, told with its report.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::name::RelPath;
use crate::text::{self, Text};

/// How much is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Declared paths whose content was asked for: [`Class::Exec`] to [`Class::List`].
    Inputs,
    /// All classes, declared or not.
    Full,
}

/// What is to be recorded of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recording {
    /// The rows of the record.
    pub level: Level,
    /// Whether the last names that were looked for in vain are kept apart: they explain failures.
    pub absent: bool,
    /// Whether every look at a file counts, also at one that the job knows from a listing: listings
    /// then tell the kernel names and nothing else, and it asks for more.
    #[serde(default)]
    pub each_look: bool,
}

/// What was done with a path. The most telling comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// It was made, under this name.
    Create,
    /// It was removed.
    Delete,
    /// It was moved away from here, or to here.
    Rename,
    /// It was opened for writing, or got other attributes. An input that may be changed counts
    /// when it is, not when it is opened.
    Write,
    /// It was executed.
    Exec,
    /// It was opened for reading.
    Read,
    /// The link was read or followed.
    Readlink,
    /// The directory was enumerated.
    List,
    /// It was looked up.
    Stat,
    /// It was looked up and not there.
    ProbeAbsent,
}

impl Class {
    /// All of them, in order.
    pub const ALL: [Class; 10] = [
        Class::Create,
        Class::Delete,
        Class::Rename,
        Class::Write,
        Class::Exec,
        Class::Read,
        Class::Readlink,
        Class::List,
        Class::Stat,
        Class::ProbeAbsent,
    ];
}

/// One path of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Where it is in the view; `None`, in documents `.`, is the view itself.
    #[serde(serialize_with = "write_place", deserialize_with = "read_place")]
    pub path: Option<RelPath>,
    /// The most telling of what was done with it.
    pub class: Class,
    /// What else was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Class>,
    /// Whether this path is among the declared inputs.
    pub declared: bool,
    /// Length of the file that was read or made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// What `bytes` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_kind: Option<BytesKind>,
    /// When it was first touched: microseconds since the view was made, in documents seconds.
    #[serde(serialize_with = "write_seconds", deserialize_with = "read_seconds")]
    pub first: u64,
}

/// What a number of bytes means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BytesKind {
    /// The length of the file. How much of it was read nobody knows: the kernel reads by itself.
    Size,
}

impl Row {
    /// Whether this was done with the path.
    pub fn has(&self, class: Class) -> bool {
        self.class == class || self.also.contains(&class)
    }

    /// Gives the path a length.
    pub fn set_bytes(&mut self, bytes: u64) {
        (self.bytes, self.bytes_kind) = (Some(bytes), Some(BytesKind::Size));
    }
}

/// A file of the host that the job opened beside its view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRow {
    /// Where it is, absolute, as the job sees it.
    pub path: Text,
    /// What tells it from a path of the view.
    pub class: HostClass,
    /// [`Class::Exec`], if it was executed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<Class>,
    /// Never.
    pub declared: bool,
    /// Its length when it was opened.
    pub bytes: u64,
    /// What `bytes` is.
    pub bytes_kind: BytesKind,
    /// When it was first seen to be open: microseconds since the command could begin, in documents
    /// seconds.
    #[serde(serialize_with = "write_seconds", deserialize_with = "read_seconds")]
    pub first: u64,
}

/// The class of a [`HostRow`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostClass {
    /// A file of the host.
    Host,
}

/// One line of a record, as results have it. The path of a view is relative and that of the host
/// absolute, so the one is never taken for the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// Of the view.
    View(Row),
    /// Of the host.
    Host(HostRow),
}

impl Line {
    /// The row, if it is of the view.
    pub fn of_view(&self) -> Option<&Row> {
        match self {
            Self::View(row) => Some(row),
            Self::Host(_) => None,
        }
    }
}

/// The record of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// One row per path, sorted.
    pub rows: Vec<Row>,
    /// Declared paths without a row, sorted. A directory stands for all that it holds.
    pub unused: Vec<RelPath>,
    /// Whether there were too many paths to tell of all.
    pub overflow: bool,
}

fn write_place<S: Serializer>(path: &Option<RelPath>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => path.serialize(serializer),
        None => serializer.serialize_str("."),
    }
}

fn read_place<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RelPath>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let refuse = |error| serde::de::Error::custom(format!("path {text:?} {error}"));
    match text.as_str() {
        "." => Ok(None),
        path => RelPath::parse(&text::decode(path))
            .map(Some)
            .map_err(refuse),
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    clippy::cast_precision_loss,
    reason = "the form that serde asks for; 285 years of microseconds are exact"
)]
fn write_seconds<S: Serializer>(micros: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(*micros as f64 / 1e6)
}

fn read_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    Ok((seconds * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_short_and_comes_back() {
        let row = Row {
            path: None,
            class: Class::List,
            also: Vec::new(),
            declared: true,
            bytes: None,
            bytes_kind: None,
            first: 1_234_567,
        };
        let text = serde_json::to_string(&row).unwrap();
        let expected = r#"{"path":".","class":"list","declared":true,"first":1.234567}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row);
        let mut read = Row {
            path: Some(RelPath::parse(b"a/b").unwrap()),
            also: vec![Class::ProbeAbsent],
            ..row
        };
        read.set_bytes(7);
        let text = serde_json::to_string(&read).unwrap();
        assert!(text.contains(r#""bytes":7,"bytes_kind":"size""#), "{text}");
        assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), read);
    }

    #[test]
    fn a_line_is_of_the_view_or_of_the_host() {
        let host = r#"{"path":"/bin/cc","class":"host","also":["exec"],"declared":false,"bytes":7,"bytes_kind":"size","first":0.5}"#;
        let Line::Host(row) = serde_json::from_str(host).unwrap() else {
            panic!("not of the host");
        };
        assert_eq!((&row.path.0[..], row.first), (&b"/bin/cc"[..], 500_000));
        assert_eq!(serde_json::to_string(&Line::Host(row)).unwrap(), host);
        let view = r#"{"path":"a","class":"read","declared":true,"first":0.0}"#;
        assert!(matches!(serde_json::from_str(view), Ok(Line::View(_))));
        for wrong in [
            host.replace("\"host", "\"read"),
            view.replace("\"a", "\"/a"),
        ] {
            assert!(serde_json::from_str::<Line>(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn classes_are_in_order() {
        assert!(Class::ALL.is_sorted());
    }
}
