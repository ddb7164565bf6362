//! The record of a job, as its result has it: in the document, or beside it if it is long.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use cas::RelPath;
use cas::record::{Level, Line, Record, Row};
use cas::text::Text;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::host::Opened;
use crate::output::{Hashed, HashedEntry};
use crate::pending::Pending;

/// The most rows that stand in a result. More are lines of a file beside it, which can be read
/// one by one.
const ROWS_MAX: usize = 10_000;

/// What a result tells of the record.
#[derive(Debug, Default, Serialize)]
pub struct Told {
    /// One row per path, sorted; those of the host come last.
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Vec<Line>>,
    /// The file beside the result that has the rows, one in a line.
    #[serde(rename = "record-file", skip_serializing_if = "Option::is_none")]
    file: Option<Text>,
    /// What was asked for and is not in the record.
    #[serde(rename = "record-missing", skip_serializing_if = "Vec::is_empty")]
    missing: Vec<&'static str>,
    /// Declared paths that the record does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    unused: Option<Vec<RelPath>>,
}

impl Told {
    /// Tells a record, with the lengths of outputs. A long one is written beside the result.
    ///
    /// # Errors
    /// The file beside the result cannot be written.
    pub fn new(
        level: Level,
        record: Option<Record>,
        host: Option<Opened>,
        outputs: &[Hashed],
        result: Option<&Pending>,
    ) -> Result<Self> {
        let Some(record) = record else {
            return Ok(Self::default());
        };
        let mut told = Self {
            missing: missing(level, &record, host.as_ref()),
            unused: Some(record.unused),
            ..Self::default()
        };
        let rows = with_lengths(record.rows, outputs)
            .into_iter()
            .map(Line::View);
        let host = host.into_iter().flat_map(|host| host.rows).map(Line::Host);
        let rows: Vec<_> = rows.chain(host).collect();
        let beside = result.and_then(|result| result.beside(".record.jsonl"));
        match beside.filter(|_| rows.len() > ROWS_MAX) {
            Some(file) => told.file = Some(write(&file, &rows, result)?),
            None => told.record = Some(rows),
        }
        Ok(told)
    }
}

fn missing(level: Level, record: &Record, host: Option<&Opened>) -> Vec<&'static str> {
    let host = match host {
        _ if level < Level::Full => None,
        None => Some("host"),
        Some(host) => host.overflow.then_some("host-rows"),
    };
    let rows = record.overflow.then_some("rows");
    host.into_iter().chain(rows).collect()
}

/// A file that the job made has the length that it had at the end.
fn with_lengths(mut rows: Vec<Row>, outputs: &[Hashed]) -> Vec<Row> {
    let length = |output: &Hashed| match output.entry {
        HashedEntry::File { size, .. } => Some((output.path.clone(), size)),
        _ => None,
    };
    let lengths: BTreeMap<_, _> = outputs.iter().filter_map(length).collect();
    for row in &mut rows {
        if let Some(&length) = row.path.as_ref().and_then(|path| lengths.get(path)) {
            row.set_bytes(length);
        }
    }
    rows
}

/// Writes rows line by line, as durably as the result, and returns the name of the file.
fn write(path: &Path, rows: &[Line], result: Option<&Pending>) -> Result<Text> {
    let failed = |error: std::io::Error| Error::io("write the record to", path, error);
    let mut lines = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut lines, row).map_err(|error| failed(error.into()))?;
        lines.write_all(b"\n").map_err(failed)?;
    }
    let mut file = Pending::create(path)?;
    if result.is_some_and(Pending::is_durable) {
        file.make_durable();
    }
    file.commit_bytes(&lines)?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    Ok(crate::result::path_text(Path::new(name)))
}
