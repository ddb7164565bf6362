//! The bars that wakebox has to clear, and which of them it does not.

use serde::Deserialize;

use crate::Result;
use crate::measure::OURS;
use crate::row::{NATIVE, Row, Unit};

/// One bar: wakebox's median in `row` is at most `ratio` × the base + `plus`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Bar {
    pub(crate) row: String,
    /// The row of the base; the same unless named.
    base: Option<String>,
    /// Whose median is the base.
    #[serde(default = "native")]
    of: String,
    #[serde(default)]
    ratio: f64,
    /// An amount with a unit: `2.5 ms`, `50 MB`.
    plus: Option<String>,
    /// For whom it is set.
    #[serde(default)]
    user: User,
}

/// Who measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum User {
    #[default]
    Root,
    Ordinary,
    Any,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bars {
    bar: Vec<Bar>,
}

fn native() -> String {
    NATIVE.to_owned()
}

/// The bars of this source tree for root or for an ordinary user.
pub(crate) fn read(root: bool) -> Result<Vec<Bar>> {
    let mut bars: Bars = toml::from_str(include_str!("../bars.toml"))?;
    let other = if root { User::Ordinary } else { User::Root };
    bars.bar.retain(|bar| bar.user != other);
    for bar in &bars.bar {
        bar.plus()?;
    }
    Ok(bars.bar)
}

/// The bars for rows that there are: those that can be judged if only some suites have run.
pub(crate) fn of_rows(bars: Vec<Bar>, rows: &[Row]) -> Vec<Bar> {
    let there = |bar: &Bar| rows.iter().any(|row| row.name == bar.row);
    bars.into_iter().filter(there).collect()
}

/// A line for each bar that is not met, or that nothing was measured for.
pub(crate) fn unmet(bars: &[Bar], rows: &[Row]) -> Vec<String> {
    let judged = bars.iter().map(|bar| (bar, bar.judge(rows)));
    let failed =
        judged.filter_map(|(bar, verdict)| Some(format!("{}: {}", bar.row, verdict.err()?)));
    failed.collect()
}

impl Bar {
    /// Amounts are in nanoseconds or bytes.
    fn plus(&self) -> Result<f64> {
        let Some(text) = &self.plus else {
            return Ok(0.0);
        };
        let (number, unit) = text.split_once(' ').ok_or("an amount has a unit")?;
        let factor = match unit {
            "ns" | "B" => 1.0,
            "us" | "kB" => 1e3,
            "ms" | "MB" => 1e6,
            "s" | "GB" => 1e9,
            _ => return Err(format!("{}: no unit: {unit}", self.row).into()),
        };
        Ok(number.parse::<f64>()? * factor)
    }

    fn judge(&self, rows: &[Row]) -> Result<()> {
        let median = |row: &str, who: &str| {
            let row = rows.iter().find(|candidate| candidate.name == row);
            row.and_then(|row| row.median(who))
                .ok_or_else(|| format!("not measured for {who}"))
        };
        let mine = median(&self.row, OURS)?;
        let base = match self.ratio {
            0.0 => 0.0,
            ratio => ratio * median(self.base.as_ref().unwrap_or(&self.row), &self.of)?,
        };
        let limit = base + self.plus()?;
        if mine <= limit {
            return Ok(());
        }
        let unit = rows
            .iter()
            .find(|row| row.name == self.row)
            .map_or(Unit::Ns, |row| row.unit);
        Err(format!("{} is more than {}", unit.show(mine), unit.show(limit)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Cell;

    fn row(native: f64, ours: f64) -> Row {
        let cell = |contender: &str, value| Cell {
            contender: contender.to_owned(),
            samples: vec![value],
            ..Cell::default()
        };
        let cells = vec![cell(NATIVE, native), cell(OURS, ours)];
        Row {
            suite: "s".to_owned(),
            name: "r".to_owned(),
            unit: Unit::Ns,
            cells,
        }
    }

    fn bar(text: &str) -> Bar {
        toml::from_str(text).expect("a bar")
    }

    #[test]
    fn a_bar_is_a_ratio_and_an_amount() {
        let ratio = bar("row = 'r'\nratio = 2");
        assert!(unmet(std::slice::from_ref(&ratio), &[row(10.0, 20.0)]).is_empty());
        assert_eq!(
            unmet(&[ratio], &[row(10.0, 21.0)]),
            ["r: 21.0 ns is more than 20.0 ns"]
        );
        let both = bar("row = 'r'\nratio = 1\nplus = '2 us'");
        assert!(both.judge(&[row(10.0, 2_010.0)]).is_ok());
        assert!(both.judge(&[row(10.0, 2_011.0)]).is_err());
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        assert_eq!(
            unmet(&[bar("row = 'x'\nratio = 1")], &[row(1.0, 1.0)]).len(),
            1
        );
    }

    #[test]
    fn the_bars_of_this_source_tree_can_be_read() {
        assert!(read(true).expect("bars").len() > 20);
        let ordinary = read(false).expect("bars");
        assert!((2..10).contains(&ordinary.len()), "{ordinary:?}");
    }
}
