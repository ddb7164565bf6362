//! The words of the commands that look after a store.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Environment;
use crate::error::Result;

/// Which store.
#[derive(Debug, Args)]
pub struct StoreArgument {
    /// The store [default: $XDG_CACHE_HOME/wakebox]
    #[arg(long = "store", value_name = "DIR")]
    pub path: Option<PathBuf>,
}

impl StoreArgument {
    /// The store that is meant.
    pub fn resolve(&self, environment: &Environment) -> Result<PathBuf> {
        match &self.path {
            Some(path) => Ok(path.clone()),
            None => environment.default_store(),
        }
    }
}

/// `wakebox gc`.
#[derive(Debug, Args)]
pub struct GcArguments {
    /// Remove blobs that were not used for so long: 90s, 10m, 12h, 7d, 4w. Also how long outputs of
    /// jobs that died before their result was written wait for `recover` [default for these: 1d]
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older_than: Option<Duration>,
    /// Remove the least recently used blobs until the rest has at most so many bytes: 500M, 10G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_size: Option<u64>,
    /// Keep what this file names (a result, a spec, a list of hashes or HASH/SIZE of trees), or
    /// every file of this directory; as for files and links in DIR/pins of the store
    #[arg(long = "root", value_name = "FILE|DIR")]
    pub roots: Vec<PathBuf>,
    /// Remove from a store, too, that wakebox did not make or that other hosts can reach
    #[arg(long)]
    pub foreign: bool,
    /// Remove nothing, and tell what would be
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgument,
}

/// `wakebox fsck`.
#[derive(Debug, Args)]
pub struct FsckArguments {
    /// Tell what of this file, or of any file of this directory, is corrupt or missing
    #[arg(long = "root", value_name = "FILE|DIR")]
    pub roots: Vec<PathBuf>,
    /// Move corrupt blobs also out of a store that wakebox did not make
    #[arg(long)]
    pub foreign: bool,
    /// Leave corrupt blobs where they are
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgument,
}

/// `wakebox recover`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("place").multiple(true).args(["to", "result"]))]
pub struct RecoverArguments {
    /// The job's directory in the staging area, as the list has it
    #[arg(requires = "place", conflicts_with = "list")]
    pub staging: Option<String>,
    /// List what can be recovered, as is done when nothing is named
    #[arg(long)]
    pub list: bool,
    /// Write the outputs into this directory; nothing that is there is replaced
    #[arg(long, value_name = "DIR", requires = "staging")]
    pub to: Option<PathBuf>,
    /// Write a result that names the outputs, which go into the store
    #[arg(long, value_name = "FILE", requires = "staging")]
    pub result: Option<PathBuf>,
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgument,
}

/// `wakebox doctor`.
#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which store.
    #[command(flatten)]
    pub store: StoreArgument,
}

/// A whole number and its unit.
fn number(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = units
        .iter()
        .find(|(unit, _)| *unit == &text[digits.len()..])?;
    digits.parse::<u64>().ok()?.checked_mul(unit.1)
}

pub(super) fn age(text: &str) -> std::result::Result<Duration, String> {
    let units = [
        ("", 1),
        ("s", 1),
        ("m", 60),
        ("h", 3600),
        ("d", 86_400),
        ("w", 604_800),
    ];
    let seconds = number(text, &units);
    let expected = "expected a number with a unit: 90s, 10m, 12h, 7d, 4w";
    seconds.map(Duration::from_secs).ok_or(expected.into())
}

fn size(text: &str) -> std::result::Result<u64, String> {
    let units = [
        ("", 1),
        ("K", 1 << 10),
        ("M", 1 << 20),
        ("G", 1 << 30),
        ("T", 1 << 40),
    ];
    let expected = "expected a number of bytes with a unit: 4096, 500M, 10G";
    number(text, &units).ok_or(expected.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units_and_limits() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("3K"), Ok(3072));
        assert_eq!(size("2T"), Ok(2 << 40));
        assert_eq!(age("7d"), Ok(Duration::from_secs(604_800)));
        for wrong in [
            "",
            "G",
            "-1",
            "1.5G",
            "1x",
            "1GG",
            "99999999999T",
            "1 G",
            "٣G",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "d", "-1d", "1y", "1D", "99999999999999999999"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
