//! What is found out: one row per figure, one cell per contender.

use serde::{Deserialize, Serialize};

use crate::stats::Summary;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// Nanoseconds.
    Ns,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// A figure with three digits that matter and a unit that fits.
    pub(crate) fn show(self, value: f64) -> String {
        let steps: &[(f64, &str)] = match self {
            Self::Ns => &[(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")],
            Self::Bytes => &[(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")],
        };
        let last = steps[steps.len() - 1];
        let fits = steps.iter().find(|(size, _)| value.abs() >= *size);
        let (size, unit) = fits.copied().unwrap_or(last);
        let shown = value / size;
        let digits = 2_usize.saturating_sub(shown.abs().max(1.0).log10() as usize);
        format!("{shown:.digits$} {unit}")
    }
}

/// One contender's part of a row.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Cell {
    pub(crate) contender: String,
    pub(crate) samples: Vec<f64>,
    /// Why there are no samples, or what is wrong with them.
    pub(crate) remark: Option<String>,
    /// How often the kernel asked, per kind of request, in the last round's first job. Only who
    /// counts says so, and only the first row of a task.
    #[serde(rename = "fuse-ops")]
    pub(crate) round_trips: Option<serde_json::Value>,
}

impl Cell {
    pub(crate) fn summary(&self) -> Option<Summary> {
        Summary::of(&self.samples)
    }
}

/// One figure, for all contenders.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) suite: String,
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) cells: Vec<Cell>,
}

impl Row {
    pub(crate) fn cell(&self, contender: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.contender == contender)
    }

    pub(crate) fn median(&self, contender: &str) -> Option<f64> {
        Some(self.cell(contender)?.summary()?.median)
    }

    /// How many times native's median this contender's is.
    /// None for one that made or saw something else: it has not done the same.
    pub(crate) fn ratio(&self, contender: &str) -> Option<f64> {
        self.cell(contender).filter(|cell| cell.remark.is_none())?;
        Some(self.median(contender)? / self.median(NATIVE)?)
    }
}

/// What all others are compared with.
pub(crate) const NATIVE: &str = "native";

#[cfg(test)]
mod tests {
    use super::Unit;

    #[test]
    fn figures_have_three_digits_and_a_unit_that_fits() {
        assert_eq!(Unit::Ns.show(1_234_567.0), "1.23 ms");
        assert_eq!(Unit::Ns.show(45_600.0), "45.6 µs");
        assert_eq!(Unit::Ns.show(789.0), "789 ns");
        assert_eq!(Unit::Ns.show(0.5), "0.50 ns");
        assert_eq!(Unit::Bytes.show(50e6), "50.0 MB");
    }
}
