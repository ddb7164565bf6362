//! `docs/benchmarks.md`: machine, plot, and a table for each suite with a column per contender.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::plot;
use crate::Result;
use crate::row::{Cell, NATIVE, Row};

const HEAD: &str = "# Benchmarks

Written by `bench --write-docs`; do not edit. What it measured is the static build for musl
([building.md](building.md)): `cargo run --release -p bench -- --pin 1 --write-docs --wakebox
target/x86_64-unknown-linux-musl/release/wakebox`.

Each workload runs natively and under every contender on the same disk, in turn (A B A B …). A cell
is the median of its rounds, as a multiple of native's median in the same run, with the quartiles in
parentheses; native's cells are the times themselves. Figures of the suites tools, metadata, data and
change are taken inside the job; in all others, set-up and removal of whatever the contender needs are
in the figure. Bind mounts, overlays and bindfs do not hide what a job did not declare.
`bench/bars.toml` holds what wakebox has to show; `--check` compares.
";

/// Writes the document and its plot into this source tree.
pub(super) fn write(machine: &str, missing: &[String], rows: &[Row]) -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    fs::write(docs.join("benchmarks.svg"), plot::svg(rows))?;
    fs::write(docs.join("benchmarks.md"), markdown(machine, missing, rows))?;
    println!(
        "wrote {0}/benchmarks.md and {0}/benchmarks.svg",
        docs.display()
    );
    Ok(())
}

fn markdown(machine: &str, missing: &[String], rows: &[Row]) -> String {
    let mut text = format!("{HEAD}\nMachine: {machine}\n");
    for line in missing {
        let _ = write!(text, "\nLeft out: {line}.\n");
    }
    text += "\n![ratios to native](benchmarks.svg)\n";
    for suite in rows.chunk_by(|a, b| a.suite == b.suite) {
        let _ = write!(text, "\n## {}\n\n{}", suite[0].suite, table(suite));
    }
    text + &remarks(rows)
}

fn table(rows: &[Row]) -> String {
    let names: Vec<_> = rows[0]
        .cells
        .iter()
        .map(|cell| cell.contender.as_str())
        .collect();
    let mut text = format!(
        "| | {} |\n|---|{}\n",
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for row in rows {
        let cells: Vec<_> = row.cells.iter().map(|cell| show(row, cell)).collect();
        let _ = writeln!(text, "| {} | {} |", row.name, cells.join(" | "));
    }
    text
}

fn show(row: &Row, cell: &Cell) -> String {
    let mark = if cell.remark.is_some() { " *" } else { "" };
    let Some(found) = cell.summary() else {
        return format!("–{mark}");
    };
    let native = row.median(NATIVE).filter(|_| cell.contender != NATIVE);
    let shown = match native {
        Some(base) => {
            [found.median, found.low, found.high].map(|value| format!("{:.2}", value / base))
        }
        None => [found.median, found.low, found.high].map(|value| row.unit.show(value)),
    };
    format!("{} ({}–{}){mark}", shown[0], shown[1], shown[2])
}

/// What the stars mean.
fn remarks(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        for cell in &row.cells {
            if let Some(remark) = &cell.remark {
                let _ = writeln!(text, "- {}, {}: {remark}", row.name, cell.contender);
            }
        }
    }
    if text.is_empty() {
        text
    } else {
        format!("\n## Remarks (*)\n\n{text}")
    }
}
