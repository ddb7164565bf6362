//! What was found out, for people and for programs.

mod docs;
mod plot;
mod table;

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use crate::Result;
use crate::cli::Options;
use crate::row::Row;

/// Prints the table, and writes what else is asked for.
pub(crate) fn all(
    options: &Options,
    machine: &str,
    missing: &[String],
    rows: &[Row],
) -> Result<()> {
    print!("{}", table::text(rows));
    if let Some(path) = &options.json {
        let rows: Vec<_> = rows.iter().map(with_summaries).collect();
        let document = json!({ "machine": machine, "left_out": missing, "rows": rows });
        fs::write(path, format!("{document:#}\n"))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if options.write_docs {
        docs::write(machine, missing, rows)?;
    }
    Ok(())
}

/// What an earlier run has written.
pub(crate) fn read(path: &Path) -> Result<Vec<Row>> {
    #[derive(Deserialize)]
    struct Document {
        rows: Vec<Row>,
    }
    let read = || -> Result<Document> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let document = read().map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(document.rows)
}

fn with_summaries(row: &Row) -> serde_json::Value {
    let cells = row.cells.iter().map(|cell| {
        json!({
            "contender": cell.contender,
            "summary": cell.summary(),
            "ratio": row.ratio(&cell.contender),
            "samples": cell.samples,
            "remark": cell.remark,
            "fuse-ops": cell.round_trips,
        })
    });
    let cells = cells.collect::<Vec<_>>();
    json!({ "suite": row.suite, "name": row.name, "unit": row.unit, "cells": cells })
}
