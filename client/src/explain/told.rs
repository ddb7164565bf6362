//! What a result tells that explains it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use cas::RelPath;
use cas::record::{Class, Line, Row};
use cas::text::Text;
use serde::Deserialize;

use crate::error::{Error, Result};

/// The keys of a result that matter here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Told {
    #[serde(default)]
    pub(super) outputs: Vec<RelPath>,
    #[serde(default)]
    pub(super) wanted: Vec<RelPath>,
    pub(super) unused: Option<Vec<RelPath>>,
    record: Option<Vec<Line>>,
    record_file: Option<Text>,
    absent: Option<Vec<RelPath>>,
}

impl Told {
    /// Reads a result, and the file beside it that has its record, if there is one.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| Error::io("read", path, error))?;
        let mut told: Self = serde_json::from_slice(&bytes).map_err(|error| {
            Error::Usage(format!("{} is no result of a job: {error}", path.display()))
        })?;
        if let Some(Text(name)) = &told.record_file {
            told.record = Some(read_rows(&beside(path, name))?);
        }
        Ok(told)
    }

    /// Names that were looked for in vain, in that order; `None` if the result does not tell.
    pub(super) fn absent(&self) -> Option<Vec<RelPath>> {
        let Some(rows) = &self.record else {
            return self.absent.clone();
        };
        if self.absent.is_some() {
            return self.absent.clone();
        }
        let mut rows: Vec<_> = rows
            .iter()
            .filter_map(Line::of_view)
            .filter(|row| row.has(Class::ProbeAbsent) && !row.declared)
            .collect();
        rows.sort_by_key(|row| row.first);
        let path = |row: &Row| row.path.clone().filter(|_| !row.has(Class::Create));
        Some(rows.into_iter().filter_map(path).collect())
    }
}

fn beside(result: &Path, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    result.with_file_name(std::ffi::OsStr::from_bytes(name))
}

fn read_rows(path: &Path) -> Result<Vec<Line>> {
    let failed = |error: std::io::Error| Error::io("read", path, error);
    let lines = BufReader::new(File::open(path).map_err(failed)?).lines();
    let row =
        |line: std::io::Result<String>| serde_json::from_str(&line?).map_err(std::io::Error::from);
    lines.map(|line| row(line).map_err(failed)).collect()
}
