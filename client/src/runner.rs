//! What a build tool that runs us as its runner listens to.

use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::OFlags;

use crate::sandbox;

/// wake opens descriptor 3 for what a runner has to say, and 4 for its errors.
const OUTPUT: i32 = 3;
const ERRORS: i32 = 4;

/// Who wants to hear of our own failures, apart from the job's standard error.
#[derive(Debug)]
pub struct Listener(Option<File>);

impl Listener {
    /// Looks for a caller's descriptor for errors. To be called before anything is opened.
    pub fn find() -> Self {
        let errors = sandbox::inherited(ERRORS).filter(|fd| can_be_written(*fd));
        // Make hands its job server down as 3 for reading and 4 for writing, and each byte
        // written there is a token.
        let tokens = sandbox::inherited(OUTPUT).is_some_and(|fd| !can_be_written(fd));
        let errors = errors.filter(|_| !tokens);
        let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().ok();
        Self(errors.and_then(own).map(|fd: OwnedFd| fd.into()))
    }

    /// Tells of a failure in one line. A caller that does not listen is no failure.
    pub fn tell(&self, failure: &impl Display) {
        if let Some(mut file) = self.0.as_ref() {
            let _ = file.write_all(format!("wakebox: {failure}\n").as_bytes());
        }
    }
}

fn can_be_written(fd: BorrowedFd<'_>) -> bool {
    let flags = rustix::fs::fcntl_getfl(fd);
    flags.is_ok_and(|flags| flags.intersects(OFlags::WRONLY | OFlags::RDWR))
}
