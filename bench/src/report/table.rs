//! The table in a terminal: a line for each row and contender.

use std::fmt::Write as _;

use crate::row::{Cell, Row};

/// All rows, by suite.
pub(crate) fn text(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut suite = "";
    for row in rows {
        if row.suite != suite {
            suite = &row.suite;
            let heads = ("median", "quartiles", "×native");
            let _ = writeln!(
                text,
                "\n{suite:<46} {:>10} {:>21} {:>8}",
                heads.0, heads.1, heads.2
            );
        }
        let _ = writeln!(text, "{}", row.name);
        for cell in &row.cells {
            let _ = writeln!(text, "{}", line(row, cell));
            let _ = write!(text, "{}", round_trips(cell));
        }
    }
    text
}

fn line(row: &Row, cell: &Cell) -> String {
    let name = &cell.contender;
    let remark = cell
        .remark
        .as_ref()
        .map_or(String::new(), |remark| format!("  {remark}"));
    let Some(found) = cell.summary() else {
        return format!("    {name:<42} {:>10}{remark}", "-");
    };
    let show = |value| row.unit.show(value);
    let spread = format!("{} – {}", show(found.low), show(found.high));
    let ratio = row
        .ratio(name)
        .map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    let (median, samples) = (show(found.median), found.samples);
    format!("    {name:<36} ({samples:>2}) {median:>10} {spread:>21} {ratio:>8}{remark}")
}

/// How often the kernel asked, if it was counted.
fn round_trips(cell: &Cell) -> String {
    let Some(all) = cell.round_trips.as_ref().and_then(|all| all.as_object()) else {
        return String::new();
    };
    let told = all.iter().filter(|(_, times)| **times != 0);
    let told: Vec<_> = told
        .map(|(kind, times)| format!("{kind} {times}"))
        .collect();
    format!("      round trips of the job: {}\n", told.join(", "))
}
