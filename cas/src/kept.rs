//! Jobs that failed and were kept, to be looked at later: their staging directories, with the report
//! of [`recovery`](crate::recovery) that names the files, the manifest of what they used, and this.
//!
//! A kept job needs no process. The collector spares it, with all that its manifest names, until its
//! time is over.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::recovery::{read, write};
use crate::text::Text;

/// The document's name in the staging directory.
pub const FILE: &str = "kept.json";

/// The version of the document that is written and understood here.
pub const VERSION: u32 = 1;

/// A job that was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// [`VERSION`].
    pub version: u32,
    /// When it ended, seconds since the epoch.
    pub since: i64,
    /// How long it is kept, seconds.
    #[serde(rename = "for")]
    pub seconds: u64,
    /// What people call it.
    pub label: String,
    /// How it ended, as the result has it.
    pub status: i32,
    /// How it was asked for.
    pub call: Call,
}

/// How a job was asked for: enough to ask for it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Where.
    pub directory: Text,
    /// The command line of `wakebox`, without its name.
    pub words: Vec<Text>,
    /// The spec, if that was a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<String>,
    /// The environment that the command was given.
    pub environment: Vec<Text>,
}

impl Kept {
    /// Writes it into a staging directory.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, directory: BorrowedFd<'_>) -> Result<()> {
        let bytes = serde_json::to_vec(self).context("keep the job in", FILE)?;
        write(directory, FILE, &bytes, "keep the job in")
    }

    /// Reads that of a staging directory, if it has one that can be understood.
    pub fn read(directory: BorrowedFd<'_>) -> Option<Self> {
        let kept: Self = serde_json::from_slice(&read(directory, FILE)?).ok()?;
        (kept.version == VERSION).then_some(kept)
    }

    /// Whether its time is over: what was said with it, unless the collector is told an age.
    pub fn is_over(&self, older_than: Option<Duration>, now: i64) -> bool {
        let seconds = older_than.map_or(self.seconds, |age| age.as_secs());
        now.saturating_sub(self.since) >= i64::try_from(seconds).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_kept_job_is_read_back_and_its_time_passes() {
        let root = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(root.path()).unwrap();
        assert_eq!(Kept::read(directory.as_fd()), None);
        let text = |bytes: &[u8]| Text(bytes.into());
        let kept = Kept {
            version: VERSION,
            since: 1000,
            seconds: 60,
            label: "cc".into(),
            status: 1,
            call: Call {
                directory: text(b"/w\xff"),
                words: vec![text(b"run"), text(b"cc")],
                spec: None,
                environment: vec![text(b"A=\xfe")],
            },
        };
        kept.write(directory.as_fd()).unwrap();
        assert_eq!(Kept::read(directory.as_fd()), Some(kept.clone()));
        assert!(!kept.is_over(None, 1059) && kept.is_over(None, 1060));
        let told = |seconds| Some(Duration::from_secs(seconds));
        assert!(kept.is_over(told(5), 1005) && !kept.is_over(told(500), 1100));
        assert!(!kept.is_over(told(u64::MAX), i64::MAX - 1));
    }
}
