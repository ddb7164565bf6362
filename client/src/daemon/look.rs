//! Looking into jobs that run, by their daemons.

use std::fs::File;
use std::os::fd::OwnedFd;

use cas::look::{Look, Page, Running};
use cas::protocol::{self, Reply, Request};
use serde::de::DeserializeOwned;

use super::{DaemonError, Lease, unexpected};

const WHAT: &str = "look into a job";

impl Lease {
    /// All jobs that the daemon serves, the oldest first. One that is stopped or stuck does not hold
    /// up whoever asks.
    pub fn jobs(&self) -> Result<Vec<Running>, DaemonError> {
        self.limit_patience();
        match self.ask(WHAT, &Request::Jobs, None)? {
            (Reply::Jobs, Some(document)) => read(document),
            (other, _) => Err(unexpected(WHAT, &other)),
        }
    }

    /// A page of a directory or of outputs.
    pub fn page(&self, job: &str, at: Look) -> Result<Page, DaemonError> {
        read(self.seen(job, at)?)
    }

    /// A file of a job, opened for reading.
    pub fn file(&self, job: &str, at: Look) -> Result<File, DaemonError> {
        self.seen(job, at).map(File::from)
    }

    fn seen(&self, job: &str, at: Look) -> Result<OwnedFd, DaemonError> {
        let job = job.to_owned();
        match self.ask(WHAT, &Request::Look { job, at }, None)? {
            (Reply::Seen, Some(seen)) => Ok(seen),
            (other, _) => Err(unexpected(WHAT, &other)),
        }
    }
}

fn read<T: DeserializeOwned>(document: OwnedFd) -> Result<T, DaemonError> {
    let lost = |source: std::io::Error| DaemonError::Lost { what: WHAT, source };
    let bytes = protocol::read_document(document).map_err(lost)?;
    serde_json::from_slice(&bytes).map_err(|error| lost(error.into()))
}
